"""`popcorn new`: a country's file from the operator's files, an agency's, or another country."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from popcorn_assets.commands.asking import Question, answered, at_a_terminal, missing
from popcorn_assets.runs.home import enter_home
from popcorn_ml.errors import ConfigError

if TYPE_CHECKING:
    from popcorn_assets.commands.new_draft import Draft, Wanted

COMMAND = "popcorn new"
AGENCIES = {
    "boundaries": "geoboundaries, cod, tiger or worldpop",
    "counts": "cod, worldpop or us_census",
}


@click.command()
@click.argument("code", required=False)
@click.option("--name", help="The country's name, for people.")
@click.option(
    "--iso", metavar="ISO3", help="For agencies: its ISO 3166 code; CODE, if that is one."
)
@click.option("--year", metavar="YEAR|A-B", help="The year to be mapped, or several.")
@click.option(
    "--boundaries",
    metavar="FILE|AGENCY",
    help=f"Polygons of the census units: a file, or {AGENCIES['boundaries']}.",
)
@click.option(
    "--counts",
    metavar="FILE|AGENCY",
    help=f"Table of their people: a file ({{year}} for several), or {AGENCIES['counts']}.",
)
@click.option("--level", type=click.IntRange(1, 5), default=2, show_default=True,
              help="Of an AGENCY: level below the country, which is 0.")  # fmt: skip
@click.option("--outline", metavar="FILE", help="Outline of the country, if not that of the units.")
@click.option("--box", metavar="W,S,E,N", help="Box in degrees that is mapped, if not all units.")
@click.option("--crs", metavar="EPSG:...", help="CRS of the grid, if not the UTM zone.")
@click.option(
    "--imagery",
    metavar="SOURCE|FILE",
    help="planetary-computer (default), earth-search, earthengine, or an item collection on disk.",
)
@click.option("--max-scenes", type=click.IntRange(1), help="Observations of a place and season.")
@click.option("--extractor", type=click.Choice(["published", "demo"]), help="What finds buildings.")
@click.option("--model", metavar="CODE/YEAR", help="Map with that country's model: train nothing.")
@click.option("--like", metavar="CODE", help="Take over what another country's file says.")
@click.option("--only", metavar="UNIT,...", help="With --like: only these of its census units.")
@click.option("--level-name", metavar="NAME", help="What the census level is called.")
@click.option("--layer", help="Layer of the boundary file.")
@click.option("--member", help="File inside the boundaries' zip archive.")
@click.option("--boundaries-crs", metavar="EPSG:...", help="CRS of a file that does not say.")
@click.option("--sheet", help="Sheet of the counts' workbook.")
@click.option(
    "--boundaries-id-column", "boundaries_id", help="Of a FILE: identifiers of the units."
)
@click.option("--boundaries-name-column", "boundaries_name", help="Of a FILE: names of the units.")
@click.option("--id-column", "counts_id", help="Of a FILE of counts: its column of identifiers.")
@click.option("--name-column", "counts_name", help="Of a FILE of counts: its column of names.")
@click.option("--people-column", "people", help="Of a FILE of counts: its column of people.")
@click.option("--counts-year", type=int, help="Of a FILE: the year of its counts.")
@click.option("--replace", "replace_", is_flag=True, help="Write over what is there already.")
def new(replace_: bool, **options: Any) -> None:
    """Begin a country: write its file, check its census, and say what comes next.

    CODE is its code: lower-case letters, digits and _. What no option says is asked at a terminal.
    With CODE alone a country that is there is checked again, and nothing is written.
    """
    from popcorn_assets.commands.new_draft import Wanted

    years = options.pop("year")
    wanted = Wanted(
        **_absolute(options),  # paths are from where one stands
        years=_years(years) if years else None,
        replace=replace_,
    )
    enter_home(begin=True)
    sys.exit(begin(wanted))


def _absolute(options: dict[str, Any]) -> dict[str, Any]:
    from popcorn_assets.commands.new_draft import CATALOGUES
    from popcorn_ml.agencies import BOUNDARIES, COUNTS

    names = {"boundaries": BOUNDARIES, "counts": COUNTS, "imagery": CATALOGUES, "outline": ()}
    return {
        key: str(Path(value).absolute()) if key in names and value and value not in names[key]
        else value
        for key, value in options.items()
    }  # fmt: skip


def begin(wanted: Wanted) -> int:
    """Write a country's file, unless it is there, and tell how it stands; the exit code."""
    from popcorn_assets.commands.new_report import report
    from popcorn_assets.country import file_of, own_folder

    code = wanted.code and _code(wanted.code)
    if code and not wanted.says_anything() and (path := file_of(code)):
        click.echo(f"{path} is there already; nothing is written")
        return report(code, wanted.years)
    draft = _drafted(wanted)
    path = own_folder() / f"{draft.code}.yaml"
    if not _written(draft, path, wanted.replace):
        return 1
    for sentence in draft.said:
        click.echo(f"  {sentence}")
    return report(draft.code, draft.years)


