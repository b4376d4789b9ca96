"""Which engine runs the networks on this machine."""

from __future__ import annotations

import importlib.util
import socket
from typing import Literal, get_args

from popcorn_ml.errors import ConfigError
from popcorn_ml.mapping.engine.api import Engine, check_precision, one_of

EngineName = Literal["auto", "compiled", "openvino", "torch"]

PACKAGE = "openvino==2026.4.1"
"""What to install; as in pyproject.toml."""


def open_engine(
    name: str = "auto",
    device: str = "auto",
    precision: str = "float32",
    threads: int = 1,
    regular: int = 0,
) -> Engine:
    """The engine of a name on this machine.

    Args:
        name: compiled, openvino, torch, or auto: of a CPU in float32 the first of these that is to
            be had, else torch.
        device: see `compute.devices.pick_device`.
        precision: float32, or bfloat16 for speed on a GPU.
        threads: how many will use it at once; 0 is one a core. Results do not depend on it.
        regular: side of the square cores that most windows have, in pixels, if they are many; 0 if
            not. For OpenVINO, see `tiles.regular_core`.

    Raises:
        ConfigError: no such engine, precision or device; or one asked for by name that is not
            here or cannot do it.
    """
    one_of("engine", name, get_args(EngineName))
    check_precision(precision)
    require_engine(name, device, precision)
    if name == "auto":
        name = _fastest(device, precision)
    if name == "compiled":
        from popcorn_ml.mapping.engine.on_compiled import CompiledEngine

        return CompiledEngine()
    if name == "openvino":
        from popcorn_ml.compute.devices import cpus
        from popcorn_ml.mapping.engine.on_openvino import OpenVinoEngine

        return OpenVinoEngine(threads or cpus(), regular)
    from popcorn_ml.mapping.engine.on_torch import TorchEngine

    return TorchEngine(device, precision)


def require_engine(name: str, device: str = "auto", precision: str = "float32") -> None:
    """Refuse an engine that is asked for by name and is not here or cannot do it.

    Raises:
        ConfigError: see there.
    """
    if name not in ("compiled", "openvino"):
        return
    if name == "openvino" and not is_installed():
        raise ConfigError(
            "the engine openvino is not installed",
            where=f"engine, on {socket.gethostname()}",
            expected="the package openvino",
            found="none",
            remedy=f"pip install {PACKAGE}, or set the engine to auto, compiled or torch",
        )
    if device.startswith("cuda") or precision != "float32":
        raise ConfigError(
            f"the engine {name} computes in float32 on the CPU",
            where="engine",
            expected="device auto or cpu, precision float32",
            found=f"device {device}, precision {precision}",
            remedy="set the engine to auto or torch, or the device and precision to these",
        )
    if name == "openvino":
        from popcorn_ml.mapping.engine.on_openvino import require_float32

        require_float32()
    else:
        from popcorn_ml.mapping.engine.on_compiled import require_compiled

        require_compiled()


def second_best(name: str, device: str, precision: str) -> str | None:
    """Why `auto` takes a slower engine on a CPU than there could be; None where it does not."""
    if name != "auto" or not _on_cpu(device, precision) or _is_compiled():
        return None
    return (
        f"networks run in {_fastest(device, precision)}, as nothing compiles them here; with a C "
        "compiler (Debian: apt install gcc libc6-dev) maps are made faster"
    )


def _fastest(device: str, precision: str) -> EngineName:
    """What `auto` is: see `open_engine`."""
    if not _on_cpu(device, precision):
        return "torch"
    if _is_compiled():
        return "compiled"
    return "openvino" if _is_openvino() else "torch"


def _on_cpu(device: str, precision: str) -> bool:
    from popcorn_ml.compute.devices import device_name

    return device_name(device) == "cpu" and precision == "float32"


def _is_compiled() -> bool:
    from popcorn_ml.mapping.engine.on_compiled import compiled

    return compiled() is not None


def _is_openvino() -> bool:
    """Whether OpenVINO is there and keeps to float32."""
    if not is_installed():
        return False
    from popcorn_ml.mapping.engine.on_openvino import require_float32

    try:
        require_float32()
    except ConfigError:
        return False
    return True


def is_installed() -> bool:
    """Whether OpenVINO can be imported here."""
    return importlib.util.find_spec("openvino") is not None
