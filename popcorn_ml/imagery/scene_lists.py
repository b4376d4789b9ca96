"""The scenes of a season: asked for once, kept for a resumed run, refused if too few are left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from popcorn_ml.errors import ImageryError
from popcorn_ml.imagery.scratch import Scratch
from popcorn_ml.imagery.source import (
    Lost,
    SceneList,
    SeasonRequest,
    Source,
    opposite,
    scene_from_dict,
)

if TYPE_CHECKING:
    from popcorn_ml.imagery.settings import ImagerySettings


def scene_lists(
    source: Source, request: SeasonRequest, settings: ImagerySettings, scratch: Scratch
) -> tuple[SceneList, SceneList | None]:
    """Scenes of the preferred and of the other orbit, as they were when the fetch began.

    Raises:
        ImageryError: there are none, or too many of them cannot be used; what the catalogue
            answered is then not kept, for it may answer otherwise tomorrow.
    """
    kept = scratch.read_json("scenes.json")
    if kept is not None:
        main, other = _unplain(kept[0]), kept[1] and _unplain(kept[1])
    else:
        main, other = source.scenes(request), None
        if request.orbit is not None and settings.s1_other_orbit:
            other = source.scenes(request.on_orbit(opposite(request.orbit)))
    lists = [main, *([other] if other else ())]
    try:
        if not any(one.scenes for one in lists):
            raise _nothing_found(request, settings, lists)
        _refuse_unusable(request, settings, lists)
    except ImageryError:
        scratch.discard()  # also a list kept under a more generous limit, and its tiles
        raise
    if kept is None:
        scratch.keep_json("scenes.json", [_plain(main), other and _plain(other)])
    return main, other


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
    }


def _unplain(kept: dict[str, Any]) -> SceneList:
    return SceneList(
        tuple(scene_from_dict(scene) for scene in kept["scenes"]),
        tuple(kept["duplicates"]),
        tuple(Lost(**one) for one in kept["lost"]),
    )


def _nothing_found(
    request: SeasonRequest, settings: ImagerySettings, lists: Sequence[SceneList]
) -> ImageryError:
    lost = sorted({one for found in lists for one in found.lost}, key=lambda one: one.scene)
    unusable = f"; {len(lost)} unusable, first: {lost[0].reason}" if lost else ""
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
