"""Storage: versions are whole or absent, whatever happens to their writer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest

from popcorn_assets.store.versions import (
    DAMAGED,
    HISTORY,
    LATEST,
    MANIFEST,
    Address,
    Store,
    digests,
    version_of,
)
from popcorn_ml.errors import StoreError
from tests.platforms import unlock

HERE = Address("population_map", "demo", 2020)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "data")


def publish(store, text="1", address=HERE, **manifest):
    with store.draft(address) as draft:
        (draft / "map.txt").write_text(text)
        return store.publish(address, draft, manifest)


def test_a_published_version_is_found_with_its_manifest(store):
    version = publish(store, note="made")
    found = store.latest(HERE)
    assert found == version
    assert found.path == store.root / "population_map" / "demo" / "2020" / version.version
    manifest = found.manifest()
    assert manifest["note"] == "made"
    assert manifest["files"] == digests(found.path)
    assert manifest["version"] == version_of(manifest["files"])


def test_equal_contents_are_one_version_and_keep_the_newest_manifest(store):
    first, second = publish(store, note="a"), publish(store, note="b")
    assert first.version == second.version
    assert store.latest(HERE).manifest()["note"] == "b"


def test_other_contents_are_another_version_and_the_old_one_stays(store):
    first, second = publish(store, "1"), publish(store, "2")
    assert store.latest(HERE) == second
    assert store.version(HERE, first.version).file("map.txt").read_text() == "1"


def test_nothing_is_published_when_the_writer_fails(store):
    publish(store, "old")
    with pytest.raises(RuntimeError), store.draft(HERE) as draft:
        (draft / "map.txt").write_text("half")
        raise RuntimeError
    assert store.latest(HERE).file("map.txt").read_text() == "old"
    assert not list(store.folder(HERE).glob(".draft-*"))


def test_a_damaged_version_is_replaced_by_a_good_one_of_the_same_contents(store):
    version = publish(store)
    unlock(version.path)
    version.file("map.txt").write_text("X")
    publish(store)
    assert version.file("map.txt").read_text() == "1"


@pytest.mark.parametrize("also_a_file", [False, True])
def test_a_damaged_manifest_made_again_is_set_aside(store, also_a_file):
    publish(store, note="a")
    version = publish(store, note="b")
    (earlier,) = (version.path / HISTORY).iterdir()
    unlock(version.path)
    damaged = {(version.path / MANIFEST).read_bytes()[:-5], b'["version"]'}
    for path, content in zip((version.path / MANIFEST, earlier), damaged, strict=True):
        path.write_bytes(content)
    (version.path / HISTORY / "note").write_text("not the store's")
    if also_a_file:
        version.file("map.txt").write_text("X")
    publish(store, note="c")
    publish(store, note="d")
    assert store.latest(HERE).manifest()["note"] == "d"
    kept = [json.loads(path.read_text())["note"] for path in (version.path / HISTORY).iterdir()]
    assert kept == ["c"]
    aside = store.root / DAMAGED / version.path.relative_to(store.root)
    assert {path.read_bytes() for path in aside.iterdir()} == {*damaged, b"not the store's"}


def test_a_killed_writer_leaves_nothing_that_is_read_and_its_draft_is_cleared(store):
    code = f"""
        import os, signal
        from popcorn_assets.store.versions import Address, Store
        store = Store({str(store.root)!r})
        with store.draft(Address("population_map", "demo", 2020)) as draft:
            (draft / "map.txt").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert list(store.folder(HERE).glob(".draft-*/map.txt"))
    assert store.find(HERE) is None
    with store.draft(HERE) as mine, store.draft(HERE) as beside:
        left = [p for p in store.folder(HERE).glob(".draft-*") if p.is_dir()]
        assert sorted(left) == sorted([mine, beside])  # the living keep theirs


def test_runs_of_one_partition_at_once_leave_one_whole_version(store):
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda i: publish(store, str(i % 3)), range(24)))
    latest = store.latest(HERE)
    assert latest.version in {v.version for v in made}
    for version in {v.version for v in made}:
        kept = store.version(HERE, version)
        assert digests(kept.path) == kept.manifest()["files"]


def test_missing_things_are_named(store):
    with pytest.raises(StoreError, match=r"population_map demo\|2020 has not been materialised"):
        store.latest(HERE)
    with pytest.raises(StoreError, match=r"has no file other\.txt"):
        publish(store).file("other.txt")
    (store.folder(HERE) / LATEST).write_text("0123456789abcdef\n")
    with pytest.raises(StoreError, match="names a version that is not there"):
        store.latest(HERE)


@pytest.mark.parametrize(
    "bad",
    [("../x", None, None), ("a/b", None, None), ("map", "..", 2020), ("map", "/etc", 2020),
     ("map", "demo", 12), ("map", "demo", None), ("", None, None), (".draft", None, None)],
)  # fmt: skip
def test_names_cannot_leave_the_store(bad):
    with pytest.raises(StoreError):
        Address(*bad)


@pytest.mark.parametrize("version", ["../../x", "0123", "LATEST", "0123456789abcdeg"])
def test_versions_cannot_leave_the_store(store, version):
    with pytest.raises(StoreError):
        store.version(HERE, version)


def test_an_unreadable_manifest_is_an_error(store):
    version = publish(store)
    unlock(version.path)
    (version.path / "manifest.json").write_text('{"files": ')
    with pytest.raises(StoreError, match="not readable JSON"):
        version.manifest()


def test_an_empty_version_is_refused(store):
    with store.draft(HERE) as draft, pytest.raises(StoreError, match="no file"):
        store.publish(HERE, draft, {})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_store_is_named(store):
    folder = store.folder(HERE)
    folder.mkdir(parents=True)
    folder.chmod(0o500)
    with pytest.raises(StoreError, match="cannot be written"):
        publish(store)


def test_a_store_below_a_file_is_named(tmp_path):
    (tmp_path / "data").write_text("not a folder")
    with pytest.raises(StoreError, match="cannot be written"):
        publish(Store(tmp_path / "data"))


def test_manifests_are_stable_text(store):
    version = publish(store, b=1, a="é")
    text = version.file("manifest.json").read_text("utf-8")
    assert json.loads(text)["a"] == "é"
    assert text.index('"a"') < text.index('"b"')


@pytest.mark.parametrize(("mask", "folder", "file"), [(0o022, 0o555, 0o444), (0o077, 0o500, 0o400)])
def test_a_version_is_read_only_for_those_whom_the_umask_lets_read(store, mask, folder, file):
    before = os.umask(mask)
    try:
        publish(store, note="a")
        with store.draft(HERE) as draft:
            (draft / "map.txt").write_text("1")
            (draft / "unadjusted").mkdir()
            (draft / "unadjusted" / "map.txt").write_text("2")
            version = store.publish(HERE, draft, {})
        publish(store, note="b")
        again = publish(store, note="c")
    finally:
        os.umask(before)
    for one in (version, again):
        for path in (one.path, *one.path.rglob("*")):
            assert path.stat().st_mode & 0o777 == (folder if path.is_dir() else file), path
    assert store.latest(HERE).manifest()["note"] == "c"
    assert (store.folder(HERE) / LATEST).stat().st_mode & 0o777 == 0o666 & ~mask
