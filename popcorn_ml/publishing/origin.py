"""What a publication is made of: the versions' files and manifests, and on which terms."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from popcorn_ml.grid import Grid
from popcorn_ml.publishing.unit_tables import UnitRows
from popcorn_ml.sentinel import SENSORS, Sensor

Manifest = Mapping[str, Any]

SATELLITES: Mapping[Sensor, str] = {"s1": "Sentinel-1", "s2": "Sentinel-2"}

COPERNICUS_TERMS = (
    "https://sentinels.copernicus.eu/documents/247904/690755/Sentinel_Data_Legal_Notice"
)


@dataclass(frozen=True)
class Terms:
    """Under which terms a publication may be used, as its publisher says.

    Attributes:
        licence: SPDX identifier, or words; empty: the publisher has not said.
        citation: how to cite it; empty: a sentence made from what is known.
        publisher, contact: who publishes it; empty: not said.
    """

    licence: str = ""
    citation: str = ""
    publisher: str = ""
    contact: str = ""


@dataclass(frozen=True)
class Origin:
    """One country-year's versions.

    Attributes:
        code, year, name: country-year, and the country's name for people.
        grid: the country's.
        manifests: asset -> manifest of the version that is published, or that it was made from;
            the season assets are under `s1_spring` and so on.
        folders: asset -> that version's folder.
        level: census level that the map is adjusted to.
        levels: all census levels, in the order of the country's file; level -> role.
        rows: what the warehouse has of the units.
        terms: see there.
        change_from: the earlier year that `change` compares with; None: there is no such version.
        why_no_change: said where there is none.
        simulated: whether the country exists on paper only.
    """

    code: str
    year: int
    name: str
    grid: Grid
    manifests: Mapping[str, Manifest]
    folders: Mapping[str, Path]
    level: str
    levels: Mapping[str, str]
    rows: UnitRows
    terms: Terms = field(default=Terms())
    change_from: int | None = None
    why_no_change: str = ""
    simulated: bool = False
    threads: int = 2

    def file(self, asset: str, name: str) -> Path:
        """A file of a version."""
        return self.folders[asset] / name

    def version(self, asset: str) -> str:
        """Its version."""
        return str(self.manifests[asset]["version"])

    @property
    def title(self) -> str:
        """For people."""
        return f"Population of {self.name}, {self.year}"

    @property
    def model(self) -> str:
        """The name of the model that mapped it."""
        shown = dict(self.manifests["population_map"]["shown"])
        return str(shown.get("model", "not known"))

    @property
    def sensors(self) -> tuple[Sensor, ...]:
        """Whose images that model looked at: both, but for a student of one."""
        looked = self.manifests["population_map"].get("parameters", {}).get("sensors", "both")
        return tuple(sensor for sensor in SENSORS if looked in ("both", sensor))

    @property
    def satellites(self) -> list[str]:
        """Their names."""
        return [SATELLITES[sensor] for sensor in self.sensors]

    def licence(self) -> str:
        """The licence, or that none was said."""
        return self.terms.licence or "not stated by the publisher"

    def attribution(self) -> str:
        """What the images' terms ask to be said."""
        if self.simulated:
            return "Simulated: it holds no image of any place."
        return f"Contains modified Copernicus Sentinel data {self.year}-{self.year + 1}."

    def citation(self) -> str:
        """How to cite the map."""
        if self.terms.citation:
            return self.terms.citation.replace("{year}", str(self.year)).replace(
                "{version}", self.version("hectare_map")
            )
        by = f"{self.terms.publisher}: " if self.terms.publisher else ""
        return (
            f"{by}{self.title}. People per hectare from {', '.join(self.satellites)} and census "
            f"counts, by POPCORN (Metzger, Daudt, Tuia and Schindler 2024, arXiv 2311.14006), "
            f"version {self.version('hectare_map')}."
        )

    def census_says(self) -> str:
        """The census behind the map in one line: level, how its counts came about, licence."""
        methods = sorted({entry["method"] for entry in self.counts()})
        more = f" and {len(methods) - 3} more" if len(methods) > 3 else ""
        said = sorted({s["licence"] for s in census_sources(self) if s.get("licence")})
        licence = "; ".join(said) if said else "licence not stated"
        return f"{', '.join(methods[:3])}{more}; level {self.level}; {licence}"

    def counts(self) -> list[dict[str, Any]]:
        """The counts that the map is adjusted to, one entry a unit."""
        text = self.file("census_counts", f"counts_{self.level}.json").read_text("utf-8")
        return json.loads(text)

    def tags(self) -> dict[str, str]:
        """What every raster says of itself."""
        return {
            "country": self.code,
            "year": str(self.year),
            "version": self.version("hectare_map"),
            "census": self.census_says(),
            "model": self.model,
            "licence": self.licence(),
            "citation": self.citation(),
            "attribution": self.attribution(),
        }


def census_sources(origin: Origin) -> list[dict[str, Any]]:
    """The census files, with licence, address and date as the country's file has them."""
    found: list[dict[str, Any]] = []
    for asset in ("census_units", "census_counts"):
        for source in json.loads(origin.file(asset, "sources.json").read_text("utf-8")):
            entry = {**source, "file": Path(source["file"]).name}
            if entry not in found:
                found.append(entry)
    return found
