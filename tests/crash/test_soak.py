"""A few of the kills that `make soak` does many of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long(60)

SOAK = Path(__file__).with_name("soak.py")


@pytest.mark.timeout(1200)
def test_three_kills_and_two_runs_at_once_leave_nothing_wrong():
    done = subprocess.run(
        [sys.executable, str(SOAK), "--kills", "3", "--twice", "1", "--seed", "3"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "3 kills in" in done.stdout
    assert "two at once" in done.stdout
