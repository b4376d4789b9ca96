"""Running the networks tile by tile on this machine: device, precision, threads.

One tile is worked on by one thread of the CPU; several tiles at once use several. That is faster
than sharing a tile among threads, and leaves each tile's numbers the same whatever the number.

On a GPU tiles are computed one after the other, while others are read.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import torch
from torch import Tensor

from popcorn_ml.errors import ConfigError
from popcorn_ml.parallel import Pool, in_order
from popcorn_ml.raster import bounded_cache

Precision = Literal["float32", "bfloat16"]

TILES_ON_A_GPU = 4
"""Tiles at work with a GPU, whatever the cores: one is computed, three are read meanwhile."""

_GPU_TURN = threading.RLock()
"""Held by the thread that computes on a GPU; see `arithmetic`."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def check_precision(name: str) -> None:
    """Refuse a precision that the networks do not run in.

    Raises:
        ConfigError: neither float32 nor bfloat16.
    """
    if name not in get_args(Precision):
        raise ConfigError(
            "the networks do not run in this precision",
            where="precision",
            expected=" or ".join(get_args(Precision)),
            found=name,
        )


def to_device(channels: np.ndarray, device: torch.device) -> Tensor:
    """Channels (6, rows, columns) as a batch of one, laid out by pixel: twice as fast on a CPU."""
    batch = torch.from_numpy(np.ascontiguousarray(channels))[None]
    return batch.to(device).contiguous(memory_format=torch.channels_last)


@contextmanager
def arithmetic(device: torch.device, precision: str) -> Iterator[None]:
    """Run networks without gradients, in true float32 (a GPU's TF32 shortcuts off) or bfloat16.

    On a GPU the threads of this process take turns. Whether TF32 is allowed is set for the whole
    process: a thread that left would put it back while another still computes. Nothing is lost, as
    a GPU works off what it is given in order anyway, and its memory has to hold one tile only, so
    no tensor on it should outlive this.
    """
    reduced = (
        torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()
    )
    exact = _exact_on_the_gpu() if device.type == "cuda" else nullcontext()
    with exact, torch.inference_mode(), reduced:
        yield


@contextmanager
def _exact_on_the_gpu() -> Iterator[None]:
    """Deterministic convolutions, and neither these nor matrix products in TF32; afterwards as
    it was."""
    with _GPU_TURN:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            with torch.backends.cudnn.flags(
                enabled=True, benchmark=False, deterministic=True, allow_tf32=False
            ):
                yield
        finally:
            torch.set_float32_matmul_precision(before)


def each_tile(
    work: Callable[[Item], Result],
    tiles: Iterable[Item],
    threads: int,
    pool: Pool | None = None,
    device: torch.device | None = None,
) -> Generator[Result, None, None]:
    """`work` of every tile, in the tiles' order, `threads` of them at once.

    Args:
        work: called with one tile.
        tiles: pieces of work.
        threads: 0 takes all cores. With a GPU at most `TILES_ON_A_GPU`: more cores would only
            hold more tiles in memory.
        pool: an executor elsewhere (processes, dask) to use instead of threads here; then
            `threads` says how many tiles it is given at once.
        device: where `work` computes; None is a CPU, or elsewhere.

    GDAL's cache is kept small meanwhile: memory is bounded by the tiles at work.
    """
    threads = threads or os.cpu_count() or 1
    if pool is None and device is not None and device.type == "cuda":
        threads = min(threads, TILES_ON_A_GPU)
    with ExitStack() as stack:
        stack.enter_context(bounded_cache())
        stack.enter_context(one_thread_a_tile())
        if pool is None and threads > 1:
            pool = stack.enter_context(ThreadPoolExecutor(threads))
        yield from in_order(work, tiles, pool, threads + 1)


@contextmanager
def one_thread_a_tile() -> Iterator[None]:
    """Keep torch from sharing one tile among threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def to_numpy(values: Any) -> np.ndarray:
    """A result of the networks as float32 in this machine's memory."""
    return values.float().cpu().numpy()
