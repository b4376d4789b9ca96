"""What an operator reads of a map's pixels and cells says of which area they are."""

from __future__ import annotations

import numpy as np
import pytest

from popcorn_assets.assets.evaluation import metric_rows
from popcorn_assets.assets.maps import cell_area, scale_of_people
from popcorn_ml import raster
from popcorn_ml.evaluation.report import evaluate
from popcorn_ml.grid import EARTH_ENGINE_10M_DEG, Grid

METRIC = Grid("EPSG:32736", 500_000.0, 9_800_000.0, 10.0, 40, 30)
VILLAGE = Grid("EPSG:4326", 6.0, 47.8, EARTH_ENGINE_10M_DEG, 40, 30)
NORWAY = Grid("EPSG:4326", 6.0, 71.2, 100 * EARTH_ENGINE_10M_DEG, 40, 1460)


@pytest.mark.parametrize(
    ("grid", "trained_m2", "said"),
    [
        (METRIC, 100.0, ""),  # by 1, which is not worth saying
        (METRIC, 99.0, ""),
        (METRIC, 70.0, "1.429"),
        (VILLAGE, VILLAGE.pixel_area_m2, ""),
        (VILLAGE, 100.0, "0.672"),
        (NORWAY, NORWAY.pixel_area_m2, "0.755 to 1.236, by latitude"),
    ],
)
def test_people_are_scaled_by_a_number_only_where_it_is_not_one(grid, trained_m2, said):
    assert scale_of_people(grid, trained_m2) == said


def test_areas_of_cells():
    assert cell_area(METRIC) == {"mean cell area, ha": 1.0}
    tall = cell_area(NORWAY)
    smallest, largest = NORWAY.cell_area_ha
    assert list(tall.values()) == pytest.approx(
        [NORWAY.pixel_area_m2 / 100, smallest, largest], abs=1e-4
    )
    assert tall["smallest cell area, ha"] < 0.65 * tall["largest cell area, ha"]


@pytest.mark.parametrize(("grid", "area_ha"), [(METRIC, 1.0), (VILLAGE, 0.672)])
def test_the_warehouse_is_told_of_which_area_a_cell_is(tmp_path, grid, area_ha):
    ones = np.ones(grid.shape, np.float32)
    raster.write(tmp_path / "map.tif", ones, grid, ["people"], np.nan)
    units = np.ones(grid.shape, np.uint32)
    raster.write(tmp_path / "units.tif", units, grid, ["unit"], 0, resampling="nearest")
    maps = dict.fromkeys(("population", "adjusted", "builtup", "truth"), tmp_path / "map.tif")
    found = evaluate(grid=grid, **maps, units=tmp_path / "units.tif", people=[1200.0])
    rows = metric_rows(found, "district", grid)
    assert {row["level"] for row in rows} == {"hectare", "district"}
    for row in rows:
        expected = area_ha if row["level"] == "hectare" else None
        assert row["area_ha"] == (expected and pytest.approx(expected, abs=1e-3))
