"""Reading an agency's boundaries as the census will: its member, its columns, its units."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from popcorn_ml.agencies.agency import Reading
from popcorn_ml.census import boundaries
from popcorn_ml.census.columns import boundary_columns
from popcorn_ml.census.files import Files
from popcorn_ml.census.settings import BoundarySettings, ReaderName
from popcorn_ml.errors import CensusError


def read_polygons(
    path: Path,
    reader: ReaderName,
    documented: str,
    settings: Mapping[str, Any],
    only_id: str | None = None,
) -> Reading:
    """Read a boundary file, in an archive or not.

    Args:
        reader: which has the agency's names of columns.
        documented: the column of identifiers that the agency documents, for an error.
        settings: what is known of the file besides.
        only_id: the one column that identifiers may stand in, where others would be of other units.

    Raises:
        CensusError: as the census's own reading; or the columns are not the agency's.
    """
    with Files(path.parent) as files:
        given = BoundarySettings.model_validate({"file": path.name, **settings})
        opened = files.open(given, boundaries.VECTOR_SUFFIXES)
        columns = boundary_columns(given, reader, opened)
        if not columns.id or only_id not in (None, columns.id[0]):
            names = boundaries.attribute_names(opened, given)
            raise CensusError(
                "the boundaries have not the columns that the agency documents",
                where=path,
                expected=documented,
                found=", ".join(names) or "no column",
                remedy="the agency has changed its file: fetch it by hand, and describe it in the "
                "country's file with `reader: table` and its columns",
            )
        read = boundaries.read_boundaries(opened, given.model_copy(update={"columns": columns}))
    named = {
        "id": columns.id[0] if len(columns.id) == 1 else list(columns.id),
        **({"name": columns.name} if columns.name else {}),
        **({"parent": columns.parent} if columns.parent else {}),
    }
    return Reading(reader, {**settings, "columns": named}, len(read.frame))
