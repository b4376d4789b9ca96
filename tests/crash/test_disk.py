"""A disk that is full or read-only: one clear error, nothing half-published, and then it goes on.

The disks are small tmpfs file systems, mounted for the test; where that is not allowed (it takes
root), the tests are skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from popcorn_assets.store.versions import LATEST, Address, Store
from popcorn_ml import raster
from popcorn_ml.errors import StoreError
from popcorn_ml.files import write_bytes
from popcorn_ml.grid import Grid
from popcorn_ml.imagery.build import build_season
from popcorn_ml.imagery.settings import ImagerySettings
from popcorn_ml.raster import CogWriter
from popcorn_ml.simulate.country import write_country
from popcorn_ml.simulate.spec import CountrySpec
from popcorn_ml.warehouse.warehouse import Warehouse
from tests.crash.soak import versions
from tests.warehouse.rows import publish as publish_rows

HERE = Address("population_map", "demo", 2020)
GRID = Grid("EPSG:32736", 312300.0, 9755700.0, 10.0, 300, 300)


class Disk:
    """A file system of its own, of a few megabytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def leave(self, size: int) -> None:
        """Fill it up to so many bytes."""
        self.empty()
        with open(self.folder / "filler", "wb") as out:
            out.write(b"\0" * max(shutil.disk_usage(self.folder).free - size, 0))

    def empty(self) -> None:
        (self.folder / "filler").unlink(missing_ok=True)

    def remount(self, how: str) -> None:
        """`ro` or `rw`."""
        subprocess.run(["mount", "-o", f"remount,{how}", str(self.folder)], check=True)


@pytest.fixture
def disk(tmp_path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mounting, capture_output=True).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def noise(seed: int) -> np.ndarray:
    """A raster that does not compress."""
    return np.random.default_rng(seed).random((1, 300, 300)).astype(np.float32)


