"""What Dagster's catalogue says of every asset beside its results: owners, tags, what to look
at and what to do, documentation, code, and the columns of its tables in the warehouse. None of it
is part of a version.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import dagster as dg

from popcorn_assets.guidance import guided
from popcorn_assets.paths import shipped
from popcorn_ml.errors import ConfigError
from popcorn_ml.warehouse.comments import comment_of
from popcorn_ml.warehouse.schema import MIGRATIONS

OWNERS_VARIABLE = "POPCORN_OWNERS"
"""Who answers for the assets: e-mail addresses and `team:NAME`, separated by commas."""

DOCS_VARIABLE = "POPCORN_DOCS_URL"
"""Address of the folder `docs` where people can open it; without it, its path on this machine."""

STAGE_TAG = "popcorn/stage"
PRODUCT_TAG = "popcorn/product"

PRODUCTS = ("hectare_map", "publication")
"""Assets that people outside are given."""

PAGES = {
    "imagery": "imagery",
    "census": "census",
    "builtup": "method",
    "training": "training",
    "maps": "method",
    "evaluation": "method",
    "publication": "python",
}
"""Group of assets -> the page of docs/ that explains it."""

TABLES = {
    "census_units": ("units", "sources"),
    "census_counts": ("counts", "sources"),
    "checkpoints": ("out_of_fold",),
    "student": ("student_out_of_fold",),
    "hectare_map": ("map_intervals",),
    "evaluation": ("evaluation", "map_sums"),
    "change": ("map_change",),
}
"""Asset -> the tables of the warehouse that it writes rows of, the foremost first."""

_OWNER = re.compile(r"team:[A-Za-z0-9_-]+|[^@\s,]+@[^@\s,]+\.[^@\s,]+")


def described(assets: Iterable[dg.AssetsDefinition]) -> list[dg.AssetsDefinition]:
    """The same assets, with what the catalogue says of them.

    Raises:
        ConfigError: POPCORN_OWNERS names what is no owner, POPCORN_DOCS_URL what is no address.
    """
    people, address = owners(), docs_address()

    def say(spec: dg.AssetSpec) -> dg.AssetSpec:
        asset, group = spec.key.to_user_string(), spec.group_name or ""
        product = {PRODUCT_TAG: "yes"} if asset in PRODUCTS else {}
        return spec.replace_attributes(
            description=guided(spec.description or "", asset, group)
        ).merge_attributes(
            owners=people,
            tags={STAGE_TAG: group, **product},
            metadata={**_page(group, address), **_tables(asset)},
        )

    told = [asset.map_asset_specs(say) for asset in assets]
    return [one for one in dg.with_source_code_references(told)
            if isinstance(one, dg.AssetsDefinition)]  # fmt: skip


def owners() -> list[str]:
    """Whom POPCORN_OWNERS names.

    Raises:
        ConfigError: something else than addresses and teams.
    """
    given = [one.strip() for one in os.environ.get(OWNERS_VARIABLE, "").split(",") if one.strip()]
    for one in given:
        if not _OWNER.fullmatch(one):
            raise ConfigError(
                "this is no owner of assets",
                where=OWNERS_VARIABLE,
                expected="e-mail addresses or team:NAME, separated by commas",
                found=one,
            )
    return given


def docs_address() -> str:
    """What POPCORN_DOCS_URL says, without a slash at its end; empty where it says nothing.

    Raises:
        ConfigError: no address of a web page.
    """
    given = os.environ.get(DOCS_VARIABLE, "").strip().rstrip("/")
    if given and (urlsplit(given).scheme not in ("http", "https") or not urlsplit(given).hostname):
        raise ConfigError(
            "this is no address of the documentation",
            where=DOCS_VARIABLE,
            expected="the folder docs, as https://...",
            found=given,
        )
    return given


def _page(group: str, address: str) -> dict[str, Any]:
    name = f"{PAGES[group]}.md" if group in PAGES else ""
    if not name:
        return {}
    if address:
        return {"docs": dg.MetadataValue.url(f"{address}/{name}")}
    path = shipped("docs") / name
    return {"docs": dg.MetadataValue.path(str(path))} if path.is_file() else {}


def _tables(asset: str) -> dict[str, Any]:
    known = [table for table in TABLES.get(asset, ()) if columns(table)]
    if not known:
        return {}
    first, *others = known
    return {
        "dagster/table_name": first,
        "dagster/column_schema": _schema(first),
        **{f"columns of {table}": _schema(table) for table in others},
    }


def _schema(table: str) -> dg.TableSchema:
    return dg.TableSchema(
        [
            dg.TableColumn(
                name,
                kind.lower(),
                description=comment_of(table, name),
                constraints=dg.TableColumnConstraints(nullable=nullable),
            )
            for name, kind, nullable in columns(table)
        ]
    )


@cache
def columns(table: str) -> tuple[tuple[str, str, bool], ...]:
    """Name, type and whether it may be empty of a table's columns, as the schema's text has them.

    Read from the text, so that definitions load without a database; none of an unknown table.
    """
    found: dict[str, tuple[str, str, bool]] = {}
    for statement in (statement for step in MIGRATIONS for statement in step):
        made = re.match(rf"\s*CREATE TABLE {table} \(\n(.*)\)\s*$", statement, re.DOTALL)
        added = re.match(rf"\s*ALTER TABLE {table} ADD COLUMN (\w+) ([A-Z]+)\s*$", statement)
        if re.match(rf"\s*DROP TABLE {table}\s*$", statement):
            found = {}
        elif made:
            lines = re.findall(r"^\s*([a-z]\w*) ([A-Z]+)( NOT NULL)?", made[1], re.MULTILINE)
            found = {name: (name, kind, not bound) for name, kind, bound in lines}
        elif added:
            found[added[1]] = (added[1], added[2], True)
    return tuple(found.values())
