"""What a new country's file will say, from an operator's own files or an agency's.

Columns that nobody named are recognised by what stands in them; a doubt is asked about at a
terminal, and an error elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from popcorn_assets.commands.asking import Question, at_a_terminal, chosen, missing
from popcorn_assets.commands.new_files import Copy, Placed, fetched, placed
from popcorn_assets.paths import data_root
from popcorn_ml.errors import CensusError, ConfigError

if TYPE_CHECKING:
    from popcorn_ml.census.recognise import Given, Recognised


@dataclass(frozen=True)
class Wanted:
    """What was said on the command line; None where nothing was.

    Attributes: as the options of `popcorn new` that bear their names. Paths are absolute.
    """

    code: str | None = None
    name: str | None = None
    iso: str | None = None
    years: tuple[int, int] | None = None
    like: str | None = None
    only: str | None = None
    box: str | None = None
    outline: str | None = None
    crs: str | None = None
    boundaries: str | None = None
    counts: str | None = None
    level: int = 2
    level_name: str | None = None
    layer: str | None = None
    member: str | None = None
    boundaries_crs: str | None = None
    sheet: str | None = None
    boundaries_id: str | None = None
    boundaries_name: str | None = None
    counts_id: str | None = None
    counts_name: str | None = None
    people: str | None = None
    counts_year: int | None = None
    imagery: str | None = None
    max_scenes: int | None = None
    extractor: str | None = None
    model: str | None = None
    replace: bool = False

    def says_anything(self) -> bool:
        """Whether anything but the code was said."""
        return any(
            getattr(self, one.name) != one.default
            for one in fields(self)
            if one.name not in ("code", "replace", "years")
        )


@dataclass(frozen=True)
class Draft:
    """A country's file before it is written.

    Attributes:
        code: the country's.
        head: what is said above everything.
        sections: values of its keys.
        comments: other words than the usual above some sections.
        copies: files that have to be copied for it.
        said: what was taken for what, in sentences.
        years: the first and the last to be mapped; None: not said.
    """

    code: str
    head: str
    sections: dict[str, Any]
    comments: dict[str, str] = field(default_factory=dict)
    copies: tuple[Copy, ...] = ()
    said: tuple[str, ...] = ()
    years: tuple[int, int] | None = None


def own_draft(wanted: Wanted, code: str, name: str, imagery: str | None) -> Draft:
    """A country from boundaries and counts of its own.

    Args:
        wanted: with `boundaries`, `counts` and `years`.
        imagery: a source, or a file of scenes; None with `like`, whose imagery it then has.

    Raises:
        ConfigError, CensusError: a file that is not there or cannot be read, or columns that are
            not clear; or an agency that does not answer.
    """
    assert wanted.years is not None
    year = wanted.years[0]
    boundaries, counts, census = _census(wanted, code, year)
    base = _like(wanted.like)
    grid = _grid(wanted, code, boundaries)
    sections = {
        **base,
        "name": name,
        "grid": grid[0],
        "imagery": {
            **(imagery_section(imagery, code) if imagery else base["imagery"]),
            **({"max_scenes": wanted.max_scenes} if wanted.max_scenes else {}),
        },
        "census": census.section,
        **({"extractor": wanted.extractor} if wanted.extractor else {}),
        "model": model_section(wanted.model, code, year),
    }
    sections.setdefault("extractor", "published")
    copies = (*boundaries.copies, *counts.copies, *grid[1])
    head = _head(code, name, wanted)
    return Draft(code, head, sections, {}, copies, census.said, wanted.years)


def _head(code: str, name: str, wanted: Wanted) -> str:
    iso = f" ({wanted.iso})" if wanted.iso else ""
    return (
        f"{name}{iso}, begun by `popcorn new {code}`. docs/countries.md lists every key.\n"
        "Paths are taken from the store's root, those of the census also from "
        f"census/{code}/ in it."
    )


def _like(code: str | None) -> dict[str, Any]:
    """What a country takes over from another that it is like: all but its place and its people."""
    if code is None:
        return {}
    given = written_file(code)
    taken: dict[str, Any] = {
        k: given[k] for k in ("imagery", "extractor", "training", "mapping") if k in given
    }
    return taken | {"training": own_training(taken["training"])} if "training" in taken else taken


def own_training(training: dict[str, Any]) -> dict[str, Any]:
    """How another country is trained, but for on whose units: that is not taken over."""
    return {key: value for key, value in training.items() if key != "countries"}


def written_file(code: str) -> dict[str, Any]:
    """What a country's file says, as it is written there.

    Raises:
        ConfigError: there is no such country, or its file cannot be used.
    """
    import yaml

    from popcorn_assets.country import file_of, load_country

    load_country(code)
    path = file_of(code)
    assert path is not None
    return yaml.safe_load(path.read_text("utf-8"))


# Files and columns -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Census:
    """The section `census`, and what was found out for it."""

    section: dict[str, Any]
    said: tuple[str, ...]


def _census(wanted: Wanted, code: str, year: int) -> tuple[Placed, Placed, _Census]:
    """Boundaries and counts: fetched where an agency is named, else the operator's own."""
    from popcorn_ml.agencies import BOUNDARIES, COUNTS, fetch_boundaries, fetch_counts
    from popcorn_ml.agencies.section import census_section

    assert wanted.boundaries is not None
    assert wanted.counts is not None
    folder = data_root() / "census" / code
    people = borders = None
    if wanted.counts in COUNTS:
        click.echo(f"fetching counts from {wanted.counts}")
        people = fetch_counts(
            wanted.counts, wanted.iso or "", level=wanted.level, year=year, folder=folder
        )
    if wanted.boundaries in BOUNDARIES:
        click.echo(f"fetching boundaries from {wanted.boundaries}")
        # Borders of the year that was counted: units are redrawn between two counts.
        of = (people.year if people else wanted.counts_year) or year
        borders = fetch_boundaries(
            wanted.boundaries, wanted.iso or "", level=wanted.level, year=of, folder=folder
        )
    boundaries = fetched(borders, code) if borders else placed(wanted.boundaries, code)
    counts = fetched(people, code) if people else placed(wanted.counts, code)
    name = wanted.level_name or (f"adm{wanted.level}" if borders else "units")
    if borders and people:
        return boundaries, counts, _Census(census_section(borders, people, name), ())
    level, said = _level(wanted, boundaries, counts)
    return boundaries, counts, _Census({"levels": {name: level}}, said)


