"""A run that is told of at the terminal by the command that carries it out, and by nothing else.

Before a step's own output is kept, its process writes a line of Dagster's log to the terminal; run
configuration, which silences the others, is not asked about that one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from dagster._core.execution import context_creation_job

VARIABLE = "POPCORN_FOLLOWED"
"""Set for the processes of a run's steps while a command tells of it."""


@contextmanager
def followed() -> Iterator[None]:
    """Say to processes that are started within the block that the run is told of."""
    os.environ[VARIABLE] = "1"
    try:
        yield
    finally:
        del os.environ[VARIABLE]


def steps_write_no_log() -> None:
    """Where the run is followed: for this process and those forked from it."""
    if os.environ.get(VARIABLE):
        setattr(context_creation_job, "default_system_loggers", lambda _: [])  # noqa: B010
