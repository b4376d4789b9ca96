"""Predict whole census units as the map would: every pixel the mean of the seasons that show it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor

import numpy as np
import torch
from torch import Tensor

from popcorn_ml.mapping.ensemble import SeasonMean
from popcorn_ml.training.augment import Draw
from popcorn_ml.training.loss import Piece
from popcorn_ml.training.out_of_fold import Unseen
from popcorn_ml.training.samples import Samples
from popcorn_ml.training.units import Unit

Values = Callable[[Piece], tuple[Tensor, Tensor]]
"""People and occupancy of each of a piece's pixels."""


def predict_unseen(
    values: Values,
    samples: Samples,
    units: Sequence[Unit],
    device: torch.device,
    workers: Executor,
) -> list[Unseen]:
    """Predict units that a model was not trained on.

    Args:
        values: what a model that runs on the device says of a piece.
        samples: which know the units.
        units: what to predict; a pixel of theirs that no season shows has no people.
        device: where the network runs.
        workers: units are worked on side by side in its threads; the result is the same.
    """
    jobs = [workers.submit(_predict, values, samples, u, device) for u in units]
    return [job.result() for job in jobs]


def _predict(
    values: Values,
    samples: Samples,
    unit: Unit,
    device: torch.device,
) -> Unseen:
    """One unit; runs in a worker thread."""
    people = occupancy = 0.0
    pixels = 0
    for tile in range(samples.tile_count(unit)):
        mean: SeasonMean | None = None
        for season in np.flatnonzero(unit.observed).tolist():
            piece = samples.get((unit.key, tile, season)).augmented(Draw(season), device)
            with torch.no_grad():
                said = torch.stack(values(piece)).cpu().numpy()
            laid = np.full((2, piece.channels.shape[-2] * piece.channels.shape[-1]), np.nan)
            laid[:, piece.pixels.cpu().numpy()] = said
            mean = mean or SeasonMean(laid.shape)
            mean.add(laid)
        if mean is not None:
            found = mean.mean()
            seen = ~np.isnan(found[0])
            people += float(found[0, seen].sum())
            occupancy += float(found[1, seen].sum())
            pixels += int(seen.sum())
    # Pixels that were left out count as empty.
    pixels = max(pixels, *unit.observed)
    return Unseen(
        unit.id,
        unit.number,
        unit.people,
        people,
        occupancy / max(pixels, 1),
        samples.country(unit),
    )
