"""The two steps that the assets call: units onto the grid, and counts for the partition's year.

Each reads the files of the country's settings, writes its results into a folder, and returns a
report with checks, coverage, sources and the rows for the warehouse. What a message says and what
blocks is decided in the modules that this one ties together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popcorn_ml.census import geometry, validate
from popcorn_ml.census.counting import count_coverage, counts_for_year, entries_of, joined_counts
from popcorn_ml.census.files import Files, Source
from popcorn_ml.census.findings import (
    COUNT_CHECKS,
    UNIT_CHECKS,
    CheckResult,
    Finding,
    of_level,
    results,
)
from popcorn_ml.census.placing import Progress, unit_coverage, units_of_level
from popcorn_ml.census.settings import CensusSettings, LevelSettings
from popcorn_ml.census.text import name_key
from popcorn_ml.errors import CensusError
from popcorn_ml.files import replacing, write_json
from popcorn_ml.grid import Grid
from popcorn_ml.raster import bounded_cache

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd


@dataclass(frozen=True)
class UnitsReport:
    """What `prepare_units` did.

    Attributes:
        country, year: the partition.
        rasters: level -> GeoTIFF of unit numbers.
        tables: level -> GeoParquet of units.
        units: rows for the warehouse's table `units`, all levels.
        checks: one result for each of `findings.UNIT_CHECKS`.
        coverage: what `coverage.json` says.
        sources: the files read.
    """

    country: str
    year: int
    rasters: dict[str, Path]
    tables: dict[str, Path]
    units: pd.DataFrame
    checks: tuple[CheckResult, ...]
    coverage: dict[str, Any]
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class CountsReport:
    """What `prepare_counts` did.

    Attributes:
        country, year: the partition.
        files: level -> JSON of counts by unit number.
        counts: rows for the warehouse's table `counts`, all levels.
        totals: level -> people of all its units in the year.
        checks: one result for each of `findings.COUNT_CHECKS`.
        coverage: what `coverage.json` says.
        sources: the files read.
    """

    country: str
    year: int
    files: dict[str, Path]
    counts: pd.DataFrame
    totals: dict[str, float]
    checks: tuple[CheckResult, ...]
    coverage: dict[str, Any]
    sources: tuple[Source, ...]


def prepare_units(
    country: str,
    year: int,
    settings: CensusSettings,
    grid: Grid,
    out_dir: Path,
    base_dir: Path | Sequence[Path],
    progress: Progress | None = None,
) -> UnitsReport:
    """Read boundaries of every level, number the units and put them on the grid.

    Writes into `out_dir`: `units_<level>.tif` (uint32 unit numbers 1..n in the order of the ids,
    for a raster of units in that of their own numbers; 0 and nodata for none),
    `units_<level>.parquet` (GeoParquet in EPSG:4326: number, id, name, parent, vintage, status,
    merged_into, pixels, area_ha, pixel_area_ha, file, row, geometry),
    `coverage.json` and `sources.json`.

    Args:
        country: its code.
        year: the partition's.
        settings: the census section of the country's file.
        grid: the country's.
        out_dir: an existing or new folder.
        base_dir: folder, or folders in order of preference, that the settings' paths start from.
        progress: called with strips burnt and strips of all levels.

    Raises:
        CensusError: a file or a whole level that cannot be used. Single units that are wrong do
            not raise; they are in the checks.
    """
    import pandas as pd

    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    findings: list[Finding] = []
    frames, rasters, tables, sources = [], {}, {}, []
    coverage: dict[str, Any] = {"country": country, "year": year, "levels": {}}
    with Files(base_dir) as files, bounded_cache():
        for k, (name, level) in enumerate(settings.levels.items()):
            found, frame, own = units_of_level(
                name, level, files, grid, settings, out_dir, (country, year),
                _part(progress, k, len(settings.levels)),
            )  # fmt: skip
            rasters[name] = out_dir / f"units_{name}.tif"
            tables[name] = out_dir / f"units_{name}.parquet"
            with replacing(tables[name]) as draft:
                frame.to_parquet(draft, index=False)
            findings += of_level(found, name)
            sources += own
            coverage["levels"][name] = unit_coverage(frame, found)
            rows = frame.assign(level=name)
            rows["geometry_wkb"] = frame.geometry.to_wkb()
            frames.append(pd.DataFrame(rows.drop(columns="geometry")))
    sources = _distinct(sources)
    write_json(out_dir / "coverage.json", coverage)
    write_json(out_dir / "sources.json", [asdict(s) for s in sources])
    units = pd.concat(frames, ignore_index=True)
    units["crs"] = geometry.LON_LAT
    checks = results(UNIT_CHECKS, findings)
    return UnitsReport(country, year, rasters, tables, units, checks, coverage, tuple(sources))


def _part(progress: Progress | None, k: int, of: int) -> Progress | None:
    if progress is None:
        return None
    return lambda done, total: progress(k * total + done, of * total)


def prepare_counts(
    country: str,
    year: int,
    settings: CensusSettings,
    units_dir: Path,
    out_dir: Path,
    base_dir: Path | Sequence[Path],
) -> CountsReport:
    """Join the counts of every level to its units and take them to the partition's year.

    Writes into `out_dir`: `counts_<level>.json`, a list of {number, id, name, people, kind, method}
    for each unit with pixels and a count (`members` lists it and the units counted with it, their
    people added), `coverage.json` and `sources.json`.

    Args:
        country: its code.
        year: the partition's.
        settings: the census section of the country's file.
        units_dir: where `prepare_units` wrote.
        out_dir: an existing or new folder.
        base_dir: as for `prepare_units`.

    Raises:
        CensusError: a table that cannot be read, has no row with a unit, or none with a count.
            Single rows that are wrong do not raise; they are left without a count and are in the
            checks.
    """
    import geopandas as gpd
    import pandas as pd

    units_dir, out_dir = Path(units_dir), Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    units = {
        name: gpd.read_parquet(_existing(units_dir / f"units_{name}.parquet"))
        for name in settings.levels
    }
    names = {name: {name_key(n) for n in frame["name"]} for name, frame in units.items()}
    findings: list[Finding] = []
    sources: list[Source] = []
    frames, paths, totals, sums, tables = [], {}, {}, {}, {}
    coverage: dict[str, Any] = {"country": country, "year": year, "levels": {}}
    coverage |= {"set_aside": [], "joined_relaxed": []}
    with Files(base_dir) as files:
        for name, level in settings.levels.items():
            read = joined_counts(name, level, files, units[name], year, names)
            joined, found, own = read.rows, read.findings, read.sources
            projected, more = counts_for_year(joined, units[name], year, settings, name, found)
            found += more
            entries, more, covered = entries_of(projected, units[name], level)
            found += more
            if not entries:
                raise _nobody_on_the_grid(name, level, len(units[name]), len(joined), found)
            paths[name] = out_dir / f"counts_{name}.json"
            write_json(paths[name], entries)
            findings += of_level(found, name)
            sources += own
            totals[name] = float(projected["people"].sum())
            sums[name] = (totals[name], float(projected["area_ha"].sum()))
            tables[name] = units[name][["id", "geometry"]].merge(projected[["id", "people"]])
            coverage["levels"][name] = {
                **count_coverage(joined, units[name], projected, year), **covered,
                "lines_set_aside": len(read.asides), "names_joined_relaxed": len(read.relaxed),
            }  # fmt: skip
            coverage["set_aside"] += [{"level": name, **line} for line in read.asides]
            coverage["joined_relaxed"] += [{"level": name, **row} for row in read.relaxed]
            frames.append(_with_sources(projected.assign(level=name, year=year), own))
    findings += _between_levels(sums, tables, year, settings)
    sources = _distinct(sources)
    write_json(out_dir / "coverage.json", coverage)
    write_json(out_dir / "sources.json", [asdict(s) for s in sources])
    return CountsReport(
        country,
        year,
        paths,
        pd.concat(frames, ignore_index=True),
        totals,
        results(COUNT_CHECKS, findings),
        coverage,
        tuple(sources),
    )


def _between_levels(
    sums: Mapping[str, tuple[float, float]],
    tables: Mapping[str, gpd.GeoDataFrame],
    year: int,
    settings: CensusSettings,
) -> list[Finding]:
    """The training level against the national figure, and the other levels against it."""
    train = settings.train_level
    file = settings.levels[train].counts[0].file
    found = validate.national_total(train, sums[train][0], year, settings, file)
    findings = of_level(found, train) + validate.levels_agree(sums, train)
    return findings + validate.levels_separate(tables, settings)


def _nobody_on_the_grid(
    name: str, level: LevelSettings, units: int, rows: int, findings: Iterable[Finding]
) -> CensusError:
    return CensusError(
        f"no unit of level {name} has both a pixel and a count",
        where=level.counts[0].file,
        expected="at least one",
        found=f"{units} units, {rows} rows of people",
        remedy="see the checks: " + "; ".join(f.message for f in findings)[:2000],
    )


def _with_sources(counts: pd.DataFrame, sources: Iterable[Source]) -> pd.DataFrame:
    """Rows of counts with the file that each comes from, its hash and when it was fetched."""
    by_name = {Path(s.file).name: s for s in sources}
    counts["source"] = counts["file"]
    counts["source_sha256"] = [by_name[f].sha256 if f in by_name else "" for f in counts["file"]]
    counts["retrieved"] = [by_name[f].retrieved if f in by_name else None for f in counts["file"]]
    return counts


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise CensusError(
            "the units of the level are missing",
            where=path,
            remedy="materialise the census units first",
        )
    return path


def _distinct(sources: Iterable[Source]) -> list[Source]:
    return sorted(dict.fromkeys(sources), key=lambda s: (s.file, s.sha256))
