"""How an evaluation scores a map without any truth: by units that members never saw.

Which members were trained on which units is read back from what made the map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popcorn_assets.assets import trained
from popcorn_assets.assets.census import unit_ids
from popcorn_assets.assets.maps import BUILTUP, MEMBERS, POPULATION
from popcorn_assets.store.versions import Store, Version
from popcorn_ml.errors import StoreError
from popcorn_ml.training.out_of_fold import OutOfFold

if TYPE_CHECKING:
    import numpy as np

    from popcorn_ml.evaluation.report import Evaluation
    from popcorn_ml.evaluation.without_truth import UnseenUnits, WithoutTruth
    from popcorn_ml.grid import Grid

OUT_OF_FOLD = "{level}, out of fold"
JOINED = "{level}, {joined} joined"
"""Levels in the warehouse's table `evaluation`: of units predicted unseen, and within units joined
from so many."""


def trained_on(store: Store, predicted: Version, level: str) -> list[set[str]] | None:
    """Ids of the units of a level that each member of a map was trained on, in the map's order.

    Args:
        predicted: a version of population_map.
        level: of the units, in the map's country.

    Returns:
        None where it cannot be told: the decision or the model is no longer in the store, or it was
        trained on another level of this country, whose units hold these people. None of a student
        too; see `told_without`.
    """
    try:
        model = trained.trained_on(store, predicted)
        return trained.units_by_member(model, predicted.address.country or "", level)
    except (StoreError, OSError, KeyError, TypeError, ValueError):
        return None


@dataclass(frozen=True)
class FoldsTold:
    """Units as the students of the folds told them, which never saw them.

    Attributes:
        year: of their imagery and counts, that the student was trained on.
        units: by id; none where the map is no student's, or was made by one trained elsewhere.
    """

    year: int
    units: Mapping[str, OutOfFold] = field(default_factory=dict)

    def arrays(self, units: Path) -> tuple[np.ndarray, np.ndarray] | None:
        """People counted and predicted of units 1..n, NaN where not told; None without any.

        Args:
            units: raster of the units, beside whose table their ids are.
        """
        import numpy as np

        if not self.units:
            return None
        ids = unit_ids(units)
        found = np.full((2, max(ids)), np.nan)
        for number, key in ids.items():
            if told := self.units.get(key):
                found[:, number - 1] = told.people, told.predicted
        return found[0], found[1]


def told_without(store: Store, predicted: Version, level: str) -> FoldsTold:
    """What was told of a map's units without having seen them, where that is not in the map."""
    year = predicted.address.year or 0
    try:
        model = trained.trained_on(store, predicted)
        told = trained.told_by_folds(model, predicted.address.country or "", level)
        return FoldsTold(model.year, told)
    except (StoreError, OSError, KeyError, TypeError, ValueError):
        return FoldsTold(year)


def saw(known: list[set[str]] | None, units: Path, members: int) -> np.ndarray:
    """Whether a member was trained on a unit's count: bool (members, units 1..n).

    Args:
        known: as from `trained_on`; None, or of another number of members, counts as all units.
        units: raster of the units, beside whose table their ids are.
        members: of the map.
    """
    import numpy as np
    import pyarrow.parquet as pq

    table = pq.read_table(units.with_suffix(".parquet"), columns=["number", "id"]).to_pylist()
    found = np.ones((members, len(table)), bool)
    if known is None or len(known) != members:
        return found
    for member, ids in enumerate(known):
        for unit in table:
            found[member, unit["number"] - 1] = unit["id"] in ids
    return found


