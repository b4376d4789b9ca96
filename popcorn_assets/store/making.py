"""One materialisation under way: from what is noted to a published version and what Dagster shows.

`Making` notes what the version is made from (`recipe`), decides whether what is in the store is
current, lets the asset's function write into a draft, publishes it with its manifest, records it
with its rows in the warehouse (`records`), and turns the manifest into what Dagster shows.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg

from popcorn_assets.partitions import country_and_year
from popcorn_assets.show import PICTURE, as_check_result, as_metadata, shown_picture
from popcorn_assets.store.code import code_parts, code_state, library_versions
from popcorn_assets.store.manifests import SCHEMA, finite, plain_check
from popcorn_assets.store.recipe import Recipe
from popcorn_assets.store.records import Records
from popcorn_assets.store.versions import Address, Store, Version, failed_checks
from popcorn_ml.errors import StoreError
from popcorn_ml.files import link_or_copy, naming_the_disk
from popcorn_ml.published.folders import failing

REUSE_TAG = "popcorn/reuse"
"""A run with this tag takes what is current from the store instead of making it again."""

PROGRESS_SECONDS = 5.0


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
        unfinished: half-done work stays after publishing: a later run may make more of it.
    """

    shown: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    checks: Iterable[Any] = ()
    tables: Mapping[str, Any] = field(default_factory=dict)
    unfinished: bool = False


Judge = Callable[[Version], Outcome | None]
"""What today's settings say of a stored version; None: it has to be made again."""


class MadeMeanwhile(Exception):
    """What a run waited to make, another one has made; `publish` takes it then."""


def reporting(say: Callable[[str], object]) -> Callable[[int, int], None]:
    """A callback that says "done of total" at the start, the end and every few seconds."""
    state = {"last": -PROGRESS_SECONDS}

    def report(done: int, total: int) -> None:
        now = time.monotonic()
        if total <= 1:
            return
        if done >= total or now - state["last"] >= PROGRESS_SECONDS:
            state["last"] = now
            say(f"{done} of {total}")

    return report


