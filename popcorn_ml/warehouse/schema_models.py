"""Steps of the schema for what models other than checkpoints say of units that they never saw."""

from __future__ import annotations

STUDENT_OUT_OF_FOLD: tuple[str, ...] = (
    # A table of its own: both models of a country-year tell the same units, and rows of a
    # partition belong to one asset.
    """
    CREATE TABLE student_out_of_fold (
        country VARCHAR NOT NULL,
        year INTEGER NOT NULL,
        unit_id VARCHAR NOT NULL,
        people DOUBLE NOT NULL CHECK (people >= 0),
        predicted DOUBLE,
        members INTEGER NOT NULL,
        fold INTEGER,
        unit_country VARCHAR,
        PRIMARY KEY (country, year, unit_id)
    )
    """,
    # Members of several countries have units whose ids begin with the country's code, a student of
    # them has its own country's as the census writes them: as both are here.
    """
    CREATE VIEW unseen_by_model AS
    WITH told AS (
        SELECT 'bag' AS model, * FROM out_of_fold
        UNION ALL BY NAME
        SELECT 'student' AS model, * FROM student_out_of_fold
    )
    SELECT model, country, year, coalesce(unit_country, country) AS unit_country,
           CASE WHEN starts_with(unit_id, told.unit_country || '/')
                THEN substr(unit_id, length(told.unit_country) + 2) ELSE unit_id END AS unit_id,
           people, predicted, ln((predicted + 1) / (people + 1)) AS log_ratio, members, fold
    FROM told
    """,
)
