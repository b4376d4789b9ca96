"""Where a map is off: by kind of settlement, by density, beside what knowing more would give.

The truth's kinds are in no file: the country is drawn again from its seed, and refused where that
is not the country whose truth is on disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.places import Place
from popcorn_ml import raster
from popcorn_ml.errors import ConfigError
from popcorn_ml.evaluation.baselines import builtup_weight, disaggregated, disaggregation
from popcorn_ml.mapping.aggregate import cell_sums
from popcorn_ml.simulate.country import make_world
from popcorn_ml.simulate.family import family_of
from popcorn_ml.simulate.spec import MARGIN_PX
from popcorn_ml.simulate.training_places import BUILT_SHARE
from popcorn_ml.zones import zone_table

DENSITIES = (0, 1, 10, 30, 100, 300)
"""Lower edges of the classes, in true people per hectare."""

NOTHING = "nothing built"
INNER = (slice(MARGIN_PX, -MARGIN_PX),) * 2


def breakdown(place: Place, out: Path) -> dict[str, Any]:
    """Errors per hectare of the adjusted map in `out` and of built-up disaggregation, by class.

    Returns:
        "kinds" and "densities": class -> "hectares", "people" (true), "off" (people a hectare that
        the map has too many on average), "rmse", "builtup_rmse". A hectare's kind is the one with
        most roofs. "limit": RMSE where every building's kind and footprint were known, over
        built-up disaggregation's. "extractor": precision, recall and F1 of the built-up score at
        0.5 on pixels a fifth built.
    """
    truth = truth_of(place)
    grid = place.country.pixel_grid()
    population = raster.read_float(out / "population.tif", None, 1)
    adjusted = raster.read_float(out / "adjusted" / "population.tif", None, 1)
    score = raster.read_float(place.yardstick, None, 1)
    numbers, counted = raster.read(place.units(place.level), None, 1), place.people(place.level)
    known = np.tensordot(truth.per_m2, truth.roofs, 1)
    weights = (
        builtup_weight(population, score, grid.relative_area(grid.whole())),
        np.where(np.isnan(population), np.nan, known),
    )
    spread = []
    for weight in weights:
        sums = zone_table(numbers, [weight], len(counted))
        spread.append(disaggregated(disaggregation(sums, counted), numbers, weight))
    maps = {"true": truth.people, "adjusted": adjusted, "builtup": spread[0], "known": spread[1]}
    cells = {name: cell_sums(values) for name, values in maps.items()}
    scored = np.isfinite(np.stack(list(cells.values()))).all(0)
    roofs = np.stack([cell_sums(one) for one in truth.roofs])
    kinds = (*family_of(place.family).kinds, NOTHING)
    lead = np.where(roofs.sum(0) > 0, roofs.argmax(0), len(kinds) - 1)
    of = np.digitize(cells["true"], DENSITIES[1:])
    told = [f"{low} to {high}" for low, high in pairwise(DENSITIES)]
    told = ["none", *told[1:], f"{DENSITIES[-1]} and more"]
    return {
        "kinds": {k: _class(cells, scored & (lead == i)) for i, k in enumerate(kinds)},
        "densities": {name: _class(cells, scored & (of == i)) for i, name in enumerate(told)},
        "limit": _rmse(cells, "known", scored) / _rmse(cells, "builtup", scored),
        "extractor": extractor_scores(place, truth.built),
    }


@dataclass(frozen=True)
class Truth:
    """What is true of a place, drawn again from its seed.

    Attributes:
        people: who lives in each pixel.
        roofs: square metres of roof of each kind of settlement (kinds, rows, columns), each
            building's in the pixel that holds its middle, as its people are.
        built: share of each pixel under buildings.
        per_m2: mean people per square metre of roof of each kind.
    """

    people: np.ndarray
    roofs: np.ndarray
    built: np.ndarray
    per_m2: np.ndarray


def truth_of(place: Place) -> Truth:
    """The truth of a place.

    Raises:
        ConfigError: the seed no longer draws the country that is on disk.
    """
    family, world = family_of(place.family), make_world(place.spec)
    people = raster.read_float(place.truth, None, 1)
    if not np.array_equal(family.people(world, place.year)[INNER], people):
        raise ConfigError(
            "the truth on disk is not what this checkout draws from the seed",
            where=place.truth,
            remedy="prepare the seed anew, in another folder",
        )
    table = world.settlements.buildings
    table = table.where(table.built <= place.year + 0.5)
    shape, kinds = world.shape, len(family.kinds)
    area = table.length_m * table.width_m
    flat = (table.kind * shape[0] + table.row.astype(int)) * shape[1] + table.col.astype(int)
    roofs = np.bincount(flat, area, kinds * shape[0] * shape[1]).reshape(kinds, *shape)
    total = np.bincount(table.kind, area, kinds)
    lived = np.bincount(table.kind, table.people, kinds)
    return Truth(
        people,
        roofs[:, INNER[0], INNER[1]],
        family.surface(world, place.year).built[INNER],
        lived / np.maximum(total, 1e-9),
    )


def extractor_scores(place: Place, built: np.ndarray) -> dict[str, float]:
    """How well the built-up score, over all seasons, finds pixels that are a fifth built."""
    said = np.nanmean(raster.read_float(place.builtup), axis=0) >= 0.5
    truly = built >= BUILT_SHARE
    hits, found, there = (int(pixels.sum()) for pixels in (said & truly, said, truly))
    precision, recall = hits / max(found, 1), hits / max(there, 1)
    f1 = 2 * precision * recall / max(precision + recall, 1e-9)
    return {"precision": precision, "recall": recall, "f1": f1}


def _rmse(cells: Mapping[str, np.ndarray], name: str, chosen: np.ndarray) -> float:
    off = (cells[name] - cells["true"])[chosen]
    return float(np.sqrt(np.mean(off**2)))


def _class(cells: Mapping[str, np.ndarray], chosen: np.ndarray) -> dict[str, float]:
    off = (cells["adjusted"] - cells["true"])[chosen]
    if not off.size:
        return {"hectares": 0}
    return {
        "hectares": int(chosen.sum()),
        "people": float(cells["true"][chosen].sum()),
        "off": float(off.mean()),
        "rmse": _rmse(cells, "adjusted", chosen),
        "builtup_rmse": _rmse(cells, "builtup", chosen),
    }


def together(parts: list[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Classes of several places as if they were one: errors by the hectares behind them."""
    found: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        rows = [part[name] for part in parts if name in part and part[name]["hectares"]]
        hectares = sum(row["hectares"] for row in rows)
        if not hectares:
            continue

        def mean(key: str, power: int, rows=rows, hectares=hectares) -> float:
            total = sum(row["hectares"] * row[key] ** power for row in rows) / hectares
            return float(total ** (1 / power))

        found[name] = {
            "hectares": hectares,
            "people": sum(row["people"] for row in rows),
            "off": mean("off", 1),
            "rmse": mean("rmse", 2),
            "builtup_rmse": mean("builtup_rmse", 2),
        }
    return found
