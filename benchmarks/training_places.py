"""How fast members are trained: this checkout beside another, in turn, on places of three kinds.

    python -m benchmarks.training_places --folder FOLDER --before CHECKOUT --python PYTHON

Each training is `python -m popcorn_ml.training spec.json` in its checkout. *demo*: the demo's
eighty units. *sparse*: 5 % built up, towns in the midst of nothing. *large*: a hundred units of
0.32 million pixels. Speeds are own pixels of units a second, of the epochs after the first (which
also reads), by the wall's clock and by the processor's; the latter is what to look at on a machine
that does other work. CPU seconds of an epoch are those of a training of more epochs less those of
one of fewer.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.accuracy import Place, prepare
from benchmarks.mapping_place import SEED, write_place
from popcorn_assets.assets.builtup import DEMO_EXTRACTOR
from popcorn_assets.country import load_country
from popcorn_ml import raster
from popcorn_ml.mapping.builtup import map_builtup
from popcorn_ml.model.weights import load_extractor
from popcorn_ml.training.spec import TrainingSpec

HERE = Path(__file__).parent.parent
LEAVE_OUT = 1e-4
PEOPLE_PER_PX = 0.3


@dataclass(frozen=True)
class Kind:
    """A place: its side in pixels (0: the demo), units along it, the epochs that are compared."""

    side: int
    along: int
    fewer: int
    more: int


KINDS = {
    "demo": Kind(0, 0, 3, 11),
    "sparse": Kind(2000, 5, 1, 4),
    "large": Kind(5660, 10, 1, 2),
}


@dataclass(frozen=True)
class Cost:
    """Of a training, and what it said of its last epoch."""

    cpu_s: float
    epochs_s: list[float]
    peak_mb: float
    loss: float


def spec_of(kind: str, folder: Path, threads: int) -> tuple[TrainingSpec, int]:
    """A place's training, one member, and the pixels of its units."""
    one = KINDS[kind]
    settings = load_country("demo").training.of_member(1)
    settings |= {"held_out": "none", "held_out_share": 0.0, "folds": 0, "fold": 0}
    settings |= {"leave_out": LEAVE_OUT, "device": "cpu", "threads": threads}
    if kind == "demo":
        demo = Place(SEED, folder / "demo" / str(SEED), load_country("demo"), threads)
        prepare(demo)
        composites, builtup, extractor = demo.composites(), demo.builtup, DEMO_EXTRACTOR
        units, counts = demo.units(demo.level), demo.counts(demo.level)
    else:
        place = write_place(folder, one.side, one.side, 1, sparse=kind == "sparse")
        composites, extractor = place.composites, place.extractor
        work = folder / kind
        builtup, units, counts = (work / n for n in ("score.tif", "units.tif", "counts.json"))
        if not counts.exists():
            map_builtup(load_extractor(extractor), composites, place.grid, builtup, threads=threads)
            step = -(-one.side // one.along)
            rows = np.arange(one.side) // step
            numbers = (rows[:, None] * one.along + rows[None] + 1).astype(np.uint32)
            raster.write(units, numbers, place.grid, ["unit"], 0, resampling="nearest")
            score = raster.read_float(builtup, bands=1)
            sums = np.bincount(numbers.ravel(), np.nan_to_num(score).ravel())[1:]
            told = [
                {"number": n, "id": str(n), "people": round(float(PEOPLE_PER_PX * value))}
                for n, value in enumerate(sums, start=1)
            ]
            counts.write_text(json.dumps(told))
    spec = TrainingSpec(
        s1={season: str(pair[0]) for season, pair in composites.items()},
        s2={season: str(pair[1]) for season, pair in composites.items()},
        builtup=str(builtup),
        units=str(units),
        counts=str(counts),
        extractor=str(extractor),
        out="",
        work="",
        **settings,
    )
    return spec, int((raster.read(units, bands=1) > 0).sum())


def train(checkout: Path, python: str, spec: TrainingSpec, epochs: int) -> Cost:
    """One training in a process of its own; fields that a checkout does not know are not said, nor
    how much memory it may take: its own default."""
    asked = "import dataclasses as d, popcorn_ml.training.spec as s; "
    asked += "print(*[f.name for f in d.fields(s.TrainingSpec)])"
    place = {**os.environ, "PYTHONPATH": str(checkout)}
    told = subprocess.run(
        [python, "-c", asked], capture_output=True, check=True, cwd=checkout, env=place, text=True
    )
    known = set(told.stdout.split()) - {"cache_mb"}
    with tempfile.TemporaryDirectory() as folder:
        full = dataclasses.replace(spec, out=f"{folder}/out", work=f"{folder}/work", epochs=epochs)
        path = Path(folder) / "spec.json"
        values = json.loads(full.to_json())
        path.write_text(json.dumps({name: values[name] for name in values if name in known}))
        with subprocess.Popen(
            [python, "-m", "popcorn_ml.training", str(path)],
            stdout=subprocess.PIPE,
            cwd=checkout,
            env=place,
            text=True,
        ) as process:
            assert process.stdout is not None
            lines = [json.loads(line) for line in process.stdout]
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"the training in {checkout} failed: exit status {process.returncode}")
    return Cost(
        used.ru_utime + used.ru_stime,
        [line["seconds"] for line in lines[:-1]],
        used.ru_maxrss / 1024,
        lines[-1]["metrics"]["train_loss"],
    )


def speeds(costs: Sequence[Cost], pixels: int, kind: Kind) -> dict[str, float]:
    """Of a shorter and a longer training: millions of pixels a second, and memory."""
    fewer, more = costs
    cpu = (more.cpu_s - fewer.cpu_s) / (kind.more - kind.fewer)
    wall = float(np.median(more.epochs_s[1:]))
    return {
        "mpx_per_cpu_s": pixels / cpu / 1e6,
        "mpx_per_s": pixels / wall / 1e6,
        "cpu_s_an_epoch": cpu,
        "peak_mb": more.peak_mb,
        "train_loss": more.loss,
    }


def main() -> int:
    """Print a line a place, round and checkout, and the ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--before", type=Path, help="another checkout of this project")
    parser.add_argument("--python", default=sys.executable, help="which runs that checkout")
    parser.add_argument("--places", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, required=True, help="of the places; kept")
    given = parser.parse_args()
    ways = {"before": (given.before.resolve(), given.python)} if given.before else {}
    ways["now"] = (HERE, sys.executable)
    for name in given.places:
        kind = KINDS[name]
        spec, pixels = spec_of(name, given.folder.resolve(), given.threads)
        for number in range(1, given.rounds + 1):
            found = {}
            for way, (checkout, python) in ways.items():
                costs = [train(checkout, python, spec, n) for n in (kind.fewer, kind.more)]
                found[way] = speeds(costs, pixels, kind)
                told = ", ".join(f"{key} {value:.3g}" for key, value in found[way].items())
                print(f"{name}, round {number}, {way}: {told}", flush=True)
            if len(found) > 1:
                by_cpu, by_wall = (
                    found["now"][key] / found["before"][key]
                    for key in ("mpx_per_cpu_s", "mpx_per_s")
                )
                print(f"{name}, round {number}: {by_cpu:.2f} times by CPU, {by_wall:.2f} by wall")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
