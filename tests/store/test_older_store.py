"""A store that an earlier release made is read, audited and gone on with as it is.

`fixtures/store_0_1_0.tar.xz` is a simulated country of 80 x 60 pixels, trained on 2020 and mapped
for 2020 and 2021 by commit 64591e0, with its own dagster.yaml; scenes and Dagster's records are not
in it.
"""

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from popcorn_assets.audit.findings import Verdict
from popcorn_assets.audit.judge import audit
from popcorn_assets.audit.reproduce import reproduce
from popcorn_assets.partitions import partition_key
from popcorn_assets.runs.home import home
from popcorn_assets.store.versions import Address, Store
from popcorn_ml import raster
from popcorn_ml.errors import ConfigError
from popcorn_ml.mapping.aggregate import cell_sums
from popcorn_ml.zones import zone_sums
from tests.platforms import REPOSITORY, Place, enter

PACKED = Path(__file__).parents[1] / "fixtures" / "store_0_1_0.tar.xz"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Place:
    folder = tmp_path_factory.mktemp("older")
    with tarfile.open(PACKED) as archive:
        archive.extractall(folder, filter="data")
    return Place(folder / "home")


@pytest.fixture
def older(unpacked, monkeypatch) -> Place:
    """The older store under today's dagster.yaml."""
    shutil.copyfile(REPOSITORY / "dagster.yaml", unpacked.home / "dagster.yaml")
    enter(unpacked, monkeypatch)
    return unpacked


def test_every_version_is_as_it_was_recorded(older):
    report = audit(Store(older.data), "demo", 2021, repository=None)
    wrong = [one for _, one in report.findings() if one.verdict.wrong]
    told = {(one.verdict, one.about.split("/scenes/")[0]) for one in wrong}
    assert told == {(Verdict.MISSING, "demo")}  # the scenes, which were not packed
    assert len(report.trail.nodes) == 33
    assert report.files > 100


def test_its_people_are_computed_again_by_the_engine_of_now(older):
    """It was made in torch, before blocks were encoded by their threads: no byte is the same."""
    store = Store(older.data)
    made = reproduce(store, Address("population_map", "demo", 2021))
    assert made.equal, made.files
    assert made.apart is not None
    assert 0 < made.apart <= 1e-5


def test_its_versions_are_what_new_ones_are_made_from(older):
    import dagster as dg

    from popcorn_assets.definitions import defs

    store = Store(older.data)
    before = store.latest(Address("population_map", "demo", 2021))
    people = raster.read(store.latest(Address("adjusted_map", "demo", 2021)).file("population.tif"))
    with older.instance() as instance:
        result = dg.materialize(
            [*defs.assets],
            selection=["adjusted_map", "hectare_map"],
            partition_key=partition_key("demo", 2021),
            instance=instance,
            resources=defs.resources,
            tags={"popcorn/reuse": "true"},
        )
    assert result.success
    made = store.latest(Address("adjusted_map", "demo", 2021))
    inputs = {entry["asset"]: entry["version"] for entry in made.manifest()["inputs"]}
    assert inputs["population_map"] == before.version
    np.testing.assert_allclose(raster.read(made.file("population.tif"))[0], people[0], rtol=1e-6)


def test_hectares_of_an_older_adjusted_map_have_the_spread_of_members_adjusted_each(older):
    """What was adjusted then keeps no factor a member and unit: they are worked out."""
    import dagster as dg

    from popcorn_assets.definitions import defs

    store = Store(older.data)
    adjusted, predicted, units = (
        store.latest(Address(asset, "demo", 2020))
        for asset in ("adjusted_map", "population_map", "census_units")
    )
    told = json.loads(adjusted.file("adjustment.json").read_text())["units"]
    assert "member_factors" not in told[0]
    with older.instance() as instance:
        assert dg.materialize(
            [*defs.assets],
            selection=["hectare_map"],
            partition_key=partition_key("demo", 2020),
            instance=instance,
            resources=defs.resources,
        ).success
    made = store.latest(Address("hectare_map", "demo", 2020))
    level = adjusted.manifest()["parameters"]["level"]
    numbers = raster.read(units.file(f"units_{level}.tif"), bands=1)
    counted = np.array([0.0, *(unit["people"] for unit in told)])
    assert {unit["method"] for unit in told} == {"model"}
    members = []
    for member in raster.read_float(predicted.file("population_members.tif")):
        factor = counted[1:] / zone_sums(numbers, member, len(told))[1:]
        members.append(member * np.concatenate([[0.0], factor])[numbers])
    expected = np.std(cell_sums(np.stack(members)), axis=0, ddof=1)
    found = raster.read_float(made.file("population_std.tif"), bands=1)
    known = ~np.isnan(found)
    assert known.mean() > 0.5
    np.testing.assert_allclose(found[known], expected[known], rtol=1e-4, atol=1e-4)


def test_its_dagster_yaml_is_told_what_to_change(unpacked, monkeypatch, tmp_path):
    with tarfile.open(PACKED) as archive:
        member = archive.extractfile("home/dagster.yaml")
        (tmp_path / "dagster.yaml").write_bytes(member.read())
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with pytest.raises(ConfigError) as caught:
        home()
    assert "popcorn_assets.instance" in str(caught.value)
    assert "popcorn_assets.runs.instance" in str(caught.value)
