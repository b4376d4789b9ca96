"""`python -m benchmarks.reference spec.json`: a map made as the published code makes it.

Eager torch in squares of 2048 pixels, the extractor run again for each member and season, batch
norms by themselves, both outputs of the head for every pixel. The specification is that of
`python -m popcorn_ml.mapping`, with the extractor's weights beside it under `extractor`. Only the
mean of the members is written, uncompressed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.transform import Affine
from torch import Tensor
from torch.nn import functional as F

from popcorn_ml.grid import Grid
from popcorn_ml.inputs import read_channels
from popcorn_ml.mapping.spec import composites_of_dict
from popcorn_ml.model.popcorn import BuiltupExtractor, OccupancyModel
from popcorn_ml.model.unet import DoubleConv, StreamUNet
from popcorn_ml.model.weights import load_extractor, load_occupancy

SIDE = 2048
HALO = 64


def double(x: Tensor, layers: DoubleConv) -> Tensor:
    """Convolution, batch norm and ReLU one after another, as written in the published code."""
    for conv, norm in ((layers.conv1, layers.norm1), (layers.conv2, layers.norm2)):
        x = F.relu(norm(conv(x)), inplace=True)
    return x


def stream(x: Tensor, unet: StreamUNet) -> Tensor:
    """One sensor's U-Net."""
    full = double(x, unet.enter)
    half = double(F.max_pool2d(full, 2), unet.down1)
    low = double(F.max_pool2d(half, 2), unet.down2)
    half = double(torch.cat([half, unet.up2.raise_(low)], 1), unet.up2.convs)
    return double(torch.cat([full, unet.up1.raise_(half)], 1), unet.up1.convs)


def people(x: Tensor, extractor: BuiltupExtractor, member: OccupancyModel) -> Tensor:
    """One member's people of one season."""
    found, own = extractor.unet, member.unet
    score = torch.sigmoid(
        extractor.score_both(torch.cat([stream(x[:, :2], found.s1), stream(x[:, 2:], found.s2)], 1))
    )
    features = torch.cat([stream(x[:, :2], own.s1), stream(x[:, 2:], own.s2)], 1)
    occupancy = F.relu(member.head(features)[:, 0])
    return (occupancy * score[:, 0])[0]


def main(path: str) -> int:
    """Map as the specification says, on the CPU."""
    given = json.loads(Path(path).read_text())
    grid, composites = Grid(**given["grid"]), composites_of_dict(given["composites"])
    extractor = load_extractor(given["extractor"])
    members = [load_occupancy(one) for one in given["members"]]
    out = Path(given["out"])
    out.mkdir(parents=True, exist_ok=True)
    profile = {
        "driver": "GTiff",
        "crs": grid.crs,
        "transform": Affine(*grid.transform),
        "width": grid.width,
        "height": grid.height,
        "count": 1,
        "dtype": "float32",
    }
    with rasterio.open(out / "population.tif", "w", **profile) as sink, torch.no_grad():
        for tile in grid.tiles(SIDE, HALO):
            sums = np.zeros((tile.read.height, tile.read.width))
            for member in members:
                for pair in composites.values():
                    channels, _ = read_channels(*pair, tile.read)
                    rows, cols = (side // 4 * 4 for side in channels.shape[1:])
                    x = torch.from_numpy(channels[None, :, :rows, :cols])
                    sums[:rows, :cols] += people(x, extractor, member).numpy()
            core = sums[tile.core.inside(tile.read)] / (len(members) * len(composites))
            window = rasterio.windows.Window(
                tile.core.col, tile.core.row, tile.core.width, tile.core.height
            )
            sink.write(core.astype(np.float32), 1, window=window)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
