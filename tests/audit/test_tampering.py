"""Whatever is altered in the store, the warehouse or Dagster's records, the audit says so."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from popcorn_assets.audit.findings import Verdict
from popcorn_assets.audit.impact import impact
from popcorn_assets.audit.judge import Report, audit, size_and_digest
from popcorn_assets.audit.recorded import DagsterRecords, Materialised
from popcorn_assets.partitions import partition_key
from popcorn_assets.show import MANIFEST_SHA256
from popcorn_assets.store.versions import HISTORY, LATEST, MANIFEST, Address, Store
from popcorn_ml.errors import StoreError
from popcorn_ml.sentinel import SEASONS
from popcorn_ml.simulate.country import ITEMS
from popcorn_ml.warehouse.schema import TABLES, VIEWS
from tests.platforms import enter

pytestmark = pytest.mark.long(30)

COUNTRY, YEARS = "demo", (2020, 2021)

Tampering = tuple[str, Callable]
"""What is done, and a context manager that does and undoes it."""


class Remembered(DagsterRecords):
    """Dagster's records, asked once: only the tests that alter them ask anew."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        super().__init__(instance)
        self.kept: dict = {}

    def newest(self, address: Address) -> Materialised | None:
        if address not in self.kept:
            self.kept[address] = super().newest(address)
        return self.kept[address]

    def there(self, country: str, year: int) -> list[Address]:
        if (country, year) not in self.kept:
            self.kept[country, year] = super().there(country, year)
        return self.kept[country, year]


class Scene:
    """The store under attack, and its audit with digests kept of files that nobody touched."""

    def __init__(self, data: Path, instance: dg.DagsterInstance) -> None:
        self.store = Store(data)
        self.instance = instance
        self.dagster: DagsterRecords = Remembered(instance)
        self._digests: dict[tuple, tuple[int, str]] = {}
        self.hashed = 0

    def hasher(self, path: Path) -> tuple[int, str]:
        """Nobody sets a file's change time: with that and the rest the same, so is the file."""
        now = path.stat()
        key = (path, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)
        if key not in self._digests:
            self.hashed += 1
            self._digests[key] = size_and_digest(path)
        return self._digests[key]

    def audit(self, year: int = 2021) -> Report:
        return audit(
            self.store, COUNTRY, year, dagster=self.dagster, repository=None, hasher=self.hasher
        )


@pytest.fixture(scope="module")
def scene(copied) -> Iterator[Scene]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        enter(copied, monkeypatch)  # the instance's folders are named from here
        with copied.instance() as instance:
            yield Scene(copied.data, instance)


def wrong(report: Report) -> list[str]:
    return [f"{n.address if n else ''} {f}" for n, f in report.findings() if f.verdict.wrong]


def test_an_untouched_store_gives_no_finding(scene):
    for year in YEARS:
        report = scene.audit(year)
        assert wrong(report) == []
        assert {f.verdict for _, f in report.findings()} <= {Verdict.FOREIGN_CODE}
        assert report.passed()
        assert not report.passed(strict=True), "no repository was given"
        assert len(report.trail.nodes) > 15
        assert report.files > 100


# Ways of tampering --------------------------------------------------------------------------------


@contextmanager
def written(path: Path, content: bytes | None) -> Iterator[None]:
    """A file with other contents, or without a file, for as long as the block runs."""
    kept = path.read_bytes() if path.exists() else None
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    try:
        yield
    finally:
        if kept is None:
            path.unlink()
        else:
            path.write_bytes(kept)


def flipped(path: Path, rng: random.Random) -> bytes:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content)


def files_of(store: Store, year: int) -> list[Path]:
    """Every file of the partition's versions, and the files from outside of them."""
    found = []
    for latest in sorted(store.root.glob(f"*/{COUNTRY}/{year}/{LATEST}")):
        version = latest.parent / latest.read_text().strip()
        found += [path for path in sorted(version.rglob("*")) if path.is_file()]
    found += [p for p in sorted((store.root / "builtup_extractor").rglob("*")) if p.is_file()
              and not p.name.startswith(".")]  # fmt: skip
    return found


def outside_of(store: Store, year: int) -> list[Path]:
    found: set[Path] = set()
    for manifest in store.root.glob(f"*/{COUNTRY}/{year}/*/{MANIFEST}"):
        said = json.loads(manifest.read_text())
        entries = [*said["sources"], *said["facts"].get("scene_files", ())]
        found |= {store.root / entry["path"] for entry in entries}
    return sorted(path for path in found if path.is_relative_to(store.root))


def byte_in_a_file(scene: Scene, rng: random.Random, year: int) -> Tampering:
    path = rng.choice(files_of(scene.store, year))
    return f"a bit of {path.name}", lambda: written(path, flipped(path, rng))


