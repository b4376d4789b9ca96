"""How long the web interface takes to be ready, against one with an empty definitions file.

    python -m benchmarks.startup [--json] [--home FOLDER] [--repeat N]

Ready is when the web server of `dagster dev` answers that the code location is loaded, with its
assets. Both are started in turn, in the same run; the project's over the home's instance, as a
demo leaves it, the empty one over a new folder. Imports are timed in processes of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

READY_RATIO = 1.3
"""At most so many times the time of an empty file."""

IMPORT_SECONDS = 1.5
"""At most so many seconds more than `import dagster`."""

DEADLINE_S = 300
QUESTION = """{ workspaceOrError { ... on Workspace { locationEntries {
    loadStatus locationOrLoadError { __typename
      ... on RepositoryLocation { repositories { assetNodes { id } } } } } } } }"""


def ready_seconds(folder: Path, arguments: list[str], expect_assets: bool) -> float:
    """Seconds from the start of `dagster dev` until its definitions are served."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    begin = time.perf_counter()
    process = subprocess.Popen(
        [Path(sys.executable).with_name("dagster"), "dev", *arguments, "-p", str(port)],
        cwd=folder,
        env={**os.environ, "DAGSTER_HOME": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while time.perf_counter() - begin < DEADLINE_S:
            if process.poll() is not None:
                raise SystemExit(f"dagster dev ended with {process.returncode} in {folder}")
            found = assets_served(port)
            if found is not None:
                if (found > 0) != expect_assets:
                    raise SystemExit(f"{found} assets are served from {folder}")
                return time.perf_counter() - begin
            time.sleep(0.1)
        raise SystemExit(f"not ready after {DEADLINE_S} s in {folder}")
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def assets_served(port: int) -> int | None:
    """Assets of the code location, or None while it is not loaded.

    Raises:
        SystemExit: the location cannot be loaded.
    """
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql",
        json.dumps({"query": QUESTION}).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            entries = json.load(answer)["data"]["workspaceOrError"]["locationEntries"]
    except OSError:
        return None
    if not entries or any(entry["loadStatus"] != "LOADED" for entry in entries):
        return None
    locations = [entry["locationOrLoadError"] for entry in entries]
    if any(location["__typename"] != "RepositoryLocation" for location in locations):
        raise SystemExit(f"the code location does not load: {locations}")
    return sum(len(r["assetNodes"]) for location in locations for r in location["repositories"])


def import_seconds(module: str) -> tuple[float, float]:
    """Seconds of a process that imports a module and ends, by the clock and of the processor."""
    begin, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    after = os.times()
    spent = after.children_user + after.children_system
    return time.perf_counter() - begin, spent - before.children_user - before.children_system


def measure(home: Path, repeat: int) -> dict[str, float]:
    """Medians of both, taken in turn."""
    seen: dict[str, list[float]] = {"empty": [], "project": []}
    modules = {"dagster": "dagster", "definitions": "popcorn_assets.definitions"}
    for number in range(max(repeat, 3) + 1):
        for name, module in modules.items():
            clock, processor = import_seconds(module)
            if number:  # the first one reads the disk
                seen.setdefault(name, []).append(clock)
                seen.setdefault(f"{name}_cpu", []).append(processor)
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder)
        (empty / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
        (empty / "empty.py").write_text("import dagster as dg\n\ndefs = dg.Definitions()\n")
        for _ in range(repeat):
            seen["empty"].append(ready_seconds(empty, ["-f", "empty.py"], False))
            seen["project"].append(ready_seconds(home, ["-w", "workspace.yaml"], True))
    return {name: round(statistics.median(values), 2) for name, values in seen.items()}


def main() -> int:
    """Measure, say what came out, and whether it is within the bounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--home", type=Path, default=Path(__file__).resolve().parents[1])
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    seconds = measure(arguments.home.absolute(), arguments.repeat)
    ratio = round(seconds["project"] / seconds["empty"], 3)
    more = round(seconds["definitions"] - seconds["dagster"], 2)
    passed = ratio <= READY_RATIO and more <= IMPORT_SECONDS
    if arguments.json:
        print(json.dumps({"seconds": seconds, "ratio": ratio, "import_more": more, "ok": passed}))
    else:
        print(f"ready: {seconds['project']} s, empty {seconds['empty']} s: {ratio} times")
        print(f"import: {seconds['definitions']} s, dagster {seconds['dagster']} s: {more} s more")
        cpu = round(seconds["definitions_cpu"] - seconds["dagster_cpu"], 2)
        print(f"        of the processor's time, which other programs do not change: {cpu} s more")
        print("within the bounds" if passed else "NOT within the bounds")
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
