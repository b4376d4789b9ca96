"""What a version is made from: inputs by version, files by digest, parameters, code.

The *recipe* is a hash of everything the contents depend on: equal recipes give equal contents.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from popcorn_assets.country import Country
from popcorn_assets.store.sources import name_of_source, outside, with_companions
from popcorn_assets.store.versions import (
    Address,
    Store,
    Version,
    failed_checks,
    not_passed,
    sha256,
)
from popcorn_ml.errors import StoreError
from popcorn_ml.grid import Grid

ROWS = "rows of the warehouse"
"""Parameter that names the digests of rows that a version was made from, by table: a version is
named by its files, and its rows may differ while they are the same."""


class Recipe:
    """What one version is made from, noted while it is being made.

    Attributes:
        address: whose version it is.
        inputs, sources, parameters: as the manifest will have them.
    """

    def __init__(self, store: Store, address: Address, code_version: str) -> None:
        self.store, self.address, self.code_version = store, address, code_version
        self.inputs: list[dict[str, Any]] = []
        self.sources: list[dict[str, Any]] = []
        self.parameters: dict[str, Any] = {}

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
            Address(asset, country or self.address.country, year or self.address.year)
            if partitioned
            else Address(asset)
        )
        found = self.store.version(address, version) if version else self.store.latest(address)
        if failed_checks(found):
            raise not_passed(found)
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
        return self.input(asset, version=self.store.made_from(made, asset).version)

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
        for one in with_companions(path):
            entry = outside(self.store.root, one)
            if entry not in self.sources:
                self.sources.append(entry)
        return path

    def grid(self, country: Country) -> Grid:
        """The country's grid; the file that it is taken from, if it is, is noted as a source."""
        for path in country.grid_files():
            self.source(path)
        return country.pixel_grid()

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

    def recipe(self) -> str:
        """Hash of everything the contents depend on."""
        inputs = [
            {**entry, "version": None} if "files" in entry else entry for entry in self.inputs
        ]
        sources = sorted([name_of_source(s["path"]), s["sha256"]] for s in self.sources)
        text = json.dumps(
            [str(self.address), inputs, sources, self.parameters, self.code_version],
            sort_keys=True,
        )
        return hashlib.sha256(text.encode()).hexdigest()


def same_code(noted: Mapping[str, Any], code_version: str) -> None:
    """Make sure that a step goes on with what was planned by the same code.

    Args:
        noted: as `Recipe.noted` gave it.

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
