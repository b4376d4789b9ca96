"""The folder as a static STAC catalogue: a collection a country, an item a year, one of its model.

STAC 1.1.0 with the extensions projection, raster, file, processing, version, scientific and mlm.
Every file of a country-year is an asset with its size and its sha256 as a multihash. Everything
lies in one folder and is linked relatively, so that it can be copied or served as it is; several
country-years in it share the catalogue, which is made anew from what their facts say.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popcorn_ml.files import write_json
from popcorn_ml.grid import Grid
from popcorn_ml.mapping.together import inputs_of
from popcorn_ml.publishing.facts import public_address
from popcorn_ml.publishing.names import CATALOGUE, Names
from popcorn_ml.sentinel import SENSORS

if TYPE_CHECKING:
    import pystac

ID = "popcorn"
_EXTENSION = "https://stac-extensions.github.io/{}/schema.json"
ITEM_EXTENSIONS = [
    _EXTENSION.format(name)
    for name in (
        "projection/v2.0.0", "raster/v2.0.0", "file/v2.1.0", "processing/v1.2.0",
        "version/v1.2.0", "scientific/v1.0.0",
    )
]  # fmt: skip
MODEL_EXTENSIONS = [_EXTENSION.format(name) for name in ("mlm/v1.4.0", "version/v1.2.0")]

MULTIHASH_SHA256 = "1220"
"""What a sha256 in hexadecimal begins with as a multihash: its code and its length in bytes."""

MEDIA_TYPES = {
    ".tif": "image/tiff; application=geotiff; profile=cloud-optimized",
    ".gpkg": "application/geopackage+sqlite3",
    ".parquet": "application/vnd.apache.parquet",
    ".csv": "text/csv",
    ".json": "application/json",
    ".html": "text/html",
    ".qml": "application/xml",
    ".png": "image/png",
}
ROLES = {
    ".tif": ["data"],
    ".gpkg": ["data"],
    ".parquet": ["data"],
    ".csv": ["data"],
    ".json": ["metadata"],
    ".html": ["overview"],
    ".qml": ["style"],
    ".png": ["thumbnail"],
}
_SPDX = re.compile(
    r"(CC0|CC-BY(-NC)?(-SA|-ND)?|ODbL|ODC-By|PDDL|OGL(-UK)?|etalab|DL-DE-(BY|ZERO))-[0-9][0-9.]*"
)
"""Identifiers of licences for data, as SPDX lists them."""


def write_year(folder: Path, facts: Mapping[str, Any], scenes: Iterable[Mapping[str, Any]]) -> None:
    """Write a country-year's two items; its other files must be there.

    Args:
        folder: holds the files.
        facts: of the country-year.
        scenes: whose pixels are in the composites, with id and, where it is public, href.
    """
    names = Names(facts["code"], facts["year"])
    model = _model_item(facts)
    write_json(folder / names.model, _linked(model, names, facts["title"]))
    item = _item(folder, facts, names)
    for link in _derived_from(facts, names, scenes):
        item.add_link(link)
    write_json(folder / names.item, _linked(item, names, facts["title"]))


def write_catalogue(folder: Path) -> Path:
    """Write the collections and the catalogue of all country-years in a folder; its path.

    Args:
        folder: holds the facts and items of each.
    """
    import pystac

    known = [facts for facts in all_facts(folder) if (folder / _names(facts).item).is_file()]
    by_country: dict[str, list[dict[str, Any]]] = {}
    for facts in known:
        by_country.setdefault(facts["code"], []).append(facts)
    catalogue = pystac.Catalog(
        ID, "Population maps from Sentinel-1, Sentinel-2 and census counts.", "Population maps"
    )
    catalogue.add_link(_link("root", CATALOGUE, "application/json"))
    for years in by_country.values():
        names = _names(years[-1])
        write_json(folder / names.collection, _collection(folder, years))
        catalogue.add_link(_link("child", names.collection, "application/json", years[-1]["name"]))
    write_json(folder / CATALOGUE, _plain(catalogue))
    return folder / CATALOGUE


def all_facts(folder: Path) -> list[dict[str, Any]]:
    """The facts of every country-year in a folder, by country and year."""
    found = [json.loads(path.read_text("utf-8")) for path in folder.glob("*_facts.json")]
    return sorted(found, key=lambda facts: (facts["code"], facts["year"]))


def multihash(path: Path) -> str:
    """A file's sha256 as STAC's file extension writes it."""
    with open(path, "rb") as file:
        return MULTIHASH_SHA256 + hashlib.file_digest(file, "sha256").hexdigest()


def _names(facts: Mapping[str, Any]) -> Names:
    return Names(facts["code"], facts["year"])


def _item(folder: Path, facts: Mapping[str, Any], names: Names) -> pystac.Item:
    import pystac

    start, end = _period(facts)
    item = pystac.Item(
        id=names.stem,
        **_place(facts),
        datetime=None,
        start_datetime=start,
        end_datetime=end,
        properties={
            "title": facts["title"],
            "description": " ".join(facts["summary"]),
            "created": _utc(facts["made"]),
            **_licence(facts),
            "version": facts["version"],
            "proj:code": facts["grid"]["crs"],
            "processing:software": {"popcorn-assets": facts["software"]},
            "processing:lineage": facts["method"]["text"] + " " + facts["attribution"],
            "sci:citation": facts["citation"],
            "sci:publications": [{"citation": facts["method"]["citation"]}],
        },
        stac_extensions=list(ITEM_EXTENSIONS),
    )
    products = {one["file"]: one for one in facts["products"]}
    tables = {one["file"]: one for one in facts["tables"]}
    for path in sorted(folder.iterdir()):
        if names.own(path.name) and path.name not in (names.item, names.model):
            key, told = _about(path, names, products, tables)
            item.add_asset(key, _asset(path, told, products.get(path.name)))
    return item


def _about(
    path: Path, names: Names, products: Mapping[str, Any], tables: Mapping[str, Any]
) -> tuple[str, dict[str, str]]:
    """An asset's key, title and description."""
    known = products.get(path.name) or tables.get(path.name)
    if known:
        title = known.get("title") or known["format"]
        return known["role"], {"title": title, "description": known.get("text", "")}
    key = path.name.removeprefix(f"{names.stem}_").replace(".", "_")
    titles = {
        names.facts: "What is known of the map, for programs",
        names.report: "Report",
        names.preview: "Picture of the population",
        names.scenes: "Scenes that the composites were made of",
    }
    fallback = "Style for QGIS" if path.suffix == ".qml" else path.name
    return key, {"title": titles.get(path.name, fallback), "description": ""}


