"""Seeds for judging: refused without a reason, and every look at them on record."""

from __future__ import annotations

import json

import pytest

from benchmarks import accuracy, change, intervals, judging
from benchmarks.accuracy import accuracy_parser, census_error, override, places_asked, settings_of
from benchmarks.judging import CHOOSING, JUDGING, RECORD, Look, allow, family_of_seed
from popcorn_ml.errors import ConfigError
from popcorn_ml.simulate.spec import CensusError


def test_no_seed_is_for_both():
    kept = [seed for each in (CHOOSING, JUDGING) for seeds in each.values() for seed in seeds]
    assert len(kept) == len(set(kept))


def test_seeds_know_their_family():
    assert family_of_seed(101) == "first"
    assert family_of_seed(502) == "second"
    assert family_of_seed(77, "second") == "second"
    with pytest.raises(ConfigError, match="another family"):
        family_of_seed(401, "first")


def test_judging_seeds_are_refused_without_a_reason():
    assert not allow([101, 401], None)
    for reason in (None, "", "  "):
        with pytest.raises(ConfigError, match=r"203, 501 without a reason"):
            allow([101, 203, 501], reason)
    assert allow([101, 203], "the settings are chosen")


@pytest.mark.parametrize("bench", [accuracy, intervals, change])
def test_every_bench_that_opens_the_truth_refuses_them(bench, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "none"
    call = ["bench", "--seeds", "101", "301", "--folder", str(folder)]
    monkeypatch.setattr("sys.argv", call)
    with pytest.raises(SystemExit) as refused:
        bench.main()
    assert refused.value.code == 2
    assert "301 without a reason" in capsys.readouterr().err
    assert not folder.exists()


def test_a_look_is_on_record_before_it_is_taken_and_then_with_its_result(tmp_path, monkeypatch):
    record = tmp_path / "judged.json"
    record.write_text(json.dumps([{"date": "2020", "seeds": [20]}]))
    monkeypatch.setattr(judging, "RECORD", record)
    look = Look("benchmarks.accuracy", [20, 501], "chosen", {"set": {"epochs": 30}})
    begun = json.loads(record.read_text())
    assert len(begun) == 2
    assert begun[1]["result"] is None
    look.found({"20": 0.5})
    look.found({"20": 0.5, "501": 0.4})
    held = json.loads(record.read_text())
    assert held[0] == begun[0]
    assert held[1:] == [begun[1] | {"result": {"20": 0.5, "501": 0.4}}]
    assert held[1]["families"] == ["first", "second"]
    assert held[1]["settings"] == {"set": {"epochs": 30}}
    assert held[1]["commit"]
    Look.none().found({"101": 0.6})
    assert len(json.loads(record.read_text())) == 2


def test_the_record_holds_looks_at_judging_seeds_only():
    looks = judging.read(RECORD)
    assert len(looks) >= 6
    for look in looks:
        assert judging.judging(look["seeds"]) == look["seeds"]
        assert {"date", "commit", "bench", "families", "settings", "reason"} <= set(look)
    assert [look["date"] for look in looks] == sorted(look["date"] for look in looks)


def test_what_is_asked_becomes_places(tmp_path):
    parser = accuracy_parser()
    given = parser.parse_args(
        ["--folder", str(tmp_path), "--seeds", "101", "402", "--census-error", "counts=5,borders=3",
         "--set", "epochs=30", "--set", "batch_units=4"]
    )  # fmt: skip
    places = places_asked(given)
    assert [(p.seed, p.family, str(p.error)) for p in places] == [
        (101, "first", "exact"),
        (101, "first", "counts 5 %, borders 3 px"),
        (402, "second", "exact"),
        (402, "second", "counts 5 %, borders 3 px"),
    ]
    assert places[1].folder == tmp_path / "error" / "counts5_borders3_older0" / "101"
    assert places[0].work == tmp_path / "101" / "runs" / "batch_units=4,epochs=30"
    settings, more = settings_of(places[0])
    assert (settings.epochs, settings.batch_units, more) == (30, 4, {})
    assert settings.learning_rate == places[0].country.training.learning_rate


def test_wrong_words_are_refused(tmp_path):
    from argparse import ArgumentTypeError

    assert census_error("older=2") == CensusError(years_older=2)
    for wrong in ("counts", "people=5", "counts=-5", "older=1.5", "counts=90"):
        with pytest.raises(ArgumentTypeError):
            census_error(wrong)
    with pytest.raises(ArgumentTypeError, match="NAME=VALUE"):
        override("epochs")
    assert override("keep_epoch=last") == ("keep_epoch", "last")
    given = accuracy_parser().parse_args(["--folder", str(tmp_path), "--seeds", "101"])
    given.set = [("epoch", 3)]
    with pytest.raises(ConfigError, match="no such setting"):
        settings_of(places_asked(given)[0])
