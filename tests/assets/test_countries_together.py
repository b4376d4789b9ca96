"""A country of three units, mapped with what the units of two others teach: the assets' part.

Composites are put there by hand; everything from the built-up score and the census to the hectare
map is made by the assets themselves. One of the two lies on a grid in degrees.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import geopandas as gpd
import numpy as np
import pytest
import shapely
import yaml
from click.testing import CliRunner

from popcorn_assets.assets.trained import Trained, unseen_by
from popcorn_assets.assets.trained_from import CheckpointInputs, CountryInputs, _require_alike
from popcorn_assets.assets.unseen import trained_on
from popcorn_assets.audit.reproduce import reproduce
from popcorn_assets.checks.countries import no_country_much_worse
from popcorn_assets.checks.model import builtup_error
from popcorn_assets.commands.models import models
from popcorn_assets.commands.run import hopeless
from popcorn_assets.commands.show import show
from popcorn_assets.country import load_country
from popcorn_assets.partitions import COUNTRY_YEAR, partition_key
from popcorn_assets.promotion.entries import Model
from popcorn_assets.promotion.metrics import metrics_of, on_current_counts
from popcorn_assets.promotion.trained_on import levels_of
from popcorn_assets.store.manifests import SCHEMA
from popcorn_assets.store.newer import newer_inputs
from popcorn_assets.store.versions import Address, Store
from popcorn_ml import raster
from popcorn_ml.errors import ConfigError
from popcorn_ml.grid import Grid
from popcorn_ml.sentinel import BANDS, SEASONS, SENSORS
from popcorn_ml.training.out_of_fold import OUT_OF_FOLD_FILE, read_collected
from popcorn_ml.warehouse.warehouse import Warehouse
from tests.platforms import Place, copied, enter, make_place
from tests.training.places import block_units, write_place

pytestmark = [pytest.mark.long(120), pytest.mark.timeout(1200)]

YEAR = 2020
GRIDS = {
    "rwa": Grid("EPSG:32736", 500_000.0, 9_800_000.0, 10.0, 120, 90),
    "che": Grid("EPSG:4326", 6.0, 47.0, 8.983152841195215e-05, 120, 80),
    "uga": Grid("EPSG:32736", 600_000.0, 9_900_000.0, 10.0, 90, 60),
}
"""Names of packaged countries, since only those have partitions while tests run."""
UNITS = {"rwa": (3, 4), "che": (3, 4), "uga": (1, 3)}
PROVENANCE = {
    "s1": {"provider": "hand", "backscatter": "gamma0", "level": "RTC"},
    "s2": {"provider": "hand", "level": "L2A"},
}


def write_files(place: Place, code: str, **training: Any) -> None:
    """A country's file, census and grid."""
    grid, (rows, cols) = GRIDS[code], UNITS[code]
    own = place.data / code
    made = write_place(own, block_units(grid.height, grid.width, rows, cols),
                       seed=len(own.name) + ord(code[0]), grid=grid)  # fmt: skip
    step, across, down = grid.step, grid.width // cols, grid.height // rows
    boxes = [
        shapely.box(grid.west + c * across * step, grid.north - (r + 1) * down * step,
                    grid.west + (c + 1) * across * step, grid.north - r * down * step)
        for r in range(rows) for c in range(cols)
    ]  # fmt: skip
    ids = [f"{k:03d}" for k in range(len(boxes))]
    gpd.GeoDataFrame({"id": ids}, geometry=boxes, crs=grid.crs).to_file(own / "units.gpkg")
    people = [count["people"] for count in made.counts]
    table = [f"{i},{round(n)}" for i, n in zip(ids, people, strict=True)]
    (own / "counts.csv").write_text("\n".join(["id,people", *table]) + "\n")
    level = {
        "role": "train",
        "boundaries": {"file": f"{code}/units.gpkg", "columns": {"id": "id"}},
        "counts": {
            "file": f"{code}/counts.csv",
            "year": YEAR,
            "columns": {"id": "id", "people": "people"},
        },
    }
    country = {
        "name": code,
        "grid": {"like": f"{code}/units.tif"},
        "imagery": {"source": "files", "files": {"root": "none", "region": "none"}},
        "census": {"levels": {f"level_of_{code}": level}},
        "extractor": "demo",
        "training": {"members": 2, "epochs": 1, "learning_rate": 0.003, **training},
    }
    (place.home / "countries" / f"{code}.yaml").write_text(yaml.safe_dump(country))


