"""People in any zones, with how far the number may be off: catchments, districts, hexagons, units.

Zones are polygons in any CRS, or a raster of zone numbers in any CRS and grid. A pixel is of the
zone that holds its centre. Zones may overlap one another, and lie across census units: what is
known of a zone is put together from its parts in each unit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from popcorn_ml.grid import Grid, Window
from popcorn_ml.intervals.law import QUANTILES
from popcorn_ml.intervals.measures import Measured, cell_areas, crowding, measure
from popcorn_ml.intervals.model import MODEL_FILE, ErrorModel, IntervalError, read_model
from popcorn_ml.intervals.parts import adjusted_variance, no_parts, parts_of
from popcorn_ml.zones import BLOCK_PX, ZoneSums, zone_table

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

Product = Literal["map", "adjusted"]

COLUMNS = {name: name.replace(".", "_") for name in QUANTILES}
"""Quantile -> the name of its column: p2_5, p10, p90, p97_5."""

LARGEST_ZONE = 2**31 - 1


@dataclass(frozen=True)
class MapFiles:
    """A map of one country and year, and what its intervals rest on.

    Attributes:
        population, adjusted: people per pixel of the map and of the adjusted map.
        units: numbers of the units that the map is adjusted to.
        adjustment: how it was adjusted (`adjustment.json`).
        model: the hectare map's error model; need not be there for estimates alone.
    """

    population: Path
    adjusted: Path
    units: Path
    adjustment: Path
    model: Path

    @classmethod
    def of_folders(
        cls, population_map: Path, adjusted_map: Path, hectare_map: Path, units: Path
    ) -> MapFiles:
        """From the folders of the three assets' versions and the raster of units."""
        return cls(
            population_map / "population.tif",
            adjusted_map / "population.tif",
            units,
            adjusted_map / "adjustment.json",
            hectare_map / MODEL_FILE,
        )


def people_in(
    zones: gpd.GeoDataFrame | str | Path,
    maps: MapFiles,
    product: Product = "adjusted",
    *,
    threads: int = 2,
) -> pd.DataFrame:
    """People in zones: the estimate and the quantiles that its error allows for.

    Args:
        zones: polygons in any CRS, which may overlap, or a raster of whole numbers above 0 (0 and
            nodata: no zone) in any CRS, taken at the pixels' centres.
        maps: the map.
        product: "adjusted" to the census, or the "map" as the model has it.
        threads: of the sums over census units. The result does not depend on it.

    Returns:
        A row a zone, in the order and with the index of the polygons, or by number of the raster:
        `people`, `p2_5`, `p10`, `p90`, `p97_5`; `pixels` (centres in the zone) and `valid_share`
        (of them, those that have a value: where it is below 1 the people of the rest are not in
        the estimate). A zone without a value has NaN; so have the quantiles of one with people
        that a fallback placed.

    Raises:
        IntervalError: zones without a CRS, or numbers that are none; a map without an error model.
        GridMismatch, RasterError: a raster lies elsewhere or is unreadable.
    """
    return asked(zones, Ready.of(maps, product, threads=threads))


def asked(zones: gpd.GeoDataFrame | str | Path, ready: Ready) -> pd.DataFrame:
    """`people_in` of a map that is ready: where there are several sets of zones to ask about."""
    found = with_variances(zones, ready)
    quantiles = ready.model.quantiles(found["people"].to_numpy(), found.pop("variance").to_numpy())
    for place, (name, values) in enumerate(zip(QUANTILES, quantiles, strict=True), start=1):
        found.insert(place, COLUMNS[name], values)
    return found


def with_variances(zones: gpd.GeoDataFrame | str | Path, ready: Ready) -> pd.DataFrame:
    """As `asked`, with the error's `variance` (people squared) instead of quantiles."""
    import pandas as pd

    layers, index = _layers(zones, ready.grid)
    count = len(index)
    people, variance = np.full(count, np.nan), np.full(count, np.nan)
    shares, pixels = np.zeros(count), np.zeros(count, np.int64)
    for layer in layers:
        sums, variances = _answer(layer, ready)
        chosen = layer.rows
        found, valid = sums.sums[0, 1:], sums.valid[0, 1:]
        people[chosen] = np.where(valid > 0, found, np.nan)
        variance[chosen] = np.where(valid > 0, variances, np.nan)
        pixels[chosen] = sums.pixels[1:]
        shares[chosen] = valid / np.maximum(sums.pixels[1:], 1)
    told = {"people": people, "variance": variance, "pixels": pixels, "valid_share": shares}
    return pd.DataFrame(told, index=index)


