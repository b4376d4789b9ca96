"""The same work from every launcher, to the same bytes; and how a launched process can end."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster import DagsterEventType

from popcorn_assets.resources import ComputeResource, compute_resource, steps_at_once
from popcorn_assets.runs import launch
from popcorn_ml.errors import ConfigError
from tests.training.places import block_units, write_place

pytestmark = [pytest.mark.long(40), pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
INLINE, SUBPROCESS = (ComputeResource(device="cpu", launcher=n) for n in ("inline", "subprocess"))


@pytest.fixture(autouse=True)
def _own_store(tmp_path, monkeypatch):
    monkeypatch.setenv("POPCORN_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return write_place(tmp_path_factory.mktemp("place"), block_units(40, 60, 1, 3))


def run(body, instance=None):
    """A run of one op, and what the op's body gave."""
    kept = {}

    @dg.op
    def work(context: dg.OpExecutionContext) -> None:
        kept["result"] = body(context)

    @dg.job
    def alone():
        work()

    with dg.instance_for_test() if instance is None else instance as used:
        result = alone.execute_in_process(instance=used, raise_on_error=False)
        lines = [e.user_message for e in used.all_logs(result.run_id) if not e.is_dagster_event]
    return result, kept.get("result"), lines


def failure(result) -> str:
    (event,) = [e for e in result.all_events if e.event_type == DagsterEventType.STEP_FAILURE]
    return event.step_failure_data.user_failure_data.description


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}


def test_a_member_is_the_same_from_a_process_of_its_own(place):
    results = {}
    for compute in (INLINE, SUBPROCESS):
        spec = place.spec(compute.launcher, epochs=2)
        done, results[compute.launcher], lines = run(
            lambda context, c=compute, s=spec: launch.train_member(context, c, s)
        )
        assert done.success
        assert [line for line in lines if line.startswith("epoch 2 of 2: train loss")]
    inline, process = (
        contents(Path(place.spec("inline").out)),
        contents(Path(place.spec("subprocess").out)),
    )
    assert set(inline) >= {"occupancy.safetensors", "history.json", "loss.png"}
    assert inline == process
    for result in results.values():
        for told in ("seconds", "weights", "figure"):
            del result[told]
    assert results["inline"] == results["subprocess"]
    assert results["inline"]["metrics"]["epoch"] == results["inline"]["best_epoch"]


def test_maps_are_the_same_from_a_process_of_its_own(tmp_path):
    from popcorn_ml.mapping.builtup import BuiltupSpec
    from popcorn_ml.model.weights import save_extractor
    from tests.mapping.places import an_extractor
    from tests.mapping.test_predict import a_spec

    spec = a_spec(tmp_path, (40, 60), tile_px=32)
    weights = save_extractor(an_extractor(), tmp_path / "extractor.safetensors", {"name": "test"})
    builtup = BuiltupSpec(spec.composites, weights, spec.grid, Path(), tile_px=32, device="cpu")
    maps = {}
    for compute in (INLINE, SUBPROCESS):
        folder = tmp_path / compute.launcher

        def body(context, compute=compute, folder=folder):
            tiles = lambda done, total: None  # noqa: E731
            launch.map_builtup(context, compute, replace(builtup, out=folder / "b.tif"), tiles)
            launch.map_population(context, compute, replace(spec, out=folder), tiles)

        done, _, _ = run(body)
        assert done.success
        maps[compute.launcher] = contents(folder)
    assert len(maps["inline"]) == 6
    assert maps["inline"] == maps["subprocess"]


@pytest.mark.parametrize("compute", [INLINE, SUBPROCESS], ids=["inline", "subprocess"])
def test_bad_input_says_in_the_run_what_is_wrong_with_it(place, tmp_path, compute):
    spec = replace(place.spec("bad"), counts=str(tmp_path / "nowhere.json"))
    done, _, _ = run(lambda context: launch.train_member(context, compute, spec))
    assert not done.success
    said = failure(done)
    assert "nowhere.json" in said
    assert "status" not in said
    (event,) = [e for e in done.all_events if e.event_type == DagsterEventType.STEP_FAILURE]
    assert "CensusError" in event.step_failure_data.error.cause.message


