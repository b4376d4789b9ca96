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
QUOTERS = ("identifier", "text_literal")
"""Functions of `popcorn_ml.warehouse.schema` that let only its names through, or quote a text."""
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
    found: list[ast.AST] = []
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.NamedExpr):
            targets = [node.target]
        else:
            continue
        if any(isinstance(t, ast.Name) and t.id == name for t in targets) and node.value:
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
        if not values and (node.id.isupper() or looped_over_constants(node.id, function, depth)):
            return True  # a constant of the module, or one of several
        return bool(values) and all(is_constant(value, **again) for value in values)
    if isinstance(node, ast.Attribute):
        return node.attr.isupper()
    if isinstance(node, ast.JoinedStr):
        return all(is_constant(part, **again) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return is_constant(node.value, **again)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return is_constant(node.left, **again) and is_constant(node.right, **again)
    if isinstance(node, ast.BinOp) and isinstance(
        node.op, ast.Mult
    ):  # as often as there are values
        return is_constant(node.left, **again)
    if isinstance(node, ast.BoolOp):
        return all(is_constant(value, **again) for value in node.values)
    if isinstance(node, ast.Tuple | ast.List):
        return all(is_constant(part, **again) for part in node.elts)
    if isinstance(node, ast.Starred | ast.Subscript):
        return is_constant(node.value, **again)
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


def looped_over_constants(name: str, function: ast.AST, depth: int) -> bool:
    """Whether a name is that of a loop over constants: `for table in TABLES`."""
    loops = [n for n in ast.walk(function) if isinstance(n, ast.For | ast.comprehension)]
    of_the_name = [
        loop
        for loop in loops
        if any(isinstance(n, ast.Name) and n.id == name for n in ast.walk(loop.target))
    ]
    return bool(of_the_name) and all(
        is_constant(_without_items(loop.iter), function, depth + 1) for loop in of_the_name
    )


def _without_items(node: ast.AST) -> ast.AST:
    """The mapping of `mapping.items()`."""
    called = node.func if isinstance(node, ast.Call) else None
    if isinstance(called, ast.Attribute) and called.attr in ("items", "values", "keys"):
        return called.value
    return node


def parameter(node: ast.AST, function: ast.AST) -> int | None:
    """Which of the function's own parameters an expression is, if it is one."""
    if not isinstance(node, ast.Name) or not isinstance(function, ast.FunctionDef):
        return None
    names = [argument.arg for argument in function.args.args]
    return names.index(node.id) if node.id in names else None


def is_spatial(call: ast.Call) -> bool:
    """Whether it asks a spatial index, which knows no SQL."""
    return isinstance(call.func, ast.Attribute) and "tree" in ast.unparse(call.func.value).lower()


def sql_from_values(source: str) -> list[int]:
    """Lines on which a statement is made of anything but constants and names of the schema.

    A function that hands one of its own parameters on as a statement speaks SQL itself: what it is
    called with is looked at.
    """
    tree = ast.parse(source)
    bad, handing = set(), {}
    for _ in range(3):  # each round knows the functions found in the one before
        seen: set[int] = set()
        for function in reversed(list(functions_of(tree))):  # the innermost function first
            for node in ast.walk(function):
                if not isinstance(node, ast.Call) or id(node) in seen:
                    continue
                statement = statement_of(node, handing)
                if statement is None:
                    continue
                seen.add(id(node))
                if is_spatial(node):
                    continue
                if is_constant(statement, function):
                    bad.discard(node.lineno)
                elif (place := parameter(statement, function)) is not None:
                    handing[function.name] = place
                    if function.name not in SQL_METHODS and function.name not in called_in(tree):
                        bad.add(node.lineno)
                else:
                    bad.add(node.lineno)
    return sorted(bad)


def called_in(tree: ast.AST) -> set[str]:
    """Names of the functions that a module calls."""
    calls = [n.func for n in ast.walk(tree) if isinstance(n, ast.Call)]
    return {c.id for c in calls if isinstance(c, ast.Name)}


def statement_of(node: ast.Call, handing: dict[str, int]) -> ast.AST | None:
    """The statement of a call that runs SQL."""
    place = None
    if isinstance(node.func, ast.Attribute) and node.func.attr in SQL_METHODS:
        place = 0
    elif isinstance(node.func, ast.Name) and node.func.id in handing:
        place = handing[node.func.id]
    if place is None:
        return None
    for keyword in node.keywords:
        if keyword.arg in ("query", "sql", "statement"):
            return keyword.value
    return node.args[place] if len(node.args) > place else None


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_sql_is_made_of_constants_and_names_of_the_schema(path):
    text = path.read_text("utf-8")
    assert sql_from_values(text) == []


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
        'def f(c, x):\n    def g(c, s): c.execute(s)\n    g(c, f"SELECT {x}")',
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
        "def f(c):\n    for m in MIGRATIONS:\n        for s in m:\n            c.execute(s)",
        "def f(c):\n    for k, s in QUESTIONS.items():\n        c.execute(s)",
        'def f(c, n):\n    s = " OR ".join(["(a = ?)"] * n) or "0"\n    c.execute(f"SELECT {s}")',
        'def f(c, x):\n    def g(c, s): c.execute(s)\n    g(c, "SELECT 1")',
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
            found += [
                (node.lineno, f"import {name.name}")
                for name in node.names
                if name.name in UNPICKLERS and (name.name != "pickle" or name.asname)
            ]
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
    if owner in ("np", "numpy") and called.attr in ("memmap", "fromfile"):
        yield f"numpy.{called.attr}"
    unpickling = not _is(given.get("allow_pickle"), False)
    if owner in ("np", "numpy") and called.attr == "load" and unpickling:
        yield "numpy.load without allow_pickle=False"
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
    from popcorn_assets.store.step_values import JsonIOManager

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

    from popcorn_ml.training.fit import _usable_state
    from popcorn_ml.training.loop import STATE_FILE

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
