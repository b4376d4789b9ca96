"""Where in a sheet or text the table stands: its header, its rows, and what is neither.

Offices put titles and notes around their tables, tags and labels below the header, one name over
several cells. Nothing is dropped here without being listed; what the columns mean is not known.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from popcorn_ml.census.text import MISSING, SUPPRESSED, name_key
from popcorn_ml.errors import CensusError

Row = tuple[int, list[str]]
"""A line's number in its file, and its cells."""

LOOKED_AT = 60
"""Rows among which the header is looked for."""
HEADER_SHARE = 0.6
"""Share of the usual number of filled cells that a header has at least."""
TAG = re.compile(r"#[a-z][a-z0-9_]*([+ ].*)?", re.IGNORECASE)
"""A tag of the Humanitarian Exchange Language, such as `#adm2+code`."""
NUMERIC = re.compile(r"[-+\u2212]?[\d.,'\u2019\s]*\d[\d.,'\u2019\s]*")
YEAR = re.compile(r"(18|19|20|21)\d\d")
NOTE = re.compile(
    r"\W*(source|note|remark|fuente|nota|fonte|sumber|catatan|quelle|remarque|champ)\b"
    r"|\s*([*†‡(\[]|\d[.)/])",
    re.IGNORECASE,
)
"""How notes around a table begin."""
MOSTLY = 0.9


@dataclass(frozen=True)
class Aside:
    """A line that is no row of the table.

    Attributes:
        row: its number in the file.
        why: what it is taken for.
        text: what it says, shortened.
    """

    row: int
    why: str
    text: str


@dataclass(frozen=True)
class Header:
    """Names of the columns.

    Attributes:
        names: one a column, each once.
        aliases: other names of a column under a header of two lines, by `name_key`.
        twice: names that several columns with different contents bear, as written, by `name_key`.
    """

    names: tuple[str, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)
    twice: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """A table taken apart.

    Attributes:
        header: its columns.
        first: position of each column among the cells of a line, by name.
        rows: lines that hold values, each as wide as the header.
        asides: lines that do not.
        notes: what was guessed or mended, in sentences.
    """

    header: Header
    rows: list[Row]
    asides: tuple[Aside, ...]
    notes: tuple[str, ...]


Fits = Callable[[Header], bool]
"""Whether a header has the columns that are looked for."""


def lay_out(
    path: Path, lines: Sequence[Row], fits: Fits | None, header_row: int | None, padded: bool
) -> Layout:
    """Take a sheet or text apart.

    Args:
        path: the file, for messages.
        lines: its lines in order; blank ones are skipped.
        fits: recognises the header; without it, or where none fits, the first line that is about
            as full as most.
        header_row: number of the header's line; None finds it.
        padded: whether lines end with their last filled cell, as those of a workbook do, so that
            a short one is nothing special.

    Raises:
        CensusError: nothing but blank lines, or rows that do not fit the header.
    """
    filled = [(n, row) for n, row in lines if any(cell.strip() for cell in row)]
    if header_row is not None:
        filled = [(n, row) for n, row in filled if n >= header_row]
    if not filled:
        raise CensusError(
            "the table is empty",
            where=path,
            expected="a header and at least one row",
            remedy="export it again with its data, or correct `header_row`",
        )
    place, depth = _find_header(filled, fits, header_row)
    asides = [_aside(line, "above the header") for line in filled[:place]]
    header_cells = _trimmed(filled[place][1])
    body = filled[place + depth :]
    names, lower = header_cells, None
    if depth == 2:
        lower = _trimmed(filled[place + 1][1])
        width = max(len(header_cells), len(lower))
        names = header_cells + [""] * (width - len(header_cells))
        lower = lower + [""] * (width - len(lower))
    body, found = _without_headers(body, [names, *([lower] if lower else [])])
    asides += found
    notes: list[str] = []
    if lower is None:
        names, notes = _with_row_names(names, body)
    rows, found, more = _even(path, len(names), body, padded)
    asides += found
    header = _header(names, lower, rows)
    return Layout(header, rows, tuple(asides), tuple(notes + more))


def header_of(upper: Sequence[str], lower: Sequence[str] | None = None) -> Header:
    """The header that one line, or two, would make; contents are not compared."""
    return _header(list(upper), None if lower is None else list(lower), [])


