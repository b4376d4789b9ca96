"""The head of a cloud-optimised GeoTIFF: what all blocks' sizes make of it.

In the file: TIFF's header, GDAL's note on the layout, one directory a level (the raster itself
first), then the blocks, coarsest level first. Each block has its size before it and its last four
bytes once more behind it, as the note says. What georeferencing, names, tags and nodata look like
in a directory, GDAL itself is asked: it writes a raster of one pixel that has them.

Source: TIFF 6.0 and BigTIFF; GDAL's documentation of its driver COG ("Cloud Optimized GeoTIFF").
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from popcorn_ml.cog.profile import BLOCK_PX, Profile
from popcorn_ml.grid import Grid

_NOTE = (
    b"LAYOUT=IFDS_BEFORE_DATA\nBLOCK_ORDER=ROW_MAJOR\nBLOCK_LEADER=SIZE_AS_UINT4\n"
    b"BLOCK_TRAILER=LAST_4_BYTES_REPEATED\nKNOWN_INCOMPATIBLE_EDITION=NO\n "
)
NOTE = b"GDAL_STRUCTURAL_METADATA_SIZE=%06d bytes\n%s" % (len(_NOTE), _NOTE)

AROUND_BYTES = 8
"""What stands before and behind a block: its size, and its last four bytes once more."""

CLASSIC_LIMIT = 2**32
"""Offsets of a classic TIFF are smaller."""

SHORT, LONG, LONG8 = 3, 4, 16
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8}
"""Of a value of each of TIFF's types."""

SUBFILE, WIDTH, HEIGHT, COMPRESSION, PREDICTOR = 254, 256, 257, 259, 317
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_SIZES = 322, 323, 324, 325
ADOBE_DEFLATE = 8
_OF_EVERY_LEVEL = (258, 262, 277, 284, 338, 339, 42113)
"""Bits, meaning, number, arrangement, extra ones and format of the samples; GDAL's nodata."""
_OF_THE_RASTER = (33550, 33922, 34264, 34735, 34736, 34737, 42112)
"""Georeferencing and GDAL's metadata: names, scale, tags."""

Entry = tuple[int, int, bytes]
"""A tag's type, the number of its values, and the values."""


@dataclass(frozen=True)
class Layout:
    """Where all is.

    Attributes:
        head: the file's bytes before the first block's size.
        offsets: of each level's blocks, in rows of blocks.
        total: bytes of the file.
    """

    head: bytes
    offsets: list[np.ndarray]
    total: int


def described(
    profile: Profile,
    grid: Grid,
    bands: Sequence[str],
    scale: float,
    tags: Mapping[str, str],
    units: Sequence[str] = (),
    band_tags: Sequence[Mapping[str, str]] = (),
) -> dict[int, Entry]:
    """The entries of a directory that say what the raster is, as GDAL writes them."""
    from rasterio.io import MemoryFile
    from rasterio.transform import Affine

    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff", crs=grid.crs, transform=Affine(*grid.transform), width=1, height=1,
            count=profile.bands, dtype=profile.dtype, nodata=profile.nodata, interleave="pixel",
        ) as dataset:  # fmt: skip
            dataset.scales = [scale] * profile.bands
            for place, name in enumerate(bands, start=1):
                dataset.set_band_description(place, name)
            for place, unit in enumerate(units, start=1):
                dataset.set_band_unit(place, unit)
            for place, said in enumerate(band_tags, start=1):
                dataset.update_tags(place, **said)
            dataset.update_tags(**tags)
        return _entries(memory.read())


def _entries(file: bytes) -> dict[int, Entry]:
    """The first directory of a classic little-endian TIFF."""
    (start,) = struct.unpack_from("<I", file, 4)
    (count,) = struct.unpack_from("<H", file, start)
    found = {}
    for place in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, number = struct.unpack_from("<HHI", file, place)
        size = number * _BYTES[kind]
        at = place + 8 if size <= 4 else struct.unpack_from("<I", file, place + 8)[0]
        found[tag] = kind, number, file[at : at + size]
    return found


