"""Which columns of a boundary file and of a table belong together, where nobody has said so.

Columns are recognised by what stands in them: identifiers and names by whether they are the same on
both sides, people and years by their numbers. A name of a column only decides between columns that
might all be meant. Where that leaves a doubt, it is said with every column; nothing is picked.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popcorn_ml.census.numerals import notation
from popcorn_ml.census.settings import (
    BoundaryColumns,
    BoundarySettings,
    CountColumns,
    CountSettings,
)
from popcorn_ml.census.tables import ROW, pick_column
from popcorn_ml.census.text import clean_id, clean_name, name_key
from popcorn_ml.errors import CensusError

if TYPE_CHECKING:
    from popcorn_ml.census.files import Files

LEAST_JOINED = 0.5
"""Share of the units that a pair of columns must bring together to be one."""
AGREE = 0.8
"""Share of joined units whose names must agree for a pair of columns to be their names."""
IDENTIFYING = 0.98
"""Share of a column's values that must be different for it to identify units."""
NUMERIC = 0.9

_YEAR = re.compile(r"(?<!\d)(?:19|20)\d\d(?!\d)")
_YEARS = re.compile(r"(year|annee|ano|anio|jahr|reference year|ref year)")
_PEOPLE = re.compile(
    r"\b(pop|population|people|persons?|inhabitants|residents|total|ensemble|t tl|p1 001n"
    r"|poblacion|populacao|einwohner|bevolkerung|habitants|both sexes)\b"
    r"|^(p|pop|population) ?\d{4}$|^pop[a-z]*$"
)
_CODES = re.compile(r"(\w* )?(id|ids|code|codes|pcode|geoid\w*|fips|gid|key|nr|no|num|number)\d*")
_NO_CODES = re.compile(
    r"(\w* )?(pop\w*|people|area\w*|km2?|ha|total|lat\w*|lon\w*|density|shape \w*)"
)


OPTIONS = {
    "boundaries_id": "--boundaries-id-column",
    "boundaries_name": "--boundaries-name-column",
    "counts_id": "--id-column",
    "counts_name": "--name-column",
    "people": "--people-column",
    "counts_year": "--counts-year",
}
"""How a person says, on a command line, what could not be found out."""


class Unclear(CensusError):
    """Columns that could each be meant, or none that could.

    Attributes:
        option: what is to be said, a key of `OPTIONS`.
        choices: columns to choose from.
    """

    option: str
    choices: tuple[str, ...]


@dataclass(frozen=True)
class Given:
    """What somebody said of the columns; None is found out."""

    boundaries_id: str | None = None
    boundaries_name: str | None = None
    counts_id: str | None = None
    counts_name: str | None = None
    people: str | None = None
    counts_year: int | None = None


@dataclass(frozen=True)
class Recognised:
    """Columns that belong together.

    Attributes:
        boundaries, counts: which columns mean what.
        year: of the counts, where no column says.
        said: what was taken for what, in sentences.
    """

    boundaries: BoundaryColumns
    counts: CountColumns
    year: int | None
    said: tuple[str, ...]


@dataclass(frozen=True)
class _Side:
    """A file's columns as text: name -> a value a unit, in one order."""

    path: Path
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def identifying(self, named: Iterable[str]) -> list[str]:
        """Those of some columns that have a value of its own for nearly every row."""
        out = []
        for name in named:
            values = self.columns[name]
            filled = [v for v in values if v]
            if len(filled) >= IDENTIFYING * len(values) and (
                len(set(filled)) >= IDENTIFYING * len(filled)
            ):
                out.append(name)
        return out


