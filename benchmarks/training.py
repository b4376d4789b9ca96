"""How much faster a unit's gradient is than a plain one, as ratios measured in one run.

Plain: the extractor runs at every step, head and batch norm run over the whole window, which has
the published 32 pixels of margin and is padded to a multiple of 64. Beside it what a CPU trains
with, compiled and with torch, and autograd, which GPUs use. All run one unit after the other on one
thread, on units of the sizes of the demo country's.

Run: python benchmarks/training.py
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from popcorn_ml.grid import Window
from popcorn_ml.model.canvas import occupancy_canvas
from popcorn_ml.model.popcorn import BuiltupExtractor, OccupancyModel, from_extractor, population
from popcorn_ml.model.unet import DoubleConv
from popcorn_ml.training.compiled import compiled
from popcorn_ml.training.loss import LOSS_SCALE, Arithmetic, Piece, UnitLoss, log_l1, unit_loss
from popcorn_ml.training.samples import MULTIPLE_PX
from popcorn_ml.training.ways import Ways, unit_loss_by

SIDE_PX = 768
UNITS = 24
PEOPLE = 900.0


def boxes(count: int) -> list[Window]:
    """Bounding boxes of 60 to 180 pixels a side."""
    chance = np.random.default_rng(0)
    sides = chance.integers(60, 181, (count, 2))
    corners = chance.integers(0, SIDE_PX - sides)
    return [
        Window(int(r), int(c), int(h), int(w))
        for (r, c), (h, w) in zip(corners, sides, strict=True)
    ]


def piece_of(image: torch.Tensor, score: torch.Tensor, box: Window) -> Piece:
    """A unit as `training` sees it."""
    tile = occupancy_canvas(SIDE_PX, SIDE_PX).tile(box, multiple=MULTIPLE_PX)
    inside = torch.zeros((tile.window.height, tile.window.width), dtype=torch.bool)
    inside[tile.core_in_window.slices] = True
    rows, cols = tile.source.slices
    return Piece(
        tile.lay(image[:, rows, cols]),
        inside.reshape(-1).nonzero()[:, 0].to(image.device),
        score[box.slices].reshape(-1),
    )


def ours(
    model: OccupancyModel,
    image: torch.Tensor,
    score: torch.Tensor,
    box: Window,
    arithmetic: Arithmetic = nullcontext,
) -> UnitLoss:
    """A unit's gradient by autograd, as on a GPU."""
    piece = piece_of(image, score, box)
    trained = [p for p in model.parameters() if p.requires_grad]
    pixels = box.height * box.width
    return unit_loss(model, [lambda: piece], PEOPLE, pixels, 0.01, trained, arithmetic)


def by_way(
    ways: Ways, model: OccupancyModel, image: torch.Tensor, score: torch.Tensor, box: Window
) -> UnitLoss:
    """A unit's gradient as on a CPU, with what is made ready once a step of two units."""
    way = ways.now(model)
    assert way is not None
    piece = piece_of(image, score, box)
    trained = [p for p in model.parameters() if p.requires_grad]
    return unit_loss_by(way, [lambda: piece], PEOPLE, box.height * box.width, 0.01, trained, 0)


def plain(
    model: OccupancyModel, extractor: BuiltupExtractor, image: torch.Tensor, box: Window
) -> None:
    """The same straight from the description of the method."""
    window = box.grown(32, (SIDE_PX, SIDE_PX))
    rows, cols = window.slices
    x = image[None, :, rows, cols]
    with torch.no_grad():
        score = extractor(x)[0]
    below, right = -window.height % 64, -window.width % 64
    padded = F.pad(x, (0, right, 0, below), mode="reflect")
    features = model.unet(padded)[..., : window.height, : window.width]
    occupancy = F.relu(model.head(features)[0, 0])
    inside = box.inside(window)
    predicted = population(occupancy, score)[inside].sum()
    loss = LOSS_SCALE * (log_l1(predicted, PEOPLE) + 0.01 * occupancy[inside].mean())
    trained = [p for p in model.parameters() if p.requires_grad]
    torch.autograd.grad(loss, trained)


def plain_convs(block: DoubleConv, x: torch.Tensor) -> torch.Tensor:
    """Batch norm as a layer of its own."""
    x = F.relu(block.norm1(block.conv1(x)))
    return F.relu(block.norm2(block.conv2(x)))


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    extractor = BuiltupExtractor().eval()
    model = from_extractor(extractor, 0.5, seed=1)
    image = torch.randn(6, SIDE_PX, SIDE_PX)
    score = torch.rand(SIDE_PX, SIDE_PX)
    folded = DoubleConv.forward
    settings: Any = SimpleNamespace(precision="float32")
    library = compiled()
    ways = {"torch": Ways(settings, torch.device("cpu"), None)}
    if library is not None:
        ways["compiled"] = Ways(settings, torch.device("cpu"), library)
    seconds: dict[str, list[float]] = {name: [] for name in ("plain", "autograd", *ways)}
    for _ in range(3):  # in turn, so that whatever else the machine does meets both
        DoubleConv.forward = plain_convs  # type: ignore[assignment, method-assign]
        begun = time.process_time()
        for box in boxes(UNITS):
            plain(model, extractor, image, box)
        seconds["plain"].append(time.process_time() - begun)
        DoubleConv.forward = folded  # type: ignore[method-assign]
        begun = time.process_time()
        for box in boxes(UNITS):
            ours(model, image, score, box)
        seconds["autograd"].append(time.process_time() - begun)
        for name, way in ways.items():
            begun = time.process_time()
            for box in boxes(UNITS):
                by_way(way, model, image, score, box)
            seconds[name].append(time.process_time() - begun)
    best = {name: min(values) / UNITS for name, values in seconds.items()}
    for name, value in best.items():
        ratio = best["plain"] / value
        print(f"{name:9s} {value * 1000:6.1f} ms of one core a unit, {ratio:5.2f} times plain")


if __name__ == "__main__":
    main()
