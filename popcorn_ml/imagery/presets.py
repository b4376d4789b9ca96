"""Grids of countries: the four of the published data set, and any other from a box or a boundary.

The published four keep EPSG:4326 at Earth Engine's step, so that the published composites and
checkpoints fit. Other countries default to metres: the UTM zone of their centre, 10 m.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from popcorn_ml.errors import ConfigError
from popcorn_ml.grid import EARTH_ENGINE_10M_DEG, Grid, default_step

if TYPE_CHECKING:
    from popcorn_ml.imagery.boundary import Boundary

PUBLISHED_BOXES: dict[str, tuple[float, float, float, float]] = {
    "rwa": (28.782241, -2.903950, 30.961654, -0.994897),
    "che": (5.855713, 45.759859, 10.656738, 47.864774),
    "pricp2": (-67.282031, 17.874492, -65.205615, 18.522873),
    "uga": (29.492798, -1.554375, 35.095825, 4.291636),
}
"""West, south, east, north in degrees (Metzger et al. 2024): Rwanda, Switzerland, Puerto Rico,
Uganda."""


def preset_grid(country: str) -> Grid:
    """The grid of one of the published countries.

    Raises:
        ConfigError: it is not one of them.
    """
    if country not in PUBLISHED_BOXES:
        raise ConfigError(
            "no grid is preset for this country",
            where="grid.preset",
            expected=", ".join(PUBLISHED_BOXES),
            found=country,
            remedy="give a box or a boundary file instead",
        )
    return Grid.covering("EPSG:4326", PUBLISHED_BOXES[country], EARTH_ENGINE_10M_DEG)


def grid_of_box(
    box: tuple[float, float, float, float], crs: str | None = None, step: float | None = None
) -> Grid:
    """The grid that covers a box in degrees.

    Args:
        box: west, south, east, north, WGS 84.
        crs: of the grid; None = the UTM zone of the box's centre.
        step: pixel side in units of `crs`; None = 10 m (`default_step`).

    Raises:
        ConfigError: the box is empty or not in degrees, or the CRS is unknown.
    """
    from pyproj import Transformer
    from pyproj.exceptions import CRSError, ProjError

    west, south, east, north = box
    if not (-180 <= west < east <= 180 and -90 <= south < north <= 90):
        raise ConfigError(
            "this is not a box in degrees",
            where="grid.box",
            expected="west < east within -180..180, south < north within -90..90",
            found=box,
        )
    target = crs or utm_zone((west + east) / 2, (south + north) / 2)
    try:
        change = Transformer.from_crs("EPSG:4326", target, always_xy=True)
        bounds = change.transform_bounds(*box, densify_pts=51)
    except (CRSError, ProjError) as error:
        raise ConfigError(
            "the box cannot be brought into the grid's CRS",
            where="grid.crs",
            found=f"{target}: {error}",
            remedy="give an authority code such as EPSG:32736 that is valid over the box",
        ) from error
    if not all(map(math.isfinite, bounds)):
        raise ConfigError(
            "the grid's CRS does not hold the box", where="grid.crs", found=f"{target}, box {box}"
        )
    return Grid.covering(target, bounds, step or default_step(target))


def grid_of_boundary(
    boundary: Path | Boundary, crs: str | None = None, step: float | None = None
) -> Grid:
    """The grid that covers a boundary file, on beyond 180 degrees if need be.

    Args:
        boundary: vector file with polygons and a CRS.
        crs: of the grid; None = the UTM zone of the boundary's centre.
        step: pixel side in units of `crs`; None = 10 m (`default_step`).

    Raises:
        ConfigError: missing, unreadable, empty, or without CRS; or there is no such `crs`.
    """
    from popcorn_ml.imagery.boundary import outline

    if crs is None:
        west, south, east, north = outline(boundary, "EPSG:4326").bounds
        crs = utm_zone((west + east) / 2, (south + north) / 2)
    step = step or default_step(crs)
    return Grid.covering(crs, outline(boundary, crs).bounds, step)


def utm_zone(lon: float, lat: float) -> str:
    """The EPSG code of the UTM zone (WGS 84) of a place, without the exceptions in Norway."""
    zone = 60 if lon == 180 else int((lon + 180) % 360 // 6) + 1
    return f"EPSG:{32600 + zone if lat >= 0 else 32700 + zone}"