def _asset(path: Path, told: Mapping[str, str], product: Mapping[str, Any] | None) -> pystac.Asset:
    import pystac

    fields: dict[str, Any] = {"file:size": path.stat().st_size, "file:checksum": multihash(path)}
    if product:
        grid = Grid(**product["grid"])
        west, south, east, north = grid.bounds
        fields |= {
            "proj:code": grid.crs,
            "proj:shape": list(grid.shape),
            "proj:transform": list(grid.transform),
            "proj:bbox": [west, south, east, north],
            "bands": [_band(product, grid, place) for place in range(len(product["bands"]))],
        }
    return pystac.Asset(
        href=f"./{path.name}",
        title=told["title"],
        description=told["description"] or None,
        media_type=MEDIA_TYPES.get(path.suffix, "application/octet-stream"),
        roles=ROLES.get(path.suffix, ["metadata"]),
        extra_fields=fields,
    )


def _band(product: Mapping[str, Any], grid: Grid, place: int) -> dict[str, Any]:
    band = {
        "name": product["bands"][place],
        "data_type": product["dtype"],
        "nodata": product["nodata"],
        "unit": product["unit"],
        "raster:sampling": "area",
        "raster:spatial_resolution": round(grid.pixel_area_m2**0.5, 6),
    }
    if product["statistics"] and product["statistics"][place]:  # a band may have no value at all
        band["statistics"] = product["statistics"][place]
    return band


