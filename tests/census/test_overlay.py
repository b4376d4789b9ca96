"""Common ground of polygons: the true areas, told in seconds whatever the polygons' size."""

from __future__ import annotations

import time
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from popcorn_ml.census import geometry, overlay


def coast(vertices: int, seed: int = 0) -> shapely.Polygon:
    """An outline of many vertices, 400 km across."""
    rng = np.random.default_rng(seed)
    turn = np.linspace(0, 2 * np.pi, vertices, endpoint=False)
    reach = 2e5 * (1 + 0.2 * np.sin(3 * turn) + 0.05 * np.sin(17 * turn))
    reach += 0.2 * rng.standard_normal(vertices)
    return shapely.Polygon(
        np.column_stack([500_000 + reach * np.cos(turn), 9_000_000 + reach * np.sin(turn)])
    )


def districts(outline: shapely.Polygon, side: int) -> list[shapely.Polygon]:
    """The outline cut into squares."""
    west, south, east, north = outline.bounds
    xs, ys = np.linspace(west, east, side + 1), np.linspace(south, north, side + 1)
    boxes = [
        shapely.box(xs[i], ys[j], xs[i + 1], ys[j + 1]) for i in range(side) for j in range(side)
    ]
    return [g for g in overlay._within(np.full(len(boxes), outline), np.array(boxes)) if g.area]


def frame(polygons: list) -> gpd.GeoDataFrame:
    ids = [f"{k:04d}" for k in range(len(polygons))]
    columns = {"id": ids, "name": "", "row": range(1, len(ids) + 1)}
    return gpd.GeoDataFrame(columns, geometry=polygons, crs="EPSG:32736")


@budget(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), piece=st.sampled_from([8, 40, 256]))
def test_the_areas_are_those_of_the_plain_intersections(seed: int, piece: int) -> None:
    rng = np.random.default_rng(seed)
    shapes = np.array(
        [
            shapely.Point(*rng.uniform(0, 100, 2)).buffer(rng.uniform(2, 30), quad_segs=30)
            - shapely.Point(*rng.uniform(0, 100, 2)).buffer(rng.uniform(2, 10))
            for _ in range(12)
        ]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlay, "PIECE_VERTICES", piece)
        i, j, area = overlay.common_areas(shapes)
        a, b, both = overlay.common_areas(shapes[:5], shapes[5:])
    found = dict(zip(zip(i, j, strict=True), area, strict=True))
    found_both = dict(zip(zip(a, b, strict=True), both, strict=True))
    for one in range(12):
        for other in range(one + 1, 12):
            true = shapes[one].intersection(shapes[other]).area
            assert found.get((one, other), 0.0) == pytest.approx(true, abs=1e-6)
            if one < 5 <= other:
                assert found_both.get((one, other - 5), 0.0) == pytest.approx(true, abs=1e-6)


@pytest.mark.parametrize("times", [1, 2])
def test_a_national_outline_among_its_districts_is_told_in_seconds(times: int) -> None:
    """Once, and twice under two ids; vertex by vertex it took from minutes to hours."""
    outline = coast(300_000)
    inner = districts(outline, 28)
    units = frame([*inner, *[outline] * times])
    started = time.monotonic()
    findings = geometry.overlaps(units, Path("units.gpkg"))
    assert time.monotonic() - started < 15
    (finding,) = findings
    assert finding.severity == "error"
    assert len(finding.rows) == times * len(inner) + (times - 1)
    assert all(row["share_of_smaller"] == pytest.approx(1, abs=1e-3) for row in finding.rows)


def test_neighbours_that_share_a_border_have_nothing_in_common() -> None:
    assert geometry.overlaps(frame(districts(coast(20_000), 6)), Path("units.gpkg")) == []
