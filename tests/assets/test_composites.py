"""Composites in the store: what was lost, what today's limits say of them, what becomes of work."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import dagster as dg
import geopandas as gpd
import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from shapely.geometry import box

from popcorn_assets.assets.imagery import LOST_TRIES, assets
from popcorn_assets.cli import cli
from popcorn_assets.partitions import partition_key
from popcorn_assets.resources import ComputeResource, ImageryResource, StoreResource
from popcorn_assets.store.making import REUSE_TAG
from popcorn_assets.store.versions import Address, Store, Version
from popcorn_ml import raster
from popcorn_ml.grid import Grid
from tests.platforms import Place

GRID = Grid("EPSG:32736", 500000.0, 9800000.0, 10.0, 120, 120)
SEASON = "s2_summer"
SCENES = 8


@pytest.fixture
def country(place: Place) -> Place:
    """A country of 120 x 120 pixels with scenes of one summer on disk, each of one level."""
    folder = place.data / "scenes"
    features = []
    for number in range(SCENES):
        name, values = f"scene_{number}", {"SCL": 4}
        values |= dict.fromkeys(("B02", "B03", "B04", "B08"), 1200 + 100 * number)
        for band, value in values.items():
            level = np.full(GRID.shape, value, np.uint16)
            raster.write(folder / f"{name}_{band}.tif", level, GRID, [band], nodata=0)
        features.append(
            {
                "id": name,
                "collection": "sentinel-2-l2a",
                "bbox": [32.9, -1.9, 33.1, -1.7],
                "assets": {band: {"href": f"{name}_{band}.tif"} for band in values},
                "properties": {
                    "datetime": f"2020-07-{number + 1:02d}T08:06:00Z",
                    "s2:processing_baseline": "05.00",
                },
            }
        )
    (folder / "items.json").write_text(json.dumps({"features": features}))
    write_country(place)
    return place


def write_country(place: Place, **imagery: object) -> None:
    said = {
        "name": "Land",
        "grid": {"crs": GRID.crs, "bounds": list(GRID.bounds)},
        "imagery": {
            "source": "stac",
            "stac": {"profile": "local", "items": "scenes/items.json"},
            "tile_px": 64,
            **imagery,
        },
        "census": {
            "levels": {
                "u": {
                    "role": "train",
                    "boundaries": {"file": "units.gpkg", "columns": {"id": "id", "name": "name"}},
                    "counts": {
                        "file": "counts.csv",
                        "year": 2020,
                        "columns": {"id": "id", "people": "people"},
                    },
                }
            }
        },
    }
    (place.home / "countries" / "demo.yaml").write_text(yaml.safe_dump(said))


def materialise(place: Place, *, reuse: bool = True, asset: str = SEASON):
    """A run as a schedule starts it: what is current in the store is taken from there."""
    with place.instance() as instance:
        return dg.materialize(
            assets,
            selection=dg.AssetSelection.assets(asset),
            instance=instance,
            partition_key=partition_key("demo", 2020),
            resources={
                "store": StoreResource(),
                "imagery": ImageryResource(),
                "compute": ComputeResource(),
            },
            tags={REUSE_TAG: "true"} if reuse else {},
            raise_on_error=False,
        )


def store() -> Store:
    return StoreResource().open()


def latest() -> Version:
    return store().latest(Address(SEASON, "demo", 2020))


def facts() -> dict:
    return latest().manifest()["facts"]


def tiles(place: Place) -> list[Path]:
    """Finished tiles of half-done work."""
    return list((place.data / ".work").rglob("tile_*.npz"))


def level(place: Place) -> int:
    """The median of the season, one for all its pixels."""
    (found,) = np.unique(raster.read(latest().path / "composite.tif", bands=1))
    return int(found)


def lose(place: Place, *names: str) -> list[Path]:
    """Put assets where the catalogue does not say."""
    moved = []
    for name in names:
        path = place.data / "scenes" / name
        moved.append(path.rename(path.with_suffix(".away")))
    return moved


def restore(moved: list[Path]) -> None:
    for path in moved:
        path.rename(path.with_suffix(".tif"))


def test_entries_that_are_no_items_are_listed_and_fail_nothing(country: Place) -> None:
    """Nor when the manifest keeps the digests of the items used, one of which has no id."""
    path = country.data / "scenes" / "items.json"
    items = json.loads(path.read_text())["features"]
    del items[0]["id"], items[1]["collection"]
    items[2]["assets"]["preview"] = None
    items[3]["properties"]["eo:cloud_cover"] = float("nan")
    path.write_text(json.dumps({"features": [*items, None, "scene", {"id": "odd"}]}))
    assert materialise(country).success
    assert level(country) == 550
    assert facts()["scenes"][0]["id"] == "scene_0_SCL"
    assert {one["scene"] for one in facts()["left_out"]} == {"entry 9", "entry 10", "odd"}
    (catalogue,) = facts()["catalogues"]
    assert len(catalogue["items"]) == SCENES
    shown = dict(latest().manifest()["shown"])
    assert shown["scenes of another kind, left out"] == 3


def test_a_later_run_tries_what_was_lost(country: Place) -> None:
    """Only that, and the composite is then the one of all scenes."""
    moved = lose(country, "scene_7_B02.tif", "scene_6_B02.tif")
    assert materialise(country).success
    assert {one["scene"] for one in facts()["lost"]} == {"scene_6", "scene_7"}
    assert facts()["lost_share"] == pytest.approx(2 / 40)
    assert level(country) == 450  # of 200, 300, ..., 700
    restore(moved)
    assert materialise(country).success
    assert (facts()["lost"], facts()["tiles"]["fetched"]) == ([], 4)
    assert level(country) == 550
    assert tiles(country) == []
    version = latest().version
    assert materialise(country).success
    assert latest().version == version


def test_what_is_gone_for_good_is_tried_a_few_times(country: Place) -> None:
    lose(country, "scene_7_B08.tif")
    for run in range(LOST_TRIES + 2):
        assert materialise(country).success
        assert facts()["lost_tries"] == min(run + 1, LOST_TRIES)
    assert materialise(country, reuse=False).success
    assert facts()["lost_tries"] == LOST_TRIES + 1


def test_limits_are_those_of_the_country_file(country: Place) -> None:
    """Tightened or loosened after the composite was made; the scenes are not read again."""
    hidden = np.full(GRID.shape, 4, np.uint16)
    hidden[:, :40] = 9
    for number in range(SCENES):
        path = country.data / "scenes" / f"scene_{number}_SCL.tif"
        raster.write(path, hidden, GRID, ["SCL"], nodata=0)
    assert materialise(country).success
    made = latest()
    assert facts()["nodata_share"] == pytest.approx(40 / 120)
    away = country.data / "scenes" / "away"
    away.mkdir()
    for path in (country.data / "scenes").glob("*.tif"):
        shutil.move(path, away)  # nothing can be made again
    write_country(country, checks={"max_nodata_share": 0.1})
    verdict = verdicts(materialise(country))
    assert verdict["nodata_share"] == (False, "ERROR")
    assert not materialise(country, asset="s2_composites").success
    write_country(country, checks={"max_nodata_share": 0.5, "warn_nodata_share": 0.5})
    assert verdicts(materialise(country))["nodata_share"] == (True, "WARN")
    assert latest().version == made.version
    write_country(country, checks={"warn_nodata_share": 0.2})
    assert verdicts(materialise(country))["nodata_share"] == (False, "WARN")


def verdicts(result) -> dict[str, tuple[bool, str]]:
    return {
        one.check_name: (one.passed, one.severity.value)
        for one in result.get_asset_check_evaluations()
    }


def test_a_tightened_limit_of_losses(country: Place) -> None:
    lose(country, "scene_7_B08.tif", "scene_6_B08.tif")
    for _ in range(LOST_TRIES):
        assert materialise(country).success
    write_country(country, max_lost_share=0.01)
    assert not materialise(country).success
    write_country(country, max_lost_share=0.1)
    assert materialise(country).success


@pytest.mark.parametrize("when", ["the picture", "publishing"])
def test_a_disk_that_fills_after_the_composite_costs_nothing(
    country: Place, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """What the message says is kept is there, and the next run fetches nothing."""

    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        if when == "the picture":
            broken.setattr("popcorn_assets.assets.imagery.save_picture", full)
        else:
            broken.setattr(Store, "publish", full)
        assert not materialise(country).success
    assert len(tiles(country)) == 4
    assert materialise(country).success
    assert facts()["tiles"] == {"total": 4, "outside": 0, "fetched": 0, "resumed": 4}
    assert tiles(country) == []


def test_drafts_of_a_killed_fetch_are_cleared(country: Place) -> None:
    moved = lose(country, "scene_7_B02.tif")
    assert materialise(country).success  # leaves its tiles
    (folder,) = (country.data / ".work").rglob("imagery-*")
    for name in (".tile_000001.a8x_1k.npz", ".scenes.zz.json", "export_s2/.part-0.x.tif"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"half")
    restore(moved[:0])
    assert materialise(country).success
    assert not [path for path in folder.rglob(".*") if path.is_file()]


def test_a_person_may_ask_for_what_was_lost(country: Place) -> None:
    """`popcorn imagery retry`: a run of its own, of the seasons that lost something alone."""
    moved = lose(country, "scene_7_B02.tif")
    assert materialise(country).success

    def asked() -> tuple[int, str]:
        done = CliRunner().invoke(cli, ["imagery", "retry", "demo", "2020"])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.output

    code, told = asked()
    assert code == 1
    assert "s2_summer  1 lost, now 1; first: scene_7 B02: the file is not there" in told
    restore(moved)
    code, told = asked()
    assert (code, told.strip()) == (0, "s2_summer  1 lost, now 0")
    assert level(country) == 550
    code, told = asked()
    assert (code, "have lost nothing" in told) == (0, True)
    with country.instance() as instance:
        runs = instance.get_runs()
    assert [run.job_name for run in runs[:2]] == ["ingest", "ingest"]
    assert {str(key) for key in runs[0].asset_selection or ()} <= {str(dg.AssetKey(SEASON))}


def test_another_part_of_the_same_boundary_file_is_another_composite(country: Place) -> None:
    """Which features are meant, and how far around them, decides what is fetched."""
    west, south, east, north = GRID.bounds
    middle = (west + east) / 2
    frame = gpd.GeoDataFrame(
        {"part": ["a", "b"]},
        geometry=[box(west, south, west + 99, north), box(east - 99, south, east, north)],
        crs=GRID.crs,
    )
    frame.to_file(country.data / "parts.gpkg")
    path = country.home / "countries" / "demo.yaml"
    said = yaml.safe_load(path.read_text())
    versions, seen = [], []
    for wanted in ({"where": {"part": "a"}}, {"where": {"part": "b"}},
                   {"where": {"part": "b"}, "margin_m": middle - west}):  # fmt: skip
        said["grid"] |= {"boundary": "parts.gpkg", **wanted}
        path.write_text(yaml.safe_dump(said))
        os.utime(path, ns=(len(seen), len(seen)))
        assert materialise(country).success
        versions.append(latest().version)
        seen.append((raster.read(latest().path / "clear_count.tif", bands=1) != 65535)[0, [0, -1]])
    assert len(set(versions)) == 3
    assert [list(map(bool, one)) for one in seen] == [[True, False], [False, True], [True, True]]


def test_a_limit_of_scenes_is_part_of_the_recipe(country: Place) -> None:
    """Changed, the season is made anew of fewer scenes; taken back, the first is current."""
    assert materialise(country).success
    every = latest()
    assert facts()["choice"] is None
    write_country(country, max_scenes=3)
    assert materialise(country).success
    some = latest()
    assert some.version != every.version
    assert some.manifest()["recipe"] != every.manifest()["recipe"]
    assert len(facts()["scenes"]) == 3
    shown = dict(some.manifest()["shown"])
    assert (shown["scenes offered"], shown["scenes chosen"]) == (SCENES, 3)
    assert shown["observations a place, median"] == f"3 of {SCENES}"
    assert len(facts()["not_chosen"]) == SCENES - 3
    write_country(country, max_cloud_cover=100)
    assert materialise(country).success
    assert latest().manifest()["recipe"] == every.manifest()["recipe"]
    assert latest().version == every.version


def test_the_estimate_tries_a_limit_without_the_file_being_changed(country: Place) -> None:
    said = {}
    for options in ((), ("--max-scenes", "2")):
        done = CliRunner().invoke(cli, ["imagery", "estimate", "demo", "2020", "--ask", *options])
        assert done.exit_code == 0, done.output
        said[options] = done.output
    assert f"scenes    {SCENES} (counted)" in said[()]
    assert "> no limit" in said[()]
    assert "scenes    2 (counted)" in said[("--max-scenes", "2")]
    assert "> 2 " in said[("--max-scenes", "2")]
    refused = CliRunner().invoke(cli, ["imagery", "estimate", "demo", "2020", "--max-scenes", "0"])
    assert refused.exit_code == 2
    assert "--max-scenes" in refused.output
