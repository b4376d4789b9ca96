"""Earth Engine through its real client, against a local server that evaluates the expressions."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from popcorn_ml import raster
from popcorn_ml.errors import ConfigError, ImageryError, Transient
from popcorn_ml.grid import EARTH_ENGINE_10M_DEG, Grid
from popcorn_ml.imagery.build import build_season
from popcorn_ml.imagery.choice import open_source
from popcorn_ml.imagery.doctor import examine
from popcorn_ml.imagery.ee_graph import scene_from_feature
from popcorn_ml.imagery.nearest import lonlat_bounds
from popcorn_ml.imagery.overpasses import without_duplicates
from popcorn_ml.imagery.secrets import Secrets
from popcorn_ml.imagery.settings import ImagerySettings
from popcorn_ml.imagery.source import Scene, SeasonRequest
from popcorn_ml.imagery.stac_items import PROFILES, scene_from_item
from tests.imagery import plain
from tests.imagery.conftest import TILE_PX, YEAR, Place
from tests.imagery.ee_server import ACCESS_TOKEN, Archive, EarthEngineServer, Evaluator

pytestmark = [
    pytest.mark.long(20),
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),
]


def settings_for(server: EarthEngineServer, *, tile_px: int = TILE_PX, **options):
    return ImagerySettings.parse(
        {
            "source": "earthengine",
            "earthengine": {"url": server.url, "first_wait_s": 0.01, **options},
            "tile_px": tile_px,
        }
    )


@pytest.fixture
def key(earth_engine: EarthEngineServer, tmp_path: Path) -> Secrets:
    """A service account that the server lets in."""
    return Secrets(earthengine_key_file=earth_engine.key_file(tmp_path / "key.json"))


def build(place: Place, settings: ImagerySettings, out: Path, sensor: str, key: Secrets, **options):
    return build_season(
        sensor,
        "spring",
        YEAR,
        options.pop("grid", place.grid),
        settings,
        out,
        out.parent / "scratch",
        secrets=key,
        **options,
    )


def files(folder: Path) -> dict[str, str]:
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.iterdir()}


@pytest.mark.parametrize("sensor", ["s1", "s2"])
def test_same_composite_as_through_stac(
    place: Place, earth_engine: EarthEngineServer, key: Secrets, tmp_path: Path, sensor: str
) -> None:
    """One season of one place from two providers: equal, to a hundredth of a dB for Sentinel-1."""
    report = build(place, settings_for(earth_engine), tmp_path / "ee", sensor, key)
    other = build(place, place.settings(), tmp_path / "stac", sensor, key)
    for name, allowed in (("composite.tif", 1 if sensor == "s1" else 0), ("clear_count.tif", 0)):
        ours, theirs = (raster.read(tmp_path / f / name, grid=place.grid) for f in ("ee", "stac"))
        assert ours.dtype == theirs.dtype
        assert np.abs(ours.astype(int) - theirs).max() <= allowed
        assert (ours != theirs).mean() < 1e-3
    assert [s["id"] for s in report.scenes] == [s["id"] for s in other.scenes]
    assert report.duplicates == other.duplicates
    assert report.nodata_share == other.nodata_share
    assert report.clear == other.clear
    # What differs is told: sigma-nought here, gamma-nought there.
    assert (report.provenance["backscatter"], other.provenance["backscatter"]) == (
        ("sigma0", "gamma0") if sensor == "s1" else ("", "")
    )
    assert report.traffic["requests"] == earth_engine.seen["image:computePixels"] == 4
    expected, _ = plain.composite(
        place.items, place.grid, sensor, "2020-03-01", "2020-06-01",
        "descending" if sensor == "s1" else None,
    )  # fmt: skip
    values = raster.read_float(tmp_path / "ee" / "composite.tif")
    np.testing.assert_array_equal(np.isnan(values), np.isnan(expected))
    assert np.nanmax(np.abs(values - expected)) <= (0.011 if sensor == "s1" else 0.5)


@pytest.mark.parametrize("sensor", ["s1", "s2"])
def test_same_choice_of_scenes_as_through_stac(
    place: Place, earth_engine: EarthEngineServer, key: Secrets, tmp_path: Path, sensor: str
) -> None:
    """By the cloud cover that each provider states of an image, and where its outline lies."""
    limits = {"max_scenes": 2, "max_cloud_cover": 60}
    engine = settings_for(earth_engine).limited(**limits)
    report = build(place, engine, tmp_path / "ee", sensor, key)
    other = build(place, place.settings(**limits), tmp_path / "stac", sensor, key)
    assert report.choice["kept"] < report.choice["offered"]
    assert report.not_chosen == other.not_chosen
    assert report.choice == other.choice
    assert report.clear == other.clear


def test_cloud_probability_decides_and_scene_classes_stand_in(
    place: Place, key: Secrets, earth_engine: EarthEngineServer, tmp_path: Path
) -> None:
    """Probability 65 is cloud, 64 is not; a scene without it falls back to its scene classes."""
    limit = earth_engine.archive
    limit.probability = lambda scl: np.where(scl == 4, 64, 65)  # only vegetation stays
    report = build(place, settings_for(earth_engine), tmp_path / "veg", "s2", key)
    names = [scene["id"] for scene in report.scenes]
    scenes = json.loads(place.items.read_text())["features"]
    by_name = {item["id"]: item for item in scenes}
    vegetation = sum(
        np.isin(plain.on_grid(
            place.items.parent / by_name[name]["assets"]["SCL"]["href"], place.grid, 0), [4]
        ).astype(int)
        for name in names[:1]
    )  # fmt: skip
    clear = raster.read(tmp_path / "veg" / "clear_count.tif", bands=1)
    assert (clear[vegetation > 0] > 0).all()
    first = build(place, settings_for(earth_engine, cloud_mask="scl"), tmp_path / "scl", "s2", key)
    assert first.clear["mean"] > report.clear["mean"]
    alone = EarthEngineServer(Archive(place.items, without_probability=set(names)))
    try:
        alone.archive.probability = limit.probability
        secret = Secrets(earthengine_key_file=alone.key_file(tmp_path / "other.json"))
        build(place, settings_for(alone), tmp_path / "fallback", "s2", secret)
    finally:
        alone.close()
    assert (
        files(tmp_path / "fallback")["clear_count.tif"]
        == files(tmp_path / "scl")["clear_count.tif"]
    )


def test_pixels_are_asked_for_on_the_exact_grid(
    place: Place, earth_engine: EarthEngineServer, key: Secrets, tmp_path: Path
) -> None:
    """On the published countries' grid: EPSG:4326 at Earth Engine's step; tiles fit together."""
    grid = Grid.covering("EPSG:4326", lonlat_bounds(place.grid), EARTH_ENGINE_10M_DEG)
    build(place, settings_for(earth_engine), tmp_path / "ee", "s1", key, grid=grid)
    build(place, place.settings(), tmp_path / "stac", "s1", key, grid=grid)
    for asked in earth_engine.grids:
        t = asked["affineTransform"]
        assert asked["crsCode"] == "EPSG:4326"
        assert (t["scaleX"], t["scaleY"]) == (EARTH_ENGINE_10M_DEG, -EARTH_ENGINE_10M_DEG)
        offset = (t["translateX"] - grid.west) / grid.step
        assert offset == pytest.approx(round(offset), abs=1e-6)
    ours, theirs = (raster.read(tmp_path / f / "composite.tif") for f in ("ee", "stac"))
    assert (ours != -32768).mean() > 0.9
    assert (np.abs(ours.astype(int) - theirs) > 1).mean() < 5e-3  # GDAL's neighbours, in the server


def test_outside_every_scene_is_nodata_not_zero_decibel(
    place: Place, earth_engine: EarthEngineServer, key: Secrets, tmp_path: Path
) -> None:
    """Fault 5: what was never seen became 0 dB, the brightest there is."""
    west, south, east, north = place.grid.bounds
    grid = Grid.covering(place.grid.crs, (west - 2000, south, east, north), 10)
    build(place, settings_for(earth_engine), tmp_path / "ee", "s1", key, grid=grid)
    values = raster.read(tmp_path / "ee" / "composite.tif")
    assert (values[:, :, :120] == -32768).all()
    assert (values[:, :, 250:] != -32768).mean() > 0.9
    assert not (values == 0).all(axis=0).any()


def test_scenes_on_both_sides_of_the_antimeridian_are_listed(
    earth_engine: EarthEngineServer, key: Secrets
) -> None:
    """A box from 179.9 to -179.9 is asked for as its two parts, not as the rest of the world."""
    grid = Grid("EPSG:32760", 810000, 8150000, 10, 2000, 1000)
    images = [
        (name, image)
        for name, image in earth_engine.archive.images.items()
        if name.startswith("COPERNICUS/S1_GRD/")
        and image["properties"]["orbitProperties_pass"] == "DESCENDING"
        and "2020-03" <= image["item"]["properties"]["datetime"] < "2020-06"
    ]
    boxes = ((178, 180), (178, 181), (-180, -179), (-179.2, -178), (150, 160))
    for (_, image), (west, east) in zip(images, boxes, strict=False):
        image["item"] = {**image["item"], "bbox": [west, -18, east, -16], "geometry": None}
    request = SeasonRequest("s1", YEAR, "spring", grid, "descending")
    source = open_source(settings_for(earth_engine), key)
    found = {scene.id: scene.bbox for scene in source.scenes(request).scenes}
    source.close()
    assert found == {
        name.rpartition("/")[2]: (west, -18, east, -16)
        for (name, _), (west, east) in zip(images, boxes[:3], strict=False)
    }


def test_errors_are_waited_out(
    place: Place, earth_engine: EarthEngineServer, key: Secrets, tmp_path: Path
) -> None:
    """A third of all answers 429, 500, 503 or cut: nothing is lost, all is counted."""
    whole = build(place, settings_for(earth_engine, tile_px=64), tmp_path / "whole", "s1", key)
    chance = random.Random(4)
    injected = {"pixels": 0}

    def fault(path: str, number: int):
        if path in ("image:computePixels", "table:computeFeatures") and chance.random() < 0.33:
            injected["pixels"] += path == "image:computePixels"
            return chance.choice([429, 500, 503, "cut"])
        return None

    earth_engine.fault = fault
    report = build(place, settings_for(earth_engine, tile_px=64), tmp_path / "out", "s1", key)
    assert injected["pixels"] >= 3
    assert report.traffic["retries"] == injected["pixels"]
    assert report.lost == []
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    assert report.scenes == whole.scenes


def test_it_gives_up_with_a_reason_and_goes_on_later(
    place: Place, earth_engine: EarthEngineServer, key: Secrets, tmp_path: Path
) -> None:
    settings = settings_for(earth_engine, retries=2, parallel=1)
    earth_engine.fault = lambda path, number: (
        503 if path == "image:computePixels" and number > 2 else None
    )
    with pytest.raises(ImageryError, match="failed 3 times") as failure:
        build(place, settings, tmp_path / "out", "s1", key)
    assert "503" in str(failure.value)
    earth_engine.fault = lambda path, number: None
    report = build(place, settings, tmp_path / "out", "s1", key)
    assert report.tiles["resumed"] == 2
    assert report.tiles["fetched"] == 2


def test_a_refusal_is_not_repeated(
    place: Place, earth_engine: EarthEngineServer, key: Secrets, tmp_path: Path
) -> None:
    earth_engine.fault = lambda path, number: (
        (403, "Caller does not have permission") if path == "table:computeFeatures" else None
    )
    with pytest.raises(ImageryError, match="refuses") as failure:
        build(place, settings_for(earth_engine), tmp_path / "out", "s2", key)
    assert "does not have permission" in str(failure.value)
    assert "popcorn doctor" in str(failure.value)
    assert earth_engine.seen["table:computeFeatures"] == 1


def test_too_much_for_the_service_is_asked_for_in_parts(
    place: Place,
    earth_engine: EarthEngineServer,
    key: Secrets,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from popcorn_ml.imagery import ee_client

    monkeypatch.setattr(ee_client, "SMALLEST_PX", 20)
    build(place, settings_for(earth_engine, tile_px=200), tmp_path / "whole", "s1", key)
    served = EarthEngineServer.pixels

    def small(self: EarthEngineServer, body: dict) -> bytes:
        size = body["grid"]["dimensions"]
        if size["width"] * size["height"] > 5000:
            raise MemoryError("User memory limit exceeded.")
        return served(self, body)

    monkeypatch.setattr(EarthEngineServer, "pixels", small)
    report = build(place, settings_for(earth_engine, tile_px=200), tmp_path / "out", "s1", key)
    assert report.traffic["requests"] == 1 + 4 + 16
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    monkeypatch.setattr(ee_client, "SMALLEST_PX", 100)
    with pytest.raises(ImageryError, match="too much for Earth Engine"):
        build(place, settings_for(earth_engine, tile_px=200), tmp_path / "no", "s1", key)


def test_concurrency_is_bounded(
    place: Place, earth_engine: EarthEngineServer, key: Secrets, tmp_path: Path
) -> None:
    def slow(path: str, number: int) -> None:
        if path == "image:computePixels":
            time.sleep(0.1)

    earth_engine.fault = slow
    build(place, settings_for(earth_engine, parallel=3, tile_px=64), tmp_path / "o", "s1", key)
    assert earth_engine.most_parallel == 3


KILLED = """
import json, sys
from pathlib import Path
import ee.deprecation
ee.deprecation._FetchDataCatalogStac = dict
from popcorn_ml.grid import Grid
from popcorn_ml.imagery.build import build_season
from popcorn_ml.imagery.secrets import Secrets
from popcorn_ml.imagery.settings import ImagerySettings
grid, settings, key, out, scratch = json.loads(sys.argv[1])
build_season("s1", "spring", 2020, Grid(**grid), ImagerySettings.parse(settings), Path(out),
             Path(scratch), secrets=Secrets(earthengine_key_file=Path(key)))
