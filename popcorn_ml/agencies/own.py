"""A table of counts that the operator has, beside an agency's boundaries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from popcorn_ml.agencies.counted import read_people
from popcorn_ml.agencies.fetched import OWN, Fetched, date_of
from popcorn_ml.census.boundaries import VECTOR_SUFFIXES
from popcorn_ml.census.files import Files
from popcorn_ml.census.recognise import Given, recognise
from popcorn_ml.census.settings import BoundaryColumns, BoundarySettings, CountSettings
from popcorn_ml.census.tables import sha256
from popcorn_ml.errors import ConfigError

READ_WITH = ("member", "where")
"""What of a boundary file's settings says which units are meant."""


def own_counts(
    path: Path, boundaries: Fetched, given: Given
) -> tuple[Fetched, Fetched, tuple[str, ...]]:
    """A table, its columns recognised by what stands in them.

    Args:
        path: the table.
        boundaries: whose units it counts.
        given: what is known of the columns.

    Returns:
        The table; the boundaries, with the columns that join it; and what was taken for what.

    Raises:
        CensusError: it cannot be read, or its columns remain unclear.
        ConfigError: the boundaries have no names.
    """
    if boundaries.path.suffix not in (*VECTOR_SUFFIXES, ".zip"):
        raise ConfigError(
            "these units have numbers and no names: a table of one's own does not join them",
            where=boundaries.path,
            expected="polygons with names, such as of --boundaries geoboundaries",
            found=f"--boundaries {boundaries.source}",
        )
    kept = {k: v for k in READ_WITH if (v := boundaries.settings.get(k))}
    own = BoundarySettings.model_validate({"file": boundaries.path.name, **kept})
    with Files([boundaries.path.parent, path.parent]) as files:
        found = recognise(files, own, CountSettings(file=path.name), given)
    documented = "a column of identifiers or names, and one of people"
    reading = read_people(path, "table", found.year, documented, columns=found.counts)
    counts = Fetched(
        path=path,
        source=OWN,
        licence="",
        address="",
        retrieved=date_of(path),
        sha256=sha256(path),
        size_bytes=path.stat().st_size,
        year=reading.year,
        reader="table",
        settings=reading.settings,
        number=reading.number,
        by_hand=True,
        stated=reading.stated,
    )
    settings = {**kept, "columns": _plain(found.boundaries)}
    return counts, replace(boundaries, reader="table", settings=settings), found.said


def _plain(columns: BoundaryColumns) -> Mapping[str, Any]:
    """A single identifier as one value instead of a list of one."""
    given = columns.model_dump(exclude_defaults=True)
    return {k: v[0] if isinstance(v, tuple) and len(v) == 1 else v for k, v in given.items()}
