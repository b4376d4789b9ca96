"""Small PNG pictures of rasters and arrays, for the UI and for reports.

Large rasters are read from their overviews, so that a country costs no more than a village.
Pixels without a value are light grey. Every picture of a quantity has its legend with the unit;
people are shown in classes, each about twice the one before, so that towns are told apart as
villages are. A picture of a raster has a scale bar and, where the units are given, their borders.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from popcorn_ml.mapping.colours import HEAT, PEOPLE_STEPS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from popcorn_ml.grid import Grid

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

MOST_BORDER = 0.25
"""Borders are left out where they would cover more than this share of the picture."""

_BORDER = (0.15, 0.3, 0.45)
_BORDER_STRENGTH = 0.6


@dataclass(frozen=True)
class _Look:
    """How a quantity is coloured: colour map, legend, and the stretch of its values.

    People have no colour map but classes.
    """

    colours: str
    legend: str
    stretch: Literal["people", "unit", "factor", "range"]
    per_hectare: bool = False


_LOOKS: dict[str, _Look] = {
    "population": _Look("", "people per hectare", "people", per_hectare=True),
    "population_std": _Look(
        "", "standard deviation, people per hectare", "people", per_hectare=True
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
    units: str | Path | None = None,
) -> bytes:
    """A picture of a raster or an array.

    Args:
        source: a raster, of which the bands that the kind needs are read: the first, but for "rgb"
            the bands B04, B03, B02 and for "sar" VV, VH by their names; or an array, (rows,
            columns), for "rgb" (4, rows, columns) in the order of `sentinel.S2_BANDS`, for "sar"
            (2, rows, columns) in dB. NaN has no value.
        kind: population and population_std (people per pixel, shown per hectare in the classes
            `colours.PEOPLE_STEPS`), relative_width, occupancy, builtup, rgb (2 to 98 % stretch),
            sar (VV, VH and their difference), units (neighbouring numbers in different colours),
            factor, count.
        max_px: longest side of the map in the picture; a small array is enlarged to about it.
        pixels_per_hectare: for population; None takes the true area of a raster's own pixels, row
            by row, and 100 for an array.
        title: above the map.
        units: raster of unit numbers on the pixels' grid, or on one whose extent is the same: their
            borders are drawn, unless they would hide the map.

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
    frame = _Frame(title)
    if not isinstance(source, np.ndarray):
        frame.scale = _Scale.of(raster_grid := _grid(source))
        frame.units = None if units is None else _units_on(Path(units), raster_grid, max_px)
    dimensions = {"rgb": (3, 4), "sar": (3, 2)}.get(kind, (2, None))
    if values.ndim != dimensions[0] or (dimensions[1] and values.shape[0] != dimensions[1]):
        raise ValueError(f"a picture of kind {kind!r} of an array of shape {values.shape}")
    values = _shrunk(values, max_px, nearest=kind == "units")
    if kind == "rgb":
        return _picture(_stretched(values[[2, 1, 0]]), max_px, frame)
    if kind == "sar":
        return _picture(
            _stretched(np.stack([values[0], values[1], values[0] - values[1]])), max_px, frame
        )
    if kind == "units":
        return _picture(_unit_colours(values), max_px, frame)
    look = _LOOKS[kind]
    return _quantity(values * density if look.per_hectare else values, look, max_px, frame)


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


