"""Age bands among the columns of a table, and whether they add up to its counts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from popcorn_ml.census.findings import Finding, rows_text

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

OPEN_END = 999
CLOSED = re.compile(r"t_?(\d{1,3})(?:_|-|–| to |_to_)(\d{1,3})", re.IGNORECASE)
OPEN = re.compile(
    r"t_?(\d{1,3})[ _]?(?:\+|plus|p|up|over|above|older|and[ _]?(?:over|above|older|up|more)"
    r"|et[ _]plus|y[ _]mas|ou[ _]mais|years[ _]and[ _]over)",
    re.IGNORECASE,
)
SINGLE = re.compile(r"t_?(\d{1,3})", re.IGNORECASE)
UNKNOWN = re.compile(
    r"t_?(?:unk|unknown|ns|nk|na|not_?stated|unspec(?:ified)?|missing|nd)", re.IGNORECASE
)


@dataclass(frozen=True)
class Bands:
    """Columns of both sexes by age.

    Attributes:
        columns: bands of which no two hold one age, and people of unknown age; none where there
            are no two bands.
        whole: whether they hold every age.
    """

    columns: tuple[str, ...]
    whole: bool


def bands(names: Sequence[str]) -> Bands:
    """The bands of a table of common operational data: `T_00_04`, `T_80Plus`, `T_80+`.

    Where there are coarse and fine bands side by side, the fine ones are taken.
    """
    spans: dict[tuple[int, int], str] = {}
    for name in reversed(names):
        if m := CLOSED.fullmatch(name):
            spans[int(m[1]), int(m[2])] = name
        elif m := OPEN.fullmatch(name):
            spans[int(m[1]), OPEN_END] = name
        elif m := SINGLE.fullmatch(name):
            spans[int(m[1]), int(m[1])] = name
    if len(spans) < 2:
        return Bands((), False)
    chain = _chain(sorted(spans), 0)
    chosen = chain or _apart(sorted(spans))
    unknown = [n for n in names if UNKNOWN.fullmatch(n)]
    return Bands((*(spans[s] for s in chosen), *unknown), chain is not None)


def _chain(spans: Sequence[tuple[int, int]], start: int) -> list[tuple[int, int]] | None:
    """Bands from an age to the open end, each beginning where the one before ends."""
    for first, last in [s for s in spans if s[0] == start]:
        if last == OPEN_END:
            return [(first, last)]
        rest = _chain([s for s in spans if s[0] > last], last + 1)
        if rest is not None:
            return [(first, last), *rest]
    return None


def _apart(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Bands of which none begins before another ends."""
    out: list[tuple[int, int]] = []
    for first, last in spans:
        if not out or first > out[-1][1]:
            out.append((first, last))
    return out


def judged(
    parts: Sequence[np.ndarray], total: np.ndarray, base: pd.DataFrame, where: str, whole: bool
) -> list[Finding]:
    """Whether the bands of each row add up to its total, to a person for each two bands.

    Args:
        parts: people of each band, NaN where there is none; the total likewise.
        base: id, name, file and row of each row.
        where: the file, for messages.
        whole: whether the bands hold every age; others may well hold fewer people than the total,
            which is only said.
    """
    import numpy as np

    if not parts:
        return []
    summed = np.sum(parts, axis=0)
    difference = np.abs(summed - total)
    off = difference > max(0.5 * len(parts), 1e-4 * np.nanmax(np.append(total, 0)))
    off &= difference > 0.001 * total
    if not off.any():
        return []
    columns = ("file", "row", "id", "name")
    rows = tuple(
        {
            **{c: base[c].iloc[int(k)] for c in columns if c != "row"},
            "row": int(base["row"].iloc[int(k)]),
            "total": float(total[k]),
            "bands": float(summed[k]),
        }
        for k in np.flatnonzero(off)[:500]
    )
    judged_by = off if whole else off & (summed > total)
    worst = float(np.nanmax((difference / np.maximum(total, 1))[judged_by], initial=0.0))
    gap = "" if whole else " The bands leave ages out, so fewer people in them prove nothing."
    return [
        Finding(
            "age_bands",
            "error" if worst > 0.01 else "warn",
            f"{where}: rows whose age bands do not add up to the total: "
            f"{rows_text(rows, of=int(off.sum()))}. Correct the rows, or the list "
            f"`counts.columns.ages`.{gap}",
            rows,
            int(off.sum()),
        )
    ]
