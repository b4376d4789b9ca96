"""Numbers, lists and tables as a person reads them: rounded, named and in a sensible order.

Manifests keep every digit and sort their keys; here it is decided how much of that is shown, under
which title and in which column. What has no title of its own is shown under its own name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

NOTHING = 1e-9
"""A number of a table that is smaller is what rounding left of zero."""

TITLES = {
    "n": "places compared", "r2": "R2", "mae": "MAE, people", "rmse": "RMSE, people",
    "bias": "bias, people", "unpredicted": "places without a value",
    "unpredicted_people": "people in them", "p02": "2nd percentile", "p98": "98th percentile",
    "std": "standard deviation", "min": "smallest", "max": "largest",
    "held_out_loss": "held-out loss", "held_out_log_l1": "held-out log L1",
    "held_out_mae_people": "held-out MAE, people", "held_out_total_ratio": "held-out total ratio",
    "mae_share": "MAE, share of mean people", "rmse_share": "RMSE, share of mean people",
    "rate": "rate a year", "area_ha": "area, ha",
}  # fmt: skip

FIRST = (
    "level", "approach", "per", "member", "seed", "season", "band", "extractor", "trained as",
    "file", "row", "id", "name", "unit", "year", "years", "from", "to", "last year", "this year",
    "change", "census", "units joined", "r2", "mae", "rmse", "bias", "mae_share", "rmse_share", "n",
    "unpredicted", "unpredicted_people",
    "epochs", "epoch", "best epoch", "held_out_loss", "held_out_mae_people", "held_out_total_ratio",
    "units", "people", "observed", "neighbouring_seasons", "other_orbit", "nearest", "empty",
    "median", "mean", "std", "min", "p02", "p98", "max",
)  # fmt: skip
"""Columns in the order in which they are read; others follow in the order they come in."""

DECIMALS = {
    "r2": 3, "mae": 2, "rmse": 2, "bias": 2, "unpredicted_people": 1, "mae_share": 3,
    "rmse_share": 3,
}  # fmt: skip
"""Of columns whose numbers are compared with each other down the column."""


def columns(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The keys of rows, in the order in which a person reads them."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    known = {name: place for place, name in enumerate(FIRST)}
    return sorted(keys, key=lambda key: known.get(key, len(known)))


def heading(key: str) -> str:
    """The heading of a column or a figure."""
    return TITLES.get(key, key.replace("_", " "))


def told(value: Any, key: str = "") -> str:
    """A value of a table as text, without the marks of a program's own notation."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return _number(value, DECIMALS.get(key))
    if isinstance(value, int) and not _counts_years(key):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return "; ".join(f"{heading(str(name))} {_within(part)}" for name, part in value.items())
    if isinstance(value, list | tuple | set):
        return ", ".join(told(part) for part in value) or "none"
    return str(value)


def _within(value: Any) -> str:
    """A part of a value that has parts of its own."""
    if isinstance(value, Mapping):
        return (
            f"({', '.join(f'{heading(str(name))} {told(part)}' for name, part in value.items())})"
        )
    return told(value)


def _counts_years(key: str) -> bool:
    return key in ("seed", "id", "row") or "year" in key


def _number(value: float, decimals: int | None) -> str:
    if not math.isfinite(value):
        return "none" if math.isnan(value) else str(value)
    if decimals is not None:
        return _unsigned_zero(f"{value:,.{decimals}f}")
    if abs(value) < NOTHING:
        return "0"
    return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def _unsigned_zero(text: str) -> str:
    return text.removeprefix("-") if not text.strip("-0.,") else text


def rounded(value: Any) -> Any:
    """A figure, or figures, with as many digits as say something: six, one after the point."""
    if isinstance(value, float) and math.isfinite(value) and value:
        digits = max(5 - math.floor(math.log10(abs(value))), 1)
        return round(value, digits)
    if isinstance(value, Mapping):
        return {name: rounded(part) for name, part in value.items()}
    if isinstance(value, list):
        return [rounded(part) for part in value]
    return value
