"""How the suite is arranged so that it is quick; no test is left out or cut short for it.

- Three workers for two cores (some always wait for a process or a browser) take whole files, so
  that what a module's fixtures make is made once. The long ones, marked
  `@pytest.mark.long(seconds)`, begin first: no worker waits long for another's end.
- What a test writes lies in memory where there is room. Store and Dagster's tables sync every file
  to disk, as they must; on a disk two thirds of the suite's time were spent waiting for that.
- The small country after `popcorn demo` is made once, by the worker that needs it first (`tiny`,
  tests/conftest.py); tests that change it copy it.
- A worker's matrices are multiplied by one thread, and its processes' too: two workers on two cores
  have no third.
- Nothing waits for a clock: tests wait for what they look at, and servers end when told to.
- What this machine lacks, and so which tests it will skip, is said at the start.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of torch: more per worker only wait on each other

MEMORY = Path("/dev/shm")
NEEDED = 4e9
"""Bytes of memory, free and in the folder kept there, that the tests' files are put in."""


# Files in memory ----------------------------------------------------------------------------------


def use_memory(config: pytest.Config) -> None:
    """Put temporary folders in memory, unless the caller said where or it is scarce."""
    chosen = config.option.basetemp or os.environ.get("PYTEST_DEBUG_TEMPROOT")
    if chosen or not os.access(MEMORY, os.W_OK):
        return
    if min(shutil.disk_usage(MEMORY).free, psutil.virtual_memory().available / 2) > NEEDED:
        os.environ["PYTEST_DEBUG_TEMPROOT"] = str(MEMORY)


@contextmanager
def turn(lock: Path) -> Iterator[None]:
    """One worker at a time, for what they share."""
    import fcntl

    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# Order --------------------------------------------------------------------------------------------


def long_files_first(items: list[pytest.Item]) -> None:
    """Files by the seconds that their tests' marks name, the longest first; else as they were."""
    seconds: dict[Path, float] = defaultdict(float)
    for item in items:
        mark = item.get_closest_marker("long")
        seconds[item.path] = max(seconds[item.path], mark.args[0] if mark else 0)
    items.sort(key=lambda item: -seconds[item.path])


# What is missing ----------------------------------------------------------------------------------


NO_BROWSER = "no chromium on this machine: apt-get install chromium"


def chromium() -> str | None:
    """The browser of the tests of the interface."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


def _postgres() -> str | None:
    from tests.deploy.postgres import why_not

    return why_not()


def _browser() -> str | None:
    return None if chromium() else NO_BROWSER


def _mounts() -> str | None:
    command = ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    if shutil.which("unshare") is None or subprocess.run(command, capture_output=True).returncode:
        return "nothing can be mounted here: run them as root, outside a closed container"
    return None


def _cuda() -> str | None:
    """Whether there is a GPU, without importing torch for it."""
    return None if shutil.which("nvidia-smi") else "no CUDA device on this machine"


def _program(name: str, *version: str) -> Callable[[], str | None]:
    def missing() -> str | None:
        if shutil.which(name) is None:
            return f"no {name} on this machine"
        if version and subprocess.run([name, *version], capture_output=True).returncode:
            return f"`{name} {' '.join(version)}` does not work here"
        return None

    return missing


def _shared(name: str) -> Callable[[], str | None]:
    from tests.conftest import SHARED

    return lambda: None if (SHARED / name).is_dir() else f"{SHARED / name} is not distributed"


def _module(name: str, extra: str) -> Callable[[], str | None]:
    missing = f"pip install 'popcorn-assets[{extra}]'"
    return lambda: None if importlib.util.find_spec(name) else missing


def missing() -> list[str]:
    """Lines: which tests this machine will skip, and why."""
    parts: dict[str, Callable[[], str | None]] = {
        "the interface in a browser": _browser,
        "Dagster's records in Postgres": _postgres,
        "a cluster": _module("distributed", "cluster"),
        "a GPU against the CPU": _cuda,
        "full and read-only disks": _mounts,
        "other users' files": lambda: None if os.geteuid() == 0 else "only root can make them",
        "what root is not kept from": lambda: (
            "root may write anywhere" if os.geteuid() == 0 else None
        ),
        "the compose file": _program("docker", "compose", "version"),
        "the Kubernetes files, by kubectl": _program("kubectl", "kustomize", "--help"),
        "the units, by systemd": _program("systemd-analyze"),
        "parity with the published model": _shared("reference"),
        "real Sentinel, census and STAC files": _shared("real"),
    }
    found = {what: reason() for what, reason in parts.items()}
    return [f"  {what}: {reason}" for what, reason in found.items() if reason]
