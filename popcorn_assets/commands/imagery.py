"""`popcorn imagery`."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from popcorn_assets.runs.home import enter_home


@click.group()
def imagery() -> None:
    """Composites of a country."""


@imagery.command("estimate")
@click.argument("country")
@click.argument("year", type=int)
@click.option("--ask", is_flag=True, help="Count scenes in the catalogue instead of assuming.")
def imagery_estimate(country: str, year: int, ask: bool) -> None:
    """What fetching COUNTRY's YEAR will take: tiles, requests, bytes, time, disk."""
    enter_home()
    from popcorn_assets.country import load_country
    from popcorn_assets.partitions import require_year
    from popcorn_assets.resources import ImageryResource
    from popcorn_ml.imagery.estimate import estimate
    from popcorn_ml.sentinel import SEASONS, season_period

    now = datetime.now(UTC)
    require_year(year, now)
    settings = load_country(country)
    source = ImageryResource()
    found = estimate(
        settings.pixel_grid(),
        source.settings_of(settings),
        year,
        settings.boundary(),
        source.secrets(),
        ask,
    )
    click.echo("\n".join(found.lines()))
    ends = {season: season_period(year, season).end for season in SEASONS}
    for season, end in ends.items():
        if end > now:
            click.echo(f"not to be had in full yet: {season} of {year} ends on {end:%Y-%m-%d}")
