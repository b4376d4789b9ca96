"""How an evaluation scores a map without any truth: by units that members never saw.

Which members were trained on which units is read back from what made the map.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popcorn_assets.assets.maps import BUILTUP, MEMBERS, POPULATION
from popcorn_assets.promotion.ledger import DEPLOYED, DEPLOYED_FILE
from popcorn_assets.promotion.trained_on import ids_in, levels_of
from popcorn_assets.store.versions import Store, Version
from popcorn_ml.errors import StoreError

if TYPE_CHECKING:
    import numpy as np

    from popcorn_ml.evaluation.report import Evaluation
    from popcorn_ml.evaluation.without_truth import UnseenUnits, WithoutTruth
    from popcorn_ml.grid import Grid

UNITS = "units.json"

OUT_OF_FOLD = "{level}, out of fold"
JOINED = "{level}, {joined} joined"
"""Levels in the warehouse's table `evaluation`: of units predicted unseen, and within units joined
from so many."""


def trained_on(store: Store, predicted: Version, level: str) -> list[set[str]] | None:
    """Ids of the units of a level that each member of a map was trained on, in the map's order.

    Members that were trained in another country, or on another year's census of this one, saw the
    units of their own training only.

    Args:
        predicted: a version of population_map.
        level: of the units, in the map's country.

    Returns:
        None where it cannot be told: the decision or the checkpoints are no longer in the store, or
        the members were trained on another level of this country, whose units hold these people.
    """
    try:
        chosen = store.made_from(predicted, DEPLOYED).file(DEPLOYED_FILE)
        decision = json.loads(chosen.read_text("utf-8"))
        country = predicted.address.country
        levels = levels_of(decision, decision["country"])
        if country not in levels:
            return [set() for _ in decision["members"]]
        if levels[country] != level:
            return None
        checkpoints = store.made_from(predicted, "checkpoints", decision["country"])
        listed = [checkpoints.file(f"{member}/{UNITS}") for member in decision["members"]]
        return [
            ids_in(decision, json.loads(path.read_text("utf-8"))["trained"], country)
            for path in listed
        ]
    except (StoreError, OSError, KeyError, TypeError, ValueError):
        return None


def saw(trained: list[set[str]] | None, units: Path, members: int) -> np.ndarray:
    """Whether a member was trained on a unit's count: bool (members, units 1..n).

    Args:
        trained: as from `trained_on`; None, or of another number of members, counts as all units.
        units: raster of the units, beside whose table their ids are.
        members: of the map.
    """
    import numpy as np
    import pyarrow.parquet as pq

    table = pq.read_table(units.with_suffix(".parquet"), columns=["number", "id"]).to_pylist()
    found = np.ones((members, len(table)), bool)
    if trained is None or len(trained) != members:
        return found
    for member, ids in enumerate(trained):
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
    """

    units: UnseenUnits
    scores: WithoutTruth
    parts: float | None = None
    real: dict[str, dict[str, float | None]] = field(default_factory=dict)

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
        return {**self.scores.as_dict(), "finer_level": self.estimated()}

    def shown(self) -> dict[str, Any]:
        """What the UI shows: tables of both scores, or why there are none."""
        if self.scores.why_not:
            return {"no score without truth": self.scores.why_not}
        rows = [
            {"approach": approach, "units joined": entry["joined"], **figures}
            for entry in self.scores.coarsened
            for approach, figures in entry["metrics"].items()
        ]
        shown: dict[str, Any] = {
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
            figure = unseen_figure(self.units, self.scores, self.real, self.parts)
            pictures.append(figure_png(figure))
        return stacked(*pictures) if len(pictures) > 1 else b"".join(pictures)


def without_truth(
    grid: Grid,
    predicted: Version,
    units: Path,
    people: Sequence[float],
    trained: list[set[str]] | None,
    threads: int,
) -> Honest:
    """Score a map by the units that its members never saw.

    Args:
        predicted: a version of population_map.
        units, people: of the level that the map is adjusted to.
        trained: as from `trained_on`.
    """
    from popcorn_ml import raster
    from popcorn_ml.evaluation.without_truth import score_without_truth, unseen_units

    members = predicted.file(MEMBERS)
    with raster.opened(members) as dataset:
        count = dataset.count
    found = unseen_units(
        grid=grid,
        population=predicted.file(POPULATION),
        members=members,
        builtup=predicted.file(BUILTUP),
        units=units,
        people=people,
        saw=saw(trained, units, count),
        threads=threads,
    )
    return Honest(found, score_without_truth(found))
