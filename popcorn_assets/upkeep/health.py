"""What `popcorn doctor` asks Dagster: storage, pools, daemon, web server, runs without a process.

It starts nothing and changes nothing; `runs.lost` does, where the operator says so.
"""

from __future__ import annotations

import json
import os
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import dagster as dg
import psutil
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.dagster_run import FINISHED_STATUSES, RunsFilter

from popcorn_assets.paths import DATA_VARIABLE
from popcorn_assets.resources import StoreResource
from popcorn_assets.runs.home import CONFIGURATION, HOME_VARIABLE, find_home, webserver
from popcorn_assets.runs.instance import POSTGRES_VARIABLE, shown
from popcorn_assets.runs.lost import Unjudged, lost_its_process, unjudged_runs
from popcorn_assets.runs.pools import pools, stuck_slots
from popcorn_assets.store.versions import Store
from popcorn_assets.upkeep.records import published
from popcorn_ml.errors import PopcornError
from popcorn_ml.imagery.doctor import Finding

DAEMON_SILENCE_S = 120.0
"""How old a heartbeat of the daemon may be; it sends one every 30 seconds."""

RUN_SILENCE_S = 86_400.0
"""How long a run that cannot be looked at may say nothing; a training tells every epoch."""

REPAIR = "popcorn doctor --repair"
END = "popcorn doctor --end"
LOOPBACK = ("127.", "::1", "localhost")


def examine_dagster() -> Iterator[Finding]:
    """Findings about the instance that the home's dagster.yaml describes."""
    folder = find_home()
    if folder is None:
        what = f"{Path.cwd()} is no home of popcorn, nor is a folder above it"
        yield Finding(False, what, "popcorn demo, new or ui begin one here; or go to yours")
        return
    yield Finding(True, f"Dagster's instance: {folder / CONFIGURATION}")
    url = os.environ.get(POSTGRES_VARIABLE, "").strip()
    kind = "Postgres" if url else "SQLite"
    try:
        instance = dg.DagsterInstance.get()
        count = instance.get_runs_count()
    except PopcornError as error:
        yield Finding(False, f"Dagster's storage, {kind}: {error.what}", _told(error))
        return
    except Exception as error:
        yield Finding(
            False,
            f"Dagster's storage, {kind}: {type(error).__name__}",
            f"see what stands in dagster.yaml under storage: {str(error).splitlines()[0][:200]}",
        )
        return
    with instance:
        place = f" at {shown(url)}" if url else ""
        yield Finding(True, f"Dagster's storage: {kind}{place}, {count} runs")
        yield from _belonging(instance, StoreResource().open())
        yield from _runs(instance)
        yield from _pools(instance)
        yield _daemon(instance)
    yield _webserver()
    yield from _open_to_others()


def _told(error: PopcornError) -> str:
    return "; ".join(str(part) for part in (error.found, error.remedy) if part)


def _belonging(instance: dg.DagsterInstance, store: Store) -> Iterator[Finding]:
    """Whether Dagster's records are of this store: POPCORN_DATA alone moves the store only."""
    roots = (store.root, store.root.resolve())
    latest = instance.get_latest_materialization_events(list(instance.all_asset_keys()))
    paths = [path for entry in latest.values() if entry and (path := _path_of(entry))]
    elsewhere = [p for p in paths if not any(p.is_relative_to(r) for r in roots) and p.is_dir()]
    if elsewhere:
        yield Finding(
            False,
            f"Dagster's records are of another store: {elsewhere[0]} is not in {store.root}",
            f"export {HOME_VARIABLE}=FOLDER with a dagster.yaml of its own for this store, or "
            f"unset {DATA_VARIABLE}: docs/operate.md",
        )
    elif not paths and (there := published(store)):
        yield Finding(
            False,
            f"Dagster has no record of any of the store's {len(there)} current versions",
            f"export {HOME_VARIABLE}=FOLDER of the dagster.yaml that they were made with; if its "
            "records are lost, popcorn record",
        )


def _path_of(entry: EventLogEntry) -> Path | None:
    materialisation = entry.asset_materialization
    path = materialisation.metadata.get("path") if materialisation else None
    return Path(path.path) if isinstance(path, dg.PathMetadataValue) and path.path else None


