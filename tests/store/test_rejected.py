"""What failed a check that blocks is kept to be looked at, and never becomes current."""

import json
import time
from dataclasses import dataclass

import dagster as dg
import pytest

from popcorn_assets.audit.findings import Verdict
from popcorn_assets.audit.judge import audit
from popcorn_assets.audit.recorded import DagsterRecords
from popcorn_assets.partitions import COUNTRY_YEAR, partition_key
from popcorn_assets.resources import StoreResource
from popcorn_assets.show import check_specs
from popcorn_assets.store.making import REUSE_TAG, Making, Outcome
from popcorn_assets.store.newer import newer_inputs
from popcorn_assets.store.versions import (
    HISTORY,
    LATEST,
    MANIFEST,
    REJECTED,
    Address,
    Store,
    sha256,
)
from popcorn_assets.upkeep import doctor as machine
from popcorn_assets.upkeep.plan import plan
from popcorn_assets.upkeep.records import record_again
from popcorn_assets.upkeep.removal import apply
from popcorn_ml.errors import StoreError
from popcorn_ml.warehouse.warehouse import Warehouse

HERE = Address("census_counts", "demo", 2020)


def check(passed: bool, severity: str = "error", message: str = "12 of 10 rows") -> dict:
    return {"name": "joined", "passed": passed, "severity": severity, "message": message}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "data")


def publish(store, text, passed=True, severity="error", note="", record=None):
    with store.draft(HERE) as draft:
        (draft / "counts.txt").write_text(text)
        manifest = {"checks": [check(passed, severity)], "note": note}
        return store.publish(HERE, draft, manifest, record)


def test_the_last_good_version_stays_current(store):
    good, told = publish(store, "10"), []
    bad = publish(store, "12", passed=False, record=lambda manifest, _: told.append(manifest))
    assert store.latest(HERE) == good
    assert store.rejected(HERE) == store.newest(HERE) == bad != good
    assert bad.file("counts.txt").read_text() == "12", "kept to be looked at"
    assert told[0]["version"] == bad.version
    warned = publish(store, "11", passed=False, severity="warn")
    assert store.latest(HERE) == store.newest(HERE) == warned
    assert store.rejected(HERE) is None


def test_a_first_version_that_is_rejected_is_no_version_to_go_on_from(store):
    bad = publish(store, "12", passed=False)
    assert store.find(HERE) is None
    with pytest.raises(StoreError, match=r"did not pass its checks(.|\n)*joined: 12 of 10 rows"):
        store.latest(HERE)
    assert store.newest(HERE) == bad


def test_equal_contents_that_fail_now_leave_what_is_current_as_it_is(store):
    good = publish(store, "10", note="first")
    bad = publish(store, "10", passed=False, note="stricter")
    assert bad.version == good.version
    assert store.latest(HERE).manifest()["note"] == "first"
    assert bad.manifest()["note"] == store.rejected(HERE).manifest()["note"] == "stricter"
    assert bad.manifest_sha256() == store.rejected(HERE).told.removeprefix(f"{HISTORY}/")[:-5]
    (good.path / "counts.txt").chmod(0o600)
    (good.path / "counts.txt").write_text("damaged")
    again = publish(store, "10", passed=False, note="stricter again")
    assert store.latest(HERE).manifest()["note"] == "first"
    assert again.manifest()["note"] == "stricter again"
    assert good.file("counts.txt").read_text() == "10"
    notes = {json.loads(p.read_text())["note"] for p in (good.path / HISTORY).iterdir()}
    assert notes == {"stricter", "stricter again"}


def test_rejected_contents_that_pass_now_become_current(store):
    publish(store, "10")
    bad = publish(store, "12", passed=False, note="too strict")
    good = publish(store, "12", note="corrected")
    assert good.version == bad.version
    assert store.latest(HERE).manifest()["note"] == "corrected"
    assert store.rejected(HERE) is None
    assert len(list((good.path / HISTORY).iterdir())) == 1


