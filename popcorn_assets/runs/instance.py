"""What dagster.yaml names of this project: where Dagster keeps its records, and who starts runs.

The switch from SQLite to Postgres is the environment's: one dagster.yaml serves both. Nothing of
the project's own data is here.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from dagster import StringSource
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._core.launcher.base import LaunchRunContext
from dagster._core.storage.base_storage import DagsterStorage
from dagster._core.storage.dagster_run import DagsterRun
from dagster._serdes import ConfigurableClass, ConfigurableClassData

from popcorn_assets.runs.lost import LAUNCHED_TAG, LOST, begun_tag, command_of, lost_its_process
from popcorn_assets.runs.sqlite import SqliteStorage
from popcorn_ml.errors import ConfigError

POSTGRES_VARIABLE = "POPCORN_POSTGRES_URL"
POSTGRES_FORM = "postgresql://USER:PASSWORD@HOST:5432/DATABASE, special characters as %40"

HIDDEN = "***"
"""What stands for the password in words of others that quote it."""

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


class Storage(DagsterStorage, ConfigurableClass):
    """Dagster's runs, events and schedules: SQLite files, or Postgres where the environment
    variable POPCORN_POSTGRES_URL names one.

    What is made is Dagster's own storage of either kind; the configuration that the UI shows
    holds the folder only, never the address of the database.
    """

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {"base_dir": StringSource}

    @classmethod
    def from_config_value(  # type: ignore[override]
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> DagsterStorage:
        """The storage.

        Raises:
            ConfigError: the address is not one of Postgres, its extra is not installed, or the
                server does not let us in.
        """
        url = os.environ.get(POSTGRES_VARIABLE, "").strip()
        if url:
            return postgres_storage(url, inst_data)
        return SqliteStorage.from_local(config_value["base_dir"], inst_data)


def postgres_storage(url: str, inst_data: ConfigurableClassData | None = None) -> DagsterStorage:
    """Dagster's storage in a Postgres database, its tables made where they are missing.

    Raises:
        ConfigError: as `Storage.from_config_value`; never with the password.
    """
    url = _checked(url)
    try:
        from dagster_postgres import DagsterPostgresStorage
    except ImportError as error:
        raise ConfigError(
            "Dagster's storage in Postgres is not installed",
            where=POSTGRES_VARIABLE,
            found=str(error),
            remedy=f"pip install 'popcorn-assets[postgres]', or unset {POSTGRES_VARIABLE}",
        ) from error
    try:
        _knock(url)
        return DagsterPostgresStorage(url, inst_data=inst_data)
    except Exception as error:
        cause = getattr(error.__cause__ or error, "orig", None) or error.__cause__ or error
        problem = ConfigError(
            "Postgres does not take Dagster's tables",
            where=f"{POSTGRES_VARIABLE}, {shown(url)}",
            found=_without_password(str(cause).strip().splitlines()[0], url),
            remedy="start the server, or correct the variable; the user must own the database",
        )
    # Raised out here: what SQLAlchemy says, its arguments included, is no part of the traceback.
    raise problem


def _knock(url: str) -> None:
    """Connect once, since Dagster tries six times even where the server has refused for good.

    A server that does not answer, or starts just now, is left to those trials.
    """
    import sqlalchemy

    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    try:
        engine.connect().close()
    except sqlalchemy.exc.OperationalError as error:
        said = str(error.orig)
        if "FATAL" in said and "starting up" not in said and "shutting down" not in said:
            raise
    finally:
        engine.dispose()


def _checked(url: str) -> str:
    """The address as SQLAlchemy takes it."""
    scheme, separator, rest = url.partition("://")
    problem = None
    if not separator or scheme not in ("postgres", "postgresql", "postgresql+psycopg2"):
        problem = "it does not begin with postgresql://"
    elif rest.count("@") > 1:
        problem = "more than one @: the user or the password has one that is not written %40"
    else:
        try:
            parts = urlsplit(f"postgresql://{rest}")
            _ = parts.port
            if not parts.path.strip("/"):
                problem = "it names no database"
        except ValueError:
            problem = "host or port cannot be read, or the password has an unescaped character"
    if problem:
        raise ConfigError(
            "the address of Postgres cannot be used",
            where=POSTGRES_VARIABLE,
            expected=POSTGRES_FORM,
            found=problem,
            remedy=f"correct {POSTGRES_VARIABLE}, or unset it for SQLite",
        )
    # Named outright: SQLAlchemy 2.1 takes another driver, which dagster-postgres does not bring.
    return f"postgresql+psycopg2://{rest}"


def shown(url: str) -> str:
    """An address without user name, password and options, to be shown."""
    parts = urlsplit(url)
    host = f"{parts.hostname or 'local socket'}" + (f":{parts.port}" if parts.port else "")
    return f"{host}{parts.path}"


def _without_password(text: str, url: str) -> str:
    password = urlsplit(url).password
    for secret in {password, unquote(password)} if password else ():
        text = text.replace(secret, HIDDEN)
    return text


class LocalLauncher(DefaultRunLauncher):
    """Dagster's default launcher, which also knows when a run has lost its process.

    Each run is a process of the code server that loaded its job. The run monitor asks after it,
    so that a run that was killed together with its server fails and frees its slots.
    """

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> LocalLauncher:
        return cls(inst_data=inst_data)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start a run, and note when, and the machine that its code server and process are on."""
        super().launch_run(context)
        run_id = context.dagster_run.run_id
        client = self._get_grpc_client_for_termination(run_id)
        if client is not None:
            host = socket.gethostname() if client.host in LOCAL_HOSTS else client.host
            self._instance.add_run_tags(run_id, {LAUNCHED_TAG: host, **begun_tag(run_id)})

    def terminate(self, run_id: str) -> bool:
        """Ask a run to end; one that a command carries out, by asking the command to."""
        run = self._instance.get_run_by_id(run_id) if self.has_instance else None
        pid = command_of(self._instance, run) if run is not None else None
        if run is None or pid is None:
            return super().terminate(run_id)
        self._instance.report_run_canceling(run)
        os.kill(pid, signal.SIGINT)
        return True

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Failed where the run's process is gone; running otherwise, or where nobody knows."""
        if lost_its_process(self._instance, run):
            return CheckRunHealthResult(WorkerStatus.FAILED, LOST)
        return CheckRunHealthResult(WorkerStatus.RUNNING)
