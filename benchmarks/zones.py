"""Zone sums in one pass against a loop over the units' masks: same pixels, same run.

    python -m benchmarks.zones [--json] [--pixels N] [--units N] [--sample N | --full]

The loop reads every pixel once a unit, so that its time is the number of units times the time of
one; unless `--full`, it is timed on a sample of the units and scaled by their number, which the
output says. Both give the sums and the pixels without a value, and the sample's are compared.
"""

from __future__ import annotations

import argparse
import json
import math
import time

import numpy as np

from popcorn_ml.zones import zone_table

BOUND = 50.0
"""How many times faster the single pass must be."""


def country(pixels: int, units: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A square of uneven, wavy-edged units (uint32) and people per pixel (float32, some NaN)."""
    rng = np.random.default_rng(seed)
    side = math.isqrt(pixels)
    across = math.ceil(math.sqrt(units))
    numbers = rng.permutation(np.arange(across * across) % units + 1).astype(np.uint32)
    edges_row = np.sort(rng.integers(0, side, across - 1))
    edges_col = np.sort(rng.integers(0, side, across - 1))
    along = np.arange(side)
    zones = np.empty((side, side), np.uint32)
    for start in range(0, side, 256):
        rows = along[start : start + 256, None]
        wavy_row = rows + 15 * np.sin(along[None, :] / 23.0)
        wavy_col = along[None, :] + 15 * np.sin(rows / 19.0)
        zones[start : start + 256] = numbers[
            np.searchsorted(edges_row, wavy_row) * across + np.searchsorted(edges_col, wavy_col)
        ]
    people = rng.random((side, side), dtype=np.float32)
    people[rng.integers(0, side, side), rng.integers(0, side, side)] = np.nan
    return zones, people


def measure(pixels: int, units: int, sample: int) -> dict[str, object]:
    """Seconds of both ways on one country; the loop over `sample` units, scaled to all."""
    zones, people = country(pixels, units)
    begin = time.perf_counter()
    table = zone_table(zones, [people], units)
    single_pass_s = time.perf_counter() - begin

    chosen = np.linspace(1, units, min(sample, units)).round().astype(int)
    begin = time.perf_counter()
    looped = []
    for number in chosen:
        inside = people[zones == number]
        looped.append((np.nansum(inside, dtype=np.float64), np.isnan(inside).sum()))
    sample_s = time.perf_counter() - begin
    loop_s = sample_s * units / len(chosen)

    sums, missing = np.array(looped).T
    np.testing.assert_allclose(table.sums[0, chosen], sums, rtol=1e-9)
    np.testing.assert_array_equal(table.missing[0, chosen], missing)
    return {
        "pixels": int(zones.size),
        "units": units,
        "single_pass_s": round(single_pass_s, 3),
        "loop_s": round(loop_s, 1),
        "loop_units_timed": len(chosen),
        "loop": "timed in full"
        if len(chosen) == units
        else f"timed on {len(chosen)} of {units} units in {sample_s:.2f} s, scaled linearly",
        "ratio": round(loop_s / single_pass_s, 1),
        "bound": BOUND,
        "holds": loop_s / single_pass_s >= BOUND,
    }


def main(argv: list[str] | None = None) -> int:
    """Print the measurement; status 1 where the bound does not hold."""
    parser = argparse.ArgumentParser(prog="benchmarks.zones", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--pixels", type=int, default=100_000_000)
    parser.add_argument("--units", type=int, default=5000)
    parser.add_argument("--sample", type=int, default=40, help="units that the loop is timed on")
    parser.add_argument("--full", action="store_true", help="time the loop on every unit")
    arguments = parser.parse_args(argv)
    result = measure(
        arguments.pixels, arguments.units, arguments.units if arguments.full else arguments.sample
    )
    if arguments.json:
        print(json.dumps(result))
    else:
        print(f"{result['pixels']:,} pixels, {result['units']:,} units")
        print(f"one pass:             {result['single_pass_s']} s")
        print(f"loop over the masks:  {result['loop_s']} s ({result['loop']})")
        print(f"ratio:                {result['ratio']} (at least {BOUND:g})")
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
