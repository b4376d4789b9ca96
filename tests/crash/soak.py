"""Kills the pipeline again and again and looks at what is left: `make soak`, or a few in the tests.

A small simulated country is run through the whole graph as `popcorn demo` does, once without
disturbance. Then, for every kill: some of its versions are removed so that there is work to do, the
same run is started in a process group of its own and killed with SIGKILL at a random moment, the
store and the warehouse are looked at, a run without disturbance finishes the work, and store,
warehouse and audit are looked at again: every version must be the undisturbed one, bit for bit.

Moments come in two kinds, taken in turn. One is a point in time within a step. The other is just
before a certain file operation (a file opened for writing, renamed, removed), which a point in time
would seldom hit. Phases take turns, so that each gets its share.

Processes are forked from this one, which has every module loaded and nothing started: a run takes
seconds instead of importing for seconds.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import importlib
import json
import os
import pkgutil
import random
import re
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from popcorn_assets.store.versions import LATEST, Address, Store, digests, version_of  # noqa: E402

PHASES = ("fetch", "composite", "census", "training", "mapping")
YEARS = (2020, 2021)
SEASON_ASSETS = tuple(
    f"{sensor}_{season}"
    for sensor in ("s1", "s2")
    for season in ("spring", "summer", "autumn", "winter")
)
ASSETS: dict[str, tuple[str, ...]] = {
    "fetch": SEASON_ASSETS,
    "composite": (*SEASON_ASSETS, "s1_composites", "s2_composites"),
    "census": ("census_units", "census_counts"),
    "training": ("checkpoints", "student"),
    "mapping": ("builtup_area", "population_map", "adjusted_map", "hectare_map", "evaluation"),
    "publishing": ("change", "publication"),
}
"""Which assets are made in a phase."""

LONGEST_RUN_S = 900.0
WRITES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "shutil.move"}


class Wrong(AssertionError):
    """The state after a kill is not what it has to be."""


# The country ------------------------------------------------------------------------------------


def small_spec():
    """A country of one hundredth of the demo's area."""
    from popcorn_ml.simulate.spec import CountrySpec

    return CountrySpec(
        width=100, height=100, coarse_units=6, fine_units_each=2, s2_dates=2, s1_passes=2
    )


def make_home(home: Path) -> None:
    """A home with its own instance and the small country's file; its scenes are made once."""
    import yaml

    (home / "countries").mkdir(parents=True)
    (home / "data").mkdir()
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copyfile(REPOSITORY / name, home / name)
    country = yaml.safe_load((REPOSITORY / "popcorn_assets/countries/demo.yaml").read_text("utf-8"))
    country["grid"]["bounds"] = list(small_spec().grid.bounds)
    country["imagery"]["tile_px"] = 64  # four tiles, so that a season can be half fetched
    country["training"] |= {"members": 2, "epochs": 3}
    country["mapping"] = {"tile_px": 80}
    (home / "countries" / "demo.yaml").write_text(
        yaml.safe_dump(country, sort_keys=False, allow_unicode=True), "utf-8"
    )


def load_everything() -> None:
    """Import all modules of the project, and with them their libraries, without starting any."""
    for name in ("popcorn_ml", "popcorn_assets"):
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    for name in (
        "torch", "lightning.pytorch", "geopandas", "rasterio", "pyogrio", "duckdb",
        "pyarrow.parquet", "scipy.spatial", "scipy.ndimage", "matplotlib.figure",
        "safetensors.torch", "sqlite3",
    ):  # fmt: skip
        importlib.import_module(name)


# Runs in processes of their own -------------------------------------------------------------------


@dataclass
class Trap:
    """Kill the process group just before the n-th write to a place."""

    place: str
    number: int


