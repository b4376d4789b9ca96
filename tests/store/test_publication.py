"""Publication in its order: folder, LATEST, warehouse, Dagster; and what a death leaves."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import pytest

from popcorn_assets.assets.training import train_member
from popcorn_assets.audit.judge import audit
from popcorn_assets.partitions import COUNTRY_YEAR, partition_key
from popcorn_assets.resources import ComputeResource, StoreResource
from popcorn_assets.store.code import code_digest
from popcorn_assets.store.making import REUSE_TAG, Making, Outcome
from popcorn_assets.store.versions import (
    DAMAGED,
    HISTORY,
    LATEST,
    MANIFEST,
    Address,
    Store,
    digests,
    sha256,
)
from popcorn_assets.upkeep.plan import plan
from popcorn_assets.upkeep.removal import apply
from popcorn_ml.errors import StoreError
from popcorn_ml.warehouse.schema import TABLES
from popcorn_ml.warehouse.warehouse import Warehouse
from tests.platforms import unlock

HERE = Address("counts", "demo", 2020)
KEY = partition_key("demo", 2020)
REPOSITORY = Path(__file__).resolve().parents[2]


def rows(people: float) -> list[dict]:
    fixed = {"kind": "census", "method": "census", "base_year": 2020, "source": "a.csv",
             "source_sha256": "0" * 64}  # fmt: skip
    return [{"level": "coarse", "id": f"{k}", "people": people + k, **fixed} for k in range(3)]


def counting(people: float, made: list[float] | None = None, during=None) -> dg.AssetsDefinition:
    """An asset with rows in the warehouse, as the census has them."""

    @dg.asset(name="counts", partitions_def=COUNTRY_YEAR)
    def counts(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
        making = Making(context, store.open(), "counts", code_version=code_digest("census"))
        making.parameter(people=people)

        def make(folder) -> Outcome:
            if made is not None:
                made.append(people)
            (folder / "counts.json").write_text(json.dumps(people))
            if during is not None:
                during(making)
            return Outcome({"people": people}, tables={"counts": rows(people)})

        return making.publish(make)

    return counts


def run(asset: dg.AssetsDefinition, instance: dg.DagsterInstance, **tags: str):
    return dg.materialize(
        [asset],
        partition_key=KEY,
        instance=instance,
        resources={"store": StoreResource()},
        tags=tags,
        raise_on_error=False,
    )


@pytest.fixture
def instance(place):
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def held(store: Store) -> list[tuple]:
    return Warehouse(store.warehouse).query(
        "SELECT unit_id, people FROM counts WHERE country = 'demo' ORDER BY ALL"
    )


def forget(store: Store) -> None:
    """Empty the warehouse, as a new one in its place would be."""
    with Warehouse(store.warehouse)._writing() as connection:
        for table in TABLES:
            connection.execute(f"DELETE FROM {table}")


def recorded(store: Store) -> list[tuple]:
    """What the warehouse says is current, and what LATEST names with its manifest's digest."""
    latest = store.latest(HERE)
    now = Warehouse(store.warehouse).query("SELECT version, manifest_sha256 FROM current_versions")
    return [*now, (latest.version, sha256(latest.path / MANIFEST))]


def test_a_version_its_rows_and_dagster_s_record_name_each_other(place, instance):
    done = run(counting(10), instance)
    assert done.success
    store = Store(place.data)
    first, latest = recorded(store)
    assert first == latest
    assert [people for _, people in held(store)] == [10, 11, 12]
    (event,) = done.asset_materializations_for_node("counts")
    assert event.metadata["manifest sha256"].value == latest[1]
    manifest = store.latest(HERE).manifest()
    assert manifest["tables"] == Warehouse(store.warehouse).digests(
        "counts", "demo", 2020, ["counts"]
    )
    assert manifest["code"]["parts"] == ["census"]


