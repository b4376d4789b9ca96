"""The maps in Python: what is published, opened lazily, summed over zones; nothing else is read."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely

import popcorn_ml as popcorn
from popcorn_assets.store.versions import Address, Store
from popcorn_ml import raster
from popcorn_ml.errors import RasterError
from popcorn_ml.files import write_json
from popcorn_ml.intervals import MODEL_FILE, ErrorModel, IntervalError
from popcorn_ml.intervals.law import LEVELS, student_width
from popcorn_ml.published.places import NoSuchMap
from tests.intervals.test_zones import BASIS, LAW
from tests.platforms import Place, copied

pytestmark = pytest.mark.long(60)

HEAVY = ("torch", "geopandas", "pandas", "xarray", "rasterio", "numpy", "dagster", "popcorn_assets")


@pytest.fixture(scope="module")
def data(tiny) -> Path:
    return tiny.data


@pytest.fixture(scope="module")
def exported(tiny, tmp_path_factory) -> Path:
    """The small country's 2021 under the names of an export."""
    folder, store = tmp_path_factory.mktemp("exported"), Store(tiny.data)
    hectares = store.latest(Address("hectare_map", "demo", 2021))
    adjusted = store.latest(Address("adjusted_map", "demo", 2021))
    for source, name in (
        (hectares.file("population.tif"), "population_100m.tif"),
        (hectares.file("unadjusted/population.tif"), "population_unadjusted_100m.tif"),
        (adjusted.file("population.tif"), "population_10m.tif"),
    ):
        shutil.copyfile(source, folder / f"demo_2021_{name}")
    units = popcorn.units("demo", 2021, data=tiny.data).to_crs("EPSG:32736")
    units.to_parquet(folder / "demo_2021_units.parquet")
    return folder