def recognise(
    files: Files, boundaries: BoundarySettings, counts: CountSettings, given: Given = Given()
) -> Recognised:
    """Find out which columns of two files identify, name and count the same units.

    Args:
        files: where the files are.
        boundaries, counts: which files; what their `columns` say is not looked at.
        given: what is known of the columns.

    Raises:
        CensusError: a file that cannot be read, or lacks a column that is given.
        Unclear: several columns might be meant, or none.
    """
    units, table = _units(files, boundaries), _table(files, counts)
    years = [n for n in table.columns if _is_years(table.columns[n]) and _YEARS.fullmatch(
        name_key(n))]  # fmt: skip
    once = _of_one_year(table, years[0] if years else None)
    numbers = _numeric(once)
    own, theirs, how = _joined(units, once, numbers, given)
    names = _names(units, once, own, theirs, given) if how == "id" else (own, theirs)
    taken = {theirs, names[1], *years}
    people, year = _people(table, once, [n for n in numbers if n not in taken], given)
    said = [f"{units.path.name}: {own!r} joins {theirs!r} of {table.path.name}"]
    if how == "id" and names[0] is not None:
        said.append(f"names: {names[0]!r} and {names[1]!r}")
    said.append(f"people: {people if isinstance(people, str) else ', '.join(people.values())}")
    columns: dict[str, Any] = {"people": people}
    if years and not isinstance(people, dict):
        columns["year"] = years[0]
        said.append(f"years: {years[0]!r}")
    elif isinstance(people, str) and "{year}" not in counts.file:
        year = given.counts_year or year or _year_of(Path(counts.file).stem)
        if year is None:
            raise _unclear(
                "counts_year", table.path, "nothing says of which year the counts are", (),
                "a year in a column, in a column's name or in the file's name",
            )  # fmt: skip
        said.append(f"year of the counts: {year}")
    ids = ((own,), (theirs,)) if how == "id" else ((), ())
    return Recognised(
        BoundaryColumns(id=ids[0], name=names[0]),
        CountColumns(id=ids[1], name=names[1], **columns),
        None if years or not isinstance(people, str) else year,
        tuple(said),
    )


def _units(files: Files, settings: BoundarySettings) -> _Side:
    from popcorn_ml.census.boundaries import VECTOR_SUFFIXES, read_features

    path = files.open(settings, VECTOR_SUFFIXES)
    raw = read_features(path, settings)
    names = [str(c) for c in raw.columns if c != raw.geometry.name]
    return _Side(Path(settings.file), {n: [clean_id(v) for v in raw[n]] for n in names})


def _table(files: Files, settings: CountSettings) -> _Side:
    from popcorn_ml.census.tables import TABLE_SUFFIXES, read_table

    first = files.expand(settings)[0]
    table = read_table(files.open(first, TABLE_SUFFIXES), sheet=settings.sheet)
    columns = {n: [clean_id(v) for v in table.frame[n]] for n in table.columns if n != ROW}
    return _Side(Path(settings.file), columns)


def _of_one_year(table: _Side, year: str | None) -> _Side:
    """The rows of a long table that are of its last year."""
    if year is None:
        return table
    last = max(v for v in table.columns[year] if v)
    keep = [k for k, v in enumerate(table.columns[year]) if v == last]
    return _Side(table.path, {n: [vs[k] for k in keep] for n, vs in table.columns.items()})


def _is_years(values: Sequence[str]) -> bool:
    filled = [v for v in values if v]
    return bool(filled) and all(_YEAR.fullmatch(v) for v in filled)


def _numeric(table: _Side) -> dict[str, list[float]]:
    """The columns of numbers, as numbers."""
    found = {}
    for name, values in table.columns.items():
        filled = [v for v in values if v]
        read = notation(filled)
        numbers = [n.value for v in filled if (n := read.read(v)).value is not None]
        if filled and len(numbers) >= NUMERIC * len(filled):
            found[name] = [n for n in numbers if n is not None]
    return found


# Identifiers and names ---------------------------------------------------------------------------


