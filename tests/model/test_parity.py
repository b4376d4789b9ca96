"""Numerical parity with the published code, on the fixtures that it computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from popcorn_ml.grid import Window
from popcorn_ml.inputs import normalised
from popcorn_ml.model.canvas import occupancy_canvas
from popcorn_ml.model.popcorn import BuiltupExtractor, OccupancyModel, population
from popcorn_ml.model.published import published_key
from popcorn_ml.model.weights import load_extractor
from popcorn_ml.training.loop import parameter_groups
from popcorn_ml.training.loss import Piece, unit_loss

ABSOLUTE = 1e-5
RELATIVE = 1e-4
ZONE_PX = 128


@pytest.fixture(scope="module")
def parity(reference_dir: Path) -> dict[str, np.ndarray]:
    with np.load(reference_dir / "parity.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def extractor(reference_dir: Path) -> BuiltupExtractor:
    return load_extractor(reference_dir / "builtup_extractor.pt")


@pytest.fixture(scope="module")
def chip(real_dir: Path) -> torch.Tensor:
    """(1, 6, 512, 512): the Spanish chip as the networks take it."""
    import rasterio

    with rasterio.open(real_dir / "spain" / "s1_grd_db.tif") as dataset:
        s1 = dataset.read()
    with rasterio.open(real_dir / "spain" / "s2_l1c.tif") as dataset:
        s2 = dataset.read([2, 3, 4, 8])
    channels, valid = normalised({"s1": s1.astype(np.float32), "s2": s2.astype(np.float32)})
    assert valid.all()
    return torch.from_numpy(channels)[None]


def names_of(parity: dict[str, np.ndarray]) -> dict[str, str]:
    """The fixture's name of every tensor of the occupancy U-Net and head -> ours."""
    names = {}
    for key in parity:
        if key.startswith("head."):
            names[key] = key
        elif key.startswith("occupancy_unet."):
            ours = published_key(key.removeprefix("occupancy_unet."))
            if ours is not None and ours.startswith("unet."):
                names[key] = ours
    return names


@pytest.fixture
def before_step(parity: dict[str, np.ndarray], reference_dir: Path) -> OccupancyModel:
    """The occupancy model that the fixture's numbers were made with.

    The fixture's own `head.*` and `occupancy_unet.*` are the weights *after* its training step
    (they equal `after_step.*` bit for bit), not those that its maps were made with. The step moved
    no weight by more than the learning rate, and the earlier ones were drawn: the extractor's plus
    0.01 x normal noise (generator seeded with 7, in the order of the file), and a head of 0.15 and
    0.05 x normal noise for weights and biases (seed 1600) with 0.9407 as the last bias. Drawing
    them again is checked against the stored ones here, and by every number below.
    """
    network = torch.load(
        reference_dir / "builtup_extractor.pt", map_location="cpu", weights_only=True
    )["network"]
    drawn: dict[str, torch.Tensor] = {}
    noise = torch.Generator().manual_seed(7)
    for key, value in network.items():
        if key.endswith("num_batches_tracked"):
            continue
        is_statistic = "running_" in key
        drawn[f"occupancy_unet.{key}"] = (
            value if is_statistic else value + 0.01 * torch.randn(value.shape, generator=noise)
        )
    noise = torch.Generator().manual_seed(1600)
    for layer in (0, 2, 4, 6):
        for part, scale in (("weight", 0.15), ("bias", 0.05)):
            key = f"head.{layer}.{part}"
            drawn[key] = scale * torch.randn(parity[key].shape, generator=noise)
    drawn["head.6.bias"] = torch.full((2,), 0.9407)

    model = OccupancyModel()
    names = names_of(parity)
    for key in names:
        # The learning rate, and rounding.
        assert np.abs(drawn[key].numpy() - parity[key]).max() < 1.01e-4, key
    found = model.load_state_dict({ours: drawn[key] for key, ours in names.items()}, strict=False)
    assert not found.unexpected_keys
    assert all(key.endswith("num_batches_tracked") for key in found.missing_keys)
    return model.eval()