BANDS_OF = {"s2": "B02, B03, B04, B08 of Sentinel-2", "s1": "VV, VH of Sentinel-1"}


def _network(model: Mapping[str, Any]) -> dict[str, Any]:
    """What a model's networks look at, and how many inputs they have."""
    if model.get("kind") != "student":
        return {
            "architecture": "POPCORN: dual-stream U-Net",
            "made_of": f"{model['members']} members",
            "looks_at": f"for each season {' and '.join(BANDS_OF.values())}",
            "inputs": 6,
        }
    sensors = [s for s in reversed(SENSORS) if model.get("sensors") in ("both", s)]
    seen = " and ".join(BANDS_OF[sensor] for sensor in sensors)
    return {
        "architecture": "a U-Net over all seasons, taught by POPCORN members",
        "made_of": "one network",
        "looks_at": f"the seasons' mean of {seen}, and of the built-up score",
        "inputs": inputs_of(sensors),
    }


def _model_item(facts: Mapping[str, Any]) -> pystac.Item:
    import pystac

    model = facts["model"]
    start, end = _period(facts)
    network = _network(model)
    shape = {"dim_order": ["batch", "channel", "height", "width"], "data_type": "float32"}
    return pystac.Item(
        id=f"{facts['code']}_{facts['year']}_model",
        **_place(facts),
        datetime=None,
        start_datetime=start,
        end_datetime=end,
        properties={
            "title": f"Model of {facts['title']}: {model['title']}",
            "description": f"{facts['method']['text']} Trained on "
            f"{' and '.join(model.get('countries') or [str(model['country'])])} "
            f"{model['year']}, census level {model['level'] or 'not known'}, "
            f"{network['made_of']}.",
            "version": model["version"] or "not known",
            "mlm:name": f"popcorn {model['country']} {model['year']} {model['version']}",
            "mlm:architecture": network["architecture"],
            "mlm:framework": "PyTorch",
            "mlm:tasks": ["regression"],
            "mlm:input": [
                {
                    "name": "seasonal composite",
                    "description": f"Composites of 10 m, {network['looks_at']}",
                    "bands": [],
                    "input": {"shape": [-1, network["inputs"], -1, -1], **shape},
                }
            ],
            "mlm:output": [
                {
                    "name": "occupancy",
                    "description": "People per fully built-up pixel, times the built-up score",
                    "tasks": ["regression"],
                    "result": {"shape": [-1, 1, -1, -1], **shape},
                }
            ],
        },
        stac_extensions=list(MODEL_EXTENSIONS),
    )


def _derived_from(
    facts: Mapping[str, Any], names: Names, scenes: Iterable[Mapping[str, Any]]
) -> list[pystac.Link]:
    """What a year's map was made of: scenes, census files, its model."""
    links = [_link("derived_from", names.model, "application/geo+json", facts["model"]["title"])]
    hidden = 0
    for scene in scenes:
        address = public_address(scene.get("href"))
        if address:
            links.append(_link("derived_from", address, None, scene["id"]))
        else:
            hidden += 1
    if hidden:
        title = f"{hidden} scenes that have no public address, listed"
        links.append(_link("derived_from", names.scenes, "text/csv", title))
    for place, source in enumerate(facts["census"]["sources"]):
        inside = f"{names.facts}#/census/sources/{place}"
        href = public_address(source["url"]) or inside
        links.append(_link("derived_from", href, None, f"Census: {source['file']}"))
    return links