def seeks(lines: Sequence[Row], fits: Fits, header_row: int | None) -> bool:
    """Whether one of the first lines is a header that fits."""
    filled = [line for line in lines if any(cell.strip() for cell in line[1])]
    if header_row is not None:
        filled = [line for line in filled if line[0] >= header_row]
    return bool(filled) and _fitting(filled, fits, header_row) is not None


def _find_header(filled: Sequence[Row], fits: Fits | None, header_row: int | None):
    """Position of the header among the lines, and how many lines it has."""
    found = _fitting(filled, fits, header_row) if fits is not None else None
    if found is not None:
        return found
    if header_row is not None:
        return 0, 1
    sizes = [sum(bool(cell.strip()) for cell in row) for _, row in filled]
    usual = Counter(s for s in sizes if s > 1).most_common(1)
    least = max(2.0, HEADER_SHARE * usual[0][0]) if usual else 1.0
    place = next((k for k, s in enumerate(sizes[:LOOKED_AT]) if s >= least), 0)
    return place, 1


def _fitting(filled: Sequence[Row], fits: Fits, header_row: int | None) -> tuple[int, int] | None:
    """As `_find_header`, by what fits; a header of one line goes before one of two."""
    heads = [_trimmed(row) for _, row in filled[: LOOKED_AT + 1]]
    places = range(1 if header_row is not None else min(LOOKED_AT, len(filled)))
    for place in places:
        if fits(header_of(heads[place])):
            return place, 1
    for place in places:
        upper, lower = heads[place], heads[place + 1] if place + 1 < len(heads) else []
        both = len(upper) > 1 and not any(_numeric(c) and not YEAR.fullmatch(c) for c in lower)
        if lower and both and fits(header_of(upper, lower)):
            return place, 2
    return None


def _trimmed(cells: Sequence[str]) -> list[str]:
    out = [cell.strip().lstrip("\ufeff") for cell in cells]
    while out and not out[-1]:
        out.pop()
    return out


def _header(upper: list[str], lower: list[str] | None, rows: Sequence[Row]) -> Header:
    """Names from one line or two; columns of one name and equal contents count as one."""
    aliases: dict[str, str] = {}
    names = upper
    if lower is not None:
        names, aliases = _two_lines(upper, lower)
    names = [n or f"(column {i + 1})" for i, n in enumerate(names)]
    places: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        places.setdefault(name, []).append(i)
    twice: dict[str, str] = {}
    for name, where in places.items():
        if len(where) == 1:
            continue
        same = bool(rows) and all(len({row[i] for i in where}) == 1 for _, row in rows)
        for i in where[1:] if same else where:
            names[i] = f"{name} (column {i + 1})"
        if not same:
            twice[name_key(name)] = name
    return Header(tuple(names), aliases, twice)


def _two_lines(upper: list[str], lower: list[str]) -> tuple[list[str], dict[str, str]]:
    """Names of a header whose upper line spans several columns of the lower one."""
    width = max(len(upper), len(lower))
    upper = upper + [""] * (width - len(upper))
    lower = lower + [""] * (width - len(lower))
    spanning = list(upper)
    for i in range(1, width):
        if not spanning[i] and lower[i]:
            spanning[i] = spanning[i - 1] if lower[i - 1] else ""
    names = []
    uses = Counter(name_key(n) for n in [*upper, *lower] if n)
    for over, under in zip(spanning, lower, strict=True):
        whole = f"{over} {under}".strip()
        names.append(under if under and uses[name_key(under)] == 1 else whole)
    aliases: dict[str, str] = {}
    for name, over, under in zip(names, spanning, lower, strict=True):
        for other in (f"{over} {under}", f"{under} {over}"):
            if over and under:
                aliases.setdefault(name_key(other), name)
    return names, aliases


def _aside(line: Row, why: str) -> Aside:
    text = " | ".join(cell.strip() for cell in line[1] if cell.strip())
    return Aside(line[0], why, text if len(text) <= 120 else text[:117] + "...")