def test_rows_that_break_a_rule_publish_nothing(place, instance):
    assert run(counting(10), instance).success
    store = Store(place.data)
    before = recorded(store)
    assert not run(counting(-5), instance).success
    assert recorded(store) == before
    assert [people for _, people in held(store)] == [10, 11, 12]


def test_what_is_current_is_reused_only_with_its_rows(place, instance):
    made: list[float] = []
    tags = {REUSE_TAG: "true"}
    assert run(counting(10, made), instance, **tags).success
    assert run(counting(10, made), instance, **tags).success
    assert made == [10]
    store = Store(place.data)
    with Warehouse(store.warehouse)._writing() as connection:
        connection.execute("UPDATE counts SET people = people + 1")
    assert run(counting(10, made), instance, **tags).success
    assert made == [10, 10], "a changed row is put right"
    assert [people for _, people in held(store)] == [10, 11, 12]
    forget(store)
    assert run(counting(10, made), instance, **tags).success
    assert len(made) == 3
    first, latest = recorded(store)
    assert first == latest


def test_a_version_without_rows_is_only_recorded_again(place, instance):
    made: list[int] = []
    plain = plain_asset(made)
    assert run(plain, instance, **{REUSE_TAG: "true"}).success
    store = Store(place.data)
    forget(store)
    assert run(plain, instance, **{REUSE_TAG: "true"}).success
    assert made == [1]
    found = store.latest(Address("plain", "demo", 2020))
    assert Warehouse(store.warehouse).records(found.manifest(), sha256(found.path / MANIFEST))


def test_equal_contents_keep_their_earlier_manifests(place, instance):
    for _ in range(3):
        assert run(counting(10), instance).success
    store = Store(place.data)
    latest = store.latest(HERE)
    kept = sorted((latest.path / HISTORY).iterdir())
    assert len(kept) == 2
    assert {f"{sha256(path)}.json" for path in kept} == {path.name for path in kept}
    assert digests(latest.path) == latest.manifest()["files"], "they are no file of the version"
    known = Warehouse(store.warehouse).manifests_of("counts", "demo", 2020)
    assert set(known) == {path.stem for path in kept} | {sha256(latest.path / MANIFEST)}
    assert set(known.values()) == {latest.version}


def test_a_damaged_version_made_again_keeps_its_history(place, instance):
    for _ in range(2):
        assert run(counting(10), instance).success
    latest = Store(place.data).latest(HERE)
    unlock(latest.path)
    (latest.path / "counts.json").write_text("damaged")
    assert run(counting(10), instance).success
    assert latest.file("counts.json").read_text() == "10"
    assert len(list((latest.path / HISTORY).iterdir())) == 2


def plain_asset(made: list[int], text: str = "a") -> dg.AssetsDefinition:
    """An asset without rows in the warehouse."""

    @dg.asset(partitions_def=COUNTRY_YEAR)
    def plain(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
        making = Making(context, store.open(), "plain", code_version="1")

        def make(folder) -> Outcome:
            made.append(1)
            (folder / "a.txt").write_text(text)
            return Outcome()

        return making.publish(make)

    return plain


def told_by(instance: dg.DagsterInstance) -> list:
    return [entry for run in instance.get_runs() for entry in instance.all_logs(run.run_id)]


def test_what_another_run_made_while_this_one_waited_is_taken(place, instance):
    made: list[int] = []
    began, let_go = threading.Event(), threading.Event()

    @dg.asset(partitions_def=COUNTRY_YEAR)
    def alone(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
        making = Making(context, store.open(), "alone", code_version="1")

        def make(folder) -> Outcome:
            work = making.lone_work()
            made.append(1)
            began.set()
            assert let_go.wait(60)
            (folder / "a.txt").write_text(work.name)
            return Outcome()

        return making.publish(make)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(run, alone, instance)
        assert began.wait(60)
        second = pool.submit(run, alone, instance, **{REUSE_TAG: "true"})
        while not any("waiting until" in entry.message for entry in told_by(instance)):
            time.sleep(0.05)
        let_go.set()
        assert first.result().success
        assert second.result().success
    assert made == [1]
    (told,) = second.result().asset_materializations_for_node("alone")
    assert told.metadata["reused"].value is True


def cut(manifest: Path) -> None:
    manifest.write_text(manifest.read_text()[:-40])


def edited(manifest: Path) -> None:
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "libraries": {}}))


