"""What checkpoints are trained from: the files of each country whose units they are trained on.

Most have one, their own. With several, what cannot be learned from together is refused before
anything is trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popcorn_assets.assets.builtup import BUILTUP, builtup_of_composites, extractor_file
from popcorn_assets.assets.census import counts_file, units_raster
from popcorn_assets.assets.extractors import UNKNOWN, Extractor, extractor_of
from popcorn_assets.assets.imagery import composites_by_season, provenance
from popcorn_assets.country import Country, country_files, load_country
from popcorn_assets.promotion.trained_on import COUNTRIES
from popcorn_assets.store.making import Making
from popcorn_assets.store.versions import Address, Store, Version
from popcorn_ml.errors import ConfigError, StoreError
from popcorn_ml.sentinel import Season, Sensor
from popcorn_ml.training.places import TrainingPlace, require_like_pixels

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "training.countries"

READ = ("s1_composites", "s2_composites", "builtup_area", "census_units", "census_counts")
"""Assets that are read of every country."""


@dataclass(frozen=True)
class CountryInputs:
    """What members are trained from of one country, as files, and what must fit the others.

    Attributes:
        code: of the country.
        level: of its census units.
        pixel_area_m2: mean of its grid.
        provenance: of its composites, by sensor.
    """

    code: str
    composites: dict[Season, tuple[Path, Path]]
    score: Version
    units: Path
    counts: Path
    level: str
    pixel_area_m2: float
    provenance: Mapping[Sensor, Mapping[str, str]]

    def as_place(self, *, named: bool) -> TrainingPlace:
        """For a training's specification."""
        return TrainingPlace(
            code=self.code if named else "",
            s1={season: str(s1) for season, (s1, _) in self.composites.items()},
            s2={season: str(s2) for season, (_, s2) in self.composites.items()},
            builtup=str(self.score.file(BUILTUP)),
            units=str(self.units),
            counts=str(self.counts),
        )


@dataclass(frozen=True)
class CheckpointInputs:
    """What a country-year's members are trained from.

    Attributes:
        countries: whose units; the first is the one that the others' pixels are scaled to.
        extractor: weights that training begins from.
        named: whether ids begin with a country's code: they do, but for a country's own units
            alone.
    """

    countries: tuple[CountryInputs, ...]
    extractor: Path
    named: bool

    def places(self) -> tuple[TrainingPlace, ...]:
        """For a training's specification."""
        return tuple(one.as_place(named=self.named) for one in self.countries)

    def parameters(self) -> dict[str, Any]:
        """As the manifest has them: those of the first country, and where named, of each."""
        first = self.countries[0]
        found: dict[str, Any] = {
            "level": first.level,
            "pixel_area_m2": first.pixel_area_m2,
            "provenance": first.provenance,
        }
        if self.named:
            found[COUNTRIES] = [
                {
                    "code": one.code,
                    "level": one.level,
                    "pixel_area_m2": one.pixel_area_m2,
                    "provenance": one.provenance,
                }
                for one in self.countries
            ]
        return found


def checkpoint_inputs(making: Making, country: Country) -> CheckpointInputs:
    """What a country's checkpoints are trained from, noted as inputs.

    Raises:
        StoreError, ConfigError: something of one of the countries is missing, does not belong to
            the rest of it, or cannot be trained on together with the first country's.
    """
    found = []
    for code in country.trained_on():
        with _told_of(making, country, code):
            found.append(_of_country(making, code))
    inputs = CheckpointInputs(
        tuple(found), extractor_file(making, country), country.trained_with_others
    )
    if inputs.named:
        _require_alike(making, country, inputs)
    return inputs


def lacking(store: Store, country: Country, year: int) -> str:
    """What other countries' parts of a training are not in the store; empty where all are.

    It is known before anything of the country itself is fetched.
    """
    others = [code for code in country.trained_on() if code != country.code]
    missing = {
        code: [asset for asset in READ if store.find(Address(asset, code, year)) is None]
        for code in others
    }
    return "; ".join(
        f"{country.code}|{year} is trained on units of {code}|{year} as well, which has no "
        f"{', '.join(assets)}: popcorn run {code} {year} --job prepare"
        for code, assets in missing.items()
        if assets
    )


