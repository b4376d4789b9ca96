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
from popcorn_assets.store.versions import Address, Store
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


def test_it_says_how_this_machines_cpu_would_train(monkeypatch):
    from popcorn_ml.compute import kernels

    monkeypatch.setattr(kernels, "COMPILERS", ("no-such-compiler", "sh"))
    assert "trains and maps with what /" in machine._trains()
    monkeypatch.setattr(kernels, "COMPILERS", ("no-such-compiler",))
    assert "without a C compiler" in machine._trains()


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


SERVE = """
import http.server, json, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"dagster_webserver_version": "1.2.3"}).encode())
    def log_message(self, *_): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machine_is_not_asked_for_through_a_proxy(ask, monkeypatch, host):
    server, port = helper(SERVE)
    try:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("POPCORN_WEBSERVER", f"http://{host}:{port}")
        assert f"web server: http://{host}:{port}, version 1.2.3" in ask()[1]
    finally:
        server.kill()
        server.wait()


def test_files_of_another_projs_are_named(tmp_path):
    """Where the variable was set after this project could set it aside."""
    (tmp_path / "proj.db").write_bytes(b"")
    code = (
        "import os, sys, popcorn_assets\n"
        "os.environ['PROJ_DATA'] = sys.argv[1]\n"
        "from popcorn_assets.upkeep.doctor import _gdal\n"
        "print(*_gdal(), sep='\\n')"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120
    ).stdout
    assert "MISS coordinate systems, rasters and polygons: CRSError" in said
    assert "unset PROJ_DATA" in said


def test_a_store_and_records_that_do_not_belong_together(ask, place, tmp_path, monkeypatch):
    address = Address("population_map", "demo", 2020)
    store = Store(place.data)
    with store.draft(address) as draft:
        (draft / "map.txt").write_text("1")
        version = store.publish(address, draft, {"inputs": []})
    code, said = ask()
    assert "no record of any of the store's 1 current versions" in said
    assert "popcorn record" in said
    with dg.DagsterInstance.get() as instance:
        path = dg.MetadataValue.path(str(version.path))
        event = dg.AssetMaterialization("population_map", metadata={"path": path})
        instance.report_runless_asset_event(event)
    code, said = ask()
    assert code == 0, said
    monkeypatch.setenv("POPCORN_DATA", str(tmp_path / "second"))
    code, said = ask()
    assert code == 1
    assert f"records are of another store: {version.path} is not in" in said
    assert "export DAGSTER_HOME=" in said
    moved = tmp_path / "second"
    place.data.rename(moved)  # one store that was moved is no other store
    code, said = ask()
    assert "another store" not in said


def test_runs_that_nobody_can_judge_are_named_with_the_way_out(ask, place):
    @dg.op
    def train():
        pass

    @dg.job
    def training():
        train()

    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with dg.DagsterInstance.get() as instance:
        run = instance.create_run_for_job(training, status=dg.DagsterRunStatus.STARTED)
        text = f"Executing steps using multiprocess executor: parent process (pid: {gone.pid})"
        instance.report_engine_event(text, run)
        there = instance.create_run_for_job(
            training,
            status=dg.DagsterRunStatus.STARTED,
            tags={"popcorn/launched_on": "node-7"},
        )
    code, said = ask()
    assert code == 1
    assert f"MISS run {run.run_id[:8]} (training) of which no machine is known" in said
    assert f"its process {gone.pid} is not here" in said
    assert f"popcorn doctor --end {run.run_id[:8]}" in said
    assert f"ok   run {there.run_id[:8]} (training) on node-7: last heard of" in said
    code, said = ask("--end", run.run_id[:8])
    assert f"run {run.run_id} has failed; its slots are free" in said
    assert code == 0
