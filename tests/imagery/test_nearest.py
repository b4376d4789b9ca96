"""Nearest-neighbour sampling: pixel by pixel, against GDAL, and independent of tiles."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from pyproj import Transformer
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.warp import reproject

from popcorn_ml import raster
from popcorn_ml.grid import EARTH_ENGINE_10M_DEG, Grid
from popcorn_ml.imagery.build import build_season
from popcorn_ml.imagery.nearest import TileCoordinates, bounds_meet, lonlat_bounds, parts_of_box
from popcorn_ml.imagery.settings import ImagerySettings

SOURCE = Affine(10, 0, 499980, 0, -10, 9800040)
SHAPE = (300, 280)


def numbers() -> np.ndarray:
    return np.arange(1, SHAPE[0] * SHAPE[1] + 1, dtype=np.int32).reshape(SHAPE)


def take(tile: Grid, crs: str, transform: Affine, values: np.ndarray) -> np.ndarray | None:
    sampling = TileCoordinates(tile).sampling(crs, tuple(transform)[:6], *values.shape)
    return None if sampling is None else sampling.take(values[sampling.window.slices], 0)


def tile_over_source(crs: str) -> Grid:
    """A tile in a CRS that overlaps most of the source."""
    west, _, _, north = lonlat_bounds(Grid("EPSG:32736", 499980, 9800040, 10, 280, 300))
    if crs == "EPSG:4326":
        return Grid(crs, west, north, EARTH_ENGINE_10M_DEG, 330, 310)
    x, y = Transformer.from_crs(4326, crs, always_xy=True).transform(west, north)
    return Grid(crs, x + 3.7, y - 1.3, 10, 330, 310)


CRSS = ["EPSG:4326", "EPSG:32736", "EPSG:32735", "EPSG:3857"]


@pytest.mark.parametrize("crs", CRSS)
def test_is_the_pixel_under_the_centre(crs: str) -> None:
    tile = tile_over_source(crs)
    ours = take(tile, "EPSG:32736", SOURCE, numbers())
    change = Transformer.from_crs(crs, 32736, always_xy=True)
    rng = np.random.default_rng(0)
    for row, col in rng.integers(0, (tile.height, tile.width), (400, 2)):
        x, y = change.transform(
            tile.west + (col + 0.5) * tile.step, tile.north - (row + 0.5) * tile.step
        )
        there_col, there_row = (x - SOURCE.c) / SOURCE.a, (y - SOURCE.f) / SOURCE.e
        inside = 0 <= there_row < SHAPE[0] and 0 <= there_col < SHAPE[1]
        expected = numbers()[int(there_row), int(there_col)] if inside else 0
        assert ours[row, col] == expected


@pytest.mark.parametrize("crs", CRSS)
def test_is_what_gdal_means(crs: str) -> None:
    """GDAL's warper differs only where its interpolated coordinates fall on the other side."""
    tile = tile_over_source(crs)
    ours = take(tile, "EPSG:32736", SOURCE, numbers())
    other = np.zeros(tile.shape, np.int32)
    reproject(
        numbers(),
        other,
        src_transform=SOURCE,
        src_crs=CRS.from_epsg(32736),
        dst_transform=Affine(*tile.transform),
        dst_crs=CRS.from_user_input(crs),
        resampling=Resampling.nearest,
    )
    assert (ours > 0).mean() > 0.7
    assert (ours != other).mean() < 5e-3


def test_tiles_do_not_matter() -> None:
    """GDAL's approximation gives other neighbours for other chunks; this does not."""
    west, _, _, north = lonlat_bounds(Grid("EPSG:32736", 499980, 9800040, 10, 280, 300))
    grid = Grid("EPSG:4326", west, north, EARTH_ENGINE_10M_DEG, 320, 310)
    whole = take(grid, "EPSG:32736", SOURCE, numbers())
    for size in (64, 100, 311):
        pieces = np.zeros(grid.shape, np.int32)
        for tile in grid.tiles(size):
            part = take(grid.subgrid(tile.core), "EPSG:32736", SOURCE, numbers())
            pieces[tile.core.slices] = 0 if part is None else part
        np.testing.assert_array_equal(pieces, whole)


