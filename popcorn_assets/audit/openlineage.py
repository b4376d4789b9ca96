"""A trail as OpenLineage run events (specification 2-0-2): START and COMPLETE of every version."""

from __future__ import annotations

import uuid
from importlib import metadata
from typing import Any

from popcorn_assets.audit.trail import Node, Outside, Trail, scenes_of

SCHEMA = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
FACETS = "https://openlineage.io/spec/facets"
PRODUCER = f"urn:popcorn-assets:{metadata.version('popcorn-assets')}"
OWN = "urn:popcorn-assets:facets:1"
NAMESPACE = "popcorn"


def as_events(trail: Trail) -> list[dict[str, Any]]:
    """Events in the order in which the versions were made."""
    made = [node for node in trail.nodes.values() if node.manifest is not None]
    made.sort(key=lambda node: str((node.manifest or {})["finished"]))
    return [event for node in made for event in _events(trail, node)]


def _events(trail: Trail, node: Node) -> list[dict[str, Any]]:
    assert node.manifest is not None
    manifest, code = node.manifest, node.manifest["code"]
    # A Dagster run makes many assets: each is a run of its own, with Dagster's as its parent.
    own = uuid.uuid5(uuid.NAMESPACE_URL, f"{manifest['run_id']}/{node.address}/{node.version}")
    facets: dict[str, Any] = {
        "processing_engine": {
            **_facet("1-1-1/ProcessingEngineRunFacet.json#/$defs/ProcessingEngineRunFacet"),
            "name": "popcorn-assets",
            "version": str(code.get("package")),
        },
        "popcorn_recipe": {
            "_producer": PRODUCER,
            "_schemaURL": OWN,
            "recipe": manifest["recipe"],
            "codeVersion": code["version"],
            "commit": code.get("commit"),
            "modified": code.get("modified"),
            "parameters": manifest["parameters"],
            "libraries": manifest["libraries"],
        },
    }
    if _is_uuid(manifest["run_id"]):
        facets["parent"] = {
            **_facet("1-0-1/ParentRunFacet.json#/$defs/ParentRunFacet"),
            "run": {"runId": manifest["run_id"]},
            "job": {"namespace": NAMESPACE, "name": "dagster"},
        }
    common: dict[str, Any] = {
        "producer": PRODUCER,
        "schemaURL": SCHEMA,
        "run": {"runId": str(own), "facets": facets},
        "job": {
            "namespace": NAMESPACE,
            "name": node.address.asset,
            "facets": {
                "jobType": {
                    **_facet("2-0-3/JobTypeJobFacet.json#/$defs/JobTypeJobFacet"),
                    "processingType": "BATCH",
                    "integration": "DAGSTER",
                    "jobType": "ASSET",
                }
            },
        },
        "inputs": [
            *(_version(trail.nodes[key]) for key in node.inputs),
            *(_file(one) for one in node.outside),
            *_scenes(node),
        ],
    }
    return [
        {"eventType": "START", "eventTime": manifest["started"], **common, "outputs": []},
        {
            "eventType": "COMPLETE",
            "eventTime": manifest["finished"],
            **common,
            "outputs": [_version(node)],
        },
    ]


def _version(node: Node) -> dict[str, Any]:
    address = node.address
    name = f"{address.asset}/{address.country}/{address.year}" if address.country else address.asset
    return {
        "namespace": NAMESPACE,
        "name": name,
        "facets": {
            "version": _dataset_version(node.version),
            "popcorn_manifest": {
                "_producer": PRODUCER,
                "_schemaURL": OWN,
                "sha256": node.manifest_sha256,
            },
        },
    }


def _file(one: Outside) -> dict[str, Any]:
    return {
        "namespace": "file",
        "name": one.path,
        "facets": {"version": _dataset_version(one.sha256)},
    }


def _scenes(node: Node) -> list[dict[str, Any]]:
    found = []
    for scene in scenes_of(node):
        baseline = scene.get("baseline")
        facets = {"version": _dataset_version(str(baseline))} if baseline else {}
        found.append({"namespace": f"{NAMESPACE}.scenes", "name": scene["id"], "facets": facets})
    return found


def _dataset_version(version: str) -> dict[str, Any]:
    name = "1-0-0/DatasetVersionDatasetFacet.json#/$defs/DatasetVersionDatasetFacet"
    return {**_facet(name), "datasetVersion": version}


def _facet(schema: str) -> dict[str, str]:
    return {"_producer": PRODUCER, "_schemaURL": f"{FACETS}/{schema}"}


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
