"""Reading a table of any kind (CSV, Parquet, Excel) as text, with the row each line came from.

Everything stays text here, so that identifiers keep their leading zeros; numbers are parsed by
`readers` where a column is known to hold them. Which column means what is not known here.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import io
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from popcorn_ml.census import archive
from popcorn_ml.census.text import decode, name_key, sniff_delimiter
from popcorn_ml.errors import CensusError

if TYPE_CHECKING:
    import pandas as pd

TEXT_SUFFIXES = (".csv", ".tsv", ".txt")
EXCEL_SUFFIXES = (".xlsx", ".xlsm")
PARQUET_SUFFIXES = (".parquet", ".pq")
TABLE_SUFFIXES = TEXT_SUFFIXES + EXCEL_SUFFIXES + PARQUET_SUFFIXES
MAX_BYTES = 1024**3
WORKBOOK = archive.Limits(total_bytes=1024**3)
"""A workbook unpacks into text that is read as a whole."""
ROW = "__row__"
"""Name of the column that holds each line's number in its file (the header of a CSV is 1)."""


@dataclass(frozen=True)
class Table:
    """A table as text.

    Attributes:
        path: the file.
        frame: one text column per header, and `ROW`.
        notes: what was guessed or mended while reading, in sentences.
    """

    path: Path
    frame: pd.DataFrame
    notes: tuple[str, ...] = field(default=())

    @property
    def columns(self) -> list[str]:
        """The file's own columns."""
        return [c for c in self.frame.columns if c != ROW]


