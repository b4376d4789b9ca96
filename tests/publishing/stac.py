"""Validating STAC against schemas that lie here, without a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pystac.validation
from jsonschema import Draft7Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

SCHEMAS = Path(__file__).with_name("schemas")
CORE = Path(pystac.validation.__file__).with_name("jsonschemas")
SPEC = "https://schemas.stacspec.org/v1.1.0/{}-spec/json-schema/{}.json"


def _contents() -> dict[str, Any]:
    found = {}
    for path in SCHEMAS.glob("*.json"):
        name, _, version = path.stem.rpartition("-")
        address = f"https://stac-extensions.github.io/{name}/{version}/schema.json"
        found[address] = json.loads(path.read_text("utf-8"))
    for path in (CORE / "stac-spec" / "v1.1.0").glob("*.json"):
        kind = path.stem if path.stem in ("catalog", "collection") else "item"
        found[SPEC.format(kind, path.stem)] = json.loads(path.read_text("utf-8"))
    for path in (CORE / "geojson").glob("*.json"):
        found[f"https://geojson.org/schema/{path.name}"] = json.loads(path.read_text("utf-8"))
    return found


KNOWN = _contents()
REGISTRY: Registry = Registry().with_resources(
    (address, Resource.from_contents(schema, default_specification=DRAFT7))
    for address, schema in KNOWN.items()
)
KINDS = {"Feature": "item", "Collection": "collection", "Catalog": "catalog"}


def validated(thing: dict[str, Any]) -> list[str]:
    """Hold a STAC object against the core's and its extensions' schemas; which they were.

    An address that is not here is an error: nothing is fetched.
    """
    kind = KINDS[thing["type"]]
    addresses = [SPEC.format(kind, kind), *thing.get("stac_extensions", [])]
    for address in addresses:
        wrong = list(Draft7Validator(KNOWN[address], registry=REGISTRY).iter_errors(thing))
        assert not wrong, (address, [f"{list(e.absolute_path)}: {e.message[:300]}" for e in wrong])
    return addresses
