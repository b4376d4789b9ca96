"""One season from scenes on disk: pixels, determinism, resuming, boundaries, orbits, losses."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from shapely import box

from popcorn_ml import raster
from popcorn_ml.errors import ConfigError, ImageryError
from popcorn_ml.imagery.assembling import NOT_ASKED_FOR
from popcorn_ml.imagery.build import build_season
from popcorn_ml.imagery.settings import ImagerySettings
from popcorn_ml.imagery.sources import stac
from tests.imagery import plain
from tests.imagery.conftest import YEAR, Place

pytestmark = pytest.mark.long(20)


def digest(folder: Path) -> dict[str, str]:
    """sha256 of every file."""
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(folder.iterdir())}


def build(place: Place, tmp_path: Path, sensor: str, season: str = "spring", **options):
    """Build a season into tmp_path/out; settings may be given as `settings`."""
    settings = options.pop("settings", place.settings())
    out = options.pop("out", tmp_path / "out")
    return build_season(
        sensor, season, YEAR, place.grid, settings, out, tmp_path / "scratch", **options
    )


def copied(place: Place, tmp_path: Path) -> Place:
    """The place with its own copy of the scenes, to be damaged."""
    folder = tmp_path / "scenes"
    shutil.copytree(place.items.parent, folder, ignore=shutil.ignore_patterns("*_2020[01][6-92]*"))
    return replace(place, items=folder / place.items.name)


def test_sentinel_2_pixels(place: Place, tmp_path: Path) -> None:
    """Offset by each item's baseline, scene classes, one observation a day, exact median."""
    report = build(place, tmp_path, "s2")
    expected, count = plain.composite(place.items, place.grid, "s2", "2020-03-01", "2020-06-01")
    values = raster.read(tmp_path / "out" / "composite.tif", grid=place.grid)
    assert values.dtype == np.uint16
    rounded = np.nan_to_num(np.floor(expected + 0.5)).astype(np.uint16)
    np.testing.assert_array_equal(values, rounded)
    clear = raster.read(tmp_path / "out" / "clear_count.tif", bands=1)
    np.testing.assert_array_equal(clear, count)
    assert clear.max() >= 3
    assert {scene["offset"] for scene in report.scenes} == {0, 1000}
    assert len(report.duplicates) > 0  # an older processing was left out
    assert not {scene["id"] for scene in report.scenes} & set(report.duplicates)
    assert report.nodata_share == pytest.approx(np.isnan(expected).any(axis=0).mean(), abs=1e-6)
    for band, stats in zip(report.bands.values(), values, strict=True):
        seen = stats[stats > 0]
        assert band["n"] == seen.size
        assert band["mean"] == pytest.approx(seen.mean(), abs=1e-3)
        assert (band["min"], band["max"]) == (seen.min(), seen.max())
        assert band["median"] == np.sort(seen)[(seen.size + 1) // 2 - 1]


def test_sentinel_1_pixels(place: Place, tmp_path: Path) -> None:
    """Fault 13: dB, not linear power, and one orbit direction, not both mixed."""
    report = build(place, tmp_path, "s1")
    expected, count = plain.composite(
        place.items, place.grid, "s1", "2020-03-01", "2020-06-01", "descending"
    )
    path = tmp_path / "out" / "composite.tif"
    assert raster.read(path).dtype == np.int16
    values = raster.read_float(path, grid=place.grid)
    np.testing.assert_array_equal(np.isnan(values), np.isnan(expected))
    assert np.nanmax(np.abs(values - expected)) <= 0.01 + 1e-6
    np.testing.assert_array_equal(raster.read(tmp_path / "out" / "clear_count.tif", bands=1), count)
    assert {scene["orbit"] for scene in report.scenes} == {"descending"}
    assert report.provenance["backscatter"] == "gamma0"
    assert -30 < report.bands["VH"]["median"] < report.bands["VV"]["median"] < -3


def test_the_other_orbit_is_kept_apart(place: Place, tmp_path: Path) -> None:
    """Where descending is missing, ascending stands in a file of its own, for the gap rules."""
    cut = copied(place, tmp_path)
    for scene in sorted(cut.items.parent.glob("scenes/sentinel-1-rtc/*T0348*")):
        for file in scene.glob("*.tif"):
            with rasterio.open(file, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dataset:
                values = dataset.read(1)
                values[:, :100] = -32768
                dataset.write(values, 1)
    report = build(cut, tmp_path, "s1")
    main = raster.read_float(tmp_path / "out" / "composite.tif")
    other = raster.read_float(tmp_path / "out" / "other_orbit.tif", grid=place.grid)
    gap = np.isnan(main)
    assert 0.2 < gap.mean() < 0.6
    assert np.isnan(other[~gap]).all()
    ascending, _ = plain.composite(
        place.items, place.grid, "s1", "2020-03-01", "2020-06-01", "ascending"
    )
    assert np.nanmax(np.abs(np.where(gap, ascending - other, np.nan))) <= 0.01 + 1e-6
    assert report.other_orbit["share"] == pytest.approx(gap[0].mean(), abs=1e-6)
    assert {s["orbit"] for s in report.other_orbit["scenes"]} == {"ascending"}
    assert report.nodata_share == pytest.approx(gap.any(axis=0).mean(), abs=1e-6)


def test_winter_runs_into_the_next_year(place: Place, tmp_path: Path) -> None:
    report = build(place, tmp_path, "s1", "winter")
    months = {scene["datetime"][:7] for scene in report.scenes}
    assert months <= {"2020-12", "2021-01", "2021-02"}
    assert {"2020-12", "2021-02"} <= months
    assert (report.start[:10], report.end[:10]) == ("2020-12-01", "2021-03-01")


@pytest.mark.parametrize("sensor", ["s1", "s2"])
def test_same_bytes_every_time(place: Place, tmp_path: Path, sensor: str) -> None:
    """Whatever the number of workers, and with whatever tiles."""
    first = build(place, tmp_path, sensor, out=tmp_path / "a", workers=1)
    again = build(place, tmp_path, sensor, out=tmp_path / "b", workers=4)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    other = build(place, tmp_path, sensor, out=tmp_path / "c", settings=place.settings(tile_px=96))
    assert digest(tmp_path / "a") == digest(tmp_path / "c")
    keep = ("scenes", "bands", "clear", "nodata_share", "provenance", "duplicates", "lost")
    for name in keep:
        assert getattr(first, name) == getattr(again, name) == getattr(other, name)
    assert not list((tmp_path / "scratch").iterdir())  # nothing is left behind


class Interrupted(Exception):
    pass


def test_resumes_after_an_interruption(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = place.settings(tile_px=64)
    whole = build(place, tmp_path, "s2", out=tmp_path / "whole", settings=small)
    tile = stac.StacSource.tile
    asked: list = []

    def counted(self, request, window, scenes):
        asked.append(window)
        if len(asked) == 9:
            raise Interrupted
        return tile(self, request, window, scenes)

    monkeypatch.setattr(stac.StacSource, "tile", counted)
    with pytest.raises(Interrupted):
        build(place, tmp_path, "s2", out=tmp_path / "out", settings=small)
    assert not (tmp_path / "out" / "composite.tif").exists()  # no half composite
    report = build(place, tmp_path, "s2", out=tmp_path / "out", settings=small)
    assert report.tiles == {"total": 16, "outside": 0, "fetched": 8, "resumed": 8}
    assert len(asked) == 9 + 8
    assert digest(tmp_path / "whole") == digest(tmp_path / "out")
    assert report.scenes == whole.scenes
    assert report.traffic == whole.traffic  # of all tiles, also those fetched before


def test_a_damaged_scratch_tile_is_fetched_again(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from popcorn_ml.imagery import build as module

    build(place, tmp_path, "s1", out=tmp_path / "whole")
    monkeypatch.setattr(module, "assemble", lambda *_: (_ for _ in ()).throw(Interrupted))
    with pytest.raises(Interrupted):
        build(place, tmp_path, "s1")
    monkeypatch.undo()
    tiles = sorted((tmp_path / "scratch").rglob("tile_*.npz"))
    assert len(tiles) == 4
    tiles[1].write_bytes(tiles[1].read_bytes()[:1000])
    tiles[2].write_bytes(b"")
    report = build(place, tmp_path, "s1")
    assert report.tiles["fetched"] == 2
    assert digest(tmp_path / "whole") == digest(tmp_path / "out")


def test_other_settings_do_not_meet_in_scratch(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tile made with snow kept is no tile of one without; how it was fetched does not matter."""
    from popcorn_ml.imagery import build as module

    monkeypatch.setattr(module, "assemble", lambda *_: (_ for _ in ()).throw(Interrupted))
    with pytest.raises(Interrupted):
        build(place, tmp_path, "s2", settings=place.settings(keep_snow=True))
    monkeypatch.undo()
    patient = ImagerySettings.parse(
        {
            "stac": place.settings().chosen.model_copy(update={"pool": 1, "retries": 9}),
            "tile_px": place.settings().tile_px,
            "keep_snow": True,
            "gaps": {"nearest_px": 1},
        }
    )
    assert build(place, tmp_path, "s2").tiles["resumed"] == 0
    assert build(place, tmp_path, "s2", settings=patient).tiles["resumed"] == 4


def test_tiles_outside_the_boundary_are_not_fetched(place: Place, tmp_path: Path) -> None:
    west, _, _, north = place.grid.bounds
    shape = box(west + 100, north - 900, west + 700, north - 100)
    small = place.settings(tile_px=64)
    file = tmp_path / "country.gpkg"
    geopandas.GeoDataFrame(geometry=[shape], crs=place.grid.crs).to_crs(4326).to_file(file)
    whole = build(place, tmp_path, "s2", out=tmp_path / "whole", settings=small)
    report = build(place, tmp_path, "s2", boundary=file, settings=small)
    assert report.tiles == {"total": 16, "outside": 12, "fetched": 4, "resumed": 0}
    assert report.traffic["assets"] < whole.traffic["assets"] / 2
    values = raster.read(tmp_path / "out" / "composite.tif")
    clear = raster.read(tmp_path / "out" / "clear_count.tif", bands=1)
    everywhere = raster.read(tmp_path / "whole" / "composite.tif")
    np.testing.assert_array_equal(values[:, :128, :128], everywhere[:, :128, :128])
    assert not values[:, 128:].any()
    assert not values[:, :, 128:].any()
    assert (clear[128:] == NOT_ASKED_FOR).all()
    assert (clear[:128, :128] != NOT_ASKED_FOR).all()
    inside = values[:, :128, :128]
    assert report.nodata_share == pytest.approx((inside == 0).any(axis=0).mean(), abs=1e-6)


def test_a_boundary_elsewhere_is_refused(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "elsewhere.geojson"
    geopandas.GeoDataFrame(geometry=[box(5, 45, 6, 46)], crs=4326).to_file(file)
    with pytest.raises(ConfigError, match="outside the country's grid"):
        build(place, tmp_path, "s2", boundary=file)
    with pytest.raises(ConfigError, match="missing"):
        build(place, tmp_path, "s2", boundary=tmp_path / "none.gpkg")


def test_wrong_nodata_tags(place: Place, tmp_path: Path) -> None:
    """The files' tags are missing or wrong; what is missing shows in the numbers."""
    build(place, tmp_path, "s1", out=tmp_path / "s1")
    build(place, tmp_path, "s2", out=tmp_path / "s2")
    bad = copied(place, tmp_path)
    files = sorted(bad.items.parent.glob("scenes/*/*_20200[345]*/*.tif"))
    assert len(files) > 40
    for number, file in enumerate(files):
        with rasterio.open(file, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dataset:
            dataset.nodata = None if number % 2 else 7
    build(bad, tmp_path, "s1", out=tmp_path / "bad1")
    build(bad, tmp_path, "s2", out=tmp_path / "bad2")
    assert digest(tmp_path / "s1") == digest(tmp_path / "bad1")
    assert digest(tmp_path / "s2") == digest(tmp_path / "bad2")


def test_damaged_assets_are_lost_counted_and_gone_on_without(place: Place, tmp_path: Path) -> None:
    bad = copied(place, tmp_path)
    used = build(place, tmp_path, "s2", out=tmp_path / "whole").scenes
    folder = bad.items.parent / "scenes" / "sentinel-2-l2a"
    first, second, last = (folder / used[place]["id"] for place in (0, 2, -1))
    (first / "B03.tif").unlink()
    held = (second / "B08.tif").read_bytes()
    (second / "B08.tif").write_bytes(held[: len(held) // 2])
    (last / "SCL.tif").unlink()
    report = build(bad, tmp_path, "s2", settings=bad.settings(max_lost_share=0.3))
    lost = {(one["scene"], one["asset"]): one["reason"] for one in report.lost}
    assert set(lost) == {(first.name, "B03"), (second.name, "B08"), (last.name, "SCL")}
    assert "not there" in lost[(first.name, "B03")]
    assert "to its end" in lost[(second.name, "B08")]
    assert last.name not in {scene["id"] for scene in report.scenes}
    values = raster.read(tmp_path / "out" / "composite.tif")
    whole = raster.read(tmp_path / "whole" / "composite.tif")
    changed = (values != whole).mean(axis=(1, 2))
    assert (changed < 0.8).all()
    assert changed[1] > changed[0]  # B03 lacks a scene more than B02 does
    assert changed[3] > changed[0]
    refused = place.settings(max_lost_share=0.001).model_copy(
        update={"stac": bad.settings().chosen}
    )
    with pytest.raises(ImageryError, match="could not be read") as failure:
        build(bad, tmp_path, "s2", settings=refused)
    assert "max_lost_share" in str(failure.value)


def test_scenes_that_cannot_be_used_count(place: Place, tmp_path: Path) -> None:
    """An item without baseline is no asset that could fail: the season is thinner all the same."""
    own, text = copied(place, tmp_path), place.items.read_text()
    found = build(place, tmp_path, "s2", out=tmp_path / "whole").scenes_found

    def damaged(season: str, share: float) -> Place:
        items = json.loads(text)
        start, end = {"spring": ("03", "06"), "summer": ("06", "09")}[season]
        chosen = [
            item
            for item in items["features"]
            if item["collection"] == "sentinel-2-l2a"
            and f"{YEAR}-{start}" <= item["properties"]["datetime"] < f"{YEAR}-{end}"
        ]
        for item in chosen[: int(len(chosen) * share)]:
            for key in ("s2:processing_baseline", "s2:product_uri"):
                item["properties"].pop(key, None)
            for asset in item["assets"].values():
                asset.pop("raster:bands", None)
        own.items.write_text(json.dumps(items))
        return own

    bad = damaged("spring", 0.5)
    with pytest.raises(ImageryError, match="cannot be used") as failure:
        build(bad, tmp_path, "s2")
    assert "max_lost_share" in str(failure.value)
    assert "baseline" in str(failure.value)
    assert not list(tmp_path.rglob("scenes.json")), "a mended catalogue is asked again"
    report = build(bad, tmp_path, "s2", settings=bad.settings(max_lost_share=0.9))
    assert report.lost
    assert report.scenes_found < found
    report = build(damaged("summer", 1.0), tmp_path, "s2")
    assert (report.scenes_found, report.lost) == (found, []), "another season's are not missed"


def test_nothing_there(place: Place, tmp_path: Path) -> None:
    with pytest.raises(ImageryError, match="not a single scene of s2 spring 1999"):
        build_season(
            "s2", "spring", 1999, place.grid, place.settings(), tmp_path / "o", tmp_path / "s"
        )
    assert not list(tmp_path.rglob("scenes.json")), "an empty answer is asked for again"
    with pytest.raises(ImageryError, match="item collection is missing"):
        build(replace(place, items=tmp_path / "none.json"), tmp_path, "s2")
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps({"type": "Feature"}))
    with pytest.raises(ImageryError, match="not a STAC item collection"):
        build(replace(place, items=broken), tmp_path, "s2")


def test_progress_is_told(place: Place, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    build(place, tmp_path, "s1", progress=lambda done, total: told.append((done, total)))
    assert told == [(n, 4) for n in range(5)]


@pytest.mark.parametrize("sensor", ["s1", "s2"])
def test_workers_elsewhere_make_the_same_files(place: Place, tmp_path: Path, sensor: str) -> None:
    """Processes that share nothing but the folders fetch, composite and write."""
    settings = place.settings(tile_px=64)
    here = build(place, tmp_path, sensor, settings=settings, out=tmp_path / "here")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        there = build(place, tmp_path, sensor, settings=settings, out=tmp_path / "there", pool=pool)
    assert digest(tmp_path / "there") == digest(tmp_path / "here")
    assert len(digest(tmp_path / "here")) >= 2
    told, expected = ({**one.as_dict(), "seconds": 0} for one in (there, here))
    assert told == expected
    assert not list((tmp_path / "scratch").iterdir())
