"""What is simulated: the settings of one country and the pixels it lies on. Draws nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from popcorn_ml.errors import ConfigError
from popcorn_ml.grid import Grid

FIRST = "first"
"""The family of worlds that the demo country is of."""

TRAINING_SEEDS_FROM = 1_000_000
"""Seeds of the places that an extractor is pre-trained on; countries stay below, so that no place
is ever both."""

MARGIN_PX = 32
"""How far the simulated place reaches beyond the country on every side, in pixels of 10 m."""


@dataclass(frozen=True)
class CensusError:
    """How far a census that is published and trained on is from the truth.

    Identifiers, names and the finer level, which is kept aside for evaluation, stay exact.

    Attributes:
        counts: standard deviation of a unit's count, as a share of it.
        borders_px: how far the published borders are off at most, in pixels; the counts are
            those within the true ones.
        years_older: how much older than the images the count is.
    """

    counts: float = 0.0
    borders_px: float = 0.0
    years_older: int = 0

    def __post_init__(self) -> None:
        for name, most in (("counts", 0.5), ("borders_px", 20), ("years_older", 10)):
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise ConfigError(
                    f"census error: {name} is out of range",
                    expected=f"0 to {most}",
                    found=str(value),
                )

    def __str__(self) -> str:
        """ "counts 5 %, borders 3 px, 2 years older"; "exact"."""
        parts = []
        if self.counts:
            parts.append(f"counts {self.counts * 100:g} %")
        if self.borders_px:
            parts.append(f"borders {self.borders_px:g} px")
        if self.years_older:
            parts.append(f"{self.years_older} years older")
        return ", ".join(parts) or "exact"


@dataclass(frozen=True)
class CountrySpec:
    """One simulated country.

    Attributes:
        code: names the country in identifiers.
        seed: of everything drawn, below `TRAINING_SEEDS_FROM`; two countries with one seed and
            size are the same.
        crs: a metric CRS (UTM) for the country's grid and for its scenes.
        utm_zone: the zone of `crs`, as the tile identifiers write it ("36M").
        west, north: outer corner of the first pixel in metres, multiples of 100 m.
        width, height: pixels of 10 m, multiples of 10.
        base_year: the year whose extent the settlements are laid out for; they grow from there.
        urban_share: share of the place that is laid out as town by then, 0..1.
        coarse_units: census units that are published with counts, and trained on.
        fine_units_each: mean number of finer units in a coarse one, for evaluation.
        s2_dates: Sentinel-2 acquisitions a season of the orbit that sees the whole country.
        s2_edge_dates: acquisitions a season of the orbit whose swath ends inside the country.
        s1_passes: Sentinel-1 passes a season and orbit direction.
        family: which family of worlds it is drawn by, one of `family.FAMILIES`.
        census_error: how far its census is from the truth.
    """

    code: str = "demo"
    seed: int = 20
    crs: str = "EPSG:32736"
    utm_zone: str = "36M"
    west: float = 312300.0
    north: float = 9755700.0
    width: int = 770
    height: int = 770
    base_year: int = 2020
    urban_share: float = 0.2
    coarse_units: int = 80
    fine_units_each: int = 4
    s2_dates: int = 4
    s2_edge_dates: int = 1
    s1_passes: int = 4
    family: str = FIRST
    census_error: CensusError = CensusError()

    def __post_init__(self) -> None:
        if not 0 <= self.seed < TRAINING_SEEDS_FROM:
            raise ValueError(f"seed {self.seed} is not in 0..{TRAINING_SEEDS_FROM - 1}")
        for name in ("west", "north"):
            if getattr(self, name) % 100:
                raise ValueError(f"{name} = {getattr(self, name)} is not a multiple of 100 m")
        for name in ("width", "height"):
            if getattr(self, name) % 10 or getattr(self, name) < 10:
                raise ValueError(f"{name} = {getattr(self, name)} is not whole hectares")

    @property
    def grid(self) -> Grid:
        """The country's grid."""
        return Grid(self.crs, self.west, self.north, 10.0, self.width, self.height)

    @property
    def place_grid(self) -> Grid:
        """The grid of everything that is simulated: the country and `MARGIN_PX` around it."""
        margin = MARGIN_PX * 10.0
        return Grid(
            self.crs,
            self.west - margin,
            self.north + margin,
            10.0,
            self.width + 2 * MARGIN_PX,
            self.height + 2 * MARGIN_PX,
        )

    def as_dict(self) -> dict[str, object]:
        """Plain values for a manifest; `from_dict` reads them back.

        What is as in the first family with an exact census is not said: countries that were
        written before there was another are the same as now.
        """
        values = asdict(self)
        for name in ("family", "census_error"):
            if getattr(self, name) == getattr(CountrySpec, name):
                del values[name]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CountrySpec:
        """The specification that `as_dict` wrote."""
        known = dict(values)
        if "census_error" in known:
            known["census_error"] = CensusError(**known["census_error"])
        return cls(**known)


def demo_grid() -> Grid:
    """The grid of the demo country: 770 x 770 pixels of 10 m (77 x 77 hectares) in EPSG:32736."""
    return CountrySpec().grid
