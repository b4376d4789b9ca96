"""A refresh of a country over several sizes: time, memory and disk, step by step.

    python -m benchmarks.growth FOLDER [--sizes 2 8 32] [--members 3] [--against CODE PYTHON]

Inputs are composites of a simulated country, repeated until there are so many million pixels; they
are kept in FOLDER and used again. A refresh takes the composites of four seasons and two sensors
over (source `files`), fills their gaps, computes the built-up score, maps, adjusts to a census and
sums to hectares. Each step is a process of its own, so that its peak memory is known; disk is what
the refresh holds, drafts included. `--against` runs the same by another checkout and its Python, in
turn. One JSON object is printed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

SEASONS, SENSORS = ("spring", "summer", "autumn", "winter"), ("s1", "s2")
FILES = {"s1": "S1", "s2": "S2A"}
STEPS = ("composites", "filled", "builtup", "map", "adjusted", "hectares")
BASE_PX = 510
UNIT_PX = 90


def grid_of_pixels(pixels: float) -> Any:
    """A square grid of about so many pixels, of whole hectares."""
    from popcorn_ml.grid import Grid

    side = round(math.sqrt(pixels) / 10) * 10
    return Grid("EPSG:32736", 300_000.0, 9_900_000.0, 10.0, side, side)


def settings(inputs: Path) -> Any:
    """Of the imagery: the composites that were laid out."""
    from popcorn_ml.imagery.settings import ImagerySettings

    return ImagerySettings.parse(
        {"source": "files", "files": {"root": str(inputs), "region": "all"}}
    )


def prepare(folder: Path, pixels: float, members: int) -> Path:
    """The inputs of a size, made once."""
    import numpy as np

    from popcorn_ml import raster
    from popcorn_ml.model.popcorn import from_extractor
    from popcorn_ml.model.weights import load_extractor, save_occupancy
    from popcorn_ml.sentinel import S1_BANDS, S1_NODATA, S1_SCALE, S2_BANDS

    inputs, grid = folder / f"inputs_{round(pixels / 1e6)}", grid_of_pixels(pixels)
    weights = folder / "weights"
    for number in range(members):
        path = weights / f"{number}" / "occupancy.safetensors"
        if not path.exists():
            member = from_extractor(load_extractor(extractor()), initial_bias=1.0, seed=number)
            save_occupancy(member.eval(), path, {"seed": number})
    if (inputs / "whole").exists():
        return inputs
    pattern = simulated(folder)
    for sensor in SENSORS:
        for season in SEASONS:
            name = f"{FILES[sensor]}{season}"
            path = inputs / "merged" / "EE" / "all" / name / f"all_{name}.tif"
            piece = np.load(pattern / f"{sensor}_{season}.npy")
            bands = S1_BANDS if sensor == "s1" else S2_BANDS
            nodata, scale = (S1_NODATA, S1_SCALE) if sensor == "s1" else (0, 1.0)
            with raster.CogWriter(path, grid, bands, str(piece.dtype), nodata, scale=scale) as out:
                for tile in grid.tiles(BASE_PX):
                    core = tile.core
                    out.write(piece[:, : core.height, : core.width], core)
    with raster.CogWriter(inputs / "units.tif", grid, ["unit"], "uint32", 0) as out:
        across = -(-grid.width // UNIT_PX)
        for tile in grid.tiles(1024):
            rows, cols = (np.arange(s.start, s.stop) for s in tile.core.slices)
            numbers = np.add.outer(rows // UNIT_PX * across, cols // UNIT_PX) + 1
            out.write(numbers.astype(np.uint32), tile.core)
    (inputs / "whole").touch()
    return inputs


def refresh_inputs(inputs: Path, season: str) -> tuple[Path, Path]:
    """The composites of a season, as they were laid out: Sentinel-1, Sentinel-2."""
    names = [f"{FILES[sensor]}{season}" for sensor in SENSORS]
    return tuple(inputs / "merged" / "EE" / "all" / n / f"all_{n}.tif" for n in names)  # type: ignore[return-value]


def extractor() -> Path:
    """The demo's, of whatever code is on the path."""
    import popcorn_ml

    return Path(popcorn_ml.__file__).with_name("simulate") / "weights/demo_extractor.safetensors"


