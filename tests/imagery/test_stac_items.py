"""Items as catalogues write them: real documents, offsets, duplicates, days, orbits, seasons."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from popcorn_ml.imagery.overpasses import by_overpass, in_period, without_duplicates
from popcorn_ml.imagery.source import Lost, Scene, scene_from_dict
from popcorn_ml.imagery.stac_fields import box_of, footprint_box, parse_moment
from popcorn_ml.imagery.stac_items import (
    PROFILES,
    concerns,
    item_offset,
    mgrs_tile,
    processing_baseline,
    scene_from_item,
)
from popcorn_ml.sentinel import season_period

PC, EARTH_SEARCH = PROFILES["planetary-computer"], PROFILES["earth-search"]


@pytest.fixture(scope="module")
def real_items(real_dir: Path) -> list[dict]:
    text = (real_dir / "stac" / "planetary_computer_s2_35MNM_2020_jun_jul.geojson").read_text()
    return json.loads(text)["features"]


def read(item: dict) -> Scene:
    scene = scene_from_item(item, "s2", PC)
    assert isinstance(scene, Scene), scene
    return scene


def test_real_planetary_computer_items(real_items: list[dict]) -> None:
    scenes = [read(item) for item in real_items]
    assert len(scenes) == 13
    for scene in scenes:
        assert (scene.tile, scene.baseline, scene.offset) == ("35MNM", "02.12", 0)
        assert scene.product == "L2A"
        assert set(scene.assets) == {"B02", "B03", "B04", "B08", "SCL"}
        assert scene.assets["B08"].endswith("_B08_10m.tif")
        assert scene.strip  # told from the real datastrip id
    kept, dropped = without_duplicates(reversed(scenes))
    assert [s.id for s in kept] == [s.id for s in sorted(scenes, key=lambda s: s.moment)]
    assert dropped == ()
    assert len(by_overpass(kept)) == 13
    june = in_period(scenes, season_period(2020, "summer"))
    assert len(june) == 13
    assert not in_period(scenes, season_period(2020, "spring"))


def test_real_single_documents(real_dir: Path) -> None:
    item = json.loads((real_dir / "stac" / "planetary_computer_s2_l2a.json").read_text())
    scene = read(item)
    assert (scene.tile, scene.offset, scene.relative_orbit) == ("06VVN", 0, 43)
    old = json.loads((real_dir / "stac" / "earth_search_v0_s2_l2a.json").read_text())
    assert processing_baseline(old["properties"]) == "02.14"  # from the product's name
    assert mgrs_tile(old["properties"], old["id"]) == "28QCH"


def test_reprocessed_real_item_replaces_the_older(real_items: list[dict]) -> None:
    """The archive holds some scenes twice; the newer carries an offset, so both cannot stay."""
    again = copy.deepcopy(real_items[0])
    again["id"] = again["id"][:-15] + "20230712T010203"
    again["properties"] |= {
        "s2:processing_baseline": "05.00",
        "s2:generation_time": "2023-07-12T01:02:03.000Z",
        "s2:datastrip_id": again["properties"]["s2:datastrip_id"].replace("N02.12", "N05.00"),
    }
    scenes = [read(item) for item in [*real_items, again, again]]  # a page repeated by the API
    for order in (scenes, scenes[::-1]):
        kept, dropped = without_duplicates(order)
        assert len(kept) == 13
        assert dropped == (real_items[0]["id"],)
        assert [s.offset for s in kept if s.id == again["id"]] == [1000]


def test_granules_cut_on_the_ground_are_no_duplicates(real_items: list[dict]) -> None:
    """One overpass may fall into two strips: two granules of one tile and sensing time."""
    other = copy.deepcopy(real_items[0])
    other["id"] += "_b"
    other["properties"]["s2:datastrip_id"] = other["properties"]["s2:datastrip_id"].replace(
        "_S20200731T081835", "_S20200731T082001"
    )
    kept, dropped = without_duplicates([read(real_items[0]), read(other)])
    assert len(kept) == 2
    assert not dropped
    assert len(by_overpass(kept)) == 1  # and they are one observation


@pytest.mark.parametrize(
    ("baseline", "date", "offset"),
    [
        ("02.12", "2022-06-01", 0),  # old processing of a late date
        ("05.00", "2018-06-01", 1000),  # late processing of an early date
        ("04.00", "2022-02-01", 1000),
        ("03.01", "2022-01-20", 0),
    ],
)
def test_offset_is_decided_by_the_baseline_not_the_date(
    real_items: list[dict], baseline: str, date: str, offset: int
) -> None:
    item = copy.deepcopy(real_items[0])
    item["properties"] |= {"s2:processing_baseline": baseline, "datetime": f"{date}T08:00:00Z"}
    assert read(item).offset == offset


def test_without_baseline_a_scene_is_lost_not_guessed(real_items: list[dict]) -> None:
    item = copy.deepcopy(real_items[0])
    for key in ("s2:processing_baseline", "s2:product_uri"):
        del item["properties"][key]
    scene = scene_from_item(item, "s2", PC)
    assert isinstance(scene, Lost)
    assert "baseline" in scene.reason


def test_earth_search_offsets() -> None:
    """Its own word first, then the band's raster metadata in reflectance, then the baseline."""
    band = {"scale": 0.0001, "offset": -0.1, "nodata": 0}
    item = {"properties": {}, "assets": {"blue": {"raster:bands": [band]}}}
    assert item_offset(item, "blue", "05.00") == 1000
    item["properties"]["earthsearch:boa_offset_applied"] = True
    assert item_offset(item, "blue", "05.00") == 0
    item["properties"]["earthsearch:boa_offset_applied"] = False
    assert item_offset(item, "blue", "05.00") == 1000
    band["offset"] = 0
    assert item_offset(item, "blue", "05.00") == 0
    assert item_offset({"properties": {}, "assets": {"blue": {}}}, "blue", "05.00") == 1000
    newer = {"properties": {}, "assets": {"blue": {"raster:scale": 0.0001, "raster:offset": -0.1}}}
    assert item_offset(newer, "blue", None) == 1000


