"""A dask.distributed cluster: members trained and tiles mapped by its workers.

Workers see the same files under the same paths and may write beside them, run the same code, and
declare their GPUs as the resource "GPU". Pixels go from a worker to the shared files and never over
the scheduler. A worker that dies loses nothing but time: its task goes to another one, and a
training goes on from its last epoch. The scheduler is dask's own; nothing here schedules.
"""

from __future__ import annotations

import hashlib
import platform
import queue
import re
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import popcorn_ml
from popcorn_ml.compute.kernels import compiler_version
from popcorn_ml.errors import ComputeError, ConfigError, LostConnection
from popcorn_ml.mapping.engine.choice import is_installed, require_engine
from popcorn_ml.training.spec import TrainingSpec

if TYPE_CHECKING:
    from distributed import Client

    from popcorn_ml.student.spec import StudentSpec

GPU = "GPU"
"""The resource that a worker declares once for each of its GPUs."""

CONNECT_SECONDS = 10.0
NO_WORKER_SECONDS = 300.0
"""How long a training waits for a worker to come back when the last one has gone."""

_ADDRESS = re.compile(r"((tcp|tls|ucx|ws|wss)://)?[^\s/:]+:\d{1,5}")
_LIBRARIES = ("torch", "numpy", "rasterio", "isal", "distributed")
_SCIENCE = ("cog", "imagery", "model", "training", "mapping", "student")


@dataclass(frozen=True)
class Cluster:
    """What a scheduler has to offer.

    Attributes:
        address: of the scheduler.
        workers: addresses of the workers that are asked to do something.
        slots: tasks that they do at once.
        resources: what a task claims of its worker.
    """

    address: str
    workers: tuple[str, ...]
    slots: int
    resources: dict[str, float]


class Abandoned(Exception):
    """A training that nobody waits for any more."""


def check_address(address: str) -> None:
    """Refuse what cannot be the address of a scheduler.

    Raises:
        ConfigError: see there.
    """
    if not _ADDRESS.fullmatch(address):
        raise ConfigError(
            "this is not the address of a dask scheduler",
            where="scheduler",
            expected="such as tcp://scheduler:8786",
            found=address or "nothing",
            remedy="set POPCORN_SCHEDULER, or scheduler in the run's configuration",
        )


@contextmanager
def connected(address: str) -> Iterator[Client]:
    """A client of the scheduler, for the block.

    Raises:
        ConfigError: no such address, or dask.distributed is not installed.
        LostConnection: the scheduler cannot be reached.
    """
    check_address(address)
    try:
        from distributed import Client
    except ImportError as error:
        raise ConfigError(
            "dask.distributed is not installed",
            where="launcher",
            found=str(error),
            remedy="pip install 'popcorn-assets[cluster]'",
        ) from error
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # differing versions are refused in `examine`
            client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise LostConnection(
            "the dask scheduler cannot be reached",
            where=address,
            found=str(error),
            remedy="start it (dask scheduler), open its port, or correct POPCORN_SCHEDULER",
        ) from error
    try:
        yield client
    finally:
        client.close(timeout=5)


def examine(
    client: Client,
    address: str,
    device: str,
    shared: Path | None = None,
    *,
    engine: str = "auto",
    precision: str = "float32",
) -> Cluster:
    """Whether the cluster can do the work, asked before there is any.

    Args:
        address: of the scheduler, for messages.
        device: auto, cpu or cuda; for cuda, workers with a GPU are needed, for auto they are
            preferred.
        shared: folder that the workers have to see as we do.
        engine, precision: what the networks of a map run in there.

    Raises:
        ConfigError: no worker declares a GPU and one is asked for; or a worker lacks an engine
            that is asked for by name.
        ComputeError: no worker, one of another version, or one that does not see the folder.
    """
    workers = client.scheduler_info(n_workers=-1)["workers"]
    if not workers:
        raise ComputeError(
            "the dask cluster has no workers",
            where=address,
            remedy=f"start some: dask worker {address} --nthreads 1 --resources GPU=1",
        )
    with_gpu = {a: w for a, w in workers.items() if w.get("resources", {}).get(GPU, 0) >= 1}
    if device == "cuda" and not with_gpu:
        raise ConfigError(
            "no worker of the cluster declares a GPU",
            where=address,
            expected=f"workers started with --resources {GPU}=1, one a GPU",
            found=f"{len(workers)} workers without",
            remedy="start such workers, or set device to cpu",
        )
    use_gpu = bool(with_gpu) and device != "cpu"
    chosen = with_gpu if use_gpu else workers
    slots = sum(int(w["resources"][GPU]) if use_gpu else w["nthreads"] for w in chosen.values())
    _same_code(client, address, list(chosen))
    if engine != "auto":
        client.run(require_engine, engine, device, precision, workers=list(chosen))
    if shared is not None:
        _same_files(client, shared, list(chosen))
    return Cluster(address, tuple(chosen), max(slots, 1), {GPU: 1.0} if use_gpu else {})