"""


def test_killed_at_half(
    place: Place, earth_engine: EarthEngineServer, key: Secrets, tmp_path: Path
) -> None:
    """SIGKILL in the middle: at most the tiles in flight are fetched twice, the bytes are equal."""
    parallel, tiles = 3, 16
    given = settings_for(earth_engine, parallel=parallel, tile_px=64)
    whole = build(place, given, tmp_path / "whole", "s1", key)
    earth_engine.seen.clear()
    earth_engine.fault = lambda path, number: (
        time.sleep(0.15) if path == "image:computePixels" else None
    )
    settings = {
        "source": "earthengine",
        "earthengine": json.loads(given.chosen.model_dump_json()),
        "tile_px": 64,
    }
    out, scratch = tmp_path / "out", tmp_path / "killed"
    call = [place.grid.as_dict(), settings, str(key.earthengine_key_file), str(out), str(scratch)]
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, json.dumps(call)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    deadline = time.monotonic() + 60
    while len(list(scratch.rglob("tile_*.npz"))) < tiles // 2:
        assert process.poll() is None, "finished before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(list(scratch.rglob("tile_*.npz")))
    assert tiles // 2 <= done < tiles
    assert not list(out.glob("*.tif"))
    time.sleep(0.3)
    report = build_season("s1", "spring", YEAR, place.grid, given, out, scratch, secrets=key)
    assert report.tiles == {
        "total": tiles,
        "outside": 0,
        "fetched": tiles - done,
        "resumed": done,
    }
    asked_twice = earth_engine.seen["image:computePixels"] - tiles
    assert 0 <= asked_twice <= parallel
    assert files(out) == files(tmp_path / "whole")
    assert report.scenes == whole.scenes


def export_settings(server: EarthEngineServer) -> ImagerySettings:
    return settings_for(
        server,
        mode="export",
        bucket="bucket",
        poll_s=0.01,
        file_px=256,
        storage_url=server.url,
        tile_px=128,
    )


def test_export_through_a_bucket(
    place: Place, earth_engine: EarthEngineServer, key: Secrets, tmp_path: Path
) -> None:
    """A whole season written to the bucket in several files: the same composite as by tiles."""
    west, south, east, north = place.grid.bounds
    grid = Grid.covering(place.grid.crs, (west - 1000, south, east, north), 10)  # 300 px wide
    by_tiles = build(place, settings_for(earth_engine), tmp_path / "tiles", "s2", key, grid=grid)
    report = build(place, export_settings(earth_engine), tmp_path / "export", "s2", key, grid=grid)
    assert len(earth_engine.bucket) == 2
    assert len(earth_engine.exports) == 1
    for name in ("composite.tif", "clear_count.tif"):
        ours, other = (raster.read(tmp_path / f / name) for f in ("export", "tiles"))
        np.testing.assert_array_equal(ours, other)
    assert report.scenes == by_tiles.scenes
    (body,) = (held["body"] for held in earth_engine.exports.values())
    assert body["grid"]["dimensions"] == {"width": grid.width, "height": grid.height}
    assert body["grid"]["affineTransform"]["translateX"] == grid.west


@pytest.mark.parametrize("noted", [True, False])
def test_an_export_is_started_once(
    noted: bool,
    place: Place,
    earth_engine: EarthEngineServer,
    key: Secrets,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run killed while the export goes on finds it again: by its note, or by its request id."""
    from popcorn_ml.imagery import ee_export

    def killed(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ee_export.time, "sleep", killed)
    with pytest.raises(KeyboardInterrupt):
        build(place, export_settings(earth_engine), tmp_path / "out", "s2", key)
    monkeypatch.setattr(ee_export.time, "sleep", lambda seconds: None)
    (note,) = (tmp_path / "scratch").rglob(ee_export.OPERATION)
    if not noted:
        note.unlink()
        earth_engine.refuse_known_ids = True
    build(place, export_settings(earth_engine), tmp_path / "out", "s2", key)
    assert earth_engine.seen["image:export"] == (1 if noted else 2)
    assert len(earth_engine.exports) == 1
    (operation,) = earth_engine.exports
    assert len(operation.rpartition("/")[2]) <= 60  # the service takes no longer request id


