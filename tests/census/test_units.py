"""Units on the grid: one number a pixel by its centre, small units by a stated rule."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from popcorn_ml import raster
from popcorn_ml.census import units
from popcorn_ml.census.units import PolygonBurner, to_grid, write_units
from popcorn_ml.errors import CensusError
from popcorn_ml.grid import Grid, Window

GRID = Grid("EPSG:32736", 500000.0, 9800000.0, 10.0, 60, 50)


def voronoi(seed: int, count: int, grid: Grid = GRID) -> gpd.GeoDataFrame:
    """Polygons that share their borders and cover the grid."""
    rng = np.random.default_rng(seed)
    west, south, east, north = grid.bounds
    points = shapely.MultiPoint(
        np.column_stack([rng.uniform(west, east, count), rng.uniform(south, north, count)])
    )
    cells = shapely.get_parts(shapely.voronoi_polygons(points, extend_to=shapely.box(*grid.bounds)))
    cut = shapely.intersection(cells, shapely.box(*grid.bounds))
    return gpd.GeoDataFrame(geometry=[g for g in cut if g.area > 0], crs=grid.crs)


def centres(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    cols, rows = np.meshgrid(np.arange(grid.width), np.arange(grid.height))
    return grid.west + (cols + 0.5) * grid.step, grid.north - (rows + 0.5) * grid.step


def place(tmp_path: Path, frame: gpd.GeoDataFrame, rule="best_pixel", grid: Grid = GRID):
    path = tmp_path / "units.tif"
    burner, polygons = PolygonBurner(frame, grid), to_grid(frame, grid)
    placed = write_units(path, burner, polygons, len(frame), grid, rule, {"level": "t"})
    return raster.read(path, bands=1), placed


def squares(*corners: tuple[float, float, float, float]) -> gpd.GeoDataFrame:
    """Polygons in pixels from the grid's corner: left, top, right, bottom."""
    boxes = [
        shapely.box(
            GRID.west + left * 10, GRID.north - bottom * 10, GRID.west + right * 10,
            GRID.north - top * 10,
        )
        for left, top, right, bottom in corners
    ]  # fmt: skip
    return gpd.GeoDataFrame(geometry=boxes, crs=GRID.crs)


@budget(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(2, 60))
def test_every_pixel_belongs_to_the_unit_at_its_centre(seed: int, count: int) -> None:
    frame = voronoi(seed, count)
    burnt = PolygonBurner(frame, GRID).burn(GRID.whole())
    x, y = centres(GRID)
    near = np.zeros(GRID.shape, int)
    for number, polygon in enumerate(frame.geometry, start=1):
        inside = shapely.contains_xy(shapely.buffer(polygon, -1e-6), x, y)
        assert (burnt[inside] == number).all()
        near += shapely.contains_xy(shapely.buffer(polygon, 1e-6), x, y)
    # Pixels whose centre lies on a border belong to exactly one neighbour; none is left out.
    assert (burnt[near > 0] > 0).all()


@budget(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(7, 40))
def test_windows_do_not_change_the_numbers(seed: int, size: int) -> None:
    burner = PolygonBurner(voronoi(seed, 25), GRID)
    whole = burner.burn(GRID.whole())
    for tile in GRID.tiles(size):
        assert np.array_equal(burner.burn(tile.core), whole[tile.core.slices])


def test_polygons_of_many_vertices_are_cut_without_a_trace(monkeypatch) -> None:
    circle = shapely.Point(GRID.west + 300, GRID.north - 250).buffer(200, quad_segs=4000)
    frame = gpd.GeoDataFrame(geometry=[circle], crs=GRID.crs)
    window = Window(10, 15, 9, 20)
    cut = PolygonBurner(frame, GRID).burn(window)
    monkeypatch.setattr(units, "CLIP_FROM_VERTICES", 10**9)
    assert np.array_equal(cut, PolygonBurner(frame, GRID).burn(window))
    assert cut.any()


