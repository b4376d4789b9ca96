"""Where the store is; every other path is given from there or by a country's file."""

from __future__ import annotations

import os
from pathlib import Path

from popcorn_ml.edges import within

DATA_VARIABLE = "POPCORN_DATA"
PACKAGED_FILES = Path(__file__).parent / "countries" / "files"
"""Outlines and censuses that come with the package; the store's own files win over them."""


def data_root() -> Path:
    """The store's root: POPCORN_DATA, or `data` in the folder Dagster runs in."""
    return Path(os.environ.get(DATA_VARIABLE) or "data").absolute()


def given_path(path: str | Path) -> Path:
    """A path that a country's file gives: relative to the store's root, and not leading out of it.

    What the store does not have may be one of the files that come with the package. One with
    `{year}` in it is looked at for every year there is.

    Raises:
        ConfigError: it does, also through a link, and no folder that was opened holds it.
    """
    given = data_root() / path
    if "{year}" in str(path):
        pattern = str(given.relative_to(given.anchor)).replace("{year}", "[0-9]" * 4)
        for found in Path(given.anchor).glob(pattern):
            within(found, [data_root()])
    own = within(given, [data_root()])
    packaged = PACKAGED_FILES / path
    return packaged if packaged.is_file() and not own.exists() else own


def published_weights() -> Path:
    """Where `popcorn weights` puts the published extractor."""
    return data_root() / "weights" / "published.safetensors"
