"""Mapping and training on a GPU, beside the published execution on the same card, in minutes.

    python -m benchmarks.gpu [--device cuda] [--out gpu.json]

Runs the CUDA tests, then a map's networks (members, seasons, a window of 2048 pixels) and members'
steps (units of many sizes), each as published and as here, one member and all at once on streams of
their own, in float32 and bfloat16. Says pixels a second, the share of the card's own copy bandwidth
and matrix peak, memory, and how far results are apart; writes one JSON and prints a table. With
`--small` everything but the CUDA tests runs on a CPU in seconds: `tests/training/test_gpu.py` does.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import reference, training
from popcorn_ml.grid import Window
from popcorn_ml.mapping.engine.on_torch import TorchEngine
from popcorn_ml.model.canvas import HALO_PX
from popcorn_ml.model.popcorn import BuiltupExtractor, OccupancyModel, from_extractor
from popcorn_ml.training.loss import Arithmetic, UnitLoss

HERE = Path(__file__).parent.parent
OPERATIONS_PER_PX = 2 * 18_000
"""Of one member's networks, forward; a step takes three times that."""
BYTES_PER_PX = 1_300
"""Of activations that one member's forward writes and reads once each; a step moves three times
that."""
TESTS_S = 180


@dataclass(frozen=True)
class Size:
    """How much is run.

    Attributes:
        side: of the window mapped, pixels.
        units: whose gradients are taken.
        rounds: the best of which counts.
        buffer: side of the square matrices that bandwidth and peak are measured with.
    """

    side: int
    units: int
    members: int
    seasons: int
    rounds: int
    buffer: int


FULL = Size(2048, 40, 5, 4, 3, 8192)
SMALL = Size(128, 2, 2, 1, 1, 256)


def seconds(device: torch.device, work: Callable[[], Any], rounds: int) -> float:
    """The best of some rounds after one that makes kernels ready."""
    best = float("inf")
    for number in range(rounds + 1):
        _settle(device)
        begun = time.perf_counter()
        work()
        _settle(device)
        if number:
            best = min(best, time.perf_counter() - begun)
    return best


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_mb(device: torch.device, work: Callable[[], Any]) -> float | None:
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    work()
    return torch.cuda.max_memory_allocated(device) / 2**20


def card(device: torch.device, size: Size) -> dict[str, Any]:
    """What the device is, and what it can do at best."""
    source = torch.ones((size.buffer, size.buffer), device=device)
    target = torch.empty_like(source)
    moved = 2 * source.numel() * source.element_size()
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "torch": torch.__version__,
        "copy_bytes_per_s": moved / seconds(device, lambda: target.copy_(source), 3 * size.rounds),
    }
    for name in ("float32", "bfloat16"):
        matrix = source.to(getattr(torch, name))
        spent = seconds(device, partial(torch.mm, matrix, matrix), size.rounds)
        found[f"{name}_operations_per_s"] = 2 * size.buffer**3 / spent
    return found


def networks(device: torch.device, size: Size) -> tuple[BuiltupExtractor, list[OccupancyModel]]:
    """Weights drawn at random: how fast a network runs does not depend on what it has learnt."""
    torch.manual_seed(0)
    extractor = BuiltupExtractor().eval()
    members = [from_extractor(extractor, 0.5, seed=n) for n in range(size.members)]
    return extractor.to(device), [member.to(device) for member in members]


def mapping(device: torch.device, size: Size) -> list[dict[str, Any]]:
    """Members and seasons of one window: as published, and by the engine."""
    extractor, members = networks(device, size)
    side = size.side
    images = torch.randn((size.seasons, 6, side, side), generator=torch.Generator().manual_seed(1))
    core = Window(HALO_PX, HALO_PX, side - 2 * HALO_PX, side - 2 * HALO_PX)
    pixels = core.height * core.width * size.members * size.seasons

    def published() -> np.ndarray:
        with torch.no_grad():
            found = [
                reference.people(image[None].to(device), extractor, member)[core.slices].cpu()
                for image in images
                for member in members
            ]
        return torch.stack(found).mean(0).numpy()

    def here(precision: str) -> np.ndarray:
        engine = TorchEngine(str(device), precision)
        scores = engine.extractor(_tensors(extractor))
        bag = engine.bag([_tensors(member) for member in members])
        every = np.ones((core.height, core.width), bool)
        with engine.at_work():
            found = [
                bag.occupancy(image, core, every) * scores.scores(image, core, "both")
                for image in images.numpy()
            ]
        return np.mean([one.mean(axis=0) for one in found], axis=0)

    plain = published()
    rows = [_row("mapping, published", pixels, device, size, published)]
    for precision in ("float32", "bfloat16"):
        row = _row(f"mapping, {precision}", pixels, device, size, partial(here, precision))
        apart = np.abs(here(precision) - plain).max() / np.abs(plain).max()
        rows.append(row | {"apart": float(apart)})
    return rows


