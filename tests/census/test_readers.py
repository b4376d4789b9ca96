"""Each agency's way of publishing, written as they write it and read without further settings."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
from rasterio.transform import Affine
from shapely import affinity

from popcorn_ml import raster
from popcorn_ml.census.columns import us_codes
from popcorn_ml.census.files import files_of
from popcorn_ml.census.settings import CensusSettings
from popcorn_ml.errors import CensusError

from . import place
from .place import GRID, TOTAL, Unit, build, settings, write_boundaries, write_counts

COLUMNS = {"id": "code", "people": "population"}


def level(**changes: Any) -> dict[str, Any]:
    """A section with one level of the given settings."""
    return {"levels": {"district": {"role": "train", **changes}}}


def people(built: place.Built) -> float:
    return sum(e["people"] for e in built.entries())


def write_raster(path: Path, values: np.ndarray, step: float = 10.0, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", width=values.shape[1], height=values.shape[0], count=1,
        dtype=values.dtype, crs=GRID.crs,
        transform=Affine(step, 0, GRID.west, 0, -step, GRID.north), **options,
    ) as out:  # fmt: skip
        out.write(values, 1)


def numbered(rows: list[Unit], side: int = 40) -> np.ndarray:
    """The units' numbers on the grid, as the published data set has them."""
    index = np.arange(1, len(rows) + 1).reshape(3, 4).astype(np.int32)
    return np.kron(index, np.ones((side, side), np.int32))


# Formats ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["units.gpkg", "units.geojson", "units.shp", "units.parquet", "units.topojson"]
)
def test_boundary_formats(name: str, tmp_path: Path) -> None:
    rows = place.write_place(tmp_path)
    path = tmp_path / name
    if name.endswith("topojson"):
        write_topojson(path, rows)
    else:
        path.unlink(missing_ok=True)
        write_boundaries(path, rows, to="EPSG:4326" if name.endswith("geojson") else None)
    built = build(tmp_path, settings(boundaries__file=name))
    assert not built.failed
    assert people(built) == TOTAL
    assert [e["id"] for e in built.entries()] == [f"{k:04d}" for k in range(1, 13)]
    assert [e["name"] for e in built.entries()] == list(place.NAMES)
    burnt = raster.read(built.units.rasters["district"], bands=1)
    assert np.array_equal(burnt, numbered(rows))


def write_topojson(path: Path, rows: list[Unit]) -> None:
    """Units as a TopoJSON topology in degrees, one arc a unit, unquantised."""
    frame = gpd.GeoSeries([u.geometry for u in rows], crs=GRID.crs).to_crs("EPSG:4326")
    arcs = [[list(xy) for xy in g.exterior.coords] for g in frame]
    shapes = [
        {
            "type": "Polygon",
            "arcs": [[k]],
            "properties": {"code": u.id, "name": u.name, "province": u.parent},
        }
        for k, u in enumerate(rows)
    ]
    path.write_text(
        json.dumps(
            {
                "type": "Topology",
                "arcs": arcs,
                "objects": {"units": {"type": "GeometryCollection", "geometries": shapes}},
            }
        )
    )


@pytest.mark.parametrize("name", ["counts.csv", "counts.tsv", "counts.xlsx", "counts.parquet"])
def test_table_formats_keep_leading_zeros(name: str, tmp_path: Path) -> None:
    rows = place.write_place(tmp_path)
    frame = pd.DataFrame(
        {"code": [u.id for u in rows], "population": [u.people for u in rows]}
    )  # fmt: skip
    path = tmp_path / name
    if name.endswith("xlsx"):
        frame.to_excel(path, index=False)
    elif name.endswith("parquet"):
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if name.endswith("tsv") else ",")
    columns = {"id": "code", "people": "population"}
    built = build(tmp_path, settings(counts__file=name, counts__columns=columns))
    assert not built.failed
    assert people(built) == TOTAL


def test_excel_codes_shown_with_zeros_are_those_codes(tmp_path: Path) -> None:
    import openpyxl

    rows = place.write_place(tmp_path)
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(["Source: statistics office"])
    sheet.append(["code", "population"])
    for k, unit in enumerate(rows):
        sheet.append([int(unit.id), float(unit.people)])
        sheet.cell(row=k + 3, column=1).number_format = "0000"
    book.save(tmp_path / "counts.xlsx")
    columns = {"id": "code", "people": "population"}
    section = settings(counts__file="counts.xlsx", counts__columns=columns, counts__header_row=2)
    built = build(tmp_path, section)
    assert not built.failed, "0001 is not 1"
    assert people(built) == TOTAL


