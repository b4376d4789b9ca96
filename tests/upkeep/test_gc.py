"""Upkeep: nothing that a map, a model or a run needs is ever removed, whenever gc is killed."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from popcorn_assets.commands.gc import gc
from popcorn_assets.store.versions import DAMAGED, LATEST, MANIFEST, Address, Store, digests
from popcorn_assets.upkeep.inventory import versions
from popcorn_assets.upkeep.plan import DAY_S, plan
from popcorn_assets.upkeep.removal import apply
from popcorn_assets.upkeep.retention import old_runs, unfinished
from popcorn_ml.errors import StoreError
from tests.platforms import unlock

NOW = 1_800_000_000.0
PLACES = [Address("extractor"), Address("maps", "demo", 2020), Address("maps", "demo", 2021),
          Address("models", "demo", 2020), Address("models", "rwa", 2020)]  # fmt: skip


def entry(key) -> dict:
    address, version = key
    return {"asset": address.asset, "country": address.country, "year": address.year,
            "version": version}  # fmt: skip


def put(store: Store, key, inputs=(), *, age_days: float, history=(), current=True) -> Path:
    """A version as the store leaves it, made so many days before NOW."""
    address, version = key
    folder = store.folder(address)
    path = folder / version
    path.mkdir(parents=True)
    (path / "map.txt").write_text(version * 3)
    manifest = {"inputs": [entry(k) for k in inputs], "run_id": f"run {version}"}
    (path / MANIFEST).write_text(json.dumps(manifest))
    if history:
        (path / ".history").mkdir()
        earlier = {"inputs": [entry(k) for k in history], "run_id": "earlier"}
        (path / ".history" / "0.json").write_text(json.dumps(earlier))
    if current:
        (folder / LATEST).write_text(f"{version}\n")
        os.utime(folder / LATEST, (NOW - age_days * DAY_S,) * 2)
    os.utime(path / MANIFEST, (NOW - age_days * DAY_S,) * 2)
    return path


def name(number: int) -> str:
    return f"{number:016x}"


def remove(store: Store, until: int | None = None, **options) -> list:
    """Plan and apply; `until` many removals only, as if killed then."""
    done = []
    for removal, problem in apply(store, plan(store, now=NOW, **options).removals):
        done.append((removal, problem))
        if len(done) == until:
            break
    return done


def closure(graph: dict, start) -> set:
    seen, waiting = set(), list(start)
    while waiting:
        key = waiting.pop()
        if key not in seen and key in graph:
            seen.add(key)
            waiting += graph[key]
    return seen


@st.composite
def histories(draw):
    """Publications in order of time: place, inputs among the earlier ones, age in days."""
    minutes = draw(st.lists(st.integers(0, 200 * 1440), min_size=3, max_size=14, unique=True))
    ages = [age / 1440 for age in sorted(minutes, reverse=True)]
    made = []
    for number, age in enumerate(ages):
        earlier = [key for key, *_ in made]
        some = (
            st.lists(st.sampled_from(earlier), max_size=3, unique=True) if earlier else st.just([])
        )
        key = (draw(st.sampled_from(PLACES[:3])), name(number))
        made.append((key, draw(some), draw(some), age))
    return made


@settings(max_examples=60)
@given(
    histories(), st.integers(1, 2), st.floats(0, 40), st.sets(st.integers(0, 13), max_size=2),
    st.none() | st.integers(0, 6), st.none() | st.floats(0, 60),
)  # fmt: skip
def test_nothing_reachable_is_ever_removed(made, keep, older_than, named, until, running_since):
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "data")
        graph = {}
        for key, inputs, history, age in made:
            put(store, key, inputs, age_days=age, history=history)
            graph[key] = [*inputs, *history]
        ledger = {made[n % len(made)][0] for n in named}
        current = {(a, store.latest(a).version) for a in {key[0] for key in graph}}
        superseded = {}  # when the next one of its place was made
        for index, (key, *_) in enumerate(made):
            later = [age for other, _, _, age in made[index + 1 :] if other[0] == key[0]]
            superseded[key] = later[0] if later else None
        safe = max(older_than, running_since or 0)
        young = {key for key, age in superseded.items() if age is not None and age < safe}
        newest = {
            key for place in PLACES for key in [k for k, *_ in made if k[0] == place][::-1][:keep]
        }
        wanted = closure(graph, current | ledger | young | newest)

        options = {
            "keep": keep,
            "older_than_days": older_than,
            "ledger": ledger,
            "in_use_since": None if running_since is None else NOW - running_since * DAY_S,
        }
        before = plan(store, now=NOW, **options)
        assert sum(count for count, _ in before.stays.values()) >= len(wanted)
        remove(store, until, **options)

        left = {version.key for version in versions(store)}
        assert wanted <= left
        for address, version in left:
            path = store.folder(address) / version
            assert (path / "map.txt").read_text() == version * 3
            assert set(graph[address, version]) <= left, "a version was left without its inputs"
        assert {(a, store.latest(a).version) for a in {key[0] for key in graph}} == current
        remove(store, **options)
        edge = {
            key for key, age in superseded.items() if age is not None and abs(age - safe) < 1e-6
        }
        assert {version.key for version in versions(store)} <= wanted | closure(graph, edge)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "data")


def test_what_is_removed_is_told_with_its_size_and_why(store):
    old, new = (PLACES[1], name(1)), (PLACES[1], name(2))
    put(store, old, age_days=100)
    put(store, new, age_days=60)
    planned = plan(store, now=NOW)
    (removal,) = planned.removals
    assert str(removal).startswith(f"version maps demo|2020 {name(1)}, ")
    assert "superseded 60 days ago" in str(removal)
    assert planned.size == removal.size > 48
    assert list(planned.stays) == ["current"]
    assert store.version(*old)  # planning removes nothing
    remove(store)
    with pytest.raises(StoreError):
        store.version(*old)
    assert store.latest(PLACES[1]).version == name(2)
    assert sorted(p.name for p in store.folder(PLACES[1]).iterdir()) == [
        ".publishing.lock", name(2), LATEST
    ]  # fmt: skip


def test_a_version_published_again_meanwhile_stays_with_all_it_was_made_from(store):
    source, old, new = (PLACES[0], name(1)), (PLACES[1], name(2)), (PLACES[1], name(3))
    put(store, source, age_days=100)
    put(store, old, [source], age_days=90)
    put(store, new, age_days=80)
    put(store, (PLACES[0], name(4)), age_days=80)
    planned = plan(store, now=NOW)
    assert [r.version.version for r in planned.removals] == [name(2), name(1)]
    (store.folder(PLACES[1]) / LATEST).write_text(f"{name(2)}\n")
    told = [problem for _, problem in apply(store, planned.removals)]
    assert told == ["it has become the current version", "a version that stayed needs it"]
    assert {v.key for v in versions(store)} == {source, old, new, (PLACES[0], name(4))}


def test_a_place_where_a_run_publishes_is_left_alone(store):
    put(store, (PLACES[1], name(1)), age_days=100)
    put(store, (PLACES[1], name(2)), age_days=80)
    with open(store.folder(PLACES[1]) / ".publishing.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert [problem for _, problem in remove(store)] == ["a run is publishing there"]
    assert [problem for _, problem in remove(store)] == [None]


def test_nothing_is_removed_when_something_kept_cannot_say_what_it_needs(store):
    put(store, (PLACES[0], name(1)), age_days=100)
    put(store, (PLACES[0], name(2)), age_days=90)
    path = put(store, (PLACES[1], name(3)), [(PLACES[0], name(1))], age_days=90)
    assert plan(store, now=NOW).removals == []
    (path / MANIFEST).write_text('{"inp')
    with pytest.raises(StoreError, match="nothing was removed"):
        plan(store, now=NOW)
    shutil.rmtree(path)
    with pytest.raises(StoreError, match="names a version that is not there"):
        plan(store, now=NOW)


def test_versions_that_lost_their_latest_stay_with_all_they_were_made_from(store):
    first, second, lost, older = ((PLACES[0], name(1)), (PLACES[0], name(2)), (PLACES[1], name(3)),
                                  (PLACES[1], name(4)))  # fmt: skip
    put(store, first, age_days=100)
    put(store, second, age_days=90)
    put(store, older, age_days=99, current=False)
    put(store, lost, [first], age_days=95, current=False)
    planned = plan(store, now=NOW)
    assert planned.removals == []
    assert "LATEST of maps demo|2020 is gone: materialise it again" in planned.stays
    remove(store)
    assert {version.key for version in versions(store)} == {first, second, lost, older}
    (store.folder(PLACES[1]) / LATEST).write_text(f"{name(3)}\n")
    planned = plan(store, now=NOW)
    assert [removal.version.version for removal in planned.removals] == [name(4)]
    (store.folder(PLACES[1]) / LATEST).unlink()
    ((_, problem),) = apply(store, planned.removals)
    assert problem == "its partition has lost its LATEST"


def test_a_version_that_is_needed_and_lost_its_manifest_stops_everything(store):
    source, needed = (PLACES[0], name(1)), (PLACES[2], name(3))
    put(store, source, age_days=100)
    put(store, (PLACES[0], name(2)), age_days=90)
    path = put(store, needed, [source], age_days=95)
    put(store, (PLACES[2], name(4)), age_days=90)
    put(store, (PLACES[1], name(5)), [needed], age_days=90)
    assert plan(store, now=NOW).removals == []
    (path / MANIFEST).unlink()
    with pytest.raises(StoreError, match="does not say what it was made from") as stopped:
        plan(store, now=NOW)
    assert stopped.value.found == f"none that can be read, and maps demo|2020 {name(5)} names it"
    assert "move the version's folder out of the store" in stopped.value.remedy
    path.rename(store.root.parent / "aside")
    assert [r.version.version for r in plan(store, now=NOW).removals] == [name(1)]


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_superseded_manifest_that_nobody_needs_stops_nothing(store, damage):
    lost, current = (PLACES[2], name(1)), (PLACES[2], name(2))
    path = put(store, lost, age_days=20)
    put(store, current, age_days=10)
    old, newest = (PLACES[1], name(3)), (PLACES[1], name(4))
    for key, age in ((old, 100), (newest, 90)):
        put(store, key, age_days=age)
    if damage == "gone":
        (path / MANIFEST).unlink()
    else:
        (path / MANIFEST).write_text('{"inp')
    for again in (None, name(5)):  # also after the partition was materialised again
        if again:
            put(store, (PLACES[2], again), age_days=1)
        planned = plan(store, now=NOW)
        assert [r.version.version for r in planned.removals] == [old[1]]
        (told,) = [reason for reason in planned.stays if "no readable manifest" in reason]
        assert told == (
            f"too young, or in use by a run; maps demo|2021 {name(1)} has no readable manifest, "
            "and nothing stays for it"
        )
    remove(store)
    assert (path / "map.txt").read_text() == name(1) * 3


def test_a_manifest_of_a_promoted_version_or_without_a_latest_is_required(store):
    lost, current = (PLACES[3], name(1)), (PLACES[3], name(2))
    path = put(store, lost, age_days=20)
    put(store, current, age_days=10)
    (path / MANIFEST).unlink()
    assert plan(store, now=NOW).removals == []
    with pytest.raises(StoreError, match="does not say") as stopped:
        plan(store, now=NOW, ledger={lost})
    assert stopped.value.found == "none that can be read, and a promotion names it"
    (store.folder(PLACES[3]) / LATEST).unlink()
    with pytest.raises(StoreError, match="does not say") as stopped:
        plan(store, now=NOW)
    again = "restore the manifest from a backup, or materialise models demo|2020 again"
    assert stopped.value.remedy == again
    put(store, (PLACES[3], name(3)), age_days=1)
    assert plan(store, now=NOW).removals == []
    damaged = store.folder(PLACES[3]) / name(3) / MANIFEST
    damaged.write_text("{")
    os.utime(damaged, (NOW - DAY_S,) * 2)
    with pytest.raises(StoreError, match="does not say") as stopped:
        plan(store, now=NOW)
    assert stopped.value.remedy == again
    put(store, (PLACES[3], name(4)), age_days=0)
    assert plan(store, now=NOW).removals == []


def test_a_version_that_cannot_be_read_takes_no_other_s_place(store):
    for number, age in ((1, 100), (2, 90), (3, 80)):
        put(store, (PLACES[1], name(number)), age_days=age)
    path = store.folder(PLACES[1]) / name(2)
    (path / MANIFEST).write_text("{")
    os.utime(path / MANIFEST, (NOW - 85 * DAY_S,) * 2)
    assert [r.version.version for r in plan(store, now=NOW, keep=2).removals] == [name(2)]


@pytest.mark.parametrize("damage", ["cut", "filed with the earlier ones"])
def test_a_damaged_manifest_is_made_good_by_making_the_version_again(store, damage):
    def make() -> Path:
        with store.draft(PLACES[1]) as draft:
            (draft / "map.txt").write_text("1")
            return store.publish(PLACES[1], draft, {"inputs": [], "run_id": "r"}).path

    path = make()
    whole = (path / MANIFEST).read_text()
    unlock(path)
    if damage == "cut":
        (path / MANIFEST).write_text(whole[:-40])
        with pytest.raises(StoreError, match="does not say what it was made from"):
            plan(store)
        make()
    else:
        (path / ".history").mkdir()
        (path / ".history" / f"{'0' * 64}.json").write_text(whole[:-40])
    assert plan(store).removals == []
    make()
    assert [kept.read_text() for kept in path.glob(".history/*")] == [whole]


def test_what_the_store_itself_publishes_is_understood(store):
    for text in ("1", "2"):
        with store.draft(PLACES[1]) as draft:
            (draft / "map.txt").write_text(text)
            store.publish(PLACES[1], draft, {"inputs": [], "run_id": "r"})
    soon = time.time() + 31 * DAY_S
    assert plan(store).removals == []
    (removal,) = plan(store, now=soon).removals
    kept = store.latest(PLACES[1])
    list(apply(store, plan(store, now=soon).removals))
    assert not removal.path.exists()
    assert digests(kept.path) == kept.manifest()["files"]


def test_left_overs_go_and_work_under_way_stays(store):
    place = PLACES[1]
    put(store, (place, name(1)), age_days=0)
    folder, work = store.folder(place), store.root / ".work"
    writing = store.draft(place)
    mine = writing.__enter__()
    for path in (folder / ".draft-gone" / "map.tif", folder / f".{LATEST}.x1y2",
                 work / "maps" / "demo" / "2020" / name(7) / "state",
                 work / "maps" / "demo" / "2020" / name(8) / "state",
                 work / "extractor" / name(9) / "state", work / "extractor" / f"{name(6)}.lock",
                 work / "steps" / "done" / "a.json", work / "steps" / "going" / "a.json",
                 work / "devices" / "0.lock"):  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
        for touched in (path, path.parent):
            os.utime(touched, (NOW - 40 * DAY_S,) * 2)
    busy = work / "maps" / "demo" / "2020" / f"{name(8)}.member_1.lock"
    with open(busy, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.utime(busy, (NOW - 40 * DAY_S,) * 2)
        done = remove(store, unfinished_runs={"going"})
        assert all(problem is None for _, problem in done)
    assert sorted(removal.kind for removal, _ in done) == [
        "draft", "half-written", "lock", "steps", "work", "work"
    ]  # fmt: skip
    assert mine.is_dir()
    assert not (folder / ".draft-gone").exists()
    left = sorted(p.relative_to(work).as_posix() for p in work.rglob("*") if p.is_file())
    assert left == [
        "devices/0.lock", f"maps/demo/2020/{name(8)}.member_1.lock",
        f"maps/demo/2020/{name(8)}/state", "steps/going/a.json",
    ]  # fmt: skip
    writing.__exit__(None, None, None)


def test_damaged_manifests_that_were_set_aside_go_when_they_are_old(store):
    paths = [put(store, (place, name(1)), age_days=100) / MANIFEST for place in PLACES[:2]]
    for path, days in zip(paths, (40, 20), strict=True):
        store.set_aside(path)
        (aside,) = (store.root / DAMAGED / path.parent.relative_to(store.root)).iterdir()
        os.utime(aside, (NOW - days * DAY_S,) * 2)
    ((removal, problem),) = remove(store)
    assert problem is None
    assert str(removal).startswith("damaged ")
    (left,) = (path for path in (store.root / DAMAGED).rglob("*") if path.is_file())
    assert left == aside


def test_what_a_killed_reproduction_left_goes_after_a_day(store):
    work = store.root / ".work"
    old, young, busy = (work / "reproduce" / f"remade-{name}" for name in ("old", "young", "busy"))
    seen = work / "cluster" / ".seen-1f"
    for path in (old / "maps" / "a.tif", young / "a.tif", busy / "a.tif", seen):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    locks = [folder.with_name(f"{folder.name}.lock") for folder in (old, busy)]
    for lock in locks:
        lock.touch()
    for path in (seen, *work.glob("reproduce/**/*"), *locks):
        days = 0.5 if path.is_relative_to(young) else 1.5
        os.utime(path, (NOW - days * DAY_S,) * 2)
    with open(locks[1]) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = remove(store)
    assert sorted(removal.kind for removal, _ in done) == ["half-written", "work"]
    assert all(problem is None for _, problem in done)
    left = {path.name for path in (work / "reproduce").iterdir()}
    assert left == {"remade-young", "remade-busy", "remade-busy.lock"}
    assert not seen.exists()


def test_gc_killed_while_it_deletes_leaves_whole_versions(tmp_path):
    """Killed at the first deletion, second, ...; then run to its end."""
    for kills in range(1, 4):
        store = Store(tmp_path / f"data{kills}")
        for number in range(1, 5):
            put(store, (PLACES[1], name(number)), age_days=100 - number)
        code = f"""
            import os, shutil, signal
            from popcorn_assets.store.versions import Store
            from popcorn_assets.upkeep.plan import plan
            from popcorn_assets.upkeep.removal import apply
            real, left = shutil.rmtree, [{kills}]
            def killed(path, *args, **kwargs):
                if ".draft-" in str(path):
                    left[0] -= 1
                    if left[0] == 0:
                        os.unlink(os.path.join(path, "map.txt"))
                        os.kill(os.getpid(), signal.SIGKILL)
                real(path, *args, **kwargs)
            shutil.rmtree = killed
            store = Store({str(store.root)!r})
            list(apply(store, plan(store, now={NOW}).removals))
        """
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
        assert done.returncode == -9
        for version in versions(store):
            assert (version.path / "map.txt").read_text() == version.version * 3
        assert len(versions(store)) == 4 - kills
        remove(store)
        assert [v.version for v in versions(store)] == [name(4)]
        assert not list(store.root.rglob(".draft-*"))


# Dagster's records --------------------------------------------------------------------------------


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["a", "b"]))
def thing():
    print("said")
    return dg.MaterializeResult()


@dg.asset
def broken():
    raise RuntimeError("no")


@dg.job
def nothing():
    pass


def make(instance, asset=thing, partition: str | None = "a") -> str:
    result = dg.materialize(
        [asset], instance=instance, partition_key=partition, raise_on_error=False
    )
    return result.run_id


def test_runs_that_are_the_record_of_something_kept_stay(place):
    later = time.time() + 400 * DAY_S
    with dg.DagsterInstance.get() as instance:
        superseded, current, other = make(instance), make(instance), make(instance, partition="b")
        maker, failed = make(instance), make(instance, broken, None)
        again = make(instance)
        store = Store(place.data)
        path = put(store, (PLACES[1], name(1)), age_days=0)
        (path / MANIFEST).write_text(json.dumps({"inputs": [], "run_id": maker}))
        kept = versions(store)
        assert old_runs(instance, kept, 365) == []
        going = {run.run_id for run in old_runs(instance, kept, 365, now=later)}
        assert going == {superseded, current, failed}
        assert again not in going
        assert other not in going
        waiting = instance.create_run_for_job(nothing)
        assert unfinished(instance).runs == {waiting.run_id}
        assert unfinished(instance).since == pytest.approx(time.time(), abs=60)


def test_the_command_tells_first_and_deletes_when_asked(place):
    store = Store(place.data)
    old = put(store, (PLACES[1], name(1)), age_days=0)
    put(store, (PLACES[1], name(2)), age_days=0)
    long_ago = time.time() - 90 * DAY_S
    os.utime(old / MANIFEST, (long_ago - 5,) * 2)
    for path in (store.folder(PLACES[1]) / LATEST, store.folder(PLACES[1]) / name(2) / MANIFEST):
        os.utime(path, (long_ago,) * 2)
    with dg.DagsterInstance.get() as instance:
        first, last = make(instance), make(instance)
        shard = Path(instance.event_log_storage.path_for_shard(first))
        assert shard.exists()
        logs = place.data / "dagster" / "compute_logs" / first
        assert logs.is_dir()

    told = CliRunner().invoke(gc, ["--runs-older-than", "0"], catch_exceptions=False)
    assert told.exit_code == 0
    assert f"would remove version maps demo|2020 {name(1)}" in told.output
    assert f"would delete the record of run {first[:8]}" in told.output
    assert "Nothing was removed" in told.output
    assert old.exists()

    done = CliRunner().invoke(gc, ["--apply", "--runs-older-than", "0"], catch_exceptions=False)
    assert done.exit_code == 0
    assert f"removed version maps demo|2020 {name(1)}" in done.output
    assert not old.exists()
    assert not shard.exists()
    assert not logs.exists()
    with dg.DagsterInstance.get() as instance:
        assert [run.run_id for run in instance.get_runs()] == [last]
        assert instance.get_materialized_partitions(dg.AssetKey("thing")) == {"a"}
        assert instance.all_logs(first) == []
    again = CliRunner().invoke(gc, [], catch_exceptions=False)
    assert again.output.splitlines()[-1].startswith("0 things, 0 bytes, and the records of 0 runs")
