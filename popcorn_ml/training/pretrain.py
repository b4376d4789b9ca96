"""Pre-training a built-up area extractor on simulated places with building labels.

The demo country has no published extractor that knows its looks; this makes one, on other places
than its own. All three outputs (both sensors, either alone) learn together, from one sum of binary
cross-entropies. The occupancy model's training is elsewhere.

Run: python -m popcorn_ml.training.pretrain --help
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from popcorn_ml.model.popcorn import BuiltupExtractor, Sensors

if TYPE_CHECKING:
    from popcorn_ml.simulate.training_places import LabelledPlace

OUTPUTS: tuple[Sensors, ...] = ("both", "s1", "s2")
HELD_OUT_FROM = 10_000
"""Held-out places are numbered from here, so that more places to train on never reach them."""


@dataclass(frozen=True)
class PretrainSpec:
    """How to pre-train.

    Attributes:
        seed: of the first weights and of the order and turning of what is shown.
        places: how many to train on.
        held_out: how many to score on.
        place_px: side of a place in pixels.
        crop_px: side of what is shown at once, a multiple of 4.
        batch: crops a step.
        steps: how many.
        learning_rate: highest of a one-cycle schedule (Smith & Topin 2018, arXiv 1708.07120).
    """

    seed: int = 1500
    places: int = 32
    held_out: int = 8
    place_px: int = 192
    crop_px: int = 96
    batch: int = 8
    steps: int = 500
    learning_rate: float = 6e-3

    def __post_init__(self) -> None:
        if not 0 < self.places <= HELD_OUT_FROM:
            raise ValueError(f"places = {self.places} is not in 1..{HELD_OUT_FROM}")
        if self.crop_px % 4 or not 0 < self.crop_px <= self.place_px:
            raise ValueError(f"crop_px = {self.crop_px} is no multiple of 4 up to {self.place_px}")


@dataclass(frozen=True)
class Score:
    """Agreement with the labels of held-out places, pixel by pixel, at a score of 0.5."""

    f1: float
    iou: float
    precision: float
    recall: float


@dataclass(frozen=True)
class Pretrained:
    """What pre-training gives.

    Attributes:
        extractor: in eval mode, frozen.
        scores: on held-out places, by output ("both", "s1", "s2").
        loss: of each step.
        seconds: it took, places and scores included.
    """

    extractor: BuiltupExtractor
    scores: dict[Sensors, Score]
    loss: tuple[float, ...]
    seconds: float


def pretrain_extractor(
    spec: PretrainSpec, progress: Callable[[int, int], None] | None = None
) -> Pretrained:
    """Train a fresh extractor and score it on places it has not seen.

    Args:
        spec: how.
        progress: called with (steps done, steps in all).
    """
    from popcorn_ml.simulate.training_places import make_place

    started = time.monotonic()
    places = [make_place(number, spec.place_px) for number in range(spec.places)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        model = BuiltupExtractor().train()
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, spec.learning_rate, total_steps=spec.steps, pct_start=0.2
    )
    rng = np.random.default_rng(spec.seed)
    losses = []
    for step in range(spec.steps):
        x, built = _batch(rng, places, spec)
        fused = model.unet(x)
        s1, s2 = fused[:, : fused.shape[1] // 2], fused[:, fused.shape[1] // 2 :]
        logits = (model.score_both(fused), model.score_s1(s1), model.score_s2(s2))
        loss = torch.stack(
            [F.binary_cross_entropy_with_logits(each[:, 0], built) for each in logits]
        ).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if progress is not None:
            progress(step + 1, spec.steps)
    model.requires_grad_(False).eval()
    unseen = [make_place(HELD_OUT_FROM + n, spec.place_px) for n in range(spec.held_out)]
    scores = {output: score(model, unseen, output) for output in OUTPUTS}
    return Pretrained(model, scores, tuple(losses), time.monotonic() - started)


def score(model: BuiltupExtractor, places: Sequence[LabelledPlace], sensors: Sensors) -> Score:
    """Agreement of an extractor's output with the labels of some places, over all seasons."""
    hits = wrong = missed = 0
    for place in places:
        with torch.inference_mode():
            found = model(torch.from_numpy(place.channels), sensors).numpy() > 0.5
        hits += int((found & place.built).sum())
        wrong += int((found & ~place.built).sum())
        missed += int((~found & place.built).sum())
    return Score(
        f1=2 * hits / max(2 * hits + wrong + missed, 1),
        iou=hits / max(hits + wrong + missed, 1),
        precision=hits / max(hits + wrong, 1),
        recall=hits / max(hits + missed, 1),
    )


