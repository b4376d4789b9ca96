"""The folder Dagster's instance is configured in, which every command works from.

It is found as git finds a checkout, from the working folder upwards, and begun in an empty folder
by the commands that begin something.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from popcorn_assets.paths import checkout, shipped
from popcorn_ml.errors import ConfigError

HOME_VARIABLE = "DAGSTER_HOME"
WEBSERVER_VARIABLE = "POPCORN_WEBSERVER"
"""Where this deployment's web server listens, where that is not 127.0.0.1:3000."""
MAPS_VARIABLE = "POPCORN_MAPS"
"""Where the published maps are served, where they are."""


CONFIGURATION = "dagster.yaml"
WORKSPACE = "workspace.yaml"
_MOVED = {"popcorn_assets.instance": "popcorn_assets.runs.instance"}
"""Modules that a configuration of an earlier release may name -> where they are now."""


def home() -> Path:
    """The folder with dagster.yaml: DAGSTER_HOME, this one or one above, or the code's checkout.

    Raises:
        ConfigError: there is none, or it names a module that has moved.
    """
    folder = find_home()
    if folder is None:
        named = os.environ.get(HOME_VARIABLE)
        raise ConfigError(
            f"{CONFIGURATION} is not there",
            where=Path(named) if named else Path.cwd(),
            remedy=f"set {HOME_VARIABLE} to the folder that has it, or unset it"
            if named
            else "go to the folder that popcorn demo, new or ui was run in, or run one of them "
            f"here; from elsewhere, set {HOME_VARIABLE} to that folder",
        )
    return folder


def find_home() -> Path | None:
    """The same folder; None where there is none.

    Raises:
        ConfigError: see `home`.
    """
    named = os.environ.get(HOME_VARIABLE)
    here = Path.cwd()
    above = [folder for folder in here.parents if _is_ours(folder / CONFIGURATION)]
    code = [folder] if (folder := checkout()) else []
    for folder in [Path(named)] if named else [here, *above, *code]:
        if (folder / CONFIGURATION).is_file():
            _require_modules(folder / CONFIGURATION)
            return folder.absolute()
    return None


def begin_home() -> None:
    """Make the working folder a home where there is none yet, and say so."""
    if find_home() is not None or os.environ.get(HOME_VARIABLE):
        return
    for name in (CONFIGURATION, WORKSPACE):
        if not Path(name).exists():
            shutil.copyfile(shipped(name), name)
    sys.stderr.write(
        f"{Path.cwd()} is the home of popcorn now: {CONFIGURATION} and {WORKSPACE} are its "
        "settings, data/ its store\n"
    )


def ui_command() -> str:
    """What to type to see the web interface: in a checkout, popcorn is in an environment of its."""
    return "make ui" if (home() / "Makefile").is_file() else "popcorn ui"


def _is_ours(configuration: Path) -> bool:
    """Whether a configuration is for this project: a folder above may be anybody's."""
    try:
        return "popcorn_assets" in configuration.read_text("utf-8", errors="replace")
    except OSError:
        return False


def _require_modules(configuration: Path) -> None:
    """Refuse what an earlier release wrote and Dagster could only answer with a traceback."""
    text = configuration.read_text("utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), start=1):
        key, _, value = line.strip().partition(":")
        name = value.split("#")[0].strip().strip("\"'")
        if key == "module" and name in _MOVED:
            raise ConfigError(
                "the configuration names a module that has moved",
                where=f"{configuration}, line {number}",
                expected=f"module: {_MOVED[name]}",
                found=f"module: {name}",
                remedy=f"write {_MOVED[name]} wherever the file has {name}",
            )


def webserver() -> str:
    """The web server's address, without a slash at its end."""
    return (os.environ.get(WEBSERVER_VARIABLE) or "http://127.0.0.1:3000").rstrip("/")


def enter_home(*, begin: bool = False, needed: bool = True) -> Path:
    """Make the home the working folder, as dagster.yaml's relative paths need it.

    Args:
        begin: the command begins something: where there is no home, this folder becomes one.
        needed: False for what can be told without one; the working folder is returned then.

    Raises:
        ConfigError: see `home`.
    """
    if begin:
        begin_home()
    folder = home() if needed else find_home()
    if folder is None:
        return Path.cwd()
    os.environ[HOME_VARIABLE] = str(folder)
    for name in ("POPCORN_DATA", "POPCORN_COUNTRIES", "POPCORN_EARTHENGINE_KEY_FILE"):
        if os.environ.get(name):
            os.environ[name] = str(Path(os.environ[name]).absolute())
    os.chdir(folder)
    return folder
