"""Where the heavy work of a step runs: in a process of its own, in this one, or on a cluster.

Assets and ops call `train_member`, `train_student`, `map_population` and `map_builtup` and get the
same result from each launcher, bit for bit. A process is launched through Dagster Pipes: it reports
its log, its metrics and its result to the run, ends when the run is cancelled or its step dies, and
is named when something killed it. What is computed is popcorn_ml's business.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster import PipesTempFileContextInjector, PipesTempFileMessageReader, open_pipes_session

from popcorn_assets.paths import data_root
from popcorn_assets.resources import ComputeResource
from popcorn_assets.runs.retry import again_later
from popcorn_ml.compute.command import LAUNCHED_BY, LIFELINE, restored
from popcorn_ml.compute.devices import VISIBLE, Claim, claimed
from popcorn_ml.errors import ComputeError, PopcornError
from popcorn_ml.training.spec import TrainingSpec

if TYPE_CHECKING:
    from popcorn_ml.launching.cluster import Cluster
    from popcorn_ml.mapping.builtup import BuiltupSpec
    from popcorn_ml.mapping.predict import MappingSpec
    from popcorn_ml.mapping.tiles import Written
    from popcorn_ml.parallel import Pool
    from popcorn_ml.student.spec import StudentSpec

Context = dg.OpExecutionContext | dg.AssetExecutionContext
Tiles = Callable[[int, int], None]

END_SECONDS = 10.0
"""How long a process may take to end when it is asked to, before it is made to."""

RECONNECTIONS = 3
RECONNECT_SECONDS = 30
"""How often, and after how long, a step tries again when a connection broke."""

MEMORY_REMEDY = (
    "if the machine ran out of memory (its kernel's log says so): lower the pool gpu, the "
    "resource's threads, training.max_pixels_per_step or mapping.tile_px. Then re-execute the run "
    "from failure; a member goes on from its last epoch"
)


def train_member(context: Context, compute: ComputeResource, spec: TrainingSpec) -> dict[str, Any]:
    """Train one member where the resource says; what `popcorn_ml.training.run.train` gives.

    Raises:
        Failure: an input that cannot be used, or a process that did not end well; not retried.
        RetryRequested: the connection to a cluster broke.
    """
    from popcorn_ml.training.run import epoch_text, train

    def epoch(done: int, total: int, metrics: dict[str, float]) -> None:
        context.log.info(epoch_text(done, total, metrics))

    note, say = _note(context), context.log.info
    with _failing_once(context):
        if compute.launcher == "dask":
            from popcorn_ml.launching import cluster

            with _cluster(compute) as (client, workers):
                return cluster.train(
                    client,
                    workers,
                    spec,
                    own_threads=not compute.threads,
                    note=note,
                    say=say,
                    epoch=epoch,
                )
        with _gpu(context, spec.device) as claim:
            if compute.launcher == "inline":
                here = replace(spec, device=_here(claim, spec.device))
                return train(here, epoch, note=note, say=say)
            there = replace(spec, device=_there(claim, spec.device))
            command = [sys.executable, "-m", "popcorn_ml.training"]
            what = f"the process that trains member {spec.member} (seed {spec.seed})"
            return run_process(context, command, there.to_json(), what, claim)


def train_student(
    context: Context, compute: ComputeResource, spec: StudentSpec, progress: Tiles
) -> dict[str, Any]:
    """`popcorn_ml.student.run.train` where the resource says.

    Args:
        progress: called with steps done and steps, of all of its trainings.

    Raises: as `train_member`.
    """
    note, say = _note(context), context.log.info

    def step(done: int, total: int, _: dict[str, Any]) -> None:
        progress(done, total)

    with _failing_once(context):
        if compute.launcher == "dask":
            from popcorn_ml.launching import cluster

            with _cluster(compute) as (client, workers):
                return cluster.train_student(
                    client,
                    workers,
                    spec,
                    own_threads=not compute.threads,
                    note=note,
                    say=say,
                    step=step,
                )
        with _gpu(context, spec.device) as claim:
            if compute.launcher == "inline":
                from popcorn_ml.student.run import train

                here = replace(spec, device=_here(claim, spec.device))
                return train(here, step, note=note, say=say)
            there = replace(spec, device=_there(claim, spec.device))
            command = [sys.executable, "-m", "popcorn_ml.student"]
            what = "the process that trains a student"
            return run_process(context, command, there.to_json(), what, claim)


def map_population(
    context: Context, compute: ComputeResource, spec: MappingSpec, progress: Tiles
) -> dict[str, Any]:
    """`popcorn_ml.mapping.predict.map_population` where the resource says; `Written.as_dict`.

    Raises: as `train_member`.
    """

    def here(given: MappingSpec, pool: Pool | None) -> Written:
        from popcorn_ml.mapping import predict

        return predict.map_population(given, progress, pool=pool)

    return _map(context, compute, spec, here, "the process that maps the population")


def map_builtup(
    context: Context, compute: ComputeResource, spec: BuiltupSpec, progress: Tiles
) -> dict[str, Any]:
    """`popcorn_ml.mapping.builtup.run_builtup` where the resource says; `Written.as_dict`.

    Raises: as `train_member`.
    """

    def here(given: BuiltupSpec, pool: Pool | None) -> Written:
        from popcorn_ml.mapping.builtup import run_builtup

        return run_builtup(given, progress, pool=pool)

    return _map(context, compute, spec, here, "the process that maps the built-up area")


def _map(
    context: Context,
    compute: ComputeResource,
    spec: Any,
    here: Callable[[Any, Pool | None], Written],
    what: str,
) -> dict[str, Any]:
    """One map, whichever it is."""
    with _failing_once(context):
        if compute.launcher == "dask":
            from popcorn_ml.launching.cluster import explained

            with _cluster(compute) as (client, workers):
                # Two tiles a slot, so that workers find the next one when they are done.
                given = replace(spec, threads=2 * workers.slots)
                pool = client.get_executor(pure=False, resources=workers.resources or None)
                context.log.info(f"tiles go to {len(workers.workers)} workers of the cluster")
                with explained(what.removeprefix("the process that "), workers.address):
                    return here(given, pool).as_dict()
        with _gpu(context, spec.device) as claim:
            if compute.launcher == "inline":
                return here(replace(spec, device=_here(claim, spec.device)), None).as_dict()
            there = replace(spec, device=_there(claim, spec.device))
            command = [sys.executable, "-m", "popcorn_ml.mapping"]
            return run_process(context, command, there.to_json(), what, claim)


@contextmanager
def tile_pool(
    context: Context, compute: ComputeResource, source: str
) -> Iterator[tuple[Pool | None, int]]:
    """Who fetches the tiles of a season, and how many at once: the cluster's workers, where the
    launcher is dask and other machines can ask the source; else this process (None).

    Raises: as `train_member`.
    """
    from popcorn_ml.imagery.fetching import ELSEWHERE

    if compute.launcher != "dask" or source not in ELSEWHERE:
        yield None, compute.thread_count()
        return
    from popcorn_ml.launching.cluster import connected, examine, explained

    address = compute.scheduler_address()
    with connected(address) as client:
        workers = examine(client, address, "cpu", data_root() / ".work" / "cluster")
        context.log.info(f"tiles go to {len(workers.workers)} workers of the cluster")
        with explained("the composite", address):
            yield client.get_executor(pure=False), 2 * workers.slots


@contextmanager
def _failing_once(context: Context) -> Iterator[None]:
    """Errors as Dagster shall take them: a broken connection is tried again, nothing else is."""
    try:
        with again_later(context, RECONNECTIONS, RECONNECT_SECONDS):
            yield
    except PopcornError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from error


def _note(context: Context) -> str:
    """What others read of who works on something."""
    return f"run {context.run_id[:8]}, step {context.get_step_execution_context().step.key}"


@contextmanager
def _cluster(compute: ComputeResource) -> Iterator[tuple[Any, Cluster]]:
    from popcorn_ml.launching.cluster import connected, examine

    address = compute.scheduler_address()
    with connected(address) as client:
        yield client, examine(client, address, compute.device, data_root() / ".work" / "cluster")


@contextmanager
def _gpu(context: Context, device: str) -> Iterator[Claim | None]:
    """A GPU that no other process of this store works on, where there is one to take."""
    locks = data_root() / ".work" / "gpus"

    def waiting(what: str) -> None:
        context.log.info(f"{what}: waiting for one; the pool gpu lets through more than there are")

    with claimed(device, locks, note=_note(context), waiting=waiting) as claim:
        if claim is not None:
            context.log.info(f"on GPU {claim.name}")
        yield claim


def _here(claim: Claim | None, device: str) -> str:
    """The device of a claim in this very process, which sees all GPUs."""
    if claim is None:
        return device
    import torch

    # A driver is there, but torch may have been built without CUDA: then auto is the CPU.
    return device if device == "auto" and not torch.cuda.is_available() else f"cuda:{claim.index}"


def _there(claim: Claim | None, device: str) -> str:
    """The device of a claim in a process that sees this GPU only."""
    return "cuda" if claim is not None and device != "auto" else device


def run_process(
    context: Context,
    command: Sequence[str],
    spec: str,
    what: str,
    claim: Claim | None = None,
) -> dict[str, Any]:
    """Run a command on a JSON file in a process group of its own; the result that it reports.

    Args:
        command: what to run; the file's path is added.
        spec: what the file says.
        what: "the process that ...", for messages.
        claim: the GPU that it may use; it keeps it to its very end.

    Raises:
        PopcornError: what the process could not use.
        ComputeError: it was killed, or ended in any other way than a result.
    """
    reader = PipesTempFileMessageReader()
    with tempfile.TemporaryDirectory(prefix="popcorn-") as folder:
        path = Path(folder) / "spec.json"
        path.write_text(spec, "utf-8")
        with open_pipes_session(context, PipesTempFileContextInjector(), reader) as session:
            environment = {
                **os.environ,
                **session.get_bootstrap_env_vars(),
                **({VISIBLE: claim.name} if claim else {}),
                "PYTHONUNBUFFERED": "1",
                LAUNCHED_BY: _note(context),
                LIFELINE: "1",
            }
            inherited = (claim.lock,) if claim else ()
            with _process([*command, str(path)], environment, inherited) as process:
                status = process.wait()
    said: dict[str, Any] = {}
    for message in session.get_custom_messages():
        said.update(message)
    if status == 0 and "result" in said:
        return said["result"]
    if "error" in said:
        raise restored(said["error"])
    raise _ended(what, status, said.get("crash"))


@contextmanager
def _process(
    command: list[str], environment: dict[str, str], inherited: tuple[int, ...]
) -> Iterator[subprocess.Popen]:
    """A process group that does not outlive the block, nor the process that opened it.

    Output goes where ours goes, which Dagster keeps as the step's compute log.
    """
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.PIPE,  # at its end, the process knows that we are gone
        pass_fds=inherited,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        _end(process)
        assert process.stdin is not None
        process.stdin.close()


def _end(process: subprocess.Popen) -> None:
    """End a process and its children: asked first, then made to."""
    try:
        if process.poll() is None:
            with suppress(subprocess.TimeoutExpired, ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(END_SECONDS)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # children that stayed behind
        process.wait()


def _ended(what: str, status: int, crash: str | None) -> ComputeError:
    """Why there is no result."""
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = "unknown"
        perhaps = " (out of memory?)" if -status == signal.SIGKILL else ""
        return ComputeError(
            f"{what} was killed by signal {-status}, {name}{perhaps}", remedy=MEMORY_REMEDY
        )
    return ComputeError(
        f"{what} ended with status {status} and no result",
        found=crash or "nothing; what it printed is in the step's compute log",
        remedy="see the step's compute log (stderr)",
    )
