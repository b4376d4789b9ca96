"""Verdicts that `popcorn record` brings back, and what follows a change after it."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from click.testing import CliRunner

from popcorn_assets.automation.conditions import automated
from popcorn_assets.cli import cli
from popcorn_assets.partitions import COUNTRY_YEAR, partition_key
from popcorn_assets.resources import StoreResource
from popcorn_assets.show import check_specs
from popcorn_assets.store.making import Making, Outcome
from popcorn_assets.store.versions import Address, Store
from popcorn_assets.upkeep.records import record_again
from popcorn_assets.upkeep.verdicts import judge_again
from popcorn_ml.census.findings import CheckResult
from tests.platforms import enter

KEY = partition_key("demo", 2020)
SOUND, IN_RANGE = "population_map sound", "census_counts in_range"


class Small:
    """A census, a map and what follows it, in a store; its checks fail where a test says so."""

    def __init__(self) -> None:
        self.failing: dict[str, str] = {}  # check -> severity
        self.defs = dg.Definitions(
            assets=automated(
                [
                    self._asset("census_counts", "census", in_range=True),
                    self._asset("population_map", "maps"),
                    self._asset("adjusted_map", "maps", "population_map", "census_counts"),
                ]
            ),
            asset_checks=[self._sound()],
            resources={"store": StoreResource()},
        )
        self.cursor, self.now = None, datetime(2024, 1, 1, tzinfo=UTC)

    def _asset(self, name: str, group: str, *deps: str, in_range: bool = False):
        @dg.asset(
            name=name, group_name=group, deps=deps, partitions_def=COUNTRY_YEAR, code_version="1",
            check_specs=check_specs(name, ["in_range"]) if in_range else [],
        )  # fmt: skip
        def made(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
            making = Making(context, store.open(), name, code_version="1")
            assert name not in self.failing
            severity = self.failing.get(IN_RANGE)
            check = CheckResult("in_range", severity is None, severity or "error", "as counted")

            def make(folder) -> Outcome:
                (folder / "text").write_text("x")
                return Outcome({"letters": 1}, checks=[check] if in_range else [])

            return making.publish(make)

        return made

    def _sound(self):
        @dg.asset_check(asset="population_map", blocking=True, partitions_def=COUNTRY_YEAR)
        def sound(store: StoreResource) -> dg.AssetCheckResult:
            store.open().latest(Address("population_map", "demo", 2020))
            severity = self.failing.get(SOUND)
            return dg.AssetCheckResult(
                passed=severity is None,
                severity=dg.AssetCheckSeverity((severity or "error").upper()),
                description="looked at",
            )

        return sound

    def make(self, instance: dg.DagsterInstance, *names: str, checks: bool = True) -> None:
        chosen = dg.AssetSelection.assets(*names)
        dg.materialize(
            [*self.defs.assets, *self.defs.asset_checks],
            selection=chosen if checks else chosen.without_checks(),
            partition_key=KEY,
            instance=instance,
            resources={"store": StoreResource()},
            raise_on_error=False,
        )

    def tick(self, instance: dg.DagsterInstance) -> int:
        self.now += timedelta(days=1)
        found = dg.evaluate_automation_conditions(
            self.defs, instance, evaluation_time=self.now, cursor=self.cursor
        )
        self.cursor = found.cursor
        return found.total_requested


@pytest.fixture
def small(place, monkeypatch) -> Small:
    country = place.home / "countries" / "demo.yaml"
    assert not country.exists()
    return Small()


def record(small: Small, place, instance: dg.DagsterInstance) -> dict[str, bool | None]:
    store = Store(place.data)
    told = record_again(instance, store)
    verdicts = judge_again(
        instance,
        store,
        small.defs,
        [address for address, _, _ in told],
        [address for address, became, _ in told if became == "recorded"],
    )
    return {f"{v.address.asset} {v.check}": v.passed for v in verdicts}


def statuses(small: Small, instance: dg.DagsterInstance) -> dict[str, str]:
    keys = [c for asset in small.defs.assets for c in asset.check_keys]
    keys += [c for check in small.defs.asset_checks for c in check.check_keys]
    found = instance.event_log_storage.get_asset_check_partition_info(keys)
    for one in found:  # of what is there now
        newest = one.latest_materialization_storage_id
        assert one.latest_target_materialization_storage_id == newest
        assert one.partition_key == str(KEY)
    return {
        f"{one.check_key.asset_key.to_user_string()} {one.check_key.name}": str(
            one.latest_execution_status.value
        )
        for one in found
    }


def test_what_follows_by_itself_goes_on_after_the_records_were_lost(small, place):
    with dg.DagsterInstance.ephemeral() as lost:
        small.make(lost, "census_counts", "population_map", "adjusted_map")
    with dg.DagsterInstance.ephemeral() as empty:
        assert record(small, place, empty) == {SOUND: True, IN_RANGE: True}
        assert statuses(small, empty) == {SOUND: "SUCCEEDED", IN_RANGE: "SUCCEEDED"}
        assert record(small, place, empty) == {}
        assert small.tick(empty) == 0
        small.make(empty, "census_counts")
        assert small.tick(empty) == 1


@pytest.mark.parametrize("trouble", ["was not carried out", "broke off"])
def test_a_verdict_on_an_older_materialisation_is_none(small, place, trouble):
    """Made again, and killed before its check; or the check itself came to no verdict."""
    with dg.DagsterInstance.ephemeral() as instance:
        small.make(instance, "census_counts", "population_map", "adjusted_map")
        small.tick(instance)
        assert record(small, place, instance) == {}
        if trouble == "broke off":
            small.failing = {SOUND: "no severity"}
            small.make(instance, "population_map")
            small.failing = {}
        else:
            small.make(instance, "population_map", checks=False)
        assert small.tick(instance) == 0
        assert record(small, place, instance) == {SOUND: True}
        assert statuses(small, instance) == {SOUND: "SUCCEEDED", IN_RANGE: "SUCCEEDED"}
        assert small.tick(instance) == 1
        assert record(small, place, instance) == {}


def test_a_verdict_of_a_manifest_hidden_by_a_run_that_broke_off_is_told_again(small, place):
    with dg.DagsterInstance.ephemeral() as instance:
        small.make(instance, "census_counts")
        small.failing = {"census_counts": "itself"}
        small.make(instance, "census_counts")
        assert record(small, place, instance) == {IN_RANGE: True}
        assert statuses(small, instance) == {IN_RANGE: "SUCCEEDED"}
        assert record(small, place, instance) == {}


def test_a_check_that_is_being_carried_out_is_left_to_its_run(small, place):
    with dg.DagsterInstance.ephemeral() as instance:
        small.make(instance, "population_map", checks=False)
        (check,) = small.defs.asset_checks[0].check_keys
        job = small.defs.resolve_implicit_global_asset_job_def()
        run = instance.create_run_for_job(
            job.get_subset(asset_check_selection={check}),
            tags={"dagster/partition": str(KEY)},
        )
        assert record(small, place, instance) == {}
        instance.report_run_canceled(run)
        assert record(small, place, instance) == {SOUND: True}


@pytest.mark.parametrize(
    ("failing", "severity", "requested"),
    [(SOUND, "error", 0), (IN_RANGE, "error", 0), (SOUND, "warn", 1)],
)
def test_a_failed_error_is_brought_back_and_blocks(small, place, failing, severity, requested):
    small.failing = {failing: severity}
    with dg.DagsterInstance.ephemeral() as lost:
        small.make(lost, "adjusted_map", "census_counts", "population_map")
    with dg.DagsterInstance.ephemeral() as empty:
        said = record(small, place, empty)
        assert said == {SOUND: failing != SOUND, IN_RANGE: failing != IN_RANGE}
        assert statuses(small, empty)[failing] == "FAILED"
        # What follows has to be there, and older than a change, to be asked for.
        small.tick(empty)
        event = dg.AssetMaterialization("adjusted_map", partition=KEY)
        empty.report_runless_asset_event(event)
        small.tick(empty)
        other = "census_counts" if failing == SOUND else "population_map"
        small.make(empty, other)
        assert small.tick(empty) == requested


def test_a_check_of_a_partition_that_no_country_file_has_is_said_to_be_unjudged(
    small, place, monkeypatch
):
    from popcorn_assets.upkeep import verdicts

    with dg.DagsterInstance.ephemeral() as lost:
        small.make(lost, "population_map")
    monkeypatch.setattr(verdicts, "COUNTRY_YEAR", dg.StaticPartitionsDefinition(["another"]))
    with dg.DagsterInstance.ephemeral() as empty:
        assert record(small, place, empty) == {SOUND: None}


def test_the_command_tells_of_checks_that_could_not_be_carried_out(small, place):
    with place.instance() as instance:
        small.make(instance, "population_map")
        instance.delete_run(instance.get_runs(limit=1)[0].run_id)
    done = CliRunner().invoke(cli, ["record"], catch_exceptions=False)  # the real checks: no map
    assert "unjudged  population_map demo|2020 covers_the_units: see run " in done.output
    assert "could not be made, 0 stop what would follow" in done.output
    assert done.exit_code == 1


def test_every_check_of_the_real_maps_has_a_verdict_again(tiny, monkeypatch):
    from popcorn_assets.definitions import defs

    enter(tiny, monkeypatch)
    store, graph = Store(tiny.data), defs.resolve_asset_graph()
    before = {path for path in tiny.data.rglob("*") if "dagster" not in path.parts}
    with dg.DagsterInstance.ephemeral() as empty:
        told = [address for address, _, _ in record_again(empty, store)]
        verdicts = judge_again(empty, store, defs, told, told)
        assert judge_again(empty, store, defs, told) == []
    assert {path for path in tiny.data.rglob("*") if "dagster" not in path.parts} == before
    assert [v for v in verdicts if v.passed is None or v.blocks] == []
    blocking = {c for a in told for c in graph.get(dg.AssetKey(a.asset)).check_keys
                if graph.get(c).blocking}  # fmt: skip
    said = {(v.address, v.check) for v in verdicts}
    maps = [a for a in told if a.asset in ("census_units", "census_counts", "population_map")]
    assert len(maps) == 6
    for address in maps:
        names = {c.name for c in blocking if c.asset_key == dg.AssetKey(address.asset)}
        assert names
        assert {(address, name) for name in names} <= said
