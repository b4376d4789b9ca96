"""Composites that exist already: the published layout, taken over without loss."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine, from_origin

from popcorn_ml import raster
from popcorn_ml.errors import ConfigError, GridMismatch, ImageryError, RasterError
from popcorn_ml.grid import Grid, Window
from popcorn_ml.imagery.assets import AssetReader
from popcorn_ml.imagery.build import build_season, fill_gaps
from popcorn_ml.imagery.checks import check_value_ranges, season_checks
from popcorn_ml.imagery.nearest import TileCoordinates
from popcorn_ml.imagery.placement import covered_px
from popcorn_ml.imagery.remote import AssetLost
from popcorn_ml.imagery.settings import ImagerySettings
from popcorn_ml.imagery.source import Traffic
from popcorn_ml.sentinel import SEASONS

GRID = Grid("EPSG:32736", 500000, 9800000, 10, 60, 50)


def settings_for(root: Path, region: str = "rwa", **options) -> ImagerySettings:
    return ImagerySettings.parse(
        {"source": "files", "files": {"root": str(root), "region": region, **options}}
    )


def place_file(root: Path, kind: str, season: str, region: str = "rwa", suffix: str = "") -> Path:
    path = root / "merged" / "EE" / region / f"{kind}{season}{suffix}"
    path.mkdir(parents=True, exist_ok=True)
    return path / f"{region}_{kind}{season}{suffix}.tif"


def write(path: Path, values: np.ndarray, grid: Grid = GRID, nodata=None, names=None) -> Path:
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=values.shape[1],
        width=values.shape[2],
        count=len(values),
        dtype=values.dtype,
        crs=grid.crs,
        transform=from_origin(grid.west, grid.north, grid.step, grid.step),
        nodata=nodata,
    ) as out:
        out.write(values)
        for place, name in enumerate(names or (), start=1):
            out.set_band_description(place, name)
    return path


def build(root: Path, sensor: str, out: Path, grid: Grid = GRID, season="spring", **options):
    return build_season(
        sensor, season, 2020, grid, settings_for(root, **options), out, out.parent / "scratch"
    )


def test_the_real_chip_is_taken_over_without_loss(real_dir: Path, tmp_path: Path) -> None:
    """Real Sentinel-1 in dB and Sentinel-2 with thirteen bands, in the published layout."""
    grid = raster.grid_of(real_dir / "spain" / "s1_grd_db.tif")
    for season in SEASONS:
        shutil.copy(
            real_dir / "spain" / "s1_grd_db.tif", place_file(tmp_path, "S1", season, "spain")
        )
        shutil.copy(real_dir / "spain" / "s2_l1c.tif", place_file(tmp_path, "S2A", season, "spain"))
    settings = settings_for(tmp_path, "spain")
    folders: dict[str, dict] = {"s1": {}, "s2": {}}
    for sensor in ("s1", "s2"):
        for season in SEASONS:
            folders[sensor][season] = tmp_path / f"{sensor}_{season}"
            report = build_season(
                sensor, season, 2020, grid, settings, folders[sensor][season], tmp_path / "scratch"
            )
    db = raster.read_float(real_dir / "spain" / "s1_grd_db.tif")
    ours = raster.read(folders["s1"]["spring"] / "composite.tif", grid=grid)
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours, db)  # bit for bit, NaN where it was
    numbers = raster.read(real_dir / "spain" / "s2_l1c.tif", bands=[2, 3, 4, 8])
    reflectance = raster.read(folders["s2"]["winter"] / "composite.tif", grid=grid)
    assert reflectance.dtype == np.uint16
    np.testing.assert_array_equal(reflectance, numbers)
    assert [scene["id"] for scene in report.scenes] == ["spain_S2Awinter"]
    assert report.scenes[0]["datetime"] is None
    for sensor, expected in (("s1", db), ("s2", numbers)):
        filled = fill_gaps(sensor, folders[sensor], grid, settings, tmp_path / f"{sensor}_filled")
        np.testing.assert_array_equal(
            raster.read(tmp_path / f"{sensor}_filled" / "summer.tif"), expected
        )
        assert filled.shares["autumn"]["VV" if sensor == "s1" else "B08"]["observed"] == 1.0


def test_bands_by_description_whatever_their_order(tmp_path: Path) -> None:
    """The order of a file's bands is its own: names decide."""
    values = np.stack([np.full((50, 60), n, np.uint16) for n in (4, 3, 2, 8)])
    write(place_file(tmp_path, "S2A", "spring"), values, names=["B4", "B3", "B2", "B8"])
    build(tmp_path, "s2", tmp_path / "out")
    ours = raster.read(tmp_path / "out" / "composite.tif")
    assert ours[:, 0, 0].tolist() == [2, 3, 4, 8]