def test_where_units_overlap_the_smaller_has_the_pixel() -> None:
    frame = squares((0, 0, 30, 30), (10, 10, 14, 14), (40, 40, 50, 50))
    burnt = PolygonBurner(frame, GRID).burn(GRID.whole())
    assert (burnt[10:14, 10:14] == 2).all()
    assert np.bincount(burnt.ravel()).tolist() == [3000 - 900 - 100, 900 - 16, 16, 100]
    turned = PolygonBurner(frame.iloc[::-1].reset_index(drop=True), GRID).burn(GRID.whole())
    assert (turned[10:14, 10:14] == 2).all()


def test_borders_in_degrees_leave_no_gap_on_a_metric_grid(tmp_path: Path) -> None:
    """Neighbours that do not share all vertices still share their border after the change."""
    grid = Grid("EPSG:32736", 400000.0, 9800000.0, 1000.0, 200, 100)
    west, south, east, north = gpd.GeoSeries(
        [shapely.box(*grid.bounds).buffer(50_000)], crs=grid.crs
    ).to_crs("EPSG:4326").total_bounds  # fmt: skip
    middle, half = (south + north) / 2, (west + east) / 2
    frame = gpd.GeoDataFrame(
        geometry=[
            shapely.box(west, middle, east, north),
            shapely.box(west, south, half, middle),
            shapely.box(half, south, east, middle),
        ],
        crs="EPSG:4326",
    )
    burnt, placed = place(tmp_path, frame, grid=grid)
    assert (burnt > 0).all()
    assert placed.pixels.sum() == burnt.size


def test_fault_7_a_unit_without_pixel_centre_gets_the_pixel_it_covers_most(tmp_path: Path) -> None:
    # 2.9 to 3.4: a tenth of pixel 2, four tenths of pixel 3, no centre.
    frame = squares((0, 0, 20, 20), (2.9, 5.1, 3.4, 5.4))
    burnt, placed = place(tmp_path, frame)
    assert placed.status == ["centre", "best_pixel"]
    assert burnt[5, 3] == 2
    assert placed.pixels.tolist() == [399, 1]
    assert np.bincount(burnt.ravel(), minlength=3)[1:].tolist() == placed.pixels.tolist()
    assert placed.area_ha.tolist() == [3.99, 0.01]


def test_fault_7_small_units_are_merged_when_the_settings_say_so(tmp_path: Path) -> None:
    frame = squares((0, 0, 20, 20), (2.9, 5.1, 3.4, 5.4))
    burnt, placed = place(tmp_path, frame, "merge")
    assert placed.status == ["centre", "merged"]
    assert placed.merged_into.tolist() == [0, 1]
    assert (burnt == 2).sum() == 0
    assert placed.pixels.tolist() == [400, 0]


def test_no_unit_loses_its_only_pixel_and_no_pixel_is_given_twice(tmp_path: Path) -> None:
    frame = squares(
        (10, 10, 11, 11),  # one pixel of its own
        (10.1, 10.1, 10.2, 10.2),  # inside it: cannot have that pixel, is counted with it
        (20.1, 20.1, 20.2, 20.2),  # on free ground: takes the pixel
        (20.3, 20.1, 20.4, 20.2),  # in the same pixel: comes too late
        (30, 30, 31, 31),
    )
    burnt, placed = place(tmp_path, frame)
    assert placed.status == ["centre", "merged", "best_pixel", "merged", "centre"]
    assert placed.merged_into.tolist() == [0, 1, 0, 3, 0]
    assert burnt[20, 20] == 3
    assert placed.pixels.tolist() == [1, 0, 1, 0, 1]


def test_a_sliver_along_a_border_finds_a_pixel_in_no_time(tmp_path: Path) -> None:
    frame = squares((0, 0, 60, 20), (0, 20, 60, 50), (0.6, 19.9, 59.4, 20.1))
    # It holds no centre: those of the rows beside it lie half a pixel away.
    burnt, placed = place(tmp_path, frame)
    assert placed.status[2] == "best_pixel"
    assert (burnt == 3).sum() == 1


