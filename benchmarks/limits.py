"""What the images would allow: a network taught true people on other places, not counts of units.

    python -m benchmarks.limits --folder FOLDER [--family second] [--seeds 101 401]
        [--sensors both s2 s1] [--places 96] [--steps 2500]

No census is that fine, so no model can be trained so. It tells how much of a model's error lies in
what it was taught with, and how much in what the images show: on places that it never saw, drawn by
the same rules, this network says how many live in each hectare. Printed is the RMSE per hectare of
its map, adjusted to the census as any other, over that of built-up disaggregation, as
`benchmarks.accuracy` measures it. Without `--seeds` those that settings are chosen on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.accuracy import asked, look_at, seeds_parser
from benchmarks.judging import CHOOSING, family_of_seed
from benchmarks.places import Place, place_of, prepare
from popcorn_assets.assets.builtup import DEMO_EXTRACTOR
from popcorn_assets.country import load_country
from popcorn_ml import raster
from popcorn_ml.evaluation.baselines import disaggregated, disaggregation
from popcorn_ml.inputs import read_channels
from popcorn_ml.mapping.aggregate import cell_sums
from popcorn_ml.model.unet import S1_CHANNELS, DualStreamUNet
from popcorn_ml.model.weights import load_extractor
from popcorn_ml.simulate.family import FAMILIES
from popcorn_ml.simulate.training_places import make_place
from popcorn_ml.zones import zone_table

NUMBERS_FROM = 50_000
"""Of the places it is taught on: far from those of the extractor."""

PLACE_PX, CROP_PX, UNSEEN_PX = 192, 96, 8
HECTARE_PX = 10
BATCH = 8
LEARNING_RATE = 4e-3
BORDER_PX = 15


class Told(nn.Module):
    """People in each pixel, from what the seasons show on average; begun from the extractor."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = DualStreamUNet()
        self.unet.load_state_dict(load_extractor(DEMO_EXTRACTOR).unet.state_dict())
        self.head = nn.Sequential(nn.Conv2d(16, 64, 1), nn.ReLU(), nn.Conv2d(64, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 6, h, w) -> (n, h, w)."""
        return F.softplus(self.head(self.unet(x)))[:, 0]


def blind(channels: np.ndarray, sensors: str) -> np.ndarray:
    """Channels of which the sensor that is not looked at shows nothing; changed in place."""
    if sensors == "s2":
        channels[..., :S1_CHANNELS, :, :] = 0
    if sensors == "s1":
        channels[..., S1_CHANNELS:, :, :] = 0
    return channels


def taught(family: str, sensors: str, places: int, steps: int) -> Told:
    """A network taught true people per hectare on so many places of a family."""
    drawn = [make_place(NUMBERS_FROM + n, PLACE_PX, FAMILIES[family]) for n in range(places)]
    images = [blind(each.channels.mean(axis=0), sensors) for each in drawn]
    people = [each.people.astype(np.float32) for each in drawn]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = Told().train()
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, LEARNING_RATE, total_steps=steps, pct_start=0.15
    )
    chance = np.random.default_rng(1)
    inner = slice(UNSEEN_PX, CROP_PX - UNSEEN_PX)
    for step in range(steps):
        crops = [_crop(chance, images, people) for _ in range(BATCH)]
        x, true = (torch.from_numpy(np.stack(each)) for each in zip(*crops, strict=True))
        off = (model(x) - true)[:, inner, inner]
        hectares = F.avg_pool2d(off[:, None], HECTARE_PX) * HECTARE_PX**2
        loss = hectares.square().mean() / 400
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if (step + 1) % 250 == 0:
            print(f"{family}, {sensors}: step {step + 1} of {steps}", flush=True)
    return model.eval()


def _crop(
    chance: np.random.Generator, images: Sequence[np.ndarray], people: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """A crop of a place, turned and mirrored: (6, h, w) and (h, w)."""
    at = int(chance.integers(len(images)))
    row, col = chance.integers(0, PLACE_PX - CROP_PX + 1, 2)
    window = (..., slice(row, row + CROP_PX), slice(col, col + CROP_PX))
    turns, mirrored = int(chance.integers(4)), bool(chance.integers(2))
    image = np.rot90(images[at][window], turns, (-2, -1))
    true = np.rot90(people[at][window], turns)
    if mirrored:
        image, true = image[..., ::-1], true[..., ::-1]
    return np.ascontiguousarray(image), np.ascontiguousarray(true)


def people_of(model: Told, place: Place, sensors: str) -> np.ndarray:
    """What a network says of a place, float64 (rows, columns)."""
    seen = [read_channels(s1, s2)[0] for s1, s2 in place.composites().values()]
    image = blind(np.nan_to_num(np.mean(seen, axis=0)), sensors)
    border = ((0, 0), (BORDER_PX, BORDER_PX), (BORDER_PX, BORDER_PX))
    x = torch.from_numpy(np.pad(image, border, mode="reflect").astype(np.float32))
    with torch.inference_mode():
        said = model(x[None])[0].numpy().astype(np.float64)
    return said[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX]


def ratio(said: np.ndarray, place: Place) -> float:
    """RMSE per hectare of what was said of a place's pixels, adjusted to the census, over that of
    built-up disaggregation."""
    numbers, counted = raster.read(place.units(place.level), None, 1), place.people(place.level)
    score = np.nan_to_num(raster.read_float(place.builtup)).mean(axis=0, dtype=np.float64)
    true = np.where(numbers > 0, np.nan_to_num(raster.read_float(place.truth, None, 1)), 0)
    off = []
    for weight in (said, score):
        spread = disaggregated(
            disaggregation(zone_table(numbers, [weight], len(counted)), counted), numbers, weight
        )
        apart = cell_sums(np.nan_to_num(spread) - true, HECTARE_PX)
        off.append(float(np.sqrt(np.mean(np.square(apart)))))
    return off[0] / off[1]


def limits_parser() -> argparse.ArgumentParser:
    """What this benchmark is asked."""
    parser = seeds_parser(__doc__, seeds_needed=False)
    parser.add_argument("--family", choices=sorted(FAMILIES), help="of worlds; else both")
    parser.add_argument("--sensors", nargs="+", choices=("both", "s2", "s1"), default=["both"])
    parser.add_argument("--places", type=int, default=96, help="that the network is taught on")
    parser.add_argument("--steps", type=int, default=2500)
    return parser


def main() -> int:
    """Teach a network for each family and each choice of sensors, and print its ratios."""
    parser = limits_parser()
    given, passing = asked(parser)
    families = [given.family] if given.family else sorted(FAMILIES)
    if not given.seeds:
        given.seeds = [seed for family in families for seed in CHOOSING[family]]
    look = look_at(parser, given, sensors=given.sensors, places=given.places, steps=given.steps)
    torch.set_num_threads(given.threads)
    country, found = load_country("demo"), {}
    for family in families:
        seeds = [s for s in given.seeds if family_of_seed(s, given.family) == family]
        for sensors in given.sensors if seeds else ():
            begun = time.monotonic()
            model = taught(family, sensors, given.places, given.steps)
            for seed in seeds:
                place = place_of(seed, Path(given.folder), country, given.threads, family)
                prepare(place)
                found[f"{seed}, {sensors}"] = round(
                    ratio(people_of(model, place, sensors), place), 3
                )
                print(f"{seed}, {sensors}: {found[f'{seed}, {sensors}']}", flush=True)
            print(f"{family}, {sensors}: {time.monotonic() - begun:.0f} s", flush=True)
    look.found(found)
    if passing:
        passing.cleanup()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
