"""C sources of this package, compiled for this machine where it has a compiler.

What was compiled is kept in the user's cache, under a name that says of what source, by which
compiler and for which processor, so that nothing stale is ever loaded. It appears there whole, so
processes that begin at once do not disturb one another. Where nothing can be kept it is compiled
into a folder that is gone once it is loaded.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

COMPILERS = ("cc", "gcc", "clang")

OPTIONS = (
    *("-std=gnu11", "-O3", "-march=native", "-shared", "-fPIC"),
    *("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"),
)
PATIENCE_S = 120

CACHE = "XDG_CACHE_HOME"
"""Names the folder of users' caches, as the freedesktop specification has it; else ~/.cache."""


@dataclass(frozen=True)
class Library:
    """A source, compiled and loaded.

    Attributes:
        calls: its functions.
        compiler: who compiled it, as it calls itself.
    """

    calls: Any
    compiler: str


def compiler() -> str | None:
    """The compiler that is tried first here."""
    return next(filter(None, map(shutil.which, COMPILERS)), None)


def compiler_version() -> str | None:
    """What that compiler calls itself."""
    path = compiler()
    try:
        return None if path is None else _told(path)
    except (OSError, subprocess.SubprocessError):
        return None


def _told(compiler: str) -> str:
    said = subprocess.run(
        [compiler, "--version"], capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    return said.stdout.partition("\n")[0]


_loading = threading.Lock()


def library_of(source: Path) -> Library | None:
    """Compile and load a source, once a process; None where this machine cannot."""
    with _loading:
        return _library_of(source)


@cache
def _library_of(source: Path) -> Library | None:
    for name in COMPILERS:
        path = shutil.which(name)
        found = None if path is None else _by(path, source)
        if found is not None:
            return found
    return None


def _by(compiler: str, source: Path) -> Library | None:
    try:
        told = _told(compiler)
        folder = _folder()
        if folder is not None:
            with suppress(OSError):
                return Library(
                    _kept(compiler, source, folder / _name(source, compiler, told)), told
                )
        with tempfile.TemporaryDirectory(prefix="popcorn-") as passing:
            return Library(_made(compiler, source, Path(passing) / f"{source.stem}.so"), told)
    except (OSError, subprocess.SubprocessError):
        return None


def _kept(compiler: str, source: Path, path: Path) -> Any:
    """The library of a name, compiled if it is not there or cannot be loaded."""
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        with tempfile.TemporaryDirectory(prefix=".making-", dir=path.parent) as folder:
            _made(compiler, source, Path(folder) / path.name)
            os.replace(Path(folder) / path.name, path)
        return ctypes.CDLL(str(path))


def _made(compiler: str, source: Path, path: Path) -> Any:
    subprocess.run(
        [compiler, *OPTIONS, "-o", str(path), str(source)],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=PATIENCE_S,
        check=True,
    )
    return ctypes.CDLL(str(path))


def _folder() -> Path | None:
    """Where compiled sources are kept; None where none is, or others could put theirs."""
    if not _processor():
        return None
    try:
        caches = Path(os.environ.get(CACHE) or Path.home() / ".cache")
        folder = caches / "popcorn" / "kernels"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = folder.stat()
    except (OSError, RuntimeError):  # no home, or none that can be written
        return None
    private = found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return folder if private and os.access(folder, os.W_OK | os.X_OK) else None


def _name(source: Path, compiler: str, told: str) -> str:
    digest = hashlib.sha256(source.read_bytes())
    for part in (*OPTIONS, compiler, told, *_processor()):
        digest.update(b"\0" + part.encode())
    return f"{source.stem}-{digest.hexdigest()[:32]}.so"


def _processor() -> tuple[str, ...]:
    """What -march=native goes by; nothing where this machine does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    wanted = ("model name", "flags", "Features", "CPU implementer", "CPU part")
    return (platform.machine(), *sorted({line for line in lines if line.startswith(wanted)}))


class Room(threading.local):
    """Memory that a thread uses again and again: to get it anew each time costs as much as the
    work done in it."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.float32)

    def of(self, size: int) -> np.ndarray:
        """So many floats, until the next call."""
        if len(self._memory) < size:
            self._memory = aligned(size)
        return self._memory


def aligned(size: int) -> np.ndarray:
    """So many floats, from where a line of the cache begins."""
    memory = np.empty(size + 16, np.float32)
    first = -memory.ctypes.data % 64 // 4
    return memory[first : first + size]
