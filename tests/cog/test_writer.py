"""The writer of rasters, held against GDAL: values, levels, nodata, tags; always the same bytes.

GDAL reads what is written here, writes the same with its own driver, and rio-cogeo judges the file.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from hypothesis import given, settings
from hypothesis import strategies as st
from rio_cogeo import cog_validate

from popcorn_ml import raster
from popcorn_ml.cog import blocks, layout, parts
from popcorn_ml.cog.profile import BLOCK_PX, Profile
from popcorn_ml.errors import RasterError
from popcorn_ml.grid import Grid, Window
from popcorn_ml.raster import CogWriter, together

NODATA = {"float32": np.nan, "float64": np.nan, "uint16": 0, "int16": -32768, "uint8": 255}


def grid_of_size(height, width):
    return Grid("EPSG:32736", 500_000, 9_800_000, 10, width, height)


def made(seed, bands, height, width, dtype):
    """Values with holes of single pixels and of whole regions."""
    rng = np.random.default_rng(seed)
    if dtype.startswith("float"):
        values = (rng.normal(size=(bands, height, width)) * 5).astype(dtype)
    else:
        low, high = {"uint8": (0, 255), "uint16": (1, 4000), "int16": (-3000, 500)}[dtype]
        values = rng.integers(low, high, (bands, height, width)).astype(dtype)
    values[rng.random(values.shape) < 0.2] = NODATA[dtype]
    values[:, : height // 3, : width // 4] = NODATA[dtype]
    return values


def shared(desk, values, window):
    with desk.share() as share:
        share.write(values, window)
        return share.finish()


def names(bands):
    return [f"band {i}" for i in range(1, bands + 1)]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 700), st.integers(1, 700), st.integers(1, 5), st.sampled_from(sorted(NODATA)),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_gdal_reads_what_was_written(tmp_path_factory, height, width, bands, dtype, seed):
    """Any size, type and number of bands, in windows of any size: each pixel as it was given."""
    path = tmp_path_factory.mktemp("cog") / "a.tif"
    values, grid = made(seed, bands, height, width, dtype), grid_of_size(height, width)
    side = np.random.default_rng(seed).integers(max(height, width) // 6 + 1, 800)
    with CogWriter(
        path, grid, names(bands), dtype, NODATA[dtype], scale=0.01, tags={"year": 2021}
    ) as out:
        for tile in grid.tiles(int(side)):
            out.write(values[(slice(None), *tile.core.slices)], tile.core)
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(dataset.read(), values)
        np.testing.assert_equal(dataset.nodata, NODATA[dtype])
        assert dataset.dtypes == (dtype,) * bands
        assert dataset.descriptions == tuple(names(bands))
        assert dataset.scales == (0.01,) * bands
        assert dataset.tags()["year"] == "2021"
    assert raster.grid_of(path) == grid
    if min(height, width) == 1:
        return  # of which GDAL says that a level is smaller by a factor of one
    valid, errors, warnings = cog_validate(path, strict=True)
    assert valid, (errors, warnings)


@pytest.mark.parametrize("dtype", [*NODATA, "nearest"])
@pytest.mark.parametrize("size", [(540, 620), (1024, 512), (257, 257), (300, 1)])
def test_the_levels_are_those_of_gdal(tmp_path, dtype, size):
    """Means of what has a value, as GDAL's own driver makes them; of identifiers the first."""
    resampling = "nearest" if dtype == "nearest" else "average"
    dtype = "uint16" if dtype == "nearest" else dtype
    grid, values = grid_of_size(*size), made(1, 2, *size, dtype)
    raster.write(tmp_path / "a.tif", values, grid, names(2), NODATA[dtype], resampling=resampling)
    plain, theirs = tmp_path / "plain.tif", tmp_path / "b.tif"
    with rasterio.open(
        plain, "w", driver="GTiff", width=size[1], height=size[0], count=2, dtype=dtype,
        nodata=NODATA[dtype], crs=grid.crs, transform=rasterio.Affine(*grid.transform),
    ) as dataset:  # fmt: skip
        dataset.write(values)
    rasterio.shutil.copy(
        plain, theirs, driver="COG", BLOCKSIZE="256", OVERVIEW_RESAMPLING=resampling.upper()
    )
    with rasterio.open(tmp_path / "a.tif") as one, rasterio.open(theirs) as other:
        np.testing.assert_equal(dict(one.profile), {**other.profile, "compress": "deflate"})
        levels = len(one.overviews(1))
        assert one.overviews(1) == other.overviews(1)
    for level in range(levels):
        with (
            rasterio.open(tmp_path / "a.tif", overview_level=level) as one,
            rasterio.open(theirs, overview_level=level) as other,
        ):
            shape = one.height, one.width
            if max(size) % 2 ** (level + 1):  # GDAL drops or stretches what is odd at the edge
                assert shape == tuple(-(-side // 2 ** (level + 1)) for side in size)
                continue
            found, wanted = one.read(masked=True), other.read(masked=True)
            np.testing.assert_array_equal(
                np.ma.getmaskarray(found), np.ma.getmaskarray(wanted), str(level)
            )
            tolerance = 1e-5 if dtype.startswith("float") else 0
            np.testing.assert_allclose(
                found.filled(0).astype(float), wanted.filled(0).astype(float), atol=tolerance
            )


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 600), st.integers(1, 600), st.integers(0, 2**32 - 1))
def test_levels_conserve_people_where_all_have_a_value(tmp_path_factory, height, width, seed):
    """Four times a coarser pixel is the four it stands for; at an odd edge twice, or once."""
    path = tmp_path_factory.mktemp("cog") / "a.tif"
    values = np.random.default_rng(seed).random((1, height, width)).astype(np.float32)
    raster.write(path, values, grid_of_size(height, width), ["people"], np.nan)
    with rasterio.open(path) as dataset:
        levels = len(dataset.overviews(1))
    for level in range(levels):
        with rasterio.open(path, overview_level=level) as overview:
            found = overview.read(1).astype(np.float64)
        side = 2 ** (level + 1)
        if height % side or width % side:
            continue
        assert found.sum() * side**2 == pytest.approx(values.sum(dtype=np.float64), rel=1e-6)


