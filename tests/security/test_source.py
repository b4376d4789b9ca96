"""What the code may not do, read from its syntax: build SQL from values, unpickle, run text."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(
    p for name in ("popcorn_ml", "popcorn_assets") for p in (ROOT / name).rglob("*.py")
)

SQL_METHODS = ("execute", "executemany", "sql", "query", "frame", "read_sql", "read_sql_query")
QUOTERS = ("identifier",)
"""Functions that let only names of the schema through (`popcorn_ml.warehouse_schema`)."""
SQL_WORDS = (
    "SELECT ", "INSERT ", "UPDATE ", "DELETE ", "CREATE ", "DROP ", "ALTER ", "ATTACH ", "DETACH ",
    "COPY ", "USE ", "DESCRIBE ", "PRAGMA ", "WITH ", "INSTALL ", "LOAD ", "EXPORT ",
)  # fmt: skip


# SQL ----------------------------------------------------------------------------------------------


def functions_of(tree: ast.AST) -> Iterator[ast.AST]:
    """Every function with what it assigns, and the module itself."""
    yield tree
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def assigned(function: ast.AST, name: str) -> list[ast.AST]:
    """What a function assigns to a name."""
    found = []
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == name for t in node.targets
        ):
            found.append(node.value)
        elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.NamedExpr) and (
            isinstance(node.target, ast.Name) and node.target.id == name and node.value
        ):
            found.append(node.value)
    return found


def is_constant(node: ast.AST, function: ast.AST, depth: int = 0) -> bool:
    """Whether an expression is made of text in the code and names of the schema alone."""
    if depth > 8:
        return False
    again = {"function": function, "depth": depth + 1}
    if isinstance(node, ast.Constant):
        return True
    if isinstance(node, ast.Name):
        values = assigned(function, node.id)
        if not values and node.id.isupper():
            return True  # a constant of the module
        return bool(values) and all(is_constant(value, **again) for value in values)
    if isinstance(node, ast.Attribute):
        return node.attr.isupper()
    if isinstance(node, ast.JoinedStr):
        return all(is_constant(part, **again) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return is_constant(node.value, **again)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return is_constant(node.left, **again) and is_constant(node.right, **again)
    if isinstance(node, ast.IfExp):
        return is_constant(node.body, **again) and is_constant(node.orelse, **again)
    if isinstance(node, ast.GeneratorExp | ast.ListComp):
        return is_constant(node.elt, **again)
    if isinstance(node, ast.Call):
        called = node.func
        if isinstance(called, ast.Name) and called.id in QUOTERS:
            return True
        if isinstance(called, ast.Name) and called.id == "map":
            return isinstance(node.args[0], ast.Name) and node.args[0].id in QUOTERS
        if isinstance(called, ast.Attribute) and called.attr == "join":
            return is_constant(called.value, **again) and is_constant(node.args[0], **again)
    return False


def is_parameter(node: ast.AST, function: ast.AST) -> bool:
    """Whether it is handed on from the function's own caller, who is looked at in turn, or is the
    name of a loop over the statements of the schema."""
    if not isinstance(node, ast.Name):
        return False
    if isinstance(function, ast.FunctionDef):
        arguments = [*function.args.args, *function.args.kwonlyargs]
        if any(a.arg == node.id for a in arguments) and function.name in SQL_METHODS:
            return True
    loops = [n for n in ast.walk(function) if isinstance(n, ast.For)]
    return any(
        isinstance(loop.target, ast.Name)
        and loop.target.id == node.id
        and _over_the_schema(loop.iter, loops)
        for loop in loops
    )


def _over_the_schema(iterated: ast.AST, loops: list[ast.For]) -> bool:
    while isinstance(iterated, ast.Subscript):
        iterated = iterated.value
    if isinstance(iterated, ast.Name) and iterated.id == "MIGRATIONS":
        return True
    return isinstance(iterated, ast.Name) and any(
        isinstance(loop.target, ast.Name)
        and loop.target.id == iterated.id
        and _over_the_schema(loop.iter, loops)
        for loop in loops
        if loop.iter is not iterated
    )


def looks_like_sql(node: ast.AST, function: ast.AST) -> bool:
    """Whether a query's receiver speaks SQL: `tree.query(box)` of a spatial index does not."""
    if isinstance(node, ast.Name):
        values = assigned(function, node.id)
        return not values or any(looks_like_sql(value, function) for value in values)
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str)
    if isinstance(node, ast.JoinedStr):
        return True
    return isinstance(node, ast.BinOp | ast.IfExp)


