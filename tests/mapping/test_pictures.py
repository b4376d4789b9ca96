"""Pictures: the right size, the right colours, nodata visible, any raster in bounded time."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from popcorn_ml import raster
from popcorn_ml.grid import EARTH_ENGINE_10M_DEG, Grid
from popcorn_ml.mapping import pictures
from popcorn_ml.mapping.pictures import thumbnail


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def map_of(png: bytes) -> np.ndarray:
    """The picture without its lowest part, where a raster's has its scale bar."""
    picture = pixels(png)
    return picture[: int(0.85 * picture.shape[0])]


GREY = np.round(np.array(pictures.NODATA_COLOUR[:3]) * 255)


@pytest.mark.parametrize("kind", sorted(pictures._LOOKS))
def test_quantities_have_a_legend_beside_the_map(kind):
    values = np.linspace(0, 1, 200 * 300).reshape(200, 300)
    values[:100, :150] = np.nan
    picture = pixels(thumbnail(values, kind, max_px=300))
    assert picture.shape[0] == 200
    assert picture.shape[1] > 350
    assert np.abs(picture[50, 75] - GREY).max() <= 1
    assert np.abs(picture[150, 75] - GREY).max() > 5


def test_people_are_shown_per_hectare_from_pixels_and_from_hectares():
    values = np.full((100, 100), 0.5)
    values[:, 50:] = 3.0
    of_pixels = pixels(thumbnail(values, "population", max_px=100))
    of_hectares = pixels(thumbnail(values * 100, "population", max_px=100, pixels_per_hectare=1))
    np.testing.assert_array_equal(of_pixels, of_hectares)
    assert of_pixels[50, 75].sum() < of_pixels[50, 25].sum()  # more people, darker


def test_a_raster_knows_its_own_hectares(tmp_path):
    rng = np.random.default_rng(0)
    for step in (10.0, 100.0):
        grid = Grid("EPSG:32736", 500_000.0, 9_800_000.0, step, 60, 40)
        people = rng.random(grid.shape, dtype=np.float32)
        raster.write(tmp_path / "p.tif", people, grid, ["people"], np.nan)
        np.testing.assert_array_equal(
            map_of(thumbnail(tmp_path / "p.tif", "population")),
            map_of(thumbnail(people, "population", pixels_per_hectare=(100 / step) ** 2)),
        )


@pytest.mark.parametrize("step", [EARTH_ENGINE_10M_DEG, 10 * EARTH_ENGINE_10M_DEG])
def test_a_hectare_is_one_in_degrees_too(tmp_path, step):
    """Seven people a hectare look so at 47 degrees north, from pixels and from cells."""
    grid = Grid("EPSG:4326", 6.0, 47.8, step, 40, 60)
    people = 7 * (grid.row_area_m2() / 10_000)[:, None].repeat(40, 1)
    raster.write(tmp_path / "p.tif", people.astype(np.float32), grid, ["people"], np.nan)
    shown = map_of(thumbnail(tmp_path / "p.tif", "population"))
    seven = map_of(thumbnail(np.full(grid.shape, 7.0), "population", pixels_per_hectare=1))
    assert np.abs(shown - seven).max() <= 1


def test_pixels_of_a_shrunken_picture_have_the_area_of_their_place(tmp_path):
    grid = Grid("EPSG:4326", 6.0, 80.0, 0.02, 40, 1000)  # 60 to 80 degrees north
    people = np.ones(grid.shape, np.float32)
    raster.write(tmp_path / "p.tif", people, grid, ["people"], np.nan)
    _, density = pictures._read_small(tmp_path / "p.tif", "population", 50)
    area = grid.row_area_m2().reshape(50, 20).mean(axis=1)
    np.testing.assert_allclose(density[:, 0], 10_000 / area, rtol=3e-3)


def test_composites_by_their_bands(tmp_path):
    grid = Grid("EPSG:32736", 500_000.0, 9_800_000.0, 10.0, 80, 80)
    rng = np.random.default_rng(0)
    s2 = rng.integers(300, 500, (4, 80, 80)).astype(np.uint16)
    s2[2, :, :40] = 3000  # red in the west
    s2[:, :10, :10] = 0
    raster.write(tmp_path / "s2.tif", s2, grid, ["B02", "B03", "B04", "B08"], 0)
    picture = pixels(thumbnail(tmp_path / "s2.tif", "rgb", max_px=80))
    assert picture.shape == (80, 80, 3)
    assert (picture[50, 20] - picture[50, 60])[0] > 150
    assert np.abs(picture[5, 5] - GREY).max() <= 1
    s1 = np.full((2, 80, 80), -1200, np.int16)
    s1[0, :, 40:] = -600
    s1[:, :10, :10] = -32768
    raster.write(tmp_path / "s1.tif", s1, grid, ["VV", "VH"], -32768, scale=0.01)
    picture = pixels(thumbnail(tmp_path / "s1.tif", "sar", max_px=80))
    assert picture[50, 60, 0] > picture[50, 20, 0]
    assert np.abs(picture[5, 5] - GREY).max() <= 1


