"""The whole graph on a small simulated country: what `popcorn demo` leaves behind."""

from __future__ import annotations

import json
from contextlib import contextmanager

import dagster as dg
import numpy as np
import pytest

from popcorn_assets.automation import INGEST_JOB
from popcorn_assets.commands.demo import RUNS, run_demo
from popcorn_assets.partitions import partition_key
from popcorn_assets.runs.lost import OWNER_TAG
from popcorn_assets.store.making import REUSE_TAG
from popcorn_assets.store.versions import Address, Store, digests, version_of
from popcorn_ml import raster
from popcorn_ml.sentinel import SEASONS, SENSORS
from tests.platforms import Place, copied, tiny_spec

pytestmark = [pytest.mark.long(20), pytest.mark.timeout(400)]

SEASON_ASSETS = [f"{sensor}_{season}" for sensor in SENSORS for season in SEASONS]
ASSETS = [
    *SEASON_ASSETS,
    "s1_composites",
    "s2_composites",
    "census_units",
    "census_counts",
    "builtup_area",
    "deployed_model",
    "population_map",
    "adjusted_map",
    "hectare_map",
    "evaluation",
    "change",
]


PLAIN = ("census_counts", "deployed_model")
"""Assets without a picture."""


@pytest.fixture(scope="module")
def tiny(pristine, tmp_path_factory) -> Place:
    """The small country of this module alone: some tests run it again."""
    return copied(pristine, tmp_path_factory.mktemp("graph") / "home")


@pytest.fixture
def store(in_tiny) -> Store:
    return Store(in_tiny.data)


def latest(store, asset, year=2020):
    return store.latest(Address(asset, "demo", year))


def materialisations(instance, asset, year):
    return instance.fetch_materializations(
        dg.AssetRecordsFilter(
            asset_key=dg.AssetKey(asset), asset_partitions=[partition_key("demo", year)]
        ),
        limit=10,
    ).records


def test_both_years_are_complete_and_only_the_first_was_trained(store):
    for year in (2020, 2021):
        for asset in ASSETS:
            version = latest(store, asset, year)
            manifest = version.manifest()
            assert digests(version.path) == manifest["files"]
            assert version_of(manifest["files"]) == version.version
    assert latest(store, "checkpoints", 2020)
    assert store.find(Address("checkpoints", "demo", 2021)) is None


def test_dagster_knows_the_version_and_the_partition_of_every_asset(in_tiny, store):
    with in_tiny.instance() as instance:
        for year in (2020, 2021):
            for asset in [*ASSETS, *(["checkpoints"] if year == 2020 else [])]:
                records = materialisations(instance, asset, year)
                assert records, (asset, year)
                tags = records[0].asset_materialization.tags
                assert tags["dagster/data_version"] == latest(store, asset, year).version


def test_the_second_years_imagery_was_made_beside_the_first_year(in_tiny, store):
    with in_tiny.instance() as instance:
        runs = {run.job_name: run for run in instance.get_runs()}
        beside = runs[INGEST_JOB]
        assert beside.status == dg.DagsterRunStatus.SUCCESS
        assert beside.tags["dagster/partition"] == partition_key("demo", 2021)
        first = runs[RUNS[0][1]]
        assert beside.tags[OWNER_TAG] != first.tags[OWNER_TAG]
        began = instance.get_run_record_by_id(beside.run_id).start_time
        assert began < instance.get_run_record_by_id(first.run_id).end_time
    for asset in SEASON_ASSETS:
        made = latest(store, asset, 2020).manifest(), latest(store, asset, 2021).manifest()
        assert [one["run_id"] for one in made] == [first.run_id, beside.run_id]


def test_every_input_of_every_manifest_is_a_version_in_the_store(store):
    for year in (2020, 2021):
        for asset in ASSETS:
            for entry in latest(store, asset, year).manifest()["inputs"]:
                address = Address(entry["asset"], entry["country"], entry["year"])
                assert store.version(address, entry["version"])
    model = latest(store, "population_map", 2021).manifest()["inputs"]
    assert ("checkpoints", 2020) in {(entry["asset"], entry["year"]) for entry in model}


def test_manifests_say_scenes_code_libraries_and_run(in_tiny, store):
    manifest = latest(store, "s2_summer").manifest()
    assert manifest["facts"]["scenes"]
    assert {"id", "datetime", "baseline"} <= set(manifest["facts"]["scenes"][0])
    assert manifest["libraries"]["dagster"] == "1.13.27"
    assert manifest["code"]["package"]
    with in_tiny.instance() as instance:
        assert instance.get_run_by_id(manifest["run_id"]).status == dg.DagsterRunStatus.SUCCESS