def earth_search_item() -> dict:
    return {
        "id": "S2A_T28QCH_20230714T115552_L2A",
        "bbox": [-17.0, 20.0, -16.7, 20.8],
        "properties": {
            "datetime": "2023-07-14T11:55:52Z",
            "platform": "sentinel-2a",
            "grid:code": "MGRS-28QCH",
            "s2:processing_baseline": "05.09",
            "earthsearch:boa_offset_applied": False,
        },
        "assets": {
            key: {"href": f"https://example.org/{key}.tif"}
            for key in ("blue", "green", "red", "nir", "scl")
        },
    }


def test_earth_search_item() -> None:
    scene = scene_from_item(earth_search_item(), "s2", EARTH_SEARCH)
    assert isinstance(scene, Scene)
    assert (scene.tile, scene.offset) == ("28QCH", 1000)
    assert scene.assets["B08"] == "https://example.org/nir.tif"


@pytest.mark.parametrize(
    ("moment", "season"),
    [
        ("2020-03-01T00:00:00Z", "spring"),
        ("2020-05-31T23:59:59.999999Z", "spring"),
        ("2020-06-01T00:00:00Z", "summer"),
        ("2020-12-01T00:00:00Z", "winter"),
        ("2021-02-28T23:59:59Z", "winter"),
    ],
)
def test_a_border_day_is_in_one_season(moment: str, season: str) -> None:
    scene = Scene("x", parse_moment(moment), "L2A")
    found = [
        s
        for s in ("spring", "summer", "autumn", "winter")
        if in_period([scene], season_period(2020, s))
    ]
    assert found == [season]


def look(name: str, when: str, platform: str = "sentinel-2a", **options) -> Scene:
    """A scene sensed on 1 April 2020 (or later: "26:10" is ten past two of the next morning)."""
    hours, minutes = map(int, when.split(":"))
    moment = datetime(2020, 4, 1, tzinfo=UTC) + timedelta(hours=hours, minutes=minutes)
    return Scene(name, moment, "L2A", platform=platform, **options)


@pytest.mark.parametrize(
    ("scenes", "expected"),
    [
        # Over New Zealand an overpass goes across midnight UTC: one observation.
        (["23:58", "24:01", "24:04"], ["023:58 124:01 224:04"]),
        # At 69 N the neighbouring track sees the place again 98 minutes later: two.
        (["10:02", "11:40", "11:41"], ["010:02", "111:40 211:41"]),
        (["0:30", "22:30"], ["00:30", "122:30"]),
    ],
)
def test_an_overpass_is_one_observation(scenes: list[str], expected: list[str]) -> None:
    given = [look(f"{n}{when}", when) for n, when in enumerate(scenes)]
    for order in (given, given[::-1]):
        assert [" ".join(sorted(s.id for s in one)) for one in by_overpass(order)] == expected


def test_two_satellites_are_two_observations() -> None:
    """Ten minutes apart on one orbit, or fifty: each has looked at the place by itself."""
    scenes = [look("a", "10:00"), look("b", "10:10", "sentinel-2c"), look("c", "10:01")]
    assert [[s.id for s in one] for one in by_overpass(scenes)] == [["a", "c"], ["b"]]
    scenes += [look("d", "10:50", "sentinel-2b")]
    assert len(by_overpass(scenes)) == 3