def test_parquet_of_numbers_and_missing_values(tmp_path: Path) -> None:
    rows = place.write_place(tmp_path)
    pd.DataFrame(
        {"code": [u.id for u in rows], "population": [None, *(float(u.people) for u in rows[1:])]}
    ).to_parquet(tmp_path / "counts.parquet")
    columns = {"id": "code", "people": "population"}
    built = build(tmp_path, settings(counts__file="counts.parquet", counts__columns=columns))
    assert built.checks["counts_present"].rows[0]["row"] == 1
    assert people(built) == TOTAL - rows[0].people


def test_a_shapefile_in_a_zip_archive_with_old_text(tmp_path: Path) -> None:
    rows = place.write_place(tmp_path)
    rows[11].name = "Luna"  # the Polish letter is not in this encoding
    write_boundaries(tmp_path / "src" / "units.shp", rows, encoding="cp1252")
    (tmp_path / "src" / "units.cpg").unlink()
    with zipfile.ZipFile(tmp_path / "units.zip", "w", zipfile.ZIP_DEFLATED) as out:
        for path in sorted((tmp_path / "src").iterdir()):
            out.write(path, f"deep/folder/{path.name}")
    built = build(tmp_path, settings(boundaries__file="units.zip"))
    assert set(built.failed) == {"units_readable"}
    assert "cp1252" in built.failed["units_readable"].message
    assert built.entries()[0]["name"] == "Añasco"
    assert people(built) == TOTAL


# Shapes of tables -------------------------------------------------------------------------------


def test_a_long_table_and_a_wide_one_say_the_same(tmp_path: Path) -> None:
    rows = place.write_place(tmp_path)
    long = ["code,year,population"]
    long += [f"{u.id},{y},{u.people + y - 2010}" for u in rows for y in (2010, 2020)]
    (tmp_path / "long.csv").write_text("\n".join(long))
    wide = ["code,pop_2010,pop_2020"]
    wide += [f"{u.id},{u.people},{u.people + 10}" for u in rows]
    (tmp_path / "wide.csv").write_text("\n".join(wide))
    tables = [
        ("long.csv", {"people": "population", "year": "year"}),
        ("wide.csv", {"people": "pop_{year}"}),
        ("wide.csv", {"people": {2010: "pop_2010", 2020: "pop_2020"}}),
    ]
    sections = [
        settings(counts={"file": file, "columns": {"id": "code", **columns}})
        for file, columns in tables
    ]
    seen = [build(tmp_path, section, year=2015).entries() for section in sections]
    assert seen[0] == seen[1] == seen[2]
    assert {e["method"] for e in seen[0]} == {"geometric growth between 2010 and 2020"}


def test_fault_8_one_table_a_year_and_none_is_left_out(tmp_path: Path) -> None:
    rows = place.write_place(tmp_path)
    for year in (2010, 2015, 2020):
        for unit in rows:
            unit.people += 1
        write_counts(tmp_path / f"counts_{year}.csv", rows)
    section = settings()
    section["levels"]["district"]["counts"] = {
        "file": "counts_{year}.csv", "columns": {"id": "code", "people": "population"}
    }  # fmt: skip
    built = build(tmp_path, section, year=2015)
    assert people(built) == TOTAL + 2 * 12
    assert set(built.counts.coverage["levels"]["district"]["years"]) == {"2010", "2015", "2020"}
    assert [s.file for s in built.counts.sources] == [f"counts_{y}.csv" for y in (2010, 2015, 2020)]
    census = CensusSettings.model_validate(section)
    assert [p.name for p in files_of(census, tmp_path)] == [
        "units.gpkg", *(f"counts_{y}.csv" for y in (2010, 2015, 2020))
    ]  # fmt: skip


def test_fault_8_every_level_is_read(tmp_path: Path) -> None:
    rows = place.write_place(tmp_path)
    section = settings()
    for name in ("fine", "finer"):
        rows = place.halves(rows)
        write_boundaries(tmp_path / f"{name}.gpkg", rows)
        write_counts(tmp_path / f"{name}.csv", rows)
        section["levels"][name] = {
            "role": "evaluate",
            "boundaries": {"file": f"{name}.gpkg", "columns": {"id": "code"}},
            "counts": {"file": f"{name}.csv", "year": 2020, "columns": COLUMNS},
        }
    built = build(tmp_path, section)
    assert not built.failed
    assert {k: len(built.entries(k)) for k in section["levels"]} == {
        "district": 12,
        "fine": 24,
        "finer": 48,
    }
    assert set(built.counts.totals.values()) == {TOTAL}


