"""A student of a country of three units, taught by members that had the units of another as well:
its map, what it says of units that it never saw, and how it is judged beside its teachers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from popcorn_assets.assets.trained import told_by_folds, trained_on, unseen_by
from popcorn_assets.audit.reproduce import reproduce
from popcorn_assets.cli import cli
from popcorn_assets.promotion.by_hand import promote
from popcorn_assets.promotion.decide import decide
from popcorn_assets.promotion.entries import Model
from popcorn_assets.promotion.ledger import read_ledger
from popcorn_assets.promotion.metrics import (
    incomparable,
    loss_in,
    loss_shift,
    margin_of_chance,
    metrics_of,
)
from popcorn_assets.promotion.trained_on import TAUGHT_BY
from popcorn_assets.store.newer import newer_inputs
from popcorn_assets.store.versions import Address, Store, Version
from popcorn_ml import raster
from popcorn_ml.training.out_of_fold import OUT_OF_FOLD_FILE, log_ratio, read_collected
from popcorn_ml.warehouse.warehouse import Warehouse
from tests.assets.test_countries_together import (
    YEAR,
    failure,
    latest,
    make,
    publish_composites,
    write_files,
)
from tests.platforms import Place, copied, enter, make_place

pytestmark = [pytest.mark.long(60), pytest.mark.timeout(900)]

FIRST = ("builtup_area", "census_units", "census_counts")
MAPS = ("deployed_model", "population_map", "adjusted_map", "hectare_map", "evaluation")
WHO = "user tester"
OWN = {"000", "001", "002"}


def settle(place: Place, **sections: Any) -> None:
    """Change sections of the small country's file."""
    path = place.home / "countries" / "uga.yaml"
    country = yaml.safe_load(path.read_text("utf-8"))
    path.write_text(yaml.safe_dump({**country, **sections}), "utf-8")


def model(version: Version, kind: str = "bag") -> Model:
    return Model(country="uga", year=YEAR, version=version.version, kind=kind)


def counted(place: Place) -> dict[str, float]:
    told = latest(place, "census_counts", "uga").file("counts_level_of_uga.json").read_text()
    return {unit["id"]: unit["people"] for unit in json.loads(told)}


@pytest.fixture(scope="module")
def taught(tmp_path_factory) -> Iterator[Place]:
    """Mapped by the members first, then taught, then mapped by the student."""
    place = make_place(tmp_path_factory.mktemp("taught") / "home")
    with pytest.MonkeyPatch.context() as monkeypatch:
        enter(place, monkeypatch)
        monkeypatch.setenv("POPCORN_LAUNCHER", "inline")
        write_files(place, "rwa")
        write_files(place, "uga", countries=["rwa", "uga"])
        settle(place, student={"steps": 3})
        for code in ("rwa", "uga"):
            publish_composites(place, code)
        assert make("rwa", "builtup_extractor", *FIRST).success
        assert make("uga", *FIRST, "checkpoints", "deployed_model").success
        settle(place, model={"kind": "student"})
        assert make("uga", "student", "deployed_model").success
        of, said = Store(place.data), {"who": WHO, "reason": "to be looked at"}
        if decide(of, "uga", YEAR, who=WHO).model.kind == "bag":  # chance decides of so few steps
            promote(of, "uga", f"student {YEAR}", force=True, **said)
        assert make("uga", *MAPS).success
        yield place


@pytest.fixture
def store(taught) -> Store:
    return Store(taught.data)


def test_it_is_told_apart_by_its_own_countrys_units(taught, store):
    """By the ids of its census, each by a student that never saw it, nor had its teacher."""
    found, teachers = latest(taught, "student", "uga"), latest(taught, "checkpoints", "uga")
    told = read_collected(found.file(OUT_OF_FOLD_FILE))
    assert {unit.id: unit.people for unit in told} == counted(taught)
    assert {unit.country for unit in told} == {""}
    seeds = teachers.manifest()["facts"]["seeds"]
    for fold in json.loads(found.file("units.json").read_text())["folds"]:
        for band in fold["members"]:
            units = json.loads(teachers.file(f"member_{seeds[band - 1]}/units.json").read_text())
            assert {f"uga/{one}" for one in fold["held_out"]} <= {*units["held_out"]}
    manifest = found.manifest()
    assert {e["country"] for e in manifest["inputs"]} <= {"uga", None, ""}
    assert manifest["parameters"][TAUGHT_BY] == ["rwa", "uga"]
    checks = {check["name"]: check for check in manifest["checks"]}
    assert checks["finite_student"]["passed"]
    assert checks["units_accounted_for"]["passed"]
    assert "3 units were told unseen by both" in checks["keeps_up_with_the_bag"]["message"]
    shown = dict(map(tuple, manifest["shown"]))
    assert [row["n"] for row in shown["units that neither saw"]] == [3, 3]


def test_it_is_held_against_its_teachers_over_the_units_of_both(taught, store):
    ours = model(latest(taught, "student", "uga"), "student")
    bag = latest(taught, "checkpoints", "uga")
    theirs = model(bag)
    one, other = metrics_of(store, ours), metrics_of(store, theirs)
    assert (one.units, other.units) == (3, 15)
    assert incomparable(one, other.as_dict()) == incomparable(other, one.as_dict()) == ""
    own = [u for u in read_collected(bag.file(OUT_OF_FOLD_FILE)) if u.country == "uga"]
    assert loss_in(other.as_dict(), of_people=True) == pytest.approx(
        100 * np.mean([abs(log_ratio(u.predicted, u.people)) for u in own])
    )
    assert margin_of_chance(store, ours, theirs, 1.0) is not None
    entries = read_ledger(store, "uga").entries
    assert [entry.model.kind for entry in entries[:2]] == ["bag", "student"]
    assert "held-out loss of people" in entries[1].reason
    assert "cannot be compared" not in entries[1].reason
    assert "by chance over 3 units" in entries[1].reason
    assert loss_shift(store, ours, one, entries[0]) == 0.0  # one census behind both
    assert decide(store, "uga", YEAR, who=WHO).model == ours


