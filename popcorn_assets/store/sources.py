"""Files from outside the store: how a manifest names one, and where it is found again."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import popcorn_ml
from popcorn_assets.store.versions import sha256

COMPANIONS = (".dbf", ".shx", ".prj", ".cpg", ".sbn", ".sbx", ".qix", ".shp.xml")
"""Files that belong to a shapefile."""

PACKAGE_MARK = "package:"
"""What the path of a file that comes with the package begins with in a manifest."""
_PACKAGE = Path(popcorn_ml.__file__).parents[1]


def outside(root: Path, path: Path) -> dict[str, Any]:
    """Path, size and digest of a file from outside.

    The path is from the store's root if below, and from the package if a part of it: both may lie
    elsewhere another day.

    Args:
        root: the store's.
    """
    name = str(path)
    if path.is_relative_to(root):
        name = path.relative_to(root).as_posix()
    elif path.is_relative_to(_PACKAGE):
        name = PACKAGE_MARK + path.relative_to(_PACKAGE).as_posix()
    return {"path": name, "size": path.stat().st_size, "sha256": sha256(path)}


def with_companions(path: Path) -> list[Path]:
    """A file and, if it is a shapefile, those beside it that belong to it."""
    beside = [path.with_suffix(suffix) for suffix in COMPANIONS] if _is_shapefile(path) else []
    return [path, *(one for one in beside if one.is_file())]


def place_of_source(root: Path, path: str) -> Path:
    """Where a file from outside lies that a manifest names so.

    Args:
        root: the store's.
    """
    if path.startswith(PACKAGE_MARK):
        return _PACKAGE / path.removeprefix(PACKAGE_MARK)
    return root / path


def kept_source(root: Path, path: str, digest: str) -> Path | None:
    """Where the inbox keeps a census file that a later one has taken the place of.

    Args:
        root: the store's.
        path: as the manifest has it.
        digest: sha256 of the file meant; the one kept there still has to be compared with it.
    """
    from popcorn_ml.census.inbox import HISTORY

    parts = PurePosixPath(path).parts
    if len(parts) < 3 or parts[0] != "census" or ".." in parts:
        return None
    kept = root.joinpath("census", parts[1], HISTORY, str(digest)[:16], *parts[2:])
    return kept if kept.is_file() else None


def name_of_source(path: str) -> str:
    """A source's name that does not depend on where the store is."""
    return Path(path).name if Path(path).is_absolute() else path


def _is_shapefile(path: Path) -> bool:
    return path.suffix.lower() == ".shp"