def code_facts() -> dict[str, str]:
    """What has to be the same wherever a part of one result is computed."""
    science = Path(popcorn_ml.__file__).parent
    digest = hashlib.sha256()
    found = (sorted((science / part).rglob("*")) for part in _SCIENCE)
    parts = ([path for path in paths if path.suffix in (".py", ".c")] for paths in found)
    for path in (*sorted(science.glob("*.py")), *(path for part in parts for path in part)):
        digest.update(path.relative_to(science).as_posix().encode() + path.read_bytes())
    return {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "popcorn_ml": digest.hexdigest()[:12],
        **{name: metadata.version(name) for name in _LIBRARIES},
        "openvino": metadata.version("openvino") if is_installed() else "not installed",
        "C compiler": compiler_version() or "none",
    }


def _same_code(client: Client, address: str, workers: list[str]) -> None:
    ours = code_facts()
    for worker, theirs in client.run(code_facts, workers=workers, on_error="return").items():
        if not isinstance(theirs, dict):
            raise ComputeError(
                "a worker of the cluster cannot run this code",
                where=f"{worker}, of {address}",
                found=f"{type(theirs).__name__}: {theirs}",
                remedy="install the same popcorn-assets there as here",
            )
        differing = [name for name, version in ours.items() if theirs.get(name) != version]
        if differing:
            raise ComputeError(
                "a worker of the cluster runs other versions",
                where=f"{worker}, of {address}",
                expected=", ".join(f"{name} {ours[name]}" for name in differing),
                found=", ".join(f"{name} {theirs.get(name)}" for name in differing),
                remedy="install the same there as here; results would differ",
            )


def _same_files(client: Client, shared: Path, workers: list[str]) -> None:
    word = uuid.uuid4().hex
    shared.mkdir(parents=True, exist_ok=True)
    token = shared / f".seen-{word}"  # a new name each time: no cached answer can be wrong
    token.write_text(word)
    try:
        for worker, seen in client.run(_see, str(token), workers=workers).items():
            if seen != word:
                raise ComputeError(
                    "a worker of the cluster does not see the store, or cannot write to it",
                    where=worker,
                    expected=f"the folder {shared} on storage that all machines share, writable",
                    found=seen or "another folder of that name",
                    remedy="mount the store there under the same path, for the same user, or move "
                    "POPCORN_DATA",
                )
    finally:
        token.unlink(missing_ok=True)


def _see(path: str) -> str:
    """On a worker: what is in a file, if another can be written beside it; else why not."""
    try:
        beside = Path(f"{path}-{uuid.uuid4().hex}")
        beside.touch()
        beside.unlink()
        return Path(path).read_text()
    except OSError as error:
        return str(error)


@contextmanager
def explained(what: str, address: str) -> Iterator[None]:
    """Turn what dask says of lost work into errors that say what to do."""
    from distributed import KilledWorker
    from distributed.comm import CommClosedError

    try:
        yield
    except KilledWorker as error:
        raise ComputeError(
            f"{what}: worker after worker died while at it",
            where=address,
            found=str(error),
            remedy="most often memory: start workers with fewer threads each (--nthreads), give "
            "them more (--memory-limit), or lower tile_px or max_pixels_per_step",
        ) from error
    except (CommClosedError, CancelledError, TimeoutError) as error:
        raise LostConnection(
            f"{what}: the connection to the dask scheduler broke",
            where=address,
            found=f"{type(error).__name__}: {error}",
            remedy="see whether the scheduler still runs; then run this step again",
        ) from error


def train(
    client: Client,
    cluster: Cluster,
    spec: TrainingSpec,
    *,
    own_threads: bool,
    note: str,
    say: Callable[[str], None],
    epoch: Callable[[int, int, dict[str, float]], None],
) -> dict[str, Any]:
    """`training.run.train` on a worker, from its last epoch on another one should that die.

    Args:
        own_threads: let the worker decide how many threads a training takes.
        note: who trains.
        say, epoch: called here, in this thread, with what the worker reports.

    Raises:
        What the training raises, ComputeError, LostConnection.
    """
    return _watched(
        client,
        cluster,
        (_train_here, spec.to_json(), note, own_threads),
        f"training member {spec.member}",
        say=say,
        epoch=epoch,
    )


