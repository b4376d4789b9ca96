"""Whether changes between two years are found on simulated countries that nobody has looked at.

    python -m benchmarks.change --seeds 20 --judge "why" [--folder FOLDER] [--json]

For each seed: 2020 from its scenes to its maps as in `benchmarks.accuracy`, whose folders are taken
up; 2021 with the members of 2020; both adjusted to their census; hectares and intervals of both;
change between them, all with the functions that the assets call. Only then is the truth of both
years opened, and it is told what share of the hectares that truly changed was called significant
(of all, and of those that changed by 10, 20 and 40 people), what share of those that did not, how
many of the significant ones are false, and what share of true changes the intervals hold, of
hectares with people and of finer census units. `docs/method.md` says which seeds the rule was
chosen on, and which are for judging.

Bound: at most 10 % of the significant hectares are false, the false discovery rate that is stated.
Exit status 1 where a seed misses it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.accuracy import Place, asked, judge, look_at, prepare, seeds_parser, train
from benchmarks.intervals import error_model
from benchmarks.judging import family_of_seed
from benchmarks.places import place_of
from popcorn_assets.country import load_country
from popcorn_ml import raster
from popcorn_ml.evaluation.change import FALSE_DISCOVERIES, Found, write_change
from popcorn_ml.evaluation.change_units import errors_together, rows, sum_units
from popcorn_ml.files import write_json
from popcorn_ml.intervals.hectares import write_intervals
from popcorn_ml.intervals.measures import measure
from popcorn_ml.mapping.aggregate import aggregate_map, cell_sums
from popcorn_ml.mapping.dasymetric import (
    ADJUSTMENT_FILE,
    AdjustedMembers,
    Layers,
    read_adjustment,
)

YEARS = (2020, 2021)
SIZES = (1, 10, 20, 40)
RESULT = "change.json"


def hectares(place: Place, members: list[Path]) -> Path:
    """Maps of a year, per hectare with intervals; the folder of the hectares."""
    out, grid = place.folder / "map", place.country.pixel_grid()
    if not (out / "adjusted" / ADJUSTMENT_FILE).exists():
        judge(place, members)
    adjustment = read_adjustment(out / "adjusted" / ADJUSTMENT_FILE)
    names = ("population.tif", "population_members.tif", "builtup_score.tif")
    units = place.units(place.level)
    layers = Layers(*(out / name for name in names), units, grid)
    folder = out / "hectares"
    adjusted = out / "adjusted" / "population.tif"
    aggregate_map(adjusted, AdjustedMembers(adjustment, layers), grid, folder)
    given, _, _, measured = error_model(place, members, out)
    if given.model is None:
        raise SystemExit(f"seed {place.seed}, {place.year}: {given.why}")
    write_intervals(
        given.model,
        grid,
        folder,
        population=out / "population.tif",
        adjusted=adjusted,
        units=units,
        unit_measures=measured,
        method=adjustment.method,
    )
    return folder


def truth(place: Place) -> np.ndarray:
    """True people per pixel: the first time that anything of the truth is opened."""
    path = (place.country.evaluation.truth or "").format(year=place.year)
    return raster.read_float(place.folder / path, None, 1, dtype="float64")


def held(true: np.ndarray, low: np.ndarray, high: np.ndarray, chosen: np.ndarray) -> float:
    """Share of true changes within an interval, half a person on either side."""
    inside = (true >= low - 0.5) & (true <= high + 0.5)
    return float(inside[chosen].mean()) if chosen.any() else float("nan")


def of_hectares(bands: np.ndarray, true: np.ndarray, inhabited: np.ndarray) -> dict[str, float]:
    """What was found and what falsely flagged, and what intervals hold.

    Args:
        bands: of `change.tif`.
        true: true change per hectare.
        inhabited: hectares with a person in a year, true or mapped.
    """
    flagged = np.nan_to_num(bands[5])
    changed = true != 0
    right = changed & (flagged == np.sign(true))
    found = {
        f"found of {size} or more": float(right[np.abs(true) >= size].mean()) for size in SIZES
    }
    sure = flagged != 0
    return {
        "hectares": int(inhabited.sum()),
        "changed": int(changed.sum()),
        "significant": int(sure.sum()),
        **found,
        "people in what was found": float(true[right].sum() / max(true[changed].sum(), 1)),
        "unchanged falsely flagged": float(sure[inhabited & ~changed].mean()),
        "false among significant": float((sure & ~right).sum() / max(sure.sum(), 1)),
        "80 holds": held(true, bands[2], bands[3], inhabited),
        "95 holds": held(true, bands[1], bands[4], inhabited),
        "95 holds of changed": held(true, bands[1], bands[4], inhabited & changed),
        "95 holds of significant": held(true, bands[1], bands[4], sure),
    }


def of_units(
    one: Place, two: Place, found: Found, true: tuple[np.ndarray, np.ndarray]
) -> dict[str, float]:
    """The same for the finer census units."""
    grid, raster_file = two.country.pixel_grid(), two.units("fine")
    numbers = raster.read(raster_file, None, 1)
    count = int(numbers.max())
    counted = [True] * len(two.people(two.level))
    maps = tuple(place.folder / "map" / "adjusted" / "population.tif" for place in (one, two))
    units = sum_units(raster_file, count, maps, two.units(two.level), counted, grid, found)
    ids = {number: str(number) for number in range(1, count + 1)}
    made = rows(units, ids, "fine", one.year, found)
    from popcorn_ml.zones import zone_sums

    before, now = (zone_sums(numbers, people, count) for people in true)
    change = np.array([(now - before)[int(str(row["unit_id"]))] for row in made])
    quantiles = np.array([[row[k] for k in ("p2_5", "p10", "p90", "p97_5")] for row in made]).T
    mapped = np.array([row["people"] for row in made], float)
    sure = np.array([bool(row["significant"]) for row in made])
    right = sure & (np.sign(mapped) == np.sign(change))
    everyone = np.ones(len(made), bool)
    return {
        "units": len(made),
        "changed": int((change != 0).sum()),
        "significant": int(sure.sum()),
        **{
            f"found of {size} or more": float(right[np.abs(change) >= size].mean())
            for size in SIZES
        },
        "false among significant": float((sure & ~right).sum() / max(sure.sum(), 1)),
        "80 holds": held(change, quantiles[1], quantiles[2], everyone),
        "95 holds": held(change, quantiles[0], quantiles[3], everyone),
    }


def together(one: Place, two: Place, members: list[Path]) -> dict[str, float | int]:
    """How errors of both years go together, from units that members had not seen."""
    from benchmarks.intervals import unseen_by

    seen, told = unseen_by(members), []
    for place in (one, two):
        people = np.array(place.people(place.level), float)
        bands = place.folder / "map" / "population_members.tif"
        _, by = measure(
            place.units(place.level), [], place.country.pixel_grid(), len(people), members=bands
        )
        predicted = np.full(len(people), np.nan)
        for number, unit in seen.items():
            predicted[number - 1] = by[list(unit.members), number].mean()
        told.append((predicted, people))
    return errors_together(*told).as_dict()


def measure_seed(seed: int, folder: Path, threads: int) -> dict[str, object]:
    """One seed from its scenes to what was found of its change."""
    one = place_of(seed, folder, load_country("demo"), threads, family_of_seed(seed))
    two = replace(one, folder=one.folder / str(YEARS[1]), year=YEARS[1])
    prepare(one)
    members = train(one)
    prepare(two)
    folders = [hectares(place, members) for place in (one, two)]
    before, now = (folder / "population.tif" for folder in folders)
    grid = raster.grid_of(now)
    out = two.folder / "change.tif"
    intervals = (folders[0] / "intervals.tif", folders[1] / "intervals.tif")
    found = write_change(before, now, intervals, grid, out)
    told = together(one, two, members)
    true = truth(one), truth(two)
    first, second = (cell_sums(people) for people in true)
    mapped = [raster.read_float(path, None, 1) for path in (before, now)]
    people = np.stack([first, second, *mapped])
    inhabited = np.isfinite(people).all(axis=0) & (np.nan_to_num(people).max(axis=0) >= 1)
    result = {
        "seed": seed,
        "hectares": of_hectares(raster.read_float(out), np.nan_to_num(second - first), inhabited),
        "fine units": of_units(one, two, found, true),
        "errors of two years": told,
        "neighbours differ together": found.outward,
    }
    write_json(two.folder / RESULT, result)
    return result


def summary(found: list[dict]) -> dict[str, dict[str, float]]:
    """Of each seed, how much is found and how much of it is false: for the record of looks."""
    told = ("found of 1 or more", "found of 20 or more", "false among significant")
    return {
        str(row["seed"]): {name: round(row["hectares"][name], 3) for name in told} for row in found
    }


def main() -> int:
    """Measure the seeds named and print what was found."""
    parser = seeds_parser(__doc__)
    given, passing = asked(parser)
    look = look_at(parser, given)
    folder = given.folder
    found = []
    for seed in given.seeds:
        row = measure_seed(seed, folder, given.threads)
        found.append(row)
        if not given.json:
            print(f"seed {seed}", flush=True)
            for of in ("hectares", "fine units", "errors of two years"):
                told = ", ".join(f"{name} {value:.3g}" for name, value in row[of].items())
                print(f"  {of}: {told}", flush=True)
    if given.json:
        print(json.dumps(found, indent=1))
    look.found(summary(found))
    if passing:
        passing.cleanup()
    worst = max(row["hectares"]["false among significant"] for row in found)
    return 0 if worst <= FALSE_DISCOVERIES else 1


if __name__ == "__main__":
    raise SystemExit(main())
