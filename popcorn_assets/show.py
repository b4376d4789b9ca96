"""What an operator sees of a materialisation: a picture first, then numbers, then the path."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from popcorn_assets.partitions import COUNTRY_YEAR
from popcorn_assets.wording import columns, heading, rounded, told

if TYPE_CHECKING:
    from popcorn_ml.mapping.pictures import Kind

PICTURE = "picture.png"
"""A version's file of this name is what an operator sees first."""

MANIFEST_SHA256 = "manifest sha256"
"""Title of the digest of a version's manifest in Dagster's record."""

REJECTED = "not current"
"""Title of the reason for which a version did not become current."""

PICTURE_PX = 800
"""Longest side of a picture."""

EMBEDDED_PX = 480
EMBEDDED_COLOURS = 32
"""Of a picture that Dagster's event log keeps: some ten kB."""


def save_picture(
    folder: Path, source: Path, kind: Kind, title: str | None = None, units: Path | None = None
) -> None:
    """Write a picture of a raster as the folder's picture.

    Args:
        title: above it.
        units: raster of units whose borders are drawn.
    """
    from popcorn_ml.mapping.pictures import thumbnail

    picture = thumbnail(source, kind, max_px=PICTURE_PX, title=title, units=units)
    (folder / PICTURE).write_bytes(picture)


def shown_picture(picture: Path, instance: dg.DagsterInstance) -> str | None:
    """A version's picture as markdown: by its address, where the instance's web server shows it.

    Elsewhere a smaller one, embedded. None where there is none.

    Args:
        instance: whose compute logs may be `runs.pictures.ComputeLogs`.
    """
    if not picture.is_file():
        return None
    address_of = getattr(instance.compute_log_manager, "picture_address", None)
    address = address_of(picture) if address_of is not None else None
    return f"![picture]({address})" if address else markdown_image(picture.read_bytes())


def raster_summary(path: Path, total: str | None = "people on the grid") -> dict[str, Any]:
    """Total (or mean) and nodata share of a raster's first band, block by block.

    Args:
        path: the raster.
        total: what all of its pixels add up to, as the total's title; a grid holds more than the
            country. None for values that do not add up: their mean.
    """
    import numpy as np

    from popcorn_ml import raster

    grid = raster.grid_of(path)
    people, missing = 0.0, 0
    for tile in grid.tiles(1024):
        values = raster.read_float(path, tile.core, 1)
        people += float(np.nansum(values, dtype=np.float64))
        missing += int(np.isnan(values).sum())
    pixels = grid.width * grid.height
    share = missing / pixels
    if total is not None:
        return {total: round(people, 1), "nodata share": share}
    return {"mean": people / max(pixels - missing, 1), "nodata share": share}


def as_metadata(
    picture: str | None,
    shown: dict[str, Any],
    *,
    path: Path,
    version: str,
    manifest_sha256: str,
    reused: bool = False,
    rejected: str = "",
) -> dict[str, Any]:
    """Dagster metadata from plain values.

    Args:
        picture: as markdown; see `shown_picture`.
        shown: title -> number, text, list of rows (dicts) or dict.
        path: folder of the version.
        version: its identifier.
        manifest_sha256: digest of its manifest's file, which the audit compares.
        reused: whether this run took it from the store as it was.
        rejected: names of the failed checks for which it did not become the current version.
    """
    result: dict[str, Any] = {}
    if picture is not None:
        result["picture"] = dg.MetadataValue.md(picture)
    for title, value in shown.items():
        result[title] = _value(value)
    result["path"] = dg.MetadataValue.path(str(path))
    result["version"] = version
    result[MANIFEST_SHA256] = manifest_sha256
    if rejected:
        result[REJECTED] = f"it failed {rejected}"
    if reused:
        result["reused"] = dg.MetadataValue.bool(True)
    return result


def check_specs(asset: str, checks: Iterable[str] | Mapping[str, str]) -> list[dg.AssetCheckSpec]:
    """Declarations of the checks that an asset evaluates itself; only a failed error blocks.

    Args:
        asset: whose checks they are.
        checks: names, or names with what passes.
    """
    texts = checks if isinstance(checks, Mapping) else dict.fromkeys(checks)
    return [
        dg.AssetCheckSpec(
            name, asset=asset, description=text, blocking=True, partitions_def=COUNTRY_YEAR
        )
        for name, text in texts.items()
    ]


def as_check_result(check: dict[str, Any]) -> dg.AssetCheckResult:
    """A verdict kept in a manifest as Dagster's; only a failed error blocks what follows."""
    warn = check["severity"] == "warn"
    metadata = {title: _value(value) for title, value in check["metadata"].items()}
    if check["rows"]:
        metadata["rows"] = dg.MetadataValue.md(markdown_table(check["rows"]))
    return dg.AssetCheckResult(
        check_name=check["name"],
        passed=check["passed"],
        severity=dg.AssetCheckSeverity.WARN if warn else dg.AssetCheckSeverity.ERROR,
        description=check["message"],
        metadata=metadata,
    )


def markdown_image(png: bytes) -> str:
    """A picture as markdown that needs no server: made small, since events are kept for ever."""
    from PIL import Image

    stream = io.BytesIO()
    image = Image.open(io.BytesIO(png)).convert("RGB")
    image.thumbnail((EMBEDDED_PX, EMBEDDED_PX))
    image.quantize(EMBEDDED_COLOURS, dither=Image.Dither.NONE).save(stream, "PNG", optimize=True)
    return (
        f"![picture](data:image/png;base64,{base64.b64encode(stream.getvalue()).decode('ascii')})"
    )


def markdown_table(rows: list[dict[str, Any]]) -> str:
    """Rows as a markdown table, a column for every key that any of them has."""
    if not rows:
        return "(none)"
    head = columns(rows)
    lines = ["| " + " | ".join(map(heading, head)) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(_cell(row.get(k, ""), k) for k in head) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any, key: str) -> str:
    return told(value, key).replace("|", "\\|").replace("\n", " ")


def _value(value: Any) -> Any:
    if isinstance(value, bool):
        return dg.MetadataValue.bool(value)
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return dg.MetadataValue.md(markdown_table(value))
    if isinstance(value, list):
        return dg.MetadataValue.text(told(value))
    if isinstance(value, dict):
        return dg.MetadataValue.json(rounded(value))
    return rounded(value)
