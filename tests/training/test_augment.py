"""What varies between two sights of a unit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from popcorn_ml.sentinel import CHANNEL_MEAN, CHANNEL_STD, CHANNELS
from popcorn_ml.training.augment import Draw, draw, epoch_order, stretched, turned, turned_pixels

DRAWS = [Draw(0, turns, mirrored) for turns in range(4) for mirrored in (False, True)]


@pytest.mark.parametrize("drawn", DRAWS, ids=str)
def test_pixels_turn_with_the_image(drawn):
    image = torch.arange(5 * 7).reshape(1, 5, 7)
    pixels = torch.tensor([0, 6, 11, 17, 34])
    moved = turned(image, drawn)
    assert moved.shape == ((1, 7, 5) if drawn.quarter_turns % 2 else (1, 5, 7))
    there = turned_pixels(pixels, 5, 7, drawn)
    assert moved.reshape(-1)[there].tolist() == image.reshape(-1)[pixels].tolist()


def test_the_eight_ways_differ():
    image = torch.arange(16).reshape(1, 4, 4)
    assert len({tuple(turned(image, drawn).reshape(-1).tolist()) for drawn in DRAWS}) == 8


def test_brightness_and_gamma_act_on_reflectance():
    """Not on normalised values: a pixel of reflectance r becomes (r x brightness) ^ gamma."""
    reflectance = torch.linspace(0.01, 1.2, 24).reshape(4, 2, 3)
    channels = torch.randn(6, 2, 3)
    for i, name in enumerate(CHANNELS[2:]):
        channels[2 + i] = (reflectance[i] * 1e4 - CHANNEL_MEAN[name]) / CHANNEL_STD[name]
    before = channels.clone()
    out = stretched(channels, None, Draw(0, brightness=1.3, gamma=0.8))
    assert torch.equal(channels, before)
    assert torch.equal(out[:2], before[:2])  # Sentinel-1 is left alone
    for i, name in enumerate(CHANNELS[2:]):
        seen = (out[2 + i] * CHANNEL_STD[name] + CHANNEL_MEAN[name]) / 1e4
        torch.testing.assert_close(seen, (reflectance[i] * 1.3) ** 0.8, atol=1e-5, rtol=1e-4)


def test_missing_pixels_stay_missing():
    channels, missing = torch.randn(6, 3, 3), torch.zeros(3, 3, dtype=torch.bool)
    missing[1, 1] = True
    channels[2:, 1, 1] = 0
    out = stretched(channels, missing, Draw(0, brightness=1.5, gamma=1.5))
    assert (out[2:, 1, 1] == 0).all()
    assert torch.isfinite(out).all()


def test_draws_depend_on_seed_epoch_and_unit_alone():
    first = draw(1600, 3, 17, (0, 1, 2, 3))
    draw(1600, 4, 18, (0, 1))
    np.random.seed(0)
    assert draw(1600, 3, 17, (0, 1, 2, 3)) == first
    others = [draw(1601, 3, 17, (0, 1, 2, 3)), draw(1600, 4, 17, (0, 1, 2, 3))]
    others.append(draw(1600, 3, 18, (0, 1, 2, 3)))
    assert first not in others


def test_draws_are_spread_as_published():
    draws = [draw(1600, epoch, unit, (0, 2, 3)) for epoch in range(40) for unit in range(1, 51)]
    assert np.bincount([d.season for d in draws], minlength=4)[1] == 0
    assert np.bincount([d.season for d in draws])[[0, 2, 3]].min() > 550
    ways = np.bincount([d.quarter_turns * 2 + d.mirrored for d in draws], minlength=8)
    assert ways.min() > 180
    for name in ("brightness", "gamma"):
        values = np.array([getattr(d, name) for d in draws])
        assert 0.87 < (values != 1).mean() < 0.93
        assert values.min() >= 2 / 3
        assert values.max() <= 3 / 2
        assert values.min() < 0.68
        assert values.max() > 1.48


def test_an_epoch_shows_every_unit_once_in_another_order():
    orders = [epoch_order(1600, epoch, 31) for epoch in range(3)]
    assert all(sorted(order) == list(range(31)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert epoch_order(1600, 1, 31) == orders[1]


def test_brightness_and_gamma_stay_within_the_stretch():
    for stretch in (1.5, 1.2, 1.0):
        draws = [draw(1600, epoch, 5, (0,), stretch) for epoch in range(200)]
        for factors in ([d.brightness for d in draws], [d.gamma for d in draws]):
            assert 1 / stretch <= min(factors) <= 1 / stretch**0.9
            assert stretch**0.9 <= max(factors) <= stretch
    assert draw(1600, 1, 5, (0, 1)) == draw(1600, 1, 5, (0, 1), 1.5)
