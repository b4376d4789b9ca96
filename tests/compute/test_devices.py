"""GPUs taken one by one, between real processes, on a machine that is said to have some."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from popcorn_ml.compute.devices import claimed, gpus, require_device
from popcorn_ml.compute.locks import held, holder, try_lock
from popcorn_ml.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
FOUR = [f"GPU-{i}" for i in range(4)]

HOLDER = """
import sys, time
from pathlib import Path
from popcorn_ml.compute.devices import claimed
with claimed("auto", Path(sys.argv[1]), note=sys.argv[2], present=lambda: sys.argv[3].split()) as c:
    print(c.name, flush=True)
    time.sleep(600)
"""


def holders(folder: Path, count: int) -> list[tuple[subprocess.Popen, str]]:
    """Processes that each hold a GPU, and which."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(folder), f"holder {i}", " ".join(FOUR)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(count)
    ]
    return [(process, process.stdout.readline().strip()) for process in started]


def test_four_processes_get_four_gpus_and_a_fifth_waits_for_one(tmp_path):
    made = holders(tmp_path, 4)
    try:
        assert sorted(name for _, name in made) == FOUR
        victim, freed = made[2]
        told = []

        def waiting(what: str) -> None:
            told.append(what)
            victim.kill()  # a killed process gives its GPU back

        with claimed("auto", tmp_path, waiting=waiting, present=lambda: FOUR) as claim:
            assert claim.name == freed
            assert claim.index == FOUR.index(freed)
        assert len(told) == 1
        assert "all 4 GPUs are taken" in told[0]
        assert "holder " in told[0]
    finally:
        for process, _ in made:
            process.kill()
            process.wait()
            process.stdout.close()


def test_a_gpu_stays_taken_while_a_process_that_inherited_it_lives(tmp_path):
    with claimed("cuda", tmp_path, present=lambda: ["GPU-0"]) as claim:
        child = subprocess.Popen(["sleep", "600"], pass_fds=[claim.lock])
    try:
        (path,) = tmp_path.iterdir()
        assert try_lock(path) is None
    finally:
        child.kill()
        child.wait()
    lock = try_lock(path)
    assert lock is not None
    os.close(lock)


def test_which_gpu(tmp_path):
    with claimed("cuda:2", tmp_path, present=lambda: FOUR) as claim:
        assert (claim.name, claim.index) == ("GPU-2", 2)
    with claimed("cpu", tmp_path, present=lambda: FOUR) as claim:
        assert claim is None
    with claimed("auto", tmp_path, present=list) as claim:
        assert claim is None
    for device, present in (("cuda:4", FOUR), ("cuda", [])):
        with (
            pytest.raises(ConfigError, match="no such GPU"),
            claimed(device, tmp_path, present=lambda found=present: found),
        ):
            raise AssertionError
    with pytest.raises(ConfigError, match="no such kind"):
        require_device("gpu")


LISTING = """\
GPU 0: NVIDIA A100 (UUID: GPU-aaa)
GPU 1: NVIDIA A100 (UUID: GPU-bbb)
  MIG 1g.5gb Device 0: (UUID: MIG-111)
  MIG 1g.5gb Device 1: (UUID: MIG-222)
"""


def test_what_the_driver_says(tmp_path, monkeypatch):
    """Whole GPUs and the parts of a divided one; CUDA_VISIBLE_DEVICES takes some away."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\ncat <<'END'\n{LISTING}END\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus() == ["GPU-aaa", "MIG-111", "MIG-222"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-222")
    assert gpus() == ["MIG-222"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus() == []


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("0", ["GPU-aaa"]),
        ("2, 0", ["GPU-abc", "GPU-aaa"]),
        ("GPU-aaa,0", ["GPU-aaa"]),
        ("GPU-ab", ["GPU-abc"]),
        ("GPU-a", []),  # two begin so
        ("1", ["MIG-111"]),  # a process sees a divided GPU's first part
        ("GPU-bbb", ["MIG-111"]),
        ("MIG-22,1", ["MIG-222", "MIG-111"]),
        ("0,7,2", ["GPU-aaa"]),  # what follows a GPU that is not there is hidden
        ("0,-1,2", ["GPU-aaa"]),
        ("NoDevFiles", []),
    ],
)
def test_a_gpu_has_one_name_however_it_is_called(tmp_path, monkeypatch, named, expected):
    tool = tmp_path / "nvidia-smi"
    listing = f"{LISTING}GPU 2: NVIDIA A100 (UUID: GPU-abc)\n"
    tool.write_text(f"#!/bin/sh\ncat <<'END'\n{listing}END\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert gpus() == expected


def test_a_gpu_called_by_its_number_is_taken_for_those_who_see_its_uuid(tmp_path, monkeypatch):
    tool, locks = tmp_path / "nvidia-smi", tmp_path / "locks"
    tool.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA A100 (UUID: GPU-aaa)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    class Taken(Exception):
        pass

    def waiting(_: str) -> None:
        raise Taken

    with claimed("auto", locks) as claim:
        assert claim.name == "GPU-aaa"
        for named in ("0", "GPU-a", "GPU-aaa"):
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
            with pytest.raises(Taken), claimed("cuda:0", locks, waiting=waiting):
                raise AssertionError


def test_a_lock_names_its_holder_and_is_waited_for(tmp_path):
    path = tmp_path / "some" / "where.lock"
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from popcorn_ml.compute.locks import held\n"
        "with held(Path(sys.argv[1]), 'run 1234'):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(1)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        told, begin = [], time.monotonic()
        with held(path, "run 5678", told.append):
            assert told == ["run 1234"]
            assert holder(path) == "run 5678"
            assert time.monotonic() - begin > 0.3


def test_a_lock_whose_file_is_removed_meanwhile_is_taken_anew(tmp_path):
    path = tmp_path / "a.lock"
    first = try_lock(path, "first")
    path.unlink()
    second = try_lock(path, "second")
    assert first is not None
    assert second is not None
    assert holder(path) == "second"
    os.close(first)
    os.close(second)
