"""What tiles are computed in: settings of a GPU that threads share, and how many are at work.

No GPU is needed: its settings are torch's own, of the whole process, wherever it runs.
"""

from __future__ import annotations

import threading
import time

import pytest
import torch

from popcorn_ml.mapping.engine.on_torch import arithmetic
from popcorn_ml.mapping.tiles import TILES_ON_A_GPU, each_tile

GPU = torch.device("cuda")
EXACT = (True, False, True, False, "highest")


def settings() -> tuple:
    cudnn = torch.backends.cudnn
    return (
        cudnn.enabled,
        cudnn.benchmark,
        cudnn.deterministic,
        cudnn.allow_tf32,
        torch.get_float32_matmul_precision(),
    )


@pytest.fixture(params=["as torch has them", "all fast"])
def before(request):
    """What the process had set, which must be so again afterwards."""
    cudnn = torch.backends.cudnn
    kept = cudnn.benchmark, torch.get_float32_matmul_precision()
    if request.param == "all fast":
        cudnn.benchmark = True
        torch.set_float32_matmul_precision("medium")
    assert settings() != EXACT
    yield settings()
    cudnn.benchmark = kept[0]
    torch.set_float32_matmul_precision(kept[1])


def look(seen: list, seconds: float) -> None:
    """Note the settings while a tile of some length is computed."""
    with arithmetic(GPU, "float32"):
        for _ in range(3):
            seen.append(settings())
            time.sleep(seconds / 3)
        seen.append(settings())
        assert torch.is_inference_mode_enabled()


def test_float32_is_exact_in_every_thread_until_its_tile_is_done(before):
    """A thread that was done put TF32 back while others still computed."""
    seen: list[tuple] = []
    lengths = [0.03, 0.001, 0.02, 0.005] * 6
    list(each_tile(lambda seconds: look(seen, seconds), lengths, 8, on_gpu=True))
    assert len(seen) == 4 * len(lengths)
    assert set(seen) == {EXACT}
    assert settings() == before


def test_settings_are_as_before_when_a_tile_fails(before):
    seen: list[tuple] = []

    def work(number: int) -> None:
        look(seen, 0.005)
        with arithmetic(GPU, "float32"):
            if number == 5:
                raise ValueError("unreadable")

    with pytest.raises(ValueError, match="unreadable"):
        list(each_tile(work, range(20), 4, on_gpu=True))
    assert set(seen) == {EXACT}
    assert settings() == before


def test_workers_of_another_process_with_several_threads_hold_to_it_too(before):
    """Threads of an executor that nobody counted, such as a dask worker's."""
    seen: list[tuple] = []
    threads = [threading.Thread(target=look, args=(seen, 0.01 * n)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 16
    assert set(seen) == {EXACT}
    assert settings() == before


def test_tiles_on_a_cpu_leave_the_settings_alone(before):
    with arithmetic(torch.device("cpu"), "float32"):
        assert settings() == before


@pytest.mark.parametrize(
    ("device", "at_work"), [(GPU, TILES_ON_A_GPU), (torch.device("cpu"), 12), (None, 12)]
)
def test_tiles_at_work_with_a_gpu_do_not_grow_with_the_cores(device, at_work):
    """Each holds a tile's pixels in memory; and one at a time is on the GPU."""
    lock = threading.Lock()
    reading = computing = 0
    most_read = most_computed = 0

    def work(_: int) -> None:
        nonlocal reading, computing, most_read, most_computed
        with lock:
            reading += 1
            most_read = max(most_read, reading)
        time.sleep(0.02)
        with arithmetic(device or torch.device("cpu"), "float32"):
            with lock:
                computing += 1
                most_computed = max(most_computed, computing)
            time.sleep(0.002)
            with lock:
                computing -= 1
        with lock:
            reading -= 1

    list(each_tile(work, range(36), 12, on_gpu=device == GPU))
    assert most_read == at_work
    if device == GPU:
        assert most_computed == 1
