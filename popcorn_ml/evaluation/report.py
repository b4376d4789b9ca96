"""Compare maps, baselines and others' products with known people, per hectare and census unit.

A hectare here is a cell of 10 x 10 pixels, whatever its area: that is told beside every figure.
All approaches are scored on the same cells: a hectare counts where every approach has a value on
each of its pixels whose true people are known; a unit where they have one on nearly all of its
pixels. Everything else is counted as left out. Units without a count are not scored. Rasters are
read block by block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from popcorn_ml.evaluation.baselines import (
    builtup_weight,
    disaggregated,
    disaggregation,
    uniform_weight,
)
from popcorn_ml.evaluation.metrics import Scores
from popcorn_ml.grid import Grid, Window
from popcorn_ml.mapping.aggregate import cell_sums
from popcorn_ml.zones import BLOCK_PX, ZoneSums, blockwise_zone_sums, zone_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

APPROACHES = ("uniform", "builtup", "map", "adjusted")

TITLES = {
    "uniform": "uniform disaggregation",
    "builtup": "built-up disaggregation",
    "map": "map",
    "adjusted": "adjusted map",
}

MADE_TO_AGREE = ("uniform", "builtup", "adjusted")
"""Approaches whose sums are the coarse units' counts, so that scores on these say nothing."""

MIN_UNIT_SHARE = 0.95
"""Share of a unit's pixels that must have a value for the unit to be scored: below it, the sum of
what is there says more about the gaps than about the map."""

BINS = np.linspace(0.0, 4.0, 81)
"""Edges of the scatter figure's cells: log10(1 + people per hectare, or cell)."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        metrics: approach or product -> "hectare" (absent without a true raster) and "unit" (of
            coarse units for the map and others' products only: the rest agree with them by
            construction) -> `Scores.as_dict`.
        unit_level: which units "unit" means, "fine" or "coarse".
        totals: people in the whole of each approach's map, and "true" where known. A grid holds
            more than the country: the map has people outside all units, the others have none.
        totals_in_units: people in the coarse units of each approach's map, and "true".
        cell_name: what a cell of "hectare" is, with its area if that is no hectare.
        cell_area_ha: smallest and largest true area of such cells.
        histograms: approach -> counts of hectares by true (rows) and predicted (columns) people,
            cells as in `BINS`; empty without a true raster.
    """

    metrics: dict[str, dict[str, dict[str, float | int | None]]]
    unit_level: str
    totals: dict[str, float]
    totals_in_units: dict[str, float]
    cell_name: str
    cell_area_ha: tuple[float, float]
    histograms: dict[str, np.ndarray]

    def as_dict(self) -> dict[str, object]:
        """Everything but the histograms."""
        return {
            "metrics": self.metrics,
            "unit_level": self.unit_level,
            "totals": self.totals,
            "totals_in_units": self.totals_in_units,
            "cell": {
                "name": self.cell_name,
                "smallest_ha": self.cell_area_ha[0],
                "largest_ha": self.cell_area_ha[1],
            },
        }