@pytest.mark.parametrize("left", [0, 5_000, 100_000, *range(500_000, 1_300_000, 40_000)])
def test_a_raster_is_whole_or_an_error(disk, left):
    """GDAL closes a file that lacks its end without a word when the last bytes find no room."""
    path, failed = disk.folder / "map.tif", None
    disk.leave(left)
    try:
        with CogWriter(path, GRID, ("a",), "float32", float("nan")) as out:
            out.write(noise(1))
    except StoreError as error:
        failed = error
    if failed is None:
        assert left > 600_000
        np.testing.assert_array_equal(raster.read(path), noise(1))
    else:
        assert failed.what == "the disk is full"
        assert failed.where == path
        assert sorted(p.name for p in disk.folder.iterdir()) == ["filler"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Scenes of a very small country, on the usual disk."""
    spec = CountrySpec(width=100, height=100, coarse_units=4, fine_units_each=2, seed=5)
    return write_country(tmp_path_factory.mktemp("scenes"), spec, [2020]), spec.grid


@pytest.mark.parametrize("left", [0, 60_000, 150_000, 250_000])
def test_a_composite_on_a_full_disk(disk, scenes, left):
    """What was fetched is kept; with room, the same composite comes out."""
    made, grid = scenes
    settings = ImagerySettings.parse(
        {"source": "stac", "stac": {"profile": "local", "items": str(made.items)}, "tile_px": 64}
    )

    def build(out: Path) -> list[str]:
        build_season("s2", "spring", 2020, grid, settings, out, disk.folder / "work")
        return sorted(p.name for p in out.iterdir())

    disk.leave(left)
    with pytest.raises(StoreError, match="the disk is full") as failure:
        build(disk.folder / "out")
    assert str(disk.folder) in str(failure.value.where)
    assert not list((disk.folder / "out").glob("*.tif"))
    disk.empty()
    assert build(disk.folder / "out") == ["clear_count.tif", "composite.tif"]
    raster.check(disk.folder / "out" / "composite.tif", grid, count=4, readable=True)


def publish(store: Store, content: bytes, **options) -> str:
    from popcorn_ml.files import naming_the_disk

    with naming_the_disk(store.folder(HERE)), store.draft(HERE) as draft:
        (draft / "map.bin").write_bytes(content)
        return store.publish(HERE, draft, {"recipe": "x"}, **options).version


@pytest.mark.parametrize("left", [0, 4096, 8192, 20_000, 104_000, 110_000])
def test_publishing_on_a_full_disk(disk, left):
    store = Store(disk.folder / "data")
    before = publish(store, b"before")
    disk.leave(left)
    with pytest.raises(StoreError, match="the disk is full") as failure:
        publish(store, os.urandom(120_000))
    assert str(store.root) in str(failure.value.where)
    disk.empty()
    assert store.latest(HERE).version == before
    assert versions(store.root) == {str(HERE): before}
    assert not [p for p in store.root.rglob(".draft-*") if p.is_dir()]
    after = publish(store, b"after")
    assert versions(store.root) == {str(HERE): after}


def test_latest_on_a_full_disk(disk, monkeypatch):
    """The version is there, and the disk is full when LATEST is to be replaced."""
    import popcorn_assets.store.versions as module

    store = Store(disk.folder / "data")
    before = publish(store, b"before")
    write = module.write_bytes

    def write_on_a_full_disk(path: Path, content: bytes) -> None:
        if Path(path).name == LATEST:
            disk.leave(0)
        write(path, content)

    monkeypatch.setattr(module, "write_bytes", write_on_a_full_disk)
    with pytest.raises(StoreError, match="the disk is full"):
        publish(store, b"after")
    disk.empty()
    assert store.latest(HERE).version == before
    monkeypatch.setattr(module, "write_bytes", write)
    assert publish(store, b"after") == store.latest(HERE).version != before


def rows(count: int, text: str) -> list[dict]:
    return [
        {"product": "map", "level": f"l{i}", "metric": text, "value": float(i)}
        for i in range(count)
    ]


@pytest.mark.parametrize("left", [0, 4096, 100_000])
def test_the_warehouse_on_a_full_disk(disk, left):
    warehouse = Warehouse(disk.folder / "warehouse.duckdb", timeout_s=5)
    publish_rows(warehouse, "evaluation", "demo", 2020, rows(10, "before"))
    disk.leave(left)
    with pytest.raises(StoreError, match="the disk is full") as failure:
        publish_rows(warehouse, "evaluation", "demo", 2020, rows(20_000, os.urandom(40).hex()))
    assert failure.value.where == warehouse.path
    asked = "SELECT count(*), min(metric), max(metric) FROM evaluation"
    assert warehouse.query(asked) == [(10, "before", "before")]  # readable while it is full
    disk.empty()
    publish_rows(warehouse, "evaluation", "demo", 2020, rows(5, "after"))
    assert warehouse.query(asked) == [(5, "after", "after")]


def test_a_training_state_on_a_full_disk(disk, tmp_path):
    """The run stops at the epoch whose state finds no room, and goes on from the one before."""
    from popcorn_ml.training.fit import train_member
    from popcorn_ml.training.loop import STATE_FILE
    from tests.training.places import block_units, write_place

    place = write_place(tmp_path / "place", block_units(96, 96, 2, 2))
    plain = train_member(place.spec("plain", epochs=3))
    spec = place.spec("full", epochs=3, work=str(disk.folder / "state"))
    state = disk.folder / "state" / STATE_FILE

    def fill(done: int, total: int, metrics: dict) -> None:
        if done == 1:
            disk.leave(2000)

    with pytest.raises(StoreError, match="the disk is full") as failure:
        train_member(spec, fill)
    assert failure.value.where == state
    assert [p.name for p in state.parent.iterdir()] == [STATE_FILE]  # of the first epoch, whole
    disk.empty()
    done = []
    resumed = train_member(spec, lambda n, total, metrics: done.append(n))
    assert done == [2, 3]
    assert (resumed.folder / "occupancy.safetensors").read_bytes() == (
        plain.folder / "occupancy.safetensors"
    ).read_bytes()


def test_a_read_only_store(disk):
    store = Store(disk.folder / "data")
    warehouse = Warehouse(disk.folder / "warehouse.duckdb", timeout_s=2)
    before = publish(store, b"before")
    publish_rows(warehouse, "evaluation", "demo", 2020, rows(3, "before"))
    disk.remount("ro")
    try:
        with pytest.raises(StoreError, match=r"cannot be written|read-only"):
            publish(store, b"after")
        with pytest.raises(StoreError, match="the disk is read-only"):
            write_bytes(disk.folder / "x", b"x")
        with pytest.raises(StoreError, match="the disk is read-only") as failure:
            publish_rows(warehouse, "evaluation", "demo", 2020, rows(3, "after"))
        assert failure.value.where == warehouse.path
        with pytest.raises(StoreError, match="the disk is read-only"):
            raster.write(disk.folder / "map.tif", noise(1), GRID, ("a",), 0.0)
        assert store.latest(HERE).file("map.bin").read_bytes() == b"before"
    finally:
        disk.remount("rw")
    assert publish(store, b"after") != before
    publish_rows(warehouse, "evaluation", "demo", 2020, rows(3, "after"))
