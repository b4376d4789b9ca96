"""Files that viewers leave beside the rasters they show: named, and no part of any version.

A version is read-only, and yet who may write everywhere writes them. One is harmless while it only
keeps what a viewer worked out; one that says where a raster lies, or which of its values count,
changes what is read of the raster and is told as any other file that nobody recorded.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

PLAIN = (".ovr", ".qml", ".qmd", ".sld", ".gpkg-shm")
"""Endings of overviews, styles and a GeoPackage's index of its log, which change no value."""

NAMES = (".DS_Store", "Thumbs.db", "desktop.ini", ".directory")
"""What file managers write."""

WORKED_OUT = {"PAMDataset", "PAMRasterBand", "Description", "Histograms", "HistItem", "HistMin",
              "HistMax", "BucketCount", "IncludeOutOfRange", "Approximate", "HistCounts",
              "Metadata", "MDI"}  # fmt: skip
"""Elements of GDAL's .aux.xml that only keep statistics, histograms and a band's name."""

MAX_BYTES = 4_000_000


def of_a_viewer(path: Path) -> str:
    """What a file is that a viewer or file manager wrote and that changes nothing; else empty."""
    name = path.name
    if name in NAMES and path.is_file():
        return "a file manager's, no part of the version"
    if name.endswith(".aux.xml"):
        raster = path.with_name(name.removesuffix(".aux.xml"))
        if raster.is_file() and _only_worked_out(path):
            return "statistics that a viewer worked out, no part of the version"
        return ""
    if name.startswith("._") and path.is_file():
        return "a file manager's, no part of the version"
    if path.suffix == ".gpkg-wal" and path.is_file() and path.stat().st_size == 0:
        return "a viewer's log without an entry, no part of the version"
    if path.suffix in PLAIN and path.is_file():
        same_stem = any(path.with_suffix(end).is_file() for end in (".tif", ".gpkg"))
        if path.with_suffix("").is_file() or same_stem or path.suffix == ".gpkg-shm":
            return "a viewer's overviews or style, no part of the version"
    return ""


def _only_worked_out(path: Path) -> bool:
    try:
        if path.stat().st_size > MAX_BYTES:
            return False
        text = path.read_text("utf-8")
        if "<!DOCTYPE" in text:
            return False
        root = ElementTree.fromstring(text)
    except (OSError, ValueError, ElementTree.ParseError):
        return False
    items = [item.get("key", "") for item in root.iter("MDI")]
    return (
        all(element.tag in WORKED_OUT for element in root.iter())
        and all(key.startswith("STATISTICS_") for key in items)
        and not any(element.get("domain") for element in root.iter("Metadata"))
    )
