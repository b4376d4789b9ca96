"""Asset checks: what must hold before anything is made from an asset, and what to look at.

A check that blocks stops what follows in the same run, and what follows by itself; it is an error.
A warning stops nothing. Checks of imagery and census come with their assets, whose reports already
know the verdicts; these read back what was written.
"""

from popcorn_assets.checks import change, countries, intervals, maps, model

checks = [*model.checks, *countries.checks, *maps.checks, *intervals.checks, *change.checks]
