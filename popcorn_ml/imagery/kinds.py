"""Which scenes are of the product that composites are made of, whatever else a catalogue lists.

Sentinel-1: interferometric wide swath (IW), of its polarisations VV and VH whichever were
received. Sentinel-2: level 2A. Over sea ice, coasts and islands Sentinel-1 sends and receives
otherwise (HH and HV, other swaths), and archives keep these scenes in the same collections.

Decided by what a scene says of itself, then by its name; where nothing tells, it is taken for one
of the right kind. One rule for STAC catalogues and for Earth Engine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from popcorn_ml.imagery.stac_fields import hrefs, mapping, properties, text, words
from popcorn_ml.sentinel import S1_BANDS, Sensor

POLARISATIONS = ("VV", "VH", "HH", "HV")

_OF_CODE = {
    "DV": ("VV", "VH"), "SV": ("VV",), "DH": ("HH", "HV"), "SH": ("HH",),
    **{name: (name,) for name in POLARISATIONS},
}  # fmt: skip
"""Polarisations of the code that a product's name bears."""

_MODES = {"INTERFEROMETRIC WIDE": "IW", "EXTRA": "EW", "WAVE": "WV", "STRIP": "SM"}
"""How acquisition modes begin that are written out."""

_SHORT_MODE = re.compile(r"(IW|EW|WV|SM|S[1-6])(?![A-Z])")
_NAMED_MODE = re.compile(r"(?:^|_)S1[A-Z]_(IW|EW|WV|SM|S[1-6])[_\d]")
_NAMED_POLARISATION = re.compile(r"_\dS(DV|SV|DH|SH|VV|VH|HH|HV)(?:_|$)")
_NAMED_LEVEL = re.compile(r"_MSI(L1B|L1C|L2A)_")

_NO_MAP = ("RAW", "SLC", "OCN")
"""Products of Sentinel-1 that are no image on a map."""


class OtherKind(Exception):
    """A scene of another kind than the product asked for, and which."""


def s1_bands(
    name: str, mode: object, polarisations: object, assets: Iterable[str] = ()
) -> tuple[str, ...]:
    """Which bands of a composite a Sentinel-1 scene holds.

    Args:
        name: the product's or the scene's.
        mode, polarisations: as the catalogue says them; None where it does not.
        assets: keys of the scene's assets, in lower case.

    Raises:
        OtherKind: another acquisition mode, or neither VV nor VH.
    """
    named = _NAMED_MODE.search(name.upper())
    said = _mode(mode) or _mode(named and named[1])
    if said not in ("", "IW"):
        raise OtherKind(f"acquisition mode {said}, not IW")
    received = _polarisations(name, polarisations, assets)
    bands = tuple(band for band in S1_BANDS if band in received)
    if received and not bands:
        raise OtherKind(f"polarisation {'+'.join(received)}, neither VV nor VH")
    return bands or S1_BANDS


def _mode(given: object) -> str:
    """An acquisition mode by its short name, "" where none is said."""
    said = (words(given) or [""])[0]
    if found := _SHORT_MODE.match(said):
        return "SM" if found[1].startswith("S") else found[1]
    return next((short for long, short in _MODES.items() if said.startswith(long)), "")


def _polarisations(name: str, given: object, assets: Iterable[str]) -> tuple[str, ...]:
    """What was received: as said, else as the assets show, else as the name has it."""
    said = " ".join(words(given))
    if codes := re.findall(r"\b(?:DV|SV|DH|SH)\b", said):
        return tuple(p for code in codes for p in _OF_CODE[code])
    keys = set(assets)
    received = tuple(p for p in POLARISATIONS if p in said)
    received = received or tuple(p for p in POLARISATIONS if p.lower() in keys)
    named = _NAMED_POLARISATION.search(name.upper())
    return received or (_OF_CODE[named[1]] if named else ())


def check_product(item: object, sensor: Sensor, *, told: bool = True) -> None:
    """Refuse an item of another product than the collections hold that composites are made of.

    Args:
        told: whether its collection says what it is; if not, a Sentinel-1 scene that calls itself
            ground range detected is one of digital numbers.

    Raises:
        OtherKind: which it is.
    """
    said, name = properties(item), text(mapping(item).get("id")).upper()
    if sensor == "s2":
        level = _level(said, name)
        if level and level != "L2A":
            raise OtherKind(f"level {level}, not L2A")
        return
    product = text(said.get("sar:product_type") or said.get("product:type")).upper()
    if product in _NO_MAP or (product == "GRD" and not told and "RTC" not in name):
        raise OtherKind(f"product {product}, not terrain corrected backscatter on a map")


def _level(said: Mapping[str, Any], name: str) -> str:
    """Processing level of a Sentinel-2 item, "" where nothing tells."""
    for key in ("s2:product_type", "product:type", "processing:level"):
        found = re.search(r"(L?)(1B|1C|2A)$", text(said.get(key)).upper())
        if found:
            return f"L{found[2]}"
    for one in (text(said.get("s2:product_uri")).upper(), name):
        if found := _NAMED_LEVEL.search(f"{one}_"):
            return found[1]
    return ""


def sensor_of(item: object, keys: Mapping[Sensor, Iterable[str]]) -> Sensor | None:
    """Whose an item is that names no collection; None where nothing tells.

    Args:
        keys: for each sensor, the keys of the assets that are read, in lower case.
    """
    said = properties(item)
    about = " ".join(words([said.get("constellation"), said.get("platform"), said.get("mission")]))
    name = text(mapping(item).get("id")).upper()
    found: set[Sensor] = set()
    for sensor, digit in (("s1", "1"), ("s2", "2")):
        if re.search(rf"SENTINEL[ _-]?{digit}|\bS{digit}[A-D]\b", about) or re.match(
            rf"S{digit}[A-D]_", name
        ):
            found.add(sensor)  # type: ignore[arg-type]
    if not found:
        there = set(hrefs(item))
        found = {sensor for sensor, wanted in keys.items() if there & set(wanted)}
    return found.pop() if len(found) == 1 else None