@dataclass
class Honest:
    """The scores of a map without truth, and the real figures of a finer level beside them.

    Attributes:
        units, scores: see popcorn_ml.evaluation.without_truth.
        parts: units of the finer level in one; None without one.
        real: approach -> shares of the finer level.
        told_by: who told the units, where it was not the map's own members.
    """

    units: UnseenUnits
    scores: WithoutTruth
    parts: float | None = None
    real: dict[str, dict[str, float | None]] = field(default_factory=dict)
    told_by: str = ""

    def beside(self, found: Evaluation, fine_people: Sequence[float] | None) -> None:
        """Take the real figures of a finer level, where there is one."""
        import numpy as np

        from popcorn_ml.evaluation.without_truth import shares

        if fine_people is None:
            return
        counted = np.asarray(fine_people, np.float64)
        self.parts = float((~np.isnan(counted)).sum() / max(self.scores.counted, 1))
        self.real = {
            approach: shares(by["unit"]["mae"], by["unit"]["rmse"], float(np.nanmean(counted)))
            for approach, by in found.metrics.items()
            if "unit" in by
        }

    def estimated(self) -> dict[str, Any]:
        """For the finer level: what the coarsening test gives for so many parts, and what is."""
        if self.parts is None or not self.scores.coarsened:
            return {}
        within = self.scores.within(self.parts)
        return {"parts": self.parts, "estimated": within, "real": self.real}

    def as_dict(self) -> dict[str, Any]:
        who = {"told_by": self.told_by} if self.told_by else {}
        return {**self.scores.as_dict(), "finer_level": self.estimated(), **who}

    def shown(self) -> dict[str, Any]:
        """What the UI shows: tables of both scores, or why there are none."""
        if self.scores.why_not:
            return {"no score without truth": self.scores.why_not}
        rows = [
            {"approach": approach, "units joined": entry["joined"], **figures}
            for entry in self.scores.coarsened
            for approach, figures in entry["metrics"].items()
        ]
        who = {"out of fold told by": self.told_by.rstrip(",")} if self.told_by else {}
        shown: dict[str, Any] = {
            **who,
            "out of fold": [{"approach": "map", **self.scores.out_of_fold}],
            "within joined units": rows,
        }
        if finer := self.estimated():
            shown["estimated and real error at the finer level"] = [
                {
                    "approach": approach,
                    **{f"estimated {name}": value for name, value in told.items()},
                    **{f"real {name}": value for name, value in finer["real"][approach].items()},
                }
                for approach, told in finer["estimated"].items()
                if approach in finer["real"]
            ]
        return shown

    def rows(self, level: str) -> list[dict[str, Any]]:
        """Rows of the warehouse's table `evaluation`."""
        told = {("map", OUT_OF_FOLD.format(level=level)): self.scores.out_of_fold} | {
            (approach, JOINED.format(level=level, joined=entry["joined"])): figures
            for entry in self.scores.coarsened
            for approach, figures in entry["metrics"].items()
        }
        return [
            {"product": product, "level": name, "metric": metric, "value": value, "n": figures["n"]}
            for (product, name), figures in told.items()
            for metric, value in figures.items()
            if metric != "n"
        ]

    def picture(self, found: Evaluation) -> bytes:
        """Hectares where their truth is known, then units; empty without either."""
        from popcorn_ml.evaluation.report import scatter_png
        from popcorn_ml.evaluation.unseen_figure import stacked, unseen_figure
        from popcorn_ml.mapping.pictures import figure_png

        pictures = [scatter_png(found)] if found.histograms else []
        if not self.scores.why_not:
            by = "students of the folds" if self.told_by else "members"
            figure = unseen_figure(self.units, self.scores, self.real, self.parts, told_by=by)
            pictures.append(figure_png(figure))
        return stacked(*pictures) if len(pictures) > 1 else b"".join(pictures)


def without_truth(
    store: Store,
    grid: Grid,
    predicted: Version,
    level: str,
    units: Path,
    people: Sequence[float],
    threads: int,
) -> Honest:
    """Score a map by the units that its members, or the students of its folds, never saw.

    Args:
        predicted: a version of population_map.
        level, units, people: that the map is adjusted to.
    """
    from popcorn_ml import raster
    from popcorn_ml.evaluation.without_truth import score_without_truth, unseen_units

    members, folds = predicted.file(MEMBERS), told_without(store, predicted, level)
    with raster.opened(members) as dataset:
        count = dataset.count
    found = unseen_units(
        grid=grid,
        population=predicted.file(POPULATION),
        members=members,
        builtup=predicted.file(BUILTUP),
        units=units,
        people=people,
        saw=saw(trained_on(store, predicted, level), units, count),
        told=folds.arrays(units),
        threads=threads,
    )
    honest = Honest(found, score_without_truth(found))
    if folds.units:
        honest.told_by = f"students of the folds, on the images and counts of {folds.year},"
    return honest
