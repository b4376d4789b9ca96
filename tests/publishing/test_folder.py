"""The folder of a country-year as people open it: rasters, tables, catalogue, all of one map."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pystac
import pytest
from hypothesis import given
from hypothesis import strategies as st

from popcorn_assets.store.versions import Address, Store
from popcorn_ml import raster
from popcorn_ml.grid import Grid
from popcorn_ml.publishing import products
from popcorn_ml.publishing.catalogue import all_facts, multihash, write_catalogue
from popcorn_ml.publishing.facts import public_address
from popcorn_ml.publishing.products import write_product
from popcorn_ml.publishing.unit_tables import COLUMNS
from tests.publishing.stac import validated

YEARS = (2020, 2021)


@pytest.fixture(scope="module")
def folder(tiny) -> Path:
    """The publication of 2021, as it lies in the store."""
    return Store(tiny.data).latest(Address("publication", "demo", 2021)).path


@pytest.fixture(scope="module")
def facts(folder: Path) -> dict:
    (found,) = all_facts(folder)
    return found


@pytest.fixture(scope="module")
def rasters(folder: Path, facts: dict) -> dict[str, Path]:
    return {one["role"]: folder / one["file"] for one in facts["products"]}


# Rasters ------------------------------------------------------------------------------------------


def test_the_files_have_readable_names(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert {
        "demo_2021_population_100m.tif", "demo_2021_population_10m.tif",
        "demo_2021_population_unadjusted_100m.tif", "demo_2021_occupancy_10m.tif",
        "demo_2021_builtup_10m.tif", "demo_2021_quality_10m.tif",
        "demo_2021_population_3arcsec.tif", "demo_2021_units.gpkg", "demo_2021_units.csv",
        "demo_2021_h3.parquet", "demo_2021_item.json", "catalog.json",
    } <= names  # fmt: skip
    styled = {name.removesuffix(".tif") for name in names if name.endswith(".tif")}
    assert styled <= {name.removesuffix(".qml") for name in names if name.endswith(".qml")}


def test_rasters_are_cogs_that_say_what_they_are(rasters, facts) -> None:
    from rio_cogeo.cogeo import cog_validate

    for path in rasters.values():
        valid, errors, warnings = cog_validate(path, strict=True, quiet=True)
        assert valid, (path.name, errors, warnings)
        with raster.opened(path) as dataset:
            assert dataset.profile["compress"] == "deflate"
            assert all(dataset.descriptions)
            assert all(dataset.units)
            said = dataset.tags()
            assert {"title", "citation", "licence", "census", "model", "attribution"} <= set(said)
            assert (said["country"], said["year"]) == ("demo", "2021")
            assert said["version"] == facts["version"]
            for band in dataset.indexes:
                told = dataset.tags(band)
                values = dataset.read(band, masked=True)
                values = np.ma.masked_invalid(values)
                if values.count() == 0:  # bounds of a change that are not known
                    assert not [name for name in told if name.startswith("STATISTICS")]
                    continue
                assert float(told["STATISTICS_MINIMUM"]) == values.min()
                assert float(told["STATISTICS_MAXIMUM"]) == values.max()
                assert float(told["STATISTICS_MEAN"]) == pytest.approx(
                    values.mean(dtype="float64"), rel=1e-9
                )
                assert float(told["STATISTICS_STDDEV"]) == pytest.approx(
                    values.std(dtype="float64"), rel=1e-6
                )


def test_people_are_the_same_in_every_file(rasters, facts, folder) -> None:
    people = facts["totals"]["adjusted"]
    for role in ("population", "population_pixels", "population_masked", "population_3arcsec"):
        found = float(np.nansum(raster.read_float(rasters[role], bands=1), dtype=np.float64))
        assert found == pytest.approx(people, rel=1e-6), role
    for role in ("population_unadjusted", "population_pixels_unadjusted"):
        found = float(np.nansum(raster.read_float(rasters[role], bands=1), dtype=np.float64))
        assert found == pytest.approx(facts["totals"]["map"], rel=1e-6), role
    for resolution, of in pd.read_parquet(folder / "demo_2021_h3.parquet").groupby("resolution"):
        assert of["people"].sum() == pytest.approx(people, rel=1e-6), resolution
    units = pd.read_csv(folder / "demo_2021_units.csv")
    for level, of in units.groupby("level"):
        assert of["adjusted"].sum() == pytest.approx(people, rel=1e-6), level


def test_overviews_of_people_are_means_and_never_negative(tmp_path: Path) -> None:
    import rasterio

    grid = Grid("EPSG:32736", 312_300, 9_755_700, 10.0, 600, 530)
    values = np.random.default_rng(3).gamma(0.1, 5.0, grid.shape).astype(np.float32)
    path = tmp_path / "people.tif"
    written = write_product(
        products.PIXELS, path, grid, ["people"], lambda window: values[window.slices], {}
    )
    assert written.people == pytest.approx(values.sum(dtype="float64"))
    with rasterio.open(path, overview_level=0) as overview:
        small = overview.read(1)
    assert small.min() >= 0
    pairs = values.reshape(265, 2, 300, 2).mean((1, 3))
    assert small == pytest.approx(pairs, rel=1e-5, abs=1e-6)
    assert path.with_suffix(".qml").is_file()


def test_quality_counts_what_the_seasons_say(rasters, tiny) -> None:
    store = Store(tiny.data)
    bands = raster.read(rasters["quality"])
    for band, sensor in enumerate(("s1", "s2")):
        counts = [
            raster.read(
                store.latest(Address(f"{sensor}_{season}", "demo", 2021)).file("clear_count.tif"),
                bands=1,
            ).astype(int)
            for season in ("spring", "summer", "autumn", "winter")
        ]
        assert (bands[band] == sum(counts)).all()
        assert (bands[2] >= sum(count == 0 for count in counts)).all()
    assert set(np.unique(bands[3])) <= {0, 1}


# Tables -------------------------------------------------------------------------------------------


def test_the_units_are_the_same_in_all_three_tables(folder: Path) -> None:
    table = gpd.read_parquet(folder / "demo_2021_units.parquet")
    text = pd.read_csv(folder / "demo_2021_units.csv", dtype={"unit_id": str, "parent": str})
    assert [*table.columns] == [*COLUMNS, "geometry"]
    assert [*text.columns] == [*COLUMNS]
    assert table.crs.to_epsg() == 32736
    for level, of in table.groupby("level", sort=False):
        layer = gpd.read_file(folder / "demo_2021_units.gpkg", layer=level)
        assert layer.crs == table.crs
        assert layer.geometry.is_valid.all()
        assert layer["unit_id"].tolist() == of["unit_id"].tolist()
        assert layer["adjusted"].tolist() == pytest.approx(of["adjusted"].tolist())
        assert text[text["level"] == level]["name"].tolist() == of["name"].tolist()
    known = table[table["census"].notna()]
    assert (known["difference"] - (known["map"] - known["census"])).abs().max() == 0
    train = table[(table["level"] == "coarse")]
    assert train["adjusted"].tolist() == pytest.approx(train["census"].tolist(), rel=1e-6)
    area = train.geometry.area / 1e6
    assert train["density_km2"].tolist() == pytest.approx((train["adjusted"] / area), rel=0.01)


def test_duckdb_reads_the_tables_without_extensions(folder: Path) -> None:
    code = """
