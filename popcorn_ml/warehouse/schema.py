"""The warehouse's tables and views, as the steps that make them; described in docs/warehouse.md."""

from __future__ import annotations

import re

from popcorn_ml.warehouse.schema_maps import MAP_CHANGE, MAP_INTERVALS
from popcorn_ml.warehouse.schema_models import STUDENT_OUT_OF_FOLD

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE units (
            country VARCHAR NOT NULL,
            year INTEGER NOT NULL,
            level VARCHAR NOT NULL,
            unit_id VARCHAR NOT NULL,
            number INTEGER NOT NULL,
            name VARCHAR NOT NULL,
            parent VARCHAR NOT NULL,
            geometry BLOB,
            crs VARCHAR NOT NULL,
            vintage INTEGER,
            area_ha DOUBLE NOT NULL,
            pixels BIGINT NOT NULL,
            pixel_area_ha DOUBLE NOT NULL,
            status VARCHAR NOT NULL,
            merged_into VARCHAR NOT NULL,
            file VARCHAR NOT NULL,
            PRIMARY KEY (country, year, level, unit_id)
        )
        """,
        """
        CREATE TABLE counts (
            country VARCHAR NOT NULL,
            level VARCHAR NOT NULL,
            unit_id VARCHAR NOT NULL,
            year INTEGER NOT NULL,
            people DOUBLE NOT NULL CHECK (people >= 0),
            kind VARCHAR NOT NULL CHECK (kind IN ('census', 'projection', 'estimate')),
            method VARCHAR NOT NULL,
            base_year INTEGER NOT NULL,
            source VARCHAR NOT NULL,
            source_sha256 VARCHAR NOT NULL,
            retrieved VARCHAR,
            PRIMARY KEY (country, year, level, unit_id)
        )
        """,
        """
        CREATE TABLE sources (
            country VARCHAR NOT NULL,
            year INTEGER NOT NULL,
            asset VARCHAR NOT NULL,
            file VARCHAR NOT NULL,
            sha256 VARCHAR NOT NULL,
            bytes BIGINT NOT NULL,
            licence VARCHAR,
            url VARCHAR,
            retrieved VARCHAR,
            PRIMARY KEY (country, year, asset, file, sha256)
        )
        """,
        """
        CREATE TABLE received (
            country VARCHAR NOT NULL,
            file VARCHAR NOT NULL,
            sha256 VARCHAR NOT NULL,
            bytes BIGINT NOT NULL,
            received_at VARCHAR NOT NULL,
            levels VARCHAR NOT NULL,
            years VARCHAR NOT NULL,
            PRIMARY KEY (country, file, sha256)
        )
        """,
        """
        CREATE TABLE map_sums (
            country VARCHAR NOT NULL,
            year INTEGER NOT NULL,
            level VARCHAR NOT NULL,
            unit_id VARCHAR NOT NULL,
            product VARCHAR NOT NULL,
            people DOUBLE NOT NULL,
            people_std DOUBLE,
            PRIMARY KEY (country, year, level, unit_id, product)
        )
        """,
        """
        CREATE TABLE evaluation (
            country VARCHAR NOT NULL,
            year INTEGER NOT NULL,
            product VARCHAR NOT NULL,
            level VARCHAR NOT NULL,
            metric VARCHAR NOT NULL,
            value DOUBLE,
            n BIGINT,
            details VARCHAR,
            PRIMARY KEY (country, year, product, level, metric)
        )
        """,
        """
        CREATE VIEW people_per_unit AS
        SELECT c.country, c.year, c.level, c.unit_id, u.name, u.parent, c.people, c.kind,
               c.method, c.base_year, u.area_ha, u.pixels, u.status, u.merged_into
        FROM counts c JOIN units u USING (country, year, level, unit_id)
        """,
        """
        CREATE VIEW density AS
        SELECT country, year, level, unit_id, name, parent, people, area_ha,
               people / nullif(area_ha, 0) AS people_per_ha,
               100 * people / nullif(area_ha, 0) AS people_per_km2
        FROM people_per_unit
        """,
        """
        CREATE VIEW change AS
        SELECT country, level, unit_id, name, year, people,
               lag(year) OVER w AS from_year,
               people - lag(people) OVER w AS people_added,
               CASE WHEN lag(people) OVER w > 0 AND people > 0
                    THEN pow(people / lag(people) OVER w, 1.0 / (year - lag(year) OVER w)) - 1
               END AS growth_a_year,
               kind
        FROM people_per_unit
        WINDOW w AS (PARTITION BY country, level, unit_id ORDER BY year)
        """,
        """
        CREATE VIEW map_against_census AS
        WITH hosts AS (
            SELECT country, year, level,
                   CASE WHEN merged_into = '' THEN unit_id ELSE merged_into END AS unit_id,
                   sum(people) AS people
            FROM people_per_unit GROUP BY ALL
        )
        SELECT m.country, m.year, m.level, m.unit_id, u.name, m.product,
               h.people AS census_people, m.people AS map_people, m.people_std AS map_std,
               m.people - h.people AS difference,
               (m.people - h.people) / nullif(h.people, 0) AS relative_difference
        FROM map_sums m
        JOIN hosts h USING (country, year, level, unit_id)
        JOIN units u USING (country, year, level, unit_id)
        """,
        """
        CREATE VIEW totals AS
        SELECT country, year, level, count(*) AS units, sum(people) AS people,
               sum(area_ha) AS area_ha, string_agg(DISTINCT kind, ', ' ORDER BY kind) AS kinds
        FROM people_per_unit GROUP BY ALL
        """,
    ),
    (
        """
        CREATE TABLE versions (
            asset VARCHAR NOT NULL,
            country VARCHAR NOT NULL,
            year INTEGER NOT NULL,
            version VARCHAR NOT NULL,
            manifest_sha256 VARCHAR NOT NULL,
            recipe VARCHAR NOT NULL,
            run_id VARCHAR NOT NULL,
            code_version VARCHAR NOT NULL,
            code_commit VARCHAR,
            code_modified BOOLEAN,
            started VARCHAR NOT NULL,
            finished VARCHAR NOT NULL,
            current BOOLEAN NOT NULL,
            removed BOOLEAN NOT NULL,
            PRIMARY KEY (asset, country, year, version, manifest_sha256)
        )
        """,
        """
        CREATE TABLE version_inputs (
            asset VARCHAR NOT NULL,
            country VARCHAR NOT NULL,
            year INTEGER NOT NULL,
            version VARCHAR NOT NULL,
            manifest_sha256 VARCHAR NOT NULL,
            input_asset VARCHAR NOT NULL,
            input_country VARCHAR NOT NULL,
            input_year INTEGER NOT NULL,
            input_version VARCHAR NOT NULL
        )
        """,
        """
        CREATE TABLE version_sources (
            asset VARCHAR NOT NULL,
            country VARCHAR NOT NULL,
            year INTEGER NOT NULL,
            version VARCHAR NOT NULL,
            manifest_sha256 VARCHAR NOT NULL,
            path VARCHAR NOT NULL,
            file VARCHAR NOT NULL,
            bytes BIGINT NOT NULL,
            sha256 VARCHAR NOT NULL
        )
        """,
        """
        CREATE TABLE version_files (
            asset VARCHAR NOT NULL,
            country VARCHAR NOT NULL,
            year INTEGER NOT NULL,
            version VARCHAR NOT NULL,
            manifest_sha256 VARCHAR NOT NULL,
            file VARCHAR NOT NULL,
            bytes BIGINT NOT NULL,
            sha256 VARCHAR NOT NULL
        )
        """,
        """
        CREATE TABLE version_scenes (
            asset VARCHAR NOT NULL,
            country VARCHAR NOT NULL,
            year INTEGER NOT NULL,
            version VARCHAR NOT NULL,
            manifest_sha256 VARCHAR NOT NULL,
            scene VARCHAR NOT NULL,
            taken VARCHAR,
            platform VARCHAR,
            href VARCHAR
        )
        """,
        """
        CREATE TABLE version_tables (
            asset VARCHAR NOT NULL,
            country VARCHAR NOT NULL,
            year INTEGER NOT NULL,
            version VARCHAR NOT NULL,
            manifest_sha256 VARCHAR NOT NULL,
            name VARCHAR NOT NULL,
            row_count BIGINT NOT NULL,
            digest VARCHAR NOT NULL
        )
        """,
        """
        CREATE VIEW current_versions AS
        SELECT * EXCLUDE (current, removed) FROM versions WHERE current
        """,
        """
        CREATE VIEW rows_of_versions AS
        SELECT t.name, t.country, t.year, t.asset, t.version, t.row_count, t.digest
        FROM version_tables t
        JOIN versions v USING (asset, country, year, version, manifest_sha256)
        WHERE v.current
        """,
        """
        CREATE VIEW descent AS
        WITH RECURSIVE edges AS (
            SELECT DISTINCT asset, country, year, version,
                   input_asset, input_country, input_year, input_version
            FROM version_inputs
        ), closure AS (
            SELECT DISTINCT asset AS origin_asset, country AS origin_country, year AS origin_year,
                   version AS origin_version, asset, country, year, version
            FROM versions
            UNION
            SELECT c.origin_asset, c.origin_country, c.origin_year, c.origin_version,
                   e.asset, e.country, e.year, e.version
            FROM closure c JOIN edges e
            ON e.input_asset = c.asset AND e.input_country = c.country
               AND e.input_year = c.year AND e.input_version = c.version
        )
        SELECT c.*, EXISTS (
            SELECT 1 FROM versions v
            WHERE v.asset = c.asset AND v.country = c.country AND v.year = c.year
                  AND v.version = c.version AND v.current
        ) AS current
        FROM closure c
        """,
        """
        CREATE VIEW made_with_scene AS
        SELECT DISTINCT s.scene, s.asset AS first_asset, d.asset, d.country, d.year, d.version,
               d.current
        FROM version_scenes s JOIN descent d
        ON d.origin_asset = s.asset AND d.origin_country = s.country AND d.origin_year = s.year
           AND d.origin_version = s.version
        """,
        """
        CREATE VIEW made_with_source AS
        SELECT DISTINCT s.file, s.path, s.sha256, s.asset AS first_asset,
               d.asset, d.country, d.year, d.version, d.current
        FROM version_sources s JOIN descent d
        ON d.origin_asset = s.asset AND d.origin_country = s.country AND d.origin_year = s.year
           AND d.origin_version = s.version
        """,
        """
        CREATE VIEW made_with_file AS
        SELECT DISTINCT f.file, f.sha256, f.asset AS first_asset,
               d.asset, d.country, d.year, d.version, d.current
        FROM version_files f JOIN descent d
        ON d.origin_asset = f.asset AND d.origin_country = f.country AND d.origin_year = f.year
           AND d.origin_version = f.version
        """,
    ),
    (
        "ALTER TABLE received ADD COLUMN number INTEGER",
        "ALTER TABLE received ADD COLUMN chain VARCHAR",
    ),
    (
        "CREATE TABLE received_before AS SELECT * FROM received",
        "DROP TABLE received",
        """
        CREATE TABLE received (
            country VARCHAR NOT NULL,
            file VARCHAR NOT NULL,
            sha256 VARCHAR NOT NULL,
            bytes BIGINT NOT NULL,
            received_at VARCHAR NOT NULL,
            levels VARCHAR NOT NULL,
            years VARCHAR NOT NULL,
            number INTEGER,
            chain VARCHAR,
            UNIQUE (country, number)
        )
        """,
        "INSERT INTO received SELECT * FROM received_before",
        "DROP TABLE received_before",
    ),
    (
        "ALTER TABLE map_sums ADD COLUMN valid_share DOUBLE",
        # A unit is held against what the map is adjusted to: its own count, with those of the
        # counted units merged into it; none where its own is not known.
        """
        CREATE OR REPLACE VIEW map_against_census AS
        WITH hosts AS (
            SELECT country, year, level,
                   CASE WHEN merged_into = '' THEN unit_id ELSE merged_into END AS unit_id,
                   sum(people) AS people
            FROM people_per_unit GROUP BY ALL HAVING bool_or(merged_into = '')
        )
        SELECT m.country, m.year, m.level, m.unit_id, u.name, m.product,
               h.people AS census_people, m.people AS map_people, m.people_std AS map_std,
               m.people - h.people AS difference,
               (m.people - h.people) / nullif(h.people, 0) AS relative_difference,
               m.valid_share
        FROM map_sums m
        JOIN hosts h USING (country, year, level, unit_id)
        JOIN units u USING (country, year, level, unit_id)
        """,
    ),
    # A cell of the level `hectare` is one of 10 x 10 pixels; those of older rows are not known.
    ("ALTER TABLE evaluation ADD COLUMN area_ha DOUBLE",),
    (
        """
        CREATE TABLE out_of_fold (
            country VARCHAR NOT NULL,
            year INTEGER NOT NULL,
            unit_id VARCHAR NOT NULL,
            people DOUBLE NOT NULL CHECK (people >= 0),
            predicted DOUBLE,
            members INTEGER NOT NULL,
            fold INTEGER,
            PRIMARY KEY (country, year, unit_id)
        )
        """,
    ),
    MAP_INTERVALS,
    (
        # From the store's root; what has no partitions lies right below its asset's folder.
        """
        CREATE OR REPLACE VIEW current_versions AS
        SELECT * EXCLUDE (current, removed),
               CASE WHEN country = '' THEN concat_ws('/', asset, version)
                    ELSE concat_ws('/', asset, country, year, version)
               END AS path
        FROM versions WHERE current
        """,
    ),
    MAP_CHANGE,
    # Checkpoints of several countries: whose unit it is; its id begins with that code then.
    (
        "ALTER TABLE out_of_fold ADD COLUMN unit_country VARCHAR",
        """
        CREATE OR REPLACE VIEW out_of_fold_by_country AS
        SELECT country, year, coalesce(unit_country, country) AS unit_country,
               count(*) AS units, sum(people) AS people, sum(predicted) AS predicted,
               sum(predicted) / nullif(sum(people), 0) AS total_ratio,
               avg(abs(predicted - people)) AS mae,
               avg(abs(ln((predicted + 1) / (people + 1)))) AS log_l1
        FROM out_of_fold GROUP BY ALL
        """,
    ),
    STUDENT_OUT_OF_FOLD,
)
"""Statements that take the schema from one version to the next; never edited, only added to."""

ROW_TABLES = (
    "units",
    "counts",
    "sources",
    "map_sums",
    "evaluation",
    "out_of_fold",
    "student_out_of_fold",
    "map_intervals",
    "map_change",
)
"""Tables whose rows of a partition belong to one version of an asset."""
LINEAGE_TABLES = (
    "version_inputs",
    "version_sources",
    "version_files",
    "version_scenes",
    "version_tables",
)
"""What each version was made from and holds; `versions` lists them."""
TABLES = (*ROW_TABLES, "received", "versions", *LINEAGE_TABLES)
VIEWS = (
    "people_per_unit",
    "density",
    "change",
    "map_against_census",
    "people_with_intervals",
    "out_of_fold_by_country",
    "unseen_by_model",
    "unit_series",
    "totals",
    "current_versions",
    "rows_of_versions",
    "descent",
    "made_with_scene",
    "made_with_source",
    "made_with_file",
)
_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]*")


def identifier(name: str) -> str:
    """A table's or column's name, the only thing that may stand in a statement beside constants.

    Raises:
        ValueError: it is not written as such names are here.
    """
    if not _IDENTIFIER.fullmatch(name):
        raise ValueError(f"no name of a table or column: {name!r}")
    return name


def text_literal(text: str) -> str:
    """A text as a statement holds it, where no parameter can stand: in COMMENT ON."""
    quoted = text.replace("'", "''")
    return f"'{quoted}'"


RENAMED = {"units": {"id": "unit_id", "geometry_wkb": "geometry"}, "counts": {"id": "unit_id"}}
"""Names that the census's reports have for a table's columns."""
