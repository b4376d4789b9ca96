"""A trail as W3C PROV-JSON (W3C member submission of 24 April 2013): entities, activities, agents.

A version, a file from outside and a scene are entities; what made a version is an activity; the
code is the agent.
"""

from __future__ import annotations

import re
from typing import Any

from popcorn_assets.audit.trail import Node, Trail, scenes_of

NAMESPACE = "urn:popcorn:"
_ODD = re.compile(r"[^A-Za-z0-9_./-]")


def as_prov(trail: Trail) -> dict[str, Any]:
    """The document, as plain values."""
    document: dict[str, dict[str, Any]] = {
        "prefix": {
            "popcorn": NAMESPACE,
            "prov": "http://www.w3.org/ns/prov#",
            "xsd": "http://www.w3.org/2001/XMLSchema#",
        },
        **{
            kind: {}
            for kind in (
                "entity",
                "activity",
                "agent",
                "used",
                "wasGeneratedBy",
                "wasDerivedFrom",
                "wasAssociatedWith",
            )
        },
    }
    for node in trail.nodes.values():
        _add(document, trail, node)
    return {kind: things for kind, things in document.items() if things}


def _add(document: dict[str, dict[str, Any]], trail: Trail, node: Node) -> None:
    version = _version_id(node)
    document["entity"][version] = {
        "prov:type": {"$": "popcorn:Version", "type": "prov:QUALIFIED_NAME"},
        "prov:label": f"{node.address} {node.version}",
        "popcorn:asset": node.address.asset,
        **({"popcorn:country": node.address.country} if node.address.country else {}),
        **({"popcorn:year": _whole(node.address.year)} if node.address.year else {}),
        "popcorn:version": node.version,
        "popcorn:manifestSha256": node.manifest_sha256,
        "popcorn:current": {"$": str(node.current).lower(), "type": "xsd:boolean"},
    }
    manifest = node.manifest
    if manifest is None:
        return
    activity = _id("making", node.address, node.version)
    document["activity"][activity] = {
        "prov:startTime": manifest["started"],
        "prov:endTime": manifest["finished"],
        "prov:type": {"$": "popcorn:Materialisation", "type": "prov:QUALIFIED_NAME"},
        "popcorn:run": manifest["run_id"],
        "popcorn:recipe": manifest["recipe"],
    }
    _relate(
        document,
        "wasGeneratedBy",
        {"prov:entity": version, "prov:activity": activity, "prov:time": manifest["finished"]},
    )
    code = manifest["code"]
    agent = _id("code", code["version"], code.get("commit") or "no-commit")
    document["agent"][agent] = {
        "prov:type": {"$": "prov:SoftwareAgent", "type": "prov:QUALIFIED_NAME"},
        "popcorn:codeVersion": code["version"],
        "popcorn:package": str(code.get("package")),
        **({"popcorn:commit": code["commit"]} if code.get("commit") else {}),
    }
    _relate(document, "wasAssociatedWith", {"prov:activity": activity, "prov:agent": agent})
    parents = [_version_id(trail.nodes[key]) for key in node.inputs]
    for one in node.outside:
        parents.append(_id("file", one.sha256, one.path))
        document["entity"][parents[-1]] = {
            "prov:type": {"$": "popcorn:File", "type": "prov:QUALIFIED_NAME"},
            "prov:location": one.path,
            "popcorn:sha256": one.sha256,
            "popcorn:bytes": _whole(one.size),
            **({"popcorn:scene": one.scene} if one.scene else {}),
        }
    for scene in scenes_of(node):
        parents.append(_id("scene", scene["id"]))
        document["entity"][parents[-1]] = {
            "prov:type": {"$": "popcorn:Scene", "type": "prov:QUALIFIED_NAME"},
            "prov:label": scene["id"],
            **{
                f"popcorn:{name}": str(scene[name])
                for name in ("datetime", "platform", "product", "orbit")
                if scene.get(name)
            },
        }
    for parent in dict.fromkeys(parents):
        _relate(document, "used", {"prov:activity": activity, "prov:entity": parent})
        _relate(
            document,
            "wasDerivedFrom",
            {"prov:generatedEntity": version, "prov:usedEntity": parent, "prov:activity": activity},
        )


def _relate(document: dict[str, dict[str, Any]], kind: str, relation: dict[str, Any]) -> None:
    document[kind][f"_:{kind}{len(document[kind]) + 1}"] = relation


def _version_id(node: Node) -> str:
    return _id("version", node.address, node.version)


def _id(kind: str, *parts: object) -> str:
    """A qualified name: what it may not hold is written as %XX."""
    plain = "/".join(str(part) for part in (kind, *parts))
    return "popcorn:" + _ODD.sub(lambda m: "".join(f"%{b:02X}" for b in m[0].encode()), plain)


def _whole(number: int) -> dict[str, str]:
    return {"$": str(number), "type": "xsd:long"}
