"""A refresh as a schedule starts it, on a copy of the small country: nothing is fetched twice."""

from __future__ import annotations

import shutil

import dagster as dg
import pytest

from popcorn_assets.automation.schedules import request
from popcorn_assets.country import load_country
from popcorn_assets.partitions import COUNTRY_YEAR
from popcorn_assets.store.versions import Address, Store
from popcorn_ml.sentinel import SEASONS, SENSORS
from tests.platforms import Place

pytestmark = [pytest.mark.long(10), pytest.mark.timeout(400)]


@pytest.fixture
def copy(tiny, tmp_path, monkeypatch) -> Place:
    """The small country before the winter of 2021 was ingested."""
    place = Place(tmp_path / "home")
    shutil.copytree(tiny.home, place.home, symlinks=True)
    for name, value in place.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(place.home)
    for sensor in SENSORS:
        shutil.rmtree(place.data / f"{sensor}_winter" / "demo" / "2021")
    assert load_country("demo").name
    return place


def start(instance: dg.DagsterInstance, wanted: dg.RunRequest) -> dg.ExecuteInProcessResult:
    """Run what a schedule requested, in this process."""
    from popcorn_assets.definitions import defs

    partition = COUNTRY_YEAR.get_tags_for_partition_key(wanted.partition_key)
    result = defs.resolve_job_def(wanted.job_name).execute_in_process(
        instance=instance,
        run_config={"loggers": {"console": {"config": {"log_level": "ERROR"}}}},
        partition_key=wanted.partition_key,
        asset_selection=wanted.asset_selection,
        tags={**wanted.tags, **partition},
    )
    assert result.success
    return result


def test_a_season_that_was_ingested_is_not_fetched_again_and_nothing_is_trained(copy):
    store = Store(copy.data)

    def runs(year=2021) -> dict[str, str]:
        """Asset -> run that made what is current."""
        names = [f"{sensor}_{season}" for sensor in SENSORS for season in SEASONS]
        names += ["checkpoints", "population_map", "hectare_map"]
        found = {name: store.find(Address(name, "demo", year)) for name in names}
        return {name: v.manifest()["run_id"] for name, v in found.items() if v}

    before, trained = runs(), runs(2020)["checkpoints"]
    with copy.instance() as instance:
        ingested = start(instance, request("ingest", "demo", 2021, season="winter"))
        made = {e.asset_key.to_user_string() for e in ingested.get_asset_materialization_events()}
        assert made == {"s1_winter", "s2_winter"}
        refreshed = start(instance, request("refresh", "demo", 2021))
    after = runs()
    assert {after["s1_winter"], after["s2_winter"]} == {ingested.run_id}
    for name, run in before.items():
        if name not in made:
            assert after[name] == run, name
    materialised = {
        e.asset_key.to_user_string(): e.materialization
        for e in refreshed.get_asset_materialization_events()
    }
    assert "checkpoints" not in materialised
    assert runs(2020)["checkpoints"] == trained
    for sensor in SENSORS:
        for season in SEASONS:
            assert materialised[f"{sensor}_{season}"].metadata["reused"].value is True