def publish_composites(place: Place, code: str, **s1: str) -> None:
    for sensor in SENSORS:
        address = Address(f"{sensor}_composites", code, YEAR)
        provenance = PROVENANCE[sensor] | (s1 if sensor == "s1" else {})
        shares = {
            season: {band: {"observed": 1.0, "empty": 0.0} for band in BANDS[sensor]}
            for season in SEASONS
        }
        with Store(place.data).draft(address) as draft:
            for season in SEASONS:
                source = place.data / code / f"{sensor}_{season}.tif"
                (draft / f"{season}.tif").write_bytes(source.read_bytes())
            manifest = {
                "schema": SCHEMA, "asset": address.asset, "country": code, "year": YEAR,
                "inputs": [], "sources": [], "checks": [], "parameters": {},
                "shown": [], "tables": {}, "libraries": {}, "recipe": sensor,
                "code": {"version": "by hand"}, "run_id": "by hand",
                "started": "2026-01-01T00:00:00+00:00", "finished": "2026-01-01T00:00:00+00:00",
                "facts": {"provenance": provenance, "sensor": sensor, "shares": shares},
            }  # fmt: skip
            Store(place.data).publish(address, draft, manifest)


def make(code: str, *assets: str) -> dg.ExecuteInProcessResult:
    from popcorn_assets.definitions import defs

    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(
            defs.assets,
            selection=dg.AssetSelection.assets(*assets),
            instance=instance,
            partition_key=partition_key(code, YEAR),
            resources=defs.resources,
            raise_on_error=False,
        )


def judged(code: str) -> dg.AssetCheckEvaluation:
    """What the check says of a country's checkpoints, run by Dagster as from the UI."""
    from popcorn_assets.definitions import defs

    job = dg.define_asset_job("judge", selection=dg.AssetSelection.checks(no_country_much_worse))
    judging = dg.Definitions(
        assets=defs.assets,
        asset_checks=[no_country_much_worse],
        jobs=[job],
        resources=defs.resources,
    )
    tags = COUNTRY_YEAR.get_tags_for_partition_key(partition_key(code, YEAR))
    (found,) = (
        judging.resolve_job_def("judge").execute_in_process(tags=tags).get_asset_check_evaluations()
    )
    return found


def failure(result: dg.ExecuteInProcessResult) -> str:
    (event,) = [e for e in result.all_events if e.event_type_value == "STEP_FAILURE"]
    error = event.step_failure_data.error
    return (error.cause or error).message


def latest(place: Place, asset: str, code: str):
    return Store(place.data).latest(Address(asset, code, YEAR))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Iterator[Place]:
    """All three: what is learned from, the three units' model, and their maps."""
    place = make_place(tmp_path_factory.mktemp("together") / "home")
    with pytest.MonkeyPatch.context() as monkeypatch:
        enter(place, monkeypatch)
        monkeypatch.setenv("POPCORN_LAUNCHER", "inline")
        write_files(place, "rwa", countries=["rwa", "che"])
        write_files(place, "che")
        write_files(place, "uga", countries=["rwa", "che"])
        for code in GRIDS:
            publish_composites(place, code)
        first = ("builtup_area", "census_units", "census_counts")
        assert make("rwa", "builtup_extractor", *first).success
        # What is missing is told before anything is trained, with the command that makes it.
        said = failure(make("uga", "checkpoints"))
        assert "uga|2020 is trained on units of che|2020 as well" in said
        assert "popcorn run che 2020 --job prepare" in said
        # By `popcorn run` before anything at all.
        lacks = hopeless("country_year", "uga", YEAR)
        assert lacks is not None
        assert "che|2020 as well, which has no builtup_area, census_units, census_counts" in lacks
        assert hopeless("prepare", "uga", YEAR) is None
        assert "uga.yaml" in said
        assert make("che", *first).success
        maps = ("deployed_model", "population_map", "adjusted_map", "hectare_map", "evaluation")
        assert hopeless("train", "uga", YEAR) is None
        assert make("uga", *first, "checkpoints", *maps).success
        yield place


