"""The two steps that the assets call: units onto the grid, and counts for the partition's year.

Each reads the files of the country's settings, writes its results into a folder, and returns a
report with checks, coverage, sources and the rows for the warehouse. What a message says and what
blocks is decided in the modules that this one ties together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popcorn_ml.census import geometry, globe, join, projection, readers, validate
from popcorn_ml.census.files import Files, Source
from popcorn_ml.census.findings import (
    COUNT_CHECKS,
    UNIT_CHECKS,
    CheckResult,
    Finding,
    results,
    rows_text,
)
from popcorn_ml.census.readers import UnitInput
from popcorn_ml.census.settings import CensusSettings, LevelSettings
from popcorn_ml.census.text import name_key
from popcorn_ml.census.units import (
    Burner,
    Placement,
    PolygonBurner,
    RasterBurner,
    to_grid,
    write_units,
)
from popcorn_ml.errors import CensusError
from popcorn_ml.files import replacing, write_json
from popcorn_ml.grid import Grid
from popcorn_ml.raster import bounded_cache

if TYPE_CHECKING:
    import geopandas as gpd
    import numpy as np
    import pandas as pd

Progress = Callable[[int, int], None]
PARTLY_OFF_GRID = 0.99


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
    box = settings.box or box_degrees(grid)
    findings: list[Finding] = []
    frames, rasters, tables, sources = [], {}, {}, []
    coverage: dict[str, Any] = {"country": country, "year": year, "levels": {}}
    with Files(base_dir) as files, bounded_cache():
        for k, (name, level) in enumerate(settings.levels.items()):
            found, frame, own = _units_of_level(
                name, level, files, grid, box, out_dir, (country, year),
                _part(progress, k, len(settings.levels)),
            )  # fmt: skip
            rasters[name] = out_dir / f"units_{name}.tif"
            tables[name] = out_dir / f"units_{name}.parquet"
            with replacing(tables[name]) as draft:
                frame.to_parquet(draft, index=False)
            findings += of_level(found, name)
            sources += own
            coverage["levels"][name] = _unit_coverage(frame, found)
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


def box_degrees(grid: Grid) -> tuple[float, float, float, float]:
    from pyproj import Transformer

    transformer = Transformer.from_crs(grid.crs, geometry.LON_LAT, always_xy=True)
    return transformer.transform_bounds(*grid.bounds)


def of_level(findings: Iterable[Finding], level: str) -> list[Finding]:
    return [replace(f, rows=tuple({"level": level, **row} for row in f.rows)) for f in findings]


def _units_of_level(
    name: str,
    level: LevelSettings,
    files: Files,
    grid: Grid,
    box: tuple[float, float, float, float],
    out_dir: Path,
    partition: tuple[str, int],
    progress: Progress | None,
) -> tuple[list[Finding], gpd.GeoDataFrame, list[Source]]:
    import numpy as np

    read, findings = judged_units(level, files, box, partition[1])
    frame = read.frame
    if read.raster is None:
        polygons: np.ndarray | None = to_grid(frame, grid)
        burner: Burner = PolygonBurner(frame, grid)
    else:
        assert read.raw is not None
        order = np.argsort(read.raw)
        polygons = to_grid(frame, grid)
        burner = RasterBurner(read.raster, read.raw[order], order + 1, grid)
    tags = {
        "country": partition[0],
        "year": partition[1],
        "level": name,
        "role": level.role,
        "units": len(frame),
        "unit": "census unit number",
    }
    placed = write_units(
        out_dir / f"units_{name}.tif",
        burner,
        polygons,
        len(frame),
        grid,
        level.small_units,
        tags,
        progress,
    )
    table = _unit_table(frame, placed, read.file)
    findings += _pixel_findings(table, polygons, grid)
    return findings, table, list(read.sources)


def judged_units(
    level: LevelSettings, files: Files, box: tuple[float, float, float, float], year: int | None
) -> tuple[UnitInput, list[Finding]]:
    """A level's units as read, and all that is wrong with them before they meet the grid."""
    read = readers.read_units(level, files, year)
    findings = [*read.findings, *geometry.place(read.frame, Path(read.file), box)]
    _somewhere(findings, read.frame)
    if read.raster is None:
        findings += geometry.overlaps(read.frame, Path(read.file))
    return read, findings


