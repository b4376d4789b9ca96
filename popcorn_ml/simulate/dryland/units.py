"""Census units of the dry valley: land cut in two again and again until each has its people.

Cuts run along the valley or across it, so that units are strips in the fields, small quarters in
town and a few huge tracts of empty plain; sizes follow people, not area.
"""

from __future__ import annotations

import heapq

import numpy as np
from scipy import ndimage

from popcorn_ml.simulate.census import Level
from popcorn_ml.simulate.dryland.world import DryWorld
from popcorn_ml.simulate.spec import MARGIN_PX, CountrySpec
from popcorn_ml.simulate.terrain import smooth_noise

SMALLEST_PX = 120
"""No unit is cut to less."""

DISTRICT_UNITS = 11


def make_units(spec: CountrySpec, people: np.ndarray, world: DryWorld) -> dict[str, Level]:
    """Draw the levels "coarse" and "fine" of the country.

    Args:
        spec: the country.
        people: of the base year, (rows, columns) of the country's grid.
        world: the place around it.
    """
    rng = np.random.default_rng([spec.seed, 13])
    inner = (slice(MARGIN_PX, -MARGIN_PX),) * 2
    shape = people.shape
    valley = world.land.valley
    bent = min(shape) / 90
    at = np.stack(
        [
            valley.along[inner] + bent * smooth_noise(rng, shape, 40, octaves=2),
            valley.across[inner] + bent * smooth_noise(rng, shape, 40, octaves=2),
        ]
    ).reshape(2, -1)
    crowd = ndimage.gaussian_filter(people.astype(np.float64), 2)
    # an empty tract counts for a little: somebody has to answer for it
    weight = (crowd + 0.15 * crowd.mean()).ravel()
    everything = np.arange(people.size)
    parts = _cut(rng, everything, at, weight, spec.coarse_units, SMALLEST_PX)
    parts.sort(key=lambda part: int(part.min()))
    ids, names, districts = _called(rng, len(parts))
    coarse, fine = np.zeros(people.size, np.int32), np.zeros(people.size, np.int32)
    fine_ids: list[str] = []
    fine_names: list[str] = []
    owners: list[str] = []
    for number, part in enumerate(parts, start=1):
        coarse[part] = number
        wanted = int(rng.integers(max(spec.fine_units_each - 2, 1), spec.fine_units_each + 3))
        for rank, piece in enumerate(_cut(rng, part, at, weight, wanted, SMALLEST_PX // 4), 1):
            fine_ids.append(f"{ids[number - 1]}-{rank:02d}")
            fine_names.append(f"{names[number - 1]} {rank}")
            owners.append(ids[number - 1])
            fine[piece] = len(fine_ids)
    return {
        "coarse": Level(coarse.reshape(shape), ids, names, districts),
        "fine": Level(fine.reshape(shape), tuple(fine_ids), tuple(fine_names), tuple(owners)),
    }


def _cut(
    rng: np.random.Generator,
    pixels: np.ndarray,
    at: np.ndarray,
    weight: np.ndarray,
    wanted: int,
    smallest: int,
) -> list[np.ndarray]:
    """Cut pixels into parts, the heaviest part first, until there are so many.

    Args:
        rng: source of all that is drawn.
        pixels: flat indices.
        at: coordinates (2, pixels of the country).
        weight: of each pixel of the country.
        wanted: number of parts; fewer where nothing is left to cut.
        smallest: pixels a part keeps.
    """
    order = 0
    heap: list[tuple[float, int, np.ndarray]] = [(-1.0, order, pixels)]
    done: list[np.ndarray] = []
    while heap and len(heap) + len(done) < wanted:
        part = heapq.heappop(heap)[2]
        if part.size < 2 * smallest:
            done.append(part)
            continue
        spread = np.ptp(at[:, part], axis=1) * np.array([1.0, 0.8]) * rng.uniform(0.6, 1.4, 2)
        axis = int(np.argmax(spread))
        ordered = part[np.argsort(at[axis, part], kind="stable")]
        gone = np.cumsum(weight[ordered])
        cut = int(np.searchsorted(gone, gone[-1] * rng.uniform(0.35, 0.65)))
        cut = min(max(cut, smallest), part.size - smallest)
        for half in (ordered[:cut], ordered[cut:]):
            order += 1
            heavy = float(weight[half].sum()) * rng.lognormal(0, 0.35)
            heapq.heappush(heap, (-heavy, order, half))
    return done + [part for *_, part in heap]


def _called(
    rng: np.random.Generator, count: int
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Identifiers, names and districts of so many units."""
    heads = ("Ain", "Wadi", "Bir", "Kasr", "Tell", "Beni", "Hass", "Umm", "Sidi", "Ras")
    stems = ("Tamr", "Zaf", "Murj", "Sal", "Harb", "Dawr", "Qatn", "Nakh", "Rim", "Ghar")
    tails = ("a", "an", "iya", "oun", "ira", "et", "ouk", "il")
    every = [f"{head} {stem}{tail}" for head in heads for stem in stems for tail in tails]
    names = [
        every[n] if turn == 0 else f"{every[n]} {turn + 1}"
        for turn in range(-(-count // len(every)))
        for n in rng.permutation(len(every))
    ][:count]
    district = [number // DISTRICT_UNITS + 1 for number in range(count)]
    ids = tuple(f"0{d}.{n % DISTRICT_UNITS + 1:03d}" for n, d in enumerate(district))
    return ids, tuple(names), tuple(f"0{d}" for d in district)
