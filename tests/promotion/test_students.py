"""Students in the ledger: judged against checkpoints over the same units, put in use, gone back
from, kept and told apart; no ledger from before there were any is read otherwise."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import save_file

from popcorn_assets.cli import cli
from popcorn_assets.promotion.by_hand import promote, roll_back
from popcorn_assets.promotion.candidates import candidates
from popcorn_assets.promotion.decide import decide
from popcorn_assets.promotion.entries import Model
from popcorn_assets.promotion.ledger import ledger_versions, read_ledger, verify
from popcorn_assets.promotion.metrics import incomparable, metrics_of
from popcorn_assets.store.newer import newer_input, newer_inputs
from popcorn_assets.store.versions import Address, Store
from popcorn_ml.errors import StoreError
from tests.platforms import Place
from tests.promotion.models import WHO, configure, deploy, deployed, left_to_do, shown, warning
from tests.promotion.test_folds import UNITS, people, train_folds

CHANCE = np.random.default_rng(7)
OFF = CHANCE.uniform(0.2, 0.4, UNITS)
STUDENT = {"country": "demo", "year": 2020, "kind": "student"}


def train_student(
    place: Place,
    off,
    *,
    sensors="both",
    country="demo",
    year=2020,
    units=UNITS,
    weight=None,
    inputs=(),
) -> str:
    """A student whose fold students predict unit u at exp(off[u]) times its count."""
    store, address = Store(place.data), Address("student", country, year)
    with store.draft(address) as draft:
        save_file({"w": np.array([weight or 1.0 + float(sum(off))])}, draft / "student.safetensors")
        rows = [
            {
                "id": f"{u:04d}", "number": u + 1, "people": people(u),
                "fold": u % 2, "members": 1, "by": {},
                "predicted": (people(u) + 1) * math.exp(off[u]) - 1,
            }
            for u in range(units)
        ]  # fmt: skip
        (draft / "out_of_fold.json").write_text(json.dumps(rows))
        (draft / "history.json").write_text(json.dumps([{"loss": 1.0}]))
        manifest = {
            "inputs": list(inputs),
            "parameters": {
                "level": "coarse", "pixel_area_m2": 100.0, "provenance": {}, "sensors": sensors,
            },
            "facts": {}, "checks": [], "run_id": "a test's",
        }  # fmt: skip
        return store.publish(address, draft, manifest).version


def none_asked_for(place: Place) -> None:
    """What the asset leaves where the country's file asks for no student."""
    store, address = Store(place.data), Address("student", "demo", 2020)
    with store.draft(address) as draft:
        (draft / "student.json").write_text("{}")
        store.publish(address, draft, {"inputs": [], "parameters": {}, "facts": {}, "checks": []})


def student(version: str) -> Model:
    return Model(country="demo", year=2020, version=version, kind="student")


def in_use(store: Store) -> Model:
    return decide(store, "demo", 2021, who=WHO).model


def test_a_student_compares_with_checkpoints_by_the_units_that_neither_saw(home, store):
    bag = Model(country="demo", year=2020, version=train_folds(home, OFF))
    ours, theirs = metrics_of(store, student(train_student(home, OFF))), metrics_of(store, bag)
    assert incomparable(ours, theirs.as_dict()) == ""
    assert incomparable(theirs, ours.as_dict()) == ""
    assert ours.log_l1 == pytest.approx(theirs.log_l1)
    assert ours.mae_people == pytest.approx(theirs.mae_people)
    assert (ours.units, ours.held_out) == (UNITS, theirs.held_out)
    assert ours.loss == pytest.approx(100 * OFF.mean())
    assert theirs.loss == pytest.approx(ours.loss + 100 * 0.01 * 0.5)  # occupancy's part
    fewer = metrics_of(store, student(train_student(home, OFF, units=UNITS - 1)))
    assert "different census units" in incomparable(fewer, theirs.as_dict())


def test_the_countrys_file_names_the_kind_and_the_units_decide(home, store):
    bag = train_folds(home, OFF)
    better = train_student(home, OFF - 0.02)
    assert in_use(store) == Model(country="demo", year=2020, version=bag)  # the file says nothing
    configure(home, **STUDENT)
    assert in_use(store) == student(better)
    entry = read_ledger(store, "demo").entries[-1]
    assert (entry.action, entry.configured["kind"]) == ("promote", "student")
    assert "held-out loss of people" in entry.reason
    assert f"student demo|2020@{better}" in entry.reason
    worse = train_student(home, OFF * 1.3)
    assert in_use(store) == student(better)
    assert "is allowed" in left_to_do(store)
    assert read_ledger(store, "demo").entries[-1].model == student(worse)
    assert verify(store, "demo") == []


def test_a_student_that_is_worse_than_the_bag_does_not_take_over(home, store):
    bag = Model(country="demo", year=2020, version=train_folds(home, OFF))
    assert in_use(store) == bag
    configure(home, **STUDENT)
    assert "names student demo|2020, which was never trained" in left_to_do(store)
    none_asked_for(home)
    assert "which was never trained" in left_to_do(store)
    worse = train_student(home, OFF * 1.5)
    assert in_use(store) == bag
    assert f"--from 'student demo|2020@{worse}'" in left_to_do(store)
    (row,) = (row for row in candidates(store, "demo") if row["kind"] == "student")
    assert (row["state"], row["latest training"]) == ("refused", True)
    assert row["against in use"] == "+50.0%"


