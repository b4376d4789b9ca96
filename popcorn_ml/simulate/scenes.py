"""Simulated views written as scenes: COGs and the STAC items that describe them.

Formats, property names and asset keys are those of Planetary Computer's `sentinel-2-l2a` and
`sentinel-1-rtc` collections. Scenes lie on tiles and swaths of their own, aligned with the
country's 10 m pixels and never equal to its grid. What a scene shows comes from its family of
worlds, from `optics` and `radar`; nothing here reads a scene or makes a composite.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from popcorn_ml import raster, sentinel
from popcorn_ml.grid import Grid, Window
from popcorn_ml.sentinel import Orbit, Season
from popcorn_ml.simulate import optics, radar
from popcorn_ml.simulate.buildings import Surface
from popcorn_ml.simulate.family import World, family_of
from popcorn_ml.simulate.spec import CountrySpec

S1_NODATA = -32768.0
REPROCESSED = "05.00"
"""Baseline of the scenes that were processed again, whatever their date."""

BASELINES = (
    (datetime(2021, 2, 1, tzinfo=UTC), "02.14"),
    (datetime(2021, 7, 1, tzinfo=UTC), "03.00"),
    (datetime(2022, 1, 25, tzinfo=UTC), "03.01"),
    (datetime(9999, 1, 1, tzinfo=UTC), "04.00"),
)
"""Baseline that was current until each date, as in the real archive, give or take days."""


@dataclass(frozen=True)
class Acquisition:
    """One overpass that sees the country.

    Attributes:
        sensor: "s2" or "s1".
        when: its time, UTC.
        year, season: of the composite it falls into.
        number: its place in the season.
        track: "full" or "edge" (Sentinel-2), or the orbit direction (Sentinel-1).
    """

    sensor: str
    when: datetime
    year: int
    season: Season
    number: int
    track: str

    def rng(self, spec: CountrySpec) -> np.random.Generator:
        """Source of all that this overpass draws, whatever else is simulated."""
        name = f"{self.sensor} {self.track} {self.when.isoformat()}"
        return np.random.default_rng([spec.seed, 2, crc32(name.encode())])

    @property
    def t(self) -> float:
        """The day in 0..1 of the year."""
        return self.when.timetuple().tm_yday / 366


def acquisitions(spec: CountrySpec, year: int) -> list[Acquisition]:
    """All overpasses of a year's four seasons, in the order of the seasons."""
    tracks = (
        ("s2", "full", 5, 0, timedelta(hours=8, minutes=6, seconds=11), spec.s2_dates),
        ("s2", "edge", 5, 3, timedelta(hours=8, minutes=16, seconds=1), spec.s2_edge_dates),
        ("s1", "ascending", 12, 4, timedelta(hours=16, minutes=21, seconds=7), spec.s1_passes),
        ("s1", "descending", 12, 9, timedelta(hours=3, minutes=48, seconds=42), spec.s1_passes),
    )
    found = []
    for season in sentinel.SEASONS:
        period = sentinel.season_period(year, season)
        for sensor, track, repeat, phase, time, wanted in tracks:
            days = [
                period.start + timedelta(days=day) + time
                for day in range((period.end - period.start).days)
                if (period.start + timedelta(days=day)).toordinal() % repeat == phase % repeat
            ]
            # spread over the season; shifted from year to year as revisits are
            at = (np.arange(wanted) + 0.5 + 0.3 * np.sin(year)) / max(wanted, 1) * len(days)
            for number, i in enumerate(np.unique(at.astype(int).clip(0, len(days) - 1))):
                found.append(Acquisition(sensor, days[i], year, season, number, track))
    return found


def s2_tiles(spec: CountrySpec) -> dict[str, Window]:
    """Sentinel-2 tiles by identifier: windows of the place, in even pixels for the 20 m classes."""
    height, width = spec.place_grid.shape
    first, second = _even(0.58 * width), _even(0.44 * width)
    return {
        f"{spec.utm_zone}TC": Window(0, 0, _even(height) - 6, first),
        f"{spec.utm_zone}UC": Window(8, second, _even(height) - 8, _even(width) - second),
    }


def _even(number: float) -> int:
    return int(number) // 2 * 2


def _side_of_edge(rows: np.ndarray, cols: np.ndarray, spec: CountrySpec, track: str) -> np.ndarray:
    """Pixels of the place that a track's swath covers."""
    height, width = spec.place_grid.shape
    if track == "edge":  # the swath of a descending Sentinel-2 orbit ends inside the first tile
        return cols > 0.36 * width + 0.21 * (height / 2 - rows)
    if track == "descending":  # and one of Sentinel-1 leaves out a corner
        return cols < 0.90 * width + 0.21 * (height - rows)
    return np.ones(np.broadcast(rows, cols).shape, bool)


