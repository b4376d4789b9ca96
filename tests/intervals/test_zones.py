"""Any zones: across units and blocks, overlapping, in another CRS, as rasters."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely

from popcorn_ml import raster
from popcorn_ml.grid import Grid
from popcorn_ml.intervals import IntervalError, MapFiles, people_in
from popcorn_ml.intervals import hectares as of_hectares
from popcorn_ml.intervals import zones as of_zones
from popcorn_ml.intervals.law import LEVELS, Law, student_width
from popcorn_ml.intervals.measures import measure
from popcorn_ml.intervals.model import ErrorModel
from popcorn_ml.intervals.zones import disjoint
from popcorn_ml.mapping.aggregate import cell_sums
from popcorn_ml.mapping.dasymetric import adjust_map, read_adjustment
from tests.intervals.test_law import BASIS

GRID = Grid("EPSG:32736", 312300.0, 9755700.0, 10.0, 60, 50)
LAW = Law(5.0, 0.15, 0.8, 0.3)
COUNTS = [400.0, 150.0, np.nan, 90.0]


@pytest.fixture(scope="module")
def maps(tmp_path_factory) -> MapFiles:
    folder = tmp_path_factory.mktemp("maps")
    rng = np.random.default_rng(2)
    population = rng.gamma(0.5, 0.4, GRID.shape).astype(np.float32)
    population[:4, :4] = np.nan
    units = np.zeros(GRID.shape, np.uint32)
    units[:, :25], units[:30, 25:], units[30:, 25:45], units[30:, 45:55] = 1, 2, 3, 4
    population[30:, 45:55] = 0.0  # seen as empty, though people were counted
    for name, values in (("population", population), ("builtup", np.clip(population, 0, 1))):
        raster.write(folder / f"{name}.tif", values, GRID, [name], np.nan)
    raster.write(folder / "units.tif", units, GRID, ["units"], 0)
    adjust_map(
        folder / "population.tif", None, folder / "builtup.tif", folder / "units.tif",
        COUNTS, GRID, folder / "adjusted",
    )  # fmt: skip
    model = ErrorModel(LAW, {level: student_width(level) for level in LEVELS}, BASIS, {})
    (folder / "error_model.json").write_text(json.dumps(model.as_dict()))
    return MapFiles(
        folder / "population.tif",
        folder / "adjusted" / "population.tif",
        folder / "units.tif",
        folder / "adjusted" / "adjustment.json",
        folder / "error_model.json",
    )


def boxes(*windows: tuple[int, int, int, int], crs: str = GRID.crs) -> gpd.GeoDataFrame:
    """Rectangles of whole pixels: first row and column, rows, columns."""
    shapes = [
        shapely.box(
            GRID.west + 10 * c, GRID.north - 10 * (r + h), GRID.west + 10 * (c + w),
            GRID.north - 10 * r,
        )
        for r, c, h, w in windows
    ]  # fmt: skip
    return gpd.GeoDataFrame(geometry=shapes, crs=GRID.crs).to_crs(crs)


def test_whole_units_are_known_and_parts_are_not(maps):
    found = people_in(maps.units, maps)
    assert found.index.tolist() == [1, 2, 3, 4]
    assert found["people"].tolist()[:2] == pytest.approx([400, 150], rel=1e-6)
    for column in ("p2_5", "p10", "p90", "p97_5"):
        assert found[column].tolist()[:2] == pytest.approx([400, 150], rel=1e-5)
    assert found.loc[3, "p10"] < found.loc[3, "people"] < found.loc[3, "p90"]  # never counted
    assert found.loc[4, "p10"] == pytest.approx(90)  # whole: known, wherever in it people are


def test_a_zone_across_units_is_the_sum_of_its_parts(maps):
    both = people_in(boxes((10, 15, 10, 20)), maps).iloc[0]
    apart = people_in(boxes((10, 15, 10, 10), (10, 25, 10, 10)), maps)
    left, right = apart.iloc[0], apart.iloc[1]
    assert both["people"] == pytest.approx(left["people"] + right["people"], rel=1e-9)
    wide = both["p90"] - both["p10"]
    each = (apart["p90"] - apart["p10"]).to_numpy()
    assert wide < each.sum()
    assert wide == pytest.approx(np.hypot(*each), rel=0.1)
    # two whole units make a point again
    assert people_in(boxes((0, 0, 50, 25)), maps).iloc[0]["p90"] == pytest.approx(400, rel=1e-5)


def test_zones_may_overlap_and_lie_in_degrees(maps):
    windows = [(0, 0, 50, 25), (10, 10, 20, 30), (12, 12, 5, 5), (40, 0, 10, 60)]
    metric = people_in(boxes(*windows), maps)
    degrees = people_in(boxes(*windows, crs="EPSG:4326"), maps)
    for k, window in enumerate(windows):
        alone = people_in(boxes(window), maps).iloc[0]
        assert metric.iloc[k].to_dict() == pytest.approx(alone.to_dict(), nan_ok=True)
    assert degrees["people"].to_numpy() == pytest.approx(metric["people"].to_numpy(), rel=0.02)
    assert len(disjoint(boxes(*windows).geometry.to_numpy())) == 3


def test_the_answer_does_not_depend_on_blocks(maps, monkeypatch):
    zones = boxes((3, 3, 41, 37), (5, 45, 20, 10))
    whole = people_in(zones, maps), people_in(zones, maps, "map")
    monkeypatch.setattr(of_zones, "BLOCK_PX", 20)
    for product, before in zip(("adjusted", "map"), whole, strict=True):
        after = people_in(zones, maps, product)
        assert after.to_numpy() == pytest.approx(before.to_numpy(), nan_ok=True)


def test_where_nothing_is_known_nothing_is_said(maps):
    found = people_in(boxes((35, 46, 10, 5), (0, 0, 3, 3), (0, 0, 6, 4)), maps)
    assert found.iloc[0]["people"] > 0
    assert np.isnan(found.iloc[0]["p90"])  # spread by built-up area: the model said nothing
    assert found.iloc[1].isna()[["people", "p10", "p90"]].all()
    assert found.iloc[2]["valid_share"] == pytest.approx(1 - 16 / 24)
    off = gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1), None], crs=GRID.crs)
    assert people_in(off, maps)["pixels"].tolist() == [0, 0]


def test_a_raster_of_zones_in_another_crs_is_taken_at_the_pixels_centres(maps, tmp_path):
    west, south, east, north = gpd.GeoSeries(
        [shapely.box(*GRID.bounds)], crs=GRID.crs
    ).to_crs(4326).total_bounds  # fmt: skip
    step = (east - west) / 6
    grid = Grid("EPSG:4326", west, north, step, 6, int(np.ceil((north - south) / step)))
    numbers = np.arange(1, grid.width * grid.height + 1, dtype=np.int32).reshape(grid.shape)
    raster.write(tmp_path / "zones.tif", numbers * 1000, grid, ["zones"], 0)
    found = people_in(tmp_path / "zones.tif", maps, "map")
    total = raster.read_float(maps.population, None, 1)
    assert found["people"].sum() == pytest.approx(float(np.nansum(total, dtype=float)), rel=1e-6)
    assert set(found.index) <= set((numbers * 1000).ravel().tolist())


@pytest.mark.parametrize(
    ("zones", "told"),
    [
        (gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)]), "no CRS"),
        (gpd.GeoDataFrame(geometry=[shapely.Point(0, 0)], crs=4326), "areas"),
    ],
)
def test_zones_that_cannot_be_placed_are_refused(maps, zones, told):
    with pytest.raises(IntervalError, match=told):
        people_in(zones, maps)


def test_a_map_without_an_error_model_gives_no_interval(maps, tmp_path):
    from dataclasses import replace

    bare = replace(maps, model=tmp_path / "error_model.json")
    with pytest.raises(IntervalError, match="20 counted units"):
        people_in(maps.units, bare)
    bare.model.write_text('{"schema": 9}')
    with pytest.raises(IntervalError, match="cannot be read"):
        people_in(maps.units, bare)


def test_hectares_say_what_zones_of_a_hectare_say(maps, tmp_path, monkeypatch):
    monkeypatch.setattr(of_hectares, "BLOCK_PX", 30)
    (units,), _ = measure(maps.units, [maps.adjusted], GRID, len(COUNTS))
    model = ErrorModel(LAW, {level: student_width(level) for level in LEVELS}, BASIS, {})
    written = of_hectares.write_intervals(
        model, GRID, tmp_path, population=maps.population, adjusted=maps.adjusted,
        units=maps.units, unit_measures=units, method=read_adjustment(maps.adjustment).method,
    )  # fmt: skip
    cells = boxes(*[(10 * r, 10 * c, 10, 10) for r in range(5) for c in range(6)])
    for product, name in (("adjusted", ""), ("map", "unadjusted/")):
        zones = people_in(cells, maps, product)
        found = raster.read_float(Path(tmp_path / f"{name}intervals.tif"))
        quantiles = zones[["p2_5", "p10", "p90", "p97_5"]].to_numpy().T.reshape(4, 5, 6)
        assert found == pytest.approx(quantiles, rel=1e-5, nan_ok=True)
    people = cell_sums(raster.read_float(maps.adjusted, None, 1))
    use = raster.read(tmp_path / "reliability.tif", None, 1)
    found = raster.read_float(tmp_path / "intervals.tif")
    unsure = (found[2] - found[1] > people) & (found[2] - found[1] > 10)
    assert (use[unsure] == of_hectares.NOT_AT_THIS_SCALE).all()
    assert (use[np.isnan(people)] == of_hectares.NO_DATA).all()
    assert (use[~np.isnan(people) & np.isnan(found[0])] == of_hectares.NOT_AT_THIS_SCALE).all()
    assert written.cells == int((~np.isnan(people)).sum())
    assert written.not_known == int((~np.isnan(people) & np.isnan(found[0])).sum()) > 0
