"""What an engine does: networks made ready, and run over a piece of canvas."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from popcorn_ml.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from popcorn_ml.grid import Window
    from popcorn_ml.model.popcorn import Sensors
    from popcorn_ml.model.stored import Tensors

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Ran:
    """What ran the networks, as a manifest has it."""

    engine: str
    version: str
    precision: str
    device: str

    def as_dict(self) -> dict[str, str]:
        """Plain values."""
        return vars(self).copy()


class Scores(Protocol):
    """The built-up area extractor, made ready; any thread may use it."""

    def scores(self, channels: np.ndarray, core: Window, sensors: Sensors) -> np.ndarray:
        """Built-up score of the core of a piece of canvas.

        Args:
            channels: float32 (6, rows, columns), normalised (see `inputs.read_channels`): a piece
                of canvas with its halo, cut at the canvas's edges.
            core: the pixels in question, of that piece.
            sensors: whose streams to use.

        Returns:
            float32 (rows, columns) of the core, 0..1.
        """
        ...


class Bag(Protocol):
    """All members of an ensemble, made ready together; any thread may use it."""

    def occupancy(self, channels: np.ndarray, core: Window, wanted: np.ndarray) -> np.ndarray:
        """Each member's occupancy of the pixels wanted.

        Args:
            channels: float32 (6, rows, columns), normalised: a piece of canvas with its halo.
            core: the pixels in question, of that piece.
            wanted: bool, of the core's shape.

        Returns:
            float32 (members, rows, columns) of the core, people per fully built-up pixel, NaN
            where not wanted.
        """
        ...


class Engine(Protocol):
    """Makes networks ready to run."""

    ran: Ran
    on_gpu: bool

    def extractor(self, weights: Tensors) -> Scores:
        """Made ready from the weights of a `BuiltupExtractor`."""
        ...

    def bag(self, members: Sequence[Tensors]) -> Bag:
        """Made ready from the weights of each `OccupancyModel`."""
        ...

    def at_work(self) -> AbstractContextManager[None]:
        """To be held around any use, so that a tile is computed by one thread."""
        ...


def check_precision(name: str) -> None:
    """Refuse a precision that the networks do not run in.

    Raises:
        ConfigError: neither float32 nor bfloat16.
    """
    one_of("precision", name, get_args(Precision))


def one_of(what: str, found: str, possible: Sequence[str]) -> None:
    """Refuse an engine or a precision that there is not."""
    if found not in possible:
        raise ConfigError(
            f"the networks do not run in this {what}",
            where=what,
            expected=" or ".join(possible),
            found=found,
        )
