"""Simulated countries that benchmarks train on and map: where their files lie, how they are made.

What is prepared (scenes, composites, built-up area, census units and counts) is kept in a folder
and taken up again. A census with errors shares the images of the exact one: nothing is rendered
twice.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from popcorn_assets.assets.builtup import DEMO_EXTRACTOR
from popcorn_assets.country import Country
from popcorn_ml.census.build import prepare_counts, prepare_units
from popcorn_ml.errors import ConfigError
from popcorn_ml.files import write_json
from popcorn_ml.imagery.build import build_season
from popcorn_ml.imagery.gaps import fill_gaps
from popcorn_ml.mapping.builtup import map_builtup
from popcorn_ml.model.weights import load_extractor
from popcorn_ml.sentinel import SEASONS, SENSORS
from popcorn_ml.simulate.country import write_census, write_country
from popcorn_ml.simulate.family import SECOND
from popcorn_ml.simulate.spec import FIRST, CensusError, CountrySpec

YEAR = 2020
EXACT = CensusError()
SPECS: dict[str, dict[str, Any]] = {
    FIRST: {},
    SECOND: {"urban_share": 0.12, "coarse_units": 90},
}
"""How countries of each family depart from `CountrySpec`: towns of the second are denser."""

SPEC = "spec.json"
SECONDS = "seconds.json"
LINKED = ("s1_composites", "s2_composites", "builtup_score.tif")
"""What a census with errors shares with the exact one."""


@dataclass(frozen=True)
class Place:
    """Where one seed's files lie.

    Attributes:
        seed: of the country.
        folder: of all its files.
        country: its country file.
        threads: to work with.
        year: of images and census.
        family: of worlds, that it is drawn by.
        error: of its census.
        run: folder in `folder` of what is trained and mapped; "" for `folder` itself.
        overrides: settings of the training that differ from the country file's.
        specifics: of `CountrySpec`, that differ from those of its family.
    """

    seed: int
    folder: Path
    country: Country
    threads: int
    year: int = YEAR
    family: str = FIRST
    error: CensusError = EXACT
    run: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    specifics: Mapping[str, Any] = field(default_factory=dict)

    @property
    def spec(self) -> CountrySpec:
        """The country."""
        return CountrySpec(
            seed=self.seed,
            family=self.family,
            census_error=self.error,
            **{**SPECS[self.family], **self.specifics},
        )

    @property
    def work(self) -> Path:
        """Folder of what is trained and mapped."""
        return self.folder / "runs" / self.run if self.run else self.folder

    def composites(self) -> dict:
        """Season -> its two composites."""
        return {
            season: tuple(
                self.folder / f"{sensor}_composites" / f"{season}.tif" for sensor in SENSORS
            )
            for season in SEASONS
        }

    @property
    def level(self) -> str:
        """The census level that is trained on."""
        return self.country.census.train_level

    @property
    def builtup(self) -> Path:
        """The built-up score."""
        return self.folder / "builtup_score.tif"

    @property
    def yardstick(self) -> Path:
        """The score that built-up disaggregation spreads people by: the bag's, for every model."""
        return self.work / "map" / "builtup_score.tif"

    @property
    def truth(self) -> Path:
        """The true people of each pixel: to be opened last."""
        return self.folder / (self.country.evaluation.truth or "").format(year=self.year)

    def counts(self, level: str) -> Path:
        """The counts of a level."""
        return self.folder / "counts" / f"counts_{level}.json"

    def units(self, level: str) -> Path:
        """The units of a level, as a raster."""
        return self.folder / "units" / f"units_{level}.tif"

    def people(self, level: str) -> list[float]:
        """Of units 1..n."""
        rows = json.loads(self.counts(level).read_text("utf-8"))
        return [row["people"] for row in sorted(rows, key=lambda row: row["number"])]


def place_of(
    seed: int, folder: Path, country: Country, threads: int, family: str, error: CensusError = EXACT
) -> Place:
    """A seed's place in a folder of many: `folder/seed`, or `folder/error/<which>/seed`."""
    within = folder
    if error != EXACT:
        which = f"counts{error.counts * 100:g}_borders{error.borders_px:g}_older{error.years_older}"
        within = folder / "error" / which
    return Place(seed, within / str(seed), country, threads, family=family, error=error)


