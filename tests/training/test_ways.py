"""The compiled and the written-out steps: the same loss and gradient as autograd's."""

from __future__ import annotations

import dataclasses
import math
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from popcorn_ml.compute import kernels
from popcorn_ml.errors import ConfigError
from popcorn_ml.model.popcorn import BuiltupExtractor, OccupancyModel, from_extractor
from popcorn_ml.training import compiled, ways
from popcorn_ml.training.loss import Piece, piece_values, unit_loss
from popcorn_ml.training.regions import regions_for
from popcorn_ml.training.ways import Ways, library_for, unit_loss_by

CPU = torch.device("cpu")
WEIGHT = 0.01

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, kernels.COMPILERS)), reason="no C compiler here"
)
KERNELS = [pytest.param("compiled", marks=needs_compiler), "torch"]


@pytest.fixture(scope="module")
def model() -> OccupancyModel:
    """With batch norms and weights that matter, and a head that is neither always on nor off."""
    torch.manual_seed(9)
    extractor = BuiltupExtractor()
    for module in extractor.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 2)
            torch.nn.init.normal_(module.bias, std=0.3)
            torch.nn.init.normal_(module.running_mean, std=0.3)
            torch.nn.init.uniform_(module.running_var, 0.3, 2)
    return from_extractor(extractor, 0.05, seed=2)


def made(kernels: str, place, model: OccupancyModel):
    spec = place.spec(kernels=kernels)
    return Ways(spec, CPU, library_for(spec, CPU)).now(model)


def piece_of(height: int, width: int, wanted: torch.Tensor, seed: int = 0) -> Piece:
    chance = torch.Generator().manual_seed(seed)
    channels = torch.randn((6, height, width), generator=chance)
    score = torch.rand(len(wanted), generator=chance)
    return Piece(channels, wanted, score)


def same(by, plain, tolerance: float = 2e-4) -> None:
    """Of every parameter, up to a share of its largest gradient."""
    for a, b in zip(by.gradient, plain.gradient, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance * float(b.abs().max()) + 1e-6)


def both(way, model, pieces, people, room=10**9):
    trained = [p for p in model.parameters() if p.requires_grad]
    makes = [lambda p=piece: p for piece in pieces]
    pixels = sum(len(piece.pixels) for piece in pieces)
    plain = unit_loss(model, makes, people, pixels, WEIGHT, trained)
    by = unit_loss_by(way, makes, people, pixels, WEIGHT, trained, room)
    for name in ("loss", "log_l1", "predicted", "occupancy"):
        assert getattr(by, name) == pytest.approx(getattr(plain, name), rel=2e-5, abs=1e-5), name
    return by, plain


def inside(height: int, width: int, box: tuple[slice, slice], share: float, seed: int):
    """Some pixels of a box, and always its corners, in order."""
    chance = np.random.default_rng(seed)
    wanted = np.zeros((height, width), bool)
    part = wanted[box]
    part[:] = chance.random(part.shape) < share
    part[0, 0] = part[-1, -1] = True
    return torch.from_numpy(np.flatnonzero(wanted))


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize(
    ("size", "box", "share"),
    [
        ((112, 144), (slice(24, 80), slice(28, 100)), 0.7),  # with a halo on all sides
        ((64, 96), (slice(0, 64), slice(0, 96)), 1.0),  # a canvas's edge on all sides
        ((60, 76), (slice(0, 20), slice(40, 76)), 0.3),  # at a corner
        ((52, 52), (slice(25, 26), slice(25, 26)), 1.0),  # a single pixel
    ],
)
def test_the_gradient_is_autograds(kernels, size, box, share, model, place):
    piece = piece_of(*size, inside(*size, box, share, 1))
    for people in (0.0, 5.0, 5000.0):  # too many and too few predicted
        same(*both(made(kernels, place, model), model, [piece], people))


