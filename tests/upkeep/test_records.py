"""What Dagster is told again after its records were lost, and what it is not told."""

import json

import dagster as dg
import pytest
from click.testing import CliRunner

from popcorn_assets.audit.judge import audit
from popcorn_assets.audit.recorded import DagsterRecords
from popcorn_assets.cli import cli
from popcorn_assets.partitions import COUNTRY_YEAR, partition_key
from popcorn_assets.resources import StoreResource
from popcorn_assets.store.making import Making, Outcome
from popcorn_assets.store.versions import MANIFEST, Address, Store
from popcorn_assets.upkeep.records import record_again
from popcorn_ml.errors import StoreError

MAP, TOOL = Address("map", "demo", 2020), Address("tool")


def _made(context, asset: str, text: str, **kwargs) -> dg.MaterializeResult:
    making = Making(context, StoreResource().open(), asset, code_version="1", **kwargs)
    making.parameter(text=text)
    if asset == MAP.asset:
        making.input(TOOL.asset, partitioned=False)

    def make(folder) -> Outcome:
        (folder / "text").write_text(text)
        return Outcome({"letters": len(text), "rows": [{"a": 1}]})

    return making.publish(make)


def run(instance: dg.DagsterInstance, text: str) -> None:
    @dg.asset(code_version="1")
    def tool(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        return _made(context, TOOL.asset, "tool", partitioned=False)

    @dg.asset(name=MAP.asset, partitions_def=COUNTRY_YEAR, deps=[tool], code_version="1")
    def themap(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        return _made(context, MAP.asset, text)

    key = partition_key("demo", 2020)
    assert dg.materialize([tool, themap], partition_key=key, instance=instance).success


@pytest.fixture
def instance(place):
    with place.instance() as made:
        yield made


def wrong(store: Store, instance: dg.DagsterInstance) -> set[str]:
    report = audit(store, "demo", 2020, dagster=DagsterRecords(instance), repository=None)
    return {str(f.verdict.value) for _, f in report.findings() if f.verdict.wrong}


def event_of(instance: dg.DagsterInstance, address: Address) -> dg.AssetMaterialization:
    event = instance.get_latest_materialization_event(dg.AssetKey(address.asset))
    assert event is not None
    assert event.asset_materialization is not None
    return event.asset_materialization


def test_an_empty_instance_is_told_what_the_runs_had_told(place, instance):
    run(instance, "one")
    store = Store(place.data)
    with dg.DagsterInstance.ephemeral() as empty:
        assert wrong(store, empty) == {"unrecorded"}
        told = {address: became for address, became, _ in record_again(empty, store)}
        assert told == {MAP: "recorded", TOOL: "recorded"}
        assert wrong(store, empty) == set()
        for address in (MAP, TOOL):
            before, after = event_of(instance, address), event_of(empty, address)
            assert after.metadata == before.metadata
            assert after.partition == before.partition
            assert after.tags.items() <= before.tags.items()
            assert after.tags["dagster/data_version"] == store.latest(address).version
        newest = [empty.get_latest_materialization_event(dg.AssetKey(a.asset)) for a in (TOOL, MAP)]
        assert newest[0].timestamp < newest[1].timestamp, "what it was made from comes first"
        assert empty.get_materialized_partitions(dg.AssetKey("map")) == {"demo|2020"}
        assert {became for _, became, _ in record_again(empty, store)} == {"there already"}


def test_a_deleted_run_is_made_good_by_the_command(place, instance):
    run(instance, "one")
    run(instance, "two")
    instance.delete_run(instance.get_runs(limit=1)[0].run_id)
    store = Store(place.data)
    assert wrong(store, instance), "Dagster's newest record is of the version before"
    done = CliRunner().invoke(cli, ["record"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert f"recorded  map demo|2020 {store.latest(MAP).version}" in done.output
    assert wrong(store, instance) == set()


def test_a_changed_manifest_is_not_told(place, instance):
    run(instance, "one")
    store = Store(place.data)
    path = store.latest(MAP).path / MANIFEST
    manifest = json.loads(path.read_text())
    path.chmod(0o644)
    path.write_text(json.dumps({**manifest, "parameters": {"text": "another"}}))
    with dg.DagsterInstance.ephemeral() as empty:
        (left,) = [one for one in record_again(empty, store) if one[1] == "left out"]
        assert left[0] == MAP
        assert "has not recorded" in left[2]
        assert DagsterRecords(empty).newest(MAP) is None
        assert "changed" in wrong(store, empty)


def test_a_later_record_of_another_version_is_not_papered_over(place, instance):
    run(instance, "one")
    store = Store(place.data)
    tags = {"dagster/data_version": "0" * 16}
    key = partition_key("demo", 2020)
    event = dg.AssetMaterialization("map", partition=key, tags=tags)
    instance.report_runless_asset_event(event)
    before = wrong(store, instance)
    assert before == {"changed"}
    (left,) = [one for one in record_again(instance, store) if one[1] == "left out"]
    assert left[0] == MAP
    assert "later materialisation" in left[2]
    assert wrong(store, instance) == before


def test_without_a_warehouse_nothing_can_be_vouched_for(place, instance):
    run(instance, "one")
    store = Store(place.data)
    store.warehouse.unlink()
    with pytest.raises(StoreError, match="no warehouse"):
        record_again(instance, store)
