"""Work done elsewhere, results taken in order, few of them at a time.

Any executor with `submit` will do: threads, processes, or the one that dask.distributed gives
(`Client.get_executor()`). What the work is, its callers know.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Pool(Protocol):
    """What is needed of an executor: `submit` gives a future with `result` and `cancel`."""

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Any: ...


def in_order(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    pool: Pool | None = None,
    ahead: int = 4,
) -> Generator[Result, None, None]:
    """`work` of every item, in the items' order.

    Args:
        work: called with one item; for pools of processes it must be importable there.
        items: taken up one by one.
        pool: where the work is done; None does it here, one item at a time.
        ahead: items given to the pool before the first of their results is taken. Memory holds
            this many results, however slow their consumer is.

    The first error ends it, as does closing the iterator; what has not begun by then is dropped.
    """
    if pool is None:
        yield from map(work, items)
        return
    waiting: deque[Any] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= max(ahead, 1):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def in_threads(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Generator[Result, None, None]:
    """`in_order` in so many threads of this process; none are begun for one."""
    if threads <= 1:
        yield from map(work, items)
        return
    with (
        ThreadPoolExecutor(threads) as pool,
        closing(in_order(work, items, pool, threads + 1)) as results,
    ):
        yield from results