def _without_headers(
    body: Sequence[Row], headers: Sequence[Sequence[str]]
) -> tuple[list[Row], list[Aside]]:
    """The lines without tags, numbers of the columns, and repetitions of the header."""
    keys = [[name_key(c) for c in header] for header in headers]
    kept, asides = [], []
    for k, line in enumerate(body):
        cells = [cell.strip() for cell in line[1]]
        said = [cell for cell in cells if cell]
        tags = sum(bool(TAG.fullmatch(cell)) for cell in said)
        own = [name_key(cell) for cell in _trimmed(cells)]
        if k < 3 and 2 * tags > len(said):
            asides.append(_aside(line, "a line of HXL tags"))
        elif k < 2 and _counted_through(said):
            asides.append(_aside(line, "numbers of the columns"))
        elif len(said) > 1 and any(own == key for key in keys):
            asides.append(_aside(line, "the header once more"))
        else:
            kept.append(line)
    return kept, asides


def _counted_through(cells: Sequence[str]) -> bool:
    """Whether cells are 1, 2, 3 and so on, as some offices number the columns below a header."""
    return len(cells) > 2 and [c.strip("()[].") for c in cells] == [
        str(k + 1) for k in range(len(cells))
    ]


def _with_row_names(names: list[str], body: Sequence[Row]) -> tuple[list[str], list[str]]:
    """The header of a table whose rows bear numbers of their own, as R writes it."""
    one_more = bool(body) and all(
        len(row) == len(names) + 1 and row[0] == str(k + 1) and row[-1].strip()
        for k, (_, row) in enumerate(body)
    )
    if not one_more or len(body) < 2:
        return names, []
    return ["(row name)", *names], ["the first column has no name in the header: row numbers"]


def _even(
    path: Path, width: int, body: Sequence[Row], padded: bool
) -> tuple[list[Row], list[Aside], list[str]]:
    """Rows as wide as the header; what ends early is filled up where its values stand right."""
    rows: list[Row] = []
    asides: list[Aside] = []
    short: list[int] = []
    kinds: list[str] | None = None
    for number, row in body:
        rest = [cell for cell in row[width:] if cell.strip()]
        if rest:
            numbers = [cell for cell in row if _numeric(cell)]
            if any(not (YEAR.fullmatch(n.strip()) and NOTE.match(row[0])) for n in numbers):
                raise CensusError(
                    "a row has more values than the header has columns",
                    where=f"{path}, row {number}",
                    expected=f"{width} values",
                    found=f"{len(row)}: {row[: width + 1]}",
                    remedy="quote the value that holds the delimiter",
                )
            asides.append(_aside((number, row), "a note"))
            continue
        if len(row) < width and not padded:
            kinds = kinds or _kinds(width, body)
            if _shifted(row, kinds):
                raise CensusError(
                    "a row has fewer values than the header has columns",
                    where=f"{path}, row {number}",
                    expected=f"{width} values",
                    found=f"{len(row)}: {row}",
                    remedy="complete the row, or remove it",
                )
            if any(_numeric(cell) for cell in row):
                short.append(number)
        rows.append((number, (row + [""] * width)[:width]))
    notes = []
    if short:
        shown = ", ".join(map(str, short[:5])) + (" and more" if len(short) > 5 else "")
        notes.append(f"rows shorter than the header, read as empty at their end: row {shown}")
    return rows, asides, notes


def _numeric(cell: str) -> bool:
    return bool(NUMERIC.fullmatch(cell.strip()))


def _kinds(width: int, body: Sequence[Row]) -> list[str]:
    """Whether the columns hold numbers or words, going by the rows that are as wide as they."""
    whole = [row for _, row in body if len(row) >= width]
    kinds = []
    for i in range(width):
        cells = [c for row in whole if (c := row[i].strip()) and not _no_value(c)]
        share = sum(map(_numeric, cells)) / len(cells) if cells else -1.0
        kinds.append(
            "numbers" if share >= MOSTLY else "words" if 0 <= share <= 1 - MOSTLY else "any"
        )
    return kinds


def _no_value(cell: str) -> bool:
    return cell.casefold() in MISSING or bool(SUPPRESSED.match(cell))


def _shifted(row: Sequence[str], kinds: Sequence[str]) -> bool:
    """Whether a short row lacks a value inside, so that the others stand in wrong columns."""
    cells = [(cell.strip(), kind) for cell, kind in zip(row, kinds, strict=False)]
    if not any(_numeric(cell) for cell, _ in cells):
        return False
    return any(
        cell and not _no_value(cell) and (_numeric(cell) if kind == "words" else not _numeric(cell))
        for cell, kind in cells
        if kind != "any"
    )
