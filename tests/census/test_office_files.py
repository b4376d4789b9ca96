"""Tables as statistics offices really publish them: read as a person reads them, and said so.

Each case writes the twelve units' counts in one such way; what comes out are the same people.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from popcorn_ml.census.ages import bands
from popcorn_ml.census.numerals import notation
from popcorn_ml.errors import CensusError

from . import place
from .place import TOTAL, Unit, build, settings, write_boundaries

Rows = list[list[Any]]
COLUMNS = {"id": "code", "name": "name", "people": "population"}
HEADER = ["code", "name", "population"]


def rows_of(units: list[Unit]) -> Rows:
    return [[u.id, u.name, u.people] for u in units]


def table_csv(path: Path, rows: Rows, delimiter: str = ",") -> None:
    lines = [delimiter.join(str(c) for c in row) for row in rows]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def workbook(path: Path, sheets: dict[str, Rows], hidden: tuple[str, ...] = ()) -> Any:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
        sheet.sheet_state = "hidden" if name in hidden else "visible"
    book.save(path)
    return book


def people(folder: Path, section: dict[str, Any] | None = None) -> tuple[dict[str, float], Any]:
    """People by identifier, and what was built, none of whose checks blocks."""
    built = build(folder, section or settings(counts__columns=COLUMNS))
    blocking = {n: c.message for n, c in built.failed.items() if c.severity == "error"}
    assert not blocking
    return {e["id"]: e["people"] for e in built.entries()}, built


def right(units: list[Unit], times: float = 1) -> dict[str, float]:
    return {u.id: u.people * times for u in units}


def aside(built: Any) -> dict[int, str]:
    """Lines that the coverage report lists as set aside: row -> what it says."""
    coverage = json.loads((built.folder / "coverage.json").read_text("utf-8"))
    assert coverage["levels"]["district"]["lines_set_aside"] == len(coverage["set_aside"])
    return {line["row"]: line["text"] for line in coverage["set_aside"]}


@pytest.fixture
def units(tmp_path: Path) -> list[Unit]:
    rows = place.units()
    write_boundaries(tmp_path / "units.gpkg", rows)
    return rows


# Marks in numbers -------------------------------------------------------------------------------


def stops(number: int) -> str:
    return f"{number:,}".replace(",", ".")


@pytest.mark.parametrize(
    "write",
    [stops, lambda n: f"{n:,}", lambda n: f"{n:,}".replace(",", "\u202f"), lambda n: f"{n:,}.0",
     lambda n: f"{stops(n)},0", lambda n: f"{n}.000"],
    ids=["full stop", "comma", "narrow blank", "comma and decimal", "full stop and decimal comma",
         "three decimals"],
)  # fmt: skip
@pytest.mark.parametrize("times", [11, 1003])
def test_a_column_of_counts_is_understood_as_a_whole(
    write: Callable[[int], str], times: int, units: list[Unit], tmp_path: Path
) -> None:
    rows = [[u.id, u.name, write(u.people * times)] for u in units]
    table_csv(tmp_path / "counts.csv", [HEADER, *rows], ";")
    section = settings(counts__columns=COLUMNS, max_people_per_ha=1e6)
    found, _ = people(tmp_path, section)
    assert found == right(units, times)


@pytest.mark.parametrize(
    "cells",
    [["11.070", "12.5", "850"], ["6.077", "1107", "607"], ["11.07", "12.345", "850"],
     ["1,007", "12,5"], ["1.234.567", "11.07", "12.070"]],
)  # fmt: skip
def test_mixed_evidence_is_no_number_in_either_reading(cells: list[str]) -> None:
    how = notation(cells)
    unclear = [cell for cell in cells if how.read(cell).problem == "unclear"]
    assert unclear
    assert how.evidence
    for mark in {c for cell in unclear for c in cell if not c.isdigit()}:
        assert notation(cells, decimal=mark).unclear is None, "a setting states it"
        assert notation(cells, thousands=mark).unclear is None


def test_a_mixed_column_shows_both_readings(units: list[Unit], tmp_path: Path) -> None:
    rows = [[u.id, u.name, stops(u.people * 11)] for u in units]
    rows[4][2] = "5.58"
    table_csv(tmp_path / "counts.csv", [HEADER, *rows])
    failed = build(tmp_path, settings(counts__columns=COLUMNS, kind="estimate")).failed
    message = failed["counts_numeric"].message
    assert failed["counts_numeric"].severity == "error"
    for part in ("1.177 is 1,177 if", "1.177 if", "`thousands: '.'`", "`decimal: '.'`", "5.58"):
        assert part in message


def test_fractions_stay_fractions() -> None:
    """Estimates with many digits, and fixed decimals of numbers above a thousand."""
    for cells in (["1234.56789", "11.070"], ["1107.000", "850.125"], ["0.107", "1.207"]):
        how = notation(cells)
        assert [how.read(c).value for c in cells] == [float(c) for c in cells]


def test_numbers_of_a_workbook_hold_no_marks_between_thousands(
    units: list[Unit], tmp_path: Path
) -> None:
    """11.077 that a program made of "11.077" by mistake is not quietly made of thousands."""
    rows = [[u.id, u.name, u.people / 1000 + 10] for u in units]
    workbook(tmp_path / "counts.xlsx", {"a": [HEADER, *rows]})
    section = settings(counts={"file": "counts.xlsx", "year": 2020, "columns": COLUMNS})
    section["levels"]["district"]["kind"] = "estimate"
    with pytest.raises(CensusError, match=r"10\.107 is 10,107 if '\.' stands"):
        build(tmp_path, section)
    section["levels"]["district"]["counts"]["decimal"] = "."
    found, _ = people(tmp_path, section)
    assert found["0001"] == pytest.approx(10.107)


def test_stated_thousands_do_not_take_fractions_for_thousands(
    units: list[Unit], tmp_path: Path
) -> None:
    rows = [[u.id, u.name, stops(u.people * 11)] for u in units]
    rows[4][2] = "5.58"
    table_csv(tmp_path / "counts.csv", [HEADER, *rows])
    section = settings(counts__columns=COLUMNS, counts__thousands=".")
    assert "5.58" in build(tmp_path, section).failed["counts_numeric"].message


def test_a_dash_is_nobody_where_the_country_file_says_so(units: list[Unit], tmp_path: Path) -> None:
    rows = [[u.id, u.name, "-" if u.id == "0003" else u.people] for u in units]
    table_csv(tmp_path / "counts.csv", [HEADER, *rows])
    assert "counts_present" in build(tmp_path, settings(counts__columns=COLUMNS)).failed
    found, built = people(tmp_path, settings(counts__columns=COLUMNS, counts__nil="-"))
    assert found["0003"] == 0
    assert not built.failed
    rows[2][2] = "–"
    table_csv(tmp_path / "counts.csv", [HEADER, *rows])
    assert people(tmp_path, settings(counts__columns=COLUMNS, counts__nil="-"))[0] == found


# Sheets -----------------------------------------------------------------------------------------


def sheet_settings(**more: Any) -> dict[str, Any]:
    return settings(counts={"file": "counts.xlsx", "year": 2020, "columns": COLUMNS, **more})


def test_hidden_sheets_and_others_without_the_columns_are_not_taken(
    units: list[Unit], tmp_path: Path
) -> None:
    rows = rows_of(units)
    old = [[*row[:2], row[2] // 2] for row in rows]
    sheets = {
        "old": [HEADER, *old],
        "About": [["Census 2020"], ["a", "b", "c"]],
        "T1": [HEADER, *rows],
    }
    workbook(tmp_path / "counts.xlsx", sheets, hidden=("old",))
    found, built = people(tmp_path, sheet_settings())
    assert found == right(units)
    assert "'T1' was taken" in built.failed["counts_readable"].message
    half, _ = people(tmp_path, sheet_settings(sheet="old"))
    assert half["0002"] == 103


def test_several_sheets_that_could_be_meant_are_named(units: list[Unit], tmp_path: Path) -> None:
    rows = [HEADER, *rows_of(units)]
    workbook(tmp_path / "counts.xlsx", {"2010": rows, "2020": rows})
    with pytest.raises(CensusError, match="several sheets that could be meant") as raised:
        build(tmp_path, sheet_settings())
    assert "'2010', '2020'" in str(raised.value)
    with pytest.raises(CensusError, match="every sheet of the workbook with rows is hidden"):
        workbook(tmp_path / "counts.xlsx", {"a": rows, "b": []}, hidden=("a",))
        build(tmp_path, sheet_settings())


def test_a_chart_sheet_is_no_table(units: list[Unit], tmp_path: Path) -> None:
    from openpyxl.chart import BarChart, Reference

    book = workbook(tmp_path / "counts.xlsx", {"T1": [HEADER, *rows_of(units)]})
    chart = BarChart()
    chart.add_data(Reference(book["T1"], min_col=3, min_row=1, max_row=13), titles_from_data=True)
    book.create_chartsheet("Chart", 0).add_chart(chart)
    book.save(tmp_path / "counts.xlsx")
    found, _ = people(tmp_path, sheet_settings())
    assert found == right(units)
    with pytest.raises(CensusError, match="the sheet is a chart"):
        build(tmp_path, sheet_settings(sheet="Chart"))


@pytest.mark.parametrize("record", ["A1:B5", "A1", "C3:C4", "A1:XFD1048576", ""])
def test_a_sheet_is_read_to_its_real_end(record: str, units: list[Unit], tmp_path: Path) -> None:
    workbook(tmp_path / "book.xlsx", {"a": [HEADER, *rows_of(units)]})
    whole = f'<dimension ref="{record}"/>' if record else ""
    with (
        zipfile.ZipFile(tmp_path / "book.xlsx") as source,
        zipfile.ZipFile(tmp_path / "counts.xlsx", "w") as out,
    ):
        for name in source.namelist():
            data = source.read(name)
            if name.startswith("xl/worksheets/"):
                data, n = re.subn(rb"<dimension[^>]*/>", whole.encode(), data)
                assert n == 1
            out.writestr(name, data)
    found, built = people(tmp_path, sheet_settings())
    assert found == right(units)
    assert not built.failed


# Lines around, between and in the header ---------------------------------------------------------


TITLE = [["Table 3. Population by district, census 2020"], [], ["Persons", "", "as of 1 May"]]
NOTES = [[], ["Source: National office, census 2020"], ["* provisional; see chapter 2, page 7"]]


@pytest.mark.parametrize("kind", ["xlsx", "csv", "semicolons"])
def test_titles_above_and_notes_below(kind: str, units: list[Unit], tmp_path: Path) -> None:
    rows = [*TITLE, HEADER, *rows_of(units), *NOTES]
    if kind == "xlsx":
        workbook(tmp_path / "counts.xlsx", {"a": rows})
        section = sheet_settings()
    else:
        table_csv(tmp_path / "counts.csv", rows, ";" if kind == "semicolons" else ",")
        section = settings(counts__columns=COLUMNS)
    found, built = people(tmp_path, section)
    assert found == right(units)
    told = aside(built)
    assert [row for row in told if row <= 3] == [1, 3]
    assert any("provisional" in text for text in told.values())
    assert any("National office" in text for text in told.values())
    assert "set aside" in built.failed["counts_readable"].message


def test_labels_sub_headers_and_headings_count_nobody(units: list[Unit], tmp_path: Path) -> None:
    rows: Rows = [HEADER, ["Geography", "Geographic Area Name", " !!Total population in 2020"]]
    for k, row in enumerate(rows_of(units)):
        rows += [["", "Sud", ""], HEADER] if k == 4 else []
        rows.append(row)
    table_csv(tmp_path / "counts.csv", rows)
    found, built = people(tmp_path)
    assert found == right(units)
    assert sorted(aside(built)) == [2, 7, 8]


def test_numbers_of_the_columns_below_the_header(units: list[Unit], tmp_path: Path) -> None:
    for numbers in (["1", "2", "3"], ["(1)", "(2)", "(3)"]):
        table_csv(tmp_path / "counts.csv", [HEADER, numbers, *rows_of(units)])
        found, built = people(tmp_path)
        assert found == right(units)
        assert list(aside(built)) == [2]


def test_labels_of_a_long_table_have_no_year(units: list[Unit], tmp_path: Path) -> None:
    rows: Rows = [["code", "year", "population"], ["#adm2+code", "#date+year", "#population"]]
    rows += [["Code", "Year", "Persons"]]
    rows += [[u.id, y, u.people + y - 2020] for u in units for y in (2018, 2020)]
    table_csv(tmp_path / "counts.csv", rows)
    columns = {"id": "code", "year": "year", "people": "population"}
    found, built = people(tmp_path, settings(counts={"file": "counts.csv", "columns": columns}))
    assert found == right(units)
    assert sorted(aside(built)) == [2, 3]


def test_a_word_for_a_count_of_a_unit_is_still_an_error(units: list[Unit], tmp_path: Path) -> None:
    rows = [HEADER, *rows_of(units)]
    rows[1][2] = "unknown"
    table_csv(tmp_path / "counts.csv", rows)
    assert (
        "'unknown'"
        in build(tmp_path, settings(counts__columns=COLUMNS)).failed["counts_numeric"].message
    )
    rows[1][:] = ["0099", "Nowhere", "1 1O7"]
    table_csv(tmp_path / "counts.csv", rows)
    failed = build(tmp_path, settings(counts__columns=COLUMNS)).failed
    assert failed["people_have_polygon"].severity == "error"


@pytest.mark.parametrize("stated", [None, 2])
def test_a_header_of_two_lines(stated: int | None, units: list[Unit], tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(["Population of districts"])
    sheet.append(["District", "", "Census 2010", "", "Census 2020", ""])
    sheet.append(["Code", "Name", "Total", "Male", "Total", "Male"])
    for u in units:
        sheet.append([u.id, u.name, u.people - 50, u.people // 2 - 20, u.people, u.people // 2])
    for merge in ("A2:B2", "C2:D2", "E2:F2"):
        sheet.merge_cells(merge)
    book.save(tmp_path / "counts.xlsx")
    columns = {"id": "Code", "name": "Name"}
    columns["people"] = {2010: "Census 2010 Total", 2020: "Census 2020 Total"}
    found, _ = people(tmp_path, sheet_settings(columns=columns, year=None, header_row=stated))
    assert found == right(units)


def test_merged_parent_cells(units: list[Unit], tmp_path: Path) -> None:
    for k, unit in enumerate(units):
        unit.name = f"Ward {k if k < 4 else k - 4}"  # names return in the second province
    write_boundaries(tmp_path / "units.gpkg", units)
    header = ["province", "name", "population"]
    rows: Rows = [
        [u.parent if k in (0, 4) else None, u.name, u.people] for k, u in enumerate(units)
    ]
    book = openpyxl.Workbook()
    for row in [header, *rows]:
        book.active.append(row)
    book.active.merge_cells("A2:A5")
    book.active.merge_cells("A6:A13")
    book.save(tmp_path / "counts.xlsx")
    columns = {"name": "name", "parent": "province", "people": "population"}
    found, built = people(tmp_path, sheet_settings(columns=columns))
    assert found == right(units)
    assert not built.failed
    table_csv(tmp_path / "counts.csv", [header, *[[c or "" for c in row] for row in rows]])
    found, built = people(tmp_path, settings(counts__columns=columns))
    assert found == right(units)
    assert "last one above" in built.failed["counts_readable"].message


def test_a_count_merged_over_two_rows_is_nobodys(units: list[Unit], tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for row in [HEADER, *rows_of(units)]:
        book.active.append(row)
    book.active.merge_cells("C3:C4")
    book.save(tmp_path / "counts.xlsx")
    failed = build(tmp_path, sheet_settings()).failed
    assert "merged over several rows" in failed["counts_numeric"].message
    assert [r["row"] for r in failed["counts_numeric"].rows] == [3, 4]


def test_rows_shorter_than_the_header(units: list[Unit], tmp_path: Path) -> None:
    rows: Rows = [[*HEADER, "note"], *rows_of(units)]
    rows[3].append("estimated")
    table_csv(tmp_path / "counts.csv", rows)
    found, built = people(tmp_path)
    assert found == right(units)
    assert "shorter than the header" in built.failed["counts_readable"].message
    rows[5] = [rows[5][0], rows[5][2]]  # the name is missing: the count stands in its column
    table_csv(tmp_path / "counts.csv", rows)
    with pytest.raises(CensusError, match="fewer values"):
        build(tmp_path, settings(counts__columns=COLUMNS))


def test_two_columns_of_one_name(units: list[Unit], tmp_path: Path) -> None:
    header = [*HEADER, "area", "area", "population"]
    rows = [[*row, 16, 15, row[2]] for row in rows_of(units)]
    table_csv(tmp_path / "counts.csv", [header, *rows])
    found, built = people(tmp_path)
    assert found == right(units), "unused, or twice the same"
    assert not built.failed
    rows[3][5] = 0
    table_csv(tmp_path / "counts.csv", [header, *rows])
    with pytest.raises(CensusError, match="two columns have one name"):
        build(tmp_path, settings(counts__columns=COLUMNS))
    named = {**COLUMNS, "people": "population (column 3)"}
    assert people(tmp_path, settings(counts__columns=named))[0] == right(units)


def test_tables_written_by_programs(units: list[Unit], tmp_path: Path) -> None:
    """R numbers its rows without a name for them; pandas leaves the name of its index empty."""
    header = ",".join(f'"{h}"' for h in HEADER)
    lines = [f'"{k + 1}","{u.id}","{u.name}",{u.people}' for k, u in enumerate(units)]
    (tmp_path / "counts.csv").write_text("\n".join([header, *lines]) + "\n", "utf-8")
    assert people(tmp_path)[0] == right(units)
    frame = pd.DataFrame(rows_of(units), columns=HEADER)
    frame.to_csv(tmp_path / "counts.csv")
    assert people(tmp_path)[0] == right(units)
    frame.to_csv(tmp_path / "counts.csv", sep=";", index=False, encoding="utf-16")
    text = (tmp_path / "counts.csv").read_bytes().decode("utf-16")
    (tmp_path / "counts.csv").write_text("sep=;\n" + text, "utf-8")
    assert people(tmp_path)[0] == right(units), "a line for Excel above the header"
    table = pa.Table.from_pandas(frame).append_column("shape", pa.array([b"x"] * 12))
    pq.write_table(table, tmp_path / "counts.parquet")
    section = settings(counts={"file": "counts.parquet", "year": 2020, "columns": COLUMNS})
    assert people(tmp_path, section)[0] == right(units)


# Totals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "total",
    [["", "Testland", TOTAL], ["00", "Ensemble du pays", TOTAL], ["", "TOTAL", TOTAL + 3],
     ["XX", "Huye", TOTAL]],
    ids=["country's name", "a code of its own", "off by rounding", "a unit's name too"],
)  # fmt: skip
@pytest.mark.parametrize("place_", [0, 12])
def test_totals_are_set_aside(
    total: list[Any], place_: int, units: list[Unit], tmp_path: Path
) -> None:
    rows = rows_of(units)
    rows.insert(place_, total)
    table_csv(tmp_path / "counts.csv", [HEADER, *rows])
    found, built = people(tmp_path)
    assert found == right(units)
    assert list(aside(built)) == [place_ + 2]
    assert "totals of the others" in built.failed["people_have_polygon"].message


def test_a_country_with_a_unit_of_its_own_name(units: list[Unit], tmp_path: Path) -> None:
    """Joined by name, the country's row and the unit's both find the unit."""
    rows: Rows = [["", "Huye", TOTAL], *[["", u.name, u.people] for u in units]]
    table_csv(tmp_path / "counts.csv", [HEADER, *rows])
    columns = {"name": "name", "people": "population"}
    found, _ = people(tmp_path, settings(counts__columns=columns))
    assert found == right(units)


def test_sums_of_provinces_by_name_and_by_code(units: list[Unit], tmp_path: Path) -> None:
    north = sum(u.people for u in units[:4])
    rows: Rows = [["1", "Nord", north], *rows_of(units)[:4], ["2", "Sud", TOTAL - north]]
    rows += rows_of(units)[4:]
    table_csv(tmp_path / "counts.csv", [HEADER, *rows])
    found, built = people(tmp_path)
    assert found == right(units)
    assert sorted(aside(built)) == [2, 7]
    for k, unit in enumerate(units):
        unit.id = f"P{1 if k < 4 else 2}{k:02d}"
        unit.parent = ""
    write_boundaries(tmp_path / "units.gpkg", units)
    rows = [["P1", "x", north], *rows_of(units), ["P2", "y", TOTAL - north]]
    table_csv(tmp_path / "counts.csv", [HEADER, *rows])
    assert people(tmp_path)[0] == right(units)


def test_a_total_is_one_in_every_year_of_a_wide_table(units: list[Unit], tmp_path: Path) -> None:
    """A district that is new has no count of 2010, when the country's row had its people."""
    rows: Rows = [["code", "P2010", "P2020"], ["Testland", TOTAL - 50, TOTAL]]
    rows += [[u.id, u.people - 50 if u.id != "0003" else "", u.people] for u in units]
    table_csv(tmp_path / "counts.csv", rows)
    columns = {"id": "code", "people": "P{year}"}
    built = build(tmp_path, settings(counts={"file": "counts.csv", "columns": columns}))
    finding = built.failed["people_have_polygon"]
    assert finding.severity == "warn"
    assert "In other years the rows do not add up" in finding.message
    assert {e["id"]: e["people"] for e in built.entries()} == right(units)


