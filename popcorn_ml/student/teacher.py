"""What students are taught: the members' people, adjusted to the counts that a student may see.

The student that maps is taught by the mean of all members and all counts. Of the units that some
members held out, another student is to say what it makes of them unseen: it is taught by those
members alone, adjusted to the other units' counts, and nothing is said to it of these units.

Members that were trained on the units of several countries are asked for those of this one: which
of another's they held out is of no consequence.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from popcorn_ml import raster
from popcorn_ml.errors import CensusError, ConfigError, TrainingError
from popcorn_ml.grid import Grid, Window
from popcorn_ml.mapping.dasymetric import Layers, plan_of_map
from popcorn_ml.mapping.placing import Adjustment
from popcorn_ml.student.spec import StudentSpec
from popcorn_ml.training.places import own_ids
from popcorn_ml.training.units import Count, Unit

UNITS_FILE = "units.json"
"""Beside a member's weights: ids of the units that it was trained on, and of those held out."""


@dataclass(frozen=True)
class Lesson:
    """Who teaches one student, and what it is not to know.

    Attributes:
        fold: of the units that it never sees, from 0; None of the student that maps.
        bands: of the teacher's raster, from 1: its members.
        hidden: numbers of the units that it never sees.
    """

    fold: int | None
    bands: tuple[int, ...]
    hidden: frozenset[int] = frozenset()

    @property
    def name(self) -> str:
        """For logs, histories and figures."""
        return "all units" if self.fold is None else f"without fold {self.fold}"


def lessons_of(spec: StudentSpec, units: Sequence[Unit]) -> list[Lesson]:
    """The lesson of the student that maps, and one for each group of units held out together.

    A member without `units.json`, as a published one, may have seen any unit: it takes part in the
    mean of all, and teaches no other student. So does one that held out none of this country's.

    Args:
        units: those that can be trained on.

    Raises:
        ConfigError: the teacher's raster has another number of bands than there are members.
        TrainingError: a member's `units.json` cannot be read.
    """
    with raster.opened(spec.teacher) as dataset:
        bands = dataset.count
    if bands != len(spec.members):
        raise ConfigError(
            "the teacher's map is not by these members",
            where=spec.teacher,
            expected=f"a band a member: {len(spec.members)}",
            found=f"{bands} bands",
            remedy="give population_members.tif of the map that these members made",
        )
    held_out = [_held_out(Path(member), spec.place) for member in spec.members]
    numbers = {unit.id: unit.number for unit in units}
    lessons = [Lesson(None, tuple(range(1, bands + 1)))]
    for ids in dict.fromkeys(held_out):
        hidden = frozenset(numbers[one] for one in ids if one in numbers)
        if 0 < len(hidden) < len(numbers):
            by = tuple(band for band, own in enumerate(held_out, start=1) if ids <= own)
            lessons.append(Lesson(len(lessons) - 1, by, hidden))
    return lessons


def _held_out(member: Path, place: str) -> frozenset[str]:
    """Ids of the units of this country that a member held out, as the census has them."""
    path = (member if member.is_dir() else member.parent) / UNITS_FILE
    if not path.exists():
        return frozenset()
    try:
        ids = json.loads(path.read_text("utf-8"))["held_out"]
        return frozenset(own_ids(ids, place) if place else ids)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(
            "it cannot be read which units a member held out",
            where=path,
            expected="trained and held_out, as a training writes them",
            found=repr(error),
            remedy="train this member again",
        ) from error