def train_student(
    client: Client,
    cluster: Cluster,
    spec: StudentSpec,
    *,
    own_threads: bool,
    note: str,
    say: Callable[[str], None],
    step: Callable[[int, int, dict[str, Any]], None],
) -> dict[str, Any]:
    """`student.run.train` on a worker, as `train` does it; every few steps stand for an epoch.

    Raises: as `train`.
    """
    work = (_student_here, spec.to_json(), note, own_threads)
    return _watched(client, cluster, work, "training a student", say=say, epoch=step)


def _watched(
    client: Client,
    cluster: Cluster,
    work: tuple[Callable[..., dict[str, Any]], str, str, bool],
    what: str,
    *,
    say: Callable[[str], None],
    epoch: Callable[[int, int, dict[str, float]], None],
) -> dict[str, Any]:
    """A training on a worker, listened to until it ends.

    Args:
        work: what to call there, the specification, who trains, and whether the worker decides on
            threads.
        what: it is, for messages.
    """
    here, text, note, own_threads = work
    topic = f"popcorn-training-{uuid.uuid4().hex}"
    told: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    client.subscribe_topic(topic, lambda event: told.put(event[1]))

    def pass_on(timeout: float) -> bool:
        try:
            message = told.get(timeout=timeout)
        except queue.Empty:
            return False
        say(message["say"]) if "say" in message else epoch(*message["epoch"])
        return True

    future = client.submit(
        here,
        text,
        topic,
        note,
        own_threads,
        key=topic,
        pure=False,
        resources=cluster.resources or None,
    )
    patience = _Patience(client, cluster, say)
    try:
        with explained(what, cluster.address):
            while not future.done():
                pass_on(0.5)
                patience.check()
            result = future.result(timeout=CONNECT_SECONDS)
        while pass_on(0.2):
            pass
        return result
    finally:
        # A worker cannot be made to stop at once: it sees at its next epoch that nobody waits.
        future.cancel(force=True)
        client.unsubscribe_topic(topic)


class _Patience:
    """Wait for workers to come back, but not for ever."""

    def __init__(self, client: Client, cluster: Cluster, say: Callable[[str], None]) -> None:
        self.client, self.cluster, self.say = client, cluster, say
        self.looked = self.seen = time.monotonic()
        self.told = False

    def check(self) -> None:
        """Look every few seconds whether anybody can do the work.

        Raises:
            ComputeError: nobody could for too long.
        """
        now = time.monotonic()
        if now - self.looked < 5:
            return
        self.looked = now
        workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        needed = self.cluster.resources
        if any(all(w["resources"].get(n, 0) >= v for n, v in needed.items()) for w in workers):
            self.seen, self.told = now, False
            return
        if not self.told:
            self.say("no worker of the cluster is left to do this: waiting for one")
            self.told = True
        if now - self.seen > NO_WORKER_SECONDS:
            raise ComputeError(
                "no worker of the cluster is left",
                where=self.cluster.address,
                found=f"none for {NO_WORKER_SECONDS:.0f} s",
                remedy="start workers, then re-execute from failure: it goes on where it was",
            )


def _train_here(text: str, topic: str, note: str, own_threads: bool) -> dict[str, Any]:
    """On a worker: train, telling whoever listens to the topic."""
    from popcorn_ml.training.run import train as train_member

    worker, say, epoch = _telling(topic)
    spec = TrainingSpec.from_json(text)
    if own_threads:
        spec = replace(spec, threads=worker.state.nthreads)
    say(f"training on worker {worker.address} ({socket.gethostname()})")
    return train_member(spec, epoch, note=f"{note} on {worker.address}", say=say)


def _student_here(text: str, topic: str, note: str, own_threads: bool) -> dict[str, Any]:
    """On a worker: train a student, as `_train_here` a member."""
    from popcorn_ml.student.run import train as train_student
    from popcorn_ml.student.spec import StudentSpec

    worker, say, step = _telling(topic)
    spec = StudentSpec.from_json(text)
    if own_threads:
        spec = replace(spec, threads=worker.state.nthreads)
    say(f"training a student on worker {worker.address} ({socket.gethostname()})")
    return train_student(spec, step, note=f"{note} on {worker.address}", say=say)


def _telling(
    topic: str,
) -> tuple[Any, Callable[[str], None], Callable[[int, int, dict[str, float]], None]]:
    """On a worker: itself, and what tells whoever listens to a topic."""
    from distributed import get_worker

    worker = get_worker()
    key = worker.get_current_task()

    def say(message: str) -> None:
        worker.log_event(topic, {"say": message})

    def epoch(done: int, total: int, metrics: dict[str, float]) -> None:
        worker.log_event(topic, {"epoch": [done, total, metrics]})
        task = worker.state.tasks.get(key)
        if task is None or task.state == "cancelled":
            raise Abandoned(f"nobody waits for {key}")

    return worker, say, epoch
