"""The census inbox: files that an operator puts there are taken in, or rejected with a report."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from popcorn_assets.assets.census import COUNTS, census_folders
from popcorn_assets.automation.jobs import census
from popcorn_assets.country import country_codes, load_country
from popcorn_assets.partitions import COUNTRY_YEAR, partition_key
from popcorn_assets.paths import data_root
from popcorn_assets.resources import StoreResource
from popcorn_ml.errors import PopcornError


@dg.sensor(
    job=census,
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Takes in census files put into data/inbox/<country>/: a good one takes its place "
    "and its partitions are made again, a bad one moves to rejected/ with a report beside it.",
)
def census_inbox(
    context: dg.SensorEvaluationContext, store: StoreResource
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    from popcorn_ml.census.inbox import InboxBusy, receive, unfinished, waiting
    from popcorn_ml.warehouse.warehouse import Warehouse

    told: list[str] = []
    warehouse = store.open().warehouse
    for code in country_codes():
        inbox = data_root() / "inbox" / code
        told += [f"{code}/{_told(path.name)} waits: {why}" for path, why in unfinished(inbox)]
        for path in waiting(inbox):
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
                    Warehouse(warehouse),
                )
            except InboxBusy as error:  # a tick that Dagster gave up on goes on with its file
                told.append(f"{code}: a file is still being taken in, {error.found}")
                break
            except Exception as error:  # the others' files must not wait for this one
                if not os.path.lexists(path):  # an earlier tick has taken it in meanwhile
                    continue
                why = str(error) if isinstance(error, PopcornError) else repr(error)
                context.log.error(f"{path.parent / _told(path.name)} stays where it is: {why}")
                told.append(f"{code}/{_told(path.name)} stays: {why.splitlines()[0]}")
                continue
            if not received.accepted:
                context.log.error(f"{_told(path.name)} was rejected: see {received.report}")
                told.append(f"{code}/{_told(path.name)} was rejected: see {received.report}")
                continue
            context.log.info(f"{path.name} was accepted. {received.message}")
            told.append(f"{code}/{path.name} was accepted")
    requests, cursor = _requests(context.instance, warehouse, context.cursor)
    context.update_cursor(cursor)
    yield from requests
    if not requests:
        yield dg.SkipReason("; ".join(told) or f"nothing waits in {data_root() / 'inbox'}")


def _requests(
    instance: dg.DagsterInstance, warehouse: Path, cursor: str | None
) -> tuple[list[dg.RunRequest], str]:
    """Runs for what was received and never asked for, and the cursor that says so.

    They come from the warehouse's receipts, not from this tick's files, because a tick can end
    between taking a file in and asking. A cursor is country -> number and chain of the last receipt
    asked for; where the warehouse has no such receipt it is another one, and all of it is asked.
    """
    from popcorn_ml.warehouse.warehouse import Warehouse

    asked = json.loads(cursor or "{}")
    if not warehouse.exists():
        return [], json.dumps(asked)
    receipts: dict[str, list[tuple[int, str, str, str]]] = {}
    for country, *receipt in Warehouse(warehouse).query(
        "SELECT country, number, chain, file, years FROM received WHERE number IS NOT NULL "
        "ORDER BY country, number"
    ):
        receipts.setdefault(country, []).append(tuple(receipt))
    requests = []
    for country, received in receipts.items():
        possible = _possible_years(country)
        if not possible:
            continue  # asked for once the code location knows the country
        known = [[number, chain] for number, chain, _, _ in received]
        last = asked.get(country)
        new = received[known.index(last) + 1 :] if last in known else received
        if not new:
            continue
        made = _made_years(instance, country)
        newest: dict[int, tuple[str, str]] = {}
        for _, chain, file, years in new:
            counted = {int(year) for year in years.split(", ") if year}
            newest |= dict.fromkeys(possible & (counted | made), (chain, file))
        requests += [
            dg.RunRequest(
                run_key=f"{country}|{year}|{chain}",  # of one receipt, however often it is tried
                partition_key=partition_key(country, year),
                tags={"popcorn/inbox": file},
            )
            for year, (chain, file) in sorted(newest.items())
        ]
        asked[country] = known[-1]
    return requests, json.dumps(asked)


def _told(name: str) -> str:
    """A file's name for the log; one that would forge lines or colours there is written out."""
    return name if name.isprintable() else ascii(name)


def _possible_years(country: str) -> set[int]:
    """Years of a country's partitions."""
    return {
        int(key.keys_by_dimension["year"])
        for key in COUNTRY_YEAR.get_partition_keys()
        if isinstance(key, dg.MultiPartitionKey) and key.keys_by_dimension["country"] == country
    }


def _made_years(instance: dg.DagsterInstance, country: str) -> set[int]:
    """Years whose counts were made before; a file changes them too.

    Between two censuses, and before the first, years are projected from the ones around them.
    """
    return {
        int(key.partition("|")[2])
        for key in instance.get_materialized_partitions(dg.AssetKey(COUNTS))
        if key.partition("|")[0] == country
    }
