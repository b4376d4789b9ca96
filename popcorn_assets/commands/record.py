"""`popcorn record`."""

from __future__ import annotations

import sys

import click

from popcorn_assets.home import enter_home


@click.command()
def record() -> None:
    """Tell Dagster of current versions that it has no record of.

    For after a change of its database, or the deletion of runs: with no record the audit finds
    versions unrecorded. Only what the warehouse has recorded with the same manifest is told. The
    exit code is 1 when something was left out.
    """
    enter_home()
    import dagster as dg

    from popcorn_assets.recording import record_again
    from popcorn_assets.resources import StoreResource

    with dg.DagsterInstance.get() as instance:
        told = record_again(instance, StoreResource().open())
    for address, became, text in told:
        if became == "recorded":
            click.echo(f"recorded  {address} {text}")
        elif became == "left out":
            click.echo(f"left out  {address}: {text}; see popcorn audit")
    counts = {became: sum(one[1] == became for one in told) for became in ("recorded", "left out")}
    there = len(told) - sum(counts.values())
    click.echo(
        f"{len(told)} current versions: {there} were on record, {counts['recorded']} recorded, "
        f"{counts['left out']} left out"
    )
    sys.exit(1 if counts["left out"] else 0)
