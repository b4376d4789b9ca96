"""Places that the antimeridian runs through: every way of drawing them gives the same units."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.transform import Affine
from shapely import affinity

from popcorn_ml import raster
from popcorn_ml.census import globe
from popcorn_ml.grid import EARTH_ENGINE_10M_DEG, Grid

from .place import Unit, build, settings, write_boundaries, write_counts

SIDE = 0.02
"""Of a unit, in degrees; three columns and two rows, the middle column astride 180 degrees."""


def drawn(way: str, lat: float) -> list[Unit]:
    """Six units by the antimeridian, drawn in one of the ways in which offices draw them."""
    out = []
    for k, (row, col) in enumerate(product(range(2), range(3))):
        west, north = 179.97 + col * SIDE, lat - row * SIDE
        box = shapely.segmentize(shapely.box(west, north - SIDE, west + SIDE, north), SIDE / 8)
        if way == "cut":
            box = globe.cut(np.array([box]))[0]
        elif way == "jumping":
            box = shapely.transform(box, lambda xy: np.where(xy > 180, xy - [360, 0], xy))
        elif way == "west":
            box = affinity.translate(box, -360)
        out.append(Unit(f"{k + 1:02d}", f"Unit {k}", "P", 1000 * (k + 1), box))
    return out


def grids(lat: float) -> dict[str, Grid]:
    """Grids of the same place in several CRS, 40 m to 80 m a pixel."""
    south, north = lat - 2 * SIDE - 0.004, lat + 0.004
    base = 32700 if lat < 0 else 32600
    out = {}
    for name, crs, step, turn in (
        ("zone 60", f"EPSG:{base + 60}", 40.0, 0), ("zone 1", f"EPSG:{base + 1}", 40.0, 0),
        ("degrees beyond 180", "EPSG:4326", 8 * EARTH_ENGINE_10M_DEG, 0),
        ("degrees below -180", "EPSG:4326", 8 * EARTH_ENGINE_10M_DEG, -360),
        ("Pacific", "EPSG:3832", 40.0, 0),
    ):  # fmt: skip
        box = shapely.segmentize(shapely.box(179.966 + turn, south, 180.034 + turn, north), 0.002)
        frame = gpd.GeoDataFrame(geometry=[box], crs="EPSG:4326")
        moved = globe.on_plane(frame, crs, 180.0 + turn)
        out[name] = Grid.covering(crs, tuple(shapely.bounds(moved)[0]), step)
    return out


WAYS = ("cut", "jumping", "0..360", "west", "zone 60", "zone 1", "Pacific")
CASES = [
    *((way, "zone 60", -16.7) for way in WAYS),
    *((way, "degrees beyond 180", 52.0) for way in WAYS),
    ("cut", "degrees below -180", 65.5),
    ("zone 60", "degrees below -180", -44.0),
    ("0..360", "zone 1", 65.5),
    ("jumping", "Pacific", 1.7),
    ("cut", "Pacific", -16.7),
]


def written(folder: Path, way: str, lat: float) -> list[Unit]:
    """The census of the place; a way that is a grid's name is a file in that grid's CRS."""
    rows = drawn("cut" if way in WAYS[4:] else way, lat)
    to = grids(lat)[way].crs if way in WAYS[4:] else None
    if to is not None:  # as an office draws in that plane, without a cut
        frame = gpd.GeoDataFrame(geometry=[u.geometry for u in drawn("0..360", lat)], crs=4326)
        for unit, geometry in zip(rows, globe.on_plane(frame, to), strict=True):
            unit.geometry = geometry
    write_boundaries(folder / "units.gpkg", rows, to or "EPSG:4326")
    write_counts(folder / "counts.csv", rows)
    return rows


@pytest.mark.parametrize(("way", "name", "lat"), CASES)
def test_every_way_of_drawing_a_unit_gives_its_ground(
    tmp_path: Path, way: str, name: str, lat: float
) -> None:
    rows, grid = written(tmp_path, way, lat), grids(lat)[name]
    built = build(tmp_path, settings(), grid=grid)
    assert {n: c.message for n, c in built.failed.items()} == {}
    table = built.units.units
    # The closed form of a cell's area on the ellipsoid, as a grid in degrees reckons it.
    true = [
        Grid("EPSG:4326", 0.0, lat - row * SIDE, SIDE, 1, 1).row_area_m2()[0] / 1e4
        for row in (0, 0, 0, 1, 1, 1)
    ]
    assert table["area_ha"].to_numpy() == pytest.approx(true, rel=1e-5)
    distorted = 0.12 if name == "Pacific" else 0.04
    assert table["pixel_area_ha"].to_numpy() == pytest.approx(true, rel=distorted)
    stored = gpd.GeoSeries.from_wkb(table["geometry_wkb"])
    assert np.abs(stored.bounds.to_numpy()[:, [0, 2]]).max() <= 180
    assert [len(shapely.get_parts(g)) for g in stored] == [1, 2, 1, 1, 2, 1]
    assert stored.area.to_numpy() == pytest.approx(SIDE**2, rel=1e-3)
    burnt = raster.read(tmp_path / "out" / "units_district.tif", bands=1)
    assert np.bincount(burnt.ravel(), minlength=7)[1:].tolist() == table["pixels"].tolist()
    assert sum(e["people"] for e in built.entries()) == sum(u.people for u in rows)


def test_two_boundary_sets_drawn_otherwise_match_by_their_ground(tmp_path: Path) -> None:
    rows = written(tmp_path, "cut", -16.7)
    theirs = [Unit(f"W{u.id}", "", "", u.people, u.geometry) for u in drawn("jumping", -16.7)]
    write_boundaries(tmp_path / "theirs.gpkg", theirs, "EPSG:4326")
    write_counts(tmp_path / "counts.csv", theirs)
    section = settings(
        box=(179.0, -18.0, -179.0, -16.0),
        counts={
            "file": "counts.csv", "year": 2020,
            "columns": {"id": "code", "people": "population"},
            "boundaries": {"file": "theirs.gpkg", "columns": {"id": "code"}},
        },
    )  # fmt: skip
    built = build(tmp_path, section, grid=grids(-16.7)["zone 60"])
    assert not built.failed
    assert {e["id"]: e["people"] for e in built.entries()} == {u.id: u.people for u in rows}


@pytest.mark.parametrize("west", [179.97, -180.03])
@pytest.mark.parametrize("name", ["zone 60", "degrees beyond 180", "degrees below -180"])
def test_cells_of_a_gridded_census_keep_their_ground(
    tmp_path: Path, west: float, name: str
) -> None:
    people = np.arange(1, 61, dtype=np.float32).reshape(6, 10)
    with rasterio.open(
        tmp_path / "people.tif", "w", driver="GTiff", crs="EPSG:4326", width=10, height=6, count=1,
        dtype="float32", nodata=-1, transform=Affine(0.006, 0, west, 0, -0.006, -16.7),
    ) as out:  # fmt: skip
        out.write(people, 1)
    level = {"role": "train", "reader": "gridded", "counts": {"file": "people.tif", "year": 2020}}
    built = build(tmp_path, {"levels": {"district": level}}, grid=grids(-16.7)[name])
    assert not built.failed
    table = built.units.units
    assert table["pixel_area_ha"].to_numpy() == pytest.approx(table["area_ha"], rel=0.2)
    assert table["pixel_area_ha"].sum() == pytest.approx(table["area_ha"].sum(), rel=0.03)
    assert sum(e["people"] for e in built.entries()) == people.sum()


def test_what_lies_elsewhere_is_still_elsewhere(tmp_path: Path) -> None:
    """A unit on the globe's other side, and a country's box that does not reach the units."""
    rows = written(tmp_path, "cut", -16.7)
    rows.append(Unit("99", "Far", "P", 5, shapely.box(0.0, -16.74, 0.02, -16.70)))
    write_boundaries(tmp_path / "units.gpkg", rows, "EPSG:4326")
    write_counts(tmp_path / "counts.csv", rows)
    place = build(tmp_path, grid=grids(-16.7)["zone 60"]).checks["geometry_place"]
    assert place.blocks
    assert [row["id"] for row in place.rows] == ["99"]


def test_a_polygon_across_the_end_of_another_projections_plane_covers_nothing_else() -> None:
    """The web's Mercator ends at 180 degrees: a unit there may not reach over the whole plane."""
    far, here = shapely.box(179.9, -17.1, 180.1, -17.0), shapely.box(177.0, -17.1, 177.1, -17.0)
    frame = gpd.GeoDataFrame(geometry=[far, here], crs="EPSG:4326")
    moved = globe.on_plane(frame, "EPSG:3857")
    assert shapely.area(moved[0]) == pytest.approx(2 * shapely.area(moved[1]), rel=1e-4)
    assert not moved[0].intersects(moved[1])