def test_a_member_that_another_run_trains_is_waited_for(place):
    from popcorn_ml.training.run import LOCK_FILE

    spec = place.spec("shared", epochs=1)
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from popcorn_ml.compute.locks import held\n"
        "with held(Path(sys.argv[1]), 'run 1234abcd, step x'):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(3)\n"
    )
    import popcorn_ml.training.fit  # noqa: F401  imported slowly, while the other would go on

    def body(context):
        command = [sys.executable, "-c", program, str(Path(spec.work) / LOCK_FILE)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout.readline() == "held\n"
            result = launch.train_member(context, INLINE, spec)
            assert other.poll() == 0
        return result

    done, _, lines = run(body)
    assert done.success
    (waited,) = [line for line in lines if "is being trained by" in line]
    assert "run 1234abcd, step x: waiting for it to end" in waited


def ended(context, *command: str):
    with launch._failing_once(context):
        return launch.run_process(context, command, "{}", "the process that tests")


def test_a_killed_process_is_said_to_have_been_killed():
    done, _, _ = run(lambda context: ended(context, "sh", "-c", "kill -9 $$"))
    assert "the process that tests was killed by signal 9, SIGKILL (out of memory?)" in failure(
        done
    )
    assert "re-execute the run from failure" in failure(done)
    done, _, _ = run(lambda context: ended(context, "sh", "-c", "kill -11 $$"))
    assert "signal 11, SIGSEGV\n" in failure(done)


def test_a_mistake_of_ours_shows_its_traceback(tmp_path):
    program = (
        "from popcorn_ml.compute.command import run_command\n"
        "def work(text, path, report): raise KeyError('a mistake')\n"
        "raise SystemExit(run_command('test', None, work))\n"
    )
    (tmp_path / "program.py").write_text(program)
    done, _, _ = run(lambda context: ended(context, sys.executable, str(tmp_path / "program.py")))
    assert "KeyError: 'a mistake'" in failure(done)
    assert "status 1" in failure(done)


RUN = """
import os, dagster as dg
from popcorn_assets.runs import launch

launch.END_SECONDS = 1.0

@dg.op
def work(context: dg.OpExecutionContext) -> None:
    launch.run_process(context, os.environ["COMMAND"].split(), "{}", "the process that tests")

@dg.job
def alone():
    work()

if __name__ == "__main__":
    with dg.DagsterInstance.get() as instance:
        dg.execute_job(dg.reconstructable(alone), instance, raise_on_error=False)
"""

STUBBORN = """
import os, signal, subprocess, sys, time
from popcorn_ml.compute.command import run_command

def work(text, path, report):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    open(sys.argv[0] + ".pids", "w").write(f"{os.getpid()} {child.pid}")
    time.sleep(600)

run_command("test", None, work)
"""


def launched(tmp_path: Path) -> tuple[subprocess.Popen, list[psutil.Process]]:
    """A run by the multiprocess executor, and what its step launched, with a child, at work."""
    program, code = tmp_path / "stubborn.py", tmp_path / "run.py"
    program.write_text(STUBBORN)
    code.write_text(RUN)
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    runner = subprocess.Popen(
        [sys.executable, str(code)],
        cwd=tmp_path,
        env={
            **os.environ,
            "DAGSTER_HOME": str(tmp_path),
            "PYTHONPATH": str(ROOT),
            "COMMAND": f"{sys.executable} {program}",
        },
        stderr=subprocess.DEVNULL,
    )
    pids = Path(f"{program}.pids")
    until = time.monotonic() + 120
    while not (pids.exists() and len(pids.read_text().split()) == 2):
        assert time.monotonic() < until
        assert runner.poll() is None
        time.sleep(0.05)
    return runner, [psutil.Process(int(pid)) for pid in pids.read_text().split()]


def test_a_cancelled_run_ends_its_process_and_that_ones_children(tmp_path):
    runner, processes = launched(tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        (run,) = instance.get_runs()
        instance.report_run_canceling(run)  # as the UI's button does
        runner.send_signal(signal.SIGTERM)
        assert runner.wait(60) is not None
        _, alive = psutil.wait_procs(processes, timeout=10)
        assert alive == []
        assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.CANCELED


def test_a_process_does_not_outlive_a_killed_step(tmp_path):
    runner, processes = launched(tmp_path)
    step = processes[0].parent()
    assert step.pid != runner.pid
    step.kill()
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert alive == []
    assert runner.wait(60) is not None
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        (run,) = instance.get_runs()
        assert run.status == dg.DagsterRunStatus.FAILURE


def test_a_gpu_goes_to_one_process_and_stays_its_own(tmp_path, monkeypatch):
    """With a driver that says there are two; what runs is told which one it may see."""
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text('#!/bin/sh\nfor i in 0 1; do echo "GPU $i: Test (UUID: GPU-$i-abc)"; done\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    seen = tmp_path / "seen"

    def body(context):
        with launch._gpu(context, "auto") as first, launch._gpu(context, "auto") as second:
            assert [first.name, second.name] == ["GPU-0-abc", "GPU-1-abc"]
            for claim in (second, first):
                command = ["sh", "-c", f'echo "$CUDA_VISIBLE_DEVICES" >> {seen}; exit 3']
                with pytest.raises(Exception, match="status 3"):
                    launch.run_process(context, command, "{}", "the process", claim)

    done, _, lines = run(body)
    assert done.success
    assert seen.read_text().split() == ["GPU-1-abc", "GPU-0-abc"]
    assert "on GPU GPU-0-abc" in lines


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"device": "gpu"}, "auto, cpu, cuda or cuda:N"),
        ({"device": "cuda:x"}, "auto, cpu, cuda or cuda:N"),
        ({"precision": "float16"}, "float32 or bfloat16"),
        ({"launcher": "ray"}, "subprocess or inline or dask"),
        ({"threads": -1}, "0 or more"),
        ({"launcher": "dask", "device": "cuda:1"}, "CUDA_VISIBLE_DEVICES=N dask worker"),
    ],
)
def test_settings_that_cannot_be_are_refused_at_once(settings, words):
    with pytest.raises(ConfigError, match="found") as raised:
        ComputeResource(**settings)
    assert words in str(raised.value)