def test_an_operator_sees_a_picture_totals_nodata_and_the_path(in_tiny, store, pristine):
    with in_tiny.instance() as instance:
        record = materialisations(instance, "population_map", 2021)[0]
    shown = record.asset_materialization.metadata
    address = shown["picture"].value
    assert address.startswith("![picture](/logs/pictures/population_map/demo/2021/")
    assert len(address) < 100
    assert shown["people on the grid"].value > 0
    assert shown["nodata share"].value == 0
    assert "demo|2020" in shown["model"].value
    made = latest(Store(pristine.data), "population_map", 2021)  # where the copied run made it
    assert shown["path"].value == str(made.path)
    assert made.version == latest(store, "population_map", 2021).version


def test_figures_are_numbers_that_dagster_plots(in_tiny):
    with in_tiny.instance() as instance:
        years = {"evaluation": 2021, "checkpoints": 2020, "census_counts": 2021}
        shown = {
            asset: materialisations(instance, asset, year)[0].asset_materialization.metadata
            for asset, year in years.items()
        }
    for title in ("R2, map, per hectare", "RMSE, people, map, per hectare", "people, adjusted"):
        assert isinstance(shown["evaluation"][title], dg.FloatMetadataValue), title
    loss = shown["checkpoints"]["held-out loss, mean of members"]
    assert isinstance(loss, dg.FloatMetadataValue)
    assert isinstance(shown["census_counts"]["people"], dg.FloatMetadataValue | dg.IntMetadataValue)


def test_a_run_keeps_no_pictures_in_dagsters_records(in_tiny):
    """Each event is kept for ever: none is larger than a table of figures."""
    with in_tiny.instance() as instance:
        for run in instance.get_runs():
            for record in instance.all_logs(run.run_id):
                size = len(dg.serialize_value(record))
                of_a_member = "train_member" in (record.step_key or "")
                assert size < (60_000 if of_a_member else 40_000), (record.step_key, size)


def test_maps_say_the_year_that_they_show_and_the_model_that_made_them(store):
    for asset, name in (
        ("builtup_area", "builtup_score"), ("population_map", "population"),
        ("population_map", "population_members"), ("adjusted_map", "population"),
    ):  # fmt: skip
        tags = raster.tags(latest(store, asset, 2021).file(f"{name}.tif"))
        assert (tags["country"], tags["year"]) == ("demo", "2021")
        assert asset == "builtup_area" or "demo|2020" in tags["model"]


def test_adjusted_map_and_hectares_hold_every_counted_person(store):
    counts = json.loads(latest(store, "census_counts").file("counts_coarse.json").read_text())
    people = sum(unit["people"] for unit in counts)
    adjusted = raster.read_float(latest(store, "adjusted_map").file("population.tif"), bands=1)
    hectares = raster.read_float(latest(store, "hectare_map").file("population.tif"), bands=1)
    assert np.nansum(adjusted, dtype=float) == pytest.approx(people, rel=1e-6)
    assert np.nansum(hectares, dtype=float) == pytest.approx(people, rel=1e-6)


def test_summary_has_the_promised_keys(in_tiny):
    summary = json.loads((in_tiny.data / "demo" / "summary.json").read_text())
    for year in ("2020", "2021"):
        for approach in ("uniform", "builtup", "map", "adjusted"):
            for per in ("hectare", "unit"):
                assert {"r2", "mae", "rmse"} <= set(summary["metrics"][year][approach][per])
        assert {"predicted", "true"} <= set(summary["totals"][year])
    assert summary["change"]["2020"]["from_year"] is None
    assert summary["change"]["2021"]["from_year"] == 2020
    assert set(ASSETS) | {"checkpoints"} <= set(summary["seconds"])
    assert summary["wall_seconds"] > 0
    assert summary["peak_rss_mb"] > 100


def test_census_tables_are_in_the_warehouse(in_tiny):
    from popcorn_ml.warehouse.warehouse import Warehouse

    rows = Warehouse(in_tiny.data / "warehouse.duckdb").query(
        "SELECT year, count(*), sum(people) FROM counts WHERE country = ? AND level = ? "
        "GROUP BY year ORDER BY year",
        ["demo", "coarse"],
    )
    assert [(year, units) for year, units, _ in rows] == [(2020, 12), (2021, 12)]
    assert all(people > 0 for _, _, people in rows)


def test_maps_and_their_evaluation_are_in_the_warehouse(in_tiny, store):
    from popcorn_ml.warehouse.warehouse import Warehouse

    tables = Warehouse(in_tiny.data / "warehouse.duckdb")
    rows = tables.query(
        "SELECT product, count(*), max(abs(relative_difference)) FROM map_against_census "
        "WHERE country = ? AND year = ? AND level = ? GROUP BY product ORDER BY product",
        ["demo", 2021, "coarse"],
    )
    assert [(product, units) for product, units, _ in rows] == [("adjusted", 12), ("map", 12)]
    assert rows[0][2] < 1e-6 < rows[1][2]
    metrics = json.loads(latest(store, "evaluation", 2021).file("metrics.json").read_text())
    (value,) = tables.query(
        "SELECT value FROM evaluation WHERE country = ? AND year = ? AND product = ? "
        "AND level = ? AND metric = ?",
        ["demo", 2021, "map", "hectare", "r2"],
    )[0]
    assert value == pytest.approx(metrics["metrics"]["map"]["hectare"]["r2"])


