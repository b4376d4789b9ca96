"""An item collection on disk: its items, with the places of their scenes made absolute."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from popcorn_ml.edges import within
from popcorn_ml.errors import ImageryError
from popcorn_ml.imagery.stac_fields import hrefs, mapping
from popcorn_ml.imagery.stac_items import is_link


def local_items(path: Path) -> list[Any]:
    """What a collection lists, as it stands there; scenes lie below its folder, or are links.

    Raises:
        ImageryError: it is missing, or is none.
        ConfigError: a path leads elsewhere.
    """
    try:
        items = json.loads(path.read_text("utf-8"))["features"]
        if not isinstance(items, list):
            raise TypeError(f'"features" is {type(items).__name__}, not a list')
    except FileNotFoundError as error:
        raise ImageryError(
            "the item collection is missing", where=path, remedy="make or fetch the scenes"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ImageryError(
            "this is not a STAC item collection",
            where=path,
            expected='GeoJSON with "features"',
            found=str(error),
        ) from error
    folder = path.resolve().parent
    return [_rooted(item, folder) for item in items]


def _rooted(item: Any, folder: Path) -> Any:
    """An item with the paths of its assets taken from its folder."""
    assets = dict(mapping(mapping(item).get("assets")))
    known = hrefs(item)
    for key, asset in assets.items():
        href = known.get(str(key).lower())
        if href is not None and not is_link(href):
            inside = str(within(folder / href, [folder]).resolve())
            assets[key] = {**mapping(asset), "href": inside}
    return {**item, "assets": assets} if assets else item