def sums_in(zones: gpd.GeoDataFrame | str | Path, population: Path) -> pd.DataFrame:
    """People in zones of a map of which no error is known: `people`, `pixels`, `valid_share`.

    Args:
        zones: as `people_in`.
        population: people per pixel.

    Raises:
        IntervalError, RasterError: as `people_in`.
    """
    import pandas as pd

    from popcorn_ml import raster

    layers, index = _layers(zones, raster.grid_of(population))
    people, pixels, valid = (np.zeros(len(index)) for _ in range(3))
    for layer in layers:
        sums = ZoneSums.none(1, len(layer.rows))
        with raster.bounded_cache():
            for window in layer.windows:
                values = raster.read_float(population, window, 1)
                sums += zone_table(layer.read(window), [values], len(layer.rows))
        people[layer.rows], pixels[layer.rows] = sums.sums[0, 1:], sums.pixels[1:]
        valid[layer.rows] = sums.valid[0, 1:]
    told = {
        "people": np.where(valid > 0, people, np.nan),
        "pixels": pixels.astype(np.int64),
        "valid_share": valid / np.maximum(pixels, 1),
    }
    return pd.DataFrame(told, index=index)


@dataclass(frozen=True)
class _Layer:
    """Zones that do not overlap: `read` gives their numbers 1..n, which are the rows `rows`."""

    read: Callable[[Window], np.ndarray]
    rows: np.ndarray
    windows: Sequence[Window]


@dataclass(frozen=True)
class Ready:
    """A map with what all questions to it share.

    Attributes:
        path: of the people per pixel that are summed.
        model: how far sums may be off.
        grid: of the map.
        units: of an adjusted map, the raster of the units it is adjusted to, else None.
        measured: those units in it.
        method: of each unit 0..n, how its people were placed.
    """

    path: Path
    model: ErrorModel
    grid: Grid
    units: Path | None = None
    measured: Measured | None = None
    method: np.ndarray | None = None

    @classmethod
    def of(cls, maps: MapFiles, product: Product, *, threads: int = 2) -> Ready:
        """Read what there is to read; an adjusted map's census units are summed once."""
        from popcorn_ml import raster
        from popcorn_ml.mapping.dasymetric import read_adjustment

        if product not in ("map", "adjusted"):
            raise ValueError(f"product {product!r} is neither 'map' nor 'adjusted'")
        model, grid = read_model(maps.model), raster.grid_of(maps.population)
        if product == "map":
            return cls(maps.population, model, grid)
        method = read_adjustment(maps.adjustment).method
        (measured,), _ = measure(
            maps.units, [maps.adjusted], grid, len(method) - 1, threads=threads
        )
        return cls(maps.adjusted, model, grid, maps.units, measured, method)


def _answer(layer: _Layer, ready: Ready) -> tuple[ZoneSums, np.ndarray]:
    """Sums of people and crowding over a layer's zones 0..n, and the variances of zones 1..n."""
    from popcorn_ml import raster
    from popcorn_ml.raster import bounded_cache

    count = len(layer.rows)
    total, parts = ZoneSums.none(2, count), no_parts()
    with bounded_cache():
        for window in layer.windows:
            numbers = layer.read(window)
            if not numbers.any():
                continue
            people = raster.read_float(ready.path, window, 1)
            crowd = crowding(people, cell_areas(ready.grid, window))
            total += zone_table(numbers, [people, crowd], count)
            if ready.units is not None:
                units = raster.read(ready.units, window, 1)
                parts = parts.joined(parts_of(numbers, units, people, crowd))
    if ready.measured is None or ready.method is None:
        return total, ready.model.map_variance(total.sums[0, 1:], total.sums[1, 1:])
    variances = adjusted_variance(ready.model, parts, ready.measured, ready.method, count)
    return total, variances[1:]


def _layers(zones: gpd.GeoDataFrame | str | Path, grid: Grid) -> tuple[list[_Layer], pd.Index]:
    """Zones as layers without overlaps, and what names their rows."""
    if isinstance(zones, str | Path):
        return _raster_layers(Path(zones), grid)
    return _polygon_layers(zones, grid)


