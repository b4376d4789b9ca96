"""Files that appear under their name only when they are complete and on disk."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A draft beside `path`, which takes its name when the block ends without an exception.

    The draft has the same suffix, so that what writes it can tell the format from its name.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    draft = Path(name)
    try:
        yield draft
        draft.chmod(0o644)  # mkstemp gives it to nobody else
        sync(draft)
        os.replace(draft, path)
        sync(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    with replacing(path) as draft:
        draft.write_bytes(content)


def write_json(path: str | Path, value: Any, *, sort_keys: bool = False) -> None:
    """Write JSON, whole or not at all; NaN and infinity, which JSON has not, are refused."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False, sort_keys=sort_keys)
    write_bytes(path, f"{text}\n".encode())


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