def write_acquisition(
    spec: CountrySpec, world: World, covered: Surface, seen: Acquisition, out_dir: Path
) -> list[dict[str, Any]]:
    """Write the scenes of one overpass and return their STAC items.

    Scenes whose files are all there are not rendered again.

    Args:
        spec: the country.
        world, covered: the place, and what covers it in the acquisition's year.
        seen: the overpass.
        out_dir: folder that the items' hrefs are relative to.

    Returns:
        Items as plain dictionaries, hrefs relative to `out_dir`.
    """
    write = _write_s2 if seen.sensor == "s2" else _write_s1
    return write(spec, world, covered, seen, out_dir)


# --- Sentinel-2 ---------------------------------------------------------------------------------


def processings(seen: Acquisition) -> list[str]:
    """Baselines in which the archive holds an acquisition.

    The third of each season was processed again and replaced; the second of each spring was
    processed again and is there twice.
    """
    original = next(name for until, name in BASELINES if seen.when < until)
    if seen.track == "full" and seen.number == 2:
        return [REPROCESSED]
    if seen.track == "full" and seen.number == 1 and seen.season == "spring":
        return [original, REPROCESSED]
    return [original]


def _write_s2(spec, world, covered, seen, out_dir):
    rng = seen.rng(spec)
    family = family_of(spec.family)
    wet = family.rains(seen.t)
    cover = float(np.clip(rng.beta(1.1, 4.0) + 0.10 * wet, 0, 0.55))
    angle, length = rng.uniform(0.2, 1.2), rng.uniform(9, 20)
    sun = (length * np.sin(angle), -length * np.cos(angle))
    platform = "AB"[(seen.when.toordinal() // 5) % 2]
    orbit = 78 if seen.track == "full" else 35
    clear = family.reflectance(world, covered, seen.t, rng)
    above = optics.sky(rng, world.shape, cover, sun)
    water = covered.share[family.materials.index("water")]
    view = optics.under(clear, above)
    scl = optics.classes(view, above, water)
    rows, cols = np.ogrid[: world.shape[0], : world.shape[1]]
    swath = _side_of_edge(rows, cols, spec, seen.track)
    items = []
    for tile, window in s2_tiles(spec).items():
        covered_here = swath[window.slices]
        if covered_here.mean() < 0.02:
            continue
        for baseline in processings(seen):
            made = seen.when + timedelta(hours=9, minutes=24)
            if baseline == REPROCESSED:
                made = datetime(2023, 6, 1, tzinfo=UTC) + timedelta(days=seen.when.day, hours=4)
            name = (
                f"S2{platform}_MSIL2A_{seen.when:%Y%m%dT%H%M%S}_R{orbit:03d}_T{tile}"
                f"_{made:%Y%m%dT%H%M%S}"
            )
            folder = out_dir / "scenes" / "sentinel-2-l2a" / name
            _save_s2(spec, folder, window, view, scl, covered_here, baseline)
            items.append(
                _s2_item(spec, seen, name, tile, window, baseline, made, orbit, platform,
                         scl[window.slices], covered_here)
            )  # fmt: skip
    return items


def _save_s2(spec, folder, window, view, scl, swath, baseline):
    grid = spec.place_grid.subgrid(window)
    offset = sentinel.baseline_offset(baseline)
    for band, key in enumerate(sentinel.S2_BANDS):
        path = folder / f"{key}.tif"
        if path.exists():
            continue
        numbers = np.clip(np.rint(view[band][window.slices] * 10000), 1, 20000) + offset
        numbers = np.where(swath, numbers, sentinel.S2_NODATA).astype(np.uint16)
        raster.write(path, numbers, grid, [key], sentinel.S2_NODATA, resampling="average")
    path = folder / "SCL.tif"
    if not path.exists():
        coarse = Grid(grid.crs, grid.west, grid.north, 20.0, grid.width // 2, grid.height // 2)
        classes = np.where(swath, scl[window.slices], 0)
        quads = classes.reshape(coarse.height, 2, coarse.width, 2).transpose(0, 2, 1, 3)
        worst = np.take_along_axis(
            quads.reshape(coarse.height, coarse.width, 4),
            np.argmax(_SCL_RANK[quads].reshape(coarse.height, coarse.width, 4), -1)[..., None],
            -1,
        )[..., 0]
        raster.write(path, worst.astype(np.uint8), coarse, ["SCL"], 0, resampling="nearest")


_SCL_RANK = np.array([12, 0, 1, 8, 4, 3, 5, 2, 10, 11, 9, 6])
"""Which class a 20 m cell takes of those of its four pixels: the highest; by class 0..11."""


def _s2_item(
    spec, seen, name, tile, window, baseline, made, orbit, platform, scl, swath
) -> dict[str, Any]:
    grid = spec.place_grid.subgrid(window)
    inside = max(int(swath.sum()), 1)

    def percent(*classes: int) -> float:
        return round(float(np.isin(scl, classes)[swath].sum()) / inside * 100, 6)

    compact = baseline.replace(".", "")
    assets = {}
    for key, gsd in [*((band, 10.0) for band in sentinel.S2_BANDS), ("SCL", 20.0)]:
        side = int(gsd / 10)
        assets[key] = {
            "href": f"./scenes/sentinel-2-l2a/{name}/{key}.tif",
            "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "title": S2_TITLES[key],
            "gsd": gsd,
            **_projection(grid, side),
            "roles": ["data"],
        }
        if key != "SCL":
            assets[key]["eo:bands"] = [S2_EO_BANDS[key]]
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [
            "https://stac-extensions.github.io/eo/v1.0.0/schema.json",
            "https://stac-extensions.github.io/sat/v1.0.0/schema.json",
            "https://stac-extensions.github.io/projection/v1.0.0/schema.json",
        ],
        "id": name,
        "collection": "sentinel-2-l2a",
        **_footprint(spec, window, seen.track),
        "properties": {
            "datetime": f"{seen.when:%Y-%m-%dT%H:%M:%S}.024000Z",
            "platform": f"Sentinel-2{platform}",
            "constellation": "Sentinel 2",
            "instruments": ["msi"],
            "proj:epsg": _epsg(spec),
            "sat:orbit_state": "descending",
            "sat:relative_orbit": orbit,
            "eo:cloud_cover": percent(8, 9, 10),
            "s2:mgrs_tile": tile,
            "s2:processing_baseline": baseline,
            "s2:generation_time": f"{made:%Y-%m-%dT%H:%M:%S}.000Z",
            "s2:datatake_id": f"GS2{platform}_{seen.when:%Y%m%dT%H%M%S}_0{orbit:05d}_N{baseline}",
            "s2:product_uri": name.replace(f"_R{orbit:03d}", f"_N{compact}_R{orbit:03d}") + ".SAFE",
            "s2:product_type": "S2MSI2A",
            "s2:nodata_pixel_percentage": round(100 - 100 * float(swath.mean()), 6),
            "s2:cloud_shadow_percentage": percent(3),
            "s2:vegetation_percentage": percent(4),
            "s2:not_vegetated_percentage": percent(5),
            "s2:water_percentage": percent(6),
            "s2:unclassified_percentage": percent(7),
        },
        "links": [],
        "assets": assets,
    }


S2_TITLES = {
    "B02": "Band 2 - Blue - 10m",
    "B03": "Band 3 - Green - 10m",
    "B04": "Band 4 - Red - 10m",
    "B08": "Band 8 - NIR - 10m",
    "SCL": "Scene classfication map (SCL)",
}
S2_EO_BANDS = {
    "B02": {"name": "B02", "common_name": "blue", "center_wavelength": 0.49},
    "B03": {"name": "B03", "common_name": "green", "center_wavelength": 0.56},
    "B04": {"name": "B04", "common_name": "red", "center_wavelength": 0.665},
    "B08": {"name": "B08", "common_name": "nir", "center_wavelength": 0.842},
}


# --- Sentinel-1 ---------------------------------------------------------------------------------


def _write_s1(spec, world, covered, seen, out_dir):
    rng = seen.rng(spec)
    window = _s1_window(spec, rng)
    stop = seen.when + timedelta(seconds=25)
    orbit, absolute = (174, 31000) if seen.track == "ascending" else (21, 31020)
    absolute += seen.when.toordinal() % 5000
    name = (
        f"S1A_IW_GRDH_1SDV_{seen.when:%Y%m%dT%H%M%S}_{stop:%Y%m%dT%H%M%S}"
        f"_{absolute:06d}_{crc32(seen.when.isoformat().encode()) & 0xFFFFFF:06X}_rtc"
    )
    folder = out_dir / "scenes" / "sentinel-1-rtc" / name
    paths = {key: folder / f"{key}.tif" for key in ("vv", "vh")}
    if not all(path.exists() for path in paths.values()):
        family = family_of(spec.family)
        wetness = float(np.clip(2 * family.rains(seen.t) - 1 + rng.normal(0, 0.3), -1, 1))
        expected = family.gamma_nought(world, covered, _orbit(seen), seen.t, wetness)
        power = radar.speckled(expected, rng)
        rows, cols = np.ogrid[: world.shape[0], : world.shape[1]]
        swath = _side_of_edge(rows, cols, spec, seen.track)
        grid = spec.place_grid.subgrid(window)
        for key, values in zip(("vv", "vh"), power, strict=True):
            held = np.where(swath, values, np.float32(S1_NODATA))[window.slices]
            raster.write(paths[key], held.astype(np.float32), grid, [key.upper()], S1_NODATA)
    return [_s1_item(spec, seen, name, window, stop, orbit, absolute)]


def _orbit(seen: Acquisition) -> Orbit:
    return "ascending" if seen.track == "ascending" else "descending"


def _s1_window(spec: CountrySpec, rng: np.random.Generator) -> Window:
    """Frames differ by a few pixels from pass to pass, as real ones do."""
    height, width = spec.place_grid.shape
    top, left, bottom, right = (int(n) for n in rng.integers(0, 13, 4))
    return Window(top, left, height - top - bottom, width - left - right)


def _s1_item(spec, seen, name, window, stop, orbit, absolute) -> dict[str, Any]:
    grid = spec.place_grid.subgrid(window)
    projection = _projection(grid, 1)
    polarisations = {
        "vh": "VH: vertical transmit, horizontal receive",
        "vv": "VV: vertical transmit, vertical receive",
    }
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [
            "https://stac-extensions.github.io/sar/v1.0.0/schema.json",
            "https://stac-extensions.github.io/sat/v1.0.0/schema.json",
            "https://stac-extensions.github.io/projection/v1.0.0/schema.json",
            "https://stac-extensions.github.io/raster/v1.0.0/schema.json",
        ],
        "id": name,
        "collection": "sentinel-1-rtc",
        **_footprint(spec, window, seen.track),
        "properties": {
            "datetime": f"{seen.when:%Y-%m-%dT%H:%M:%S}.512000Z",
            "start_datetime": f"{seen.when:%Y-%m-%dT%H:%M:%S}.012000Z",
            "end_datetime": f"{stop:%Y-%m-%dT%H:%M:%S}.012000Z",
            "platform": "SENTINEL-1A",
            "constellation": "Sentinel-1",
            "proj:epsg": _epsg(spec),
            **projection,
            "sat:orbit_state": seen.track,
            "sat:relative_orbit": orbit,
            "sat:absolute_orbit": absolute,
            "sar:instrument_mode": "IW",
            "sar:frequency_band": "C",
            "sar:center_frequency": 5.405,
            "sar:polarizations": ["VV", "VH"],
            "sar:product_type": "GRD",
            "sar:looks_range": 5,
            "sar:looks_azimuth": 1,
            "sar:looks_equivalent_number": 4.4,
            "sar:resolution_range": 20,
            "sar:resolution_azimuth": 22,
            "sar:pixel_spacing_range": 10,
            "sar:pixel_spacing_azimuth": 10,
            "sar:observation_direction": "right",
        },
        "links": [],
        "assets": {
            key: {
                "href": f"./scenes/sentinel-1-rtc/{name}/{key}.tif",
                "type": "image/tiff; application=geotiff; profile=cloud-optimized",
                "title": title,
                "raster:bands": [
                    {"nodata": -32768, "data_type": "float32", "spatial_resolution": 10.0}
                ],
                "roles": ["data"],
            }
            for key, title in polarisations.items()
        },
    }


# --- what both share ----------------------------------------------------------------------------


def _epsg(spec: CountrySpec) -> int:
    return int(spec.crs.rpartition(":")[2])


def _projection(grid: Grid, side: int) -> dict[str, Any]:
    west, south, east, north = grid.bounds
    step = grid.step * side
    return {
        "proj:bbox": [west, south, east, north],
        "proj:shape": [grid.height // side, grid.width // side],
        "proj:transform": [step, 0.0, west, 0.0, -step, north],
    }


def _footprint(spec: CountrySpec, window: Window, track: str) -> dict[str, Any]:
    """Geometry and bounding box in longitude and latitude of the pixels that hold a value."""
    from pyproj import Transformer
    from shapely import box, transform
    from shapely.geometry import Polygon, mapping

    height, width = spec.place_grid.shape
    far = 4 * max(height, width)
    frame = box(window.col, window.row, window.col + window.width, window.row + window.height)
    top, bottom = -far, height + far
    if track == "edge":
        line = [(0.36 * width + 0.21 * (height / 2 - row), row) for row in (top, bottom)]
        frame = frame.intersection(Polygon([*line, (far, bottom), (far, top)]))
    elif track == "descending":
        line = [(0.90 * width + 0.21 * (height - row), row) for row in (top, bottom)]
        frame = frame.intersection(Polygon([*line, (-far, bottom), (-far, top)]))
    place = spec.place_grid
    to_degrees = Transformer.from_crs(spec.crs, "EPSG:4326", always_xy=True)

    def degrees(points: np.ndarray) -> np.ndarray:
        x, y = place.west + points[:, 0] * 10, place.north - points[:, 1] * 10
        return np.stack(to_degrees.transform(x, y), -1).round(7)

    shape = transform(frame, degrees)
    return {"geometry": mapping(shape), "bbox": [round(v, 7) for v in shape.bounds]}
