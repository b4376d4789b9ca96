"""From networks and composites to maps: tiles, ensemble, adjustment to the census, hectares.

Imports with torch, numpy and lightning alone, so that it runs on a bare GPU node.
"""
