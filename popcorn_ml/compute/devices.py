"""Devices by name, and GPUs taken one by one.

A process that works on a GPU holds that GPU's lock, so that no two ever share one, however many
steps are let through at once. What runs on them is no business of this module.
"""

from __future__ import annotations

import ctypes
import math
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from popcorn_ml.compute.locks import holder, try_lock
from popcorn_ml.errors import ConfigError

if TYPE_CHECKING:
    import torch

VISIBLE = "CUDA_VISIBLE_DEVICES"
KINDS = "auto, cpu, cuda or cuda:N"
_NAME = re.compile(r"auto|cpu|cuda(:\d+)?")
_UUID = re.compile(r"\(UUID: ((?:GPU|MIG)-[^)]+)\)")
_KIND = re.compile(r"(GPU|MIG)-")
_POLL_SECONDS = 1.0


def check_device(name: str) -> None:
    """Refuse what names no device.

    Raises:
        ConfigError: see there.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            "there is no such kind of device", where="device", expected=KINDS, found=name
        )


def require_device(name: str) -> None:
    """Refuse a GPU that is asked for by name and is not here; loads torch for that only.

    Raises:
        ConfigError: no such device on this machine.
    """
    check_device(name)
    if not name.startswith("cuda"):
        return
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(name.partition(":")[2] or 0) >= count:
        raise ConfigError(
            "there is no such GPU on this machine",
            where=f"device, on {socket.gethostname()}",
            expected=f"one of {count} GPUs, or cpu",
            found=name,
            remedy="set device to auto or cpu, or install the driver and a CUDA build of torch",
        )


def pick_device(name: str) -> torch.device:
    """The device of a name: auto (CUDA where there is one), cpu, cuda or cuda:N.

    Raises:
        ConfigError: no such device here.
    """
    import torch

    return torch.device(device_name(name))


def device_name(name: str) -> str:
    """cpu, cuda or cuda:N for a name; torch is loaded only where there may be a GPU.

    Raises:
        ConfigError: no such device here.
    """
    require_device(name)
    if name != "auto":
        return name
    if not has_driver():
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def has_driver() -> bool:
    """Whether the driver of a GPU that torch can use is installed: NVIDIA's, or AMD's."""
    if Path("/dev/kfd").exists():
        return True
    for library in ("libcuda.so.1", "nvcuda.dll"):
        try:
            ctypes.CDLL(library)
        except OSError:
            continue
        return True
    return False


def cpus() -> int:
    """Cores that this process may use: those it is bound to, and its container's share of them."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        share = math.ceil(int(quota) / int(period))
    except (OSError, ValueError):  # no limit, or no such file
        return count or 1
    return max(1, min(count or 1, share))


