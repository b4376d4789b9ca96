"""Predict whole census units as the map would: every pixel the mean of the seasons that show it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor

import numpy as np
import torch

from popcorn_ml.mapping.ensemble import SeasonMean
from popcorn_ml.model.popcorn import OccupancyModel
from popcorn_ml.training.augment import Draw
from popcorn_ml.training.loss import Arithmetic, piece_values
from popcorn_ml.training.out_of_fold import Unseen
from popcorn_ml.training.samples import Samples
from popcorn_ml.training.units import Unit


def predict_unseen(
    model: OccupancyModel,
    samples: Samples,
    units: Sequence[Unit],
    device: torch.device,
    arithmetic: Arithmetic,
    workers: Executor,
) -> list[Unseen]:
    """Predict units that a model was not trained on.

    Args:
        model: on the device, in eval mode.
        samples: which know the units.
        units: what to predict; a pixel of theirs that no season shows has no people.
        device: where the network runs.
        arithmetic: what it runs in.
        workers: units are worked on side by side in its threads; the result is the same.
    """
    jobs = [workers.submit(_predict, model, samples, u, device, arithmetic) for u in units]
    return [job.result() for job in jobs]


def _predict(
    model: OccupancyModel,
    samples: Samples,
    unit: Unit,
    device: torch.device,
    arithmetic: Arithmetic,
) -> Unseen:
    """One unit; runs in a worker thread."""
    people = occupancy = 0.0
    pixels = 0
    for tile in range(samples.tile_count(unit)):
        mean: SeasonMean | None = None
        for season in np.flatnonzero(unit.observed).tolist():
            piece = samples.get((unit.number, tile, season)).augmented(Draw(season), device)
            with torch.no_grad():
                values = torch.stack(piece_values(model, piece, arithmetic)).cpu().numpy()
            laid = np.full((2, piece.channels.shape[-2] * piece.channels.shape[-1]), np.nan)
            laid[:, piece.pixels.cpu().numpy()] = values
            mean = mean or SeasonMean(laid.shape)
            mean.add(laid)
        if mean is not None:
            found = mean.mean()
            seen = ~np.isnan(found[0])
            people += float(found[0, seen].sum())
            occupancy += float(found[1, seen].sum())
            pixels += int(seen.sum())
    return Unseen(unit.id, unit.number, unit.people, people, occupancy / max(pixels, 1))