def test_importing_waits_for_no_library():
    code = (
        "import sys, popcorn_ml as p; p.maps, p.units, p.open_map, p.people_in, p.__version__; "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_nothing_of_dagster_is_needed(data):
    code = (
        "import sys, popcorn_ml as p; "
        f"p.open_map('demo', 2021, data={str(data)!r}); p.units('demo', 2021, data={str(data)!r}); "
        "print([n for n in ('dagster', 'popcorn_assets', 'torch') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_package_says_what_it_offers_and_is_typed():
    assert {"maps", "open_map", "people_in", "units", "__version__"} <= set(dir(popcorn))
    assert popcorn.__version__ == "0.1.0"
    assert (Path(popcorn.__file__).parent / "py.typed").is_file()
    with pytest.raises(AttributeError, match="map_of"):
        popcorn.map_of  # noqa: B018


def test_maps_lists_what_is_published(data, monkeypatch):
    monkeypatch.setenv("POPCORN_DATA", str(data))
    found = popcorn.maps().set_index(["code", "year"])
    assert list(found.index) == [("demo", 2020), ("demo", 2021)]
    row = found.loc[("demo", 2021)]
    current = Store(data).latest(Address("hectare_map", "demo", 2021))
    assert (row["version"], Path(row["path"])) == (current.version, current.path)
    total = float(np.nansum(raster.read_float(current.file("population.tif"), bands=1)))
    assert row["people"] == pytest.approx(total, rel=1e-6)
    assert row["model"].startswith("demo|2020")
    assert row["census"].startswith("coarse")


@pytest.mark.parametrize(
    ("resolution", "adjusted", "asset", "name"),
    [
        ("hectare", True, "hectare_map", "population.tif"),
        ("hectare", False, "hectare_map", "unadjusted/population.tif"),
        ("pixel", True, "adjusted_map", "population.tif"),
        ("pixel", False, "population_map", "population.tif"),
    ],
)
def test_a_map_opens_as_it_lies_in_the_store(data, resolution, adjusted, asset, name):
    opened = popcorn.open_map("demo", 2021, data=data, resolution=resolution, adjusted=adjusted)
    file = Store(data).latest(Address(asset, "demo", 2021)).file(name)
    grid = raster.grid_of(file)
    assert opened.rio.crs.to_string() == grid.crs
    assert opened.rio.bounds() == pytest.approx(grid.bounds)
    assert dict(opened.sizes) == {"y": grid.height, "x": grid.width}
    assert opened["population"].attrs["units"].startswith("people per ")
    assert not opened["population"].variable._in_memory
    np.testing.assert_array_equal(opened["population"], raster.read_float(file, bands=1))
    assert opened.attrs["country"] == "demo"
    assert opened.attrs["year"] == 2021


def test_intervals_are_variables_of_the_map(data, tmp_path):
    """Where the hectare map has them: bands by name, and what a cell may be used for."""
    place = copied_data(data, tmp_path)
    publish_with_intervals(place)
    opened = popcorn.open_map("demo", 2021, data=place)
    assert {"p2_5", "p10", "p90", "p97_5", "reliability"} <= set(opened)
    assert float(opened["p97_5"].max()) == 4.0
    assert bool(popcorn.maps(data=place).set_index("year").loc[2021, "intervals"])


def test_sums_have_intervals_where_the_map_has_an_error_model(data, tmp_path):
    """As popcorn_ml.intervals gives them; of an adjusted unit, all of it, none is uncertain."""
    place = copied_data(data, tmp_path)
    publish_with_intervals(place)
    units = popcorn.units("demo", 2021, data=place, level="fine")
    for adjusted in (True, False):
        found = popcorn.people_in(units, "demo", 2021, data=place, adjusted=adjusted)
        people, bounds = found["people"], found[["p2_5", "p10", "p90", "p97_5"]].to_numpy()
        settled = ~np.isnan(bounds).any(axis=1)
        assert settled.any()
        assert (np.diff(bounds[settled], axis=1) >= 0).all()
        assert (bounds[settled, 0] <= people[settled] + 1e-6).all()
        assert (bounds[settled, 3] >= people[settled] - 1e-6).all()
        assert (bounds[settled, 3] > bounds[settled, 0]).any()


def copied_data(data: Path, tmp_path: Path) -> Path:
    return copied(Place(data.parent), tmp_path / "home").data


def error_model() -> ErrorModel:
    return ErrorModel(LAW, {level: student_width(level) for level in LEVELS}, BASIS, {})


def publish_with_intervals(data: Path, checks: list | None = None) -> str:
    """Another version of the hectare map, with the rasters of intervals beside it."""
    store, address = Store(data), Address("hectare_map", "demo", 2021)
    current = store.latest(address)
    grid = raster.grid_of(current.file("population.tif"))
    with store.draft(address) as draft:
        (draft / "unadjusted").mkdir()
        for name in ("population.tif", "unadjusted/population.tif"):
            shutil.copyfile(current.file(name), draft / name)
        bands = np.stack([np.full(grid.shape, v, np.float32) for v in (1, 2, 3, 4)])
        names = ["p2.5", "p10", "p90", "p97.5"]
        raster.write(draft / "intervals.tif", bands, grid, names, np.nan)
        flags = np.ones((1, *grid.shape), np.uint8)
        raster.write(draft / "reliability.tif", flags, grid, ["reliability"], 255)
        write_json(draft / MODEL_FILE, error_model().as_dict())
        manifest = {**current.manifest(), "checks": checks or []}
        return store.publish(address, draft, manifest).version


def test_a_version_that_was_rejected_is_not_read(data, tmp_path):
    place = copied_data(data, tmp_path)
    before = popcorn.maps(data=place)
    failed = {"name": "sums", "passed": False, "severity": "error", "message": "people are lost"}
    rejected = publish_with_intervals(place, [failed])
    folder = place / "hectare_map" / "demo" / "2021"
    assert (folder / rejected).is_dir()
    assert popcorn.maps(data=place).equals(before)
    assert "p10" not in popcorn.open_map("demo", 2021, data=place)
    (folder / "LATEST").unlink()  # nothing but the rejected one is left
    assert list(popcorn.maps(data=place)["year"]) == [2020]
    with pytest.raises(NoSuchMap, match="demo in 2020"):
        popcorn.open_map("demo", 2021, data=place)


def test_a_draft_is_not_read_and_a_pointer_to_nothing_is_told(data, tmp_path):
    place = copied_data(data, tmp_path)
    folder = place / "hectare_map" / "demo" / "2021"
    for pointed in (".draft-0123", "../2020", "0123456789abcdef"):
        (folder / "LATEST").write_text(f"{pointed}\n")
        with pytest.warns(UserWarning, match="demo 2021 is left out"):
            assert list(popcorn.maps(data=place)["year"]) == [2020]
        with pytest.raises(Exception, match="names a version that is not there"):
            popcorn.open_map("demo", 2021, data=place)


def test_what_is_not_there_is_told_with_what_is(data, tmp_path):
    with pytest.raises(NoSuchMap, match="one of demo"):
        popcorn.open_map("rwa", 2021, data=data)
    with pytest.raises(NoSuchMap, match="demo in 2020, 2021"):
        popcorn.units("demo", 1999, data=data)
    with pytest.raises(NoSuchMap, match="coarse, fine"):
        popcorn.units("demo", 2021, data=data, level="village")
    with pytest.raises(NoSuchMap, match="no such folder"):
        popcorn.maps(data=tmp_path / "nowhere")
    assert popcorn.maps(data=tmp_path).empty
    with pytest.raises(NoSuchMap, match="at least one published map"):
        popcorn.open_map("demo", 2021, data=tmp_path)


def test_a_damaged_raster_is_told_with_its_path(data, tmp_path):
    place = copied_data(data, tmp_path)
    file = Store(place).latest(Address("hectare_map", "demo", 2021)).file("population.tif")
    file.write_bytes(b"not a raster")
    with pytest.raises(RasterError, match=str(file)):
        popcorn.open_map("demo", 2021, data=place)


def test_units_have_census_map_and_difference(data):
    found = popcorn.units("demo", 2021, data=data)
    assert found.crs.to_epsg() == 4326
    assert set(found["level"]) == {"coarse", "fine"}
    coarse = popcorn.units("demo", 2021, data=data, level="coarse")
    np.testing.assert_allclose(coarse["adjusted"], coarse["census"], rtol=1e-5)
    np.testing.assert_allclose(coarse["difference"], coarse["map"] - coarse["census"])
    np.testing.assert_allclose(coarse["density_km2"], coarse["adjusted"] / coarse["area_ha"] * 100)
    people = popcorn.maps(data=data).set_index("year").loc[2021, "people"]
    assert coarse["census"].sum() == pytest.approx(people, rel=1e-6)


def test_people_in_parts_add_up_to_people_in_the_whole(data):
    """However a country is cut, nobody is lost and nobody is counted twice."""
    opened = popcorn.open_map("demo", 2021, data=data, resolution="pixel")
    west, south, east, north = opened.rio.bounds()
    rng = np.random.default_rng(7)
    cuts = [west, *np.sort(rng.uniform(west, east, 9)), east]
    stripes = [shapely.box(a, south, b, north) for a, b in itertools.pairwise(cuts)]
    zones = gpd.GeoDataFrame({"name": range(10)}, geometry=stripes, crs=opened.rio.crs)
    found = popcorn.people_in(zones.set_index("name"), "demo", 2021, data=data)
    assert found["pixels"].sum() == opened.sizes["x"] * opened.sizes["y"]
    assert found["people"].sum() == pytest.approx(float(opened["population"].sum()), rel=1e-6)
    whole = popcorn.people_in(
        gpd.GeoSeries([shapely.box(west, south, east, north)], crs=opened.rio.crs),
        "demo", 2021, data=data,
    )  # fmt: skip
    assert whole["people"].item() == pytest.approx(found["people"].sum(), rel=1e-9)


def test_zones_may_be_files(data, tmp_path):
    units = popcorn.units("demo", 2021, data=data, level="coarse")
    units[["unit_id", "geometry"]].to_file(tmp_path / "zones.gpkg")
    of_file = popcorn.people_in(tmp_path / "zones.gpkg", "demo", 2021, data=data)
    of_frame = popcorn.people_in(units, "demo", 2021, data=data)
    np.testing.assert_allclose(of_file["people"], of_frame["people"])
    rasterised = Store(data).latest(Address("census_units", "demo", 2021)).file("units_coarse.tif")
    by_number = popcorn.people_in(rasterised, "demo", 2021, data=data)
    assert by_number["people"].sum() == pytest.approx(units["census"].sum(), rel=1e-6)
    with pytest.raises(NoSuchMap, match="not there"):
        popcorn.people_in(tmp_path / "none.gpkg", "demo", 2021, data=data)
    with pytest.raises(IntervalError, match="no CRS"):
        popcorn.people_in(units.set_crs(None, allow_override=True), "demo", 2021, data=data)


def test_an_exported_folder_opens_alike(data, exported):
    assert list(popcorn.maps(data=exported)["year"]) == [2021]
    for adjusted in (True, False):
        ours = popcorn.open_map("demo", 2021, data=exported, adjusted=adjusted)["population"]
        theirs = popcorn.open_map("demo", 2021, data=data, adjusted=adjusted)["population"]
        np.testing.assert_array_equal(ours, theirs)
    units = popcorn.units("demo", 2021, data=exported, level="coarse")
    assert units.crs.to_epsg() == 4326
    ours = popcorn.people_in(units, "demo", 2021, data=exported)["people"]
    np.testing.assert_allclose(ours, units["census"], rtol=0.02)
    with pytest.raises(NoSuchMap, match="no unadjusted pixels"):
        popcorn.open_map("demo", 2021, data=exported, adjusted=False, resolution="pixel")


def test_an_export_that_is_under_way_is_not_read(exported, tmp_path):
    folder = tmp_path / "export"
    shutil.copytree(exported, folder)
    note = {"country_years": {"demo_2021": {"whole": False}}}
    (folder / ".popcorn-export.json").write_text(json.dumps(note))
    assert popcorn.maps(data=folder).empty
