"""`popcorn countries`."""

from __future__ import annotations

import sys

import click

from popcorn_assets.runs.home import enter_home
from popcorn_ml.errors import PopcornError


@click.command()
def countries() -> None:
    """List the countries, and what is wrong with files that cannot be used, or are not."""
    enter_home(needed=False)
    from popcorn_assets.country import (
        broken_countries,
        country_codes,
        load_country,
        unused_files,
    )

    broken: list[PopcornError] = list(broken_countries().values())
    for code in country_codes():
        country = load_country(code)
        try:
            grid = country.pixel_grid()
        except PopcornError as error:
            broken.append(error)
            continue
        click.echo(
            f"{code:10} {country.name}: {grid.width} x {grid.height} pixels, {grid.crs}, "
            f"imagery from {country.imagery.source}"
        )
    unused = unused_files()
    for problem in broken:
        click.echo(str(problem), err=True)
    for path, why in unused.items():
        click.echo(f"{path}: {why}", err=True)
    sys.exit(1 if broken or unused else 0)
