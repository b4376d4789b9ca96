"""Writers of the store and of the warehouse killed many times, with a reader looking on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from popcorn_assets.store.versions import Address, Store, digests, version_of
from popcorn_ml.errors import StoreError

pytestmark = pytest.mark.long(20)

HERE = Address("population_map", "demo", 2020)
KILLS = 40


def write_versions(root: Path, start: int = 0) -> None:
    """Publish one version after another, some of contents that are there already."""
    store, count = Store(root), start
    while True:
        count += 1
        with store.draft(HERE) as draft:
            for name in ("a.bin", "deep/b.bin"):
                (draft / name).parent.mkdir(exist_ok=True)
                (draft / name).write_bytes(f"{name} {count % 7}".encode() * 3000)
            store.publish(HERE, draft, {"count": count})


@contextmanager
def writing(work: Callable[[], None]) -> Iterator[int]:
    """A forked process at work; killed with SIGKILL when the block ends."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(1)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, "the writer ended by itself"


def read_whole(store: Store) -> str | None:
    """The current version as a reader sees it, file by file."""
    version = store.find(HERE)
    if version is None:
        return None
    files = digests(version.path)
    assert version_of(files) == version.version
    assert version.file("a.bin").stat().st_size == version.file("deep/b.bin").stat().st_size - 15000
    assert version.manifest()["version"] == version.version
    return version.version


def test_a_reader_never_sees_half_a_version(tmp_path):
    chance, store, seen = random.Random(4), Store(tmp_path), set()
    with writing(lambda: write_versions(tmp_path)):
        began = time.monotonic()
        while len(seen) < 3 and time.monotonic() < began + 60:
            seen.add(read_whole(store))
        pace = (time.monotonic() - began) / 3  # what this machine needs for a version, busy or not
    for kill in range(KILLS):
        # Each begins with other contents: a busy disk may allow a writer one version and no more.
        with writing(lambda start=kill: write_versions(tmp_path, start)):
            until = time.monotonic() + chance.uniform(0, 3 * pace)
            while time.monotonic() < until:
                seen.add(read_whole(store))
        seen.add(read_whole(store))
        folder = store.folder(HERE)
        whole = [p for p in folder.glob("[0-9a-f]*") if p.is_dir()] if folder.is_dir() else []
        for path in whole:
            found = store.version(HERE, path.name)
            assert found.manifest()["files"] == digests(path)
    assert len(seen) >= 3
    after = {read_whole(store)}
    with writing(lambda: write_versions(tmp_path)):  # what the killed left holds nobody up
        began = time.monotonic()
        while len(after) < 2 and time.monotonic() < began + 60:
            after.add(read_whole(store))
    assert len(after - {None}) == 2
    with store.draft(HERE) as draft:  # clears what the killed have left
        (draft / "a.bin").write_text("x")
        assert [p for p in folder.glob(".draft-*") if p.is_dir()] == [draft]


WAREHOUSE = """
import os, signal, sys, time, random
from popcorn_ml.warehouse.warehouse import Warehouse
from popcorn_ml.errors import StoreError
from tests.warehouse.rows import publish

path, kills = sys.argv[1], int(sys.argv[2])

def rows(n):
    return [{"product": "map", "level": f"l{i}", "metric": f"m{n}", "value": float(n)}
            for i in range(200)]

def work():
    warehouse, n = Warehouse(path), 0
    while True:
        n += 1
        publish(warehouse, "evaluation", "demo", 2020, rows(n))

def look():
    found = Warehouse(path, timeout_s=20).query(
        "SELECT count(*), count(DISTINCT metric), count(DISTINCT value) FROM evaluation"
    )
    assert found in ([(200, 1, 1)], [(0, 0, 0)]), found

def written():
    current = Warehouse(path).query("SELECT row_count FROM rows_of_versions")
    assert current == [(200,)], current

def child(target):
    pid = os.fork()
    if pid == 0:
        code = 3
        try:
            target()
            code = 0
        except BaseException as error:
            print(repr(error), flush=True)
        os._exit(code)
    return pid

def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

import duckdb, pandas, pyarrow  # loaded once; nothing of them is started here
chance = random.Random(4)
for kill in range(kills):
    writer = child(work)
    time.sleep(chance.uniform(0.02, 0.7))
    os.kill(writer, signal.SIGKILL)
    assert ended(writer) == -signal.SIGKILL
    assert ended(child(look)) == 0, f"after kill {kill}"
assert ended(child(written)) == 0, "no writer came as far as a first publication"
print("WHOLE")
"""


@pytest.mark.timeout(600)
def test_the_warehouse_holds_all_rows_or_none_after_every_kill(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WAREHOUSE), str(tmp_path / "w.duckdb"), "25"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "WHOLE" in done.stdout, done.stdout + done.stderr


def test_a_reader_of_nothing(tmp_path):
    assert read_whole(Store(tmp_path)) is None
    with pytest.raises(StoreError):
        Store(tmp_path).latest(HERE)


def test_what_a_killed_writer_left_is_not_published(tmp_path):
    """A draft beside a member's weights made another version of the same checkpoints."""
    from popcorn_assets.assets.training import copy_member

    out = tmp_path / "out"
    out.mkdir()
    (out / "card.json").write_text("{}")
    (out / ".card.ka7fu3dq.json").write_text("{")
    copy_member(out, tmp_path / "copy")
    assert [p.name for p in (tmp_path / "copy").iterdir()] == ["card.json"]
    store = Store(tmp_path / "data")
    with store.draft(HERE) as draft:
        copy_member(out, draft / "member_1")
        (draft / "member_1" / ".card.x.json").write_text("{")
        with pytest.raises(StoreError, match="hidden file"):
            store.publish(HERE, draft, {})
        (draft / "member_1" / ".card.x.json").unlink()
        assert list(digests(store.publish(HERE, draft, {}).path)) == ["member_1/card.json"]
