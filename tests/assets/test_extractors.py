"""A model meets the built-up score of the extractor that it was trained on, or nothing is made."""

from __future__ import annotations

import shutil

import dagster as dg
import pytest
import yaml

from popcorn_assets.assets.builtup import DEMO_EXTRACTOR
from popcorn_assets.assets.extractors import Extractor, SameExtractor, extractor_of
from popcorn_assets.partitions import partition_key
from popcorn_assets.store.versions import Address, Store
from popcorn_ml import raster
from popcorn_ml.model.stored import read_card
from popcorn_ml.model.weights import fingerprint, load_extractor, save_extractor
from tests.assets.test_graph import altered
from tests.platforms import Place, enter

DEMO = Extractor("demo", fingerprint(load_extractor(DEMO_EXTRACTOR)))
MAPPED = ("builtup_area", "checkpoints", "population_map")


@pytest.fixture(scope="module")
def two_extractors(tiny, tmp_path_factory):
    """The small country where a second extractor lies, which its file names since the first run."""
    home = tmp_path_factory.mktemp("extractors") / "home"
    shutil.copytree(tiny.home, home)
    place = Place(home)
    other = load_extractor(DEMO_EXTRACTOR)
    other.score_both.bias.data += 1.5
    weights = home / "data" / "weights" / "published.safetensors"
    save_extractor(other, weights, {"name": "another"})
    file = home / "countries" / "demo.yaml"
    country = yaml.safe_load(file.read_text("utf-8"))
    file.write_text(yaml.safe_dump({**country, "extractor": "published"}), "utf-8")
    return place


@pytest.fixture
def store(two_extractors, monkeypatch):
    enter(two_extractors, monkeypatch)
    return Store(two_extractors.data)


def run(place, asset, year=2021):
    from popcorn_assets.definitions import defs

    with place.instance() as instance:
        unpartitioned = asset == "builtup_extractor"
        return dg.materialize(
            [*defs.assets],
            selection=[asset],
            partition_key=None if unpartitioned else partition_key("demo", year),
            instance=instance,
            resources=defs.resources,
            raise_on_error=False,
        )


def failure(result):
    assert not result.success
    event = next(e for e in result.all_events if e.event_type_value == "STEP_FAILURE")
    error = event.step_failure_data.error
    return (error.cause or error).message


def latest(store, asset, year=2020):
    return store.latest(Address(asset, "demo", year))


def test_score_checkpoints_and_map_name_their_extractor(in_tiny):
    files = Store(in_tiny.data)
    for asset in MAPPED:
        version = latest(files, asset)
        assert version.manifest()["facts"]["extractor"] == {
            "name": "demo",
            "fingerprint": DEMO.fingerprint,
        }
        assert extractor_of(files, version) == DEMO
    for asset, name in (("builtup_area", "builtup_score"), ("population_map", "population")):
        tags = raster.tags(latest(files, asset).file(f"{name}.tif"))
        assert tags["extractor_fingerprint"] == DEMO.fingerprint
    seed = latest(files, "checkpoints").manifest()["facts"]["seeds"][0]
    card = read_card(latest(files, "checkpoints").file(f"member_{seed}/occupancy.safetensors"))
    assert card["extractor_fingerprint"] == DEMO.fingerprint
    assert card["pixel_area_m2"] == 100.0
    shown = dict(latest(files, "population_map").manifest()["shown"])
    assert "people per pixel scaled by" not in shown  # by 1


