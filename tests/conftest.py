"""Fixtures that every test may use: a small country, and where reference data lies, if at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from tests.platforms import Place, enter, make_place, tiny_spec, write_demo_file

settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")

ON_THE_SMALL_COUNTRY = {
    "test_graph": 1,
    "test_inbox": 1,
    "test_promotion": 1,
    "test_ui": 1,
    "test_verdicts": 1,
    "test_agreement": 2,
    "test_audit": 2,
    "test_checks": 2,
    "test_members": 2,
    "test_refresh": 2,
    "test_reproduce": 2,
    "test_superseded": 2,
    "test_tampering": 2,
}
"""Test files that need a run of the small country, and which of two workers makes it for them."""


def pytest_xdist_make_scheduler(config, log):
    """Tests of a file go to one worker; files that share a small country go to the same one."""
    from xdist.scheduler import LoadFileScheduling

    class BySharedFixture(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            shared = ON_THE_SMALL_COUNTRY.get(Path(file).stem)
            return f"small country {shared}" if shared else file

    return BySharedFixture(config, log)


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


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A small simulated country after `popcorn demo`: trained on 2020, mapped 2020 and 2021.

    Run through the whole graph once for all tests that look at it.
    """
    from popcorn_assets.commands.demo import run_demo

    place = make_place(tmp_path_factory.mktemp("tiny") / "home")
    spec = tiny_spec()
    write_demo_file(place, spec, members=2, epochs=2)
    with pytest.MonkeyPatch.context() as monkeypatch:
        enter(place, monkeypatch)
        assert run_demo(spec) == 0
    return place


@pytest.fixture
def in_tiny(tiny, monkeypatch):
    """The small country, entered: environment and working folder are its own."""
    enter(tiny, monkeypatch)
    return tiny


@pytest.fixture
def place(tmp_path, monkeypatch) -> Place:
    """An empty platform of one test's own."""
    made = make_place(tmp_path / "home")
    enter(made, monkeypatch)
    return made