def test_bands_without_description_are_in_the_published_order(tmp_path: Path) -> None:
    """B2, B3, B4, B8: the published loader reads red, green, blue from bands 3, 2, 1."""
    values = np.stack([np.full((50, 60), n, np.uint16) for n in (2, 3, 4, 8)])
    write(place_file(tmp_path, "S2A", "spring"), values)
    build(tmp_path, "s2", tmp_path / "a")
    assert raster.read(tmp_path / "a" / "composite.tif")[:, 0, 0].tolist() == [2, 3, 4, 8]
    write(place_file(tmp_path, "S2A", "spring"), values[[2, 1, 0, 3]])
    build(tmp_path, "s2", tmp_path / "b", s2_bands=["B04", "B03", "B02", "B08"])
    assert raster.read(tmp_path / "b" / "composite.tif")[:, 0, 0].tolist() == [2, 3, 4, 8]


def test_fractions_and_nodata_survive(tmp_path: Path) -> None:
    """Medians of even counts end on .5: float reflectance stays float, 0 and NaN are nodata."""
    values = np.full((4, 50, 60), 1234.5, np.float32)
    values[:, 0, 0], values[:, 0, 1], values[1, 0, 2] = 0, np.nan, -7
    write(place_file(tmp_path, "S2A", "spring"), values, nodata=-7)
    report = build(tmp_path, "s2", tmp_path / "out")
    ours = raster.read(tmp_path / "out" / "composite.tif")
    assert ours.dtype == np.float32
    assert np.isnan(ours[:, 0, :2]).all()
    assert np.isnan(ours[1, 0, 2])
    assert ours[0, 0, 2] == ours[3, 40, 40] == 1234.5
    clear = raster.read(tmp_path / "out" / "clear_count.tif", bands=1)
    assert clear[0, :4].tolist() == [0, 0, 0, 1]
    assert report.nodata_share == pytest.approx(3 / 3000)


