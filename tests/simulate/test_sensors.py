"""What the simulated sensors see: seasons, roofs, walls, clouds, speckle."""

from __future__ import annotations

import numpy as np
import pytest

from popcorn_ml.simulate import optics, radar
from popcorn_ml.simulate.world import MATERIALS, surface

APRIL, AUGUST = 0.3, 0.62


@pytest.fixture(scope="module")
def covered(place):
    return surface(place, 2020)


def seen(place, covered, t):
    return optics.reflectance(place, covered, t, np.random.default_rng(0))


def ndvi(view):
    return (view[3] - view[2]) / (view[3] + view[2])


def test_fields_follow_the_seasons_and_forest_stays_green(place, covered):
    rains, dry = ndvi(seen(place, covered, APRIL)), ndvi(seen(place, covered, AUGUST))
    fields, forest = place.land.crop > 0.8, place.land.forest > 0.9
    assert rains[fields].mean() > dry[fields].mean() + 0.1
    assert abs(rains[forest].mean() - dry[forest].mean()) < 0.05
    assert rains[fields].std() > 0.05  # fields differ from each other


def test_kinds_leave_different_marks(place, covered, by_kind):
    green = by_kind(ndvi(seen(place, covered, AUGUST)))
    bright = by_kind(seen(place, covered, AUGUST)[0])
    power = radar.gamma_nought(place, covered, "descending", AUGUST, 0.0)
    vv = {name: 10 * np.log10(value) for name, value in by_kind(power[0]).items()}
    assert green["suburb"] > green["informal"] + 0.1
    assert bright["industry"] > bright["core"] > bright["suburb"]
    assert vv["core"] > vv["suburb"] + 1.5 > vv["village"] + 1.5
    water = place.land.water > 0.9
    if water.any():
        assert 10 * np.log10(power[0][water].mean()) < -15


def test_double_bounce_depends_on_how_walls_face_the_sensor(place, covered):
    """Streets that one orbit looks along, the other does not."""
    up, down = covered.bounce["ascending"], covered.bounce["descending"]
    walls = covered.wall > 0.2
    ratio = np.log((up[walls] + 1e-3) / (down[walls] + 1e-3))
    assert ratio.std() > 0.3


def test_speckle_has_the_stated_number_of_looks():
    flat = np.full((2, 400, 400), 0.1, np.float32)
    power = radar.speckled(flat, np.random.default_rng(0))
    for band in power:
        assert band.mean() == pytest.approx(0.1, rel=0.01)
        assert band.mean() ** 2 / band.var() == pytest.approx(4.4, rel=0.05)


@pytest.mark.parametrize("cover", [0.0, 0.2, 0.5])
def test_clouds_hide_about_what_was_asked_for_and_cast_shadows(cover):
    above = optics.sky(np.random.default_rng(3), (300, 300), cover, (8.0, -12.0))
    assert (above.opacity > 0.5).mean() == pytest.approx(cover, abs=0.03)
    assert (above.shadow > 0.3).any() == (cover > 0)


def test_scene_classes_tell_cloud_shadow_and_water(place, covered):
    clear = seen(place, covered, APRIL)
    above = optics.sky(np.random.default_rng(3), place.shape, 0.3, (8.0, -12.0))
    view = optics.under(clear, above)
    water = covered.share[MATERIALS.index("water")]
    scl = optics.classes(view, above, water)
    assert set(np.unique(scl)) <= {3, 4, 5, 6, 7, 8, 9, 10}
    kept = np.isin(scl, (4, 5, 6, 7))
    assert (above.opacity[kept] <= 0.10).all()
    assert view[0][scl == 9].mean() > 0.5
    assert view[3][scl == 3].mean() < clear[3][scl == 3].mean() * 0.85
    assert np.abs(view - clear)[:, kept].max() < 0.12  # thin edges pass, as they really do
