"""A country's file as YAML, before it is settings: what would be read without end or otherwise than
it is written.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel

from popcorn_ml.errors import ConfigError

MAX_VALUES = 100_000
"""Of a country's file, which has some hundred."""

AS_TEXT = "where"
"""Section whose values are compared as text, whatever YAML takes them for."""

_BOOL, _INT, _FLOAT = (f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float"))
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+")


def refuse_endless(path: Path, root: yaml.Node | None) -> None:
    """Refuse a file whose aliases, written out, would be without end or without measure.

    Raises:
        ConfigError: so.
    """
    sizes: dict[int, float] = {}

    def size(node: yaml.Node) -> float:
        if id(node) not in sizes:
            sizes[id(node)] = math.inf  # what is inside itself has no end
            parts: list[yaml.Node] = []
            if isinstance(node, yaml.MappingNode):
                parts = [part for pair in node.value for part in pair]
            elif isinstance(node, yaml.SequenceNode):
                parts = node.value
            sizes[id(node)] = 1 + sum(map(size, parts))
        return sizes[id(node)]

    if root is not None and size(root) > MAX_VALUES:
        raise ConfigError(
            "the file's aliases repeat themselves too often",
            where=path,
            expected=f"at most {MAX_VALUES} values when written out",
            remedy="write the values where they are meant",
        )


def given_twice(root: yaml.Node | None) -> list[tuple[int, str]]:
    """Line and name of every key that its section has already."""
    found, visited, waiting = [], set(), [root]
    while waiting:
        node = waiting.pop()
        if id(node) in visited:  # an alias may lead back to where it stands
            continue
        visited.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            names: set[str] = set()
            for key, value in node.value:
                if str(key.value) in names:
                    found.append((key.start_mark.line + 1, str(key.value)))
                names.add(str(key.value))
                waiting.append(value)
    return sorted(found)


def switches(model: Any) -> set[str]:
    """Names of all settings that are on or off, in a model and those it holds."""
    found, visited, waiting = set(), set(), [model]
    while waiting:
        kind = waiting.pop()
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            if kind in visited:
                continue
            visited.add(kind)
            for name, field in kind.model_fields.items():
                if field.annotation is bool:
                    found.add(name)
                waiting.append(field.annotation)
        else:
            waiting += get_args(kind)
    return found


def read_otherwise(root: yaml.Node | None, on_or_off: set[str]) -> list[tuple[int, str]]:
    """Lines with a code or name that YAML reads as something else, and how it reads it.

    A country's code NO is false to YAML, a state's number 02 is 2, and 12:30 is 750.

    Args:
        on_or_off: settings for which yes and no are meant as such.
    """
    found: dict[int, tuple[int, str]] = {}
    visited: set[tuple[int, bool]] = set()
    waiting: list[tuple[yaml.Node | None, str, bool]] = [(root, "", False)]
    while waiting:
        node, key, text = waiting.pop()
        if node is None or (id(node), text) in visited:
            continue
        visited.add((id(node), text))
        if isinstance(node, yaml.SequenceNode):
            waiting += [(item, key, text) for item in node.value]
        elif isinstance(node, yaml.MappingNode):
            for name, value in node.value:
                waiting += [(name, "", text), (value, str(name.value), text or key == AS_TEXT)]
        elif isinstance(node, yaml.ScalarNode) and node.style is None:
            text = text or key == AS_TEXT
            if how := _misread(node, text, key in on_or_off):
                line = node.start_mark.line + 1
                where = f"{key}: " if key else ""
                found[id(node)] = line, f"{where}{node.value} is read as {how}: '{node.value}'?"
    return sorted(found.values())


def _misread(node: yaml.ScalarNode, text: bool, on_or_off: bool) -> str | None:
    """What YAML makes of an unquoted value, if hardly what is meant."""
    value = yaml.SafeLoader("").construct_object(node)
    written = node.value
    if text and str(value) != written:
        return str(value)
    if node.tag == _BOOL and written.lower() not in ("true", "false") and not on_or_off:
        return str(value).lower()
    if node.tag == _INT and (_LEADING_ZERO.fullmatch(written) or ":" in written):
        return str(value)
    if node.tag == _FLOAT and ":" in written:
        return str(value)
    return None
