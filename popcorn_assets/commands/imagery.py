"""`popcorn imagery`."""

from __future__ import annotations

import sys
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from popcorn_assets.runs.home import enter_home

if TYPE_CHECKING:
    from popcorn_assets.country import Country
    from popcorn_assets.store.versions import Store


@click.group()
def imagery() -> None:
    """Composites of a country."""


@imagery.command("estimate")
@click.argument("country")
@click.argument("year", type=int)
@click.option("--ask", is_flag=True, help="Count scenes in the catalogue instead of assuming.")
@click.option(
    "--max-scenes",
    type=click.IntRange(min=1),
    help="As if the country's file said imagery.max_scenes: N.",
)
@click.option(
    "--max-cloud-cover",
    type=click.FloatRange(0, 100),
    help="As if it said imagery.max_cloud_cover: PER CENT.",
)
def imagery_estimate(
    country: str, year: int, ask: bool, max_scenes: int | None, max_cloud_cover: float | None
) -> None:
    """What fetching COUNTRY's YEAR will take: tiles, requests, bytes, time, disk.

    And what fewer scenes would take, and how much of the country they would likely leave empty.
    """
    enter_home()
    from popcorn_assets.country import load_country

    lines = estimate_lines(load_country(country), year, ask, max_scenes, max_cloud_cover)
    click.echo("\n".join(lines))


def estimate_lines(
    country: Country,
    year: int,
    ask: bool = False,
    max_scenes: int | None = None,
    max_cloud_cover: float | None = None,
) -> list[str]:
    """What fetching a country's year will take, in lines.

    Args:
        ask: count scenes in the catalogue instead of assuming.
        max_scenes, max_cloud_cover: instead of the country's own choice.

    Raises:
        ConfigError, ImageryError: there is no imagery of the year, or as `estimate`.
    """
    from popcorn_assets.partitions import require_year
    from popcorn_assets.resources import ImageryResource
    from popcorn_ml.imagery.estimate import estimate
    from popcorn_ml.sentinel import SEASONS, season_period

    now = datetime.now(UTC)
    require_year(year, now)
    source = ImageryResource()
    found = estimate(
        country.pixel_grid(),
        source.settings_of(country).limited(max_scenes, max_cloud_cover),
        year,
        country.outline(),
        source.secrets(),
        ask,
    )
    ends = {season: season_period(year, season).end for season in SEASONS}
    return found.lines() + [
        f"not to be had in full yet: {season} of {year} ends on {end:%Y-%m-%d}"
        for season, end in ends.items()
        if end > now
    ]


@imagery.command("retry")
@click.argument("country")
@click.argument("year", type=int)
def imagery_retry(country: str, year: int) -> None:
    """Try again what COUNTRY's composites of YEAR have lost, however often it was lost before.

    Only what was lost is fetched, as long as the seasons' half-done work is there. What is made
    from the composites follows with the next run of the job refresh. The exit code is 1 when
    something is still lost, or a season failed.
    """
    enter_home()
    import dagster as dg

    from popcorn_assets.automation.jobs import INGEST_JOB
    from popcorn_assets.commands.progress import failure_text
    from popcorn_assets.definitions import defs
    from popcorn_assets.partitions import partition_key
    from popcorn_assets.resources import StoreResource
    from popcorn_assets.runs.in_process import QUIET, run_here

    store = StoreResource().open()
    before = _losses(store, country, year)
    if not before:
        click.echo(f"the composites of {country} {year} have lost nothing")
        return
    job = defs.resolve_job_def(INGEST_JOB)
    chosen = job.get_subset(asset_selection={dg.AssetKey(season) for season in before})
    run_id = str(uuid.uuid4())
    with dg.DagsterInstance.get() as instance:
        done = run_here(
            instance,
            chosen,
            run_id=run_id,
            partition=partition_key(country, year),
            run_config=QUIET,
        )
        failed = "" if done.success else failure_text(instance, run_id)
    after = _losses(store, country, year)
    for season, lost in before.items():
        still = after.get(season, [])
        first = "".join(f"; first: {o['scene']} {o['asset']}: {o['reason']}" for o in still[:1])
        click.echo(f"{season}  {len(lost)} lost, now {len(still)}{first}")
    if failed:
        click.echo(failed)
    sys.exit(1 if failed or after else 0)


def _losses(store: Store, country: str, year: int) -> dict[str, list[dict[str, Any]]]:
    """What each season that has lost something has lost."""
    from popcorn_assets.store.versions import Address
    from popcorn_ml.sentinel import SEASONS, SENSORS

    found = {}
    for name in (f"{sensor}_{season}" for sensor in SENSORS for season in SEASONS):
        version = store.find(Address(name, country, year))
        lost = version.manifest()["facts"].get("lost") if version else None
        if lost:
            found[name] = lost
    return found