def test_a_store_from_before_whose_current_version_failed_is_read_as_it_is(store):
    good, bad = publish(store, "10"), publish(store, "12", passed=False)
    (store.folder(HERE) / LATEST).write_text(f"{bad.version}\n")
    (store.folder(HERE) / REJECTED).unlink()
    assert store.latest(HERE).version == bad.version
    publish(store, "12", passed=False, note="again")
    assert sha256(store.latest(HERE).path / MANIFEST) == bad.manifest_sha256()
    publish(store, "10")
    assert store.latest(HERE).version == good.version


def test_a_pointer_to_nothing_is_named(store):
    publish(store, "10")
    (store.folder(HERE) / REJECTED).write_text("0123456789abcdef x\n")
    with pytest.raises(StoreError, match="REJECTED names a version that is not there"):
        store.rejected(HERE)
    publish(store, "11")
    assert store.rejected(HERE) is None


# As a run meets it --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plausible:
    """A census of at most so many people passes."""

    people: float
    most: float = 100.0
    name: str = "plausible"
    severity: str = "error"

    @property
    def passed(self) -> bool:
        return self.people <= self.most

    @property
    def message(self) -> str:
        return f"{self.people:g} people, at most {self.most:g}"


def census(people: float) -> list[dict]:
    fixed = {"kind": "census", "method": "census", "base_year": 2020, "source": "a.csv",
             "source_sha256": "0" * 64}  # fmt: skip
    return [{"level": "coarse", "id": "1", "people": people, **fixed}]


