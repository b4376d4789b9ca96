"""Small PNG pictures of rasters and arrays, for the UI and for reports.

Large rasters are read from their overviews, so that a country costs no more than a village.
Pixels without a value are light grey. Every picture of a quantity has its legend with the unit.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Kind = Literal[
    "population",
    "population_std",
    "relative_width",
    "occupancy",
    "builtup",
    "rgb",
    "sar",
    "units",
    "factor",
    "count",
]

NODATA_COLOUR = (0.88, 0.88, 0.88, 1.0)
PIXELS_PER_HECTARE = 100


@dataclass(frozen=True)
class _Look:
    """How a quantity is coloured: colour map, legend, and the stretch of its values."""

    colours: str
    legend: str
    stretch: Literal["people", "unit", "factor", "range"]
    per_hectare: bool = False


_LOOKS: dict[str, _Look] = {
    "population": _Look("inferno", "people per hectare", "people", per_hectare=True),
    "population_std": _Look(
        "viridis", "standard deviation, people per hectare", "people", per_hectare=True
    ),
    "occupancy": _Look("cividis", "people per fully built-up pixel", "range"),
    "builtup": _Look("magma", "built-up score", "unit"),
    "relative_width": _Look("cividis", "width of the 80 % interval over the estimate", "factor"),
    "factor": _Look("RdBu_r", "counted over predicted people", "factor"),
    "count": _Look("viridis", "clear observations", "range"),
}


def thumbnail(
    source: str | Path | np.ndarray,
    kind: Kind,
    *,
    max_px: int = 600,
    pixels_per_hectare: float | None = None,
    title: str | None = None,
) -> bytes:
    """A picture of a raster or an array.

    Args:
        source: a raster, of which the bands that the kind needs are read: the first, but for "rgb"
            the bands B04, B03, B02 and for "sar" VV, VH by their names; or an array, (rows,
            columns), for "rgb" (4, rows, columns) in the order of `sentinel.S2_BANDS`, for "sar"
            (2, rows, columns) in dB. NaN has no value.
        kind: population and population_std (people per pixel, shown per hectare on a logarithmic
            scale), relative_width, occupancy, builtup, rgb (2 to 98 % stretch), sar (VV, VH and
            their difference), units (neighbouring numbers in different colours), factor, count.
        max_px: longest side of the map in the picture; a small array is enlarged to about it.
        pixels_per_hectare: for population; None takes the true area of a raster's own pixels, row
            by row, and 100 for an array.
        title: above the map.

    Returns:
        PNG.

    Raises:
        RasterError: the raster cannot be read.
        ValueError: an array of another shape than the kind needs.
    """
    if isinstance(source, np.ndarray):
        values = source
        density: float | np.ndarray = pixels_per_hectare or PIXELS_PER_HECTARE
    else:
        values, own_density = _read_small(Path(source), kind, max_px)
        density = pixels_per_hectare or own_density
    dimensions = {"rgb": (3, 4), "sar": (3, 2)}.get(kind, (2, None))
    if values.ndim != dimensions[0] or (dimensions[1] and values.shape[0] != dimensions[1]):
        raise ValueError(f"a picture of kind {kind!r} of an array of shape {values.shape}")
    values = _shrunk(values, max_px, nearest=kind == "units")
    if kind == "rgb":
        return _picture(_stretched(values[[2, 1, 0]]), max_px, title)
    if kind == "sar":
        return _picture(
            _stretched(np.stack([values[0], values[1], values[0] - values[1]])), max_px, title
        )
    if kind == "units":
        return _picture(_unit_colours(values), max_px, title)
    look = _LOOKS[kind]
    return _quantity(values * density if look.per_hectare else values, look, max_px, title)


def figure_png(figure: Figure) -> bytes:
    """A figure as PNG, the same bytes for the same figure."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def side_by_side(pictures: Sequence[bytes]) -> bytes:
    """PNGs in one, from left to right on white, each at its own size."""
    from matplotlib.image import imread, imsave

    images = [imread(io.BytesIO(picture))[..., :3] for picture in pictures]
    height = max(image.shape[0] for image in images)
    canvas = np.ones((height, sum(image.shape[1] for image in images), 3), np.float32)
    left = 0
    for image in images:
        canvas[: image.shape[0], left : left + image.shape[1]] = image
        left += image.shape[1]
    stream = io.BytesIO()
    metadata: dict[str, Any] = {"Software": None}  # the same bytes by whichever matplotlib
    imsave(stream, canvas, format="png", metadata=metadata)
    return stream.getvalue()


