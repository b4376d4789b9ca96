"""Writes docs/remedies.md: what the errors, the checks and the doctor say, and what to do.

    python tools/remedies.py

The texts are read out of the source, so that the page says what the program says. Values that are
known only when something happens are shown as an ellipsis.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "docs" / "remedies.md"
ANY = "…"
MOST_ALTERNATIVES = 4
OR = "; or: "

SECTIONS = {
    "A command or the web interface does not start": (
        "popcorn_assets/commands", "popcorn_assets/runs", "popcorn_assets/resources.py",
        "popcorn_assets/automation", "popcorn_assets/definitions.py", "popcorn_assets/described.py",
        "popcorn_assets/ahead.py", "popcorn_ml/compute", "popcorn_ml/launching",
        "popcorn_ml/parallel.py", "popcorn_ml/surroundings.py", "popcorn_ml/edges.py",
    ),
    "The country's file is refused": (
        "popcorn_assets/country.py", "popcorn_assets/countries", "popcorn_assets/partitions.py",
        "popcorn_assets/paths.py", "popcorn_ml/grid.py",
    ),
    "Borders or counts cannot be fetched": ("popcorn_ml/agencies",),
    "A census file is refused": (
        "popcorn_ml/census", "popcorn_ml/zones.py", "popcorn_assets/assets/census.py",
    ),
    "Imagery does not come": ("popcorn_ml/imagery", "popcorn_assets/assets/imagery.py"),
    "Weights, training or the choice of a model": (
        "popcorn_ml/model", "popcorn_ml/training", "popcorn_ml/student", "popcorn_ml/intervals",
        "popcorn_assets/promotion", "popcorn_assets/assets/training.py",
        "popcorn_assets/assets/student.py", "popcorn_assets/assets/student_checks.py",
        "popcorn_assets/assets/builtup.py", "popcorn_assets/assets/extractors.py",
        "popcorn_assets/assets/trained_from.py",
    ),
    "A map cannot be made, or a raster cannot be read": (
        "popcorn_ml/mapping", "popcorn_ml/evaluation", "popcorn_ml/cog", "popcorn_ml/raster",
        "popcorn_ml/inputs.py", "popcorn_ml/simulate", "popcorn_ml/sentinel.py",
        "popcorn_assets/assets",
    ),
    "Opening, exporting or showing maps": (
        "popcorn_ml/published", "popcorn_ml/publishing", "popcorn_assets/commands/export.py",
        "popcorn_assets/commands/maps.py",
    ),
    "The store, the disk, the warehouse, the audit": (
        "popcorn_assets/store", "popcorn_assets/upkeep", "popcorn_assets/audit",
        "popcorn_ml/files.py", "popcorn_ml/warehouse",
    ),
    "A check is red, or could not be judged": (
        "popcorn_assets/checks", "popcorn_ml/mapping/checks.py",
        "popcorn_assets/assets/evaluation.py",
    ),
}  # fmt: skip
"""Heading, what one was about -> the files whose texts stand under it; the longest name wins."""

INTRODUCTION = """\
# What do I do when ...

Every error says what is wrong, where, what was expected and found, and what to do. This page has
all of them at one place: search it for the words that you see. `…` stands for what differs from
case to case. Made from the program's own texts by `python tools/remedies.py`; change them there.

First aid, whatever it is: `popcorn doctor` (with the country's code for its imagery and census),
and the log of the failed step in `popcorn ui` under *Runs*. Nothing finished is lost by an error:
put right what is named and start the same again. A check stands here by its name and what has to
hold.
"""


def texts_of(node: ast.expr, constants: dict[str, str]) -> list[str]:
    """The texts that an expression may have; an ellipsis for what is known only later."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=values):
            return _joined([texts_of(value, constants) for value in values])
        case ast.FormattedValue(value=value):
            found = texts_of(value, constants)
            return found if isinstance(value, ast.Name | ast.Attribute | ast.IfExp) else [ANY]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _joined([texts_of(left, constants), texts_of(right, constants)])
        case ast.BoolOp(op=ast.Or(), values=values):
            return [text for value in values for text in texts_of(value, constants)]
        case ast.IfExp(body=body, orelse=other):
            return texts_of(body, constants) + texts_of(other, constants)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return [constants.get(name, ANY)]
        case _:
            return [ANY]


def _joined(parts: list[list[str]]) -> list[str]:
    """All ways to put alternatives together; the first of each where they are too many."""
    ways = ["".join(way) for way in product(*parts)]
    return ways if len(ways) <= MOST_ALTERNATIVES else ["".join(part[0] for part in parts)]


def constants_of(trees: dict[str, ast.Module]) -> dict[str, str]:
    """Name -> text of the constants of all modules that are the same wherever they occur."""
    found: dict[str, set[str]] = defaultdict(set)
    for tree in trees.values():
        for node in tree.body:
            target = node.targets[0] if isinstance(node, ast.Assign) else None
            if isinstance(target, ast.Name) and target.id.strip("_").isupper():
                found[target.id] |= set(texts_of(node.value, {}))
    return {name: texts.pop() for name, texts in found.items() if len(texts) == 1}


def _calls(tree: ast.Module) -> Iterator[tuple[ast.Call, ast.FunctionDef | None]]:
    """Every call with the innermost function that it stands in."""

    def walk(node: ast.AST, inside: ast.FunctionDef | None) -> Iterator:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Call):
                yield child, inside
            yield from walk(child, child if isinstance(child, ast.FunctionDef) else inside)

    yield from walk(tree, None)


