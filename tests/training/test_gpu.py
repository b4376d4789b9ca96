"""The script that measures a GPU: everything it calls runs on a CPU, and agrees with itself."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import gpu


def test_everything_runs_and_the_ways_agree(tmp_path, capsys):
    out = tmp_path / "gpu.json"
    assert gpu.main(["--device", "cpu", "--small", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    rows = {row["what"]: row for row in found["rows"]}
    assert len(rows) == 3 + 5
    assert rows["mapping, float32"]["apart"] < 1e-5
    assert 0 < rows["mapping, bfloat16"]["apart"] < 0.1
    assert rows["training, float32, one member"]["apart"] == 0
    assert 0 < rows["training, bfloat16, one member"]["apart"] < 0.1
    for row in rows.values():
        assert row["pixels_per_s"] > 0
        assert row["of_matrix_peak"] > 0
        assert row["of_copy_bandwidth"] > 0
    assert rows["mapping, published"]["times_published"] == 1
    assert all(name in capsys.readouterr().out for name in ("training, published, one member",))


def test_without_a_gpu_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(["--out", str(tmp_path / "gpu.json")]) == 2
    assert "no CUDA device" in capsys.readouterr().err
    assert not (tmp_path / "gpu.json").exists()


def test_shares_are_of_what_the_card_can_do():
    of = {
        "copy_bytes_per_s": 1e12,
        "float32_operations_per_s": 1e13,
        "bfloat16_operations_per_s": 1e14,
    }
    rows = [
        {"what": "training, published, one member", "pixels_per_s": 1e6},
        {"what": "training, bfloat16, one member", "pixels_per_s": 2e6},
    ]
    plain, half = gpu.with_shares(rows, of)
    assert plain["of_matrix_peak"] == pytest.approx(3 * 1e6 * 36_000 / 1e13)
    assert half["of_matrix_peak"] == pytest.approx(3 * 2e6 * 36_000 / 1e14)
    assert half["times_published"] == 2


@pytest.mark.long(10)
def test_the_tests_that_it_runs_are_found_and_pass_or_say_that_there_is_no_gpu():
    found = gpu.cuda_tests()
    assert found["status"] == 0
    assert ("passed" if torch.cuda.is_available() else "skipped") in found["said"][-1]
    assert (gpu.HERE / "tests" / "compute" / "test_cuda.py").is_file()


def test_tests_that_hang_are_given_up(monkeypatch):
    monkeypatch.setattr(gpu, "TESTS_S", 0.01)
    assert gpu.cuda_tests()["status"] is None
