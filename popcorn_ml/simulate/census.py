"""The simulated census: coarse units with published counts, finer ones, and the files of both.

Units are whole pixels of the country's grid, so every pixel's middle lies in exactly one unit of
each level. Counts are sums of the people in `world.people`: nothing is rounded or withheld. How
census files are read and checked is `popcorn_ml.census`'s business.
"""

from __future__ import annotations

import csv
import io
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from popcorn_ml import raster
from popcorn_ml.files import sync
from popcorn_ml.grid import Grid
from popcorn_ml.simulate.spec import CountrySpec
from popcorn_ml.simulate.terrain import smooth_noise

UNITS_PER_PARENT = 16
FIXED_TIME = "2020-01-01T00:00:00.000Z"
"""Written into GeoPackages instead of the time of writing, so that equal content is equal bytes."""


@dataclass(frozen=True)
class Level:
    """Units of one level.

    Attributes:
        number: unit of each pixel, 1..n, int32 (rows, columns).
        ids: text identifiers with leading zeros, of units 1..n.
        names: of the same.
        parents: identifiers of the units they belong to.
    """

    number: np.ndarray
    ids: tuple[str, ...]
    names: tuple[str, ...]
    parents: tuple[str, ...]


def make_units(spec: CountrySpec, people: np.ndarray) -> dict[str, Level]:
    """Draw the levels "coarse" and "fine" of the country, small in town and large in the country.

    Args:
        spec: the country.
        people: of the base year, (rows, columns) of the country's grid; towns get smaller units.
    """
    rng = np.random.default_rng([spec.seed, 3])
    shape = people.shape
    crowd = ndimage.gaussian_filter(people.astype(np.float64), 12)
    density = np.sqrt(crowd / max(crowd.max(), 1e-9)) + 0.03
    bent = _bent_pixels(rng, shape)
    seeds = _spread_seeds(rng, density, bent, spec.coarse_units)
    coarse = cKDTree(seeds).query(bent)[1].reshape(shape)
    coarse = _renumber(coarse)
    count = int(coarse.max())
    middles = np.array(ndimage.center_of_mass(np.ones(shape), coarse, range(1, count + 1)))
    province = _provinces(rng, middles)
    ids = _ids(province)
    names = _names(rng, count)
    fine, owner = _subdivide(rng, coarse, density, bent, spec.fine_units_each)
    rank = np.zeros(count + 1, int)
    fine_ids, fine_names = [], []
    for unit in owner:
        rank[unit] += 1
        fine_ids.append(f"{ids[unit - 1]}{rank[unit]:02d}")
        fine_names.append(f"{names[unit - 1]} {rank[unit]}")
    return {
        "coarse": Level(coarse, ids, names, tuple(f"{p + 1:02d}" for p in province)),
        "fine": Level(fine, tuple(fine_ids), tuple(fine_names), tuple(ids[u - 1] for u in owner)),
    }


def _bent_pixels(rng, shape):
    """Pixel middles moved by smooth noise, so that the nearest seed draws winding borders."""
    rows, cols = np.mgrid[: shape[0], : shape[1]].astype(np.float64)
    bend = min(shape) / 60
    rows = rows + bend * smooth_noise(rng, shape, 30, octaves=3)
    cols = cols + bend * smooth_noise(rng, shape, 30, octaves=3)
    return np.stack([rows, cols], -1).reshape(-1, 2)


def _spread_seeds(rng, density, bent, count):
    """Seeds drawn by density and moved apart by two rounds of weighted means (Lloyd 1982)."""
    weight = density.ravel() / density.sum()
    seeds = bent[rng.choice(weight.size, count, replace=False, p=weight)]
    for _ in range(2):
        nearest = cKDTree(seeds).query(bent)[1]
        total = np.maximum(np.bincount(nearest, weight, count), 1e-12)
        seeds = np.stack(
            [np.bincount(nearest, weight * bent[:, i], count) / total for i in (0, 1)], -1
        )
    return seeds