def _read_small(path: Path, kind: Kind, max_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Decoded values at no more than `max_px` a side, and pixels per hectare at full resolution.

    The latter of the rows that were read, float32 of shape (rows, 1): on a geographic grid pixels
    shrink towards the poles.
    """
    from rasterio.enums import Resampling

    from popcorn_ml import raster, sentinel

    wanted: tuple[str, ...] = {"rgb": sentinel.S2_BANDS, "sar": sentinel.S1_BANDS}.get(kind, ())
    grid = raster.grid_of(path)
    with raster.opened(path) as dataset:
        names = list(dataset.descriptions)
        bands = [names.index(name) + 1 if name in names else i for i, name in enumerate(wanted, 1)]
        bands = bands or [1]
        shrink = max(1.0, max(dataset.shape) / max_px)
        shape = (max(round(dataset.height / shrink), 1), max(round(dataset.width / shrink), 1))
        raw = dataset.read(
            bands,
            out_shape=(len(bands), *shape),
            resampling=Resampling.nearest if kind == "units" else Resampling.average,
            masked=kind != "units",
        )
        centres = (np.arange(shape[0]) + 0.5) * dataset.height / shape[0]
        density = (10_000.0 / grid.row_area_m2()[centres.astype(int)])[:, None].astype(np.float32)
        if kind == "units":
            return raw[0], density
        values = raw.astype(np.float32).filled(np.nan)
        for i, band in enumerate(bands):
            values[i] = values[i] * dataset.scales[band - 1] + dataset.offsets[band - 1]
    return (values if wanted else values[0]), density


def _shrunk(values: np.ndarray, max_px: int, *, nearest: bool) -> np.ndarray:
    """Values at no more than `max_px` a side, averaged over whole cells of pixels, NaN left out."""
    side = -(-max(values.shape[-2:]) // max_px)
    if side <= 1:
        return values
    if nearest:
        return values[..., ::side, ::side]
    from popcorn_ml.mapping.aggregate import cell_sums

    has_value = np.where(np.isnan(values), np.nan, 1.0)
    return cell_sums(values, side) / cell_sums(has_value, side)


def _stretched(channels: np.ndarray) -> np.ndarray:
    """(3, rows, columns) to RGBA in 0..1, each channel from its 2nd to its 98th percentile."""
    rgba = np.empty((*channels.shape[1:], 4))
    holes = np.isnan(channels).any(axis=0)
    for i, channel in enumerate(channels):
        seen = channel[~holes]
        low, high = np.percentile(seen, [2, 98]) if seen.size else (0.0, 1.0)
        rgba[..., i] = np.clip((channel - low) / max(high - low, 1e-9), 0.0, 1.0)
    rgba[..., 3] = 1.0
    rgba[holes] = NODATA_COLOUR
    return rgba


def _unit_colours(units: np.ndarray) -> np.ndarray:
    """Unit numbers to RGBA: hues a golden angle apart, so that consecutive numbers differ."""
    from matplotlib.colors import hsv_to_rgb

    numbers = units.astype(np.int64)
    hsv = np.stack(
        [
            numbers * 0.61803398875 % 1.0,
            0.35 + 0.35 * (numbers * 0.7548776662 % 1.0),
            0.65 + 0.3 * (numbers * 0.5698402909 % 1.0),
        ],
        axis=-1,
    )
    rgba = np.ones((*units.shape, 4))
    rgba[..., :3] = hsv_to_rgb(hsv)
    rgba[numbers == 0] = NODATA_COLOUR
    return rgba


def _picture(rgba: np.ndarray, max_px: int, title: str | None) -> bytes:
    return figure_png(_figure(rgba, max_px, title, legend=False)[0])


def _figure(
    values: np.ndarray, max_px: int, title: str | None, *, legend: bool, **image: Any
) -> tuple[Figure, Any, Any]:
    """A figure whose map has the array's proportions and a longest side of `max_px`."""
    from matplotlib.figure import Figure

    rows, cols = values.shape[:2]
    scale = max_px / max(rows, cols)
    width, height = max(cols * scale, 60.0), max(rows * scale, 60.0)
    above = 26 if title else 0
    beside = 90 if legend else 0
    full_width, full_height = width + beside, height + above
    figure = Figure(figsize=(full_width / 100, full_height / 100), dpi=100)
    axes = figure.add_axes((0.0, 0.0, width / full_width, height / full_height))
    axes.set_axis_off()
    shown = axes.imshow(values, interpolation="nearest", aspect="auto", **image)
    if title:
        figure.text(0.01, 1 - above / full_height / 2, title, va="center", fontsize=10)
    bar = None
    if legend:
        bar = figure.add_axes(
            (
                (width + 10) / full_width,
                0.06 * height / full_height,
                14 / full_width,
                0.88 * height / full_height,
            )
        )
    return figure, shown, bar


def _quantity(values: np.ndarray, look: _Look, max_px: int, title: str | None) -> bytes:
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm, Normalize, SymLogNorm
    from matplotlib.ticker import FuncFormatter

    seen = values[np.isfinite(values)]
    top = float(np.percentile(seen, 99.8)) if seen.size else 1.0
    norm: Normalize
    ticks: list[float] | None = None
    if look.stretch == "people":
        top = max(top, 10.0)
        # linear up to one person a hectare, logarithmic above: empty land stays dark, and a
        # village is told from a town
        norm = SymLogNorm(1.0, linscale=0.6, vmin=0.0, vmax=top, base=10)
        steps = [0, 1, 3, 10, 30, 100, 300, 1000, 3000, 10000]
        ticks = [float(step) for step in steps if step <= top]
    elif look.stretch == "unit":
        norm = Normalize(0.0, 1.0)
    elif look.stretch == "factor":
        norm = LogNorm(0.1, 10.0)
        ticks = [0.1, 0.3, 1.0, 3.0, 10.0]
    else:
        norm = Normalize(0.0, top if top > 0 else 1.0)
    colours = colormaps[look.colours].with_extremes(bad=NODATA_COLOUR)
    figure, shown, bar = _figure(
        np.ma.masked_invalid(values), max_px, title, legend=True, norm=norm, cmap=colours
    )
    above = seen.size and float(seen.max()) > norm.vmax  # type: ignore[operator]
    below = look.stretch == "factor" and seen.size and float(seen.min()) < 0.1
    legend = figure.colorbar(
        shown,
        cax=bar,
        extend="both" if above and below else "max" if above else "min" if below else "neither",
    )
    if ticks is not None:
        legend.set_ticks(ticks)
        legend.ax.minorticks_off()
        legend.formatter = FuncFormatter(lambda tick, _: f"{tick:g}")
    legend.set_label(look.legend, fontsize=9)
    legend.ax.tick_params(labelsize=8)
    return figure_png(figure)
