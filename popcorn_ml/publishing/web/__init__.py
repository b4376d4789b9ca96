"""The web map of a folder of published maps: one page, its scripts and what they need to know.

`page` writes it into a folder, `entries` says what the page has to know of each map, `outlines` has
census units as GeoJSON, `server` serves it on this machine. The page itself is in `static/`: its
own modules and, in `static/vendor/`, the libraries it is built on; it asks nobody outside.
"""

from popcorn_ml.publishing.web.page import write_web_map

__all__ = ["write_web_map"]
