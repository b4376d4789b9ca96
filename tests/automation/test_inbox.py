"""The census inbox: a good file takes its place, a bad one is rejected with the reason."""

from __future__ import annotations

import os
import shutil
import time

import dagster as dg
import pytest

from popcorn_assets.automation import census_inbox
from popcorn_assets.automation import inbox as module
from popcorn_assets.resources import StoreResource
from popcorn_ml.warehouse.warehouse import Warehouse
from tests.platforms import tiny_spec, write_demo_file


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


class Sensor:
    """The sensor with its cursor, which only a tick that ends moves on."""

    cursor: str | None = None

    def tick(self, **store: str) -> list:
        with dg.DagsterInstance.ephemeral() as instance:
            context = dg.build_sensor_context(
                instance=instance,
                cursor=self.cursor,
                resources={"store": StoreResource(**store)},
            )
            found = list(census_inbox(context))
            self.cursor = context.cursor
        return found


@pytest.fixture
def tick():
    return Sensor().tick


def counts(demo, year: int) -> str:
    return (demo.data / "demo" / "census" / f"counts_coarse_{year}.csv").read_text("utf-8")


def test_an_empty_inbox_starts_nothing(demo, tick):
    (skipped,) = tick()
    assert isinstance(skipped, dg.SkipReason)


def test_a_good_file_takes_its_place_and_asks_for_its_levels_years_once(demo, tick):
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


def test_a_bad_file_moves_to_rejected_with_a_report(demo, tick):
    put(demo, "counts_coarse_2021.csv", counts(demo, 2021).replace("\n", ";x\n").upper())
    (skipped,) = tick()
    assert "demo/counts_coarse_2021.csv was rejected: see " in skipped.skip_message
    rejected = list((demo.data / "inbox" / "demo" / "rejected").iterdir())
    report = next(path for path in rejected if path.suffix in (".txt", ".md"))
    assert "counts_coarse_2021.csv" in report.read_text("utf-8")
    assert not (demo.data / "census" / "demo").exists()


def test_what_waits_is_told_with_the_reason(demo, tick):
    put(demo, "counts_coarse_2021.csv.part", "half")
    inbox = demo.data / "inbox" / "demo"
    (inbox / "counts_coarse_2020.csv").write_text("half")
    (skipped,) = tick()
    assert "demo/counts_coarse_2020.csv waits: changed" in skipped.skip_message
    assert "demo/counts_coarse_2021.csv.part waits: named like" in skipped.skip_message


def test_a_tick_beside_one_that_was_given_up_leaves_its_file_alone(demo, tick, monkeypatch):
    from popcorn_ml.census import inbox

    put(demo, "counts_coarse_2021.csv", counts(demo, 2021))
    true, beside = inbox.examine, []

    def meanwhile(*args, **kwargs):
        beside.extend(Sensor().tick())
        return true(*args, **kwargs)

    monkeypatch.setattr(inbox, "examine", meanwhile)
    assert len(tick()) == 2
    ((skipped,),) = [beside]
    assert "demo: a file is still being taken in, 'counts_coarse_2021.csv'" in skipped.skip_message
    assert Warehouse(demo.data / "warehouse.duckdb").query("SELECT count(*) FROM received") == [
        (1,)
    ]


def test_what_a_tick_took_in_and_never_asked_for_is_asked_for_by_the_next(demo, tick, monkeypatch):
    put(demo, "counts_coarse_2020.csv", counts(demo, 2020))
    assert tick()
    put(demo, "counts_coarse_2021.csv", counts(demo, 2021))
    with monkeypatch.context() as dying:

        def busy(*_):
            raise RuntimeError("database is locked")

        dying.setattr(module, "_made_years", busy)
        with pytest.raises(RuntimeError):
            tick()
    assert not (demo.data / "inbox" / "demo" / "counts_coarse_2021.csv").exists()
    requests = tick()
    assert [r.partition_key for r in requests] == ["demo|2020", "demo|2021"]
    assert {r.tags["popcorn/inbox"] for r in requests} == {"counts_coarse_2021.csv"}
    assert isinstance(tick()[0], dg.SkipReason)


def test_a_death_before_the_cursor_is_kept_asks_under_the_same_keys(demo, tick):
    put(demo, "counts_coarse_2021.csv", counts(demo, 2021))
    first, again = tick(), Sensor().tick()
    assert [r.run_key for r in first] == [r.run_key for r in again]


def test_receipts_are_where_the_store_records_publications(demo, tick, tmp_path):
    path = tmp_path / "elsewhere" / "other.duckdb"
    put(demo, "counts_coarse_2021.csv", counts(demo, 2021))
    assert tick(warehouse=str(path))
    assert Warehouse(path).query("SELECT count(*) FROM received") == [(1,)]
    assert not (demo.data / "warehouse.duckdb").exists()
    put(demo, "counts_coarse_2020.csv", counts(demo, 2020))
    assert len(tick()) == 2, "the first receipt of another warehouse is no receipt asked for"
