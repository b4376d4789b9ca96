"""What is shown never fails what runs: signs, readers and disks that are not there."""

import io
import json
import os
import subprocess
import sys
import uuid
from contextlib import suppress
from pathlib import Path

import dagster as dg
import pytest
from dagster_pipes import PipesMappingParamsLoader, encode_param, open_dagster_pipes
from rich.console import Console
from rich.progress import Progress

from popcorn_assets.commands.console import Unfailing, writable
from popcorn_assets.commands.progress import printing
from popcorn_ml.compute.command import Report

ROOT = Path(__file__).resolve().parents[2]


@dg.op
def survey(context: dg.OpExecutionContext) -> None:
    context.log.info("Bắc Ninh, Kırşehir → 3")


@dg.op
def fails() -> None:
    raise RuntimeError("gone")


@dg.job
def fine():
    survey()


@dg.job
def broken():
    fails()


@pytest.fixture(scope="module")
def instance():
    with dg.instance_for_test() as instance:
        yield instance


def shown(instance, stream, job=fine) -> bool:
    """Run a job while its events are printed to a stream; whether it succeeded."""
    console, run_id = Console(file=Unfailing(stream), width=110), str(uuid.uuid4())
    with printing(instance, run_id, console):
        result = job.execute_in_process(instance=instance, run_id=run_id, raise_on_error=False)
    with Progress(console=console) as bar:
        bar.update(bar.add_task("tiles", total=2), completed=2)
    return result.success


@pytest.mark.parametrize(
    ("encoding", "line"),
    [("utf-8", "✓ survey"), ("iso-8859-1", "ok survey"), ("ascii", "ok survey"),
     ("cp1252", "ok survey"), ("koi8-r", "ok survey")],
)  # fmt: skip
def test_signs_that_a_log_cannot_hold(instance, tmp_path, encoding, line):
    with open(tmp_path / "log", "w", encoding=encoding) as stream:
        assert shown(instance, stream)
    said = (tmp_path / "log").read_text(encoding)
    assert line in said
    assert ("Bắc Ninh" if encoding == "utf-8" else "B?c Ninh") in said


def test_a_failed_step_in_plain_letters(instance, tmp_path):
    with open(tmp_path / "log", "w", encoding="iso-8859-1") as stream:
        assert not shown(instance, stream, broken)
    assert "failed fails" in (tmp_path / "log").read_text("iso-8859-1")


def test_a_full_disk_a_closed_stream_and_a_reader_that_is_gone(instance):
    reader, writer = os.pipe()
    os.close(reader)
    with open("/dev/full", "w") as full, os.fdopen(writer, "w") as pipe:
        assert shown(instance, full)
        assert shown(instance, pipe)
    closed = io.TextIOWrapper(io.BytesIO())
    gone = Unfailing(closed)
    closed.close()
    assert gone.write("x") == 1
    gone.flush()


def test_what_a_terminal_has_stays():
    assert writable("Côte d'Ivoire ✓", "iso-8859-1") == "Côte d'Ivoire ?"
    assert writable("Bắc ✓", "utf-8") == "Bắc ✓"


def test_a_step_outlives_its_log(tmp_path, monkeypatch):
    data = dict.fromkeys(
        ("asset_keys", "code_version_by_asset_key", "provenance_by_asset_key", "partition_key",
         "partition_key_range", "partition_time_window", "job_name", "extras")
    )  # fmt: skip
    data |= {"run_id": "1", "retry_number": 0}
    told = tmp_path / "messages"
    loader = PipesMappingParamsLoader(
        {
            "DAGSTER_PIPES_CONTEXT": encode_param({"data": data}),
            "DAGSTER_PIPES_MESSAGES": encode_param({"path": str(told)}),
        }
    )
    full = open("/dev/full", "w")  # noqa: SIM115  closing it fails as well
    with open_dagster_pipes(params_loader=loader) as pipes, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        report = Report(pipes)
        report.tiles(1, 2)
        report.result({"loss": 1.0})
    with suppress(OSError):
        full.close()
    messages = [json.loads(line) for line in told.read_text().splitlines()]
    assert {"payload": {"result": {"loss": 1.0}}} in [m["params"] for m in messages]
    with pytest.raises(OSError, match="No space"), open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        Report().result({"loss": 1.0})  # nobody else is told of it


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    code = "import sys; from popcorn_assets.cli import main; sys.argv[0] = 'popcorn'; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        timeout=120,
    )


def test_commands_speak_to_any_terminal_and_json_loses_no_sign(place):
    name = "Việt Nam"
    packaged = (ROOT / "popcorn_assets" / "countries" / "demo.yaml").read_text("utf-8")
    lines = [f"name: {name}" if x.startswith("name:") else x for x in packaged.splitlines()]
    (place.home / "countries" / "vnm.yaml").write_text("\n".join(lines), "utf-8")
    said = command("countries", PYTHONIOENCODING="iso-8859-1:strict", PYTHONUTF8="0")
    assert said.returncode == 0, said.stderr
    assert "Vi?t Nam" in said.stdout.decode("iso-8859-1")
    said = command("models", "demo", "--json", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert json.loads(said.stdout.decode("utf-8"))["country"] == "demo"


def test_a_command_in_the_background_of_a_script_can_be_asked_to_end():
    """Scripts start those with Ctrl-C ignored, and Dagster gives SIGTERM the same handler."""
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from popcorn_assets.cli import main; sys.argv = ['popcorn', '--version']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(signal.getsignal(signal.SIGINT) == signal.SIG_IGN)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert said.stdout.splitlines()[-1] == "False", said.stderr
