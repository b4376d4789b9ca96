"""Whether the counts of several years are one series: of the same ground, and of the same measure.

A unit that was split, merged or redrawn keeps its identifier for a part of its ground, and an
office that changes what it counts keeps its table: both give numbers that look like growth. What
is judged here is only what the year asked for rests on.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from popcorn_ml.census.findings import Finding, rows_text
from popcorn_ml.census.projection import base_of
from popcorn_ml.census.settings import Side
from popcorn_ml.census.validate import LONG_SPAN, RATE_WARN, SMALL_COUNT

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

WHOLE_SHARE = 0.5
"""A year whose tables have rows of at least this share of the units counts the whole level."""
SHORT_RATES = (-0.03, 0.045)
"""Growth a year that whole levels have over less than `LONG_SPAN` years; over more, `RATE_WARN`."""
STEP_OFF, STEP_OFF_A_YEAR = 0.03, 0.015
"""How far a step may lie off the rest of its series, as a logarithm: in one year, and for each
further one, in which growth itself changes."""
ROUNDING = 0.005
ODD_RATE, ODD_RATE_ERROR = 0.03, 0.05
"""Growth a year off the level's at which a unit is looked at for moved borders, and at which two
neighbours that lose and gain what the other does are held to have exchanged ground."""
ODD_CHANGE = 0.15
"""The same as a logarithm over the whole span: estimates of following years are jumpy."""
CANCELS = 0.25
"""A group's own growth off the level's, as a share of what its units are off, when it cancels."""
NEAR_DEGREES = 1e-4
BETWEEN_OFF = 0.01


@dataclass(frozen=True)
class Years:
    """The years that a level is counted in, and those that a year asked for rests on.

    Attributes:
        all: years that count the whole level.
        used: of these, the year itself; else those around it, or those that growth beyond the
            first or last is taken from.
        asked: the year.
    """

    all: tuple[int, ...]
    used: tuple[int, ...]
    asked: int


def years_of(counts: pd.DataFrame, year: int) -> Years:
    """The years of joined counts (rows of units and of what has none) that matter for `year`."""
    keys = _keys(counts)
    per_year = {int(y): set(keys[counts["year"] == y]) for y in sorted(set(counts["year"]))}
    most = len(set(keys))
    whole = tuple(y for y, own in per_year.items() if len(own) >= WHOLE_SHARE * most)
    if year in whole or len(whole) < 2:
        return Years(whole, tuple(y for y in whole if y == year), year)
    before, after = [y for y in whole if y < year], [y for y in whole if y > year]
    if before and after:
        return Years(whole, (before[-1], after[0]), year)
    first, last = base_of(list(whole), year)
    return Years(whole, tuple(y for y in whole if first <= y <= last), year)


def _keys(counts: pd.DataFrame) -> pd.Series:
    own = counts["id"].where(counts["id"] != "", counts["name"])
    return counts["unit"].where(counts["unit"] != "", own)


def same_ground(
    counts: pd.DataFrame, projected: pd.DataFrame, years: Years, file: str
) -> list[Finding]:
    """Units that some of the tables have no row of, while others do.

    In a year of their own such units would be added to a total that has them already, under
    another identifier; between and beyond, the unit that had their people would grow or shrink
    by them.
    """
    keys = _keys(counts)
    present = {y: set(keys[counts["year"] == y]) for y in years.used}
    inhabited = set(keys[counts["people"] > 0])
    rows: list[dict[str, Any]] = []
    if years.asked in years.used:
        absent = projected[~projected["id"].isin(present[years.asked]) & (projected["people"] > 0)]
        rows = [
            {"file": r["file"], "row": int(r["row"]), "id": r["id"], "name": r["name"],
             "people": round(float(r["people"]), 1), "counted_in": int(r["base_year"]),
             "not_in": years.asked}
            for _, r in absent.iterrows()
        ]  # fmt: skip
        elsewhere = [y for y in years.all if y != years.asked]
        others = {y: set(keys[counts["year"] == y]) for y in elsewhere}
        own = counts.assign(key=keys)
        own = own[(own["year"] == years.asked) & (own["unit"] == "") & (own["people"] > 0)]
        for _, row in own.iterrows():
            missing = [str(y) for y in elsewhere if row["key"] not in others[y]]
            if missing:
                rows.append(
                    {"file": row["file"], "row": int(row["row"]), "id": row["key"],
                     "name": row["name"], "people": float(row["people"]),
                     "counted_in": years.asked, "not_in": ", ".join(missing)}
                )  # fmt: skip
    elif len(years.used) > 1:
        everywhere = set.intersection(*present.values())
        for key in sorted((set.union(*present.values()) - everywhere) & inhabited):
            row = counts[keys == key].iloc[0]
            rows.append(
                {"file": row["file"], "row": int(row["row"]), "id": key, "name": row["name"],
                 "counted_in": ", ".join(str(y) for y in years.used if key in present[y]),
                 "not_in": ", ".join(str(y) for y in years.used if key not in present[y])}
            )  # fmt: skip
    if not rows:
        return []
    return [
        Finding(
            "same_ground",
            "error",
            f"{file}: units that tables of some years have no row of: {rows_text(rows)}. Where "
            "they were split off, merged or renamed, their people are also those of another "
            "unit. State what became of whom in `changes` (old id, new id, share), give the "
            "table its own `boundaries`, or add their rows to the table, empty where they were "
            "not counted",
            tuple(rows),
        )
    ]


def redrawn(
    counts: pd.DataFrame,
    units: gpd.GeoDataFrame,
    years: Years,
    changed: Collection[tuple[int, str]],
    file: str,
) -> list[Finding]:
    """Neighbours of which some lost what the others gained, while together they grew as the rest.

    Args:
        counts: joined rows.
        units: id, name, geometry in degrees.
        years: those that matter.
        changed: year and identifier of the units that the country states changes of.
        file: for messages.
    """
    import shapely

    if years.asked in years.used or len(years.used) < 2:
        return []
    findings: list[Finding] = []
    for first, last in pairwise(years.used):
        known = {unit for at, unit in changed if first < at <= last}
        pair = _of_years(counts, first, last)
        if len(pair) < 3 or pair[first].sum() <= 0 or pair[last].sum() <= 0:
            continue
        total = math.log(pair[last].sum() / pair[first].sum())
        span = last - first
        lived = pair[(pair > 0).all(1) & (pair.max(1) >= SMALL_COUNT)]
        rate = (lived[last] / lived[first]).map(math.log).sub(total) / span
        odd = [u for u in rate.index[rate.abs() >= ODD_RATE] if u not in known]
        shapes = units.set_index("id").geometry.reindex(odd)
        tree = shapely.STRtree(shapes.to_numpy())
        links = tree.query(shapes.to_numpy(), predicate="dwithin", distance=NEAR_DEGREES)
        for group in _hanging_together(len(odd), links):
            own = [odd[k] for k in group]
            up, down = rate[own].max(), rate[own].min()
            least = max(ODD_RATE_ERROR, ODD_CHANGE / span)
            if up < least or down > -least:
                continue
            sums = pair.loc[own].sum()
            together = (math.log(sums[last] / sums[first]) - total) / span
            if abs(together) > CANCELS * min(up, -down):
                continue
            rows = tuple(
                {"file": file, "id": u, "years": f"{first}-{last}",
                 "from": float(pair.loc[u, first]), "to": float(pair.loc[u, last])}
                for u in own
            )  # fmt: skip
            findings.append(
                Finding(
                    "same_ground",
                    "error",
                    f"{file}: neighbours of which some lost between {first} and {last} what "
                    f"others gained: {rows_text(rows)}. Their borders were moved, it seems. State "
                    "it in `changes` (old id, new id, share), or that a unit stayed as it was: "
                    "with itself and share 1",
                    rows,
                )
            )
    return findings


def _of_years(counts: pd.DataFrame, *years: int):
    """People by unit in some years, of units counted in all of them."""
    known = counts[(counts["unit"] != "") & counts["people"].notna() & counts["year"].isin(years)]
    table = known.pivot_table(index="unit", columns="year", values="people", aggfunc="last")
    return table.reindex(columns=list(years)).dropna()


def _hanging_together(count: int, links) -> list[list[int]]:
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if count == 0:
        return []
    graph = coo_array((np.ones(len(links[0])), (links[0], links[1])), shape=(count, count))
    label = connected_components(graph, directed=False)[1]
    return [np.flatnonzero(label == k).tolist() for k in range(label.max() + 1)]


def steps(
    counts: pd.DataFrame,
    years: Years,
    breaks: Mapping[int, Side],
    annual_growth: float | None,
    file: str,
) -> list[Finding]:
    """A step in the level's total that the year rests on and that is no growth.

    Each step is held against what levels grow in so many years, and against the rest of the
    series, or the country's stated growth where the series has no other step.

    Args:
        counts: joined rows, what the country's `breaks` leave of them.
        years: those that matter.
        breaks: what the country states; a step stated there is not judged.
        annual_growth: the country's.
        file: for messages.
    """
    if years.asked in years.used or len(years.used) < 2:
        return []

    def stated(first: int, last: int) -> bool:
        return any(first < b <= last for b in breaks)

    judged: list[tuple[int, int, float, float, float]] = []
    for first, last in pairwise(years.all):
        pair = _of_years(counts, first, last)
        before, after = float(pair[first].sum()), float(pair[last].sum())
        if before > 0 and after > 0:
            judged.append((first, last, before, after, math.log(after / before)))
    wrong: list[tuple[float, dict[str, Any]]] = []
    for k, (first, last, before, after, step) in enumerate(judged):
        in_use = years.used[0] <= first and last <= years.used[-1]
        if not in_use or stated(first, last):
            continue
        span = last - first
        low, high = (math.log1p(r) * span for r in SHORT_RATES)
        if span >= LONG_SPAN:
            high = math.log1p(RATE_WARN) * span
            low = -high
        rest = [j for n, j in enumerate(judged) if n != k and not stated(j[0], j[1])]
        off = (
            max(low - step, step - high, 0.0)
            if step < low - ROUNDING or step > high + ROUNDING
            else 0.0
        )
        expected = None
        if rest:
            expected = sum(j[4] for j in rest) / sum(j[1] - j[0] for j in rest) * span
        elif annual_growth is not None and span < LONG_SPAN:
            expected = math.log1p(annual_growth) * span
        if expected is not None and abs(step - expected) > STEP_OFF + STEP_OFF_A_YEAR * (span - 1):
            off = max(off, abs(step - expected))
        if off:
            rate = math.expm1(step / span)
            item: dict[str, Any] = {
                "file": file,
                "from_year": first,
                "to_year": last,
                "from": before,
                "to": after,
            }
            wrong.append((abs(step / span), {**item, "rate": round(rate, 4)}))
    if not wrong:
        return []
    _, item = max(wrong, key=lambda w: w[0])
    first, last = item["from_year"], item["to_year"]
    return [
        Finding(
            "growth",
            "error",
            f"{file}: from {item['from']:,.0f} people in {first} to {item['to']:,.0f} in {last} is "
            f"{100 * item['rate']:+.1f} % a year, which neither the rest of the series nor any "
            f"growth of a population explains: a census after estimates, or another definition? "
            f"The year {years.asked} rests on it. Say in the country's file which counts to use: "
            f"`breaks: {{{last}: later}}`, `earlier`, `both` (each for its own years), or `real`",
            (item,),
        )
    ]


def used_counts(counts: pd.DataFrame, breaks: Mapping[int, Side], year: int) -> pd.DataFrame:
    """The rows that the country's statement on breaks leaves for a year.

    A unit that would keep no count keeps all of its own.
    """
    keep = counts["year"] == counts["year"]
    for at, side in sorted(breaks.items()):
        behind = counts["year"] >= at
        if side == "later" or (side == "both" and year >= at):
            keep &= behind
        elif side in ("earlier", "both"):
            keep &= ~behind
    counted = counts["people"].notna()
    left = set(counts["unit"][keep & counted])
    return counts[keep | ~counts["unit"].isin(left)]


def total_of_year(
    counts: pd.DataFrame, projected: pd.DataFrame, years: Years, file: str
) -> list[Finding]:
    """The units' sum against that of the year's own table, or of the tables around it."""
    people = projected.set_index("id")["people"]
    if years.asked in years.used:
        own = counts[(counts["year"] == years.asked) & (counts["unit"] != "")]
        own = own[own["people"].notna()]
        stated, found = (
            float(own["people"].sum()),
            float(people.reindex(own["unit"].unique()).sum()),
        )
        low = high = stated
        slack = 0.5 + 1e-9 * abs(stated)
        source = f"its table of {years.asked} says"
    elif len(years.used) == 2 and years.used[0] < years.asked < years.used[1]:
        pair = _of_years(counts, *years.used)
        sums = pair.sum()
        low, high = float(sums.min()), float(sums.max())
        found = float(people.reindex(pair.index).sum())
        slack = BETWEEN_OFF * high
        source = f"those of {years.used[0]} and {years.used[1]} say"
    else:
        return []
    if low - slack <= found <= high + slack:
        return []
    said = f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"
    return [
        Finding(
            "total_of_year",
            "error",
            f"{file}: in {years.asked} the units add up to {found:,.0f} people, where {source} "
            f"{said}. See the units that grow most and shrink most between the tables: they may "
            "be other ground under one identifier",
            ({"file": file, "year": years.asked, "people": found, "stated": said},),
        )
    ]
