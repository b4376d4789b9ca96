"""Reading a table of any kind (CSV, Parquet, Excel) as text, with the row each line came from.

Everything stays text here, so that identifiers keep their leading zeros; numbers are parsed by
`readers` where a column is known to hold them. Which column means what is not known here.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from popcorn_ml.census.layout import Aside, Fits, Header, Layout, Row, header_of, lay_out
from popcorn_ml.census.text import decode, name_key, sniff_delimiter
from popcorn_ml.errors import CensusError

if TYPE_CHECKING:
    import pandas as pd

TEXT_SUFFIXES = (".csv", ".tsv", ".txt")
EXCEL_SUFFIXES = (".xlsx", ".xlsm")
PARQUET_SUFFIXES = (".parquet", ".pq")
TABLE_SUFFIXES = TEXT_SUFFIXES + EXCEL_SUFFIXES + PARQUET_SUFFIXES
MAX_BYTES = 1024**3
ROW = "__row__"
"""Name of the column that holds each line's number in its file (the header of a CSV is 1)."""


@dataclass(frozen=True)
class Table:
    """A table as text.

    Attributes:
        path: the file.
        frame: one text column per header, and `ROW`.
        header: names of the columns, and what else they are called.
        notes: what was guessed or mended while reading, in sentences.
        asides: lines of the file that are no rows of the table.
        typed: columns that hold numbers with a fraction as numbers, not as text.
        merged: of cells merged over several rows: column -> row -> what they say.
    """

    path: Path
    frame: pd.DataFrame
    header: Header
    notes: tuple[str, ...] = field(default=())
    asides: tuple[Aside, ...] = field(default=())
    typed: frozenset[str] = frozenset()
    merged: Mapping[str, Mapping[int, str]] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """The file's own columns."""
        return list(self.header.names)


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
    header_row: int | None = None,
    fits: Fits | None = None,
) -> Table:
    """Read a table as text.

    Args:
        path: CSV, TSV or TXT; Excel (xlsx); Parquet.
        sheet: of an Excel file; None takes the one that is shown, or that has the columns.
        encoding, delimiter: of text; None detects them.
        header_row: 1-based line of the header; None looks for it.
        fits: recognises the header that is looked for.

    Raises:
        CensusError: missing, empty, not what its name says, undecodable, ragged, without rows.
    """
    _plain_file(path)
    suffix = path.suffix.lower()
    if suffix in TEXT_SUFFIXES:
        table = _read_text(path, encoding, delimiter, fits, header_row)
    elif suffix in EXCEL_SUFFIXES:
        table = _read_excel(path, sheet, fits, header_row)
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


def _read_text(
    path: Path,
    encoding: str | None,
    delimiter: str | None,
    fits: Fits | None,
    header_row: int | None,
) -> Table:
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
                    f"not UTF-8; read as {decoded.encoding}. Look at the names, and state "
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
    start = header_row or 1
    used = delimiter or sniff_delimiter("\n".join(text.splitlines()[start - 1 :]))
    if used is None:
        raise CensusError(
            "no delimiter cuts the header into columns",
            where=f"{path}, line {start}",
            expected="columns separated by comma, semicolon, tab or bar",
            found=repr("".join(text.splitlines()[start - 1 : start])[:80]),
            remedy="export it as CSV, or state `delimiter` or `header_row` in the country's file",
        )
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=used, strict=True)
    lines: list[Row] = []
    try:
        lines.extend((reader.line_num, row) for row in reader)
    except csv.Error as error:
        raise CensusError(
            "a quotation mark is not closed, or stands inside a value",
            where=f"{path}, line {reader.line_num}",
            found=str(error),
            remedy="close or double the mark",
        ) from error
    return _table(path, lay_out(path, lines, fits, header_row, padded=False), notes)


def _table(path: Path, layout: Layout, notes: Sequence[str] = ()) -> Table:
    import pandas as pd

    names = layout.header.names
    frame = pd.DataFrame(
        {name: [row[i] for _, row in layout.rows] for i, name in enumerate(names)}, dtype=object
    )
    frame[ROW] = [number for number, _ in layout.rows]
    return Table(path, frame, layout.header, (*notes, *layout.notes), layout.asides)


def _read_excel(path: Path, sheet: str | None, fits: Fits | None, header_row: int | None) -> Table:
    from popcorn_ml.census.workbook import read_sheet

    read = read_sheet(path, sheet, fits, header_row)
    layout = lay_out(path, read.lines, fits, header_row, padded=True)
    table = _table(path, layout, read.notes)
    names = layout.header.names
    merged: dict[str, dict[int, str]] = {}
    for (column, row), text in read.merged.items():
        if column < len(names):
            merged.setdefault(names[column], {})[row] = text
    typed = frozenset(names[k] for k in read.typed if k < len(names))
    return replace(table, typed=typed, merged=merged)


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
    table = _table(path, Layout(header_of(plain), rows, (), ()))
    floats = [n for n in plain if pa.types.is_floating(data.schema.field(n).type)]
    return replace(table, typed=frozenset(floats))


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
    found = named(table.header, wanted)
    if found is not None:
        return found
    if name_key(wanted) in table.header.twice:
        raise CensusError(
            "two columns have one name",
            where=table.path,
            expected=f"one column {wanted!r}",
            found=", ".join(map(repr, table.columns)),
            remedy=f"rename one of them, or name the right one in `{setting}` with its number as "
            "it is listed here",
        )
    return pick_column(table.columns, wanted, purpose, setting, table.path)


def named(header: Header, wanted: str) -> str | None:
    """The column that a name means, or None where there is none, or more than one."""
    if wanted in header.names:
        return wanted
    key = name_key(wanted)
    alike = [n for n in header.names if name_key(n) == key and key]
    return alike[0] if len(alike) == 1 else header.aliases.get(key)


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
