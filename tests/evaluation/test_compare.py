"""Rasters of people by others, brought to a country's pixels: nobody lost, and the right total."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio.transform import Affine, from_origin

from popcorn_ml import raster
from popcorn_ml.errors import RasterError
from popcorn_ml.evaluation import compare
from popcorn_ml.evaluation.compare import bring, in_counted_units, require_people
from popcorn_ml.grid import EARTH_ENGINE_10M_DEG, Grid

GRID = Grid("EPSG:32736", 312_300.0, 9_755_700.0, 10.0, 230, 170)
WORLDPOP = (-180.001249265, 83.99958319871, 1 / 120)  # tie point of the 30 arc-second mosaics
MOLLWEIDE = "ESRI:54009"


def units_of(folder, grid=GRID, margin=20):
    """Two units side by side, with a strip around them that is in none."""
    units = np.zeros(grid.shape, np.uint32)
    units[margin:-margin, margin : grid.width // 2] = 1
    units[margin:-margin, grid.width // 2 : -margin] = 2
    path = folder / "units.tif"
    raster.write(path, units, grid, ["unit"], 0, resampling="nearest")
    return path, units


def cells_over(crs, west, north, step, grid=GRID, more=1):
    """Transform and shape of the cells of a global lattice that cover a grid, and some more."""
    x, y = np.meshgrid(
        np.linspace(grid.bounds[0], grid.bounds[2], 50),
        np.linspace(grid.bounds[1], grid.bounds[3], 50),
    )
    x, y = Transformer.from_crs(grid.crs, crs, always_xy=True).transform(x, y)
    col, row = np.floor((x - west) / step), np.floor((north - y) / step)
    first = col.min() - more, row.min() - more
    shape = int(row.max() - first[1]) + 1 + more, int(col.max() - first[0]) + 1 + more
    return from_origin(west + first[0] * step, north - first[1] * step, step, step), shape


def write(path, values, transform, crs, nodata=None, **more):
    with rasterio.open(
        path, "w", driver="GTiff", height=values.shape[-2], width=values.shape[-1],
        count=1 if values.ndim == 2 else len(values), dtype=values.dtype, crs=crs,
        transform=transform, nodata=nodata, **more,
    ) as out:  # fmt: skip
        out.write(values, *([1] if values.ndim == 2 else []))
    return path


def quads(transform, shape, crs, grid=GRID):
    """Polygons of cells in pixels of the grid."""
    c, r = np.meshgrid(np.arange(shape[1] + 1), np.arange(shape[0] + 1))
    x, y = Transformer.from_crs(crs, grid.crs, always_xy=True).transform(*(transform * (c, r)))
    x, y = (x - grid.west) / grid.step, (grid.north - y) / grid.step
    ring = [(0, 0), (0, 1), (1, 1), (1, 0)]
    corners = [
        np.stack([k[i : k.shape[0] - 1 + i, j : k.shape[1] - 1 + j] for i, j in ring], -1)
        for k in (x, y)
    ]
    return shapely.polygons(np.stack(corners, axis=-1))


def expected_in(polygons, values, box):
    """People of cells in a box of the grid's pixels, by area."""
    share = shapely.area(shapely.intersection(polygons, box)) / shapely.area(polygons)
    return float((share * np.nan_to_num(values)).sum())


LATTICES = {
    "30 arc-seconds": ("EPSG:4326", *WORLDPOP),
    "3 arc-seconds": ("EPSG:4326", -180.001249265, 84.0020831987, 1 / 1200),
    "finer than a pixel": ("EPSG:4326", -180.001249265, 84.0020831987, 1 / 15000),
    "Mollweide 1 km": (MOLLWEIDE, -18_041_000.0, 9_000_000.0, 1000.0),
    "Mollweide 100 m": (MOLLWEIDE, -18_041_000.0, 9_000_000.0, 100.0),
    "its own hectares": ("EPSG:32736", 312_300.0, 9_755_700.0, 100.0),
    "its own pixels, moved by a third": ("EPSG:32736", 312_303.3, 9_755_702.1, 10.0),
}


@pytest.mark.parametrize("lattice", LATTICES)
def test_people_of_every_box_are_those_of_the_overlap(tmp_path, lattice, monkeypatch):
    monkeypatch.setattr(compare, "BLOCK_PX", 64)  # blocks that cut cells
    crs, west, north, step = LATTICES[lattice]
    transform, shape = cells_over(crs, west, north, step)
    values = np.random.default_rng(3).gamma(0.5, 40.0, shape)
    values[0, 1] = -200.0
    source = write(tmp_path / "product.tif", values, transform, crs, nodata=-200.0)
    units, numbers = units_of(tmp_path)
    brought = bring("other", source, GRID, units, tmp_path / "out.tif")
    people = raster.read_float(brought.path, bands=1, dtype="float64")
    values[0, 1] = np.nan
    polygons = quads(transform, shape, crs)
    whole = shapely.box(0, 0, GRID.width, GRID.height)
    touching = shapely.area(shapely.intersection(polygons, whole)) > 1e-9
    assert brought.people == pytest.approx(np.nansum(values[touching]), rel=1e-6)
    assert brought.on_grid + brought.outside == pytest.approx(brought.people, rel=1e-12)
    assert np.nansum(people) == pytest.approx(brought.on_grid, rel=1e-6)
    assert brought.on_grid == pytest.approx(expected_in(polygons, values, whole), rel=2e-4)
    assert brought.in_units == pytest.approx(np.nansum(people[numbers > 0]), rel=1e-6)
    for col, row, side in ((0, 0, 100), (60, 40, 10), (113, 77, 31), (130, 70, 100)):
        box = shapely.box(col, row, col + side, row + side)
        found = np.nansum(people[row : row + side, col : col + side])
        # a part of a cell that is turned against the grid moves by less than a pixel
        tolerance = 1e-6 if crs == GRID.crs else 0.02 if side > 10 else 0.1
        assert found == pytest.approx(expected_in(polygons, values, box), rel=tolerance)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    step=st.floats(3.0, 900.0),
    turn=st.floats(-180, 180),
    east=st.floats(-1500, 1500),
    south=st.floats(-1200, 1200),
    block=st.integers(70, 300),
    seed=st.integers(0, 99),
)
def test_nobody_is_lost_however_the_cells_lie(tmp_path, step, turn, east, south, block, seed):
    """Conserved for any side, turn and place, cut by any blocks; the error itself is what is held:
    `bring` refuses more than 1e-6."""
    rng = np.random.default_rng(seed)
    values = rng.gamma(0.3, 30.0, (rng.integers(1, 12), rng.integers(1, 12))).astype(np.float32)
    middle = (GRID.bounds[0] + GRID.bounds[2]) / 2, (GRID.bounds[1] + GRID.bounds[3]) / 2
    transform = (
        Affine.translation(middle[0] + east, middle[1] + south)
        * Affine.rotation(turn)
        * Affine.scale(step, -step)
        * Affine.translation(-values.shape[1] / 2, -values.shape[0] / 2)
    )
    source = write(tmp_path / "product.tif", values, transform, GRID.crs)
    units, _ = units_of(tmp_path)
    before, compare.BLOCK_PX = compare.BLOCK_PX, block
    try:
        brought = bring("other", source, GRID, units, tmp_path / "out.tif")
    finally:
        compare.BLOCK_PX = before
    people = raster.read_float(brought.path, bands=1, dtype="float64")
    assert np.nansum(people) == pytest.approx(brought.on_grid, rel=1e-6, abs=1e-6)
    polygons = quads(transform, values.shape, GRID.crs)
    whole = shapely.box(0, 0, GRID.width, GRID.height)
    contained = shapely.contains_properly(whole, polygons)
    assert brought.on_grid >= values[contained].sum(dtype=float) * (1 - 1e-6)
    if contained.all():
        assert np.nansum(people) == pytest.approx(values.sum(dtype=float), rel=1e-6)
        assert brought.outside == pytest.approx(0, abs=1e-6 * float(values.sum()))


def test_a_grid_in_degrees_and_a_product_of_the_other_hemisphere_of_rows(tmp_path):
    grid = Grid("EPSG:4326", 30.0, -2.0, EARTH_ENGINE_10M_DEG, 120, 110)
    units, _ = units_of(tmp_path, grid)
    transform, shape = cells_over("EPSG:32736", 166_000.0, 9_779_000.0, 100.0, grid)
    values = np.random.default_rng(5).gamma(0.5, 9.0, shape).astype(np.float32)
    source = write(tmp_path / "north.tif", values, transform, "EPSG:32736")
    upside_down = transform * Affine.translation(0, shape[0]) * Affine.scale(1, -1)
    other = write(tmp_path / "south.tif", values[::-1].copy(), upside_down, "EPSG:32736")
    one, two = (
        bring("other", path, grid, units, tmp_path / f"{path.stem}_out.tif")
        for path in (source, other)
    )
    assert one.in_units > 0
    assert np.array_equal(raster.read(one.path), raster.read(two.path), equal_nan=True)


def test_edges_nodata_and_a_missing_part_are_told(tmp_path):
    units, numbers = units_of(tmp_path)
    transform = from_origin(GRID.west, GRID.north, 500.0, 500.0)
    values = np.full((4, 3), 100.0)  # columns 0 to 1499 m: a third of the country has no cell
    values[1, 1] = -9.0  # not declared
    brought = bring(
        "other", write(tmp_path / "p.tif", values, transform, GRID.crs), GRID, units,
        tmp_path / "out.tif",
    )  # fmt: skip
    people = raster.read_float(brought.path, bands=1)
    assert np.isnan(people[:, 150:]).all()
    assert (people[50:100, 50:100] == 0).all()
    assert "-9 stands for no value" in brought.said[0]
    assert brought.empty == 1
    assert brought.outside == pytest.approx(3 * 100 * 30 / 50)
    inside = numbers > 0
    assert brought.uncovered == pytest.approx((inside[:, 150:]).sum() / inside.sum())
    assert brought.at_edge == pytest.approx(5 * 100)
    assert brought.at_edge_inside == pytest.approx(100 * (0.36 + 4 * 0.6))
    assert brought.cell_m == pytest.approx(500)


def judged(tmp_path, values, transform, census, name="product.tif", **more):
    units, _ = units_of(tmp_path)
    source = write(tmp_path / name, values, transform, more.pop("crs", GRID.crs))
    if more:
        with rasterio.open(source, "r+") as dataset:
            dataset.set_band_unit(1, more["unit"])
    brought = bring("worldpop", source, GRID, units, tmp_path / "out.tif")
    mapped, counted, by_unit = in_counted_units(brought, units, GRID, census)
    assert mapped == pytest.approx(np.nansum(by_unit[1:][~np.isnan(census)]))
    require_people(brought, source, mapped, counted)


PEOPLE = np.full((24, 17), 40.0)
HECTARES = from_origin(GRID.west, GRID.north, 100.0, 100.0)
UNIT_HA = 13 * 9.5 * 40  # people of one of the two units


def test_people_within_a_factor_of_two_are_taken(tmp_path):
    judged(tmp_path, np.full((17, 24), 40.0), HECTARES, [UNIT_HA * 0.6, UNIT_HA * 1.9])


@pytest.mark.parametrize(
    ("per", "factor", "asked"), [("km2", 100.0, "km2"), ("m2", 1e-4, "m2"), ("km2", 100.0, "half")]
)
def test_a_density_is_refused_with_both_totals(tmp_path, per, factor, asked):
    census = [UNIT_HA, np.nan if asked == "half" else UNIT_HA]
    with pytest.raises(RasterError, match=f"worldpop is a density, people per {per}") as caught:
        judged(tmp_path, np.full((17, 24), 40.0 * factor), HECTARES, census)
    said = f"{caught.value.expected} {caught.value.found}"
    assert f"{sum(c for c in census if c == c):,.0f} people in the census units" in said
    assert f"taken as people per {per}" in said


def test_a_density_of_cells_near_a_square_kilometre_is_told_by_what_the_file_says(tmp_path):
    """WorldPop's people per km2 at 30 arc-seconds add up to 16 % more than the people."""
    transform, shape = cells_over("EPSG:4326", *WORLDPOP)
    values = np.full(shape, 4000.0)
    census = [UNIT_HA, UNIT_HA]
    judged(tmp_path, values, transform, census, "people.tif", crs="EPSG:4326")
    for name, more in (("rwa_pd_2020_1km.tif", {}), ("p.tif", {"unit": "people per km2"})):
        with pytest.raises(RasterError, match=r"is a density, people per km2, .* says so"):
            judged(tmp_path, values, transform, census, name, crs="EPSG:4326", **more)


def test_another_total_is_refused_with_both(tmp_path):
    with pytest.raises(RasterError, match="off by more than a factor of 2") as caught:
        judged(tmp_path, np.full((17, 24), 40.0), HECTARES, [UNIT_HA * 3, UNIT_HA * 3])
    assert f"{UNIT_HA * 6:,.0f} people in the census units" in str(caught.value)
    assert f"{UNIT_HA * 2:,.0f} people in the same units" in str(caught.value)
    far = from_origin(GRID.west + 1e5, GRID.north, 100.0, 100.0)
    with pytest.raises(RasterError, match="100% of the units' area has no cell"):
        judged(tmp_path, np.full((17, 24), 40.0), far, [UNIT_HA, UNIT_HA])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda v: v.__setitem__((1, 1), np.inf), "infinity"),
        (lambda v: v.__setitem__((slice(0, 2), 1), [-1.0, -2.0]), "-2, -1"),
    ],
)
def test_values_that_are_no_people_are_refused(tmp_path, spoil, said):
    values = np.full((17, 24), 40.0)
    spoil(values)
    with pytest.raises(RasterError, match="no number of people") as caught:
        judged(tmp_path, values, HECTARES, [UNIT_HA, UNIT_HA])
    assert said in str(caught.value)


def test_several_bands_and_no_place_are_refused(tmp_path):
    units, _ = units_of(tmp_path)
    two = write(tmp_path / "two.tif", np.ones((2, 17, 24)), HECTARES, GRID.crs)
    with pytest.raises(RasterError, match="several bands"):
        bring("other", two, GRID, units, tmp_path / "out.tif")
    nowhere = write(tmp_path / "nowhere.tif", np.ones((17, 24)), HECTARES, None)
    with pytest.raises(RasterError, match="where it lies"):
        bring("other", nowhere, GRID, units, tmp_path / "out.tif")
    assert not (tmp_path / "out.tif").exists()
