"""What code and which libraries a version is made by: digests of the science, and the commit."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

import popcorn_ml

COMMIT_VARIABLE = "POPCORN_COMMIT"
"""Environment variable with the commit that an installation without `.git` was made from, as
`git describe --always --dirty --abbrev=40 --exclude '*'` writes it: `-dirty` where files differed.
"""
SOURCES = (".py", ".c")
"""Endings of the files that say what is computed."""

_COMMIT = re.compile("([0-9a-f]{40}|[0-9a-f]{64})(-dirty)?")

_LIBRARIES = ("dagster", "torch", "numpy", "scipy", "rasterio", "pyproj", "duckdb", "geopandas")


@cache
def code_digest(*parts: str) -> str:
    """What an asset's code version is: a hash of the science it calls.

    Args:
        parts: packages of popcorn_ml; the modules that every stage shares always count.
    """
    science = Path(popcorn_ml.__file__).parent
    paths = (path for path in science.rglob("*") if path.suffix in SOURCES)
    names = [path.relative_to(science).as_posix() for path in paths]
    digest = digest_of_code(parts, names, lambda name: (science / name).read_bytes())
    _parts[digest] = sorted(parts)
    return digest


def digest_of_code(parts: Iterable[str], names: Iterable[str], read: Callable[[str], bytes]) -> str:
    """The code version that packages of popcorn_ml make, wherever their files are read from.

    Args:
        parts: the packages.
        names: every source file below popcorn_ml, relative to it.
        read: a file's contents by its name.
    """
    digest = hashlib.sha256()
    paths = sorted(map(PurePosixPath, names))
    for part in ("", *sorted(parts)):
        for path in paths:
            if len(path.parts) == 1 if not part else path.is_relative_to(part):
                digest.update(path.as_posix().encode() + read(path.as_posix()))
    return digest.hexdigest()[:12]


_parts: dict[str, list[str]] = {}


def code_parts(digest: str) -> list[str] | None:
    """The packages that a code version of this process was computed over; None if of another."""
    return _parts.get(digest)


@cache
def library_versions() -> dict[str, str]:
    """Versions of the libraries that results depend on."""
    versions = {name: metadata.version(name) for name in _LIBRARIES}
    with suppress(metadata.PackageNotFoundError):  # there is no wheel of it for every machine
        versions["openvino"] = metadata.version("openvino")
    return versions


@cache
def code_state() -> dict[str, Any]:
    """Version of the package, the commit it is of, and whether files differ from that.

    The checkout says so; outside of one, what COMMIT_VARIABLE says, where it names a commit.
    """
    state: dict[str, Any] = {"package": metadata.version("popcorn-assets"), "commit": None}
    root = Path(__file__).resolve().parents[2]
    told = os.environ.get(COMMIT_VARIABLE, "").strip()
    if (root / ".git").exists():
        commit = git(root, "rev-parse", "HEAD")
        status = git(root, "status", "--porcelain", "--untracked-files=no")
        if commit is not None:  # without git, the package's version has to do
            state["commit"] = commit.decode().strip()
        if status is not None:
            state["modified"] = bool(status.strip())
    elif named := _COMMIT.fullmatch(told):
        state["commit"], state["modified"] = named[1], named[2] is not None
    return state


def git(root: Path, *arguments: str, given: bytes | None = None) -> bytes | None:
    """What git says of a checkout, whoever owns it; None where it fails or is not there.

    Args:
        root: the checkout, which has `.git`.
        given: what git reads.
    """
    # Named outright, the repository is not searched for, and so may be another user's: the one who
    # installed the code is not the one who runs it. `safe.directory` is not heeded by every git.
    command = ["git", "-C", os.fspath(root), "--git-dir=.git", "--work-tree=.", *arguments]
    try:
        done = subprocess.run(command, input=given, capture_output=True, check=False, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None
