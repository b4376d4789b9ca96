"""The sources that there are, found by name in `popcorn_ml.imagery.sources`.

They are looked up when they are asked for, so that nothing here depends on any of them.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from popcorn_ml.errors import ConfigError

SOURCES = "popcorn_ml.imagery.sources"
"""The folder that holds one module a source."""


def source_names() -> tuple[str, ...]:
    """The sources there are, in alphabetical order."""
    folder = importlib.import_module(SOURCES).__path__
    return tuple(sorted(m.name for m in pkgutil.iter_modules(folder) if m.name[0] != "_"))


def source_module(name: str) -> ModuleType:
    """The module of a source.

    Raises:
        ConfigError: there is no such source.
    """
    if name not in source_names():
        raise ConfigError(
            "no such source of imagery",
            where="imagery.source",
            expected=", ".join(source_names()),
            found=name,
        )
    return importlib.import_module(f"{SOURCES}.{name}")
