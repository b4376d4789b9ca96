"""`popcorn census`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from popcorn_assets.runs.home import enter_home

if TYPE_CHECKING:
    from popcorn_ml.agencies import Fetched

BOUNDARIES = ("geoboundaries", "cod", "tiger", "worldpop")
COUNTS = ("cod", "worldpop", "us_census")


@click.group()
def census() -> None:
    """Counts of people, and the units they were counted in."""


@census.command("fetch")
@click.argument("code")
@click.option("--boundaries", type=click.Choice(BOUNDARIES), help="Where the borders come from.")
@click.option("--counts", help=f"Where the counts come from: {', '.join(COUNTS)}, or a FILE.")
@click.option("--iso", help="ISO 3166-1 alpha-3 code of the country; CODE, if that is one.")
@click.option("--level", default=2, show_default=True, help="Level below the country, which is 0.")
@click.option("--year", type=int, help="The latest counts not after it are taken; now.")
@click.option("--again", is_flag=True, help="Fetch whatever is there already.")
@click.option("--id-column", help="Of a FILE: its column of identifiers, if not recognised.")
@click.option("--name-column", help="Of a FILE: its column of names, likewise.")
@click.option("--people-column", help="Of a FILE: its column of people, likewise.")
@click.option("--counts-year", type=int, help="Of a FILE: the year of its counts, likewise.")
@click.option("--boundaries-id-column", help="Of borders beside a FILE: likewise.")
@click.option("--boundaries-name-column", help="Of borders beside a FILE: likewise.")
def census_fetch(
    code: str,
    boundaries: str | None,
    counts: str | None,
    iso: str | None,
    level: int,
    year: int | None,
    again: bool,
    id_column: str | None,
    name_column: str | None,
    people_column: str | None,
    counts_year: int | None,
    boundaries_id_column: str | None,
    boundaries_name_column: str | None,
) -> None:
    """Fetch the borders and counts of the country CODE from the agencies that publish them.

    The files are kept in the store's census/CODE, each with a record of where it is from, and are
    not fetched again. Then it is said which units and rows join, and what to put into the
    country's file. The exit code is 1 when they do not join well enough to be trained on.
    """
    own = Path(counts).absolute() if counts is not None and counts not in COUNTS else None
    enter_home()
    from popcorn_assets.paths import data_root
    from popcorn_ml.agencies import fetch_boundaries, fetch_counts
    from popcorn_ml.agencies.fetched import OWN
    from popcorn_ml.agencies.own import own_counts
    from popcorn_ml.agencies.section import require_pair
    from popcorn_ml.agencies.us_census import COUNTED
    from popcorn_ml.census.recognise import Given

    if boundaries is None and counts is None:
        raise click.UsageError("say what to fetch: --boundaries, --counts or both")
    if own is not None and not own.is_file():
        raise click.UsageError(f"--counts: neither one of {', '.join(COUNTS)} nor a file: {counts}")
    if own is not None and boundaries is None:
        raise click.UsageError("--counts FILE: say which units it counts, with --boundaries")
    if boundaries is not None and counts is not None:
        require_pair(boundaries, counts if own is None else OWN)
    country, folder = _iso(code, iso), data_root() / "census" / _checked(code)
    wanted = year or datetime.now(UTC).year
    people: Fetched | None = None
    borders: Fetched | None = None
    if counts is not None and own is None:
        with _progress(counts) as tell:
            people = fetch_counts(
                counts, country, level=level, year=wanted, folder=folder, again=again, progress=tell
            )
        click.echo(_line("counts", people))
    if boundaries is not None:
        # Borders of the year that was counted: units are redrawn between two counts.
        counted = people.year if people is not None else None
        of = counted or year or max(COUNTED)
        with _progress(boundaries) as tell:
            borders = fetch_boundaries(
                boundaries, country, level=level, year=of, folder=folder, again=again, progress=tell
            )
        click.echo(_line("boundaries", borders))
    if own is not None and borders is not None:
        given = Given(
            boundaries_id=boundaries_id_column,
            boundaries_name=boundaries_name_column,
            counts_id=id_column,
            counts_name=name_column,
            people=people_column,
            counts_year=counts_year,
        )
        _take_in(code, own)
        people, borders, said = own_counts(own, borders, given)
        click.echo("\n".join([_line("counts", people), *(f"{'':<11} {text}" for text in said)]))
    if borders is not None and people is not None:
        sys.exit(0 if _joined(code, borders, people, f"adm{level}") else 1)


def _checked(code: str) -> str:
    """The country's code, which becomes a folder's name.

    Raises:
        ConfigError: it can be none.
    """
    from popcorn_assets.country import is_code
    from popcorn_ml.errors import ConfigError

    if not is_code(code):
        raise ConfigError(
            "this can be no country's code",
            expected="lower-case letters, digits and _, beginning with a letter",
            found=code,
        )
    return code


def _iso(code: str, iso: str | None) -> str:
    """The country's ISO code.

    Raises:
        ConfigError: the code is none, and none is given.
    """
    from popcorn_ml.errors import ConfigError

    given = iso or code
    if len(given) == 3 and given.isascii() and given.isalpha():
        return given.upper()
    raise ConfigError(
        f"{given!r} is no ISO 3166-1 alpha-3 code of a country",
        expected="three letters, such as RWA",
        remedy="say which country it is: --iso RWA",
    )


def _line(what: str, file: Fetched) -> str:
    """A file in a line: what, where, how much, of when, under which terms."""
    people = file.stated.get("people")
    much = f"{file.number} rows, {people:,.0f} people" if people is not None else ""
    much = much or f"{file.number} units"
    of = f", {file.year}" if file.year is not None else ""
    how = "put there by hand" if file.by_hand else "fetched" if file.anew else "there already"
    terms = f"; {file.licence}" if file.licence else ""
    return f"{what:<11} {file.path} ({how}, {file.size_bytes:,} bytes): {much}{of}{terms}"


def _take_in(code: str, own: Path) -> None:
    """Copy a file into the store, unless a country's file can name it where it is.

    Raises:
        ConfigError: another file of its name is there already.
    """
    from popcorn_assets.commands.new_files import carry_out, placed
    from popcorn_ml.errors import ConfigError

    copies = placed(own, code).copies
    for copy in copies:
        if copy.there == "other":
            raise ConfigError(
                "another file of this name is there already",
                where=copy.target,
                remedy=f"remove it, or give {own} another name",
            )
    carry_out(copies)


def _joined(code: str, borders: Fetched, people: Fetched, level: str) -> bool:
    """Say who joins whom and what to put into the country's file; whether that can be used."""
    from popcorn_assets.commands.new_files import placed
    from popcorn_assets.paths import data_root
    from popcorn_ml.agencies.section import census_section, joining
    from popcorn_ml.errors import CensusError

    section = census_section(borders, people, level)
    section["levels"][level]["counts"]["file"] = placed(people.path, code).for_census
    folders = [data_root() / "census" / code, data_root()]
    try:
        found = joining(section, folders, people.year, _box(code))
        usable = found.usable
        click.echo("\n".join(found.lines()))
    except CensusError as error:
        usable = False
        click.echo(f"not joined  {error}")
    click.echo(f"\n# {_place(code)}:\n{_yaml({'census': section})}", nl=False)
    return usable


def _box(code: str) -> tuple[float, float, float, float] | None:
    """Where the country lies, if it has a file that says so."""
    from popcorn_assets.country import country_codes, load_country
    from popcorn_ml.census.placing import box_degrees

    if code not in country_codes():
        return None
    country = load_country(code)
    return country.census.box or box_degrees(country.pixel_grid())


def _place(code: str) -> str:
    """Where the lines belong."""
    from popcorn_assets.country import PACKAGED, country_files, own_folder

    path, own = country_files().get(code), own_folder() / f"{code}.yaml"
    if path is None:
        return f"for {own}, which `popcorn new {code}` begins"
    if path.parent == PACKAGED:
        return f"for {own}, a copy of {path}, in place of its section `census`"
    return f"for {path}, in place of its section `census`"


def _yaml(section: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(
        section, sort_keys=False, allow_unicode=True, width=10**6, default_flow_style=None
    )


@contextmanager
def _progress(source: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on the terminal while a file comes; nothing in a log file."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from popcorn_assets.commands.console import Unfailing

    console = Console(file=Unfailing(sys.stderr))  # type: ignore[arg-type]
    columns = (TextColumn(source), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(source, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
