"""A student's specification travels as JSON, and what cannot be is refused where it is read."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from popcorn_ml.errors import ConfigError
from popcorn_ml.student.spec import StudentSpec

PAIR = {"s1": "s1.tif", "s2": "s2.tif"}


def values(**changes) -> dict:
    given = {
        "composites": {"spring": dict(PAIR), "winter": dict(PAIR)},
        "builtup": "b.tif",
        "units": "u.tif",
        "counts": "c.json",
        "extractor": "e.safetensors",
        "members": ["1/occupancy.safetensors", "2/occupancy.safetensors"],
        "teacher": "m.tif",
        "teacher_builtup": "s.tif",
        "out": "out",
        "work": "work",
    }
    return given | changes


def test_it_survives_json():
    spec = StudentSpec(**values(sensors="s2", steps=7, about={"country": "demo"}))
    assert StudentSpec.from_json(spec.to_json()) == spec


def test_one_sensor_needs_the_other_nowhere():
    alone = {"winter": {"s1": None, "s2": "s2.tif"}, "spring": {"s2": "s2.tif"}}
    spec = StudentSpec(**values(sensors="s2", composites=alone))
    assert list(spec.pairs()) == ["spring", "winter"]
    assert all(pair[0] is None for pair in spec.pairs().values())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sensors": "s3"}, "both or s2 or s1"),
        ({"composites": {}}, "no season"),
        ({"composites": {"monsoon": PAIR}}, "monsoon"),
        ({"composites": {"spring": {"s2": "s2.tif"}}}, "spring without s1"),
        ({"composites": {"spring": {"s9": "x"}}}, "s9"),
        ({"members": []}, "one or more"),
        ({"members": ["a", "a"]}, "each member once"),
        ({"steps": 0}, "at least 1"),
        ({"huber_delta": -1.0}, "0 or above"),
        ({"huber_delta": "much"}, "0 or above"),
        ({"steps": True}, "at least 1"),
        ({"place": "rwa/1"}, "a country's code"),
        ({"place": None}, "a country's code"),
        ({"batch": 1.5}, "whole number"),
        ({"crop_px": 100}, "multiple of 16"),
        ({"crop_px": 48}, "at least 64"),
        ({"learning_rate": 0}, "above 0"),
        ({"learning_rate": float("nan")}, "above 0"),
        ({"weight_decay": -1}, "0 or above"),
        ({"average_decay": 1.0}, "below 1"),
        ({"stretch": 0.5}, "1 or above"),
        ({"seed": 2**63}, "at most"),
    ],
)
def test_what_cannot_be_is_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        StudentSpec(**values(**changes))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        (json.dumps(values(epochs=3)), "epochs"),
        (json.dumps({"out": "o"}), "missing"),
    ],
)
def test_a_file_that_is_none_is_refused(text, said):
    with pytest.raises(ConfigError, match=said):
        StudentSpec.from_json(text, "spec.json")


def test_what_does_not_change_the_result_changes_no_fingerprint():
    spec = StudentSpec(**values())
    assert StudentSpec(**values(threads=9, out="x", about={"a": 1})).fingerprint() == (
        spec.fingerprint()
    )
    assert StudentSpec(**values(steps=9)).fingerprint() != spec.fingerprint()
    assert {"out", "work", "teacher", "threads"}.isdisjoint(spec.hyperparameters())
    assert set(spec.hyperparameters()) < set(asdict(spec))


@pytest.mark.parametrize(("sensors", "steps", "delta"), [("both", 400, 0.0), ("s2", 1200, 1.0)])
def test_what_is_not_told_follows_from_the_sensors(sensors: str, steps: int, delta: float) -> None:
    spec = StudentSpec(**values(sensors=sensors))
    assert (spec.step_count, spec.delta) == (steps, delta)
    told = StudentSpec(**values(sensors=sensors, steps=steps, huber_delta=delta))
    assert told.fingerprint() == spec.fingerprint(), "said or not, it is the same training"
    assert told.hyperparameters() == spec.hyperparameters()
    assert spec.hyperparameters()["steps"] == steps
    other = StudentSpec(**values(sensors=sensors, huber_delta=0.5))
    assert other.fingerprint() != spec.fingerprint()
