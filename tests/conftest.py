"""Fixtures that every test may use: where the reference data lies, when it is there at all."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def _shared(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: parity and real inputs are not distributed with the code")
    return folder


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    """Parity fixtures computed with the published code, and its extractor weights."""
    return _shared("reference")


@pytest.fixture(scope="session")
def real_dir() -> Path:
    """Real inputs: a Sentinel chip, a census, STAC documents."""
    return _shared("real")
