"""Students of a bag on a benchmark's place: trained on what its members say, mapped in one pass."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

from benchmarks.places import Place
from popcorn_assets.assets.builtup import DEMO_EXTRACTOR
from popcorn_ml.errors import ConfigError
from popcorn_ml.mapping.builtup import map_builtup
from popcorn_ml.mapping.predict import MappingSpec, map_population
from popcorn_ml.model.weights import load_extractor

PREFIX = "student."
"""What `--set` says before a setting of the student's training."""


@dataclasses.dataclass(frozen=True)
class StudentOf:
    """A student of the members of a place.

    Attributes:
        place: the place, trained and mapped by its members.
        members: their weights.
        sensors: "both", "s2" or "s1": what the student looks at.
        unseen: whether students are trained as well that say what they make of units unseen. The
            one that maps is the same without them.
    """

    place: Place
    members: list[Path]
    sensors: str
    unseen: bool = True

    @property
    def folder(self) -> Path:
        """Of what is trained and mapped."""
        return self.place.work / f"student_{self.sensors}"

    @property
    def name(self) -> str:
        """In the table."""
        return "student" if self.sensors == "both" else f"student, {self.sensors}"

    @property
    def done(self) -> bool:
        """Whether it has been trained before."""
        return (self.folder / "out" / "card.json").exists()

    def composites(self) -> dict:
        """Season -> composites of the sensors it looks at, None for the other."""
        used = [self.sensors in ("both", sensor) for sensor in ("s1", "s2")]
        return {
            season: tuple(path if use else None for path, use in zip(pair, used, strict=True))
            for season, pair in self.place.composites().items()
        }

    @property
    def builtup(self) -> Path:
        """The built-up score of the same sensors."""
        return self.place.builtup if self.sensors == "both" else self.folder / "builtup_score.tif"

    def train(self) -> Path:
        """Its weights."""
        from popcorn_ml.student.fit import train_student
        from popcorn_ml.student.spec import StudentSpec

        place, teacher = self.place, self.place.work / "map"
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.builtup.exists():
            map_builtup(
                load_extractor(DEMO_EXTRACTOR), self.composites(), place.country.pixel_grid(),
                self.builtup, tile_px=place.country.mapping.tile_px, threads=place.threads,
                device="cpu",
            )  # fmt: skip
        spec = StudentSpec(
            composites={
                season: {"s1": s1 and str(s1), "s2": s2 and str(s2)}
                for season, (s1, s2) in self.composites().items()
            },
            builtup=str(self.builtup),
            units=str(place.units(place.level)),
            counts=str(place.counts(place.level)),
            extractor=str(DEMO_EXTRACTOR),
            members=[str(path) for path in self.teachers()],
            teacher=str(teacher / "population_members.tif"),
            teacher_builtup=str(teacher / "builtup_score.tif"),
            out=str(self.folder / "out"),
            work=str(self.folder / "work"),
            sensors=self.sensors,
            **{"device": "cpu", "threads": place.threads, **settings_of_student(place)},
        )
        return train_student(spec).weights

    def teachers(self) -> list[Path]:
        """The members' weights; without what they held out where units unseen do not matter."""
        if self.unseen:
            return self.members
        alone = []
        for number, weights in enumerate(self.members):
            folder = self.folder / "members" / str(number)
            folder.mkdir(parents=True, exist_ok=True)
            for file in (weights, weights.with_name("card.json")):
                shutil.copyfile(file, folder / file.name)
            alone.append(folder / weights.name)
        return alone

    def map(self, weights: Path) -> Path:
        """Its map; the folder."""
        out, place = self.folder / "map", self.place
        map_population(
            MappingSpec(
                composites=self.composites(),
                builtup=self.builtup,
                members=[weights],
                grid=place.country.pixel_grid(),
                out=out,
                tile_px=place.country.mapping.tile_px,
                device="cpu",
                threads=place.threads,
                kind="student",
            )
        )
        return out


def settings_of_student(place: Place) -> dict[str, Any]:
    """Settings of the student's training that were asked for.

    Raises:
        ConfigError: a name that it does not know.
    """
    from popcorn_ml.student.spec import StudentSpec

    given = {
        name.removeprefix(PREFIX): value
        for name, value in place.overrides.items()
        if name.startswith(PREFIX)
    }
    known = {each.name for each in dataclasses.fields(StudentSpec)}
    for name in given:
        if name not in known:
            raise ConfigError(
                "no such setting of the student's training",
                where="--set",
                expected=", ".join(sorted(known)),
                found=PREFIX + name,
            )
    return given