def gpus() -> list[str]:
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES takes them.

    Told by the driver, without loading torch: what the variable names, else all there are. A GPU
    has one name, its UUID where the driver tells it, however the variable calls it: locks between
    processes go by it. Numbers are those of the driver's own list.
    """
    found = _driver_gpus()
    named = os.environ.get(VISIBLE)
    if named is None or not found:
        return [name for whole, parts in found for name in parts or [whole]]
    result: list[str] = []
    for name in named.split(","):
        gpu = _gpu_named(name.strip(), found)
        if gpu is None:
            break  # CUDA, too, hides whatever follows a name that means nothing
        if gpu not in result:
            result.append(gpu)
    return result


def _gpu_named(name: str, found: list[tuple[str, list[str]]]) -> str | None:
    """The GPU that a number, a UUID or the unique beginning of one means; None: there is none."""
    if (name.isdecimal() or _KIND.match(name)) and all(whole.isdecimal() for whole, _ in found):
        return name  # a driver that tells no UUIDs
    if name.isdecimal():
        if int(name) >= len(found):
            return None
        whole, parts = found[int(name)]
        return parts[0] if parts else whole  # of a divided GPU a process sees its first part
    if not _KIND.match(name):
        return None
    hits = [(whole, parts) for whole, parts in found if whole.startswith(name)]
    if len(hits) == 1:
        whole, parts = hits[0]
        return parts[0] if parts else whole
    of_parts = [part for _, parts in found for part in parts if part.startswith(name)]
    return of_parts[0] if len(of_parts) == 1 else None


def _driver_gpus() -> list[tuple[str, list[str]]]:
    """Every GPU, in the driver's order, each with the parts it is divided into, if any."""
    tool = shutil.which("nvidia-smi")
    if tool is not None:
        try:
            listed = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            listed = None
        if listed is not None and listed.returncode == 0:
            return _uuids(listed.stdout)
    numbers = [path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*")]
    return [(number, []) for number in sorted(numbers, key=int)]


def _uuids(listing: str) -> list[tuple[str, list[str]]]:
    """UUIDs of whole GPUs, each with those of its parts."""
    found: list[tuple[str, list[str]]] = []
    for name in _UUID.findall(listing):
        if name.startswith("GPU"):
            found.append((name, []))
        elif found:
            found[-1][1].append(name)
    return found


@dataclass(frozen=True)
class Claim:
    """A GPU that is ours for now.

    Attributes:
        name: what CUDA_VISIBLE_DEVICES has to be for a process that shall see only this one.
        index: its number among those that this process may use.
        lock: file descriptor; a process that inherits it keeps the GPU until it ends.
    """

    name: str
    index: int
    lock: int


@contextmanager
def claimed(
    device: str,
    locks: Path,
    *,
    note: str = "",
    waiting: Callable[[str], None] | None = None,
    present: Callable[[], list[str]] = gpus,
) -> Iterator[Claim | None]:
    """A GPU of our own for the block: a free one for auto and cuda, the named one for cuda:N.

    Args:
        device: auto, cpu, cuda or cuda:N.
        locks: folder of the locks, shared by all processes of the store.
        note: who takes it, for those who wait.
        waiting: called once with a sentence if all are taken.
        present: the machine's GPUs.

    Yields:
        The claim, or None where no GPU is used: for cpu, and for auto on a machine without.

    Raises:
        ConfigError: no such device, or no GPU where one is asked for by name.
    """
    check_device(device)
    names = [] if device == "cpu" else present()
    number = int(device.partition(":")[2] or 0)
    if device.startswith("cuda") and number >= len(names):
        raise ConfigError(
            "there is no such GPU on this machine",
            where=f"device, on {socket.gethostname()}",
            expected=f"one of {len(names)} GPUs, or cpu",
            found=device,
            remedy="set device to auto or cpu, or run where the GPU is",
        )
    if not names:
        yield None
        return
    wanted = [number] if ":" in device else list(range(len(names)))
    claim = _claim(names, wanted, locks, note, waiting)
    try:
        yield claim
    finally:
        os.close(claim.lock)


def _claim(
    names: list[str],
    wanted: list[int],
    locks: Path,
    note: str,
    waiting: Callable[[str], None] | None,
) -> Claim:
    told = False
    while True:
        for index in wanted:
            path = locks / f"{socket.gethostname()}-{names[index].replace('/', '_')}.lock"
            lock = try_lock(path, note)
            if lock is not None:
                return Claim(names[index], index, lock)
        if not told and waiting is not None:
            waiting(f"all {len(wanted)} GPUs are taken, the last by {holder(path) or 'somebody'}")
        told = True
        time.sleep(_POLL_SECONDS)


@contextmanager
def one_thread_each(device: torch.device) -> Iterator[None]:
    """One thread an operation on the CPU, for the block: pieces of work run side by side instead,
    and sums stay the same however many do."""
    import torch

    before = torch.get_num_threads()
    # Pieces come in many shapes, and oneDNN forgets all but 1024 kernels; read at its first use.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16384")
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
