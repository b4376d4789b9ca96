"""Train a student, and beside it one for each fold, from start to end or from where a killed run of
the same specification stopped.

What evaluation measures against is never read here. The student that maps learns from all members
and all counts; those beside it only say what a student makes of units that it never saw.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from popcorn_ml import raster
from popcorn_ml.compute.devices import one_thread_each, pick_device
from popcorn_ml.errors import WeightsError
from popcorn_ml.files import write_bytes
from popcorn_ml.grid import Grid
from popcorn_ml.mapping.builtup import EXTRACTOR_TAG, extractor_of_score, sensors_of_score
from popcorn_ml.mapping.members import PIXEL_AREA, extractor_tags
from popcorn_ml.mapping.together import inputs_of
from popcorn_ml.model.stored import STUDENT_FILE
from popcorn_ml.model.student import Student, new_student
from popcorn_ml.model.weights import fingerprint, load_extractor, save_student, tensors_of
from popcorn_ml.student.crops import Crops
from popcorn_ml.student.figure import loss_figure
from popcorn_ml.student.loop import Loop, State, Weights, state_of
from popcorn_ml.student.spec import StudentSpec
from popcorn_ml.student.teacher import UNITS_FILE, Lesson, Places, Teacher, lessons_of
from popcorn_ml.student.unseen import out_of_fold, predict_unseen
from popcorn_ml.training.out_of_fold import (
    OUT_OF_FOLD_FILE,
    OutOfFold,
    collected_json,
    log_ratio,
)
from popcorn_ml.training.units import Count, Units, find_units, read_counts, season_bands

HISTORY_FILE = "history.json"
FIGURE_FILE = "loss.png"

Progress = Callable[[int, int, dict[str, Any]], None]
"""Called with steps done and steps, of all trainings together, and the metrics of the part that
has just ended: its lesson, step, loss and learning rate."""


@dataclass(frozen=True)
class StudentResult:
    """What a training gave.

    Attributes:
        folder: holds `student.safetensors`, `card.json`, `history.json`, `units.json`, `loss.png`
            and `out_of_fold.json`.
        weights: of the student that maps are made with.
        history: metrics of every part of every training, those of earlier runs included.
        trained: units that it was trained on.
        held_out: units that a student beside it never saw, all together.
        resumed_after: steps, of all trainings, after which an earlier run was taken up.
        seconds: of this run.
    """

    folder: Path
    weights: Path
    history: list[dict[str, Any]]
    trained: int
    held_out: int
    resumed_after: int
    seconds: float


def train_student(spec: StudentSpec, progress: Progress | None = None) -> StudentResult:
    """Train the student that maps, and one beside it for each fold.

    Args:
        spec: all there is to say about it.
        progress: see `Progress`.

    Raises:
        CensusError, RasterError, GridMismatch, WeightsError, ConfigError: an input that cannot be
            used; nothing is written to the out folder then.
        TrainingError: the loss is no longer a number, or a member does not say what it held out.
    """
    begun = time.monotonic()
    device = pick_device(spec.device)
    tags = _checked(spec)
    grid, units = find_units(spec.units, spec.builtup, spec.counts, spec.seasons, 0.0)
    _on_one_grid(spec, grid)
    lessons = lessons_of(spec, units.trained)
    with raster.bounded_cache(), one_thread_each(device), _workers(spec, device) as workers:
        school = _School(spec, grid, units, lessons, device, workers)
        state = state_of(Path(spec.work), spec)
        resumed_after = len(state.done) * spec.step_count + state.step
        school.teach(state, progress)
        unseen = school.unseen(state)
    weights = _write(spec, grid, units, lessons, state, unseen, tags)
    return StudentResult(
        folder=Path(spec.out),
        weights=weights,
        history=state.history,
        trained=len(units.trained),
        held_out=len(unseen),
        resumed_after=resumed_after,
        seconds=time.monotonic() - begun,
    )


class _School:
    """All lessons of a specification."""

    def __init__(
        self,
        spec: StudentSpec,
        grid: Grid,
        units: Units,
        lessons: Sequence[Lesson],
        device: torch.device,
        workers: ThreadPoolExecutor,
    ) -> None:
        self._spec, self._grid, self._units, self._lessons = spec, grid, units, lessons
        self._device, self._workers = device, workers
        self._counts: list[Count] = read_counts(spec.counts)
        numbered = [*(c.number for c in self._counts), *(left.number for left in units.left_out)]
        self._last = max(numbered)

    def teach(self, state: State, progress: Progress | None) -> None:
        """Every lesson that is not over yet."""
        spec, steps = self._spec, self._spec.step_count
        for number in range(len(state.done), len(self._lessons)):
            lesson = self._lessons[number]
            loop = self._loop(number)
            if state.step:
                loop.resume(state.running)
            while state.step < steps:
                found: dict[str, Any] = {"lesson": lesson.name, **loop.part(state.step)}
                state.step = int(found["step"])
                state.running = loop.state()
                state.history.append(found)
                if state.step == steps:
                    state.done.append(loop.weights)
                    state.step, state.running = 0, {}
                state.write(Path(spec.work))
                if progress is not None:
                    done = len(state.done) * steps + state.step
                    progress(done, len(self._lessons) * steps, found)
                if not state.step:
                    break

    def _loop(self, number: int) -> Loop:
        spec, lesson = self._spec, self._lessons[number]
        bands = season_bands(spec.builtup, spec.seasons)
        teacher = Teacher(spec, self._grid, lesson, self._counts, self._last)
        places = Places(teacher, spec.builtup, bands, self._grid)
        # By the fold and not by the position, so that a student beside others is what it is alone.
        draws = 0 if lesson.fold is None else lesson.fold + 1
        crops = Crops(spec, self._grid, draws, teacher, places, bands)
        model = new_student(
            inputs_of(spec.looks_at),  # type: ignore[arg-type]
            places.people_per_score,
            spec.seed,
        )
        return Loop(spec, crops, model, self._device, self._workers)

    def unseen(self, state: State) -> list[OutOfFold]:
        """What each student beside the first says of the units that it never saw."""
        told = []
        for lesson, weights in zip(self._lessons, state.done, strict=True):
            if lesson.fold is None:
                continue
            hidden = [unit for unit in self._units.trained if unit.number in lesson.hidden]
            arrays = tensors_of(_model(self._spec, weights))
            people = predict_unseen(self._spec, self._grid, arrays, hidden, self._workers)
            told.append((lesson, hidden, people))
        return out_of_fold(told)


def _model(spec: StudentSpec, weights: Weights) -> Student:
    model = Student(inputs_of(spec.looks_at))  # type: ignore[arg-type]
    model.load_state_dict(weights)
    return model.eval()


def _checked(spec: StudentSpec) -> dict[str, str]:
    """Refuse weights and scores that do not belong together; the extractor's tag.

    Raises:
        WeightsError: the score is by another extractor than the one given or than the members',
            or by other sensors than the student is to look at.
    """
    found, score = fingerprint(load_extractor(spec.extractor)), extractor_of_score(spec.builtup)
    if score not in (None, found):
        raise WeightsError(
            "the built-up score is by another extractor than the one given",
            where=spec.extractor,
            expected=f"the extractor of {spec.builtup}, fingerprint {score}",
            found=f"fingerprint {found}",
            remedy="make the built-up score again with this extractor",
        )
    by = sensors_of_score(spec.builtup)
    for season in spec.seasons:
        if by and by.get(season, "both") != spec.sensors:
            raise WeightsError(
                "the built-up score is by other sensors than the student is to look at",
                where=spec.builtup,
                expected=f"{season} by {spec.sensors}",
                found=f"{season} by {by.get(season, 'both')}",
                remedy="make the built-up score with composites of these sensors alone",
            )
    return {EXTRACTOR_TAG: found} | extractor_tags(
        [Path(m) for m in spec.members], Path(spec.builtup)
    )


def _on_one_grid(spec: StudentSpec, grid: Grid) -> None:
    """Refuse rasters that lie elsewhere.

    Raises:
        GridMismatch, RasterError: one does, or is unreadable.
    """
    paths: list[str | Path | None] = [spec.teacher, spec.teacher_builtup]
    for pair in spec.pairs().values():
        paths += pair
    for path in paths:
        if path is not None:
            raster.check(path, grid)


@contextmanager
def _workers(spec: StudentSpec, device: torch.device) -> Iterator[ThreadPoolExecutor]:
    """Threads that crops are worked on in, each with one of torch's own."""
    with ThreadPoolExecutor(
        spec.threads if device.type == "cpu" else 1,
        thread_name_prefix="crop",
        initializer=partial(torch.set_num_threads, 1) if device.type == "cpu" else None,
    ) as workers:
        yield workers