def test_people_without_a_polygon_are_no_total(units: list[Unit], tmp_path: Path) -> None:
    for extra in (["0099", "Nowhere", 250], ["", "TOTAL", TOTAL + 400], ["", "Nord", 999]):
        table_csv(tmp_path / "counts.csv", [HEADER, *rows_of(units), extra])
        failed = build(tmp_path, settings(counts__columns=COLUMNS)).failed
        assert failed["people_have_polygon"].severity == "error", extra


# Age bands, archives, choices --------------------------------------------------------------------


@pytest.mark.parametrize(
    "last",
    [
        "T_80+",
        "T_80Plus",
        "T_80_Plus",
        "T_80 plus",
        "T_80P",
        "T_80_up",
        "T_80_over",
        "t_80_and_over",
    ],
)
def test_names_of_open_age_bands(last: str) -> None:
    names = ["ADM2_PCODE", "T_TL", "T_0_4", "T_05_79", last, "F_80+", "T_UNK"]
    found = bands(names)
    assert found.columns == ("T_0_4", "T_05_79", last, "T_UNK")
    assert found.whole


def test_coarse_and_fine_bands_side_by_side_count_once() -> None:
    found = bands(
        ["T_00_14", "T_15_64", "T_65+", "T_00", "T_01_04", "T_05_14", "T_15_24", "T_25_64"]
    )
    assert found.columns == ("T_00", "T_01_04", "T_05_14", "T_15_24", "T_25_64", "T_65+")
    assert not bands(["T_00_14", "T_65+"]).whole
    assert bands(["T_TL", "M_00_04"]).columns == ()


