"""A version's folder, as whoever reads it sees it: what names it, and what is a file of its own."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from popcorn_ml.errors import Unread

MANIFEST = "manifest.json"
HISTORY = ".history"
VERSION_PATTERN = re.compile(r"[0-9a-f]{16}")
"""Of a version's folder."""


def failing(manifest: Any) -> list[dict[str, Any]]:
    """Verdicts in a manifest, of any form, that block whatever would be made from its version."""
    try:
        return [c for c in manifest["checks"] if not c["passed"] and c["severity"] == "error"]
    except (KeyError, TypeError):
        return []


def sha256(path: str | Path) -> str:
    """Digest of a file's contents, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def manifests_in(version: Path) -> list[Path]:
    """A version's manifest and its earlier ones; none where it is not there."""
    paths = (version / MANIFEST, *sorted(version.glob(f"{HISTORY}/*")))
    return [path for path in paths if path.is_file()]


def is_version(folder: Path, version: str) -> bool:
    """Whether a text, which may be anything, names a version in a folder that lies there itself."""
    if not VERSION_PATTERN.fullmatch(version) or (folder / version).is_symlink():
        return False
    return is_own_file(folder / version / MANIFEST, folder / version)


def unread(path: Path, error: OSError) -> Unread:
    """The error of a file of the store that could not be read."""
    return Unread(
        "this user may not read what lies here"
        if isinstance(error, PermissionError)
        else "it could not be read",
        where=path,
        found=error.strerror,
        remedy="work as the user whom the store belongs to, or let this one read it",
    )


def is_own_file(path: Path, folder: Path) -> bool:
    """Whether there is a file that lies in the folder, neither outside nor behind a link out.

    Raises:
        Unread: this user may not look.
    """
    try:
        return path.is_file() and path.resolve().is_relative_to(folder.resolve())
    except PermissionError as error:
        raise unread(path, error) from error
    except (OSError, ValueError):  # a name that no file can have
        return False
