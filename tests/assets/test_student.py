"""A student on the small country: taught by its members, promoted, mapped with, audited, made
again and gone back from, as checkpoints are."""

from __future__ import annotations

import json
import os

import dagster as dg
import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from rich.console import Console

from popcorn_assets.audit.reproduce import reproduce
from popcorn_assets.cli import cli
from popcorn_assets.commands.progress import failure_text
from popcorn_assets.commands.working import work
from popcorn_assets.country import load_country
from popcorn_assets.partitions import partition_key
from popcorn_assets.promotion.by_hand import promote, roll_back
from popcorn_assets.promotion.ledger import ledger_versions, read_ledger
from popcorn_assets.store.newer import newer_inputs
from popcorn_assets.store.versions import Address, Store
from popcorn_assets.upkeep.plan import plan
from popcorn_assets.upkeep.standing import standing
from popcorn_ml import raster
from popcorn_ml.errors import StoreError
from tests.platforms import Place, enter
from tests.platforms import copied as copy_of

pytestmark = [pytest.mark.long(60), pytest.mark.timeout(900)]

WHO = "user tester"
FILES = {
    "student.safetensors", "card.json", "history.json", "units.json", "loss.png", "picture.png",
    "out_of_fold.json",
}  # fmt: skip


def settle(place: Place, **sections) -> None:
    """Change sections of the country's file."""
    path = place.home / "countries" / "demo.yaml"
    country = yaml.safe_load(path.read_text("utf-8"))
    path.write_text(yaml.safe_dump({**country, **sections}, sort_keys=False), "utf-8")


def run(place: Place, job: str, year: int = 2020):
    """A job as `popcorn run` carries it out."""
    with place.instance() as instance:
        worked = work(instance, job, "demo", year, Console(quiet=True), small=True)
        assert worked.made, failure_text(instance, worked.run_id)
        return worked.run_id


def at(asset: str, year: int = 2020) -> Address:
    return Address(asset, "demo", year)


def verdicts(place: Place, run_id: str) -> dict[str, bool]:
    with place.instance() as instance:
        events = instance.get_records_for_run(
            run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
        ).records
        found = [e.event_log_entry.get_dagster_event().asset_check_evaluation_data for e in events]
        return {one.check_name: one.passed for one in found}


@pytest.fixture(scope="module")
def taught(tiny, tmp_path_factory) -> tuple[Place, dict[str, bool]]:
    """The small country after its whole job with `kind: student`, and what its checks said."""
    place = copy_of(tiny, tmp_path_factory.mktemp("student") / "home")
    with pytest.MonkeyPatch.context() as patch:
        enter(place, patch)
        model = {"country": "demo", "year": 2020, "kind": "student"}
        settle(place, model=model, student={"steps": 3})
        return place, verdicts(place, run(place, "country_year"))


@pytest.fixture
def place(taught, monkeypatch) -> Place:
    enter(taught[0], monkeypatch)
    return taught[0]


@pytest.fixture
def store(place) -> Store:
    return Store(place.data)


@pytest.fixture(scope="module")
def mapped(taught) -> Place:
    """Both years mapped by the student, however badly so few steps have taught it."""
    place, _ = taught
    with pytest.MonkeyPatch.context() as patch:
        enter(place, patch)
        store = Store(place.data)
        if read_ledger(store, "demo").in_use(2020).model.kind == "bag":  # chance decides of so few
            promote(store, "demo", "student 2020", who=WHO, force=True, reason="to be looked at")
        for year in (2020, 2021):
            run(place, "refresh", year)
    return place


def test_where_the_file_says_bag_none_is_trained_and_it_is_said(in_tiny):
    found = Store(in_tiny.data).latest(at("student"))
    assert set(found.manifest()["files"]) == {"student.json"}
    assert "kind: bag" in dict(found.manifest()["shown"])["not trained"]
    assert found.manifest()["checks"] == []
    with in_tiny.instance() as instance:
        made = instance.fetch_materializations(
            dg.AssetRecordsFilter(
                asset_key=dg.AssetKey("student"),
                asset_partitions=[partition_key("demo", 2020)],
            ),
            limit=1,
        ).records
    assert made
    told = CliRunner().invoke(cli, ["show", "demo", "2020"]).output
    assert "the Bag (model.kind: bag)" in told
    assert "student" not in told
    with pytest.raises(StoreError, match="holds no student"):
        reproduce(Store(in_tiny.data), at("student"))


def test_the_whole_job_trains_one_from_the_members_and_judges_it(taught, place, store):
    found = store.latest(at("student"))
    manifest = found.manifest()
    assert set(manifest["files"]) == FILES
    told = json.loads(found.file("out_of_fold.json").read_text("utf-8"))
    bag = store.made_from(found, "checkpoints")
    units = json.loads(bag.file("out_of_fold.json").read_text("utf-8"))
    assert [(u["id"], u["people"], u["fold"]) for u in told] == [
        (u["id"], u["people"], u["fold"]) for u in units
    ]
    assert {c["name"]: c["passed"] for c in manifest["checks"]} == {
        "finite_student": True,
        "units_accounted_for": True,
        "keeps_up_with_the_bag": taught[1]["keeps_up_with_the_bag"],
    }
    assert taught[1]["finite_student"]
    shown = dict(manifest["shown"])
    assert [row["model"] for row in shown["units that neither saw"]] == ["student", "Bag"]
    assert shown["units that neither saw"][1]["n"] == 12
    assert {e["asset"] for e in manifest["inputs"]} == {
        "checkpoints", "s1_composites", "s2_composites", "builtup_area", "census_units",
        "census_counts", "builtup_extractor",
    }  # fmt: skip
    assert manifest["facts"]["extractor"]["fingerprint"]
    assert not (place.data / ".work" / "student" / "demo" / "2020").exists() or not list(
        (place.data / ".work" / "student" / "demo" / "2020").glob("*/out")
    )