def test_neighbouring_units_differ_and_no_unit_is_grey():
    units = np.arange(100, dtype=np.uint32).repeat(2).reshape(1, 200).repeat(20, 0)
    picture = pixels(thumbnail(units, "units", max_px=200))
    assert np.abs(picture[10, 0] - GREY).max() <= 1
    centres = picture[10, 2::2]
    assert np.abs(np.diff(centres, axis=0)).max(axis=1).min() > 40


def test_large_rasters_are_read_small(tmp_path, monkeypatch):
    grid = Grid("EPSG:32736", 500_000.0, 9_800_000.0, 10.0, 3000, 2000)
    values = np.ones(grid.shape, np.float32)
    values[:, :1500] = np.nan
    raster.write(tmp_path / "p.tif", values, grid, ["people"], np.nan)
    read = {}
    shrunk = pictures._shrunk
    monkeypatch.setattr(
        pictures, "_shrunk", lambda v, *a, **k: read.update(shape=v.shape) or shrunk(v, *a, **k)
    )
    picture = pixels(thumbnail(tmp_path / "p.tif", "population", max_px=300, title="people"))
    assert read["shape"] == (200, 300)
    assert picture.shape[0] == 200 + 26
    array = thumbnail(values, "population", max_px=300)
    assert read["shape"] == (2000, 3000)
    assert pixels(array).shape[0] == 200


def test_the_same_bytes_twice_and_no_sense_refused():
    values = np.random.default_rng(0).random((30, 20))
    assert thumbnail(values, "builtup") == thumbnail(values, "builtup")
    assert thumbnail(np.full((5, 5), np.nan), "population").startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="'rgb' of an array of shape"):
        thumbnail(values, "rgb")


def test_people_in_town_are_told_apart():
    """Each class has its colour, from a hamlet to blocks of flats, whatever else is on the map."""
    people = np.array([0.5, 1.5, 3, 7, 15, 30, 70, 150, 300, 900])[None].repeat(10, 0)
    shown = pixels(thumbnail(people.repeat(10, 1), "population", pixels_per_hectare=1, max_px=100))
    colours = [tuple(shown[5, 10 * i + 5]) for i in range(10)]
    assert len(set(colours)) == 10
    brightness = np.array(colours) @ (0.299, 0.587, 0.114)
    assert np.all(np.diff(brightness) < 0)


@pytest.mark.parametrize(
    ("grid", "metres"),
    [
        (Grid("EPSG:32736", 500_000.0, 9_800_000.0, 10.0, 400, 300), 4000),
        (Grid("EPSG:4326", 30.0, 0.5, 10 * EARTH_ENGINE_10M_DEG, 400, 300), 40_000),
        (Grid("EPSG:4326", 30.0, 60.0, 10 * EARTH_ENGINE_10M_DEG, 400, 300), 20_000),
    ],
)
def test_the_scale_bar_is_as_long_as_it_says(grid, metres):
    share, told = pictures._Scale.of(grid).bar()
    number, unit = told.split()
    length = float(number) * {"m": 1, "km": 1000}[unit]
    assert length == pytest.approx(share * metres, rel=0.02)
    assert 0.05 < share <= 0.25


def test_borders_of_units_are_drawn_unless_they_would_hide_the_map(tmp_path):
    grid = Grid("EPSG:32736", 500_000.0, 9_800_000.0, 10.0, 200, 200)
    raster.write(tmp_path / "p.tif", np.zeros(grid.shape, np.float32), grid, ["people"], np.nan)
    halves = np.ones(grid.shape, np.uint32)
    halves[:, 100:] = 2
    raster.write(tmp_path / "u.tif", halves, grid, ["units"], 0)
    many = np.arange(40_000, dtype=np.uint32).reshape(grid.shape) + 1
    raster.write(tmp_path / "many.tif", many, grid, ["units"], 0)
    moved = Grid("EPSG:32736", 600_000.0, 9_800_000.0, 10.0, 200, 200)
    raster.write(tmp_path / "moved.tif", halves, moved, ["units"], 0)
    plain = map_of(thumbnail(tmp_path / "p.tif", "population", max_px=200))
    drawn = {
        name: map_of(thumbnail(tmp_path / "p.tif", "population", max_px=200, units=tmp_path / name))
        for name in ("u.tif", "many.tif", "moved.tif")
    }
    changed = np.abs(drawn["u.tif"] - plain).max(axis=(0, 2))
    assert set(np.flatnonzero(changed > 10)) <= {98, 99, 100}
    assert changed.max() > 40
    for name in ("many.tif", "moved.tif"):
        np.testing.assert_array_equal(drawn[name], plain)