def _collection(folder: Path, years: list[dict[str, Any]]) -> dict[str, Any]:
    import pystac

    newest = years[-1]
    spans = [_period(facts) for facts in years]
    bbox = json.loads((folder / _names(newest).item).read_text("utf-8"))["bbox"]
    providers = []
    if newest["publisher"]:
        providers.append(
            pystac.Provider(newest["publisher"], newest["contact"], [pystac.ProviderRole.PRODUCER])
        )
    collection = pystac.Collection(
        id=newest["code"],
        title=newest["name"],
        description=f"How many people live where in {newest['name']}, a map a year. "
        f"{newest['method']['text']}",
        license=_licence(newest)["license"],
        extent=pystac.Extent(
            pystac.SpatialExtent([bbox]),
            pystac.TemporalExtent([[min(s for s, _ in spans), max(e for _, e in spans)]]),
        ),
        providers=providers,
        stac_extensions=[_EXTENSION.format("scientific/v1.0.0")],
        extra_fields={"sci:citation": newest["citation"]},
        summaries=pystac.Summaries({"version": [facts["version"] for facts in years]}),
    )
    collection.add_link(_link("root", CATALOGUE, "application/json"))
    collection.add_link(_link("parent", CATALOGUE, "application/json"))
    for facts in years:
        for name, title in ((_names(facts).item, facts["title"]), (_names(facts).model, None)):
            title = title or f"Model of {facts['title']}"
            collection.add_link(_link("item", name, "application/geo+json", title))
    return _plain(collection)


def _linked(item: pystac.Item, names: Names, title: str) -> dict[str, Any]:
    """An item as it is written, with its links to where it belongs."""
    item.collection_id = names.code
    for rel, name in (
        ("root", CATALOGUE), ("parent", names.collection), ("collection", names.collection),
    ):  # fmt: skip
        item.add_link(_link(rel, name, "application/json"))
    return _plain(item)


def _link(rel: str, name: str, media: str | None, title: str | None = None) -> pystac.Link:
    import pystac

    href = name if "://" in name else f"./{name}"
    return pystac.Link(rel, href, media, title)


def _plain(thing: Any) -> dict[str, Any]:
    """A STAC object as plain values, its links as they were given."""
    found = thing.to_dict(include_self_link=False, transform_hrefs=False)
    links = [link for link in found["links"] if isinstance(link["href"], str)]
    return {**found, "links": sorted(links, key=lambda link: (link["rel"], link["href"]))}


def _place(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Geometry and bounds of the grid in degrees, cut at the antimeridian."""
    import geopandas as gpd
    import shapely

    from popcorn_ml.census.globe import cut, degrees

    grid = Grid(**facts["grid"])
    edge = max(grid.width, grid.height) * grid.step / 4
    frame: gpd.GeoDataFrame = gpd.GeoDataFrame(
        geometry=[shapely.segmentize(shapely.box(*grid.bounds), edge)], crs=grid.crs
    )
    whole = degrees(frame)
    shape = shapely.orient_polygons(shapely.set_precision(cut(whole)[0], 1e-7))
    west, south, east, north = shapely.bounds(shape).tolist()
    if shape.geom_type == "MultiPolygon":  # across the antimeridian: its west is its eastern part's
        left, _, right, _ = shapely.bounds(whole[0])
        west, east = (left + 180) % 360 - 180, (right + 180) % 360 - 180
    box = [round(float(value), 7) for value in (west, south, east, north)]
    return {"geometry": json.loads(shapely.to_geojson(shape)), "bbox": box}


def _period(facts: Mapping[str, Any]) -> tuple[datetime, datetime]:
    """The first and the last second of the year's seasons."""
    seasons = facts["quality"]["seasons"]
    start = min(season["from"] for season in seasons)
    end = max(season["until"] for season in seasons)  # exclusive
    last = datetime.fromisoformat(end).replace(tzinfo=UTC) - timedelta(seconds=1)
    return datetime.fromisoformat(start).replace(tzinfo=UTC), last


def _utc(text: str) -> str:
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _licence(facts: Mapping[str, Any]) -> dict[str, str]:
    """The licence as STAC has it: an SPDX identifier of a licence for data, or "other"."""
    known = _SPDX.fullmatch(facts["licence"])
    return {"license": facts["licence"] if known else "other"}
