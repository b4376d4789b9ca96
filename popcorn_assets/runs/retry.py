"""Trying a step again: where it may help, and never on input that cannot be used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from popcorn_ml.errors import Transient

PROVIDER_TIMES, PROVIDER_SECONDS = 3, 300
"""How often, and after how long, a season is tried again whose provider does not answer."""


@contextmanager
def again_later(
    context: dg.OpExecutionContext | dg.AssetExecutionContext,
    times: int = PROVIDER_TIMES,
    seconds: float | None = None,
) -> Iterator[None]:
    """Have Dagster try the step again where what failed may be gone by then.

    Args:
        times: at most.
        seconds: to wait before each, without holding a pool's slot; None: as for a provider.

    Raises:
        RetryRequested: for a transient error; any other passes.
    """
    try:
        yield
    except Transient as error:
        context.log.warning(str(error))
        wait = PROVIDER_SECONDS if seconds is None else seconds
        raise dg.RetryRequested(times, wait) from error