def _level(
    wanted: Wanted, boundaries: Placed, counts: Placed
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A census level of two files whose columns are recognised; and what was found out."""
    found = _recognised(wanted, boundaries, counts)
    own: dict[str, Any] = {"file": boundaries.for_census, **boundaries.said}
    theirs: dict[str, Any] = {"file": counts.for_census, **counts.said}
    own |= _of_boundaries(wanted, boundaries)
    theirs |= {"sheet": wanted.sheet} if wanted.sheet else {}
    own["columns"] = _plain(found.boundaries.model_dump(exclude_defaults=True))
    theirs["columns"] = _plain(found.counts.model_dump(exclude_defaults=True))
    if found.year is not None and "{year}" not in counts.for_census:
        theirs["year"] = found.year
    return {"role": "train", "boundaries": own, "counts": theirs}, found.said


def _plain(columns: Mapping[str, Any]) -> dict[str, Any]:
    """A single identifier as one value instead of a list of one."""
    return {k: v[0] if isinstance(v, tuple) and len(v) == 1 else v for k, v in columns.items()}


def _recognised(wanted: Wanted, boundaries: Placed, counts: Placed) -> Recognised:
    """The columns of two files; what is unclear is asked, where somebody is there."""
    from popcorn_ml.census.files import Files
    from popcorn_ml.census.recognise import Given, Unclear, recognise
    from popcorn_ml.census.settings import BoundarySettings, CountSettings

    own = BoundarySettings(file=boundaries.path.name, **_of_boundaries(wanted, boundaries))
    theirs = CountSettings(
        file=counts.path.name,
        sheet=wanted.sheet,
        **{k: v for k in ("member", "where") if (v := counts.said.get(k))},
    )
    known = {one.name: getattr(wanted, one.name) for one in fields(Given)}
    known["counts_year"] = known["counts_year"] or counts.said.get("year")
    given = Given(**known)
    with Files([boundaries.path.parent, counts.path.parent]) as files:
        while True:
            try:
                return recognise(files, own, theirs, given)
            except Unclear as error:
                if not at_a_terminal():
                    raise
                given = _asked(given, error)
            except CensusError as error:
                raise _by_option(error) from error


IN_THE_FILE = {
    "`crs` in the country's file": "--boundaries-crs",
    "as `layer` in the country's file": "with --layer",
    "as `member` in the country's file": "with --member",
    "as `sheet` in the country's file": "with --sheet",
}
"""What a remedy sends to a file that is not written yet -> the option that says it."""


def _by_option(error: CensusError) -> CensusError:
    remedy = error.remedy or ""
    for place, option in IN_THE_FILE.items():
        remedy = remedy.replace(place, option)
    return CensusError(
        error.what, where=error.where, expected=error.expected, found=error.found,
        remedy=remedy or None,
    )  # fmt: skip


def _of_boundaries(wanted: Wanted, boundaries: Placed) -> dict[str, Any]:
    """What is said of the boundary file besides its columns."""
    said = {k: v for k in ("layer", "member", "where", "crs") if (v := boundaries.said.get(k))}
    asked = {"layer": wanted.layer, "member": wanted.member, "crs": wanted.boundaries_crs}
    return said | {k: v for k, v in asked.items() if v}


def _asked(given: Given, error: Any) -> Given:
    """What is known of the columns, and one more answer."""
    click.echo(f"{error.where}: {error.what}")
    question = error.option.replace("_", " ")
    if error.option == "counts_year":
        return replace(given, counts_year=click.prompt("Year of the counts", type=int))
    answer: dict[str, Any] = {error.option: chosen(f"Column ({question})", error.choices)}
    return replace(given, **answer)


# Sections ----------------------------------------------------------------------------------------


PIXELS = ("preset", "box", "bounds", "like", "crs", "step")
"""Keys of a grid that say which pixels it has."""


def _grid(wanted: Wanted, code: str, boundaries: Placed) -> tuple[dict[str, Any], tuple[Copy, ...]]:
    """The grid: around a box or an outline, else around the census units themselves."""
    box: dict[str, Any] = {"box": box_of(wanted.box)} if wanted.box else {}
    if wanted.like == code and not box:  # its own pixels, whoever draws its borders
        box = {k: v for k, v in written_file(code)["grid"].items() if k in PIXELS}
    box |= {"crs": wanted.crs} if wanted.crs else {}
    if wanted.outline:
        outline = placed(wanted.outline, code)
        return {**box, "boundary": outline.for_grid}, outline.copies
    if boundaries.path.suffix.lower() in (".tif", ".tiff"):
        if not set(box) - {"crs", "step"}:
            raise missing(
                [Question("--box", "the units are a raster, which has no outline")], "popcorn new"
            )
        return box, ()
    of_file = _of_boundaries(wanted, boundaries)
    if "crs" in of_file:
        of_file["boundary_crs"] = of_file.pop("crs")
    return {**box, "boundary": boundaries.for_grid, **of_file}, ()


def box_of(text: str) -> list[float]:
    """A box in degrees.

    Raises:
        ConfigError: not four numbers.
    """
    try:
        west, south, east, north = (float(part) for part in text.replace(",", " ").split())
    except ValueError:
        raise ConfigError(
            "this is not a box",
            where="--box",
            expected="west,south,east,north in degrees, such as 29.0,-2.8,30.9,-1.0",
            found=text,
        ) from None
    return [west, south, east, north]


CATALOGUES = ("planetary-computer", "earth-search", "earthengine")


def imagery_section(text: str, code: str) -> dict[str, Any]:
    """The section `imagery` for a catalogue, or for a file of scenes on disk.

    Raises:
        ConfigError: neither; or the file's scenes lie where they may not be read.
    """
    if text == "earthengine":
        return {"source": text, text: {"mode": "tiles"}}
    if text == "earth-search":  # it has no Sentinel-1 that can be used
        return {"source": "stac", "stac": {"profile": text, "s1_profile": "planetary-computer"}}
    if text == "planetary-computer":
        return {"source": "stac", "stac": {"profile": text}}
    path = Path(text)
    if path.suffix.lower() not in (".json", ".geojson"):
        raise ConfigError(
            "there is no such source of imagery",
            where="--imagery",
            expected=", ".join(CATALOGUES) + ", or an item collection (.json) of scenes on disk",
            found=path.name,
        )
    here = placed(path, code)
    if here.copies:
        raise ConfigError(
            "the scenes lie where they may not be read",
            where=str(path),
            expected=f"something in {data_root()}",
            remedy="move the folder with the collection and its scenes there, or open it: "
            f"export POPCORN_FOLDERS={path.parent}",
        )
    return {"source": "stac", "stac": {"profile": "local", "items": here.for_grid}}


def model_section(text: str | None, code: str, year: int) -> dict[str, Any]:
    """The section `model`: the country's own of its first year, or another's.

    Raises:
        ConfigError: not COUNTRY/YEAR, or there is no such country.
    """
    from popcorn_assets.country import load_country

    if text is None:
        return {"country": code, "year": year}
    country, _, trained = text.replace("|", "/").partition("/")
    if not trained.isdigit():
        raise ConfigError(
            "this is no model",
            where="--model",
            expected="COUNTRY/YEAR that it was trained on, such as rwa/2020",
            found=text,
        )
    load_country(country)
    return {"country": country, "year": int(trained)}