def _drafted(wanted: Wanted) -> Draft:
    """What the country's file will say; what nobody said is asked."""
    from popcorn_assets.commands.new_draft import own_draft
    from popcorn_assets.commands.new_part import like_draft
    from popcorn_assets.country import load_country

    if wanted.only and not wanted.like:
        raise ConfigError(
            "--only needs the country whose units are meant", remedy="give --like CODE"
        )
    if wanted.like and not (wanted.boundaries or wanted.counts):
        return like_draft(wanted)
    if wanted.only:
        raise ConfigError(
            "--only takes units of another country, and not boundaries or counts of its own",
            remedy="leave out --only, or --boundaries and --counts",
        )
    if wanted.like and wanted.like == wanted.code and wanted.name is None:
        wanted = replace(wanted, name=load_country(wanted.like).name)
    asked = _questions(wanted)
    code = answered(asked["code"], wanted.code, _code, COMMAND)
    name = answered(asked["name"], wanted.name, _text, COMMAND)
    boundaries = answered(asked["boundaries"], wanted.boundaries, _file_or_agency, COMMAND)
    counts = answered(asked["counts"], wanted.counts, _file_or_agency, COMMAND)
    wanted = replace(wanted, boundaries=boundaries, counts=counts)
    if _fetches(wanted):
        code_says = code.upper() if len(code) == 3 else None
        wanted = replace(wanted, iso=answered(asked["iso"], wanted.iso or code_says, _iso, COMMAND))
    if wanted.years is None:
        wanted = replace(wanted, years=answered(asked["years"], None, _years, COMMAND))
    imagery = wanted.imagery
    if imagery is None and not wanted.like:
        imagery = answered(asked["imagery"], None, _text, COMMAND)
    return own_draft(wanted, code, name, imagery)


def _questions(wanted: Wanted) -> dict[str, Question]:
    """All that has to be known.

    Raises:
        ConfigError: something is not said, and there is nobody to ask; it names all of it.
    """
    questions = {
        "code": Question("CODE", "code of the country, such as rwa"),
        "name": Question("--name", "name of the country"),
        "boundaries": Question(
            "--boundaries", f"polygons of the census units: a file, or {AGENCIES['boundaries']}"
        ),
        "counts": Question("--counts", f"table of their people: a file, or {AGENCIES['counts']}"),
        "iso": Question("--iso", "ISO code of three letters, such as RWA"),
        "years": Question("--year", "year to be mapped, or several such as 2020-2022"),
        "imagery": Question(
            "--imagery",
            "images from planetary-computer, earth-search, earthengine or a file",
            "planetary-computer",
        ),
    }
    lacking = [
        question
        for key, question in questions.items()
        if question.default is None
        and getattr(wanted, key) is None
        and (key != "iso" or (_fetches(wanted) and len(wanted.code or "") != 3))
    ]
    if lacking and not at_a_terminal():
        raise missing(lacking, COMMAND)
    return questions


def _fetches(wanted: Wanted) -> bool:
    from popcorn_ml.agencies import BOUNDARIES, COUNTS

    return wanted.boundaries in BOUNDARIES or wanted.counts in COUNTS


def _code(text: str) -> str:
    from popcorn_assets.country import is_code

    if is_code(text):
        return text
    plain = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
    raise ConfigError(
        "this cannot be a country's code",
        where="CODE",
        expected="2 to 31 lower-case letters, digits and _, beginning with a letter",
        found=text,
        remedy=f"take {plain}" if is_code(plain) else None,
    )


def _text(text: str) -> str:
    if not text.strip():
        raise ConfigError("this is empty", expected="an answer")
    return text.strip()


def _file_or_agency(text: str) -> str:
    from popcorn_assets.commands.new_files import files_at
    from popcorn_ml.agencies import BOUNDARIES, COUNTS

    if text in {*BOUNDARIES, *COUNTS}:
        return text
    path = Path(_text(text)).absolute()
    files_at(path)
    return str(path)


def _iso(text: str) -> str:
    if not re.fullmatch("[A-Za-z]{3}", text):
        raise ConfigError(
            "this is no ISO code",
            where="--iso",
            expected="the three letters of ISO 3166-1, such as RWA",
            found=text,
        )
    return text.upper()


def _years(text: str) -> tuple[int, int]:
    """The first and the last year.

    Raises:
        ConfigError: neither a year nor a range, or there is no imagery of one.
    """
    from datetime import UTC, datetime

    from popcorn_assets.partitions import require_year

    found = re.fullmatch(r"([0-9]{4})(?:-([0-9]{4}))?", text)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    if first > last:
        raise ConfigError(
            "this is no year",
            where="--year",
            expected="four digits, or the first and the last, such as 2020-2022",
            found=text,
        )
    for year in range(first, last + 1):
        require_year(year, datetime.now(UTC))
    return first, last


def _written(draft: Draft, path: Path, replacing: bool) -> bool:
    """Write the country's file and copy what it needs, unless that would change something.

    Returns:
        Whether the file is there as drafted.

    Raises:
        ConfigError: what was drafted cannot be a country's file; nothing was written.
    """
    import difflib

    from popcorn_assets.commands.new_files import carry_out
    from popcorn_assets.countries.written import country_text
    from popcorn_assets.country import country_of_text, file_of
    from popcorn_ml.files import write_bytes

    text = country_text(draft.head, draft.sections, draft.comments)
    country_of_text(text, path)
    before = path.read_text("utf-8", errors="replace") if path.exists() else None
    others = [copy for copy in draft.copies if copy.there == "other"]
    if (before is not None and before != text) or others:
        lines = difflib.unified_diff(
            (before or "").splitlines(), text.splitlines(), str(path), "as asked for", lineterm=""
        )
        click.echo("\n".join(lines))
        for copy in others:
            click.echo(f"{copy.target} is another file than {copy.source}, and would be replaced")
        if not replacing and not (at_a_terminal() and click.confirm("Replace?", default=False)):
            click.echo(f"nothing was changed; {COMMAND} ... --replace changes it")
            return False
    hidden = file_of(draft.code) if before is None else None
    for copy in draft.copies:
        if copy.there != "same":
            click.echo(f"copied {copy.source} to {copy.target}")
    carry_out(draft.copies)
    if before == text:
        click.echo(f"{path} is as asked for already")
        return True
    write_bytes(path, text.encode())
    click.echo(f"{'wrote' if before is None else 'replaced'} {path}")
    if hidden is not None:
        click.echo(f"  it is used instead of {hidden}")
    return True
