"""The ways to a unit's sums and their gradient on a CPU, and its loss by one of them.

Compiled where there is a C compiler, else written out with torch's own operations; both equal
autograd (`loss.unit_loss`, which GPUs and bfloat16 use) to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from popcorn_ml.compute.kernels import COMPILERS, Library
from popcorn_ml.errors import ConfigError
from popcorn_ml.model.popcorn import OccupancyModel
from popcorn_ml.training.compiled import Compiled, Layout, Room, compiled
from popcorn_ml.training.loss import LOSS_SCALE, Piece, UnitLoss
from popcorn_ml.training.spec import TrainingSpec
from popcorn_ml.training.written_out import WrittenOut

BYTES_PER_PX = 1_000
"""What a pixel of a piece takes while its gradient is computed, and so the measure of how many
pieces of a unit may be kept between the two passes over them."""

KERNELS = "kernels"
"""In a member's card: what its steps were computed with."""


class Way(Protocol):
    """A model's forward and backward, with its weights as they were when it was made."""

    def forward(self, piece: Piece) -> Any:
        """A tape with `people`, `occupancy` and `bytes`; None of a piece without pixels."""

    def backward(self, tape: Any, by_people: float, by_occupancy: float, into: Any) -> None:
        """Add a piece's gradient, its sums' slopes being given. The tape is used up."""

    def let_go(self, tape: Any) -> None:
        """Of a tape that no gradient will be taken from."""

    def occupancy(self, piece: Piece) -> Tensor:
        """Of each of a piece's pixels, (pixels,)."""

    def zeros(self) -> Any:
        """Where `backward` adds to."""

    def by_parameter(self, sums: Any) -> dict[Tensor, Tensor]:
        """What `backward` has added up."""


def library_for(spec: TrainingSpec, device: torch.device) -> Library | None:
    """The compiled kernels where a training is to use them; None where it is not, or cannot.

    Raises:
        ConfigError: they are asked for by name and cannot be had.
    """
    on_cpu = device.type == "cpu" and spec.precision == "float32"
    if spec.kernels == "torch" or not (on_cpu or spec.kernels == "compiled"):
        return None
    found = compiled() if on_cpu else None
    if found is None and spec.kernels == "compiled":
        raise ConfigError(
            "the compiled kernels cannot be used",
            where="kernels",
            expected=f"a CPU, float32 and a C compiler ({', '.join(COMPILERS)})",
            found=f"{device.type}, {spec.precision}" + (", no compiler" if on_cpu else ""),
            remedy="install a C compiler (Debian: apt install gcc libc6-dev), or set kernels to "
            "auto or torch",
        )
    return found


class Ways:
    """Makes the way of a training, at each step anew."""

    def __init__(self, spec: TrainingSpec, device: torch.device, library: Library | None) -> None:
        self._written_out = device.type == "cpu" and spec.precision == "float32"
        self._library, self._room = library, Room()
        self._layouts: WeakKeyDictionary[OccupancyModel, Layout] = WeakKeyDictionary()

    @property
    def told(self) -> str:
        """What computes the steps, in words."""
        if self._library is not None:
            return f"compiled by {self._library.compiler}"
        return "torch, written out" if self._written_out else "torch"

    def now(self, model: OccupancyModel) -> Way | None:
        """With a model's weights as they are now; None where autograd is the way."""
        if self._library is not None:
            layout = self._layouts.get(model)
            if layout is None:
                layout = self._layouts[model] = Layout(model)
            return Compiled(self._library, layout, self._room)
        return WrittenOut(model) if self._written_out else None


def unit_loss_by(
    way: Way,
    pieces: Sequence[Callable[[], Piece]],
    people: float,
    pixels: int,
    occupancy_weight: float,
    parameters: Sequence[Tensor] | None,
    room_bytes: int,
) -> UnitLoss:
    """As `loss.unit_loss`, by a way.

    Args:
        way: what computes it.
        pieces, people, pixels, occupancy_weight, parameters: as there.
        room_bytes: of several pieces those that fit into this are kept until the unit's sum is
            known; the others are passed through a second time.
    """
    with torch.no_grad():
        sums, kept = [0.0, 0.0], 0
        tapes: dict[int, Any] = {}
        for number, make in enumerate(pieces):
            tape = way.forward(make())
            if tape is None:
                tapes[number] = None
                continue
            sums[0] += float(tape.people)
            sums[1] += float(tape.occupancy)
            kept += tape.bytes
            if parameters is not None and (not tapes or kept <= room_bytes):
                tapes[number] = tape
            else:
                way.let_go(tape)
        predicted, occupancy = sums[0], sums[1] / pixels
        apart = math.log1p(predicted) - math.log1p(people)
        gradient: tuple[Tensor, ...] | None = None
        if parameters is not None:
            by_people = LOSS_SCALE * ((apart > 0) - (apart < 0)) / (1 + predicted)
            by_occupancy = LOSS_SCALE * occupancy_weight / pixels
            into = way.zeros()
            for number, make in enumerate(pieces):
                tape = tapes.pop(number) if number in tapes else way.forward(make())
                if tape is not None:
                    way.backward(tape, by_people, by_occupancy, into)
            found = way.by_parameter(into)
            gradient = tuple(found[p] if p in found else torch.zeros_like(p) for p in parameters)
    return UnitLoss(
        loss=LOSS_SCALE * (abs(apart) + occupancy_weight * occupancy),
        log_l1=abs(apart),
        predicted=predicted,
        occupancy=occupancy,
        gradient=gradient,
    )
