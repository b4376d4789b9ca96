"""Parts of a store behind links to another disk: what is read there is kept, or nothing goes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from popcorn_assets.commands.gc import gc
from popcorn_assets.store.versions import LATEST, Address, Store
from popcorn_assets.upkeep.doctor import examine
from popcorn_assets.upkeep.inventory import linked_folders, versions
from popcorn_assets.upkeep.plan import plan
from popcorn_assets.upkeep.removal import apply
from popcorn_ml.errors import StoreError

SCENES, MAPS = Address("scenes", "demo", 2020), Address("maps", "demo", 2020)
LEVELS = ("scenes", "scenes/demo", "scenes/demo/2020")


@pytest.fixture
def store(tmp_path) -> Store:
    """A current map from superseded scenes, scenes nobody needs, and newer scenes."""
    store = Store(tmp_path / "data")
    needless, needed, newer = (publish(store, SCENES, text) for text in ("a", "b", "c"))
    publish(store, MAPS, "map", [(SCENES, needed)])
    for age, version in ((60, needless), (50, needed), (40, newer)):
        manifest = store.version(SCENES, version).path / "manifest.json"
        old = manifest.stat().st_mtime - age * 86_400
        os.utime(manifest, (old, old))
    return store


def publish(store: Store, address: Address, text: str, inputs=()) -> str:
    named = [
        {"asset": a.asset, "country": a.country, "year": a.year, "version": v} for a, v in inputs
    ]
    with store.draft(address) as draft:
        (draft / "file.txt").write_text(text)
        return store.publish(address, draft, {"inputs": named}).version


def move_away(store: Store, place: str) -> Path:
    """Move a folder of the store to another disk and leave a link."""
    here, there = store.root / place, store.root.parent / "disk2" / place
    there.parent.mkdir(parents=True)
    shutil.move(here, there)
    here.symlink_to(there, target_is_directory=True)
    return there


def remove_all(store: Store) -> dict[str, str | None]:
    planned = plan(store, older_than_days=1).removals
    return {removal.path.name: problem for removal, problem in apply(store, planned)}


@pytest.mark.parametrize("place", [*LEVELS, "maps", "maps/demo/2020"])
def test_what_a_map_rests_on_stays_whichever_folder_is_a_link(store, place):
    there = {version.version: version.path.name for version in versions(store)}
    assert len(there) == 4
    move_away(store, place)
    assert {version.version for version in versions(store)} == set(there)
    (gone,) = remove_all(store).items()
    kept = {version.version for version in versions(store)}
    assert set(there) - kept == {gone[0]}
    assert gone[1] is None
    (named,) = store.latest(MAPS).manifest()["inputs"]
    assert named["version"] in kept
    assert store.version(SCENES, named["version"]).file("file.txt").read_text() == "b"


@pytest.mark.parametrize("place", LEVELS)
def test_a_disk_that_is_not_mounted_keeps_everything(store, place):
    there = move_away(store, place)
    there.rename(there.with_name("unmounted"))
    with pytest.raises(StoreError, match="leads nowhere; nothing was removed") as told:
        plan(store, older_than_days=0)
    assert str(there) in str(told.value)


def test_two_names_of_one_folder_keep_everything(store):
    (store.root / "scenes" / "alias").symlink_to(store.root / "scenes" / "demo")
    with pytest.raises(StoreError, match="one and the same folder"):
        plan(store, older_than_days=0)


def test_a_version_behind_a_link_keeps_everything(store):
    version = store.latest(MAPS).path
    publish(store, MAPS, "newer map")
    move_away(store, str(version.relative_to(store.root)))
    with pytest.raises(StoreError, match="folder is a link"):
        plan(store, older_than_days=0)


def test_a_folder_of_another_store_is_not_swept(store, tmp_path):
    other = Store(tmp_path / "other")
    publish(other, Address("shared", "demo", 2020), "of both")
    (other.root / "warehouse.duckdb").touch()
    (store.root / "shared").symlink_to(other.root / "shared")
    with pytest.raises(StoreError, match="lies in another store"):
        plan(store, older_than_days=0)
    assert [v.address.asset for v in versions(other)] == ["shared"]


def test_work_on_another_disk_stays_and_is_no_traceback(store):
    work = store.root / ".work" / "steps" / "run-1"
    work.mkdir(parents=True)
    (work / "value.json").write_text("1")
    for path in (work, work / "value.json"):
        os.utime(path, (0, 0))
    link = store.root / ".work" / "scenes"
    elsewhere = store.root.parent / "scratch" / "demo" / "2020" / ("0" * 16)
    elsewhere.mkdir(parents=True)
    link.symlink_to(store.root.parent / "scratch")
    os.utime(elsewhere, (0, 0))
    gone = remove_all(store)
    assert gone["run-1"] is None
    assert elsewhere.is_dir()


def test_the_command_says_why_in_words(place):
    store = Store(place.data)
    publish(store, SCENES, "a")
    move_away(store, "scenes")
    done = CliRunner().invoke(gc, ["--apply"])
    assert done.exit_code == 0, done.output
    assert (place.data / "scenes" / "demo" / "2020" / LATEST).is_file()
    assert [path.name for path in linked_folders(store)] == ["scenes"]
    shutil.rmtree(place.home / "disk2")
    done = CliRunner().invoke(gc, ["--apply"])
    assert isinstance(done.exception, StoreError)
    assert any("leads nowhere" in finding.what for finding in examine() if not finding.ok)