def put_back(manifest: Path) -> None:
    (earlier,) = (manifest.parent / HISTORY).iterdir()
    os.replace(earlier, manifest)


@pytest.mark.parametrize(
    ("damage", "rows_too"),
    [(cut, True), (edited, True), (edited, False), (put_back, False), (Path.unlink, False),
     ("an earlier one", False)],
)  # fmt: skip
def test_a_manifest_that_was_altered_is_found_until_the_version_is_made_again(
    place, instance, damage, rows_too
):
    made: list[int] = []
    asset = counting(10, made) if rows_too else plain_asset(made)
    for _ in range(2):
        assert run(asset, instance).success
    store = Store(place.data)
    latest = store.latest(HERE if rows_too else Address("plain", "demo", 2020))
    assert audit(store, "demo", 2020, repository=None).passed()
    unlock(latest.path)
    if damage == "an earlier one":
        (earlier,) = (latest.path / HISTORY).iterdir()
        edited(earlier)
    else:
        damage(latest.path / MANIFEST)
    assert not audit(store, "demo", 2020, repository=None).passed()
    # What is current may be reused; a manifest that was altered is not.
    assert run(asset, instance, **{REUSE_TAG: "true"}).success
    if damage == "an earlier one":
        assert len(made) == 2
        assert not audit(store, "demo", 2020, repository=None).passed()
        assert run(asset, instance).success
    assert len(made) == 3
    report = audit(store, "demo", 2020, repository=None)
    assert report.passed(), [str(one) for _, one in report.findings()]
    lost = Warehouse(store.warehouse).query("SELECT current FROM versions WHERE removed")
    assert lost == [(False,)]
    assert len(list(store.root.glob(f"{DAMAGED}/**/*.json"))) == (
        damage not in (put_back, Path.unlink)
    )
    assert plan(store).removals == []


@pytest.mark.parametrize("then", ["made again", "kept by another gc"])
def test_a_version_is_there_again_after_a_killed_gc(place, instance, monkeypatch, then):
    for text in ("a", "a", "b"):
        assert run(plain_asset([], text), instance).success
    store = Store(place.data)
    planned = plan(store, older_than_days=0, now=time.time() + 1)
    assert [removal.kind for removal in planned.removals] == ["version"]

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("popcorn_assets.upkeep.removal.os.replace", killed)
        list(apply(store, planned.removals))
    warehouse = Warehouse(store.warehouse)
    assert warehouse.query("SELECT count(*) FROM versions WHERE removed") == [(2,)]
    assert audit(store, "demo", 2020, repository=None).passed()
    if then == "made again":
        assert run(plain_asset([], "a"), instance).success
    else:
        assert list(apply(store, plan(store).removals)) == []
    assert warehouse.query("SELECT count(*) FROM versions WHERE removed") == [(0,)]
    assert audit(store, "demo", 2020, repository=None).passed()


