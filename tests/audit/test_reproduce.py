"""A map made again from its manifest is the same to the last byte, and the store is not touched."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
import yaml
from click.testing import CliRunner

from popcorn_assets.audit import remake
from popcorn_assets.audit.closeness import TOLERANCE, rasters_apart
from popcorn_assets.audit.findings import Verdict
from popcorn_assets.audit.judge import audit
from popcorn_assets.audit.reproduce import reproduce
from popcorn_assets.cli import cli
from popcorn_assets.country import load_country
from popcorn_assets.store.versions import MANIFEST, Address, Store, sha256
from popcorn_ml import raster
from popcorn_ml.errors import StoreError
from popcorn_ml.grid import Grid

pytestmark = pytest.mark.long(15)


def state(root: Path) -> dict[str, tuple]:
    """Names, contents and times of everything in the store but its work and Dagster's records."""
    return {
        path.relative_to(root).as_posix(): (sha256(path), path.stat().st_mtime_ns)
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.relative_to(root).parts[0] not in (".work", "dagster")
    }


def test_the_maps_of_2021_are_made_again_bit_by_bit(in_copy):
    before = state(in_copy.data)
    done = CliRunner().invoke(cli, ["reproduce", "demo", "2021"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    identical = [line for line in done.output.splitlines() if line.startswith("identical")]
    store = Store(in_copy.data)
    for asset, line in zip(
        ("population_map", "adjusted_map", "hectare_map"), identical, strict=True
    ):
        version = store.latest(Address(asset, "demo", 2021)).version
        assert line == f"identical  {asset} demo|2021 {version}"
    assert state(in_copy.data) == before
    assert not (in_copy.data / ".work" / "reproduce").exists()


def test_another_engine_makes_maps_that_are_equal_and_not_changed(in_copy, monkeypatch):
    monkeypatch.setenv("POPCORN_ENGINE", "torch")
    command = ["reproduce", "demo", "2021", "--asset", "population_map"]
    done = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert done.output.startswith("equal to 1e-05  population_map demo|2021 ")
    assert "networks run by compiled" in done.output or "networks run by openvino" in done.output
    assert "here by torch" in done.output


def test_values_that_are_further_apart_are_not_equal(tmp_path):
    grid = Grid("EPSG:32736", 500_000.0, 9_800_000.0, 10.0, 40, 30)
    values = np.random.default_rng(1).random((2, 30, 40)).astype(np.float32) * 5
    values[:, :3] = np.nan

    def written(name: str, changed: np.ndarray) -> Path:
        raster.write(tmp_path / name, changed, grid, ["one", "two"], np.nan)
        return tmp_path / name

    largest = np.nanmax(values[1])
    first = written("first.tif", values)
    near, far = values.copy(), values.copy()
    near[1, 20, 20] += 0.5 * TOLERANCE * largest
    far[1, 20, 20] += 2 * TOLERANCE * largest
    assert 0 < rasters_apart(first, written("near.tif", near)) <= TOLERANCE
    assert rasters_apart(first, written("far.tif", far)) > TOLERANCE
    near[0, 5, 5] = np.nan
    assert rasters_apart(first, written("hole.tif", near)) is None
    assert rasters_apart(first, written("first2.tif", values)) == 0


def test_what_differs_is_named(in_copy):
    store = Store(in_copy.data)
    version = store.latest(Address("hectare_map", "demo", 2020))
    path = version.path / MANIFEST
    kept = path.read_bytes()
    manifest = json.loads(kept)
    manifest["libraries"]["numpy"] = "0.1"
    manifest["code"]["version"] = "0" * 12
    manifest["files"]["population.tif"]["sha256"] = "0" * 64
    path.write_text(json.dumps(manifest))
    try:
        remade = reproduce(store, version.address)
    finally:
        path.write_bytes(kept)
    assert remade.identical, "the version is the folder's name"
    (file,) = remade.files
    assert file.startswith("population.tif has other contents")
    told = " ".join(remade.differences)
    assert "library numpy was 0.1, is " in told
    assert "code 000000000000" in told
    assert "setting" not in told


def test_what_cannot_be_made_again_says_why(in_copy):
    store = Store(in_copy.data)
    with pytest.raises(StoreError, match="is a decision"):
        reproduce(store, Address("deployed_model", "demo", 2021))
    with pytest.raises(StoreError, match="no version that can be made again"):
        reproduce(store, Address("hectare_map", "demo", 2019))
    counts = store.latest(Address("census_counts", "demo", 2021))
    source = store.root / counts.manifest()["sources"][0]["path"]
    kept = source.read_bytes()
    source.write_bytes(kept + b"\n")
    try:
        with pytest.raises(StoreError, match="a file that is no longer the same"):
            reproduce(store, counts.address)
    finally:
        source.write_bytes(kept)


# What a manifest has to say -----------------------------------------------------------------------


@pytest.fixture
def grid_files(in_copy):
    """The country's grid from a file: a boundary and a raster that both give the one it has."""
    path = in_copy.home / "countries" / "demo.yaml"
    text = path.read_text("utf-8")
    country = yaml.safe_load(text)
    west, south, east, north = country["grid"]["bounds"]
    crs, inside = country["grid"]["crs"], 40.0  # within the outermost hectares
    box = shapely.box(west + inside, south + inside, east - inside, north - inside)
    boundary = in_copy.data / "demo" / "boundary.shp"
    gpd.GeoDataFrame({"id": [1]}, geometry=[box], crs=crs).to_file(boundary)
    like = in_copy.data / "demo" / "like.tif"
    grid = load_country("demo").pixel_grid()
    raster.write(like, np.zeros(grid.shape, np.uint8), grid, ["grid"], 255)

    def use(**given) -> None:
        path.write_text(yaml.safe_dump({**country, "grid": given}), "utf-8")
        assert load_country("demo").pixel_grid() == grid

    yield {
        "boundary": lambda: use(boundary="demo/boundary.shp", crs=crs),
        "like": lambda: use(like="demo/like.tif"),
    }
    path.write_text(text, "utf-8")


def make(asset: str, monkeypatch) -> None:
    monkeypatch.setenv("POPCORN_LAUNCHER", "inline")
    assert remake.main(asset, "demo", "2021") == 0


@pytest.mark.parametrize(
    ("way", "asset", "files"),
    [
        ("boundary", "census_units", {f"demo/boundary.{e}" for e in ("shp", "shx", "dbf", "prj")}),
        ("like", "hectare_map", {"demo/like.tif"}),
    ],
)
def test_the_file_that_a_grid_is_taken_from_is_an_input(
    in_copy, grid_files, monkeypatch, way, asset, files
):
    grid_files[way]()
    store, address = Store(in_copy.data), Address(asset, "demo", 2021)
    before = store.latest(address).version
    make(asset, monkeypatch)
    assert store.latest(address).version == before, "it is the same grid"
    sources = {one["path"]: one["sha256"] for one in store.latest(address).manifest()["sources"]}
    assert files <= sources.keys()
    assert all(sources[name] == sha256(store.root / name) for name in files)
    remade = reproduce(store, address)
    assert (remade.identical, remade.differences) == (True, [])


def test_a_version_from_before_that_was_noted_is_made_again_all_the_same(in_copy, grid_files):
    grid_files["like"]()
    remade = reproduce(Store(in_copy.data), Address("hectare_map", "demo", 2020))
    assert remade.identical
    (told,) = remade.differences
    assert "its manifest does not name demo/like.tif" in told


@pytest.mark.parametrize("form", [lambda m: m.pop("schema"), lambda m: m.update(schema=1)])
@pytest.mark.parametrize("asset", ["hectare_map", "census_units"])
def test_what_cannot_be_read_for_its_age_is_said_so(in_copy, form, asset):
    store = Store(in_copy.data)
    path = store.latest(Address(asset, "demo", 2020)).path / MANIFEST
    kept = path.read_bytes()
    manifest = json.loads(kept)
    form(manifest)
    del manifest["tables"]  # which came with schema 2
    path.write_text(json.dumps(manifest))
    try:
        with pytest.raises(StoreError, match="of another form than this code reads") as told:
            reproduce(store, Address("hectare_map", "demo", 2020))
        report = audit(store, "demo", 2020, repository=None)
    finally:
        path.write_bytes(kept)
    assert str(told.value.where) == str(path)
    assert "schema 2" in str(told.value.expected)
    assert "older form" in str(told.value.found)
    (said,) = [f for _, f in report.findings() if f.verdict is Verdict.NOT_JUDGED]
    assert "it is of an older form" in said.message