@pytest.mark.parametrize("work", ["kept", "gone"])
def test_a_failed_export_is_made_again(
    place: Place, earth_engine: EarthEngineServer, key: Secrets, tmp_path: Path, work: str
) -> None:
    """The service gives the failed operation for its request id for ever: another is asked for."""
    earth_engine.export_error = "Bucket 'bucket' not found"
    for attempt in range(1, 4):
        with pytest.raises(ImageryError, match="ended as FAILED") as failure:
            build(place, export_settings(earth_engine), tmp_path / "out", "s2", key)
        assert "Bucket 'bucket' not found" in str(failure.value)
        assert len(earth_engine.exports) == attempt
        if work == "gone":
            shutil.rmtree(tmp_path / "scratch")
    earth_engine.export_error = None
    report = build(place, export_settings(earth_engine), tmp_path / "out", "s2", key)
    assert report.scenes
    assert len(earth_engine.exports) == 4
    names = [held["body"]["description"] for held in earth_engine.exports.values()]
    assert len(set(names)) == 4, "the task manager tells them apart"
    shutil.rmtree(tmp_path / "scratch")
    build(place, export_settings(earth_engine), tmp_path / "again", "s2", key)
    assert len(earth_engine.exports) == 4, "the one that succeeded is taken up"
    assert files(tmp_path / "again") == files(tmp_path / "out")


