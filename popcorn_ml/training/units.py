"""Which census units a member is trained on, where they lie, and which are held out.

Every unit of the census ends up in one of three lists: trained on, held out, or left out with the
reason. Their pixels are found in one pass over the rasters, without loading the country.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from popcorn_ml import raster
from popcorn_ml.errors import CensusError, RasterError
from popcorn_ml.grid import Grid, Window
from popcorn_ml.training.folds import Fold, Placed, folds_of

STRIP_PX = 4_000_000
"""Pixels looked at in one go while surveying."""

LARGEST_NUMBER = 2**32 - 1
ENOUGH_OBSERVED = 0.9
"""Share of a unit's pixels that a season must show for the unit to be trained on in it."""
LEAST_OBSERVED = 0.5
"""Share of a unit's pixels that its fullest season must show; else the unit is left out."""


@dataclass(frozen=True)
class Count:
    """A row of the census: unit number in the raster, id (text, as in the source), people."""

    number: int
    id: str
    name: str
    people: float


@dataclass(frozen=True)
class LeftOut:
    """A unit that is not trained on, and why. `id` is empty where the census has no such unit."""

    number: int
    id: str
    reason: str


@dataclass(frozen=True)
class Unit:
    """A census unit with pixels.

    Attributes:
        number, id, people: as in the census.
        box: bounding box of its pixels.
        pixels: how many it has.
        observed: of them, how many have a built-up score, a season.
        score_sum: their built-up score summed, a season, in pixels of the grid's mean area.
        seasons: indices of the seasons that may be drawn for it.
        place: which of the training's countries it is of; see `training.places`.
    """

    number: int
    id: str
    people: float
    box: Window
    pixels: int
    observed: tuple[int, ...]
    score_sum: tuple[float, ...]
    seasons: tuple[int, ...]
    place: int = 0

    @property
    def key(self) -> int:
        """Its number, made unlike that of any other country's unit."""
        return self.place * (LARGEST_NUMBER + 1) + self.number


@dataclass(frozen=True)
class Units:
    """All units, each in one list."""

    trained: tuple[Unit, ...]
    held_out: tuple[Unit, ...]
    left_out: tuple[LeftOut, ...]


def read_counts(path: str | Path) -> list[Count]:
    """Read the census counts.

    Raises:
        CensusError: unreadable, a field missing, an id that is not text, a number that does not
            fit 32 bits, people that are no number or negative, a number or an id given twice.
    """
    try:
        rows = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CensusError("the counts cannot be read", where=path, found=str(error)) from error
    if not isinstance(rows, list):
        raise CensusError("the counts are not a JSON list", where=path, found=type(rows).__name__)
    counts = [_count(row, f"{path}, entry {i}") for i, row in enumerate(rows)]
    for field in ("number", "id"):
        seen: set[object] = set()
        for count in counts:
            value = getattr(count, field)
            if value in seen:
                raise CensusError(
                    f"a unit's {field} is given twice",
                    where=path,
                    expected="every unit once",
                    found=repr(value),
                    remedy="merge or remove the duplicate in the census",
                )
            seen.add(value)
    return counts


def _count(row: object, where: str) -> Count:
    if not isinstance(row, dict) or not {"number", "id", "people"} <= row.keys():
        raise CensusError(
            "a census count lacks a field",
            where=where,
            expected="number, id, people",
            found=sorted(row) if isinstance(row, dict) else row,
        )
    number, key, people = row["number"], row["id"], row["people"]
    if isinstance(number, bool) or not isinstance(number, int) or not 0 < number <= LARGEST_NUMBER:
        raise CensusError(
            "a unit's number cannot be used",
            where=where,
            expected=f"a whole number from 1 to {LARGEST_NUMBER}",
            found=number,
        )
    if not isinstance(key, str):
        raise CensusError(
            "a unit's id is not text",
            where=where,
            expected="text, so that leading zeros and long ids survive",
            found=key,
        )
    is_number = isinstance(people, int | float) and not isinstance(people, bool)
    if not is_number or not math.isfinite(people) or people < 0:
        raise CensusError(
            "a unit's people cannot be used", where=where, expected="0 or more", found=people
        )
    return Count(number, key, str(row.get("name") or ""), float(people))


@dataclass
class _Found:
    top: int
    left: int
    bottom: int
    right: int
    pixels: int
    observed: np.ndarray
    score_sum: np.ndarray


