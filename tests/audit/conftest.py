"""A copy of the small country that a test may damage."""

from __future__ import annotations

import shutil

import pytest

from tests.platforms import Place, enter


@pytest.fixture(scope="module")
def copied(tiny, tmp_path_factory) -> Place:
    """The small country elsewhere, with Dagster's records; a module's own."""
    home = tmp_path_factory.mktemp("copy") / "home"
    shutil.copytree(tiny.home, home)
    return Place(home)


@pytest.fixture
def in_copy(copied, monkeypatch) -> Place:
    """The copy, entered: environment and working folder are its own."""
    enter(copied, monkeypatch)
    return copied
