"""How a process that computes holds its memory."""

from __future__ import annotations

import ctypes
import platform

ARENAS = 2
"""Of glibc's heaps: by default it keeps eight a core, and each thread's large arrays leave theirs
behind in the one it happened to use. Mapping 12 megapixels takes 1.0 GB with two, and 1.2 else."""

AT_ONCE, KEPT = 32 << 20, 512 << 20
"""Bytes: larger arrays are got from the system one by one, and so much that is free is kept. By
default arrays of a tile are got anew each time, and the system clears what it gives: a twentieth of
the time of a map."""

_M_ARENA_MAX, _M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -8, -3, -1
"""As in glibc's malloc.h."""


def hold_little() -> None:
    """Keep what threads have freed in few heaps, and there, where the C library is glibc; elsewhere
    nothing.

    To be called before there are threads; nothing is computed otherwise or slower for it.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(_M_ARENA_MAX, ARENAS)
        library.mallopt(_M_MMAP_THRESHOLD, AT_ONCE)
        library.mallopt(_M_TRIM_THRESHOLD, KEPT)
