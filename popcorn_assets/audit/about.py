"""What an audit says of itself: when, where, by what and by which command it was made.

And under which licences the things stand that the audited versions were made from, as far as
anybody noted them.
"""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from popcorn_assets.audit.recorded import Records
from popcorn_assets.audit.trail import Node, Outside, Trail, scenes_of
from popcorn_assets.store.code import code_state
from popcorn_assets.store.versions import Store

SENTINEL = (
    "Copernicus Sentinel data: free, full and open, where the provider sets no terms of its own; "
    "to be named as: contains modified Copernicus Sentinel data {years}"
)
NOT_STATED = "not stated"


@dataclass(frozen=True)
class About:
    """Of one audit.

    Attributes:
        when: when it began, UTC.
        host: the machine's name.
        command: as it was typed; empty where it was not a command.
        version, commit, modified: of the code that audited, not of what made the versions.
        store: the root of what was audited.
    """

    when: str
    host: str
    command: str
    version: str
    commit: str
    modified: bool | None
    store: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def about(store: Store, command: str) -> About:
    """Of an audit that begins now."""
    code = code_state()
    return About(
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        host=platform.node(),
        command=command,
        version=str(code["package"]),
        commit=str(code["commit"] or "unknown"),
        modified=code.get("modified"),
        store=str(store.root),
    )


@dataclass(frozen=True)
class Read:
    """A file from outside, and the versions that were made from it.

    Attributes:
        licence, url: as the census' settings state them; scenes' files have that of their scenes.
    """

    file: Outside
    by: tuple[Node, ...]
    licence: str
    url: str


def files_read(trail: Trail, records: Records) -> list[Read]:
    """Every file from outside once, in the order in which the trail comes to them."""
    by: dict[Outside, list[Node]] = {}
    for node in trail.nodes.values():
        for one in node.outside:
            by.setdefault(one, []).append(node)
    return [
        Read(
            one,
            tuple(nodes),
            *records.licences.get(one.sha256, ("" if one.scene else NOT_STATED, "")),
        )
        for one, nodes in by.items()
    ]


def licences(trail: Trail) -> list[dict[str, str]]:
    """Under which licences the weights and scenes stand; files say it themselves (`Read`)."""
    found: list[dict[str, str]] = []
    years: dict[str, set[str]] = {}
    for node in trail.nodes.values():
        found += [
            {"of": f"{node.address} {name}", **_of_weights(node, name)}
            for name in (node.manifest or {}).get("files", {})
            if name.endswith(".json") and (node.path / name).with_suffix(".safetensors").is_file()
        ]
        for scene in scenes_of(node):
            if str(scene.get("platform") or "").lower().startswith("sentinel"):
                provenance = (node.manifest or {})["facts"].get("provenance") or {}
                names = (provenance.get("collection", ""), provenance.get("provider", "?"))
                years.setdefault("scenes: {} of {}".format(*names), set()).add(
                    str(scene.get("datetime"))[:4]
                )
    found += [
        {
            "of": where,
            "licence": SENTINEL.format(years=", ".join(sorted(of))),
            "url": "",
        }
        for where, of in years.items()
    ]
    return found


def _of_weights(node: Node, card: str) -> dict[str, str]:
    try:
        said = json.loads((node.path / card).read_text("utf-8"))
        return {
            "licence": str(said.get("licence") or NOT_STATED),
            "url": str(said.get("source") or said.get("url") or ""),
        }
    except (OSError, ValueError, AttributeError):
        return {"licence": NOT_STATED, "url": ""}
