"""Where things are and what may be used: the store, the warehouse, compute, credentials."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import dagster as dg

from popcorn_assets.country import Country
from popcorn_assets.paths import data_root
from popcorn_assets.store import Store
from popcorn_ml.imagery.secrets import Secrets
from popcorn_ml.imagery.settings import ImagerySettings
from popcorn_ml.imagery.source import open_source


class StoreResource(dg.ConfigurableResource):
    """Versioned files.

    Attributes:
        root: folder of the store; empty means POPCORN_DATA, or `data`.
        warehouse: the DuckDB file that publications are recorded in, the same as the warehouse
            resource's path; empty means `warehouse.duckdb` in the root.
    """

    root: str = ""
    warehouse: str = ""

    def open(self) -> Store:
        """The store."""
        return Store(self.root or data_root(), self.warehouse or None)


class WarehouseResource(dg.ConfigurableResource):
    """The DuckDB file with census tables and evaluation results.

    Attributes:
        path: the file; empty means `warehouse.duckdb` in the store's root.
    """

    path: str = ""

    def file(self) -> Path:
        """Where the DuckDB file is."""
        return Path(self.path) if self.path else data_root() / "warehouse.duckdb"


class ImageryResource(dg.ConfigurableResource):
    """Where imagery comes from, and what is needed to be let in.

    Attributes:
        source: a source for this run instead of the one in the country's file; empty means that.
        earthengine_project: Google Cloud project that Earth Engine's use is counted on.
        earthengine_key_file: service account key; empty means application default credentials.
        planetary_computer_key: subscription key; empty means anonymous, with lower limits.
    """

    source: str = ""
    earthengine_project: str = ""
    earthengine_key_file: str = ""
    planetary_computer_key: str = ""

    def chosen(self, country: Country) -> ImagerySettings:
        """The country's imagery settings with this run's source, paths as its file has them."""
        return country.imagery.using(self.source) if self.source else country.imagery

    def settings_of(self, country: Country) -> ImagerySettings:
        """The same with relative paths taken from the store's root."""
        return self.chosen(country).rooted(data_root())

    def secrets(self) -> Secrets:
        """Credentials, never part of a manifest."""
        return Secrets(
            earthengine_project=self.earthengine_project or None,
            earthengine_key_file=Path(self.earthengine_key_file)
            if self.earthengine_key_file
            else None,
            planetary_computer_key=self.planetary_computer_key or None,
        )

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


def imagery_resource() -> ImageryResource:
    """The imagery resource with credentials from the environment, of which Dagster shows names."""

    def setting(name: str) -> str:
        return dg.EnvVar(name) if os.environ.get(name) else ""

    return ImageryResource(
        earthengine_project=setting("POPCORN_EARTHENGINE_PROJECT"),
        earthengine_key_file=setting("POPCORN_EARTHENGINE_KEY_FILE"),
        planetary_computer_key=setting("POPCORN_PLANETARY_COMPUTER_KEY"),
    )


class ComputeResource(dg.ConfigurableResource):
    """Where training and mapping run.

    Attributes:
        device: auto (CUDA where there is one), cpu, cuda or cuda:N.
        precision: float32, or bfloat16 for speed on a GPU.
        threads: CPU threads of a step; 0 means all cores.
    """

    device: str = "auto"
    precision: str = "float32"
    threads: int = 0

    def thread_count(self) -> int:
        """CPU threads a step may use."""
        return self.threads or os.cpu_count() or 1