def _somewhere(findings: list[Finding], frame: gpd.GeoDataFrame) -> None:
    """Raise where not one unit is near the country: nothing further would make sense."""
    for finding in findings:
        if finding.check == "geometry_place" and len(finding.rows) == len(frame):
            where, _, what = finding.message.partition(": ")
            text, _, remedy = what.rpartition(". ")
            raise CensusError(text, where=where, remedy=remedy)


def _unit_table(frame: gpd.GeoDataFrame, placed: Placement, file: str) -> gpd.GeoDataFrame:
    ids = list(frame["id"])
    out = frame[["id", "name", "parent", "vintage"]].copy()
    out.insert(0, "number", range(1, len(frame) + 1))
    out["status"] = placed.status
    out["merged_into"] = [ids[m - 1] if m else "" for m in placed.merged_into]
    out["pixels"] = placed.pixels
    out["area_ha"] = geometry.area_ha(frame)
    out["pixel_area_ha"] = placed.area_ha
    out["file"] = file
    out["row"] = list(frame["row"])
    return out.set_geometry(globe.cut(globe.degrees(frame)), crs=globe.LON_LAT)


def _pixel_findings(
    table: gpd.GeoDataFrame, polygons: np.ndarray | None, grid: Grid
) -> list[Finding]:
    import numpy as np
    import shapely

    findings = []
    texts = {
        "best_pixel": "caught no pixel centre and were given the pixel they cover most",
        "merged": "caught no pixel centre and are counted with a neighbour",
        "outside": "lie off the country's grid and have no pixel. Widen the grid, or leave them "
        "out of both files",
    }
    for status, text in texts.items():
        chosen = table[table["status"] == status]
        if chosen.empty:
            continue
        rows = _rows(chosen, "merged_into") if status == "merged" else _rows(chosen)
        findings.append(
            Finding(
                "unit_pixels",
                "error" if status == "outside" else "warn",
                f"{rows[0]['file']}: units that {text}: {rows_text(rows)}",
                rows,
            )
        )
    if polygons is not None and len(polygons):
        west, south, east, north = grid.bounds
        bounds = shapely.bounds(polygons)
        across = (
            (bounds[:, 0] < west)
            | (bounds[:, 1] < south)
            | (bounds[:, 2] > east)
            | (bounds[:, 3] > north)
        ) & (table["status"] != "outside").to_numpy()
        if across.any():
            area = shapely.area(polygons[across])
            inside = shapely.area(shapely.clip_by_rect(polygons[across], *grid.bounds))
            share = inside / np.maximum(area, 1e-30)
            cut = np.flatnonzero(across)[share < PARTLY_OFF_GRID]
            if cut.size:
                shares = share[share < PARTLY_OFF_GRID]
                rows = tuple(
                    {**row, "share_inside": round(float(s), 4)}
                    for row, s in zip(_rows(table.iloc[cut]), shares, strict=True)
                )
                findings.append(
                    Finding(
                        "unit_pixels",
                        "warn",
                        f"{rows[0]['file']}: units that lie partly off the country's "
                        f"grid: {rows_text(rows)}. All their people are counted in the part on "
                        "it; widen the grid if people live in the rest",
                        rows,
                    )
                )
    return findings


def _rows(table: pd.DataFrame, *more: str) -> tuple[dict[str, Any], ...]:
    return tuple(
        {
            "file": r["file"], "row": int(r["row"]), "id": r["id"], "name": r["name"],
            **{m: r[m] for m in more},
        }
        for _, r in table.iterrows()
    )  # fmt: skip


