"""The second family of worlds: a valley in dry country, irrigated along its river.

Built on other rules than the first (`terrain`, `settlements`, `world`): the land follows a valley,
towns are packed of projects of one builder each around an old town of courtyard houses, villages
are ribbons along canals and tracks, people are counted by dwellings and not by area, and census
units are cut in two again and again until each holds about as many people. Set for reasons of its
own, before any map of it was made; `docs/demo.md` describes it.
"""

from popcorn_ml.simulate.dryland.kinds import KIND_NAMES
from popcorn_ml.simulate.dryland.spectra import gamma_nought, rains, reflectance
from popcorn_ml.simulate.dryland.units import make_units
from popcorn_ml.simulate.dryland.world import MATERIALS, make_world, people, surface

MODULES = ("kinds", "land", "lots", "projects", "rural", "spectra", "units", "world")

__all__ = [
    "KIND_NAMES",
    "MATERIALS",
    "MODULES",
    "gamma_nought",
    "make_units",
    "make_world",
    "people",
    "rains",
    "reflectance",
    "surface",
]