def _joined(
    units: _Side, table: _Side, numbers: Mapping[str, Sequence[float]], given: Given
) -> tuple[str, str, str]:
    """The columns that join, and whether they are identifiers or names."""
    for how, own, theirs in (
        ("id", given.boundaries_id, given.counts_id),
        ("name", given.boundaries_name, given.counts_name),
    ):
        if own and theirs:
            return (
                pick_column(
                    list(units.columns), own, how, OPTIONS[f"boundaries_{how}"], units.path
                ),
                pick_column(list(table.columns), theirs, how, OPTIONS[f"counts_{how}"], table.path),
                how,
            )
    pairs = [
        (own, theirs)
        for own in _asked(units, given.boundaries_id, OPTIONS["boundaries_id"])
        for theirs in _asked(table, given.counts_id, OPTIONS["counts_id"])
        if _share(map(_id_key, units.columns[own]), map(_id_key, table.columns[theirs]))
        >= LEAST_JOINED
    ]
    names = [
        (own, theirs)
        for own in units.identifying(units.columns)
        for theirs in table.identifying(n for n in table.columns if n not in numbers)
        if _share(map(name_key, units.columns[own]), map(name_key, table.columns[theirs]))
        >= LEAST_JOINED
    ]
    codes = [p for p in pairs if p not in names and _believable(units, table, p, names)]
    best = _one_of(units, table, codes or names, _id_key if codes else name_key)
    if best is None:
        raise _unclear(
            "boundaries_id",
            units.path,
            f"no column of the boundaries has the identifiers or names of {table.path.name}",
            tuple(units.columns),
            f"one that is the same in both; {table.path.name} has "
            + ", ".join(map(repr, table.columns)),
        )
    if len(best) > 1:
        raise _unclear(
            "boundaries_id" if len({own for own, _ in best}) > 1 else "counts_id",
            units.path if len({own for own, _ in best}) > 1 else table.path,
            "several columns could identify the units, and they say different things",
            tuple(dict.fromkeys(
                own if len({o for o, _ in best}) > 1 else theirs for own, theirs in best
            )),
            "one pair of columns that joins",
        )  # fmt: skip
    return (*best[0], "id" if codes else "name")


def _asked(side: _Side, named: str | None, option: str) -> list[str]:
    if named:
        return [pick_column(list(side.columns), named, "id", option, side.path)]
    usual = [n for n in side.columns if not _NO_CODES.fullmatch(name_key(n))]
    return side.identifying(n for n in usual if not _is_years(side.columns[n]))


def _id_key(value: str) -> str:
    return value.casefold().lstrip("0")


def _share(own: Iterable[str], theirs: Iterable[str]) -> float:
    """How many of the units' values are among the table's."""
    ours = set(own) - {""}
    return len(ours & set(theirs)) / len(ours) if ours else 0.0


def _believable(
    units: _Side, table: _Side, pair: tuple[str, str], names: Sequence[tuple[str, str]]
) -> bool:
    """Whether equal codes are more than two countings from 1 that have nothing to do with each
    other: they are where both columns bear one name, or where the names that they join agree."""
    own, theirs = pair
    codes = {_id_key(v) for v in units.columns[own]}
    running = codes <= {str(k) for k in range(len(units.columns[own]) + 1)}
    agreeing = [
        _agreement(units, table, pair, (a, b)) for a, b in names if a != own and b != theirs
    ]
    if agreeing and max(agreeing) < AGREE:
        return False
    return not running or bool(agreeing) or name_key(own) == name_key(theirs)


def _agreement(
    units: _Side, table: _Side, joined: tuple[str, str], names: tuple[str, str]
) -> float:
    """Of the units that a pair of columns brings together, how many have one name on both sides."""
    called = {
        _id_key(i): name_key(n)
        for i, n in zip(table.columns[joined[1]], table.columns[names[1]], strict=True)
    }
    both = [
        called[_id_key(i)] == name_key(n)
        for i, n in zip(units.columns[joined[0]], units.columns[names[0]], strict=True)
        if _id_key(i) in called
    ]
    return sum(both) / len(both) if both else 0.0


def _one_of(
    units: _Side, table: _Side, pairs: Sequence[tuple[str, str]], key: Any
) -> list[tuple[str, str]] | None:
    """The pairs that join the most; of those that join the same rows, the one named like a code."""
    if not pairs:
        return None
    scored = [
        (_share(map(key, units.columns[a]), map(key, table.columns[b])), (a, b)) for a, b in pairs
    ]
    most = max(score for score, _ in scored)
    best = [pair for score, pair in scored if score == most]
    joins: dict[tuple[int | None, ...], list[tuple[str, str]]] = {}
    for own, theirs in best:
        rows = {key(v): k for k, v in enumerate(table.columns[theirs])}
        joins.setdefault(tuple(rows.get(key(v)) for v in units.columns[own]), []).append(
            (own, theirs)
        )

    def coded(pair: tuple[str, str]) -> int:
        return -sum(bool(_CODES.fullmatch(name_key(n))) for n in pair)

    return [sorted(same, key=coded)[0] for same in joins.values()]