def test_every_check_of_the_demo_passes_or_only_warns(in_tiny):
    with in_tiny.instance() as instance:
        for run in instance.get_runs():
            events = instance.get_records_for_run(
                run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
            ).records
            verdicts = [
                r.event_log_entry.get_dagster_event().asset_check_evaluation_data for r in events
            ]
            assert len(verdicts) > 20
            errors = [
                v.check_name
                for v in verdicts
                if not v.passed and v.severity == dg.AssetCheckSeverity.ERROR
            ]
            assert errors == []


def test_a_second_demo_reuses_what_is_current(in_tiny, store):
    before = {(a, y): latest(store, a, y).version for a in ASSETS for y in (2020, 2021)}
    trained = latest(store, "checkpoints").manifest()["run_id"]
    assert run_demo(tiny_spec()) == 0
    assert before == {(a, y): latest(store, a, y).version for a in ASSETS for y in (2020, 2021)}
    assert latest(store, "checkpoints").manifest()["run_id"] == trained
    with in_tiny.instance() as instance:
        for asset in ASSETS:
            newest = materialisations(instance, asset, 2021)[0].asset_materialization
            assert newest.metadata["reused"].value is True, asset
            assert ("picture" in newest.metadata) == (asset not in PLAIN)


def test_the_same_map_again_from_scratch_is_the_same_version(in_tiny, store):
    from popcorn_assets.definitions import defs

    before = latest(store, "population_map", 2021)
    with in_tiny.instance() as instance:
        result = dg.materialize(
            [*defs.assets],
            selection=["population_map"],
            partition_key=partition_key("demo", 2021),
            instance=instance,
            resources=defs.resources,
        )
        assert result.success
    after = latest(store, "population_map", 2021)
    assert after.version == before.version
    assert after.manifest()["run_id"] == result.run_id


@contextmanager
def altered(version, **changes):
    """A manifest as it might have been, for as long as the block runs."""
    path = version.file("manifest.json")
    kept = path.read_bytes()
    path.write_text(json.dumps({**json.loads(kept), **changes}))
    try:
        yield
    finally:
        path.write_bytes(kept)


def failure_of(in_tiny, asset: str) -> str:
    from popcorn_assets.definitions import defs

    with in_tiny.instance() as instance:
        result = dg.materialize(
            [*defs.assets],
            selection=[asset],
            partition_key=partition_key("demo", 2021),
            instance=instance,
            resources=defs.resources,
            raise_on_error=False,
        )
    event = next(e for e in result.all_events if e.event_type_value == "STEP_FAILURE")
    error = event.step_failure_data.error
    return (error.cause or error).message


def test_nothing_is_made_from_a_version_that_failed_a_blocking_check(in_tiny, store):
    counts = latest(store, "census_counts", 2021)
    before = latest(store, "adjusted_map", 2021).version
    failed = [
        {**check, "passed": check["name"] != "counts_nonnegative", "severity": "error"}
        for check in counts.manifest()["checks"]
    ]
    with altered(counts, checks=failed):
        message = failure_of(in_tiny, "adjusted_map")
    assert "did not pass its checks" in message
    assert "counts_nonnegative" in message
    assert latest(store, "adjusted_map", 2021).version == before


def test_counts_joined_to_other_units_are_refused(in_tiny, store):
    counts = latest(store, "census_counts", 2021)
    inputs = [{**entry, "version": "0" * 16} for entry in counts.manifest()["inputs"]]
    with altered(counts, inputs=inputs):
        message = failure_of(in_tiny, "adjusted_map")
    assert "joined to other units" in message
    assert "census_counts demo|2021" in message


def test_a_score_of_other_composites_is_refused(in_tiny, store):
    score = latest(store, "builtup_area", 2021)
    inputs = [{**entry, "version": "0" * 16} for entry in score.manifest()["inputs"]]
    with altered(score, inputs=inputs):
        message = failure_of(in_tiny, "population_map")
    assert "other composites" in message


def test_runs_whose_process_is_gone_are_not_shown_as_running(in_tiny):
    import socket

    from popcorn_assets.definitions import defs
    from popcorn_assets.runs.lost import end_lost_runs

    with in_tiny.instance() as instance:
        run = instance.create_run_for_job(
            defs.resolve_job_def(RUNS[0][1]),
            status=dg.DagsterRunStatus.STARTED,
            tags={OWNER_TAG: f"{socket.gethostname()}:999999999", REUSE_TAG: "true"},
        )
        slots = instance.event_log_storage
        slots.claim_concurrency_slot("gpu", run.run_id, "train_member")
        assert run.run_id in slots.get_concurrency_run_ids()
        end_lost_runs(instance)
        assert run.run_id not in slots.get_concurrency_run_ids()
        assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE
