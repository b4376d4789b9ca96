"""What is said of a map in words and figures: what the report, the page and the catalogue read.

Plain values alone, from the manifests of the versions it was made of, so that a folder that was
copied away says the same. Nothing here is guessed: what is not known is null, and `left_out` says
what there is not and why.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from popcorn_ml.files import replacing
from popcorn_ml.publishing.origin import COPERNICUS_TERMS, Origin, census_sources
from popcorn_ml.publishing.products import Written
from popcorn_ml.publishing.quality import RULE as QUALITY_RULE
from popcorn_ml.sentinel import SEASONS, SENSORS

SCHEMA = 1
METHOD = {
    "name": "POPCORN",
    "text": "A frozen network finds built-up area in seasonal composites of Sentinel-1 and "
    "Sentinel-2; a second one, supervised by census counts alone, learns how many people a "
    "built-up pixel holds; an ensemble gives the map and its spread.",
    "citation": "Metzger, Daudt, Tuia and Schindler 2024: High-resolution Population Maps Derived "
    "from Sentinel-1 and Sentinel-2, Remote Sensing of Environment",
    "url": "https://arxiv.org/abs/2311.14006",
}
BY_A_STUDENT = (
    "A frozen network finds built-up area in seasonal composites of {satellites}; an ensemble, "
    "supervised by census counts alone, learns how many people a built-up pixel holds; one small "
    "network, which has learnt from the ensemble's map adjusted to the census, gives this map."
)
LIMITS = (
    "People are placed where the images show buildings: the map is of where people live by the "
    "census, not of where they are by day.",
    "A single pixel, and often a single hectare, means little: add cells up to the area asked "
    "about, and use the interval.",
    "The adjusted map inherits every error of the census it is adjusted to, a projection those of "
    "its growth as well.",
    "Buildings that are not lived in (factories, schools, markets, greenhouses) look like others "
    "and may be given people.",
)
UNDERCOUNTED = (
    "people under tree cover, in thatched or earthen dwellings, and in hamlets smaller than a few "
    "pixels, which the images hardly show",
    "people in tents and camps, and in settlements built after the year's images were taken",
    "nomads, people without a dwelling and whomever the census did not count",
    "people in tall blocks of flats: from above a storey more looks the same",
)


def facts_of(
    origin: Origin,
    products: Sequence[Written],
    *,
    tables: Sequence[Mapping[str, Any]],
    hexagons: Mapping[int, float],
    mask: Mapping[str, Any] | None,
    left_out: Sequence[Mapping[str, str]],
) -> dict[str, Any]:
    """Everything that is said of a country-year.

    Args:
        origin: what it is made of.
        products: the rasters that were written.
        tables: the tables, one entry a file.
        hexagons: resolution -> people.
        mask: how empty cells were found; None where there is no masked map.
        left_out: what there is not, and why.
    """
    metrics = json.loads(origin.file("evaluation", "metrics.json").read_text("utf-8"))
    hectares = origin.manifests["hectare_map"]
    grid = origin.grid
    area = grid.cell_area_ha
    return {
        "schema": SCHEMA,
        "code": origin.code,
        "year": origin.year,
        "name": origin.name,
        "title": origin.title,
        "summary": _summary(origin, metrics),
        "simulated": origin.simulated,
        "version": hectares["version"],
        "made": hectares["finished"],
        "software": hectares["code"]["package"],
        "cell": {
            "name": grid.cell_name, "title": grid.cell_title,
            "smallest_ha": area[0], "largest_ha": area[1],
        },
        "grid": grid.as_dict(),
        "bbox": lon_lat_bounds(origin),
        "totals": metrics["totals"],
        "totals_in_units": metrics["totals_in_units"],
        "model": _model(origin),
        "method": _method(origin),
        "census": _census(origin),
        "evaluation": metrics,
        "checks": _checks(origin),
        "quality": {"rule": QUALITY_RULE, "seasons": _seasons(origin)},
        "intervals": _intervals(origin),
        "change": _change(origin),
        "mask": dict(mask) if mask else None,
        "products": [one.as_fact() for one in products],
        "tables": [dict(one) for one in tables],
        "hexagons": {str(resolution): people for resolution, people in hexagons.items()},
        "licence": origin.licence(),
        "licence_stated": bool(origin.terms.licence),
        "citation": origin.citation(),
        "attribution": origin.attribution(),
        "publisher": origin.terms.publisher or None,
        "contact": origin.terms.contact or None,
        "sources": sources_of(origin),
        "lineage": _lineage(origin),
        "limits": list(LIMITS),
        "undercounted": list(UNDERCOUNTED),
        "left_out": [dict(one) for one in left_out],
    }  # fmt: skip


def lon_lat_bounds(origin: Origin) -> list[float]:
    """West, south, east, north of the grid in degrees; west above east across the antimeridian."""
    from rasterio.warp import transform_bounds

    return [
        round(value, 7)
        for value in transform_bounds(origin.grid.crs, "EPSG:4326", *origin.grid.bounds)
    ]


def _summary(origin: Origin, metrics: Mapping[str, Any]) -> list[str]:
    people = metrics["totals"].get("adjusted", 0.0)
    kinds = sorted({entry["kind"] for entry in origin.counts()})
    units = len(origin.counts())
    first = (
        f"This map says how many people lived in every {origin.grid.cell_title} of {origin.name} "
        f"in {origin.year}: {people:,.0f} in all."
    )
    if origin.simulated:
        first += " The country is simulated: it does not exist, and nor do its people."
    return [
        first,
        f"A model estimates people from {' and '.join(origin.satellites)} images of the year; each "
        f"of {units:,} census units ({origin.level}) is then scaled to its people by "
        f"{' and '.join(kinds) or 'count'}.",
        "Use it for sums over areas, with the interval where one is given; a single cell is "
        "uncertain.",
    ]


MODELS = ("checkpoints", "student")
"""Assets of which a map is made with one."""


def _method(origin: Origin) -> dict[str, Any]:
    """How the map came about, by the kind of its model."""
    if _model(origin).get("kind") != "student":
        return METHOD
    text = BY_A_STUDENT.format(satellites=" and ".join(origin.satellites))
    return {**METHOD, "text": text}


def _model(origin: Origin) -> dict[str, Any]:
    shown = dict(origin.manifests["population_map"]["shown"])
    inputs = origin.manifests["population_map"]["inputs"]
    trained: Mapping[str, Any] = next((entry for entry in inputs if entry["asset"] in MODELS), {})
    parameters = origin.manifests.get(trained.get("asset", ""), {}).get("parameters", {})
    facts = origin.manifests["population_map"]["facts"]
    student = trained.get("asset") == "student"
    of_a_student = {"kind": "student", "sensors": parameters.get("sensors")} if student else {}
    several = {one["code"]: one["level"] for one in parameters.get("countries") or ()}
    units_of = [*several] or list(parameters.get("taught_by_units_of") or ())
    level = ", ".join(f"{code} {level}" for code, level in several.items())
    return {
        "title": origin.model,
        "ledger_entry": shown.get("ledger entry"),
        "members": shown.get("members"),
        **of_a_student,
        "country": trained.get("country"),
        "year": trained.get("year"),
        "version": trained.get("version"),
        "level": level or parameters.get("level"),
        "another_country": origin.code not in (several or [trained.get("country") or origin.code]),
        **({"countries": units_of} if units_of else {}),
        "extractor": facts.get("extractor"),
    }


def _census(origin: Origin) -> dict[str, Any]:
    levels = []
    for level, role in origin.levels.items():
        path = origin.file("census_counts", f"counts_{level}.json")
        entries = json.loads(path.read_text("utf-8"))
        levels.append(
            {
                "level": level,
                "role": role,
                "units": len(entries),
                "people": sum(entry["people"] for entry in entries),
                "kinds": sorted({entry["kind"] for entry in entries}),
                "methods": sorted({entry["method"] for entry in entries})[:20],
            }
        )
    return {"level": origin.level, "levels": levels, "sources": census_sources(origin)}


CHECKED = ("population_map", "adjusted_map", "hectare_map", "evaluation")


def _checks(origin: Origin) -> list[dict[str, Any]]:
    return [
        {
            "asset": asset,
            **{key: check[key] for key in ("name", "passed", "severity", "message")},
        }
        for asset in CHECKED
        for check in origin.manifests[asset]["checks"]
    ]


def _seasons(origin: Origin) -> list[dict[str, Any]]:
    found = []
    for sensor in SENSORS:
        filled = origin.manifests[f"{sensor}_composites"]["facts"]["shares"]
        for season in SEASONS:
            facts = origin.manifests[f"{sensor}_{season}"]["facts"]
            bands = filled[season].values()
            rules = {rule for band in bands for rule in band}
            found.append(
                {
                    "sensor": sensor,
                    "season": season,
                    "from": facts["start"][:10],
                    "until": facts["end"][:10],
                    "scenes": len(facts["scenes"]),
                    "scenes_found": facts.get("scenes_found"),
                    "choice": _choice(facts.get("choice")),
                    "clear": facts["clear"],
                    "nodata_share": facts["nodata_share"],
                    "lost_share": facts["lost_share"],
                    "filled": {
                        rule: max(band.get(rule, 0.0) for band in bands) for rule in sorted(rules)
                    },
                    "provider": facts["provenance"].get("provider"),
                    "quantity": facts["provenance"].get("quantity"),
                }
            )
    return found


def _choice(told: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What limited a season's scenes; None where nothing did."""
    names = ("max_scenes", "max_cloud_cover", "offered", "kept")
    return {name: told.get(name) for name in names} if told else None


