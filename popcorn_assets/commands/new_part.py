"""A new country like another one: the same anew, to be changed, or a few of its units alone.

A part reads the other country's census files, of which it keeps its own units' rows; nothing is
copied. With few units there is little to learn from: unless another country's model maps it, it is
mapped by the extractor and the counts, with a single pass of training.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popcorn_assets.commands.new_draft import (
    Draft,
    Wanted,
    imagery_section,
    model_section,
    own_training,
    written_file,
)
from popcorn_assets.commands.new_files import placed
from popcorn_ml.errors import ConfigError

if TYPE_CHECKING:
    import geopandas as gpd

    from popcorn_assets.country import Country
    from popcorn_ml.census.files import Files
    from popcorn_ml.census.settings import BoundarySettings, CountSettings, LevelSettings

FEW_UNITS = 20
"""Up to so many, one pass of one member is what is proposed."""

ALONE = {"members": 1, "epochs": 1, "held_out": "none"}
ALONE_SAYS = (
    "With so few units nothing can be learnt: one pass over them leaves people spread by the\n"
    "extractor's built-up score, and the adjusted map has each unit's count. With a model of\n"
    "another country (`model`), or more units, take this section out."
)


def like_draft(wanted: Wanted) -> Draft:
    """A country like another: of some of its units, or of all.

    Raises:
        ConfigError, CensusError: no such country, no such unit, or units that cannot be parted.
    """
    from popcorn_assets.country import load_country

    assert wanted.like is not None
    like = load_country(wanted.like)
    if wanted.only is None:
        return _whole(wanted, like)
    asked = [one.strip() for one in wanted.only.split(",") if one.strip()]
    return _part(wanted, like, asked)


def _whole(wanted: Wanted, like: Country) -> Draft:
    """The country's own file anew, under its own code or another."""
    sections = written_file(like.code)
    code = wanted.code or like.code
    if code != like.code:
        for level in sections["census"]["levels"].values():
            _moved(level, like.code, code)
    sections |= _said(wanted, sections, code)
    if wanted.model or (code != like.code and "model" in sections):
        sections["model"] = _model(wanted, like, code)
    head = (
        f"{sections['name']}, begun by `popcorn new {code} --like {like.code}`. docs/countries.md\n"
        "lists every key."
    )
    return Draft(code, head, sections, years=wanted.years)


KEPT = ("country", "year", "kind", "sensors")
"""Of a section `model`, what a copy of the country keeps."""


def _model(wanted: Wanted, like: Country, code: str) -> dict[str, Any]:
    """Whose model maps a country that is another's copy: the one named, the one that maps the other
    (another country's, or a year of its own, which is then a year of the copy)."""
    if wanted.model:
        return model_section(wanted.model, code, 0)
    said = like.model.model_dump(exclude_defaults=True)
    theirs = {key: value for key, value in said.items() if key in KEPT}
    return {**theirs, "country": code} if theirs.get("country") == like.code else theirs


def _moved(level: dict[str, Any], old: str, new: str) -> None:
    """Name a level's files so that another country finds them."""
    from popcorn_assets.assets.census import census_folders

    counts = level.get("counts", [])
    for entry in (level.get("boundaries"), *(counts if isinstance(counts, list) else [counts])):
        for folder in census_folders(old)[:1] if entry else ():
            pattern = entry["file"].replace("{year}", "[0-9]" * 4)
            if any(folder.glob(pattern)):
                entry["file"] = f"census/{old}/{entry['file']}"


def _said(wanted: Wanted, written: Mapping[str, Any], code: str) -> dict[str, Any]:
    """The sections that options say something about.

    Args:
        written: what the other country's file says.
    """
    said: dict[str, Any] = {}
    if wanted.name:
        said["name"] = wanted.name
    if wanted.imagery or wanted.max_scenes:
        said["imagery"] = {
            **(imagery_section(wanted.imagery, code) if wanted.imagery else written["imagery"]),
            **({"max_scenes": wanted.max_scenes} if wanted.max_scenes else {}),
        }
    if wanted.extractor:
        said["extractor"] = wanted.extractor
    return said


