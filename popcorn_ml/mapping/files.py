"""Small things that the stages of mapping share when they read and write files."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CACHE_BYTES = 128 << 20
"""GDAL's block cache while mapping; its own default, a share of the machine's memory, would let
memory grow with the country."""


@contextmanager
def bounded_cache() -> Iterator[None]:
    """Keep GDAL's block cache small."""
    import rasterio

    # rasterio hands a number to GDAL as bytes, though GDAL's option of that name counts in MB
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
        yield


def write_json(path: Path, content: object) -> None:
    """Write JSON under its name, whole or not at all."""
    write_bytes(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file under its name, whole or not at all."""
    from popcorn_ml.raster import sync

    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=".partial", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(draft, 0o644)  # mkstemp makes it private
        os.replace(draft, path)
        sync(path.parent)
    finally:
        Path(draft).unlink(missing_ok=True)
