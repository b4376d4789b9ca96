"""What specifications of maps share: composites by season, plain values to and from JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from popcorn_ml.errors import ConfigError
from popcorn_ml.grid import Grid
from popcorn_ml.sentinel import SEASONS, SENSORS, Season, Sensor

Spec = TypeVar("Spec")

Kind = Literal["bag", "student"]

Composites = tuple[Path | None, Path | None]
"""Sentinel-1 and Sentinel-2 composite of a season; None where that sensor is not used."""


@dataclass(frozen=True)
class MappingSpec:
    """Everything that a map depends on, as paths and plain values.

    Attributes:
        composites: season -> Sentinel-1 and Sentinel-2 composite.
        builtup: the built-up score of those seasons, bands named by season.
        members: weights of the ensemble's members; of a student alone.
        grid: on which all rasters lie.
        out: folder that the map is written into.
        tile_px: side of a tile; memory grows with it. 512, four blocks of the rasters, suits a CPU,
            2048 a GPU.
        device: auto (CUDA where there is one), cpu, cuda or cuda:N.
        precision: float32, or bfloat16 for speed on a GPU.
        threads: tiles at once; 0 takes all cores. The result does not depend on it. With a GPU at
            most `tiles.TILES_ON_A_GPU`.
        engine: compiled, openvino, torch or auto; see `engine.choice.open_engine`.
        trained_pixel_m2: area of the pixels that the members were trained on. Occupancy counts
            people in a pixel, so that of each row is multiplied with its own pixels' area over
            this. None: what the members' cards say of it; where they say nothing, as in published
            weights, people per pixel are taken as predicted.
        pixel_area_ratio: what occupancy is multiplied with besides, the same everywhere.
        leave_out: share of the country's people that pixels which are hardly built up may hold for
            the networks not to be run on them; 0 computes every pixel. See `sparing`.
        spare_below: score below which, in every season, a pixel is left out. Found from
            `leave_out` when the map is made; 0 leaves out none.
        tags: what the rasters say about themselves.
        kind: "bag", an ensemble that looks at each season by itself, or "student", one network
            that looks at all of them together (`mapping.student`).
        sensors: whose composites a student reads. Found from its weights when the map is made.
    """

    composites: Mapping[Season, Composites]
    builtup: Path
    members: Sequence[Path]
    grid: Grid
    out: Path
    tile_px: int = 512
    device: str = "auto"
    precision: str = "float32"
    threads: int = 0
    engine: str = "auto"
    trained_pixel_m2: float | None = None
    pixel_area_ratio: float = 1.0
    leave_out: float = 0.0
    spare_below: float = 0.0
    tags: Mapping[str, str] = field(default_factory=dict)
    kind: Kind = "bag"
    sensors: Sequence[Sensor] = SENSORS

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "composites": composites_as_dict(self.composites),
            "builtup": str(self.builtup),
            "members": [str(path) for path in self.members],
            "grid": self.grid.as_dict(),
            "out": str(self.out),
            "tile_px": self.tile_px,
            "device": self.device,
            "precision": self.precision,
            "threads": self.threads,
            "engine": self.engine,
            "trained_pixel_m2": self.trained_pixel_m2,
            "pixel_area_ratio": self.pixel_area_ratio,
            "leave_out": self.leave_out,
            "spare_below": self.spare_below,
            "tags": dict(self.tags),
            "kind": self.kind,
            "sensors": list(self.sensors),
        }

    def to_json(self) -> str:
        """The specification as `python -m popcorn_ml.mapping` reads it."""
        return json.dumps(self.as_dict(), indent=1)

    @classmethod
    def from_json(cls, text: str, where: str | Path | None = None) -> MappingSpec:
        """Read a specification.

        Args:
            text: what `to_json` gives; fields with a default may be left out.
            where: the file it came from, for messages.

        Raises:
            ConfigError: not JSON, or a field missing, unknown or of another form.
        """
        return read_spec(
            cls,
            text,
            "the mapping specification cannot be used",
            where,
            composites=composites_of_dict,
            builtup=Path,
            members=lambda given: tuple(Path(path) for path in given),
            grid=lambda given: Grid(**given),
            out=Path,
        )


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
