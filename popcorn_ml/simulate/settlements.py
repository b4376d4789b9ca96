"""Where people settle: towns and villages, roads, neighbourhoods of several kinds, every building.

Buildings are a table, not pixels: metres within 10 m pixels matter to what a satellite sees.
`world` turns the table into shares of pixels. Figures of plots, floors and households are of the
order of those of East African towns, rounded; no real place is copied.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from popcorn_ml.simulate.buildings import Buildings
from popcorn_ml.simulate.terrain import Terrain, smooth_noise

ROOFS = ("new_metal", "rusty_metal", "tile", "concrete", "thatch", "hall_sheet")
NEIGHBOURHOOD_PX = 20
"""Mean side of a neighbourhood in pixels: about 4 ha are laid out and founded at once."""

YEARLY_GROWTH = 0.035
"""Share by which the built neighbourhoods grow each year."""


@dataclass(frozen=True)
class Kind:
    """How one kind of settlement is built and lived in.

    Attributes:
        plot_m: width along the street and depth of a plot.
        block: plots along a street between cross streets, rows between parallel streets.
        street_m: width of its streets; 0 for none.
        asphalt: share of its streets that is paved.
        fill: share of plots that end up built on.
        house_m: mean length and width of a building; both vary by a fifth.
        extra_storeys: mean number of storeys beyond the first.
        storey_m: height of a storey.
        people_per_100_m2: of floor, where anyone lives.
        empty: share of buildings nobody lives in (shops, offices, halls, unlet).
        roofs: weights of `ROOFS`.
        ground: shares of soil, yard (concrete), grass and trees between the buildings.
        jitter: how far buildings stray from the middle of their plot, as a share of it.
        turn: standard deviation of their angle from the street's, in radians.
    """

    plot_m: tuple[float, float]
    block: tuple[int, int]
    street_m: float
    asphalt: float
    fill: float
    house_m: tuple[float, float]
    extra_storeys: float
    storey_m: float
    people_per_100_m2: float
    empty: float
    roofs: tuple[float, float, float, float, float, float]
    ground: tuple[float, float, float, float]
    jitter: float
    turn: float


KINDS: dict[str, Kind] = {
    "core": Kind(
        plot_m=(14, 18), block=(7, 2), street_m=9, asphalt=1.0, fill=0.95,
        house_m=(14, 11), extra_storeys=1.4, storey_m=3.1, people_per_100_m2=3.2, empty=0.30,
        roofs=(0.25, 0.2, 0.1, 0.45, 0, 0), ground=(0.25, 0.6, 0.08, 0.07), jitter=0.05, turn=0.03,
    ),
    "informal": Kind(
        plot_m=(8, 8), block=(10, 4), street_m=3.5, asphalt=0.05, fill=0.88,
        house_m=(6.5, 5.5), extra_storeys=0.05, storey_m=2.3, people_per_100_m2=9.0, empty=0.08,
        roofs=(0.3, 0.65, 0, 0.05, 0, 0), ground=(0.85, 0.05, 0.06, 0.04), jitter=0.15, turn=0.25,
    ),
    "suburb": Kind(
        plot_m=(20, 28), block=(6, 2), street_m=8, asphalt=0.5, fill=0.85,
        house_m=(13, 11), extra_storeys=0.15, storey_m=2.9, people_per_100_m2=2.7, empty=0.10,
        roofs=(0.3, 0.1, 0.5, 0.1, 0, 0), ground=(0.2, 0.1, 0.42, 0.28), jitter=0.12, turn=0.08,
    ),
    "industry": Kind(
        plot_m=(62, 90), block=(4, 2), street_m=14, asphalt=1.0, fill=0.8,
        house_m=(68, 40), extra_storeys=0.15, storey_m=7.0, people_per_100_m2=0.0, empty=1.0,
        roofs=(0.25, 0.1, 0, 0.15, 0, 0.5), ground=(0.35, 0.5, 0.12, 0.03), jitter=0.04, turn=0.02,
    ),
    "village": Kind(
        plot_m=(15, 15), block=(1, 1), street_m=0, asphalt=0.0, fill=1.0,
        house_m=(7, 6), extra_storeys=0.0, storey_m=2.4, people_per_100_m2=10.5, empty=0.10,
        roofs=(0.25, 0.35, 0.05, 0, 0.35, 0), ground=(0.55, 0, 0.3, 0.15), jitter=0.3, turn=0.3,
    ),
}  # fmt: skip
KIND_NAMES = tuple(KINDS)


@dataclass(frozen=True)
class Settlements:
    """Everything people have made in a place, at whatever time.

    Attributes:
        buildings: the table.
        neighbourhood: number of the neighbourhood of each pixel.
        founded: decimal year each neighbourhood is laid out; infinity for open country.
        kind: kind of each neighbourhood (index into `KIND_NAMES`), -1 for open country.
        paved, unpaved: share of each pixel under main roads of either sort.
        street: share of each pixel that its neighbourhood's streets take once founded.
        village: 0..1, how much a pixel belongs to a village.
    """

    buildings: Buildings
    neighbourhood: np.ndarray
    founded: np.ndarray
    kind: np.ndarray
    paved: np.ndarray
    unpaved: np.ndarray
    street: np.ndarray
    village: np.ndarray


def settle(
    rng: np.random.Generator, land: Terrain, base_year: int, urban_share: float
) -> Settlements:
    """Draw the settlements of a place.

    Args:
        rng: source of all that is drawn.
        land: the terrain they stand on.
        base_year: the year in which towns cover `urban_share` of the place.
        urban_share: 0..1.
    """
    shape = land.water.shape
    towns, weights, villages = _sites(rng, land)
    paved, unpaved, road_distance = _main_roads(rng, shape, towns, villages)
    cell = _neighbourhoods(rng, shape)
    kind, founded = _found(rng, land, cell, towns, weights, road_distance, base_year, urban_share)
    angle = rng.uniform(0, np.pi / 2, len(kind))
    angle = np.where(rng.random(len(kind)) < 0.5, rng.normal(0.3, 0.08), angle)
    origin = rng.uniform(0, 100, (len(kind), 2))
    parts = _urban_buildings(rng, land, cell, kind, founded, angle, origin, road_distance)
    village = _village_field(rng, shape, villages)
    urban = np.isfinite(founded)[cell]
    parts.append(_rural_buildings(rng, land, village, urban, road_distance, base_year))
    buildings = Buildings(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    street = _street_share(cell, kind, angle, origin)
    return Settlements(buildings, cell, founded, kind, paved, unpaved, street, village)


def _sites(rng, land):
    """Town centres with their weights, and village centres, as (rows, columns) in pixels."""
    height, width = shape = land.water.shape
    area_km2 = height * width / 1e4
    dry = (land.water + 0.5 * land.forest) < 0.3
    middle = np.array(shape) * rng.uniform(0.4, 0.6, 2)
    count = round(area_km2 / 28)
    towns = np.vstack([middle, rng.uniform(0.12, 0.88, (count, 2)) * shape])
    weights = np.concatenate([[1.0], rng.uniform(0.25, 0.55, count)])
    tries = rng.uniform(0.02, 0.98, (int(area_km2 * 0.45 * 3) + 3, 2)) * shape
    tries = tries[dry[tuple(tries.astype(int).T)]]
    kept: list[np.ndarray] = []
    for site in tries:
        near = [*towns, *kept]
        if min(np.hypot(*(site - other)) for other in near) > 60:
            kept.append(site)
        if len(kept) >= area_km2 * 0.45:
            break
    return towns, weights, np.array(kept).reshape(-1, 2)


def _main_roads(rng, shape, towns, villages):
    """Shares of pixels under paved and unpaved main roads, and the distance to the nearest."""
    height, width = shape
    paved = np.zeros(shape, np.float32)
    unpaved = np.zeros(shape, np.float32)
    ends = np.array(
        [
            [0, rng.uniform(0.2, 0.8) * width],
            [height, rng.uniform(0.2, 0.8) * width],
            [rng.uniform(0.2, 0.8) * height, 0],
            [rng.uniform(0.2, 0.8) * height, width],
        ]
    )
    for site in [*towns[1:], *ends]:
        _draw_road(rng, paved, towns[0], site, 10.0)
    hubs = towns
    for site in villages[np.argsort(cdist(villages, towns).min(1))] if len(villages) else []:
        nearest = hubs[np.argmin(np.hypot(*(hubs - site).T))]
        _draw_road(rng, unpaved, nearest, site, 6.0)
        hubs = np.vstack([hubs, site])
    distance = ndimage.distance_transform_edt((paved + unpaved) < 0.1).astype(np.float32)
    return np.clip(paved, 0, 0.9), np.clip(unpaved, 0, 0.7) * (paved < 0.3), distance


def _draw_road(rng, share, start, end, width_m):
    """Add a winding road between two points to a raster of shares."""
    line = np.array([start, end], float)
    while len(line) < 65:
        middle = (line[:-1] + line[1:]) / 2
        side = (line[1:] - line[:-1])[:, ::-1] * (1, -1)
        middle = middle + side * rng.normal(0, 0.07, (len(middle), 1))
        line = np.insert(line, np.arange(1, len(line)), middle, axis=0)
    reach = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])
    along = np.arange(0, reach[-1], 0.2)
    points = np.stack([np.interp(along, reach, line[:, i]) for i in (0, 1)])
    direction = np.gradient(points, axis=1)
    direction /= np.maximum(np.hypot(*direction), 1e-9)
    once = np.zeros_like(share)
    for offset in (np.arange(5) - 2) / 5 * width_m / 10:
        at = points + direction[::-1] * np.array([[offset], [-offset]])
        _spread(once, at[0], at[1], np.full(at.shape[1], 0.2 * width_m / 10 / 5))
    share += np.clip(once, 0, 1)


def _spread(raster, rows, cols, weights):
    """Add weights to the pixels that hold the points; points outside are left out."""
    inside = (rows >= 0) & (rows < raster.shape[0]) & (cols >= 0) & (cols < raster.shape[1])
    flat = rows[inside].astype(np.int64) * raster.shape[1] + cols[inside].astype(np.int64)
    raster += np.bincount(flat, weights[inside], raster.size).reshape(raster.shape)


def _neighbourhoods(rng, shape):
    """Number of the neighbourhood of each pixel: cells of a bent, jittered lattice."""
    step = NEIGHBOURHOOD_PX
    lattice = np.mgrid[-step : shape[0] + step : step, -step : shape[1] + step : step]
    seeds = lattice.reshape(2, -1).T + rng.uniform(-0.4, 0.4, (lattice[0].size, 2)) * step
    rows, cols = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    rows = rows + 4 * smooth_noise(rng, shape, 20)
    cols = cols + 4 * smooth_noise(rng, shape, 20)
    _, cell = cKDTree(seeds).query(np.stack([rows, cols], -1).reshape(-1, 2))
    _, cell = np.unique(cell, return_inverse=True)
    return cell.reshape(shape)


def _cell_means(values, cell, count):
    size = np.maximum(np.bincount(cell.ravel(), minlength=count), 1)
    return np.bincount(cell.ravel(), values.ravel(), count) / size


def _found(rng, land, cell, towns, weights, road_distance, base_year, urban_share):
    """Kind and founding year of each neighbourhood, from centres outwards along the roads."""
    shape, count = cell.shape, int(cell.max()) + 1
    rows, cols = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    reach = 0.32 * np.sqrt(shape[0] * shape[1])
    pull = np.max(
        [
            np.log(weight) - np.hypot(rows - r, cols - c) / (reach * weight**0.5)
            for (r, c), weight in zip(towns, weights, strict=True)
        ],
        axis=0,
    )
    near_road = np.exp(-road_distance / 18)
    potential = pull + 0.45 * smooth_noise(rng, shape, 70, octaves=2) + 0.5 * near_road
    potential = potential - 3.0 * land.water - 1.0 * land.forest
    mean = _cell_means(potential, cell, count) + rng.normal(0, 0.12, count)
    mean[_cell_means(land.water, cell, count) > 0.55] -= 10
    order = np.argsort(-mean)
    rank = np.empty(count)
    rank[order] = np.arange(count)
    built = max(urban_share * count, 1.0)
    founded = base_year + np.log((rank + 0.5) / built) / np.log1p(YEARLY_GROWTH)
    founded[(founded > base_year + 15) | (rng.random(count) < 0.05)] = np.inf  # some stay parks

    old = rank < built
    river = np.exp(-land.water_distance_px / 20)
    industrial = _cell_means(
        smooth_noise(rng, shape, 60) + 1.1 * near_road - 0.4 * pull, cell, count
    )
    poor = _cell_means(smooth_noise(rng, shape, 55) + 0.7 * river + 0.2 * pull, cell, count)
    poor = poor + rng.normal(0, 0.35, count)
    central = _cell_means(pull, cell, count) + rng.normal(0, 0.06, count)
    kind = np.full(count, KIND_NAMES.index("suburb"))
    kind[poor > np.quantile(poor[old], 0.70)] = KIND_NAMES.index("informal")
    kind[industrial > np.quantile(industrial[old], 0.89)] = KIND_NAMES.index("industry")
    kind[central > np.quantile(central[old], 0.90)] = KIND_NAMES.index("core")
    kind[~np.isfinite(founded)] = -1
    return kind, founded


def _lattice(kind: Kind, origin, radius_m):
    """Middles of the plots of a street grid in its own frame, in metres, within `radius_m`."""
    (wide, deep), (along, rows), street = kind.plot_m, kind.block, kind.street_m
    period = np.array([along * wide + street, rows * deep + street])
    start = origin % period
    axes = []
    for length, number, total, shift in (
        (wide, along, period[0], start[0]),
        (deep, rows, period[1], start[1]),
    ):
        reps = int(np.ceil(radius_m / total)) + 1
        plots = np.arange(number) * length + length / 2 + street
        axes.append(((np.arange(-reps, reps + 1) * total)[:, None] + plots).ravel() - shift)
    u, v = np.meshgrid(*axes)
    keep = np.hypot(u, v) < radius_m
    return u[keep], v[keep]


def _urban_buildings(rng, land, cell, kind, founded, angle, origin, road_distance):
    """Columns of `Buildings`, one tuple a neighbourhood."""
    shape = cell.shape
    free = (land.water < 0.2) & (road_distance >= 1)
    parts = []
    for number, box in enumerate(ndimage.find_objects(cell + 1)):
        if kind[number] < 0 or box is None:
            continue
        style = KINDS[KIND_NAMES[kind[number]]]
        middle = np.array([(s.start + s.stop) / 2 for s in box])
        radius = 5.0 * np.hypot(*[s.stop - s.start for s in box])
        u, v = _lattice(style, origin[number], radius)
        u = u + rng.normal(0, style.jitter * style.plot_m[0] / 2, u.size)
        v = v + rng.normal(0, style.jitter * style.plot_m[1] / 2, v.size)
        cos, sin = np.cos(angle[number]), np.sin(angle[number])
        row, col = middle[0] + (u * sin + v * cos) / 10, middle[1] + (u * cos - v * sin) / 10
        keep = (row >= 0) & (row < shape[0]) & (col >= 0) & (col < shape[1])
        row, col = row[keep], col[keep]
        at = row.astype(int), col.astype(int)
        fill = np.clip(style.fill * rng.normal(1, 0.1), 0.3, 1)
        keep = (cell[at] == number) & free[at] & (rng.random(row.size) < fill)
        if keep.any():
            built = founded[number] + rng.exponential(1.0, int(keep.sum()))
            parts.append(
                _build(rng, row[keep], col[keep], built, kind[number], angle[number], style)
            )
    return parts


def _village_field(rng, shape, villages):
    rows, cols = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    bend = 1 + 0.35 * smooth_noise(rng, shape, 18, octaves=2)
    field = np.zeros(shape, np.float32)
    for row, col in villages:
        size = rng.uniform(9, 21)
        distance = ((rows - row) ** 2 + (cols - col) ** 2) / size**2
        field = np.maximum(field, np.exp(-np.clip(distance * np.maximum(bend, 0.2), 0, 50)))
    return field


def _rural_buildings(rng, land, village, urban, road_distance, base_year):
    """Columns of `Buildings`: villages, and homesteads strewn over the fields."""
    style, shape = KINDS["village"], village.shape
    u, v = np.meshgrid(*(np.arange(0.75, n, style.plot_m[0] / 10) for n in shape), indexing="ij")
    row = np.clip(u.ravel() + rng.uniform(-0.5, 0.5, u.size), 0, shape[0] - 0.01)
    col = np.clip(v.ravel() + rng.uniform(-0.5, 0.5, v.size), 0, shape[1] - 0.01)
    at = row.astype(int), col.astype(int)
    wanted = 0.38 * village + 0.008 * (land.crop > 0.5) + 0.02 * np.exp(-road_distance / 3)
    free = (land.water < 0.2) & (land.forest < 0.5) & (road_distance >= 1) & ~urban
    keep = (rng.random(row.size) < wanted[at] * 1.3) & free[at]
    count = int(keep.sum())
    growth = 0.02
    built = base_year + np.log(rng.uniform(0.0, 1.3, count) + 1e-3) / np.log1p(growth)
    angle = rng.uniform(0, np.pi, count)
    return _build(rng, row[keep], col[keep], built, KIND_NAMES.index("village"), angle, style)


def _build(rng, row, col, built, kind, angle, style: Kind):
    """Columns of `Buildings` for buildings of one neighbourhood, in the order of its fields."""
    count = row.size
    size = np.clip(rng.normal(1, 0.2, (2, count)), 0.55, 1.6)
    length, width = style.house_m[0] * size[0], style.house_m[1] * size[1]
    storeys = 1 + rng.poisson(style.extra_storeys, count)
    household = style.people_per_100_m2 * np.exp(rng.normal(0, 0.15))  # a neighbourhood's own
    expected = household * length * width / 100 * storeys
    people = rng.poisson(expected) * (rng.random(count) >= style.empty)
    roofs = rng.gamma(np.array(style.roofs) * 12 + 1e-9)  # each neighbourhood's own mixture
    roof = rng.choice(len(ROOFS), count, p=roofs / roofs.sum())
    return (
        row,
        col,
        length,
        width,
        style.storey_m * storeys * rng.uniform(0.9, 1.1, count),
        np.broadcast_to(angle, count) + rng.normal(0, style.turn, count),
        np.exp(rng.normal(-0.18, 0.6, count)),
        np.full(count, kind),
        roof,
        built,
        people,
    )


def _street_share(cell, kind, angle, origin):
    """Share of each pixel under its neighbourhood's streets, from 4 x 4 points a pixel."""
    share = np.zeros(cell.shape, np.float32)
    rows, cols = np.nonzero(kind[cell] >= 0)
    number = cell[rows, cols]
    width = np.array([KINDS[n].street_m for n in KIND_NAMES])[kind[number]]
    period = np.array(
        [
            [k.block[0] * k.plot_m[0] + k.street_m, k.block[1] * k.plot_m[1] + k.street_m]
            for k in (KINDS[n] for n in KIND_NAMES)
        ]
    )[kind[number]]
    boxes = ndimage.find_objects(cell + 1)
    middle = np.array([[(s.start + s.stop) / 2 for s in box] for box in boxes])[number]
    cos, sin = np.cos(angle[number]), np.sin(angle[number])
    start = origin[number] % period
    hit = np.zeros(rows.size, np.float32)
    for i in range(16):
        y = (rows + (i // 4 + 0.5) / 4 - middle[:, 0]) * 10
        x = (cols + (i % 4 + 0.5) / 4 - middle[:, 1]) * 10
        u, v = x * cos + y * sin, y * cos - x * sin
        hit += ((u + start[:, 0]) % period[:, 0] < width) | (
            (v + start[:, 1]) % period[:, 1] < width
        )
    share[rows, cols] = hit / 16
    return share
