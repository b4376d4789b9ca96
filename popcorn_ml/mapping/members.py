"""Whether members fit the built-up score and the grid that they are to map, by their cards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from popcorn_ml.errors import ConfigError, WeightsError
from popcorn_ml.mapping.builtup import EXTRACTOR_TAG, extractor_of_score
from popcorn_ml.model.stored import read_card

PIXEL_AREA = "pixel_area_m2"
"""In a member's card: mean area of the pixels of the grid that it was trained on."""


def extractor_tags(members: Sequence[Path], builtup: Path) -> dict[str, str]:
    """What a map says of the extractor behind its score, which is the members'; {} if unknown.

    Raises:
        WeightsError: a member is missing, or was trained on another extractor's score.
    """
    score = extractor_of_score(builtup)
    for path in members:
        trained_on = read_card(path).get(EXTRACTOR_TAG)
        if score is not None and trained_on not in (None, score):
            raise WeightsError(
                "a member was trained on the built-up score of another extractor",
                where=path,
                expected=f"the extractor of {builtup}, fingerprint {score}",
                found=f"fingerprint {trained_on}",
                remedy="its people are those of that score: make the score with the member's "
                "extractor, or map with members that were trained on this one",
            )
    return {EXTRACTOR_TAG: score} if score else {}


def trained_pixel_m2(members: Sequence[Path]) -> float | None:
    """Area of the pixels that members were trained on; None where their cards do not say.

    Raises:
        ConfigError: they say different ones.
        WeightsError: a member is missing.
    """
    said = {read_card(path).get(PIXEL_AREA) for path in members}
    if len(said) > 1:
        raise ConfigError(
            "the members were trained on pixels of different areas",
            where="members",
            expected="members of one training",
            found=", ".join("unknown" if one is None else f"{one:.4g} m2" for one in said),
            remedy="give trained_pixel_m2, or leave out the members of another grid",
        )
    return said.pop()