@pytest.mark.parametrize(
    ("bbox", "box"),
    [
        ([178.0, -18, 179, -17], (178, -18, 179, -17)),
        ([177.9, -18, -179.2, -17], (177.9, -18, -179.2, -17)),
        ([177.9, -18, 0, -179.2, -17, 400], (177.9, -18, -179.2, -17)),  # with heights
        ([-179.3, -18, 178, -17], (-180, -18, 180, -17)),  # span of the corners
        ([-180, -18, 180, -17], (-180, -18, 180, -17)),  # of the parts on either side
        ([179.5, -18, -178, -17], (179.5, -18, -178, -17)),
        ([179, -18, 181, -17], (179, -18, 181, -17)),
    ],
)
def test_boxes_across_the_antimeridian(bbox: list, box: tuple) -> None:
    assert box_of({"bbox": bbox}) == box


@pytest.mark.parametrize(
    ("lons", "west", "east"),
    [
        ([30, 31, 31, 30], 30, 31),
        ([177.9, 178, -179.2, -179.3], 177.9, -179.2),
        ([177.9, 180, 180, 178, -180, -179.2, -179.3, -180], 177.9, -179.2),  # cut at the line
        ([178, 181], 178, 181),
    ],
)
def test_footprints_across_the_antimeridian(lons: list, west: float, east: float) -> None:
    rings = [[[[lon, lat] for lon in lons[i : i + 4] for lat in (-18, -17)]] for i in (0, 4)]
    geometry = {"type": "MultiPolygon", "coordinates": rings}
    assert footprint_box(geometry) == (west, -18, east, -17)
    bbox = [min(lons), -18, max(lons), -17]
    assert box_of({"bbox": bbox, "geometry": geometry}) == (west, -18, east, -17)


def test_one_overpass_across_the_antimeridian_is_one_observation() -> None:
    """The date line is no border of an observation: both sides are one overpass."""
    boxes = [(177, -18, 178, -17), (179.3, -18, -179.6, -17), (-179.8, -18, -178.8, -17)]
    overpasses = [
        Scene(f"{day}{place}", datetime(2020, 4, day, 22, place, tzinfo=UTC), "L2A", bbox=box)
        for day in (1, 2, 6)
        for place, box in enumerate(boxes)
    ]
    for scenes in (overpasses, overpasses[::-1]):
        found = [{scene.id[0] for scene in one} for one in by_overpass(scenes)]
        assert found == [{"1"}, {"2"}, {"6"}]


def test_only_what_concerns_a_season_is_missed() -> None:
    item = {
        "bbox": [177.9, -18, -179.2, -17],
        "properties": {"datetime": "2020-04-01T18:00:00Z", "sat:orbit_state": "descending"},
    }
    spring, box = season_period(2020, "spring"), (-179.9, -17.5, -179.5, -17.2)
    assert concerns(item, spring, "descending", box)
    assert concerns(item, spring, None, box)
    assert concerns({}, spring, "descending", box)  # says nothing: may be one of them
    assert not concerns(item, spring, "ascending", box)
    assert not concerns(item, season_period(2020, "summer"), None, box)
    assert not concerns(item, spring, None, (170, -17.5, 171, -17.2))


def test_latest_processing_comes_first_within_a_day() -> None:
    moment = datetime(2020, 4, 1, 8, tzinfo=UTC)
    old = Scene("a", moment, "L2A", tile="A", baseline="02.14", processed="2020")
    new = Scene("z", moment, "L2A", tile="B", baseline="05.00", processed="2023")
    assert [s.id for s in by_overpass([old, new])[0]] == ["z", "a"]
    assert [s.id for s in by_overpass([new, old])[0]] == ["z", "a"]


def test_sentinel_1_without_orbit_is_lost() -> None:
    item = {
        "id": "S1A_x_rtc",
        "bbox": [30, -2, 31, -1],
        "properties": {"datetime": "2020-04-01T03:48:42Z", "platform": "SENTINEL-1A"},
        "assets": {"vv": {"href": "https://h/vv.tif"}, "vh": {"href": "https://h/vh.tif"}},
    }
    assert isinstance(scene_from_item(item, "s1", PC), Lost)
    item["properties"]["sat:orbit_state"] = "ascending"
    scene = scene_from_item(item, "s1", PC)
    assert isinstance(scene, Scene)
    assert scene.orbit == "ascending"


def test_a_scene_survives_the_way_through_json(real_items: list[dict]) -> None:
    scene = read(real_items[0])
    assert scene_from_dict(json.loads(json.dumps(scene.as_dict()))) == scene
