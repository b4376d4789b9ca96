"""Many processes at one warehouse: nothing lost, nothing half-written, readers never fail."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from popcorn_ml.errors import StoreError
from popcorn_ml.warehouse.turns import turn
from popcorn_ml.warehouse.warehouse import Warehouse

from .rows import publish

pytestmark = pytest.mark.long(40)

WRITERS, PARTITIONS, READERS, ROWS = 8, 50, 4, 12


def _rows(stamp: int) -> list[dict]:
    """A partition's rows: all bear one stamp, so that a mixture would show."""
    return [
        {
            "level": "coarse",
            "id": f"{unit:04d}",
            "people": float(stamp),
            "kind": "census",
            "method": "census",
            "base_year": 2020,
            "source": f"writer {stamp}",
            "source_sha256": "",
        }
        for unit in range(ROWS)
    ]


def _write(path: str, writer: int, barrier, failures) -> None:
    try:
        warehouse = Warehouse(path)
        barrier.wait(timeout=60)
        for k in range(PARTITIONS):
            publish(warehouse, "counts", f"own{writer}", 1900 + k, _rows(writer))
            if k % 10 == 0:  # and all of them at one partition, over and over
                publish(warehouse, "counts", "shared", 2000, _rows(writer))
    except BaseException as error:
        failures.put(f"writer {writer}: {error!r}")


def _read(path: str, reader: int, barrier, stop, failures, reads) -> None:
    try:
        warehouse = Warehouse(path)
        barrier.wait(timeout=60)
        done = 0
        while not stop.is_set():
            groups = warehouse.query(
                "SELECT country, year, count(*), count(DISTINCT people) FROM counts GROUP BY ALL"
            )
            torn = [g for g in groups if g[2] != ROWS or g[3] != 1]
            if torn:
                failures.put(f"reader {reader} saw half a partition: {torn}")
            done += 1
            time.sleep(0.02)
        reads.put(done)
    except BaseException as error:
        failures.put(f"reader {reader}: {error!r}")


def test_eight_writers_and_four_readers(tmp_path: Path) -> None:
    path = str(tmp_path / "w.duckdb")
    context = multiprocessing.get_context("forkserver")  # which imports once for all twelve
    context.set_forkserver_preload([__name__, "duckdb", "pandas", "pyarrow"])
    barrier, stop = context.Barrier(WRITERS + READERS + 1), context.Event()
    failures, reads = context.Queue(), context.Queue()
    writers = [
        context.Process(target=_write, args=(path, w, barrier, failures)) for w in range(WRITERS)
    ]
    readers = [
        context.Process(target=_read, args=(path, r, barrier, stop, failures, reads))
        for r in range(READERS)
    ]
    for process in (*writers, *readers):
        process.start()
    barrier.wait(timeout=60)
    begun = time.monotonic()
    for process in writers:
        process.join(timeout=120)
    seconds = time.monotonic() - begun
    stop.set()
    done = [reads.get(timeout=60) for _ in readers] if failures.empty() else []
    for process in readers:
        process.join(timeout=60)

    assert failures.empty(), failures.get()
    assert all(process.exitcode == 0 for process in (*writers, *readers))
    assert min(done) >= 3, f"a reader was starved: {done}"
    warehouse = Warehouse(path)
    groups = warehouse.query(
        "SELECT country, year, count(*), any_value(people) FROM counts GROUP BY ALL"
    )
    own = {(c, y): (n, p) for c, y, n, p in groups if c != "shared"}
    assert own == {
        (f"own{w}", 1900 + k): (ROWS, float(w)) for w in range(WRITERS) for k in range(PARTITIONS)
    }
    assert [n for c, _, n, _ in groups if c == "shared"] == [ROWS]
    current = warehouse.query("SELECT country, year, row_count FROM rows_of_versions")
    assert sorted(current) == sorted((c, y, ROWS) for c, y, _, _ in groups), "one version each"
    print(f"{WRITERS * PARTITIONS} partitions in {seconds:.1f} s, reads {done}")


def test_a_killed_writer_leaves_the_partition_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    warehouse = Warehouse(path)
    publish(warehouse, "counts", "rwa", 2020, _rows(1))
    script = f"""
import os, signal
from popcorn_ml.warehouse.warehouse import Warehouse
w = Warehouse({str(path)!r})
with w._writing() as connection:
    connection.execute("DELETE FROM counts")
    connection.execute("CHECKPOINT") if False else None
    print("inside", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert "inside" in done.stdout
    assert warehouse.query("SELECT count(*), min(people) FROM counts") == [(ROWS, 1.0)]
    publish(warehouse, "counts", "rwa", 2020, _rows(2))
    assert warehouse.query("SELECT count(*), min(people) FROM counts") == [(ROWS, 2.0)]


def test_a_database_held_by_another_program_is_waited_for_and_then_reported(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    Warehouse(path).migrate()
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import duckdb, sys; c = duckdb.connect({str(path)!r}); print('held', flush=True); "
            "sys.stdin.readline()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match="another program holds the warehouse"):
            Warehouse(path, timeout_s=0.5).query("SELECT 1")
        # Let go of while we wait: we get in.
        import threading

        threading.Timer(0.5, holder.stdin.close).start()
        assert Warehouse(path, timeout_s=20).query("SELECT 1") == [(1,)]
    finally:
        holder.kill()
        holder.wait()


def test_no_turn_in_time_is_reported(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path / "w.duckdb")
    warehouse.migrate()
    with (
        turn(warehouse.path, 60.0, exclusive=True),
        pytest.raises(StoreError, match="no turn at the warehouse in time"),
    ):
        Warehouse(warehouse.path, timeout_s=0.2).query("SELECT 1")
    assert os.path.exists(warehouse.path)
