"""Where a training's units lie: one country's files, or those of several trained on together.

Numbers of census units are a country's own. Where a training has several countries a unit's id
begins with the country's code, `rwa/0012`, and everything else that must not be confused between
countries goes by the unit's `key`. Nothing here loads torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from popcorn_ml.errors import ConfigError

BETWEEN = "/"
"""Between a country's code and a unit's own id; no code has it."""

MOST_APART = 4.0
"""Area of one country's pixels over another's, at most: people are scaled by area, exactly, but the
networks see a pixel for what it is, and one of twice the side shows other things."""


@dataclass(frozen=True)
class TrainingPlace:
    """The files of one country that a training has units of.

    Attributes:
        code: of the country; empty where a training has one place and does not name it.
        s1, s2, builtup, units, counts: as in `spec.TrainingSpec`.
    """

    code: str
    s1: dict[str, str]
    s2: dict[str, str]
    builtup: str
    units: str
    counts: str


def qualified(code: str, unit_id: str) -> str:
    """A unit's id as a training of a named country says it."""
    return f"{code}{BETWEEN}{unit_id}" if code else unit_id


def own_ids(ids: Iterable[str], code: str) -> set[str]:
    """Of ids that begin with a country's code, one country's, as its census has them."""
    start = f"{code}{BETWEEN}"
    return {one.removeprefix(start) for one in ids if one.startswith(start)}


def require_like_pixels(areas: Mapping[str, float]) -> None:
    """Refuse countries that cannot be trained on together for the size of their pixels.

    Args:
        areas: code -> mean area of a pixel in square metres.

    Raises:
        ConfigError: one is more than `MOST_APART` times another.
    """
    least, most = (pick(areas, key=lambda code: areas[code]) for pick in (min, max))
    if areas[most] > MOST_APART * areas[least]:
        raise ConfigError(
            "the countries' pixels are too different in size to be trained on together",
            where="training.countries",
            expected=f"areas that differ by a factor of {MOST_APART:.0f} at most",
            found=f"{least}: {areas[least]:,.1f} m2, {most}: {areas[most]:,.1f} m2",
            remedy=f"give both grids pixels of about the same size, or leave {most} or {least} out",
        )
