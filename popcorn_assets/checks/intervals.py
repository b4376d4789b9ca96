"""The check of intervals: do they hold what they are meant to?

Of units that the error law was fitted without, of finer census levels that were kept out, and of
hectares where the true people are known.
"""

import json
from typing import TYPE_CHECKING, Any

import dagster as dg

from popcorn_assets.assets.intervals import COVERAGE, map_files
from popcorn_assets.assets.maps import hectare_map
from popcorn_assets.checks.verdict import newest, not_judged, verdict
from popcorn_assets.country import load_country
from popcorn_assets.partitions import COUNTRY_YEAR
from popcorn_assets.paths import given_path
from popcorn_assets.resources import ComputeResource, StoreResource
from popcorn_assets.show import markdown_image
from popcorn_assets.store.versions import Store, Version

if TYPE_CHECKING:
    from popcorn_ml.intervals.coverage import Coverage

WITHIN = {80: (0.75, 0.85), 95: (0.92, 0.97)}
"""Level in per cent -> share that its intervals may hold; chance is allowed for on top of it."""

STANDARD_ERRORS = 2.0
"""How far off chance may put a share, in standard errors."""

NAMES = {"map": "map", "adjusted": "adjusted map"}


@dg.asset_check(asset=hectare_map, partitions_def=COUNTRY_YEAR)
def intervals_hold(
    context: dg.AssetCheckExecutionContext, store: StoreResource, compute: ComputeResource
) -> dg.AssetCheckResult:
    """Intervals hold the share of people's true numbers that they are meant to."""
    from popcorn_ml.intervals.coverage import coverage_png

    made = newest(context, store, "hectare_map")
    told = made.manifest()["facts"].get("intervals")
    if told is None or not told["given"]:
        why = "it was made before there were intervals" if told is None else told["why"]
        return not_judged(why, remedy="see docs/method.md on what intervals need")
    unseen = [_read(row) for row in json.loads(made.file(COVERAGE).read_text("utf-8"))]
    kinds = [unseen, *known(store.open(), made, compute.thread_count())]
    off = [sentence for rows in kinds for sentence in _off(rows[0])]
    result = verdict(
        not off,
        "; ".join(off) if off else _held(kinds),
        remedy="read intervals as too narrow or too wide as told, by size and density in the "
        "table; more counted units, or more members, make them better",
        warns=True,
        rows=[row.as_dict() for rows in kinds for row in rows],
    )
    pictures = "\n\n".join(markdown_image(coverage_png(rows)) for rows in kinds)
    return result._replace(metadata={"pictures": dg.MetadataValue.md(pictures), **result.metadata})


def known(store: Store, made: Version, threads: int) -> list[list["Coverage"]]:
    """Intervals of both maps against all that is known and that nothing was fitted on."""
    from popcorn_ml.intervals.known import of_hectares, of_units
    from popcorn_ml.intervals.zones import Ready

    country = load_country(made.address.country or "")
    files = map_files(store, made)
    adjusted = store.made_from(made, "adjusted_map")
    units = store.made_from(adjusted, "census_units")
    counts = store.made_from(adjusted, "census_counts")
    kept_out = [
        level
        for level in country.census.evaluation_levels
        if f"counts_{level}.json" in counts.manifest()["files"]
    ]
    truth = country.evaluation.truth
    found = []
    for product, name in NAMES.items():
        ready = Ready.of(files, product, threads=threads)  # type: ignore[arg-type]
        for level in kept_out:
            rows = json.loads(counts.file(f"counts_{level}.json").read_text("utf-8"))
            counted = {row["number"]: float(row["people"]) for row in rows}
            raster = units.file(f"units_{level}.tif")
            found.append(of_units(ready, raster, counted, f"{name}, units of the level {level}"))
        if truth:
            path = given_path(truth.replace("{year}", str(made.address.year)))
            found.append(of_hectares(ready, path, f"{name}, inhabited {ready.grid.cell_title}s"))
    return [rows for rows in found if rows[0].n]


def _read(row: dict[str, Any]) -> "Coverage":
    """A row of `coverage.json`."""
    from popcorn_ml.intervals.coverage import Coverage

    return Coverage.from_dict(row)


def _off(row: "Coverage") -> list[str]:
    """What is held too seldom or too often, in words."""
    said = []
    for level, (low, high) in WITHIN.items():
        share, meant = row.held[level], level / 100
        chance = STANDARD_ERRORS * (meant * (1 - meant) / max(row.n, 1)) ** 0.5
        if low - chance <= share <= high + chance:
            continue
        which = "too narrow" if share < low else "too wide"
        said.append(
            f"{row.of}: intervals of {level} % hold {share:.1%} of {row.n:,} and are {which}"
        )
    return said


def _held(kinds: list[list["Coverage"]]) -> str:
    told = [
        f"{rows[0].of}: {rows[0].held[80]:.0%} and {rows[0].held[95]:.0%} of {rows[0].n:,}"
        for rows in kinds
    ]
    return "intervals of 80 and 95 % hold of " + "; ".join(told)


checks = [intervals_hold]