def test_an_export_whose_files_are_gone_is_made_again(
    place: Place, earth_engine: EarthEngineServer, key: Secrets, tmp_path: Path
) -> None:
    """A lifecycle rule has emptied the bucket; the operation is finished all the same."""
    build(place, export_settings(earth_engine), tmp_path / "out", "s2", key)
    earth_engine.bucket.clear()
    build(place, export_settings(earth_engine), tmp_path / "again", "s2", key)
    assert len(earth_engine.exports) == 2
    assert files(tmp_path / "again") == files(tmp_path / "out")


@pytest.mark.parametrize(("status", "down"), [(503, True), (403, False)])
def test_a_bucket_that_does_not_answer_is_asked_again_later(
    place: Place,
    earth_engine: EarthEngineServer,
    key: Secrets,
    tmp_path: Path,
    status: int,
    down: bool,
) -> None:
    earth_engine.fault = lambda path, number: status if path.startswith("/storage/") else None
    with pytest.raises(ImageryError, match="cannot be read from the bucket") as failure:
        build(place, export_settings(earth_engine), tmp_path / "out", "s2", key)
    assert isinstance(failure.value, Transient) == down
    earth_engine.fault = lambda path, number: None
    build(place, export_settings(earth_engine), tmp_path / "out", "s2", key)
    assert len(earth_engine.exports) == 1