def laid_out(profile: Profile, told: Mapping[int, Entry], sizes: Sequence[np.ndarray]) -> Layout:
    """The head of a file and the places of its blocks.

    Args:
        profile: of the raster.
        told: what `described` gives.
        sizes: bytes of each level's blocks, in rows of blocks.
    """
    data = sum(int(level.sum()) + AROUND_BYTES * level.size for level in sizes)
    big = False
    begin = _head_bytes(profile, told, big)
    if begin + data > CLASSIC_LIMIT:
        big = True
        begin = _head_bytes(profile, told, big)
    offsets: list[np.ndarray] = []
    at = begin
    for level in reversed(sizes):
        steps = level.astype(np.uint64) + np.uint64(AROUND_BYTES)
        ends = np.uint64(at) + np.cumsum(steps)
        offsets.insert(0, ends - steps + np.uint64(4))
        at = int(ends[-1])
    return Layout(_head(profile, told, sizes, offsets, big), offsets, at)


def _head_bytes(profile: Profile, told: Mapping[int, Entry], big: bool) -> int:
    nothing = [np.zeros(rows * cols, np.uint64) for rows, cols in profile.blocks]
    return len(_head(profile, told, nothing, nothing, big))


def _head(
    profile: Profile,
    told: Mapping[int, Entry],
    sizes: Sequence[np.ndarray],
    offsets: Sequence[np.ndarray],
    big: bool,
) -> bytes:
    first = (16 if big else 8) + len(NOTE)
    first += first % 2
    directories = [
        _directory(profile, told, level, sizes[level], offsets[level], big)
        for level in range(len(profile.shapes))
    ]
    lengths = [_directory_bytes(entries, big) for entries in directories]
    starts = [first, *accumulate(lengths, initial=first)][1:]
    header = struct.pack("<2sHHHQ", b"II", 43, 8, 0, first) if big else b""
    header = header or struct.pack("<2sHI", b"II", 42, first)
    head = (header + NOTE).ljust(first, b"\0")
    for entries, start, after in zip(directories, starts, [*starts[1:-1], 0], strict=False):
        head += _packed(entries, start, after, big)
    return head


def _directory(
    profile: Profile,
    told: Mapping[int, Entry],
    level: int,
    sizes: np.ndarray,
    offsets: np.ndarray,
    big: bool,
) -> dict[int, Entry]:
    height, width = profile.shapes[level]
    kind, stored = (LONG8, "<u8") if big else (LONG, "<u4")
    entries: dict[int, Entry] = {
        WIDTH: _number(width),
        HEIGHT: _number(height),
        COMPRESSION: _number(ADOBE_DEFLATE),
        PREDICTOR: _number(profile.predictor),
        TILE_WIDTH: _number(BLOCK_PX),
        TILE_HEIGHT: _number(BLOCK_PX),
        TILE_OFFSETS: (kind, offsets.size, offsets.astype(stored).tobytes()),
        TILE_SIZES: (LONG, sizes.size, sizes.astype("<u4").tobytes()),
    }
    if level:
        entries[SUBFILE] = LONG, 1, struct.pack("<I", 1)
    kept = _OF_EVERY_LEVEL if level else (*_OF_EVERY_LEVEL, *_OF_THE_RASTER)
    entries.update({tag: told[tag] for tag in kept if tag in told})
    return dict(sorted(entries.items()))


def _number(value: int) -> Entry:
    if value < 1 << 16:
        return SHORT, 1, struct.pack("<H", value)
    return LONG, 1, struct.pack("<I", value)


def _directory_bytes(entries: Mapping[int, Entry], big: bool) -> int:
    inline = 8 if big else 4
    fixed = (16 if big else 6) + (20 if big else 12) * len(entries)
    return fixed + sum(_even(len(v)) for _, _, v in entries.values() if len(v) > inline)


def _even(size: int) -> int:
    return size + size % 2


def _packed(entries: Mapping[int, Entry], start: int, after: int, big: bool) -> bytes:
    """A directory at `start`, what does not fit into its entries behind it; `after` is the next."""
    form: dict[str, Any] = (
        {"count": "<Q", "entry": "<HHQ", "offset": "<Q", "inline": 8, "bytes": 20}
        if big
        else {"count": "<H", "entry": "<HHI", "offset": "<I", "inline": 4, "bytes": 12}
    )
    counted = struct.pack(form["count"], len(entries))
    behind = start + len(counted) + form["bytes"] * len(entries) + form["inline"]
    table, values = counted, b""
    for tag, (kind, number, content) in entries.items():
        table += struct.pack(form["entry"], tag, kind, number)
        if len(content) <= form["inline"]:
            table += content.ljust(form["inline"], b"\0")
        else:
            table += struct.pack(form["offset"], behind + len(values))
            values += content.ljust(_even(len(content)), b"\0")
    return table + struct.pack(form["offset"], after) + values
