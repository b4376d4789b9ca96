"""Where the store is; every other path is given from there or by a country's file."""

from __future__ import annotations

import os
from pathlib import Path

DATA_VARIABLE = "POPCORN_DATA"


def data_root() -> Path:
    """The store's root: POPCORN_DATA, or `data` in the folder Dagster runs in."""
    return Path(os.environ.get(DATA_VARIABLE) or "data").absolute()


def published_weights() -> Path:
    """Where `popcorn weights` puts the published extractor."""
    return data_root() / "weights" / "published.safetensors"