def test_bytes_depend_on_the_pixels_alone(tmp_path):
    """Any order of windows of any size, any number of threads, shares of others: one file."""
    grid, values = grid_of_size(1100, 1300), made(2, 3, 1100, 1300, "float32")

    def write(name, side, threads, seed, shares=False):
        tiles = list(grid.tiles(side))
        np.random.default_rng(seed).shuffle(tiles)
        with CogWriter(tmp_path / name, grid, names(3), "float32", np.nan) as out:

            def one(tile):
                piece = values[(slice(None), *tile.core.slices)]
                if shares:
                    out.take(shared(out.desk, piece, tile.core))
                else:
                    out.write(piece, tile.core)

            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(one, tiles))
        return (tmp_path / name).read_bytes()

    whole = write("whole.tif", 2000, 1, 0)
    assert write("blocks.tif", 256, 4, 1) == whole
    assert write("odd.tif", 117, 3, 2) == whole
    assert write("shares.tif", 512, 2, 3, shares=True) == whole
    assert write("odd_shares.tif", 333, 2, 4, shares=True) == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["whole.tif", "blocks.tif", "odd.tif", "shares.tif", "odd_shares.tif"]
    )


def test_a_share_is_plain_and_another_try_of_it_does_no_harm(tmp_path):
    import pickle

    grid, values = grid_of_size(300, 700), made(3, 1, 300, 700, "float32")
    with CogWriter(tmp_path / "a.tif", grid, ["people"], "float32", np.nan) as out:
        desk = pickle.loads(pickle.dumps(out.desk))
        for tile in grid.tiles(512):
            piece = values[(slice(None), *tile.core.slices)]
            shared(desk, piece, tile.core)  # by a worker that then died
            share = pickle.dumps(shared(desk, piece, tile.core))
            assert len(share) < 3000
            out.take(pickle.loads(share))
    raster.write(tmp_path / "b.tif", values, grid, ["people"], np.nan)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_pixels_are_written_once(tmp_path):
    grid = grid_of_size(300, 300)
    with (
        pytest.raises(ValueError, match="twice"),
        CogWriter(tmp_path / "a.tif", grid, ["a"], "uint8", 255) as out,
    ):
        for _ in range(2):
            out.write(np.zeros((300, 300), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_pixels_never_written_have_no_value(tmp_path):
    grid = grid_of_size(600, 300)
    with CogWriter(tmp_path / "a.tif", grid, ["a"], "float32", np.nan) as out:
        out.write(np.ones((100, 50), np.float32), Window(200, 30, 100, 50))
    found = raster.read_float(tmp_path / "a.tif", bands=1)
    assert np.nansum(found) == 5000
    assert np.isnan(found).sum() == found.size - 5000


def test_a_file_of_more_than_four_gigabytes_is_laid_out_as_a_bigtiff(tmp_path, monkeypatch):
    """The limit lowered instead of so large a file."""
    grid, values = grid_of_size(600, 700), made(4, 2, 600, 700, "int16")
    monkeypatch.setattr(layout, "CLASSIC_LIMIT", 100_000)
    raster.write(tmp_path / "a.tif", values, grid, names(2), -32768, tags={"a": "b"})
    assert (tmp_path / "a.tif").read_bytes()[:4] == b"II+\0"
    np.testing.assert_array_equal(raster.read(tmp_path / "a.tif"), values)
    assert raster.tags(tmp_path / "a.tif") == {"a": "b"}
    valid, errors, warnings = cog_validate(tmp_path / "a.tif", strict=True)
    assert valid, (errors, warnings)


def test_drafts_take_no_more_room_than_the_raster(tmp_path, monkeypatch):
    """Files of blocks go while they are copied."""
    monkeypatch.setattr(parts, "FILE_BYTES", 1 << 18)
    grid, values = grid_of_size(1500, 1500), made(5, 2, 1500, 1500, "float32")
    sizes = []
    released = parts.Parts.release

    def release(self, kept):
        released(self, kept)
        sizes.append(sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file()))

    monkeypatch.setattr(parts.Parts, "release", release)
    raster.write(tmp_path / "a.tif", values, grid, names(2), np.nan)
    assert max(sizes) < 1.1 * (tmp_path / "a.tif").stat().st_size


def test_a_block_that_changed_on_disk_is_found(tmp_path):
    grid = grid_of_size(300, 300)
    with (
        pytest.raises(RasterError, match=r"a\.tif: the raster could not be written"),
        CogWriter(tmp_path / "a.tif", grid, ["a"], "float32", np.nan) as out,
    ):
        out.write(np.ones((300, 300), np.float32))
        (draft,) = list(tmp_path.rglob("blocks-000000"))
        with draft.open("r+b") as file:
            file.seek(10)
            file.write(b"\xff")
    assert list(tmp_path.iterdir()) == []


def test_files_together_appear_together(tmp_path):
    grid = grid_of_size(300, 300)
    one, other = (CogWriter(tmp_path / f"{n}.tif", grid, ["a"], "uint8", 255) for n in "ab")
    with pytest.raises(RasterError, match=r"b\.tif"), together(one, other):
        for writer in (one, other):
            writer.write(np.zeros((300, 300), np.uint8))
        next(tmp_path.glob(".b.*/blocks-*")).write_bytes(b"")
    assert list(tmp_path.iterdir()) == []
    one, other = (CogWriter(tmp_path / f"{n}.tif", grid, ["a"], "uint8", 255) for n in "ab")
    with together(one, other):
        one.write(np.zeros((300, 300), np.uint8))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tif", "b.tif"]


def test_a_write_that_was_killed_leaves_nothing_under_the_name(tmp_path):
    """And the next write is as if the first had not been."""
    text = f"""
import numpy as np, os, signal
from popcorn_ml import raster
from popcorn_ml.grid import Grid
grid = Grid("EPSG:32736", 500_000, 9_800_000, 10, 600, 600)
with raster.CogWriter({str(tmp_path / "a.tif")!r}, grid, ["a"], "float32", np.nan) as out:
    out.write(np.ones((600, 600), np.float32))
    os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", text], env=os.environ.copy())
    assert ended.returncode == -signal.SIGKILL
    assert not (tmp_path / "a.tif").exists()
    assert all(path.name.startswith(".a.") for path in tmp_path.iterdir())
    raster.write(tmp_path / "a.tif", np.ones((5, 5), np.float32), grid_of_size(5, 5), ["a"], np.nan)
    raster.check(tmp_path / "a.tif", readable=True)


@pytest.mark.parametrize("dtype", ["float32", "uint16"])
def test_a_block_of_one_number_is_as_any_other(dtype):
    """It is encoded once and taken again; to the byte what it would have been."""
    side = BLOCK_PX
    profile = Profile(2 * side, 2 * side, 3, dtype, 0, "average")
    for number, rows, cols in ((0, side, side), (7, side, 88), (7, 188, side), (0, side, side)):
        values = np.full((3, rows, cols), number, profile.numpy_dtype)
        filled = np.full((3, side, side), number, profile.numpy_dtype)
        direct = blocks._deflated(filled, profile.numpy_dtype, 3, profile.predictor)
        assert blocks.encoded(values, profile) == direct
    values[1, 30, 2] = 1
    assert blocks.encoded(values, profile) != direct
    holes = np.full((3, side, side), np.nan, "<f4")
    assert blocks._everywhere(holes) is not None
