"""`popcorn doctor`."""

from __future__ import annotations

import sys

import click

from popcorn_assets.commands.running import tell_lost_runs
from popcorn_assets.runs.home import enter_home


@click.command()
@click.argument("country", required=False)
@click.option("--connect", is_flag=True, help="Also ask each service one question.")
@click.option("--repair", is_flag=True, help="First end runs whose process is gone.")
def doctor(country: str | None, connect: bool, repair: bool) -> None:
    """Say what is missing on this machine, or for COUNTRY's imagery, and what to type."""
    enter_home()
    if repair:
        tell_lost_runs()
    from popcorn_assets.upkeep.doctor import examine

    findings = examine([country] if country else None, connect)
    for finding in findings:
        click.echo(str(finding))
    sys.exit(0 if all(finding.ok for finding in findings) else 1)
