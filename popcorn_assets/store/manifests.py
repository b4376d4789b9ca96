"""What a manifest says, in plain values: its schema, and the verdicts that it keeps."""

from __future__ import annotations

import math
from typing import Any

SCHEMA = 2
"""Of the manifests that this code writes."""


def finite(value: Any) -> Any:
    """The same without NaN and infinity, which JSON has not."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def plain_check(check: Any) -> dict[str, Any]:
    return {
        "name": check.name,
        "passed": bool(check.passed),
        "severity": check.severity,
        "message": check.message,
        "rows": [dict(row) for row in getattr(check, "rows", ())],
        "metadata": dict(getattr(check, "metadata", {})),
    }
