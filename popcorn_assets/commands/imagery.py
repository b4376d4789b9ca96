"""`popcorn imagery`."""

from __future__ import annotations

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
    from popcorn_assets.resources import imagery_resource
    from popcorn_ml.imagery.estimate import estimate

    settings = load_country(country)
    source = imagery_resource().process_config_and_initialize()
    found = estimate(
        settings.pixel_grid(),
        source.settings_of(settings),
        year,
        settings.outline(),
        source.secrets(),
        ask,
    )
    click.echo("\n".join(found.lines()))
