"""The loss of a unit, and that neither tiles nor neighbours in a step change its gradient."""

from __future__ import annotations

import math
import threading

import pytest
import torch

from popcorn_ml.model.popcorn import BuiltupExtractor, from_extractor
from popcorn_ml.training.augment import Draw
from popcorn_ml.training.loss import Piece, unit_loss
from popcorn_ml.training.samples import Samples, unit_tiles
from popcorn_ml.training.spec import SMALLEST_UNIT_PX
from popcorn_ml.training.units import find_units

CPU = torch.device("cpu")
WEIGHT = 0.01


@pytest.fixture
def model():
    torch.manual_seed(9)
    return from_extractor(BuiltupExtractor(), 0.8, seed=2)


@pytest.fixture
def opened():
    """Makes `Samples` of a spec and closes them afterwards."""
    made = []

    def make(spec):
        grid, units = find_units(spec.units, spec.builtup, spec.counts, spec.seasons, 0.0)
        samples = Samples(spec, grid, units.trained)
        made.append(samples)
        return samples, {unit.number: unit for unit in units.trained}

    yield make
    for samples in made:
        samples.close()


def parameters(model):
    return [p for p in model.parameters() if p.requires_grad]


def loss_of(model, samples, unit, drawn, differentiate=True):
    keys = samples.keys(unit, drawn.season)
    return unit_loss(
        model,
        [lambda k=key: samples.get(k).augmented(drawn, CPU) for key in keys],
        unit.people,
        unit.observed[drawn.season],
        WEIGHT,
        parameters(model) if differentiate else None,
    )


def test_the_formula(model, place, opened):
    samples, units = opened(place.spec())
    unit = units[2]
    result = loss_of(model, samples, unit, Draw(1))
    piece = samples.get((2, 0, 1)).augmented(Draw(1), CPU)
    with torch.no_grad():
        occupancy = model.occupancy_unpadded(piece.channels[None])[0].reshape(-1)[piece.pixels]
    predicted = float((occupancy * piece.score).sum())
    log_l1 = abs(math.log(predicted + 1) - math.log(unit.people + 1))
    assert result.predicted == pytest.approx(predicted, rel=1e-5)
    assert result.occupancy == pytest.approx(float(occupancy.mean()), rel=1e-5)
    assert result.loss == pytest.approx(100 * (log_l1 + 0.01 * float(occupancy.mean())), rel=1e-5)


@pytest.mark.parametrize("drawn", [Draw(0), Draw(2, 1, True, 1.2, 0.9), Draw(3, 2, False)], ids=str)
def test_fault_10_a_unit_too_large_for_memory_keeps_its_whole_count(model, place, opened, drawn):
    """Worked on in tiles, it gives the loss and the gradient of one go."""
    whole_samples, units = opened(place.spec())
    tiled_samples, _ = opened(place.spec(max_pixels_per_step=2 * SMALLEST_UNIT_PX))
    unit = units[13]
    assert whole_samples.tile_count(unit) == 1
    assert tiled_samples.tile_count(unit) > 3
    largest = max(
        tiled_samples.get(key).channels[0].numel() for key in tiled_samples.keys(unit, drawn.season)
    )
    assert largest <= SMALLEST_UNIT_PX
    whole = loss_of(model, whole_samples, unit, drawn)
    tiled = loss_of(model, tiled_samples, unit, drawn)
    for name in ("loss", "log_l1", "predicted", "occupancy"):
        assert getattr(tiled, name) == pytest.approx(getattr(whole, name), rel=1e-5), name
    for a, b in zip(tiled.gradient, whole.gradient, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4 * float(b.abs().max()) + 1e-7, rtol=1e-3)


def test_tiles_cover_a_unit_once(place, opened):
    samples, units = opened(place.spec(max_pixels_per_step=2 * SMALLEST_UNIT_PX))
    for unit in units.values():
        pixels = sum(len(samples.get(key).pixels) for key in samples.keys(unit, 0))
        assert pixels == unit.pixels


@pytest.mark.parametrize("box", [(0, 0, 500, 700), (3, 5, 20, 900), (400, 1, 90, 900)])
def test_tiles_keep_to_the_limit(box):
    from popcorn_ml.grid import Window
    from popcorn_ml.model.canvas import occupancy_canvas

    canvas = occupancy_canvas(1000, 1000)
    for limit in (SMALLEST_UNIT_PX, 40_000, 10_000_000):
        tiles = unit_tiles(canvas, Window(*box), limit)
        assert all(t.window.height * t.window.width <= limit for t in tiles)
        assert sum(t.core.height * t.core.width for t in tiles) == box[2] * box[3]


