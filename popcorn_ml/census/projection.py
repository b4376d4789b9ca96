"""Counts for a year from the counts of other years, with what was assumed written beside them.

Rules, the first that applies: the year's own count; geometric growth between two counts, or beyond
them at the rate of the last years, at least five where they are counted; a stated growth rate, the
unit's own before the country's;
the nearest count unchanged. Pure arithmetic on one unit's series.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MAX_RATE = 0.15
"""Growth a year (either way) above which two counts are not taken to be of one place."""


BASE_SPAN = 5
"""Years over which growth beyond the first or last count is taken at least, where there are counts:
the step between two estimates of following years is as much their revision as growth."""


@dataclass(frozen=True)
class Projected:
    """A unit's count for a year.

    Attributes:
        people: the count.
        kind: that of the year's own count, else "projection".
        method: how it came about, in words.
        base_year: the year of the count that it rests on (the nearest).
        rate: growth a year applied, 0 where none was.
    """

    people: float
    kind: str
    method: str
    base_year: int
    rate: float


def project(
    series: Mapping[int, tuple[float, str]],
    year: int,
    unit_rate: float | None = None,
    national_rate: float | None = None,
) -> Projected:
    """One unit's count for a year.

    With counts P1 of year t1 and P2 of t2, geometric growth is r = (P2 / P1) ** (1 / (t2 - t1))
    - 1 and P(t) = P1 (1 + r) ** (t - t1), the usual intercensal estimate (United Nations 1983,
    Manual X, annex I). It is not defined where one of the two is 0, and not believed above
    `MAX_RATE`; the next rule then applies.

    Args:
        series: year -> (people, kind); at least one item.
        year: the year asked for.
        unit_rate: the unit's growth a year as a fraction, if stated.
        national_rate: the country's.

    Raises:
        ValueError: the series is empty.
    """
    if not series:
        raise ValueError("no count to project from")
    if year in series:
        people, kind = series[year]
        return Projected(people, kind, f"{kind} {year}", year, 0.0)
    years = sorted(series)
    nearest = min(years, key=lambda y: (abs(y - year), -y))
    people = series[nearest][0]
    if len(years) > 1:
        pair = _around(years, year)
        rate = growth(series[pair[0]][0], series[pair[1]][0], pair[1] - pair[0])
        if rate is not None:
            where = "between" if pair[0] < year < pair[1] else "beyond"
            return Projected(
                people * (1 + rate) ** (year - nearest),
                "projection",
                f"geometric growth {where} {pair[0]} and {pair[1]}",
                nearest,
                rate,
            )
    for rate, whose in ((unit_rate, "unit"), (national_rate, "national")):
        if rate is not None:
            return Projected(
                people * (1 + rate) ** (year - nearest),
                "projection",
                f"{whose} growth rate from {nearest}",
                nearest,
                rate,
            )
    return Projected(people, "projection", f"constant since {nearest}", nearest, 0.0)


def _around(years: list[int], year: int) -> tuple[int, int]:
    """The two years that enclose `year`, else those that growth beyond is taken from."""
    before = [y for y in years if y < year]
    after = [y for y in years if y > year]
    if before and after:
        return before[-1], after[0]
    return base_of(years, year)


def base_of(years: list[int], year: int) -> tuple[int, int]:
    """The years whose growth goes on to a year beyond them all.

    The nearest, and the one nearest to it that lies `BASE_SPAN` years or more away; where none
    does, the farthest.
    """
    if year > years[-1]:
        far = [y for y in years if y <= years[-1] - BASE_SPAN]
        return (far[-1] if far else years[0]), years[-1]
    far = [y for y in years if y >= years[0] + BASE_SPAN]
    return years[0], (far[0] if far else years[-1])


def growth(first: float, last: float, span: int) -> float | None:
    """Geometric growth a year from `first` to `last` people over `span` years, None if undefined
    or above `MAX_RATE` either way."""
    if first <= 0 or last <= 0 or span <= 0:
        return 0.0 if first == last == 0 else None
    rate = (last / first) ** (1 / span) - 1
    return rate if abs(rate) <= MAX_RATE else None
