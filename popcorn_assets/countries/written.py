"""A country's file as text: its sections in the order in which one reads them, with comments.

What goes into the sections is `popcorn_assets.commands`' business; what they mean, `country`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

ORDER = ("name", "grid", "imagery", "census", "extractor", "training", "model", "mapping")

COMMENTS = {
    "grid": "The pixels, of 10 m; without `crs`, in the UTM zone of the country's middle. Tiles\n"
    "outside the boundary are not fetched.",
    "imagery": "Where images come from, and which observations count (docs/imagery.md).",
    "census": "Units and their people, from the statistics office's files (docs/census.md). What\n"
    "is written beside a `file` as `licence`, `url` and `retrieved` is kept with its numbers.",
    "extractor": "What finds buildings: `published` (popcorn weights fetch, once) or `demo`.",
    "training": "How a model is trained; every key that is not here has its published value.",
    "model": "Which model maps the country: that of one year maps all years. `kind: student` is\n"
    "one network that learns from the members, and maps faster (docs/models.md).",
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


WIDTH = 96
_AS_IT_IS: dict[str, Any] = {
    "sort_keys": False, "allow_unicode": True, "width": 1_000_000, "default_flow_style": False
}  # fmt: skip


def dumped(values: Mapping[str, Any], indent: str = "") -> str:
    """Values as YAML: a key a line, what holds no further sections on one line where it fits."""
    lines = []
    for key, value in values.items():
        name = indent + _on_one_line({key: None})[1:-1].removesuffix("null").rstrip()
        flat = f"{name} {_on_one_line(value)}"
        if not isinstance(value, dict | list):  # a single value needs fewer quotes
            lines.append(indent + yaml.safe_dump({key: value}, **_AS_IT_IS).strip())
        elif isinstance(value, dict) and (len(flat) > WIDTH or _holds_sections(value.values())):
            lines += [name, dumped(value, indent + "  ").rstrip("\n")]
        elif isinstance(value, list) and _holds_sections(value):
            lines += [name, *(f"{indent}  - {_on_one_line(item)}" for item in value)]
        else:
            lines.append(flat)
    return "\n".join(lines) + "\n"


def _holds_sections(values: Iterable[Any]) -> bool:
    return any(isinstance(value, dict) for value in values)


def _on_one_line(value: Any) -> str:
    return yaml.safe_dump(value, **{**_AS_IT_IS, "default_flow_style": True}).strip()


def _commented(text: str) -> str:
    return "".join(f"# {line}\n".replace("#  ", "# ") for line in text.splitlines())
