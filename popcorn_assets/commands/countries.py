"""`popcorn countries`."""

from __future__ import annotations

import sys

import click

from popcorn_assets.home import enter_home


@click.command()
def countries() -> None:
    """List the countries, and what is wrong with files that cannot be used."""
    enter_home()
    from popcorn_assets.country import broken_countries, country_codes, load_country

    for code in country_codes():
        country = load_country(code)
        grid = country.pixel_grid()
        click.echo(
            f"{code:10} {country.name}: {grid.width} x {grid.height} pixels, {grid.crs}, "
            f"imagery from {country.imagery.source}"
        )
    broken = broken_countries()
    for error in broken.values():
        click.echo(str(error), err=True)
    sys.exit(1 if broken else 0)
