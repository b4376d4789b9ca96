"""Whether intervals hold on simulated countries that nobody has looked at.

    python -m benchmarks.intervals --seeds 20 301 302 303 --judge "why" [--folder FOLDER] [--json]

For each seed: scenes, census, composites, members, maps and adjusted maps as in
`benchmarks.accuracy`, whose folders are taken up; then the error model from the census units that
members predicted unseen, and intervals, all with the functions that the assets call. Only then are
the true people of hectares and the counts of the finer census units opened, and it is told what
share of them intervals of 50, 80 and 95 % hold, of the map and of the adjusted map, and the mean of
Winkler's interval score of those of 80 %, beside two simpler ways that are fitted on the same
units: one constant error in share, and the members' spread times one factor. `docs/method.md` says
which seeds the law was chosen on, and which are for judging.

Bound: intervals of 80 % hold 75 to 85 % and those of 95 % 92 to 97 % of the hectares with people
(more than 1, true or mapped) and of the finer units, of both maps, with a better score than either
simpler way. Exit status 1 where a seed misses it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.accuracy import YEAR, Place, asked, judge, look_at, prepare, seeds_parser, train
from benchmarks.judging import family_of_seed
from benchmarks.places import place_of
from popcorn_assets.country import load_country
from popcorn_ml import raster
from popcorn_ml.files import write_json
from popcorn_ml.grid import HECTARE_M2
from popcorn_ml.intervals.coverage import INHABITED, Coverage, interval_score, of_known
from popcorn_ml.intervals.fitting import Unseen, conformal
from popcorn_ml.intervals.law import LEVELS, interval
from popcorn_ml.intervals.measures import Measured, cell_areas, crowding, measure
from popcorn_ml.intervals.model import ErrorModel
from popcorn_ml.intervals.parts import adjusted_variance, no_parts, parts_of
from popcorn_ml.intervals.units import Given, Seen, give, unseen_units
from popcorn_ml.mapping.aggregate import cell_sums
from popcorn_ml.mapping.dasymetric import (
    ADJUSTMENT_FILE,
    AdjustedMembers,
    Layers,
    read_adjustment,
)
from popcorn_ml.mapping.ensemble import spread_of
from popcorn_ml.training.out_of_fold import collected
from popcorn_ml.zones import zone_table

RESULT = "intervals.json"
BOUNDS = {80: (0.75, 0.85), 95: (0.92, 0.97)}
SCORED = 80


@dataclass(frozen=True)
class Zones:
    """Zones of one map, and how far each way of telling it takes them to be off.

    Attributes:
        name: "adjusted, hectares".
        people, variances, spread: the estimate, its variance by the law, the members' spread.
        area_ha: of units; None for hectares.
    """

    name: str
    people: np.ndarray
    variances: np.ndarray
    spread: np.ndarray
    area_ha: np.ndarray | None


def unseen_by(members: list[Path]) -> dict[int, Seen]:
    """Unit number -> the members that held it out."""
    found = collected({str(band): path.parent for band, path in enumerate(members)})
    return {
        unit.number: Seen(tuple(sorted(int(band) for band in unit.by)), unit.fold or 0)
        for unit in found
    }


def error_model(
    place: Place, members: list[Path], out: Path
) -> tuple[Given, Unseen, np.ndarray, Measured]:
    """The error model, the units behind it with the members' spread of each, the adjusted units."""
    grid, people = place.country.pixel_grid(), place.people(place.level)
    maps = [out / "population.tif", out / "adjusted" / "population.tif"]
    bands = out / "population_members.tif"
    (of_map, of_adjusted), by_member = measure(
        place.units(place.level), maps, grid, len(people), members=bands, threads=place.threads
    )
    pixel_ha = grid.pixel_area_m2 / HECTARE_M2
    unseen = unseen_units(of_map, by_member, people, unseen_by(members), pixel_ha)
    told = {
        "level": place.level,
        "country": "demo",
        "year": place.year,
        "trained_on": ("demo", YEAR),
    }
    return give(unseen, **told), unseen, spread_of(by_member)[unseen.number], of_adjusted


