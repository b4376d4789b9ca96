"""What follows a population map by itself, over a year of ticks; checks, failures, and whole runs.

The small graph here has the names, groups and partitions of the real one and its very conditions;
its runs are real. What the conditions are put on is asserted of the real definitions.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from popcorn_assets.assets.change import THIS_YEAR_AND_THE_ONE_BEFORE
from popcorn_assets.automation.conditions import automated

PARTITIONS = dg.MultiPartitionsDefinition(
    {
        "country": dg.StaticPartitionsDefinition(["aaa", "bbb", "ccc"]),
        "year": dg.TimeWindowPartitionsDefinition(
            cron_schedule="0 0 1 1 *", start="2022", fmt="%Y", end_offset=1
        ),
    }
)
FOLLOWERS = ("adjusted_map", "hectare_map", "evaluation", "change")


@dataclass
class World:
    """What goes wrong in the small graph: countries whose adjusted map fails, and its checks."""

    failing: set[str] = field(default_factory=set)
    verdicts: dict[str, dg.AssetCheckSeverity] = field(default_factory=dict)


def graph(world: World) -> dg.Definitions:
    def asset(name: str, group: str, *deps: str | dg.AssetDep) -> dg.AssetsDefinition:
        @dg.asset(name=name, group_name=group, deps=deps, partitions_def=PARTITIONS)
        def made(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
            country = context.partition_key.keys_by_dimension["country"]
            if name == "adjusted_map" and country in world.failing:
                raise RuntimeError("it fails, and goes on failing")
            return dg.MaterializeResult()

        return made

    @dg.asset_check(asset="population_map", blocking=True, partitions_def=PARTITIONS)
    def sound(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        severity = world.verdicts.get(context.partition_key.keys_by_dimension["country"])
        return dg.AssetCheckResult(
            passed=severity is None, severity=severity or dg.AssetCheckSeverity.ERROR
        )

    return dg.Definitions(
        assets=automated(
            [
                asset("census_counts", "census"),
                asset("population_map", "maps"),
                asset("adjusted_map", "maps", "population_map", "census_counts"),
                asset("hectare_map", "maps", "adjusted_map", "population_map"),
                asset("evaluation", "evaluation", "population_map", "adjusted_map"),
                asset(
                    "change",
                    "evaluation",
                    "adjusted_map",
                    dg.AssetDep("hectare_map", partition_mapping=THIS_YEAR_AND_THE_ONE_BEFORE),
                ),
            ]
        ),
        asset_checks=[sound],
    )


class Automation:
    """The automation sensor's ticks, and the runs that they request, on an instance of its own."""

    def __init__(self, instance: dg.DagsterInstance, world: World) -> None:
        self.instance, self.defs = instance, graph(world)
        self.cursor, self.now = None, datetime(2024, 1, 1, tzinfo=UTC)
        self.requested: Counter[tuple[str, str]] = Counter()
        self.runs = self.ticks = 0

    def make(self, country: str, *assets: str, year: int = 2023) -> None:
        """A run of an operator or a schedule."""
        self._run(f"{country}|{year}", set(assets))

    def _run(self, partition: str, assets: set[str]) -> None:
        country, _, year = partition.partition("|")
        keys = [dg.AssetKey(name) for name in sorted(assets)]
        dg.materialize(
            [*self.defs.assets, *self.defs.asset_checks],
            selection=dg.AssetSelection.assets(*keys),
            partition_key=dg.MultiPartitionKey({"country": country, "year": year}),
            instance=self.instance,
            raise_on_error=False,
        )

    def tick(self, days: float = 1) -> dict[str, set[str]]:
        """One tick; what it requests is run, one run a partition as the daemon does."""
        self.now += timedelta(days=days)
        self.ticks += 1
        found = dg.evaluate_automation_conditions(
            self.defs, self.instance, evaluation_time=self.now, cursor=self.cursor
        )
        self.cursor = found.cursor
        wanted: dict[str, set[str]] = {}
        for name in ("census_counts", "population_map", *FOLLOWERS):
            for partition in found.get_requested_partitions(dg.AssetKey(name)):
                wanted.setdefault(str(partition), set()).add(name)
                self.requested[str(partition), name] += 1
        for partition, assets in wanted.items():
            self.runs += 1
            self._run(partition, assets)
        return wanted


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def automation(world):
    with dg.DagsterInstance.ephemeral() as instance:
        made = Automation(instance, world)
        made.make("aaa", "census_counts", "population_map", *FOLLOWERS)
        made.make("bbb", "census_counts", "population_map", *FOLLOWERS)
        made.make("ccc", "census_counts", "population_map")
        made.tick()
        yield made


def test_switching_it_on_starts_nothing_even_where_maps_are_missing(automation):
    for _ in range(3):
        assert automation.tick() == {}


