"""How fast a country is mapped: the published execution, this project's, and the engine alone.

    python -m benchmarks.mapping [--pixels 4] [--rounds 3] [--before CHECKOUT] [--folder FOLDER]

Each is run from files to files in a process of its own, one after another, several times: five
members and four seasons of a place made from the demo country, built-up score and population by
`python -m popcorn_ml.mapping`. Speeds are in millions of member-season pixels a second, so that
other numbers of either can be reckoned; what counts is their ratio within a round. `--before` runs
another checkout of this project (its own `.venv`) in the same rounds. The growth with the size of
the place follows.

Bounds, of medians: 3.3 times `--before`, 25 times the published execution, and a largest difference
from it of 1e-5 of the largest hectare. Exit status 1 where one is missed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.mapping_place import BenchPlace, write_place
from popcorn_ml import raster
from popcorn_ml.compute.devices import cpus
from popcorn_ml.grid import Window
from popcorn_ml.mapping.builtup import BuiltupSpec
from popcorn_ml.mapping.engine.choice import open_engine
from popcorn_ml.mapping.predict import MappingSpec
from popcorn_ml.model.canvas import HALO_PX
from popcorn_ml.model.stored import read_occupancy

ROOT = Path(__file__).resolve().parents[1]
MEMBERS = 5
PEAK_WINDOW_PX = 304
FASTER_THAN_BEFORE, FASTER_THAN_PUBLISHED, SAME = 3.3, 25.0, 1e-5
SPARSE_FASTER_THAN_BEFORE = 12.0
LEAVE_OUT = 1e-4
WHOLE, SPARSE = "every pixel computed", "5 % built up, the default share left out"
BEGIN, END = "<!-- measured -->", "<!-- end -->"
GROWTH = (1, 2, 4, 8)
RWANDA, CONTINENT = 516.0, 5000.0
"""Million pixels of 10 m."""
FIELDS = ("task", "composites", "extractor", "builtup", "members", "grid", "out", "tile_px")
FIELDS += ("device", "threads", "tags")
"""Of a specification, which earlier checkouts know too."""


@dataclass
class Run:
    """What a command took, round by round: wall seconds, CPU seconds, and its peak memory."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak_mb: float = 0.0

    def take(self, command: list[str], cwd: Path) -> None:
        """Run it once more."""
        environment = {**os.environ, "PYTHONPATH": str(cwd)}
        begun = time.monotonic()
        process = subprocess.Popen(command, cwd=cwd, env=environment, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}")
        self.seconds.append(time.monotonic() - begun)
        self.cpu.append(used.ru_utime + used.ru_stime)
        self.peak_mb = max(self.peak_mb, used.ru_maxrss / 1024)


@dataclass
class Way:
    """One way of mapping a place: a command for the score and one for the people, or one alone.

    Attributes:
        commands: part -> its command.
        cwd: checkout that it is run in.
        out: folder that it writes.
        millions: member-season pixels that it maps.
    """

    name: str
    commands: dict[str, list[str]]
    cwd: Path
    out: Path
    millions: float
    runs: dict[str, Run] = field(default_factory=dict)

    def take(self) -> None:
        """Every part once more."""
        for part, command in self.commands.items():
            self.runs.setdefault(part, Run()).take(command, self.cwd)

    def seconds(self, part: str | None = None) -> list[float]:
        """Of a part, or of all together, round by round."""
        runs = [self.runs[part]] if part else list(self.runs.values())
        return [sum(each) for each in zip(*(run.seconds for run in runs), strict=True)]

    def cpu(self, part: str | None = None) -> list[float]:
        """CPU seconds, as `seconds`; less in the way of what else a machine does."""
        runs = [self.runs[part]] if part else list(self.runs.values())
        return [sum(each) for each in zip(*(run.cpu for run in runs), strict=True)]

    def told(self) -> dict[str, float]:
        """Speed, spread, CPU and memory."""
        seconds, cpu, millions = self.seconds(), self.cpu(), self.millions
        return {
            "Mpx/s": millions / statistics.median(seconds),
            "least": millions / max(seconds),
            "most": millions / min(seconds),
            "seconds": statistics.median(seconds),
            "cpu_s": statistics.median(cpu),
            "peak_mb": max(run.peak_mb for run in self.runs.values()),
            **{f"{part}_s": statistics.median(run.seconds) for part, run in self.runs.items()},
        }


