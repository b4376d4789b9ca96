"""Which maps there are: in a store, or in a folder that `popcorn export` wrote.

A store's maps are its current versions of `hectare_map`, and of each all that it was made from. An
exported folder's are found by the names of its files. Nothing else is looked at: a version that
was rejected or is half-written is no map.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from popcorn_ml.errors import StoreError
from popcorn_ml.published.versions import LATEST, NAME_PATTERN, Address, Published, Version
from popcorn_ml.publishing.names import CELLS, HECTARE, NOTE, PIXEL, Names

DATA_VARIABLE = "POPCORN_DATA"
HECTARES = "hectare_map"
"""The asset that is the product."""

_EXPORTED = re.compile(
    r"(?P<code>[a-z][a-z0-9_]*)_(?P<year>[12][0-9]{3})_population_(?P<cells>100m|cells)\.tif"
)
_YEAR = re.compile("[12][0-9]{3}")


class NoSuchMap(StoreError):
    """A country-year, or a file of one, that is not there."""


@dataclass(frozen=True)
class Place:
    """One published map and the files it consists of.

    Attributes:
        code, year: the country-year.
        path: folder that its files are in.
        files: what it is -> file: `cells`, `cells_std`, `cells_intervals`, `reliability`, `pixels`,
            `pixels_std`, the same with `unadjusted_` in front, `units`.
        told: what is said of it: version, model, census, people, made.
        versions: asset -> version that it consists of; empty for an exported folder.
    """

    code: str
    year: int
    path: Path
    files: Mapping[str, Path]
    told: Mapping[str, Any]
    versions: Mapping[str, Version] = field(default_factory=dict)

    def file(self, what: str) -> Path:
        """One of its files.

        Raises:
            NoSuchMap: it has none of that kind.
        """
        if what not in self.files:
            raise NoSuchMap(
                f"this map has no {what.replace('_', ' ')}",
                where=self.path,
                expected=", ".join(sorted(self.files)),
            )
        return self.files[what]


def root_of(data: str | Path | None) -> Path:
    """The folder meant: the one given, else POPCORN_DATA, else `data` in the working folder.

    Raises:
        NoSuchMap: it is no folder.
    """
    root = Path(data or os.environ.get(DATA_VARIABLE) or "data").absolute()
    if not root.is_dir():
        raise NoSuchMap(
            "there is no such folder",
            where=root,
            remedy=f"give the store's or an exported folder as data=, or set {DATA_VARIABLE}",
        )
    return root


def is_exported(root: Path) -> bool:
    """Whether a folder was written by `popcorn export`: it has maps by their long names."""
    return not (root / HECTARES).is_dir() and any(_exported_names(root))


def keys(root: Path) -> list[tuple[str, int]]:
    """Country and year of every map that is there, sorted."""
    if is_exported(root):
        return sorted((m["code"], int(m["year"])) for m in _exported_names(root))
    found = root.glob(f"{HECTARES}/*/*/{LATEST}")
    return sorted(
        (path.parent.parent.name, int(path.parent.name))
        for path in found
        if _YEAR.fullmatch(path.parent.name) and NAME_PATTERN.fullmatch(path.parent.parent.name)
    )


def place_of(root: Path, code: str, year: int) -> Place:
    """The map of a country-year.

    Raises:
        NoSuchMap: there is none; says what there is.
        StoreError: what it was made from is no longer in the store.
    """
    there = keys(root)
    if (code, year) not in there:
        years = [str(known) for of, known in there if of == code]
        countries = sorted({of for of, _ in there})
        raise NoSuchMap(
            f"no map of {code} {year} is published here",
            where=root,
            expected=f"{code} in {', '.join(years)}"
            if years
            else f"one of {', '.join(countries)}"
            if countries
            else "at least one published map",
            found=f"{code} {year}",
            remedy=None
            if countries
            else "give the store's or an exported folder as data=, or set POPCORN_DATA",
        )
    return _exported(root, code, year) if is_exported(root) else _stored(root, code, year)


def places(root: Path) -> Iterator[Place]:
    """Every map that is there; of one that cannot be opened, a warning says why."""
    for code, year in keys(root):
        try:
            place = place_of(root, code, year)
        except StoreError as error:
            warnings.warn(f"the map of {code} {year} is left out: {error}", stacklevel=3)
        else:
            yield place


# In the store --------------------------------------------------------------------------------


def _stored(root: Path, code: str, year: int) -> Place:
    store = Published(root)
    hectares = store.latest(Address(HECTARES, code, year))
    adjusted = store.made_from(hectares, "adjusted_map")
    versions = {HECTARES: hectares, "adjusted_map": adjusted}
    for asset in ("population_map", "census_units", "census_counts"):
        versions[asset] = store.made_from(adjusted, asset)
    predicted, manifest = versions["population_map"], hectares.manifest()
    level = adjusted.manifest()["parameters"]["level"]
    shown = dict(manifest["shown"])
    told = {
        "version": hectares.version,
        "model": shown.get("model", ""),
        "census": f"{level}, version {versions['census_counts'].version}",
        "people": shown.get("people in census units"),
        "people_unadjusted": shown.get("people on the grid, unadjusted"),
        "made": manifest["finished"],
    }
    wanted = {
        "cells": (hectares, "population.tif"),
        "cells_std": (hectares, "population_std.tif"),
        "cells_intervals": (hectares, "intervals.tif"),
        "reliability": (hectares, "reliability.tif"),
        "pixels": (adjusted, "population.tif"),
        "pixels_std": (adjusted, "population_std.tif"),
        "unadjusted_cells": (hectares, "unadjusted/population.tif"),
        "unadjusted_cells_std": (hectares, "unadjusted/population_std.tif"),
        "unadjusted_cells_intervals": (hectares, "unadjusted/intervals.tif"),
        "unadjusted_pixels": (predicted, "population.tif"),
        "unadjusted_pixels_std": (predicted, "population_std.tif"),
        "adjustment": (adjusted, "adjustment.json"),
        "error_model": (hectares, "error_model.json"),
        "unit_numbers": (versions["census_units"], f"units_{level}.tif"),
    }
    files = {what: version.file(name) for what, (version, name) in wanted.items()
             if name in version.manifest()["files"]}  # fmt: skip
    return Place(code, year, hectares.path, files, told, versions)


# In an exported folder -------------------------------------------------------------------------


def _exported_names(root: Path) -> Iterator[re.Match[str]]:
    half_written = _half_written(root)
    for path in root.glob("*_population_*.tif"):
        match = _EXPORTED.fullmatch(path.name)
        if match and path.is_file() and f"{match['code']}_{match['year']}" not in half_written:
            yield match


def _half_written(root: Path) -> set[str]:
    """Country-years that an export began to write and has not ended, by the note it keeps."""
    try:
        noted = json.loads((root / NOTE).read_text("utf-8"))["country_years"]
        return {stem for stem, one in noted.items() if not one.get("whole", True)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()


def _exported(root: Path, code: str, year: int) -> Place:
    names, found = Names(code, year), list(_exported_names(root))
    sizes = {m["cells"] for m in found if (m["code"], m["year"]) == (code, str(year))}
    cells = CELLS if CELLS in sizes else HECTARE  # the map's own before those made of them
    named = {
        "cells": names.raster("population", cells),
        "cells_intervals": names.raster("intervals", cells),
        "reliability": names.raster("reliability", cells),
        "pixels": names.raster("population", PIXEL),
        "unadjusted_cells": names.raster("population_unadjusted", cells),
        "unadjusted_cells_intervals": names.raster("intervals_unadjusted", cells),
        "unadjusted_pixels": names.raster("population_unadjusted", PIXEL),
        "units": Path(names.units).with_suffix(".parquet").name,
    }
    files = {what: root / name for what, name in named.items()}
    files = {what: path for what, path in files.items() if path.is_file()}
    return Place(code, year, root, files, _exported_facts(root / names.facts, files))


def _exported_facts(path: Path, files: Mapping[str, Path]) -> dict[str, Any]:
    """What the folder's facts say of a map; where it has none, what the map's own tags do."""
    from popcorn_ml import raster

    tags = {name.lower(): value for name, value in raster.tags(files["cells"]).items()}
    told = {
        "version": tags.get("version", ""),
        "model": tags.get("model", ""),
        "census": tags.get("census", ""),
        "people": None,
        "people_unadjusted": None,
        "made": tags.get("made", ""),
    }
    try:
        facts = json.loads(path.read_text("utf-8"))
        of = {one["role"]: one["people"] for one in facts["products"]}
        return {
            **told,
            "version": facts["version"],
            "model": facts["model"]["title"],
            "census": facts["census"]["level"],
            "people": of["population"],
            "people_unadjusted": of.get("population_unadjusted"),
            "made": facts["made"],
        }
    except (OSError, ValueError, KeyError, TypeError):
        return told
