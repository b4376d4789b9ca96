"""Bringing people and polygons together: by identifier, by name, or by ground.

Every row of counts ends up with a unit or is reported, and so does every unit; nothing is dropped
in silence. Pure functions of tables; what the rows mean was settled by `readers`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from popcorn_ml.census.findings import MAX_ROWS, Finding, rows_text
from popcorn_ml.census.globe import equal_area
from popcorn_ml.census.likeness import Names
from popcorn_ml.census.overlay import common_areas
from popcorn_ml.census.text import clean_name, name_key, spelling_key
from popcorn_ml.errors import CensusError

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

How = Literal["id", "name"]
Key = Callable[[object], str]
Strictness = tuple[str, Key, Key]
"""What is let go, and the keys by which parents and names are then the same."""


def _without_blanks(name: object) -> str:
    return name_key(name).replace(" ", "")


STRICTNESS: tuple[Strictness, ...] = (
    ("", clean_name, clean_name),
    ("", name_key, clean_name),
    ("case or punctuation", name_key, spelling_key),
    ("accents", name_key, name_key),
    ("blanks", _without_blanks, _without_blanks),
)
"""Ways in which names are the same, the strictest first."""


@dataclass(frozen=True)
class Joined:
    """Counts with their units.

    Attributes:
        counts: the rows given, and `unit`: the id of each row's unit, "" where it has none.
        findings: repairs and ambiguities; who has no partner is reported by `unmatched`.
        relaxed: names that are not their unit's letter by letter: file, row, name, unit_name, how.
    """

    counts: pd.DataFrame
    findings: tuple[Finding, ...]
    relaxed: tuple[dict[str, Any], ...] = ()


def choose(units: pd.DataFrame, counts: pd.DataFrame, asked: How | None) -> How:
    """By identifier where both sides have one, else by name."""
    if asked is not None:
        return asked
    return "id" if (counts["id"] != "").any() and (units["id"] != "").any() else "name"


def by_id(units: pd.DataFrame, counts: pd.DataFrame, file: str) -> Joined:
    """Join by identifier.

    What does not match as written is tried without case, then without leading zeros, each only
    where that is unambiguous on both sides, and said so.
    """
    known = set(units["id"])
    wanted = sorted(set(counts["id"]) - {""})
    to: dict[str, str] = {i: i for i in wanted if i in known}
    repaired: list[tuple[str, str, str]] = []
    for key, what in (
        (str.casefold, "upper and lower case differ"),
        (lambda i: i.casefold().lstrip("0"), "leading zeros were lost"),
    ):
        free = _singles((key(u), u) for u in known - set(to.values()))
        asking = _singles((key(i), i) for i in wanted if i not in to)
        for k, i in asking.items():
            if k and k in free:
                to[i] = free[k]
                repaired.append((i, free[k], what))
    out = counts.assign(unit=counts["id"].map(to).fillna(""))
    findings = []
    first = {i: place for place, i in reversed(list(enumerate(out["id"])))}
    for what in sorted({w for _, _, w in repaired}):
        rows = tuple(
            {**_row(out.iloc[first[i]]), "unit": u, "problem": what}
            for i, u, w in sorted(repaired)
            if w == what
        )
        findings.append(
            Finding(
                "join_exact",
                "warn",
                f"{file}: identifiers that matched only after a repair ({what}): "
                f"{rows_text(rows)}. Export the column as text",
                rows,
            )
        )
    return Joined(out, tuple(findings))


def _singles(pairs) -> dict[str, str]:
    """Of (key, value) pairs, those whose key occurs once."""
    seen: dict[str, list[str]] = {}
    for key, value in pairs:
        seen.setdefault(key, []).append(value)
    return {key: values[0] for key, values in seen.items() if len(values) == 1}


def by_name(units: pd.DataFrame, counts: pd.DataFrame, file: str) -> Joined:
    """Join by (parent name, name): as written, else case, punctuation, accents and blanks aside.

    Each step of `STRICTNESS` is taken only by rows that found nothing before it, among units that
    no row of the year bears the name of more strictly. The parent is left out where one side has
    none. A name that then fits several units, or several names that fit one, are joined to none
    of them, and reported.
    """
    parents = bool((units["parent"] != "").any() and (counts["parent"] != "").any())
    years = list(counts["year"]) if "year" in counts else [0] * len(counts)
    unit = [""] * len(counts)
    rule = [""] * len(counts)
    open_rows = [k for k, name in enumerate(counts["name"]) if name_key(name)]
    unclear: dict[int, list[str]] = {}
    for what, parent_key, name_key_ in STRICTNESS:
        if not open_rows:
            break
        taken = {(unit[k], years[k]) for k in range(len(unit)) if unit[k]}
        keys = _Keys(parents, parent_key, name_key_)
        of_units: dict[tuple[str, str], list[str]] = {}
        for key, one in zip(keys.of(units), units["id"], strict=True):
            of_units.setdefault(key, []).append(one)
        of_rows = keys.of(counts.iloc[open_rows])
        written = _spellings(counts, open_rows, of_rows, years)
        left = []
        for key, k in zip(of_rows, open_rows, strict=True):
            free = [u for u in of_units.get(key, ()) if (u, years[k]) not in taken]
            if len(free) == 1 and written[key, years[k]] == 1:
                unit[k], rule[k] = free[0], what
                unclear.pop(k, None)
                continue
            left.append(k)
            if free:
                unclear.setdefault(k, free)
        open_rows = left
    out = counts.assign(unit=unit)
    relaxed = _relaxed(units, out, rule)
    findings = _ambiguous(out, unclear, file)
    lost_marks = [r for r in relaxed if r["how"] in ("accents", "blanks")]
    if lost_marks:
        findings.append(
            Finding(
                "join_exact",
                "warn",
                f"{file}: names that are their unit's only without accents or blanks: "
                f"{rows_text(lost_marks)}. See whether they are the same places",
                tuple(lost_marks),
            )
        )
    return Joined(out, tuple(findings), tuple(relaxed))


@dataclass(frozen=True)
class _Keys:
    """How (parent, name) of rows are compared."""

    parents: bool
    parent: Key
    name: Key

    def of(self, frame: pd.DataFrame) -> list[tuple[str, str]]:
        """The pair of each row."""
        return [
            (self.parent(p) if self.parents else "", self.name(n))
            for p, n in zip(frame["parent"], frame["name"], strict=True)
        ]


def _spellings(
    counts: pd.DataFrame, places: Sequence[int], keys: Sequence[tuple[str, str]], years: list[int]
) -> Counter[tuple[tuple[str, str], int]]:
    """How many different names of one year have the same key."""
    names, parents = list(counts["name"]), list(counts["parent"])
    seen = {
        (key, years[k], spelling_key(parents[k]), spelling_key(names[k]))
        for key, k in zip(keys, places, strict=True)
    }
    return Counter((key, year) for key, year, _, _ in seen)


def _relaxed(
    units: pd.DataFrame, joined: pd.DataFrame, rule: Sequence[str]
) -> list[dict[str, Any]]:
    names = dict(zip(units["id"], units["name"], strict=True))
    columns = zip(*(joined[c] for c in ("file", "row", "name", "unit")), strict=True)
    return [
        {"file": file, "row": int(row), "name": name, "unit_name": names[unit], "how": how}
        for (file, row, name, unit), how in zip(columns, rule, strict=True)
        if how
    ]


def _ambiguous(joined: pd.DataFrame, unclear: dict[int, list[str]], file: str) -> list[Finding]:
    if not unclear:
        return []
    rows = tuple(
        {**_row(joined.iloc[k]), "problem": "name of " + ", ".join(unclear[k])}
        for k in sorted(unclear)
    )
    return [
        Finding(
            "join_exact",
            "error",
            f"{file}: rows that have a name that several units bear, or that several rows of a "
            f"year share: {rows_text(rows)}. Join by identifier, or name a parent column on both "
            "sides",
            rows,
        )
    ]


def by_overlap(
    units: gpd.GeoDataFrame, others: gpd.GeoDataFrame, min_overlap: float
) -> tuple[dict[str, str], list[tuple[str, str, float]]]:
    """Match two boundary sets one to one by largest overlap.

    Args:
        units: id, geometry.
        others: id, geometry, in any CRS.
        min_overlap: least share that the common area must have of the two together
            (intersection over union), in `geometry.EQUAL_AREA_CRS`.

    Returns:
        id of `others` -> id of `units`; and, of the others that found none, the unit they overlap
        most and by which share.
    """
    import numpy as np
    import shapely

    left, right = equal_area(units), equal_area(others)
    a, b, common = common_areas(left, right)
    union = shapely.area(left)[a] + shapely.area(right)[b] - common
    share = np.where(union > 0, common / np.maximum(union, 1e-30), 0.0)
    # Ties go to the first in both lists, so that the match does not depend on the tree's order.
    order = np.lexsort((b, a, -np.round(share, 9)))
    ids, other_ids = list(units["id"]), list(others["id"])
    matched: dict[str, str] = {}
    taken: set[int] = set()
    best: dict[int, tuple[int, float]] = {}
    for k in order:
        i, j, s = int(a[k]), int(b[k]), float(share[k])
        best.setdefault(j, (i, s))
        if s >= min_overlap and other_ids[j] not in matched and i not in taken:
            matched[other_ids[j]] = ids[i]
            taken.add(i)
    left_over = [
        (other_ids[j], ids[best[j][0]] if j in best else "", best[j][1] if j in best else 0.0)
        for j in range(len(other_ids))
        if other_ids[j] not in matched
    ]
    return matched, left_over


def join(
    units: pd.DataFrame,
    counts: pd.DataFrame,
    file: str,
    how: How | None = None,
) -> Joined:
    """Join counts to units, by identifier or name as `choose` says.

    Args:
        units: id, name, parent.
        counts: id, name, parent, people, file, row.
        file: the counts' file, for messages.
        how: what the settings ask for.

    Raises:
        CensusError: not one row found a unit.
    """
    chosen = choose(units, counts, how)
    joined = (by_id if chosen == "id" else by_name)(units, counts, file)
    if not (joined.counts["unit"] != "").any():
        column = "id" if chosen == "id" else "name"
        shown = [str(v) for v in counts[column].head(3)]
        theirs = [str(v) for v in units[column].head(3)]
        raise CensusError(
            f"no row of the table has a unit: not one {column} is the same",
            where=f"{file}, row {int(counts['row'].iloc[0])}",
            expected=f"{column}s such as {', '.join(map(repr, theirs))}",
            found=", ".join(map(repr, shown)),
            remedy="see whether the column holds another level or another coding; correct "
            f"`columns.{column}` of the counts or the boundaries in the country's file",
        )
    return joined


def unmatched(units: pd.DataFrame, counts: pd.DataFrame, trains: bool) -> list[Finding]:
    """Rows of people without a unit and units without people, as findings.

    Args:
        units: id, name, parent, row, file.
        counts: as `Joined.counts`.
        trains: whether training uses the level, so that people without polygon are an error.

    Totals and lines that are no rows have been set aside by then (`asides`).
    """
    findings: list[Finding] = []
    lost = counts[counts["unit"] == ""]
    if not lost.empty:
        names = Names(units["name"])
        rows_list: list[dict[str, Any]] = []
        for place, row in enumerate(lost.to_dict("records")):
            item = _row(row)
            near = names.nearest(row["name"]) if place < MAX_ROWS else None
            if near:
                item["nearest"] = near
            rows_list.append(item)
        people = float(lost["people"].fillna(0).sum())
        findings.append(
            Finding(
                "people_have_polygon",
                "error" if trains else "warn",
                f"{rows_list[0]['file']}: rows with {people:,.0f} people that belong "
                f"to no polygon: {rows_text(rows_list)}. Correct their identifiers or names, or "
                "add their polygons",
                tuple(rows_list),
            )
        )
    with_people = set(counts["unit"]) - {""}
    bare = units[~units["id"].isin(with_people)]
    if not bare.empty:
        rows = tuple(
            {"file": r["file"], "row": int(r["row"]), "id": r["id"], "name": r["name"]}
            for r in bare[["file", "row", "id", "name"]].to_dict("records")
        )
        many = len(rows) > 0.05 * len(units)
        findings.append(
            Finding(
                "polygon_has_people",
                "error" if trains and many else "warn",
                f"{rows[0]['file']}: units that have no row of people ({len(rows)} of "
                f"{len(units)}): {rows_text(rows)}. They are not trained on, and the adjusted map "
                "leaves the model's number on their pixels; add their counts, 0 where nobody lives",
                rows,
            )
        )
    return findings


def swapped(units: pd.DataFrame, counts: pd.DataFrame) -> list[Finding]:
    """Rows joined by identifier whose name is not their unit's.

    A name that belongs to another unit is an error (rows or identifiers were swapped); a name
    that is nobody's is a spelling.
    """
    named = counts[(counts["unit"] != "") & (counts["name"] != "")]
    named = named.drop_duplicates(["unit", "name"])
    of_unit = dict(zip(units["id"], units["name"], strict=True))
    owners: dict[tuple[Key, str], list[str]] = {}
    for unit, name in of_unit.items():
        for key in (spelling_key, name_key):
            owners.setdefault((key, key(name)), []).append(unit)
    rows: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for _, row in named.iterrows():
        theirs = of_unit.get(row["unit"], "")
        if not theirs or not name_key(row["name"]):
            continue
        if spelling_key(row["name"]) == spelling_key(theirs):
            continue
        # A name that is another's to the accent is another's, even if it is nearly its own.
        exact = owners.get((spelling_key, spelling_key(row["name"])), [])
        if not exact and name_key(row["name"]) == name_key(theirs):
            continue
        alike = exact or owners.get((name_key, name_key(row["name"])), [])
        others = [u for u in alike if u != row["unit"]]
        item = {**_row(row), "unit_name": theirs}
        if others:
            item["problem"] = "name of unit " + ", ".join(others)
        rows[bool(others)].append(item)
    findings = []
    if rows[True]:
        findings.append(
            Finding(
                "names_agree",
                "error",
                f"{rows[True][0]['file']}: rows that bear the name of another unit "
                f"than their identifier says: {rows_text(rows[True])}. Rows or identifiers were "
                "swapped; correct them",
                tuple(rows[True]),
            )
        )
    if rows[False]:
        findings.append(
            Finding(
                "names_agree",
                "warn",
                f"{rows[False][0]['file']}: rows that spell their unit's name "
                f"otherwise than the boundaries: {rows_text(rows[False])}. See whether the "
                "identifiers are of the same edition",
                tuple(rows[False]),
            )
        )
    return findings


def _row(row: Any) -> dict[str, Any]:
    out = {"file": row["file"], "row": int(row["row"]), "id": row["id"], "name": row["name"]}
    if row.get("parent"):
        out["parent"] = row["parent"]
    if row["people"] == row["people"]:
        out["people"] = float(row["people"])
    return out


def other_levels(
    lost_names: Sequence[str], names_of_levels: dict[str, set[str]], level: str
) -> str | None:
    """The level, other than `level`, that most of some unmatched names belong to, if most do."""
    keys = [name_key(n) for n in lost_names if name_key(n)]
    if not keys:
        return None
    shares = {
        other: sum(k in names for k in keys) / len(keys)
        for other, names in names_of_levels.items()
        if other != level
    }
    best = max(shares, key=lambda k: shares[k], default=None)
    return best if best is not None and shares[best] >= 0.5 else None