def _runs(instance: dg.DagsterInstance) -> Iterator[Finding]:
    statuses = [status for status in dg.DagsterRunStatus if status not in FINISHED_STATUSES]
    runs = instance.get_runs(RunsFilter(statuses=statuses))
    lost = [run for run in runs if lost_its_process(instance, run)]
    for run in lost:
        yield Finding(False, f"run {run.run_id[:8]} ({run.job_name}) has lost its process", REPAIR)
    queued = sum(run.status == dg.DagsterRunStatus.QUEUED for run in runs)
    yield from map(_unjudged, unjudged_runs(instance))
    working = len(runs) - len(lost) - queued
    yield Finding(True, f"runs: {working} under way, {queued} queued")


def _unjudged(found: Unjudged) -> Finding:
    """A run whose process is not known here: a fault where nothing speaks for its being alive."""
    here = not found.host and not os.environ.get(POSTGRES_VARIABLE)  # SQLite is one machine's
    gone = here and found.pid is not None and not psutil.pid_exists(found.pid)
    where = f"on {found.host}" if found.host else "of which no machine is known"
    end = f"{END} {found.run.run_id[:8]}"
    return Finding(
        not gone and found.silent < RUN_SILENCE_S,
        f"run {found.run.run_id[:8]} ({found.run.job_name}) {where}: last heard of "
        f"{_ago(found.silent)} ago"
        + (f", its process {found.pid} is not here" if gone else f"; if it is gone: {end}"),
        f"{end}, which ends the run and frees its slots, if its process is gone",
    )


def _pools(instance: dg.DagsterInstance) -> Iterator[Finding]:
    stuck = set(stuck_slots(instance))
    for pool in pools(instance):
        limit = "no limit" if pool.limit is None else f"{pool.limit} slots"
        held = ", ".join(str(slot) for slot in pool.slots) or "none taken"
        waiting = f"; {pool.waiting} steps wait" if pool.waiting else ""
        yield Finding(True, f"pool {pool.name}: {limit}, {held}{waiting}")
        for slot in pool.slots:
            if slot in stuck:
                yield Finding(False, f"pool {pool.name}: a slot is kept by {slot}", REPAIR)


def _daemon(instance: dg.DagsterInstance) -> Finding:
    beats = instance.get_daemon_heartbeats()
    if not beats:
        return Finding(True, "daemon: has not run yet; schedules and sensors rest until popcorn ui")
    silent = time.time() - max(beat.timestamp for beat in beats.values())
    if silent > DAEMON_SILENCE_S:
        return Finding(
            False,
            f"daemon: last heard of {_ago(silent)} ago; queued runs, schedules and sensors wait",
            "popcorn ui, or systemctl start popcorn-daemon",
        )
    failing = sorted(name for name, beat in beats.items() if beat.errors)
    errors = f", with errors in {', '.join(failing)}" if failing else ""
    return Finding(
        not failing,
        f"daemon: alive{errors}",
        "see Deployment > Daemons in the UI",
    )


def _ago(seconds: float) -> str:
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def _webserver() -> Finding:
    address = webserver()
    told = _without_login(address)
    try:
        with _opener(address).open(f"{address}/server_info", timeout=5) as answer:
            version = json.load(answer)["dagster_webserver_version"]
    except (OSError, ValueError, KeyError):
        return Finding(True, f"web server: none answers at {told}; popcorn ui starts one")
    return Finding(True, f"web server: {told}, version {version}")


def _opener(address: str) -> urllib.request.OpenerDirector:
    """What asks a web server: this machine's without whatever proxy is named."""
    if (urlsplit(address).hostname or "").startswith(LOOPBACK):
        return urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener()


def _without_login(address: str) -> str:
    parts = urlsplit(address)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}"


def _open_to_others() -> Iterator[Finding]:
    """Web servers of Dagster on this machine that listen beyond it."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if not any("dagster" in word and "webserver" in word for word in words[:4]):
            continue
        try:
            listening = [c.laddr for c in process.net_connections("tcp") if c.status == "LISTEN"]
        except psutil.Error:
            continue
        for ip, port in listening:
            if not str(ip).startswith(LOOPBACK):
                yield Finding(
                    False,
                    f"web server: process {process.pid} takes anybody in, at {ip}:{port}",
                    "start it with --host 127.0.0.1 and put a login before it: docs/operate.md",
                )
