"""Manifests: what an asset's version was made from, by what, when; written by every asset.

`Making` is one materialisation under way. It resolves and notes the inputs, decides whether what
is in the store is current, lets the asset's function write into a draft, publishes it with its
manifest, records it with its rows in the warehouse, and turns the manifest into what Dagster
shows. The *recipe* is a hash of everything the
contents depend on (inputs by version, source files by digest, parameters, code version): equal
recipes give equal contents.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

import dagster as dg

import popcorn_ml
from popcorn_assets.partitions import country_and_year
from popcorn_assets.show import PICTURE, as_check_result, as_metadata
from popcorn_assets.store.versions import MANIFEST, Address, Store, Version, sha256
from popcorn_ml.errors import StoreError
from popcorn_ml.files import naming_the_disk

REUSE_TAG = "popcorn/reuse"
"""A run with this tag takes what is current from the store instead of making it again."""

SCHEMA = 2
"""Of the manifests that this code writes."""

COMPANIONS = (".dbf", ".shx", ".prj", ".cpg", ".sbn", ".sbx", ".qix", ".shp.xml")
"""Files that belong to a shapefile."""

PACKAGE_MARK = "package:"
"""What the path of a file that comes with the package begins with in a manifest."""
_PACKAGE = Path(popcorn_ml.__file__).parents[1]

COMMIT_VARIABLE = "POPCORN_COMMIT"
"""Environment variable with the commit that an installation without `.git` was made from, as
`git describe --always --dirty --abbrev=40 --exclude '*'` writes it: `-dirty` where files differed.
"""
_COMMIT = re.compile("([0-9a-f]{40}|[0-9a-f]{64})(-dirty)?")

PROGRESS_SECONDS = 5.0

_LIBRARIES = ("dagster", "torch", "numpy", "scipy", "rasterio", "pyproj", "duckdb", "geopandas")


@dataclass
class Outcome:
    """What an asset's function has to say of what it wrote.

    Attributes:
        shown: title -> number, text, list or table row; shown in the UI, in this order.
        facts: kept in the manifest only, for instance the scenes used.
        checks: verdicts on what was written: objects with name, passed, severity ("error" or
            "warn") and message, and optionally rows (offending ones) or metadata.
        tables: warehouse table -> the partition's rows, written there when the version is the
            current one.
    """

    shown: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    checks: Iterable[Any] = ()
    tables: Mapping[str, Any] = field(default_factory=dict)


class Making:
    """One materialisation of one asset.

    Attributes:
        country, year: of the partition; empty and 0 for an unpartitioned asset.
        reuse: whether a current version may be taken from the store; the run's tag says so.
    """

    def __init__(
        self,
        context: dg.OpExecutionContext | dg.AssetExecutionContext,
        store: Store,
        asset: str,
        *,
        code_version: str,
        partitioned: bool = True,
    ) -> None:
        self.context, self.store, self.code_version = context, store, code_version
        self.country, self.year = country_and_year(context) if partitioned else ("", 0)
        self.address = Address(asset, self.country, self.year) if partitioned else Address(asset)
        self.reuse = context.run.tags.get(REUSE_TAG) == "true"
        self.started = datetime.now(UTC)
        self.inputs: list[dict[str, Any]] = []
        self.sources: list[dict[str, Any]] = []
        self.parameters: dict[str, Any] = {}
        self._locks = ExitStack()
        self._work: Path | None = None

    def input(
        self,
        asset: str,
        *,
        country: str | None = None,
        year: int | None = None,
        partitioned: bool = True,
        files: Iterable[str] | None = None,
        version: str | None = None,
    ) -> Version:
        """The current version of an upstream asset, noted as an input.

        Args:
            country, year: another partition than this one.
            partitioned: False for an asset without partitions.
            files: the only files that matter; others may change without making this stale.
            version: a given version instead of the current one.

        Raises:
            StoreError: there is none, or it failed a check that blocks.
        """
        address = (
            Address(asset, country or self.country, year or self.year)
            if partitioned
            else Address(asset)
        )
        found = self.store.version(address, version) if version else self.store.latest(address)
        failed = failed_checks(found)
        if failed:
            raise StoreError(
                f"{address} did not pass its checks",
                where=found.path,
                expected="every check that blocks to pass",
                found="; ".join(f"{check['name']}: {check['message']}" for check in failed)[:2000],
                remedy=f"put right what they name and materialise {address} again",
            )
        entry: dict[str, Any] = {
            "asset": asset,
            "country": address.country,
            "year": address.year,
            "version": found.version,
        }
        if files is not None:
            entry["files"] = {name: sha256(found.file(name)) for name in sorted(files)}
        if entry not in self.inputs:
            self.inputs.append(entry)
        return found

    def input_of(self, made: Version, asset: str) -> Version:
        """The version of `asset` that `made` was made from, noted as an input.

        What belongs together is read together, even when a newer version lies beside it.
        """
        for entry in made.manifest()["inputs"]:
            if entry["asset"] == asset and entry["country"] == made.address.country:
                return self.input(asset, version=entry["version"])
        raise StoreError(f"{made.address} was not made from {asset}", where=made.path)

    def source(self, path: str | Path) -> Path:
        """A file from outside the store, noted with its digest; a shapefile with its companions.

        Raises:
            StoreError: it is not there.
        """
        path = Path(path)
        if not path.is_file():
            raise StoreError(
                f"{self.address} needs a file that is missing",
                where=path,
                remedy="put it there, or correct its path in the country's file",
            )
        beside = [path.with_suffix(suffix) for suffix in COMPANIONS] if _is_shapefile(path) else []
        for one in (path, *(p for p in beside if p.is_file())):
            entry = self.outside(one)
            if entry not in self.sources:
                self.sources.append(entry)
        return path

    def outside(self, path: Path) -> dict[str, Any]:
        """Path, size and digest of a file from outside.

        The path is from the store's root if below, and from the package if a part of it: both
        may lie elsewhere another day.
        """
        root, name = self.store.root, str(path)
        if path.is_relative_to(root):
            name = path.relative_to(root).as_posix()
        elif path.is_relative_to(_PACKAGE):
            name = PACKAGE_MARK + path.relative_to(_PACKAGE).as_posix()
        return {"path": name, "size": path.stat().st_size, "sha256": sha256(path)}

    def parameter(self, **values: Any) -> None:
        """Note settings that the contents depend on, as plain values."""
        self.parameters.update(values)

    def noted(self) -> dict[str, Any]:
        """Inputs, sources, parameters and code as plain values, for a later step of the graph."""
        return {
            "inputs": self.inputs,
            "sources": self.sources,
            "parameters": self.parameters,
            "code_version": self.code_version,
        }

    def restore(self, noted: dict[str, Any]) -> None:
        """Take over what an earlier step noted: what was planned is what is published.

        Raises:
            StoreError: as `same_code`.
        """
        same_code(noted, self.code_version)
        self.inputs, self.sources = noted["inputs"], noted["sources"]
        self.parameters = noted["parameters"]

    def work(self) -> Path:
        """A folder for half-done work of exactly this recipe, which a later run resumes."""
        return self.store.work(self.address, self.recipe())

    def lone_work(self) -> Path:
        """As `work`, to this run alone until `publish` ends; another run's is waited for.

        Raises:
            StoreError: another run, which is named, still works on it after a while.
        """
        if self._work is None:
            working = self.store.working(
                self.address,
                self.recipe(),
                f"run {self.context.run_id}",
                waiting=lambda other: self.context.log.warning(
                    f"{other} works on {self.address}: waiting until it has ended"
                ),
            )
            self._work = self._locks.enter_context(working)
        return self._work

    def progress(self, unit: str) -> Callable[[int, int], None]:
        """A callback that logs "done of total" at the start, the end and every few seconds."""
        state = {"last": -PROGRESS_SECONDS}

        def report(done: int, total: int) -> None:
            now = time.monotonic()
            if total <= 1:
                return
            if done >= total or now - state["last"] >= PROGRESS_SECONDS:
                state["last"] = now
                self.context.log.info(f"{done} of {total} {unit}")

        return report

    def recipe(self) -> str:
        """Hash of everything the contents depend on."""
        inputs = [
            {**entry, "version": None} if "files" in entry else entry for entry in self.inputs
        ]
        sources = sorted([_name(s["path"]), s["sha256"]] for s in self.sources)
        text = json.dumps(
            [str(self.address), inputs, sources, self.parameters, self.code_version],
            sort_keys=True,
        )
        return hashlib.sha256(text.encode()).hexdigest()

    def current(self) -> Version | None:
        """The stored version, if this run may reuse it and it was made by the same recipe."""
        if not self.reuse:
            return None
        try:
            found = self.store.find(self.address)
            if found is None or found.manifest().get("schema") != SCHEMA:
                return None
            if found.manifest().get("recipe") != self.recipe():
                return None
            if failed_checks(found):  # to be judged anew
                return None
            for name, entry in found.manifest()["files"].items():
                if found.file(name).stat().st_size != entry["size"]:
                    return None
            if not self._rows_held(found) or self._altered(found):
                return None
        except (StoreError, KeyError, TypeError, AttributeError):  # the manifest is damaged
            return None
        return found

    def publish(self, make: Callable[[Path], Outcome]) -> dg.MaterializeResult:
        """Run `make` on a draft folder and publish what it wrote, or reuse what is current.

        Inputs, sources and parameters are all noted before.

        Args:
            make: writes files into the folder it is given and says what it wrote.
        """
        version = self.publish_version(make)
        return dg.MaterializeResult(
            metadata=self.metadata(version),
            data_version=dg.DataVersion(version.version),
            check_results=[as_check_result(check) for check in version.manifest()["checks"]],
        )

    def publish_version(self, make: Callable[[Path], Outcome]) -> Version:
        """As `publish`, for graph-backed assets that yield their own output."""
        found = self.current()
        if found is not None:
            self._record_if_missing(found)
            self.context.log.info(f"{self.address} is current: version {found.version} reused")
            return found
        with (
            naming_the_disk(self.store.folder(self.address)),
            self._locks,
            self.store.draft(self.address) as draft,
        ):
            outcome = make(draft)
            rows, told = self._prepared(outcome)
            manifest = self._manifest(outcome, told)

            def record(whole: dict[str, Any], manifest_sha256: str) -> None:
                self._record(whole, manifest_sha256, rows)

            version = self.store.publish(self.address, draft, manifest, record)
        self.context.log.info(f"{self.address} published as {version.version}")
        return version

    def _warehouse(self) -> Any:
        from popcorn_ml.warehouse import Warehouse

        return Warehouse(self.store.warehouse)

    def _prepared(self, outcome: Outcome) -> tuple[dict[str, Any], dict[str, Any]]:
        """Rows as the warehouse will take them, and what the manifest says of them.

        Tried against the tables' rules here, before anything is published.
        """
        from popcorn_ml.warehouse_rows import prepared

        rows, told = {}, {}
        for table, given in outcome.tables.items():
            rows[table], told[table] = prepared(
                table,
                given,
                asset=self.address.asset,
                country=self.address.country or "",
                year=self.address.year or 0,
            )
        return rows, told

    def _rows_held(self, found: Version) -> bool:
        """Whether the warehouse holds the rows that belong to a version, if it has any."""
        tables = found.manifest()["tables"]
        if not tables:
            return True
        address, warehouse = found.address, self._warehouse()
        return (
            warehouse.records(found.manifest(), sha256(found.path / MANIFEST))
            and warehouse.digests(address.asset, address.country, address.year, tables) == tables
        )

    def _altered(self, found: Version) -> bool:
        """Whether a version's manifest has taken the place of one that the warehouse knows."""
        warehouse, address = self._warehouse(), found.address
        if warehouse.records(found.manifest(), sha256(found.path / MANIFEST)):
            return False
        known = warehouse.manifests_of(address.asset, address.country, address.year)
        there = {sha256(path) for _, path in self.store.manifests(address)}
        return any(v == found.version and told not in there for told, v in known.items())

    def _record_if_missing(self, found: Version) -> None:
        """Record the lineage of a version whose run was killed before it could.

        Only a version without rows comes here unrecorded: others are made again.
        """
        manifest, digest = found.manifest(), sha256(found.path / MANIFEST)
        if not self._warehouse().records(manifest, digest):
            self._record(manifest, digest, {})

    def _record(self, manifest: dict[str, Any], digest: str, rows: dict[str, Any]) -> None:
        """Record a version as the current one, and earlier ones whose runs died before they could.

        An earlier manifest of the partition that the warehouse does not know was whole when it
        was written: only the record of it is missing. But where one that the warehouse knows is
        gone, this is what became of it: it is set aside, now that the contents are made again.
        """
        warehouse = self._warehouse()
        known = warehouse.manifests_of(self.address.asset, manifest["country"], manifest["year"])
        there: dict[str, dict[str, Path]] = defaultdict(dict)
        for version, path in self.store.manifests(self.address):
            there[version][sha256(path)] = path
        earlier: dict[str, Any] = {}
        lost: set[str] = set()
        for version, paths in there.items():
            gone = {told for told, of in known.items() if of == version} - paths.keys()
            unknown = {t: p for t, p in paths.items() if t != digest and t not in known}
            if version == manifest["version"]:
                lost = gone
            if not gone:
                earlier |= _readable(unknown, version)
            elif version == manifest["version"]:
                for told, path in unknown.items():
                    self.store.set_aside(path)
                    self.context.log.warning(f"manifest {told} of {version} was not as recorded")
        warehouse.record_publication(manifest, digest, rows, earlier, lost)

    def metadata(self, version: Version) -> dict[str, Any]:
        """What the UI shows of a version."""
        manifest = version.manifest()
        picture = version.path / PICTURE
        return as_metadata(
            picture.read_bytes() if picture.is_file() else None,
            dict(manifest["shown"]),
            path=version.path,
            version=version.version,
            manifest_sha256=sha256(version.path / MANIFEST),
            reused=manifest["run_id"] != self.context.run_id,
        )

    def _manifest(self, outcome: Outcome, tables: dict[str, Any]) -> dict[str, Any]:
        manifest = {
            "schema": SCHEMA,
            "asset": self.address.asset,
            "country": self.address.country,
            "year": self.address.year,
            "recipe": self.recipe(),
            "inputs": self.inputs,
            "sources": self.sources,
            "parameters": self.parameters,
            "shown": [list(item) for item in outcome.shown.items()],  # in the order to show
            "checks": [_plain_check(check) for check in outcome.checks],
            "facts": outcome.facts,
            "tables": tables,
            "code": {
                "version": self.code_version,
                "parts": code_parts(self.code_version),
                **code_state(),
            },
            "libraries": library_versions(),
            "run_id": self.context.run_id,
            "started": self.started.isoformat(),
            "finished": datetime.now(UTC).isoformat(),
        }
        return _finite(manifest)


