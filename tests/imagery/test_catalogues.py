"""STAC catalogues through the real clients over a local server: search, signing, faults, a kill."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from popcorn_ml import raster
from popcorn_ml.errors import ImageryError
from popcorn_ml.grid import Grid
from popcorn_ml.imagery.build import build_season
from popcorn_ml.imagery.choice import open_source
from popcorn_ml.imagery.doctor import examine
from popcorn_ml.imagery.secrets import Secrets, scrub
from popcorn_ml.imagery.settings import ImagerySettings
from popcorn_ml.imagery.source import SeasonRequest
from popcorn_ml.imagery.stac_search import search, stamp
from popcorn_ml.sentinel import season_period
from tests.imagery.conftest import TILE_PX, YEAR, Place
from tests.imagery.web_server import WebServer

pytestmark = pytest.mark.long(30)


def remote(
    web: WebServer, *, retries: int = 6, tile_px: int = TILE_PX, **options
) -> ImagerySettings:
    """The Planetary Computer profile, at the local server."""
    return ImagerySettings.parse(
        {
            "source": "stac",
            "stac": {
                "profile": "planetary-computer",
                "url": web.api,
                "sign_url": web.sas,
                "retries": retries,
                "first_wait_s": 0.01,
                "pool": 4,
            },
            "tile_px": tile_px,
            **options,
        }
    )


def build(place: Place, settings: ImagerySettings, out: Path, sensor: str = "s2", **options):
    return build_season(
        sensor, "spring", YEAR, place.grid, settings, out, out.parent / "scratch", **options
    )


def files(folder: Path) -> dict[str, str]:
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.iterdir()}


@pytest.fixture(autouse=True)
def fresh_tokens():
    """The provider's library keeps tokens for the whole process."""
    from planetary_computer import sas

    sas.TOKEN_CACHE.clear()
    yield
    sas.TOKEN_CACHE.clear()


