"""The scenes of a season: asked for once, kept for a resumed run, refused if too few are left."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from popcorn_ml.errors import ImageryError
from popcorn_ml.grid import Tile
from popcorn_ml.imagery.scratch import Scratch
from popcorn_ml.imagery.source import (
    LeftOut,
    Lost,
    Scene,
    SceneList,
    SeasonRequest,
    Source,
    opposite,
    scene_from_dict,
)

if TYPE_CHECKING:
    from popcorn_ml.imagery.settings import ImagerySettings


SCENES = "scenes.json"
"""Where the lists are kept."""


def scene_lists(
    source: Source,
    request: SeasonRequest,
    settings: ImagerySettings,
    scratch: Scratch,
    tiles: Sequence[Tile],
) -> tuple[SceneList, SceneList | None]:
    """Scenes of the preferred and of the other orbit, as they were when the fetch began.

    A catalogue that described some in a way that cannot be used is asked again, for it may have
    been mended; of the finished tiles those stay that the difference does not touch.

    Raises:
        ImageryError: there are none, or too many of them cannot be used; what the catalogue
            answered is then not kept, for it may answer otherwise tomorrow.
    """
    before = _kept(scratch)
    if before and not any(one.lost for one in before):
        return before[0], before[1] if len(before) > 1 else None
    lists = [source.scenes(request)]
    if request.orbit is not None and settings.s1_other_orbit:
        lists.append(source.scenes(request.on_orbit(opposite(request.orbit))))
    try:
        if not any(one.scenes for one in lists):
            raise _nothing_found(request, settings, lists)
        _refuse_unusable(request, settings, lists)
        lists = [chosen_scenes(one, request, settings, tiles) for one in lists]
        if not any(one.scenes for one in lists):
            raise _none_clear(request, settings, lists)
    except ImageryError:
        if not before:
            scratch.discard()
        raise
    if before:
        _drop_changed(before, lists, request, scratch, tiles)
    scratch.keep_json(SCENES, [_plain(one) for one in lists])
    return lists[0], lists[1] if len(lists) > 1 else None


def chosen_scenes(
    found: SceneList, request: SeasonRequest, settings: ImagerySettings, tiles: Sequence[Tile]
) -> SceneList:
    """Those scenes that the country's file wants used; all of them where it has no limit.

    Args:
        found: of one orbit.
        tiles: which are asked for; the choice is made for the places in them.
    """
    most, limit = settings.scene_limit, settings.cloud_limit(request.sensor)
    if not found.scenes or (most is None and limit is None):
        return found
    from popcorn_ml.imagery.offered import Offered

    return Offered(found, request, tiles).choose(most, limit)


def _kept(scratch: Scratch) -> list[SceneList]:
    return [_unplain(one) for one in scratch.read_json(SCENES) or () if one]


def kept_lists(scratch: Scratch) -> tuple[SceneList, SceneList | None]:
    """What `scene_lists` kept.

    Raises:
        ImageryError: nothing is there.
    """
    found = _kept(scratch)
    if not found:
        raise ImageryError(
            "the scenes of the season are not where they were kept",
            where=scratch.folder / SCENES,
            remedy="see whether something empties this folder, and whether all machines see it",
        )
    return found[0], found[1] if len(found) > 1 else None


def _drop_changed(
    before: Sequence[SceneList],
    now: Sequence[SceneList],
    request: SeasonRequest,
    scratch: Scratch,
    tiles: Sequence[Tile],
) -> None:
    """Forget the tiles that scenes reach which came, went or changed since they were finished."""
    from popcorn_ml.imagery.nearest import bounds_meet, lonlat_bounds

    sets = [{_pixels_of(scene) for one in lists for scene in one.scenes} for lists in (before, now)]
    boxes = [json.loads(text)["bbox"] for text in sets[0] ^ sets[1]]
    for tile in tiles if boxes else ():
        place = lonlat_bounds(request.grid.subgrid(tile.core))
        if any(box is None or bounds_meet(box, place) for box in boxes):
            scratch.drop_tile(tile.index)


def _pixels_of(scene: Scene) -> str:
    """What of a scene decides pixels, as a text."""
    return json.dumps(replace(scene, cloud_cover=None).as_dict(), sort_keys=True)


def _refuse_unusable(
    request: SeasonRequest, settings: ImagerySettings, lists: Sequence[SceneList]
) -> None:
    """Refuse a season whose catalogue describes too many scenes in a way that nobody can use.

    Raises:
        ImageryError: more scenes lost than `max_lost_share` of all.
    """
    lost = {one.scene: one.reason for scenes in lists for one in scenes.lost}
    usable = {scene.id for scenes in lists for scene in scenes.scenes} - set(lost)
    share = len(lost) / max(len(lost) + len(usable), 1)
    if share <= settings.max_lost_share:
        return
    reasons = Counter(lost.values()).most_common()
    told = "; ".join(f"{count} x {reason}" for reason, count in reasons[:3])
    more = f"; and {len(reasons) - 3} other reasons" if len(reasons) > 3 else ""
    raise ImageryError(
        f"{len(lost)} of {len(lost) + len(usable)} scenes of {request} cannot be used",
        where=f"imagery source {settings.source}",
        expected=f"at most {settings.max_lost_share:.0%} (imagery.max_lost_share)",
        found=f"{share:.1%}: {told}{more}; first: {min(lost)}",
        remedy="have the catalogue's items completed, choose another source, or raise the limit",
    )


def _plain(scenes: SceneList) -> dict[str, Any]:
    return {
        "scenes": [scene.as_dict() for scene in scenes.scenes],
        "duplicates": list(scenes.duplicates),
        "lost": [asdict(one) for one in scenes.lost],
        "left_out": [asdict(one) for one in scenes.left_out],
        "not_chosen": [asdict(one) for one in scenes.not_chosen],
        "choice": scenes.choice,
    }


def _unplain(kept: dict[str, Any]) -> SceneList:
    return SceneList(
        tuple(scene_from_dict(scene) for scene in kept["scenes"]),
        tuple(kept["duplicates"]),
        tuple(Lost(**one) for one in kept["lost"]),
        tuple(LeftOut(**one) for one in kept["left_out"]),
        tuple(LeftOut(**one) for one in kept.get("not_chosen", ())),
        kept.get("choice"),
    )


def _nothing_found(
    request: SeasonRequest, settings: ImagerySettings, lists: Sequence[SceneList]
) -> ImageryError:
    lost = sorted({one for found in lists for one in found.lost}, key=lambda one: one.scene)
    left = sorted({one for found in lists for one in found.left_out}, key=lambda one: one.scene)
    unusable = f"; {len(lost)} unusable, first: {lost[0].reason}" if lost else ""
    if left:
        unusable += f"; {len(left)} of another kind, first: {left[0].reason}"
    sought = " or ".join(found.sought for found in lists if found.sought)
    return ImageryError(
        f"there is not a single scene of {request}",
        where=f"imagery source {settings.source}",
        expected=sought
        or f"scenes from {request.period.start:%Y-%m-%d} to before "
        f"{request.period.end:%Y-%m-%d} over {tuple(round(v, 5) for v in request.grid.bounds)}",
        found=f"none{unusable}",
        remedy="check the year, the grid's box and CRS, and that the source holds this period",
    )


def _none_clear(
    request: SeasonRequest, settings: ImagerySettings, lists: Sequence[SceneList]
) -> ImageryError:
    clearest = min(float((found.choice or {})["clearest"]) for found in lists)
    count = sum(found.offered for found in lists)
    return ImageryError(
        f"each of the {count} scenes of {request} is cloudier than the country's file allows",
        where="imagery.max_cloud_cover",
        expected=f"at most {settings.max_cloud_cover:g} %",
        found=f"the clearest has {clearest:g} %",
        remedy=f"raise imagery.max_cloud_cover to {math.ceil(clearest)} or more: a season without "
        "any scene is not made, and gaps are filled from the others only where it is",
    )