class Child:
    """A forked process group, and what it prints."""

    def __init__(
        self, home: Path, work: Callable[[], int | None], trap: Trap | None = None
    ) -> None:
        self.started = time.monotonic()
        read, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(read)
            _live(home, work, trap, write)
        os.close(write)
        self._out, self._rest, self.status = read, b"", None

    def lines(self, until: Callable[[], float] | None = None) -> Iterator[tuple[float, str]]:
        """Lines as they come, until the output ends or the moment `until` gives has come."""
        while True:
            left = LONGEST_RUN_S if until is None else until() - time.monotonic()
            if left <= 0:
                return
            ready, _, _ = select.select([self._out], [], [], min(left, LONGEST_RUN_S))
            if not ready:
                if until is None:
                    raise Wrong(f"a run printed nothing for {LONGEST_RUN_S:g} s")
                return
            block = os.read(self._out, 65536)
            if not block:
                return
            *whole, self._rest = (self._rest + block).split(b"\n")
            for line in whole:
                yield time.monotonic() - self.started, line.decode("utf-8", "replace")

    def kill(self) -> None:
        """SIGKILL to the whole group."""
        os.killpg(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """The exit status, negative for a signal; nothing of the group is left."""
        if self.status is None:
            _, raw = os.waitpid(self.pid, 0)
            self.status = os.waitstatus_to_exitcode(raw)
            os.close(self._out)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        return self.status


def _live(home: Path, work: Callable[[], int | None], trap: Trap | None, out: int) -> None:
    """What the child does; it does not return."""
    try:
        os.setsid()
        os.environ |= environment(home)
        os.chdir(home)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdout = open(1, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115
        if trap is not None:
            _set(trap)
        code = work() or 0
    except BaseException:
        traceback.print_exc()
        code = 70
    finally:
        sys.stdout.flush()
    os._exit(code)


def environment(home: Path) -> dict[str, str]:
    return {
        "DAGSTER_HOME": str(home),
        "POPCORN_DATA": str(home / "data"),
        "POPCORN_COUNTRIES": str(home / "countries"),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
    }


def place_of(path: str) -> str | None:
    """Which asset and year, or the warehouse, a path of the store belongs to."""
    if "warehouse.duckdb" in path:
        return "warehouse"
    found = re.search(r"/([a-z0-9_]+)/demo/(\d{4})(/|$)", path)
    return f"{found[1]} {found[2]}" if found else None


def writes(event: str, arguments: tuple) -> Iterator[str]:
    """The paths that an audit event is about to write to."""
    if event == "open":
        path, _, flags = arguments
        if isinstance(path, str | bytes) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            yield os.fsdecode(path)
    elif event in WRITES:
        yield from (os.fsdecode(a) for a in arguments[:2] if isinstance(a, str | bytes | Path))


def _set(trap: Trap) -> None:
    count = 0

    def hook(event: str, arguments: tuple) -> None:
        nonlocal count
        if event != "open" and event not in WRITES:
            return
        if any(place_of(path) == trap.place for path in writes(event, arguments)):
            count += 1
            if count == trap.number:
                os.killpg(0, signal.SIGKILL)

    sys.addaudithook(hook)


def count_writes(file: Path) -> None:
    """Count writes by place; the file has the counts when the process ends its work."""
    counts: collections.Counter[str] = collections.Counter()

    def hook(event: str, arguments: tuple) -> None:
        if event != "open" and event not in WRITES:
            return
        for place in {place_of(path) for path in writes(event, arguments)}:
            if place is not None:
                counts[place] += 1

    sys.addaudithook(hook)
    code = pipeline()
    file.write_text(json.dumps(counts))
    if code:
        raise SystemExit(code)


def pipeline() -> int:
    """The run that is killed: two country-years, one with training, as `popcorn demo`."""
    from popcorn_assets.commands.demo import run_demo

    return run_demo(small_spec())


# What a run is at -------------------------------------------------------------------------------


@dataclass
class Progress:
    """Reads a run's lines: which step it is at, in which phase.

    Attributes:
        spans: (year, step, phase) -> seconds of start and end, as often as it came.
    """

    year: int = 0
    step: str = ""
    phase: str = "between"
    since: float = 0.0
    spans: list[tuple[int, str, str, float, float]] = field(default_factory=list)

    def __call__(self, second: float, line: str) -> None:
        text = re.sub(r"\x1b\[[0-9;]*m", "", line).strip()
        if found := re.match(r"demo\|(\d{4}): ", text):
            self.year = int(found[1])
        elif found := re.fullmatch(r"(\S+) \.\.\.", text):
            self._end(second)
            self.step, self.since = found[1], second
            self.phase = phase_of(self.step)
        elif re.fullmatch(r"\S+: (\d+) of \1 tiles", text) and self.step in SEASON_ASSETS:
            self._end(second)  # all tiles are there: what follows is the composite
            self.phase, self.since = "composite", second
        elif re.match(r"[\d.]+s\s+\S \S+", text):
            self._end(second)
            self.step, self.phase = "", "between"

    def _end(self, second: float) -> None:
        if self.step:
            self.spans.append((self.year, self.step, self.phase, self.since, second))


def phase_of(step: str) -> str:
    """The phase that a step begins in."""
    name = step.partition("[")[0]
    if name.endswith(("_member", "_members")):
        return "training"
    for phase, assets in ASSETS.items():
        if name in assets:
            return phase
    return "between"


def asset_of(step: str) -> str:
    """The asset that a step belongs to."""
    return "checkpoints" if phase_of(step) == "training" and step != "student" else step


# What must hold -----------------------------------------------------------------------------------


def versions(root: Path) -> dict[str, str]:
    """Place in the store -> current version, after looking at every version there is.

    Raises:
        Wrong: LATEST names something that is not there, or a version is not whole.
    """
    store, found = Store(root), {}
    for address, folder in places(root):
        current = store.find(address)
        for path in sorted(folder.iterdir()):
            if not re.fullmatch(r"[0-9a-f]{16}", path.name):
                continue
            version = store.version(address, path.name)
            files = digests(version.path)
            if version_of(files) != path.name or files != version.manifest()["files"]:
                raise Wrong(f"{path} is not what its name and its manifest say")
        if current is not None:
            found[str(address)] = current.version
    return found


def places(root: Path) -> Iterator[tuple[Address, Path]]:
    """Every asset that has a folder in the store."""
    for assets in (*ASSETS.values(), ("deployed_model",)):
        for asset in assets:
            for folder in sorted((root / asset / "demo").glob("[0-9]" * 4)):
                yield Address(asset, "demo", int(folder.name)), folder
    if (root / "builtup_extractor").is_dir():
        yield Address("builtup_extractor"), root / "builtup_extractor"


def recorded(root: Path) -> dict[str, str]:
    """Address -> version that the warehouse holds to be current."""
    from popcorn_ml.warehouse.warehouse import Warehouse

    rows = Warehouse(root / "warehouse.duckdb").query(
        "SELECT asset, country, year, version FROM versions WHERE current"
    )
    return {a if not c else f"{a} {c}|{y}": v for a, c, y, v in rows}


def mark_removed(root: Path, versions: list[tuple]) -> int:
    """Tell the warehouse which versions were taken out of the store."""
    from popcorn_ml.warehouse.warehouse import Warehouse

    Warehouse(root / "warehouse.duckdb").mark_removed(versions)
    return 0


def look_after_the_kill(root: Path) -> int:
    """What must hold before anything is repaired."""
    versions(root)
    if (root / "warehouse.duckdb").exists():
        recorded(root)
    return 0


def look_after_the_rerun(root: Path, wanted: dict[str, str]) -> int:
    """What must hold when a run has finished the work."""
    found = versions(root)
    if found != wanted:
        other = {k: (v, found.get(k)) for k, v in wanted.items() if found.get(k) != v}
        raise Wrong(f"other versions than of the undisturbed run: {other or found.keys()}")
    if (known := recorded(root)) != found:
        other = {k: (v, known.get(k)) for k, v in found.items() if known.get(k) != v}
        raise Wrong(f"the warehouse records other versions than LATEST: {other}")
    drafts = [str(p) for p in root.rglob(".draft-*") if p.is_dir()]
    if drafts:
        raise Wrong(f"half-written versions are left: {drafts}")
    no_run_is_left_open()
    audit(root)
    return 0


def no_run_is_left_open() -> None:
    """Every run that was killed is reported as failed, and holds no slot of a pool.

    Raises:
        Wrong: one is not, or does.
    """
    import dagster as dg

    instance = dg.DagsterInstance.get()
    open_runs = [r.run_id for r in instance.get_runs() if not r.is_finished]
    if open_runs:
        raise Wrong(f"runs that ended long ago look unfinished: {open_runs}")
    storage = instance.event_log_storage
    for pool in storage.get_concurrency_keys():
        info = storage.get_concurrency_info(pool)
        if info.active_slot_count or info.pending_step_count:
            raise Wrong(f"pool {pool}: {info.active_slot_count} slots are held by nobody")


def audit(root: Path) -> None:
    """The project's own audit of both years.

    Raises:
        Wrong: it found something.
    """
    from click.testing import CliRunner

    from popcorn_assets.cli import cli

    if "audit" not in cli.commands:
        return trace(root)
    for year in YEARS:
        result = CliRunner().invoke(cli, ["audit", "demo", str(year)])
        if result.exit_code:
            raise Wrong(f"popcorn audit demo {year} says:\n{result.output}\n{result.exception!r}")


def trace(root: Path) -> None:
    """Every input of every current version is in the store, and every source what it was.

    Raises:
        Wrong: one is not.
    """
    from popcorn_assets.store.versions import sha256

    store = Store(root)
    for address, _ in places(root):
        manifest = store.latest(address).manifest()
        for entry in manifest["inputs"]:
            made_from = Address(entry["asset"], entry["country"], entry["year"])
            store.version(made_from, entry["version"])
        for source in manifest["sources"]:
            if sha256(root / source["path"]) != source["sha256"]:
                raise Wrong(f"{address}: {source['path']} is another file than it was")


# The soak -----------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What happened so far."""

    kills: collections.Counter = field(default_factory=collections.Counter)
    missed: int = 0
    seconds: float = 0.0


class Soak:
    """One soak in one home.

    Args:
        home: an empty folder.
        seed: of everything drawn.
        say: takes a line of progress.
    """

    def __init__(self, home: Path, seed: int, say: Callable[[str], None]) -> None:
        self.home, self.root, self.say = home, home / "data", say
        self.chance, self.tally = random.Random(seed), Tally()
        self.spans: list[tuple[int, str, str, float, float]] = []
        self.writes: dict[str, int] = {}
        self.wanted: dict[str, str] = {}

    def run(self, work: Callable[[], int | None] = pipeline) -> tuple[Progress, float]:
        """A run to its end.

        Raises:
            Wrong: it failed.
        """
        child, progress, tail = Child(self.home, work), Progress(), collections.deque(maxlen=60)
        for second, line in child.lines():
            progress(second, line)
            tail.append(line)
        if status := child.wait():
            raise Wrong(f"a run ended with {status}:\n" + "\n".join(tail))
        return progress, time.monotonic() - child.started

    def begin(self) -> None:
        """The undisturbed run, in the same home: what all others must come to."""
        make_home(self.home)
        progress, seconds = self.run(lambda: count_writes(self.home / "writes.json"))
        self.spans = progress.spans
        self.writes = json.loads((self.home / "writes.json").read_text())
        self.wanted = versions(self.root)
        self.run(lambda: look_after_the_rerun(self.root, self.wanted))
        self.say(f"undisturbed: {len(self.wanted)} assets in {seconds:.0f} s")

    def forget(self, assets: set[tuple[str, int]]) -> None:
        """Make assets missing, so that they have to be made again.

        Of some only LATEST goes, so that the same contents are published over those that are there;
        of others the whole version, which the warehouse is told as `popcorn gc` tells it.
        """
        whole = []
        for asset, year in sorted(assets):
            address = Address(asset, "demo", year) if year else Address(asset)
            folder = Store(self.root).folder(address)
            version = (folder / LATEST).read_text("utf-8").strip()
            if self.chance.random() < 0.3:
                (folder / LATEST).unlink()
            else:
                shutil.rmtree(folder)
                whole.append((asset, "demo" if year else None, year or None, version))
        self.run(lambda: mark_removed(self.root, whole))

    def once(self, number: int, phase: str) -> bool:
        """One kill and what follows; whether it hit the run before its end.

        Raises:
            Wrong: with everything that is needed to look into it.
        """
        began = time.monotonic()
        year, step, start, end = self._span(phase)
        asset = asset_of(step)
        fresh = self.chance.random() < 0.04
        if fresh:
            gone = {(a.asset, a.year or 0) for a, _ in places(self.root)}
        else:
            gone = {(asset, year)}
            others = [(a.asset, a.year) for a, _ in places(self.root) if a.year]
            gone |= set(self.chance.sample(others, self.chance.randrange(3)))  # type: ignore[arg-type]
        self.forget(gone)
        if number % 2:
            child = Child(self.home, pipeline)
            killed, progress = self._at(child, year, step, self.chance.uniform(start, end) - start)
            how = f"{time.monotonic() - child.started:.1f} s into the run"
        else:
            place = f"{asset} {year}" if self.chance.random() < 0.8 else "warehouse"
            total = self.writes.get(place, 1)
            limit = total if place != "warehouse" or fresh else max(2, total * len(gone) // 30)
            trap = Trap(place, self.chance.randint(1, limit))
            child = Child(self.home, pipeline, trap)
            progress = Progress()
            for second, line in child.lines():
                progress(second, line)
            killed = child.wait() == -signal.SIGKILL
            how = f"before write {trap.number} to {trap.place}"
        at = f"{progress.year or 'start'} {progress.step or 'between steps'}"
        hit = progress.phase if killed else "missed"
        try:
            self.run(lambda: look_after_the_kill(self.root))
            _, rerun = self.run()
            self.run(lambda: look_after_the_rerun(self.root, self.wanted))
        except Wrong as error:
            raise Wrong(f"kill {number} at {at} ({how}): {error}") from None
        spent = time.monotonic() - began
        self.tally.seconds += spent
        if killed:
            self.tally.kills[hit] += 1
        else:
            self.tally.missed += 1
        self.say(
            f"kill {number:3d}  {hit:9s}  {at:28s}  {how}; "
            f"{'everything' if fresh else f'{len(gone)} versions'} to make, "
            f"re-run {rerun:.0f} s, whole, {spent:.0f} s"
        )
        return killed

    def _span(self, phase: str) -> tuple[int, str, float, float]:
        """A step of the undisturbed run, the longer the likelier."""
        spans = [s for s in self.spans if s[2] == phase]
        year, step, _, start, end = self.chance.choices(spans, [s[4] - s[3] for s in spans])[0]
        if phase == "composite" and step in SEASON_ASSETS:  # counted from the step's own beginning
            first = next(s for s in self.spans if s[:2] == (year, step))
            return year, step, start - first[3], end - first[3]
        return year, step, 0.0, end - start

    def _at(self, child: Child, year: int, step: str, delay: float) -> tuple[bool, Progress]:
        """Kill a run so many seconds after a step began."""
        progress, due = Progress(), [float("inf")]

        def until() -> float:
            return min(due[0], time.monotonic() + LONGEST_RUN_S)

        for second, line in child.lines(until):
            progress(second, line)
            if due[0] == float("inf") and (progress.year, progress.step) == (year, step):
                due[0] = time.monotonic() + delay
        child.kill()
        return child.wait() == -signal.SIGKILL, progress

    def twice(self) -> None:
        """Two runs of the same partitions at once: each ends well, or says why it does not.

        Raises:
            Wrong: one of them ended without a reason, or what they left is not whole.
        """
        began = time.monotonic()
        year, step, _, _ = self._span(self.chance.choice(PHASES))
        gone = {(asset_of(step), year), ("checkpoints", 2020), ("population_map", 2021)}
        self.forget(gone)
        first = Child(self.home, pipeline)
        time.sleep(self.chance.uniform(0, 5))
        pair, ends = (first, Child(self.home, pipeline)), []
        for child in pair:
            printed = [line for _, line in child.lines()]
            status = child.wait()
            reason = " ".join(printed).partition("The run failed.")[2].partition("Its log:")[0]
            if status and not reason.strip():
                raise Wrong(f"one of two runs ended with {status}:\n" + "\n".join(printed[-60:]))
            ends.append("ended well" if not status else f"said: {' '.join(reason.split())}")
        self.run(lambda: look_after_the_kill(self.root))
        if any(end != "ended well" for end in ends):
            self.run()
        self.run(lambda: look_after_the_rerun(self.root, self.wanted))
        self.say(
            f"two at once, {len(gone)} versions to make: the first {ends[0]}; the second "
            f"{ends[1]}; whole, {time.monotonic() - began:.0f} s"
        )

    def go(self, kills: int) -> None:
        """As many kills as asked for, phases in turn."""
        number = 0
        while sum(self.tally.kills.values()) < kills:
            if self.tally.missed > kills:
                raise Wrong(f"{self.tally.missed} runs were over before they were killed")
            order = list(PHASES)
            self.chance.shuffle(order)
            for phase in order:
                if sum(self.tally.kills.values()) < kills:
                    number += 1
                    self.once(number, phase)
        hits = ", ".join(f"{phase} {n}" for phase, n in sorted(self.tally.kills.items()))
        self.say(
            f"{sum(self.tally.kills.values())} kills in {self.tally.seconds / 60:.1f} minutes: "
            f"{hits}; {self.tally.missed} came too late and are not counted. After each, the state "
            "was whole; at the end every version is that of the undisturbed run."
        )


def scratch_folder() -> Path:
    """A new folder, in memory where there is room: Dagster's tables sync to disk at every event.

    A killed process loses nothing that it has handed to the system, on a disk or in memory.
    """
    shared = Path("/dev/shm")
    roomy = shared.is_dir() and shutil.disk_usage(shared).free > 4e9
    return Path(tempfile.mkdtemp(prefix="popcorn-soak-", dir=shared if roomy else None))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--twice", type=int, default=3, help="pairs of runs at once, at the end")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--home", type=Path, help="a missing folder; kept. Default: one in memory")
    options = parser.parse_args()
    if options.home is None:
        options.home = scratch_folder() / "home"
    load_everything()
    soak = Soak(options.home.absolute(), options.seed, lambda line: print(line, flush=True))
    try:
        soak.begin()
        soak.go(options.kills)
        for _ in range(options.twice):
            soak.twice()
    except Wrong as error:
        print(f"WRONG: {error}\nThe store is in {soak.home}; the seed was {options.seed}.")
        return 1
    if options.home.parent.name.startswith("popcorn-soak-"):
        shutil.rmtree(options.home.parent)
    return 0


if __name__ == "__main__":
    sys.exit(main())
