"""Pixels that are hardly built up: not trained on, bounded, and none of them by default."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from popcorn_ml import raster
from popcorn_ml.errors import ConfigError
from popcorn_ml.mapping.sparing import MARGIN
from popcorn_ml.model.popcorn import BuiltupExtractor, from_extractor
from popcorn_ml.sentinel import SEASONS
from popcorn_ml.training.augment import Draw
from popcorn_ml.training.fit import train_member
from popcorn_ml.training.left_out import LARGEST, LEFT_OUT, LeftOutPixels, pixels_left_out
from popcorn_ml.training.loss import piece_values
from popcorn_ml.training.samples import Samples
from popcorn_ml.training.units import find_units
from tests.training.places import Place, block_units, write_place

NOTHING = 1e-7
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def towns(tmp_path_factory) -> Place:
    """Nine units, of which one has nobody's house, with a town in one corner and one in another."""
    place = write_place(tmp_path_factory.mktemp("towns"), block_units(300, 330, 3, 3))
    chance = np.random.default_rng(3)
    scores = NOTHING * chance.random(place.scores.shape, np.float32)
    for rows, cols in ((slice(20, 60), slice(30, 90)), (slice(180, 260), slice(200, 320))):
        scores[:, rows, cols] = chance.uniform(0.2, 1, scores[:, rows, cols].shape)
    scores[1:, 22, 33] = 0  # built up in one season alone
    scores[2, 10:15, 10:15] = np.nan
    place.scores = scores
    raster.write(place.folder / "builtup_score.tif", scores, place.grid, SEASONS, float("nan"))
    counts = [dict(count, people=20.0 + count["number"]) for count in place.counts]
    place.write_counts(counts)
    return place


def opened(place: Place, **changes):
    spec = place.spec(**changes)
    grid, units = find_units(spec.units, spec.builtup, spec.counts, spec.seasons, 0.0)
    found = pixels_left_out(spec, grid)
    return found, Samples(spec, grid, units.trained, found.below), units.trained


def test_what_is_left_out_is_the_same_in_every_season_and_within_the_share(towns):
    share = 1e-4
    found, samples, units = opened(towns, leave_out=share)
    try:
        assert found.below > NOTHING
        assert 0 < found.of_people <= share
        assert found.of_people == pytest.approx(found.of_score * MARGIN * LARGEST)
        peak = np.nan_to_num(towns.scores).max(axis=0)
        mean = np.nanmean(towns.scores, axis=0)
        spared = peak < found.below
        assert 0.5 < spared.mean() < 1
        assert found.of_pixels == pytest.approx(spared.mean())
        assert mean[spared].sum() / mean.sum() <= found.of_score * (1 + 1e-6)
        for unit in units:
            for season in range(len(SEASONS)):
                pieces = [samples.get(key) for key in samples.keys(unit, season)]
                wanted = (towns.units == unit.number) & ~spared
                assert sum(len(piece.pixels) for piece in pieces) == wanted.sum()
                expected = towns.scores[season][wanted].sum(dtype=np.float64)
                assert sum(float(p.score.sum()) for p in pieces) == pytest.approx(expected)
    finally:
        samples.close()


def test_pixels_that_stay_are_seen_as_without(towns):
    """Their people are what the network says of them with everything around them."""
    torch.manual_seed(1)
    model = from_extractor(BuiltupExtractor(), 0.8, seed=2)
    _, few, units = opened(towns, leave_out=1e-4)
    _, every, _ = opened(towns)
    try:
        for unit in (units[0], units[8]):
            sums = []
            for samples in (few, every):
                pieces = [samples.get(k).augmented(Draw(0), CPU) for k in samples.keys(unit, 0)]
                with torch.no_grad():
                    people = [piece_values(model, piece)[0] for piece in pieces]
                sums.append(float(torch.cat(people).sum(dtype=torch.float64)))
            assert sums[0] == pytest.approx(sums[1], rel=1e-5)
            assert few.pixels(unit) < every.pixels(unit)
    finally:
        few.close()
        every.close()


def test_nothing_is_left_out_as_published_nor_where_all_is_built_up(towns, place):
    assert opened(towns)[0] == LeftOutPixels()
    assert opened(place, leave_out=1e-4)[0] == LeftOutPixels()
    spec = towns.spec()
    asked = dataclasses.replace(spec, leave_out=1e-4)
    assert asked.fingerprint() != spec.fingerprint()


def test_a_training_says_what_it_left_out_and_a_unit_without_a_house_is_no_trouble(towns):
    result = train_member(towns.spec("towns", leave_out=1e-4, epochs=2))
    card = json.loads((result.folder / "card.json").read_text())
    assert card[LEFT_OUT]["allowed"] == 1e-4
    assert card[LEFT_OUT]["below"] > 0
    assert card[LEFT_OUT]["of_people"] <= 1e-4
    assert card["hyperparameters"]["leave_out"] == 1e-4
    assert all(np.isfinite(epoch["train_loss"]) for epoch in result.history)
    plain = train_member(towns.spec("every", epochs=2))
    assert plain.history[-1]["train_loss"] == pytest.approx(
        result.history[-1]["train_loss"], rel=0.02
    )


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan"), "much"])
def test_a_share_that_is_none_is_refused(towns, share):
    with pytest.raises(ConfigError, match="leave_out"):
        towns.spec(leave_out=share)