def test_ascending_stands_beside_descending(tmp_path: Path) -> None:
    values = np.full((2, 50, 60), -10, np.float32)
    values[:, :, :20] = np.nan
    write(place_file(tmp_path, "S1", "spring"), values, names=["VV", "VH"])
    report = build(tmp_path, "s1", tmp_path / "alone")
    assert report.files == ["composite.tif", "clear_count.tif"]
    write(
        place_file(tmp_path, "S1", "spring", suffix="Asc"),
        np.full((2, 50, 60), -12, np.float32),
        names=["VV", "VH"],
    )
    report = build(tmp_path, "s1", tmp_path / "both")
    other = raster.read(tmp_path / "both" / "other_orbit.tif")
    assert (other[:, :, :20] == -12).all()
    assert np.isnan(other[:, :, 20:]).all()
    assert report.other_orbit["share"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("filler", [0.0, -9999.0, -99.99, -np.inf, np.inf])
def test_missing_backscatter_without_a_tag_is_no_observation(tmp_path: Path, filler: float) -> None:
    """Earth Engine's exports carry no nodata tag: masked pixels are 0, or what unmask() put."""
    values = np.random.default_rng(0).normal(-14, 3, (2, 50, 60)).astype(np.float32)
    values[:, :, :3] = filler
    values[0, 0, 10], values[1, 0, 11] = 0, -75  # 0 dB in one band, noise above signal: both real
    write(place_file(tmp_path, "S1", "spring"), values)
    report = build(tmp_path, "s1", tmp_path / "out")
    ours = raster.read(tmp_path / "out" / "composite.tif")
    assert np.isnan(ours[:, :, :3]).all()
    np.testing.assert_array_equal(ours[:, :, 3:], values[:, :, 3:])
    assert report.nodata_share == report.clear["none_share"] == pytest.approx(0.05)
    assert check_value_ranges(report.as_dict(), ImagerySettings()).passed


@pytest.mark.parametrize(
    ("filler", "tag"), [(-32768, None), (0, None), (-9999, None), (-9999, -9999), (7, 7)]
)
def test_missing_hundredths_of_decibels(tmp_path: Path, filler: int, tag: int | None) -> None:
    values = np.random.default_rng(0).integers(-2000, -500, (2, 50, 60)).astype(np.int16)
    values[:, :, :3] = filler
    file = write(place_file(tmp_path, "S1", "spring"), values, nodata=tag)
    with rasterio.open(file, "r+") as dataset:
        dataset.scales = (0.01, 0.01)
    build(tmp_path, "s1", tmp_path / "out")
    ours = raster.read(tmp_path / "out" / "composite.tif")
    assert ours.dtype == np.int16
    assert (ours[:, :, :3] == -32768).all()
    np.testing.assert_array_equal(ours[:, :, 3:], values[:, :, 3:])


def test_missing_reflectance_without_a_tag(tmp_path: Path) -> None:
    """A dark pixel may be below 0 once its offset is off; -9999 is none."""
    values = np.full((4, 50, 60), 1234.5, np.float32)
    values[:, 0, 0], values[:, 0, 1] = -9999, -20
    write(place_file(tmp_path, "S2A", "spring"), values)
    build(tmp_path, "s2", tmp_path / "out")
    ours = raster.read(tmp_path / "out" / "composite.tif")
    assert np.isnan(ours[:, 0, 0]).all()
    assert (ours[:, 0, 1] == -20).all()


def test_an_asset_of_several_bands_is_not_read_as_its_first(tmp_path: Path) -> None:
    reader = AssetReader(TileCoordinates(GRID))
    one = write(tmp_path / "one.tif", np.full((1, 50, 60), 7, np.uint16))
    assert (reader.read(str(one), 0, Traffic()) == 7).all()
    two = write(tmp_path / "two.tif", np.full((2, 50, 60), 7, np.uint16))
    with pytest.raises(AssetLost, match="2 bands"):
        reader.read(str(two), 0, Traffic())


@pytest.mark.parametrize("inside", [True, False])
def test_what_the_files_mask_hides_is_no_observation(inside: bool, tmp_path: Path) -> None:
    path = write(place_file(tmp_path, "S2A", "spring"), np.full((4, 50, 60), 1234, np.uint16))
    seen = np.full((50, 60), 255, np.uint8)
    seen[:7, 3] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside), rasterio.open(path, "r+") as out:
        out.write_mask(seen)
    build(tmp_path, "s2", tmp_path / "out")
    ours = raster.read(tmp_path / "out" / "composite.tif")
    np.testing.assert_array_equal(ours, np.broadcast_to(np.where(seen, 1234, 0), ours.shape))


@pytest.mark.parametrize("orbit", ["descending", "ascending"])
@pytest.mark.parametrize("other", [True, False])
def test_a_layout_of_one_orbit(tmp_path: Path, orbit: str, other: bool) -> None:
    """Files of ascending passes alone: they are the composite, or stand in for the other orbit."""
    values = np.random.default_rng(0).normal(-14, 3, (2, 50, 60)).astype(np.float32)
    file = write(place_file(tmp_path, "S1", "spring", suffix="Asc"), values, names=["VV", "VH"])
    settings = ImagerySettings.parse(
        {
            "source": "files",
            "files": {"root": str(tmp_path), "region": "rwa"},
            "s1_orbit": orbit,
            "s1_other_orbit": other,
        }
    )
    out = tmp_path / "out"
    if orbit == "descending" and not other:
        with pytest.raises(ImageryError, match="not a single scene") as failure:
            build_season("s1", "spring", 2020, GRID, settings, out, tmp_path / "scratch")
        assert str(file).replace("Asc", "") in str(failure.value)
        assert str(file) not in str(failure.value)
        return
    report = build_season("s1", "spring", 2020, GRID, settings, out, tmp_path / "scratch")
    held = "other_orbit.tif" if orbit == "descending" else "composite.tif"
    np.testing.assert_array_equal(raster.read(out / held), values)
    assert report.nodata_share == (1.0 if orbit == "descending" else 0.0)
    results = season_checks(out, report.as_dict(), GRID, settings)
    assert not [one for one in results if not one.passed and one.severity == "error"]