def _name(call: ast.Call) -> str:
    return getattr(call.func, "id", None) or getattr(call.func, "attr", "")


def rows_of(tree: ast.Module, constants: dict[str, str]) -> Iterator[tuple[str, str]]:
    """What is said, and what is to be done, of one module's errors, findings and verdicts."""
    for call, function in _calls(tree):
        name, named = _name(call), {word.arg: word.value for word in call.keywords}
        remedy = named.get("remedy")
        said = call.args[0] if call.args else None
        if name == "Finding" and len(call.args) == 3:
            if getattr(call.args[0], "value", None) is True:
                continue
            said, remedy = call.args[1], call.args[2]
        elif name == "MapCheck" and len(call.args) >= 4 and function is not None:
            said, remedy = _check(function), call.args[3]
        elif name == "verdict" and function is not None and remedy is not None:
            said = _check(function)
        if said is None or remedy is None:
            continue
        what, do = texts_of(said, constants), texts_of(remedy, constants)
        what = [text for text in map(_tidy, what) if _says_something(text)]
        do = [text for text in map(_tidy, do) if _says_something(text)]
        if what and do:
            yield " / ".join(dict.fromkeys(what)), OR.join(dict.fromkeys(do))


def _check(function: ast.FunctionDef) -> ast.Constant:
    """A check that is not passed, by its name in the interface and what it holds."""
    sentence = " ".join((ast.get_docstring(function) or "").split("\n\n")[0].split())
    return ast.Constant(f"`{function.name}`: {sentence[:1].lower()}{sentence[1:]}")


def _tidy(text: str) -> str:
    text = " ".join(text.split()).strip(" :;,.")
    return re.sub(rf"{ANY}(\W?{ANY})+", ANY, text)


def _says_something(text: str) -> bool:
    return len(re.findall(r"[A-Za-z]{2,}", text)) >= 2


def section_of(path: str) -> str:
    """The heading that a file's texts stand under.

    Raises:
        KeyError: no heading is for it: add one in SECTIONS.
    """
    fits = {
        prefix: heading
        for heading, prefixes in SECTIONS.items()
        for prefix in prefixes
        if path.startswith(prefix)
    }
    if not fits:
        raise KeyError(f"{path} is under no heading of {Path(__file__).name}: add it to SECTIONS")
    return fits[max(fits, key=len)]


@cache
def page() -> str:
    """The whole page."""
    paths = [
        path
        for package in ("popcorn_ml", "popcorn_assets")
        for path in sorted((REPOSITORY / package).rglob("*.py"))
    ]
    trees = {p.relative_to(REPOSITORY).as_posix(): ast.parse(p.read_text("utf-8")) for p in paths}
    constants = constants_of(trees)
    sections: dict[str, dict[str, str]] = {heading: {} for heading in SECTIONS}
    for path, tree in trees.items():
        for what, do in rows_of(tree, constants):
            known = sections[section_of(path)]
            told = [*known.get(what, "").split(OR), *do.split(OR)]
            known[what] = OR.join(filter(None, dict.fromkeys(told)))
    lines = [INTRODUCTION]
    for heading, rows in sections.items():
        if rows:
            lines += [f"## {heading}", "", "| you read | do |", "|---|---|"]
            order = sorted(rows, key=lambda what: what.strip(f"{ANY} '\"").lower())
            lines += [f"| {_cell(what)} | {_cell(rows[what])} |" for what in order]
            lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    """A text in a table: nothing in it is markup, but what stands in back quotes."""
    parts = re.split(r"(`[^`]*`)", text)
    told = [p if p.startswith("`") else re.sub(r"([\\*_<\[\]])", r"\\\1", p) for p in parts]
    linked = re.sub(r"docs/(\w+\.md)", r"[\1](\1)", "".join(told))
    return linked.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    sys.stdout.write(f"{PAGE}: {len(PAGE.read_text('utf-8').splitlines())} lines\n")