def evaluate(
    *,
    grid: Grid,
    population: Path,
    adjusted: Path,
    builtup: Path,
    units: Path,
    people: np.ndarray | Sequence[float],
    truth: Path | None = None,
    fine_units: Path | None = None,
    fine_people: np.ndarray | Sequence[float] | None = None,
    others: Mapping[str, Path] | None = None,
    threads: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score the map, the adjusted map, two baselines and products of others.

    Args:
        grid: on which every raster lies.
        population, adjusted, builtup: people per pixel of the map and of the adjusted map, and the
            built-up score.
        units, people: the coarse units (uint32 numbers 0..n) and their counts, which the adjusted
            map and the baselines are made to agree with; NaN for a unit without a count of its
            own, of which the baselines know nothing.
        truth: true people per pixel (float32, NaN where unknown); None where there is none.
        fine_units, fine_people: units of a finer level with their counts (NaN as above), used for
            nothing but this; without them the coarse units are scored, and of the map and the
            products of others only.
        others: name -> people per pixel of others' products (`compare.bring`), scored where all
            our approaches are; one without a value there is unpredicted, ours are scored.
        threads: of the first pass.
        progress: called with (blocks done, blocks), both passes together.

    Raises:
        GridMismatch, RasterError: a raster lies elsewhere or is unreadable.
        CensusError: counts infinite, negative or not one a unit.
    """
    from popcorn_ml import raster
    from popcorn_ml.raster import bounded_cache

    scored_units, scored_people = units, np.asarray(people, np.float64)
    if fine_units is not None:
        if fine_people is None:
            raise ValueError("fine_units without fine_people")
        scored_units, scored_people = fine_units, np.asarray(fine_people, np.float64)
    maps = {"map": population, "adjusted": adjusted, **(others or {})}
    for path in (builtup, units, scored_units, *maps.values(), *([truth] if truth else [])):
        raster.check(path, grid)
    windows = [tile.core for tile in grid.tiles(BLOCK_PX)]

    def report(done: int) -> None:
        if progress is not None:
            progress(done, 2 * len(windows))

    def weights(window: Window) -> tuple[np.ndarray, np.ndarray]:
        values, area = raster.read_float(population, window, 1), grid.relative_area(window)
        score = raster.read_float(builtup, window, 1)
        return uniform_weight(values, area), builtup_weight(values, score, area)

    with bounded_cache():
        sums = blockwise_zone_sums(
            lambda window: (raster.read(units, window, 1), weights(window)),
            windows, 2, len(people), threads=threads, progress=lambda done, _: report(done),
        )  # fmt: skip
        plans = [
            disaggregation(ZoneSums(sums.pixels, sums.sums[k, None], sums.missing[k, None]), people)
            for k in range(2)
        ]
        tally = _Tally(len(scored_people), grid, (*APPROACHES[:2], *maps))
        for done, window in enumerate(windows, start=len(windows) + 1):
            numbers = raster.read(units, window, 1)
            pairs = zip(plans, weights(window), strict=True)
            values = [disaggregated(plan, numbers, weight) for plan, weight in pairs]
            values += [raster.read_float(path, window, 1) for path in maps.values()]
            scored = numbers if fine_units is None else raster.read(scored_units, window, 1)
            known = None if truth is None else raster.read_float(truth, window, 1)
            tally.add(scored, dict(zip(tally.names, values, strict=True)), known, numbers > 0)
            report(done)
    return tally.result(scored_people, "coarse" if fine_units is None else "fine")


class _Tally:
    """What the blocks add up to."""

    def __init__(self, units: int, grid: Grid, names: Sequence[str]) -> None:
        self.units, self.grid, self.names = units, grid, names
        self.zones = ZoneSums.none(len(names), units)
        self.hectares = {name: Scores() for name in names}
        bins = len(BINS) - 1
        self.histograms = {name: np.zeros((bins, bins), np.int64) for name in names}
        self.totals = dict.fromkeys(names, 0.0)
        self.inside = dict.fromkeys(names, 0.0)
        self.has_truth = False

    def add(
        self,
        units: np.ndarray,
        maps: Mapping[str, np.ndarray],
        truth: np.ndarray | None,
        inside: np.ndarray,
    ) -> None:
        holes = np.isnan(np.stack([maps[name] for name in APPROACHES])).any(axis=0)
        self.zones += zone_table(
            units, [np.where(holes, np.nan, values) for values in maps.values()], self.units
        )
        for name, values in (maps if truth is None else {**maps, "true": truth}).items():
            for sums, chosen in ((self.totals, values), (self.inside, values[inside])):
                sums[name] = sums.get(name, 0.0) + float(np.nansum(chosen, dtype=np.float64))
        if truth is None:
            return
        self.has_truth = True
        known = ~np.isnan(truth)
        true_cells = cell_sums(truth)
        for name, values in maps.items():
            cells = cell_sums(np.where(known, values, np.nan))
            missing = known & (holes | np.isnan(values))
            cells[cell_sums(missing.astype(np.float32)) > 0] = np.nan
            self.hectares[name] += Scores.of(true_cells, cells)
            both = ~np.isnan(true_cells) & ~np.isnan(cells)
            counts, _, _ = np.histogram2d(
                _bin_values(true_cells[both]), _bin_values(cells[both]), bins=[BINS, BINS]
            )
            self.histograms[name] += counts.astype(np.int64)

    def result(self, people: np.ndarray, level: str) -> Evaluation:
        shares = self.zones.valid[:, 1:] / np.maximum(self.zones.pixels[1:], 1)
        metrics: dict[str, dict[str, dict[str, float | int | None]]] = {}
        for k, name in enumerate(self.names):
            predicted = np.where(shares[k] >= MIN_UNIT_SHARE, self.zones.sums[k, 1:], np.nan)
            metrics[name] = {}
            if level == "fine" or name not in MADE_TO_AGREE:
                metrics[name]["unit"] = Scores.of(people, predicted).as_dict()
            if self.has_truth:
                metrics[name]["hectare"] = self.hectares[name].as_dict()
        histograms = self.histograms if self.has_truth else {}
        return Evaluation(
            metrics=metrics,
            unit_level=level,
            totals=self.totals,
            totals_in_units=self.inside,
            cell_name=self.grid.cell_title,
            cell_area_ha=self.grid.cell_area_ha,
            histograms=histograms,
        )


def _bin_values(people: np.ndarray) -> np.ndarray:
    return np.clip(np.log10(1.0 + np.maximum(people, 0.0)), BINS[0], BINS[-1])


def scatter_png(evaluation: Evaluation) -> bytes:
    """True against predicted people per cell of 10 x 10 pixels, a panel an approach, as a PNG.

    Raises:
        ValueError: the evaluation had no true raster.
    """
    from popcorn_ml.mapping.pictures import figure_png

    return figure_png(scatter(evaluation))


def scatter(evaluation: Evaluation) -> Figure:
    """What `scatter_png` shows."""
    if not evaluation.histograms:
        raise ValueError("there is no true raster to compare hectares with")
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    rows = -(-len(evaluation.histograms) // 2)
    figure = Figure(figsize=(8.4, 4.0 * rows), dpi=100, layout="constrained")
    axes = figure.subplots(rows, 2, sharex=True, sharey=True)
    for axis in axes.flat[len(evaluation.histograms) :]:
        axis.set_visible(False)
    top = max(int(histogram.max()) for histogram in evaluation.histograms.values())
    used = max(
        int(np.flatnonzero(histogram.sum(axis=0) + histogram.sum(axis=1)).max(initial=0))
        for histogram in evaluation.histograms.values()
    )
    limit = float(BINS[min(used + 2, len(BINS) - 1)])
    ticks = [tick for tick in (0, 1, 10, 100, 1000) if np.log10(1 + tick) <= limit]
    places = np.log10(1.0 + np.array(ticks, dtype=float))
    mesh = None
    for axis, (name, histogram) in zip(axes.flat, evaluation.histograms.items(), strict=False):
        mesh = axis.pcolormesh(
            BINS,
            BINS,
            np.ma.masked_equal(histogram.T, 0),
            norm=LogNorm(1, max(top, 2)),
            cmap="viridis_r",
        )
        axis.plot([0, limit], [0, limit], color="0.4", linewidth=1)
        figures = evaluation.metrics[name]["hectare"]
        r2 = figures["r2"]
        axis.set_title(
            f"{TITLES.get(name, name)}\nR² {'n/a' if r2 is None else f'{r2:.2f}'}   "
            f"MAE {figures['mae'] or 0:.2f}   RMSE {figures['rmse'] or 0:.2f}   n {figures['n']}",
            fontsize=10,
        )
        axis.set_xticks(places, [str(tick) for tick in ticks])
        axis.set_yticks(places, [str(tick) for tick in ticks])
        axis.set(xlim=(0, limit), ylim=(0, limit), aspect="equal")
    figure.supxlabel(f"true people per {evaluation.cell_name}")
    figure.supylabel(f"predicted people per {evaluation.cell_name}")
    if mesh is not None:
        cells = "hectares" if evaluation.cell_name == "hectare" else "cells"
        figure.colorbar(mesh, ax=axes, label=cells, shrink=0.6, format="%g")
    return figure