@pytest.mark.parametrize(
    ("sensors", "name"),
    [
        ("both", "builtup_score"),
        ("s1", "builtup_score_s1_only"),
        ("s2", "builtup_score_s2_only"),
    ],
)
def test_builtup_score(extractor, chip, parity, sensors, name):
    with torch.no_grad():
        score = extractor(chip, sensors)[0].numpy()
    np.testing.assert_allclose(score, parity[name], atol=ABSOLUTE, rtol=0)


def test_occupancy_population_and_zone_sums(extractor, before_step, chip, parity):
    with torch.no_grad():
        occupancy = before_step(chip)[0]
        people = population(occupancy, extractor(chip)[0]).numpy()
    np.testing.assert_allclose(occupancy.numpy(), parity["occupancy"], atol=ABSOLUTE, rtol=0)
    np.testing.assert_allclose(people, parity["population"], atol=ABSOLUTE, rtol=0)
    zones = people.reshape(4, ZONE_PX, 4, ZONE_PX).sum(axis=(1, 3), dtype=np.float64).reshape(-1)
    np.testing.assert_allclose(zones, parity["zone_population"], rtol=RELATIVE)


def test_a_raster_whose_sides_are_no_multiples_of_32(extractor, before_step, chip, parity):
    corner = chip[..., :200, :300]
    with torch.no_grad():
        people = population(before_step(corner)[0], extractor(corner)[0]).numpy()
    np.testing.assert_allclose(people, parity["population_200x300"], atol=ABSOLUTE, rtol=0)


def test_one_training_step(extractor, before_step, chip, parity):
    """Through the code that training uses: each zone in its own window, the head on its pixels."""
    with torch.no_grad():
        score = extractor(chip)[0]
    canvas = occupancy_canvas(512, 512)
    trained = [p for p in before_step.parameters() if p.requires_grad]
    results = []
    for zone, people in ((6, 900.0), (11, 2500.0)):
        box = Window((zone - 1) // 4 * ZONE_PX, (zone - 1) % 4 * ZONE_PX, ZONE_PX, ZONE_PX)
        tile = canvas.tile(box)
        assert tile.window.height < 512  # the window of a unit, not the whole chip
        inside = torch.zeros((tile.window.height, tile.window.width), dtype=torch.bool)
        inside[tile.core_in_window.slices] = True
        rows, cols = tile.source.slices
        piece = Piece(
            tile.lay(chip[0, :, rows, cols]),
            inside.reshape(-1).nonzero()[:, 0],
            score[box.slices].reshape(-1),
        )
        results.append(
            unit_loss(before_step, [lambda p=piece: p], people, ZONE_PX**2, 0.01, trained)
        )
    mean = lambda name: np.mean([getattr(result, name) for result in results])  # noqa: E731
    predicted = [result.predicted for result in results]
    np.testing.assert_allclose(predicted, parity["train_popcount"], rtol=RELATIVE)
    np.testing.assert_allclose(mean("log_l1"), parity["train_log_l1"], rtol=RELATIVE)
    np.testing.assert_allclose(mean("occupancy"), parity["train_scale_mean"], rtol=RELATIVE)
    np.testing.assert_allclose(mean("loss"), parity["train_total_loss"], rtol=RELATIVE)

    for parameter, *parts in zip(trained, *(r.gradient for r in results), strict=True):
        parameter.grad = torch.stack(parts).mean(0)
    norm = float(torch.nn.utils.clip_grad_norm_(trained, 0.01))
    np.testing.assert_allclose(norm, parity["train_grad_norm"], rtol=RELATIVE)

    torch.optim.Adam(parameter_groups(before_step, 1e-5), lr=1e-4).step()
    state = before_step.state_dict()
    differences = {
        key: np.abs(state[ours].numpy() - parity[key]) for key, ours in names_of(parity).items()
    }
    everything = np.concatenate([value.reshape(-1) for value in differences.values()])
    # Adam's first step is the learning rate times the gradient's sign: where a gradient is 0 but
    # for rounding, its sign is chance, and such a weight may be anywhere within a step.
    assert (everything <= 1e-6).mean() > 0.995
    assert everything.max() < 2.01e-4
    for key in (key for key in parity if key.startswith("after_step.")):
        np.testing.assert_array_equal(parity[key], parity[key.removeprefix("after_step.")])