def test_a_unit_off_the_grid_has_no_pixel_and_none_at_all_is_an_error(tmp_path: Path) -> None:
    frame = squares((0, 0, 5, 5), (-20, 0, -10, 10))
    _, placed = place(tmp_path, frame)
    assert placed.status == ["centre", "outside"]
    with pytest.raises(CensusError, match="no census unit has a pixel"):
        place(tmp_path / "b", squares((-20, 0, -10, 10)))
    assert not (tmp_path / "b" / "units.tif").exists()


def test_the_raster_says_what_it_holds(tmp_path: Path) -> None:
    grid = Grid("EPSG:4326", 29.0, -1.0, 9e-5, 1100, 700)
    frame = gpd.GeoDataFrame(
        geometry=[shapely.box(29.0, -1.05, 29.05, -1.0), shapely.box(29.05, -1.05, 29.1, -1.0)],
        crs="EPSG:4326",
    )
    burnt, placed = place(tmp_path, frame, grid=grid)
    with rasterio.open(tmp_path / "units.tif") as dataset:
        assert dataset.dtypes == ("uint32",)
        assert dataset.nodata == 0
        assert dataset.overviews(1)
        assert dataset.tags()["level"] == "t"
        over = dataset.read(1, out_shape=(350, 550))
        assert set(np.unique(over)) <= {0, 1, 2}  # numbers are not averaged
    area = grid.row_area_m2()[:, None] * (burnt[..., None] == np.array([1, 2])).sum(1)
    assert placed.area_ha == pytest.approx(area.sum(0) / 1e4)
    assert not list(tmp_path.glob(".*"))


def test_progress_reaches_its_end(tmp_path: Path) -> None:
    seen = []
    frame = squares((0, 0, 20, 20))
    grid = Grid(GRID.crs, GRID.west, GRID.north, 10.0, 60, 1300)
    write_units(
        tmp_path / "u.tif", PolygonBurner(frame, grid), None, 1, grid, "merge", {},
        lambda done, of: seen.append((done, of)),
    )  # fmt: skip
    assert seen == [(1, 3), (2, 3), (3, 3)]


@budget(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6), step=st.sampled_from([9e-5, 1 / 12000, 0.0008333333333333334]),
    rule=st.sampled_from(["best_pixel", "merge"]),
)  # fmt: skip
def test_borders_through_pixel_centres_the_raster_holds_what_the_units_say(
    tmp_path_factory, seed: int, step: float, rule: str
) -> None:
    """On a grid in degrees, rounding decides which neighbour has a pixel whose centre is on both.

    A window of its own may decide otherwise than a strip: what is given away is what is there.
    """
    rng = np.random.default_rng(seed)
    grid = Grid("EPSG:4326", rng.uniform(-170, 170), rng.uniform(-60, 60), step, 12, 1100)
    rows = np.sort(rng.choice(np.arange(500, 530), 5, replace=False)) + 0.5
    cols = np.sort(rng.choice(12, 4, replace=False)) + 0.5
    boxes = [
        shapely.box(
            grid.west + left * step, grid.north - bottom * step,
            grid.west + right * step, grid.north - top * step,
        )
        for top, bottom in pairwise(rows)
        for left, right in pairwise(cols)
    ]  # fmt: skip
    corners = rng.uniform((cols[0], rows[0]), (cols[-1], rows[-1]), (8, 2))
    for x, y in corners.round() + 0.5:  # tiny ones, in the corner of four pixels
        west, north = grid.west + (x - 0.2) * step, grid.north - (y - 0.2) * step
        boxes.append(shapely.box(west, north - 0.2 * step, west + 0.2 * step, north))
    frame = gpd.GeoDataFrame(geometry=boxes, crs="EPSG:4326")
    burnt, placed = place(tmp_path_factory.mktemp("u"), frame, rule, grid)
    counted = np.bincount(burnt.ravel(), minlength=len(frame) + 1)[1:]
    assert counted.tolist() == placed.pixels.tolist()
    for status, host, pixels in zip(placed.status, placed.merged_into, placed.pixels, strict=True):
        assert (pixels > 0) == (status in ("centre", "best_pixel"))
        assert status != "merged" or counted[host - 1] > 0