def sha256(path: Path) -> str:
    """Hash of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_table(
    path: Path,
    *,
    sheet: str | None = None,
    encoding: str | None = None,
    delimiter: str | None = None,
    header_row: int = 1,
) -> Table:
    """Read a table as text.

    Args:
        path: CSV, TSV or TXT; Excel (xlsx); Parquet.
        sheet: of an Excel file; None takes the first.
        encoding, delimiter: of text; None detects them.
        header_row: 1-based line of the header.

    Raises:
        CensusError: missing, empty, not what its name says, undecodable, ragged, without rows.
    """
    _plain_file(path)
    suffix = path.suffix.lower()
    if suffix in TEXT_SUFFIXES:
        table = _read_text(path, encoding, delimiter, header_row)
    elif suffix in EXCEL_SUFFIXES:
        table = _read_excel(path, sheet, header_row)
    elif suffix in PARQUET_SUFFIXES:
        table = _read_parquet(path)
    else:
        raise CensusError(
            "this kind of table is not read",
            where=path,
            expected="one of " + ", ".join(TABLE_SUFFIXES),
            found=suffix or "no suffix",
            remedy="save it as CSV in UTF-8, or as xlsx",
        )
    if table.frame.empty:
        raise CensusError(
            "the table has no rows",
            where=path,
            expected="a header and at least one row",
            found="a header only",
            remedy="export it again with its data",
        )
    return table


def _plain_file(path: Path) -> None:
    if not path.is_file():
        raise CensusError(
            "the file is missing",
            where=path,
            remedy="put it there, or correct its path in the country's file",
        )
    size = path.stat().st_size
    if size == 0:
        raise CensusError(
            "the file is empty",
            where=path,
            expected="a table",
            found="0 bytes",
            remedy="fetch or export it again",
        )
    if size > MAX_BYTES:
        raise CensusError(
            "the table is too large",
            where=path,
            expected=f"at most {MAX_BYTES} bytes",
            found=size,
            remedy="keep the columns and the country that are needed",
        )
    with open(path, "rb") as stream:
        head = stream.read(512)
    disguise = _disguise(head, path.suffix.lower())
    if disguise:
        raise CensusError(
            f"the file is {disguise}, not what its name says",
            where=path,
            expected=f"a {path.suffix.lower() or 'table'} file",
            found=disguise,
            remedy="fetch the file itself again, or give it its right suffix",
        )


def _disguise(head: bytes, suffix: str) -> str | None:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer"
    if start.startswith(b"%pdf"):
        return "a PDF"
    if suffix in TEXT_SUFFIXES:
        if head.startswith(b"PK\x03\x04"):
            return "a zip archive or an Excel workbook"
        if head.startswith(b"PAR1"):
            return "a Parquet file"
        if head.startswith(b"\xd0\xcf\x11\xe0"):
            return "an old Excel workbook (xls)"
    if suffix in EXCEL_SUFFIXES:
        if head.startswith(b"\xd0\xcf\x11\xe0"):
            return "an old or encrypted Excel workbook"
        if not head.startswith(b"PK"):
            return "no Excel workbook"
    if suffix in PARQUET_SUFFIXES and not head.startswith(b"PAR1"):
        return "no Parquet file"
    return None


def _read_text(path: Path, encoding: str | None, delimiter: str | None, header_row: int) -> Table:
    raw = path.read_bytes()
    notes: list[str] = []
    try:
        if encoding:
            text = raw.decode(encoding)
        else:
            decoded = decode(raw)
            text = decoded.text
            if decoded.guessed:
                notes.append(
                    f"{path}: not UTF-8; read as {decoded.encoding}. Look at the names, and state "
                    "`encoding` in the country's file"
                )
    except (UnicodeError, LookupError) as error:
        raise CensusError(
            "the text cannot be decoded",
            where=path,
            expected=encoding or "UTF-8",
            found=str(error),
            remedy="save it as UTF-8, or state its `encoding` in the country's file",
        ) from error
    used = delimiter or sniff_delimiter("\n".join(text.splitlines()[header_row - 1 :]))
    if used is None:
        raise CensusError(
            "no delimiter cuts the header into columns",
            where=f"{path}, line {header_row}",
            expected="columns separated by comma, semicolon, tab or bar",
            found=repr("".join(text.splitlines()[header_row - 1 : header_row])[:80]),
            remedy="export it as CSV, or state `delimiter` or `header_row` in the country's file",
        )
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=used, strict=True)
    rows: list[tuple[int, list[str]]] = []
    try:
        rows.extend((reader.line_num, row) for row in reader)
    except csv.Error as error:
        raise CensusError(
            "a quotation mark is not closed, or stands inside a value",
            where=f"{path}, line {reader.line_num}",
            found=str(error),
            remedy="close or double the mark",
        ) from error
    rows = [(n, row) for n, row in rows if n >= header_row and any(cell.strip() for cell in row)]
    if not rows:
        raise CensusError(
            "the table is empty",
            where=path,
            expected="a header and at least one row",
            remedy="export it again with its data",
        )
    return _table(path, rows[0][1], rows[1:], notes)


def _table(
    path: Path, header: list[str], rows: Iterable[tuple[int, list[str]]], notes: list[str]
) -> Table:
    import pandas as pd

    names = [name.strip().lstrip("\ufeff") for name in header]
    while names and not names[-1]:
        names.pop()
    width = len(names)
    columns: list[list[str]] = [[] for _ in names]
    numbers: list[int] = []
    for number, row in rows:
        if len(row) > width and any(cell.strip() for cell in row[width:]):
            raise CensusError(
                "a row has more values than the header has columns",
                where=f"{path}, row {number}",
                expected=f"{width} values",
                found=f"{len(row)}: {row[: width + 1]}",
                remedy="quote the value that holds the delimiter",
            )
        if len(row) < width:
            raise CensusError(
                "a row has fewer values than the header has columns",
                where=f"{path}, row {number}",
                expected=f"{width} values",
                found=f"{len(row)}: {row}",
                remedy="complete the row, or remove it",
            )
        for column, cell in zip(columns, row, strict=False):
            column.append(cell)
        numbers.append(number)
    unique = [n or f"(column {i + 1})" for i, n in enumerate(names)]
    twice = sorted({n for n in unique if unique.count(n) > 1})
    if twice:
        raise CensusError(
            "two columns have one name",
            where=path,
            expected="a name of its own for each column",
            found=", ".join(twice),
            remedy="rename one of them",
        )
    frame = pd.DataFrame(dict(zip(unique, columns, strict=True)), dtype=object)
    frame[ROW] = numbers
    return Table(path, frame, tuple(notes))


def _read_excel(path: Path, sheet: str | None, header_row: int) -> Table:
    import openpyxl

    archive.inspect(path, WORKBOOK, "workbook")
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
        if sheet is not None and sheet not in book.sheetnames:
            raise CensusError(
                "the workbook has no such sheet",
                where=path,
                expected=sheet,
                found=", ".join(book.sheetnames),
                remedy="correct `sheet` in the country's file",
            )
        chosen = book[sheet] if sheet is not None else book.worksheets[0]
        rows: list[tuple[int, list[str]]] = []
        for number, cells in enumerate(chosen.iter_rows(), start=1):
            if number < header_row:
                continue
            row = [_cell_text(cell) for cell in cells]
            if any(cell.strip() for cell in row):
                rows.append((number, row))
    finally:
        book.close()
    if not rows:
        raise CensusError(
            "the sheet is empty",
            where=f"{path}, sheet {sheet or 1}",
            expected="a header and at least one row",
            remedy="name the right `sheet` in the country's file",
        )
    width = len(rows[0][1])
    padded = [(n, row + [""] * (width - len(row))) for n, row in rows]
    return _table(path, padded[0][1], padded[1:], [])


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


def _read_parquet(path: Path) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(path)
        if sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)) > (
            4 * MAX_BYTES
        ):
            raise CensusError("the table is too large", where=path, remedy="keep what is needed")
        data = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise CensusError(
            "the Parquet file cannot be read",
            where=path,
            found=str(error).splitlines()[0],
            remedy="write or fetch it again",
        ) from error
    names = list(data.column_names)
    plain = [n for n in names if not pa.types.is_nested(data.schema.field(n).type)]
    plain = [n for n in plain if not pa.types.is_binary(data.schema.field(n).type)]
    columns = [[_value_text(v) for v in data.column(n).to_pylist()] for n in plain]
    rows = [(i + 1, list(row)) for i, row in enumerate(zip(*columns, strict=True))]
    return _table(path, plain, rows, [])


def _value_text(value: object) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, float):
        if value.is_integer() and abs(value) < 1e15:
            return str(int(value))
        short = repr(value)
        return short if "e" not in short else format(value, ".12f")
    return str(value)


def find_column(table: Table, wanted: str, purpose: str, setting: str) -> str:
    """The table's column of a name, exact or else alike but for case and accents.

    Args:
        table: where to look.
        wanted: the name in the settings.
        purpose: what the column holds, for the message.
        setting: the setting to correct, for the message.

    Raises:
        CensusError: there is none, or several are alike.
    """
    return pick_column(table.columns, wanted, purpose, setting, table.path)


def pick_column(
    columns: Sequence[str], wanted: str, purpose: str, setting: str, path: Path | str
) -> str:
    """As `find_column`, among names."""
    if wanted in columns:
        return wanted
    alike = [c for c in columns if name_key(c) == name_key(wanted) and name_key(c)]
    if len(alike) == 1:
        return alike[0]
    near = difflib.get_close_matches(wanted, list(columns), n=1, cutoff=0.6)
    raise CensusError(
        f"there is no column of {purpose}",
        where=path,
        expected=f"a column {wanted!r}",
        found=", ".join(map(repr, columns)),
        remedy=(f"did you mean {near[0]!r}? " if near else "")
        + f"correct `{setting}` in the country's file",
    )
