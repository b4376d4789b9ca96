"""The `popcorn` command: the demo, the UI, weights, countries. Each subcommand is a few lines."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from popcorn_ml.errors import ConfigError, PopcornError

HOME_VARIABLE = "DAGSTER_HOME"


def home() -> Path:
    """The folder with dagster.yaml: DAGSTER_HOME, this folder, or the checkout the code is in."""
    named = os.environ.get(HOME_VARIABLE)
    candidates = [Path(named)] if named else [Path.cwd(), Path(__file__).resolve().parents[1]]
    for folder in candidates:
        if (folder / "dagster.yaml").is_file():
            return folder.absolute()
    raise ConfigError(
        "dagster.yaml is not there",
        where=candidates[0],
        remedy=f"run popcorn in the checkout, or set {HOME_VARIABLE} to the folder that has it",
    )


def enter_home() -> Path:
    """Make the home the working folder, as dagster.yaml's relative paths need it."""
    folder = home()
    os.environ[HOME_VARIABLE] = str(folder)
    for name in ("POPCORN_DATA", "POPCORN_COUNTRIES", "POPCORN_EARTHENGINE_KEY_FILE"):
        if os.environ.get(name):
            os.environ[name] = str(Path(os.environ[name]).absolute())
    os.chdir(folder)
    return folder


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="popcorn-assets")
def cli() -> None:
    """Population maps from Sentinel images and coarse census counts."""


@cli.command()
def demo() -> None:
    """Make the demo country, train on 2020, map 2020 and 2021, evaluate."""
    enter_home()
    from popcorn_assets.demo import run_demo

    sys.exit(run_demo())


@cli.command()
@click.option("--port", default=3000, show_default=True, help="Port of the web interface.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
def ui(port: int, host: str) -> None:
    """Open Dagster's web interface and daemon, on this machine only unless told otherwise."""
    folder = enter_home()
    dagster = Path(sys.executable).with_name("dagster")
    arguments = ["dev", "-w", str(folder / "workspace.yaml"), "-h", host, "-p", str(port)]
    os.execv(dagster, [str(dagster), *arguments])


@cli.command()
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


@cli.group()
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
        settings.boundary(),
        source.secrets(),
        ask,
    )
    click.echo("\n".join(found.lines()))


@cli.command()
@click.argument("country", required=False)
@click.option("--connect", is_flag=True, help="Also ask each service one question.")
def doctor(country: str | None, connect: bool) -> None:
    """Say what is missing on this machine, or for COUNTRY's imagery, and what to type."""
    enter_home()
    from popcorn_assets.doctor import examine

    findings = examine([country] if country else None, connect)
    for finding in findings:
        click.echo(str(finding))
    sys.exit(0 if all(finding.ok for finding in findings) else 1)


@cli.group()
def weights() -> None:
    """The published extractor's weights, which real countries need."""


@weights.command("fetch")
def weights_fetch() -> None:
    """Download the published weights once, checking size and sha256."""
    enter_home()
    from popcorn_assets.paths import published_weights
    from popcorn_ml.model.weights import PUBLISHED_NAME, fetch_extractor, import_extractor

    target = published_weights()
    fetched = fetch_extractor(target.with_name(PUBLISHED_NAME))
    import_extractor(fetched, target)
    click.echo(f"published weights are at {target}; now materialise builtup_extractor")


@weights.command("import")
@click.argument("file", type=click.Path(path_type=Path))
def weights_import(file: Path) -> None:
    """Take the published weights from FILE, checking size and sha256."""
    file = file.absolute()
    enter_home()
    from popcorn_assets.paths import published_weights
    from popcorn_ml.model.weights import import_extractor

    target = published_weights()
    import_extractor(file, target)
    click.echo(f"published weights are at {target}; now materialise builtup_extractor")


def main() -> None:
    """Entry point: an operator's mistake is told in words, not as a traceback."""
    try:
        cli()
    except PopcornError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