@dataclass(frozen=True)
class _Scale:
    """How many metres the longer way across a raster is, along its columns, at its middle."""

    metres_across: float

    @classmethod
    def of(cls, grid: Grid) -> _Scale:
        middle = grid.row_area_m2()[grid.height // 2]
        return cls(float(np.sqrt(middle)) * grid.width if not grid.is_geographic else _east(grid))

    def bar(self) -> tuple[float, str]:
        """Length of a bar, as a share of the width, and what it says: about a fifth."""
        wanted = self.metres_across / 4
        step = 10.0 ** np.floor(np.log10(wanted))
        metres = step * max(n for n in (1, 2, 5) if n * step <= wanted)
        told = f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
        return metres / self.metres_across, told


@dataclass
class _Frame:
    """What is drawn about and over a map: title, scale bar, borders of units."""

    title: str | None
    scale: _Scale | None = None
    units: np.ndarray | None = None

    def draw(self, axes: Axes, shape: tuple[int, ...]) -> None:
        """Over a map of a shape (rows, columns, ...)."""
        rows, cols = shape[:2]
        if self.units is not None:
            edges = _edges(self.units)
            if 0 < edges.mean() <= MOST_BORDER:
                lines = np.zeros((*edges.shape, 4))
                lines[edges] = (*_BORDER, _BORDER_STRENGTH)
                extent = (-0.5, cols - 0.5, rows - 0.5, -0.5)
                axes.imshow(lines, interpolation="nearest", aspect="auto", extent=extent)
        if self.scale is not None:
            self._bar(axes)

    def _bar(self, axes: Axes) -> None:
        from matplotlib.patheffects import withStroke

        assert self.scale is not None
        share, told = self.scale.bar()
        halo = [withStroke(linewidth=3.5, foreground="white")]
        place: dict[str, Any] = {"transform": axes.transAxes, "path_effects": halo}
        axes.plot([0.02, 0.02 + share], [0.025, 0.025], color="black", linewidth=2.5,
                  solid_capstyle="butt", **place)  # fmt: skip
        axes.text(0.02 + share / 2, 0.035, told, ha="center", va="bottom", fontsize=9, **place)


def _grid(source: str | Path) -> Grid:
    from popcorn_ml import raster

    return raster.grid_of(source)


def _east(grid: Grid) -> float:
    """Metres across a grid in degrees, along the parallel at its middle."""
    from pyproj import Geod

    west, south, east, north = grid.bounds
    middle, steps = (south + north) / 2, np.linspace(west, east, 65)
    return float(Geod(ellps="WGS84").line_length(steps, np.full(65, middle)))


def _units_on(path: Path, grid: Grid, max_px: int) -> np.ndarray | None:
    """Unit numbers at the picture's size; None where they lie elsewhere than the map."""
    found = _grid(path)
    if found.crs != grid.crs or not np.allclose(found.bounds, grid.bounds, atol=grid.step):
        return None
    return _read_small(path, "units", max_px)[0]


def _edges(units: np.ndarray) -> np.ndarray:
    """Where the unit to the right or below is another one."""
    edges = np.zeros(units.shape, bool)
    edges[:, :-1] |= units[:, :-1] != units[:, 1:]
    edges[:-1] |= units[:-1] != units[1:]
    return edges


def _picture(rgba: np.ndarray, max_px: int, frame: _Frame) -> bytes:
    return _in_256_colours(_figure(rgba, max_px, frame, legend=False)[0])


def _in_256_colours(figure: Figure) -> bytes:
    """As PNG with a palette: a third of the bytes, and no eye sees it in a satellite image."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    stream = io.BytesIO()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    image.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(stream, "PNG")
    return stream.getvalue()


def _figure(
    values: np.ndarray, max_px: int, frame: _Frame, *, legend: bool, **image: Any
) -> tuple[Figure, Any, Any]:
    """A figure whose map has the array's proportions and a longest side of `max_px`."""
    from matplotlib.figure import Figure

    rows, cols = values.shape[:2]
    scale = max_px / max(rows, cols)
    width, height = max(cols * scale, 60.0), max(rows * scale, 60.0)
    above = 26 if frame.title else 0
    beside = 90 if legend else 0
    full_width, full_height = width + beside, height + above
    figure = Figure(figsize=(full_width / 100, full_height / 100), dpi=100)
    axes = figure.add_axes((0.0, 0.0, width / full_width, height / full_height))
    axes.set_axis_off()
    shown = axes.imshow(values, interpolation="nearest", aspect="auto", **image)
    frame.draw(axes, values.shape)
    if frame.title:
        figure.text(0.01, 1 - above / full_height / 2, frame.title, va="center", fontsize=11)
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


def _quantity(values: np.ndarray, look: _Look, max_px: int, frame: _Frame) -> bytes:
    from matplotlib import colormaps
    from matplotlib.colors import BoundaryNorm, ListedColormap, LogNorm, Normalize
    from matplotlib.ticker import FuncFormatter

    seen = values[np.isfinite(values)]
    top = float(np.percentile(seen, 99.8)) if seen.size else 1.0
    norm: Normalize
    ticks: list[float] | None = None
    if look.stretch == "people":
        norm = BoundaryNorm(PEOPLE_STEPS, len(HEAT), extend="both")
        ticks = [float(bound) for bound in PEOPLE_STEPS]
    elif look.stretch == "unit":
        norm = Normalize(0.0, 1.0)
    elif look.stretch == "factor":
        norm = LogNorm(0.1, 10.0)
        ticks = [0.1, 0.3, 1.0, 3.0, 10.0]
    else:
        norm = Normalize(0.0, top if top > 0 else 1.0)
    in_classes = look.stretch == "people"
    scheme = ListedColormap(HEAT) if in_classes else colormaps[look.colours]
    colours = scheme.with_extremes(bad=NODATA_COLOUR)
    figure, shown, bar = _figure(
        np.ma.masked_invalid(values), max_px, frame, legend=True, norm=norm, cmap=colours
    )
    above = in_classes or (seen.size and float(seen.max()) > norm.vmax)  # type: ignore[operator]
    below = in_classes or (look.stretch == "factor" and seen.size and float(seen.min()) < 0.1)
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