@pytest.mark.parametrize(
    ("strip", "start"),
    [
        ("S2A_OPER_MSI_L2A_DS_SGS__20160704T171823_S20160704T103021_N02.04", "20160704T103021"),
        ("S2B_OPER_MSI_L2A_DS_S2RP_20230101T010203_S20190704T103021_N05.00", "20190704T103021"),
        ("S2A_OPER_MSI_L2A_DS_EPAE_20160704T171823_S20160704T103021_N02.04", "20160704T103021"),
        ("S2A_OPER_MSI_L2A_DS_2APS_20230101T010203_S20190704T103021_N05.00", "20190704T103021"),
        (None, ""),
        (7, ""),
    ],
)
def test_a_strip_is_known_by_its_sensing_time_whatever_the_station(
    strip: object, start: str
) -> None:
    """Alike on Earth Engine and in a STAC item: so halves of a granule are told from versions."""
    feature = {
        "properties": {"index": "x", "time": 1467628221000, "strip": strip, "baseline": "02.04"}
    }
    item = {
        "id": "x",
        "assets": {"SCL": {"href": "scl.tif"}},
        "properties": {
            "datetime": "2016-07-04T10:30:21Z",
            "s2:datastrip_id": strip,
            "s2:processing_baseline": "02.04",
        },
    }
    ours = scene_from_feature(feature, "s2"), scene_from_item(item, "s2", PROFILES["local"])
    assert [scene.strip for scene in ours] == [start, start]