# Agencies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("new", [False, True])
def test_ocha_common_operational_data(new: bool, tmp_path: Path) -> None:
    rows = place.units()
    low = str.lower if new else str
    for unit in rows:
        unit.id = f"XX{unit.id}"
    frame = gpd.GeoDataFrame(
        {
            low("ADM0_PCODE"): "XX",
            low("ADM1_PCODE"): [f"XX0{place.PARENTS.index(u.parent)}" for u in rows],
            low("ADM2_PCODE"): [u.id for u in rows],
            "adm2_name" if new else "ADM2_EN": [u.name for u in rows],
        },
        geometry=[u.geometry for u in rows],
        crs=GRID.crs,
    )
    frame.to_file(tmp_path / "adm2.shp", encoding="utf-8")
    bands = ("T_00_04", "T_05_09", "T_80Plus")
    table = pd.DataFrame(
        {
            "ADM2_EN": [u.name for u in rows],
            "ADM2_PCODE": [u.id for u in rows],
            "F_TL": [u.people // 2 for u in rows],
            "T_TL": [u.people for u in rows],
            bands[0]: [u.people // 3 for u in rows],
            bands[1]: [u.people // 4 for u in rows],
        }
    )
    table[bands[2]] = table["T_TL"] - table[bands[0]] - table[bands[1]]
    table.to_csv(tmp_path / "pop.csv", index=False)
    section = level(
        reader="cod", boundaries={"file": "adm2.shp"}, counts={"file": "pop.csv", "year": 2020}
    )
    built = build(tmp_path, section)
    assert not built.failed
    assert people(built) == TOTAL
    assert built.entries()[0]["kind"] == "projection"
    assert set(built.units.units["parent"]) == {"XX00", "XX01"}
    table.loc[3, bands[1]] += 50
    table.to_csv(tmp_path / "pop.csv", index=False)
    assert build(tmp_path, section).checks["age_bands"].rows[0]["id"] == rows[3].id


@pytest.mark.parametrize("boundaries", ["units.gpkg", "grid.tif"])
def test_worldpop_tables(boundaries: str, tmp_path: Path) -> None:
    rows = place.units()
    for k, unit in enumerate(rows):
        unit.id = str(646000101 + k)  # above 2^24: would collide as float32 (fault 7)
    if boundaries == "grid.tif":
        values = numbered(rows, 4).astype(np.int32) + 646000100
        write_raster(tmp_path / "grid.tif", values, step=100.0, nodata=-9999)
    else:
        frame = gpd.GeoDataFrame(
            {"adm_id": [int(u.id) for u in rows]}, geometry=[u.geometry for u in rows], crs=GRID.crs
        )
        frame.to_file(tmp_path / "units.gpkg")
    pd.DataFrame(
        {
            "ISO": "RWA",
            "GID": [int(u.id) for u in rows] + [1],
            "P_2019": [u.people * 0.98 for u in rows] + [5],
            "P_2020": [u.people + 0.25 for u in rows] + [5],
        }
    ).assign(ISO=["RWA"] * 12 + ["UGA"]).to_csv(tmp_path / "pop.csv", index=False)
    section = level(
        reader="worldpop", boundaries={"file": boundaries},
        counts={"file": "pop.csv", "where": {"ISO": "RWA"}},
    )  # fmt: skip
    built = build(tmp_path, section)
    assert not built.failed
    assert people(built) == pytest.approx(TOTAL + 3)
    assert {e["kind"] for e in built.entries()} == {"estimate"}
    burnt = raster.read(built.units.rasters["district"], bands=1)
    assert np.array_equal(burnt, numbered(rows))
    assert build(tmp_path, section, year=2019).counts.totals["district"] == pytest.approx(
        TOTAL * 0.98
    )


def test_geoboundaries_by_name(tmp_path: Path) -> None:
    rows = place.units()
    frame = gpd.GeoDataFrame(
        {
            "shapeName": [u.name for u in rows],
            "shapeISO": "",
            "shapeID": [f"{k}B{k * 7919}" for k in range(12)],
            "shapeGroup": "XXX",
            "shapeType": "ADM2",
        },
        geometry=[u.geometry for u in rows],
        crs=GRID.crs,
    ).to_crs("EPSG:4326")
    frame.to_file(tmp_path / "geoBoundaries-XXX-ADM2.geojson")
    write_counts(tmp_path / "counts.csv", rows)
    section = level(
        reader="geoboundaries",
        boundaries={"file": "geoBoundaries-XXX-ADM2.geojson"},
        counts={
            "file": "counts.csv",
            "year": 2020,
            "columns": {"name": "name", "people": "population"},
        },
    )
    built = build(tmp_path, section)
    assert not built.failed
    assert people(built) == TOTAL


@pytest.mark.parametrize("style", ["geo_id", "parts", "eaten_zeros"])
def test_us_census(style: str, tmp_path: Path) -> None:
    rows = place.units()
    for k, unit in enumerate(rows):
        unit.id = f"01{2 * k + 1:03d}"
    frame = gpd.GeoDataFrame(
        {
            "STATEFP": "01", "COUNTYFP": [u.id[2:] for u in rows],
            **({} if style == "parts" else {"GEOID": [u.id for u in rows]}),
            "NAME": [u.name for u in rows],
        },
        geometry=[u.geometry for u in rows],
        crs=GRID.crs,
    )  # fmt: skip
    frame.to_file(tmp_path / "counties.shp", encoding="utf-8")
    table: dict[str, Any] = {"P1_001N": [u.people for u in rows]}
    if style == "geo_id":
        table["GEO_ID"] = [f"0500000US{u.id}" for u in rows]
    elif style == "parts":
        table |= {"state": [1] * 12, "county": [int(u.id[2:]) for u in rows]}
    else:
        table["fips"] = [int(u.id) for u in rows]
    pd.DataFrame(table).to_csv(tmp_path / "dec.csv", index=False)
    section = level(
        reader="us_census", boundaries={"file": "counties.shp"}, counts={"file": "dec.csv"}
    )
    built = build(tmp_path, section)
    assert not built.failed
    assert people(built) == TOTAL
    assert [e["id"] for e in built.entries()] == [u.id for u in rows]


def test_fips_codes() -> None:
    assert us_codes(["0500000US72001", "0500000US01003"]) == ["72001", "01003"]
    assert us_codes(["1001", "1003"]) == ["01001", "01003"]
    assert us_codes(["72001", "1001"]) == ["72001", "01001"]
    assert us_codes(["1", "72"]) == ["01", "72"]
    assert us_codes(["1400000US72001956300"]) == ["72001956300"]
    assert us_codes(["total"]) == ["total"]


def test_the_published_data_set(tmp_path: Path) -> None:
    rows = place.units()
    folder = tmp_path / "processed" / "rwa"
    write_raster(folder / "boundaries_coarse.tif", numbered(rows), nodata=0)
    lines = [",idx,POP20,bbox,count"]
    lines += [f'{k},{k + 1},{u.people}.5,"[0, 40, 0, 40]",1600' for k, u in enumerate(rows)]
    (folder / "census_coarse.csv").write_text("\n".join(lines))
    section = level(
        reader="published",
        boundaries={"file": "processed/rwa/boundaries_coarse.tif"},
        counts={"file": "processed/rwa/census_coarse.csv"},
    )
    built = build(tmp_path, section)
    assert not built.failed
    assert people(built) == TOTAL + 6
    assert [e["id"] for e in built.entries()] == [str(k) for k in range(1, 13)]
    burnt = raster.read(built.units.rasters["district"], bands=1)
    assert np.array_equal(burnt, numbered(rows))
    assert built.units.units["area_ha"].to_numpy() == pytest.approx(16.0, rel=0.01)
    # A unit of the table that the raster does not have is people without polygon, not silence.
    lines.append('12,13,77,"[0, 0, 0, 0]",0')
    (folder / "census_coarse.csv").write_text("\n".join(lines))
    lost = build(tmp_path, section).checks["people_have_polygon"]
    assert lost.blocks
    assert lost.rows[0]["id"] == "13"


@pytest.mark.parametrize(("side_m", "cell_m"), [(100, None), (100, 200), (50, 400)])
def test_a_gridded_census(side_m: int, cell_m: int | None, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    shape = (1200 // side_m, 1600 // side_m)
    cells = rng.integers(0, 40, shape).astype(np.float32)
    cells[:2, :3] = np.nan
    write_raster(tmp_path / "people.tif", cells, step=float(side_m), nodata=np.nan)
    place.write_place(tmp_path)
    section = settings()
    counts = {"file": "people.tif", "year": 2020, **({"cell_m": cell_m} if cell_m else {})}
    section["levels"]["grid"] = {"role": "evaluate", "reader": "gridded", "counts": counts}
    built = build(tmp_path, section)
    entries = built.entries("grid")
    assert sum(e["people"] for e in entries) == pytest.approx(np.nansum(cells))
    burnt = raster.read(built.units.rasters["grid"], bands=1)
    side_px = (cell_m or side_m) // 10
    for row, col in ((0, 0), (60, 90), (119, 159)):
        top, left = row // side_px * side_px, col // side_px * side_px
        here = burnt[top : top + side_px, left : left + side_px]
        assert (here == burnt[row, col]).all()
        if not burnt[row, col]:
            continue
        block = cells[
            top * 10 // side_m : (top + side_px) * 10 // side_m,
            left * 10 // side_m : (left + side_px) * 10 // side_m,
        ]
        known = next(e["people"] for e in entries if e["number"] == burnt[row, col])
        assert known == pytest.approx(np.nansum(block))


def test_a_gridded_census_in_another_crs(tmp_path: Path) -> None:
    """Each pixel belongs to the cell at its centre, also where the two grids are turned."""
    place.write_place(tmp_path)
    corner = gpd.GeoSeries.from_xy([GRID.west - 50], [GRID.north + 50], crs=GRID.crs)
    lon, lat = corner.to_crs("EPSG:4326").iloc[0].coords[0]
    cells = np.arange(1, 401, dtype=np.float32).reshape(20, 20)
    step = 0.001
    with rasterio.open(
        tmp_path / "people.tif", "w", driver="GTiff", width=20, height=20, count=1,
        dtype="float32", crs="EPSG:4326", transform=Affine(step, 0, lon, 0, -step, lat), nodata=-1,
    ) as out:  # fmt: skip
        out.write(cells, 1)
    section = settings()
    section["levels"]["grid"] = {
        "role": "evaluate", "reader": "gridded", "counts": {"file": "people.tif", "year": 2020}
    }  # fmt: skip
    built = build(tmp_path, section)
    burnt = raster.read(built.units.rasters["grid"], bands=1)
    people_of = {e["number"]: e["people"] for e in built.entries("grid")}
    from pyproj import Transformer

    to_degrees = Transformer.from_crs(GRID.crs, "EPSG:4326", always_xy=True)
    for row in range(0, 120, 7):
        for col in range(0, 160, 9):
            x, y = to_degrees.transform(GRID.west + col * 10 + 5, GRID.north - row * 10 - 5)
            i, j = int((lat - y) // step), int((x - lon) // step)
            assert people_of[burnt[row, col]] == cells[i, j]


# Two boundary sets ------------------------------------------------------------------------------


def test_counts_of_another_boundary_set_join_by_overlap(tmp_path: Path) -> None:
    """The other set lies 30 m off and numbers its units otherwise."""
    rows = place.write_place(tmp_path)
    others = [
        Unit(f"W{12 - k}", "", "", u.people, affinity.translate(u.geometry, 30, -20))
        for k, u in enumerate(rows)
    ]
    write_boundaries(tmp_path / "theirs.gpkg", others, to="EPSG:4326")
    write_counts(tmp_path / "counts.csv", others)
    section = settings(
        counts={
            "file": "counts.csv", "year": 2020,
            "columns": {"id": "code", "people": "population"},
            "boundaries": {"file": "theirs.gpkg", "columns": {"id": "code"}},
        }
    )  # fmt: skip
    built = build(tmp_path, section)
    assert not built.failed
    assert {e["id"]: e["people"] for e in built.entries()} == {u.id: u.people for u in rows}
    assert {s.file for s in built.counts.sources} == {"counts.csv", "theirs.gpkg"}


def test_fault_7_units_that_overlap_too_little_are_reported_with_their_people(
    tmp_path: Path,
) -> None:
    rows = place.write_place(tmp_path)
    others = [Unit(u.id, "", "", u.people, u.geometry) for u in rows]
    others[4].geometry = affinity.scale(others[4].geometry, 0.6, 0.6)
    write_boundaries(tmp_path / "theirs.gpkg", others)
    write_counts(tmp_path / "counts.csv", others)
    section = settings(
        counts={
            "file": "counts.csv", "year": 2020, "min_overlap": 0.66,
            "columns": {"id": "code", "people": "population"},
            "boundaries": {"file": "theirs.gpkg", "columns": {"id": "code"}},
        }
    )  # fmt: skip
    built = build(tmp_path, section)
    lost = built.checks["people_have_polygon"]
    assert lost.blocks
    assert {"id": "0005", "overlap": 0.36}.items() <= lost.rows[1].items() | lost.rows[0].items()
    assert "507 people" in lost.message
    covered = built.counts.coverage["levels"]["district"]
    assert covered["years"]["2020"]["people_unmatched"] == 507
    assert people(built) == TOTAL - 507


# Places and freshness ---------------------------------------------------------------------------


def test_the_first_folder_that_has_a_file_wins(tmp_path: Path) -> None:
    rows = place.write_place(tmp_path / "old")
    rows[0].people += 1000
    write_counts(tmp_path / "new" / "counts.csv", rows)
    from popcorn_ml.census.build import prepare_counts, prepare_units

    census = CensusSettings.model_validate(settings())
    folders = [tmp_path / "new", tmp_path / "old"]
    prepare_units("tst", 2020, census, GRID, tmp_path / "out", folders)
    made = prepare_counts("tst", 2020, census, tmp_path / "out", tmp_path / "out", folders)
    assert made.totals["district"] == TOTAL + 1000


def test_fault_7_changed_inputs_give_changed_tables(tmp_path: Path) -> None:
    rows = place.write_place(tmp_path)
    first = build(tmp_path)
    rows[2].people += 5
    write_counts(tmp_path / "counts.csv", rows)
    second = build(tmp_path)
    assert second.counts.totals["district"] == first.counts.totals["district"] + 5
    hashes = {s.file: s.sha256 for s in first.counts.sources}
    assert hashes["counts.csv"] != {s.file: s.sha256 for s in second.counts.sources}["counts.csv"]


def test_equal_inputs_give_equal_bytes(tmp_path: Path) -> None:
    place.write_place(tmp_path)
    build(tmp_path)
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    build(tmp_path)
    after = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    assert before == after
    assert set(before) == {
        "units_district.tif", "units_district.parquet", "counts_district.json", "coverage.json",
        "sources.json",
    }  # fmt: skip


def test_the_file_order_does_not_matter(tmp_path: Path) -> None:
    rows = place.write_place(tmp_path)
    first = build(tmp_path)
    raster_before = first.units.rasters["district"].read_bytes()
    (tmp_path / "units.gpkg").unlink()
    write_boundaries(tmp_path / "units.gpkg", rows[::-1])
    write_counts(tmp_path / "counts.csv", rows[5:] + rows[:5])
    second = build(tmp_path)
    assert first.entries() == second.entries()
    assert raster_before == second.units.rasters["district"].read_bytes()


def test_units_must_be_there_before_counts(tmp_path: Path) -> None:
    from popcorn_ml.census.build import prepare_counts

    place.write_place(tmp_path)
    census = CensusSettings.model_validate(settings())
    with pytest.raises(CensusError, match="materialise the census units first"):
        prepare_counts("tst", 2020, census, tmp_path / "out", tmp_path / "out", tmp_path)


def test_boundaries_of_several_vintages(tmp_path: Path) -> None:
    rows = place.units()
    frame = gpd.GeoDataFrame(
        {
            "code": [u.id for u in rows] + ["0001"],
            "valid": [2012] * 12 + [2022],
        },
        geometry=[u.geometry for u in rows] + [rows[0].geometry.buffer(10)],
        crs=GRID.crs,
    )
    frame.to_file(tmp_path / "units.gpkg")
    write_counts(tmp_path / "counts.csv", rows)
    section = settings(
        boundaries={"file": "units.gpkg", "columns": {"id": "code"}, "year_column": "valid"},
        counts={"file": "counts.csv", "year": 2020, "columns": COLUMNS},
    )
    assert len(build(tmp_path, section, year=2020).entries()) == 12
    later = build(tmp_path, section, year=2023)
    assert len(later.entries()) == 1
    assert set(later.units.units["vintage"]) == {2022}
