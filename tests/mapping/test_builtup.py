"""The built-up score: each season once, in exact tiles, as the published extractor gives it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from popcorn_ml import raster
from popcorn_ml.errors import ConfigError, GridMismatch, RasterError
from popcorn_ml.inputs import read_channels
from popcorn_ml.mapping.builtup import map_builtup
from popcorn_ml.sentinel import SEASONS
from tests.mapping.places import a_grid, an_extractor, write_composites


@pytest.mark.parametrize(
    ("shape", "tile_px"), [((131, 178), 60), ((64, 96), 32), ((9, 70), 512), ((3, 5), 4)]
)
def test_tiled_equals_untiled_on_every_pixel(tmp_path, shape, tile_px):
    """Faults 2 and 14: no edge left out, any number of tiles, tiling changes nothing."""
    grid, model = a_grid(*shape), an_extractor()
    composites = write_composites(tmp_path, grid)
    map_builtup(model, composites, grid, tmp_path / "b.tif", tile_px=tile_px, threads=2)
    found = raster.read_float(tmp_path / "b.tif")
    for i, season in enumerate(SEASONS):
        channels, valid = read_channels(*composites[season])
        with torch.inference_mode():
            whole = model(torch.from_numpy(channels)[None])[0].numpy()
        assert (np.isfinite(found[i]) == valid).all()
        np.testing.assert_allclose(found[i][valid], whole[valid], rtol=0, atol=1e-5)


def test_published_extractor_on_a_real_chip(tmp_path, reference_dir, real_dir):
    """Parity: the tiled raster holds the published code's scores of the chip."""
    from popcorn_ml.model.weights import load_extractor

    parity = np.load(reference_dir / "parity.npz")
    s1 = real_dir / "spain" / "s1_grd_db.tif"
    grid = raster.grid_of(s1)
    s2 = raster.read(real_dir / "spain" / "s2_l1c.tif", bands=[2, 3, 4, 8]).astype(np.uint16)
    raster.write(tmp_path / "s2.tif", s2, grid, ["B02", "B03", "B04", "B08"], 0)
    model = load_extractor(reference_dir / "builtup_extractor.pt")
    for name, pair in {
        "builtup_score": (s1, tmp_path / "s2.tif"),
        "builtup_score_s1_only": (s1, None),
        "builtup_score_s2_only": (None, tmp_path / "s2.tif"),
    }.items():
        map_builtup(model, {"summer": pair}, grid, tmp_path / "b.tif", tile_px=200)
        found = raster.read_float(tmp_path / "b.tif", bands=1)
        np.testing.assert_allclose(found, parity[name], rtol=0, atol=1e-5, err_msg=name)


def test_bands_are_the_seasons_by_name(tmp_path):
    """Fault 8: every season given is there, and none is taken for another."""
    grid = a_grid(30, 40)
    composites = write_composites(tmp_path, grid)
    given = {"winter": composites["winter"], "spring": composites["spring"]}
    map_builtup(an_extractor(), composites, grid, tmp_path / "all.tif")
    map_builtup(an_extractor(), given, grid, tmp_path / "two.tif")
    with raster.opened(tmp_path / "two.tif") as dataset:
        assert dataset.descriptions == ("spring", "winter")
        assert np.isnan(dataset.nodata)
        assert dataset.tags()["content"] == "built-up score"
    np.testing.assert_array_equal(
        raster.read_float(tmp_path / "two.tif"), raster.read_float(tmp_path / "all.tif")[[0, 3]]
    )


def test_refuses_bad_composites_and_leaves_nothing(tmp_path):
    grid, out = a_grid(300, 300), tmp_path / "out" / "b.tif"
    composites = write_composites(tmp_path, grid)
    with pytest.raises(ConfigError, match="monsoon"):
        map_builtup(an_extractor(), {"monsoon": composites["spring"]}, grid, out)
    with pytest.raises(ConfigError, match="spring"):
        map_builtup(an_extractor(), {"spring": (None, None)}, grid, out)
    with pytest.raises(GridMismatch, match="s1_spring"):
        map_builtup(an_extractor(), composites, a_grid(300, 301), out)
    path = composites["autumn"][1]
    path.write_bytes(path.read_bytes()[:-40_000])
    with pytest.raises(RasterError, match="s2_autumn"):
        map_builtup(an_extractor(), composites, grid, out, tile_px=64)
    assert not list(tmp_path.glob("out/*"))