def test_its_map_holds_everyone_and_knows_what_it_never_saw(taught, store):
    deployed = dict(map(tuple, latest(taught, "deployed_model", "uga").manifest()["shown"]))
    assert deployed["trained on units of"] == "rwa, uga"
    assert deployed["from another country"] is False
    predicted = latest(taught, "population_map", "uga")
    assert predicted.manifest()["parameters"]["kind"] == "student"
    adjusted = raster.read(latest(taught, "adjusted_map", "uga").file("population.tif"))
    assert float(np.nansum(adjusted)) == pytest.approx(sum(counted(taught).values()), rel=1e-4)
    trained = trained_on(store, predicted)
    assert set(told_by_folds(trained, "uga", "level_of_uga")) == OWN
    units = latest(taught, "census_units", "uga").file("units_level_of_uga.tif")
    seen = unseen_by(trained, "uga", "level_of_uga", units)
    assert seen is not None
    assert set(seen) == {1, 2, 3}
    # What its teachers learnt of another country it has learnt too: none of that is unseen.
    assert trained.saw_units_of("rwa", "level_of_rwa") is None
    assert unseen_by(trained, "rwa", "level_of_rwa", units) == {}
    assert trained.saw_units_of("che", "level_of_che") is False
    scores = json.loads(latest(taught, "evaluation", "uga").file("metrics.json").read_text())
    assert scores["without_truth"]["units"] == 3
    rows = Warehouse(store.warehouse).query(
        "SELECT count(*) FROM out_of_fold WHERE country = 'uga' AND unit_country = 'uga'"
    )
    assert rows == [(3,)]  # the members'; a student's are in its version


def test_it_is_made_again_to_the_byte(taught, store, monkeypatch):
    enter(taught, monkeypatch)
    monkeypatch.setenv("POPCORN_LAUNCHER", "inline")
    remade = reproduce(store, Address("student", "uga", YEAR))
    assert remade.identical, (remade.files, remade.differences)
    audited = CliRunner().invoke(cli, ["audit", "uga", str(YEAR)])
    for told in ("student uga|2020", "checkpoints uga|2020", "census_counts rwa|2020"):
        assert told in audited.output
    assert "changed" not in audited.output


def test_newer_counts_of_its_own_are_asked_for_and_of_another_country_its_teachers(
    taught, tmp_path, monkeypatch
):
    place = copied(taught, tmp_path / "home")
    enter(place, monkeypatch)
    monkeypatch.setenv("POPCORN_LAUNCHER", "inline")
    before = latest(place, "student", "uga")
    table = place.data / "rwa" / "counts.csv"
    table.write_text(table.read_text().replace("000,", "000,1"))
    assert make("rwa", "census_counts").success
    (told,) = newer_inputs(Store(place.data), latest(place, "checkpoints", "uga"))
    assert told.startswith(f"census_counts rwa|{YEAR} is now")
    assert make("uga", "student").success
    assert latest(place, "student", "uga").version == before.version
    table = place.data / "uga" / "counts.csv"
    table.write_text(table.read_text().replace("000,", "000,1"))
    assert make("uga", "census_counts").success
    said = failure(make("uga", "student"))
    assert "trained from other inputs than the current ones" in said
    assert "census_counts" in said
    # Taught anew: the losses of before are known on these counts within bounds.
    of, before = Store(place.data), counted(taught)
    in_use = read_ledger(of, "uga").entries[0]
    assert in_use.model.kind == "bag"
    assert make("uga", "checkpoints", "student").success
    ours = model(latest(place, "student", "uga"), "student")
    now = counted(place)
    assert now != before
    apart = [abs(log_ratio(now[unit], before[unit])) for unit in OWN]
    shift = loss_shift(of, ours, metrics_of(of, ours), in_use)
    assert shift == pytest.approx(100 * np.mean(apart))
    bag, in_use = model(latest(place, "checkpoints", "uga")), read_ledger(of, "uga").entries[-1]
    assert in_use.model.kind == "student"
    assert loss_shift(of, bag, metrics_of(of, bag), in_use) == pytest.approx(shift)


def test_members_of_other_countries_alone_teach_only_the_student_that_maps(
    taught, tmp_path, monkeypatch
):
    """And teachers that know images of another kind teach none."""
    place = copied(taught, tmp_path / "home")
    enter(place, monkeypatch)
    monkeypatch.setenv("POPCORN_LAUNCHER", "inline")
    training = yaml.safe_load((place.home / "countries" / "uga.yaml").read_text())["training"]
    settle(place, training={**training, "countries": ["rwa"]}, model={"promotion": "manual"})
    assert make("uga", "checkpoints", "student").success
    found = latest(place, "student", "uga")
    assert read_collected(found.file(OUT_OF_FOLD_FILE)) == []
    checks = {check["name"]: check for check in found.manifest()["checks"]}
    assert checks["units_accounted_for"]["passed"]
    assert "not judged: 0 units" in checks["keeps_up_with_the_bag"]["message"]
    publish_composites(place, "uga", backscatter="sigma0")
    assert make("uga", "builtup_area").success
    said = failure(make("uga", "student"))
    for part in ("images of another kind", "s1", "gamma0 in training, sigma0 here"):
        assert part in said
