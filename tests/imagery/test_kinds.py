"""Scenes of another kind among the right ones: left out and counted, by one rule for all sources.

What is half there is used for that half; what says of itself what no catalogue should is used or
listed, and never ends in a Python error.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import ee.deprecation
import numpy as np
import pytest

from popcorn_ml import raster
from popcorn_ml.errors import ImageryError
from popcorn_ml.imagery.build import build_season
from popcorn_ml.imagery.choice import open_source
from popcorn_ml.imagery.kinds import OtherKind, s1_bands
from popcorn_ml.imagery.secrets import Secrets
from popcorn_ml.imagery.settings import ImagerySettings
from popcorn_ml.imagery.source import SeasonRequest
from popcorn_ml.imagery.stac_items import PROFILES, scene_from_item
from tests.imagery import plain
from tests.imagery.conftest import TILE_PX, YEAR, Place
from tests.imagery.ee_server import Archive, EarthEngineServer

BOTH, NAME = ("VV", "VH"), "S1A_IW_GRDH_1SDV_20200601T030600_20200601T030625_032819_03CD3A"


@pytest.mark.parametrize(
    ("name", "mode", "polarisations", "assets", "expected"),
    [
        (NAME, "IW", ["VV", "VH"], (), BOTH),
        (NAME, "IW", ["VH", "VV", "HH", "HV"], (), BOTH),
        (NAME, "iw", "vv+vh", (), BOTH),
        (NAME, ["IW"], "VV&VH", (), BOTH),
        (NAME, "IW1 IW2 IW3", "DV", (), BOTH),
        (NAME, "Interferometric Wide Swath", None, (), BOTH),
        (NAME, "IW", ["VV"], ("vv",), ("VV",)),
        (NAME, "IW", ["VH"], ("vh",), ("VH",)),
        (NAME, "IW", None, ("vv", "preview"), ("VV",)),  # the assets show what was received
        (NAME, "IW", None, ("preview",), BOTH),
        (NAME.replace("1SDV", "1SSV"), None, None, (), ("VV",)),
        (f"{NAME}_rtc", float("nan"), float("nan"), (), BOTH),
        ("of my own", None, None, (), BOTH),
        (NAME, "IW", ["HH", "HV"], ("hh", "hv"), "HH+HV"),
        (NAME, "IW", ["HH"], (), "HH"),
        (NAME.replace("1SDV", "1SDH"), "IW", None, (), "HH+HV"),
        (NAME, "IW", None, ("hh", "hv"), "HH+HV"),
        (NAME, "EW", ["VV", "VH"], (), "EW"),
        (NAME, "SM", ["VV", "VH"], (), "SM"),
        (NAME, "S3", ["VV", "VH"], (), "SM"),
        (NAME, "WV", ["VV"], (), "WV"),
        (NAME.replace("_IW_", "_EW_"), None, ["VV"], (), "EW"),
        (NAME.replace("_IW_GRDH", "_S6_GRDH"), "", ["VV"], (), "SM"),
        ("S1A_WV_OCN__2SSV_20200601T030600_20200601T030625_032819", None, None, (), "WV"),
    ],
)
def test_what_a_scene_of_sentinel_1_holds(name, mode, polarisations, assets, expected) -> None:
    if isinstance(expected, tuple):
        assert s1_bands(name, mode, polarisations, assets) == expected
        return
    with pytest.raises(OtherKind, match=f"{expected.replace('+', '.')},"):
        s1_bands(name, mode, polarisations, assets)


KINDS = {0: ["HH", "HV"], 1: "EW", 2: "S4", 3: ["VV"], 4: ["VV"], 5: "WV", 6: ["VH"]}
"""Of the season's scenes: what is changed about each, polarisations or the acquisition mode."""

LEFT_OUT = {
    0: "polarisation HH+HV, neither VV nor VH",
    1: "acquisition mode EW, not IW",
    2: "acquisition mode SM, not IW",
    5: "acquisition mode WV, not IW",
}


def dated(place: Place) -> list[dict]:
    """Nine descending Sentinel-1 items, all in one season, their files where they are."""
    items = [
        item
        for item in json.loads(place.items.read_text())["features"]
        if item["properties"].get("sat:orbit_state") == "descending"
        and item["collection"] == "sentinel-1-rtc"
    ][:9]
    for number, item in enumerate(items):
        item["properties"]["datetime"] = f"{YEAR}-04-{number + 1:02d}T03:48:42.512000Z"
    return items


@pytest.fixture
def mixed(place: Place) -> Iterator[Place]:
    """The place with scenes of other kinds among those of the season, and nothing else."""
    items = dated(place)
    for number, change in KINDS.items():
        item = items[number]
        vv, vh = item["assets"]["vv"], item["assets"]["vh"]
        if isinstance(change, list):
            item["properties"]["sar:polarizations"] = change
            files = [vh] if change == ["VH"] else [vv, vh]
            item["assets"] = dict(zip(map(str.lower, change), files, strict=False))
        else:
            item["properties"]["sar:instrument_mode"] = change
    path = place.items.with_name("mixed.json")  # scenes lie below the collection's folder
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    yield replace(place, items=path)
    path.unlink()


