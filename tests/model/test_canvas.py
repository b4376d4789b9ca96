"""Tiling changes nothing: any cut of a raster gives what the whole gives, edges included."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from popcorn_ml.grid import Grid, Window
from popcorn_ml.model.canvas import (
    HALO_PX,
    extractor_canvas,
    occupancy_canvas,
    receptive_reach,
    reflected,
)
from popcorn_ml.model.popcorn import BuiltupExtractor, OccupancyModel

SIZES = [(200, 300), (97, 131), (61, 45), (33, 500), (320, 96), (7, 5), (1, 70)]
ABSOLUTE = 1e-5
CASES = [*((size, 64) for size in SIZES), ((97, 131), 37), ((200, 300), 150), ((512, 512), 200)]


@pytest.fixture(scope="module")
def networks() -> tuple[BuiltupExtractor, OccupancyModel]:
    """Random weights, with batch norms that do something, so that every pixel matters."""
    torch.manual_seed(3)
    extractor, occupancy = BuiltupExtractor().eval(), OccupancyModel().eval()
    for network in (extractor, occupancy):
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.2, 0.6)
                with torch.no_grad():
                    module.weight.uniform_(0.7, 1.3)
                    module.bias.normal_(0, 0.2)
    with torch.no_grad():
        for layer in (extractor.score_both, *occupancy.head[::2]):
            layer.weight.mul_(3)
        occupancy.head[-1].bias.fill_(2.0)
        sample = raster_of(64, 64)[None]
        assert extractor(sample).std() > 0.05
        assert (occupancy(sample) > 0).float().mean() > 0.9
        assert occupancy(sample).std() > 0.05
    return extractor, occupancy


def raster_of(height: int, width: int) -> torch.Tensor:
    return torch.randn(6, height, width, generator=torch.Generator().manual_seed(height * width))


def by_tiles(run, canvas, image: torch.Tensor, size: int, halo: int = HALO_PX) -> np.ndarray:
    height, width = image.shape[-2:]
    out = np.full((height, width), np.nan, np.float32)
    for tile in Grid("EPSG:32736", 0, 0, 10, width, height).tiles(size):
        piece = canvas.tile(tile.core, halo)
        rows, cols = piece.source.slices
        with torch.no_grad():
            result = run(piece.lay(image[:, rows, cols])[None])[0]
        out[tile.core.slices] = piece.crop(result).numpy()
    return out


@pytest.mark.parametrize(("size", "tile"), CASES, ids=str)
def test_tiles_of_the_extractor_equal_the_whole(networks, size, tile):
    extractor, _ = networks
    image = raster_of(*size)
    with torch.no_grad():
        whole = extractor(image[None])[0].numpy()
    tiled = by_tiles(extractor.score_unpadded, extractor_canvas(*size), image, tile)
    np.testing.assert_allclose(tiled, whole, atol=ABSOLUTE, rtol=0)


@pytest.mark.parametrize(("size", "tile"), CASES, ids=str)
def test_tiles_of_the_occupancy_network_equal_the_whole(networks, size, tile):
    _, occupancy = networks
    image = raster_of(*size)
    with torch.no_grad():
        whole = occupancy(image[None])[0].numpy()
    tiled = by_tiles(occupancy.occupancy_unpadded, occupancy_canvas(*size), image, tile)
    np.testing.assert_allclose(tiled, whole, atol=ABSOLUTE, rtol=0)


def test_a_smaller_halo_would_show(networks):
    """The comparison above can fail: with eight pixels less, pixels differ."""
    _, occupancy = networks
    image = raster_of(128, 192)
    with torch.no_grad():
        whole = occupancy(image[None])[0].numpy()
    canvas = occupancy_canvas(128, 192)
    narrow = by_tiles(occupancy.occupancy_unpadded, canvas, image, 64, halo=HALO_PX - 8)
    assert np.abs(narrow - whole).max() > 1e-5


def test_the_halo_covers_what_a_pixel_depends_on(networks):
    """`receptive_reach` says how far a pixel looks; the network itself agrees."""
    _, occupancy = networks
    reach = 0
    for place in range(4):
        image = torch.randn(1, 6, 96, 96, generator=torch.Generator().manual_seed(place))
        image.requires_grad_()
        at = 48 + place
        gradient = torch.autograd.grad(occupancy.unet(image)[0, :, at, at].sum(), image)[0]
        seen = gradient[0].abs().sum(0).nonzero()
        reach = max(reach, int((seen - at).abs().max()))
    # Max-pooling hides some pixels of a random image, so the network may show less, never more.
    assert reach <= receptive_reach() <= HALO_PX
    assert reach >= receptive_reach() - 3


@pytest.mark.parametrize("size", [2, 3, 9, 40])
@pytest.mark.parametrize("border", [1, 8, 30, 100])
def test_reflection_as_numpy_does_it(size, border):
    line = np.arange(size)
    expected = np.pad(line, border, mode="reflect")
    np.testing.assert_array_equal(reflected(np.arange(-border, size + border), size), expected)


def test_reflection_of_one_pixel():
    np.testing.assert_array_equal(reflected(np.arange(-5, 6), 1), np.zeros(11))


def test_the_occupancy_canvas_as_published():
    """Sides of 32 stay; others grow to 64, the raster in the middle, the odd pixel after it."""
    assert occupancy_canvas(96, 512).raster == (96, 512)
    assert (occupancy_canvas(96, 512).height, occupancy_canvas(96, 512).width) == (96, 512)
    padded = occupancy_canvas(200, 301)
    assert (padded.top, padded.height) == (28, 256)
    assert (padded.left, padded.width) == (9, 320)


def test_tiles_read_only_what_they_need():
    """Inside the raster no more than core, halo and alignment; never beyond the raster."""
    canvas = occupancy_canvas(1000, 1000)
    for core in (Window(400, 333, 128, 64), Window(0, 0, 50, 50), Window(990, 990, 10, 10)):
        tile = canvas.tile(core)
        assert tile.window.row % 4 == tile.window.col % 4 == 0
        assert tile.source.height <= core.height + 2 * HALO_PX + 6
        assert tile.source.row >= 0
        assert tile.source.row + tile.source.height <= 1000


@pytest.mark.parametrize("core", [(400, 333, 70, 50), (0, 0, 50, 50), (300, 180, 20, 20)])
def test_sides_grow_to_a_multiple_within_the_canvas(core):
    """Also at the canvas's far edge, where the room is on the other side."""
    canvas = occupancy_canvas(480, 448)
    wide, exact = canvas.tile(Window(*core), multiple=32), canvas.tile(Window(*core))
    assert wide.window.height % 32 == wide.window.width % 32 == 0
    assert wide.window.row % 4 == wide.window.col % 4 == 0
    assert min(wide.window.row, wide.window.col) >= 0
    assert wide.window.row <= exact.window.row
    assert wide.window.row + wide.window.height >= exact.window.row + exact.window.height
    assert wide.window.row + wide.window.height <= canvas.height
    assert wide.window.col + wide.window.width <= canvas.width


def test_a_core_outside_the_raster_is_refused():
    with pytest.raises(ValueError, match="not inside"):
        occupancy_canvas(100, 100).tile(Window(90, 0, 20, 20))


def test_laying_the_wrong_array_is_refused():
    tile = occupancy_canvas(100, 100).tile(Window(0, 0, 20, 20))
    with pytest.raises(ValueError, match="does not cover"):
        tile.lay(np.zeros((6, 10, 10)))
