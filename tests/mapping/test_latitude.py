"""On a grid in degrees a pixel holds as many people as its own row's area, not the grid's mean."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from popcorn_ml import raster
from popcorn_ml.errors import ConfigError
from popcorn_ml.grid import Grid
from popcorn_ml.mapping.aggregate import aggregate_map
from popcorn_ml.mapping.dasymetric import AdjustedMembers, Layers, adjust_map
from popcorn_ml.mapping.precision import STEP as STORED_STEP
from popcorn_ml.mapping.predict import MappingSpec, map_population
from popcorn_ml.model.weights import load_occupancy, save_occupancy
from popcorn_ml.sentinel import S1_BANDS, S1_NODATA, S1_SCALE, S2_BANDS
from popcorn_ml.training.samples import Samples
from popcorn_ml.training.spec import TrainingSpec
from popcorn_ml.training.units import find_units, initial_bias
from popcorn_ml.zones import zone_sums
from tests.mapping.places import write_members

STEP = 0.009
"""Degrees: about 1 km, so that few rows reach from the Skagerrak to the North Cape."""
COLS, APART = 40, 48
"""Columns of the grid; height of its scenery in rows."""
TRAINED_M2 = 700_000.0


def the_same_scenery(folder):
    """A tall grid of one scenery over and over, row for row the same in north and south."""
    rows = 31 * APART
    grid = Grid("EPSG:4326", 6.0, 71.5, STEP, COLS, rows)
    rng = np.random.default_rng(3)
    s1 = np.tile(rng.integers(-2000, -500, (2, APART, COLS)), (1, 31, 1)).astype(np.int16)
    s2 = np.tile(rng.integers(300, 3500, (4, APART, COLS)), (1, 31, 1)).astype(np.uint16)
    score = np.tile(rng.random((1, APART, COLS)), (1, 31, 1)).astype(np.float32)
    units = (np.arange(rows)[:, None] // APART + np.ones((1, COLS)) - 1).astype(np.uint32)
    units[units == 30] = 0  # the last is cut by the edge, and so is the first
    raster.write(folder / "s1.tif", s1, grid, S1_BANDS, S1_NODATA, scale=S1_SCALE)
    raster.write(folder / "s2.tif", s2, grid, S2_BANDS, 0)
    raster.write(folder / "score.tif", score, grid, ["summer"], np.nan)
    raster.write(folder / "units.tif", units, grid, ["unit"], 0, resampling="nearest")
    return grid, units, score[0]


@pytest.fixture(scope="module")
def tall(tmp_path_factory):
    """From 71.5 to 58.1 degrees north, mapped by two members trained on pixels of one area."""
    folder = tmp_path_factory.mktemp("tall")
    grid, units, score = the_same_scenery(folder)
    spec = MappingSpec(
        composites={"summer": (folder / "s1.tif", folder / "s2.tif")},
        builtup=folder / "score.tif",
        members=write_members(folder / "members", (1, 2)),
        grid=grid,
        out=folder / "map",
        tile_px=500,
        device="cpu",
        threads=1,
        trained_pixel_m2=TRAINED_M2,
    )
    map_population(spec)
    return folder, spec, units, score


def test_the_same_scenery_has_the_same_density_at_all_latitudes(tall):
    """It had 32 % more at 71 degrees and 19 % less at 58."""
    _, spec, units, _ = tall
    grid = spec.grid
    area = grid.row_area_m2()
    people = raster.read_float(spec.out / "population.tif", bands=1)
    density = people / area[:, None]
    at = {unit: density[units == unit].reshape(APART, COLS) for unit in (1, 29)}
    assert area[units[:, 0] == 29].mean() > 1.55 * area[units[:, 0] == 1].mean()
    assert (at[1] > 0).mean() > 0.5
    np.testing.assert_allclose(at[1], at[29], rtol=1e-4, atol=1e-12)


def test_a_row_counts_with_its_own_area_over_that_of_the_trained_pixels(tall, tmp_path):
    """The same pixels on a plane, where all have the area trained on, say what is multiplied."""
    _, spec, _, _ = tall
    plane = replace(spec.grid, crs="EPSG:32632")
    for name in ("s1", "s2", "score"):
        _on_a_plane(spec.builtup.parent / f"{name}.tif", tmp_path / f"{name}.tif", plane)
    flat = replace(
        spec,
        composites={"summer": (tmp_path / "s1.tif", tmp_path / "s2.tif")},
        builtup=tmp_path / "score.tif",
        grid=plane,
        out=tmp_path / "map",
        trained_pixel_m2=None,
    )
    map_population(flat)
    ratio = spec.grid.row_area_m2()[:, None] / TRAINED_M2
    for name in ("population", "population_std", "occupancy", "population_members"):
        found, expected = (raster.read_float(s.out / f"{name}.tif") for s in (spec, flat))
        atol = 3 * STORED_STEP if name == "population_members" else 2e-6
        np.testing.assert_allclose(found, expected * ratio, rtol=1e-5, atol=atol, err_msg=name)
    same = [raster.read_float(s.out / "builtup_score.tif") for s in (spec, flat)]
    np.testing.assert_array_equal(*same)


def test_members_say_what_pixels_they_were_trained_on(tall, tmp_path):
    """By their cards; of those that do not agree nothing is guessed."""
    _, spec, _, _ = tall
    there = raster.read_float(spec.out / "population.tif", bands=1)
    said = [
        save_occupancy(
            load_occupancy(path),
            tmp_path / path.parent.name / "occupancy.safetensors",
            {"pixel_area_m2": TRAINED_M2},
        )
        for path in spec.members
    ]
    by_card = replace(spec, members=said, trained_pixel_m2=None, out=tmp_path / "map")
    map_population(by_card)
    found = raster.read_float(by_card.out / "population.tif", bands=1)
    np.testing.assert_allclose(found, there, rtol=1e-5, atol=2e-6)
    mixed = replace(by_card, members=[said[0], spec.members[1]], out=tmp_path / "none")
    with pytest.raises(ConfigError, match="pixels of different areas"):
        map_population(mixed)
    with pytest.raises(ConfigError, match="trained_pixel_m2"):
        map_population(replace(by_card, trained_pixel_m2=0.0, out=tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def _on_a_plane(source, target, grid):
    """The same pixels, said to lie on a projected grid."""
    with raster.opened(source) as dataset:
        names, scale, nodata = dataset.descriptions, dataset.scales[0], dataset.nodata
    raster.write(target, raster.read(source), grid, names, nodata, scale=scale)


def test_training_sees_a_unit_as_the_map_does(tall):
    """Its people are of its own latitude's pixels, and so is the first guess."""
    folder, spec, units, score = tall
    counts = [
        {"number": number, "id": str(number), "name": "", "people": 100.0}
        for number in range(1, 30)
    ]
    (folder / "counts.json").write_text(json.dumps(counts))
    training = TrainingSpec(
        s1={"summer": str(folder / "s1.tif")},
        s2={"summer": str(folder / "s2.tif")},
        builtup=str(folder / "score.tif"),
        units=str(folder / "units.tif"),
        counts=str(folder / "counts.json"),
        extractor="",
        out="",
        work="",
        seed=1,
        threads=1,
    )
    grid, found = find_units(training.units, training.builtup, training.counts, ["summer"], 0.0)
    built = zone_sums(units, score * spec.grid.relative_area(), 29)[1:]
    assert initial_bias(found.trained) == pytest.approx(2900 / built.sum(), rel=1e-5)
    samples = Samples(training, grid, found.trained)
    try:
        north, south = (samples.get((number, 0, 0)).score for number in (1, 29))
    finally:
        samples.close()
    area = spec.grid.row_area_m2().repeat(COLS).reshape(spec.grid.shape)
    ratio = (area[units == 29] / area[units == 1]).astype(np.float32)
    np.testing.assert_allclose(south.numpy() / north.numpy(), ratio, rtol=1e-5)
    np.testing.assert_allclose(
        south.numpy(), (score * spec.grid.relative_area())[units == 29], rtol=1e-5
    )


