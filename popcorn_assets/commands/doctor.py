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
@click.option(
    "--end",
    "gone",
    multiple=True,
    metavar="RUN",
    help="First end this run, whose process you know to be gone; repeatable.",
)
def doctor(country: str | None, connect: bool, repair: bool, gone: tuple[str, ...]) -> None:
    """Say what is missing on this machine, or for COUNTRY's imagery, and what to type."""
    enter_home(needed=bool(gone or repair))
    if gone:
        import dagster as dg

        from popcorn_assets.runs.lost import end_run

        with dg.DagsterInstance.get() as instance:
            for name in gone:
                click.echo(f"run {end_run(instance, name).run_id} has failed; its slots are free")
    if repair:
        tell_lost_runs()
    from popcorn_assets.upkeep.doctor import examine

    findings = examine([country] if country else None, connect)
    for finding in findings:
        click.echo(str(finding))
    sys.exit(0 if all(finding.ok for finding in findings) else 1)
