"""Memory of a composite is the tile's, not the country's; speed is the benchmark's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.composite import compare, memory

pytestmark = pytest.mark.long(20)


def test_memory_does_not_grow_with_the_country() -> None:
    """A country nine times as large: its composite alone is 94 MB, its scenes 170 MB."""
    small, large = memory(1, dates=2), memory(3, dates=2)
    assert large - small < 45, (small, large)


def test_benchmark_keeps_its_promise() -> None:
    """On a quarter of the size, which is enough to tell five times from less."""
    found = compare(threads=2, size=512)
    assert found["ratio"] >= 5
    assert found["max_abs_difference"] <= 0.5


def test_benchmark_prints_json() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.composite", "--json", "--size", "128"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert {"ratio", "max_abs_difference"} <= set(json.loads(done.stdout))