def test_three_units_are_mapped_by_what_two_other_countries_teach(made):
    manifest = latest(made, "checkpoints", "uga").manifest()
    read = {(e["asset"], e["country"]) for e in manifest["inputs"] if e["country"]}
    assert read == {
        (asset, code)
        for asset in ("s1_composites", "s2_composites", "builtup_area", "census_units",
                      "census_counts")
        for code in ("rwa", "che")
    }  # fmt: skip
    parameters = manifest["parameters"]
    assert [*levels_of(parameters, "uga").items()] == [
        ("rwa", "level_of_rwa"),
        ("che", "level_of_che"),
    ]
    assert parameters["pixel_area_m2"] == 100.0
    shown = dict(map(tuple, manifest["shown"]))
    scores = shown["scores by country, of units that members had not seen"]
    assert {row["country"]: row["units"] for row in scores} == {"rwa": 12, "che": 12}
    deployed = dict(map(tuple, latest(made, "deployed_model", "uga").manifest()["shown"]))
    assert deployed["trained on units of"] == "rwa, che"
    assert deployed["from another country"] is True
    adjusted = raster.read(latest(made, "adjusted_map", "uga").file("population.tif"))
    counted = json.loads(
        latest(made, "census_counts", "uga").file("counts_level_of_uga.json").read_text()
    )
    assert float(np.nansum(adjusted)) == pytest.approx(sum(u["people"] for u in counted), rel=1e-4)


def test_the_warehouse_and_the_check_tell_countries_apart(made):
    rows = Warehouse(Store(made.data).warehouse).query(
        "SELECT unit_country, units, people, predicted FROM out_of_fold_by_country "
        "WHERE country = 'uga' ORDER BY unit_country"
    )
    version = latest(made, "checkpoints", "uga")
    told = read_collected(version.file(OUT_OF_FOLD_FILE))
    assert [(code, count) for code, count, *_ in rows] == [("che", 12), ("rwa", 12)]
    assert sum(row[3] for row in rows) == pytest.approx(sum(unit.predicted for unit in told))
    assert {unit.id for unit in told} == {f"{c}/{k:03d}" for c in ("rwa", "che") for k in range(12)}
    verdict = judged("uga")
    for code in ("rwa", "che"):
        assert f"{code}: mean |log ratio|" in verdict.description


def test_the_ledger_and_the_simplest_model_count_units_of_both(made):
    store, version = Store(made.data), latest(made, "checkpoints", "uga")
    model = Model.of(version.address, version.version)
    metrics = metrics_of(store, model)
    assert (metrics.units, metrics.level) == (24, "rwa level_of_rwa, che level_of_che")
    assert metrics.people
    assert on_current_counts(store, model)
    error, people_per_pixel = builtup_error(store, version)
    assert 0 < error < 1
    # Pixels of the first country: what its 0.5 people a pixel of full score were drawn with.
    assert people_per_pixel > 0


def test_newer_counts_of_another_country_make_the_checkpoints_old(made, tmp_path):
    place = copied(made, tmp_path / "home")
    with pytest.MonkeyPatch.context() as monkeypatch:
        enter(place, monkeypatch)
        table = place.data / "che" / "counts.csv"
        table.write_text(table.read_text().replace("000,", "000,1"))
        assert newer_inputs(Store(place.data), latest(place, "checkpoints", "uga")) == []
        assert make("che", "census_counts").success
        (told,) = newer_inputs(Store(place.data), latest(place, "checkpoints", "uga"))
        assert told.startswith("census_counts che|2020 is now")
        # A composite of another quantity: refused, and said of which country.
        publish_composites(place, "che", backscatter="sigma0")
        assert make("che", "builtup_area").success
        said = failure(make("uga", "checkpoints"))
        for part in ("rwa and che", "s1", "backscatter gamma0, as rwa", "backscatter sigma0 in che",
                     "--job prepare", "uga.yaml: training.countries"):  # fmt: skip
            assert part in said


