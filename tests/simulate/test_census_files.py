"""The simulated census: units, counts and the truth agree to the last person."""

from __future__ import annotations

import csv

import geopandas
import numpy as np
import pytest
from rasterio.features import rasterize
from rasterio.transform import Affine

from popcorn_ml import raster
from popcorn_ml.simulate.census import make_units
from popcorn_ml.simulate.spec import CountrySpec
from popcorn_ml.simulate.world import make_world, people
from tests.simulate.conftest import INNER


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_demo_has_at_least_60_units_small_in_town_and_large_in_the_country():
    spec = CountrySpec()
    world = make_world(spec.seed, spec.place_grid.shape, spec.base_year, spec.urban_share)
    count = people(world, spec.base_year)[INNER]
    levels = make_units(spec, count)
    coarse, fine = levels["coarse"], levels["fine"]
    assert len(coarse.ids) == 80
    assert len(fine.ids) > 3 * 60
    assert coarse.number.min() == 1
    area = np.bincount(coarse.number.ravel())[1:]
    crowd = np.bincount(coarse.number.ravel(), count.ravel())[1:] / area
    assert area.max() > 4 * area.min()
    assert np.corrcoef(np.log(area), np.log(crowd + 0.01))[0, 1] < -0.4
    assert all(c.startswith("0") and c.isdigit() and len(c) == 4 for c in coarse.ids)
    assert len(set(coarse.ids)) == 80
    assert len(set(coarse.names)) == 80
    assert any(not name.isascii() for name in coarse.names)
    assert set(fine.parents) == set(coarse.ids)
    assert 1 < len(set(coarse.parents)) < 20
    # finer units nest
    for unit, parent in zip(range(1, len(fine.ids) + 1), fine.parents, strict=True):
        assert set(np.unique(coarse.number[fine.number == unit])) == {coarse.ids.index(parent) + 1}


@pytest.mark.parametrize("level", ["coarse", "fine"])
def test_outlines_give_back_every_pixel(country, spec, level):
    """Rasterised by pixel middles, the GeoPackage fills the grid, without overlap."""
    frame = geopandas.read_file(country.units_file(level), layer="units")
    assert frame.crs == spec.crs
    assert [str(frame[name].dtype) for name in ("id", "name", "parent")] == ["str"] * 3
    times = np.zeros(spec.grid.shape, int)
    for outline in frame.geometry:
        assert outline.is_valid
        times += rasterize([outline], spec.grid.shape, transform=Affine(*spec.grid.transform))
    assert (times == 1).all()
    numbers = rasterize(
        ((g, i + 1) for i, g in enumerate(frame.geometry)),
        spec.grid.shape,
        transform=Affine(*spec.grid.transform),
        dtype="int32",
    )
    truth = raster.read(country.truth_file(2021), bands=1)
    sums = np.bincount(numbers.ravel(), truth.ravel().astype(np.float64))[1:]
    table = rows(country.counts_file(level, 2021))
    assert [row["id"] for row in table] == list(frame["id"])
    assert [float(row["people"]) for row in table] == sums.tolist()


def test_levels_and_truth_have_one_total(country, spec):
    truth = raster.read(country.truth_file(2021), bands=1)
    assert truth.dtype == np.float32
    raster.check(country.truth_file(2021), spec.grid, count=1)
    assert np.array_equal(truth, np.rint(truth))
    for level in ("coarse", "fine"):
        table = rows(country.counts_file(level, 2021))
        assert sum(int(row["people"]) for row in table) == int(truth.sum(dtype=np.float64))
        assert country.units[level] == len(table)
    assert country.people[2021] == int(truth.sum(dtype=np.float64))