def test_a_year_of_ticks_makes_each_follower_once_a_change(automation, world, capsys):
    world.failing = {"bbb"}
    for week in range(52):
        if week == 10:  # the population maps of all three, made alone
            for country in ("aaa", "bbb", "ccc"):
                automation.make(country, "population_map")
        if week == 20:  # a new census
            automation.make("aaa", "census_counts")
            automation.make("bbb", "census_counts")
        automation.tick(days=7)
    with capsys.disabled():
        print(
            f"\n{automation.ticks} ticks in a year: {automation.runs} runs, "
            f"{dict(automation.requested)}"
        )
    assert automation.requested == {
        **{("aaa|2023", name): 2 for name in FOLLOWERS},
        **{("bbb|2023", name): 2 for name in FOLLOWERS},  # it failed, twice, and was left alone
        **{("ccc|2023", name): 1 for name in FOLLOWERS},
    }
    assert automation.runs == 5


def test_a_failed_check_holds_back_what_follows_and_a_warning_does_not(automation, world):
    world.verdicts = {"aaa": dg.AssetCheckSeverity.ERROR, "bbb": dg.AssetCheckSeverity.WARN}
    for country in ("aaa", "bbb", "ccc"):
        automation.make(country, "population_map")
    assert automation.tick() == {"bbb|2023": set(FOLLOWERS), "ccc|2023": set(FOLLOWERS)}
    assert automation.tick() == {}
    world.verdicts = {}
    automation.make("aaa", "population_map")
    assert automation.tick() == {"aaa|2023": set(FOLLOWERS)}


def test_a_run_that_makes_what_follows_itself_is_not_followed(automation, world):
    automation.make("aaa", "census_counts", "population_map", *FOLLOWERS)
    assert automation.tick() == {}
    world.failing = {"bbb"}
    automation.make("bbb", "census_counts", "population_map", *FOLLOWERS)
    for _ in range(3):
        assert automation.tick() == {}
    automation.make("bbb", "population_map")  # a change is a reason to try again
    assert automation.tick() == {"bbb|2023": set(FOLLOWERS)}
    for _ in range(3):
        assert automation.tick() == {}


def test_a_change_follows_the_maps_of_both_its_years_and_needs_none_of_the_earlier(automation):
    """The first year's has nothing to compare with, and is made with the others all the same."""
    automation.make("aaa", "census_counts", "population_map", *FOLLOWERS, year=2024)
    assert automation.tick() == {}
    automation.make("aaa", "hectare_map")  # the earlier year's alone
    assert automation.tick() == {"aaa|2023": {"change"}, "aaa|2024": {"change"}}
    automation.make("bbb", "hectare_map")  # of which there is no later one
    assert automation.tick() == {"bbb|2023": {"change"}}
    assert automation.tick() == {}


def test_the_real_maps_and_their_evaluation_follow_and_nothing_else():
    from popcorn_assets.automation import sensors
    from popcorn_assets.definitions import defs

    graph = defs.resolve_asset_graph()
    nodes = [graph.get(key) for key in graph.get_all_asset_keys()]
    following = {n.key.to_user_string() for n in nodes if n.automation_condition is not None}
    assert set(FOLLOWERS) <= following
    groups = {"maps", "evaluation", "publication"}
    assert following == {
        n.key.to_user_string()
        for n in nodes
        if n.group_name in groups and n.key.to_user_string() != "population_map"
    }
    assert {n.key.to_user_string() for n in nodes if n.freshness_policy} == following
    follow_up = next(s for s in sensors if s.name == "follow_up")
    assert follow_up.default_status == dg.DefaultSensorStatus.STOPPED
    assert {key.to_user_string() for key in follow_up.asset_selection.resolve(graph)} == following
    with dg.DagsterInstance.ephemeral() as instance:
        found = dg.evaluate_automation_conditions(defs, instance)
        assert found.total_requested == 0


def test_freshness_is_of_the_newest_partition_and_fails_when_a_refresh_was_missed():
    import asyncio

    from dagster._core.definitions.freshness_evaluator import TimeWindowFreshnessPolicyEvaluator
    from dagster._core.loader import LoadingContextForTest
    from dagster._core.test_utils import freeze_time

    from popcorn_assets.definitions import defs
    from popcorn_assets.partitions import partition_key

    node = defs.resolve_asset_graph().get(dg.AssetKey("hectare_map"))
    made = datetime(2025, 3, 15, tzinfo=UTC)

    def state(instance, days: float) -> str:
        with freeze_time(made + timedelta(days=days)):
            found = TimeWindowFreshnessPolicyEvaluator().evaluate_freshness(
                LoadingContextForTest(instance), node
            )
            return asyncio.run(found).value

    with dg.DagsterInstance.ephemeral() as instance:
        assert state(instance, 0) == "UNKNOWN"
        for days, country in ((0, "rwa"), (10, "uga")):
            with freeze_time(made + timedelta(days=days)):
                instance.report_runless_asset_event(
                    dg.AssetMaterialization(
                        "hectare_map", partition=str(partition_key(country, 2024))
                    )
                )
        assert [state(instance, days) for days in (11, 404, 406, 439, 441)] == [
            "PASS",
            "PASS",
            "WARN",
            "WARN",
            "FAIL",
        ]
