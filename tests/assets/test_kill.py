"""A killed run leaves nothing that passes for a result, and a later one finishes its work."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from popcorn_assets.store import LATEST, Address, Store, digests, version_of

from .conftest import tiny_spec

pytestmark = [pytest.mark.timeout(1200)]

MOMENTS = ["s2_summer ...", "epoch 1 of", "population_map ..."]
"""Lines of the demo's output at which its process is killed, one run each."""


def run_demo_until(place, line: str | None) -> int:
    """`popcorn demo` on the small country in a process of its own, killed when it prints `line`."""
    code = (
        "from popcorn_assets.demo import run_demo\n"
        "from popcorn_ml.simulate.spec import CountrySpec\n"
        f"raise SystemExit(run_demo(CountrySpec(**{tiny_spec().as_dict()!r})))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", code],
        cwd=place.home,
        env={**os.environ, **place.environment()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    for printed in process.stdout:
        if line is not None and line in printed:
            process.send_signal(signal.SIGKILL)
            break
    process.stdout.close()
    return process.wait(60)


def published(root: Path) -> dict[str, str]:
    """Place in the store -> current version, each of them whole."""
    found = {}
    for latest in sorted(root.rglob(LATEST)):
        folder = latest.parent / latest.read_text().strip()
        version = version_of(digests(folder))
        assert version == folder.name, f"{folder} is not what its name says"
        found[latest.parent.relative_to(root).as_posix()] = version
    return found


def test_a_demo_killed_three_times_ends_in_the_very_same_versions(place, tiny):
    shutil.copyfile(tiny.home / "countries" / "demo.yaml", place.home / "countries" / "demo.yaml")
    shutil.copytree(tiny.data / "demo", place.data / "demo", copy_function=os.link)
    for moment in MOMENTS:
        assert run_demo_until(place, moment) == -signal.SIGKILL
        published(place.data)
    assert Store(place.data).find(Address("population_map", "demo", 2020)) is None
    assert run_demo_until(place, None) == 0
    assert published(place.data) == published(tiny.data)
    assert not list(place.data.rglob(".draft-*"))
