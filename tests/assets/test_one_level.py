"""A real census of one level, Puerto Rico's 78 municipios: scored all the same, and said how."""

from __future__ import annotations

import json
import shutil

import dagster as dg
import numpy as np
import pytest
import yaml

from popcorn_assets.assets.unseen import trained_on
from popcorn_assets.partitions import partition_key
from popcorn_assets.store.versions import Address, Store
from popcorn_ml import raster
from popcorn_ml.warehouse.warehouse import Warehouse
from tests.platforms import Place, enter, make_place

YEAR, MEMBERS = 2020, 3
MADE = ("census_units", "census_counts", "adjusted_map", "hectare_map", "evaluation")
INPUTS = ("checkpoints", "deployed_model")


def materialise(place: Place, *assets: str):
    from popcorn_assets.checks.intervals import checks as of_intervals
    from popcorn_assets.checks.maps import checks as of_maps
    from popcorn_assets.checks.model import checks as of_models
    from popcorn_assets.definitions import defs

    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        enter(place, patch)
        made = dg.materialize(
            [*defs.assets, *of_intervals, *of_maps, *of_models],
            selection=dg.AssetSelection.assets(*assets),
            instance=instance,
            partition_key=partition_key("demo", YEAR),
            resources=defs.resources,
        )
    assert made.success
    return {check.check_name: check for check in made.get_asset_check_evaluations()}


def at(asset: str) -> Address:
    return Address(asset, "demo", YEAR)


def publish_map(store: Store, *, trained_in: str = "demo") -> None:
    """A map whose members are off by a tenth or so, each trained on two thirds of the units."""
    import pyarrow.parquet as pq

    census = store.latest(at("census_units"))
    numbers = raster.read(census.file("units_municipio.tif"), bands=1)
    grid = raster.grid_of(census.file("units_municipio.tif"))
    ids = pq.read_table(census.file("units_municipio.parquet")).column("id").to_pylist()
    counts = json.loads(store.latest(at("census_counts")).file("counts_municipio.json").read_text())
    people = np.zeros(len(ids) + 1)
    for count in counts:
        people[count["number"]] = count["people"]
    chance = np.random.default_rng(0)
    pixels = np.maximum(np.bincount(numbers.ravel(), minlength=len(people)), 1)
    density = (people / pixels)[numbers]
    score = np.clip(density / density.max(), 0.01, 1) ** 0.4
    members = np.stack(
        [density * chance.lognormal(0, 0.12, len(people))[numbers] for _ in range(MEMBERS)]
    )
    members[:, numbers == 0] = np.nan
    with store.draft(Address("checkpoints", trained_in, YEAR)) as draft:
        for k in range(MEMBERS):
            (draft / f"member_{k}").mkdir()
            trained = [unit for i, unit in enumerate(ids) if i % MEMBERS != k]
            (draft / f"member_{k}" / "units.json").write_text(json.dumps({"trained": trained}))
        unseen = []
        for i, unit in enumerate(ids):
            k, number = i % MEMBERS, i + 1
            predicted = float(np.nansum(members[k][numbers == number]))
            row = {"id": unit, "number": number, "people": people[number], "members": 1, "fold": k}
            unseen.append({**row, "predicted": predicted, "by": {str(k): predicted}})
        (draft / "out_of_fold.json").write_text(json.dumps(unseen))
        manifest = {"inputs": [], "checks": [], "facts": {}, "parameters": {}, "shown": []}
        told = {**manifest, "facts": {"seeds": list(range(MEMBERS))}}
        checkpoints = store.publish(Address("checkpoints", trained_in, YEAR), draft, told)
    with store.draft(at("deployed_model")) as draft:
        decision = {
            "country": trained_in,
            "year": YEAR,
            "version": checkpoints.version,
            "members": [f"member_{k}" for k in range(MEMBERS)],
            "level": "municipio",
        }
        (draft / "deployed.json").write_text(json.dumps(decision))
        deployed = store.publish(at("deployed_model"), draft, manifest)
    inputs = [
        {"asset": v.address.asset, "country": v.address.country, "year": YEAR, "version": v.version}
        for v in (checkpoints, deployed)
    ]
    with store.draft(at("population_map")) as draft:
        for name, values in {
            "population": members.mean(axis=0)[None],
            "population_std": members.std(axis=0, ddof=1)[None],
            "builtup_score": score[None],
            "population_members": members,
        }.items():
            bands = [str(k) for k in range(len(values))]
            raster.write(draft / f"{name}.tif", values.astype(np.float32), grid, bands, np.nan)
        store.publish(
            at("population_map"), draft, {**manifest, "inputs": inputs, "shown": [["model", "m"]]}
        )


