"""The specification of a training."""

from __future__ import annotations

import dataclasses
import json

import pytest

from popcorn_ml.errors import ConfigError
from popcorn_ml.training.spec import TrainingSpec


def test_defaults_are_the_published_ones(place):
    spec = TrainingSpec({"spring": "a"}, {"spring": "b"}, "c", "d", "e", "f", "g", "h", seed=1600)
    published = {
        "epochs": 100,
        "learning_rate": 1e-4,
        "learning_rate_decay": 0.75,
        "learning_rate_decay_epochs": 5,
        "gradient_clip": 0.01,
        "occupancy_weight": 0.01,
        "batch_units": 2,
        "stretch": 1.5,
        "average_decay": 0.0,
    }
    assert {name: getattr(spec, name) for name in published} == published


def test_json_round_trip(place):
    spec = place.spec(initial_bias=0.9407, about={"country": "demo", "year": 2020})
    assert TrainingSpec.from_json(spec.to_json()) == spec


def test_fault_8_seasons_that_do_not_pair_are_refused_and_not_cut(place):
    spec = place.spec()
    three = {season: path for season, path in spec.s2.items() if season != "winter"}
    with pytest.raises(ConfigError, match="seasons"):
        dataclasses.replace(spec, s2=three)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("epochs", 1.5),
        ("seed", -1),
        ("batch_units", 0),
        ("learning_rate", 0),
        ("learning_rate", "fast"),
        ("gradient_clip", float("nan")),
        ("weight_decay", -1e-5),
        ("held_out_share", 1.0),
        ("initial_bias", float("inf")),
        ("max_pixels_per_step", 1000),
        ("precision", "float16"),
        ("stretch", 0.9),
        ("average_decay", 1.0),
        ("keep_epoch", "first"),
        ("leave_out", 1.0),
        ("kernels", "fortran"),
    ],
)
def test_values_that_cannot_be(place, name, value):
    with pytest.raises(ConfigError, match=name):
        place.spec(**{name: value})


def test_fields_that_cannot_be(place):
    values = json.loads(place.spec().to_json())
    with pytest.raises(ConfigError, match="learning_rat"):
        TrainingSpec.from_json(json.dumps(values | {"learning_rat": 1}), "spec.json")
    del values["seed"]
    with pytest.raises(ConfigError, match=r"spec\.json.*\n.*\n.*seed"):
        TrainingSpec.from_json(json.dumps(values), "spec.json")
    with pytest.raises(ConfigError, match="not JSON"):
        TrainingSpec.from_json("{", "spec.json")


def test_the_fingerprint_follows_what_matters(place):
    spec = place.spec()
    same = dataclasses.replace(spec, epochs=50, threads=2, out="elsewhere", kernels="torch")
    assert same.fingerprint() == spec.fingerprint()
    assert TrainingSpec.from_json(spec.to_json()).fingerprint() == spec.fingerprint()
    for change in ({"seed": 1601}, {"learning_rate": 1e-3}, {"extractor": spec.counts}):
        assert dataclasses.replace(spec, **change).fingerprint() != spec.fingerprint()