def _of_country(making: Making, code: str) -> CountryInputs:
    country = load_country(code)
    of, level = _reading_of(making, code), country.census.train_level
    return CountryInputs(
        code=code,
        composites=composites_by_season(of),
        score=builtup_of_composites(of),
        units=units_raster(of, level),
        counts=counts_file(of, level),
        level=level,
        pixel_area_m2=of.grid(country).pixel_area_m2,
        provenance=provenance(of),
    )


def _reading_of(making: Making, code: str) -> Making:
    """The same materialisation, its inputs taken from another country's partition of the year.

    What is noted of either is noted of both. It is for reading only: nothing is made with it.
    """
    other = copy(making)
    other.country, other.address = code, replace(making.address, country=code)
    return other


@contextmanager
def _told_of(making: Making, country: Country, code: str) -> Iterator[None]:
    """Say of another country's error why that country is asked, and how its part is made."""
    try:
        yield
    except StoreError as error:
        if code == country.code:
            raise
        raise StoreError(
            f"{making.address} is trained on units of {code}|{making.year} as well, which is not "
            f"ready: {error.what}",
            where=error.where,
            expected=error.expected,
            found=error.found,
            remedy=f"{f'{error.remedy}; ' if error.remedy else ''}"
            f"popcorn run {code} {making.year} --job prepare, or take {code} out of {KEY} "
            f"in {country_files()[country.code]}",
        ) from error


def _require_alike(making: Making, country: Country, inputs: CheckpointInputs) -> None:
    """Refuse countries whose pixels or images are not of one kind.

    Raises:
        ConfigError: pixels too different in size, or other physical quantities.
    """
    from popcorn_ml.imagery.checks import backscatter_check

    require_like_pixels({one.code: one.pixel_area_m2 for one in inputs.countries})
    first = inputs.countries[0]
    for other in inputs.countries[1:]:
        for sensor, of_first in first.provenance.items():
            of_other = other.provenance[sensor]
            differing = backscatter_check(of_first, of_other).metadata
            if not differing:
                continue
            one, two = (_quantity(of, differing) for of in (of_first, of_other))
            raise ConfigError(
                f"{first.code} and {other.code} cannot be trained on together: their composites of "
                f"{sensor} in {making.year} hold different quantities",
                where=f"{country_files()[country.code]}: {KEY}",
                expected=f"{one}, as {first.code} has it",
                found=f"{two} in {other.code}",
                remedy=f"give {other.code} and {first.code} the same source under `imagery`, then "
                f"popcorn run {other.code} {making.year} --job prepare; or leave one of them out",
            )


def _quantity(provenance: Mapping[str, str], keys: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {provenance.get(key) or 'not known'}" for key in keys)


def of_one_extractor(making: Making, inputs: CheckpointInputs) -> Extractor:
    """The extractor of every score, which is the one that training begins from.

    Raises:
        StoreError: a score was made with another extractor, or it is not known with which.
    """
    begun, score = Extractor.of_file(inputs.extractor), None
    for one in inputs.countries:
        score = extractor_of(making.store, one.score)
        if score is None or score.fingerprint != begun.fingerprint:
            own = one.code == making.country
            raise StoreError(
                "the built-up score was made with another extractor than training would begin from",
                where=one.score.path,
                expected=f"a score of the extractor {begun}, which the file of {making.country} "
                "names"
                if not own
                else f"a score of the extractor {begun}, which the country's file names",
                found=str(score or UNKNOWN),
                remedy=f"materialise {one.score.address} again, then train"
                if own
                else f"give both countries one `extractor`, then popcorn run {one.code} "
                f"{making.year} --job prepare, and train",
            )
    assert score is not None
    return score
