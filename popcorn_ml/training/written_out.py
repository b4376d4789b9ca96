"""A piece's sums and their gradient without autograd: what a CPU trains with in float32.

The U-Net runs where `regions` says, the head on the wanted pixels alone. A `WrittenOut` holds the
weights as they were when it was made: one a step, shared by all its units and threads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from popcorn_ml.model.popcorn import OccupancyModel, population
from popcorn_ml.model.unet import S1_CHANNELS, STREAM_FEATURES
from popcorn_ml.training.loss import Piece
from popcorn_ml.training.pixelhead import CHUNK_PX, Head
from popcorn_ml.training.regions import regions_for, span_of
from popcorn_ml.training.stream import Gradients, Stream, StreamTape

KEPT_HEAD_PX = 100_000
"""Pixels of a piece up to which the head's values are kept (0.8 kB a pixel) and not made again."""


@dataclass
class Tape:
    """What a piece's gradient is taken from.

    Attributes:
        people, occupancy: sums over its pixels, float32.
    """

    people: Tensor
    occupancy: Tensor
    score: Tensor
    pixels: Tensor
    features: Tensor
    heads: list[list[Tensor]]
    streams: tuple[StreamTape, StreamTape]

    @property
    def bytes(self) -> int:
        """Of memory that is held."""
        held = [self.features, *(value for values in self.heads for value in values)]
        held += [tensor for tape in self.streams for tensor in tape.steps]
        return sum(tensor.numel() * tensor.element_size() for tensor in held)


class WrittenOut:
    """An occupancy model's forward and backward, written out."""

    def __init__(self, model: OccupancyModel) -> None:
        with torch.no_grad():
            self.streams = Stream(model.unet.s1), Stream(model.unet.s2)
            self.head = Head(model)

    def occupancy(self, piece: Piece) -> Tensor:
        """Of each of a piece's pixels, (pixels,)."""
        if not len(piece.pixels):
            return piece.score
        features, _, _ = self._features(piece)
        return torch.cat([self.head.forward(part)[-1] for part in features.split(CHUNK_PX)])[:, 0]

    def forward(self, piece: Piece) -> Tape | None:
        """Sums over a piece's pixels, and what `backward` needs; None where it has no pixel."""
        if not len(piece.pixels):
            return None
        features, pixels, streams = self._features(piece)
        kept = len(features) <= KEPT_HEAD_PX
        heads, people, occupancy = [], [], []
        for part, score in zip(features.split(CHUNK_PX), piece.score.split(CHUNK_PX), strict=True):
            values = self.head.forward(part)
            occupancy.append(values[-1].sum())
            people.append(population(values[-1][:, 0], score).sum())
            if kept:
                heads.append(values)
        return Tape(
            torch.stack(people).sum(),
            torch.stack(occupancy).sum(),
            piece.score,
            pixels,
            features,
            heads,
            streams,
        )

    def backward(self, tape: Tape, by_people: float, by_occupancy: float, into: Gradients) -> None:
        """Add a piece's gradient, its sums' slopes being given. The tape is used up."""
        sums = self.head.sums()
        by_features = []
        slopes = (tape.score * by_people + by_occupancy)[:, None]
        for number, (part, slope) in enumerate(
            zip(tape.features.split(CHUNK_PX), slopes.split(CHUNK_PX), strict=True)
        ):
            values = tape.heads[number] if tape.heads else self.head.forward(part)
            by_features.append(self.head.backward(slope, values, sums))
        self.head.collect(sums, into)
        tape.heads.clear()
        by_wanted = torch.cat(by_features)
        for number, (stream, steps) in enumerate(zip(self.streams, tape.streams, strict=True)):
            own = by_wanted[:, number * STREAM_FEATURES : (number + 1) * STREAM_FEATURES]
            width = steps.regions.width
            whole = own.new_zeros((steps.regions.pixels, STREAM_FEATURES))
            whole.index_copy_(0, tape.pixels, own)
            image = whole.view(-1, width, STREAM_FEATURES).permute(2, 0, 1)[None]
            stream.backward(image, steps, into)

    def let_go(self, tape: Tape) -> None:
        """Of a tape that no gradient will be taken from: nothing is to be done."""

    def zeros(self) -> Gradients:
        """Where `backward` adds to."""
        return {}

    def by_parameter(self, sums: Gradients) -> Gradients:
        """What `backward` has added up, as gradients of the model's parameters."""
        return sums

    def _features(self, piece: Piece) -> tuple[Tensor, Tensor, tuple[StreamTape, StreamTape]]:
        """Of the wanted pixels: features, (pixels, 16), and place in the last stage's region."""
        height, width = piece.channels.shape[-2:]
        rows = torch.div(piece.pixels, width, rounding_mode="floor")
        cols = piece.pixels - rows * width
        regions = regions_for(span_of(rows), span_of(cols), height, width)
        pixels = (rows - regions.rows.up1[0]) * regions.width + cols - regions.cols.up1[0]
        image = piece.channels[None]
        features, tapes = [], []
        parts = image[:, :S1_CHANNELS], image[:, S1_CHANNELS:]
        for stream, part in zip(self.streams, parts, strict=True):
            found, tape = stream.forward(part, regions)
            flat = found[0].permute(1, 2, 0).reshape(-1, STREAM_FEATURES)
            features.append(flat.index_select(0, pixels))
            tapes.append(tape)
        return torch.cat(features, 1), pixels, (tapes[0], tapes[1])