def test_fault_6_a_unit_does_not_notice_the_other_units_of_its_step(model, place, opened):
    """No padding to a common size: what surrounds a unit is its own surroundings."""
    samples, units = opened(place.spec())
    alone = loss_of(model, samples, units[1], Draw(0))
    loss_of(model, samples, units[13], Draw(0))
    beside = loss_of(model, samples, units[1], Draw(0))
    assert samples.get((1, 0, 0)).channels.shape != samples.get((13, 0, 0)).channels.shape
    assert beside.loss == alone.loss
    assert all(torch.equal(a, b) for a, b in zip(alone.gradient, beside.gradient, strict=True))


def test_fault_6_a_unit_is_seen_in_training_as_in_the_map(model, place, opened):
    """The sum over a unit equals that of the whole raster in one go, at the raster's edge too."""
    samples, units = opened(place.spec())
    from popcorn_ml.inputs import read_channels

    spec = place.spec()
    channels, _ = read_channels(spec.s1["summer"], spec.s2["summer"])
    with torch.no_grad():
        occupancy = model(torch.from_numpy(channels)[None])[0].numpy()
    people = occupancy * place.scores[1]
    for unit in units.values():
        result = loss_of(model, samples, unit, Draw(1), differentiate=False)
        expected = float(people[place.units == unit.number].sum())
        assert result.predicted == pytest.approx(expected, rel=2e-6)
        assert result.gradient is None


def test_fault_9_the_regulariser_is_a_mean_over_units_not_over_pixels(model):
    """A unit of 20 times the pixels weighs no more; and it is the occupancy, not a count of > 0."""
    torch.manual_seed(0)
    image = torch.randn(6, 64, 64)
    small, large = torch.arange(100), torch.arange(2000)
    results = [
        unit_loss(
            model,
            [lambda p=pixels: Piece(image, p, torch.ones(len(p)))],
            50.0,
            len(pixels),
            WEIGHT,
            None,
        )
        for pixels in (small, large)
    ]
    for result in results:
        assert result.loss == pytest.approx(100 * (result.log_l1 + 0.01 * result.occupancy))
    with torch.no_grad():
        model.head[-1].bias[0] += 0.5
        model.head[-1].weight[0] *= 0
    moved = unit_loss(
        model, [lambda: Piece(image, large, torch.ones(2000))], 50.0, 2000, WEIGHT, None
    )
    assert moved.occupancy == pytest.approx(1.3, rel=1e-5)  # 0.8 + 0.5 everywhere


def test_the_gradient_points_downhill(model, place, opened):
    samples, units = opened(place.spec())
    before = loss_of(model, samples, units[5], Draw(0))
    with torch.no_grad():
        for parameter, slope in zip(parameters(model), before.gradient, strict=True):
            parameter -= 1e-5 * slope
    after = loss_of(model, samples, units[5], Draw(0))
    expected = 1e-5 * sum(float(g.square().sum()) for g in before.gradient)
    assert before.loss - after.loss == pytest.approx(expected, rel=0.2)


def test_bfloat16_is_close(model, place, opened):
    samples, units = opened(place.spec())
    exact = loss_of(model, samples, units[5], Draw(0))
    rough = unit_loss(
        model,
        [lambda: samples.get((5, 0, 0)).augmented(Draw(0), CPU)],
        units[5].people,
        units[5].pixels,
        WEIGHT,
        parameters(model),
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    )
    assert rough.predicted != exact.predicted
    assert rough.predicted == pytest.approx(exact.predicted, rel=0.03)


def test_samples_are_kept_within_the_budget(place, opened):
    samples, units = opened(place.spec(cache_mb=1))
    everything = [key for unit in units.values() for s in range(4) for key in samples.keys(unit, s)]
    first = samples.get(everything[0])
    for key in everything:
        samples.get(key)
    held = [future.result() for future in samples._kept.values()]
    assert 0 < sum(sample.bytes for sample in held) <= 2 * 1024 * 1024
    assert len(held) < len(everything)
    again = samples.get(everything[0])
    assert torch.equal(again.channels, first.channels)
    assert torch.equal(again.pixels, first.pixels)
    assert samples.get(everything[0]) is again


def test_a_sample_that_is_there_at_once_is_kept_without_waiting_for_itself(place, opened):
    """The reader may be done before anybody has asked to be told."""
    samples, _ = opened(place.spec())
    later = samples._readers.submit

    def at_once(work, key):
        future = later(work, key)
        future.result()
        return future

    samples._readers.submit = at_once
    asking = threading.Thread(target=samples.get, args=((2, 0, 1),), daemon=True)
    asking.start()
    asking.join(30)
    assert not asking.is_alive()
    assert samples.request((2, 0, 1)).done()
