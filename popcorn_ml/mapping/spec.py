"""What specifications of maps share: composites by season, plain values to and from JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from popcorn_ml.errors import ConfigError
from popcorn_ml.grid import Grid
from popcorn_ml.sentinel import SEASONS, Season

Spec = TypeVar("Spec")

Composites = tuple[Path | None, Path | None]
"""Sentinel-1 and Sentinel-2 composite of a season; None where that sensor is not used."""


def read_spec(
    cls: type[Spec],
    text: str,
    what: str,
    where: str | Path | None,
    **readers: Callable[[Any], Any],
) -> Spec:
    """A specification from a JSON object.

    Args:
        cls: a dataclass; the object has its fields, and perhaps the task it is for.
        what: the error, should it be one.
        readers: field -> what makes its value of a plain one; such fields have no default.

    Raises:
        ConfigError: `what`: not JSON, a field unknown, missing, or of a value that cannot be.
    """
    names = [item.name for item in fields(cls)]  # type: ignore[arg-type]
    try:
        given = json.loads(text)
        given.pop("task", None)
        unknown = sorted(set(given) - set(names))
        if unknown:
            raise ValueError(f"unknown: {', '.join(unknown)}")
        return cls(**{**given, **{name: read(given[name]) for name, read in readers.items()}})
    except KeyError as error:
        found = f"no {error}"
    except (ValueError, TypeError, AttributeError) as error:
        found = str(error)
    raise ConfigError(
        what, where=where, expected=f"a JSON object with {', '.join(names)}", found=found
    )


def composites_as_dict(composites: Mapping[Season, Composites]) -> dict[str, Any]:
    """Composites as plain values."""
    return {
        season: {
            sensor: None if path is None else str(path)
            for sensor, path in zip(("s1", "s2"), pair, strict=True)
        }
        for season, pair in composites.items()
    }


def composites_of_dict(given: Mapping[str, Any]) -> dict[Season, Composites]:
    """The composites that `composites_as_dict` gave; errors are those of a wrong form."""
    return {
        season: tuple(None if pair.get(s) is None else Path(pair[s]) for s in ("s1", "s2"))  # type: ignore[misc]
        for season, pair in given.items()
    }


def in_season_order(composites: Mapping[Season, Composites]) -> dict[Season, Composites]:
    """The seasons given, in the order of `SEASONS`.

    Raises:
        ConfigError: none, a season that there is not, or one without any composite.
    """
    unknown = sorted(set(composites) - set(SEASONS))
    empty = [season for season, pair in composites.items() if pair[0] is None and pair[1] is None]
    if unknown or empty or not composites:
        raise ConfigError(
            "the composites are not given by season",
            where="composites",
            expected=f"one or more of {', '.join(SEASONS)}, each with a composite",
            found=", ".join(unknown or empty) or "nothing",
        )
    return {season: composites[season] for season in SEASONS if season in composites}


def check_composites(seasons: Mapping[Season, Composites], grid: Grid) -> None:
    """Refuse composites that cannot be read or lie elsewhere, before any work."""
    from popcorn_ml import raster

    for pair in seasons.values():
        for path in pair:
            if path is not None:
                raster.check(path, grid)
