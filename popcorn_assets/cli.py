"""The `popcorn` command; its subcommands are in `commands`."""

from __future__ import annotations

import io
import signal
import sys

import click

from popcorn_assets.commands.audit import audit, impact, reproduce
from popcorn_assets.commands.census import census
from popcorn_assets.commands.countries import countries
from popcorn_assets.commands.doctor import doctor
from popcorn_assets.commands.export import export
from popcorn_assets.commands.gc import gc
from popcorn_assets.commands.imagery import imagery
from popcorn_assets.commands.models import models, promote, rollback
from popcorn_assets.commands.new import new
from popcorn_assets.commands.record import record
from popcorn_assets.commands.run import run
from popcorn_assets.commands.running import demo, ui
from popcorn_assets.commands.show import show
from popcorn_assets.commands.view import view
from popcorn_assets.commands.weights import weights
from popcorn_ml.errors import PopcornError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="popcorn-assets")
def cli() -> None:
    """Population maps from Sentinel images and coarse census counts."""


for command in (
    demo,
    ui,
    run,
    show,
    audit,
    impact,
    reproduce,
    census,
    countries,
    doctor,
    export,
    gc,
    imagery,
    models,
    new,
    promote,
    record,
    rollback,
    view,
    weights,
):
    cli.add_command(command)


def main() -> None:
    """Entry point: an operator's mistake is told in words, not as a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal cannot show is no error
            stream.reconfigure(errors="replace")
    # A script's background jobs ignore Ctrl-C, and Dagster then takes no request to end either.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        cli()
    except PopcornError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    except PermissionError as error:
        click.echo(f"error: {error.filename}: this user may not: {error.strerror}", err=True)
        click.echo("  remedy:   work as the user whom it belongs to, or let this one in", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
