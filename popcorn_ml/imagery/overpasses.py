"""Scenes put in order: of several processings the last, of several granules one observation.

Plain values, no network; alike for STAC catalogues and for Earth Engine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from popcorn_ml.imagery.source import Scene
from popcorn_ml.sentinel import Period

OVERPASS_GAP = timedelta(minutes=25)
"""Between scenes of one satellite over one place: longer, and it has been round the Earth.

A satellite passes over the longest country in some ten minutes and comes back on the neighbouring
track after 98 to 101; towards the poles the two tracks overlap, and both see the place in a day.
"""


def strip_start(name: object) -> str:
    """When the strip of a Sentinel-2 datastrip's name was sensed, "20200731T081835"; or "".

    The name holds the receiving station as well ("SGS_", "S2RP"), which may begin like it.
    """
    found = re.search(r"_S(\d{8}T\d{6})", name) if isinstance(name, str) else None
    return found[1] if found else ""


def in_period(scenes: Iterable[Scene], period: Period) -> list[Scene]:
    """Those sensed from the period's start up to, not including, its end."""
    return [scene for scene in scenes if scene.moment in period]


def without_duplicates(scenes: Iterable[Scene]) -> tuple[tuple[Scene, ...], tuple[str, ...]]:
    """Of several processings of one scene, the last; and the ids of the others.

    One scene is one satellite, tile and sensing time, and, where a granule was cut in two on the
    ground, one strip. Later means a higher baseline, then a later processing time, then the id.

    Returns:
        Scenes ordered by time, then id, whatever the order they came in; ids dropped, sorted.
    """
    best: dict[tuple, Scene] = {}
    dropped: list[str] = []
    for scene in scenes:
        where = scene.tile or (scene.bbox and tuple(round(v, 3) for v in scene.bbox))
        key = (scene.platform, where, scene.moment, scene.strip, scene.orbit)
        rival = best.get(key)
        if rival is None:
            best[key] = scene
            continue
        keep, drop = (scene, rival) if _version(scene) > _version(rival) else (rival, scene)
        best[key] = keep
        if drop.id != keep.id:  # pages of a catalogue may repeat an item
            dropped.append(drop.id)
    return tuple(sorted(best.values(), key=_when)), tuple(sorted(dropped))


def by_overpass(scenes: Sequence[Scene]) -> list[list[Scene]]:
    """Scenes of each overpass of a satellite, in the order of time; the latest processing first.

    Granules of an overpass overlap and show the same observation: it must count once, and the
    first of the list that has the pixel gives it. An overpass goes on across midnight and across
    the antimeridian.
    """
    found: list[list[Scene]] = []
    for platform in sorted({scene.platform for scene in scenes}):
        own = sorted((scene for scene in scenes if scene.platform == platform), key=_when)
        for before, scene in zip([None, *own], own, strict=False):
            if before is None or _when(scene)[0] - _when(before)[0] > OVERPASS_GAP:
                found.append([])
            found[-1].append(scene)
    found.sort(key=lambda overpass: _when(overpass[0]))
    return [
        sorted(sorted(overpass, key=lambda s: s.id), key=_processing, reverse=True)
        for overpass in found
    ]


def _when(scene: Scene) -> tuple[datetime, str]:
    return scene.moment or datetime.min.replace(tzinfo=UTC), scene.id


def _version(scene: Scene) -> tuple:
    return (*_processing(scene), scene.id)


def _processing(scene: Scene) -> tuple[int, int, str]:
    """Later processings sort later."""
    said = re.match(r"(\d+)\.?(\d*)", scene.baseline or "")
    major, minor = (int(said[1]), int(said[2] or 0)) if said else (0, 0)
    return major, minor, re.sub(r"\D", "", scene.processed).ljust(20, "0")
