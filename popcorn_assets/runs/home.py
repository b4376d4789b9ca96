"""The folder Dagster's instance is configured in, which every command works from."""

from __future__ import annotations

import os
from pathlib import Path

from popcorn_ml.errors import ConfigError

HOME_VARIABLE = "DAGSTER_HOME"
WEBSERVER_VARIABLE = "POPCORN_WEBSERVER"
"""Where this deployment's web server listens, where that is not 127.0.0.1:3000."""
MAPS_VARIABLE = "POPCORN_MAPS"
"""Where the published maps are served, where they are."""


CONFIGURATION = "dagster.yaml"
_MOVED = {"popcorn_assets.instance": "popcorn_assets.runs.instance"}
"""Modules that a configuration of an earlier release may name -> where they are now."""


def home() -> Path:
    """The folder with dagster.yaml: DAGSTER_HOME, this folder, or the checkout the code is in.

    Raises:
        ConfigError: there is none, or it names a module that has moved.
    """
    named = os.environ.get(HOME_VARIABLE)
    candidates = [Path(named)] if named else [Path.cwd(), Path(__file__).resolve().parents[2]]
    for folder in candidates:
        if (folder / CONFIGURATION).is_file():
            _require_modules(folder / CONFIGURATION)
            return folder.absolute()
    raise ConfigError(
        f"{CONFIGURATION} is not there",
        where=candidates[0],
        remedy=f"run popcorn in the checkout, or set {HOME_VARIABLE} to the folder that has it",
    )


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


def enter_home() -> Path:
    """Make the home the working folder, as dagster.yaml's relative paths need it."""
    folder = home()
    os.environ[HOME_VARIABLE] = str(folder)
    for name in ("POPCORN_DATA", "POPCORN_COUNTRIES", "POPCORN_EARTHENGINE_KEY_FILE"):
        if os.environ.get(name):
            os.environ[name] = str(Path(os.environ[name]).absolute())
    os.chdir(folder)
    return folder
