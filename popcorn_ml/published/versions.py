"""Versions that are there: an asset's current one, a given one, one that was rejected.

Nothing here writes; how a version comes about is popcorn_assets.store's business.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from popcorn_ml.errors import StoreError
from popcorn_ml.published.folders import (
    MANIFEST,
    VERSION_PATTERN,
    failing,
    is_own_file,
    is_version,
    manifests_in,
    sha256,
    unread,
)

LATEST = "LATEST"
REJECTED = "REJECTED"
"""Names the newest version of a partition, and its manifest, where that did not become current."""
NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9_]*")
"""Of an asset's and a country's folder."""


@dataclass(frozen=True)
class Address:
    """Which asset, of which country and year; both None for an unpartitioned asset."""

    asset: str
    country: str | None = None
    year: int | None = None

    def __post_init__(self) -> None:
        for name in (self.asset, self.country):
            if name is not None and not NAME_PATTERN.fullmatch(name):
                raise StoreError(
                    "the name cannot be a folder of the store",
                    found=repr(name),
                    expected="lower-case letters, digits and _",
                )
        if (self.country is None) != (self.year is None):
            raise StoreError("an address has both country and year, or neither", found=str(self))
        if self.year is not None and not 1900 <= self.year <= 2999:
            raise StoreError("the year is out of range", found=self.year)

    def __str__(self) -> str:
        return self.asset if self.country is None else f"{self.asset} {self.country}|{self.year}"


@dataclass(frozen=True)
class Version:
    """One whole version of an asset, on disk.

    Attributes:
        told: name of the manifest meant, where it is not the version's first.
    """

    address: Address
    version: str
    path: Path
    told: str = MANIFEST

    def file(self, name: str) -> Path:
        """A file of this version.

        Raises:
            StoreError: there is none of that name.
        """
        path = self.path / name
        if not is_own_file(path, self.path):
            raise StoreError(
                f"version {self.version} of {self.address} has no file {name[:200]}",
                where=self.path,
                remedy=f"materialise {self.address} again",
            )
        return path

    def manifest(self) -> dict[str, Any]:
        """What was recorded when the version was made."""
        try:
            return json.loads(self.file(self.told).read_text("utf-8"))
        except ValueError as error:
            raise StoreError(
                "the manifest is not readable JSON",
                where=self.path / self.told,
                found=str(error),
                remedy=f"materialise {self.address} again",
            ) from error

    def manifest_sha256(self) -> str:
        """Digest of the manifest's file."""
        return sha256(self.file(self.told))


class Published:
    """What was published under one root folder.

    Args:
        root: the folder.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).absolute()

    def folder(self, address: Address) -> Path:
        """Where an asset's versions lie."""
        folder = self.root / address.asset
        return folder if address.country is None else folder / address.country / str(address.year)

    def find(self, address: Address) -> Version | None:
        """The current version, or None where none was ever published."""
        folder = self.folder(address)
        try:
            version = (folder / LATEST).read_text("utf-8", errors="replace").strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise unread(folder / LATEST, error) from error
        if not is_version(folder, version):
            raise StoreError(
                f"{LATEST} names a version that is not there",
                where=folder / LATEST,
                found=version[:80],
                remedy=f"materialise {address} again",
            )
        return Version(address, version, folder / version)

    def latest(self, address: Address) -> Version:
        """The current version.

        Raises:
            StoreError: there is none, none that passed its checks, or `LATEST` points nowhere.
        """
        version = self.find(address)
        if version is not None:
            return version
        rejected = self.rejected(address)
        if rejected is not None:
            raise not_passed(rejected)
        raise StoreError(
            f"{address} has not been materialised",
            where=self.folder(address),
            remedy=f"materialise {address} first",
        )

    def rejected(self, address: Address) -> Version | None:
        """The newest version, where it failed a check that blocks and so did not become current.

        Raises:
            StoreError: `REJECTED` names nothing that is there.
        """
        folder = self.folder(address)
        try:
            text = (folder / REJECTED).read_text("utf-8", errors="replace")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise unread(folder / REJECTED, error) from error
        version, _, digest = text.strip().partition(" ")
        if is_version(folder, version):
            for path in manifests_in(folder / version):
                if sha256(path) == digest:
                    told = path.relative_to(folder / version).as_posix()
                    return Version(address, version, folder / version, told)
        raise StoreError(
            f"{REJECTED} names a version that is not there",
            where=folder / REJECTED,
            found=text.strip()[:100],
            remedy=f"materialise {address} again, or remove this file",
        )

    def newest(self, address: Address) -> Version:
        """The version that was made last: the current one, or one that was rejected since.

        Raises:
            StoreError: there is none.
        """
        return self.rejected(address) or self.latest(address)

    def version(self, address: Address, version: str) -> Version:
        """A given version, current or not.

        Raises:
            StoreError: it is not in the store.
        """
        folder = self.folder(address)
        if not is_version(folder, version):
            raise StoreError(
                f"version {version[:80]} of {address} is not in the store", where=folder
            )
        return Version(address, version, folder / version)

    def made_from(self, version: Version, asset: str, country: str | None = None) -> Version:
        """The version of `asset`, of the same country, that a version was made from.

        Args:
            country: another one.

        Raises:
            StoreError: it was made from none, or that is no longer in the store.
        """
        for entry in version.manifest()["inputs"]:
            if entry["asset"] == asset and entry["country"] == (country or version.address.country):
                address = Address(asset, entry["country"], entry["year"])
                return self.version(address, entry["version"])
        raise StoreError(f"{version.address} was not made from {asset}", where=version.path)

    def manifests(self, address: Address) -> Iterator[tuple[str, Path]]:
        """Every manifest of an asset's partition, earlier ones too, with its version."""
        for folder in sorted(self.folder(address).glob("*")):
            if VERSION_PATTERN.fullmatch(folder.name):
                for path in manifests_in(folder):
                    yield folder.name, path


def failed_checks(version: Version) -> list[dict[str, Any]]:
    """As `failing`, of a version.

    Raises:
        StoreError: its manifest keeps no verdicts.
    """
    manifest = version.manifest()
    if not isinstance(manifest, dict) or not isinstance(manifest.get("checks"), list):
        raise StoreError(
            "the manifest does not say which checks its version passed",
            where=version.path / version.told,
            expected="a list of checks",
            remedy=f"materialise {version.address} again",
        )
    return failing(manifest)


def not_passed(version: Version) -> StoreError:
    """The error of a version that nothing may be made from."""
    failed = failed_checks(version)
    return StoreError(
        f"{version.address} did not pass its checks",
        where=version.path,
        expected="every check that blocks to pass",
        found="; ".join(f"{check['name']}: {check['message']}" for check in failed)[:2000],
        remedy=f"put right what they name and materialise {version.address} again",
    )