def test_older_manifests_are_resolved_from_what_they_were_made_from(in_tiny):
    files = Store(in_tiny.data)
    score, trained = (latest(files, asset) for asset in MAPPED[:2])
    seeds = {"seeds": trained.manifest()["facts"]["seeds"]}
    with altered(score, facts={}), altered(trained, facts=seeds):
        assert extractor_of(files, score) == DEMO
        assert extractor_of(files, trained) == Extractor("", DEMO.fingerprint)  # by their cards
    # the score it was trained on is gone: its own extractor; of that, a file of the same digest
    seeds["extractor"] = None
    silent = {name: one for name, one in trained.manifest()["files"].items() if "card" not in name}
    with altered(trained, facts=seeds, files=silent), altered(score, facts={}):
        assert extractor_of(files, trained) == DEMO
    gone = [{**entry, "version": "0" * 16} for entry in trained.manifest()["inputs"]]
    with altered(trained, facts=seeds, files=silent, inputs=gone):
        assert extractor_of(files, trained) == DEMO
    lost = [{**entry, "files": dict.fromkeys(entry.get("files", ()), "0" * 64)} for entry in gone]
    with altered(trained, facts=seeds, files=silent, inputs=lost):
        assert extractor_of(files, trained) is None


@pytest.mark.parametrize(
    ("score", "model", "passed", "said"),
    [
        (DEMO, Extractor("published", DEMO.fingerprint), True, "one extractor"),
        (DEMO, Extractor("demo", "0" * 64), False, "train on this score"),
        (None, DEMO, False, "materialise builtup_area again"),
        (DEMO, None, False, "train the model again"),
        (None, None, False, "no longer known"),
    ],
)
def test_what_is_not_known_to_be_the_same_does_not_pass(score, model, passed, said):
    verdict = SameExtractor(score, model)
    assert verdict.passed is passed
    assert said in verdict.message


def test_a_model_that_meets_another_extractors_score_maps_nothing(store, two_extractors):
    """The refresh succeeded, and gave nearly three times as many people."""
    before = latest(store, "population_map", 2021)
    for asset in ("builtup_extractor", "builtup_area"):
        assert run(two_extractors, asset).success
    score = latest(store, "builtup_area", 2021)
    assert extractor_of(store, score).name == "published"
    result = run(two_extractors, "population_map")
    message = failure(result)
    assert "published" in message
    assert f"demo ({DEMO.fingerprint[:12]})" in message
    (verdict,) = result.get_asset_check_evaluations()
    assert (verdict.check_name, verdict.passed, verdict.blocking) == ("same_extractor", False, True)
    with two_extractors.instance() as instance:
        key = dg.AssetCheckKey(dg.AssetKey("population_map"), "same_extractor")
        (kept,) = instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
        assert kept.status.value == "FAILED"
    assert latest(store, "population_map", 2021).version == before.version
    # so it is with older manifests, that do not name an extractor
    trained = latest(store, "checkpoints")
    seeds = {"seeds": trained.manifest()["facts"]["seeds"]}
    silent = {name: one for name, one in trained.manifest()["files"].items() if "card" not in name}
    with altered(score, facts={}), altered(trained, facts=seeds, files=silent):
        assert "is that of published" in failure(run(two_extractors, "population_map"))


def test_training_does_not_begin_from_another_extractor_than_the_scores(store, two_extractors):
    assert run(two_extractors, "builtup_extractor").success
    before = latest(store, "checkpoints").version
    score = latest(store, "builtup_area")
    message = failure(run(two_extractors, "checkpoints", 2020))
    assert "made with another extractor than training would begin from" in message
    assert "materialise builtup_area demo|2020 again" in message
    with altered(score, facts={}):
        assert "another extractor" in failure(run(two_extractors, "checkpoints", 2020))
    assert latest(store, "checkpoints").version == before


def test_a_transferred_model_of_another_extractor_is_refused(store, two_extractors):
    """Two countries with extractors of their own: what counts is what the score was made with."""
    trained = latest(store, "checkpoints")
    elsewhere = {"name": "published", "fingerprint": "f" * 64}
    with altered(trained, facts={**trained.manifest()["facts"], "extractor": elsewhere}):
        result = run(two_extractors, "population_map", 2020)
        assert "trained on that of published (ffffffffffff)" in failure(result)
    assert not result.asset_materializations_for_node("population_map")