def byte_outside(scene: Scene, rng: random.Random, year: int) -> Tampering:
    path = rng.choice(outside_of(scene.store, year))
    if path.name == ITEMS:
        return item_outside(scene, rng, year)
    return f"a bit of {path}", lambda: written(path, flipped(path, rng))


def item_outside(scene: Scene, rng: random.Random, year: int) -> Tampering:
    """An item of the catalogue that the year was made from; others may change, with a warning."""
    path = scene.store.root / "demo" / ITEMS
    season = Address(rng.choice(["s1_", "s2_"]) + rng.choice(SEASONS), COUNTRY, year)
    used = rng.choice(scene.store.latest(season).manifest()["facts"]["scenes"])["id"]
    catalogue = json.loads(path.read_bytes())
    (item,) = [one for one in catalogue["features"] if one["id"] == used]
    key = rng.choice(sorted(item["properties"]))
    del item["properties"][key]
    content = json.dumps(catalogue).encode()
    return f"{key} of {used}", lambda: written(path, content)


def file_removed(scene: Scene, rng: random.Random, year: int) -> Tampering:
    path = rng.choice(files_of(scene.store, year) + outside_of(scene.store, year))
    return f"{path} removed", lambda: written(path, None)


def file_added(scene: Scene, rng: random.Random, year: int) -> Tampering:
    beside = rng.choice(files_of(scene.store, year))
    name = rng.choice(["extra.tif", ".hidden", "deeper/extra.json", "population.tif.aux.xml"])
    return f"{beside.parent}/{name} added", lambda: written(beside.parent / name, b"more")


def file_truncated(scene: Scene, rng: random.Random, year: int) -> Tampering:
    path = rng.choice(files_of(scene.store, year))
    content = path.read_bytes()
    return f"{path} cut short", lambda: written(path, content[: rng.randrange(len(content))])


