"""Scenes in the providers' formats, and the items that describe them."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import numpy as np
import pytest
import rasterio
from odc.geo.geobox import GeoBox

from popcorn_ml import raster, sentinel
from popcorn_ml.grid import Window
from popcorn_ml.simulate import radar
from popcorn_ml.simulate.scenes import acquisitions, s2_tiles
from popcorn_ml.simulate.world import make_world, surface


@pytest.fixture(scope="module")
def items(country):
    return json.loads(country.items.read_text(encoding="utf-8"))["features"]


def of(items, collection):
    return [item for item in items if item["collection"] == collection]


def read(country, item, key):
    return raster.read(country.folder / item["assets"][key]["href"], bands=1)


def when(item):
    return datetime.fromisoformat(item["properties"]["datetime"])


def test_every_asset_is_there_and_is_what_its_item_says(country, items):
    for item in items:
        for key, asset in item["assets"].items():
            assert asset["href"].startswith("./")
            with rasterio.open(country.folder / asset["href"]) as dataset:
                shape = asset.get("proj:shape") or item["properties"]["proj:shape"]
                transform = asset.get("proj:transform") or item["properties"]["proj:transform"]
                assert [dataset.height, dataset.width] == shape
                assert list(dataset.transform)[:6] == transform
                assert dataset.crs.to_epsg() == item["properties"]["proj:epsg"] == 32736
                assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
                wanted = {"SCL": "uint8", "vv": "float32", "vh": "float32"}.get(key, "uint16")
                assert dataset.dtypes == (wanted,)
                assert dataset.nodata == (-32768 if key in ("vv", "vh") else 0)


def test_items_have_the_property_names_of_the_real_ones(items, real_dir):
    real = json.loads((real_dir / "stac" / "planetary_computer_s2_l2a.json").read_text())
    for item in of(items, "sentinel-2-l2a"):
        assert set(item["properties"]) <= set(real["properties"])
        for key, asset in item["assets"].items():
            assert set(asset) <= set(real["assets"][key])
            assert asset["type"] == real["assets"][key]["type"]


def test_each_season_has_scenes_of_both_sensors_and_orbits(items):
    for season in sentinel.SEASONS:
        period = sentinel.season_period(2021, season)
        here = [item for item in items if when(item) in period]
        s2, s1 = of(here, "sentinel-2-l2a"), of(here, "sentinel-1-rtc")
        assert {i["properties"]["s2:mgrs_tile"] for i in s2} == {"36MTC", "36MUC"}
        assert len({i["properties"]["datetime"] for i in s2}) >= 4
        assert {i["properties"]["sat:orbit_state"] for i in s1} == {"ascending", "descending"}
    winter = [when(i) for i in items if when(i) >= datetime(2021, 12, 1, tzinfo=UTC)]
    assert max(winter).year == 2022
    assert max(winter) < datetime(2022, 3, 1, tzinfo=UTC)


def test_tiles_overlap_and_neither_is_the_country_grid(spec):
    (a, first), (b, second) = s2_tiles(spec).items()
    assert a != b
    assert first.col + first.width > second.col + 20
    grids = [spec.place_grid.subgrid(window) for window in (first, second)]
    for grid in grids:
        assert not raster.same_grid(grid, spec.grid)
        assert (grid.west - spec.grid.west) % 10 == 0
        assert (spec.grid.north - grid.north) % 10 == 0
        assert grid.west % 20 == 0  # the 20 m classes nest
        assert grid.width % 2 == grid.height % 2 == 0
    west = min(grid.west for grid in grids)
    east = max(grid.bounds[2] for grid in grids)
    assert west <= spec.grid.west
    assert east >= spec.grid.bounds[2]


def test_both_tiles_show_the_same_ground_where_they_overlap(country, items, spec):
    (_, first), (_, second) = s2_tiles(spec).items()
    left, right = (
        next(
            i
            for i in of(items, "sentinel-2-l2a")
            if i["properties"]["s2:mgrs_tile"] == tile
            and i["properties"]["sat:relative_orbit"] == 78
        )
        for tile in ("36MTC", "36MUC")
    )
    assert left["properties"]["datetime"] == right["properties"]["datetime"]
    width = first.col + first.width - second.col
    top, rows = second.row - first.row, 60
    a = read(country, left, "B04")[top : top + rows, -width:]
    b = read(country, right, "B04")[:rows, :width]
    assert np.array_equal(a, b)


def test_baselines_from_4_carry_the_offset_and_those_before_do_not(country, items):
    """The same acquisition is there in two processings: they differ by the offset alone."""
    pairs = {}
    for item in of(items, "sentinel-2-l2a"):
        key = item["properties"]["datetime"], item["properties"]["s2:mgrs_tile"]
        pairs.setdefault(key, []).append(item)
    twice = [pair for pair in pairs.values() if len(pair) == 2]
    assert twice
    for pair in twice:
        old, new = sorted(pair, key=lambda i: i["properties"]["s2:processing_baseline"])
        assert sentinel.baseline_offset(old["properties"]["s2:processing_baseline"]) == 0
        assert sentinel.baseline_offset(new["properties"]["s2:processing_baseline"]) == 1000
        assert old["properties"]["s2:generation_time"] < new["properties"]["s2:generation_time"]
        for band in sentinel.S2_BANDS:
            a, b = read(country, old, band), read(country, new, band)
            assert np.array_equal(a == 0, b == 0)
            assert (b[b > 0].astype(int) - a[a > 0] == 1000).all()
        assert np.array_equal(read(country, old, "SCL"), read(country, new, "SCL"))


def test_the_date_does_not_tell_the_baseline(items):
    """Some scenes from before 2022 are there in baseline 05.00 only."""
    s2 = of(items, "sentinel-2-l2a")
    offsets = {
        sentinel.baseline_offset(i["properties"]["s2:processing_baseline"])
        for i in s2
        if when(i) < datetime(2021, 12, 1, tzinfo=UTC)
    }
    assert offsets == {0, 1000}


def test_swaths_end_inside_some_scenes(country, items):
    edge = [i for i in of(items, "sentinel-2-l2a") if i["properties"]["sat:relative_orbit"] == 35]
    assert edge
    gaps = [(read(country, item, "B02") == 0).mean() for item in edge]
    assert max(gaps) > 0.2
    for item, gap in zip(edge, gaps, strict=True):
        assert item["properties"]["s2:nodata_pixel_percentage"] == pytest.approx(100 * gap, abs=0.1)
    descending = [
        i for i in of(items, "sentinel-1-rtc") if i["properties"]["sat:orbit_state"] == "descending"
    ]
    power = read(country, descending[0], "vv")
    assert 0 < (power == -32768).mean() < 0.3
    assert power[power != -32768].min() > 0


def test_cloud_cover_of_an_item_is_that_of_its_classes(country, items):
    covers = []
    for item in of(items, "sentinel-2-l2a"):
        scl = read(country, item, "SCL")
        share = np.isin(scl, (8, 9, 10)).sum() / (scl > 0).sum() * 100
        covers.append(item["properties"]["eo:cloud_cover"])
        assert covers[-1] == pytest.approx(share, abs=6)  # of 10 m pixels there, of 20 m cells here
    assert min(covers) < 20
    assert max(covers) > 25


def test_backscatter_is_linear_power_of_the_place(country, items, spec):
    """The mean over passes comes back to what the surface is expected to return."""
    world = make_world(spec.seed, spec.place_grid.shape, spec.base_year, spec.urban_share)
    expected = radar.gamma_nought(world, surface(world, 2021), "ascending", 0.5, 0.0)[0]
    passes = [
        i for i in of(items, "sentinel-1-rtc") if i["properties"]["sat:orbit_state"] == "ascending"
    ]
    middle = Window(60, 60, 80, 80)
    found = []
    for item in passes:
        grid = raster.grid_of(country.folder / item["assets"]["vv"]["href"])
        row = int((spec.place_grid.north - grid.north) / 10)
        col = int((grid.west - spec.place_grid.west) / 10)
        found.append(
            read(country, item, "vv")[
                middle.row - row : middle.row - row + 80, middle.col - col : middle.col - col + 80
            ]
        )
    mean = np.mean(found, axis=0)
    assert np.corrcoef(mean.ravel(), expected[middle.slices].ravel())[0, 1] > 0.8
    assert mean.mean() == pytest.approx(expected[middle.slices].mean(), rel=0.35)


def test_real_clients_read_items_and_pixels(country, spec):
    """pystac and odc-stac, as for items of a real service."""
    import odc.stac
    import pystac
    from affine import Affine

    features = json.loads(country.items.read_text(encoding="utf-8"))["features"]
    found = [pystac.Item.from_dict(f) for f in features if f["collection"] == "sentinel-2-l2a"]
    for item in found:
        for asset in item.assets.values():
            asset.href = str(country.folder / asset.href)
        assert item.bbox is not None
        assert 28 < item.bbox[0] < item.bbox[2] < 36
    season = sentinel.season_period(2021, "summer")
    summer = [i for i in found if i.datetime in season]
    grid = spec.grid
    loaded = odc.stac.load(
        summer,
        bands=["B04", "SCL"],
        geobox=GeoBox(grid.shape, Affine(*grid.transform), grid.crs),
        groupby="solar_day",
    )
    assert dict(loaded.sizes)["y"] == grid.height
    whole = (loaded["SCL"].fillna(0) > 0).mean(("y", "x"))
    assert (whole > 0.99).sum() >= 4  # the orbit that sees everything
    assert whole.min() < 0.9  # and the one whose swath ends here


def test_acquisitions_fall_into_their_seasons(spec):
    for seen in acquisitions(spec, 2020):
        assert seen.when in sentinel.season_period(2020, seen.season)
    assert len(acquisitions(spec, 2020)) == 4 * (
        spec.s2_dates + spec.s2_edge_dates + 2 * spec.s1_passes
    )