def _unit_coverage(table: gpd.GeoDataFrame, findings: list[Finding]) -> dict[str, Any]:
    status = table["status"].value_counts()
    return {
        "units": len(table),
        "with_pixels": int((table["pixels"] > 0).sum()),
        "by_centre": int(status.get("centre", 0)),
        "best_pixel": int(status.get("best_pixel", 0)),
        "merged": int(status.get("merged", 0)),
        "off_grid": int(status.get("outside", 0)),
        "overlapping_pairs": sum(len(f.rows) for f in findings if f.check == "geometry_overlap"),
        "geometry_findings": sum(len(f.rows) for f in findings if f.check == "geometry"),
        "pixels": int(table["pixels"].sum()),
        "area_ha": round(float(table["area_ha"].sum()), 3),
    }


# Counts -----------------------------------------------------------------------------------------


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
    with Files(base_dir) as files:
        for name, level in settings.levels.items():
            joined, found, own = joined_counts(name, level, files, units[name], year, names)
            projected, more = counts_for_year(joined, units[name], year, settings, name)
            found += more
            entries, more, covered = _entries(projected, units[name], level)
            found += more
            if not entries:
                raise CensusError(
                    f"no unit of level {name} has both a pixel and a count",
                    where=level.counts[0].file,
                    expected="at least one",
                    found=f"{len(units[name])} units, {len(joined)} rows of people",
                    remedy="see the checks: " + "; ".join(f.message for f in found)[:2000],
                )
            paths[name] = out_dir / f"counts_{name}.json"
            write_json(paths[name], entries)
            findings += of_level(found, name)
            sources += own
            hashes = {Path(s.file).name: s for s in own}
            totals[name] = float(projected["people"].sum())
            sums[name] = (totals[name], float(projected["area_ha"].sum()))
            tables[name] = dict(zip(projected["id"], projected["people"], strict=True))
            coverage["levels"][name] = {
                **_count_coverage(joined, units[name], projected, year), **covered
            }  # fmt: skip
            projected = projected.assign(level=name, year=year)
            projected["source"] = projected["file"]
            projected["source_sha256"] = [
                hashes[f].sha256 if f in hashes else "" for f in projected["file"]
            ]
            projected["retrieved"] = [
                hashes[f].retrieved if f in hashes else None for f in projected["file"]
            ]
            frames.append(projected)
    train = settings.train_level
    findings += of_level(
        validate.national_total(
            train, totals[train], year, settings, settings.levels[train].counts[0].file
        ),
        train,
    )
    findings += validate.levels_agree(sums, train)
    findings += validate.levels_separate(tables, settings)
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


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise CensusError(
            "the units of the level are missing",
            where=path,
            remedy="materialise the census units first",
        )
    return path


def joined_counts(
    name: str,
    level: LevelSettings,
    files: Files,
    units: gpd.GeoDataFrame,
    year: int,
    names: Mapping[str, set[str]],
) -> tuple[pd.DataFrame, list[Finding], list[Source]]:
    """All rows of a level's tables with their unit's id, and what was found on the way."""
    import pandas as pd

    findings: list[Finding] = []
    sources: list[Source] = []
    parts = []
    for table in readers.read_counts(level, files):
        file = table.settings.file
        findings += table.findings
        sources += table.sources
        own = readers.count_units(table, level, files, year)
        if own is None:
            joined = join.join(units, table.frame, file, level.join)
            counts = joined.counts
        else:
            sources += own.sources
            findings += [f for f in own.findings if f.check in UNIT_CHECKS]
            joined = join.join(own.frame, table.frame, file, level.join)
            matched, left_over = join.by_overlap(units, own.frame, table.settings.min_overlap)
            findings += _overlap_findings(left_over, own.file, table.settings.min_overlap, level)
            counts = joined.counts.assign(unit=joined.counts["unit"].map(matched).fillna(""))
        findings += joined.findings
        parts.append(counts)
    counts = pd.concat(parts, ignore_index=True)
    counts, found = join.unmatched(units, counts, level.role == "train")
    findings += [_hinted(f, names, name) for f in found]
    findings += join.swapped(units, counts)
    counts, found = validate.rows(counts.reset_index(drop=True))
    findings += found
    findings += validate.unit_growth(counts)
    findings += validate.growth_between(counts)
    return counts, findings, sources