def test_split_and_reprocessed_granules_of_the_stations(place: Place) -> None:
    """Halves that differ in their strip both stay; an older processing of one of them does not."""

    def granule(index: str, station: str, sensed: str, baseline: str) -> Scene:
        name = f"S2A_OPER_MSI_L2A_DS_{station}_20160704T171823_S{sensed}_N{baseline}"
        said = {"index": index, "time": 1467628221000, "strip": name, "baseline": baseline}
        return scene_from_feature({"properties": {**said, "tile": "35MNM"}}, "s2")

    scenes = [
        granule("north", "SGS_", "20160704T103021", "02.04"),
        granule("south", "SGS_", "20160704T103145", "02.04"),
        granule("north_again", "S2RP", "20160704T103021", "05.00"),
    ]
    kept, dropped = without_duplicates(scenes)
    assert {scene.id for scene in kept} == {"north_again", "south"}
    assert dropped == ("north",)


def test_secrets_stay_out_of_logs_and_reports(
    place: Place,
    earth_engine: EarthEngineServer,
    key: Secrets,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The key, its token and the account, with every library logging all it can, also on errors."""
    private = json.loads(key.earthengine_key_file.read_text())
    canaries = [ACCESS_TOKEN, private["private_key"][100:160], private["private_key_id"]]
    with caplog.at_level(logging.DEBUG):
        report = build(place, settings_for(earth_engine), tmp_path / "out", "s1", key)
        earth_engine.fault = lambda path, number: 403 if "compute" in path else None
        with pytest.raises(ImageryError) as failure:
            build(place, settings_for(earth_engine), tmp_path / "no", "s2", key)
    assert earth_engine.tokens_given
    told = [json.dumps(report.as_dict()), str(failure.value), repr(key), f"{key}"]
    told += [f.read_bytes().decode("latin-1") for f in (tmp_path / "out").iterdir()]
    told += [f.read_bytes().decode("latin-1") for f in (tmp_path / "scratch").rglob("*.json")]
    told += [record.getMessage() for record in caplog.records]
    for text in told:
        for canary in canaries:
            assert canary not in text


def test_what_is_missing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Place
) -> None:
    settings = ImagerySettings.parse({"source": "earthengine"})
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    missing = Secrets(earthengine_key_file=tmp_path / "key.json", earthengine_project="p")
    with pytest.raises(ConfigError, match="key file is missing"):
        build(place, settings, tmp_path / "out", "s2", missing)
    (tmp_path / "key.json").write_text('{"type": "canary-type", "private_key": "canary"}')
    with pytest.raises(ConfigError, match="not a service account's key") as failure:
        build(place, settings, tmp_path / "out", "s2", missing)
    assert "canary" not in str(failure.value)
    lines = [str(finding) for finding in examine(settings, Secrets())]
    text = "\n".join(lines)
    assert "MISS Google credentials" in text
    assert "gcloud auth application-default login" in text
    assert "POPCORN_EARTHENGINE_PROJECT" in text


def test_doctor_is_content(earth_engine: EarthEngineServer, key: Secrets) -> None:
    findings = examine(settings_for(earth_engine), key, connect=True)
    assert all(finding.ok for finding in findings), [str(f) for f in findings]
    assert any("Earth Engine answers" in f.what for f in findings)


def test_the_evaluator_can_be_wrong() -> None:
    """The server refuses functions it does not know instead of guessing."""
    node = {"functionInvocationValue": {"functionName": "Image.sqrt", "arguments": {}}}
    with pytest.raises(AttributeError):
        Evaluator(None, {"result": "0", "values": {"0": node}}).run()
