"""Sheets of a workbook as lines of text: the one that a person sees, to its real end.

What a sheet says of its own size is not believed; chart sheets and hidden ones are not taken
unasked; a cell that was merged over several rows says what it says for each of them.
"""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from xml.etree import ElementTree

from popcorn_ml.census import archive
from popcorn_ml.census.layout import LOOKED_AT, Fits, Row, seeks
from popcorn_ml.errors import CensusError

LIMITS = archive.Limits(total_bytes=1024**3)
"""A workbook unpacks into text that is read as a whole."""
MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
STRICT = "{http://purl.oclc.org/ooxml/spreadsheetml/main}"
PACKAGE = "{http://schemas.openxmlformats.org/package/2006/relationships}"


@dataclass(frozen=True)
class Sheet:
    """One sheet as text.

    Attributes:
        name: its name.
        lines: its rows, blank ones left out.
        typed: positions of columns that hold numbers with a fraction as numbers, not as text.
        merged: of cells that are merged downwards: (position of the column, row) -> what the
            uppermost says.
        notes: why this sheet was taken, where there was a choice.
    """

    name: str
    lines: list[Row]
    typed: frozenset[int]
    merged: dict[tuple[int, int], str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_sheet(path: Path, name: str | None, fits: Fits | None, header_row: int | None) -> Sheet:
    """Read a sheet.

    Args:
        path: the workbook.
        name: of the sheet; None takes the only one that is to be seen and can be meant.
        fits: recognises the header that is looked for, to choose by where there are several.
        header_row: number of the header's line, where stated.

    Raises:
        CensusError: no workbook, no such sheet, a chart, or several sheets that could be meant.
    """
    import openpyxl

    archive.inspect(path, LIMITS, "workbook")
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, TypeError) as error:
        raise CensusError(
            "the workbook cannot be opened",
            where=path,
            expected="an xlsx file",
            found=str(error),
            remedy="save it again as xlsx",
        ) from error
    try:
        sheets = {sheet.title: sheet for sheet in book.worksheets}
        for sheet in sheets.values():
            sheet.reset_dimensions()  # a program that appended rows may have left the old record
        notes: tuple[str, ...] = ()
        if name is None:
            name, notes = _chosen(path, book, sheets, fits, header_row)
        elif name not in sheets:
            chart = name in book.sheetnames
            raise CensusError(
                "the sheet is a chart" if chart else "the workbook has no such sheet",
                where=path,
                expected="a sheet of cells" if chart else name,
                found=", ".join(sheets if chart else book.sheetnames),
                remedy="correct `sheet` in the country's file",
            )
        typed: set[int] = set()
        lines = list(_lines(sheets[name], typed))
    finally:
        book.close()
    return Sheet(name, lines, frozenset(typed), _merged(path, name, lines), notes)


def _chosen(
    path: Path, book, sheets: dict, fits: Fits | None, header_row: int | None
) -> tuple[str, tuple[str, ...]]:
    """The sheet to take where the settings name none, and why."""
    hidden = [n for n, sheet in sheets.items() if sheet.sheet_state != "visible"]
    heads = {
        name: list(islice(_lines(sheet, set()), LOOKED_AT))
        for name, sheet in sheets.items()
        if name not in hidden
    }
    seen = [name for name, lines in heads.items() if lines]
    right = [n for n in seen if fits is not None and seeks(heads[n], fits, header_row)]
    if len(right) == 1 or len(seen) == 1:
        name = right[0] if len(right) == 1 else seen[0]
        others = [n for n in book.sheetnames if n != name and n in (*seen, *hidden)]
        if not others:
            return name, ()
        why = "the only one with the columns" if len(seen) > 1 else "the only one that is shown"
        return name, (f"sheet {name!r} was taken, {why}; not {', '.join(map(repr, others))}",)
    if not seen and not hidden:
        raise CensusError(
            "the sheet is empty",
            where=path,
            expected="a header and at least one row",
            found=", ".join(book.sheetnames),
            remedy="name the right `sheet` in the country's file",
        )
    raise CensusError(
        "the workbook has several sheets that could be meant"
        if seen
        else "every sheet of the workbook with rows is hidden",
        where=path,
        expected="one with the columns, or its name in the settings",
        found=", ".join(map(repr, right or seen or hidden)),
        remedy="name one as `sheet` in the country's file",
    )


def _lines(sheet, typed: set[int]) -> Iterator[Row]:
    for number, cells in enumerate(sheet.iter_rows(), start=1):
        row = [_cell_text(cell) for cell in cells]
        if not any(text.strip() for text in row):
            continue
        typed |= {k for k, c in enumerate(cells) if isinstance(c.value, float) and c.value % 1 != 0}
        yield number, row


def _cell_text(cell) -> str:
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    if isinstance(value, int):
        # A code shown as 00123 by its number format is that code, not the number 123.
        shown = getattr(cell, "number_format", None) or ""
        return str(value).zfill(len(shown)) if shown and set(shown) == {"0"} else str(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return str(value)


def _merged(path: Path, name: str, lines: Sequence[Row]) -> dict[tuple[int, int], str]:
    """What each cell of a downward merge stands for; merges across one row are not among them."""
    from openpyxl.utils.cell import range_boundaries

    rows = dict(lines)
    out: dict[tuple[int, int], str] = {}
    for reference in _merges(path, name):
        left, top, _, bottom = range_boundaries(reference)
        cells = rows.get(top, [])
        if bottom == top or len(cells) < left or not cells[left - 1].strip():
            continue
        covered = [row for row in range(top, bottom + 1) if row in rows]
        if len(covered) > 1:
            out |= {(left - 1, row): cells[left - 1] for row in covered}
    return out


def _merges(path: Path, name: str) -> Iterator[str]:
    """References such as B3:B9, from the sheet's own part of the workbook."""
    with zipfile.ZipFile(path) as book:
        part = _part(book, name)
        if part is None:
            return
        with book.open(part) as stream:
            # Rows come before the merges and are as many as the sheet is long: drop them.
            for _, element in ElementTree.iterparse(stream):
                tag = element.tag.rpartition("}")[2]
                if tag == "mergeCell" and (reference := element.get("ref")):
                    yield reference
                if tag in ("row", "mergeCell"):
                    element.clear()


def _part(book: zipfile.ZipFile, name: str) -> str | None:
    """Path of a sheet's part, by the workbook's list of sheets and its relationships."""
    start = "xl/workbook.xml"
    try:
        listed = ElementTree.fromstring(book.read(start))
        related = ElementTree.fromstring(book.read("xl/_rels/workbook.xml.rels"))
    except KeyError:
        return None
    targets = {r.get("Id"): r.get("Target", "") for r in related.iter(f"{PACKAGE}Relationship")}
    for space in (MAIN, STRICT):
        for sheet in listed.iter(f"{space}sheet"):
            ids = [v for k, v in sheet.attrib.items() if k.endswith("}id")]
            if sheet.get("name") == name and ids and ids[0] in targets:
                target = targets[ids[0]]
                whole = target.lstrip("/") if target.startswith("/") else f"xl/{target}"
                part = posixpath.normpath(whole)
                return part if part in book.namelist() else None
    return None
