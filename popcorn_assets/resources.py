"""Where things are and what may be used: the store, the warehouse, compute, credentials."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self, cast

import dagster as dg
from pydantic import model_validator

from popcorn_assets.country import Country
from popcorn_assets.paths import data_root, given_path
from popcorn_assets.store.versions import Store
from popcorn_ml.compute.devices import check_device, cpus, require_device
from popcorn_ml.errors import ConfigError
from popcorn_ml.imagery.choice import open_source
from popcorn_ml.imagery.secrets import Secrets
from popcorn_ml.imagery.settings import ImagerySettings

PROJECT = "POPCORN_EARTHENGINE_PROJECT"
"""Google Cloud project that Earth Engine's use is counted on."""

KEY_FILE = "POPCORN_EARTHENGINE_KEY_FILE"
"""Path of a service account's key; without it, application default credentials."""

SUBSCRIPTION_KEY = "POPCORN_PLANETARY_COMPUTER_KEY"
"""Without it anonymous, with lower limits."""


NOTHING: dict[str, Any] = {}
"""Configuration of a step: without this, one could type anything into it, keys included, and find
it ignored, and kept in clear text for ever."""


class StoreResource(dg.ConfigurableResource):
    """Versioned files.

    Attributes:
        root: folder of the store; empty means POPCORN_DATA, or `data`.
        warehouse: the DuckDB file that publications and the inbox's receipts are recorded in;
            empty means `warehouse.duckdb` in the root.
    """

    root: str = ""
    warehouse: str = ""

    def open(self) -> Store:
        """The store."""
        return Store(self.root or data_root(), self.warehouse or None)


class ImageryResource(dg.ConfigurableResource):
    """Where imagery comes from.

    What is needed to be let in comes from the environment alone: a run's configuration is kept in
    clear text, shown to whoever looks, and repeated by runs that follow.

    Attributes:
        source: a source for this run instead of the one in the country's file; empty means that.
    """

    source: str = ""

    def chosen(self, country: Country) -> ImagerySettings:
        """The country's imagery settings with this run's source, paths as its file has them."""
        return country.imagery.using(self.source) if self.source else country.imagery

    def settings_of(self, country: Country) -> ImagerySettings:
        """The same with relative paths taken from the store's root.

        Raises:
            ConfigError: a path leads out of it.
        """
        settings = self.chosen(country).rooted(data_root())
        for value in vars(settings.chosen).values():
            if isinstance(value, Path):
                given_path(value)
        return settings

    def secrets(self) -> Secrets:
        """Credentials, never part of a manifest or a configuration."""
        return secrets_of_environment()

    def catalogue_files(self, settings: ImagerySettings) -> list[Path]:
        """The item collections on disk that a country's imagery is found in; mostly none."""
        if settings.source != "stac":
            return []
        from popcorn_ml.imagery.sources.stac import Settings, collection_files

        return collection_files(cast(Settings, settings.chosen))

    def fingerprint(self, settings: ImagerySettings) -> str:
        """What the source itself says it depends on, such as the digest of an item collection."""
        source = open_source(settings, self.secrets())
        try:
            return source.fingerprint()
        finally:
            source.close()


def secrets_of_environment() -> Secrets:
    """Credentials for imagery, which nothing but the environment holds."""
    key_file = os.environ.get(KEY_FILE)
    return Secrets(
        earthengine_project=os.environ.get(PROJECT) or None,
        earthengine_key_file=Path(key_file) if key_file else None,
        planetary_computer_key=os.environ.get(SUBSCRIPTION_KEY) or None,
    )


ENGINES = ("auto", "compiled", "openvino", "torch")
LAUNCHERS = ("subprocess", "inline", "dask")


