"""How much ground polygons of one set have in common with those of another, or of their own.

Polygons of many vertices are first cut into small pieces, by halves. Two outlines of a million
vertices would else be compared vertex by vertex for every pair that they are in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

PIECE_VERTICES = 256
"""Polygons of more vertices are cut into pieces of at most so many."""
PAIRS_AT_ONCE = 200_000
"""Pairs of pieces that are intersected in one go: it bounds the memory."""
DEEPEST = 40


def common_areas(
    left: np.ndarray, right: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of polygons with common ground, and its area.

    Args:
        left: valid polygons in an equal-area plane.
        right: those of another set; None: pairs within `left`, each once, the first index smaller.

    Returns:
        Indices into `left`, into `right`, and areas above 0, in the order of the indices.
    """
    import numpy as np
    import shapely

    pieces, owner = _pieces(left)
    others, owner_of_other = (pieces, owner) if right is None else _pieces(right)
    tree = shapely.STRtree(pieces)
    b, a = tree.query(others)
    i, j = owner[a], owner_of_other[b]
    if right is None:
        a, b, i, j = (part[i < j] for part in (a, b, i, j))
    area = np.zeros(len(a))
    for start in range(0, len(a), PAIRS_AT_ONCE):
        chunk = slice(start, start + PAIRS_AT_ONCE)
        common = shapely.intersection(pieces[a[chunk]], others[b[chunk]])
        area[chunk] = shapely.area(common)
    some = area > 0
    size = max(len(left), len(left if right is None else right), 1)
    key, place = np.unique(i[some] * size + j[some], return_inverse=True)
    return key // size, key % size, np.bincount(place, area[some], minlength=len(key))


def _pieces(geometry: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Polygons in pieces of few vertices, and the index of the polygon that each is of."""
    import numpy as np
    import shapely

    parts, owner = shapely.get_parts(geometry, return_index=True)
    real = ~shapely.is_empty(parts)
    parts, owner = parts[real], owner[real]
    done, done_owner = [], []
    for _ in range(DEEPEST):
        large = shapely.get_num_coordinates(parts) > PIECE_VERTICES
        done.append(parts[~large])
        done_owner.append(owner[~large])
        if not large.any():
            break
        parts, owner = _halves(parts[large], owner[large])
    else:
        done.append(parts)
        done_owner.append(owner)
    return np.concatenate(done), np.concatenate(done_owner)


def _halves(parts: np.ndarray, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Polygons cut in two across the longer side of their bounds."""
    import numpy as np
    import shapely

    west, south, east, north = shapely.bounds(parts).T
    wide = east - west >= north - south
    x, y = (west + east) / 2, (south + north) / 2
    low = shapely.box(west, south, np.where(wide, x, east), np.where(wide, north, y))
    high = shapely.box(np.where(wide, x, west), np.where(wide, south, y), east, north)
    both = np.concatenate([_within(parts, low), _within(parts, high)])
    pieces, place = shapely.get_parts(both, return_index=True)
    owners = np.concatenate([owner, owner])[place]
    kept = (shapely.get_dimensions(pieces) == 2) & ~shapely.is_empty(pieces)
    return pieces[kept], owners[kept]


def _within(parts: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Polygons cut to boxes; the quick way where it leaves a valid shape."""
    import numpy as np
    import shapely

    cut = np.array(
        [
            shapely.clip_by_rect(part, *bounds)
            for part, bounds in zip(parts, shapely.bounds(boxes), strict=True)
        ],
        dtype=object,
    )
    broken = ~shapely.is_valid(cut)
    if broken.any():
        cut[broken] = shapely.intersection(parts[broken], boxes[broken])
    return cut