def _renumber(labels):
    """Labels 1..n in reading order, none missing."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    order = np.empty(first.size, np.int32)
    order[np.argsort(first)] = np.arange(1, first.size + 1)
    return order[inverse].reshape(labels.shape)


def _provinces(rng, middles):
    count = max(1, round(len(middles) / UNITS_PER_PARENT))
    seeds = middles[rng.choice(len(middles), count, replace=False)]
    nearest = cKDTree(seeds).query(middles)[1]
    return np.unique(nearest, return_inverse=True)[1]


def _ids(province):
    seen: dict[int, int] = {}
    ids = []
    for p in province:
        seen[int(p)] = seen.get(int(p), 0) + 1
        ids.append(f"{p + 1:02d}{seen[int(p)]:02d}")
    return tuple(ids)


def _names(rng, count):
    starts = ("Nya", "Ké", "Mu", "Ña", "Ru", "Gi", "Bu", "Ísa", "Ka", "Tô", "Lu", "Shé")
    middles = ("ra", "mbé", "ngo", "ti", "gú", "vi", "lã", "sho", "ço", "ndu", "be", "rü")
    ends = ("ra", "ge", "ba", "yé", "mo", "zi", "ná", "tö", "la", "nga", "ré", "sú")
    names: dict[str, None] = {}
    while len(names) < count:
        name = "".join(part[rng.integers(len(part))] for part in (starts, middles, ends))
        names[name] = None
    return tuple(names)


def _subdivide(rng, coarse, density, bent, each):
    """Numbers of the finer units and, of each, the coarse unit it lies in."""
    flat = coarse.ravel()
    fine = np.zeros(flat.size, np.int32)
    owner: list[int] = []
    for unit in range(1, int(flat.max()) + 1):
        inside = np.flatnonzero(flat == unit)
        wanted = min(int(rng.integers(max(each - 2, 1), each + 3)), inside.size)
        weight = density.ravel()[inside]
        seeds = bent[rng.choice(inside, wanted, replace=False, p=weight / weight.sum())]
        part = np.unique(cKDTree(seeds).query(bent[inside])[1], return_inverse=True)[1]
        fine[inside] = len(owner) + 1 + part
        owner += [unit] * (int(part.max()) + 1)
    return fine.reshape(coarse.shape), owner


def write_units(path: Path, level: Level, grid: Grid) -> None:
    """Write a level's outlines as a GeoPackage in the grid's CRS: id, name, parent, geometry.

    Outlines run along pixel edges, so which unit holds a pixel's middle is never in doubt.
    """
    import geopandas
    import pyogrio
    from rasterio.features import shapes
    from rasterio.transform import Affine
    from shapely.geometry import MultiPolygon, shape

    parts: dict[int, list] = {}
    for geometry, number in shapes(
        level.number.astype(np.int32), transform=Affine(*grid.transform)
    ):
        parts.setdefault(int(number), []).append(shape(geometry))
    frame = geopandas.GeoDataFrame(
        {"id": level.ids, "name": level.names, "parent": level.parents},
        geometry=[MultiPolygon(parts[n + 1]) for n in range(len(level.ids))],
        crs=grid.crs,
    )
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": FIXED_TIME})
    try:
        with _replacing(path) as draft:
            frame.to_file(draft, driver="GPKG", layer="units", engine="pyogrio")
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})


def sums(level: Level, people: np.ndarray) -> np.ndarray:
    """People of units 1..n, by who lives in each pixel (rows, columns)."""
    return np.bincount(level.number.ravel(), people.ravel(), len(level.ids) + 1)[1:]


def write_counts(path: Path, level: Level, people: np.ndarray) -> None:
    """Write the counts of a level's units 1..n as CSV in UTF-8: id, name, parent, people."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(["id", "name", "parent", "people"])
    rows = zip(level.ids, level.names, level.parents, people, strict=True)
    out.writerows((i, n, p, round(c)) for i, n, p, c in rows)
    with _replacing(path) as draft:
        Path(draft).write_text(text.getvalue(), encoding="utf-8")


def write_truth(path: Path, people: np.ndarray, grid: Grid, year: int) -> None:
    """Write who lives in each 10 m pixel, kept aside for evaluation: float32 people per pixel."""
    raster.write(
        path,
        people.astype(np.float32),
        grid,
        ["people"],
        float("nan"),
        tags={"unit": "people per pixel", "year": year, "origin": "simulated"},
    )


class _replacing:
    """A draft beside `path` that takes its name once it is complete and on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Path:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix=f".{self.path.stem}.", dir=self.path.parent))
        self.draft = self.folder / self.path.name
        return self.draft

    def __exit__(self, kind, error, trace) -> None:
        import shutil

        try:
            if kind is None:
                sync(self.draft)
                os.replace(self.draft, self.path)
                sync(self.path.parent)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
