"""What the warehouse's tables, views and columns hold, as comments in the file itself.

Whoever opens the file with nothing but DuckDB reads them: `SELECT table_name, comment FROM
duckdb_tables()`, `SELECT table_name, column_name, comment FROM duckdb_columns()`. The text of a
column holds wherever a column of its name has none of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from popcorn_ml.warehouse.schema import identifier, text_literal

if TYPE_CHECKING:
    import duckdb

TABLE_COMMENTS = {
    "units": "Census units of each country-year and level",
    "counts": "People per census unit: counted, or projected by a stated rule",
    "sources": "Files that an asset's partition was made from, with licences",
    "received": "Census files that the inbox took in, one row each time",
    "map_sums": "Maps summed over census units",
    "map_intervals": "Intervals of the people of census units on the maps",
    "map_change": "Change of the people of census units between two years' maps",
    "out_of_fold": "What members that did not train on a unit predict of it",
    "out_of_fold_by_country": "How members do on units that they never saw, by country",
    "student_out_of_fold": "What a student of the folds that never saw a unit predicts of it",
    "unseen_by_model": "Units as predicted by members and by students that never saw them",
    "evaluation": "How maps and baselines compare with what is known",
    "schema_versions": "Which migrations of this file were applied",
    "versions": "Every publication of every asset",
    "version_inputs": "Versions that a version was made from",
    "version_sources": "Files from outside the store that a version was made from",
    "version_files": "Files that a version holds",
    "version_scenes": "Satellite images that left a pixel in a version",
    "version_tables": "Rows that a version wrote here",
    "people_per_unit": "Counts with their units",
    "density": "People per hectare and per square kilometre of units",
    "change": "Counts against the year before them in the table",
    "map_against_census": "Map sums against the counts of their units",
    "people_with_intervals": "People of census units on the maps, their intervals and their counts",
    "unit_series": "The years of a unit: its people on the maps, counted, and what changed",
    "totals": "People and area of a country, year and level",
    "current_versions": "Each asset's current version, and where its files lie",
    "rows_of_versions": "Which version the rows of a table belong to now",
    "descent": "Versions and all that was made from them, however indirectly",
    "made_with_scene": "Satellite images and the versions made from them",
    "made_with_source": "Files from outside and the versions made from them",
    "made_with_file": "Files of versions and the versions made from them",
}

_PEOPLE_BOUND = "bound of the people: this share of the probability lies below it"
COLUMN_COMMENTS = {
    "country": "code of the country, as its file is named; empty for an asset without partitions",
    "year": "year of the partition; 0 for an asset without partitions",
    "level": "census level, as the country's file names it",
    "unit_id": "the agency's identifier of the unit, leading zeros kept",
    "number": "the unit's number in units_<level>.tif",
    "name": "as published by the agency",
    "parent": "unit that it lies in: a name or an identifier, as published",
    "geometry": "polygon as WKB, x before y, in the CRS of the column crs",
    "crs": "coordinate reference system of the geometry: always EPSG:4326",
    "vintage": "year of the boundaries, -1 where unknown",
    "area_ha": "true area in hectares",
    "pixels": "pixels on the country's grid",
    "pixel_area_ha": "true area of these pixels in hectares",
    "status": "how the unit got its pixels: centre, best_pixel, merged or outside",
    "merged_into": "unit_id that it is counted with, empty for most",
    "file": "name of the file",
    "people": "people",
    "kind": "census, estimate or projection",
    "method": "how the count came about, such as: census 2022",
    "base_year": "year of the count that it rests on",
    "source": "table that the count is from",
    "source_sha256": "sha256 of that table's file",
    "retrieved": "when the file was fetched, ISO 8601",
    "asset": "name of the asset",
    "sha256": "sha256 of the file",
    "bytes": "size of the file",
    "licence": "licence of the file, as the country's file states it",
    "url": "where the file is from, as the country's file states it",
    "received_at": "when it was received, UTC",
    "levels": "census levels that it has",
    "years": "years that it has",
    "chain": "sha256 over the row and the chain of the row before it",
    "product": "map, adjusted, or a baseline (uniform, builtup)",
    "people_std": "standard deviation of the people across members; null where not known",
    "valid_share": "share of the unit's pixels in which the map has a value",
    "p2_5": f"2.5 %: {_PEOPLE_BOUND}",
    "p10": f"10 %: {_PEOPLE_BOUND}",
    "p90": f"90 %: {_PEOPLE_BOUND}",
    "p97_5": f"97.5 %: {_PEOPLE_BOUND}",
    "relative_width": "width of the 80 % interval over the people",
    "held_80": "whether the unit's count lies in the 80 % interval; null where it is a point",
    "held_95": "whether the unit's count lies in the 95 % interval; null where it is a point",
    "basis": "what the interval rests on",
    "significant": "whether the change is told apart from none",
    "predicted": "people predicted by members that did not train on the unit",
    "members": "how many members that is",
    "unit_country": "country of the unit, where the members were trained on several",
    "total_ratio": "people predicted over people counted",
    "mae": "mean absolute error in people",
    "log_l1": "mean of |log((predicted + 1) / (people + 1))|",
    "fold": "group of units that were held out together",
    "model": "bag (members) or student",
    "log_ratio": "log((predicted + 1) / (people + 1)): 0 is exact, above 0 too many",
    "metric": "r2, mae, rmse, ...",
    "value": "of the metric; null where undefined",
    "n": "cells or units that were compared",
    "details": "more, as JSON",
    "version": "digest of the version's files; of schema_versions, the migration's number",
    "applied_at": "when the migration was applied, UTC",
    "manifest_sha256": "sha256 of the version's manifest",
    "recipe": "digest of all that the version was made from",
    "run_id": "Dagster's run",
    "code_version": "digest of the code that made it",
    "code_commit": "commit of that code",
    "code_modified": "whether files differed from that commit",
    "started": "when its making began, UTC",
    "finished": "when its making ended, UTC",
    "current": "whether it is the asset's current version",
    "removed": "whether it is no longer in the store",
    "path": "where it lies, from the store's root",
    "input_asset": "asset that it was made from",
    "input_country": "country of that; empty if it has no partitions",
    "input_year": "year of that; 0 if it has no partitions",
    "input_version": "version of that",
    "scene": "the image's identifier",
    "taken": "when the image was taken, UTC",
    "platform": "the satellite",
    "href": "where the image was read",
    "row_count": "number of rows",
    "digest": "sha256 over the rows' values, in any order",
    "people_per_ha": "people per hectare of true area",
    "people_per_km2": "people per square kilometre of true area",
    "from_year": "the earlier year compared with",
    "people_added": "people more, or fewer, than in that year",
    "counted": "people counted in the unit",
    **{
        f"added_{name}": f"{told} %: bound of people_added, as of the people"
        for name, told in (
            ("p2_5", "2.5"),
            ("p10", "10"),
            ("p90", "90"),
            ("p97_5", "97.5"),
        )
    },
    "growth_a_year": "the same as a rate a year: 0.02 is 2 %",
    "census_people": "people counted in the unit and the counted ones merged into it",
    "map_people": "people of the unit on the map",
    "map_std": "their standard deviation across members",
    "difference": "map less census, people",
    "relative_difference": "the same over the census",
    "units": "number of units",
    "kinds": "kinds of the counts",
    "first_asset": "the asset that read it",
    "origin_asset": "asset of the version that it came from",
    "origin_country": "country of that version",
    "origin_year": "year of that version",
    "origin_version": "the version that it came from",
}
"""Of columns, by name."""

OWN_COLUMN_COMMENTS = {
    ("counts", "people"): "people of the unit itself, also if it is merged",
    ("map_sums", "people"): "people of the unit on the map, where it has a value",
    ("map_change", "people"): "people more, or fewer, than in from_year",
    ("out_of_fold", "people"): "people counted in the unit",
    ("student_out_of_fold", "people"): "people counted in the unit",
    ("student_out_of_fold", "predicted"): "people predicted by students that did not see the unit",
    ("student_out_of_fold", "members"): "how many students that is",
    ("unseen_by_model", "people"): "people counted in the unit",
    ("unseen_by_model", "predicted"): "people predicted by models that did not see the unit",
    ("unseen_by_model", "members"): "how many members, or students, that is",
    ("unseen_by_model", "unit_country"): "country of the unit",
    ("unseen_by_model", "unit_id"): "the agency's identifier, without its country's code",
    ("evaluation", "level"): "hectare (a cell of 10 x 10 pixels), or a census level",
    ("evaluation", "area_ha"): "mean true area of the cells of level hectare; null for units",
    ("received", "number"): "from 1, in the order that files of a country came",
    ("version_tables", "name"): "of the table",
    ("rows_of_versions", "name"): "of the table",
    ("totals", "area_ha"): "true area of the units in hectares",
    ("version_sources", "path"): "where the file lies, from the store's root if below it",
    ("made_with_source", "path"): "where the file lies, from the store's root if below it",
}
"""Of columns that hold something else than their name says elsewhere: (table, column)."""


def comment_of(table: str, column: str) -> str | None:
    """What a column holds."""
    return OWN_COLUMN_COMMENTS.get((table, column)) or COLUMN_COMMENTS.get(column)


def write_comments(connection: duckdb.DuckDBPyConnection) -> None:
    """Give every table, view and column of the database in use its comment, where it lacks it.

    As a rule none does: they are written once, and each takes a while.
    """
    connection.execute("BEGIN")
    for kind in ("TABLE", "VIEW"):
        for name, found in connection.execute(
            f"SELECT {kind}_name, comment FROM duckdb_{kind}s() "
            "WHERE database_name = current_database() AND NOT internal"
        ).fetchall():
            said = TABLE_COMMENTS.get(name)
            if said and said != found:
                connection.execute(f"COMMENT ON {kind} {identifier(name)} IS {text_literal(said)}")
    for table, column, found in connection.execute(
        "SELECT table_name, column_name, comment FROM duckdb_columns() "
        "WHERE database_name = current_database() AND NOT internal"
    ).fetchall():
        said = comment_of(table, column)
        if said and said != found:
            place = f"{identifier(table)}.{identifier(column)}"
            connection.execute(f"COMMENT ON COLUMN {place} IS {text_literal(said)}")
    connection.execute("COMMIT")