def _intervals(origin: Origin) -> dict[str, Any]:
    """What the hectare map says of its intervals: where they are from, or why there are none."""
    told = origin.manifests["hectare_map"]["facts"].get("intervals") or {}
    there = origin.file("hectare_map", "intervals.tif").is_file()
    return {"available": there, "why": why_no_intervals(origin), "model": None, **told}


def _change(origin: Origin) -> dict[str, Any]:
    """Which earlier year the map was compared with, and what was found; or why with none."""
    manifest = origin.manifests.get("change") if origin.change_from is not None else None
    return {
        "from_year": origin.change_from,
        "why_not": origin.why_no_change or None,
        "found": dict(manifest["shown"]) if manifest else None,
    }


def why_no_intervals(origin: Origin) -> str:
    """What is said of a map without intervals."""
    told = origin.manifests["hectare_map"]["facts"].get("intervals") or {}
    return str(told.get("why") or "this version of the map was made without intervals")


def sources_of(origin: Origin) -> list[dict[str, Any]]:
    """What went into the map and who has a right to be named for it."""
    images = [
        {
            "kind": "imagery",
            "name": f"Copernicus {name}",
            "collection": facts["provenance"].get("collection"),
            "provider": facts["provenance"].get("provider"),
            "licence": "Copernicus Sentinel data terms: free, full and open, with attribution",
            "url": COPERNICUS_TERMS,
            "attribution": origin.attribution(),
        }
        for sensor, name in zip(origin.sensors, origin.satellites, strict=True)
        for facts in [origin.manifests[f"{sensor}_composites"]["facts"]]
    ]
    if origin.simulated:
        images = [
            {**one, "licence": "simulated: no image of any place", "attribution": "", "url": None}
            for one in images
        ]
    census = [
        {
            "kind": "census",
            "name": source["file"],
            "licence": source["licence"] or "not stated",
            "url": source["url"],
            "retrieved": source["retrieved"],
            "sha256": source["sha256"],
        }
        for source in census_sources(origin)
    ]
    model = {
        "kind": "method",
        "name": METHOD["name"],
        "licence": None,
        "url": METHOD["url"],
        "citation": METHOD["citation"],
    }
    return [*images, *census, model]


