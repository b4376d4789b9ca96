"""Publications in the warehouse: rows and lineage together, and what the views answer."""

from __future__ import annotations

from typing import Any

import pytest

from popcorn_ml.errors import StoreError
from popcorn_ml.warehouse import opening
from popcorn_ml.warehouse.lineage import chained
from popcorn_ml.warehouse.rows import digest, prepared
from popcorn_ml.warehouse.warehouse import Warehouse

from .rows import manifest, sha
from .test_warehouse import count_rows


def used(asset: str, version: str, year: int | None = 2020) -> dict[str, Any]:
    return {"asset": asset, "country": "rwa" if year else None, "year": year, "version": version}


@pytest.fixture
def warehouse(tmp_path) -> Warehouse:
    """An extractor and a scene, a composite, two maps of it and one of another year."""
    made = Warehouse(tmp_path / "w.duckdb")
    scene = {"id": "S2_X", "datetime": "2020-07-01", "platform": "s2a", "href": "x.tif"}
    other = {"id": "S1_Y", "datetime": None, "platform": None, "href": None}
    file = {"path": "census/rwa/counts.csv", "size": 9, "sha256": "e" * 64}
    for one in (
        manifest("extractor", "e" * 16, None),
        manifest("s2", "5" * 16, facts={"scenes": [scene], "other_orbit": {"scenes": [other]}}),
        manifest("census", "c" * 16, sources=[file]),
        manifest("map", "1" * 16, inputs=[used("s2", "5" * 16), used("extractor", "e" * 16, None)]),
        manifest("map", "2" * 16, inputs=[used("s2", "5" * 16), used("census", "c" * 16)]),
        manifest("hectares", "3" * 16, inputs=[used("map", "2" * 16)]),
        manifest("map", "4" * 16, 2021, inputs=[used("census", "c" * 16)]),
    ):
        made.record_publication(one, sha(one), {})
    return made


def test_the_newest_publication_of_a_partition_is_the_current_one(warehouse):
    now = "SELECT version FROM current_versions WHERE asset = 'map' ORDER BY 1"
    assert warehouse.query(now) == [("2" * 16,), ("4" * 16,)]
    old = manifest("map", "1" * 16)
    assert not warehouse.records(old, sha(old))
    warehouse.record_publication(old, sha(old), {})
    assert warehouse.records(old, sha(old))
    assert warehouse.query("SELECT count(*) FROM versions WHERE asset = 'map'") == [(4,)]


def test_a_current_version_says_where_it_lies(warehouse):
    found = dict(warehouse.query("SELECT asset, path FROM current_versions WHERE year <> 2021"))
    assert found["extractor"] == f"extractor/{'e' * 16}"
    assert found["map"] == f"map/rwa/2020/{'2' * 16}"


def test_scenes_files_and_versions_are_followed_down(warehouse):
    made = warehouse.query(
        "SELECT asset, version, current FROM made_with_scene WHERE scene = 'S2_X' ORDER BY ALL"
    )
    assert made == [
        ("hectares", "3" * 16, True), ("map", "1" * 16, False), ("map", "2" * 16, True),
        ("s2", "5" * 16, True),
    ]  # fmt: skip
    assert len(warehouse.query("SELECT * FROM made_with_scene WHERE scene = 'S1_Y'")) == 4
    assert warehouse.query(
        "SELECT asset, year FROM made_with_source "
        "WHERE file = 'counts.csv' AND current ORDER BY ALL"
    ) == [("census", 2020), ("hectares", 2020), ("map", 2020), ("map", 2021)]
    assert warehouse.query(
        "SELECT asset, version FROM descent WHERE origin_asset = 'extractor' ORDER BY ALL"
    ) == [("extractor", "e" * 16), ("map", "1" * 16)]


