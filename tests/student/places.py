"""A small place with an ensemble's map of it, as a student's training is given them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from popcorn_ml import raster
from popcorn_ml.sentinel import SEASONS
from popcorn_ml.student.spec import StudentSpec
from tests.mapping.places import write_members
from tests.training.places import PEOPLE_PER_BUILT_PIXEL, Place, block_units, write_place

FOLDS = 2


def write_taught_place(folder: Path, shape: tuple[int, int] = (128, 160), **how: Any) -> Place:
    """A place of 12 units, and two members that each held out half of them."""
    place = write_place(folder, block_units(*shape, 3, 4), **how)
    members = write_members(folder / "members", (1, 2))
    ids = [count["id"] for count in place.counts]
    for fold, path in enumerate(members):
        held_out = ids[fold::FOLDS]
        told = {"trained": [i for i in ids if i not in held_out], "held_out": held_out}
        (path.parent / "units.json").write_text(json.dumps(told))
    write_teacher(place)
    return place


def write_teacher(place: Place, seed: int = 3) -> None:
    """The members' maps: nobody off built-up area, where the score sees some, and noise."""
    chance = np.random.default_rng(seed)
    seen = ~np.isnan(place.scores)
    with np.errstate(invalid="ignore"):
        score = np.where(seen, place.scores, 0).sum(axis=0) / seen.sum(axis=0)
    noise = chance.lognormal(0, 0.1, (FOLDS, *score.shape))
    people = (score**3 * PEOPLE_PER_BUILT_PIXEL * noise).astype(np.float32)
    names = [f"member {i + 1}" for i in range(FOLDS)]
    raster.write(place.folder / "members.tif", people, place.grid, names, float("nan"))
    raster.write(
        place.folder / "map_score.tif", score[None].astype(np.float32), place.grid, ["score"],
        float("nan"),
    )  # fmt: skip


def student_spec(place: Place, name: str = "run", **changes: Any) -> StudentSpec:
    """A short training in this place."""
    folder = place.folder
    values: dict[str, Any] = {
        "composites": {
            s: {"s1": str(folder / f"s1_{s}.tif"), "s2": str(folder / f"s2_{s}.tif")}
            for s in SEASONS
        },
        "builtup": str(folder / "builtup_score.tif"),
        "units": str(folder / "units.tif"),
        "counts": str(folder / "counts.json"),
        "extractor": str(folder / "extractor.safetensors"),
        "members": [str(p) for p in sorted((folder / "members").glob("*/occupancy.safetensors"))],
        "teacher": str(folder / "members.tif"),
        "teacher_builtup": str(folder / "map_score.tif"),
        "out": str(folder / name / "out"),
        "work": str(folder / name / "work"),
        "steps": 4,
        "crop_px": 96,
        "device": "cpu",
        "threads": 1,
    }
    return StudentSpec(**(values | changes))
