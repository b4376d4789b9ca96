"""Steps of the schema for what maps say of units: their intervals, and change between years."""

from __future__ import annotations

MAP_INTERVALS: tuple[str, ...] = (
    """
    CREATE TABLE map_intervals (
        country VARCHAR NOT NULL,
        year INTEGER NOT NULL,
        level VARCHAR NOT NULL,
        unit_id VARCHAR NOT NULL,
        product VARCHAR NOT NULL CHECK (product IN ('map', 'adjusted')),
        people DOUBLE NOT NULL CHECK (people >= 0),
        p2_5 DOUBLE,
        p10 DOUBLE,
        p90 DOUBLE,
        p97_5 DOUBLE,
        basis VARCHAR NOT NULL,
        CHECK (0 <= p2_5 AND p2_5 <= p10 AND p10 <= p90 AND p90 <= p97_5),
        PRIMARY KEY (country, year, level, unit_id, product)
    )
    """,
    # Beside the count of the unit, where it has one, and whether the interval holds it; that
    # means nothing of units that the map was adjusted to.
    """
    CREATE VIEW people_with_intervals AS
    SELECT i.country, i.year, i.level, i.unit_id, u.name, i.product, i.people,
           i.p2_5, i.p10, i.p90, i.p97_5,
           (i.p90 - i.p10) / nullif(i.people, 0) AS relative_width,
           m.census_people,
           CASE WHEN i.p90 > i.p10
                THEN m.census_people BETWEEN i.p10 AND i.p90 END AS held_80,
           CASE WHEN i.p97_5 > i.p2_5
                THEN m.census_people BETWEEN i.p2_5 AND i.p97_5 END AS held_95,
           i.basis
    FROM map_intervals i
    JOIN units u USING (country, year, level, unit_id)
    LEFT JOIN map_against_census m USING (country, year, level, unit_id, product)
    """,
)

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