def test_rows_and_lineage_are_written_together_or_not_at_all(warehouse):
    place = {"asset": "counts", "country": "rwa", "year": 2020}
    first, told = prepared("counts", count_rows(5, 6), **place)
    one = manifest("counts", "a" * 16, tables={"counts": told})
    warehouse.record_publication(one, sha(one), {"counts": first})
    assert told["rows"] == 2
    assert warehouse.digests("counts", "rwa", 2020, ["counts"]) == {"counts": told}
    assert warehouse.query("SELECT asset, version, row_count FROM rows_of_versions") == [
        ("counts", "a" * 16, 2)
    ]
    bad = first.set_column(
        first.column_names.index("people"), "people", [[float(n) for n in (-1, -2)]]
    )
    two = manifest("counts", "b" * 16)
    with pytest.raises(StoreError, match="break its rules"):
        warehouse.record_publication(two, sha(two), {"counts": bad})
    assert warehouse.records(one, sha(one))
    assert warehouse.digests("counts", "rwa", 2020, ["counts"]) == {"counts": told}


def test_rows_are_tried_before_anything_is_published():
    place = {"asset": "counts", "country": "rwa", "year": 2020}
    for bad in (count_rows(5, -1), count_rows(5, 6, id="0001"), count_rows(5).drop(columns="kind")):
        with pytest.raises(StoreError, match=r"break its rules|lack a column"):
            prepared("counts", bad, **place)


def test_a_digest_is_of_the_values_in_any_order():
    place = {"asset": "counts", "country": "rwa", "year": 2020}
    rows = count_rows(5, 6, 7)
    data, told = prepared("counts", rows, **place)
    assert prepared("counts", rows[::-1], **place)[1] == told
    assert prepared("counts", rows.to_dict("records"), **place)[1] == told
    assert digest(data.select(data.column_names[::-1])) == told["digest"]
    assert digest(data.append_column("later", [[None] * 3])) == told["digest"]
    changed = count_rows(5, 6, 7.000000000000001)
    assert prepared("counts", changed, **place)[1]["digest"] != told["digest"]
    again = count_rows(5, 6, 7, source="other.csv")
    assert prepared("counts", again, **place)[1]["digest"] != told["digest"]


def test_earlier_publications_are_recorded_with_a_later_one(warehouse):
    lost = manifest("map", "9" * 16, inputs=[used("s2", "5" * 16)])
    new = manifest("map", "8" * 16)
    warehouse.record_publication(new, sha(new), {}, {sha(lost): lost})
    assert sha(lost) in warehouse.manifests_of("map", "rwa", 2020)
    assert warehouse.query("SELECT current FROM versions WHERE version = ?", ["9" * 16]) == [
        (False,)
    ]
    assert warehouse.records(new, sha(new))


def test_versions_taken_out_on_purpose_keep_their_lineage(warehouse):
    warehouse.mark_removed([("map", "rwa", 2020, "1" * 16), ("extractor", None, None, "e" * 16)])
    assert warehouse.query("SELECT asset FROM versions WHERE removed ORDER BY 1") == [
        ("extractor",), ("map",),
    ]  # fmt: skip
    made = warehouse.query("SELECT version FROM descent WHERE origin_asset = 'extractor'")
    assert ("1" * 16,) in made


def test_receipts_are_chained(tmp_path):
    made = Warehouse(tmp_path / "w.duckdb")
    for file in ("a.csv", "b.csv", "a.csv"):
        made.register_received("rwa", file, sha(file), 5, ["district"], [2020])
    made.register_received("uga", "a.csv", sha("a.csv"), 5, [], [])
    rows = made.query("SELECT * FROM received ORDER BY country, number")
    assert [row[-2] for row in rows] == [1, 2, 3, 1], "the same file again counts again"
    first, second, third, other = rows
    assert first[-1] == chained("", first[:-1])
    assert second[-1] == chained(first[-1], second[:-1])
    assert third[-1] == chained(second[-1], third[:-1])
    assert other[-1] == chained("", other[:-1])


def test_receipts_of_an_older_schema_are_kept(tmp_path, monkeypatch):
    made = Warehouse(tmp_path / "w.duckdb")
    with monkeypatch.context() as older:
        older.setattr(opening, "MIGRATIONS", opening.MIGRATIONS[:3])
        made.register_received("rwa", "a.csv", sha("a.csv"), 5, ["district"], [2020])
        before = made.query("SELECT * FROM received")
    assert made.query("SELECT * FROM received") == before
    made.register_received("rwa", "a.csv", sha("a.csv"), 5, ["district"], [2020])
    assert made.query("SELECT number FROM received ORDER BY number") == [(1,), (2,)]