import duckdb, sys
c = duckdb.connect(config={"autoinstall_known_extensions": False})
units, hexagons = sys.argv[1:]
print(c.execute("SELECT count(*), sum(adjusted) FROM read_parquet(?) WHERE level = 'coarse'",
                [units]).fetchone())
print(c.execute("SELECT sum(people) FROM read_parquet(?) WHERE resolution = 9",
                [hexagons]).fetchone())
print(c.execute("SELECT DISTINCT typeof(geometry) FROM read_parquet(?)", [units]).fetchall())
"""
    paths = [str(folder / f"demo_2021_{name}.parquet") for name in ("units", "h3")]
    done = subprocess.run(
        [sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True
    )
    assert "12," in done.stdout
    assert "GEOMETRY" in done.stdout


def test_every_hexagon_is_one_and_its_pixels_lie_in_it(folder: Path, rasters) -> None:
    import h3

    table = pd.read_parquet(folder / "demo_2021_h3.parquet")
    assert all(h3.is_valid_cell(cell) for cell in table["h3"])
    assert [h3.get_resolution(cell) for cell in table["h3"]] == table["resolution"].tolist()
    finest = table[table["resolution"] == 10].set_index("h3")
    grid = raster.grid_of(rasters["population_pixels"])
    people = raster.read_float(rasters["population_pixels"], bands=1)
    from pyproj import Transformer

    to_degrees = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    found: dict[str, float] = {}
    for row in range(30):
        for col in range(30):
            lon, lat = to_degrees.transform(grid.west + col * 10 + 5, grid.north - row * 10 - 5)
            cell = h3.latlng_to_cell(lat, lon, 10)
            found[cell] = found.get(cell, 0.0) + float(people[row, col])
    inside = [cell for cell in found if found[cell] == pytest.approx(finest.loc[cell, "people"])]
    assert inside  # those that lie wholly in the corner looked at
    assert all(found[cell] <= finest.loc[cell, "people"] * (1 + 1e-6) for cell in found)
    parents = finest["people"].groupby([h3.cell_to_parent(c, 9) for c in finest.index]).sum()
    coarser = table[table["resolution"] == 9].set_index("h3")["people"]
    assert parents.to_dict() == pytest.approx(coarser.to_dict())


# Catalogue ----------------------------------------------------------------------------------------


def test_the_catalogue_is_valid_and_complete(folder: Path) -> None:
    catalogue = pystac.Catalog.from_file(str(folder / "catalog.json"))
    validated(json.loads((folder / "catalog.json").read_text()))
    (collection,) = catalogue.get_children()
    validated(json.loads((folder / "demo_collection.json").read_text()))
    items = {item.id: item for item in collection.get_items()}
    assert set(items) == {"demo_2021", "demo_2021_model"}
    for name in ("demo_2021_item.json", "demo_2021_model.json"):
        validated(json.loads((folder / name).read_text()))
    assert items["demo_2021"].get_collection().id == "demo"


def test_every_file_of_the_year_is_an_asset_with_its_digest(folder: Path) -> None:
    item = pystac.Item.from_file(str(folder / "demo_2021_item.json"))
    told = {Path(asset.href).name: asset for asset in item.assets.values()}
    there = {path.name for path in folder.glob("demo_2021_*")}
    assert set(told) == there - {"demo_2021_item.json", "demo_2021_model.json"}
    for name, asset in told.items():
        assert asset.extra_fields["file:checksum"] == multihash(folder / name)
        assert asset.extra_fields["file:size"] == (folder / name).stat().st_size
    assert multihash(folder / "catalog.json")[:4] == "1220"
    assert len(multihash(folder / "catalog.json")) == 4 + 64


def test_the_item_says_what_it_was_made_of(folder: Path, facts: dict) -> None:
    item = pystac.Item.from_file(str(folder / "demo_2021_item.json"))
    made_of = [link.href for link in item.links if link.rel == "derived_from"]
    assert any(href.endswith("demo_2021_model.json") for href in made_of)
    assert any(href.endswith("demo_2021_scenes.csv") for href in made_of)
    assert sum("#/census/sources/" in href for href in made_of) == len(facts["census"]["sources"])
    scenes = pd.read_csv(folder / "demo_2021_scenes.csv")
    assert len(scenes) == facts["lineage"]["scenes"] > 0
    assert scenes["href"].isna().all()  # they lie on this machine alone


def test_no_path_of_this_machine_is_told(folder: Path, tiny) -> None:
    for path in folder.glob("demo_2021_*"):
        if path.suffix in (".json", ".csv", ".qml", ".html"):
            assert str(tiny.home) not in path.read_text("utf-8"), path.name


@given(st.text(max_size=20))
def test_addresses_lose_their_signature(secret: str) -> None:
    assert public_address(f"https://store.example/B02.tif?sig={secret}") == (
        "https://store.example/B02.tif"
    )
    assert public_address(f"/home/{secret}") is None
    assert public_address(None) is None


def test_markup_in_names_stays_text(folder: Path, tmp_path: Path, facts: dict) -> None:
    evil = "<script>alert('unit')</script>"
    for path in folder.glob("demo_2021_*"):
        shutil.copyfile(path, tmp_path / path.name)
    facts = {**facts, "name": evil, "title": evil, "citation": evil}
    (tmp_path / "demo_2021_facts.json").write_text(json.dumps(facts))
    write_catalogue(tmp_path)
    found = json.loads((tmp_path / "demo_collection.json").read_text())
    assert found["title"] == evil  # JSON has no markup: whoever shows it escapes it
    validated(found)


# Facts --------------------------------------------------------------------------------------------


def test_the_facts_are_those_of_the_map(facts: dict, tiny) -> None:
    store = Store(tiny.data)
    assert facts["version"] == store.latest(Address("hectare_map", "demo", 2021)).version
    assert facts["simulated"]
    assert facts["model"]["year"] == 2020
    assert len(facts["quality"]["seasons"]) == 8
    assert facts["lineage"]["audit"] == "popcorn audit demo 2021"
    assert [level["level"] for level in facts["census"]["levels"]] == ["coarse", "fine"]
    assert facts["mask"]["cells"] > facts["mask"]["empty_cells"] > 0
    assert not facts["licence_stated"]
    told = {one["what"] for one in facts["left_out"]} | {one["role"] for one in facts["products"]}
    assert {"population", "intervals", "reliability", "change"} <= told


def test_the_same_versions_give_the_same_bytes(in_tiny, folder: Path) -> None:
    from popcorn_assets.audit.reproduce import reproduce

    remade = reproduce(Store(in_tiny.data), Address("publication", "demo", 2021))
    assert remade.identical, remade.differences
