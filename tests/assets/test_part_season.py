"""A composite of part of a season is never taken for that of the whole season."""

from datetime import UTC, datetime

import dagster as dg

from popcorn_assets.assets.imagery import note_unless_over
from popcorn_assets.commands.progress import failure_text
from popcorn_assets.partitions import COUNTRY_YEAR, partition_key
from popcorn_assets.resources import StoreResource
from popcorn_assets.store.making import REUSE_TAG, Making, Outcome
from popcorn_assets.store.versions import Address
from popcorn_ml.sentinel import season_period


def test_what_was_made_before_the_season_ended_is_made_again(place):
    made: list[str] = []
    work: list[str] = []

    def on(day: datetime) -> str:
        @dg.asset(name="s2_summer", partitions_def=COUNTRY_YEAR)
        def summer(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
            making = Making(context, store.open(), "s2_summer", code_version="1")
            note_unless_over(making, season_period(2020, "summer"), day)
            work.append(making.work().name)

            def make(folder) -> Outcome:
                made.append(day.date().isoformat())
                (folder / "scenes.txt").write_text(day.isoformat())
                return Outcome()

            return making.publish(make)

        with place.instance() as instance:
            result = dg.materialize(
                [summer],
                partition_key=partition_key("demo", 2020),
                instance=instance,
                resources={"store": StoreResource()},
                tags={REUSE_TAG: "true"},
                raise_on_error=False,
            )
            return "" if result.success else failure_text(instance, result.run_id)

    july, august = datetime(2020, 7, 10, tzinfo=UTC), datetime(2020, 8, 20, tzinfo=UTC)
    over = datetime(2020, 9, 5, tzinfo=UTC)
    told = on(datetime(2020, 5, 31, tzinfo=UTC))
    assert "s2_summer demo|2020 has not begun" in told
    assert "it begins on 2020-06-01 and ends on 2020-09-01" in told
    for day in (july, august, over, over):
        assert on(day) == ""
    assert made == ["2020-07-10", "2020-08-20", "2020-09-05"]
    assert len(set(work)) == 3
    assert work[2] == work[3]
    latest = StoreResource().open().latest(Address("s2_summer", "demo", 2020))
    assert "scenes_until" not in latest.manifest()["parameters"]
