"""A step's process that outlives its run's: it ends, since nobody takes its result any more.

A run whose process is killed outright, for want of memory say, cannot end the processes of its
steps. They would work on for hours, hold what the next run of the partition waits for, and tell a
run that has failed of what they made.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing.util import register_after_fork

KILLED = 137
"""Exit status of a process that ends so; as of one that was killed, which its run was."""


def end_with_their_run(mark: object) -> None:
    """Have every process that `multiprocessing` forks from this one end with whoever started it.

    Args:
        mark: what lives as long as this shall hold, such as a module.
    """
    register_after_fork(mark, lambda _: _watch())


def _watch() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()  # its end of a pipe is closed by the kernel, however it ends
        os._exit(KILLED)  # as a kill: locks go with the process, drafts are cleared by the next run

    threading.Thread(target=wait, name="run's end", daemon=True).start()
