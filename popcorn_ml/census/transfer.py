"""Counts of one set of units brought to another, where identifiers or borders changed between them.

Either the country states what became of which unit (`changes`), or the counts come with polygons of
their own, and the ground says it (`by_ground`). People are never lost on the way: what one old unit
counted is spread over the new ones that its ground went to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from popcorn_ml.census import join
from popcorn_ml.census.findings import Finding, rows_text
from popcorn_ml.census.globe import equal_area
from popcorn_ml.census.overlay import common_areas

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

LINKED = 0.15
"""Share of the smaller of two units from which common ground is more than a sloppy border."""


@dataclass(frozen=True)
class Match:
    """How the units of one boundary set lie in those of another.

    Attributes:
        one: other id -> unit id, where both are the same ground.
        spread: other id -> unit id -> common ground in m2, where they are not.
        left_over: others that match no unit: id, the unit they overlap most, and by which share.
    """

    one: dict[str, str]
    spread: dict[str, dict[str, float]]
    left_over: list[tuple[str, str, float]]


def by_ground(units: gpd.GeoDataFrame, others: gpd.GeoDataFrame, min_overlap: float) -> Match:
    """Units of the same ground one to one, and groups of units that together are.

    Args:
        units: id, geometry.
        others: id, geometry, in any CRS.
        min_overlap: least share of their union that a pair, or a group, must have in common.
    """
    import numpy as np
    import shapely

    one, left_over = join.by_overlap(units, others, min_overlap)
    left, right = equal_area(units), equal_area(others)
    i, j, common = common_areas(left, right)
    area, other_area = shapely.area(left), shapely.area(right)
    linked = common >= LINKED * np.minimum(area[i], other_area[j])
    i, j, common = i[linked], j[linked], common[linked]
    ids, other_ids = list(units["id"]), list(others["id"])
    spread: dict[str, dict[str, float]] = {}
    for group in _groups(i, j, len(left), len(right)):
        here = np.isin(i, [n for n in group if n < len(left)])
        mine, theirs = np.unique(i[here]), np.unique(j[here])
        if len(mine) == 1 and len(theirs) == 1:
            continue
        shared = float(common[here].sum())
        union = float(area[mine].sum() + other_area[theirs].sum()) - shared
        if shared < min_overlap * union:
            continue
        for a, b, ground in zip(i[here], j[here], common[here], strict=True):
            spread.setdefault(other_ids[b], {})[ids[a]] = float(ground)
    one = {other: unit for other, unit in one.items() if other not in spread}
    return Match(one, spread, [item for item in left_over if item[0] not in spread])


def _groups(i, j, left: int, right: int) -> list[list[int]]:
    """Units that hang together by links; the right ones are numbered on behind the left."""
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    size = left + right
    graph = coo_array((np.ones(len(i)), (i, np.asarray(j) + left)), shape=(size, size))
    label = connected_components(graph, directed=False)[1]
    groups: dict[int, list[int]] = {}
    for node in np.unique(np.concatenate([i, np.asarray(j) + left])) if len(i) else ():
        groups.setdefault(int(label[node]), []).append(int(node))
    return list(groups.values())


def spread_by_ground(
    counts: pd.DataFrame,
    match: Match,
    reference: Mapping[str, Mapping[int, float]],
    areas: Mapping[str, float],
    file: str,
) -> tuple[pd.DataFrame, list[Finding]]:
    """Counts by unit from counts by the units of another boundary set.

    What one old unit counted goes to the new ones on its ground, by the people that another table
    counts there (each new unit as densely settled as it is all over). Where no table does, a group
    that is the same units under moved borders stays as matched, and any other is an error.

    Args:
        counts: rows whose `unit` is an identifier of the other set.
        match: how the sets lie in each other.
        reference: unit -> year -> people, of tables that count the units themselves.
        areas: of the units, in any one measure.
        file: for messages.
    """
    shares: dict[tuple[str, int], dict[str, float]] = {}
    moved, unknown = [], []
    years = sorted({int(y) for y in counts["year"]})
    for other, ground in sorted(match.spread.items()):
        for year in years:
            known = {u: _nearest(reference.get(u, {}), year) for u in ground}
            if any(people is None for people in known.values()):
                unknown.append((other, sorted(ground)))
                break
            weight = {u: ground[u] * (known[u] or 0.0) / areas[u] for u in ground}
            weight = weight if sum(weight.values()) > 0 else dict(ground)
            shares[other, year] = {u: w / sum(weight.values()) for u, w in weight.items()}
        else:
            moved.append((other, sorted(ground)))
    for other in match.one:
        for year in years:
            shares[other, year] = {match.one[other]: 1.0}
    findings = []
    for severity, chosen, text in (
        ("warn", moved, "were spread over the units on their ground, by the people these have in "
         "the other tables. State the shares in `changes` if the office gives them"),
        ("error", unknown, "no longer are one unit each, and no table says how many people live in "
         "the parts. State their shares in `changes` in the country's file, or add a table of the "
         "units themselves"),
    ):  # fmt: skip
        if chosen:
            rows = tuple({"file": file, "id": o, "units": ", ".join(u)} for o, u in chosen)
            findings.append(
                Finding(
                    "same_ground",
                    "error" if severity == "error" else "warn",
                    f"{file}: counted units that {text}: {rows_text(rows)}"
                    if severity == "error"
                    else f"{file}: counts of units that were split, merged or redrawn {text}: "
                    f"{rows_text(rows)}",
                    rows,
                )
            )
    return spread_rows(counts, shares), findings


def _nearest(series: Mapping[int, float], year: int) -> float | None:
    if not series:
        return None
    return series[min(series, key=lambda y: (abs(y - year), -y))]


def spread_rows(
    counts: pd.DataFrame, shares: Mapping[tuple[str, int], Mapping[str, float]]
) -> pd.DataFrame:
    """Rows with their people given to other units, one row a unit and year; the rest as it was.

    A row whose unit and year have no shares belongs to no unit any more. Parts of a unit are an
    estimate; whole units added up are counted people still.

    Args:
        counts: as `join.Joined.counts`.
        shares: unit of the rows and year -> new unit -> share.
    """
    import pandas as pd

    plain, parts = [], []
    for position, (unit, year) in enumerate(zip(counts["unit"], counts["year"], strict=True)):
        to = shares.get((unit, int(year)), {})
        if len(to) == 1 and next(iter(to.values())) == 1.0:
            plain.append((position, next(iter(to))))
        else:
            parts += [(position, new, share) for new, share in to.items()]
            if not to:
                plain.append((position, ""))
    out = counts.iloc[[p for p, _ in plain]].copy()
    out["unit"] = [u for _, u in plain]
    if parts:
        pieces = counts.iloc[[p for p, _, _ in parts]].copy()
        pieces["unit"] = [u for _, u, _ in parts]
        pieces["people"] *= [s for _, _, s in parts]
        pieces["kind"] = "estimate"
        pieces["name"] = ""
        out = pd.concat([out, pieces])
    sources: dict[tuple[str, int], set[str]] = {}
    for (unit, year), to in shares.items():
        for new in to:
            sources.setdefault((new, year), set()).add(unit)
    joined = {key for key, units in sources.items() if len(units) > 1}
    return _added_up(out, joined)


def _added_up(counts: pd.DataFrame, joined: set[tuple[str, int]]) -> pd.DataFrame:
    """Rows of a unit and year that several old units came to, made one."""
    import numpy as np
    import pandas as pd

    keys = zip(counts["unit"], counts["year"], strict=True)
    several = np.array([(unit, int(year)) in joined for unit, year in keys], bool)
    if not several.any():
        return counts
    rows = []
    for _, group in counts[several].groupby(["unit", "year"], sort=True):
        row = group.iloc[0].copy()
        row["people"] = group["people"].sum(skipna=False)
        row["kind"] = row["kind"] if group["kind"].nunique() == 1 else "estimate"
        row["name"], row["annual_growth"] = "", float("nan")
        rows.append(row)
    summed = pd.DataFrame(rows).astype(counts.dtypes.to_dict())
    return pd.concat([counts[~several], summed])


def reference_of(tables: Iterable[pd.DataFrame]) -> dict[str, dict[int, float]]:
    """Unit -> year -> people of joined rows that have both."""
    out: dict[str, dict[int, float]] = {}
    for counts in tables:
        known = counts[(counts["unit"] != "") & counts["people"].notna()]
        for unit, year, people in zip(known["unit"], known["year"], known["people"], strict=True):
            out.setdefault(unit, {})[int(year)] = float(people)
    return out