@pytest.fixture(scope="module")
def from_disk(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the same scenes give when read from disk."""
    folder = tmp_path_factory.mktemp("disk")
    for sensor in ("s1", "s2"):
        build(place, place.settings(), folder / sensor, sensor)
    return folder


@pytest.mark.parametrize("sensor", ["s1", "s2"])
def test_same_composite_as_from_disk(
    place: Place, web: WebServer, tmp_path: Path, from_disk: Path, sensor: str
) -> None:
    """Search in pages, sign, read ranges: not a pixel differs, and the costs are counted."""
    web.signed = True
    report = build(place, remote(web), tmp_path / "out", sensor)
    for name in ("composite.tif", "clear_count.tif"):
        ours, other = (raster.read(f / name) for f in (tmp_path / "out", from_disk / sensor))
        np.testing.assert_array_equal(ours, other)
    assert report.traffic["requests"] == web.asset_requests()
    assert report.traffic["bytes"] == web.bytes_sent
    assert report.traffic["retries"] == 0
    assert len(web.searches) >= 2
    assert len(web.tokens) == 1  # one token serves all scenes of the container
    hrefs = json.dumps(report.as_dict())
    assert web.url in hrefs
    assert "canary" not in hrefs


def test_the_antimeridian_is_asked_for_from_both_sides(web: WebServer) -> None:
    """Catalogues differ in what they make of a box whose west is greater than its east."""
    grid = Grid("EPSG:32760", 810000, 8150000, 10, 2000, 1000)
    chosen = [
        item
        for item in web.items
        if item["collection"] == "sentinel-1-rtc"
        and item["properties"]["sat:orbit_state"] == "descending"
        and "2020-03" <= item["properties"]["datetime"] < "2020-06"
    ]
    boxes = ((178, 180), (-180, -179), (-179.2, -178))
    for item, (west, east) in zip(chosen, boxes, strict=False):
        item["bbox"] = [west, -18, east, -16]
    source = open_source(remote(web))
    found = source.scenes(SeasonRequest("s1", YEAR, "spring", grid, "descending")).scenes
    source.close()
    assert {scene.id for scene in found} == {item["id"] for item in chosen[:2]}
    assert all(body["bbox"][0] < body["bbox"][2] for body in web.searches)


def test_search_ends_before_the_season_does(web: WebServer) -> None:
    """pystac-client stretches a date to its end: a border day would be in two seasons."""
    found: dict[str, list[str]] = {}
    west, south, east, north = web.items[0]["bbox"]
    box = (west - 1, south - 1, east + 1, north + 1)
    for season in ("spring", "summer", "autumn", "winter"):
        items = search(web.api, "sentinel-2-l2a", box, season_period(YEAR, season))
        found[season] = [item["id"] for item in items]
    everything = [name for names in found.values() for name in names]
    assert len(everything) == len(set(everything))
    for body in web.searches:
        start, end = body["datetime"].split("/")
        assert start.endswith("-01T00:00:00.000000Z")
        assert end.endswith("T23:59:59.999999Z")
    border = dict(web.items[0], id="border")
    border["properties"] = {**border["properties"], "datetime": "2020-06-01T00:00:00Z"}
    web.items.append(border)
    seasons = [
        season
        for season in found
        if any(
            item["id"] == "border"
            for item in search(web.api, border["collection"], box, season_period(YEAR, season))
        )
    ]
    assert seasons == ["summer"]


def test_stamp_keeps_the_moment() -> None:
    end = season_period(2020, "spring").end - timedelta(microseconds=1)
    assert stamp(end) == "2020-05-31T23:59:59.999999Z"


def test_cloudy_scenes_are_left_out_and_those_that_do_not_say_are_not(
    place: Place, web: WebServer
) -> None:
    """A catalogue that is asked for less cloud answers without the items that say nothing of it."""
    settings = remote(web)
    stac = settings.chosen.model_copy(update={"max_cloud_percent": 20.0})
    chosen = ImagerySettings.parse({"source": "stac", "stac": stac})
    request = SeasonRequest("s2", YEAR, "spring", place.grid)

    def found(given: ImagerySettings) -> dict[str, float]:
        source = open_source(given)
        try:
            scenes = source.scenes(request).scenes
        finally:
            source.close()
        return {scene.id: clouds[scene.id] for scene in scenes}

    clouds = {item["id"]: item["properties"].get("eo:cloud_cover") for item in web.items}
    every = found(settings)
    clear = {name: cloud for name, cloud in every.items() if cloud <= 20}
    assert 0 < len(clear) < len(every)
    assert found(chosen) == clear
    said = [float("nan"), "n/a", None, {}, "12.5", "99"]
    cloudy = sorted(set(every) - set(clear))[: len(said)]
    for item in web.items:
        if item["id"] in cloudy:
            item["properties"]["eo:cloud_cover"] = said[cloudy.index(item["id"])]
    assert set(found(chosen)) == {*clear, *cloudy[:5]}


def test_expired_signatures_are_renewed(
    place: Place, web: WebServer, tmp_path: Path, from_disk: Path
) -> None:
    """A link answers 403 in the middle of the fetch: it is signed anew and nothing is lost."""
    web.signed = True
    state = {"until": 40}

    def expire(path: str, number: int) -> None:
        state["until"] -= 1
        if state["until"] == 0:
            web.tokens.append("sig=canary-the-others-are-void-now")

    web.fault = expire
    report = build(place, remote(web), tmp_path / "out")
    assert report.lost == []
    assert report.traffic["resigned"] >= 1
    assert files(tmp_path / "out")["clear_count.tif"] == files(from_disk / "s2")["clear_count.tif"]


def test_a_signature_that_never_helps(place: Place, web: WebServer, tmp_path: Path) -> None:
    web.fault = lambda path, number: 403
    with pytest.raises(ImageryError, match="could not be read") as failure:
        build(place, remote(web), tmp_path / "out")
    assert "HTTP 403" in str(failure.value)
    assert "canary" not in str(failure.value)


def test_a_collection_that_asks_for_a_key(place: Place, web: WebServer, tmp_path: Path) -> None:
    """The token service refuses: said at once, instead of after every link."""
    web.token_status = 403
    with pytest.raises(ImageryError, match="could not be signed") as failure:
        build(place, remote(web), tmp_path / "out", "s1")
    assert "POPCORN_PLANETARY_COMPUTER_KEY" in str(failure.value)
    assert web.asset_requests() == 0
    findings = examine(remote(web), Secrets(), connect=True)
    assert [finding.ok for finding in findings] == [True, True, True, True, False]
    web.token_status = 200
    assert all(finding.ok for finding in examine(remote(web), Secrets(), connect=True))


def test_missing_assets(place: Place, web: WebServer, tmp_path: Path) -> None:
    gone = {item["assets"]["B08"]["href"] for item in web.items if "B08" in item["assets"]}
    gone = {href.removeprefix(web.url) for href in sorted(gone)[::4]}
    web.fault = lambda path, number: 404 if path in gone else None
    report = build(place, remote(web, max_lost_share=0.5), tmp_path / "out")
    assert {one["asset"] for one in report.lost} == {"B08"}
    assert {one["reason"] for one in report.lost} == {"HTTP 404"}
    assert report.traffic["retries"] == 0  # what is gone is not asked for again
    values = raster.read(tmp_path / "out" / "composite.tif")
    assert (values[3] > 0).mean() > 0.5


def test_random_errors_and_truncated_assets(
    place: Place, web: WebServer, tmp_path: Path, from_disk: Path
) -> None:
    """5 % server errors and cut connections, 2 % of the assets truncated: complete, and told."""
    chance = random.Random(3)
    assets = sorted(
        asset["href"].removeprefix(web.url)
        for item in web.items
        if (item["collection"] == "sentinel-2-l2a" and "-03-" in item["properties"]["datetime"])
        or "-04-" in item["properties"]["datetime"]
        for asset in item["assets"].values()
        if item["collection"] == "sentinel-2-l2a"
    )
    short = set(chance.sample(assets, max(1, round(len(assets) * 0.02))))
    injected = {"errors": 0}

    def fault(path: str, number: int):
        if chance.random() < 0.05:
            injected["errors"] += 1
            return chance.choice([500, 502, 503, 429, "cut"])
        if path in short:
            held = (web.folder / path.removeprefix("/blob/")).read_bytes()
            return held[: len(held) // 2]
        return None

    web.fault = fault
    report = build(place, remote(web, max_lost_share=0.2, tile_px=64), tmp_path / "out")
    assert injected["errors"] >= 10
    assert report.traffic["retries"] == injected["errors"]
    lost = {(one["scene"], one["asset"]) for one in report.lost}
    truncated = {(Path(p).parent.name, Path(p).stem) for p in short}
    assert lost <= truncated  # no server error cost a pixel
    assert len(report.lost) == len(lost)  # each said once, not once a tile
    told = {scene for scene, _ in truncated} - set(report.duplicates)
    assert lost or not told
    whole = raster.read(from_disk / "s2" / "composite.tif")
    ours = raster.read(tmp_path / "out" / "composite.tif")
    assert ((whole > 0) & (ours == 0)).mean() < 0.1
    if not lost:
        np.testing.assert_array_equal(ours, whole)


def test_a_catalogue_that_stumbles_and_one_that_fails(
    place: Place, web: WebServer, tmp_path: Path
) -> None:
    web.search_fault = lambda number: 503 if number == 1 else None
    report = build(place, remote(web), tmp_path / "out", "s1")
    assert report.scenes
    web.search_fault = lambda number: 400
    with pytest.raises(ImageryError, match="the catalogue did not answer"):
        build(place, remote(web), tmp_path / "again", "s1")
    with pytest.raises(ImageryError, match="the catalogue did not answer"):
        list(
            search(
                "http://127.0.0.1:9", "x", (0, 0, 1, 1), season_period(2020, "spring"), retries=0
            )
        )


@pytest.mark.parametrize(
    ("stac", "reason"),
    [
        ({"profile": "earth-search"}, "earth-search has Sentinel-1 only"),
        (
            {"profile": "planetary-computer", "collections": {"s1": "sentinel-1-grd"}},
            "uncalibrated digital numbers",
        ),
    ],
)
def test_uncalibrated_sentinel_1_is_refused(
    place: Place, tmp_path: Path, stac: dict, reason: str
) -> None:
    """Fault 13: digital numbers are not decibels."""
    settings = ImagerySettings.parse({"source": "stac", "stac": stac})
    with pytest.raises(ImageryError, match=reason) as failure:
        build(place, settings, tmp_path / "out", "s1")
    assert "sentinel-1-rtc" in str(failure.value)


def test_agrees_with_odc_stac(place: Place, web: WebServer, tmp_path: Path) -> None:
    """The usual loader, over the same links, sees the same observations."""
    import odc.stac
    import pystac
    from odc.geo.geobox import GeoBox
    from rasterio.transform import Affine

    from popcorn_ml.imagery.overpasses import without_duplicates
    from popcorn_ml.imagery.stac_items import PROFILES, scene_from_item

    spring = [
        item
        for item in web.items
        if item["collection"] == "sentinel-2-l2a"
        and "2020-03-01" <= item["properties"]["datetime"] < "2020-06-01"
    ]
    scenes = [scene_from_item(item, "s2", PROFILES["local"]) for item in spring]
    kept, _ = without_duplicates(scenes)
    ids = {scene.id for scene in kept}
    by_offset = {
        offset: [
            pystac.Item.from_dict(item, preserve_dict=True)
            for item in spring
            if item["id"] in ids and offset == {s.id: s.offset for s in kept}[item["id"]]
        ]
        for offset in (0, 1000)
    }
    geobox = GeoBox(place.grid.shape, Affine(*place.grid.transform), place.grid.crs)
    layers = []
    for offset, items in by_offset.items():
        assert items
        loaded = odc.stac.load(
            items,
            bands=["B02", "B08", "SCL"],
            geobox=geobox,
            groupby="solar_day",
            resampling="nearest",
            fail_on_error=True,
        )
        for day in range(loaded.sizes["time"]):
            one = loaded.isel(time=day)
            clear = np.isin(one.SCL.values, (4, 5, 6, 7))
            both = np.stack([one.B02.values, one.B08.values]).astype(float)
            layers.append(np.where(clear & (both > 0), np.maximum(both - offset, 1), np.nan))
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        expected = np.floor(np.nanmedian(np.stack(layers), axis=0) + 0.5)
    build(place, remote(web), tmp_path / "out")
    ours = raster.read(tmp_path / "out" / "composite.tif", bands=[1, 4])
    # Where granules of a day overlap odc shows the class of the one and the band of the other.
    assert (ours != np.nan_to_num(expected)).mean() < 0.002


KILLED = """
import json, sys
from pathlib import Path
from popcorn_ml.grid import Grid
from popcorn_ml.imagery.build import build_season
from popcorn_ml.imagery.settings import ImagerySettings
grid, settings, out, scratch = json.loads(sys.argv[1])
build_season("s2", "spring", 2020, Grid(**grid), ImagerySettings.parse(settings),
             Path(out), Path(scratch))
"""


def test_killed_at_half(place: Place, web: WebServer, tmp_path: Path) -> None:
    """SIGKILL in the middle: the next run asks at most for the tile in flight again."""
    given = remote(web, tile_px=64)
    settings = {"source": "stac", "stac": json.loads(given.chosen.model_dump_json()), "tile_px": 64}
    whole = build(place, given, tmp_path / "whole")
    total = web.asset_requests()
    web.fault = lambda path, number: time.sleep(0.004)  # leaves time to aim
    scratch, out = tmp_path / "killed-scratch", tmp_path / "out"
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            KILLED,
            json.dumps([place.grid.as_dict(), settings, str(out), str(scratch)]),
        ],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    deadline = time.monotonic() + 60
    while len(list(scratch.rglob("tile_*.npz"))) < 7:
        assert process.poll() is None, "finished before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(list(scratch.rglob("tile_*.npz")))
    assert 7 <= done < 16
    assert not list(out.glob("*.tif"))
    web.fault = lambda path, number: None
    before = web.asset_requests()
    report = build_season("s2", "spring", YEAR, place.grid, given, out, scratch)
    assert report.tiles["resumed"] == done
    assert report.tiles["fetched"] == 16 - done
    fetched_twice = before + (web.asset_requests() - before) - 2 * total
    most_a_tile = max(total / 16 * 3, 60)
    assert 0 <= fetched_twice <= most_a_tile
    assert files(out) == files(tmp_path / "whole")
    assert report.scenes == whole.scenes


def test_the_scene_list_is_kept_when_resuming(
    place: Place, web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scene published between the kill and the resumed run does not get into half the tiles."""
    from popcorn_ml.imagery import build as module

    settings = remote(web)
    whole = build(place, settings, tmp_path / "whole", "s1")

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "assemble", stop)
    with pytest.raises(KeyboardInterrupt):
        build(place, settings, tmp_path / "out", "s1")
    monkeypatch.undo()
    for item in list(web.items):
        if item["collection"] == "sentinel-1-rtc" and "2020-03" in item["properties"]["datetime"]:
            moment = datetime.fromisoformat(item["properties"]["datetime"]) + timedelta(days=6)
            later = {**item, "id": item["id"] + "_later"}
            later["properties"] = {**item["properties"], "datetime": moment.isoformat()}
            web.items.append(later)
    report = build(place, settings, tmp_path / "out", "s1")
    assert report.scenes == whole.scenes
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_secrets_stay_out_of_logs_and_reports(
    place: Place, web: WebServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Signatures and keys, with every library logging all it can and half the requests failing."""
    from planetary_computer.settings import Settings

    web.signed = True
    secrets = Secrets(planetary_computer_key="canary-subscription-key")
    chance = random.Random(1)
    web.fault = lambda path, number: chance.choice([None, None, 500, 404])
    kept = Settings.get().subscription_key
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("rasterio").setLevel(logging.DEBUG)
        report = build(
            place, remote(web, max_lost_share=1.0), tmp_path / "out", "s1", secrets=secrets
        )
        web.fault = lambda path, number: 404
        with pytest.raises(ImageryError) as failure:
            build(place, remote(web, max_lost_share=0.0), tmp_path / "no", "s1", secrets=secrets)
    Settings.get().subscription_key = kept
    assert web.tokens
    told = [json.dumps(report.as_dict()), str(failure.value), repr(secrets), str(secrets)]
    told += [r.getMessage() for r in caplog.records]
    told += [f.read_bytes().decode("latin-1") for f in (tmp_path / "out").iterdir()]
    for text in told:
        assert "canary" not in text
    assert scrub("see https://h/a.tif?sig=canary&x=1 and http://h/b") == (
        "see https://h/a.tif and http://h/b"
    )