class Teacher:
    """People per pixel as one lesson has them; any thread may ask.

    Args:
        spec: where the rasters are.
        grid: on which they lie.
        lesson: which members, and which units are not told of.
        counts: of the census; those of hidden units are not looked at.
        last: the largest unit number in the raster or the counts.

    Raises:
        GridMismatch, RasterError: a raster lies elsewhere or is unreadable.
    """

    def __init__(
        self, spec: StudentSpec, grid: Grid, lesson: Lesson, counts: Sequence[Count], last: int
    ) -> None:
        self._layers = Layers(
            population=Path(spec.teacher),
            members=None,
            builtup=Path(spec.teacher_builtup),
            units=Path(spec.units),
            grid=grid,
            bands=lesson.bands,
        )
        self._layers.check()
        people = np.full(last, np.nan)
        for count in counts:
            if count.number not in lesson.hidden:
                people[count.number - 1] = count.people
        self.adjustment: Adjustment = plan_of_map(self._layers, people, threads=spec.threads)
        self._silent = np.isin(np.arange(last + 1), sorted(lesson.hidden))

    def people(self, window: Window) -> np.ndarray:
        """float32 (rows, columns), NaN outside all units, in hidden ones and where the members
        have no value."""
        found = self._layers.adjusted(self.adjustment, window)[0].astype(np.float32)
        found[self._silent[raster.read(self._layers.units, window, 1)]] = np.nan
        return found


CELL_PX = 32
"""Side of the squares that crops are drawn by."""

SCORE_SEEN = 0.02
"""Mean built-up score above which a pixel is worth a crop around it."""


class Places:
    """Where crops are taken: around pixels that are built up, more often the more people they hold.

    Args:
        teacher: of whose people the square root counts.
        builtup: built-up score, a band a season.
        bands: of it.
        grid: of both.

    Raises:
        CensusError: the teacher sees nobody anywhere.

    Attributes:
        people, score: their sums over all pixels that have both.
        mean_people: of the squares' pixels drawn from, as often as they are.
    """

    def __init__(
        self, teacher: Teacher, builtup: str | Path, bands: Sequence[int], grid: Grid
    ) -> None:
        self.people = self.score = 0.0
        rows, cols = (math.ceil(side / CELL_PX) for side in grid.shape)
        weights = np.zeros((rows, cols))
        for tile in grid.tiles(CELL_PX * 16):
            core = tile.core
            people = teacher.people(core)
            scores = raster.read_float(builtup, core, bands)
            seen = ~np.isnan(scores)
            score = np.where(seen, scores, 0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
            known = ~np.isnan(people) & seen.any(axis=0)
            worth = np.where(known & (score > SCORE_SEEN), np.sqrt(np.nan_to_num(people)), 0.0)
            self.people += float(people[known].sum(dtype=np.float64))
            area = np.broadcast_to(grid.relative_area(core), score.shape)
            self.score += float((score * area)[known].sum())
            row, col = core.row // CELL_PX, core.col // CELL_PX
            found = _summed(worth)
            weights[row : row + found.shape[0], col : col + found.shape[1]] = found
        if not weights.any() or self.people <= 0:
            raise CensusError(
                "the teacher sees nobody where there is any built-up area",
                where=builtup,
                found=f"{self.people:.0f} people, {self.score:.0f} pixels of built-up score",
                remedy="look at the ensemble's map, and at whether units and counts belong to it",
            )
        self._cols = cols
        self._upto = np.cumsum(weights) / weights.sum()

    @property
    def people_per_score(self) -> float:
        """Where occupancies begin: people per fully built-up pixel of mean area."""
        return self.people / self.score

    def draw(self, chance: np.random.Generator) -> tuple[int, int]:
        """A pixel, row and column; it may lie just beyond the raster's last."""
        cell = int(np.searchsorted(self._upto, chance.random(), side="right"))
        row, col = divmod(min(cell, len(self._upto) - 1), self._cols)
        down, across = chance.integers(CELL_PX, size=2).tolist()
        return row * CELL_PX + down, col * CELL_PX + across


def _summed(values: np.ndarray) -> np.ndarray:
    """Sums of squares of `CELL_PX`, those at the end smaller."""
    rows, cols = (np.arange(0, side, CELL_PX) for side in values.shape)
    return np.add.reduceat(np.add.reduceat(values, rows, axis=0), cols, axis=1)