@pytest.mark.parametrize("kernels", KERNELS)
def test_occupancy_of_each_pixel_is_the_models(kernels, model, place):
    piece = piece_of(88, 60, inside(88, 60, (slice(24, 64), slice(24, 36)), 0.5, 3))
    _, plain = piece_values(model, piece)
    found = made(kernels, place, model).occupancy(piece)
    torch.testing.assert_close(found, plain.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("room", [0, 10**9], ids=["passed through twice", "kept"])
def test_several_pieces_are_one_unit_and_an_empty_one_counts_nothing(kernels, room, model, place):
    nothing = torch.zeros(0, dtype=torch.int64)
    pieces = [
        piece_of(64, 64, inside(64, 64, (slice(24, 40), slice(24, 40)), 1, 1), 1),
        piece_of(52, 52, nothing, 2),
        piece_of(72, 60, inside(72, 60, (slice(24, 48), slice(24, 36)), 0.5, 2), 3),
    ]
    same(*both(made(kernels, place, model), model, pieces, 40.0, room))
    trained = [p for p in model.parameters() if p.requires_grad]
    alone = unit_loss_by(
        made(kernels, place, model), [lambda: pieces[1]], 9.0, 7, WEIGHT, trained, room
    )
    assert alone.predicted == 0
    assert alone.loss == pytest.approx(100 * math.log(10))
    assert all(not part.any() for part in alone.gradient)


@pytest.mark.parametrize("kernels", KERNELS)
def test_the_same_bytes_each_time_and_memory_is_not_remembered(kernels, model, place):
    trained = [p for p in model.parameters() if p.requires_grad]
    way = made(kernels, place, model)
    large = piece_of(112, 112, inside(112, 112, (slice(24, 88), slice(24, 88)), 1, 1))
    small = piece_of(64, 60, inside(64, 60, (slice(24, 40), slice(24, 36)), 1, 1))

    def gradient(piece):
        return unit_loss_by(way, [lambda: piece], 30.0, 900, WEIGHT, trained, 0).gradient

    first = gradient(small)
    gradient(large)
    again = gradient(small)
    fresh = unit_loss_by(
        made(kernels, place, model), [lambda: small], 30.0, 900, WEIGHT, trained, 0
    ).gradient
    for a, b, c in zip(first, again, fresh, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_weight_that_is_no_number_is_not_hidden(kernels, model, place):
    broken = OccupancyModel()
    broken.load_state_dict(model.state_dict())
    with torch.no_grad():
        broken.unet.s2.enter.conv1.weight[0, 0, 0, 0] = math.nan
    piece = piece_of(64, 60, inside(64, 60, (slice(24, 40), slice(24, 36)), 1, 1))
    way = made(kernels, place, broken)
    found = unit_loss_by(way, [lambda: piece], 30.0, 10, WEIGHT, None, 0)
    assert math.isnan(found.loss)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_stages_reach_as_far_as_what_is_wanted_depends_on(data):
    """Each stage lies in its window, begins where the one before it can be pooled or raised, and
    is two pixels larger than the next needs, unless the window ends there."""
    size = 4 * data.draw(st.integers(1, 60))
    first = data.draw(st.integers(0, size - 1))
    last = data.draw(st.integers(first + 1, size))
    axis = regions_for((first, last), (0, 1), size, 4).rows
    assert axis.up1[0] <= max(first - 2, 0)
    assert axis.up1[1] >= min(last + 2, size)
    needs = [
        (axis.up2, (axis.up1[0] // 2, axis.up1[1] // 2), size // 2),
        (axis.down2, (axis.up2[0] // 2, axis.up2[1] // 2), size // 4),
        (axis.down1, (2 * axis.down2[0], 2 * axis.down2[1]), size // 2),
        (axis.enter, (2 * axis.down1[0], 2 * axis.down1[1]), size),
    ]
    for stage, (begin, end), limit in needs:
        assert 0 <= stage[0] <= max(begin - 2, 0)
        assert min(end + 2, limit) <= stage[1] <= limit
    for stage in (axis.enter, axis.down1, axis.up1, axis.up2):
        assert stage[0] % 2 == stage[1] % 2 == 0
    assert axis.up1[0] % 4 == axis.up1[1] % 4 == 0


def test_a_training_says_what_computed_it(place, monkeypatch):
    """And asked for by name, what is not there is refused before any work."""
    spec = place.spec()
    assert Ways(spec, CPU, None).told == "torch, written out"
    half = dataclasses.replace(spec, precision="bfloat16")
    assert library_for(half, CPU) is None
    assert Ways(half, CPU, None).now(OccupancyModel()) is None
    monkeypatch.setattr(ways, "compiled", lambda: None)
    assert library_for(spec, CPU) is None
    for refused in (half, spec):
        with pytest.raises(ConfigError, match="compiled kernels cannot be used"):
            library_for(dataclasses.replace(refused, kernels="compiled"), CPU)


@needs_compiler
def test_a_source_that_does_not_compile_is_as_no_compiler(tmp_path, monkeypatch):
    broken = tmp_path / "unit.c"
    broken.write_text("int main(void) { this is not C }")
    monkeypatch.setattr(compiled, "SOURCE", broken)
    assert compiled.compiled() is None
    other = tmp_path / "other.c"
    other.write_text("int popcorn_one(void) { return 1; }")
    monkeypatch.setattr(kernels, "COMPILERS", ("no-such-compiler",))
    monkeypatch.setattr(compiled, "SOURCE", other)
    assert compiled.compiled() is None