def _hinted(finding: Finding, names: Mapping[str, set[str]], level: str) -> Finding:
    """Say so where the names without a unit are those of another level."""
    if finding.check != "people_have_polygon":
        return finding
    lost = [str(row.get("name", "")) for row in finding.rows]
    other = join.other_levels(lost, dict(names), level)
    if other is None:
        return finding
    hint = f" Most of them are names of level {other}: the column of another level was named"
    return replace(finding, message=finding.message + "." + hint)


def _overlap_findings(
    left_over: list[tuple[str, str, float]], file: str, least: float, level: LevelSettings
) -> list[Finding]:
    if not left_over:
        return []
    rows = tuple(
        {"file": file, "id": i, "best_unit": u, "overlap": round(s, 3)} for i, u, s in left_over
    )
    return [
        Finding(
            "people_have_polygon",
            "error" if level.role == "train" else "warn",
            f"{file}: polygons of the counts that match no unit by at least {least:g} of "
            f"their common area: {rows_text(rows)}. Lower `min_overlap`, or use boundaries of the "
            "same edition",
            rows,
        )
    ]


def counts_for_year(
    counts: pd.DataFrame,
    units: gpd.GeoDataFrame,
    year: int,
    settings: CensusSettings,
    level: str,
) -> tuple[pd.DataFrame, list[Finding]]:
    """One row a unit with a count, taken to the year; columns as `CountsReport.counts`."""
    import pandas as pd

    usable = counts[(counts["unit"] != "") & counts["people"].notna()]
    if usable.empty:
        raise CensusError(
            f"no row of level {level} has both a unit and a count",
            where=settings.levels[level].counts[0].file,
            expected="at least one",
            found=f"{len(counts)} rows",
            remedy="see whether the columns of people and of identifiers are the right ones",
        )
    series: dict[str, dict[int, tuple[float, str]]] = {}
    rates: dict[str, float] = {}
    place: dict[tuple[str, int], tuple[str, int]] = {}
    columns = ("unit", "year", "people", "kind", "annual_growth", "file", "row")
    for unit, y, people, kind, rate, file, row in zip(*(usable[c] for c in columns), strict=True):
        series.setdefault(unit, {})[int(y)] = (float(people), kind)
        place[unit, int(y)] = (file, int(row))
        if rate == rate:
            rates[unit] = float(rate)
    ids = list(units["id"])
    names = dict(zip(ids, units["name"], strict=True))
    numbers = dict(zip(ids, units["number"].tolist(), strict=True))
    areas = dict(zip(ids, units["area_ha"].tolist(), strict=True))
    rows = []
    for unit in sorted(series):
        out = projection.project(series[unit], year, rates.get(unit), settings.annual_growth)
        file, row = place[unit, out.base_year]
        rows.append(
            {
                "id": unit,
                "name": names[unit],
                "number": numbers[unit],
                "people": out.people,
                "kind": out.kind,
                "method": out.method,
                "base_year": out.base_year,
                "file": file,
                "row": row,
                "area_ha": areas[unit],
            }
        )
    projected = pd.DataFrame(rows)
    findings = validate.density(projected, settings)
    findings += validate.years(level, list(projected["base_year"]), year, rows[0]["file"])
    return projected, findings


