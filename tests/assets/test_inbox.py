"""The census inbox: a good file takes its place, a bad one is rejected with the reason."""

from __future__ import annotations

import os
import shutil
import time

import dagster as dg
import pytest

from popcorn_assets.automation import census_inbox
from popcorn_assets.resources import WarehouseResource

from .conftest import tiny_spec, write_demo_file


@pytest.fixture
def demo(place, tiny):
    """A place with the small country's census files, nothing materialised."""
    write_demo_file(place, tiny_spec())
    shutil.copytree(tiny.data / "demo" / "census", place.data / "demo" / "census")
    return place


def put(demo, name: str, text: str) -> None:
    inbox = demo.data / "inbox" / "demo"
    inbox.mkdir(parents=True, exist_ok=True)
    path = inbox / name
    path.write_text(text, "utf-8")
    long_ago = time.time() - 60  # written to its end
    os.utime(path, (long_ago, long_ago))


def tick() -> list:
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(
            instance=instance, resources={"warehouse": WarehouseResource()}
        )
        return list(census_inbox(context))


def counts(demo, year: int) -> str:
    return (demo.data / "demo" / "census" / f"counts_coarse_{year}.csv").read_text("utf-8")


def test_an_empty_inbox_starts_nothing(demo):
    (skipped,) = tick()
    assert isinstance(skipped, dg.SkipReason)


def test_a_good_file_takes_its_place_and_asks_for_its_levels_years_once(demo):
    put(demo, "counts_coarse_2021.csv", counts(demo, 2021))
    requests = tick()
    assert [r.partition_key for r in requests] == ["demo|2020", "demo|2021"]
    assert len({r.run_key for r in requests}) == 2
    put(demo, "counts_coarse_2021.csv", counts(demo, 2021))
    again = tick()
    assert [r.partition_key for r in again] == ["demo|2020", "demo|2021"]
    assert not {r.run_key for r in again} & {r.run_key for r in requests}
    placed = demo.data / "census" / "demo" / "demo" / "census" / "counts_coarse_2021.csv"
    assert placed.read_text("utf-8") == counts(demo, 2021)
    assert isinstance(tick()[0], dg.SkipReason)


def test_a_bad_file_moves_to_rejected_with_a_report(demo):
    put(demo, "counts_coarse_2021.csv", counts(demo, 2021).replace("\n", ";x\n").upper())
    assert tick() == []
    rejected = list((demo.data / "inbox" / "demo" / "rejected").iterdir())
    report = next(path for path in rejected if path.suffix in (".txt", ".md"))
    assert "counts_coarse_2021.csv" in report.read_text("utf-8")
    assert not (demo.data / "census" / "demo").exists()
