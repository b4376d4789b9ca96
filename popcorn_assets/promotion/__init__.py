"""Which model maps a country: what there is to choose from, what is good enough, what was
decided, and by whom.

The asset that asks for a decision is `assets.deployed_model`.
"""
