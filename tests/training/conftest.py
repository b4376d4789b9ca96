"""One thread an operation, and small places that the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from tests.training.places import Place, block_units, write_place


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On small tensors, beside other work, more threads only wait on each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def uneven_units() -> np.ndarray:
    """13 units of uneven size on 130 x 150 pixels: blocks, a bent large one, a gap without any."""
    units = block_units(130, 150, 3, 4)
    units[20:60, :] = 13
    units[20:120, 70:82] = 13
    units[100:, 130:] = 0
    return units


@pytest.fixture(scope="session")
def place(tmp_path_factory) -> Place:
    """Read only; tests that train give their run a name of its own."""
    return write_place(tmp_path_factory.mktemp("place"), uneven_units())
