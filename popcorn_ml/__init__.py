"""The science: from Sentinel images and census counts to a population map, free of Dagster.

For whoever uses the maps, `import popcorn_ml as popcorn` offers what docs/python.md describes:
`popcorn.maps()`, `popcorn.open_map("rwa", 2022)`, `popcorn.units("rwa", 2022)`,
`popcorn.people_in(zones, "rwa", 2022)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from popcorn_ml.surroundings import settle

if TYPE_CHECKING:
    from popcorn_ml.published.maps import maps, open_map, people_in
    from popcorn_ml.published.units import units

__all__ = ["__version__", "maps", "open_map", "people_in", "units"]

settle()

_OFFERED = {"maps": "maps", "open_map": "maps", "people_in": "maps", "units": "units"}
"""Name -> the module of `published` that has it, which is imported when it is asked for."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("popcorn-assets")
    if name in _OFFERED:
        from importlib import import_module

        return getattr(import_module(f"popcorn_ml.published.{_OFFERED[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