def _tensors(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """As they are kept in a file."""
    kept = model.state_dict().items()
    return {n: v.cpu().numpy() for n, v in kept if not n.endswith("num_batches_tracked")}


def steps(device: torch.device, size: Size) -> list[dict[str, Any]]:
    """Gradients of units: as published, one member, all members at once."""
    extractor, members = networks(device, size)
    chance = torch.Generator().manual_seed(2)
    side = training.SIDE_PX
    image = torch.randn((6, side, side), generator=chance).to(device)
    score = torch.rand((side, side), generator=chance).to(device)
    boxes = training.boxes(size.units)
    pixels = sum(box.height * box.width for box in boxes)

    def published() -> None:
        for box in boxes:
            training.plain(members[0], extractor, image, box)

    def one(arithmetic: Arithmetic, member: OccupancyModel) -> list[UnitLoss]:
        return [training.ours(member, image, score, box, arithmetic) for box in boxes]

    def at_once(arithmetic: Arithmetic) -> None:
        with ThreadPoolExecutor(size.members) as pool:
            list(pool.map(partial(_on_a_stream, device, partial(one, arithmetic)), members))

    def reduced() -> Any:
        return torch.autocast(device.type, dtype=torch.bfloat16)

    rows = [_row("training, published, one member", pixels, device, size, published)]
    exact = one(nullcontext, members[0])
    for precision, arithmetic in (("float32", nullcontext), ("bfloat16", reduced)):
        work = partial(one, arithmetic, members[0])
        row = _row(f"training, {precision}, one member", pixels, device, size, work)
        rows.append(row | {"apart": _apart(work(), exact)})
        name = f"training, {precision}, {size.members} members at once"
        every = pixels * size.members
        rows.append(_row(name, every, device, size, partial(at_once, arithmetic)))
    return rows


def _on_a_stream(
    device: torch.device, work: Callable[[OccupancyModel], Any], member: OccupancyModel
) -> None:
    if device.type != "cuda":
        work(member)
        return
    with torch.cuda.stream(torch.cuda.Stream(device)):
        work(member)


def _apart(found: list[UnitLoss], exact: list[UnitLoss]) -> float:
    """Largest difference of losses, as a share of the loss."""
    return max(abs(a.loss - b.loss) / b.loss for a, b in zip(found, exact, strict=True))


def _row(
    name: str, pixels: int, device: torch.device, size: Size, work: Callable[[], Any]
) -> dict[str, Any]:
    spent = seconds(device, work, size.rounds)
    return {"what": name, "pixels_per_s": pixels / spent, "peak_mb": _peak_mb(device, work)}


def with_shares(rows: list[dict[str, Any]], of: dict[str, Any]) -> list[dict[str, Any]]:
    """Each row with its shares of what the card can do, and how many times the published way."""
    plain = {row["what"].split(",")[0]: row for row in rows if "published" in row["what"]}
    found = []
    for row in rows:
        kind = row["what"].split(",")[0]
        passes = 3 if kind == "training" else 1
        peak = of[f"{'bfloat16' if 'bfloat16' in row['what'] else 'float32'}_operations_per_s"]
        speed = row["pixels_per_s"] * passes
        found.append(
            row
            | {
                "times_published": row["pixels_per_s"] / plain[kind]["pixels_per_s"],
                "of_matrix_peak": speed * OPERATIONS_PER_PX / peak,
                "of_copy_bandwidth": speed * BYTES_PER_PX / of["copy_bytes_per_s"],
            }
        )
    return found


def cuda_tests() -> dict[str, Any]:
    """The tests that need a GPU, in a process of their own."""
    command = [sys.executable, "-m", "pytest", "-q", "tests/compute/test_cuda.py"]
    try:
        done = subprocess.run(
            command, cwd=HERE, capture_output=True, text=True, timeout=TESTS_S, check=False
        )
    except subprocess.TimeoutExpired:
        return {"status": None, "said": f"not done after {TESTS_S} s"}
    return {"status": done.returncode, "said": done.stdout.splitlines()[-12:]}


def table(found: dict[str, Any]) -> str:
    """The figures for people."""
    lines = [
        f"{found['card']['device']}, torch {found['card']['torch']}",
        "| | Mpx/s | times published | of matrix peak | of copy bandwidth | MB | apart |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        memory = "" if row["peak_mb"] is None else f"{row['peak_mb']:.0f}"
        apart = f"{row['apart']:.1e}" if "apart" in row else ""
        lines.append(
            f"| {row['what']} | {row['pixels_per_s'] / 1e6:.2f} | {row['times_published']:.1f} | "
            f"{row['of_matrix_peak']:.1%} | {row['of_copy_bandwidth']:.1%} | {memory} | {apart} |"
        )
    return "\n".join(lines)


def measure(device: torch.device, size: Size) -> dict[str, Any]:
    """All but the tests."""
    of = card(device, size)
    return {"card": of, "rows": with_shares(mapping(device, size) + steps(device, size), of)}


def main(arguments: list[str] | None = None) -> int:
    """Run everything; exit status 1 where a CUDA test fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu with --small")
    parser.add_argument("--small", action="store_true", help="only to see that everything runs")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    given = parser.parse_args(arguments)
    device = torch.device(given.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("there is no CUDA device here, or torch was built without CUDA", file=sys.stderr)
        return 2
    tests = cuda_tests() if device.type == "cuda" else None
    found = {"tests": tests, **measure(device, SMALL if given.small else FULL)}
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(table(found))
    return int(bool(tests and tests["status"]))


if __name__ == "__main__":
    raise SystemExit(main())
