"""Tables and views of the warehouse: partitions replaced whole, the schema brought up to date."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
import shapely

from popcorn_ml.errors import StoreError
from popcorn_ml.warehouse import opening
from popcorn_ml.warehouse.schema import TABLES, VIEWS
from popcorn_ml.warehouse.warehouse import Warehouse, remove

from .rows import publish


def unit_rows() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "level": ["coarse"] * 3,
            "number": [1, 2, 3],
            "id": ["0001", "0002", "0003"],
            "name": ["Añasco", "Bé", "C'est; DROP TABLE units"],
            "parent": ["Nord", "", ""],
            "geometry_wkb": [shapely.box(k, 0, k + 1, 1).wkb for k in range(3)],
            "crs": "EPSG:4326",
            "vintage": [2020, 2020, 2020],
            "area_ha": [100.0, 200.0, 0.5],
            "pixel_area_ha": [100.0, 199.0, 0.0],
            "pixels": [10000, 20000, 0],
            "status": ["centre", "centre", "merged"],
            "merged_into": ["", "", "0002"],
            "file": "units.gpkg",
            "row": [1, 2, 3],
        }
    )


def count_rows(*people: float, **fixed: Any) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "level": "coarse",
            "id": [f"{k + 1:04d}" for k in range(len(people))],
            "people": list(people),
            "kind": "census",
            "method": "census 2020",
            "base_year": 2020,
            "source": "counts.csv",
            "source_sha256": "ab" * 32,
            "retrieved": None,
            **fixed,
        }
    )


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    made = Warehouse(tmp_path / "deep" / "w.duckdb")
    publish(made, "units", "rwa", 2020, unit_rows())
    publish(made, "counts", "rwa", 2020, count_rows(1000, 500, 20))
    return made


def test_reading_an_absent_warehouse_makes_an_empty_one(tmp_path: Path) -> None:
    made = Warehouse(tmp_path / "new" / "w.duckdb")
    assert made.query("SELECT count(*) FROM units") == [(0,)]
    tables = {r[0] for r in made.query("SELECT table_name FROM information_schema.tables")}
    assert tables == {*TABLES, *VIEWS, "schema_versions"}


def test_what_was_written_leaves_nothing_behind_for_the_next_reader(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    publish(warehouse, "counts", "rwa", 2021, count_rows(1100, 600, 30))
    other = Warehouse(tmp_path / "other.duckdb")
    tables = {r[0] for r in other.query("SELECT table_name FROM information_schema.tables")}
    assert tables == {*TABLES, *VIEWS, "schema_versions"}


def test_a_partition_is_replaced_whole_and_others_stay(warehouse: Warehouse) -> None:
    publish(warehouse, "counts", "rwa", 2021, count_rows(1100, 600, 30))
    publish(warehouse, "counts", "uga", 2020, count_rows(7))
    assert publish(warehouse, "counts", "rwa", 2020, count_rows(1001)) == 1
    assert warehouse.query(
        "SELECT country, year, count(*), sum(people) FROM counts GROUP BY ALL ORDER BY ALL"
    ) == [("rwa", 2020, 1, 1001.0), ("rwa", 2021, 3, 1730.0), ("uga", 2020, 1, 7.0)]
    assert publish(warehouse, "counts", "rwa", 2020, []) == 0
    assert warehouse.query("SELECT country, year FROM counts GROUP BY ALL ORDER BY ALL") == [
        ("rwa", 2021), ("uga", 2020),
    ]  # fmt: skip
    assert warehouse.query("SELECT count(*) FROM units") == [(3,)]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (count_rows(5, -1), "break its rules"),
        (count_rows(5, 6, id="0001"), "break its rules"),
        (count_rows(5, 6, kind="rumour"), "break its rules"),
        (count_rows(5).assign(people=[None]), "break its rules"),
        (count_rows(5).drop(columns="method"), "lack a column"),
    ],
)
def test_a_failed_write_changes_nothing(warehouse: Warehouse, bad: pd.DataFrame, message) -> None:
    before = warehouse.query("SELECT * FROM counts ORDER BY ALL")
    with pytest.raises(StoreError, match=message):
        publish(warehouse, "counts", "rwa", 2020, bad)
    assert warehouse.query("SELECT * FROM counts ORDER BY ALL") == before


def test_geometry_and_names_come_back_as_they_went(warehouse: Warehouse) -> None:
    (wkb, crs, name), = warehouse.query(
        "SELECT geometry, crs, name FROM units WHERE unit_id = $id", {"id": "0003"}
    )  # fmt: skip
    assert shapely.from_wkb(bytes(wkb)).equals(shapely.box(2, 0, 3, 1))
    assert (crs, name) == ("EPSG:4326", "C'est; DROP TABLE units")


def test_views(warehouse: Warehouse) -> None:
    publish(warehouse, "units", "rwa", 2022, unit_rows())
    publish(warehouse, "counts", "rwa", 2022, count_rows(1210, 500, 0, kind="projection"))
    people = warehouse.query(
        "SELECT year, name, people, kind FROM people_per_unit WHERE unit_id = '0001' ORDER BY year"
    )
    assert people == [(2020, "Añasco", 1000.0, "census"), (2022, "Añasco", 1210.0, "projection")]
    density = warehouse.query(
        "SELECT people_per_ha, people_per_km2 FROM density WHERE unit_id = '0001' AND year = 2020"
    )
    assert density == [(10.0, 1000.0)]
    change = warehouse.query(
        "SELECT unit_id, from_year, people_added, growth_a_year FROM change WHERE year = 2022 "
        "ORDER BY unit_id"
    )
    assert change[0] == ("0001", 2020, 210.0, pytest.approx(0.1))
    assert change[1] == ("0002", 2020, 0.0, pytest.approx(0.0))
    assert change[2] == ("0003", 2020, -20.0, None), "no rate to nobody"
    totals = warehouse.query("SELECT year, units, people, kinds FROM totals ORDER BY year")
    assert totals == [(2020, 3, 1520.0, "census"), (2022, 3, 1710.0, "projection")]


def test_the_map_against_the_census_counts_merged_units_with_their_host(
    warehouse: Warehouse,
) -> None:
    of_map = {"level": "coarse", "product": "map"}
    publish(warehouse, "map_sums", "rwa", 2020,
        [
            {**of_map, "unit_id": "0001", "people": 900.0, "people_std": 30.0},
            {**of_map, "unit_id": "0002", "people": 520.0},
        ],
    )  # fmt: skip
    found = warehouse.query(
        "SELECT unit_id, census_people, map_people, map_std, difference, relative_difference "
        "FROM map_against_census ORDER BY unit_id"
    )
    assert found == [
        ("0001", 1000.0, 900.0, 30.0, -100.0, -0.1),
        ("0002", 520.0, 520.0, None, 0.0, 0.0),
    ]


def test_units_are_compared_with_the_counts_that_they_are_adjusted_to(
    warehouse: Warehouse,
) -> None:
    """Those of the counted units merged into them included, where their own is known."""
    rows = [{**row, "valid_share": 0.5} for row in [
        {"level": "coarse", "product": "map", "unit_id": unit, "people": 500.0}
        for unit in ("0001", "0002")
    ]]  # fmt: skip
    publish(warehouse, "map_sums", "rwa", 2020, rows)
    question = "SELECT unit_id, census_people, valid_share FROM map_against_census ORDER BY unit_id"
    publish(warehouse, "counts", "rwa", 2020, count_rows(1000, 500))
    assert warehouse.query(question) == [("0001", 1000.0, 0.5), ("0002", 500.0, 0.5)]
    host_uncounted = count_rows(1000, 500, 20).drop(index=1)
    publish(warehouse, "counts", "rwa", 2020, host_uncounted)
    assert warehouse.query(question) == [("0001", 1000.0, 0.5)]


def test_evaluation_and_sources(warehouse: Warehouse) -> None:
    r2 = {"level": "hectare", "metric": "r2"}
    rows = [
        {**r2, "product": "map", "value": 0.6, "n": 9, "details": {"b": 1, "a": 2}},
        {**r2, "product": "uniform", "value": math.nan},
    ]
    publish(warehouse, "evaluation", "rwa", 2020, rows)
    assert publish(warehouse, "evaluation", "rwa", 2020, rows) == 2
    found = warehouse.query("SELECT product, value, n, details FROM evaluation ORDER BY product")
    assert found == [("map", 0.6, 9, '{"a": 2, "b": 1}'), ("uniform", None, None, None)]
    source = {"file": "c.csv", "sha256": "00", "bytes": 3, "licence": "CC-BY"}
    publish(warehouse, "sources", "rwa", 2020, [source], asset="census_counts")
    publish(warehouse, "sources", "rwa", 2020, [source], asset="census_units")
    publish(warehouse, "sources", "rwa", 2020, [], asset="census_counts")
    assert warehouse.query("SELECT asset, file, licence FROM sources") == [
        ("census_units", "c.csv", "CC-BY")
    ]


def test_units_told_by_members_and_by_a_student_meet(warehouse: Warehouse) -> None:
    """Also where the members were trained on several countries, whose ids begin with the code."""

    def told(unit: str, predicted: float, country: str | None = None) -> dict:
        return {
            "unit_id": unit, "people": 99.0, "predicted": predicted, "members": 1, "fold": 0,
            "unit_country": country,
        }  # fmt: skip

    members = [told("rwa/01", 99, "rwa"), told("uga/01", 49, "uga")]
    publish(warehouse, "out_of_fold", "rwa", 2020, members)
    publish(warehouse, "student_out_of_fold", "rwa", 2020, [told("01", 9)])
    publish(warehouse, "out_of_fold", "uga", 2020, [told("uga/7", 9)])
    assert warehouse.query(
        "SELECT model, country, unit_country, unit_id, round(exp(log_ratio), 2) "
        "FROM unseen_by_model ORDER BY ALL"
    ) == [
        ("bag", "rwa", "rwa", "01", 1.0),
        ("bag", "rwa", "uga", "01", 0.5),
        ("bag", "uga", "uga", "uga/7", 0.1),
        ("student", "rwa", "rwa", "01", 0.1),
    ]


def test_a_path_with_quotes(tmp_path: Path) -> None:
    made = Warehouse(tmp_path / "it's; 'quoted'" / "w.duckdb")
    publish(made, "counts", "rwa", 2020, count_rows(5))
    assert made.query("SELECT people FROM counts") == [(5.0,)]


def test_the_file_is_plain_duckdb_for_others(warehouse: Warehouse) -> None:
    """An analyst opens it under any name, with its views."""
    with duckdb.connect(str(warehouse.path), read_only=True) as connection:
        for view in VIEWS:
            connection.execute(f"SELECT * FROM {view}").fetchall()
        assert connection.execute("SELECT people FROM totals").fetchall() == [(1520.0,)]


def test_readers_cannot_write(warehouse: Warehouse) -> None:
    with pytest.raises(duckdb.Error, match="read-only"):
        warehouse.query("DELETE FROM counts")
    assert warehouse.query("SELECT count(*) FROM counts") == [(3,)]


def test_an_older_schema_is_migrated_with_its_rows(warehouse: Warehouse, monkeypatch) -> None:
    newer = (*opening.MIGRATIONS, ("ALTER TABLE counts ADD COLUMN note VARCHAR DEFAULT 'none'",))
    monkeypatch.setattr(opening, "MIGRATIONS", newer)
    assert warehouse.query("SELECT count(*), min(note) FROM counts") == [(3, "none")]
    assert warehouse.query("SELECT max(version) FROM schema_versions") == [(len(newer),)]
    assert warehouse.migrate() == len(newer)


def test_evaluations_from_before_they_had_an_area_are_kept(warehouse, monkeypatch) -> None:
    """Of which area a cell was is not known of them; what their manifests say still holds."""
    row = {"product": "map", "level": "hectare", "metric": "mae", "value": 2.0, "n": 9}
    number = next(
        n for n, step in enumerate(opening.MIGRATIONS) if "evaluation ADD" in " ".join(step)
    )
    old = Warehouse(warehouse.path.with_name("old.duckdb"))
    with monkeypatch.context() as older:
        older.setattr(opening, "MIGRATIONS", opening.MIGRATIONS[:number])
        old.migrate()
        assert "area_ha" not in [column[0] for column in old.query("DESCRIBE evaluation")]
    with duckdb.connect(str(old.path)) as connection:
        connection.execute(
            "INSERT INTO evaluation VALUES ('rwa', 2020, 'map', 'hectare', 'mae', 2.0, 9, NULL)"
        )
    assert old.query("SELECT level, value, area_ha FROM evaluation") == [("hectare", 2.0, None)]
    publish(warehouse, "evaluation", "rwa", 2020, [row])
    asked = ("evaluation", "rwa", 2020, ["evaluation"])
    assert old.digests(*asked) == warehouse.digests(*asked)
    publish(old, "evaluation", "rwa", 2020, [{**row, "area_ha": 0.51}])
    assert old.query("SELECT area_ha FROM evaluation") == [(0.51,)]


def test_a_failed_migration_leaves_the_old_schema(warehouse: Warehouse, monkeypatch) -> None:
    newer = (*opening.MIGRATIONS, ("ALTER TABLE counts ADD COLUMN note VARCHAR", "SELECT nonsense"))
    monkeypatch.setattr(opening, "MIGRATIONS", newer)
    with pytest.raises(duckdb.Error, match="nonsense"):
        warehouse.migrate()
    monkeypatch.undo()
    assert warehouse.query("SELECT max(version) FROM schema_versions") == [(len(newer) - 1,)]
    columns = [r[0] for r in warehouse.query("DESCRIBE counts")]
    assert "note" not in columns


def test_a_newer_schema_is_refused(warehouse: Warehouse, monkeypatch) -> None:
    monkeypatch.setattr(opening, "MIGRATIONS", ())
    with pytest.raises(StoreError, match="newer version"):
        warehouse.query("SELECT 1")
    with pytest.raises(StoreError, match="newer version"):
        publish(warehouse, "counts", "rwa", 2020, count_rows(5))


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "w.duckdb").write_text("country,people\n" * 1000)
    with pytest.raises(StoreError, match="cannot be opened"):
        Warehouse(tmp_path / "w.duckdb").query("SELECT 1")


def test_an_error_in_a_query_does_not_spoil_the_next(warehouse: Warehouse) -> None:
    for _ in range(3):
        with pytest.raises(duckdb.Error):
            warehouse.query("SELECT nonsense FROM nowhere")
        assert warehouse.query("SELECT sum(people) FROM counts") == [(1520.0,)]
    frame = warehouse.frame("SELECT * FROM totals")
    assert frame["people"].tolist() == [1520.0]


def test_values_never_become_statements(warehouse: Warehouse) -> None:
    evil = "rwa'; DROP TABLE counts; --"
    publish(warehouse, "counts", evil, 2020, count_rows(5))
    assert warehouse.query("SELECT count(*) FROM counts WHERE country = ?", [evil]) == [(1,)]
    publish(warehouse, "counts", evil, 2020, [])
    assert warehouse.query("SELECT count(*) FROM counts") == [(3,)]


def test_remove(warehouse: Warehouse) -> None:
    remove(warehouse.path)
    assert list(warehouse.path.parent.iterdir()) == []


def test_every_table_view_and_column_says_what_it_holds(warehouse: Warehouse) -> None:
    warehouse.migrate()
    found = warehouse.query(
        "SELECT table_name, '', comment FROM duckdb_tables() WHERE NOT internal "
        "UNION ALL SELECT view_name, '', comment FROM duckdb_views() WHERE NOT internal "
        "UNION ALL SELECT table_name, column_name, comment FROM duckdb_columns() WHERE NOT internal"
    )
    assert {table for table, column, _ in found if not column} >= {*TABLES, *VIEWS}
    assert [(table, column) for table, column, comment in found if not comment] == []
