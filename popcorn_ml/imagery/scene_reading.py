"""One scene under one tile: its bands read, masked and turned into codes, its losses told."""

from __future__ import annotations

from typing import Any

import numpy as np

from popcorn_ml.imagery.composite import power_to_codes, reflectance_codes
from popcorn_ml.imagery.remote import AssetLost
from popcorn_ml.imagery.source import Lost, Scene, Traffic
from popcorn_ml.imagery.stac_items import SCL


def read_s2(
    reader: Any, scene: Scene, bands: tuple[str, ...], classes: tuple[int, ...]
) -> tuple[np.ndarray | None, list[Lost], Traffic]:
    """Clear reflectance codes (bands, rows, columns) of a scene; None where nothing is clear."""
    traffic = Traffic()
    try:
        labels = _asset(reader, scene, SCL, 0, traffic)
    except AssetLost as error:
        return None, [Lost(scene.id, SCL, str(error), error.down)], traffic
    if labels is None:
        return None, [], traffic
    clear = np.isin(labels, classes)
    if not clear.any():  # nothing to see: the large assets need not be fetched
        return None, [], traffic
    codes, lost = np.zeros((len(bands), *clear.shape), np.uint16), []
    for place, band in enumerate(bands):
        try:
            numbers = _asset(reader, scene, band, 0, traffic)
        except AssetLost as error:
            lost.append(Lost(scene.id, band, str(error), error.down))
            continue
        if numbers is not None:
            np.multiply(reflectance_codes(numbers, scene.offset), clear, out=codes[place])
    return codes, lost, traffic


def read_s1(
    reader: Any, scene: Scene, bands: tuple[str, ...], classes: tuple[int, ...]
) -> tuple[np.ndarray | None, list[Lost], Traffic]:
    """Backscatter codes (bands, rows, columns) of a scene; None where it does not reach."""
    traffic, lost = Traffic(), []
    layers: list[np.ndarray | None] = []
    for band in bands:
        if not scene.holds(band):  # it was sent or received otherwise: nothing is missing
            layers.append(None)
            continue
        try:
            power = _asset(reader, scene, band, -32768, traffic)
        except AssetLost as error:
            lost.append(Lost(scene.id, band, str(error), error.down))
            power = None
        layers.append(None if power is None else power_to_codes(power))
    present = next((layer for layer in layers if layer is not None), None)
    if present is None:
        return None, lost, traffic
    return np.stack([np.zeros_like(present) if x is None else x for x in layers]), lost, traffic


def _asset(
    reader: Any, scene: Scene, band: str, fill: float, traffic: Traffic
) -> np.ndarray | None:

    if band not in scene.assets:
        raise AssetLost("the item has no such asset")
    return reader.read(scene.assets[band], fill, traffic)
