"""What a season's catalogue offers, what is chosen of it, and how much of the ground that leaves.

    Offered(found, request, tiles).choose(most, limit) -> SceneList
    Offered(found, request, tiles).depth(most, limit) -> Depth

Granules of one overpass and Sentinel-2 tile go together, and so do all scenes of one pass of
Sentinel-1. A scene whose catalogue does not say how cloudy it is is never refused for it, and is
ranked as the season's median scene: unknown is not 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from popcorn_ml.grid import Tile
from popcorn_ml.imagery.clearest import Look, clearest
from popcorn_ml.imagery.overpasses import by_overpass
from popcorn_ml.imagery.places import Places, faces
from popcorn_ml.imagery.source import LeftOut, Scene, SceneList, SeasonRequest

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

PARTS = 6
"""Parts of the season, a fortnight each, over which clear observations are spread."""

COVER_STEP = 5.0
"""Per cent of cloud cover that are one: a catalogue has one number for 12 000 square kilometres.
Of observations about as clear, that which shows more is taken, so that no other has to be for the
corner that it lacks."""

UNKNOWN_COVER = 50.0
"""Cloud cover (per cent) that scenes are taken to have where none of a season says."""

PASSED_OVER = ("too_cloudy", "beyond_max_scenes", "elsewhere")
"""Why a scene is not used."""

NARROW_DEG = 1e-4
"""What is narrower than a pixel is no place."""


@dataclass(frozen=True)
class Depth:
    """What a choice of scenes means for a pixel that is asked for, on average.

    Attributes:
        scenes: in all.
        read: scenes that lie over a pixel.
        covers: of each share of these, how cloudy: (scenes over a pixel, cloud cover 0..1).
        empty: likely share of pixels that no observation shows clear; None for Sentinel-1.
    """

    scenes: int
    read: float
    covers: tuple[tuple[float, float], ...] = ()
    empty: float | None = None


@dataclass(frozen=True, eq=False)
class _Piece:
    """Scenes that go together, what they show, and how cloudy they are (per cent)."""

    scenes: tuple[Scene, ...]
    overpass: int
    outline: BaseGeometry
    cover: float | None


class Offered:
    """The scenes of a season, looked at place by place.

    Args:
        found: at least one scene, every one with its moment.
        request: sensor, season, grid.
        tiles: which are asked for.
    """

    def __init__(self, found: SceneList, request: SeasonRequest, tiles: Sequence[Tile]) -> None:
        self._found, self._request = found, request
        self._places = Places(request.grid, tiles)
        self._pieces = self._gathered()
        said = [piece.cover for piece in self._pieces if piece.cover is not None]
        self._typical = median(said) if said else UNKNOWN_COVER
        self._clearest = min(said, default=None)
        covers = [self._places.under(piece.outline) for piece in self._pieces]
        face = faces(covers, len(self._places.pixels))
        self._pixels = np.bincount(face, weights=self._places.pixels).astype(np.int64)
        self._covers = [np.unique(face[held]) for held in covers]

    def choose(self, most: int | None, limit: float | None) -> SceneList:
        """The scenes to use, in their order, and why the others are not.

        Args:
            most: observations of each place; None = all.
            limit: per cent of cloud cover; None = any.
        """
        kept = self._kept(most, limit)
        names = {scene.id for number in kept for scene in self._pieces[number].scenes}
        why = {
            scene.id: self._why_not(number, most, limit)
            for number, piece in enumerate(self._pieces)
            for scene in piece.scenes
        }
        refused = [scene.id for scene in self._found.scenes if scene.id not in names]
        return replace(
            self._found,
            scenes=tuple(scene for scene in self._found.scenes if scene.id in names),
            not_chosen=tuple(LeftOut(name, why[name][1]) for name in refused),
            choice={
                "max_scenes": most,
                "max_cloud_cover": limit,
                "offered": len(self._found.scenes),
                "kept": len(names),
                **{kind: sum(why[name][0] == kind for name in refused) for kind in PASSED_OVER},
                **self._told(kept),
            },
        )

    def _why_not(self, number: int, most: int | None, limit: float | None) -> tuple[str, str]:
        """Why a piece is passed over, if it is: one of `PASSED_OVER`, and in words."""
        cloudy, beyond, elsewhere = PASSED_OVER
        piece = self._pieces[number]
        if self._beyond(piece, limit):
            return cloudy, f"cloud cover {piece.cover:g} %, more than {limit:g} %"
        if not self._covers[number].size:
            return elsewhere, "shows nothing of what is asked for that others do not"
        return beyond, f"what it shows has {most} others, clearer or better spread"

    def depth(self, most: int | None, limit: float | None) -> Depth:
        """What a choice means for a pixel; arguments as of `choose`."""
        kept = self._kept(most, limit)
        asked = int(self._pixels.sum())
        over = [int(self._pixels[self._covers[number]].sum()) / asked for number in kept]
        covers = [self._cover(self._pieces[number]) / 100 for number in kept]
        return Depth(
            sum(len(self._pieces[number].scenes) for number in kept),
            math.fsum(over),
            tuple(zip(over, covers, strict=True)),
            self._empty(kept) if self._request.sensor == "s2" else None,
        )

    # What there is

    def _gathered(self) -> list[_Piece]:
        import shapely

        together: dict[tuple, list[Scene]] = {}
        for number, overpass in enumerate(by_overpass(self._found.scenes)):
            for scene in overpass:
                which = scene.bands if self._request.sensor == "s1" else scene.tile or scene.id
                together.setdefault((number, which), []).append(scene)
        pieces = []
        for (number, _), scenes in together.items():
            outlines = [self._places.outline(scene) for scene in scenes]
            known = [
                (shape.area, scene.cloud_cover)
                for shape, scene in zip(outlines, scenes, strict=True)
                if scene.cloud_cover is not None
            ]
            area = math.fsum(size for size, _ in known)
            cover = math.fsum(size * cloud for size, cloud in known) / area if known else None
            cover = None if cover is None else round(cover, 6)
            pieces.append(_Piece(tuple(scenes), number, shapely.union_all(outlines), cover))
        return pieces

    def _cover(self, piece: _Piece) -> float:
        return self._typical if piece.cover is None else piece.cover

    def _beyond(self, piece: _Piece, limit: float | None) -> bool:
        return limit is not None and piece.cover is not None and piece.cover > limit

    def _looks(self, most: int) -> list[Look]:
        """What every piece shows, as `clearest` wants it."""
        request = self._request
        period, own = request.period, request.sensor == "s1"
        parts = min(most, len(self._pieces)) if own else min(most, PARTS)
        length = (period.end - period.start) / parts
        tracks = sorted({s.relative_orbit or 0 for s in self._found.scenes}) if own else []
        looks = []
        for piece, places in zip(self._pieces, self._covers, strict=True):
            first = min(piece.scenes, key=lambda scene: (_moment(scene), scene.id))
            moment = _moment(first)
            part = min(int((moment - period.start) / length), parts - 1)
            middle = period.start + (part + 0.5) * length
            bands = tuple(n for n, band in enumerate(request.bands) if first.holds(band))
            clear = 100 * len(bands) / len(request.bands) if own else 100 - self._cover(piece)
            looks.append(
                Look(
                    name=first.id,
                    moment=moment,
                    overpass=piece.overpass,
                    worth=1 + round(clear / COVER_STEP),
                    places=places,
                    shows=int(self._pixels[places].sum()),
                    part=part,
                    off_middle=abs(moment - middle) / timedelta(seconds=1),
                    track=tracks.index(first.relative_orbit or 0) if own else None,
                    bands=bands if own else (0,),
                )
            )
        return looks

    # What is kept of it

    def _kept(self, most: int | None, limit: float | None) -> list[int]:
        """Which pieces, by their numbers."""
        allowed = [n for n, one in enumerate(self._pieces) if not self._beyond(one, limit)]
        if most is None or not allowed:
            return allowed
        looks = self._looks(most)
        numbers = {id(looks[n]): n for n in allowed}
        offered = [looks[n] for n in allowed]
        kept = [numbers[id(look)] for look in clearest(offered, self._pixels, most)]
        for band in sorted({band for look in offered for band in look.bands}):
            having = [n for n in allowed if band in looks[n].bands]
            kept += self._narrow(looks, having, kept)
        return sorted(kept)

    def _narrow(self, looks: list[Look], having: list[int], kept: list[int]) -> list[int]:
        """Pieces that show what no kept one does: strips too narrow to be places."""
        import shapely

        def wide(shape: BaseGeometry) -> BaseGeometry:
            return shape.buffer(-NARROW_DEG / 2, join_style="mitre")

        outlines = {number: self._pieces[number].outline for number in having}
        shown = shapely.union_all([outlines[n] for n in having if n in kept])
        left = wide(shapely.difference(shapely.union_all(list(outlines.values())), shown))
        if left.is_empty:
            return []
        left, found = wide(left.intersection(self._places.asked)), []
        waiting = [number for number in having if number not in kept]
        while waiting and not left.is_empty:
            share = {n: round(left.intersection(outlines[n]).area / left.area, 2) for n in waiting}
            best = min(waiting, key=lambda n: (-share[n], looks[n].order))
            waiting.remove(best)
            if not wide(left.intersection(outlines[best])).is_empty:
                found.append(best)
            left = wide(left.difference(outlines[best]))
        return found

    # What it leaves

    def _observed(self, numbers: Iterable[int]) -> np.ndarray:
        """Observations of each face."""
        held: dict[int, np.ndarray] = {}
        for number in numbers:
            overpass = self._pieces[number].overpass
            seen = held.setdefault(overpass, np.zeros(len(self._pixels), bool))
            seen[self._covers[number]] = True
        counts = np.zeros(len(self._pixels), np.int64)
        for seen in held.values():
            counts += seen
        return counts

    def _empty(self, numbers: Iterable[int]) -> float:
        """Likely share of pixels without a clear observation, were clouds independent."""
        best: dict[int, np.ndarray] = {}
        for number in numbers:
            piece = self._pieces[number]
            hidden = best.setdefault(piece.overpass, np.ones(len(self._pixels)))
            at = self._covers[number]
            hidden[at] = np.minimum(hidden[at], self._cover(piece) / 100)
        left = np.ones(len(self._pixels))
        for overpass in sorted(best):
            left *= best[overpass]
        return float((left * self._pixels).sum() / self._pixels.sum())

    def _told(self, kept: list[int]) -> dict[str, Any]:
        everything = range(len(self._pieces))
        offered, held = self._observed(everything), self._observed(kept)
        asked = int(self._pixels.sum())
        gone = int(self._pixels[(offered > 0) & (held == 0)].sum())
        told: dict[str, Any] = {
            "observations_a_place": {
                name: _spread(counts, self._pixels)
                for name, counts in (("offered", offered), ("kept", held))
            },
            "left_without_share": round(gone / asked, 6),
        }
        if self._request.sensor == "s2":
            told["cloud_cover_unknown"] = sum(
                scene.cloud_cover is None for scene in self._found.scenes
            )
            told["clearest"] = self._clearest
            told["likely_empty_share"] = {
                "offered": round(self._empty(everything), 6),
                "kept": round(self._empty(kept), 6),
            }
        return told


def _moment(scene: Scene) -> datetime:
    if scene.moment is None:
        raise ValueError(f"{scene.id} does not say when it was sensed")
    return scene.moment


def _spread(counts: np.ndarray, pixels: np.ndarray) -> dict[str, float | int]:
    """Least, median, mean and most of what pixels have."""
    order = np.argsort(counts, kind="stable")
    reached = np.cumsum(pixels[order])
    middle = int(np.searchsorted(reached, (reached[-1] + 1) // 2))
    return {
        "min": int(counts.min()),
        "median": int(counts[order][middle]),
        "mean": round(float((counts * pixels).sum() / pixels.sum()), 3),
        "max": int(counts.max()),
    }