def _names(
    units: _Side, table: _Side, own: str, theirs: str, given: Given
) -> tuple[str | None, str | None]:
    """The columns of the units' names: those that agree where the identifiers join."""
    pairs = [
        (a, b)
        for a in ([given.boundaries_name] if given.boundaries_name else units.columns)
        for b in ([given.counts_name] if given.counts_name else table.columns)
        if a in units.columns and b in table.columns and (a, b) != (own, theirs)
    ]
    words = [
        (a, b)
        for a, b in pairs
        if any(c.isalpha() for v in units.columns[a][:50] for c in v)
        and not {a, b} & {own, theirs}
        and len(set(units.columns[a])) > 1
    ]
    agreeing = sorted(
        ((_agreement(units, table, (own, theirs), pair), -k, pair) for k, pair in enumerate(words)),
        reverse=True,
    )
    if not agreeing or agreeing[0][0] < AGREE:
        return given.boundaries_name, given.counts_name
    return agreeing[0][2]


# People and years --------------------------------------------------------------------------------


def _people(
    table: _Side, once: _Side, numbers: Sequence[str], given: Given
) -> tuple[str | dict[int, str], int | None]:
    """The column of people, or one a year; and the year that its name says."""
    if given.people:
        if "{year}" in given.people:
            return given.people, None
        name = pick_column(
            list(table.columns), given.people, "people", OPTIONS["people"], table.path
        )
        return name, _year_of(name)
    whole = [n for n in numbers if _whole(once.columns[n]) and not _is_years(once.columns[n])]
    named = [n for n in whole if _PEOPLE.search(name_key(n))]
    by_year = {year: n for n in named if (year := _year_of(n))}
    if len(by_year) > 1 and len(by_year) == len(named):
        return dict(sorted(by_year.items())), None
    likely = named or [n for n in whole if not _CODES.fullmatch(name_key(n))]
    likely = _total_of({n: once.columns[n] for n in likely})
    if len(likely) == 1:
        return likely[0], _year_of(likely[0])
    raise _unclear(
        "people",
        table.path,
        "several columns could count the people" if likely else "no column counts people",
        tuple(likely or table.columns),
        "one column of whole numbers",
    )


def _total_of(columns: Mapping[str, Sequence[str]]) -> list[str]:
    """Of columns of people, the one that is the sum of others, such as of women and men, or the
    first of some that say the same; else all of them."""
    numbers = {
        name: tuple(n.value or 0.0 for n in map(notation([v for v in cells if v]).read, cells))
        for name, cells in columns.items()
    }
    different = list({values: name for name, values in reversed(numbers.items())}.values())[::-1]

    def is_total(name: str) -> bool:
        others = [numbers[n] for n in different if n != name]
        sets = [others, *itertools.combinations(others, 2)] if len(others) > 1 else []
        return any(numbers[name] == tuple(map(sum, zip(*parts, strict=True))) for parts in sets)

    totals = [name for name in different if is_total(name)]
    return totals if len(totals) == 1 else different


def _whole(values: Sequence[str]) -> bool:
    read = notation([v for v in values if v])
    numbers = [n.value for v in values if (n := read.read(v)).value is not None]
    return all(n is not None and n >= 0 and float(n).is_integer() for n in numbers)


def _year_of(text: str) -> int | None:
    """The only year in a name."""
    found = {int(m) for m in _YEAR.findall(text)}
    return found.pop() if len(found) == 1 else None


def _unclear(option: str, where: Path, what: str, choices: Sequence[str], expected: str) -> Unclear:
    error = Unclear(
        what,
        where=where,
        expected=expected,
        found=", ".join(map(repr, choices)) or None,
        remedy=f"say which it is, with {OPTIONS[option]}",
    )
    error.option, error.choices = option, tuple(map(clean_name, choices))
    return error
