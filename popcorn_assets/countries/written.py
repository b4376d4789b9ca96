"""A country's file as text: its sections in the order in which one reads them, with comments.

What goes into the sections is `popcorn_assets.commands`' business; what they mean, `country`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

ORDER = ("name", "grid", "imagery", "census", "extractor", "training", "model", "mapping")

COMMENTS = {
    "grid": "The pixels, of 10 m; without `crs`, in the UTM zone of the country's middle. Tiles\n"
    "outside the boundary are not fetched.",
    "imagery": "Where images come from, and which observations count (docs/imagery.md).",
    "census": "Units and their people, from the statistics office's files (docs/census.md). What is\n"
    "written beside a `file` as `licence`, `url` and `retrieved` is kept with its numbers.",
    "extractor": "What finds buildings: `published` (popcorn weights fetch, once) or `demo`.",
    "training": "How a model is trained; every key that is not here has its published value.",
    "model": "Which checkpoints map the country: those of one year map all years (docs/models.md).",
}


def country_text(
    head: str, sections: Mapping[str, Any], comments: Mapping[str, str] | None = None
) -> str:
    """The text of a country's file.

    Args:
        head: what is said above everything, in lines.
        sections: values of the file's keys.
        comments: other words than the usual above some of the sections.
    """
    said = {**COMMENTS, **(comments or {})}
    order = [*(k for k in ORDER if k in sections), *(k for k in sections if k not in ORDER)]
    parts = [_commented(head)]
    for key in order:
        value = sections[key]
        comment = "\n" + _commented(said[key]) if key in said else ""
        parts.append(comment + dumped({key: value}))
    return "".join(parts)


def dumped(values: Mapping[str, Any]) -> str:
    """Values as YAML: what holds no further sections, on one line."""
    return yaml.safe_dump(
        dict(values), sort_keys=False, allow_unicode=True, width=96, default_flow_style=None
    )


def _commented(text: str) -> str:
    return "".join(f"# {line}\n".replace("#  ", "# ") for line in text.splitlines())