def test_neither_orbit_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ImageryError, match="not a single scene") as failure:
        build(tmp_path, "s1", tmp_path / "out")
    for suffix in ("", "Asc"):
        assert f"S1spring{suffix}/rwa_S1spring{suffix}.tif" in str(failure.value)


def test_orbits_of_two_encodings_are_brought_to_one(tmp_path: Path) -> None:
    """Hundredths of dB beside dB: what stands in is in the unit of what it stands in for."""
    file = write(
        place_file(tmp_path, "S1", "spring", suffix="Asc"),
        np.full((2, 50, 60), -1250, np.int16),
        nodata=-32768,
    )
    with rasterio.open(file, "r+") as dataset:
        dataset.scales = (0.01, 0.01)
    values = np.full((2, 50, 60), -10, np.float32)
    values[:, :, :20] = np.nan
    write(place_file(tmp_path, "S1", "spring"), values)
    build(tmp_path, "s1", tmp_path / "out")
    other = raster.read(tmp_path / "out" / "other_orbit.tif")
    assert (other[:, :, :20] == -12.5).all()
    assert np.isnan(other[:, :, 20:]).all()


def test_any_number_of_tiles_is_read_and_none_rewritten(tmp_path: Path) -> None:
    """Fault 14: sixteen or more tiles were never merged, and the sources rewritten in place."""
    rng = np.random.default_rng(0)
    whole = rng.integers(1, 4000, (4, 50, 60)).astype(np.uint16)
    folder = place_file(tmp_path, "S2A", "spring").parent
    before = {}
    for row in range(0, 50, 10):
        for col in range(0, 60, 15):
            part = GRID.subgrid(Window(row, col, 10, 15))
            path = folder / f"rwa-{row:05d}-{col:05d}.tif"
            write(path, whole[:, row : row + 10, col : col + 15], part)
            before[path] = path.read_bytes()
    assert len(before) == 20
    report = build(tmp_path, "s2", tmp_path / "out")
    np.testing.assert_array_equal(raster.read(tmp_path / "out" / "composite.tif"), whole)
    assert len(report.scenes) == 20
    assert {path: path.read_bytes() for path in before} == before


def test_overlapping_files_cover_a_place_once(tmp_path: Path) -> None:
    """Three files of the same 55 % of the grid are not 165 % of it."""
    left = Grid(GRID.crs, GRID.west, GRID.north, 10, 33, 50)
    for number in range(3):
        values = np.full((4, 50, 33), 500 + number, np.uint16)
        write(place_file(tmp_path, "S2A", "spring").with_name(f"{number}.tif"), values, left)
    with pytest.raises(GridMismatch, match="covers too little") as failure:
        build(tmp_path, "s2", tmp_path / "out")
    assert "55.0%" in str(failure.value)
    report = build(tmp_path, "s2", tmp_path / "out", min_coverage=0.5)
    assert [scene["id"] for scene in report.scenes] == ["0"]  # the others lie below it
    assert (raster.read(tmp_path / "out" / "composite.tif")[:, :, :33] == 500).all()


@pytest.mark.parametrize(
    ("windows", "covered"),
    [
        ([], 0),
        ([Window(0, 0, 4, 4)] * 3, 16),
        ([Window(0, 0, 4, 4), Window(2, 2, 4, 4)], 28),
        ([Window(0, 0, 2, 9), Window(5, 0, 2, 9), Window(0, 3, 7, 1)], 39),
        ([Window(0, 0, 2, 2), Window(0, 2, 2, 2), Window(2, 0, 2, 4)], 16),
    ],
)
def test_every_pixel_counts_once(windows: list[Window], covered: int) -> None:
    field = np.zeros((10, 10), bool)
    for window in windows:
        field[window.slices] = True
    assert covered_px(windows) == field.sum() == covered