def scenes_of(origin: Origin) -> list[dict[str, Any]]:
    """The scenes whose pixels are in the composites that the model looked at, each once."""
    found: dict[str, dict[str, Any]] = {}
    for sensor in origin.sensors:
        for season in SEASONS:
            facts = origin.manifests[f"{sensor}_{season}"]["facts"]
            other = facts.get("other_orbit") or {}
            for scene in (*facts["scenes"], *other.get("scenes", ())):
                found.setdefault(scene["id"], {**scene, "sensor": sensor})
    return list(found.values())


def public_address(href: str | None) -> str | None:
    """An address that anybody may follow: without a signature; None for a place on a machine."""
    if not href or not re.match(r"https?://", href):
        return None
    return href.partition("?")[0]


SCENE_COLUMNS = ("scene", "sensor", "taken", "platform", "href")


def write_scenes(origin: Origin, out: Path) -> int:
    """Write a table of the scenes (`SCENE_COLUMNS`), without signatures and places on a machine.

    Args:
        origin: what was made of them.
        out: CSV.

    Returns:
        How many there are.
    """
    import csv

    scenes = scenes_of(origin)
    with replacing(out) as draft, open(draft, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(SCENE_COLUMNS)
        for scene in scenes:
            told = (scene["id"], scene["sensor"], scene.get("datetime"), scene.get("platform"))
            writer.writerow([*told, public_address(scene.get("href"))])
    return len(scenes)


def _lineage(origin: Origin) -> dict[str, Any]:
    versions = [
        {
            "asset": asset,
            "country": manifest["country"] or None,
            "year": manifest["year"] or None,
            "version": manifest["version"],
            "finished": manifest["finished"],
            "code_version": manifest["code"]["version"],
            "code_commit": manifest["code"].get("commit"),
        }
        for asset, manifest in origin.manifests.items()
    ]
    return {
        "versions": versions,
        "scenes": len(scenes_of(origin)),
        "audit": f"popcorn audit {origin.code} {origin.year}",
        "reproduce": f"popcorn reproduce {origin.code} {origin.year}",
    }
