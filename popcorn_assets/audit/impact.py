"""What was made with a scene, a file or a version: one question to the warehouse's views."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from popcorn_assets.audit.recorded import altered
from popcorn_assets.store.versions import Store, sha256
from popcorn_ml.errors import StoreError

_DIGEST = re.compile(r"[0-9a-f]{8,64}")

QUESTIONS = {
    "scene": "SELECT DISTINCT scene, first_asset, asset, country, year, version, current "
    "FROM made_with_scene WHERE scene = $name",
    "file from outside": "SELECT DISTINCT path, first_asset, asset, country, year, version, "
    "current FROM made_with_source WHERE path = $name OR file = $name OR sha256 = $digest",
    "file of a version": "SELECT DISTINCT file, first_asset, asset, country, year, version, "
    "current FROM made_with_file WHERE sha256 = $digest",
    "version": "SELECT DISTINCT origin_version, origin_asset, asset, country, year, version, "
    "current FROM descent WHERE length($name) >= 8 AND starts_with(origin_version, $name)",
}


@dataclass(frozen=True)
class Use:
    """A version that something went into, however indirectly.

    Attributes:
        kind, what: of the thing: "scene" and its id, and so on.
        first: the asset that read it, or that it is of.
        current: whether the version is its partition's current one.
    """

    kind: str
    what: str
    first: str
    asset: str
    country: str
    year: int
    version: str
    current: bool

    def __str__(self) -> str:
        partition = f" {self.country}|{self.year}" if self.country else ""
        state = "current" if self.current else "superseded"
        return f"{self.asset}{partition} {self.version} {state}"


def impact(store: Store, thing: str) -> list[Use]:
    """Everything that was made with a thing, its own version included.

    Args:
        thing: a scene's id, a version (its first 8 digits at least), the sha256 of a file, a
            file's path or name as manifests have it, or a file that is here: it is then looked
            for by its contents too.

    Raises:
        StoreError: there is no warehouse, or its tables or views were altered.
    """
    from popcorn_ml.warehouse.warehouse import Warehouse

    if not store.warehouse.is_file():
        raise StoreError(
            "there is no warehouse to ask",
            where=store.warehouse,
            remedy="materialise something first, or set POPCORN_DATA to the store's root",
        )
    name, digest = thing, thing if _DIGEST.fullmatch(thing) else ""
    path = Path(thing).absolute()
    if path.is_file():
        digest = sha256(path)
        inside = path.is_relative_to(store.root)
        name = path.relative_to(store.root).as_posix() if inside else str(path)
    found: list[Use] = []
    with Warehouse(store.warehouse).reading() as connection:
        wrong = altered(connection)
        if wrong:
            raise StoreError(
                "the warehouse's definitions were altered: its answers cannot be trusted",
                where=store.warehouse,
                expected="tables and views as the project's migrations make them",
                found="; ".join(f"{name}: {how}" for name, how in sorted(wrong.items())),
                remedy="restore the warehouse from a backup; popcorn audit compares the store",
            )
        for kind, question in QUESTIONS.items():
            wanted = {"name": name, "digest": digest}
            values = {key: value for key, value in wanted.items() if f"${key}" in question}
            rows = connection.execute(question, values).fetchall()
            found += [Use(kind, *row) for row in rows]
    return sorted(
        set(found), key=lambda use: (use.kind, use.what, use.country, use.year, use.asset)
    )
