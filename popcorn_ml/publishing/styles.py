"""QGIS styles (`.qml`), written beside a file of the same name: QGIS 3.22 applies them by itself.

Texts go through an XML writer, so that nothing in them is taken for markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from popcorn_ml.files import write_bytes
from popcorn_ml.publishing.classes import Class, Classes, Value

VERSION = "3.22.0"
_DOCTYPE = b"<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"


def raster_style(classes: Classes, unit: str, band: int = 1) -> bytes:
    """The style of a raster, one band in classes.

    Args:
        classes: with bounds, or of values that stand for something.
        unit: of the values; told with the last class, where a legend has room.
        band: 1-based.
    """
    root = ET.Element("qgis", version=VERSION, styleCategories="Symbology|Rendering")
    pipe = ET.SubElement(root, "pipe")
    provider = ET.SubElement(pipe, "provider")
    ET.SubElement(
        provider, "resampling", enabled="false", maxOversampling="2",
        zoomedInResamplingMethod="nearestNeighbour", zoomedOutResamplingMethod="nearestNeighbour",
    )  # fmt: skip
    common = {"band": str(band), "opacity": "1", "alphaBand": "-1", "nodataColor": ""}
    bounded = [one for one in classes if isinstance(one, Class)]
    if bounded:
        bounds = [one.upper for one in bounded if one.upper is not None]
        span = {"classificationMin": f"{min(bounds):g}", "classificationMax": f"{max(bounds):g}"}
        about = {"type": "singlebandpseudocolor", **common, **span}
        renderer = ET.SubElement(pipe, "rasterrenderer", about)
        ET.SubElement(renderer, "rasterTransparency")
        shader = ET.SubElement(
            ET.SubElement(renderer, "rastershader"), "colorrampshader",
            colorRampType="DISCRETE", classificationMode="1", clip="0", labelPrecision="2",
            minimumValue=f"{min(bounds):g}", maximumValue=f"{max(bounds):g}",
        )  # fmt: skip
        for one in bounded:
            ET.SubElement(
                shader, "item",
                value="inf" if one.upper is None else f"{one.upper:g}",
                color=one.colour, alpha="255", label=_told(one, unit),
            )  # fmt: skip
    else:
        renderer = ET.SubElement(pipe, "rasterrenderer", {"type": "paletted", **common})
        ET.SubElement(renderer, "rasterTransparency")
        palette = ET.SubElement(renderer, "colorPalette")
        for value in classes:
            assert isinstance(value, Value)
            ET.SubElement(
                palette, "paletteEntry", value=str(value.value), color=value.colour,
                alpha="255", label=value.label,
            )  # fmt: skip
    ET.SubElement(pipe, "brightnesscontrast", brightness="0", contrast="0", gamma="1")
    ET.SubElement(pipe, "huesaturation", saturation="0", grayscaleMode="0", colorizeOn="0")
    ET.SubElement(pipe, "rasterresampler", maxOversampling="2")
    ET.SubElement(pipe, "resamplingStage").text = "resamplingFilter"
    ET.SubElement(root, "blendMode").text = "0"
    return _document(root)


def units_style(field: str, classes: Sequence[Class], unit: str) -> bytes:
    """The style of census units: filled by the classes of a field.

    Args:
        field: the layer's column.
        classes: with bounds.
        unit: of the column.
    """
    root = ET.Element("qgis", version=VERSION, styleCategories="Symbology")
    renderer = ET.SubElement(
        root, "renderer-v2", type="graduatedSymbol", attr=field, graduatedMethod="GraduatedColor",
        symbollevels="0", enableorderby="0", forceraster="0",
    )  # fmt: skip
    ranges = ET.SubElement(renderer, "ranges")
    symbols = ET.SubElement(renderer, "symbols")
    lower = 0.0
    for number, one in enumerate(classes):
        upper = 1e12 if one.upper is None else one.upper
        ET.SubElement(
            ranges, "range", lower=f"{lower:.6f}", upper=f"{upper:.6f}", symbol=str(number),
            label=_told(one, unit), render="true",
        )  # fmt: skip
        lower = upper
        symbol = ET.SubElement(
            symbols, "symbol", type="fill", name=str(number), alpha="1", clip_to_extent="1",
            force_rhr="0",
        )  # fmt: skip
        layer = ET.SubElement(
            symbol,
            "layer",
            attrib={"class": "SimpleFill"},
            enabled="1",
            locked="0",
            **{"pass": "0"},
        )
        for key, value in {
            "color": _rgba(one.colour),
            "outline_color": "90,90,90,255",
            "outline_style": "solid",
            "outline_width": "0.15",
            "outline_width_unit": "MM",
            "style": "solid",
        }.items():
            ET.SubElement(layer, "prop", k=key, v=value)
    ET.SubElement(root, "blendMode").text = "0"
    ET.SubElement(root, "layerGeometryType").text = "2"
    return _document(root)


def write_style(beside: Path, style: bytes) -> Path:
    """Write a style under the name that makes it a file's own; that path."""
    path = beside.with_suffix(".qml")
    write_bytes(path, style)
    return path


def _told(one: Class, unit: str) -> str:
    named = one.upper is None and unit != "1"
    return f"{one.label} {unit}" if named else one.label


def _rgba(colour: str) -> str:
    return ",".join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5)) + ",255"


def _document(root: ET.Element) -> bytes:
    ET.indent(root, " ")
    return _DOCTYPE + ET.tostring(root, encoding="utf-8") + b"\n"
