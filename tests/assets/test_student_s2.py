"""A country mapped by a student of Sentinel-2 alone, from its images to evaluated maps: trained,
taken up where it was killed, mapped where Sentinel-1's files are damaged, audited, made again."""

from __future__ import annotations

import csv
import json
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from rich.console import Console

from popcorn_assets.assets.builtup import DEMO_EXTRACTOR, part_of_work
from popcorn_assets.audit.reproduce import reproduce
from popcorn_assets.cli import cli
from popcorn_assets.commands.progress import failure_text
from popcorn_assets.commands.working import work
from popcorn_assets.definitions import defs
from popcorn_assets.partitions import partition_key
from popcorn_assets.promotion.by_hand import promote
from popcorn_assets.promotion.ledger import read_ledger
from popcorn_assets.store.versions import Address, Store
from popcorn_ml import raster
from popcorn_ml.mapping.builtup import map_builtup, sensors_of_score
from popcorn_ml.model.stored import read_card, read_student
from popcorn_ml.model.weights import load_extractor
from popcorn_ml.sentinel import SEASONS
from popcorn_ml.student.loop import State
from popcorn_ml.training.out_of_fold import read_collected
from popcorn_ml.warehouse.warehouse import Warehouse
from tests.platforms import Place, copied, enter, unlock

pytestmark = [pytest.mark.long(60), pytest.mark.timeout(900)]

MODEL = {"country": "demo", "year": 2020, "kind": "student", "sensors": "s2"}
FROM_THE_MODEL = (
    "deployed_model", "population_map", "adjusted_map", "hectare_map", "evaluation", "publication",
)  # fmt: skip


def at(asset: str, year: int = 2021) -> Address:
    return Address(asset, "demo", year)


def settle(place: Place, **sections) -> None:
    path = place.home / "countries" / "demo.yaml"
    country = yaml.safe_load(path.read_text("utf-8"))
    path.write_text(yaml.safe_dump({**country, **sections}, sort_keys=False), "utf-8")


def trained(place: Place) -> tuple[bool, list[str], str]:
    """The job `train`: whether it got to its end, what its log says, and what failed."""
    with place.instance() as instance:
        worked = work(instance, "train", "demo", 2020, Console(quiet=True), small=True)
        events = instance.all_logs(worked.run_id)
        lines = [event.user_message for event in events if not event.is_dagster_event]
        return worked.made, lines, "" if worked.made else failure_text(instance, worked.run_id)


@contextmanager
def killed_after_its_first_lesson():
    whole = State.write

    def write(self: State, folder: Path) -> None:
        whole(self, folder)
        raise OSError("killed")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(State, "write", write)
        yield


