"""The clearest observations of each place, spread over the season. Plain values, no maps.

Of every place so many observations are kept as were asked for, or all where there are fewer, and of
the strips at the edges of swaths at least one. An observation is kept whole or not at all, so a
place may have more, where others need what shows it.

One after another that observation is kept which is worth most to the places that lack some. Its
worth is the share of it that is clear, at each place divided by one more than what is kept of the
same part of the season there: the second of a fortnight counts half, the third a third. For
Sentinel-1 it is divided so by what is kept of the same track as well. At the end what became
superfluous is dropped, the cloudiest first: what shows places that have enough without it, none of
these cloudier.

Whole numbers throughout, and ties go by time and id: a season has one choice, on every machine and
whatever the order of the catalogue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

WHOLE = 10**12
"""Worth is counted in parts of this."""

CORNER = 0.05
"""Share of what an observation shows for which alone it is not kept: passes of one track end some
hundred metres apart, and what lies between would claim all its own. One is kept for every place."""


@dataclass(frozen=True, eq=False)
class Look:
    """What one overpass shows of some places.

    Attributes:
        name: tells looks of a season apart.
        moment: when.
        overpass: looks of one overpass are one observation where they overlap.
        worth: how clear, a whole number from 1.
        places: indices of what it shows, each once.
        shows: how many pixels these stand for.
        part: of the season, from 0.
        off_middle: seconds between it and the middle of its part.
        track: on which the satellite flew, from 0; None where that does not matter.
        bands: those that it has, from 0.
    """

    name: str
    moment: datetime
    overpass: int
    worth: int
    places: np.ndarray
    shows: int
    part: int = 0
    off_middle: float = 0.0
    track: int | None = None
    bands: tuple[int, ...] = (0,)

    @property
    def order(self) -> tuple[int, int, float, datetime, str]:
        """The clearer first; of equal ones that which shows more, then the better placed in the
        season."""
        return -self.worth, -self.shows, self.off_middle, self.moment, self.name

    def resembles(self, other: Look) -> bool:
        """Whether it is worth less where the other is kept, enough or not."""
        return (
            self.part == other.part
            or self.overpass == other.overpass
            or (self.track is not None and self.track == other.track)
        )


def clearest(looks: Sequence[Look], pixels: np.ndarray, most: int) -> list[Look]:
    """The looks to keep, the clearer first.

    Args:
        looks: of a season.
        pixels: how many each place stands for.
        most: observations of each place and band.
    """
    ordered = sorted(looks, key=lambda look: look.order)
    counted = _Kept(ordered, pixels)
    shown = np.zeros((len(ordered), len(pixels)), bool)
    for number, look in enumerate(ordered):
        shown[number, look.places] = True

    def showing(places: np.ndarray) -> list[int]:
        """Looks that show one of some places."""
        return np.flatnonzero(shown[:, places].any(axis=1)).tolist()

    chosen: set[int] = set()
    for enough, least in ((most, CORNER), (1, 0.0)):
        worth = {n: counted.worth(ordered[n], enough, least) for n in range(len(ordered))}
        waiting = {number for number, value in worth.items() if value} - chosen
        while waiting:
            best = min(waiting, key=lambda number: (-worth[number], number))
            waiting.remove(best)
            chosen.add(best)
            full = counted.add(ordered[best], enough)
            beside = waiting.intersection(showing(ordered[best].places))
            less = {number for number in beside if ordered[number].resembles(ordered[best])}
            for number in less | waiting.intersection(showing(full)):
                worth[number] = counted.worth(ordered[number], enough, least)
                if not worth[number]:  # no place lacks it now, and none ever will
                    waiting.remove(number)
    for number in sorted(chosen, reverse=True):
        near = [ordered[n] for n in showing(ordered[number].places) if n in chosen]
        if superfluous(ordered[number], near, pixels, most):
            chosen.remove(number)
    return [ordered[number] for number in sorted(chosen)]


def superfluous(look: Look, kept: Sequence[Look], pixels: np.ndarray, most: int) -> bool:
    """Whether a kept look can be spared: all but a corner of it has enough others that are no
    cloudier, and the corner has at least one.

    Args:
        kept: it and the others that show any of its places.
        pixels: how many each place stands for.
        most: how many are enough.
    """
    at = look.places
    where = np.full(len(pixels), -1, np.int64)
    where[at] = np.arange(at.size)
    lacking = np.zeros(at.size, bool)
    for band in look.bands:
        seen: dict[int, np.ndarray] = {}
        others = np.zeros(at.size, bool)
        for other in kept:
            if other is look or band not in other.bands:
                continue
            shown = where[other.places]
            shown = shown[shown >= 0]
            others[shown] = True
            if other.worth >= look.worth or other.overpass == look.overpass:
                seen.setdefault(other.overpass, np.zeros(at.size, bool))[shown] = True
        if not others.all():
            return False
        same = seen.get(look.overpass, np.zeros(at.size, bool))
        count = sum((one.astype(np.int64) for one in seen.values()), np.zeros(at.size, np.int64))
        lacking |= ~same & (count < most)
    return bool(pixels[at][lacking].sum() <= CORNER * look.shows)


class _Kept:
    """What is kept of every place.

    `seen` says which overpasses, by band and place; `count` how many, by band and place; `of_part`
    and `of_track` how many of each part of the season and of each track.
    """

    def __init__(self, looks: Sequence[Look], pixels: np.ndarray) -> None:
        def size(values: Sequence[int]) -> int:
            return max(values, default=0) + 1

        self.pixels, places = pixels.astype(np.float64), len(pixels)
        bands = size([band for look in looks for band in look.bands])
        self.count = np.zeros((bands, places), np.int32)
        self.seen = np.zeros((bands, size([k.overpass for k in looks]), places), bool)
        self.of_part = np.zeros((size([look.part for look in looks]), places), np.int32)
        self.of_track = np.zeros((size([look.track or 0 for look in looks]), places), np.int32)

    def worth(self, look: Look, most: int, least: float) -> int:
        """What a look is worth to the places that lack it, on average.

        Args:
            most: observations that a place lacks none with.
            least: share of what it shows; where no more lacks it, it is worth nothing.
        """
        at = look.places
        lacking = [
            (self.count[band, at] < most) & ~self.seen[band, look.overpass, at]
            for band in look.bands
        ]
        at = at[np.logical_or.reduce(lacking)]
        pixels = self.pixels[at]
        if not pixels.sum() > least * look.shows:
            return 0
        divisors = 1 + self.of_part[look.part, at]
        if look.track is not None:
            divisors = divisors * (1 + self.of_track[look.track, at])
        # Sums of whole numbers below 2^53: exact, whatever their order.
        shares = np.bincount(divisors, weights=pixels)
        total = sum(int(n) * (WHOLE // k) for k, n in enumerate(shares.tolist()) if n)
        return max(look.worth * total // int(pixels.sum()), 1)

    def add(self, look: Look, most: int) -> np.ndarray:
        """Keep a look; which of its places have enough by now, in one of its bands."""
        at, enough = look.places, np.zeros(look.places.size, bool)
        new = (~self.seen[:, look.overpass, at]).all(axis=0)
        self.of_part[look.part, at] += new
        if look.track is not None:
            self.of_track[look.track, at] += new
        for band in look.bands:
            seen = self.seen[band, look.overpass]
            self.count[band, at] += ~seen[at]
            seen[at] = True
            enough |= self.count[band, at] == most
        return at[enough]
