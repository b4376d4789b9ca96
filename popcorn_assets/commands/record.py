"""`popcorn record`."""

from __future__ import annotations

import sys

import click

from popcorn_assets.runs.home import enter_home


@click.command()
def record() -> None:
    """Tell Dagster of current versions that it has no record of.

    For after a change of its database, or the deletion of runs: with no record the audit finds
    versions unrecorded, and nothing follows by itself. Only what the warehouse has recorded with
    the same manifest is told. Checks that have no verdict on record are carried out again. The exit
    code is 1 when something was left out, or a check could not be carried out.
    """
    enter_home()
    import dagster as dg

    from popcorn_assets.audit.recorded import reading_dagster
    from popcorn_assets.definitions import defs
    from popcorn_assets.resources import StoreResource
    from popcorn_assets.upkeep.records import record_again
    from popcorn_assets.upkeep.verdicts import judge_again

    store = StoreResource().open()
    with (
        reading_dagster("record as the user who runs Dagster"),
        dg.DagsterInstance.get() as instance,
    ):
        told = record_again(instance, store)
        known = [address for address, became, _ in told if became != "left out"]
        new = [address for address, became, _ in told if became == "recorded"]
        verdicts = judge_again(instance, store, defs, known, new)
    for address, became, text in told:
        if became == "recorded":
            click.echo(f"recorded  {address} {text}")
        elif became == "left out":
            click.echo(f"left out  {address}: {text}; see popcorn audit")
    for verdict in verdicts:
        if verdict.passed is None:
            click.echo(f"unjudged  {verdict.address} {verdict.check}: {verdict.text}")
        elif verdict.blocks:
            click.echo(f"failed    {verdict.address} {verdict.check}: {verdict.text}")
    counts = {became: sum(one[1] == became for one in told) for became in ("recorded", "left out")}
    there = len(told) - sum(counts.values())
    click.echo(
        f"{len(told)} current versions: {there} were on record, {counts['recorded']} recorded, "
        f"{counts['left out']} left out"
    )
    unjudged = sum(verdict.passed is None for verdict in verdicts)
    blocking = sum(verdict.blocks for verdict in verdicts)
    click.echo(
        f"{len(verdicts)} verdicts of checks were not on record: {unjudged} could not be made, "
        f"{blocking} stop what would follow"
    )
    sys.exit(1 if counts["left out"] or unjudged else 0)
