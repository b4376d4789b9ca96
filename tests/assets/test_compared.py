"""Products of others, scored beside our maps by the asset `evaluation`."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
from pyproj import Transformer
from rasterio.transform import from_origin

from popcorn_assets.country import load_country
from popcorn_assets.show import PICTURE
from popcorn_assets.store.versions import Address
from popcorn_ml import raster
from popcorn_ml.errors import ConfigError
from popcorn_ml.warehouse.warehouse import Warehouse
from tests.assets.squares import GRID, Squares
from tests.platforms import enter, make_place

pytestmark = [pytest.mark.timeout(300)]

STEP = 1 / 1200
MADE = ("census_units", "census_counts", "adjusted_map", "evaluation")
COMPARE = {"worldpop": "compare/ppp_{year}.tif", "flat": "compare/flat.tif"}


def write_products(country: Squares) -> None:
    """True people on cells of 3 arc-seconds, and as many spread evenly, as 4-byte integers."""
    folder = country.place.data / "compare"
    folder.mkdir(exist_ok=True)
    west, _, _, north = GRID.bounds
    to_degrees = Transformer.from_crs(GRID.crs, "EPSG:4326", always_xy=True)
    rows, cols = np.indices(GRID.shape) + 0.5
    lon, lat = to_degrees.transform(west + cols * GRID.step, north - rows * GRID.step)
    left, top = lon.min() - 2.3 * STEP, lat.max() + 1.6 * STEP
    row, col = ((top - lat) / STEP).astype(int), ((lon - left) / STEP).astype(int)
    shape = row.max() + 3, col.max() + 3
    truth = country.truth(2020)
    people = np.bincount((row * shape[1] + col).ravel(), truth.ravel(), np.prod(shape))
    people = people.reshape(shape)
    flat = np.full(shape, round(truth.sum() / np.prod(row.max() * col.max())), np.int32)
    flat[0], flat[:, 0] = -99, -99
    for name, values, nodata in (("ppp_2020", people, -200.0), ("flat", flat, -99)):
        with rasterio.open(
            folder / f"{name}.tif", "w", driver="GTiff", height=shape[0], width=shape[1], count=1,
            dtype=values.dtype, crs="EPSG:4326", nodata=nodata,
            transform=from_origin(left, top, STEP, STEP),
        ) as out:  # fmt: skip
            out.write(values, 1)


@pytest.fixture(scope="module")
def country(tmp_path_factory):
    """One year mapped, and evaluated beside two products."""
    made = Squares(make_place(tmp_path_factory.mktemp("compared") / "home"))
    with pytest.MonkeyPatch.context() as patch:
        enter(made.place, patch)
        made.write(evaluation={"compare": COMPARE})
        write_products(made)
        made.publish_map(2020, made.publish_model())
        assert made.make(
            2020, "census_units", "census_counts", "adjusted_map", "evaluation"
        ).success
        yield made


def test_products_are_scored_on_the_same_units_as_our_maps(country):
    metrics = json.loads(country.latest("evaluation", 2020).file("metrics.json").read_text())
    units = {name: by["unit"] for name, by in metrics["metrics"].items()}
    assert list(units) == ["uniform", "builtup", "map", "adjusted", "flat", "worldpop"]
    assert len({scores["n"] for scores in units.values()}) == 1
    assert units["worldpop"]["rmse"] < units["uniform"]["rmse"] < units["flat"]["rmse"]
    tables = Warehouse(country.place.data / "warehouse.duckdb")
    kept = tables.query(
        "SELECT product, value FROM evaluation WHERE country = 'demo' AND metric = 'rmse' "
        "AND level = 'quarter'"
    )
    assert dict(kept)["worldpop"] == pytest.approx(units["worldpop"]["rmse"])
    sums = tables.query(
        "SELECT product, sum(map_people), avg(abs(difference)) FROM map_against_census "
        "WHERE level = 'square' GROUP BY product ORDER BY product"
    )
    people = country.truth(2020).sum()
    assert [row[0] for row in sums] == ["adjusted", "flat", "map", "worldpop"]
    told = {product: (total, apart) for product, total, apart in sums}
    assert told["worldpop"][0] == pytest.approx(people, rel=0.05)
    assert told["worldpop"][1] < 0.5 * told["flat"][1]


def test_each_is_a_source_kept_per_hectare_and_drawn_and_nothing_else_is_left(country):
    version = country.latest("evaluation", 2020)
    sources = [entry["path"] for entry in version.manifest()["sources"]]
    for name in ("ppp_2020.tif", "flat.tif"):
        assert any(path.endswith(f"compare/{name}") for path in sources)
    hectares = raster.read_float(version.file("compared/worldpop.tif"), bands=1)
    assert hectares.shape == (GRID.height // 10, GRID.width // 10)
    people = country.truth(2020).sum()
    rows = dict(version.manifest()["shown"])["compared with"]
    shown = {row["product"]: row for row in rows}["worldpop"]
    beyond = shown["beyond the grid"]  # of the cells that the country's edge cuts
    assert 0 < beyond < 0.05 * people
    assert np.nansum(hectares, dtype=float) == pytest.approx(people - beyond, rel=1e-6)
    assert version.file(PICTURE).stat().st_size > 10_000
    assert shown["cell, m"] == pytest.approx(92, abs=2)
    assert shown["people in its cells"] == pytest.approx(people, rel=1e-6)
    assert "evenly over each cell's area" in shown["spread"]
    work = country.place.data / ".work"
    assert not list(work.rglob("*.tif"))


def test_a_density_stops_the_evaluation_and_says_both_totals(country):
    before = country.latest("evaluation", 2020).version
    folder = country.place.data / "compare"
    values, hectare = country.truth(2020), 100
    with rasterio.open(
        folder / "density.tif", "w", driver="GTiff", height=GRID.height, width=GRID.width, count=1,
        dtype="float64", crs=GRID.crs, transform=from_origin(GRID.west, GRID.north, 10.0, 10.0),
    ) as out:  # fmt: skip
        out.write(values * hectare, 1)
    country.write(evaluation={"compare": {"dense": "compare/density.tif"}})
    made = country.make(2020, "evaluation")
    assert not made.success
    (failed,) = [event for event in made.all_events if event.is_step_failure]
    told = str(failed.step_failure_data.error.cause or failed.step_failure_data.error)
    assert "dense is a density, people per hectare" in told
    assert f"{values.sum():,.0f}"[:4] in told
    assert country.latest("evaluation", 2020).version == before
    country.write(evaluation={"compare": {"gone": "compare/gone.tif"}})
    assert not country.make(2020, "evaluation").success
    assert country.store.find(Address("evaluation", "demo", 2020)).version == before


@pytest.mark.parametrize("name", ["map", "true", "World Pop", "1km"])
def test_a_name_that_is_ours_or_none_is_refused(country, name):
    country.write(evaluation={"compare": {name: "compare/flat.tif"}})
    with pytest.raises(ConfigError, match="a product's name has lower-case letters"):
        load_country("demo")
