"""What agencies, mail and spreadsheets do to census files: each is refused or mended, and named.

Every case changes a sound small census in one way. A refused one either raises, or fails a check
that blocks; a mended one keeps every person and says what was done.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.transform import Affine
from shapely import affinity

from popcorn_ml.errors import PopcornError

from . import place
from .place import TOTAL, Unit, build, settings, write_boundaries, write_counts

Change = Callable[[Path, list[Unit]], dict[str, Any] | None]


@dataclass(frozen=True)
class Case:
    """A way to break a census.

    Attributes:
        change: writes the broken files into a folder; the settings to use, None for the usual.
        outcome: "raises", "blocks" (a check of severity error fails), "warns" (mended or noted).
        check: the check that fails, for the last two.
        says: parts of the message: file, row, what is wrong, remedy.
    """

    change: Change
    outcome: str
    check: str
    says: tuple[str, ...]


CASES: dict[str, Case] = {}


def case(outcome: str, *says: str, check: str = "") -> Callable[[Change], Change]:
    def note(change: Change) -> Change:
        CASES[change.__name__] = Case(change, outcome, check, says)
        return change

    return note


def text_of(folder: Path) -> list[str]:
    return (folder / "counts.csv").read_text("utf-8").splitlines()


def put(folder: Path, lines: list[str]) -> None:
    (folder / "counts.csv").write_text("\n".join(lines) + "\n", "utf-8")


# Text, encodings, delimiters --------------------------------------------------------------------


@case("warns", "counts.csv", "cp1252", "`encoding`", check="counts_readable")
def windows_encoding(folder, rows):
    write_counts(
        folder / "counts.csv", [*rows[:-1], Unit("0012", "Luna", "Sud", 1207, None)], "cp1252"
    )


@case("warns", "counts.csv", "not UTF-8", check="counts_readable")
def latin1_with_semicolons(folder, rows):
    write_counts(
        folder / "counts.csv", [*rows[:-1], Unit("0012", "Luna", "Sud", 1207, None)], "latin-1", ";"
    )


@case("passes")
def utf8_with_byte_order_mark(folder, rows):
    write_counts(folder / "counts.csv", rows, "utf-8-sig")


@case("passes")
def utf16_with_tabs(folder, rows):
    write_counts(folder / "counts.csv", rows, "utf-16", "\t")


@case("raises", "counts.csv", "NUL", "save it as UTF-8")
def utf16_without_mark(folder, rows):
    write_counts(folder / "counts.csv", rows, "utf-16-le")


@case("passes")
def semicolons(folder, rows):
    write_counts(folder / "counts.csv", rows, delimiter=";")


@case("raises", "counts.csv, line 1", "no delimiter", "`delimiter`")
def no_delimiter(folder, rows):
    put(folder, [f"{u.id} {u.people}" for u in rows])


@case("raises", "counts.csv, row 4", "more values than the header", "quote the value")
def unquoted_comma_in_a_name(folder, rows):
    lines = text_of(folder)
    lines[3] = "0003,Çala, the old,Nord,307"
    put(folder, lines)


@case("blocks", "counts.csv", "row 6", "have no count", check="counts_present")
def short_row(folder, rows):
    lines = text_of(folder)
    lines[5] = "0005,Étang"
    put(folder, lines)


@case("raises", "counts.csv, line", "quotation mark", "close or double")
def open_quotation_mark(folder, rows):
    lines = text_of(folder)
    lines[4] = '0004,"Dömé,Nord,407'
    put(folder, lines)


@case("raises", "counts.csv", "is empty", "export it again")
def empty_table(folder, rows):
    (folder / "counts.csv").write_bytes(b"")


@case("raises", "counts.csv", "has no rows", "export it again")
def header_only(folder, rows):
    put(folder, text_of(folder)[:1])


@case("raises", "counts.csv", "a web page", "fetch the file itself")
def web_page(folder, rows):
    (folder / "counts.csv").write_text("<!DOCTYPE html><html>Please log in</html>")


@case("raises", "counts.csv", "Excel workbook", "right suffix")
def workbook_called_csv(folder, rows):
    with zipfile.ZipFile(folder / "counts.csv", "w") as out:
        out.writestr("xl/workbook.xml", "<workbook/>")


@case("raises", "counts.csv", "Git LFS pointer", "fetch the file itself")
def lfs_pointer(folder, rows):
    (folder / "counts.csv").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")


@case("raises", "counts.xlsx", "the workbook cannot be opened", "save it")
def damaged_workbook(folder, rows):
    (folder / "counts.xlsx").write_bytes(b"PK\x03\x04" + b"\x00" * 300)
    return settings(counts__file="counts.xlsx")


@case("raises", "counts.xlsx", "no such sheet", "Table 2", "`sheet`")
def wrong_sheet(folder, rows):
    import openpyxl

    book = openpyxl.Workbook()
    book.active.title = "Table 1"
    book.active.append(["code", "population"])
    book.active.append(["0001", 5])
    book.save(folder / "counts.xlsx")
    return settings(counts__file="counts.xlsx", counts__sheet="Table 2")


@case("raises", "counts.parquet", "no Parquet file", "fetch")
def text_called_parquet(folder, rows):
    (folder / "counts.parquet").write_text("code,population\n0001,5\n")
    return settings(counts__file="counts.parquet")


@case("raises", "counts.ods", "not read", "save it as CSV")
def unknown_kind_of_table(folder, rows):
    (folder / "counts.ods").write_bytes(b"PK\x03\x04")
    return settings(counts__file="counts.ods")


@case("raises", "counts.csv", "is missing", "put it there")
def missing_table(folder, rows):
    (folder / "counts.csv").unlink()


@case("raises", "counts.csv", "line 3", "control character", "UTF-8")
def control_characters(folder, rows):
    lines = text_of(folder)
    lines[2] = "0002,B\x07é,Nord,207"
    put(folder, lines)


# Columns ----------------------------------------------------------------------------------------


@case("raises", "counts.csv", "no column of people", "did you mean 'population'", "counts.columns")
def misspelt_column(folder, rows):
    columns = {"id": "code", "people": "populaton"}
    return settings(counts__columns=columns)


@case("raises", "counts.csv", "two columns have one name", "population", "rename")
def two_columns_of_one_name(folder, rows):
    put(
        folder,
        [
            line + ("," + ("population" if k == 0 else "1"))
            for k, line in enumerate(text_of(folder))
        ],
    )


@case("passes")
def column_in_capitals(folder, rows):
    write_counts(folder / "counts.csv", rows, header=("CODE", "Name", "Province", "Population"))


@case("raises", "counts.csv", "of which year", "`year`")
def no_year(folder, rows):
    return settings(
        counts={"file": "counts.csv", "columns": {"id": "code", "people": "population"}}
    )


@case("raises", "counts.csv", "no row has a year", "'Nord'", "counts.columns.year")
def year_column_of_words(folder, rows):
    return settings(counts__columns={"id": "code", "people": "population", "year": "province"})


@case("raises", "units.gpkg", "no column of id", "boundaries.columns.id")
def boundary_column_missing(folder, rows):
    return settings(boundaries__columns={"id": "district_code"})


@case("raises", "counts.csv", "row 2", "not one id is the same", "'0001'", "'Añasco'")
def names_in_the_id_column(folder, rows):
    return settings(counts__columns={"id": "name", "people": "population"}, join="id")


@case("raises", "counts.csv", "no row of the table passes the filter", "counts.where")
def filter_that_fits_nothing(folder, rows):
    return settings(counts__where={"province": "Est"})


# Numbers ----------------------------------------------------------------------------------------


def with_value(folder: Path, value: str, row: int = 7) -> None:
    lines = text_of(folder)
    cells = lines[row - 1].split(",")
    lines[row - 1] = ",".join([*cells[:3], value])
    put(folder, lines)


@case("blocks", "counts.csv", "row 7", "negative", "-99", check="counts_nonnegative")
def negative_count(folder, rows):
    with_value(folder, "-99")


@case("blocks", "counts.csv", "row 7", "have no count", "fill them in", check="counts_present")
def missing_count(folder, rows):
    with_value(folder, "n/a")


@case("blocks", "counts.csv", "row 7", "secret", check="counts_present")
def suppressed_count(folder, rows):
    with_value(folder, "<10")


@case(
    "blocks", "counts.csv", "row 7", "6,077 if", "6.077 if", "`thousands: '.'`", "`decimal: '.'`",
    check="counts_numeric",
)  # fmt: skip
def full_stop_between_thousands(folder, rows):
    with_value(folder, "6.077")


@case("blocks", "counts.csv", "row 7", "are no numbers", "`decimal`", check="counts_numeric")
def decimal_comma(folder, rows):
    with_value(folder, '"607,5"')


@case("blocks", "counts.csv", "row 7", "exponent", "whole numbers", check="counts_numeric")
def exponent(folder, rows):
    with_value(folder, "6.07E+02")


@case("blocks", "counts.csv", "row 7", "are no numbers", check="counts_numeric")
def spreadsheet_error(folder, rows):
    with_value(folder, "#REF!")


@case("warns", "counts.csv", "row 11", "thousands separators", check="counts_numeric")
def grouped_thousands(folder, rows):
    lines = text_of(folder)
    lines[10] = '0010,Jabá,Sud,"1,007"'
    put(folder, lines)


@case("blocks", "counts.csv", "10 times too high", "another unit", check="national_total")
def totals_ten_times_too_high(folder, rows):
    for unit in rows:
        unit.people *= 10
    write_counts(folder / "counts.csv", rows)
    return settings(national_totals={2020: TOTAL})


@case("blocks", "counts.csv", "1000 times too low", check="national_total")
def counts_in_thousands(folder, rows):
    for unit in rows:
        unit.people = round(unit.people / 1000, 3)
    write_counts(folder / "counts.csv", rows)
    return settings(national_totals={2020: TOTAL}, counts__kind="estimate")


@case("blocks", "counts.csv", "2 times too high", "counted twice", check="national_total")
def both_sexes_and_their_sum(folder, rows):
    for unit in rows:
        unit.people *= 2
    write_counts(folder / "counts.csv", rows)
    return settings(national_totals={2020: TOTAL})


@case("blocks", "counts.csv", "row 3", "per hectare", "max_people_per_ha", check="density")
def implausible_density(folder, rows):
    rows[1].people = 40_000
    write_counts(folder / "counts.csv", rows)


@case("blocks", "counts.csv", "row 4", "age bands", "counts.columns.ages", check="age_bands")
def age_bands_that_do_not_add_up(folder, rows):
    lines = ["code,population,a0,a15,a65"]
    for k, unit in enumerate(rows):
        young, old = unit.people // 2, unit.people // 10
        lines.append(
            f"{unit.id},{unit.people},{young},{unit.people - young - old},{old + 40 * (k == 2)}"
        )
    put(folder, lines)
    return settings(
        counts__columns={"id": "code", "people": "population", "ages": ["a0", "a15", "a65"]}
    )


@case("blocks", "counts.csv", "beyond 15 %", "0.023 for 2.3 %", check="growth")
def growth_in_percent(folder, rows):
    put(folder, ["code,population,growth", *(f"{u.id},{u.people},2.3" for u in rows)])
    return settings(
        counts__columns={"id": "code", "people": "population", "annual_growth": "growth"}
    )


@case("blocks", "counts.csv", "grow or shrink", "same units", check="growth")
def two_years_of_different_units(folder, rows):
    lines = ["code,year,population"]
    lines += [f"{u.id},2010,{u.people * 10}" for u in rows]
    lines += [f"{u.id},2020,{v.people}" for u, v in zip(rows, rows[::-1], strict=True)]
    put(folder, lines)
    return settings(
        counts={
            "file": "counts.csv",
            "columns": {"id": "code", "people": "population", "year": "year"},
        }
    )


# Identifiers, names, joins ----------------------------------------------------------------------


@case("blocks", "counts.csv", "row 14", "different counts for one unit", check="counts_unique")
def unit_counted_twice(folder, rows):
    write_counts(folder / "counts.csv", rows, extra=[["0003", "Çala", "Nord", 999]])


@case("warns", "counts.csv", "row 14", "counted once", check="counts_unique")
def row_repeated(folder, rows):
    write_counts(folder / "counts.csv", rows, extra=[["0003", "Çala", "Nord", 307]])


@case("warns", "counts.csv", "row 14", "total", "set aside", check="people_have_polygon")
def total_row(folder, rows):
    write_counts(folder / "counts.csv", rows, extra=[["", "TOTAL", "", TOTAL]])


@case("blocks", "counts.csv", "row 14", "250 people", "no polygon", check="people_have_polygon")
def people_without_polygon(folder, rows):
    write_counts(folder / "counts.csv", rows, extra=[["0099", "Nowhere", "Sud", 250]])


@case("blocks", "units.gpkg", "row 8", "Huye", "0 where nobody", check="polygon_has_people")
def polygon_without_people(folder, rows):
    write_counts(folder / "counts.csv", rows[:7] + rows[8:])


@case("warns", "counts.csv", "row 2", "leading zeros were lost", "as text", check="join_exact")
def leading_zeros_lost(folder, rows):
    for unit in rows:
        unit.id = unit.id.lstrip("0")
    write_counts(folder / "counts.csv", rows)


@case("passes")
def identifiers_as_decimals(folder, rows):
    for k, unit in enumerate(rows):
        unit.id = str(1001 + k)
    write_boundaries(folder / "units.gpkg", rows)
    write_counts(
        folder / "counts.csv", [Unit(u.id + ".0", u.name, u.parent, u.people, None) for u in rows]
    )


@case("blocks", "counts.csv", "row 2", "row 3", "swapped", check="names_agree")
def names_swapped(folder, rows):
    rows[0].name, rows[1].name = rows[1].name, rows[0].name
    write_counts(folder / "counts.csv", rows)


@case("warns", "counts.csv", "row 6", "spell", "'Etangs-sur-Mer'", check="names_agree")
def name_of_another_edition(folder, rows):
    rows[4].name = "Etangs-sur-Mer"
    write_counts(folder / "counts.csv", rows)


@case("warns", "counts.csv", "row 2", "'Añasco'", "without accents", check="join_exact")
def accents_and_case_by_name(folder, rows):
    for unit, plain in zip(
        rows,
        (
            "ANASCO",
            "Be",
            "cala",
            "DOME",
            "Etang",
            "FRIA",
            "Goma",
            "huye",
            "Ile",
            "Jaba",
            "KELA",
            "Luna",
        ),
        strict=True,
    ):
        unit.name = plain
    write_counts(folder / "counts.csv", rows)
    return settings(join="name")


@case("blocks", "counts.csv", "row 2", "several units bear", "parent column", check="join_exact")
def one_name_twice(folder, rows):
    rows[0].name = rows[1].name = "Bé"
    write_boundaries(folder / "units.gpkg", rows)
    write_counts(folder / "counts.csv", rows)
    return settings(join="name")


@case("blocks", "counts.csv", "names of level sector", check="people_have_polygon")
def sector_names_in_the_district_column(folder, rows):
    fine = place.halves(rows)
    write_boundaries(folder / "fine.gpkg", fine)
    write_counts(folder / "fine.csv", fine)
    mixed = rows[:2] + [
        Unit(u.id, u.name, v.parent, u.people, None)
        for u, v in zip(fine[4:], rows * 2, strict=False)
    ]
    write_counts(folder / "counts.csv", mixed)
    section = settings(join="name")
    section["levels"]["district"]["counts"]["columns"] = {"name": "name", "people": "population"}
    section["levels"]["district"]["boundaries"]["columns"] = {"id": "code", "name": "name"}
    section["levels"]["sector"] = {
        "role": "evaluate",
        "boundaries": {"file": "fine.gpkg", "columns": {"id": "code", "name": "name"}},
        "counts": {
            "file": "fine.csv",
            "year": 2020,
            "columns": {"id": "code", "people": "population"},
        },
    }
    return section


@case("passes")
def sql_in_a_name(folder, rows):
    rows[3].name = "Robert'); DROP TABLE units;--"
    write_boundaries(folder / "units.gpkg", rows)
    write_counts(folder / "counts.csv", rows)


# Polygons ---------------------------------------------------------------------------------------


@case("blocks", "units.gpkg", "row 4", "different names", "its own id", check="unit_ids")
def one_id_for_two_units(folder, rows):
    rows[3].id = "0003"
    write_boundaries(folder / "units.gpkg", rows)


@case("warns", "units.gpkg", "joined into one unit", check="unit_ids")
def unit_in_two_features(folder, rows):
    west, south, east, north = rows[0].geometry.bounds
    half = Unit(
        rows[0].id, rows[0].name, rows[0].parent, 0, shapely.box(west, south, west + 200, north)
    )
    rest = Unit(
        rows[0].id, rows[0].name, rows[0].parent, 0, shapely.box(west + 200, south, east, north)
    )
    write_boundaries(folder / "units.gpkg", [half, *rows[1:], rest])


@case("blocks", "units.gpkg", "row 5", "no identifier", "boundaries.columns.id", check="unit_ids")
def unit_without_id(folder, rows):
    rows[4].id = ""
    write_boundaries(folder / "units.gpkg", rows)


@case("blocks", "units.gpkg", "row 6", "cross themselves", "Fix geometries", check="geometry")
def bow_tie(folder, rows):
    w, s, e, n = rows[5].geometry.bounds
    rows[5].geometry = shapely.Polygon([(w, s), (e, n), (e, s), (w, n)])
    write_boundaries(folder / "units.gpkg", rows)


@case("warns", "units.gpkg", "row 6", "mended, their area unchanged", check="geometry")
def doubled_back_edge(folder, rows):
    w, s, e, n = rows[5].geometry.bounds
    rows[5].geometry = shapely.Polygon(
        [(w, s), (e, s), (e, n), ((w + e) / 2, n), ((w + e) / 2, n + 3), ((w + e) / 2, n), (w, n)]
    )
    write_boundaries(folder / "units.gpkg", rows)


@case("blocks", "units.gpkg", "row 2", "no geometry", "Draw them", check="geometry")
def unit_without_geometry(folder, rows):
    rows[1].geometry = None
    write_boundaries(folder / "units.gpkg", rows)


@case("blocks", "units.gpkg", "row 2", "no polygons", "points or lines", check="geometry")
def point_for_a_unit(folder, rows):
    rows[1].geometry = rows[1].geometry.centroid
    write_boundaries(folder / "units.gpkg", rows)


@case("blocks", "units.gpkg", "'0001'", "'0002'", "overlap", check="geometry_overlap")
def overlapping_units(folder, rows):
    rows[0].geometry = rows[0].geometry.buffer(100, join_style="mitre")
    write_boundaries(folder / "units.gpkg", rows)


@case("raises", "units.geojson", "another country", "CRS")
def boundaries_of_another_country(folder, rows):
    for unit in rows:
        unit.geometry = affinity.translate(unit.geometry, 0, -3_000_000)
    write_boundaries(folder / "units.geojson", rows, to="EPSG:4326")
    return settings(boundaries__file="units.geojson")


@case("raises", "units.geojson", "swapped", "export")
def latitude_before_longitude(folder, rows):
    write_boundaries(folder / "units.geojson", rows, to="EPSG:4326")
    data = json.loads((folder / "units.geojson").read_text())
    for feature in data["features"]:
        feature["geometry"]["coordinates"] = [
            [[y, x] for x, y in ring] for ring in feature["geometry"]["coordinates"]
        ]
    (folder / "units.geojson").write_text(json.dumps(data))
    return settings(boundaries__file="units.geojson")


@case("raises", "units.geojson", "metres", "one CRS")
def metres_in_geojson(folder, rows):
    write_boundaries(folder / "units.geojson", rows, to="EPSG:4326")
    data = json.loads((folder / "units.geojson").read_text())
    for feature, unit in zip(data["features"], rows, strict=True):
        feature["geometry"] = shapely.geometry.mapping(unit.geometry)
    (folder / "units.geojson").write_text(json.dumps(data))
    return settings(boundaries__file="units.geojson")


@case("blocks", "units.geojson", "row 12", "mixes two CRS", check="geometry_place")
def mixed_crs(folder, rows):
    write_boundaries(folder / "units.geojson", rows, to="EPSG:4326")
    data = json.loads((folder / "units.geojson").read_text())
    data["features"][11]["geometry"] = shapely.geometry.mapping(rows[11].geometry)
    (folder / "units.geojson").write_text(json.dumps(data))
    return settings(boundaries__file="units.geojson")


@case("raises", "units.shp", "does not say its CRS", "`crs`")
def shapefile_without_prj(folder, rows):
    write_boundaries(folder / "units.shp", rows)
    (folder / "units.prj").unlink()
    return settings(boundaries__file="units.shp")


@case("raises", "units.gpkg", "not the one in the settings", "EPSG:4326")
def crs_that_contradicts(folder, rows):
    return settings(boundaries__crs="EPSG:4326")


@case("raises", "units.shp", "not complete", ".dbf", "zip archive")
def shapefile_without_attributes(folder, rows):
    write_boundaries(folder / "units.shp", rows)
    (folder / "units.dbf").unlink()
    return settings(boundaries__file="units.shp")


@case("raises", "units.gpkg", "cannot be read", "QGIS")
def damaged_geopackage(folder, rows):
    raw = (folder / "units.gpkg").read_bytes()
    (folder / "units.gpkg").write_bytes(raw[: len(raw) // 3])


@case("raises", "units.geojson", "cannot be read", "QGIS")
def truncated_geojson(folder, rows):
    write_boundaries(folder / "units.geojson", rows, to="EPSG:4326")
    raw = (folder / "units.geojson").read_bytes()
    (folder / "units.geojson").write_bytes(raw[: len(raw) // 2])
    return settings(boundaries__file="units.geojson")


@case("raises", "units.gpkg", "several layers", "`layer`")
def several_layers(folder, rows):
    frame = gpd.read_file(folder / "units.gpkg")
    frame.to_file(folder / "units.gpkg", layer="roads")


@case("raises", "units.geojson", "no features", "export it again")
def boundaries_without_features(folder, rows):
    (folder / "units.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    return settings(boundaries__file="units.geojson")


@case("blocks", "units.gpkg", "row 13", "off the country's grid", check="unit_pixels")
def unit_off_the_grid(folder, rows):
    far = affinity.translate(rows[11].geometry, 450, 0)
    rows.append(Unit("0013", "Mer", "Sud", 13, far))
    write_boundaries(folder / "units.gpkg", rows)
    write_counts(folder / "counts.csv", rows)
    section = settings()
    section["box"] = (28, -3, 40, 3)
    return section


@case("warns", "units.gpkg", "row 13", "given the pixel", check="unit_pixels")
def unit_smaller_than_a_pixel(folder, rows):
    x, y = place.GRID.west + 101, place.GRID.north - 109
    tiny = shapely.box(x, y, x + 2, y + 2)
    rows[0].geometry = rows[0].geometry.difference(tiny)
    rows.append(Unit("0013", "Îlot", "Nord", 9, tiny))
    write_boundaries(folder / "units.gpkg", rows)
    write_counts(folder / "counts.csv", rows)


# Archives and rasters ---------------------------------------------------------------------------


@case("raises", "units.zip", "bomb", "unpack it yourself")
def zip_bomb(folder, rows):
    with zipfile.ZipFile(folder / "units.zip", "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("units.geojson", b"0" * (40 * 1024**2))
    return settings(boundaries__file="units.zip")


@case("raises", "units.zip!../units.gpkg", "outside its folder", "pack the files again")
def path_that_leaves_the_archive(folder, rows):
    with zipfile.ZipFile(folder / "units.zip", "w") as out:
        out.write(folder / "units.gpkg", "../units.gpkg")
    return settings(boundaries__file="units.zip")


@case("raises", "units.zip", "link", "pack the file that it points to")
def link_in_the_archive(folder, rows):
    member = zipfile.ZipInfo("units.gpkg")
    member.external_attr = 0o120777 << 16
    with zipfile.ZipFile(folder / "units.zip", "w") as out:
        out.writestr(member, "/etc/passwd")
    return settings(boundaries__file="units.zip")


@case("raises", "units.zip", "cannot be opened", "fetch or save it again")
def truncated_archive(folder, rows):
    with zipfile.ZipFile(folder / "units.zip", "w") as out:
        out.write(folder / "units.gpkg", "units.gpkg")
    raw = (folder / "units.zip").read_bytes()
    (folder / "units.zip").write_bytes(raw[: len(raw) // 2])
    return settings(boundaries__file="units.zip")


@case("raises", "units.zip", "several files", "`member`")
def archive_of_several(folder, rows):
    with zipfile.ZipFile(folder / "units.zip", "w") as out:
        out.write(folder / "units.gpkg", "a/units.gpkg")
        out.write(folder / "units.gpkg", "b/others.gpkg")
    return settings(boundaries__file="units.zip")


def raster(path: Path, values: np.ndarray, **options: Any) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", width=values.shape[1], height=values.shape[0], count=1,
        dtype=values.dtype, crs=options.pop("crs", place.GRID.crs),
        transform=options.pop("transform", Affine(*place.GRID.transform)), **options,
    ) as out:  # fmt: skip
        out.write(values, 1)
    return path


def published(folder: Path, values: np.ndarray, **options: Any) -> dict[str, Any]:
    raster(folder / "boundaries_coarse.tif", values, **options)
    put(folder, [",idx,POP20,bbox,count", '0,1,500,"[0, 9, 0, 9]",3', '1,2,700,"[0, 9, 0, 9]",3'])
    return settings(
        reader="published",
        boundaries={"file": "boundaries_coarse.tif"},
        counts={"file": "counts.csv"},
    )


@case("raises", "boundaries_coarse.tif", "float32 cannot tell apart", "uint32")
def fault_7_float32_unit_numbers(folder, rows):
    values = np.zeros(place.GRID.shape, np.float32)
    values[:60], values[60:] = 2**24 + 2, 2**24 + 4
    return published(folder, values)


@case("raises", "boundaries_coarse.tif", "fractions", "unit numbers")
def raster_of_people_for_units(folder, rows):
    return published(folder, np.full(place.GRID.shape, 0.37, np.float32))


@case("raises", "boundaries_coarse.tif", "out of range", "nodata")
def negative_unit_numbers(folder, rows):
    return published(folder, np.full(place.GRID.shape, -9999, np.int32))


@case("raises", "boundaries_coarse.tif", "no CRS", "gdal_edit")
def unit_raster_without_crs(folder, rows):
    return published(folder, np.ones(place.GRID.shape, np.int32), crs=None)


@case("raises", "boundaries_coarse.tif", "not of the kind", "right suffix")
def virtual_raster_called_tif(folder, rows):
    """It would have GDAL read whatever path or address it names."""
    section = published(folder, np.ones(place.GRID.shape, np.int32))
    (folder / "boundaries_coarse.tif").write_text(
        '<VRTDataset rasterXSize="160" rasterYSize="120"><VRTRasterBand dataType="Int32" band="1">'
        "<SimpleSource><SourceFilename>/etc/hostname</SourceFilename></SimpleSource>"
        "</VRTRasterBand></VRTDataset>"
    )
    return section


@case("raises", "units.gpkg", "not of the kind", "right suffix")
def virtual_layer_called_gpkg(folder, rows):
    (folder / "units.gpkg").write_text("<OGRVRTDataSource><OGRVRTLayer/></OGRVRTDataSource>")


@case("raises", "people.tif", "no cell with data", "fetch it again")
def gridded_census_of_nodata(folder, rows):
    raster(folder / "people.tif", np.full((12, 16), np.nan, np.float32), nodata=np.nan)
    return settings(reader="gridded", counts={"file": "people.tif", "year": 2020})


# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_broken_census(name: str, tmp_path: Path) -> None:
    rows = place.write_place(tmp_path)
    chosen = CASES[name]
    section = chosen.change(tmp_path, rows) or settings()
    before = {p for p in tmp_path.rglob("*") if p.is_file()}
    if chosen.outcome == "raises":
        with pytest.raises(PopcornError) as raised:
            build(tmp_path, section)
        message = str(raised.value)
        assert raised.value.remedy, message
        for part in chosen.says:
            assert part in message, f"{part!r} is not in:\n{message}"
        left = {p for p in tmp_path.rglob("*") if p.is_file()} - before
        assert not [p for p in left if "partial" in p.name or p.name.startswith(".")]
        return
    built = build(tmp_path, section)
    if chosen.outcome == "passes":
        bad = {n: c.message for n, c in built.failed.items()}
        assert not bad
    else:
        result = built.checks[chosen.check]
        assert not result.passed
        assert result.severity == ("error" if chosen.outcome == "blocks" else "warn"), (
            result.message
        )
        for part in chosen.says:
            assert part in result.message, f"{part!r} is not in:\n{result.message}"
        assert result.rows or chosen.check in ("counts_readable", "units_readable")
        if chosen.outcome == "warns":
            blocking = {n: c.message for n, c in built.failed.items() if c.severity == "error"}
            assert not blocking
    if chosen.outcome in ("passes", "warns"):
        people = sum(e["people"] for e in built.entries())
        extra = 9 if name == "unit_smaller_than_a_pixel" else 0
        assert people == pytest.approx(TOTAL + extra, abs=1e-6)


def test_there_are_at_least_forty_kinds() -> None:
    assert sum(c.outcome != "passes" for c in CASES.values()) >= 40


def test_sql_in_a_name_reaches_the_warehouse_as_a_name(tmp_path: Path) -> None:
    from popcorn_ml.warehouse.warehouse import Warehouse
    from tests.warehouse.rows import publish

    rows = place.write_place(tmp_path)
    sql_in_a_name(tmp_path, rows)
    built = build(tmp_path)
    warehouse = Warehouse(tmp_path / "w.duckdb")
    publish(warehouse, "units", "tst", 2020, built.units.units)
    publish(warehouse, "counts", "tst", 2020, built.counts.counts)
    found = warehouse.query("SELECT name FROM people_per_unit WHERE unit_id = ?", ["0004"])
    assert found == [("Robert'); DROP TABLE units;--",)]
    assert warehouse.query("SELECT count(*) FROM units") == [(12,)]
