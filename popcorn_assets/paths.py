"""Where the store is, and what came with the code; other paths a country's file gives."""

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


def checkout() -> Path | None:
    """The checkout that the code is in; None where it was installed from a wheel."""
    folder = Path(__file__).resolve().parents[1]
    return folder if (folder / "pyproject.toml").is_file() else None


def shipped(name: str) -> Path:
    """A file or folder of a checkout's root, which a wheel has inside the package.

    Args:
        name: such as `dagster.yaml` or `docs`; what there is, setup.py says.
    """
    return (checkout() or Path(__file__).resolve().parent / "shipped") / name


def published_weights() -> Path:
    """Where `popcorn weights` puts the published extractor."""
    return data_root() / "weights" / "published.safetensors"
