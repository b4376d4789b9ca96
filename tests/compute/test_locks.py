"""A file system without locks: one error that names the folder and the need, wherever it is met."""

from __future__ import annotations

import errno
import fcntl
import os

import duckdb
import pytest
from click.testing import CliRunner

from popcorn_assets.cli import cli
from popcorn_assets.store.versions import Address, Store
from popcorn_assets.upkeep import doctor as machine
from popcorn_ml.compute.locks import is_free
from popcorn_ml.errors import NoLocks, StoreError, Unread
from popcorn_ml.warehouse.opening import attached
from popcorn_ml.warehouse.warehouse import Warehouse

HERE = Address("population_map", "demo", 2020)


@pytest.fixture(params=[errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def without_locks(request, monkeypatch):
    """What the kernel answers on such a file system."""

    def flock(file, operation):
        raise OSError(request.param, os.strerror(request.param))

    return lambda: monkeypatch.setattr(fcntl, "flock", flock)


def publish(store: Store) -> None:
    with store.draft(HERE) as draft:
        (draft / "map.txt").write_text("1")
        store.publish(HERE, draft, {})


def test_whoever_needs_a_lock_says_where_there_is_none(tmp_path, without_locks):
    store = Store(tmp_path / "data")
    publish(store)
    Warehouse(store.warehouse).migrate()
    without_locks()
    for act in (
        lambda: publish(store),
        lambda: Warehouse(store.warehouse).query("SELECT 1"),
        lambda: is_free(store.folder(HERE) / ".publishing.lock"),
    ):
        with pytest.raises(NoLocks) as told:
            act()
        assert str(told.value.where).startswith(str(store.root))
        assert "flock" in str(told.value.expected)
        assert "POPCORN_DATA" in str(told.value.remedy)


def test_doctor_has_a_line_of_it(place, without_locks, monkeypatch):
    (before,) = machine._locks()
    assert before.ok
    without_locks()
    (after,) = machine._locks()
    assert not after.ok
    assert "no file locks" in after.what
    assert not list(place.data.glob(".lock-*"))


def test_an_audit_does_not_judge_what_it_could_not_lock(place, without_locks, monkeypatch):
    store = Store(place.data)
    publish(store)
    Warehouse(store.warehouse).migrate()
    without_locks()
    done = CliRunner().invoke(cli, ["audit", "demo", "2020", "--without-dagster"])
    assert (
        "not judged warehouse: it could not be read: the file system has no file lo" in done.output
    )
    assert "changed    warehouse" not in done.output


class Refusing:
    """A connection on which DuckDB, too, finds out that files cannot be locked."""

    def __init__(self, said: str) -> None:
        self.said = said

    def execute(self, *_) -> None:
        raise duckdb.IOException(self.said)


@pytest.mark.parametrize(
    ("said", "kind", "what"),
    [
        ('IO Error: Could not set lock on file "w": No locks available', NoLocks, "no file locks"),
        ('IO Error: Could not set lock on file "w": Conflicting lock is held in x (PID 7)', Unread,
         "another program holds"),
        ('IO Error: Cannot open file "w": Permission denied', Unread, "this user may not"),
        ('IO Error: Could not read from file "w": Input/output error', Unread, "be read now"),
    ],
)  # fmt: skip
def test_what_duckdb_could_not_open_is_not_called_damaged(tmp_path, said, kind, what):
    path = tmp_path / "w"
    path.write_text("x")
    with pytest.raises(kind, match=what), attached(Refusing(said), path, 0.0, read_only=True):
        pass


def test_an_empty_warehouse_is_told_in_words(place):
    store = Store(place.data)
    store.warehouse.touch()
    with pytest.raises(StoreError, match="file is empty") as told:
        Warehouse(store.warehouse).query("SELECT 1")
    assert not isinstance(told.value, Unread), "it was read: there is nothing in it"
    for command in ("record", "doctor"):
        done = CliRunner().invoke(cli, [command])
        assert "file is empty" in f"{done.output}{done.exception}"
        assert done.exit_code