class ComputeResource(dg.ConfigurableResource):
    """Where training and mapping run.

    A value that cannot be is refused when the resource is made; a GPU, a scheduler or a worker
    that is asked for and absent is refused at the first step of a run that uses this resource,
    which the seasons of imagery do.

    Attributes:
        device: auto (a free GPU where there is one), cpu, cuda (a free GPU) or cuda:N.
        precision: float32, or bfloat16 for speed on a GPU.
        engine: what runs the networks of a map: auto (on a CPU compiled, without a C compiler
            OpenVINO; torch on a GPU), compiled, openvino or torch.
        threads: CPU threads of a step; 0 means all cores.
        launcher: subprocess (a process of its own for each member and map), inline (in the step's
            own process) or dask (on the workers of a cluster).
        scheduler: address of the dask scheduler; empty means POPCORN_SCHEDULER.
    """

    device: str = "auto"
    precision: str = "float32"
    engine: str = "auto"
    threads: int = 0
    launcher: str = "subprocess"
    scheduler: str = ""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        check_device(self.device)
        _one_of("precision", self.precision, ("float32", "bfloat16"))
        _one_of("engine", self.engine, ENGINES)
        _one_of("launcher", self.launcher, LAUNCHERS)
        if self.threads < 0:
            raise ConfigError(
                "threads cannot be used", where="compute", expected="0 or more", found=self.threads
            )
        if self.launcher == "dask" and ":" in self.device:
            raise ConfigError(
                "a GPU's number means nothing to a cluster",
                where="compute: device",
                expected="auto, cpu or cuda with the launcher dask",
                found=self.device,
                remedy="give each worker its GPU: CUDA_VISIBLE_DEVICES=N dask worker ...",
            )
        return self

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Called before a step's body: what is asked for has to be there."""
        self.require_here()

    def require_here(self) -> None:
        """Refuse what is asked for and absent.

        Raises:
            ConfigError, ComputeError: no such GPU or engine; or no scheduler, worker, or GPU or
                engine of a worker.
        """
        if self.launcher == "dask":
            from popcorn_ml.launching.cluster import connected, examine

            with connected(self.scheduler_address()) as client:
                examine(
                    client,
                    self.scheduler_address(),
                    self.device,
                    engine=self.engine,
                    precision=self.precision,
                )
        else:
            require_device(self.device)
            if self.engine in ("compiled", "openvino"):
                from popcorn_ml.mapping.engine.choice import require_engine

                require_engine(self.engine, self.device, self.precision)

    def scheduler_address(self) -> str:
        """Where the dask scheduler listens; empty where nobody said."""
        return self.scheduler or os.environ.get("POPCORN_SCHEDULER", "")

    def thread_count(self) -> int:
        """CPU threads a step may use."""
        return self.threads or cpus()


def compute_resource() -> ComputeResource:
    """The compute resource as the environment has it: POPCORN_DEVICE, POPCORN_PRECISION,
    POPCORN_ENGINE, POPCORN_THREADS, POPCORN_LAUNCHER, POPCORN_SCHEDULER. A run's configuration may
    say otherwise.

    Raises:
        ConfigError: a value that cannot be.
    """
    given = {name: os.environ.get(f"POPCORN_{name.upper()}", "") for name in _COMPUTE_VARIABLES}
    if given["threads"] and not given["threads"].isdigit():
        raise ConfigError(
            "threads cannot be used",
            where="POPCORN_THREADS",
            expected="a whole number, 0 for all cores",
            found=given["threads"],
        )
    values: dict[str, Any] = {name: value for name, value in given.items() if value}
    if "threads" in values:
        values["threads"] = int(values["threads"])
    return ComputeResource(**values)


def steps_at_once() -> int:
    """Steps of one run that may work at once, from POPCORN_STEPS; 0 is one a core.

    To be raised where steps only wait for a cluster or for GPUs, beside what the pools allow.

    Raises:
        ConfigError: no whole number.
    """
    given = os.environ.get("POPCORN_STEPS", "0")
    if not given.isdigit():
        raise ConfigError(
            "the number of steps at once cannot be used",
            where="POPCORN_STEPS",
            expected="a whole number, 0 for one a core",
            found=given,
        )
    return int(given)


_COMPUTE_VARIABLES = ("device", "precision", "engine", "threads", "launcher", "scheduler")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(
            f"there is no such {name}",
            where="compute",
            expected=" or ".join(allowed),
            found=value,
        )
