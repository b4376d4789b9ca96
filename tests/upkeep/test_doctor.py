"""popcorn doctor: what is wrong is named with what to type, and no secret is shown."""

from __future__ import annotations

import subprocess
import sys
import time

import dagster as dg
import pytest
from click.testing import CliRunner
from dagster._daemon.types import DaemonHeartbeat

from popcorn_assets.commands.doctor import doctor
from popcorn_assets.runs.instance import POSTGRES_VARIABLE
from popcorn_assets.upkeep import doctor as machine
from popcorn_ml.warehouse.warehouse import Warehouse

HOLD = """
import duckdb, sys, time
connection = duckdb.connect(sys.argv[1])
print("held", flush=True)
time.sleep(60)
"""
LISTEN = """
import socket, sys, time
server = socket.create_server(("0.0.0.0", 0))
print(server.getsockname()[1], flush=True)
time.sleep(60)
"""


@pytest.fixture
def ask(place, monkeypatch):
    """Run the command in an empty platform; its exit code and lines."""
    monkeypatch.setattr(machine, "WAREHOUSE_WAIT_S", 0.3)
    monkeypatch.setattr(machine, "MIN_FREE_GB", 0)
    monkeypatch.setattr(machine, "MIN_MEMORY_GB", 0)
    monkeypatch.setenv("POPCORN_WEBSERVER", "http://me:hidden@127.0.0.1:1")

    def ask(*arguments: str):
        result = CliRunner().invoke(doctor, list(arguments), catch_exceptions=False)
        return result.exit_code, result.output

    return ask


def helper(code: str, *arguments: str) -> tuple[subprocess.Popen, str]:
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True
    )
    return process, process.stdout.readline().strip()


def test_an_empty_platform_is_in_order_and_no_secret_is_shown(ask, place, monkeypatch):
    key = place.home / "key.json"
    key.write_text("{}")
    monkeypatch.setenv("POPCORN_EARTHENGINE_KEY_FILE", str(key))
    monkeypatch.setenv("POPCORN_PLANETARY_COMPUTER_KEY", "hidden")
    monkeypatch.setenv("POPCORN_WEBHOOK", "https://example.org/hidden")
    code, said = ask()
    assert code == 0, said
    for expected in ("dagster.yaml", "SQLite, 0 runs", "device auto gives", "COG, GPKG",
                     "daemon: has not run yet", "none answers at http://127.0.0.1:1",
                     "PLANETARY_COMPUTER_KEY, POPCORN_WEBHOOK set", "countries: "):  # fmt: skip
        assert expected in said
    assert "hidden" not in said


def test_faults_are_named_with_what_to_type(ask, place, monkeypatch):
    (place.home / "countries" / "xyz.yaml").write_text("name: X\n")
    monkeypatch.setenv("POPCORN_EARTHENGINE_KEY_FILE", str(place.home / "none.json"))
    monkeypatch.setenv("POPCORN_DEVICE", "cuda:99")
    with dg.DagsterInstance.get() as instance:
        instance.event_log_storage.set_concurrency_slots("gpu", 2)
        instance.event_log_storage.claim_concurrency_slot("gpu", "gone-run", "train_member")
        instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - 7200, "SENSOR", "x", []))
    Warehouse(place.data / "warehouse.duckdb").migrate()
    holder, _ = helper(HOLD, str(place.data / "warehouse.duckdb"))
    server, port = helper(LISTEN, "dagster-webserver")
    try:
        code, said = ask()
    finally:
        for process in (holder, server):
            process.kill()
            process.wait()
    assert code == 1
    for expected in ("country xyz", "POPCORN_EARTHENGINE_KEY_FILE names a file that cannot",
                     "compute: there is no such GPU", f"held by process {holder.pid} (python",
                     "pool gpu: 2 slots, train_member of run gone-run (unknown)",
                     "a slot is kept by train_member of run gone-run",
                     "daemon: last heard of 2 hours ago", "popcorn ui, or systemctl start",
                     f"takes anybody in, at 0.0.0.0:{port}"):  # fmt: skip
        assert expected in said
    for problem, what in zip(said.splitlines()[:-1], said.splitlines()[1:], strict=True):
        if problem.startswith("MISS"):
            assert what.startswith("  "), f"nothing to type for: {problem}"
    ask("--repair")
    assert "a slot is kept" not in ask()[1]


def test_all_missing_census_files_are_named_at_once_where_they_belong(ask, place):
    (place.home / "countries" / "xyz.yaml").write_text(
        """
name: X
grid: {crs: "EPSG:32736", bounds: [500000, 9798800, 501600, 9800000]}
imagery: {source: files, files: {root: none, region: none}}
census:
  levels:
    u:
      role: train
      boundaries: {file: adm.gpkg, columns: {id: code}}
      counts:
        - {file: pop.xlsx, year: 2020, columns: {id: code, people: people}}
        - {file: "old_{year}.csv", columns: {id: code, people: people}}
"""
    )
    _, said = ask("xyz")
    (line,) = [line for line in said.splitlines() if "census files are missing" in line]
    for name in ("adm.gpkg", "pop.xlsx", "old_{year}.csv"):
        assert str(place.data / "census" / "xyz" / name) in line


def test_a_database_out_of_reach_is_one_finding_among_the_others(ask, monkeypatch):
    monkeypatch.setenv(POSTGRES_VARIABLE, "postgresql://me:hidden@host")
    code, said = ask()
    assert code == 1
    assert "MISS Dagster's storage, Postgres: the address of Postgres cannot be used" in said
    assert "countries: " in said
    assert "hidden" not in said
