"""The wheel: all that the commands need is in it, and they work from any folder, by it alone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")

pytestmark = pytest.mark.long(25)


def run(*command: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("POPCORN_", "DAGSTER_"))}
    return subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**kept, **variables},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy of the files that git would have."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("popcorn_ml", "popcorn_assets", "docs"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=ignored)
    for path in REPOSITORY.iterdir():
        if path.is_file():
            shutil.copy2(path, source / path.name)
    done = run(
        *(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"),
        *("--no-index", "--wheel-dir", folder, source),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder with the wheel unpacked, as an installation has it beside its dependencies."""
    target = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def popcorn(installed: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command as the installation has it: nothing of the checkout can be imported."""
    command = (
        "import sys, popcorn_assets, popcorn_ml;"
        f"assert popcorn_assets.__file__.startswith({str(installed)!r}), popcorn_assets.__file__;"
        f"assert popcorn_ml.__file__.startswith({str(installed)!r}), popcorn_ml.__file__;"
        "sys.argv[0] = 'popcorn';"
        "from popcorn_assets.cli import main; main()"
    )
    return run(sys.executable, "-c", command, *arguments, cwd=cwd, PYTHONPATH=str(installed))


def test_every_file_of_the_packages_is_in_it(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    unwanted = ("__pycache__", ".pyc")
    for package in ("popcorn_ml", "popcorn_assets"):
        files = [p for p in (REPOSITORY / package).rglob("*") if p.is_file()]
        names = {p.relative_to(REPOSITORY).as_posix() for p in files}
        wanted = {name for name in names if not any(sign in name for sign in unwanted)}
        assert wanted - held == set()
    others = {name.split("/")[0] for name in held}
    assert others == {
        "popcorn_ml",
        "popcorn_assets",
        f"popcorn_assets-{PROJECT['version']}.dist-info",
    }


def test_configuration_and_documentation_are_in_it(installed):
    shipped = installed / "popcorn_assets" / "shipped"
    for name in ("dagster.yaml", "workspace.yaml"):
        assert (shipped / name).read_bytes() == (REPOSITORY / name).read_bytes()
    pages = {p.relative_to(REPOSITORY) for p in (REPOSITORY / "docs").rglob("*.md")}
    assert pages == {p.relative_to(shipped) for p in (shipped / "docs").rglob("*.md")}


def test_commands_from_an_empty_folder(installed, tmp_path):
    done = popcorn(installed, tmp_path, "--version")
    assert PROJECT["version"] in done.stdout, done.stderr
    done = popcorn(installed, tmp_path, "countries")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^demo +Demo country", done.stdout, re.M)
    done = popcorn(installed, tmp_path, "doctor")
    assert "is no home of popcorn" in done.stdout, done.stderr
    assert "popcorn demo, new or ui" in done.stdout
    done = popcorn(installed, tmp_path, "export", "demo", "2020", "--to", "there")
    assert done.returncode == 2
    assert "popcorn demo, new or ui" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir()), "who only looks leaves nothing"


def test_a_home_begun_by_the_wheel_is_a_deployment(installed, tmp_path):
    """What `popcorn ui` and `demo` do first; then Dagster loads the workspace that was written."""
    code = (
        "from popcorn_assets.runs.home import enter_home; enter_home(begin=True);"
        "from popcorn_assets.upkeep.health import examine_dagster;"
        "print(*examine_dagster(), sep='\\n');"
        "from popcorn_assets.definitions import defs;"
        "print(len(defs.resolve_all_job_defs()), 'jobs');"
        "from popcorn_assets.described import shipped; print(shipped('docs'))"
    )
    done = run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(installed))
    assert done.returncode == 0, done.stderr
    assert f"Dagster's instance: {tmp_path / 'dagster.yaml'}" in done.stdout
    assert "SQLite, 0 runs" in done.stdout
    assert re.search(r"[1-9]\d* jobs", done.stdout)
    assert str(installed / "popcorn_assets" / "shipped" / "docs") in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dagster.yaml", "data", "workspace.yaml"]
    workspace = yaml.safe_load((tmp_path / "workspace.yaml").read_text())
    assert workspace["load_from"][0]["python_module"]["module_name"] == "popcorn_assets.definitions"


# Versions of Python and of libraries --------------------------------------------------------------


def pins() -> list[Requirement]:
    lines = (REPOSITORY / "constraints.txt").read_text("utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def requirements() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    named = [*PROJECT["dependencies"], *(name for extra in extras for name in extra)]
    return [one for one in map(Requirement, named) if one.name != PROJECT["name"]]


def test_the_pythons_named_are_the_pythons_allowed():
    allowed = SpecifierSet(PROJECT["requires-python"])
    named = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if "Python :: 3" in line]
    assert tuple(named) == PYTHONS
    assert all(version in allowed for version in PYTHONS)
    assert not any(version in allowed for version in ("3.10", "3.15"))


@pytest.mark.parametrize("python", PYTHONS)
def test_every_requirement_has_one_pin_on_every_python(python):
    environment = {"python_version": python, "sys_platform": "linux", "platform_machine": "x86_64"}
    held: dict[str, Requirement] = {}
    for pin in pins():
        if pin.marker is None or pin.marker.evaluate(environment):
            assert canonicalize_name(pin.name) not in held, f"two pins of {pin.name}"
            held[canonicalize_name(pin.name)] = pin
    for wanted in requirements():
        if wanted.marker is None or wanted.marker.evaluate(environment):
            (exact,) = held[canonicalize_name(wanted.name)].specifier
            assert exact.operator == "=="
            assert exact.version in wanted.specifier, wanted


def test_every_pin_takes_every_python():
    """Also the first release of each: a system's own Python is often an early one."""
    for pin in pins():
        if pin.marker is not None:
            continue
        try:
            allowed = SpecifierSet(metadata.metadata(pin.name).get("Requires-Python") or "")
        except metadata.PackageNotFoundError:
            continue  # of another platform
        for python in PYTHONS:
            assert f"{python}.0" in allowed, f"{pin} wants Python {allowed}"