@contextmanager
def without_sentinel_1(store: Store, year: int):
    """Its filled composites are no rasters any more, and one is not there at all."""
    version = store.latest(at("s1_composites", year))
    unlock(version.path)
    kept = {path: path.read_bytes() for path in version.path.glob("*.tif")}
    assert len(kept) == len(SEASONS)
    for path, content in kept.items():
        path.write_bytes(b"no raster" * (len(content) // 9))
    version.file("winter.tif").unlink()
    yield
    for path, content in kept.items():
        path.write_bytes(content)


@pytest.fixture(scope="module")
def mapped(tiny, tmp_path_factory):
    """The small country mapped by its student of Sentinel-2, with what was said on the way."""
    place = copied(tiny, tmp_path_factory.mktemp("s2") / "home")
    with pytest.MonkeyPatch.context() as patch:
        enter(place, patch)
        store = Store(place.data)
        settle(place, model=MODEL, student={"steps": 3})
        with killed_after_its_first_lesson():
            first = trained(place)
        again = trained(place)
        assert again[0], again[2]
        if read_ledger(store, "demo").in_use(2021).model.kind == "bag":
            promote(store, "demo", "student 2020", who="user tester", force=True, reason="a look")
        with without_sentinel_1(store, 2021), place.instance() as instance:
            done = dg.materialize(
                [*defs.assets, *defs.asset_checks],
                selection=dg.AssetSelection.assets(*FROM_THE_MODEL),
                partition_key=partition_key("demo", 2021),
                instance=instance,
                resources=defs.resources,
                run_config={"resources": {"compute": {"config": {"launcher": "inline"}}}},
            )
        assert done.success
        found = {e.check_name: e for e in done.get_asset_check_evaluations()}
        return place, first, again, found


@pytest.fixture
def store(mapped, monkeypatch) -> Store:
    enter(mapped[0], monkeypatch)
    return Store(mapped[0].data)


def test_killed_once_its_training_goes_on(mapped, store):
    """What was mapped and scored for it is not made again, nor what it had learnt."""
    _, (made, lines, failed), (_, again, _), _ = mapped
    assert not made
    assert "killed" in failed
    prepared = {
        "mapping what the members say of this country-year",
        "making the built-up score of the one sensor looked at",
    }
    assert prepared <= set(lines)
    assert not prepared & set(again)
    assert "taken up after step 3" in again
    student = store.latest(at("student", 2020))
    history = json.loads(student.file("history.json").read_text())
    assert [entry["lesson"] for entry in history] == [
        "all units", "without fold 0", "without fold 1",
    ]  # fmt: skip
    assert read_card(student.file("student.safetensors"))["sensors"] == "s2"
    assert student.manifest()["parameters"]["sensors"] == "s2"
    assert not list((store.root / ".work" / "student" / "demo").glob("2020/*/*"))


def test_a_part_of_the_work_is_taken_as_it_is_once_it_is_done(tmp_path):
    with suppress(OSError), part_of_work(tmp_path / "part") as (folder, done):
        (folder / "half").touch()
        raise OSError("killed")
    for before in (False, True, True):
        with part_of_work(tmp_path / "part") as (folder, done):
            assert done is before
            assert (folder / "score").exists() is before
            assert not (folder / "half").exists()
            (folder / "score").touch()


def test_people_are_occupancy_times_the_score_of_sentinel_2(mapped, store, tmp_path):
    """The score in the map is what the extractor makes of Sentinel-2 alone, and no other."""
    predicted = store.latest(at("population_map"))
    s2 = store.made_from(predicted, "s2_composites")
    composites = {season: (None, s2.file(f"{season}.tif")) for season in SEASONS}
    grid = raster.grid_of(predicted.file("population.tif"))
    map_builtup(load_extractor(DEMO_EXTRACTOR), composites, grid, tmp_path / "score.tif", threads=1)
    assert sensors_of_score(tmp_path / "score.tif") == dict.fromkeys(SEASONS, "s2")
    people, occupancy, score = (
        raster.read_float(predicted.file(f"{name}.tif"), bands=1)
        for name in ("population", "occupancy", "builtup_score")
    )
    expected = np.nanmean(raster.read_float(tmp_path / "score.tif"), axis=0)
    np.testing.assert_allclose(score, expected, atol=1e-5)
    both = store.made_from(predicted, "builtup_area").file("builtup_score.tif")
    assert np.nanmax(np.abs(score - np.nanmean(raster.read_float(both), axis=0))) > 0.05
    known = ~np.isnan(people)
    assert known.mean() > 0.9
    assert np.nansum(people) > 0
    np.testing.assert_allclose(people[known], (occupancy * score)[known], rtol=1e-4, atol=1e-6)


def test_what_follows_the_map_rests_on_it_and_on_the_folds(mapped, store):
    counts = json.loads(store.latest(at("census_counts")).file("counts_coarse.json").read_text())
    people = sum(unit["people"] for unit in counts)
    for asset in ("adjusted_map", "hectare_map"):
        values = raster.read_float(store.latest(at(asset)).file("population.tif"), bands=1)
        assert np.nansum(values, dtype=float) == pytest.approx(people, rel=1e-6)
    predicted = store.latest(at("population_map")).manifest()
    shown = dict(predicted["shown"])
    model = store.latest(at("student", 2020))
    assert shown["model"] == f"student of demo|2020, version {model.version}"
    assert shown["looks at"] == "Sentinel-2"
    assert predicted["parameters"]["sensors"] == "s2"
    told = json.loads(store.latest(at("evaluation")).file("metrics.json").read_text())
    assert told["without_truth"]["units"] == 12
    assert told["without_truth"]["told_by"].startswith("students of the folds")
    intervals = store.latest(at("hectare_map")).manifest()["facts"]["intervals"]
    assert "12 counted units" in intervals["why"]  # too few of them
    assert "model" in dict(store.latest(at("hectare_map")).manifest()["shown"])


def test_what_is_published_tells_of_sentinel_2_alone(mapped, store):
    """As the images that the map was made from; the model is a network of its own kind."""
    folder = store.latest(at("publication")).path
    (path,) = folder.rglob("*_facts.json")
    facts = json.loads(path.read_text("utf-8"))
    assert (facts["model"]["kind"], facts["model"]["sensors"]) == ("student", "s2")
    images = [one["name"] for one in facts["sources"] if one["kind"] == "imagery"]
    assert images == ["Copernicus Sentinel-2"]
    said = [facts["citation"], *facts["summary"], facts["method"]["text"]]
    assert "learnt from the ensemble's map" in facts["method"]["text"]
    assert not [text for text in said if "Sentinel-1" in text]
    assert "from Sentinel-2 images" in facts["summary"][1]
    scenes = [dict(one) for one in csv.DictReader(next(folder.rglob("*scenes.csv")).open())]
    assert {scene["sensor"] for scene in scenes} == {"s2"}
    assert len(scenes) == facts["lineage"]["scenes"]
    (model,) = folder.rglob("*_model.json")
    (told,) = json.loads(model.read_text("utf-8"))["properties"]["mlm:input"]
    student = read_student(store.latest(at("student", 2020)).file("student.safetensors"))
    assert told["input"]["shape"][1] == student["enter.convs.0.weight"].shape[1] == 5
    assert "Sentinel-1" not in told["description"]


def test_every_check_says_its_verdict(mapped, store):
    found = mapped[3]
    assert {
        "promotion", "same_extractor", "same_quantity_s1", "same_quantity_s2",
        "few_people_left_out", "members_agree", "map_beats_builtup", "scored_without_truth",
        "hectares_keep_every_person", "units_sum_to_the_census",
    } <= set(found)  # fmt: skip
    blocking = [e for e in found.values() if e.severity == dg.AssetCheckSeverity.ERROR]
    assert [e.check_name for e in blocking if not e.passed] == []
    assert found["same_quantity_s1"].description == "the model looks at no Sentinel-1 images"
    assert found["same_quantity_s2"].passed
    kept = {c["name"]: c["passed"] for c in store.latest(at("student", 2020)).manifest()["checks"]}
    assert set(kept) == {"finite_student", "units_accounted_for", "keeps_up_with_the_bag"}
    assert kept["finite_student"]
    assert kept["units_accounted_for"]


def test_it_is_audited_and_made_again_to_the_byte(mapped, store, monkeypatch):
    done = CliRunner().invoke(cli, ["audit", "demo", "2021"])
    assert done.exit_code == 0, done.output
    assert "student demo|2020" in done.output
    monkeypatch.setenv("POPCORN_LAUNCHER", "inline")
    for address in (at("population_map"), at("student", 2020)):
        again = reproduce(store, address)
        assert again.identical, (again.files, again.differences)


def test_its_units_are_rows_of_the_warehouse(mapped, store):
    """As its file has them, beside the members'; made again, they are replaced."""
    place, student = mapped[0], store.latest(at("student", 2020))

    def rows() -> list[tuple]:
        return Warehouse(store.warehouse).query(
            "SELECT unit_id, people, predicted, members, fold, unit_country "
            "FROM student_out_of_fold WHERE country = 'demo' AND year = 2020 ORDER BY ALL"
        )

    def as_rows(version) -> list[tuple]:
        return sorted(tuple(u.as_row().values()) for u in read_collected(
            version.file("out_of_fold.json")))  # fmt: skip

    assert rows() == as_rows(student)
    assert len(rows()) == 12
    assert student.manifest()["tables"]["student_out_of_fold"]["rows"] == 12
    told = Warehouse(store.warehouse).query(
        "SELECT model, count(*), count(DISTINCT unit_id) FROM unseen_by_model "
        "WHERE country = 'demo' AND year = 2020 GROUP BY ALL ORDER BY ALL"
    )
    assert told == [("bag", 12, 12), ("student", 12, 12)]
    settle(place, student={"steps": 2})
    made, _, failed = trained(place)
    assert made, failed
    other = store.latest(at("student", 2020))
    assert other.version != student.version
    assert rows() == as_rows(other) != as_rows(student)