def test_coarser_classes_lie_under_their_pixels() -> None:
    """20 m scene classes under 10 m pixels, also where the tile begins inside a class pixel."""
    classes = np.arange(1, 151 * 141, dtype=np.int32)[: 150 * 140].reshape(150, 140)
    coarse = Affine(20, 0, 499980, 0, -20, 9800040)
    tile = Grid("EPSG:32736", 499980 + 30, 9800040 - 10, 10, 5, 4)
    expected = [[classes[(row + 1) // 2, (col + 3) // 2] for col in range(5)] for row in range(4)]
    assert take(tile, "EPSG:32736", coarse, classes).tolist() == expected


def test_outside_is_filled_and_apart_is_none() -> None:
    tile = Grid("EPSG:32736", 499980 - 20, 9800040 + 10, 10, 4, 3)
    values = take(tile, "EPSG:32736", SOURCE, numbers())
    assert values.tolist() == [[0, 0, 0, 0], [0, 0, 1, 2], [0, 0, 281, 282]]
    far = Grid("EPSG:32736", 700000, 9800040, 10, 4, 3)
    assert take(far, "EPSG:32736", SOURCE, numbers()) is None


FIJI = (177.9, -18.1, -179.2, -16.5)
"""A scene over Taveuni, across the antimeridian: west is greater than east (RFC 7946)."""


@pytest.mark.parametrize(
    ("box", "meets"),
    [
        ((178.5, -17, 179, -16.8), True),  # west of the line
        ((-179.9, -17, -179.5, -16.8), True),  # east of it
        ((179.5, -17, -179.5, -16.8), True),  # across it
        ((179.9, -17, 180.4, -16.8), True),  # the same in a grid that counts on
        ((180.2, -17, 180.4, -16.8), True),
        ((-180, -17, 180, -16.8), True),
        ((-179.1, -17, -178, -16.8), False),
        ((180.9, -17, 181.4, -16.8), False),
        ((177, -17, 177.8, -16.8), False),
        ((0, -17, 10, -16.8), False),
        ((179.5, -16, -179.5, -15), False),
    ],
)
def test_boxes_across_the_antimeridian(box: tuple, meets: bool) -> None:
    assert bounds_meet(FIJI, box) is meets
    assert bounds_meet(box, FIJI) is meets


@pytest.mark.parametrize(
    ("grid", "across"),
    [
        (Grid("EPSG:32760", 780000, 8150000, 10, 1024, 1024), False),
        (Grid("EPSG:32760", 800000, 8150000, 10, 4000, 1024), True),
        (Grid("EPSG:32760", 830000, 8150000, 10, 1024, 1024), False),
        (Grid("EPSG:32701", 160000, 8150000, 10, 4000, 1024), True),
        (Grid("EPSG:4326", 179.9, -16.7, 0.0001, 2000, 2000), True),
        (Grid("EPSG:4326", 180.1, -16.7, 0.0001, 2000, 2000), False),
    ],
    ids=["west", "across from the west", "east", "across from the east", "degrees", "beyond 180"],
)
def test_tiles_near_the_antimeridian_meet_their_scenes(grid: Grid, across: bool) -> None:
    box = lonlat_bounds(grid)
    assert all(-180 <= lon <= 180 for lon in box[::2])
    assert (box[0] > box[2]) is across
    assert bounds_meet(FIJI, box)
    assert not bounds_meet((100, -18, 120, -16), box)
    assert not bounds_meet((-178.9, -18, -170, -16), box)
    parts = parts_of_box(box)
    assert len(parts) == 1 + across
    assert all(
        west < east and bounds_meet(box, part) for part in parts for west, _, east, _ in parts
    )


def test_boxes() -> None:
    assert bounds_meet((0, 0, 1, 1), (1, 1, 2, 2))
    assert not bounds_meet((0, 0, 1, 1), (1.1, 0, 2, 1))
    west, south, east, north = lonlat_bounds(Grid("EPSG:32736", 499980, 9800040, 10, 280, 300))
    assert 32.99 < west < 33 < east < 33.03
    assert south < north < -1.8


def test_a_season_across_the_antimeridian(tmp_path: Path) -> None:
    """Three granules of one overpass, in two zones, around 180: nothing missing, counted once."""
    grid = Grid("EPSG:32760", 818000, 8150000, 10, 400, 100)  # 180 degrees east at column 206
    items = []
    for name, crs, west, bbox in (
        ("a", 32760, 817000, [179.97, -16.75, 179.999, -16.7]),
        ("b", 32760, 819000, [179.99, -16.75, -179.98, -16.7]),
        ("c", 32701, 179900, [-180, -16.75, -179.97, -16.7]),
    ):
        for band in ("vv", "vh"):
            with rasterio.open(
                tmp_path / f"{name}_{band}.tif",
                "w",
                driver="GTiff",
                width=260,
                height=300,
                count=1,
                dtype="float32",
                crs=CRS.from_epsg(crs),
                transform=Affine(10, 0, west, 0, -10, 8151000),
            ) as out:
                out.write(np.full((1, 300, 260), 0.1, np.float32))
        items.append(
            {
                "id": name,
                "collection": "sentinel-1-rtc",
                "bbox": bbox,
                "properties": {
                    "datetime": f"2020-04-01T17:59:3{len(items)}Z",
                    "sat:orbit_state": "descending",
                },
                "assets": {band: {"href": f"{name}_{band}.tif"} for band in ("vv", "vh")},
            }
        )
    (tmp_path / "items.json").write_text(json.dumps({"features": items}))
    settings = ImagerySettings.parse(
        {
            "source": "stac",
            "stac": {"profile": "local", "items": str(tmp_path / "items.json")},
            "tile_px": 64,
        }
    )
    report = build_season("s1", "spring", 2020, grid, settings, tmp_path / "o", tmp_path / "s")
    assert [scene["id"] for scene in report.scenes] == ["a", "b", "c"]
    clear = raster.read(tmp_path / "o" / "clear_count.tif", bands=1)
    assert (clear == 1).all(), "granules of one overpass are one observation"
    assert (raster.read(tmp_path / "o" / "composite.tif") == -1000).all()