def test_a_country_among_those_trained_on_knows_which_members_saw_its_units(made):
    """As a model of its own would: by the ids of its own census."""
    version = latest(made, "checkpoints", "uga")
    told = {
        "country": "uga", "year": YEAR, "version": version.version, "level": "level_of_rwa",
        "members": [f"member_{s}" for s in version.manifest()["facts"]["seeds"]],
        "countries": [
            {"code": code, "level": f"level_of_{code}"} for code in ("rwa", "che")
        ],
    }  # fmt: skip
    store = Store(made.data)
    address = Address("population_map", "rwa", YEAR)

    def entry(of) -> dict[str, Any]:
        where = of.address
        return {"asset": where.asset, "country": where.country, "year": where.year,
                "version": of.version}  # fmt: skip

    plain = {"checks": [], "facts": {}, "parameters": {}}
    with store.draft(Address("deployed_model", "rwa", YEAR)) as draft:
        (draft / "deployed.json").write_text(json.dumps(told))
        decision = store.publish(
            Address("deployed_model", "rwa", YEAR), draft, {"inputs": [entry(version)], **plain}
        )
    with store.draft(address) as draft:
        (draft / "said.json").write_text("{}")
        inputs = [entry(decision), entry(version)]
        predicted = store.publish(address, draft, {"inputs": inputs, **plain})
    saw = trained_on(store, predicted, "level_of_rwa")
    assert saw is not None
    assert [len(ids) for ids in saw] == [6, 6]
    assert set.union(*saw) == {f"{k:03d}" for k in range(12)}
    assert trained_on(store, predicted, "level_of_che") is None
    trained = Trained("uga", YEAR, levels_of(told, "uga"), version, told=told)
    units = latest(made, "census_units", "rwa").file("units_level_of_rwa.tif")
    unseen = unseen_by(trained, "rwa", "level_of_rwa", units)
    assert unseen is not None
    assert sorted(unseen) == list(range(1, 13))
    for member in (0, 1):  # a unit is seen by the member that did not hold it out
        by_him = {number for number, seen in unseen.items() if seen.members == (member,)}
        assert {f"{number - 1:03d}" for number in by_him} & saw[member] == set()
        assert len(by_him) == 6
    assert unseen_by(trained, "uga", "level_of_uga", units) is None


def test_countries_of_other_pixels_are_refused(made):
    country = load_country("uga")
    one = CountryInputs("rwa", {}, latest(made, "builtup_area", "rwa"), Path(), Path(), "l", 100.0,
                        PROVENANCE)  # fmt: skip
    both = CheckpointInputs((one, replace(one, code="che", pixel_area_m2=900.0)), Path(), True)

    class Asked:
        year = YEAR

    with pytest.raises(ConfigError, match="too different in size"):
        _require_alike(Asked(), country, both)


def test_the_checkpoints_are_made_again_from_what_their_manifest_names(made, tmp_path):
    """In a process that begins with these country files, so with their partitions' mapping."""
    place = copied(made, tmp_path / "home")
    with pytest.MonkeyPatch.context() as monkeypatch:
        enter(place, monkeypatch)
        monkeypatch.setenv("POPCORN_LAUNCHER", "inline")
        remade = reproduce(Store(place.data), Address("checkpoints", "uga", YEAR))
        assert remade.identical, (remade.files, remade.differences)
        shown = CliRunner().invoke(show, ["uga", str(YEAR)])
        assert shown.exit_code == 0, shown.output
        listed = CliRunner().invoke(models, ["uga"])
        assert listed.exit_code == 0, listed.output
        assert "uga|2020" in listed.output