def same_code(noted: Mapping[str, Any], code_version: str) -> None:
    """Make sure that a step goes on with what was planned by the same code.

    Args:
        noted: as `Making.noted` gave it.

    Raises:
        StoreError: the code was changed since; what was made so far is of the other code.
    """
    planned = noted.get("code_version")
    if planned != code_version:
        raise StoreError(
            "this was planned by other code",
            expected=f"code version {code_version}",
            found=planned or "none: an older installation planned it",
            remedy="start a new run of this partition, instead of executing this one again",
        )


def _readable(manifests: Mapping[str, Path], version: str) -> dict[str, Any]:
    """Digest -> manifest, of those that this code can record; the audit tells of the others."""
    readable = {}
    for told, path in manifests.items():
        try:
            found = json.loads(path.read_text("utf-8"))
            if found["schema"] == SCHEMA and found["version"] == version:
                readable[told] = found
        except (ValueError, KeyError, TypeError):
            continue
    return readable


def place_of_source(root: Path, path: str) -> Path:
    """Where a file from outside lies that a manifest names so.

    Args:
        root: the store's.
    """
    if path.startswith(PACKAGE_MARK):
        return _PACKAGE / path.removeprefix(PACKAGE_MARK)
    return root / path


def kept_source(root: Path, path: str, digest: str) -> Path | None:
    """Where the inbox keeps a census file that a later one has taken the place of.

    Args:
        root: the store's.
        path: as the manifest has it.
        digest: sha256 of the file meant; the one kept there still has to be compared with it.
    """
    from popcorn_ml.census.inbox import HISTORY

    parts = PurePosixPath(path).parts
    if len(parts) < 3 or parts[0] != "census" or ".." in parts:
        return None
    kept = root.joinpath("census", parts[1], HISTORY, str(digest)[:16], *parts[2:])
    return kept if kept.is_file() else None