def _entries(
    projected: pd.DataFrame, units: gpd.GeoDataFrame, level: LevelSettings
) -> tuple[list[dict[str, Any]], list[Finding], dict[str, Any]]:
    """The list for training and evaluation: an item for each counted unit with pixels."""
    people = dict(zip(projected["id"], projected["people"], strict=True))
    facts = {
        unit: (kind, method)
        for unit, kind, method in zip(
            projected["id"], projected["kind"], projected["method"], strict=True
        )
    }
    members: dict[str, list[str]] = {}
    for unit, host in zip(units["id"], units["merged_into"], strict=True):
        if host and unit in people:
            members.setdefault(host, []).append(unit)
    entries, placed = [], set()
    for number, unit, name, pixels in zip(
        units["number"], units["id"], units["name"], units["pixels"], strict=True
    ):
        # The people merged into an uncounted unit say nothing of its own.
        if pixels == 0 or unit not in people:
            continue
        own = [unit, *members.get(unit, [])]
        entry: dict[str, Any] = {
            "number": int(number),
            "id": unit,
            "name": name,
            "people": float(sum(people[m] for m in own)),
            "kind": facts[unit][0],
            "method": facts[unit][1],
        }
        if len(own) > 1:
            entry["members"] = own
        entries.append(entry)
        placed.update(own)
    lost = projected[~projected["id"].isin(placed)]
    inhabited = lost[lost["people"] > 0]
    findings = []
    if not inhabited.empty:
        rows = tuple(
            {
                "file": r["file"], "row": int(r["row"]), "id": r["id"], "name": r["name"],
                "people": float(r["people"]),
            }
            for _, r in inhabited.iterrows()
        )  # fmt: skip
        findings.append(
            Finding(
                "people_in_pixels",
                "error" if level.role == "train" else "warn",
                f"{rows[0]['file']}: units with {inhabited['people'].sum():,.0f} "
                "people that have no pixel of their own or with a neighbour: "
                f"{rows_text(rows)}. Widen the grid if they lie off it; else complete the count of "
                "the unit they are merged into, or set `small_units: best_pixel`",
                rows,
            )
        )
    unknown = units[(units["merged_into"] != "") & ~units["id"].isin(list(people))]
    if not unknown.empty:
        rows = _rows(unknown, "merged_into")
        findings.append(
            Finding(
                "people_in_pixels",
                "warn",
                f"{rows[0]['file']}: units that have neither a count nor a pixel of their own: "
                f"{rows_text(rows)}. The units they are merged into keep to their own counts; add "
                "the missing ones where they are known, 0 where nobody lives",
                rows,
            )
        )
    covered = {
        "people_in_pixels": float(sum(e["people"] for e in entries)),
        "people_without_pixel": float(lost["people"].sum()),
        "units_in_training_list": len(entries),
    }
    return entries, findings, covered


def _count_coverage(
    counts: pd.DataFrame, units: gpd.GeoDataFrame, projected: pd.DataFrame, year: int
) -> dict[str, Any]:
    """How many units and people found each other, and how many did not."""
    matched = counts["unit"] != ""
    by_year = {}
    for y, group in counts.groupby("year"):
        has = group["unit"] != ""
        by_year[str(y)] = {
            "rows": len(group),
            "rows_matched": int(has.sum()),
            "people": float(group["people"].sum()),
            "people_matched": float(group["people"][has].sum()),
            "people_unmatched": float(group["people"][~has].sum()),
        }
    with_row = set(counts["unit"]) - {""}
    return {
        "units": len(units),
        "units_matched": int(units["id"].isin(with_row).sum()),
        "units_without_people_row": int((~units["id"].isin(with_row)).sum()),
        "units_without_count": len(units) - len(projected),
        "units_empty": int((projected["people"] == 0).sum()),
        "rows_unmatched": int((~matched).sum()),
        "years": by_year,
        "people": float(projected["people"].sum()),
        "methods": {str(k): int(v) for k, v in sorted(projected["method"].value_counts().items())},
        "year": year,
    }


def _distinct(sources: Iterable[Source]) -> list[Source]:
    return sorted(dict.fromkeys(sources), key=lambda s: (s.file, s.sha256))
