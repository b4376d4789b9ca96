"""What a tile's pixels get by a student: all seasons together, in one pass of its network.

The counterpart of an ensemble's seasons in `tile_people`, which puts what is found into the map:
the same rasters, the same pixels left out, the same rule for pixels of another area.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from popcorn_ml.errors import ConfigError, WeightsError
from popcorn_ml.grid import Window
from popcorn_ml.inputs import read_stored
from popcorn_ml.mapping.builtup import sensors_of_score
from popcorn_ml.mapping.spec import Composites, MappingSpec, in_season_order
from popcorn_ml.mapping.together import SeasonsTogether, sensors_of
from popcorn_ml.model.stored import read_student
from popcorn_ml.sentinel import Season, Sensor


def read_together(
    composites: Mapping[Season, Composites],
    scores: np.ndarray,
    source: Window,
    sensors: Sequence[Sensor],
) -> SeasonsTogether:
    """All seasons of a window.

    Args:
        composites: by season, in the order of `scores`.
        scores: built-up score of the window, (seasons, rows, columns), NaN where there is none.
        source: the window.
        sensors: whose composites to read; others are not even opened.

    Raises:
        RasterError: a raster is unreadable.
    """
    seen = SeasonsTogether((source.height, source.width), sensors)
    for pair, score in zip(composites.values(), scores, strict=True):
        if not np.isnan(score).all():
            seen.add(read_stored(*used(pair, sensors), source), score)
    return seen


def used(pair: Composites, sensors: Sequence[Sensor]) -> Composites:
    """The composites of some sensors."""
    s1, s2 = pair
    return s1 if "s1" in sensors else None, s2 if "s2" in sensors else None


def student_sensors(path: str | Path) -> tuple[Sensor, ...]:
    """The sensors that a student looks at.

    Raises:
        WeightsError: there is no such student.
    """
    inputs = read_student(path)["enter.convs.0.weight"].shape[1]
    found = sensors_of(inputs)
    if not found:
        raise WeightsError(
            "the student looks at something else than Sentinel-1 and Sentinel-2",
            where=path,
            expected="inputs of both sensors, or of one",
            found=f"{inputs} inputs",
            remedy="train the student again",
        )
    return found


def check_student(spec: MappingSpec) -> None:
    """Refuse what a student cannot map, before any work.

    Raises:
        ConfigError: not one student; a season without what it looks at, or a built-up score that
            was made with other sensors.
        WeightsError: the student is missing, altered or of another architecture.
    """
    if len(spec.members) != 1:
        _refuse("members", "the weights of one student", f"{len(spec.members)} files")
    sensors = student_sensors(spec.members[0])
    seasons = in_season_order(spec.composites)
    for season, pair in seasons.items():
        there = dict(zip(("s1", "s2"), pair, strict=True))
        missing = [sensor for sensor in sensors if there[sensor] is None]
        if missing:
            _refuse(f"composites of {season}", " and ".join(sensors), f"no {missing[0]}")
    wanted = "both" if len(sensors) == 2 else sensors[0]
    by = sensors_of_score(spec.builtup)
    for season in seasons:
        if (found := by.get(season, "both")) != wanted:
            _refuse(
                str(spec.builtup),
                f"a score by the sensors that the student looks at: {wanted}",
                f"{season} by {found}",
                "make the built-up score with composites of these sensors alone",
            )


def _refuse(where: str, expected: Any, found: Any, remedy: str | None = None) -> None:
    raise ConfigError(
        "the student cannot make this map",
        where=where,
        expected=expected,
        found=found,
        remedy=remedy,
    )
