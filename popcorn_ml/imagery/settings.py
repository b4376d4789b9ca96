"""What a country's file says about its imagery. Reads YAML values; imports nothing heavy.

Each source's own settings are the `Settings` model of its module in `popcorn_ml.imagery.sources`;
they stand under the source's name:

    imagery:
      source: stac                # earthengine | files | stac
      stac: {profile: planetary-computer}
      s1_orbit: descending
      gaps: {nearest_px: 20}
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from popcorn_ml.errors import ConfigError
from popcorn_ml.imagery.source_modules import source_module, source_names
from popcorn_ml.sentinel import SCL_CLEAR, SCL_SNOW, Orbit, Sensor


class GapRules(BaseModel):
    """How pixels without a clear observation are filled, in this order; the rest stays nodata.

    Attributes:
        neighbouring_seasons: from the season before and the one after (the year as a circle): the
            mean of both where both are there, else the one that is.
        other_orbit: Sentinel-1 only, from the season's other orbit direction.
        nearest_px: from the nearest observed or filled pixel of the same band, at most this many
            pixels away; 0 = not at all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    neighbouring_seasons: bool = True
    other_orbit: bool = True
    nearest_px: int = Field(default=20, ge=0, le=200)


class CheckLimits(BaseModel):
    """When a composite is refused ("max_") or doubted ("warn_").

    Attributes:
        max_nodata_share: of the pixels asked for, in one season before filling; what
            Sentinel-1's other orbit holds counts as there, if `gaps.other_orbit` fills from it.
        warn_nodata_share: the same, of the preferred orbit alone.
        max_empty_share: of the pixels asked for, after filling.
        warn_single_share: share of pixels that rest on a single clear observation.
        value_tolerance_std: how many published standard deviations a band's median may lie from
            the published mean.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_nodata_share: float = Field(default=0.9, ge=0, le=1)
    warn_nodata_share: float = Field(default=0.2, ge=0, le=1)
    max_empty_share: float = Field(default=0.2, ge=0, le=1)
    warn_single_share: float = Field(default=0.3, ge=0, le=1)
    value_tolerance_std: float = Field(default=3.0, gt=0)


class ImagerySettings(BaseModel):
    """A country's imagery: which source, which observations count, how gaps are filled.

    Attributes:
        source: module name in `popcorn_ml.imagery.sources`.
        s1_orbit: direction of flight that Sentinel-1 composites are made of.
        s1_other_orbit: whether the other direction is fetched where the preferred leaves gaps.
        keep_snow: whether snow counts as a clear observation (scene class 11).
        max_scenes: observations of each place and season that are used, the clearest, spread over
            the season (`clearest`); None = all.
        max_cloud_cover: Sentinel-2 observations of which the catalogue says that clouds hide more
            (per cent) are not used; None = all are.
        tile_px: side of the squares that are fetched and composited one by one.
        max_lost_share: share of scenes that the catalogue may describe in a way that cannot be
            used, and of scene assets that may be missing or unreadable, before the season is
            refused instead of being made from the rest.
        gaps, checks: see there.

    Under the name of each source stand its own settings (`chosen` gives those of the chosen one).

    Raises:
        ValidationError: of pydantic; `parse` turns it into `ConfigError`.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    source: str = "stac"
    s1_orbit: Orbit = "descending"
    s1_other_orbit: bool = True
    keep_snow: bool = False
    max_scenes: int | None = Field(default=None, ge=1)
    max_cloud_cover: float | None = Field(default=None, ge=0, le=100, allow_inf_nan=False)
    tile_px: int = Field(default=1024, ge=64, le=4096)
    max_lost_share: float = Field(default=0.1, ge=0, le=1)
    gaps: GapRules = GapRules()
    checks: CheckLimits = CheckLimits()

    @field_validator("max_scenes", "max_cloud_cover", mode="before")
    @classmethod
    def _no_yes_or_no(cls, value: Any) -> Any:
        """YAML reads `yes` as true, which would count as 1."""
        if isinstance(value, bool):
            raise ValueError("Input should be a number, or be left out for no limit")
        return value

    @model_validator(mode="before")
    @classmethod
    def _read_sources(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        read = dict(values)
        for name in set(read) - set(cls.model_fields):
            if name not in source_names():
                raise ValueError(
                    f"{name!r} is neither a setting ({', '.join(cls.model_fields)}) "
                    f"nor a source ({', '.join(source_names())})"
                )
            model = source_module(name).Settings
            if not isinstance(read[name], model):
                read[name] = model.model_validate(read[name] or {})
        chosen = read.get("source", cls.model_fields["source"].default)
        if chosen not in source_names():
            raise ValueError(f"source {chosen!r} is not one of {', '.join(source_names())}")
        if chosen not in read:
            read[chosen] = source_module(chosen).Settings()
        return read

    @classmethod
    def parse(cls, values: dict[str, Any], where: str | Path = "imagery") -> ImagerySettings:
        """Settings from a country's file.

        Raises:
            ConfigError: with the setting's name, what was found and what may stand there.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise ConfigError(
                f"imagery setting {place}: {first['msg']}" if place else first["msg"],
                where=where,
                found=first.get("input") if place else None,
            ) from error

    @property
    def chosen(self) -> Any:
        """The settings of the chosen source."""
        return (self.model_extra or {})[self.source]

    def using(self, source: str) -> ImagerySettings:
        """The same with another source, for one run."""
        return type(self).parse({**self._given(), "source": source})

    def limited(
        self, max_scenes: int | None = None, max_cloud_cover: float | None = None
    ) -> ImagerySettings:
        """The same with other limits where they are given, to see what they would do."""
        given = {"max_scenes": max_scenes, "max_cloud_cover": max_cloud_cover}
        wanted = {name: value for name, value in given.items() if value is not None}
        return type(self).parse({**self._given(), **wanted})

    def rooted(self, folder: Path) -> ImagerySettings:
        """The same with every relative path of the sources taken from `folder`."""
        given = self._given()
        for name in set(given) & set(source_names()):
            paths = {
                key: folder / value
                for key, value in vars(given[name]).items()
                if isinstance(value, Path) and not value.is_absolute()
            }
            given[name] = given[name].model_copy(update=paths)
        return type(self).parse(given)

    def _given(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in type(self).model_fields}
        return {**own, **(self.model_extra or {})}

    @property
    def clear_classes(self) -> tuple[int, ...]:
        """Sentinel-2 scene classes that count as a clear observation."""
        return (*SCL_CLEAR, SCL_SNOW) if self.keep_snow else SCL_CLEAR

    @property
    def scenes_finished(self) -> bool:
        """Whether the chosen source holds finished composites, with no scenes to choose among."""
        return bool(getattr(type(self.chosen), "FINISHED", False))

    def cloud_limit(self, sensor: Sensor) -> float | None:
        """Per cent of cloud cover beyond which a sensor's scenes are not used; None = no limit.

        Sentinel-1 looks through clouds.
        """
        limited = sensor == "s2" and self.max_cloud_cover is not None and self.max_cloud_cover < 100
        return self.max_cloud_cover if limited and not self.scenes_finished else None

    @property
    def scene_limit(self) -> int | None:
        """`max_scenes`, where the chosen source has scenes to choose among."""
        return None if self.scenes_finished else self.max_scenes

    def pixel_identity(self, sensor: Sensor) -> dict[str, Any]:
        """What of `as_dict` decides the pixels of a sensor's tile, and nothing else.

        Changing how fast or how patiently something is fetched does not void finished tiles. A
        choice of scenes that chooses all of them is not named.
        """
        plain = self.as_dict()
        for name in ("gaps", "checks", "max_lost_share", "max_scenes", "max_cloud_cover"):
            plain.pop(name)
        if self.scene_limit is not None:
            plain["max_scenes"] = self.scene_limit
        if (limit := self.cloud_limit(sensor)) is not None:
            plain["max_cloud_cover"] = limit
        how_only: frozenset[str] = getattr(type(self.chosen), "HOW_ONLY", frozenset())
        plain[self.source] = {k: v for k, v in plain[self.source].items() if k not in how_only}
        return plain

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a manifest: common settings and those of the chosen source."""
        own = self.model_dump(mode="json", include=set(type(self).model_fields))
        return {**own, self.source: self.chosen.model_dump(mode="json")}
