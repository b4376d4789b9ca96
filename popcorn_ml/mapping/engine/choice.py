"""Which engine runs the networks on this machine."""

from __future__ import annotations

from typing import Literal, get_args

from popcorn_ml.mapping.engine.api import Engine, check_precision, one_of

EngineName = Literal["auto", "openvino", "torch"]


def open_engine(
    name: str = "auto", device: str = "auto", precision: str = "float32", threads: int = 1
) -> Engine:
    """The engine of a name on this machine.

    Args:
        name: openvino, torch, or auto: OpenVINO where it is there and float32 is wanted of a CPU,
            else torch.
        device: see `compute.devices.pick_device`.
        precision: float32, or bfloat16 for speed on a GPU.
        threads: how many will use it at once. Results do not depend on it.

    Raises:
        ConfigError: no such engine, precision or device; or one asked for by name that is not
            here or cannot do it.
    """
    one_of("engine", name, get_args(EngineName))
    check_precision(precision)
    from popcorn_ml.mapping.engine.on_torch import TorchEngine

    return TorchEngine(device, precision)
