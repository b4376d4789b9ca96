"""`max_scenes` and `max_cloud_cover`: on real items, on scenes on disk, at edges and in reports."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import rasterio

from popcorn_ml.errors import ImageryError
from popcorn_ml.grid import Grid
from popcorn_ml.imagery.build import build_season
from popcorn_ml.imagery.choice import open_source
from popcorn_ml.imagery.offered import Offered
from popcorn_ml.imagery.overpasses import without_duplicates
from popcorn_ml.imagery.places import MOST_PLACES, Places
from popcorn_ml.imagery.presets import grid_of_box
from popcorn_ml.imagery.scene_lists import chosen_scenes
from popcorn_ml.imagery.settings import ImagerySettings
from popcorn_ml.imagery.source import Scene, SceneList, SeasonRequest
from popcorn_ml.imagery.stac_fields import footprint_rings
from popcorn_ml.imagery.stac_items import PROFILES, scene_from_item
from popcorn_ml.sentinel import SEASONS, season_period
from tests.imagery import plain
from tests.imagery.conftest import YEAR, Place

GRANULE_KM2 = 109.8**2


@pytest.fixture(scope="module")
def real_items(real_dir: Path) -> list[dict]:
    text = (real_dir / "stac" / "planetary_computer_s2_35MNM_2020_jun_jul.geojson").read_text()
    return json.loads(text)["features"]


def read(items: Iterable[dict]) -> tuple[Scene, ...]:
    """Scenes of items, older processings left out."""
    scenes = [scene_from_item(item, "s2", PROFILES["planetary-computer"]) for item in items]
    return without_duplicates(scenes)[0]


def choose(
    scenes: Iterable[Scene], grid: Grid, sensor: str = "s2", season: str = "summer", **limits
) -> SceneList:
    orbit = "descending" if sensor == "s1" else None
    return chosen_scenes(
        SceneList(tuple(scenes)),
        SeasonRequest(sensor, YEAR, season, grid, orbit),
        ImagerySettings.parse(limits),
        list(grid.tiles(1024)),
    )


def ids(found: SceneList) -> set[str]:
    return {scene.id for scene in found.scenes}


# Real items -----------------------------------------------------------------------------------


def area_km2(places: Places, scene: Scene) -> float:
    outline = places.outline(scene)
    return outline.area * 111.2**2 * math.cos(math.radians(outline.centroid.y))


def test_outlines_hold_what_the_nodata_shares_say(real_dir: Path, real_items: list[dict]) -> None:
    """Why the footprint says where a scene looks, and not its box: a sliver's is twice as large."""
    grid = grid_of_box((27.0, -8.2, 28.0, -7.3))
    places = Places(grid, list(grid.tiles(1024)))
    for item, scene in zip(real_items, map(scene_of, real_items), strict=True):
        held = 1 - item["properties"]["s2:nodata_pixel_percentage"] / 100
        assert area_km2(places, scene) / GRANULE_KM2 == pytest.approx(held, abs=0.01)
    sliver = json.loads((real_dir / "stac" / "earth_search_v0_s2_l2a.json").read_text())
    scene = Scene("sliver", None, "L2A", footprint=footprint_rings(sliver["geometry"]))
    held = sliver["properties"]["data_coverage"] / 100
    assert area_km2(places, scene) / GRANULE_KM2 == pytest.approx(held, abs=0.005)
    boxed = Scene("boxed", None, "L2A", bbox=tuple(sliver["bbox"]))
    assert area_km2(places, boxed) / GRANULE_KM2 == pytest.approx(2 * held, rel=0.1)


def scene_of(item: dict) -> Scene:
    (scene,) = read([item])
    return scene


