"""Models whose members hold out folds: judged over all units, with a margin from their spread."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from safetensors.numpy import save_file

from popcorn_assets.promotion.entries import Model
from popcorn_assets.promotion.judging import MOST_BY_CHANCE
from popcorn_assets.promotion.ledger import read_ledger
from popcorn_assets.promotion.metrics import incomparable, margin_of_chance, metrics_of
from popcorn_ml.training.out_of_fold import (
    OUT_OF_FOLD_FILE,
    Unseen,
    as_json,
    collected,
    collected_json,
)
from tests.promotion.models import configure, decided, left_to_do, publish, train

UNITS = 40


def people(unit: int) -> float:
    return 100.0 * (unit + 1)


def train_folds(place, off, *, shift=0, units=UNITS, members=2) -> str:
    """Members that predict unit u at exp(off[u]) times its count; folds dealt from `shift` on."""

    def write(folder):
        seeds = [1600 + k for k in range(members)]
        folders = {}
        for k, seed in enumerate(seeds):
            member = folder / f"member_{seed}"
            member.mkdir()
            save_file({"w": np.array([1.0 + sum(off)])}, member / "occupancy.safetensors")
            held = [u for u in range(units) if (u + shift) % members == k]
            unseen = [
                Unseen(f"{u:04d}", u + 1, people(u), (people(u) + 1) * math.exp(off[u]) - 1, 0.5)
                for u in held
            ]
            (member / OUT_OF_FOLD_FILE).write_bytes(as_json(unseen, k, members))
            (member / "history.json").write_text(json.dumps([{"held_out_loss": 99.0}]))
            card = {
                "best_epoch": 1,
                "chosen_by": "last epoch",
                "hyperparameters": {"occupancy_weight": 0.01},
            }
            (member / "card.json").write_text(json.dumps(card))
            said = {"held_out": [unit.id for unit in unseen]}
            (member / "units.json").write_text(json.dumps(said))
            folders[str(seed)] = member
        (folder / OUT_OF_FOLD_FILE).write_bytes(collected_json(collected(folders)))
        return seeds

    return publish(place, write)


def model(version) -> Model:
    return Model(country="demo", year=2020, version=version)


def test_the_loss_is_the_mean_over_all_units(home, store):
    off = np.random.default_rng(0).normal(0, 0.2, UNITS)
    found = metrics_of(store, model(train_folds(home, off)))
    assert found.units == UNITS
    assert found.loss == pytest.approx(100 * (abs(off).mean() + 0.01 * 0.5))
    assert found.log_l1 == pytest.approx(abs(off).mean())
    counted = np.array([people(u) for u in range(UNITS)])
    predicted = (counted + 1) * np.exp(off) - 1
    assert found.total_ratio == pytest.approx(predicted.sum() / counted.sum())
    assert found.mae_people == pytest.approx(abs(predicted - counted).mean())


def test_which_member_held_a_unit_out_is_of_no_consequence(home, store):
    off = np.random.default_rng(0).normal(0, 0.2, UNITS)
    one = metrics_of(store, model(train_folds(home, off)))
    other = metrics_of(store, model(train_folds(home, off * 1.01, shift=1)))
    assert incomparable(one, other.as_dict()) == ""
    fewer = metrics_of(store, model(train_folds(home, off, units=UNITS - 1)))
    assert "different census units" in incomparable(fewer, one.as_dict())


def test_the_margin_is_what_chance_makes_of_equals(home, store):
    """A difference within it is taken, one beyond it is not; in the ledger, with its figures."""
    chance = np.random.default_rng(1)
    off = chance.uniform(0.3, 0.5, UNITS)
    noise = chance.normal(0, 0.03, UNITS)
    noise -= noise.mean()
    used = train_folds(home, off)
    assert decided(store) == used
    loss = 100 * (off.mean() + 0.005)
    error = 100 * noise.std(ddof=1) / math.sqrt(UNITS)
    expected = 1.645 * error / loss

    worse = 1.645 * error / 100
    slightly = train_folds(home, off + noise + 0.9 * worse)
    margin = margin_of_chance(store, model(slightly), model(used), loss)
    assert margin == pytest.approx(expected, rel=1e-6)
    assert decided(store) == slightly
    entry = read_ledger(store, "demo").entries[-1]
    assert entry.margin == pytest.approx(expected, rel=1e-6)
    assert f"by chance over {UNITS} units" in entry.reason

    noisy = chance.normal(0, 0.03, UNITS)
    much = train_folds(home, off + noisy - noisy.mean() + 2 * worse)
    assert decided(store) == slightly
    assert "is allowed, by chance" in left_to_do(store)
    assert read_ledger(store, "demo").entries[-1].model.version == much
    before = len(read_ledger(store, "demo").entries)
    assert decided(store) == slightly
    assert len(read_ledger(store, "demo").entries) == before  # refused once


def test_a_margin_in_the_countrys_file_wins(home, store):
    configure(home, country="demo", year=2020, margin=0.5)
    off = np.full(UNITS, 0.1)
    for worse in (1.0, 1.4):
        version = train_folds(home, off * worse)
        assert decided(store) == version
    configure(home, country="demo", year=2020, margin=0.0)
    train_folds(home, off * 1.41)
    assert "at most +0.0% is allowed" in left_to_do(store)


def test_however_little_is_known_a_quarter_worse_is_refused(home, store):
    off = np.array([0.1, 0.9])
    used = train_folds(home, off, units=2)
    assert decided(store) == used
    train_folds(home, np.array([0.9, 0.45]), units=2)
    assert f"at most {MOST_BY_CHANCE:+.1%} is allowed" in left_to_do(store)
    assert decided(store) == used


def test_a_model_of_before_there_were_folds_is_read_and_does_not_compare(home, store):
    old = train(home, 12.0, chosen_by="last epoch")
    assert decided(store) == old
    train_folds(home, np.full(UNITS, 0.05))
    assert decided(store) == old
    assert "they hold out different census units" in left_to_do(store)