def manifest_edited(scene: Scene, rng: random.Random, year: int) -> Tampering:
    path = rng.choice([p for p in files_of(scene.store, year) if p.name == MANIFEST])
    said = json.loads(path.read_text())
    place, key = said, rng.choice(sorted(said))
    while isinstance(place[key], dict | list) and place[key] and rng.random() < 0.7:
        place = place[key]
        key = rng.choice(sorted(place)) if isinstance(place, dict) else rng.randrange(len(place))
    if rng.random() < 0.3:
        del place[key]
        what = "without"
    else:
        place[key] = {
            bool: lambda v: not v, int: lambda v: v + 1, float: lambda v: v * 1.01,
            str: lambda v: v + "0", list: lambda v: [*v, v[-1] if v else "x"],
            dict: lambda v: {**v, "added": 1}, type(None): lambda v: 1,
        }[type(place[key])](place[key])  # fmt: skip
        what = "with another"
    content = json.dumps(said, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"
    return f"{path} {what} {key}", lambda: written(path, content)


@contextmanager
def exchanged(one: Path, other: Path) -> Iterator[None]:
    aside = one.with_name(".exchanged")

    def exchange() -> None:
        os.rename(one, aside)
        os.rename(other, one)
        os.rename(aside, other)

    exchange()
    try:
        yield
    finally:
        exchange()


def versions_exchanged(scene: Scene, rng: random.Random, year: int) -> Tampering:
    """Two versions of an asset change places: of another year, or of another asset."""
    roots = sorted(scene.store.root.glob(f"*/{COUNTRY}/{year}/{LATEST}"))
    one, other = rng.sample(roots, 2)
    if rng.random() < 0.5:
        beside = 2020 + 2021 - year
        other = Path(str(one).replace(f"/{year}/", f"/{beside}/"))
        if not other.exists():
            other = rng.choice([root for root in roots if root != one])
    folders = [path.parent / path.read_text().strip() for path in (one, other)]
    return f"{folders[0]} and {folders[1]} exchanged", lambda: exchanged(*folders)


@contextmanager
def renamed(old: Path, new: Path) -> Iterator[None]:
    os.rename(old, new)
    try:
        yield
    finally:
        os.rename(new, old)


def version_renamed(scene: Scene, rng: random.Random, year: int) -> Tampering:
    latest = rng.choice(sorted(scene.store.root.glob(f"*/{COUNTRY}/{year}/{LATEST}")))
    old = latest.parent / latest.read_text().strip()
    new = old.with_name(f"{rng.getrandbits(64):016x}")
    if rng.random() < 0.5:
        return f"{old} renamed", lambda: renamed(old, new)

    @contextmanager
    def both() -> Iterator[None]:
        with renamed(old, new), written(latest, f"{new.name}\n".encode()):
            yield

    return f"{old} renamed, and {LATEST} with it", both


def version_copied(scene: Scene, rng: random.Random, year: int) -> Tampering:
    latest = rng.choice(sorted(scene.store.root.glob(f"*/{COUNTRY}/{year}/{LATEST}")))
    old = latest.parent / latest.read_text().strip()
    new = old.with_name(f"{rng.getrandbits(64):016x}")

    @contextmanager
    def copied() -> Iterator[None]:
        shutil.copytree(old, new)
        try:
            yield
        finally:
            shutil.rmtree(new)

    return f"{old} copied", copied


def latest_elsewhere(scene: Scene, rng: random.Random, year: int) -> Tampering:
    latest = rng.choice(sorted(scene.store.root.glob(f"*/{COUNTRY}/{year}/{LATEST}")))
    if rng.random() < 0.3:
        return f"{latest} removed", lambda: written(latest, None)
    other = rng.choice([p for p in scene.store.root.glob(f"*/{COUNTRY}/*/{LATEST}") if p != latest])
    content = rng.choice([other.read_bytes(), b"0" * 16 + b"\n", b"", flipped(latest, rng)])
    return f"{latest} says {content!r}", lambda: written(latest, content)


def earlier_manifest(scene: Scene, rng: random.Random, year: int) -> Tampering:
    """A manifest made up as an earlier one of the same contents."""
    path = rng.choice([p for p in files_of(scene.store, year) if p.name == MANIFEST])
    import hashlib

    said = {**json.loads(path.read_text()), "run_id": f"{rng.getrandbits(64):x}"}
    content = json.dumps(said).encode()
    digest = hashlib.sha256(content).hexdigest()
    target = path.parent / HISTORY / f"{digest}.json"
    return f"{target} made up", lambda: written(target, content)


@contextmanager
def sql(warehouse: Path, *statements: tuple[str, list]) -> Iterator[None]:
    kept = warehouse.read_bytes()
    with duckdb.connect(str(warehouse)) as connection:
        for statement, values in statements:
            connection.execute(statement, values)
    try:
        yield
    finally:
        warehouse.write_bytes(kept)
        warehouse.with_name(f"{warehouse.name}.wal").unlink(missing_ok=True)


def row_altered(scene: Scene, rng: random.Random, year: int) -> Tampering:
    """A row of any table changed in one column, taken out, or there twice."""
    warehouse = scene.store.warehouse
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        tables = []
        for table in [table for table in TABLES if table != "received"]:
            of = "country = 'demo' AND year = ?" if table != "builtup_extractor" else "true"
            n = connection.execute(f"SELECT count(*) FROM {table} WHERE {of}", [year]).fetchone()[0]
            tables += [table] if n else []
        table = rng.choice(tables)
        rows = connection.execute(
            f"SELECT rowid FROM {table} WHERE country = 'demo' AND year = ?", [year]
        ).fetchall()
        (row,) = rng.choice(sorted(rows))
        columns = connection.execute(f"DESCRIBE {table}").fetchall()
    what = rng.choice(["change", "change", "remove", "add"])
    if what == "remove":
        statement = f"DELETE FROM {table} WHERE rowid = ?"
        return f"{table} without row {row}", lambda: sql(warehouse, (statement, [row]))
    # A key cannot be there twice: an added row differs in one.
    name, kind = rng.choice(
        [(c[0], c[1]) for c in columns if what == "change" or c[1] == "VARCHAR"]
    )
    if (what, table) in {("change", "map_change"), ("change", "map_intervals")}:
        # Quantiles out of their order are refused by the table itself.
        name, kind = ("p97_5", "DOUBLE") if name in ("p2_5", "p10", "p90") else (name, kind)
    if what == "add":
        keys = ["unit_id", "file", "metric", "manifest_sha256", "scene", "name", "input_version"]
        name = next(key for key in keys if key in {c[0] for c in columns})
    new = {
        "VARCHAR": f"concat({name}, 'x')", "INTEGER": f"coalesce({name}, 0) + 1000",
        "BIGINT": f"coalesce({name}, 0) + 1", "DOUBLE": f"coalesce({name}, 0) + 1e-9",
        "BOOLEAN": f"NOT coalesce({name}, false)", "BLOB": f"{name} || '\\x00'::BLOB",
    }[kind] if what == "change" else f"concat({name}, 'x')"  # fmt: skip
    if (table, name, what) == ("counts", "kind", "change"):
        new = "CASE kind WHEN 'census' THEN 'estimate' ELSE 'census' END"
    if (table, name, what) == ("map_intervals", "product", "change"):
        new = "CASE product WHEN 'map' THEN 'adjusted' ELSE 'map' END"
    if what == "change":
        statement = f"UPDATE {table} SET {name} = {new} WHERE rowid = ?"
    else:
        statement = (
            f"INSERT INTO {table} SELECT * REPLACE ({new} AS {name}) FROM {table} WHERE rowid = ?"
        )
    return f"{what} {table}.{name} of row {row}", lambda: sql(warehouse, (statement, [row]))


def view_altered(scene: Scene, rng: random.Random, year: int) -> Tampering:
    """A view that leaves rows out, or is gone; or a macro in the place of a function."""
    warehouse, view = scene.store.warehouse, rng.choice(VIEWS)
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        (said,) = connection.execute(
            "SELECT sql FROM duckdb_views() WHERE view_name = ?", [view]
        ).fetchone()
    body = said.partition(" AS ")[2].rstrip("; \n")
    statement = rng.choice([
        f"CREATE OR REPLACE VIEW {view} AS SELECT * FROM ({body}) WHERE country <> 'demo'",
        f"DROP VIEW {view}",
        "CREATE MACRO length(x) AS 0",
    ])  # fmt: skip
    return statement, lambda: sql(warehouse, (statement, []))


def ledger_edited(scene: Scene, rng: random.Random, year: int) -> Tampering:
    path = scene.store.root / "deployments" / f"{COUNTRY}.json"
    said = json.loads(path.read_text())
    entry = rng.choice(said["entries"])
    key = rng.choice(["version", "reason", "who", "forced", "removed"])
    if key == "removed":
        said["entries"].remove(entry)
    elif key == "version":
        entry["model"]["version"] = f"{rng.getrandbits(64):016x}"
    elif key == "forced":
        entry["forced"] = not entry["forced"]
    else:
        entry[key] += " "
    return f"the ledger's {key}", lambda: written(path, json.dumps(said, indent=1).encode())


def dagster_says_otherwise(scene: Scene, rng: random.Random, year: int) -> Tampering:
    """A later materialisation in Dagster's records that nobody published."""
    latest = rng.choice(sorted(scene.store.root.glob(f"*/{COUNTRY}/{year}/{LATEST}")))
    asset, version = latest.parents[2].name, latest.read_text().strip()
    address = Address(asset, COUNTRY, year)
    told = scene.dagster.newest(address)
    assert told is not None
    other = rng.random() < 0.5

    def event(version: str, digest: str) -> dg.AssetMaterialization:
        return dg.AssetMaterialization(
            asset,
            partition=partition_key(COUNTRY, year),
            tags={"dagster/data_version": version},
            metadata={MANIFEST_SHA256: digest},
        )

    @contextmanager
    def done() -> Iterator[None]:
        fake = event("0" * 16 if other else version, "0" * 64)
        scene.instance.report_runless_asset_event(fake)
        kept, scene.dagster = scene.dagster, DagsterRecords(scene.instance)
        try:
            yield
        finally:
            scene.instance.report_runless_asset_event(event(version, told.manifest_sha256))
            scene.dagster = kept

    return f"Dagster says otherwise of {address}", done


WAYS: dict[Callable, int] = {
    byte_in_a_file: 40, byte_outside: 15, file_removed: 15, file_added: 10, file_truncated: 10,
    manifest_edited: 40, versions_exchanged: 10, version_renamed: 10, version_copied: 5,
    latest_elsewhere: 20, earlier_manifest: 5, row_altered: 40, ledger_edited: 5,
    dagster_says_otherwise: 5, item_outside: 5, view_altered: 5,
}  # fmt: skip


def test_impact_does_not_answer_from_altered_views(scene):
    scenes = scene.store.latest(Address("s2_summer", COUNTRY, 2021)).manifest()["facts"]["scenes"]
    thing = scenes[0]["id"]
    assert impact(scene.store, thing)
    statement = "CREATE OR REPLACE VIEW made_with_scene AS SELECT * FROM versions WHERE false"
    with (
        sql(scene.store.warehouse, (statement, [])),
        pytest.raises(StoreError, match="definitions were altered"),
    ):
        impact(scene.store, thing)


def test_every_tampering_is_found(scene):
    rng = random.Random(20_201_231)
    missed, done = [], Counter()
    for way, times in WAYS.items():
        for _ in range(times):
            year = rng.choice(YEARS)
            told, tamper = way(scene, rng, year)
            with tamper():
                report = scene.audit(year)
                if report.passed():
                    missed.append(f"{year}: {told}")
            done[way.__name__] += 1
    assert missed == []
    assert sum(done.values()) >= 200
    for year in YEARS:
        assert wrong(scene.audit(year)) == [], "a tampering was not undone"