def _raster_layers(path: Path, grid: Grid) -> tuple[list[_Layer], pd.Index]:
    import pandas as pd

    from popcorn_ml.census.units import at_centres

    windows = [tile.core for tile in grid.tiles(BLOCK_PX)]
    found: set[int] = set()
    used = []
    with at_centres(path, grid) as read:
        for window in windows:
            here = np.unique(read(window))
            if here[0] < 0 or here[-1] > LARGEST_ZONE:
                raise IntervalError(
                    "the raster does not hold zone numbers",
                    where=path,
                    expected=f"whole numbers from 1 to {LARGEST_ZONE}, 0 for no zone",
                    found=f"{here[0]} to {here[-1]}",
                )
            found.update(int(number) for number in here[here > 0])
            used += [window] if here[-1] > 0 else []
    if not found:
        raise IntervalError(
            "no zone of the raster lies on the map",
            where=path,
            expected="zone numbers at the centres of the map's pixels",
            found="none",
            remedy="see whether CRS and place of the raster are right",
        )
    numbers = np.array(sorted(found))

    def numbered(window: Window) -> np.ndarray:
        with at_centres(path, grid) as read:
            values = read(window)
        place = np.minimum(np.searchsorted(numbers, values), len(numbers) - 1)
        return np.where(numbers[place] == values, place + 1, 0)

    layer = _Layer(numbered, np.arange(len(numbers)), used)
    return [layer], pd.Index(numbers, name="zone")


def _polygon_layers(frame: gpd.GeoDataFrame, grid: Grid) -> tuple[list[_Layer], pd.Index]:
    from popcorn_ml.census.units import PolygonBurner, to_grid

    if frame.crs is None:
        raise IntervalError(
            "the zones have no CRS",
            expected="polygons that say which CRS their coordinates are in",
            found="none",
            remedy="frame.set_crs(...), for instance 4326 for degrees",
        )
    kinds = set(frame.geom_type.dropna()) - {"Polygon", "MultiPolygon", "GeometryCollection"}
    if kinds:
        raise IntervalError(
            "zones have to be areas",
            expected="polygons",
            found=", ".join(sorted(kinds)),
            remedy="give points and lines an extent first, for instance frame.buffer(500)",
        )
    if len(frame) and not frame.geom_type.notna().all():
        frame = frame.assign(geometry=_empty_for_none(frame))
    placed = to_grid(frame, grid)
    layers = []
    for rows in disjoint(placed):
        burner = PolygonBurner(frame.iloc[rows], grid)
        layers.append(_Layer(burner.burn, rows, list(_windows(placed[rows], grid))))
    return layers, frame.index


def _empty_for_none(frame: gpd.GeoDataFrame) -> gpd.GeoSeries:
    import shapely

    filled = frame.geometry.copy()
    filled[frame.geometry.isna()] = shapely.Polygon()
    return filled


def disjoint(polygons: np.ndarray) -> list[np.ndarray]:
    """Indices of polygons in as few lists as a greedy choice finds, none overlapping in one.

    Polygons that only touch do not overlap: no pixel's centre is in both.
    """
    import shapely

    tree = shapely.STRtree(polygons)
    first, second = tree.query(polygons, predicate="intersects")
    pairs = first < second
    first, second = first[pairs], second[pairs]
    apart = shapely.touches(polygons[first], polygons[second])
    beside: dict[int, list[int]] = {}
    for a, b in zip(first[~apart].tolist(), second[~apart].tolist(), strict=True):
        beside.setdefault(b, []).append(a)
    layer = np.zeros(len(polygons), np.int64)
    for i in range(len(polygons)):
        taken = {int(layer[j]) for j in beside.get(i, [])}
        layer[i] = next(k for k in range(len(taken) + 1) if k not in taken)
    return [np.flatnonzero(layer == k) for k in range(int(layer.max(initial=-1)) + 1)]


def _windows(polygons: np.ndarray, grid: Grid) -> Iterator[Window]:
    """Blocks that polygons reach into."""
    import shapely

    tree = shapely.STRtree(polygons)
    for tile in grid.tiles(BLOCK_PX):
        if tree.query(shapely.box(*grid.window_bounds(tile.core))).size:
            yield tile.core
