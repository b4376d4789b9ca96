"""Bringing people and polygons together: by identifier, by name, or by ground.

Every row of counts ends up with a unit or is reported, and so does every unit; nothing is dropped
in silence. Pure functions of tables; what the rows mean was settled by `readers`.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from popcorn_ml.census.findings import Finding, rows_text
from popcorn_ml.census.globe import equal_area
from popcorn_ml.census.overlay import common_areas
from popcorn_ml.census.text import name_key
from popcorn_ml.errors import CensusError

if TYPE_CHECKING:
    import geopandas as gpd
    import numpy as np
    import pandas as pd

How = Literal["id", "name"]
TOTAL_NAMES = frozenset(
    {"total", "totals", "grand total", "sum", "national", "national total", "country total"}
    | {"whole country", "all", "ensemble", "total general", "total pays", "totaux", "gesamt"}
)


@dataclass(frozen=True)
class Joined:
    """Counts with their units.

    Attributes:
        counts: the rows given, and `unit`: the id of each row's unit, "" where it has none.
        findings: repairs and ambiguities; who has no partner is reported by `unmatched`.
    """

    counts: pd.DataFrame
    findings: tuple[Finding, ...]


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
    for what in sorted({w for _, _, w in repaired}):
        rows = tuple(
            {**_row(out[out["id"] == i].iloc[0]), "unit": u, "problem": what}
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
    """Join by (parent name, name), case, accents and punctuation aside.

    The parent is left out where one side has none; a name that then fits several units is joined
    to none of them, and reported.
    """
    with_parent = (units["parent"] != "").any() and (counts["parent"] != "").any()

    def keys(frame: pd.DataFrame) -> list[tuple[str, str]]:
        return [
            (name_key(p) if with_parent else "", name_key(n))
            for p, n in zip(frame["parent"], frame["name"], strict=True)
        ]

    by_key: dict[tuple[str, str], list[str]] = {}
    for key, unit in zip(keys(units), units["id"], strict=True):
        by_key.setdefault(key, []).append(unit)
    of_rows = keys(counts)
    unit = [by_key[k][0] if len(by_key.get(k, ())) == 1 and k[1] else "" for k in of_rows]
    out = counts.assign(unit=unit)
    unclear = [len(by_key.get(k, ())) > 1 for k in of_rows]
    findings = []
    if any(unclear):
        rows = tuple(
            {**_row(r), "problem": "name of " + ", ".join(by_key[k])}
            for (_, r), k, u in zip(out.iterrows(), of_rows, unclear, strict=True)
            if u
        )
        findings.append(
            Finding(
                "join_exact",
                "error",
                f"{file}: rows that have a name that several units bear: {rows_text(rows)}. "
                "Join by identifier, or name a parent column on both sides",
                rows,
            )
        )
    return Joined(out, tuple(findings))


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


def unmatched(
    units: pd.DataFrame, counts: pd.DataFrame, trains: bool
) -> tuple[pd.DataFrame, list[Finding]]:
    """Rows of people without a unit and units without people, as findings.

    A row that is the table's total, by its name and its sum, is set aside and said so.

    Args:
        units: id, name, parent, row, file.
        counts: as `Joined.counts`.
        trains: whether training uses the level, so that people without polygon are an error.

    Returns:
        The counts without total rows, and the findings.
    """
    findings: list[Finding] = []
    lost = counts[counts["unit"] == ""]
    total = _totals(lost, counts)
    if total.any():
        rows = tuple(_row(r) for _, r in lost[total].iterrows())
        findings.append(
            Finding(
                "people_have_polygon",
                "warn",
                f"{rows[0]['file']}: rows that are totals of the others and were set "
                f"aside: {rows_text(rows)}",
                rows,
            )
        )
        counts = counts.drop(index=lost.index[total])
        lost = lost[~total]
    if not lost.empty:
        names = {name_key(n): n for n in units["name"] if n}
        rows_list: list[dict[str, Any]] = []
        for _, row in lost.iterrows():
            item = _row(row)
            near = difflib.get_close_matches(name_key(row["name"]), list(names), 1, 0.75)
            if near:
                item["nearest"] = names[near[0]]
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
            for _, r in bare.iterrows()
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
    return counts, findings


def _totals(lost: pd.DataFrame, counts: pd.DataFrame) -> np.ndarray:
    import numpy as np

    sums = counts[counts["unit"] != ""].groupby("year")["people"].sum()
    out = np.zeros(len(lost), bool)
    for k, (_, row) in enumerate(lost.iterrows()):
        named = name_key(row["name"]) in TOTAL_NAMES or name_key(row["id"]) in TOTAL_NAMES
        out[k] = named and abs(float(sums.get(row["year"], 0.0)) - row["people"]) <= 0.5
    return out


def swapped(units: pd.DataFrame, counts: pd.DataFrame) -> list[Finding]:
    """Rows joined by identifier whose name is not their unit's.

    A name that belongs to another unit is an error (rows or identifiers were swapped); a name
    that is nobody's is a spelling.
    """
    named = counts[(counts["unit"] != "") & (counts["name"] != "")]
    named = named.drop_duplicates(["unit", "name"])
    of_unit = dict(zip(units["id"], units["name"], strict=True))
    owners: dict[str, list[str]] = {}
    for unit, name in of_unit.items():
        owners.setdefault(name_key(name), []).append(unit)
    rows: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for _, row in named.iterrows():
        theirs = of_unit.get(row["unit"], "")
        key = name_key(row["name"])
        if not theirs or key == name_key(theirs) or not key:
            continue
        others = [u for u in owners.get(key, []) if u != row["unit"]]
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


def _row(row: pd.Series) -> dict[str, Any]:
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
