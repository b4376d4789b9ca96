"""`popcorn run`."""

from __future__ import annotations

import os
import re
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from popcorn_assets.commands.console import open_console
from popcorn_assets.runs.home import enter_home
from popcorn_ml.errors import ConfigError

if TYPE_CHECKING:
    import dagster as dg
    from rich.console import Console

JOBS = (
    "country_year", "refresh", "train", "distil", "prepare", "ingest", "census", "publish",
)  # fmt: skip
"""The jobs of a country-year, whole ones first."""

SMALL_PIXELS = 1_000_000
"""Of a country whose steps take less time than processes of their own to start."""

OTHERWISE = ("POPCORN_STEPS", "POPCORN_EXECUTOR", "POPCORN_LAUNCHER")
"""Variables of an operator who has said where steps work."""

TRAINING = ("country_year", "train", "distil")
"""Of them those that train."""
MADE, FAILED, INTERRUPTED = 0, 1, 130
WIDTH = 110


@click.command()
@click.argument("country")
@click.argument("year", type=int, required=False)
@click.option(
    "--job",
    type=click.Choice(JOBS),
    default=JOBS[0],
    show_default=True,
    help="What to make: everything, training included; a map with the model in use; checkpoints; "
    "a student of them; all that checkpoints are trained from; composites; census units and "
    "counts; or what follows a map.",
)
@click.option("--years", metavar="A-B", help="These years one after another, instead of YEAR.")
def run(country: str, year: int | None, job: str, years: str | None) -> None:
    """Make COUNTRY's YEAR: imagery, census, model and maps, as far as they are not made yet.

    The run is one of Dagster's own, which popcorn ui shows. It may be interrupted with Ctrl-C, or
    killed, and goes on where it was when it is typed again. The exit code is 0 when all is made, 1
    when a year failed, 2 when the arguments cannot be used, and 130 when it was interrupted.
    """
    enter_home()
    wanted = _years(year, years)
    require(country, wanted)
    import dagster as dg

    from popcorn_assets.commands.working import ending_when_asked
    from popcorn_assets.runs.executors import executor

    executor()  # a setting that cannot be used is refused before anything is started
    console = open_console(WIDTH)
    with ending_when_asked(), dg.DagsterInstance.get() as instance:
        sys.exit(run_years(instance, console, job, country, wanted))


def run_years(
    instance: dg.DagsterInstance, console: Console, job: str, country: str, years: list[int]
) -> int:
    """Carry the job out for each year, the earliest first; the exit code.

    A year that fails does not hold up the others.
    """
    from rich.markup import escape

    from popcorn_assets.commands.outcome import tell_failure, tell_made
    from popcorn_assets.commands.working import work

    failed: list[int] = []
    small = is_small(country)
    for year in years:
        console.print(f"[bold]{country}|{year}[/bold]: job {job}", highlight=False)
        again = f"popcorn run {country} {year} --job {job}"
        if reason := hopeless(job, country, year):
            told = f"[red]Nothing was started.[/red] {escape(reason)}"
            console.print(told, highlight=False, soft_wrap=True)
            failed.append(year)
            continue
        try:
            worked = work(instance, job, country, year, console, small=small)
        except KeyboardInterrupt:
            console.print("Interrupted; no run of this command was at work")
            return INTERRUPTED
        if worked.interrupted:
            console.print(f"Run {worked.run_id[:8]} was cancelled. To go on with it: {again}")
            return INTERRUPTED
        if worked.made:
            tell_made(console, instance, worked, job, country, year)
        else:
            tell_failure(console, instance, worked, again)
            failed.append(year)
    if len(years) > 1:
        told = ", ".join(map(str, failed))
        console.print(
            f"{len(years) - len(failed)} of {len(years)} years are made"
            + (f"; [red]failed: {told}[/red]" if failed else "")
        )
    return FAILED if failed else MADE


def is_small(country: str) -> bool:
    """Whether all of a run works best in this very process, as the demo does.

    Raises:
        ConfigError, RasterError: the country's grid cannot be told.
    """
    from popcorn_assets.country import load_country

    grid = load_country(country).pixel_grid()
    said = any(os.environ.get(name) for name in OTHERWISE)
    return not said and grid.width * grid.height <= SMALL_PIXELS


def hopeless(job: str, country: str, year: int) -> str | None:
    """Why a job cannot come to anything, where that is known before; None otherwise."""
    from popcorn_assets.assets.trained_from import lacking
    from popcorn_assets.automation.schedules import why_not
    from popcorn_assets.country import load_country
    from popcorn_assets.resources import StoreResource

    if job in TRAINING:
        return lacking(StoreResource().open(), load_country(country), year) or None
    return why_not(country, year, StoreResource(), mapped=True) if job == "refresh" else None


def require(country: str, years: list[int]) -> None:
    """Refuse a country or a year that there is none of.

    Raises:
        ConfigError: no such country, or its file is broken; no imagery of a year.
    """
    from popcorn_assets.country import load_country
    from popcorn_assets.partitions import require_year

    load_country(country)
    for year in years:
        require_year(year, datetime.now(UTC))


def _years(year: int | None, years: str | None) -> list[int]:
    """The years asked for, the earliest first.

    Raises:
        ConfigError: none, both, or what is no range.
    """
    if (year is None) == (years is None):
        raise ConfigError(
            "which year is meant is not clear",
            expected="a year, or --years A-B",
            found="neither" if year is None else "both",
            remedy="popcorn run COUNTRY 2021, or popcorn run COUNTRY --years 2018-2021",
        )
    if year is not None:
        return [year]
    found = re.fullmatch(r"\s*(\d{4})\s*(?:-|\.\.|–)\s*(\d{4})\s*", years or "")
    if found is None or int(found[1]) > int(found[2]):
        raise ConfigError(
            "the years cannot be used",
            where="--years",
            expected="the first and the last, such as 2018-2021",
            found=years,
        )
    return list(range(int(found[1]), int(found[2]) + 1))