def test_the_environment_sets_the_resource(monkeypatch):
    for name, value in {"DEVICE": "cpu", "THREADS": "3", "LAUNCHER": "inline"}.items():
        monkeypatch.setenv(f"POPCORN_{name}", value)
    found = compute_resource()
    assert (found.device, found.thread_count(), found.launcher) == ("cpu", 3, "inline")
    monkeypatch.setenv("POPCORN_THREADS", "many")
    with pytest.raises(ConfigError, match="POPCORN_THREADS"):
        compute_resource()
    monkeypatch.setenv("POPCORN_STEPS", "12")
    assert steps_at_once() == 12
    monkeypatch.setenv("POPCORN_STEPS", "-1")
    with pytest.raises(ConfigError, match="POPCORN_STEPS"):
        steps_at_once()


def first_step(compute: dict) -> tuple[bool, str]:
    """A season's step of the real graph, which uses the resource but no network."""
    from popcorn_assets.definitions import defs

    with dg.instance_for_test() as instance:
        result = defs.resolve_job_def("ingest").execute_in_process(
            asset_selection=[dg.AssetKey("s1_spring")],
            partition_key=dg.MultiPartitionKey({"country": "demo", "year": "2020"}),
            instance=instance,
            run_config={"resources": {"compute": {"config": compute}}},
            raise_on_error=False,
        )
    events = [
        e for e in result.all_events if e.event_type == DagsterEventType.RESOURCE_INIT_FAILURE
    ]
    return result.success, "".join(e.event_specific_data.error.message for e in events)


def test_a_gpu_that_is_not_there_is_missed_before_any_imagery():
    for device in ("cuda:7", "cuda:99"):
        success, said = first_step({"device": device})
        assert not success
        assert "there is no such GPU on this machine" in said
        assert "set device to auto or cpu" in said
    success, said = first_step({"launcher": "dask"})
    assert not success
    assert "POPCORN_SCHEDULER" in said


def test_what_a_step_left_and_lost_is_named(tmp_path):
    from popcorn_assets.store.step_values import JsonIOManager

    @dg.op
    def gives() -> dict:
        return {"a": 1}

    @dg.op(ins={"after": dg.In(dg.Nothing)})
    def loses() -> None:
        (left,) = (tmp_path / "data" / ".work" / "steps").rglob("*.json")
        assert json.loads(left.read_text()) == {"a": 1}
        left.unlink()

    @dg.op(ins={"given": dg.In(dict), "after": dg.In(dg.Nothing)})
    def takes(given) -> None: ...

    @dg.job(resource_defs={"io_manager": JsonIOManager()})
    def three():
        made = gives()
        takes(given=made, after=loses(made))

    with dg.instance_for_test() as instance:
        result = three.execute_in_process(instance=instance, raise_on_error=False)
    (event,) = [e for e in result.all_events if e.event_type == DagsterEventType.STEP_FAILURE]
    assert event.step_key == "takes"
    said = event.step_failure_data.error.cause.message
    assert "what step gives of run" in said
    assert "start a new run of this partition" in said