def assets(people: float, most: float = 100.0) -> list[dg.AssetsDefinition]:
    """A census with rows and a check, and a map made from it."""

    @dg.asset(
        name="census_counts",
        partitions_def=COUNTRY_YEAR,
        check_specs=check_specs("census_counts", ["plausible"]),
    )
    def counts(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        making = Making(context, StoreResource().open(), "census_counts", code_version="1")
        making.parameter(people=people, most=most)

        def make(folder) -> Outcome:
            (folder / "counts.txt").write_text(f"{people:g}")
            verdict = Plausible(people, most)
            return Outcome({}, checks=[verdict], tables={"counts": census(people)})

        return making.publish(make)

    @dg.asset(name="the_map", partitions_def=COUNTRY_YEAR, deps=[counts])
    def the_map(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        making = Making(context, StoreResource().open(), "the_map", code_version="1")
        found = making.input("census_counts").file("counts.txt").read_text()

        def make(folder) -> Outcome:
            (folder / "map.txt").write_text(found)
            return Outcome()

        return making.publish(make)

    return [counts, the_map]


MAP = Address("the_map", "demo", 2020)


@pytest.fixture
def instance(place):
    with place.instance() as made:
        yield made


@pytest.fixture
def run(instance):
    def run(people: float, most: float = 100.0, *, select: str = "*", reuse: bool = False):
        return dg.materialize(
            assets(people, most),
            selection=select,
            partition_key=partition_key("demo", 2020),
            instance=instance,
            tags={REUSE_TAG: "true"} if reuse else {},
            raise_on_error=False,
        )

    return run


def rows(store: Store) -> list[float]:
    found = Warehouse(store.warehouse).query("SELECT people FROM counts WHERE country = 'demo'")
    return [people for (people,) in found]


def current(store: Store) -> dict[str, str]:
    sql = "SELECT asset, version FROM current_versions"
    return dict(Warehouse(store.warehouse).query(sql))


def wrong(store: Store, instance: dg.DagsterInstance) -> list[str]:
    report = audit(store, "demo", 2020, dagster=DagsterRecords(instance), repository=None)
    doubts = (Verdict.OK, Verdict.FOREIGN_CODE)
    return [f"{one.verdict}: {one}" for _, one in report.findings() if one.verdict not in doubts]


def test_a_census_that_fails_stops_its_run_and_changes_nothing_that_is_current(
    place, instance, run
):
    store = Store(place.data)
    assert run(10).success
    good, themap, before = store.latest(HERE), store.latest(MAP), current(store)
    done = run(1000)
    assert not done.success
    assert not done.asset_materializations_for_node("the_map"), "what follows was stopped"
    (event,) = done.asset_materializations_for_node("census_counts")
    assert event.metadata["not current"].value == "it failed plausible"
    (verdict,) = done.get_asset_check_evaluations()
    assert not verdict.passed
    bad = store.rejected(HERE)
    assert bad.file("counts.txt").read_text() == "1000"
    assert store.latest(HERE) == good
    assert (rows(store), current(store)) == ([10], before)
    assert newer_inputs(store, themap) == [], "no good map is called older"
    assert wrong(store, instance) == []

    assert run(1000, select="the_map").success, "a map by itself is made from what is current"
    assert store.latest(MAP).file("map.txt").read_text() == "10"
    assert run(20).success, "corrected"
    assert store.latest(HERE).file("counts.txt").read_text() == "20"
    assert (rows(store), store.rejected(HERE)) == ([20], None)
    assert wrong(store, instance) == []


def test_going_back_to_what_is_current_settles_it(place, instance, run):
    store = Store(place.data)
    assert run(10).success
    assert not run(1000).success
    assert run(10, reuse=True).success
    assert store.rejected(HERE) is None
    assert rows(store) == [10]
    assert wrong(store, instance) == []


def test_a_limit_that_equal_contents_fail_is_told_and_changes_nothing(place, instance, run):
    store = Store(place.data)
    assert run(10).success
    made = store.latest(HERE).manifest_sha256()
    assert not run(10, most=5).success
    assert store.latest(HERE).manifest_sha256() == made
    assert rows(store) == [10]
    assert wrong(store, instance) == []


def test_a_first_version_that_fails_is_no_ground_for_anything(place, instance, run):
    store = Store(place.data)
    assert not run(1000).success
    assert store.find(HERE) is None
    assert (rows(store), current(store)) == ([], {})
    assert wrong(store, instance) == []
    report = audit(store, "demo", 2020, dagster=DagsterRecords(instance), repository=None)
    (told,) = report.general
    assert "failed plausible and did not become current; current is none" in str(told)
    assert not run(1000, select="the_map").success
    assert store.find(MAP) is None


def test_dagster_is_told_again_of_what_is_current_and_of_what_was_rejected_since(
    place, instance, run
):
    store = Store(place.data)
    assert run(10).success
    assert not run(1000).success
    told = [(address, became) for address, became, _ in record_again(instance, store)]
    assert told == [(HERE, "there already"), (MAP, "there already")]
    with dg.DagsterInstance.ephemeral() as other:
        told = [
            (address, became, text[17:]) for address, became, text in record_again(other, store)
        ]
        assert told == [
            (HERE, "recorded", ""),
            (MAP, "recorded", ""),
            (HERE, "recorded", " rejected"),
        ]
        assert wrong(store, other) == []
        newest = other.get_latest_materialization_event(dg.AssetKey("census_counts"))
        assert newest.asset_materialization.metadata["not current"].value == "it failed plausible"
        assert {became for _, became, _ in record_again(other, store)} == {"there already"}


def test_what_was_rejected_goes_when_it_is_old_and_a_better_one_was_made(place, instance, run):
    store = Store(place.data)
    assert run(10).success
    good = store.latest(HERE)
    assert not run(1000).success
    first = store.rejected(HERE)
    assert not run(2000).success
    second = store.rejected(HERE)

    def go() -> set[str]:
        later = time.time() + 40 * 86_400
        going = plan(store, now=later).removals
        assert not [problem for _, problem in apply(store, going) if problem]
        return {one.version.version for one in going if one.version}

    assert go() == {first.version}, "the newest is there to be looked at, the current one in use"
    assert store.latest(HERE) == good
    assert not first.path.exists()
    assert run(20).success
    assert second.version in go()
    assert wrong(store, instance) == []


def test_only_rejected_versions_do_not_stay_for_ever(place, run):
    store = Store(place.data)
    for people in (1000, 2000):
        assert not run(people).success
    going = plan(store, now=time.time() + 40 * 86_400).removals
    assert len([one for one in going if one.version]) == 1
    assert not [problem for _, problem in apply(store, going) if problem]
    assert store.rejected(HERE).file("counts.txt").read_text() == "2000"


def test_doctor_names_what_was_rejected(place, run):
    store = Store(place.data)
    assert run(10).success
    assert list(machine._rejected()) == []
    assert not run(1000).success
    (told,) = machine._rejected()
    assert not told.ok
    for part in ("census_counts demo|2020", "failed plausible", store.latest(HERE).version):
        assert part in told.what