def test_real_scenes_the_clearest_spread_over_the_season(real_items: list[dict]) -> None:
    """Thirteen of one tile in June and July, two of them 27 and 29 % cloudy."""
    scenes = read(real_items)
    grid = grid_of_box((27.1, -8.1, 27.9, -7.4))
    assert {s.cloud_cover for s in scenes} == {
        item["properties"]["eo:cloud_cover"] for item in real_items
    }
    four = choose(scenes, grid, max_scenes=4)
    assert len(four.scenes) == 4
    assert max(s.cloud_cover for s in four.scenes) < 2.5
    whole = choose(scenes, grid_of_box((26.9, -8.33, 28.1, -7.14)), max_scenes=4)
    period = season_period(YEAR, "summer")
    quarter = (period.end - period.start) / 4
    for found in (four, whole):  # the whole has corners that some passes do not reach
        assert {(s.moment - period.start) // quarter for s in found.scenes} == {0, 1, 2}
        assert len(found.scenes) == 4
    assert len(choose(scenes, grid, max_scenes=1).scenes) == 1
    eleven = choose(scenes, grid, max_scenes=11)
    assert {s.cloud_cover > 20 for s in eleven.scenes} == {False}
    clear = choose(scenes, grid, max_cloud_cover=5)
    assert ids(clear) == {s.id for s in scenes if s.cloud_cover <= 5}
    for more in (None, 13, 99):
        assert choose(scenes, grid, max_scenes=more).scenes == scenes
    told = four.choice
    assert (told["offered"], told["kept"], told["beyond_max_scenes"]) == (13, 4, 9)
    assert {one.scene for one in four.not_chosen} == {s.id for s in scenes} - ids(four)


def test_where_nothing_limits_nothing_is_asked(real_items: list[dict]) -> None:
    found = SceneList(read(real_items))
    request = SeasonRequest("s2", YEAR, "summer", grid_of_box((27.1, -8.1, 27.9, -7.4)))
    for settings in ({}, {"max_cloud_cover": 100}, {"max_scenes": 1, "source": "files"}):
        assert chosen_scenes(found, request, ImagerySettings.parse(settings), []) is found


def test_an_older_processing_takes_no_place(real_items: list[dict]) -> None:
    """Duplicates go first: the clearest scene, processed again, is one observation."""
    best = min(real_items, key=lambda item: item["properties"]["eo:cloud_cover"])
    again = copy.deepcopy(best)
    again["id"] = again["id"][:-15] + "20230712T010203"
    again["properties"] |= {"s2:processing_baseline": "05.00"}
    grid = grid_of_box((27.1, -8.1, 27.9, -7.4))
    scenes = read([*real_items, again])
    assert len(scenes) == 13
    assert len(choose(scenes, grid, max_scenes=12).scenes) == 12


def test_a_granule_cut_on_the_ground_stays_whole(real_items: list[dict]) -> None:
    """Two strips of one tile and overpass: kept together or not at all, one observation."""
    scenes = list(read(real_items))
    west, south, east, north = scenes[0].bbox
    middle = (south + north) / 2
    halves = [
        (replace(s, id=f"{s.id}_{part}", strip=part, footprint=(), bbox=box))
        for s in scenes
        for part, box in (
            ("a", (west, south, east, middle)),
            ("b", (west, middle, east, north)),
        )
    ]
    grid = grid_of_box((27.1, -8.1, 27.9, -7.4))
    found = choose(halves, grid, max_scenes=4)
    assert len(found.scenes) == 8
    assert {name[:-2] for name in ids(found)} == {s.id[:-2] for s in found.scenes}
    for scene in found.scenes:
        assert {f"{scene.id[:-1]}a", f"{scene.id[:-1]}b"} <= ids(found)
    assert found.choice["observations_a_place"]["kept"]["max"] == 4


# Clouds that nobody knows ---------------------------------------------------------------------


def test_unknown_is_not_clear(real_items: list[dict]) -> None:
    """Not refused, and ranked as the season's median, neither first nor last."""
    items = copy.deepcopy(real_items)
    covers = [90.0, 80.0, 60.0, 60.0, 50.0, 50.0, 40.0, 40.0, 40.0, 20.0, 10.0, 5.0]
    for item, cover in zip(items, [float("nan"), *covers], strict=True):
        item["properties"]["eo:cloud_cover"] = cover
    scenes = read(items)
    unknown = items[0]["id"]
    grid = grid_of_box((27.1, -8.1, 27.9, -7.4))
    found = choose(scenes, grid, max_cloud_cover=30)
    assert ids(found) == {unknown, *(s.id for s in scenes if (s.cloud_cover or 99) <= 30)}
    assert found.choice["cloud_cover_unknown"] == 1
    assert unknown not in ids(choose(scenes, grid, max_scenes=1))
    assert unknown in ids(choose(scenes, grid, max_scenes=10))
    silent = [replace(scene, cloud_cover=None) for scene in scenes]
    assert len(choose(silent, grid, max_scenes=3, max_cloud_cover=10).scenes) == 3
    for odd in ("n/a", -1, 250, None, [], True):
        items[1]["properties"]["eo:cloud_cover"] = odd
        assert scene_of(items[1]).cloud_cover is None


# Edges ----------------------------------------------------------------------------------------


def strips(edges: Iterable[float], grid: Grid, **options) -> list[Scene]:
    """Scenes of a track whose eastern edge is a little elsewhere each time, in degrees."""
    from popcorn_ml.imagery.nearest import lonlat_bounds

    west, south, _, north = lonlat_bounds(grid)
    start = season_period(YEAR, "summer").start
    return [
        Scene(
            f"pass {n:02}",
            start + timedelta(days=5 * n, hours=8),
            "L2A",
            platform="sentinel-2a",
            tile="36MTC",
            footprint=(((west - 1, south - 1), (edge, south - 1), (edge, north + 1),
                        (west - 1, north + 1)),),
            **options,
        )
        for n, edge in enumerate(edges)
    ]  # fmt: skip


def test_what_only_one_pass_has_reached_is_not_lost() -> None:
    """Narrower than the squares of a large country, and far cloudier than all others."""
    grid = grid_of_box((30.0, -3.0, 33.0, 0.0))
    assert grid.width * grid.height > 1000 * MOST_PLACES
    passes = strips([32.0, 32.0, 32.0, 32.003, 32.0, 32.0], grid, cloud_cover=5.0)
    passes[3] = replace(passes[3], cloud_cover=95.0)
    found = choose(passes, grid, max_scenes=2)
    assert "pass 03" in ids(found)
    assert len(found.scenes) == 3
    level = choose([replace(s, footprint=passes[0].footprint) for s in passes], grid, max_scenes=2)
    assert "pass 03" not in ids(level)
    assert len(level.scenes) == 2


def test_another_track_over_the_edge_spares_the_cloudy_pass() -> None:
    grid = grid_of_box((30.0, -3.0, 33.0, 0.0))
    passes = strips([32.0, 32.0, 32.003, 32.0], grid, cloud_cover=5.0)
    passes[2] = replace(passes[2], cloud_cover=95.0)
    beside = [
        replace(s, id=f"other {s.id}", moment=s.moment + timedelta(days=2), tile="36MUC",
                footprint=(((31.0, -4.0), (34.0, -4.0), (34.0, 1.0), (31.0, 1.0)),))
        for s in passes[:2]
    ]  # fmt: skip
    found = choose([*passes, *beside], grid, max_scenes=1)
    assert len(found.scenes) == 2, "one of each track"
    assert found.choice["observations_a_place"]["kept"]["min"] == 1
    assert "pass 02" not in ids(found)


def test_places_on_both_sides_of_the_antimeridian() -> None:
    """Fiji: boxes that cross the line, outlines cut at it, and those that count on beyond it."""
    grid = Grid("EPSG:3832", 3300000, -1800000, 10, 9000, 9000)
    from popcorn_ml.imagery.nearest import lonlat_bounds

    west, south, east, north = lonlat_bounds(grid)
    assert west > east
    start = season_period(YEAR, "summer").start
    ring = [(west - 1, south - 1), (180, south - 1), (180, north + 1), (west - 1, north + 1)]
    rest = [(-180, south - 1), (east + 1, south - 1), (east + 1, north + 1), (-180, north + 1)]
    on = [
        (west - 1, south - 1),
        (east + 361, south - 1),
        (east + 361, north + 1),
        (west - 1, north + 1),
    ]
    shapes = [
        {"bbox": (west - 1, south - 1, east + 1, north + 1)},
        {"footprint": (tuple(ring), tuple(rest))},
        {"footprint": (tuple(on),)},
        {"footprint": (tuple(ring),)},
        {"footprint": (tuple(rest),)},
    ]
    scenes = [
        Scene(f"{n}", start + timedelta(days=9 * n), "L2A", tile=f"{n}", cloud_cover=1.0, **shape)
        for n, shape in enumerate(shapes)
    ]
    places = Places(grid, list(grid.tiles(1024)))
    held = [set(places.under(places.outline(scene)).tolist()) for scene in scenes]
    assert held[0] == held[1] == held[2] == set(range(len(places.pixels)))
    assert held[3] | held[4] == held[0]
    assert held[3]
    assert held[4]
    for three in ([0, 3], [1, 4], [2, 3, 4], [3, 4]):
        found = choose([scenes[n] for n in three], grid, max_scenes=1)
        told = found.choice["observations_a_place"]["kept"]
        assert told["min"] == 1, three


def test_only_places_that_are_asked_for_count() -> None:
    """A boundary: what lies beyond it keeps no scene."""
    grid = grid_of_box((30.0, -3.0, 33.0, 0.0))
    near, far = strips([30.5, 34.0], grid)
    near, far = replace(near, cloud_cover=1.0), replace(far, cloud_cover=90.0)
    tiles = [tile for tile in grid.tiles(1024) if tile.core.col < 2000]
    request = SeasonRequest("s2", YEAR, "summer", grid)
    found = SceneList((near, far))
    some = Offered(found, request, tiles).choose(1, None)
    assert ids(some) == {near.id}
    assert some.choice["beyond_max_scenes"] == 1
    beyond = replace(far, footprint=(((32.5, -1.0), (33.0, -1.0), (33.0, 0.0)),))
    some = Offered(SceneList((near, beyond)), request, tiles).choose(1, None)
    assert some.choice["elsewhere"] == 1
    assert "nothing of what is asked for" in some.not_chosen[0].reason
    assert ids(Offered(found, request, list(grid.tiles(1024))).choose(1, None)) == {
        near.id,
        far.id,
    }


SQUARE = [[30.0, -1.0], [31.0, -1.0], [31.0, 0.0], [30.0, 0.0], [30.0, -1.0]]


@pytest.mark.parametrize(
    ("geometry", "rings"),
    [
        ({"type": "Polygon", "coordinates": [SQUARE, SQUARE[:3]]}, 1),
        ({"type": "Polygon", "coordinates": [[[*corner, 250.0] for corner in SQUARE]]}, 1),
        ({"type": "MultiPolygon", "coordinates": [[SQUARE], [SQUARE]]}, 2),
        ({"type": "LinearRing", "coordinates": SQUARE}, 1),
        ({"type": "GeometryCollection", "geometries": [
            {"type": "Polygon", "coordinates": [SQUARE]}, {"type": "Point", "coordinates": [1, 2]}
        ]}, 1),
        ({"type": "Point", "coordinates": [30.0, -1.0]}, 0),
        ({"type": "Polygon", "coordinates": [[*SQUARE[:3], [None, "x"], SQUARE[0]]]}, 0),
        ({"type": "Polygon", "coordinates": [SQUARE[:2]]}, 0),
        ({"type": "Polygon", "coordinates": [5]}, 0),
        ({"type": "Polygon"}, 0),
        (None, 0),
        ([SQUARE], 0),
    ],
)  # fmt: skip
def test_outlines_as_catalogues_write_them(geometry: object, rings: int) -> None:
    """What is not to be read is not said: the scene's box stands in."""
    found = footprint_rings(geometry)
    assert len(found) == rings
    assert all(ring == tuple(map(tuple, SQUARE)) for ring in found)
    grid = grid_of_box((30.4, -0.6, 30.6, -0.4))
    places = Places(grid, list(grid.tiles(1024)))
    scene = Scene("x", None, "L2A", bbox=(30.0, -1.0, 30.5, 0.0), footprint=found)
    held = places.under(places.outline(scene)).size / len(places.pixels)
    assert held == pytest.approx(1.0 if rings else 0.5, abs=0.02)


# Scenes on disk -------------------------------------------------------------------------------


def seen(
    place: Place, names: Iterable[str], sensor: str, classes: Iterable[int] = ()
) -> np.ndarray:
    """How many days show each pixel, read from the scenes' files: clouds or not, or of classes."""
    items = {item["id"]: item for item in json.loads(place.items.read_text())["features"]}
    key, fill = ("SCL", 0) if sensor == "s2" else ("vv", -1)
    days: dict[str, np.ndarray] = {}
    for name in names:
        item = items[name]
        file = place.items.parent / item["assets"][key]["href"]
        values = plain.on_grid(file, place.grid, fill)
        there = np.isin(values, list(classes)) if classes else values > 0
        day = item["properties"]["datetime"]
        days[day] = days.get(day, np.zeros(there.shape, bool)) | there
    return np.sum(list(days.values()), axis=0)


@pytest.mark.parametrize("sensor", ["s1", "s2"])
@pytest.mark.parametrize("most", [1, 2, 3])
def test_every_observed_pixel_keeps_its_observations(place: Place, sensor: str, most: int) -> None:
    """Read from the pixels themselves: two granules, an edge inside the country, frames that
    differ; and no pixel has more than twice what was asked for."""
    orbit = "descending" if sensor == "s1" else None
    request = SeasonRequest(sensor, YEAR, "autumn", place.grid, orbit)
    source = open_source(place.settings())
    every = source.scenes(request)
    source.close()
    settings = place.settings(max_scenes=most)
    found = chosen_scenes(every, request, settings, list(place.grid.tiles(settings.tile_px)))
    before, after = (seen(place, [s.id for s in one.scenes], sensor) for one in (every, found))
    assert len(found.scenes) < len(every.scenes)
    assert (after[before > 0] > 0).all()
    assert (after >= np.minimum(before, most)).mean() > 0.95
    assert after.max() <= 2 * most


def test_the_likely_empty_share_is_near_what_is_empty(place: Place) -> None:
    """Over four seasons with the one or two clearest, whose clouds are known pixel by pixel."""
    tiles, source = list(place.grid.tiles(100)), open_source(place.settings())
    for most in (1, 2):
        reckoned, found = [], []
        for season in SEASONS:
            request = SeasonRequest("s2", YEAR, season, place.grid)
            chosen = Offered(source.scenes(request), request, tiles).choose(most, None)
            reckoned.append(chosen.choice["likely_empty_share"]["kept"])
            clear = seen(place, [s.id for s in chosen.scenes], "s2", plain.CLEAR)
            found.append((clear == 0).mean())
        assert np.mean(found) > 0
        assert 1 / 3 < np.mean(reckoned) / np.mean(found) < 3, (most, reckoned, found)
    source.close()


def test_the_report_says_what_was_passed_over(place: Place, tmp_path: Path) -> None:
    settings = place.settings(max_scenes=2, max_cloud_cover=45)
    built = [
        build_season("s2", "spring", YEAR, place.grid, given, tmp_path / name, tmp_path / "s")
        for name, given in (("all", place.settings()), ("some", settings))
    ]
    every, some = built
    assert (every.choice, every.not_chosen) == (None, [])
    assert some.scenes_found == every.scenes_found == some.choice["offered"]
    passed = {one["scene"]: one["reason"] for one in some.not_chosen}
    assert len(passed) == some.choice["offered"] - some.choice["kept"]
    assert some.choice["too_cloudy"] + some.choice["beyond_max_scenes"] == len(passed)
    assert {"more than 45 %" in why or "has 2 others" in why for why in passed.values()} == {True}
    assert {scene["id"] for scene in some.scenes}.isdisjoint(passed)
    assert max(scene["cloud_cover"] for scene in some.scenes) <= 45
    assert some.traffic["assets"] < every.traffic["assets"]
    assert some.clear["max"] <= some.choice["observations_a_place"]["kept"]["max"]
    json.dumps(some.as_dict(), allow_nan=False)
    with rasterio.open(tmp_path / "some" / "composite.tif") as dataset:
        assert dataset.read().any()
    reversed_items = json.loads(place.items.read_text())
    reversed_items["features"].reverse()
    turned = place.items.with_name("turned.json")
    turned.write_text(json.dumps(reversed_items))
    try:
        other = replace(place, items=turned).settings(max_scenes=2, max_cloud_cover=45)
        again = build_season(
            "s2", "spring", YEAR, place.grid, other, tmp_path / "again", tmp_path / "s"
        )
    finally:
        turned.unlink()
    assert again.not_chosen == some.not_chosen
    files = [(tmp_path / name / "composite.tif").read_bytes() for name in ("some", "again")]
    assert files[0] == files[1]


def test_sentinel_1_is_chosen_by_time_alone(place: Place, tmp_path: Path) -> None:
    """Of each direction of flight by itself; a limit of clouds says nothing to it."""
    settings = place.settings(max_scenes=2, max_cloud_cover=0)
    report = build_season(
        "s1", "spring", YEAR, place.grid, settings, tmp_path / "out", tmp_path / "s"
    )
    assert (report.choice["offered"], report.choice["too_cloudy"]) == (4, 0)
    assert report.choice["kept"] == len(report.scenes) == 2
    days = sorted(scene["datetime"] for scene in report.scenes)
    assert days[0] < "2020-04-16" <= days[1], "one of each half"
    assert report.choice["other_orbit"]["kept"] == 2


def test_a_season_too_cloudy_throughout_is_refused_in_words(place: Place, tmp_path: Path) -> None:
    """Not made of nothing: what would do is said, and nothing is kept in the way of it."""
    overcast = json.loads(place.items.read_text())
    for item in overcast["features"]:
        if "eo:cloud_cover" in item["properties"]:
            item["properties"]["eo:cloud_cover"] = 71.5
    file = place.items.with_name("overcast.json")
    file.write_text(json.dumps(overcast))
    try:
        settings = replace(place, items=file).settings(max_cloud_cover=60)
        with pytest.raises(ImageryError) as refused:
            build_season(
                "s2", "spring", YEAR, place.grid, settings, tmp_path / "out", tmp_path / "s"
            )
    finally:
        file.unlink()
    said = str(refused.value)
    assert "cloudier than the country's file allows" in said
    assert "imagery.max_cloud_cover" in said
    assert "at most 60 %" in said
    assert "the clearest has 71.5 %" in said
    assert "to 72 or more" in said
    assert not list(tmp_path.rglob("scenes.json"))


def test_what_is_left_without_is_told() -> None:
    """Half of the country under cloudier scenes only: the composite will lack it, and why."""
    from popcorn_ml.imagery.checks import check_nodata_share

    grid = grid_of_box((30.0, -3.0, 33.0, 0.0))
    west, both = strips([31.5, 34.0], grid)
    found = choose(
        [replace(west, cloud_cover=10.0), replace(both, cloud_cover=80.0)],
        grid,
        max_cloud_cover=50,
    )
    assert ids(found) == {west.id}
    assert found.choice["left_without_share"] == pytest.approx(0.5, abs=0.01)
    verdict = check_nodata_share(
        {"nodata_share": 0.5, "choice": dict(found.choice)}, ImagerySettings()
    )
    assert not verdict.passed
    left = f"{found.choice['left_without_share']:.1%}"
    assert f"max_cloud_cover leaves {left} without any scene" in verdict.message
