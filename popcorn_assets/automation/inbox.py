"""The census inbox: files that an operator puts there are taken in, or rejected with a report."""

import time
from collections.abc import Iterator

import dagster as dg

from popcorn_assets.automation.jobs import census
from popcorn_assets.census import COUNTS, census_folders
from popcorn_assets.country import country_codes, load_country
from popcorn_assets.partitions import COUNTRY_YEAR, partition_key
from popcorn_assets.paths import data_root
from popcorn_assets.resources import WarehouseResource
from popcorn_ml.errors import PopcornError


@dg.sensor(
    job=census,
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Takes in census files put into data/inbox/<country>/: a good one takes its place "
    "and its partitions are made again, a bad one moves to rejected/ with a report beside it.",
)
def census_inbox(
    context: dg.SensorEvaluationContext, warehouse: WarehouseResource
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    from popcorn_ml.census.inbox import receive, waiting
    from popcorn_ml.warehouse import Warehouse

    seen, requests = 0, []
    for code in country_codes():
        inbox = data_root() / "inbox" / code
        for path in waiting(inbox):
            seen += 1
            try:
                country = load_country(code)
                accepted_folder, *others = census_folders(code)
                received = receive(
                    path,
                    code,
                    country.census,
                    country.pixel_grid(),
                    inbox,
                    accepted_folder,
                    others,
                    Warehouse(warehouse.file()),
                )
            except Exception as error:  # the others' files must not wait for this one
                told = str(error) if isinstance(error, PopcornError) else repr(error)
                context.log.error(f"{path.parent / _told(path.name)} stays where it is: {told}")
                continue
            if not received.accepted:
                context.log.error(f"{_told(path.name)} was rejected: see {received.report}")
                continue
            context.log.info(f"{path.name} was accepted. {received.message}")
            requests += [
                dg.RunRequest(
                    # The same file may come again after another one: each receipt counts.
                    run_key=f"{code}|{year}|{received.sha256}|{time.time_ns()}",
                    partition_key=partition_key(code, year),
                    tags={"popcorn/inbox": path.name},
                )
                for year in _years_to_make(context.instance, code, received.years)
            ]
    yield from requests
    if not seen:
        yield dg.SkipReason(f"nothing waits in {data_root() / 'inbox'}")


def _told(name: str) -> str:
    """A file's name for the log; one that would forge lines or colours there is written out."""
    return name if name.isprintable() else ascii(name)


def _years_to_make(
    instance: dg.DagsterInstance, country: str, counted: tuple[int, ...]
) -> list[int]:
    """Years whose counts a file changes: those it counts, and all that were made before.

    Between two censuses, and before the first, years are projected from the ones around them.
    """
    possible = {
        int(key.keys_by_dimension["year"])
        for key in COUNTRY_YEAR.get_partition_keys()
        if isinstance(key, dg.MultiPartitionKey) and key.keys_by_dimension["country"] == country
    }
    made = {
        int(key.partition("|")[2])
        for key in instance.get_materialized_partitions(dg.AssetKey(COUNTS))
        if key.partition("|")[0] == country
    }
    return sorted((possible & set(counted)) | made)