def test_what_other_code_planned_is_not_published(place, instance):
    problems: list[StoreError] = []

    @dg.asset(partitions_def=COUNTRY_YEAR)
    def planned(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
        before = Making(context, store.open(), "planned", code_version="old").noted()
        told = json.loads(json.dumps(before))  # as one step tells another
        Making(context, store.open(), "planned", code_version="old").restore(told)
        with pytest.raises(StoreError, match="planned by other code") as caught:
            Making(context, store.open(), "planned", code_version="new").restore(told)
        problems.append(caught.value)
        return dg.MaterializeResult()

    assert run(planned, instance).success
    assert "start a new run" in str(problems[0])
    with pytest.raises(StoreError, match="planned by other code"):
        train_member(dg.build_op_context(), ComputeResource(), {"noted": {"inputs": []}})


@pytest.mark.parametrize("where", ["before LATEST", "before the warehouse"])
def test_a_death_between_two_steps_is_made_good_by_the_next_run(place, instance, where):
    assert run(counting(10), instance).success
    store = Store(place.data)
    code = f"""
        import os, signal
        from popcorn_assets.store import versions as module
        from popcorn_ml.warehouse.warehouse import Warehouse

        def die(*a, **k):
            os.kill(os.getpid(), signal.SIGKILL)

        if {where!r} == "before LATEST":
            module.write_bytes = die
        else:
            Warehouse.record_publication = die

        import dagster as dg
        from tests.store.test_publication import counting, run
        with dg.DagsterInstance.ephemeral() as instance:
            run(counting(20), instance)
    """
    environment = {**os.environ, **place.environment(), "PYTHONPATH": os.fspath(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=environment, cwd=place.home, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [people for _, people in held(store)] == [10, 11, 12], "the rows are the old ones, whole"
    assert len(list(store.folder(HERE).glob("[0-9a-f]*"))) == 2
    made: list[float] = []
    assert run(counting(30), instance).success, "another version comes before the repair"
    assert run(counting(20, made), instance, **{REUSE_TAG: "true"}).success
    assert made == [20]
    first, latest = recorded(store)
    assert first == latest
    assert [people for _, people in held(store)] == [20, 21, 22]
    known = Warehouse(store.warehouse).query("SELECT DISTINCT version FROM versions")
    on_disk = {path.parent.name for path in store.folder(HERE).glob(f"[0-9a-f]*/{MANIFEST}")}
    assert {version for (version,) in known} == on_disk


def test_two_runs_at_once_leave_latest_and_rows_of_one(place, instance):
    together = threading.Barrier(2, timeout=60)
    assets = [counting(people, during=lambda _: together.wait()) for people in (10, 20)]
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda asset: _alone(asset), assets))
    assert runs == [True, True]
    store = Store(place.data)
    first, latest = recorded(store)
    assert first == latest
    told = float(store.latest(HERE).file("counts.json").read_text())
    assert [people for _, people in held(store)] == [told, told + 1, told + 2]


def _alone(asset: dg.AssetsDefinition) -> bool:
    with dg.DagsterInstance.ephemeral() as instance:
        return run(asset, instance).success


def test_half_done_work_is_one_run_s_at_a_time(tmp_path):
    store = Store(tmp_path / "data")
    told: list[str] = []
    with store.working(HERE, "a" * 64, "run 1") as folder:
        assert folder == store.work(HERE, "a" * 64)
        with store.working(HERE, "b" * 64, "run 2"):
            pass  # other work
        other = store.working(HERE, "a" * 64, "run 2", wait_s=0.2, waiting=told.append)
        with pytest.raises(StoreError, match="another run is at work") as caught, other:
            pytest.fail("two at once")
    assert told == ["run 1"]
    assert "run 1" in str(caught.value)
    with store.working(HERE, "a" * 64, "run 2", wait_s=0):
        pass


def test_latest_is_written_before_the_warehouse_and_both_under_one_lock(tmp_path):
    store = Store(tmp_path / "data")
    seen = []

    def record(manifest, digest):
        latest = store.folder(HERE) / LATEST
        seen.append((latest.read_text().strip() == manifest["version"], digest))
        assert sha256(store.latest(HERE).path / MANIFEST) == digest

    with store.draft(HERE) as draft:
        (draft / "a").write_text("1")
        version = store.publish(HERE, draft, {}, record)
    assert seen == [(True, sha256(version.path / MANIFEST))]
    with store.draft(HERE) as draft, pytest.raises(StoreError, match=HISTORY):
        (draft / HISTORY).mkdir()
        (draft / "a").write_text("2")
        store.publish(HERE, draft, {})