def mapping_way(
    name: str,
    place: BenchPlace,
    work: Path,
    *,
    checkout: Path = ROOT,
    engine: str = "auto",
    leave_out: float = 0.0,
) -> Way:
    """`python -m popcorn_ml.mapping` of a checkout."""
    out = work / name
    out.mkdir(parents=True, exist_ok=True)
    score = out / "builtup_score.tif"
    builtup = BuiltupSpec(place.composites, place.extractor, place.grid, score, device="cpu")
    people = MappingSpec(
        place.composites, score, place.members, place.grid, out / "map", device="cpu"
    )
    given = {
        "builtup": {"task": "builtup", **builtup.as_dict(), "engine": engine},
        "population": {**people.as_dict(), "engine": engine, "leave_out": leave_out},
    }
    commands = {}
    for part, one in given.items():
        if checkout != ROOT:
            one = {name: value for name, value in one.items() if name in FIELDS}
        path = out / f"{part}.json"
        path.write_text(json.dumps(one))
        commands[part] = [_python(checkout), "-m", "popcorn_ml.mapping", str(path)]
    return Way(name, commands, checkout, out, _millions(place, len(place.members)))


def published_way(place: BenchPlace, work: Path) -> Way:
    """`python -m benchmarks.reference`, of one member: the others take as long each."""
    out = work / "published"
    out.mkdir(parents=True, exist_ok=True)
    people = MappingSpec(place.composites, Path(), place.members[:1], place.grid, out / "map")
    path = out / "population.json"
    path.write_text(json.dumps({**people.as_dict(), "extractor": str(place.extractor)}))
    command = [sys.executable, "-m", "benchmarks.reference", str(path)]
    return Way("published", {"population": command}, ROOT, out, _millions(place, 1))


def _millions(place: BenchPlace, members: int) -> float:
    return place.grid.width * place.grid.height * members * len(place.composites) / 1e6


def _python(checkout: Path) -> str:
    own = checkout / ".venv" / "bin" / "python"
    return str(own) if checkout != ROOT and own.exists() else sys.executable


def engine_peak(place: BenchPlace, seconds: float = 5.0) -> float:
    """Million member-season pixels of window a second of the members' networks alone, all cores."""
    engine = open_engine("auto", "cpu", threads=cpus())
    bag = engine.bag([read_occupancy(path) for path in place.members])
    side, halo = PEAK_WINDOW_PX, HALO_PX
    x = np.random.default_rng(0).standard_normal((6, side, side)).astype(np.float32)
    core = Window(halo, halo, side - 2 * halo, side - 2 * halo)
    wanted = np.ones((core.height, core.width), bool)
    bag.occupancy(x, core, wanted)
    begun = time.monotonic()

    def work(_: int) -> int:
        count = 0
        while time.monotonic() < begun + seconds:
            bag.occupancy(x, core, wanted)
            count += 1
        return count

    with ThreadPoolExecutor(cpus()) as pool:
        count = sum(pool.map(work, range(cpus())))
    return count * side * side * len(place.members) / (time.monotonic() - begun) / 1e6


