"""The definitions: light to import, one partitioning, groups, pools and blocking checks."""

from __future__ import annotations

import json
import subprocess
import sys

import dagster as dg

from popcorn_assets.definitions import defs
from popcorn_assets.partitions import COUNTRY_YEAR, country_and_year

HEAVY = ("torch", "geopandas", "ee", "pandas", "rasterio", "duckdb", "lightning", "matplotlib")


def nodes():
    graph = defs.resolve_asset_graph()
    return [graph.get(key) for key in graph.get_all_asset_keys()]


def test_importing_the_definitions_loads_nothing_heavy():
    code = (
        "import json, sys; import popcorn_assets.definitions; "
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_every_partitioned_asset_has_the_one_partitioning():
    partitioned = [node for node in nodes() if node.is_partitioned]
    assert [node.key.to_user_string() for node in nodes() if not node.is_partitioned] == [
        "builtup_extractor"
    ]
    assert len(partitioned) == 22
    assert all(node.partitions_def is COUNTRY_YEAR for node in partitioned)


def test_a_run_that_names_its_partition_as_text_alone_knows_its_country_and_year():
    """So does a script that asks Dagster's API, without the tag a dimension that the UI adds."""
    seen = []

    @dg.asset(partitions_def=COUNTRY_YEAR)
    def place(context):
        seen.append((type(context.partition_key), country_and_year(context)))

    job = dg.Definitions([place], jobs=[dg.define_asset_job("one", [place])])
    tags = {"dagster/partition": "demo|2020"}
    assert job.resolve_job_def("one").execute_in_process(tags=tags).success
    assert seen == [(str, ("demo", 2020))]


def test_every_asset_has_a_group_and_says_what_it_is():
    groups = {node.group_name for node in nodes()}
    assert groups == {
        "imagery",
        "census",
        "builtup",
        "training",
        "maps",
        "evaluation",
        "publication",
    }
    assert all(node.description for node in nodes())


def test_the_refresh_trains_nothing_and_the_whole_job_does():
    refresh = defs.resolve_job_def("refresh").asset_layer.selected_asset_keys
    whole = defs.resolve_job_def("country_year").asset_layer.selected_asset_keys
    assert whole - refresh == {dg.AssetKey("checkpoints"), dg.AssetKey("student")}


def test_checks_that_fail_stop_what_follows():
    graph = defs.resolve_asset_graph()
    checks = [graph.get(key) for key in graph.asset_check_keys]
    assert len(checks) > 90
    assert {check.key.name for check in checks if not check.blocking} == {
        "training_helped",
        "model_beats_builtup",
        "map_beats_builtup",
        "scored_without_truth",
        "members_agree",
        "intervals_hold",
        "change_since_last_year",
        "inputs_are_current",
    }  # these only ever warn


def test_training_and_mapping_wait_for_a_gpu_slot():
    pools = {node.key.to_user_string(): node.pools for node in nodes()}
    assert pools["population_map"] == {"gpu"}
    assert pools["builtup_area"] == {"gpu"}
    assert "gpu" in pools["checkpoints"]
    assert pools["census_units"] == {"duckdb"}
