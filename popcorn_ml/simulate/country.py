"""Writing a simulated country to disk: scenes with their items, census files, truth.

One folder holds it all and a manifest of what it was made from; a second call makes only what is
missing or out of date. What the files hold is decided elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from popcorn_ml.files import write_json
from popcorn_ml.simulate import census, census_errors
from popcorn_ml.simulate.family import World, family_of
from popcorn_ml.simulate.scenes import Acquisition, acquisitions, write_acquisition
from popcorn_ml.simulate.spec import MARGIN_PX, CountrySpec

MANIFEST = "manifest.json"
ITEMS = "items.json"
PARTS = ("scenes", "census", "truth", ITEMS, MANIFEST)


@dataclass(frozen=True)
class CountrySummary:
    """What `write_country` has put where.

    Attributes:
        folder: the country's folder.
        items: its STAC item collection (GeoJSON FeatureCollection), hrefs relative to it.
        years: the years it covers.
        scenes: how many items there are, by collection.
        people: true total of each year.
        units: how many census units there are, by level.
        written: whether anything had to be made by this call.
    """

    folder: Path
    items: Path
    years: tuple[int, ...]
    scenes: dict[str, int]
    people: dict[int, int]
    units: dict[str, int]
    written: bool

    def units_file(self, level: str) -> Path:
        """GeoPackage of a level ("coarse" or "fine"), layer `units`: id, name, parent."""
        return self.folder / "census" / f"units_{level}.gpkg"

    def counts_file(self, level: str, year: int) -> Path:
        """CSV of a level's counts in a year: id, name, parent, people."""
        return self.folder / "census" / f"counts_{level}_{year}.csv"

    def truth_file(self, year: int) -> Path:
        """People per 10 m pixel, for evaluation only."""
        return self.folder / "truth" / f"truth_{year}.tif"


def write_country(
    out_dir: Path,
    spec: CountrySpec,
    years: Sequence[int],
    progress: Callable[[int, int], None] | None = None,
    workers: int = 2,
) -> CountrySummary:
    """Write a simulated country, or whatever of it is missing or out of date.

    Args:
        out_dir: folder of the country. Files appear in it whole; the item collection comes after
            the scenes it names, the manifest last.
        spec: the country. Another specification than the folder's replaces what is there.
        years: years to cover; those already there are kept.
        progress: called with (overpasses done, overpasses in all).
        workers: threads; the bytes written do not depend on it.

    Returns:
        Where things are and how many there are.
    """
    out_dir = Path(out_dir)
    key = _key(spec)
    known = _read_manifest(out_dir)
    if known is not None and known["key"] != key:
        known = None
    if known is None:
        for part in PARTS[::-1]:  # what names files goes before the files
            target = out_dir / part
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
    else:
        _drop_damaged(out_dir, known["files"])
    wanted = sorted({*years, *(known["years"] if known else ())})
    current = (
        known is not None
        and known["years"] == wanted
        and all((out_dir / name).is_file() for name in known["files"])
    )
    if not current:
        out_dir.mkdir(parents=True, exist_ok=True)
        known = _write(out_dir, spec, wanted, key, progress, workers)
    assert known is not None
    return CountrySummary(
        folder=out_dir,
        items=out_dir / ITEMS,
        years=tuple(wanted),
        scenes=known["scenes"],
        people={int(year): total for year, total in known["people"].items()},
        units=known["units"],
        written=not current,
    )


def _write(out_dir, spec, years, key, progress, workers) -> dict[str, Any]:
    (out_dir / MANIFEST).unlink(missing_ok=True)
    write_json(out_dir / MANIFEST, {"key": key, "years": [], "files": {}, "complete": False})
    place = make_world(spec)
    levels, totals = _write_census(out_dir, spec, place, years)
    items = _write_scenes(out_dir, spec, place, years, progress, workers)
    write_json(out_dir / ITEMS, {"type": "FeatureCollection", "features": items})
    collections = [item["collection"] for item in items]
    manifest = {
        "key": key,
        "spec": spec.as_dict(),
        "years": list(years),
        "scenes": {name: collections.count(name) for name in sorted(set(collections))},
        "people": totals,
        "units": {level: len(units.ids) for level, units in levels.items()},
        "files": _sizes(out_dir, items),
        "complete": True,
    }
    write_json(out_dir / MANIFEST, manifest)
    return json.loads(json.dumps(manifest))


def make_world(spec: CountrySpec) -> World:
    """The place that a country lies in, with `MARGIN_PX` around it, drawn by its family."""
    family, shape = family_of(spec.family), spec.place_grid.shape
    return family.make_world(spec.seed, shape, spec.base_year, spec.urban_share)


def write_census(out_dir: Path, spec: CountrySpec, years: Sequence[int]) -> None:
    """Write a country's census files and truth alone: no scenes, no items, no manifest.

    For a census with errors of a country whose scenes are there already: they would be the same.
    """
    _write_census(Path(out_dir), spec, make_world(spec), years)


def _write_census(out_dir, spec, place, years) -> tuple[dict[str, census.Level], dict[int, int]]:
    """Units and counts of every level, and the truth; returns the levels and true totals."""
    family, inner = family_of(spec.family), (slice(MARGIN_PX, -MARGIN_PX),) * 2
    levels = family.make_units(spec, family.people(place, spec.base_year)[inner], place)
    published = census_errors.published_units(spec, levels)
    totals = {}
    for level, units in published.items():
        path = out_dir / "census" / f"units_{level}.gpkg"
        if not path.exists():
            census.write_units(path, units, spec.grid)
    for year in years:
        people = family.people(place, year)[inner]
        counted = people
        if spec.census_error.years_older:
            counted = family.people(place, year - spec.census_error.years_older)[inner]
        totals[year] = int(people.sum())
        for level, units in levels.items():
            counts = census.sums(units, people)
            if level == census_errors.LEVEL:
                counts = census_errors.published_counts(spec, year, census.sums(units, counted))
            path = out_dir / "census" / f"counts_{level}_{year}.csv"
            census.write_counts(path, units, counts)
        truth = out_dir / "truth" / f"truth_{year}.tif"
        if not truth.exists():
            census.write_truth(truth, people, spec.grid, year)
    return levels, totals


def _write_scenes(out_dir, spec, place, years, progress, workers) -> list[dict[str, Any]]:
    plan = [seen for year in years for seen in acquisitions(spec, year)]
    covered = {year: family_of(spec.family).surface(place, year) for year in years}

    def write(seen: Acquisition) -> list[dict[str, Any]]:
        return write_acquisition(spec, place, covered[seen.year], seen, out_dir)

    items: list[dict[str, Any]] = []
    with ThreadPoolExecutor(workers) as pool:
        for done, found in enumerate(pool.map(write, plan), start=1):
            items += found
            if progress is not None:
                progress(done, len(plan))
    items.sort(key=lambda item: (item["collection"], item["properties"]["datetime"], item["id"]))
    return items


def _sizes(out_dir: Path, items: list[dict[str, Any]]) -> dict[str, int]:
    names = [asset["href"][2:] for item in items for asset in item["assets"].values()]
    names += [
        str(path.relative_to(out_dir))
        for folder in ("census", "truth")
        for path in sorted((out_dir / folder).iterdir())
    ]
    names.append(ITEMS)
    return {name: (out_dir / name).stat().st_size for name in sorted(set(names))}


def _drop_damaged(out_dir: Path, sizes: dict[str, int]) -> None:
    """Remove files that are no longer of the size they were written with."""
    for name, size in sizes.items():
        path = out_dir / name
        if path.is_file() and path.stat().st_size != size:
            path.unlink()


def _key(spec: CountrySpec) -> str:
    """Hash of the specification and of the code that turns it into files."""
    digest = hashlib.sha256(json.dumps(spec.as_dict(), sort_keys=True).encode())
    shared = (
        "spec",
        "terrain",
        "buildings",
        "optics",
        "radar",
        "scenes",
        "census",
        "census_errors",
    )
    for name in (*(f"{name}.py" for name in shared), *family_of(spec.family).code):
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()


def _read_manifest(out_dir: Path) -> dict[str, Any] | None:
    try:
        return json.loads((out_dir / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
