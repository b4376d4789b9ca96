"""A census with gaps, from its files to hectares and evaluation: one unit without a row, one whose
count is withheld, two merged into a neighbour, one of them without a count, and one where the map
has no value."""

from __future__ import annotations

import csv

import dagster as dg
import geopandas as gpd
import numpy as np
import pytest
import shapely
import yaml

from popcorn_assets.partitions import partition_key
from popcorn_assets.store.versions import Address, Store
from popcorn_ml import raster
from popcorn_ml.grid import Grid
from popcorn_ml.warehouse.warehouse import Warehouse
from popcorn_ml.zones import zone_sums
from tests.platforms import enter, make_place

COLUMNS, ROWS, SIDE = 7, 6, 200.0
GRID = Grid("EPSG:32736", 500_000.0, 9_800_000.0, 10.0, 20 * COLUMNS, 20 * ROWS)
NO_ROW, WITHHELD, UNMAPPED = "u08", "u17", "u03"
HOST, GUEST, UNKNOWN_GUEST = "u20", "v00", "v01"
UNCOUNTED = (NO_ROW, WITHHELD, UNKNOWN_GUEST)
MADE = ("census_units", "census_counts", "adjusted_map", "hectare_map", "evaluation")


def write_census(folder) -> dict[str, int]:
    """42 squares and two of a metre in holes of their host; people by unit, as in the table."""
    ids = [f"u{k:02d}" for k in range(COLUMNS * ROWS)]
    corners = [
        (GRID.west + k % COLUMNS * SIDE, GRID.north - (k // COLUMNS + 1) * SIDE)
        for k in range(len(ids))
    ]
    boxes = [shapely.box(x, y, x + SIDE, y + SIDE) for x, y in corners]
    x, y = corners[ids.index(HOST)]
    for at in (31, 61):
        boxes.append(shapely.box(x + at, y + at, x + at + 1, y + at + 1))
        boxes[ids.index(HOST)] -= boxes[-1]
    ids += [GUEST, UNKNOWN_GUEST]
    frame = gpd.GeoDataFrame({"id": ids}, geometry=boxes, crs=GRID.crs)
    frame.to_file(folder / "units.gpkg")
    people = {unit: 100 + 7 * k for k, unit in enumerate(ids)}
    with open(folder / "counts.csv", "w", newline="") as stream:
        out = csv.writer(stream)
        out.writerow(["id", "people"])
        for unit, count in people.items():
            if unit != NO_ROW:
                out.writerow([unit, "" if unit in UNCOUNTED else count])
    return {unit: n for unit, n in people.items() if unit not in UNCOUNTED}


def publish_map(store: Store) -> None:
    rng = np.random.default_rng(3)
    members = rng.gamma(0.5, 0.6, (2, *GRID.shape)).astype(np.float32)
    members[:, :20, 60:80] = np.nan  # all of UNMAPPED
    members[:, 0, 0] = np.nan  # a pixel of the first unit
    mean, std = members.mean(axis=0), members.std(axis=0, ddof=1)
    builtup = rng.random(GRID.shape, dtype=np.float32)
    address = Address("population_map", "demo", 2020)
    with store.draft(address) as draft:
        for name, values in {
            "population": mean, "population_std": std, "builtup_score": builtup,
            "population_members": members,
        }.items():  # fmt: skip
            bands = [name] if values.ndim == 2 else ["1", "2"]
            raster.write(draft / f"{name}.tif", values, GRID, bands, np.nan)
        shown = [["model", "demo|2020"]]
        manifest = {"inputs": [], "checks": [], "facts": {}, "parameters": {}, "shown": shown}
        store.publish(address, draft, manifest)


@pytest.fixture(scope="module")
def country(tmp_path_factory):
    """Everything made of a population map in the store: store, counts by unit, checks by name."""
    from popcorn_assets.checks.maps import checks
    from popcorn_assets.definitions import defs

    place = make_place(tmp_path_factory.mktemp("uncounted") / "home")
    west, south, east, north = GRID.bounds
    census = place.data / "census" / "demo"
    census.mkdir(parents=True)
    people = write_census(census)
    level = {
        "role": "train",
        "small_units": "merge",
        "boundaries": {"file": "units.gpkg", "columns": {"id": "id"}},
        "counts": {"file": "counts.csv", "year": 2020, "columns": {"id": "id", "people": "people"}},
    }
    written = {
        "name": "Forty-two squares",
        "grid": {"crs": GRID.crs, "bounds": [west, south, east, north]},
        "imagery": {"source": "files", "files": {"root": "none", "region": "none"}},
        "census": {"levels": {"square": level}},
    }
    (place.home / "countries" / "demo.yaml").write_text(yaml.safe_dump(written))
    store = Store(place.data)
    publish_map(store)
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        enter(place, patch)
        made = dg.materialize(
            [*defs.assets, *checks],
            selection=dg.AssetSelection.assets(*MADE),
            instance=instance,
            partition_key=partition_key("demo", 2020),
            resources=defs.resources,
        )
    assert made.success
    return store, people, {c.check_name: c for c in made.get_asset_check_evaluations()}


def test_units_without_a_count_keep_the_models_number_all_the_way(country):
    store, people, judged = country
    assert judged["units_sum_to_the_census"].passed
    assert judged["units_sum_to_the_census"].metadata["units"].value == 40
    assert judged["hectares_keep_every_person"].passed

    def version(asset):
        return store.latest(Address(asset, "demo", 2020))

    def read(asset, name="population"):
        return raster.read_float(version(asset).file(f"{name}.tif"), bands=1)

    units = raster.read(version("census_units").file("units_square.tif"), bands=1)
    number = {unit: k + 1 for k, unit in enumerate(sorted([*people, *UNCOUNTED]))}
    uncounted = np.isin(units, [number[NO_ROW], number[WITHHELD]])
    assert uncounted.sum() == 2 * 400
    predicted, adjusted = read("population_map"), read("adjusted_map")

    # There the map is the model's, its spread too; everywhere else the census holds as before.
    for name in ("population", "population_std"):
        np.testing.assert_array_equal(
            read("adjusted_map", name)[uncounted], read("population_map", name)[uncounted]
        )
    assert (read("adjusted_map", "factor")[uncounted] == 1).all()
    sums = zone_sums(units, adjusted, len(number))
    for unit, count in people.items():
        if unit != GUEST:
            expected = count + (people[GUEST] if unit == HOST else 0)
            assert sums[number[unit]] == pytest.approx(expected, rel=1e-6)
    estimated = predicted[uncounted].sum(dtype=float)
    total = sum(people.values()) + estimated
    assert np.nansum(read("hectare_map"), dtype=float) == pytest.approx(total, rel=1e-6)

    # It is said: in the materialisation, and with the units' names in the manifest.
    manifest = version("adjusted_map").manifest()
    shown = dict(manifest["shown"])
    assert shown["census people"] == sum(people.values())
    assert shown["units without a count"] == 2
    assert shown["people estimated in them"] == pytest.approx(estimated)
    assert shown["people in census units"] == pytest.approx(total, abs=0.1)
    assert [row["id"] for row in manifest["facts"]["units without a count"]] == [NO_ROW, WITHHELD]

    # A merged unit without a count takes nothing from its host, and is named by a warning.
    told = judged["people_in_pixels"]
    assert (told.passed, told.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert UNKNOWN_GUEST in told.description
    assert not any(
        found.severity == dg.AssetCheckSeverity.ERROR and not found.passed
        for found in judged.values()
    )

    # Neither they nor the merged units are scored; the one without a value is told as unpredicted.
    (scores,) = (
        row
        for row in dict(version("evaluation").manifest()["shown"])["metrics"]
        if row["approach"] == "map"
    )
    assert (scores["n"], scores["unpredicted"]) == (39, 1)
    assert scores["unpredicted_people"] == people[UNMAPPED]


def test_a_unit_without_any_value_is_not_said_to_be_empty(country):
    store, people, _ = country
    rows = Warehouse(store.warehouse).query(
        "SELECT product, valid_share, people FROM map_sums WHERE unit_id = ?", [UNMAPPED]
    )
    assert rows == [("adjusted", 1.0, pytest.approx(people[UNMAPPED]))]
    compared = Warehouse(store.warehouse).query(
        "SELECT unit_id, product, relative_difference, valid_share FROM map_against_census"
    )
    of_map = {unit: (off, share) for unit, product, off, share in compared if product == "map"}
    assert of_map.keys() == people.keys() - {UNMAPPED, GUEST}
    assert min(off for off, _ in of_map.values()) > -1
    assert of_map["u00"][1] == pytest.approx(399 / 400)
    assert {share for unit, (_, share) in of_map.items() if unit != "u00"} == {1.0}


def test_rasters_say_their_country_and_year(country):
    store, *_ = country
    for asset, name in (
        ("adjusted_map", "population"), ("adjusted_map", "factor"),
        ("hectare_map", "population_std"), ("hectare_map", "unadjusted/population"),
    ):  # fmt: skip
        path = store.latest(Address(asset, "demo", 2020)).file(f"{name}.tif")
        said = raster.tags(path)
        assert (said["country"], said["year"], said["model"]) == ("demo", "2020", "demo|2020")