class Making(Recipe):
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
        self.context = context
        self.country, self.year = country_and_year(context) if partitioned else ("", 0)
        address = Address(asset, self.country, self.year) if partitioned else Address(asset)
        super().__init__(store, address, code_version)
        self.reuse = context.run.tags.get(REUSE_TAG) == "true"
        self.judged_apart: set[str] = set()
        """Checks of the asset's own whose verdict is asked anew and in no manifest."""
        self.started = datetime.now(UTC)
        self._locks = ExitStack()
        self._work: Path | None = None

    def place(self) -> str:
        """Which country and year, for people."""
        return f"{self.country} {self.year}"

    def work(self) -> Path:
        """A folder for half-done work of exactly this recipe, which a later run resumes."""
        return self.store.work(self.address, self.recipe())

    def lone_work(self) -> Path:
        """As `work`, to this run alone until `publish` ends; another run's is waited for.

        Raises:
            StoreError: another run, which is named, still works on it after a while.
            MadeMeanwhile: the other run has made it, and this one may take it.
        """
        if self._work is None:
            others: list[str] = []

            def waiting(other: str) -> None:
                others.append(other)
                self.context.log.warning(
                    f"{other} works on {self.address}: waiting until it has ended"
                )

            owner = f"run {self.context.run_id}"
            working = self.store.working(self.address, self.recipe(), owner, waiting=waiting)
            self._work = self._locks.enter_context(working)
            if others and self.current() is not None:
                raise MadeMeanwhile
        return self._work

    def progress(self, unit: str) -> Callable[[int, int], None]:
        """A callback that logs "done of total" at the start, the end and every few seconds."""
        return reporting(lambda text: self.context.log.info(f"{text} {unit}"))

    def current(self, *, whatever_its_checks: bool = False) -> Version | None:
        """The stored version, if this run may reuse it and it was made by the same recipe.

        Args:
            whatever_its_checks: also one that failed some that block, and is not current for that.
        """
        if not self.reuse:
            return None
        if whatever_its_checks:
            with suppress(StoreError):
                rejected = self.store.rejected(self.address)
                if rejected is not None and self._is_as_asked(rejected):
                    return rejected
        try:
            found = self.store.find(self.address)
            if found is None or not self._is_as_asked(found):
                return None
            if failed_checks(found) and not whatever_its_checks:  # to be judged anew
                return None
        except StoreError:
            return None
        return found

    def _is_as_asked(self, found: Version) -> bool:
        """Whether a version is whole, of this recipe, and was held against the asset's checks."""
        try:
            manifest = found.manifest()
            if (manifest.get("schema"), manifest.get("recipe")) != (SCHEMA, self.recipe()):
                return False
            if not self._own_checks() <= {check["name"] for check in manifest["checks"]}:
                return False
            for name, entry in manifest["files"].items():
                if found.file(name).stat().st_size != entry["size"]:
                    return False
            records = self._records()
            held = bool(failing(manifest)) or records.rows_held(found)
            return held and not records.altered(found)
        except (StoreError, KeyError, TypeError, AttributeError):  # the manifest is damaged
            return False

    def publish(
        self, make: Callable[[Path], Outcome], judge: Judge | None = None
    ) -> dg.MaterializeResult:
        """Run `make` on a draft folder and publish what it wrote, or reuse what is current.

        Inputs, sources and parameters are all noted before. Work that only this run has had
        (`lone_work`) is removed once the version is published and has passed, never before.

        Args:
            make: writes files into the folder it is given and says what it wrote.
            judge: where the verdict on what is stored depends on settings outside the recipe.
        """
        version = self.publish_version(make, judge)
        return dg.MaterializeResult(
            metadata=self.metadata(version),
            data_version=dg.DataVersion(version.version),
            check_results=[
                as_check_result(check)
                for check in version.manifest()["checks"]
                if check["name"] in self._own_checks()
            ],
        )

    def _own_checks(self) -> set[str]:
        """Names of the checks that the asset itself evaluates; others have steps of their own."""
        if not isinstance(self.context, dg.AssetExecutionContext):
            return set()
        return {spec.name for spec in self.context.assets_def.check_specs} - self.judged_apart

    def publish_version(
        self, make: Callable[[Path], Outcome], judge: Judge | None = None
    ) -> Version:
        """As `publish`, for graph-backed assets that yield their own output."""
        found = self.current(whatever_its_checks=judge is not None)
        if found is not None and judge is not None:
            found, make = self._judged(found, judge, make)
        if found is not None:
            self._records().record_if_missing(found)
            if failed_checks(found):
                said = f"{self.address}: version {found.version} fails its checks as it did"
                self.context.log.error(said)
            else:
                self.store.settle(self.address)
                said = f"{self.address} is current: version {found.version} reused"
                self.context.log.info(said)
            return found
        try:
            return self._made(make)
        except MadeMeanwhile:
            self._work = None
            return self.publish_version(make, judge)

    def _made(self, make: Callable[[Path], Outcome]) -> Version:
        """A new version, made and published."""
        with (
            naming_the_disk(self.store.folder(self.address)),
            self._locks,
            self.store.draft(self.address) as draft,
        ):
            outcome = make(draft)
            records = self._records()
            rows, tables = records.prepared(outcome.tables)
            manifest = self._manifest(outcome, tables)

            def record(whole: dict[str, Any], manifest_sha256: str) -> None:
                records.record(whole, manifest_sha256, rows)

            version = self.store.publish(self.address, draft, manifest, record)
            failed = failed_checks(version)
            if self._work is not None and not (outcome.unfinished or failed):
                shutil.rmtree(self._work, ignore_errors=True)
        if failed:
            self.context.log.error(
                f"{self.address} did not pass {', '.join(check['name'] for check in failed)}: kept "
                f"as {version.version} to be looked at, and not current"
            )
        else:
            self.context.log.info(f"{self.address} published as {version.version}")
        return version

    def _judged(
        self, found: Version, judge: Judge, make: Callable[[Path], Outcome]
    ) -> tuple[Version | None, Callable[[Path], Outcome]]:
        """A stored version if today's verdict on it is the one it bears, or how to come to one.

        Where only the verdict differs, the same files are published with the new one.
        """
        outcome = judge(found)
        if outcome is None:
            return None, make
        manifest = found.manifest()
        if finite([plain_check(check) for check in outcome.checks]) == manifest["checks"]:
            return found, make
        self.context.log.info(f"{self.address} {found.version} is judged anew")

        def again(folder: Path) -> Outcome:
            for name in manifest["files"]:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                link_or_copy(found.file(name), folder / name)
            return outcome

        return None, again

    def _records(self) -> Records:
        return Records(self.store, self.address, self.context.log)

    def metadata(self, version: Version) -> dict[str, Any]:
        """What the UI shows of a version."""
        manifest = version.manifest()
        return as_metadata(
            shown_picture(version.path / PICTURE, self.context.instance),
            dict(manifest["shown"]),
            path=version.path,
            version=version.version,
            manifest_sha256=version.manifest_sha256(),
            reused=manifest["run_id"] != self.context.run_id,
            rejected=", ".join(check["name"] for check in failed_checks(version)),
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
            "checks": [plain_check(check) for check in outcome.checks],
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
        return finite(manifest)