def _part(wanted: Wanted, like: Country, asked: Sequence[str]) -> Draft:
    from popcorn_assets.assets.census import census_folders
    from popcorn_ml.census.files import Files

    name = like.census.train_level
    level = like.census.levels[name]
    with Files(census_folders(like.code)) as files:
        units = _units(level, files, like)
        chosen = _chosen(units, asked, like)
        code = wanted.code or _code(like.code, list(chosen["name"]) or list(chosen["id"]))
        boundaries = _boundaries(level, files, chosen, code)
        counts = [_counts(level, one, files, units, chosen, code) for one in level.counts]
    names = [n or i for n, i in zip(chosen["name"], chosen["id"], strict=True)]
    title = ", ".join(names) if len(names) <= 3 else f"{len(names)} units"
    years = wanted.years or (_counted(level),) * 2
    written = written_file(like.code)
    kept = level.model_dump(mode="json", exclude_defaults=True, exclude={"boundaries", "counts"})
    sections: dict[str, Any] = {
        "name": f"{like.name} ({title})",
        "grid": _grid(like, boundaries),
        "imagery": written.get("imagery"),
        "census": {
            "levels": {
                name: {
                    **kept,
                    "boundaries": {k: v for k, v in boundaries.items() if k != "for_grid"},
                    "counts": counts[0] if len(counts) == 1 else counts,
                }
            }
        },
        "extractor": like.extractor,
        **({"mapping": written["mapping"]} if "mapping" in written else {}),
        **_said(wanted, written, code),
        "model": model_section(wanted.model, code, years[0]),
    }
    comments = {}
    if wanted.model is None and len(chosen) <= FEW_UNITS:
        sections["training"] = dict(ALONE)
        comments["training"] = ALONE_SAYS
    elif wanted.model is None:
        sections["training"] = own_training(written.get("training", {}))
    head = (
        f"{len(chosen)} of the {len(units)} units of {like.name}, begun by `popcorn new {code} "
        f"--like {like.code}`.\nIts census files are that country's, of which it reads its own "
        "rows. docs/countries.md lists\nevery key."
    )
    others = [other for other in like.census.levels if other != name]
    left_out = (f"level {', '.join(others)} of {like.code} is left out",) if others else ()
    said = (f"units: {', '.join(names)}", *left_out)
    return Draft(code, head, sections, comments, (), said, years)


def _code(like: str, names: Sequence[str]) -> str:
    """A code for a part: the country's and its first unit's name, and how many there are."""
    from popcorn_ml.census.text import name_key

    first = re.sub(r"[^a-z0-9]+", "_", name_key(names[0])).strip("_")
    number = f"_{len(names)}" if len(names) > 1 else ""
    return f"{like}_{first}"[: 31 - len(number)].rstrip("_") + number


def _units(level: LevelSettings, files: Files, like: Country) -> gpd.GeoDataFrame:
    """The units of a level that polygons give.

    Raises:
        ConfigError: a raster gives them.
    """
    from popcorn_ml.census.readers import read_units

    read = read_units(level, files)
    if read.raster is not None or level.boundaries is None:
        raise ConfigError(
            "the units of the country are a raster, of which no part can be taken",
            where=f"--like {like.code}",
            expected="a country whose training level has polygons, such as pricp2",
            found=read.file,
        )
    return read.frame


def _chosen(units: gpd.GeoDataFrame, asked: Sequence[str], like: Country) -> gpd.GeoDataFrame:
    """The units asked for, by identifier or by name.

    Raises:
        ConfigError: none is named, one is not there, or several bear a name.
    """
    from popcorn_ml.census.likeness import Names
    from popcorn_ml.census.text import name_key

    by_name: dict[str, list[str]] = {}
    for identifier, name in zip(units["id"], units["name"], strict=True):
        by_name.setdefault(name_key(name), []).append(identifier)
    known, wrong = set(units["id"]), []
    ids: list[str] = []
    likely = Names([*units["id"], *units["name"]])
    for one in asked:
        found = [one] if one in known else by_name.get(name_key(one), [])
        if len(found) == 1:
            ids += found
            continue
        near = likely.nearest(one)
        hint = f"several: {', '.join(found)}" if found else f"{near}?" if near else "none like it"
        wrong.append(f"{one} ({hint})")
    if wrong or not ids:
        some = ", ".join(
            f"{i} {n}".strip() for i, n in zip(units["id"], units["name"], strict=True)
        )
        raise ConfigError(
            f"{like.name} has no such unit" if wrong else "no unit is named",
            where="--only",
            expected="identifiers or names, such as "
            + (f"{some[:300]} ..." if len(some) > 300 else some),
            found="; ".join(wrong) or "nothing",
        )
    return units[units["id"].isin(ids)]


