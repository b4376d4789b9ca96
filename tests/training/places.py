"""A small place to train on: composites, built-up score, census units, written as real files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from popcorn_ml import raster
from popcorn_ml.grid import Grid
from popcorn_ml.model.popcorn import BuiltupExtractor
from popcorn_ml.model.weights import save_extractor
from popcorn_ml.sentinel import S1_BANDS, S1_NODATA, S1_SCALE, S2_BANDS, SEASONS
from popcorn_ml.training.spec import TrainingSpec

PEOPLE_PER_BUILT_PIXEL = 0.5


def block_units(height: int, width: int, rows: int, cols: int) -> np.ndarray:
    """Units as a grid of rectangles, numbered 1..rows x cols, uint32."""
    row = np.arange(height) * rows // height
    col = np.arange(width) * cols // width
    return (row[:, None] * cols + col[None] + 1).astype(np.uint32)


@dataclass
class Place:
    """Where the files of a place lie, and the arrays that are in them."""

    folder: Path
    grid: Grid
    units: np.ndarray
    scores: np.ndarray
    counts: list[dict[str, Any]]

    def spec(self, name: str = "run", **changes: Any) -> TrainingSpec:
        """A short training of this place."""
        values: dict[str, Any] = {
            "s1": {s: str(self.folder / f"s1_{s}.tif") for s in SEASONS},
            "s2": {s: str(self.folder / f"s2_{s}.tif") for s in SEASONS},
            "builtup": str(self.folder / "builtup_score.tif"),
            "units": str(self.folder / "units.tif"),
            "counts": str(self.folder / "counts.json"),
            "extractor": str(self.folder / "extractor.safetensors"),
            "out": str(self.folder / name / "out"),
            "work": str(self.folder / name / "work"),
            "seed": 1600,
            "epochs": 2,
            "device": "cpu",
            "threads": 1,
        }
        return TrainingSpec(**(values | changes))

    def write_counts(self, counts: list[dict[str, Any]]) -> None:
        """Replace the census."""
        (self.folder / "counts.json").write_text(json.dumps(counts))


def write_place(
    folder: Path,
    units: np.ndarray,
    *,
    seed: int = 0,
    missing: dict[str, tuple[slice, slice]] | None = None,
    people: dict[int, float] | None = None,
    grid: Grid | None = None,
) -> Place:
    """Write a place.

    Args:
        units: unit numbers of every pixel; its shape is the place's.
        seed: of the pixels.
        missing: season -> part of it without any observation.
        people: of some units, instead of what the built-up score suggests.
        grid: where its pixels lie, instead of 10 m apart in a UTM zone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(seed)
    height, width = units.shape
    grid = grid or Grid("EPSG:32736", 500_000.0, 9_800_000.0, 10.0, width, height)
    coarse = chance.random((height // 8 + 2, width // 8 + 2))
    built = np.kron(coarse, np.ones((8, 8)))[:height, :width] > 0.7
    scores = np.empty((len(SEASONS), height, width), np.float32)
    for i, season in enumerate(SEASONS):
        s1 = np.where(built, -7.0, -13.0) + chance.normal(0, 1.5, (2, height, width))
        s1[1] -= 6
        s1 = np.round(s1 / S1_SCALE).astype(np.int16)
        base = np.array([900.0, 1000, 1100, 2600])[:, None, None] + 900 * built
        s2 = (base + chance.normal(0, 150, (4, height, width))).clip(1).astype(np.uint16)
        scores[i] = np.clip(np.where(built, 0.8, 0.1) + chance.normal(0, 0.05, built.shape), 0, 1)
        if missing and season in missing:
            s1[(..., *missing[season])] = S1_NODATA
            s2[(..., *missing[season])] = 0
            scores[(i, *missing[season])] = np.nan
        raster.write(folder / f"s1_{season}.tif", s1, grid, S1_BANDS, S1_NODATA, scale=S1_SCALE)
        raster.write(folder / f"s2_{season}.tif", s2, grid, S2_BANDS, 0)
    raster.write(folder / "builtup_score.tif", scores, grid, SEASONS, float("nan"))
    raster.write(folder / "units.tif", units, grid, ["unit"], 0, resampling="nearest")
    counts = []
    for number in np.unique(units[units > 0]).tolist():
        total = float(np.where(built, 0.8, 0.1)[units == number].sum())
        total *= PEOPLE_PER_BUILT_PIXEL * chance.uniform(0.9, 1.1)
        total = (people or {}).get(number, round(total))
        counts.append(
            {"number": number, "id": f"{number:05d}", "name": f"unit {number}", "people": total}
        )
    place = Place(folder, grid, units, scores, counts)
    place.write_counts(counts)
    torch.manual_seed(1)
    save_extractor(BuiltupExtractor().eval(), folder / "extractor.safetensors", {"name": "random"})
    return place