@pytest.fixture(scope="module")
def country(real_dir, tmp_path_factory):
    place = make_place(tmp_path_factory.mktemp("puerto_rico") / "home")
    census = place.data / "census" / "demo"
    census.mkdir(parents=True)
    for name in ("municipios.geojson", "population_2020.csv"):
        shutil.copyfile(real_dir / "pri" / name, census / name)
    level = {
        "role": "train",
        "boundaries": {"file": "municipios.geojson", "columns": {"id": "fips"}},
        "counts": {
            "file": "population_2020.csv", "year": YEAR,
            "columns": {"id": "fips", "people": "pop2020"},
        },
    }  # fmt: skip
    written = {
        "name": "Puerto Rico",
        "grid": {"boundary": "census/demo/municipios.geojson", "step": 200.0},
        "imagery": {"source": "files", "files": {"root": "none", "region": "none"}},
        "census": {"levels": {"municipio": level}},
    }
    (place.home / "countries" / "demo.yaml").write_text(yaml.safe_dump(written))
    materialise(place, "census_units", "census_counts")
    store = Store(place.data)
    publish_map(store)
    judged = materialise(place, *MADE)
    return place, store, judged


def test_a_census_of_one_level_is_scored(country):
    _, store, judged = country
    version = store.latest(at("evaluation"))
    found = json.loads(version.file("metrics.json").read_text())["without_truth"]
    assert found["why_not"] == ""
    assert found["counted"] == found["units"] == found["out_of_fold"]["n"] == 78
    assert 0.01 < found["out_of_fold"]["mae_share"] < 0.2
    assert [entry["joined"] for entry in found["coarsened"]] == [2, 4, 8]
    assert found["finer_level"] == {}
    assert (version.path / "picture.png").read_bytes().startswith(b"\x89PNG")
    for name in ("map_beats_builtup", "scored_without_truth"):
        assert judged[name].passed, judged[name].description
        assert "not judged" not in judged[name].description
    assert "about 4 joined" in judged["map_beats_builtup"].description


def test_a_census_of_one_level_has_intervals(country):
    _, store, judged = country
    version = store.latest(at("hectare_map"))
    assert version.manifest()["facts"]["intervals"]["given"]
    for folder in (version.path, version.path / "unadjusted"):
        people = raster.read_float(folder / "population.tif", bands=1)
        low95, low80, high80, high95 = raster.read_float(folder / "intervals.tif")
        known = np.isfinite(people)
        assert known.any()
        assert (low95[known] <= low80[known]).all()
        assert (high80[known] <= high95[known]).all()
        assert (high80[known] > low80[known]).any()
    assert "not judged" not in judged["intervals_hold"].description
    rows = Warehouse(store.warehouse).query(
        "SELECT count(*), count(p10) FROM map_intervals WHERE product = 'map'"
    )
    assert rows == [(78, 78)]


def test_scores_are_rows_of_the_warehouse(country):
    _, store, _ = country
    rows = Warehouse(store.warehouse).query(
        "SELECT level, product, value, n FROM evaluation WHERE metric = 'mae' ORDER BY ALL"
    )
    told = {(level, product): (value, n) for level, product, value, n in rows}
    assert told["municipio, out of fold", "map"][1] == 78
    for joined in (2, 4, 8):
        of = {a: told[f"municipio, {joined} joined", a][0] for a in ("builtup", "adjusted")}
        assert of["adjusted"] < of["builtup"]


def test_who_saw_what_is_read_back(country):
    _, store, _ = country
    predicted = store.latest(at("population_map"))
    told = trained_on(store, predicted, "municipio")
    assert [len(ids) for ids in told] == [52, 52, 52]
    assert trained_on(store, predicted, "another") is None


def test_a_model_of_another_country_saw_no_unit_and_one_that_is_not_known_all(country):
    place, store, _ = country
    publish_map(store, trained_in="uga")
    told = trained_on(store, store.latest(at("population_map")), "municipio")
    assert told == [set(), set(), set()]
    checkpoints = store.folder(Address("checkpoints", "demo", YEAR))
    publish_map(store)
    shutil.move(checkpoints, place.data / "away")
    assert trained_on(store, store.latest(at("population_map")), "municipio") is None
    judged = materialise(place, "adjusted_map", "evaluation")
    for name in ("map_beats_builtup", "scored_without_truth"):
        assert not judged[name].passed
        assert "at least 20 are needed" in judged[name].description