def test_the_decision_compares_it_with_the_members(store, place):
    entries = read_ledger(store, "demo").entries
    judged = next(entry for entry in entries if entry.model.kind == "student")
    assert judged.against.model.kind == "bag"
    assert "held-out loss of people" in judged.reason
    assert judged.metrics["units"] == judged.against.metrics["units"] == 12


def test_again_it_is_current(store, place):
    before = store.latest(at("student"))
    run(place, "train")
    assert store.latest(at("student")).manifest()["run_id"] == before.manifest()["run_id"]


def test_a_check_of_it_asked_for_alone_says_what_its_manifest_says(store, place):
    from popcorn_assets.definitions import defs

    before = store.latest(at("student")).manifest()
    check = dg.AssetCheckKey(dg.AssetKey("student"), "keeps_up_with_the_bag")
    job = defs.resolve_implicit_global_asset_job_def().get_subset(asset_check_selection={check})
    with place.instance() as instance:
        done = job.execute_in_process(instance=instance, partition_key=partition_key("demo", 2020))
    (said,) = done.get_asset_check_evaluations()
    (kept,) = [c for c in before["checks"] if c["name"] == check.name]
    assert (said.passed, said.description) == (kept["passed"], kept["message"])
    assert store.latest(at("student")).manifest() == before


@pytest.mark.usefixtures("mapped")
def test_both_years_are_mapped_with_it(store, place):
    model = store.latest(at("student"))
    for year in (2020, 2021):
        predicted = store.latest(at("population_map", year))
        shown = dict(predicted.manifest()["shown"])
        assert shown["model"] == f"student of demo|2020, version {model.version}"
        assert predicted.manifest()["parameters"]["kind"] == "student"
        with raster.opened(predicted.file("population_members.tif")) as dataset:
            assert dataset.count == 1
        counts = json.loads(
            store.latest(at("census_counts", year)).file("counts_coarse.json").read_text()
        )
        people = sum(unit["people"] for unit in counts)
        for asset in ("adjusted_map", "hectare_map"):
            values = raster.read_float(
                store.latest(at(asset, year)).file("population.tif"), None, 1
            )
            assert np.nansum(values, dtype=float) == pytest.approx(people, rel=1e-6)
        assert newer_inputs(store, store.latest(at("hectare_map", year))) == []
    changed = store.latest(at("change", 2021)).manifest()["facts"]
    assert changed["compared"]
    assert changed["from_year"] == 2020


@pytest.mark.usefixtures("mapped")
def test_intervals_and_scores_rest_on_the_folds(store, place):
    hectares = store.latest(at("hectare_map", 2021)).manifest()
    assert "student" in {entry["asset"] for entry in hectares["inputs"]}
    assert "12 counted units" in hectares["facts"]["intervals"]["why"]  # too few of them
    scores = json.loads(store.latest(at("evaluation", 2021)).file("metrics.json").read_text())
    assert scores["without_truth"]["units"] == 12


@pytest.mark.usefixtures("mapped")
def test_the_audit_goes_back_to_the_members_and_finds_nothing_wrong(store, place):
    done = CliRunner().invoke(cli, ["audit", "demo", "2021"])
    assert done.exit_code == 0, done.output
    for told in ("student demo|2020", "checkpoints demo|2020", "demo_extractor.safetensors"):
        assert told in done.output
    assert "changed" not in done.output
    facts = store.latest(at("publication", 2021))
    told = json.loads(next(facts.path.glob("*.json")).read_text("utf-8"))
    assert told


@pytest.mark.usefixtures("mapped")
@pytest.mark.parametrize("asset", ["population_map", "student"])
def test_it_is_made_again_to_the_byte(store, place, monkeypatch, asset):
    monkeypatch.setenv("POPCORN_LAUNCHER", "inline")
    assert reproduce(store, at(asset)).identical


@pytest.mark.usefixtures("mapped")
def test_what_a_ledger_names_is_kept_with_its_teachers(store, place):
    model = store.latest(at("student"))
    teachers = store.made_from(model, "checkpoints")
    named = ledger_versions(store)
    assert (model.address, model.version) in named
    going = plan(store, keep=1, older_than_days=0, ledger=named, now=4e9).removals
    gone = {(r.version.address, r.version.version) for r in going if r.version}
    assert not gone & {(model.address, model.version), (teachers.address, teachers.version)}


@pytest.mark.usefixtures("mapped")
def test_it_is_shown_and_gone_back_from(store, place):
    told = CliRunner().invoke(cli, ["show", "demo", "2020"]).output
    assert "a student, both sensors (model.kind: student)" in told
    assert "student of demo|2020" in told
    of = standing(store, load_country("demo"), 2020)
    assert of.parts["student"].state == "current"
    listed = CliRunner().invoke(cli, ["models", "demo"]).output
    assert "student" in listed
    entry = roll_back(store, "demo", who=WHO, reason="villages are empty")
    assert entry.model.kind == "bag"
    run(place, "refresh", 2021)
    shown = dict(store.latest(at("population_map", 2021)).manifest()["shown"])
    assert shown["model"].startswith("demo|2020, version")
    changed = store.latest(at("change", 2021)).manifest()["facts"]
    assert not changed["compared"]
    assert "different models: 2020 by student demo|2020" in changed["why"]
    assert os.environ["POPCORN_DATA"] == str(place.data)