def _batch(
    rng: np.random.Generator, places: Sequence[LabelledPlace], spec: PretrainSpec
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random crops of random seasons, turned and mirrored: (n, 6, h, w) and (n, h, w)."""
    images, labels = [], []
    for _ in range(spec.batch):
        place = places[int(rng.integers(len(places)))]
        row, col = rng.integers(0, spec.place_px - spec.crop_px + 1, 2)
        window = (..., slice(row, row + spec.crop_px), slice(col, col + spec.crop_px))
        image = place.channels[rng.integers(len(place.channels))][window]
        label = place.built[window]
        turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
        image, label = np.rot90(image, turns, (-2, -1)), np.rot90(label, turns)
        if mirrored:
            image, label = image[..., ::-1], label[..., ::-1]
        images.append(np.ascontiguousarray(image))
        labels.append(np.ascontiguousarray(label))
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels)).float()


def card(spec: PretrainSpec, made: Pretrained, commit: str | None) -> dict[str, object]:
    """What the weights say about themselves."""
    from popcorn_ml.simulate.training_places import BUILT_SHARE, FIRST_SEED

    return {
        "name": "built-up area extractor, pre-trained on simulated places",
        "command": "python -m popcorn_ml.training.pretrain --out FOLDER",
        "settings": asdict(spec),
        "code_commit": commit,
        "trained_on": f"{spec.places} simulated places, seeds from {FIRST_SEED}, four seasons each",
        "scored_on": f"{spec.held_out} others, seeds from {FIRST_SEED + HELD_OUT_FROM}",
        "label": f"buildings cover at least {BUILT_SHARE:.0%} of the pixel",
        "scores": {
            name: {k: round(v, 4) for k, v in asdict(s).items()} for name, s in made.scores.items()
        },
        "final_loss": round(float(np.mean(made.loss[-20:])), 4),
        "torch": torch.__version__,
    }


def _commit() -> str | None:
    """The commit of the code that runs, where it is a checkout.

    With "+" if a module that the result depends on was changed since.
    """
    import subprocess

    package = Path(__file__).resolve().parents[1]
    folders = {
        "simulate": ("spec", "terrain", "settlements", "world", "optics", "radar"),
        "model": ("unet", "popcorn", "canvas"),
        "training": ("pretrain",),
    }
    modules = [f"{folder}/{name}.py" for folder, names in folders.items() for name in names]

    def git(*words: str) -> str:
        made = subprocess.run(
            ["git", *words], cwd=package, capture_output=True, text=True, check=True
        )
        return made.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", *modules, "simulate/training_places.py")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def main(arguments: Sequence[str] | None = None) -> None:
    """Pre-train as told on the command line and write weights and card."""
    from popcorn_ml.model.weights import save_extractor

    defaults = PretrainSpec()
    parser = argparse.ArgumentParser(prog="python -m popcorn_ml.training.pretrain")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights and card.json")
    parser.add_argument("--threads", type=int, default=2)
    for name, value in asdict(defaults).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    given = vars(parser.parse_args(arguments))
    out = given.pop("out")
    torch.set_num_threads(given.pop("threads"))
    spec = PretrainSpec(**given)

    def show(done: int, total: int) -> None:
        if done % 50 == 0 or done == total:
            print(f"step {done} of {total}", flush=True)

    made = pretrain_extractor(spec, show)
    path = save_extractor(
        made.extractor, out / "demo_extractor.safetensors", card(spec, made, _commit())
    )
    for name, found in made.scores.items():
        print(f"{name:5s} F1 {found.f1:.3f}  IoU {found.iou:.3f}")
    print(f"{path} in {made.seconds:.0f} s")


if __name__ == "__main__":
    main()
