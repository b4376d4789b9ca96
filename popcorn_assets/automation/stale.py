"""Published maps that are older than what they were made from: reported, or refreshed if wanted.

What is newer is `store.newer`'s business. A refresh is requested once for a given set of newer
inputs, and a few times a month at most, so that one which fails or never settles cannot go round.
"""

import hashlib
from datetime import UTC, datetime, timedelta

import dagster as dg

from popcorn_assets.automation.jobs import refresh
from popcorn_assets.automation.schedules import COUNTRY_TAG, YEAR_TAG, closed_year, request, why_not
from popcorn_assets.country import Country, country_codes, load_country
from popcorn_assets.partitions import partition_key
from popcorn_assets.resources import StoreResource
from popcorn_assets.store.newer import PRODUCT, newer_inputs, published_years
from popcorn_assets.store.versions import Address, Store
from popcorn_ml.errors import PopcornError, StoreError

GRACE = timedelta(days=31)
"""How long after it closed a year may be without a map: its refresh starts in the second half."""

STALE_TAG = "popcorn/stale"
MAX_REFRESHES = 3
WITHIN = timedelta(days=30)


def findings(store: Store, country: Country, now: datetime) -> dict[int, list[str]]:
    """Years of a country with an outdated or a missing map, and why."""
    found: dict[int, list[str]] = {}
    years = published_years(store, country.code)
    for year in years:
        try:
            reasons = newer_inputs(store, store.latest(Address(PRODUCT, country.code, year)))
        except StoreError as error:
            reasons = [str(error)]
        if reasons:
            found[year] = reasons
    due = closed_year(now - GRACE)
    if country.automation.refresh and due not in years:
        found[due] = ["this year has closed and has no map yet"]
    return found


@dg.sensor(
    name="stale_maps",
    job=refresh,
    minimum_interval_seconds=3600,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Finds published maps older than what they were made from, and years that closed "
    "without a map. Says so; with `automation: {stale: refresh}` in the country's file an outdated "
    "map is refreshed as well.",
)
def stale_maps(context: dg.SensorEvaluationContext, store: StoreResource) -> dg.SensorResult:
    files, told = store.open(), []
    requests: list[dg.RunRequest] = []
    for code in country_codes():
        try:
            country = load_country(code)
            found = findings(files, country, datetime.now(UTC))
        except PopcornError as error:
            context.log.error(f"{code} cannot be looked at: {error}")
            continue
        mapped = published_years(files, code)
        for year, reasons in found.items():
            told.append(f"{code}|{year}: {'; '.join(reasons[:3])}")
            if country.automation.stale != "refresh" or year not in mapped:
                continue
            reason = why_not(code, year, store, mapped=True) or _enough(
                context.instance, code, year
            )
            if reason:
                context.log.warning(f"{code}|{year} is not refreshed: {reason}")
                continue
            state = hashlib.sha256("\n".join(sorted(reasons)).encode()).hexdigest()[:12]
            wanted = request(refresh.name, code, year, suffix=state)
            requests.append(wanted.with_replaced_attrs(tags={**wanted.tags, STALE_TAG: "true"}))
    for text in told:
        context.log.warning(text)
    if requests:
        return dg.SensorResult(run_requests=requests)
    return dg.SensorResult(
        skip_reason=dg.SkipReason("; ".join(told) or "every published map is current")
    )


def _enough(instance: dg.DagsterInstance, country: str, year: int) -> str | None:
    """Why a country-year is not refreshed again now."""
    running = instance.get_runs(
        dg.RunsFilter(
            tags={"dagster/partition": str(partition_key(country, year))},
            statuses=[
                dg.DagsterRunStatus.QUEUED,
                dg.DagsterRunStatus.NOT_STARTED,
                dg.DagsterRunStatus.STARTING,
                dg.DagsterRunStatus.STARTED,
            ],
        ),
        limit=1,
    )
    if running:
        return f"run {running[0].run_id[:8]} is at work on it"
    earlier = instance.get_runs(
        dg.RunsFilter(
            tags={STALE_TAG: "true", COUNTRY_TAG: country, YEAR_TAG: str(year)},
            created_after=datetime.now(UTC) - WITHIN,
        ),
        limit=MAX_REFRESHES,
    )
    if len(earlier) >= MAX_REFRESHES:
        return (
            f"it was {MAX_REFRESHES} times within {WITHIN.days} days, the last as run "
            f"{earlier[0].run_id[:8]}; look at these runs, then start the job refresh by hand"
        )
    return None
