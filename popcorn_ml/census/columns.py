"""Which columns of an office's file hold what, where the settings do not say; and its identifiers.

One set of names for each way in which offices publish.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from popcorn_ml.census import boundaries
from popcorn_ml.census.ages import bands
from popcorn_ml.census.settings import (
    BoundaryColumns,
    BoundarySettings,
    CountColumns,
    ReaderName,
)
from popcorn_ml.errors import CensusError

US_WIDTHS = (2, 5, 10, 11, 12, 15)
"""Digits of a FIPS code: state, county, county subdivision, tract, block group, block."""

US_PARTS = {
    "state": 2, "statefp": 2, "county": 3, "countyfp": 3, "tract": 6, "tractce": 6,
    "block group": 1, "blkgrpce": 1, "block": 4, "blockce": 4,
}  # fmt: skip
"""Columns that together make a FIPS code, and their digits (a suffix such as 20 is a vintage)."""


def boundary_columns(settings: BoundarySettings, reader: ReaderName, path: Path) -> BoundaryColumns:
    given = settings.columns
    if reader == "table":
        return given
    names = boundaries.attribute_names(path, settings)
    defaults = _default_boundary_columns(reader, names)
    return BoundaryColumns(
        id=given.id or defaults.id,
        name=given.name or defaults.name,
        parent=given.parent or defaults.parent,
    )


def _default_boundary_columns(reader: ReaderName, names: Sequence[str]) -> BoundaryColumns:
    if reader == "cod":
        return _cod_columns(names)
    if reader == "worldpop":
        return BoundaryColumns(
            id=_first(names, "GID", "adm_id", "ADMINID", "GID_0"), name=_one(names, "NAME", "name")
        )
    if reader == "geoboundaries":
        return BoundaryColumns(id=_first(names, "shapeID"), name=_one(names, "shapeName"))
    if reader == "us_census":
        return BoundaryColumns(id=_us_id(names), name=_one(names, "NAME", "name", "NAME20"))
    return BoundaryColumns()


def _first(names: Sequence[str], *wanted: str) -> tuple[str, ...]:
    found = _one(names, *wanted)
    return (found,) if found else ()


def _one(names: Sequence[str], *wanted: str) -> str | None:
    lower = {n.casefold(): n for n in reversed(names)}
    return next((lower[w.casefold()] for w in wanted if w.casefold() in lower), None)


_COD_CODE = re.compile(r"adm(?:in)?_?(\d)_?p_?code")
_COD_NAME = re.compile(r"adm(?:in)?_?(\d)(_?name)?(?:_([a-z]{2}))?")
_COD_LANGUAGES = ("en", None, "fr", "pt", "es", "ar")
"""Those in which a name is taken, the first that there is; None: the column does not say."""


def _cod_columns(names: Sequence[str]) -> BoundaryColumns:
    """The deepest level of a table of common operational data: `ADM2_PCODE`, `adm2_name`, or as
    older tables write them, `admin2Pcode` and `admin2Name_fr`."""
    levels = {int(m[1]): n for n in names if (m := _COD_CODE.fullmatch(n.casefold()))}
    if not levels:
        return BoundaryColumns()
    depth = max(levels)
    called = {
        m[3]: n
        for n in reversed(names)
        if (m := _COD_NAME.fullmatch(n.casefold())) and int(m[1]) == depth and (m[2] or m[3])
    }
    name = next((called[spoken] for spoken in _COD_LANGUAGES if spoken in called), None)
    return BoundaryColumns(id=(levels[depth],), name=name, parent=levels.get(depth - 1))


def _us_id(names: Sequence[str]) -> tuple[str, ...]:
    whole = _first(names, "GEOID", "GEOID20", "GEOID10", "GEO_ID", "fips", "GEOIDFQ")
    if whole:
        return whole
    found = {re.sub(r"(?<=[a-z])\d\d$", "", n.casefold()): n for n in names}
    state = found.get("statefp") or found.get("state")
    if state is None:
        return ()
    parts = [state]
    for pair in (("countyfp", "county"), ("tractce", "tract")):
        part = next((found[p] for p in pair if p in found), None)
        if part is None:
            return tuple(parts)
        parts.append(part)
    block = next((found[p] for p in ("blockce", "block") if p in found), None)
    group = next((found[p] for p in ("blkgrpce", "block group") if p in found), None)
    return (*parts, *([block] if block else [group] if group else []))


def us_codes(ids: Sequence[str]) -> list[str]:
    """FIPS codes: the part behind `US` of a long GEO_ID, zeros that a spreadsheet ate put back.

    The width is the longest code's, or the next standard one where that is one digit short.
    """
    bare = [re.sub(r"^\d{7}(?:[A-Z0-9]{2})?US", "", i) for i in ids]
    digits = [i for i in bare if i.isdigit()]
    if not digits:
        return bare
    longest = max(map(len, digits))
    width = longest if longest in US_WIDTHS else longest + 1
    if width not in US_WIDTHS:
        return bare
    return [i.zfill(width) if i.isdigit() else i for i in bare]


PEOPLE: dict[ReaderName, tuple[str, ...]] = {
    "cod": ("T_TL", "T_TOTAL", "Population"),
    "geoboundaries": ("population", "people", "pop"),
    "us_census": ("P1_001N", "P001001", "POP100"),
}
"""What the column of people may be called."""


def count_columns(
    reader: ReaderName, given: CountColumns, names: Sequence[str], path: Path
) -> CountColumns:
    """Which columns of a table of counts mean what: as the settings say, else as the office does.

    Raises:
        CensusError: there is none of people, or neither one of identifiers nor one of names.
    """
    update: dict[str, Any] = {"people": _one(names, *PEOPLE.get(reader, ()))}
    if reader == "cod":
        cod = _cod_columns(names)
        update |= {"id": cod.id, "name": cod.name, "parent": cod.parent}
        update["year"] = _one(names, "year", "reference_year", "Reference year")
        update["ages"] = bands(names).columns
    elif reader == "worldpop":
        update |= {"id": _first(names, "GID", "adm_id"), "name": _one(names, "NAME")}
        update["people"] = "P_{year}"
    elif reader == "geoboundaries":
        update |= {"id": _first(names, "shapeID"), "name": _one(names, "shapeName")}
    elif reader == "us_census":
        update |= {"id": _us_id(names), "name": _one(names, "NAME")}
    elif reader == "published":
        update |= {"id": _first(names, "idx")}
        years = {
            2000 + int(m.group(1)): n
            for n in names
            if (m := re.fullmatch(r"pop(\d\d)", n.casefold()))
        }
        update["people"] = years or None
    merged: dict[str, Any] = {
        k: getattr(given, k) or update.get(k) for k in CountColumns.model_fields
    }
    merged["id"], merged["ages"] = merged["id"] or (), merged["ages"] or ()
    columns = CountColumns(**merged)
    if not columns.people:
        raise CensusError(
            "the settings do not say which column counts people",
            where=path,
            expected="counts.columns.people",
            found=", ".join(names),
            remedy="add it to the country's file",
        )
    if not columns.id and not columns.name:
        raise CensusError(
            "the settings name neither an id nor a name column of the counts",
            where=path,
            expected="counts.columns.id or .name",
            found=", ".join(names),
            remedy="add it to the country's file",
        )
    return columns