def _write(
    spec: StudentSpec,
    grid: Grid,
    units: Units,
    lessons: Sequence[Lesson],
    state: State,
    unseen: Sequence[OutOfFold],
    tags: dict[str, str],
) -> Path:
    """The student's folder; the card, written last, says that it is whole."""
    out = Path(spec.out)
    ids = {unit.number: unit.id for unit in units.trained}
    write_bytes(out / HISTORY_FILE, _json(state.history))
    write_bytes(out / OUT_OF_FOLD_FILE, collected_json(unseen))
    write_bytes(
        out / UNITS_FILE,
        _json(
            {
                "trained": [unit.id for unit in units.trained],
                "held_out": [],
                "left_out": [asdict(unit) for unit in units.left_out],
                "folds": [
                    {
                        "fold": lesson.fold,
                        "members": list(lesson.bands),
                        "held_out": [ids[number] for number in sorted(lesson.hidden)],
                    }
                    for lesson in lessons[1:]
                ],
            }
        ),
    )
    write_bytes(out / FIGURE_FILE, loss_figure(state.history))
    own = [entry for entry in state.history if entry["lesson"] == lessons[0].name]
    card = {
        "name": "student",
        "seed": spec.seed,
        "sensors": spec.sensors,
        "seasons": list(spec.seasons),
        "steps": spec.step_count,
        "metrics": {**_numbers(own[-1]), **_held_out_metrics(unseen)},
        **tags,
        PIXEL_AREA: grid.pixel_area_m2,
        "teachers": len(spec.members),
        "units": {
            "trained": len(units.trained),
            "held_out": len(unseen),
            "left_out": len(units.left_out),
        },
        "hyperparameters": spec.hyperparameters(),
        "about": spec.about,
    }
    return save_student(_model(spec, state.done[0]), out / STUDENT_FILE, card)


def _numbers(entry: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in entry.items() if isinstance(value, float)}


def _held_out_metrics(unseen: Sequence[OutOfFold]) -> dict[str, float]:
    """Errors on units that a student never saw, as a member's history has them."""
    if not unseen:
        return {}
    people = sum(unit.people for unit in unseen)
    found = {
        "held_out_log_l1": float(
            np.mean([abs(log_ratio(unit.predicted, unit.people)) for unit in unseen])
        ),
        "held_out_mae_people": float(np.mean([abs(u.predicted - u.people) for u in unseen])),
    }
    if people:
        found["held_out_total_ratio"] = math.fsum(unit.predicted for unit in unseen) / people
    return found


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()
