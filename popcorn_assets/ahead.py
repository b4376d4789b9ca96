"""The definitions, resolved before a step's process begins: it is forked from one that has them.

Imported by the server that forks the processes of a run's steps, and by nothing else. Resolving the
graph of assets and the jobs costs more than most steps of a run that makes nothing; done here, it
is done once a run instead of once a step. It opens no file, no database and no device: a process
that begins as a copy of this one must find nothing half-used.
"""

from __future__ import annotations

import sys

from dagster._core.definitions.repository_definition import RepositoryDefinition

from popcorn_assets.runs.followed import steps_write_no_log
from popcorn_assets.runs.orphans import end_with_their_run

MODULE = __name__


def resolved() -> RepositoryDefinition:
    """The repository with its jobs, as each step of each job asks for it."""
    from popcorn_assets.definitions import defs

    repository = defs.get_repository_def()
    repository.get_all_jobs()
    return repository


REPOSITORY = resolved()
end_with_their_run(sys.modules[MODULE])
steps_write_no_log()