def _name(path: str) -> str:
    """A source's name that does not depend on where the store is."""
    return Path(path).name if Path(path).is_absolute() else path


def _is_shapefile(path: Path) -> bool:
    return path.suffix.lower() == ".shp"


def failed_checks(version: Version) -> list[dict[str, Any]]:
    """Verdicts of a version that block whatever would be made from it."""
    checks = version.manifest()["checks"]
    return [c for c in checks if not c["passed"] and c["severity"] == "error"]


def _finite(value: Any) -> Any:
    """The same without NaN and infinity, which JSON has not."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain_check(check: Any) -> dict[str, Any]:
    return {
        "name": check.name,
        "passed": bool(check.passed),
        "severity": check.severity,
        "message": check.message,
        "rows": [dict(row) for row in getattr(check, "rows", ())],
        "metadata": dict(getattr(check, "metadata", {})),
    }


@cache
def code_digest(*parts: str) -> str:
    """What an asset's code version is: a hash of the science it calls.

    Args:
        parts: packages of popcorn_ml; the modules that every stage shares always count.
    """
    science = Path(popcorn_ml.__file__).parent
    names = [path.relative_to(science).as_posix() for path in science.rglob("*.py")]
    digest = digest_of_code(parts, names, lambda name: (science / name).read_bytes())
    _parts[digest] = sorted(parts)
    return digest


def digest_of_code(parts: Iterable[str], names: Iterable[str], read: Callable[[str], bytes]) -> str:
    """The code version that packages of popcorn_ml make, wherever their files are read from.

    Args:
        parts: the packages.
        names: every Python file below popcorn_ml, relative to it.
        read: a file's contents by its name.
    """
    digest = hashlib.sha256()
    paths = sorted(map(PurePosixPath, names))
    for part in ("", *sorted(parts)):
        for path in paths:
            if len(path.parts) == 1 if not part else path.is_relative_to(part):
                digest.update(path.as_posix().encode() + read(path.as_posix()))
    return digest.hexdigest()[:12]


_parts: dict[str, list[str]] = {}


def code_parts(digest: str) -> list[str] | None:
    """The packages that a code version of this process was computed over; None if of another."""
    return _parts.get(digest)


@cache
def library_versions() -> dict[str, str]:
    """Versions of the libraries that results depend on."""
    return {name: metadata.version(name) for name in _LIBRARIES}


@cache
def code_state() -> dict[str, Any]:
    """Version of the package, the commit it is of, and whether files differ from that.

    The checkout says so; outside of one, what COMMIT_VARIABLE says, where it names a commit.
    """
    state: dict[str, Any] = {"package": metadata.version("popcorn-assets"), "commit": None}
    root = Path(__file__).resolve().parents[2]
    told = os.environ.get(COMMIT_VARIABLE, "").strip()
    if (root / ".git").exists():
        commit = git(root, "rev-parse", "HEAD")
        status = git(root, "status", "--porcelain", "--untracked-files=no")
        if commit is not None:  # without git, the package's version has to do
            state["commit"] = commit.decode().strip()
        if status is not None:
            state["modified"] = bool(status.strip())
    elif named := _COMMIT.fullmatch(told):
        state["commit"], state["modified"] = named[1], named[2] is not None
    return state


def git(root: Path, *arguments: str, given: bytes | None = None) -> bytes | None:
    """What git says of a checkout, whoever owns it; None where it fails or is not there.

    Args:
        root: the checkout, which has `.git`.
        given: what git reads.
    """
    # Named outright, the repository is not searched for, and so may be another user's: the one who
    # installed the code is not the one who runs it. `safe.directory` is not heeded by every git.
    command = ["git", "-C", os.fspath(root), "--git-dir=.git", "--work-tree=.", *arguments]
    try:
        done = subprocess.run(command, input=given, capture_output=True, check=False, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None