def sql_from_values(source: str) -> list[int]:
    """Lines on which a statement is made of anything but constants and names of the schema."""
    tree = ast.parse(source)
    bad, seen = [], set()
    for function in reversed(list(functions_of(tree))):  # the innermost function first
        for node in ast.walk(function):
            if not isinstance(node, ast.Call) or id(node) in seen:
                continue
            seen.add(id(node))
            called = node.func
            if not (isinstance(called, ast.Attribute) and called.attr in SQL_METHODS):
                continue
            statement = node.args[0] if node.args else None
            for keyword in node.keywords:
                statement = keyword.value if keyword.arg in ("query", "sql") else statement
            if statement is None:
                continue
            if called.attr == "query" and not looks_like_sql(statement, function):
                continue
            if not is_constant(statement, function) and not is_parameter(statement, function):
                bad.append(node.lineno)
    return sorted(set(bad))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_sql_is_made_of_constants_and_names_of_the_schema(path):
    text = path.read_text("utf-8")
    if any(f".{method}(" in text for method in SQL_METHODS):
        allowed = _numeric_queries(text)
        assert [line for line in sql_from_values(text) if line not in allowed] == []


def _numeric_queries(text: str) -> set[int]:
    """Lines that ask a spatial index of scipy or shapely, which knows no SQL."""
    words = ("KDTree", "tree.query", "np.stack")
    return {i for i, line in enumerate(text.splitlines(), 1) if any(w in line for w in words)}


@pytest.mark.parametrize(
    "bad",
    [
        'def f(c, x): c.execute(f"SELECT * FROM t WHERE a = {x}")',
        'def f(c, x): c.execute("SELECT * FROM t WHERE a = " + x)',
        'def f(c, x): c.execute("SELECT * FROM t WHERE a = %s" % x)',
        'def f(c, x): c.execute("SELECT * FROM t WHERE a = {}".format(x))',
        'def f(c, x):\n    s = f"SELECT {x}"\n    c.execute(s)',
        'def f(c, x):\n    s = "SELECT "\n    s += x\n    c.execute(s)',
        'def f(c, xs): c.execute("SELECT " + ", ".join(xs))',
        'def f(c, x): c.sql(query=f"SELECT {x}")',
        'def f(w, x): w.query(f"SELECT {x}")',
        "def f(c, statement): c.execute(statement)",
        "def f(c, xs):\n    for s in xs:\n        c.execute(s)",
    ],
)
def test_sql_made_of_a_value_would_be_found(bad):
    assert sql_from_values(bad)


@pytest.mark.parametrize(
    "good",
    [
        'def f(c, x): c.execute("SELECT * FROM t WHERE a = ?", [x])',
        'def f(c, x): c.execute(f"SELECT * FROM {identifier(x)}")',
        'def f(c, xs):\n    s = " AND ".join(f"{identifier(x)} = ?" for x in xs)\n    c.sql(s)',
        'def f(c): c.execute(f"USE {CATALOG}")',
        "def f(c):\n    for s in MIGRATIONS[0]:\n        c.execute(s)",
        "def f(tree, box): tree.query(shapely.box(*box))",
    ],
)
def test_sql_made_of_constants_passes(good):
    assert not sql_from_values(good)


# Pickles ------------------------------------------------------------------------------------------

UNPICKLERS = ("pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal")
READERS = ("read_pickle", "unsafe_load", "full_load", "load_all")
RUNNERS = ("eval", "exec", "compile", "__import__")


def risky(source: str) -> list[tuple[int, str]]:
    """Lines that could run what a file says, and why."""
    tree = ast.parse(source)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in UNPICKLERS and node.attr != "UnpicklingError":
                found.append((node.lineno, f"{node.value.id}.{node.attr}"))
        elif isinstance(node, ast.ImportFrom) and node.module in UNPICKLERS:
            found.append((node.lineno, f"from {node.module}"))
        elif isinstance(node, ast.Import):
            for name in node.names:
                if name.name in UNPICKLERS and (name.name != "pickle" or name.asname):
                    found.append((node.lineno, f"import {name.name}"))
        elif isinstance(node, ast.Call):
            found += [(node.lineno, why) for why in _risky_call(node)]
    return found


