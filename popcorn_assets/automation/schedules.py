"""Schedules: a yearly refresh and a quarterly ingest a country, each switched on by itself.

A schedule ticks on several days in a row for one and the same piece of work, so that a machine
that was off, or a model that was still missing, costs days and not a year. The work is named by a
key, which its run carries as a tag; a tick whose work has a run already starts nothing, whatever
became of that run. What runs do is `jobs`' business.
"""

from datetime import datetime

import dagster as dg

from popcorn_assets.automation.jobs import ingest, refresh, season_assets
from popcorn_assets.country import AutomationSettings, country_codes, load_country
from popcorn_assets.partitions import FIRST_YEAR, partition_key
from popcorn_assets.promotion.decide import model_for
from popcorn_assets.resources import StoreResource
from popcorn_assets.store.making import REUSE_TAG
from popcorn_ml.errors import PopcornError
from popcorn_ml.sentinel import SEASONS, Season, season_period

REFRESH_CRON = "0 6 15,18,21,24,27,30 3 *"
"""Mid March on: the winter season, and with it the year, closed on the first of March."""

INGEST_CRON = "0 5 5,8,11,14 3,6,9,12 *"
"""From the fifth day after a season closed: archives have its last scenes by then."""

WORK_TAG = "popcorn/work"
COUNTRY_TAG = "popcorn/country"
YEAR_TAG = "popcorn/year"
SEASON_TAG = "popcorn/season"


def closed_season(moment: datetime) -> tuple[int, Season]:
    """The season that closed last before a moment (aware), and the year it belongs to."""
    ended = [
        (period.end, year, season)
        for year in (moment.year - 1, moment.year)
        for season in SEASONS
        if (period := season_period(year, season)).end <= moment
    ]
    _, year, season = max(ended)
    return year, season


def closed_year(moment: datetime) -> int:
    """The last year whose winter season closed before a moment (aware)."""
    ended = season_period(moment.year - 1, "winter").end <= moment
    return moment.year - (1 if ended else 2)


def already_started(instance: dg.DagsterInstance, work: str) -> dg.SkipReason | None:
    """Why a piece of work is not started again: it has a run, in whatever state.

    Dagster compares run keys within one tick of a schedule only, so runs are asked for.
    """
    runs = instance.get_runs(dg.RunsFilter(tags={WORK_TAG: work}), limit=1)
    if not runs:
        return None
    return dg.SkipReason(
        f"{work} has been started before: run {runs[0].run_id[:8]}, {runs[0].status.value}. It is "
        "not started again; re-execute that run, or delete it to let the next tick start a new one"
    )


def request(
    job_name: str,
    country: str,
    year: int,
    *,
    season: Season | None = None,
    suffix: str = "",
) -> dg.RunRequest:
    """The run of one piece of work, which takes from the store what is current."""
    work = "|".join([job_name, country, str(year), *filter(None, (season, suffix))])
    tags = {REUSE_TAG: "true", WORK_TAG: work, COUNTRY_TAG: country, YEAR_TAG: str(year)}
    return dg.RunRequest(
        run_key=work,
        job_name=job_name,
        partition_key=partition_key(country, year),
        asset_selection=season_assets(season) if season else None,
        tags=tags | ({SEASON_TAG: season} if season else {}),
    )


def why_not(country: str, year: int, store: StoreResource, *, mapped: bool) -> str | None:
    """Why a country-year cannot be worked on, with what to do about it; None when it can.

    Args:
        mapped: whether a model to map with is needed.
    """
    if year < FIRST_YEAR:
        return f"{country}|{year} is before the first year that there is imagery for"
    try:
        load_country(country)
        if mapped:
            model_for(store.open(), country, year)
    except PopcornError as error:
        return str(error)
    return None


def _switched(on: bool) -> dg.DefaultScheduleStatus:
    return dg.DefaultScheduleStatus.RUNNING if on else dg.DefaultScheduleStatus.STOPPED


def refresh_schedule(country: str, on: bool) -> dg.ScheduleDefinition:
    """The yearly refresh of one country: the year that closed, mapped with the deployed model."""

    @dg.schedule(
        name=f"refresh_{country}",
        job=refresh,
        cron_schedule=REFRESH_CRON,
        execution_timezone="UTC",
        default_status=_switched(on),
        description=f"Maps the year that closed for {country} with the deployed model, once. "
        "Trains nothing. Also switched on by `automation: {refresh: true}` in the country's file.",
    )
    def refresh_country(
        context: dg.ScheduleEvaluationContext, store: StoreResource
    ) -> dg.RunRequest | dg.SkipReason:
        year = closed_year(context.scheduled_execution_time)
        wanted = request(refresh.name, country, year)
        if reason := why_not(country, year, store, mapped=True):
            return dg.SkipReason(f"{country}|{year} cannot be refreshed yet: {reason}")
        return already_started(context.instance, wanted.tags[WORK_TAG]) or wanted

    return refresh_country


def ingest_schedule(country: str, on: bool) -> dg.ScheduleDefinition:
    """The quarterly ingest of one country: composites of the season that closed."""

    @dg.schedule(
        name=f"ingest_{country}",
        job=ingest,
        cron_schedule=INGEST_CRON,
        execution_timezone="UTC",
        default_status=_switched(on),
        description=f"Composites of both sensors for {country}, of the season that closed, once. "
        "Also switched on by `automation: {ingest: true}` in the country's file.",
    )
    def ingest_country(
        context: dg.ScheduleEvaluationContext, store: StoreResource
    ) -> dg.RunRequest | dg.SkipReason:
        year, season = closed_season(context.scheduled_execution_time)
        wanted = request(ingest.name, country, year, season=season)
        if reason := why_not(country, year, store, mapped=False):
            return dg.SkipReason(f"{season} of {country}|{year} cannot be ingested yet: {reason}")
        return already_started(context.instance, wanted.tags[WORK_TAG]) or wanted

    return ingest_country


def _settings(country: str) -> AutomationSettings:
    return load_country(country).automation


schedules: list[dg.ScheduleDefinition] = [
    schedule
    for country in country_codes()
    for schedule in (
        refresh_schedule(country, _settings(country).refresh),
        ingest_schedule(country, _settings(country).ingest),
    )
]