def medians(place: Place) -> dict[str, np.ndarray]:
    """Each band's in dB, of the scenes that hold it."""
    seen = [plain.observation(place.items.parent, i, place.grid, "s1") for i in dated(place)]
    without = {"VV": {*LEFT_OUT, 6}, "VH": {*LEFT_OUT, 3, 4}}
    return {
        band: np.nanmedian([o[at] for n, o in enumerate(seen) if n not in without[band]], axis=0)
        for at, band in enumerate(BOTH)
    }


@pytest.fixture
def google(mixed: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[EarthEngineServer]:
    """A local Earth Engine over the same scenes."""
    monkeypatch.setattr(ee.deprecation, "_FetchDataCatalogStac", dict)
    server = EarthEngineServer(Archive(mixed.items))
    yield server
    server.close()
    ee.Reset()


def test_other_kinds_are_left_out_and_halves_are_used(
    place: Place, mixed: Place, google: EarthEngineServer, tmp_path: Path
) -> None:
    """The same scenes from a catalogue and from Earth Engine, none of them a loss."""
    wanted, names = medians(place), [item["id"] for item in dated(place)]
    left = {names[number]: reason for number, reason in LEFT_OUT.items()}
    used = [name for name in names if name not in left]
    strict = {"max_lost_share": 0, "s1_other_orbit": False, "tile_px": TILE_PX}
    service = {"url": google.url, "first_wait_s": 0.01}
    key = Secrets(earthengine_key_file=google.key_file(tmp_path / "key.json"))
    for settings in (
        mixed.settings(**strict),
        ImagerySettings.parse({"source": "earthengine", "earthengine": service, **strict}),
    ):
        out = tmp_path / settings.source
        report = build_season(
            "s1", "spring", YEAR, place.grid, settings, out, tmp_path / "scratch", secrets=key
        )
        assert {one["scene"]: one["reason"] for one in report.left_out} == left
        assert report.lost == []
        assert report.scenes_found == len(used)
        assert [scene["id"] for scene in report.scenes] == used
        assert {tuple(scene["bands"]) for scene in report.scenes} == {BOTH, ("VV",), ("VH",)}
        values = raster.read_float(out / "composite.tif")
        for band, ours in zip(BOTH, values, strict=True):
            assert np.nanmax(np.abs(ours - wanted[band])) <= 0.011, (settings.source, band)
        assert raster.read(out / "clear_count.tif", bands=1).max() == 3  # VH is the poorer band


@pytest.mark.parametrize(("apart", "observations"), [(98, 9), (1, 1)])
def test_neighbouring_tracks_of_a_day_are_observations_of_their_own(
    place: Place, mixed: Place, tmp_path: Path, apart: int, observations: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Towards the poles a place is seen again after 98 minutes; granules follow in a minute."""
    items, start = dated(place), datetime(YEAR, 4, 1, 5, tzinfo=UTC)
    for number, item in enumerate(items):
        item["properties"]["datetime"] = (start + number * timedelta(minutes=apart)).isoformat()
    mixed.items.write_text(json.dumps({"features": items}))
    monkeypatch.setattr(ee.deprecation, "_FetchDataCatalogStac", dict)
    server = EarthEngineServer(Archive(mixed.items))
    key = Secrets(earthengine_key_file=server.key_file(tmp_path / "key.json"))
    service = {"source": "earthengine", "earthengine": {"url": server.url}, "tile_px": 200}
    try:
        for settings in (mixed.settings(tile_px=200), ImagerySettings.parse(service)):
            out = tmp_path / settings.source
            scratch = tmp_path / "scratch"
            build_season("s1", "spring", YEAR, place.grid, settings, out, scratch, secrets=key)
            assert raster.read(out / "clear_count.tif", bands=1).max() == observations
    finally:
        server.close()
        ee.Reset()


def test_only_scenes_of_another_kind_are_no_season(mixed: Place, tmp_path: Path) -> None:
    items = json.loads(mixed.items.read_text())
    for item in items["features"]:
        item["properties"]["sar:instrument_mode"] = "EW"
    mixed.items.write_text(json.dumps(items))
    settings = mixed.settings()
    with pytest.raises(ImageryError, match="not a single scene") as failure:
        build_season("s1", "spring", YEAR, mixed.grid, settings, tmp_path / "o", tmp_path / "s")
    assert "9 of another kind, first: acquisition mode EW, not IW" in str(failure.value)


ODD = {
    "eo:cloud_cover": [float("nan"), "n/a", None, [], "12.5"],
    "sat:relative_orbit": ["72", "north", float("inf"), None, {}],
    "s2:processing_baseline": [5.0, "05.00", "N0500"],
    "datetime": ["2020-04-11T08:06:00.024Z", "2020-04-11 08:06:00+00:00"],
    "s2:datastrip_id": [7, None],
    "platform": [None, ["Sentinel-2A"], 2],
    "s2:generation_time": [20200411, None],
    "proj:epsg": [None],
}


def item_of_sentinel_2(**more: object) -> dict:
    keys = ("B02", "B03", "B04", "B08", "SCL")
    return {
        "id": "S2A_MSIL2A_20200411T080600_R078_T36MTC_20200411T120000",
        "collection": "sentinel-2-l2a",
        "bbox": [30, -2, 31, -1],
        "assets": {key: {"href": f"{key}.tif"} for key in keys},
        "properties": {
            "datetime": "2020-04-11T08:06:00Z",
            "s2:processing_baseline": "05.00",
            "s2:mgrs_tile": "36MTC",
        },
        **more,
    }


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, values in ODD.items() for v in values])
def test_odd_properties_do_not_cost_a_scene(key: str, value: object) -> None:
    item = item_of_sentinel_2()
    item["properties"][key] = value
    scene = scene_from_item(item, "s2", PROFILES["local"])
    assert (scene.baseline, scene.offset, scene.moment.hour) == ("05.00", 1000, 8)


@pytest.mark.parametrize(
    "more",
    [
        {"assets": {**item_of_sentinel_2()["assets"], "preview": None, "notes": "x", "list": [1]}},
        {"assets": {key: f"{key}.tif" for key in ("B02", "B03", "B04", "B08", "SCL")}},
        {"assets": {key.lower(): {"href": key} for key in ("B02", "B03", "B04", "B08", "SCL")}},
        {"bbox": [30, None, 31, -1]},
        {"bbox": "everywhere", "geometry": {"type": "Point", "coordinates": [30.5, None]}},
        {"geometry": [1, 2]},
        {"collection": None},
        {"id": None},
    ],
)
def test_odd_items_are_read(more: dict) -> None:
    scene = scene_from_item(item_of_sentinel_2(**more), "s2", PROFILES["local"])
    assert set(scene.assets) == {"B02", "B03", "B04", "B08", "SCL"}


def listed(place: Place, tmp_path: Path, features: list, sensor: str = "s2"):
    """What the local catalogue makes of a collection's entries."""
    path = tmp_path / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    source = open_source(replace(place, items=path).settings())
    try:
        return source.scenes(SeasonRequest(sensor, YEAR, "spring", place.grid, "descending"))
    finally:
        source.close()


def test_entries_that_are_no_items_are_listed(place: Place, tmp_path: Path) -> None:
    whole = {key: value for key, value in item_of_sentinel_2().items() if key != "bbox"}
    level = {**whole, "id": "S2A_MSIL1C_20200411T080600_R078_T36MTC_20200411T120000"}
    odd = [None, "scene", 5, [], {}, {"id": "x", "properties": [], "assets": [None]}]
    found = listed(place, tmp_path, [whole, level, *odd])
    assert [scene.id for scene in found.scenes] == [whole["id"]]
    assert found.lost == ()
    assert {(one.scene, one.reason) for one in found.left_out} == {
        (level["id"], "level L1C, not L2A"),
        *((f"entry {n}", "an entry that does not say what it is") for n in range(3, 8)),
        ("x", "an entry that does not say what it is"),
    }
    assert listed(place, tmp_path, [whole, *odd], "s1").scenes == ()


@pytest.mark.parametrize(
    ("told", "sensor"),
    [
        ({"properties": {"platform": "sentinel-1a"}}, "s1"),
        ({"properties": {"constellation": "Sentinel-2"}}, "s2"),
        ({"id": "S1B_IW_GRDH_1SDV_20200411_rtc"}, "s1"),
        ({"assets": {"VV": {"href": "vv.tif"}}}, "s1"),
        ({"assets": {"SCL": {"href": "scl.tif"}, "B02": {"href": "b.tif"}}}, "s2"),
    ],
)
def test_items_without_a_collection_are_told_by_what_they_say(
    place: Place, tmp_path: Path, told: dict, sensor: str
) -> None:
    item = item_of_sentinel_2(id="mine", collection=None)
    item["properties"]["sat:orbit_state"] = "descending"
    del item["bbox"]
    both = {**item["assets"], "vv": {"href": "vv.tif"}}
    item |= {
        "id": told.get("id", "mine"),
        "assets": told.get("assets", both),
        "properties": {**item["properties"], **told.get("properties", {})},
    }
    for asked in ("s1", "s2"):
        found = listed(place, tmp_path, [item], asked)
        assert len(found.scenes) == (asked == sensor)
        assert found.lost == ()
        assert found.left_out == ()