def prepare(place: Place) -> None:
    """All that training needs: scenes, composites, built-up area, census units and counts.

    Raises:
        ConfigError: the folder holds another country.
    """
    if (place.folder / "prepared").exists():
        check(place)
        return
    if place.error != EXACT:
        exact = replace(place, folder=exact_folder(place), error=EXACT)
        prepare(exact)
        write_census(place.folder / "demo", place.spec, [place.year])
        for name in LINKED:
            share(exact.folder / name, place.folder / name)
    else:
        write_country(place.folder / "demo", place.spec, [place.year], workers=place.threads)
        images(place)
    grid, census = place.country.pixel_grid(), place.country.census
    units, counts = place.folder / "units", place.folder / "counts"
    prepare_units("demo", place.year, census, grid, units, place.folder)
    prepare_counts("demo", place.year, census, units, counts, place.folder)
    write_json(place.folder / SPEC, place.spec.as_dict())
    (place.folder / "prepared").touch()


class Seconds:
    """How long steps took when they were first done, kept in a file: a second time is no time."""

    def __init__(self, path: Path, before: Mapping[str, float] | None = None) -> None:
        self.path = path
        held = json.loads(path.read_text("utf-8")) if path.exists() else {}
        self.taken: dict[str, float] = {**held, **(before or {})}

    def of(self, step: str, work: Callable[[], Any], done: bool = False) -> Any:
        """Do a step; how long one that is `done` already takes says nothing."""
        begun = time.monotonic()
        made = work()
        if step not in self.taken and not done:
            self.taken[step] = round(time.monotonic() - begun, 1)
            write_json(self.path, self.taken)
        return made


def prepare_timed(place: Place) -> Seconds:
    """`prepare`, and how long it took."""
    seconds = Seconds(place.folder / SECONDS)
    seconds.of("prepare", lambda: prepare(place), (place.folder / "prepared").exists())
    return seconds


def exact_folder(place: Place) -> Path:
    """Of the same country with an exact census, as `place_of` lays them out."""
    return place.folder.parents[2] / place.folder.name


def check(place: Place) -> None:
    """See that a prepared folder holds the country that is asked for."""
    path = place.folder / SPEC
    # folders from before there were families are of the first, exact
    held = json.loads(path.read_text("utf-8")) if path.exists() else {"seed": place.seed}
    spec = CountrySpec.from_dict(held)
    for name in ("seed", "family", "census_error"):
        if getattr(spec, name) != getattr(place.spec, name):
            raise ConfigError(
                f"the folder holds another country: its {name} differs",
                where=place.folder,
                expected=str(getattr(place.spec, name)),
                found=str(getattr(spec, name)),
                remedy="give another --folder",
            )


def images(place: Place) -> None:
    """Composites and built-up area from the scenes."""
    grid = place.country.pixel_grid()
    settings = place.country.imagery.rooted(place.folder)
    for sensor in SENSORS:
        folders = {season: place.folder / "seasons" / f"{sensor}_{season}" for season in SEASONS}
        for season, folder in folders.items():
            scratch = place.folder / "scratch" / folder.name
            build_season(
                sensor, season, place.year, grid, settings, folder, scratch, workers=place.threads
            )
        fill_gaps(sensor, folders, grid, settings, place.folder / f"{sensor}_composites")
    map_builtup(
        load_extractor(DEMO_EXTRACTOR),
        place.composites(),
        grid,
        place.builtup,
        tile_px=place.country.mapping.tile_px,
        threads=place.threads,
        device="cpu",
    )


def share(source: Path, target: Path) -> None:
    """The same files under another folder, without copying them."""
    for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
        if path.is_file():
            there = target / path.relative_to(source) if source.is_dir() else target
            there.parent.mkdir(parents=True, exist_ok=True)
            there.unlink(missing_ok=True)
            os.link(path, there)
