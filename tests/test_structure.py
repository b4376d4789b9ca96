"""How the packages are built, read from their syntax: no circle of imports, nothing too long.

Imports inside functions and for type checking count too: who reads one module has to know what it
leans on, whenever that is loaded.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("popcorn_ml", "popcorn_assets")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

MODULE_LINES = 450
CLASS_LINES = 250
FUNCTION_LINES = 80
EXCUSE = "one thing"
"""What the docstring of something longer says, in the sentence that tells why."""


# Circles ------------------------------------------------------------------------------------------


def module_name(path: Path, root: Path) -> str:
    """The dotted name of a file's module."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(tree: ast.AST, module: str, is_package: bool, known: Iterable[str]) -> set[str]:
    """The known modules that a module's text imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                kept = parts[: len(parts) - node.level + is_package]
                base = ".".join([*kept, *([node.module] if node.module else [])])
            whole = {f"{base}.{alias.name}" for alias in node.names}
            names |= {name if name in known else base for name in whole}
    return {name for name in names if name in known and name != module}


def imports_of(paths: Iterable[Path], root: Path) -> dict[str, set[str]]:
    """Each module's imports of the others."""
    modules = {module_name(path, root): path for path in paths}
    return {
        name: imported(
            ast.parse(path.read_text(encoding="utf-8")),
            name,
            path.name == "__init__.py",
            modules,
        )
        for name, path in modules.items()
    }


def circles(imports: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of modules each of which reaches all the others of its group."""
    reach: dict[str, set[str]] = {}
    for start in imports:
        seen: set[str] = set()
        waiting = list(imports[start])
        while waiting:
            one = waiting.pop()
            if one not in seen:
                seen.add(one)
                waiting += imports.get(one, ())
        reach[start] = seen
    found = {
        tuple(sorted(other for other in reach[one] if one in reach[other]))
        for one in imports
        if one in reach[one]
    }
    return sorted(map(list, found))


def test_no_circle_of_imports() -> None:
    assert circles(imports_of(FILES, ROOT)) == []


@pytest.mark.parametrize(
    "back",
    [
        "import place.a\n",
        "from place import a\n",
        "from . import a\n",
        "from .a import x\n",
        "def f():\n    from place.a import x\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from place.a import x\n",
    ],
)
def test_a_circle_is_seen_however_it_is_written(tmp_path: Path, back: str) -> None:
    (tmp_path / "place").mkdir()
    for name, text in {
        "__init__": "", "a": "from place import b\nx = 1\n", "b": "import place.c\n", "c": back,
        "d": "from place.a import x\n",
    }.items():  # fmt: skip
        (tmp_path / "place" / f"{name}.py").write_text(text)
    imports = imports_of((tmp_path / "place").glob("*.py"), tmp_path)
    assert circles(imports) == [["place.a", "place.b", "place.c"]]
    (tmp_path / "place" / "c.py").write_text("import os\n")
    assert circles(imports_of((tmp_path / "place").glob("*.py"), tmp_path)) == []


# Sizes --------------------------------------------------------------------------------------------


def too_long(text: str) -> list[str]:
    """What is longer than it may be in a module's text and does not say why it is one thing."""
    tree = ast.parse(text)
    found = []
    if len(text.splitlines()) > MODULE_LINES and not excused(tree):
        found.append(f"the module: {len(text.splitlines())} lines")
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            most = CLASS_LINES
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            most = FUNCTION_LINES
        else:
            continue
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        if lines > most and not excused(node):
            found.append(f"{node.name}: {lines} lines, at most {most}")
    return found


def excused(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a docstring says why what it describes is one thing."""
    said = " ".join((ast.get_docstring(node) or "").split())
    return EXCUSE in said


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_too_long(path: Path) -> None:
    assert too_long(path.read_text(encoding="utf-8")) == []


def test_what_is_too_long_is_seen() -> None:
    body = "    x = 1\n"
    assert too_long("def f():\n" + body * FUNCTION_LINES) == ["f: 81 lines, at most 80"]
    assert too_long("def f():\n" + body * (FUNCTION_LINES - 1)) == []
    assert too_long("class C:\n" + body * CLASS_LINES) == ["C: 251 lines, at most 250"]
    assert too_long("x = 1\n" * (MODULE_LINES + 1)) == ["the module: 451 lines"]
    said = '    """All of it is\n    one thing: a list."""\n'
    assert too_long("def f():\n" + said + body * FUNCTION_LINES) == []
    assert too_long('"""Says nothing."""\n' + "x = 1\n" * MODULE_LINES) == ["the module: 451 lines"]