def zones_of(place: Place, model: ErrorModel, out: Path, units: Measured) -> list[Zones]:
    """Hectares and fine units of both maps. Reads no truth."""
    grid = place.country.pixel_grid()
    whole = grid.whole()
    adjustment = read_adjustment(out / "adjusted" / ADJUSTMENT_FILE)
    layers = Layers(
        out / "population.tif",
        out / "population_members.tif",
        out / "builtup_score.tif",
        place.units(place.level),
        grid,
    )
    numbers = raster.read(place.units(place.level), None, 1)
    fine = raster.read(place.units("fine"), None, 1)
    areas = cell_areas(grid, whole)
    shape = (grid.height // 10, grid.width // 10)
    cells = np.arange(1, shape[0] * shape[1] + 1).reshape(shape)
    cells = np.repeat(np.repeat(cells, 10, axis=0), 10, axis=1)
    maps = {
        "map": (out / "population.tif", layers.by_member(whole)),
        "adjusted": (
            out / "adjusted" / "population.tif",
            list(AdjustedMembers(adjustment, layers).read(whole)),
        ),
    }
    found = []
    for name, (path, by_member) in maps.items():
        people = raster.read_float(path, None, 1)
        crowd = crowding(people, areas)
        for of, zones in (("hectares", cells), ("fine units", fine)):
            count = int(zones.max())
            table = zone_table(zones, [people, crowd, *by_member], count)
            if name == "map":
                variances = model.map_variance(table.sums[0], table.sums[1])
            else:
                parts = no_parts().joined(parts_of(zones, numbers, people, crowd))
                variances = adjusted_variance(model, parts, units, adjustment.method, count)
            found.append(
                Zones(
                    f"{name}, {of}",
                    table.sums[0, 1:],
                    variances[1:],
                    spread_of(table.sums[2:])[1:],
                    None if of == "hectares" else table.pixels[1:] * grid.pixel_area_m2 / 1e4,
                )
            )
    return found


def truth_of(place: Place, zones: Zones) -> np.ndarray:
    """The true people of each zone: the first time that anything of the truth is opened."""
    if zones.area_ha is not None:
        return np.array(place.people("fine"), np.float64)
    path = place.folder / (place.country.evaluation.truth or "").format(year=place.year)
    return cell_sums(raster.read_float(path, None, 1)).ravel()


def scores(
    zones: Zones, true: np.ndarray, model: ErrorModel, unseen: Unseen, spread: np.ndarray
) -> dict[str, float]:
    """Mean interval score by the law and by the two simpler ways."""
    off = np.abs(unseen.counted - unseen.people)
    share = conformal(off / np.maximum(unseen.people, 1e-9), SCORED / 100)
    factor = conformal(off / np.maximum(spread, 1e-9), SCORED / 100)
    chosen = np.ones(len(true), bool)
    if zones.area_ha is None:
        chosen = (true > INHABITED) | (zones.people > INHABITED)
    ways: Mapping[str, tuple[np.ndarray, np.ndarray]] = {
        "law": interval(zones.people, zones.variances, SCORED, model.widths[SCORED]),
        "constant share": _around(zones.people, share * zones.people),
        "spread": _around(zones.people, factor * zones.spread),
    }
    return {
        name: float(interval_score(true, low, high, SCORED)[chosen].mean())
        for name, (low, high) in ways.items()
    }


def _around(people: np.ndarray, half: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.maximum(people - half, 0.0), people + half


def measure_seed(seed: int, folder: Path, threads: int) -> dict[str, object]:
    """One seed from its scenes to what its intervals hold."""
    place = place_of(seed, folder, load_country("demo"), threads, family_of_seed(seed))
    prepare(place)
    members = train(place)
    out = place.folder / "map"
    if not (out / "adjusted" / ADJUSTMENT_FILE).exists():
        judge(place, members)
    given, unseen, spread, units = error_model(place, members, out)
    if given.model is None:
        raise SystemExit(f"seed {seed}: {given.why}")
    zones = zones_of(place, given.model, out, units)
    rows = []
    for each in zones:
        true = truth_of(place, each)
        covered: list[Coverage] = of_known(
            given.model,
            each.name,
            each.people,
            each.variances,
            true,
            area_ha=each.area_ha,
            inhabited=each.area_ha is None,
        )
        rows.append(
            {
                "of": each.name,
                "n": covered[0].n,
                "held": {str(level): covered[0].held[level] for level in LEVELS},
                "scores": scores(each, true, given.model, unseen, spread),
                "classes": [row.as_dict() for row in covered[1:]],
            }
        )
    found = {"seed": seed, "model": given.model.as_dict(), "zones": rows}
    write_json(place.folder / RESULT, found)
    return found


def met(row: dict) -> bool:
    """Whether zones of one map are within the bound."""
    held = all(low <= row["held"][str(level)] <= high for level, (low, high) in BOUNDS.items())
    ways = row["scores"]
    return held and ways["law"] < min(ways["constant share"], ways["spread"])


def summary(found: list[dict]) -> dict[str, dict[str, dict[str, float]]]:
    """Of each seed, what its intervals hold: for the record of looks."""
    return {
        str(each["seed"]): {
            row["of"]: {level: round(row["held"][level], 3) for level in ("80", "95")}
            for row in each["zones"]
        }
        for each in found
    }


def main() -> int:
    """Measure the seeds named and print a line for each map and kind of zone."""
    parser = seeds_parser(__doc__)
    given, passing = asked(parser)
    look = look_at(parser, given)
    folder = given.folder
    found = []
    for seed in given.seeds:
        found.append(measure_seed(seed, folder, given.threads))
        if given.json:
            continue
        law = found[-1]["model"]["law"]
        print(f"seed {seed}: " + ", ".join(f"{k} {v:.3g}" for k, v in law.items()), flush=True)
        for row in found[-1]["zones"]:
            held = " / ".join(f"{100 * row['held'][str(level)]:.1f}" for level in LEVELS)
            ways = ", ".join(f"{name} {score:.0f}" for name, score in row["scores"].items())
            print(
                f"  {row['of']:22s} n {row['n']:5d}  50/80/95 %: {held}  score: {ways}  "
                f"{'met' if met(row) else 'MISSED'}",
                flush=True,
            )
    if given.json:
        print(json.dumps(found, indent=1))
    look.found(summary(found))
    if passing:
        passing.cleanup()
    return 0 if all(met(row) for each in found for row in each["zones"]) else 1


if __name__ == "__main__":
    raise SystemExit(main())
