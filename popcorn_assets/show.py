"""What an operator sees of a materialisation: a picture first, then numbers, then the path."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import dagster as dg

MAX_PICTURE_BYTES = 1_500_000


def as_metadata(
    picture: bytes | None,
    shown: dict[str, Any],
    *,
    path: Path,
    version: str,
    reused: bool = False,
) -> dict[str, Any]:
    """Dagster metadata from plain values.

    Args:
        picture: PNG bytes, embedded so that the UI asks nobody for it.
        shown: title -> number, text, list of rows (dicts) or dict.
        path: folder of the version.
        version: its identifier.
        reused: whether this run took it from the store as it was.
    """
    result: dict[str, Any] = {}
    if picture is not None and len(picture) <= MAX_PICTURE_BYTES:
        result["picture"] = dg.MetadataValue.md(markdown_image(picture))
    for title, value in shown.items():
        result[title] = _value(value)
    result["path"] = dg.MetadataValue.path(str(path))
    result["version"] = version
    if reused:
        result["reused"] = dg.MetadataValue.bool(True)
    return result


def markdown_image(png: bytes) -> str:
    """A picture as markdown that needs no server."""
    return f"![picture](data:image/png;base64,{base64.b64encode(png).decode('ascii')})"


def markdown_table(rows: list[dict[str, Any]]) -> str:
    """Rows of equal keys as a markdown table."""
    if not rows:
        return "(none)"
    head = list(rows[0])
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(_cell(row.get(k)) for k in head) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def _value(value: Any) -> Any:
    if isinstance(value, bool):
        return dg.MetadataValue.bool(value)
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return dg.MetadataValue.md(markdown_table(value))
    if isinstance(value, list | dict):
        return dg.MetadataValue.json(value)
    return value