def test_a_mac_archive(units: list[Unit], tmp_path: Path) -> None:
    table_csv(tmp_path / "pop.csv", [HEADER, *rows_of(units)])
    with zipfile.ZipFile(tmp_path / "counts.zip", "w") as out:
        for name in ("__MACOSX/data/._pop.csv", "data/._pop.csv", "data/.DS_Store", "Thumbs.db"):
            out.writestr(name, b"\x00\x05\x16\x07")
        out.write(tmp_path / "pop.csv", "data/pop.csv")
    section = settings(counts={"file": "counts.zip", "year": 2020, "columns": COLUMNS})
    found, built = people(tmp_path, section)
    assert found == right(units)
    (source,) = set(built.counts.counts["source"])
    assert source == "counts.zip", "the office's own file"
    assert set(built.counts.counts["source_sha256"]) == {
        s.sha256 for s in built.counts.sources if s.file == "counts.zip"
    }


def test_columns_of_people_that_differ_are_not_chosen_among(
    units: list[Unit], tmp_path: Path
) -> None:
    rows: Rows = [["ADM2_PCODE", "T_TL", "Population"]]
    rows += [[u.id, u.people, u.people] for u in units]
    table_csv(tmp_path / "counts.csv", rows)
    section = settings(reader="cod", counts={"file": "counts.csv", "year": 2020})
    assert people(tmp_path, section)[0] == right(units)
    rows[2][2] += 5
    table_csv(tmp_path / "counts.csv", rows)
    with pytest.raises(CensusError, match="several columns could be the one of people"):
        build(tmp_path, section)


