"""Maps and evaluation on a copy of the small country: judged before they are current, and made from
what belongs together."""

from __future__ import annotations

import csv
import json

import dagster as dg
import numpy as np
import pytest
import yaml

from popcorn_assets.partitions import partition_key
from popcorn_assets.resources import StoreResource
from popcorn_assets.store.versions import MANIFEST, Address, Store
from popcorn_ml import raster
from popcorn_ml.mapping import checks as judged
from popcorn_ml.warehouse.warehouse import Warehouse
from popcorn_ml.zones import zone_sums
from tests.platforms import Place, enter
from tests.platforms import copied as copy_of

YEAR = 2021


@pytest.fixture(scope="module")
def copied(tiny, tmp_path_factory) -> Place:
    return copy_of(tiny, tmp_path_factory.mktemp("together") / "home")


@pytest.fixture
def store(copied, monkeypatch) -> Store:
    enter(copied, monkeypatch)
    monkeypatch.setenv("POPCORN_LAUNCHER", "inline")
    return Store(copied.data)


def make(*names: str) -> dg.ExecuteInProcessResult:
    from popcorn_assets.definitions import defs

    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(
            [one for one in defs.assets or () if isinstance(one, dg.AssetsDefinition)],
            selection=list(names),
            partition_key=partition_key("demo", YEAR),
            instance=instance,
            resources={**(defs.resources or {}), "store": StoreResource()},
            raise_on_error=False,
        )


def at(asset: str) -> Address:
    return Address(asset, "demo", YEAR)


def sums(store: Store) -> list[tuple]:
    columns = "level, unit_id, product, people, people_std"
    sql = f"SELECT {columns} FROM map_sums WHERE year = ? ORDER BY ALL"
    return Warehouse(store.warehouse).query(sql, [YEAR])


@pytest.mark.parametrize(
    ("asset", "bound", "value", "check"),
    [
        ("population_map", "MIN_COVERAGE", 1.1, "covers_the_units"),
        ("adjusted_map", "CENSUS_TOLERANCE", -1.0, "units_sum_to_the_census"),
        ("hectare_map", "CENSUS_TOLERANCE", -1.0, "hectares_keep_every_person"),
    ],
)
def test_a_map_that_fails_a_check_that_blocks_never_becomes_current(
    store, monkeypatch, asset, bound, value, check
):
    before = store.latest(at(asset))
    manifest = before.manifest_sha256()
    monkeypatch.setattr(judged, bound, value)
    assert make(asset).success
    rejected = store.rejected(at(asset))
    failed = [one for one in rejected.manifest()["checks"] if not one["passed"]]
    assert [one["name"] for one in failed] == [check]
    assert "To do: " in failed[0]["message"]
    assert store.latest(at(asset)) == before
    assert before.manifest_sha256() == manifest
    monkeypatch.undo()


def test_nothing_is_made_from_a_map_that_was_not_held_against_its_units(store, monkeypatch):
    """As of a map that was made before the census was there, or by an earlier release."""
    themap, before = store.latest(at("population_map")), store.latest(at("adjusted_map"))
    path = themap.path / MANIFEST
    kept = path.read_bytes()
    manifest = json.loads(kept)
    manifest["checks"] = [c for c in manifest["checks"] if c["name"] != "covers_the_units"]
    path.write_text(json.dumps(manifest))
    try:
        assert make("adjusted_map").success
        assert store.latest(at("adjusted_map")) == before
        monkeypatch.setattr(judged, "MIN_COVERAGE", 1.1)
        assert not make("adjusted_map").success
        assert store.newest(at("adjusted_map")) == before
    finally:
        path.write_bytes(kept)


def test_evaluation_on_a_level_that_was_trained_on_is_kept_and_its_rows_are_not(store, copied):
    path = copied.home / "countries" / "demo.yaml"
    text = path.read_text("utf-8")
    country = yaml.safe_load(text)
    levels = country["census"]["levels"]
    levels["coarse"]["role"], levels["fine"]["role"] = "evaluate", "train"
    before, rows = store.latest(at("evaluation")), sums(store)
    try:
        path.write_text(yaml.safe_dump(country), "utf-8")
        assert make("evaluation").success
    finally:
        path.write_text(text, "utf-8")
    (failed,) = [
        c for c in store.rejected(at("evaluation")).manifest()["checks"] if not c["passed"]
    ]
    assert failed["name"] == "evaluation_levels_kept_out"
    assert store.latest(at("evaluation")) == before
    assert sums(store) == rows


def test_adjusted_people_have_the_spread_of_adjusted_members(store):
    assert make("evaluation").success
    rows = {row[:3]: row[3:] for row in sums(store)}
    adjusted = {key: value for key, value in rows.items() if key[2] == "adjusted"}
    assert adjusted
    assert all(std is not None for _, std in adjusted.values())
    assert all(std == 0 for key, (_, std) in adjusted.items() if key[0] == "coarse")

    units = store.latest(at("census_units"))
    coarse, fine = (
        raster.read(units.file(f"units_{level}.tif"), bands=1) for level in ("coarse", "fine")
    )
    members = raster.read_float(store.latest(at("population_map")).file("population_members.tif"))
    people = {unit: value[0] for (level, unit, _), value in adjusted.items() if level == "coarse"}
    by_number = _ids(units, "coarse")
    counted = np.array([0.0, *(people[by_number[n]] for n in range(1, len(by_number) + 1))])
    spread = []
    for member in members:
        total = zone_sums(coarse, member, len(by_number))
        factor = counted / np.where(total > 0, total, np.nan)
        spread.append(zone_sums(fine, member * factor[coarse], len(_ids(units, "fine"))))
    expected = np.std(spread, axis=0, ddof=1)
    for number, unit in _ids(units, "fine").items():
        assert adjusted["fine", unit, "adjusted"][1] == pytest.approx(
            expected[number], rel=1e-4, abs=1e-6
        )
    assert expected[1:].max() > 0.1


def _ids(units, level: str) -> dict[int, str]:
    import pyarrow.parquet as pq

    table = pq.read_table(units.file(f"units_{level}.parquet"), columns=["number", "id"])
    return {row["number"]: row["id"] for row in table.to_pylist()}


def test_evaluation_by_itself_scores_a_map_on_the_census_that_it_was_made_from(store, copied):
    assert make("evaluation").success
    before = store.latest(at("evaluation"))
    table = copied.data / "demo" / "census" / f"counts_coarse_{YEAR}.csv"
    kept, text = store.latest(at("census_counts")), table.read_bytes()
    rows = list(csv.DictReader(text.decode().splitlines()))
    with open(table, "w", newline="") as file:
        out = csv.DictWriter(file, rows[0])
        out.writeheader()
        out.writerows({**row, "people": round(1.1 * float(row["people"]))} for row in rows)
    try:
        assert make("census_counts").success
        assert store.latest(at("census_counts")) != kept
        assert make("evaluation").success
        again = store.latest(at("evaluation"))
        assert again.version == before.version, "the map and its census are as they were"
        assert again.manifest()["inputs"] == before.manifest()["inputs"]
    finally:
        table.write_bytes(text)
