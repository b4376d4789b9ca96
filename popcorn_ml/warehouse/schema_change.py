"""The table and the view of change between years, a step of the schema."""

from __future__ import annotations

MAP_CHANGE: tuple[str, ...] = (
    """
    CREATE TABLE map_change (
        country VARCHAR NOT NULL,
        year INTEGER NOT NULL,
        from_year INTEGER NOT NULL CHECK (from_year < year),
        level VARCHAR NOT NULL,
        unit_id VARCHAR NOT NULL,
        people DOUBLE NOT NULL,
        p2_5 DOUBLE,
        p10 DOUBLE,
        p90 DOUBLE,
        p97_5 DOUBLE,
        significant BOOLEAN,
        CHECK (p2_5 <= p10 AND p10 <= p90 AND p90 <= p97_5),
        PRIMARY KEY (country, year, level, unit_id)
    )
    """,
    # The series of each unit: its people in every year that was mapped, with their interval,
    # what was counted, and what changed since the year it was compared with.
    """
    CREATE VIEW unit_series AS
    SELECT m.country, m.level, m.unit_id, u.name, m.year, m.people,
           i.p2_5, i.p10, i.p90, i.p97_5, c.people AS counted, c.kind,
           d.from_year, d.people AS people_added, d.p2_5 AS added_p2_5,
           d.p10 AS added_p10, d.p90 AS added_p90, d.p97_5 AS added_p97_5, d.significant
    FROM map_sums m
    JOIN units u USING (country, year, level, unit_id)
    LEFT JOIN map_intervals i USING (country, year, level, unit_id, product)
    LEFT JOIN counts c USING (country, year, level, unit_id)
    LEFT JOIN map_change d USING (country, year, level, unit_id)
    WHERE m.product = 'adjusted'
    """,
)