def test_people_without_a_prediction_are_spread_over_land_and_not_over_pixels(tall, tmp_path):
    """A unit that reaches over thirteen degrees, seen as empty: by built-up area, or evenly."""
    _, spec, _, score = tall
    grid, rows = spec.grid, spec.grid.height
    units = np.ones(grid.shape, np.uint32)
    units[:, COLS // 2 :] = 2
    units[:, -1] = 3
    empty = np.zeros((2, *grid.shape), np.float32)
    empty[:, :, -1] = np.nan
    built = np.where(units == 1, score, 0).astype(np.float32)
    files = {name: tmp_path / f"{name}.tif" for name in ("population", "members", "builtup")}
    raster.write(files["population"], empty[0], grid, ["p"], np.nan)
    raster.write(files["members"], empty, grid, ["1", "2"], np.nan)
    raster.write(files["builtup"], built, grid, ["b"], np.nan)
    raster.write(tmp_path / "units.tif", units, grid, ["u"], 0, resampling="nearest")
    how = adjust_map(
        *files.values(), tmp_path / "units.tif", [1e6, 1e6, 1e6], grid, tmp_path / "adjusted"
    )
    assert [method for _, _, method in how.fallbacks] == ["builtup", "area", "all_pixels"]
    people = raster.read_float(tmp_path / "adjusted" / "population.tif", bands=1)
    np.testing.assert_allclose(zone_sums(units, people, 3)[1:], 1e6, rtol=1e-6)
    area = grid.row_area_m2()[:, None]
    for weight in (np.where(units == 1, score, 0), units == 2, units == 3):
        whole = weight * area
        there = weight > 0
        np.testing.assert_allclose(people[there], (whole / whole.sum() * 1e6)[there], rtol=1e-5)
    assert people[0, -2] < 0.7 * people[rows - 1, -2]


def test_hectares_of_an_adjusted_map_in_degrees(tall, tmp_path):
    """The members' spread, where one of them sees a unit as empty, goes by area as well."""
    folder, spec, units, _ = tall
    layers = Layers(
        spec.out / "population.tif",
        spec.out / "population_members.tif",
        spec.out / "builtup_score.tif",
        folder / "units.tif",
        spec.grid,
    )
    how = adjust_map(
        layers.population, layers.members, layers.builtup, layers.units,
        np.full(29, 1e6), spec.grid, tmp_path / "adjusted",
    )  # fmt: skip
    by_member = AdjustedMembers(how, layers)
    for member in by_member.read(spec.grid.whole()):
        np.testing.assert_allclose(zone_sums(units, member, 29)[1:], 1e6, rtol=1e-9)
    aggregate_map(tmp_path / "adjusted" / "population.tif", by_member, spec.grid, tmp_path / "ha")
    tags = raster.tags(tmp_path / "ha" / "population.tif")
    assert float(tags["smallest_cell_ha"]) < 0.7 * float(tags["largest_cell_ha"])


@given(
    st.floats(-80, 79), st.integers(1, 300), st.floats(1e-5, 1e-2), st.integers(0, 200),
    st.integers(1, 80),
)  # fmt: skip
def test_relative_areas_are_those_of_the_ellipsoid_and_of_mean_one(north, rows, step, row, height):
    grid = Grid("EPSG:4326", 6.0, north, step, 3, rows)
    relative = grid.relative_area()
    assert relative.shape == (rows, 1)
    assert relative.mean() == pytest.approx(1)
    np.testing.assert_allclose(relative[:, 0] * grid.pixel_area_m2, grid.row_area_m2())
    window = grid.whole()._replace(row=min(row, rows - 1), height=min(height, rows - row))
    if row < rows:
        np.testing.assert_array_equal(
            grid.relative_area(window), relative[row : row + window.height]
        )
    metric = Grid("EPSG:32736", 5e5, 9.8e6, 9.7, 3, rows)
    assert (metric.relative_area() == 1).all()
    assert metric.pixel_area_m2 == 9.7 * 9.7