def test_a_large_sheet_is_read_in_seconds(tmp_path: Path) -> None:
    from popcorn_ml.census.tables import read_table

    frame = pd.DataFrame(np.arange(40_000).reshape(-1, 4), columns=["a", "b", "c", "d"])
    with io.BytesIO() as stream:
        frame.to_excel(stream, index=False)
        (tmp_path / "t.xlsx").write_bytes(stream.getvalue())
    table = read_table(tmp_path / "t.xlsx")
    assert (table.columns, len(table.frame)) == (["a", "b", "c", "d"], 10_000)


def test_the_layer_that_holds_polygons_is_read(units: list[Unit], tmp_path: Path) -> None:
    """GDAL's first layer may be a table, or the places' labels; two of polygons are refused."""
    import geopandas as gpd
    import pyogrio

    table_csv(tmp_path / "counts.csv", [HEADER, *rows_of(units)])
    frame = gpd.read_file(tmp_path / "units.gpkg")
    path = tmp_path / "units.gpkg"
    path.unlink()
    pyogrio.write_dataframe(pd.DataFrame({"code": ["x"]}), path, layer="about")
    points = frame.set_geometry(frame.geometry.centroid)
    pyogrio.write_dataframe(points, path, layer="labels", append=True)
    pyogrio.write_dataframe(frame, path, layer="districts", append=True)
    assert people(tmp_path)[0] == right(units)
    pyogrio.write_dataframe(frame, path, layer="wards", append=True)
    with pytest.raises(CensusError, match="several layers") as raised:
        build(tmp_path, settings(counts__columns=COLUMNS))
    assert raised.value.found == "districts, wards"
