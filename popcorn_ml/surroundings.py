"""The environment that a process was started in, as far as it would change what comes out.

QGIS, conda and PostGIS export PROJ_DATA and GDAL's options for programs of their own; the libraries
here would take another release's files and other rules for what is read and written. So the
variables that could change a number or a byte are taken out of the environment before a library
sees them, of this process and of those that it starts, and `popcorn doctor` names them. And
whatever proxy is named, this machine is never asked for through it.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from importlib.util import find_spec
from pathlib import Path

FAMILIES = ("GDAL_", "OGR_", "OSR_", "GTIFF_", "TIFF_", "GEOTIFF_", "PROJ_", "SHAPE_", "HFA_")
OTHERS = frozenset(
    {"USE_RRD", "ESRI_XML_PAM", "CENTER_LONG", "CHECK_WITH_INVERT_PROJ", "CREATE_METADATA_TABLES"}
)
"""Variables of GDAL's that no family's name begins."""

HARMLESS = (
    "GDAL_CACHEMAX", "GDAL_NUM_THREADS", "GDAL_MAX_DATASET_POOL", "GDAL_HTTP_", "GDAL_CURL_",
    "GDAL_INGESTED_BYTES_AT_OPEN", "PROJ_DEBUG", "PROJ_CURL_CA_BUNDLE",
)  # fmt: skip
"""Beginnings of those that say how fast, through which network and how loudly, never what."""

WHERE_ITS_FILES_ARE = ("PROJ_DATA", "PROJ_LIB", "GDAL_DATA", "GDAL_DRIVER_PATH")
"""Needed where the libraries come from conda or the system and bring no files of their own."""

LOOPBACK = ("localhost", "127.0.0.1", "::1")

_set_aside: list[str] = []


def settle() -> None:
    """Put this process's environment in order; called before any library can read it."""
    for name in [name for name in os.environ if changes_results(name)]:
        del os.environ[name]
        _set_aside.append(name)
    never_proxy_loopback(os.environ)


def set_aside() -> list[str]:
    """Variables that were set when this process began, and have no say."""
    return sorted(_set_aside)


def changes_results(name: str) -> bool:
    """Whether a variable could change what is read or written here."""
    if name in WHERE_ITS_FILES_ARE and not brings_its_files():
        return False
    return (name.startswith(FAMILIES) or name in OTHERS) and not name.startswith(HARMLESS)


def brings_its_files() -> bool:
    """Whether rasterio carries PROJ's and GDAL's files with it, as it does from PyPI."""
    found = find_spec("rasterio")
    if found is None or found.origin is None:
        return False
    return (Path(found.origin).parent / "proj_data" / "proj.db").is_file()


def never_proxy_loopback(environment: MutableMapping[str, str]) -> None:
    """Exempt this machine from whatever proxy is named, for requests, urllib, curl and gRPC."""
    given = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    names = [name for name in given.replace(" ", "").split(",") if name]
    if "*" in names:
        return
    told = ",".join([*names, *(name for name in LOOPBACK if name not in names)])
    environment["no_proxy"] = environment["NO_PROXY"] = told