def test_a_student_is_promoted_and_gone_back_from_by_name(home, store):
    bag = Model(country="demo", year=2020, version=train_folds(home, OFF))
    assert in_use(store) == bag
    version = train_student(home, OFF - 0.05)
    entry = promote(store, "demo", "student demo|2020", who=WHO)
    assert entry.model == student(version) == in_use(store)
    assert promoted_twice(store, version)
    assert roll_back(store, "demo", who=WHO, reason="empty villages").model == bag
    assert in_use(store) == bag
    assert roll_back(store, "demo", who=WHO, reason="after all", to=version[:8]).model == student(
        version
    )
    assert (student(version).address, version) in ledger_versions(store)
    with pytest.raises(StoreError, match="no version of student"):
        promote(store, "demo", "student demo|2020@ffff", who=WHO)


def promoted_twice(store: Store, version: str) -> bool:
    """A version alone names a student too; what is in use is not put in use again."""
    with pytest.raises(Exception, match="is in use already"):
        promote(store, "demo", f"demo|2020@{version[:10]}", who=WHO)
    return True


def test_where_none_was_asked_for_there_is_no_student_to_promote(home, store):
    train_folds(home, OFF)
    none_asked_for(home)
    assert [row["kind"] for row in candidates(store, "demo")] == ["bag"]
    with pytest.raises(StoreError, match="there is no student of demo") as error:
        promote(store, "demo", "student 2020", who=WHO)
    assert "popcorn run demo 2020 --job distil" in str(error.value)


def test_a_student_of_other_sensors_than_the_file_says_is_not_taken(home, store):
    bag = Model(country="demo", year=2020, version=train_folds(home, OFF))
    assert in_use(store) == bag
    configure(home, **STUDENT, sensors="s2")
    train_student(home, OFF - 0.05)
    assert in_use(store) == bag
    assert "looks at sensors: both, and the file says s2" in left_to_do(store)
    alone = train_student(home, OFF - 0.04, sensors="s2")
    assert in_use(store) == student(alone)


def test_what_is_no_number_is_never_put_in_use(home, store):
    train_folds(home, OFF)
    assert in_use(store).kind == "bag"
    configure(home, **STUDENT)
    train_student(home, OFF - 0.05, weight=math.nan)
    assert in_use(store).kind == "bag"
    assert "not a number" in left_to_do(store)
    with pytest.raises(StoreError, match="did not pass its checks"):
        promote(store, "demo", "student 2020", who=WHO, force=True, reason="no matter")


def test_a_ledger_of_checkpoints_alone_is_to_the_byte_what_it_was(home, store):
    version = train_folds(home, OFF)
    assert in_use(store).version == version
    kept = json.loads((home.data / "deployments" / "demo.json").read_text("utf-8"))
    (entry,) = kept["entries"]
    assert set(entry["model"]) == {"country", "year", "version"}
    assert "kind" not in entry["metrics"]
    assert set(entry["configured"]) == {"country", "year"}
    assert entry["reason"].startswith("demo|2020@")


@pytest.mark.long(5)
def test_the_asset_says_which_student_maps_and_the_commands_do(home, store):
    train_folds(home, OFF)
    configure(home, **STUDENT)
    version = train_student(home, OFF - 0.02)
    done = deploy(home)
    assert done.success
    assert warning(done) == ""
    assert shown(done)["model"] == f"student of demo|2020, version {version}"
    kept = deployed(store)
    assert (kept["kind"], kept["members"], kept["version"]) == ("student", ["student"], version)
    (told,) = store.latest(Address("deployed_model", "demo", 2021)).manifest()["inputs"]
    assert (told["asset"], told["version"]) == ("student", version)
    listed = CliRunner().invoke(cli, ["models", "demo"]).output
    assert "student" in listed
    assert json.loads(CliRunner().invoke(cli, ["models", "demo", "--json"]).output)["maps"] == [
        {
            "year": 2021, "model": f"student demo|2020@{version}",
            "entry": read_ledger(store, "demo").entries[-1].id,
            "as decided": True, "in use now": f"student demo|2020@{version}",
        }
    ]  # fmt: skip


def test_newer_checkpoints_outdate_a_student_and_no_map(home, store):
    version = train_folds(home, OFF)
    taught_by = {"asset": "checkpoints", "country": "demo", "year": 2020, "version": version}
    taught = train_student(home, OFF, inputs=[taught_by])
    mapped_with = {"asset": "student", "country": "demo", "year": 2020, "version": taught}
    found = store.latest(Address("student", "demo", 2020))
    assert newer_inputs(store, found) == []
    again = train_folds(home, OFF * 1.01)
    assert newer_inputs(store, found) == [
        f"checkpoints demo|2020 is now {again}, student has {version}"
    ]
    train_student(home, OFF * 1.01)
    assert newer_input(store, "population_map", mapped_with) == ""
    assert newer_input(store, "population_map", taught_by) == ""
