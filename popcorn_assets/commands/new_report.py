"""How a country stands before its first run: its census, its images, what is missing, what next."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from popcorn_ml.errors import PopcornError

if TYPE_CHECKING:
    from popcorn_assets.country import Country
    from popcorn_ml.census.examine import Examination, LevelJoin
    from popcorn_ml.grid import Grid

LISTED = 10
"""Units that are listed of those that do not join."""


def report(code: str, years: tuple[int, int] | None) -> int:
    """Tell how a country stands; 1 where its file or its census stands in the way of a run.

    Args:
        years: the first and the last to be mapped; None: the one that its file or its counts
            speak of.
    """
    from popcorn_assets.assets.census import census_folders
    from popcorn_assets.country import load_country
    from popcorn_ml.census.examine import examine

    country = load_country(code)
    grid = country.pixel_grid()
    click.echo(f"\n{code}: {country.name}")
    click.echo(f"grid      {grid.width} x {grid.height} pixels of {_side(grid)}, {grid.crs}")
    try:
        found = examine(country.census, grid, census_folders(code))
    except PopcornError as error:
        click.echo(f"census    {error}")
        return _nothing_yet(code)
    for name, level in found.levels.items():
        _tell_level(name, country.census.levels[name].role, level)
    _tell_checks(found)
    if not found.usable or found.missing:
        return _nothing_yet(code)
    first, last = years or (_first_year(country, found),) * 2
    _tell_imagery(country, first)
    _tell_missing(code)
    _tell_next(country, first, last)
    return 0


def _tell_next(country: Country, first: int, last: int) -> None:
    """The command to go on with; further years are mapped with the model of the first."""
    run = f"popcorn run {country.code}"
    if country.model.country not in (None, country.code):
        which = f"{first}" if first == last else f"--years {first}-{last}"
        click.echo(f"\nGo on with:  {run} {which} --job refresh")
        return
    click.echo(f"\nGo on with:  {run} {first}")
    if last > first:
        which = f"{last}" if last == first + 1 else f"--years {first + 1}-{last}"
        click.echo(f"and then:    {run} {which} --job refresh")


def _nothing_yet(code: str) -> int:
    click.echo(f"\nPut right what is named, then look again:  popcorn new {code}")
    return 1


def _side(grid: Grid) -> str:
    return f"{grid.step:g} m" if not grid.is_geographic else f"{grid.step:.4g} degrees (10 m)"


def _tell_level(name: str, role: str, level: LevelJoin) -> None:
    people = ", ".join(f"{n:,.0f} people in {year}" for year, n in sorted(level.people.items()))
    click.echo(
        f"census    level {name} ({role}): {level.joined} of {level.units} units have a count; "
        f"{people}"
    )
    for what, names in (
        ("units without a count", level.without_count),
        ("counts without a unit", level.without_unit),
    ):
        if names:
            more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
            click.echo(f"          {what} ({len(names)}): {', '.join(names[:LISTED])}{more}")


def _tell_checks(found: Examination) -> None:
    failed = [check for check in found.judged if not check.passed]
    passed = f"{len(found.judged) - len(failed)} of {len(found.judged)} pass"
    later = len(found.checks) - len(found.judged)
    passed += f"; {later} more are judged in the run, on the grid's pixels and for its year"
    click.echo(f"checks    {'not judged: files are missing' if found.missing else passed}")
    for check in failed:
        head = "ERROR" if check.severity == "error" else "warns"
        first, *others = check.message.splitlines()
        click.echo(f"          {head} {check.name}: {first}")
        for line in others:
            click.echo(f"                {line}")
    for what in found.missing:
        click.echo(f"          ERROR {what}")


def _first_year(country: Country, found: Examination) -> int:
    """The model's own year, else the last that is counted, among those with images."""
    from popcorn_assets.partitions import FIRST_YEAR

    own = country.model.country in (None, country.code)
    year = (country.model.year if own else None) or max(found.years, default=FIRST_YEAR)
    return min(max(year, FIRST_YEAR), datetime.now(UTC).year - 1)


def _tell_imagery(country: Country, year: int) -> None:
    from popcorn_assets.commands.imagery import estimate_lines

    click.echo(f"\nimagery of {year}")
    _indented(estimate_lines(country, year))


def _tell_missing(code: str) -> None:
    from popcorn_assets.upkeep.doctor import country_findings

    missing = [finding for finding in country_findings(code) if not finding.ok]
    if missing:
        click.echo("\nbefore the run")
        _indented([line for finding in missing for line in str(finding).splitlines()])


def _indented(lines: Sequence[str]) -> None:
    click.echo("\n".join(f"  {line}".rstrip() for line in lines))