def test_rings_round_a_pole_or_the_whole_globe_stay_as_they_are() -> None:
    world, pole = shapely.box(-180, -90, 180, 90), shapely.Polygon(
        [(-180, -90), (180, -90), (180, -65), (60, -70), (-60, -72), (-180, -65)]
    )  # fmt: skip
    for polygon in (world, pole):
        assert globe.whole(np.array([polygon]))[0].equals(polygon)
    metres = np.array([shapely.box(500000, 9000000, 500400, 9000400)])
    assert globe.whole(metres) is metres


def test_holes_and_islands_go_where_their_outline_goes() -> None:
    ring = [(179.0, 0), (-179.0, 0), (-179.0, 2), (179.0, 2)]
    hole = [(-179.6, 0.5), (-179.4, 0.5), (-179.4, 1.5), (-179.6, 1.5)]
    island = shapely.box(-178.5, 0, -178.0, 1)
    drawn = shapely.MultiPolygon([shapely.Polygon(ring, [hole]), island])
    (whole,) = globe.whole(np.array([drawn]))
    assert whole.is_valid
    assert whole.bounds == (-181.0, 0.0, -178.0, 2.0)
    assert whole.area == pytest.approx(4 - 0.2 + 0.5)
    (cut,) = globe.cut(np.array([whole]))
    assert cut.area == pytest.approx(whole.area)
    assert (cut.bounds[0], cut.bounds[2]) == (-180.0, 180.0)
