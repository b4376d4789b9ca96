"""`popcorn gc`."""

from __future__ import annotations

import sys

import click

from popcorn_assets.runs.home import enter_home

AS_THE_USER = "work as the user who runs Dagster and whom the store belongs to"


@click.command()
@click.option("--apply", "really", is_flag=True, help="Remove it; without this, nothing is.")
@click.option(
    "--keep",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Newest versions of each partition to keep, the current one counted.",
)
@click.option(
    "--older-than",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    metavar="DAYS",
    help="Only what was superseded or last used longer ago than this.",
)
@click.option(
    "--runs-older-than",
    type=click.FloatRange(0),
    default=365.0,
    show_default=True,
    metavar="DAYS",
    help="Only records of runs that ended longer ago than this.",
)
def gc(really: bool, keep: int, older_than: float, runs_older_than: float) -> None:
    """Say what nothing needs any more, and with --apply remove it.

    Kept is whatever a current version, a promotion or a run under way needs.
    """
    enter_home()
    import dagster as dg

    from popcorn_assets.audit.recorded import reading_dagster
    from popcorn_assets.promotion.ledger import ledger_versions
    from popcorn_assets.resources import StoreResource
    from popcorn_assets.upkeep.inventory import versions
    from popcorn_assets.upkeep.plan import plan
    from popcorn_assets.upkeep.removal import apply, require_writable, told_size
    from popcorn_assets.upkeep.retention import delete_run, old_runs, unfinished

    store = StoreResource().open()
    if really:
        require_writable(store)
    with reading_dagster(AS_THE_USER), dg.DagsterInstance.get() as instance:
        under_way = unfinished(instance)
        planned = plan(
            store,
            keep=keep,
            older_than_days=older_than,
            ledger=ledger_versions(store),
            in_use_since=under_way.since,
            unfinished_runs=under_way.runs,
        )
        going = {removal.version.key for removal in planned.removals if removal.version}
        kept = [version for version in versions(store) if version.key not in going]
        runs = old_runs(instance, kept, runs_older_than)

        for reason, (count, size) in planned.stays.items():
            click.echo(f"kept: {count} versions, {told_size(size)}: {reason}")
        if not really:
            for removal in planned.removals:
                click.echo(f"would remove {removal}")
            for run in runs:
                click.echo(f"would delete the record of run {run.run_id[:8]}, {run.job_name}")
            click.echo(
                f"{len(planned.removals)} things, {told_size(planned.size)}, and the records of "
                f"{len(runs)} runs. Nothing was removed: popcorn gc --apply removes them."
            )
            return
        failed, freed = 0, 0
        for removal, problem in apply(store, planned.removals):
            if problem:
                failed += 1
                click.echo(f"kept after all: {removal}; {problem}", err=True)
            else:
                freed += removal.size
                click.echo(f"removed {removal}")
        for run in runs:
            delete_run(instance, run.run_id)
        click.echo(f"{told_size(freed)} freed, records of {len(runs)} runs deleted.")
    sys.exit(1 if failed else 0)
