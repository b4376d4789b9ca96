"""What students say of the census units that they never saw, as a map would."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path

import numpy as np

from popcorn_ml import raster
from popcorn_ml.grid import Grid, Window
from popcorn_ml.mapping.engine.students import open_student_engine
from popcorn_ml.mapping.spec import MappingSpec
from popcorn_ml.mapping.tile_people import tile_people
from popcorn_ml.model.stored import Tensors
from popcorn_ml.student.spec import StudentSpec
from popcorn_ml.student.teacher import Lesson
from popcorn_ml.training.out_of_fold import OutOfFold
from popcorn_ml.training.units import Unit

TILE_PX = 512


def predict_unseen(
    spec: StudentSpec, grid: Grid, weights: Tensors, units: Sequence[Unit], workers: Executor
) -> list[float]:
    """People in each of some units, by a student; pixels without a value count as nobody.

    Raises:
        RasterError: a raster is unreadable.
    """
    engine = open_student_engine("torch", spec.device, threads=spec.threads)
    mapping = MappingSpec(
        composites=spec.pairs(),  # type: ignore[arg-type]
        builtup=Path(spec.builtup),
        members=[Path()],
        grid=grid,
        out=Path(),
        trained_pixel_m2=grid.pixel_area_m2,
        kind="student",
        sensors=spec.looks_at,  # type: ignore[arg-type]
    )
    student = engine.bag([weights])

    def people(task: tuple[int, Window]) -> float:
        number, window = task
        own = raster.read(spec.units, window, 1) == number
        if not own.any():
            return 0.0
        with engine.at_work():
            found = tile_people(mapping, student, window).values["population"]
        return float(np.nansum(found[own], dtype=np.float64))

    tasks = [[(unit.number, part) for part in _parts(unit.box)] for unit in units]
    sums = iter(list(workers.map(people, [task for each in tasks for task in each])))
    return [math.fsum(next(sums) for _ in each) for each in tasks]


def _parts(box: Window) -> list[Window]:
    """A unit's box in squares of at most `TILE_PX`."""
    return [
        Window(
            row,
            col,
            min(TILE_PX, box.row + box.height - row),
            min(TILE_PX, box.col + box.width - col),
        )
        for row in range(box.row, box.row + box.height, TILE_PX)
        for col in range(box.col, box.col + box.width, TILE_PX)
    ]


def out_of_fold(
    told: Sequence[tuple[Lesson, Sequence[Unit], Sequence[float]]],
) -> list[OutOfFold]:
    """All units that some student never saw, by number, each with the mean of those students."""
    by_unit: dict[int, dict[str, float]] = {}
    units: dict[int, Unit] = {}
    fold_of: dict[int, int | None] = {}
    for lesson, hidden, predicted in told:
        for unit, people in zip(hidden, predicted, strict=True):
            units[unit.number], fold_of[unit.number] = unit, lesson.fold
            by_unit.setdefault(unit.number, {})[f"fold {lesson.fold}"] = people
    rows = []
    for number, by in sorted(by_unit.items()):
        unit, mean = units[number], sum(by.values()) / len(by)
        rows.append(OutOfFold(unit.id, number, unit.people, mean, len(by), fold_of[number], by))
    return rows