def survey(
    units: str | Path, builtup: str | Path, seasons: Sequence[str]
) -> tuple[Grid, dict[int, _Found]]:
    """Find every unit's bounding box, pixels and built-up score in one pass over two rasters.

    Args:
        units: unit numbers, 0 = none.
        builtup: bands of built-up score.
        seasons: names of the bands wanted.

    Returns:
        The grid, and what was found by unit number.

    Raises:
        RasterError: unreadable, unit numbers that are no unsigned integers, a season's band
            missing.
        GridMismatch: the two rasters differ.
    """
    with raster.opened(units) as dataset:
        kind = np.dtype(dataset.dtypes[0])
        if kind.kind != "u":
            raise RasterError(
                "the unit raster does not hold unsigned integers",
                where=units,
                expected="uint32: floats run together above 16,777,216",
                found=str(kind),
                remedy="materialise the census units again",
            )
        blank = dataset.nodatavals[0]
    grid = raster.grid_of(units)
    raster.check(builtup, grid)
    bands = season_bands(builtup, seasons)
    found: dict[int, _Found] = {}
    rows = max(STRIP_PX // grid.width // 256 * 256, 256)
    for row in range(0, grid.height, rows):
        window = Window(row, 0, min(rows, grid.height - row), grid.width)
        numbers = raster.read(units, window, bands=1)
        if blank is not None and blank != 0:
            numbers = np.where(numbers == blank, 0, numbers)
        if numbers.any():
            scores = raster.read_float(builtup, window, bands=bands)
            scores *= grid.relative_area(window).astype(np.float32)
            _survey_strip(numbers, scores, row, found)
    return grid, found


def _survey_strip(
    numbers: np.ndarray, scores: np.ndarray, first_row: int, found: dict[int, _Found]
) -> None:
    """Add one strip. Works on runs of equal numbers along rows: few, as units are contiguous.

    Args:
        scores: (seasons, rows, columns), in pixels of the grid's mean area.
    """
    height, width = numbers.shape
    begins = np.ones((height, width), bool)
    begins[:, 1:] = numbers[:, 1:] != numbers[:, :-1]
    start = np.flatnonzero(begins)
    length = np.diff(np.append(start, height * width))
    number = numbers.reshape(-1)[start]
    values, run_unit = np.unique(number, return_inverse=True)
    order = np.argsort(run_unit, kind="stable")
    firsts = np.searchsorted(run_unit[order], np.arange(len(values)))
    row, col = (start // width)[order], (start % width)[order]
    last_col = col + length[order]
    top, bottom = np.minimum.reduceat(row, firsts), np.maximum.reduceat(row, firsts) + 1
    left, right = np.minimum.reduceat(col, firsts), np.maximum.reduceat(last_col, firsts)
    pixels = np.add.reduceat(length[order], firsts)

    unit_of_pixel = np.repeat(run_unit, length)
    seen = np.isfinite(scores).reshape(len(scores), -1)
    flat = np.where(seen, scores.reshape(len(scores), -1), 0)
    observed = np.stack(
        [np.bincount(unit_of_pixel, weights=s, minlength=len(values)) for s in seen]
    )
    sums = np.stack([np.bincount(unit_of_pixel, weights=f, minlength=len(values)) for f in flat])
    for i, value in enumerate(values.tolist()):
        if value == 0:
            continue
        one = _Found(
            int(top[i]) + first_row,
            int(left[i]),
            int(bottom[i]) + first_row,
            int(right[i]),
            int(pixels[i]),
            observed[:, i].astype(np.int64),
            sums[:, i],
        )
        old = found.get(value)
        if old is not None:
            one.top, one.left = min(one.top, old.top), min(one.left, old.left)
            one.bottom, one.right = max(one.bottom, old.bottom), max(one.right, old.right)
            one.pixels += old.pixels
            one.observed = one.observed + old.observed
            one.score_sum = one.score_sum + old.score_sum
        found[value] = one


def season_bands(path: str | Path, seasons: Sequence[str]) -> list[int]:
    """Which 1-based band of a raster is named after each season.

    Raises:
        RasterError: a season has none.
    """
    with raster.opened(path) as dataset:
        names = list(dataset.descriptions)
    missing = [season for season in seasons if season not in names]
    if missing:
        raise RasterError(
            "a season is not among the bands",
            where=path,
            expected=", ".join(seasons),
            found=", ".join(str(name) for name in names),
            remedy="materialise the built-up area again",
        )
    return [names.index(season) + 1 for season in seasons]


def sort_units(
    counts: Sequence[Count],
    found: dict[int, _Found],
    held_out_share: float,
    fold: Fold | None = None,
) -> Units:
    """Put every unit in its list.

    Args:
        held_out_share: of the units, the same ones in every member; of no consequence with a fold.
        fold: what this member holds out, and others do not.

    Raises:
        CensusError: nothing is left to train on.
    """
    left_out: list[LeftOut] = []
    usable: list[Unit] = []
    for count in sorted(counts, key=lambda count: count.number):
        there = found.get(count.number)
        if there is None:
            left_out.append(LeftOut(count.number, count.id, "it has no pixel in the raster"))
            continue
        if not there.observed.any():
            left_out.append(LeftOut(count.number, count.id, "none of its pixels was observed"))
            continue
        if there.observed.max() < LEAST_OBSERVED * there.pixels:
            # All its people would be put into the sliver that was seen.
            left_out.append(
                LeftOut(
                    count.number,
                    count.id,
                    f"its fullest season shows {there.observed.max()} of its {there.pixels} "
                    f"pixels, less than {LEAST_OBSERVED:.0%}",
                )
            )
            continue
        usable.append(_unit(count, there))
    numbered = {count.number for count in counts}
    left_out += [
        LeftOut(number, "", "the census has no count for it")
        for number in sorted(found.keys() - numbered)
    ]
    # Drawn from all, so that the others stay where they are when clouds hide one of them, and
    # the held-out losses of two trainings still compare.
    there_are = [count for count in counts if count.number in found]
    held = _held_out(there_are, found, usable, held_out_share, fold)
    trained = tuple(unit for unit in usable if unit.id not in held)
    if not trained:
        raise CensusError(
            "there is no census unit to train on",
            expected="units with pixels, observations and a count",
            found=f"{len(counts)} counts, {len(found)} units in the raster, "
            f"{len(usable)} with both and enough observations",
            remedy="see whether units and counts belong to the same census, and whether the "
            "composites show them",
        )
    return Units(trained, tuple(unit for unit in usable if unit.id in held), tuple(left_out))


def _held_out(
    counts: Sequence[Count],
    found: dict[int, _Found],
    usable: Sequence[Unit],
    share: float,
    fold: Fold | None,
) -> set[str]:
    """Ids of the units that are not trained on, chosen from the usable where all would be one."""
    ids = {unit.id for unit in usable}
    if fold is None:
        held = held_out_ids([count.id for count in counts], share)
        if not 0 < len(held & ids) < len(ids):  # one side has nothing left
            held = held_out_ids([unit.id for unit in usable], share)
        return held
    folds = unit_folds(counts, found, fold.count)
    if len({folds.get(unit.number) for unit in usable}) < 2:  # of all members alike, so for all
        folds = unit_folds([count for count in counts if count.id in ids], found, fold.count)
    return {count.id for count in counts if folds.get(count.number) == fold.index}


def unit_folds(counts: Sequence[Count], found: dict[int, _Found], folds: int) -> dict[int, int]:
    """The fold of every unit with a count and pixels, by its number; see `folds.folds_of`."""
    placed = []
    for count in counts:
        if (there := found.get(count.number)) is not None:
            row, col = (there.top + there.bottom) / 2, (there.left + there.right) / 2
            placed.append(Placed(count.number, row, col, count.people))
    return folds_of(placed, folds)


def _unit(count: Count, there: _Found) -> Unit:
    enough = np.flatnonzero(there.observed >= ENOUGH_OBSERVED * there.pixels)
    if not len(enough):
        # Count against the season that shows most of it: a half-seen unit would teach the model
        # to put all its people into the half that was seen.
        enough = np.array([int(np.argmax(there.observed))])
    return Unit(
        number=count.number,
        id=count.id,
        people=count.people,
        box=Window(there.top, there.left, there.bottom - there.top, there.right - there.left),
        pixels=there.pixels,
        observed=tuple(int(n) for n in there.observed),
        score_sum=tuple(float(s) for s in there.score_sum),
        seasons=tuple(int(i) for i in enough),
    )


def held_out_ids(ids: Sequence[str], share: float) -> set[str]:
    """Which units are never trained on.

    By a hash of the id alone, so that all members of an ensemble, whatever their seeds, hold out
    the same units, and a unit stays held out when others are added. Of n units round(share x n)
    are held out, at least one where share > 0 and n > 1, and never all.
    """
    if share <= 0 or len(ids) < 2:
        return set()
    wanted = min(max(round(share * len(ids)), 1), len(ids) - 1)
    return set(sorted(ids, key=lambda i: hashlib.sha256(i.encode()).digest())[:wanted])


def initial_bias(units: Sequence[Unit]) -> float:
    """People per fully built-up pixel of mean area over all units: where the occupancy starts.

    The sum of counts divided by the sum of built-up scores (mean of a unit's seasons).
    """
    people = sum(unit.people for unit in units)
    score = sum(float(np.mean([unit.score_sum[s] for s in unit.seasons])) for unit in units)
    if score <= 0:
        raise CensusError(
            "no census unit has any built-up score, so there is nothing to learn people from",
            found=f"{len(units)} units, {people:.0f} people",
            remedy="look at the built-up area: composites or extractor may not fit this country",
        )
    return people / score


def find_units(
    units: str | Path,
    builtup: str | Path,
    counts: str | Path,
    seasons: Sequence[str],
    held_out_share: float,
    fold: Fold | None = None,
) -> tuple[Grid, Units]:
    """Read, survey and sort; see the functions above for what is raised."""
    table = read_counts(counts)
    grid, found = survey(units, builtup, seasons)
    try:
        return grid, sort_units(table, found, held_out_share, fold)
    except CensusError as error:
        raise CensusError(
            error.what,
            where=f"{counts} with {units}",
            expected=error.expected,
            found=error.found,
            remedy=error.remedy,
        ) from None