def hectares(path: Path) -> np.ndarray:
    """People per hectare of a map."""
    values = raster.read_float(path, bands=1, dtype="float64")
    rows, cols = (side // 10 for side in values.shape)
    cells = np.nan_to_num(values[: rows * 10, : cols * 10]).reshape(rows, 10, cols, 10)
    return cells.sum(axis=(1, 3))


def apart(way: Way, other: Way) -> tuple[float, float]:
    """Two maps: largest difference of a hectare, in shares of the largest; and that of all
    people, in shares of them."""
    ours, theirs = (hectares(one.out / "map" / "population.tif") for one in (way, other))
    return (
        float(np.abs(ours - theirs).max() / theirs.max()),
        float(1 - ours.sum() / theirs.sum()),
    )


def times(slow: Way, fast: Way, part: str | None = None) -> dict[str, float]:
    """How many times as fast, round by round: median, least and most; and by CPU time."""
    more = fast.millions / slow.millions
    pairs = zip(slow.seconds(part), fast.seconds(part), strict=True)
    each = [a / b * more for a, b in pairs]
    cpu = statistics.median(slow.cpu(part)) / statistics.median(fast.cpu(part)) * more
    return {"median": statistics.median(each), "least": min(each), "most": max(each), "cpu": cpu}


def side_of(millions: float) -> int:
    """Side of a square of so many pixels, in whole hectares."""
    return round(math.sqrt(millions * 1e6) / 10) * 10


def compare(work: Path, given: argparse.Namespace, *, sparse: bool) -> dict[str, Any]:
    """The ways of mapping one place, in turn."""
    side = side_of(given.pixels)
    place = write_place(work, side, side, MEMBERS, sparse=sparse)
    folder = work / ("sparse" if sparse else "whole")
    ours = mapping_way("ours", place, folder, leave_out=LEAVE_OUT if sparse else 0.0)
    ways = [ours]
    if given.before:
        ways.append(mapping_way("before", place, folder, checkout=given.before.resolve()))
    if not sparse:
        ways.append(published_way(place, folder))
    peaks = []
    for _ in range(given.rounds):
        for way in ways:
            way.take()
        peaks.append(engine_peak(place))
    exact = mapping_way("torch", place, folder, engine="torch")
    exact.take()
    hectare, people = apart(ours, exact)
    found: dict[str, Any] = {
        "pixels": side * side,
        "engine alone, Mpx/s": statistics.median(peaks),
        "apart per hectare": hectare,
        "people left out": people,
        **{way.name: way.told() for way in (*ways, exact)},
        "share of peak": ours.told()["Mpx/s"] / statistics.median(peaks),
    }
    for other in ways[1:]:
        found[f"times {other.name}"] = times(other, ours)
        if other.name == "before":
            found["times before, population"] = times(other, ours, "population")
    return found


def growth(work: Path) -> list[dict[str, float]]:
    """Seconds and memory of maps of several sizes."""
    rows = []
    for millions in GROWTH:
        side = side_of(millions)
        place = write_place(work, side, side, MEMBERS, sparse=False)
        way = mapping_way(f"growth_{millions}", place, work / "growth")
        way.take()
        rows.append({"megapixels": side * side / 1e6, **way.told()})
    return rows


def reckoned(rows: list[dict[str, float]]) -> dict[str, float]:
    """Hours for a country and a continent by the two largest sizes' growth, on this machine."""
    last, before = rows[-1], rows[-2]
    each = (last["seconds"] - before["seconds"]) / (last["megapixels"] - before["megapixels"])
    start = max(last["seconds"] - each * last["megapixels"], 0)
    return {
        "seconds per megapixel": each,
        "seconds to begin": start,
        "Rwanda, hours": (start + each * RWANDA) / 3600,
        "5,000 megapixels, hours": (start + each * CONTINENT) / 3600,
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pixels", type=float, default=4, help="millions of the place compared on")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--before", type=Path, help="another checkout, in the same rounds")
    parser.add_argument("--folder", type=Path, help="kept, and taken up again; else a passing one")
    parser.add_argument("--write", type=Path, help="document whose table is to hold what was found")
    parser.add_argument("--only", choices=("whole", "sparse", "growth"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as passing:
        work = (given.folder or Path(passing)).resolve()
        found: dict[str, Any] = {}
        if given.only in (None, "whole"):
            found[WHOLE] = compare(work, given, sparse=False)
        if given.only in (None, "sparse"):
            found[SPARSE] = compare(work, given, sparse=True)
        if given.only in (None, "growth"):
            found["growth"] = growth(work)
            found["reckoned"] = reckoned(found["growth"])
    print(json.dumps(found, indent=1, default=float))
    if given.write:
        before, _, rest = given.write.read_text("utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        given.write.write_text(f"{before}{BEGIN}\n{table(found)}{END}{after}", "utf-8")
    return 1 if missed(found) else 0


def table(found: dict[str, Any]) -> str:
    """What was found, in Markdown."""
    lines = []
    for title in (WHOLE, SPARSE):
        if title not in found:
            continue
        one = found[title]
        lines += [
            f"| {title}, {one['pixels'] / 1e6:.1f} megapixels | Mpx/s (least to most) | seconds "
            "| CPU seconds | peak MB | times as fast as it we are (least to most; by CPU) |",
            "|---|---|---|---|---|---|",
        ]
        for name in ("published", "before", "torch", "ours"):
            if name not in one:
                continue
            way, faster = one[name], one.get(f"times {name}")
            lines.append(
                f"| {name} | {way['Mpx/s']:.2f} ({way['least']:.2f} to {way['most']:.2f}) "
                f"| {way['seconds']:.1f} | {way['cpu_s']:.1f} | {way['peak_mb']:.0f} | "
                + (
                    f"{faster['median']:.1f} ({faster['least']:.1f} to {faster['most']:.1f}; "
                    f"{faster['cpu']:.1f}) |"
                    if faster
                    else "|"
                )
            )
        lines += [
            f"| the engine alone, windows of {PEAK_WINDOW_PX} px "
            f"| {one['engine alone, Mpx/s']:.2f} "
            f"| | | | we reach {one['share of peak']:.0%} of it |",
            "",
            "Largest difference of a hectare from the engine torch: "
            f"{one['apart per hectare']:.1e} of the largest; people left out: "
            f"{one['people left out']:.1e} of all.",
            "",
        ]
    if "growth" in found:
        lines += ["| megapixels | seconds | CPU seconds | peak MB |", "|---|---|---|---|"]
        lines += [
            f"| {row['megapixels']:.1f} | {row['seconds']:.1f} | {row['cpu_s']:.1f} "
            f"| {row['peak_mb']:.0f} |"
            for row in found["growth"]
        ]
        told = found["reckoned"]
        lines += [
            "",
            "Reckoned on this machine, every pixel computed: "
            f"{told['seconds per megapixel']:.2f} s a megapixel; "
            f"Rwanda {told['Rwanda, hours']:.1f} h, 5,000 megapixels "
            f"{told['5,000 megapixels, hours']:.1f} h, over N such machines an Nth of it.",
        ]
    return "\n".join(lines) + "\n"


def missed(found: dict[str, Any]) -> bool:
    """Whether a bound is, each told."""
    whole = found.get(WHOLE)
    sparse = found.get(SPARSE)
    bounds = []
    if whole:
        bounds.append(
            ("times published", whole["times published"]["median"] >= FASTER_THAN_PUBLISHED)
        )
        bounds.append(("per hectare", whole["apart per hectare"] <= SAME))
        if "times before" in whole:
            bounds.append(("times before", whole["times before"]["median"] >= FASTER_THAN_BEFORE))
    if sparse:
        bounds.append(("people left out", sparse["people left out"] <= LEAVE_OUT))
        if "times before" in sparse:
            fast = sparse["times before, population"]["median"] >= SPARSE_FASTER_THAN_BEFORE
            bounds.append(("sparse: times before, population", fast))
    for name, met in bounds:
        print(f"{'met' if met else 'MISSED'}: {name}", file=sys.stderr)
    return not all(met for _, met in bounds)


if __name__ == "__main__":
    sys.exit(main())
