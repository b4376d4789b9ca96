"""Dagster, the audit and the warehouse name the same versions, also after a retraining."""

from __future__ import annotations

import dagster as dg
import pytest
import yaml
from dagster._core.test_utils import in_process_test_workspace
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster_graphql.test.utils import execute_dagster_graphql

from popcorn_assets.audit.judge import audit
from popcorn_assets.audit.recorded import DagsterRecords
from popcorn_assets.commands.demo import run_demo
from popcorn_assets.store.versions import Address, Store
from popcorn_ml.warehouse.warehouse import Warehouse
from tests.platforms import tiny_spec

pytestmark = pytest.mark.long(20)

UI = """
query Versions($keys: [AssetKeyInput!], $partition: String!) {
  assetNodes(assetKeys: $keys) { assetKey { path }
    assetMaterializations(partitions: [$partition], limit: 1) {
    tags { key value } metadataEntries { label ... on TextMetadataEntry { text } } } } }
"""


def test_all_three_agree_after_a_retraining_between_two_backfills(in_copy):
    """Both years are there; a member is trained anew on 2020, and both are made again."""
    store = Store(in_copy.data)
    trained = Address("checkpoints", "demo", 2020)
    before = store.latest(trained).version
    path = in_copy.home / "countries" / "demo.yaml"
    country = yaml.safe_load(path.read_text("utf-8"))
    country["training"]["first_seed"] = 11
    path.write_text(yaml.safe_dump(country, sort_keys=False, allow_unicode=True), "utf-8")
    assert run_demo(tiny_spec()) == 0
    assert store.latest(trained).version != before

    known = {
        (asset, country, year): (version, digest)
        for asset, country, year, version, digest in Warehouse(store.warehouse).query(
            "SELECT asset, country, year, version, manifest_sha256 FROM current_versions"
        )
    }
    with in_copy.instance() as instance:
        records = DagsterRecords(instance)
        for year in (2020, 2021):
            report = audit(store, "demo", year, dagster=records)
            wrong = [str(f) for _, f in report.findings() if f.verdict.wrong]
            assert wrong == []
            nodes = [n for n in report.trail.nodes.values() if n.current]
            assert len(nodes) >= 20
            for node in nodes:
                place = (node.address.asset, node.address.country or "", node.address.year or 0)
                assert known[place] == (node.version, node.manifest_sha256)
                told = records.newest(node.address)
                assert (told.version, told.manifest_sha256) == known[place]
            of_year = {n.address.asset: n for n in nodes if n.address.year == year}
            told = shown(instance, sorted(of_year), year)
            assert told == {
                asset: (node.version, node.version, node.manifest_sha256)
                for asset, node in of_year.items()
            }


def shown(instance: dg.DagsterInstance, assets: list[str], year: int) -> dict[str, tuple[str, ...]]:
    """Data version, version and manifest digest of assets, as Dagster's web interface asks."""
    origin = LoadableTargetOrigin(module_name="popcorn_assets.definitions", attribute="defs")
    keys = [{"path": [asset]} for asset in assets]
    with in_process_test_workspace(instance, origin) as workspace:
        variables = {"keys": keys, "partition": f"demo|{year}"}
        nodes = execute_dagster_graphql(workspace, UI, variables).data["assetNodes"]
    found = {}
    for node in nodes:
        (event,) = node["assetMaterializations"]
        tags = {tag["key"]: tag["value"] for tag in event["tags"]}
        entries = {entry["label"]: entry.get("text") for entry in event["metadataEntries"]}
        told = (tags["dagster/data_version"], entries["version"], entries["manifest sha256"])
        found[node["assetKey"]["path"][0]] = told
    return found
