"""People are conserved to 1e-6 whatever the extent: other grids, hexagons, masked cells."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from popcorn_ml import raster
from popcorn_ml.errors import RasterError
from popcorn_ml.grid import EARTH_ENGINE_10M_DEG, Grid, check_grid
from popcorn_ml.mapping.aggregate import cell_sums
from popcorn_ml.publishing import empty_cells, other_grids
from popcorn_ml.publishing.hexagons import RESOLUTIONS, write_hexagons

FEW = settings(
    max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


@st.composite
def maps(draw) -> tuple[Grid, np.ndarray]:
    """A map of people on a grid of odd size, anywhere on earth, with gaps."""
    height, width = draw(st.integers(1, 130)), draw(st.integers(1, 130))
    if draw(st.booleans()):
        west, north = draw(st.floats(-170, 170)), draw(st.floats(-59, 70))
        grid = Grid("EPSG:4326", west, north, EARTH_ENGINE_10M_DEG, width, height)
    else:
        zone, south = draw(st.integers(1, 60)), draw(st.booleans())
        north = draw(st.floats(2_000_000, 9_000_000))
        east = draw(st.floats(300_000, 690_000))
        grid = Grid(f"EPSG:{327 if south else 326}{zone:02d}", east, north, 10.0, width, height)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    people = rng.gamma(0.2, 3.0, grid.shape).astype(np.float32)
    people[rng.random(grid.shape) < draw(st.sampled_from([0.0, 0.3, 0.97]))] = np.nan
    return grid, people


def written(folder: Path, grid: Grid, values: np.ndarray, name: str = "people.tif") -> Path:
    nodata = math.nan if values.dtype.kind == "f" else 0
    raster.write(folder / name, values, grid, ["people"], nodata)
    return folder / name


def everyone(values: np.ndarray) -> float:
    return float(np.nansum(values, dtype=np.float64))


@FEW
@given(maps())
def test_other_grids_keep_everybody(tmp_path: Path, one: tuple[Grid, np.ndarray]) -> None:
    grid, people = one
    path = written(tmp_path, grid, people)
    for target in (other_grids.true_100m(grid), other_grids.worldpop_grid(grid)):
        cells, total = other_grids.moved(path, target)
        assert cells.shape == target.shape
        assert total == pytest.approx(everyone(people), rel=1e-6, abs=1e-6)
        assert everyone(cells) == pytest.approx(total)
        rim = np.concatenate([cells[0], cells[-1], cells[:, 0], cells[:, -1]])
        assert np.isnan(rim).all()  # nobody can have been cut off
        assert not (cells < 0).any()


@FEW
@given(maps())
def test_hexagons_hold_everybody_at_every_resolution(tmp_path, one) -> None:
    grid, people = one
    path, other = written(tmp_path, grid, people), written(tmp_path, grid, people * 2, "other.tif")
    totals = write_hexagons(path, other, grid, tmp_path / "h3.parquet")
    table = pq.read_table(tmp_path / "h3.parquet").to_pandas()
    assert tuple(totals) == RESOLUTIONS
    for resolution in RESOLUTIONS:
        of = table[table["resolution"] == resolution]
        assert of["h3"].is_unique
        assert of["people"].sum() == pytest.approx(everyone(people), rel=1e-6)
        assert of["people_unadjusted"].sum() == pytest.approx(2 * everyone(people), rel=1e-6)
        assert of["pixels"].sum() == np.isfinite(people).sum()


@FEW
@given(maps(), st.integers(1, 6))
def test_masking_keeps_everybody_in_their_unit(tmp_path, one, count) -> None:
    grid, people = one
    rows = np.arange(grid.height) * (count + 1) // grid.height  # 0, outside all units, is one too
    units = np.repeat(rows[:, None], grid.width, axis=1).astype(np.uint32)
    path, numbers = written(tmp_path, grid, people), written(tmp_path, grid, units, "units.tif")
    plan = empty_cells.plan(path, numbers, count, grid)
    read = empty_cells.masked(path, numbers, grid, plan)
    cells = read(grid.hectares().whole())
    before = cell_sums(people)
    assert everyone(cells) == pytest.approx(everyone(people), rel=1e-6, abs=1e-6)
    assert (np.isnan(cells) == np.isnan(before)).all()
    bare = before < empty_cells.FEWEST
    assert (plan.empty, plan.cells) == (bare.sum(), (~np.isnan(before)).sum())
    alone = {n for n in range(count + 1) if np.isnan(plan.factor[n])}
    if not alone & set(np.unique(units).tolist()):
        assert (cells[bare] == 0).all()
    assert (cells[~bare & ~np.isnan(before)] >= before[~bare & ~np.isnan(before)] * 0.999).all()


def test_the_lattices_are_the_published_ones() -> None:
    grid = Grid("EPSG:32736", 312_300, 9_755_700, 10.0, 770, 770)
    lattice = other_grids.worldpop_grid(grid)
    steps = (lattice.west - other_grids.WORLDPOP_WEST) / other_grids.ARC_STEP
    rows = (other_grids.WORLDPOP_NORTH - lattice.north) / other_grids.ARC_STEP
    assert steps == pytest.approx(round(steps), abs=1e-6)
    assert rows == pytest.approx(round(rows), abs=1e-6)
    true = other_grids.true_100m(Grid("EPSG:4326", 29.0, -1.0, EARTH_ENGINE_10M_DEG, 500, 500))
    assert (true.crs, true.step, true.west % 100, true.north % 100) == ("EPSG:32735", 100, 0, 0)
    assert true.cell_name != "hectare"  # ten by ten of *its* cells are a square kilometre
    assert true.pixel_area_m2 == 10_000


def test_a_country_too_wide_for_one_zone_gets_equal_areas() -> None:
    step = 100 * EARTH_ENGINE_10M_DEG
    wide = Grid("EPSG:4326", 60.0, 50.0, step, 60_000, 3_000)
    found = other_grids.true_100m(wide)
    assert found.crs == other_grids.EQUAL_AREA
    check_grid(found)


def test_the_lattice_ends_at_the_antimeridian() -> None:
    fiji = Grid("EPSG:32760", 800_000, 8_100_000, 10.0, 5_000, 300)
    with pytest.raises(RasterError, match="antimeridian"):
        other_grids.worldpop_grid(fiji)


def test_a_grid_that_does_not_cover_the_map_is_refused(tmp_path) -> None:
    grid = Grid("EPSG:32736", 312_300, 9_755_700, 10.0, 100, 100)
    path = written(tmp_path, grid, np.ones(grid.shape, np.float32))
    with pytest.raises(RasterError, match="people were lost"):
        other_grids.moved(path, Grid("EPSG:32736", 312_300, 9_755_700, 100.0, 9, 10))