def simulated(folder: Path) -> Path:
    """Composites of a small simulated country, as arrays."""
    import numpy as np

    from popcorn_ml import raster
    from popcorn_ml.imagery.build import build_season
    from popcorn_ml.imagery.settings import ImagerySettings
    from popcorn_ml.simulate.country import write_country
    from popcorn_ml.simulate.spec import CountrySpec

    pattern = folder / "pattern"
    if (pattern / "whole").exists():
        return pattern
    pattern.mkdir(parents=True, exist_ok=True)
    spec = CountrySpec(width=BASE_PX, height=BASE_PX, seed=7)
    made = write_country(folder / "scenes", spec, [2020], workers=2)
    given = ImagerySettings.parse(
        {"source": "stac", "stac": {"profile": "local", "items": str(made.items)}}
    )
    for sensor in SENSORS:
        for season in SEASONS:
            out = folder / "scenes" / f"{sensor}_{season}"
            build_season(sensor, season, 2020, spec.grid, given, out, folder / "work", workers=2)
            np.save(pattern / f"{sensor}_{season}.npy", raster.read(out / "composite.tif"))
    (pattern / "whole").touch()
    return pattern


def run_step(step: str, inputs: Path, weights: Path, out: Path, pixels: float) -> None:
    """One step of a refresh, by whatever code is on the path."""
    import numpy as np

    from popcorn_ml.imagery.build import build_season
    from popcorn_ml.imagery.gaps import fill_gaps
    from popcorn_ml.mapping import dasymetric
    from popcorn_ml.mapping.aggregate import aggregate_map
    from popcorn_ml.mapping.builtup import map_builtup
    from popcorn_ml.mapping.predict import MappingSpec, map_population
    from popcorn_ml.model.weights import load_extractor

    grid, given = grid_of_pixels(pixels), settings(inputs)
    seasons = {
        sensor: {season: out / "seasons" / f"{sensor}_{season}" for season in SEASONS}
        for sensor in SENSORS
    }
    filled = {s: (out / "s1" / f"{s}.tif", out / "s2" / f"{s}.tif") for s in SEASONS}
    score, predicted, adjusted = out / "builtup_score.tif", out / "map", out / "adjusted"
    units, by_member = inputs / "units.tif", predicted / "population_members.tif"
    population, scores = predicted / "population.tif", predicted / "builtup_score.tif"
    older = not hasattr(dasymetric, "AdjustedMembers")  # members were not adjusted each
    if step == "composites":
        for sensor, folders in seasons.items():
            for season, folder in folders.items():
                build_season(
                    sensor, season, 2020, grid, given, folder, out / "work", workers=os.cpu_count()
                )
    elif step == "filled":
        for sensor, folders in seasons.items():
            fill_gaps(sensor, folders, grid, given, out / sensor)
    elif step == "builtup":
        map_builtup(load_extractor(extractor()), filled, grid, score, device="cpu")
    elif step == "map":
        members = sorted(weights.glob("*/occupancy.safetensors"))
        map_population(MappingSpec(filled, score, members, grid, predicted, device="cpu"))
    elif step == "adjusted":
        count = (-(-grid.width // UNIT_PX)) ** 2
        people = np.random.default_rng(0).integers(100, 5000, count).astype(float)
        spread = predicted / "population_std.tif" if older else by_member
        dasymetric.adjust_map(population, spread, scores, units, people, grid, adjusted)
    elif older:
        options: dict[str, Any] = {"factor": adjusted / "factor.tif"}
        aggregate_map(adjusted / "population.tif", by_member, grid, out / "hectares", **options)
        aggregate_map(population, by_member, grid, out / "hectares" / "unadjusted")
    else:
        layers = dasymetric.Layers(population, by_member, scores, units, grid)
        how = dasymetric.read_adjustment(adjusted / "adjustment.json")
        members_adjusted = dasymetric.AdjustedMembers(how, layers)
        aggregate_map(adjusted / "population.tif", members_adjusted, grid, out / "hectares")
        aggregate_map(population, by_member, grid, out / "hectares" / "unadjusted")


class Disk:
    """Watches how much a folder holds."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.peak = folder, 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def now(self) -> int:
        total = 0
        for path, _, names in os.walk(self.folder):
            for name in names:
                try:
                    total += os.stat(os.path.join(path, name)).st_blocks * 512
                except OSError:  # gone since
                    continue
        return total

    def _watch(self) -> None:
        while not self._stop.wait(0.3):
            self.peak = max(self.peak, self.now())

    def __enter__(self) -> Disk:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def refresh(code: Path, python: str, inputs: Path, folder: Path, pixels: float) -> dict[str, Any]:
    """All steps of a size by one checkout."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    environment = {**os.environ, "PYTHONPATH": str(code)}
    here = [python, str(Path(__file__).resolve()), "--step"]
    steps = {}
    with Disk(out) as disk:
        for step in STEPS:
            call = [step, str(inputs), str(folder / "weights"), str(out), str(pixels)]
            began = time.perf_counter()
            done = subprocess.run(
                [*here, *call], env=environment, cwd=code, capture_output=True, text=True
            )
            if done.returncode:
                raise SystemExit(f"{step} by {code}: {done.stderr[-3000:]}")
            told = json.loads(done.stdout.splitlines()[-1])
            steps[step] = {"wall_s": round(time.perf_counter() - began, 2), **told}
        kept = disk.now()
    million = pixels / 1e6
    wall = sum(step["wall_s"] for step in steps.values())
    result = {
        "million_pixels": million,
        "seconds_per_million": round(wall / million, 3),
        "peak_rss_mb": max(step["peak_rss_mb"] for step in steps.values()),
        "disk_peak_over_kept": round(max(disk.peak, kept) / kept, 3),
        "kept_bytes_per_pixel": round(kept / pixels, 2),
        "members_bytes_per_pixel": round(
            (out / "map" / "population_members.tif").stat().st_size / pixels, 2
        ),
        "steps": steps,
    }
    shutil.rmtree(out, ignore_errors=True)
    return result


def main(argv: list[str] | None = None) -> int:
    """Print the measurement."""
    parser = argparse.ArgumentParser(prog="benchmarks.growth", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", type=float, nargs="+", default=[2, 8, 32], help="million pixels")
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--against", nargs=2, metavar=("CODE", "PYTHON"))
    arguments = parser.parse_args(argv)
    folder, ours = arguments.folder.resolve(), Path(__file__).resolve().parents[1]
    codes = {"this": (ours, sys.executable)}
    if arguments.against:
        codes["other"] = (Path(arguments.against[0]).resolve(), arguments.against[1])
    sizes = []
    for size in arguments.sizes:
        inputs = prepare(folder, size * 1e6, arguments.members)
        measured = {
            name: refresh(code, python, inputs, folder, size * 1e6)
            for name, (code, python) in codes.items()
        }
        sizes.append(measured)
        print(json.dumps(measured), file=sys.stderr, flush=True)
    print(json.dumps({"members": arguments.members, "cores": os.cpu_count(), "sizes": sizes}))
    return 0


def _hold_little() -> None:
    """As the commands of maps do; checkouts from before did not."""
    try:
        from popcorn_ml.compute.memory import hold_little
    except ImportError:
        return
    hold_little()


def step_main(arguments: list[str]) -> int:
    """One step in this process, and what it took."""
    step, inputs, weights, out, pixels = arguments
    _hold_little()
    run_step(step, Path(inputs), Path(weights), Path(out), float(pixels))
    used = resource.getrusage(resource.RUSAGE_SELF)
    told = {
        "cpu_s": round(used.ru_utime + used.ru_stime, 2),
        "peak_rss_mb": round(used.ru_maxrss / 1024),
    }
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    raise SystemExit(step_main(sys.argv[2:]) if sys.argv[1:2] == ["--step"] else main())
