"""Fixtures that every test may use: a small country, and where reference data lies, if at all.

How the suite is arranged, and kept quick: tests/arrangement.py.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

from tests import arrangement
from tests.platforms import Place, copied, enter, make_place, tiny_spec, write_demo_file

settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # workers get folders of the one who started them
        config.option.loadscopereorder = False  # by number of tests: the long ones are few
        arrangement.use_memory(config)


def pytest_report_header(config: pytest.Config) -> list[str]:
    lacking = arrangement.missing()
    return ["skipped on this machine:", *lacking] if lacking else ["nothing is skipped for lack"]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    arrangement.long_files_first(items)


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
def pristine(tmp_path_factory) -> Place:
    """A small simulated country after `popcorn demo`: trained on 2020, mapped 2020 and 2021.

    Run through the whole graph once for all tests that look at it, whichever worker they are on.
    Nobody enters or changes it: it is there to be copied.
    """
    from popcorn_assets.commands.demo import run_demo

    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tiny"
    folder.mkdir(exist_ok=True)
    place = Place(folder / "home")
    with arrangement.turn(folder / "lock"):
        if not (folder / "made").exists():
            shutil.rmtree(place.home, ignore_errors=True)  # a worker that failed here
            make_place(place.home)
            spec = tiny_spec()
            write_demo_file(place, spec, members=2, epochs=2)
            with pytest.MonkeyPatch.context() as monkeypatch:
                enter(place, monkeypatch)
                assert run_demo(spec) == 0
            (folder / "made").touch()
    return place


@pytest.fixture(scope="session")
def tiny(pristine, tmp_path_factory) -> Place:
    """A copy of the small country for tests that only read it, or add to Dagster's records."""
    return copied(pristine, tmp_path_factory.mktemp("tiny") / "home")


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
