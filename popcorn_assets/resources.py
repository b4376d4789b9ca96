"""Where things are and what may be used: the store, the warehouse, compute, credentials."""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg

from popcorn_assets.store import Store

DATA_VARIABLE = "POPCORN_DATA"


def data_root() -> Path:
    """The store's root: POPCORN_DATA, or `data` in the folder Dagster runs in."""
    return Path(os.environ.get(DATA_VARIABLE) or "data").absolute()


class StoreResource(dg.ConfigurableResource):
    """Versioned files.

    Attributes:
        root: folder of the store; empty means POPCORN_DATA, or `data`.
    """

    root: str = ""

    def open(self) -> Store:
        """The store."""
        return Store(self.root or data_root())


class WarehouseResource(dg.ConfigurableResource):
    """The DuckDB file with census tables and evaluation results.

    Attributes:
        path: the file; empty means `warehouse.duckdb` in the store's root.
    """

    path: str = ""

    def file(self) -> Path:
        """Where the DuckDB file is."""
        return Path(self.path) if self.path else data_root() / "warehouse.duckdb"


class ComputeResource(dg.ConfigurableResource):
    """Where training and mapping run.

    Attributes:
        device: auto (CUDA where there is one), cpu, cuda or cuda:N.
        precision: 32, or bf16 for mixed precision on a GPU.
        threads: CPU threads of a step; 0 means all cores.
    """

    device: str = "auto"
    precision: str = "32"
    threads: int = 0

    def thread_count(self) -> int:
        """CPU threads a step may use."""
        return self.threads or os.cpu_count() or 1