def _boundaries(
    level: LevelSettings, files: Files, chosen: gpd.GeoDataFrame, code: str
) -> dict[str, Any]:
    """The boundaries section of a part, and under `for_grid` the file's name for the grid."""
    from popcorn_ml.census.boundaries import VECTOR_SUFFIXES, read_features
    from popcorn_ml.census.columns import boundary_columns
    from popcorn_ml.census.text import clean_id

    settings = level.boundaries
    assert settings is not None
    path = files.open(settings, VECTOR_SUFFIXES)
    columns = boundary_columns(settings, level.reader, path)
    by = columns.id or ((columns.name,) if columns.name else ())
    if len(by) != 1:
        raise ConfigError(
            "the units' identifier is made of several attributes, by which no part can be taken",
            where=str(path),
            expected="one attribute",
            found=", ".join(by),
        )
    raw = read_features(path, settings)
    rows = [row - 1 for row in chosen["row"]]
    values = sorted({clean_id(raw.loc[row, by[0]]) for row in rows})
    here = placed(files.path(settings.file), code)
    said = _dumped(settings, here.for_census)
    return {**said, "where": {**said.get("where", {}), by[0]: values}, "for_grid": here.for_grid}


def _counts(
    level: LevelSettings,
    settings: CountSettings,
    files: Files,
    units: gpd.GeoDataFrame,
    chosen: gpd.GeoDataFrame,
    code: str,
) -> dict[str, Any]:
    """The counts section of a part: the rows that join its units."""
    from popcorn_ml.census.join import join
    from popcorn_ml.census.readers import read_counts, written_ids

    if settings.boundaries is not None:
        raise ConfigError(
            "the counts are of other boundaries than the level's, by which no part can be taken",
            where=settings.file,
        )
    alone = level.model_copy(update={"counts": (settings,)})
    tables = files.expand(settings)
    column, values = "", set()
    for read, table in zip(read_counts(alone, files), tables, strict=True):
        joined = join(units, read.frame, table.file, level.join).counts
        own = joined["row"][joined["unit"].isin(set(chosen["id"]))]
        column, written = written_ids(level, table, files)
        values |= {written[int(row)] for row in own}
    path = files.path(tables[0].file).with_name(Path(settings.file).name)
    said = _dumped(settings, placed(path, code).for_census)
    return {**said, "where": {**said.get("where", {}), column: sorted(values)}}


def _dumped(settings: BoundarySettings | CountSettings, file: str) -> dict[str, Any]:
    said = settings.model_dump(mode="json", exclude_defaults=True)
    columns = said.get("columns")
    if columns:
        said["columns"] = {
            k: v[0] if isinstance(v, list) and len(v) == 1 else v for k, v in columns.items()
        }
    return {**said, "file": file}


def _grid(like: Country, boundaries: Mapping[str, Any]) -> dict[str, Any]:
    """The grid of a part: around its units, of the country's own pixels, so that its models fit."""
    own = like.grid
    grid: dict[str, Any] = {"boundary": boundaries["for_grid"], "where": boundaries["where"]}
    grid |= {k: boundaries[k] for k in ("layer", "member") if k in boundaries}
    if "crs" in boundaries:
        grid["boundary_crs"] = boundaries["crs"]
    pixels = like.pixel_grid()
    grid["crs"] = pixels.crs
    if own.step is not None or own.like is not None:
        grid["step"] = pixels.step
    if own.margin_m and own.boundary is not None:
        grid["margin_m"] = int(own.margin_m) if own.margin_m.is_integer() else own.margin_m
    return grid


def _counted(level: LevelSettings) -> int:
    """The one year that a level's counts are of.

    Raises:
        ConfigError: there are several, or none is said.
    """
    years = {one.year for one in level.counts}
    if len(years) == 1 and (year := years.pop()):
        return year
    raise ConfigError(
        "popcorn new is not told which year to map",
        expected="--year YEAR: the counts are of several years, or their file says which",
        remedy="give --year",
    )
