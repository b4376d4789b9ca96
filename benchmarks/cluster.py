"""Mapping over a dask cluster on this machine: how it scales, and what the client costs.

    python -m benchmarks.cluster FOLDER [--pixels 8] [--members 3] [--workers 1 2]

Inputs are those of `benchmarks.growth`. Workers are processes of one thread, the scheduler is one
too; each number of workers maps the same country, after a small one that loads what they need.
Processor time of the client and of the scheduler is given as a share of the workers', which says
how many workers they could feed. The files have to be those that threads of one process write. One
JSON object is printed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from benchmarks.growth import SEASONS, extractor, grid_of_pixels, prepare, refresh_inputs
from popcorn_ml.launching.cluster import connected
from popcorn_ml.mapping.builtup import map_builtup
from popcorn_ml.mapping.predict import MappingSpec, map_population
from popcorn_ml.model.weights import load_extractor

WARM_PX = 3e5


@contextmanager
def started(count: int, folder: Path) -> Iterator[tuple[str, psutil.Process, list[psutil.Process]]]:
    """A scheduler and its workers: address, and the processes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start(module: str, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.{module}", *arguments],
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    file = folder / "scheduler.json"
    begun = [start("dask_scheduler", *["--host", "127.0.0.1", "--port", "0", "--no-dashboard"],
                   "--scheduler-file", str(file))]  # fmt: skip
    try:
        while not file.exists() or not file.read_text().strip():
            time.sleep(0.1)
        address = json.loads(file.read_text())["address"]
        options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory"]
        begun += [
            start("dask_worker", address, *options, str(folder / f"worker_{number}"))
            for number in range(count)
        ]
        scheduler, *workers = (psutil.Process(one.pid) for one in begun)
        with connected(address) as client:
            client.wait_for_workers(count)
        yield address, scheduler, workers
    finally:
        for one in reversed(begun):
            one.kill()
            one.wait()


def used(*processes: psutil.Process) -> float:
    """Seconds of processor time so far."""
    return sum(sum(one.cpu_times()[:2]) for one in processes)


def measure(spec: MappingSpec, warm: MappingSpec, count: int) -> dict[str, Any]:
    """One country mapped by so many workers."""
    with tempfile.TemporaryDirectory() as folder, started(count, Path(folder)) as made:
        address, scheduler, workers = made
        with connected(address) as client:
            pool = client.get_executor(pure=False)
            map_population(replace(warm, threads=2 * count), pool=pool)
            here = psutil.Process()
            before = [used(here), used(scheduler), used(*workers)]
            began = time.perf_counter()
            map_population(replace(spec, threads=2 * count), pool=pool)
            wall = time.perf_counter() - began
            after = [used(here), used(scheduler), used(*workers)]
    client_s, scheduler_s, workers_s = (b - a for a, b in zip(before, after, strict=True))
    share = (client_s + scheduler_s) / workers_s
    return {
        "workers": count,
        "wall_s": round(wall, 2),
        "client_s": round(client_s, 2),
        "scheduler_s": round(scheduler_s, 2),
        "workers_s": round(workers_s, 2),
        "share": round(share, 4),
        "workers_that_one_client_feeds": round(1 / share),
    }


def digest(folder: Path) -> dict[str, str]:
    """Of every file."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob("*.tif"))
    }


def main(argv: list[str] | None = None) -> int:
    """Print the measurement; status 1 where files differ."""
    parser = argparse.ArgumentParser(prog="benchmarks.cluster", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pixels", type=float, default=8, help="millions")
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args(argv)
    folder = arguments.folder.resolve()
    specs = {}
    for pixels in (WARM_PX, arguments.pixels * 1e6):
        inputs, grid = prepare(folder, pixels, arguments.members), grid_of_pixels(pixels)
        pairs = {season: refresh_inputs(inputs, season) for season in SEASONS}
        score = inputs / "builtup_score.tif"
        if not score.exists():
            map_builtup(load_extractor(extractor()), pairs, grid, score, device="cpu")
        members = sorted((folder / "weights").glob("*/occupancy.safetensors"))
        specs[pixels] = MappingSpec(
            pairs, score, members, grid, folder / f"cluster_{round(pixels)}", device="cpu"
        )
    warm, spec = specs[WARM_PX], specs[arguments.pixels * 1e6]
    map_population(spec)
    expected = digest(spec.out)
    runs, same = [], True
    for count in arguments.workers:
        shutil.rmtree(spec.out)
        runs.append(measure(spec, warm, count))
        same = same and digest(spec.out) == expected
    told = {
        "million_pixels": arguments.pixels,
        "members": arguments.members,
        "cores": os.cpu_count(),
        "runs": runs,
        "faster": round(runs[0]["wall_s"] / runs[-1]["wall_s"], 2),
        "same_bytes": same,
    }
    for one in (warm, spec):
        shutil.rmtree(one.out, ignore_errors=True)
    print(json.dumps(told))
    return 0 if same else 1


if __name__ == "__main__":
    raise SystemExit(main())