def _risky_call(node: ast.Call) -> Iterator[str]:
    given = {k.arg: k.value for k in node.keywords}
    called = node.func
    if isinstance(called, ast.Name) and called.id in RUNNERS:
        yield called.id
    if not isinstance(called, ast.Attribute):
        return
    owner = called.value.id if isinstance(called.value, ast.Name) else ""
    if called.attr in READERS:
        yield called.attr
    if owner == "torch" and called.attr == "load" and not _is(given.get("weights_only"), True):
        yield "torch.load without weights_only=True"
    if owner in ("np", "numpy") and called.attr in ("load", "memmap", "fromfile"):
        if called.attr != "load" or not _is(given.get("allow_pickle"), False):
            yield f"numpy.{called.attr} without allow_pickle=False"
    if owner == "yaml" and called.attr == "load":
        yield "yaml.load"
    if "ckpt_path" in given and "weights_only" not in given:
        yield "a lightning checkpoint without weights_only"
    if called.attr == "load_from_checkpoint" and not _is(given.get("weights_only"), True):
        yield "load_from_checkpoint"
    if _is(given.get("shell"), True):
        yield "a shell"
    if owner == "os" and called.attr in ("system", "popen"):
        yield f"os.{called.attr}"


def _is(node: ast.AST | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_nothing_is_unpickled_or_run_from_text(path):
    assert risky(path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    "bad",
    [
        "import pickle\npickle.load(f)",
        "from pickle import loads",
        "import joblib",
        "import torch\ntorch.load(p)",
        "import torch\ntorch.load(p, weights_only=False)",
        "import numpy as np\nnp.load(p)",
        "import numpy as np\nnp.load(p, allow_pickle=True)",
        "import yaml\nyaml.load(t, Loader=yaml.Loader)",
        "import yaml\nyaml.unsafe_load(t)",
        "import pandas as pd\npd.read_pickle(p)",
        "trainer.fit(m, ckpt_path=p)",
        "eval(t)",
        "import subprocess\nsubprocess.run(t, shell=True)",
        "import os\nos.system(t)",
    ],
)
def test_unpickling_would_be_found(bad):
    assert risky(bad)


def test_step_outputs_travel_as_json():
    """No asset or op of the code location has an IO manager that pickles."""
    from popcorn_assets.definitions import defs
    from popcorn_assets.io import JsonIOManager

    repository = defs.get_repository_def()
    found = set()
    for job in repository.get_all_jobs():
        for name, resource in job.resource_defs.items():
            if "io_manager" in name:
                found.add((name, type(resource).__name__, getattr(resource, "__name__", "")))
    assert isinstance(dict(defs.resources)["io_manager"], JsonIOManager)
    assert {name for name, *_ in found} == {"io_manager"}


EVIL = textwrap.dedent(
    """
    import os, pathlib
    class Evil:
        def __reduce__(self):
            return pathlib.Path.touch, (pathlib.Path({mark!r}),)
    """
)


@pytest.mark.parametrize("how", ["torch", "torch_old", "pickle"])
def test_a_training_state_that_would_run_code_is_thrown_away(tmp_path, how):
    """As a killed run may leave it, or somebody may put it into the store's work folder."""
    import pickle

    import torch

    from popcorn_ml.training.fit import STATE_FILE, _usable_state

    mark = tmp_path / "ran"
    space: dict = {}
    exec(EVIL.format(mark=str(mark)), space)
    evil = {"popcorn": {"fingerprint": space["Evil"](), "history": []}}
    state = tmp_path / STATE_FILE
    if how == "pickle":
        state.write_bytes(pickle.dumps(evil))
    else:
        torch.save(evil, state, _use_new_zipfile_serialization=how == "torch")
    assert _usable_state(state, object()) is None  # type: ignore[arg-type]
    assert not state.exists()
    assert not mark.exists()