def test_files_drawn_from_the_south(tmp_path: Path) -> None:
    """As some tools write them; with sides that differ in the last digits, too."""
    values = np.arange(1, 4 * 50 * 60 + 1, dtype=np.uint16).reshape(4, 50, 60)
    path = place_file(tmp_path, "S2A", "spring")
    south = GRID.bounds[1]
    with rasterio.open(
        path, "w", driver="GTiff", height=50, width=60, count=4, dtype="uint16", crs=GRID.crs,
        transform=Affine(10, 0, GRID.west, 0, 10.00001, south - 0.0005),
    ) as out:  # fmt: skip
        out.write(values[:, ::-1])
    build(tmp_path, "s2", tmp_path / "out")
    np.testing.assert_array_equal(raster.read(tmp_path / "out" / "composite.tif"), values)


def test_a_larger_file_and_one_that_falls_short_at_the_edge(tmp_path: Path) -> None:
    whole = np.arange(4 * 70 * 80, dtype=np.uint16).reshape(4, 70, 80) + 1
    larger = Grid(GRID.crs, GRID.west - 100, GRID.north + 50, 10, 80, 70)
    write(place_file(tmp_path, "S2A", "spring"), whole, larger)
    build(tmp_path, "s2", tmp_path / "larger")
    np.testing.assert_array_equal(
        raster.read(tmp_path / "larger" / "composite.tif"), whole[:, 5:55, 10:70]
    )
    short = Grid(GRID.crs, GRID.west + 20, GRID.north, 10, 58, 50)
    write(place_file(tmp_path, "S2A", "spring"), whole[:, :50, :58], short)
    report = build(tmp_path, "s2", tmp_path / "short")
    ours = raster.read(tmp_path / "short" / "composite.tif")
    assert not ours[:, :, :2].any()
    np.testing.assert_array_equal(ours[:, :, 2:], whole[:, :50, :58])
    assert report.nodata_share == pytest.approx(2 / 60, abs=1e-6)


@pytest.mark.parametrize(
    "grid",
    [
        Grid("EPSG:32736", 500005, 9800000, 10, 60, 50),
        Grid("EPSG:32735", 500000, 9800000, 10, 60, 50),
        Grid("EPSG:32736", 500000, 9800000, 20, 60, 50),
        Grid("EPSG:32736", 500000, 9800000, 10, 30, 50),
        Grid("EPSG:32736", 900000, 9800000, 10, 60, 50),
    ],
    ids=["half a pixel off", "another CRS", "another step", "half the country", "elsewhere"],
)
def test_another_grid_is_refused(tmp_path: Path, grid: Grid) -> None:
    file = write(
        place_file(tmp_path, "S2A", "spring"), np.ones((4, 50, grid.width), np.uint16), grid
    )
    with pytest.raises(GridMismatch) as failure:
        build(tmp_path, "s2", tmp_path / "out")
    assert str(file) in str(failure.value)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_what_cannot_be_used_says_so(tmp_path: Path) -> None:
    with pytest.raises(ImageryError, match="no composite of s2 spring 2020"):
        build(tmp_path, "s2", tmp_path / "out")
    file = place_file(tmp_path, "S2A", "spring")
    write(file, np.ones((5, 50, 60), np.uint16))
    with pytest.raises(RasterError, match="cannot be told apart") as failure:
        build(tmp_path, "s2", tmp_path / "out")
    assert str(file) in str(failure.value)
    write(file, np.ones((4, 50, 60), np.uint16), names=["B4", "B3", "B2", "B11"])
    with pytest.raises(RasterError, match="cannot be told apart"):
        build(tmp_path, "s2", tmp_path / "out")
    write(file, np.full((4, 50, 60), -5, np.int16))
    with pytest.raises(RasterError, match="not reflectance"):
        build(tmp_path, "s2", tmp_path / "out")
    file.write_bytes(file.read_bytes()[:9000])
    with pytest.raises(RasterError) as failure:
        build(tmp_path, "s2", tmp_path / "out")
    assert str(file) in str(failure.value)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
    with pytest.raises(ConfigError, match="needs its root"):
        build_season(
            "s2", "spring", 2020, GRID, ImagerySettings.parse({"source": "files"}),
            tmp_path / "out", tmp_path / "scratch",
        )  # fmt: skip
