"""`popcorn export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from popcorn_assets.runs.home import enter_home
from popcorn_ml.errors import StoreError

if TYPE_CHECKING:
    from popcorn_assets.store.versions import Store
    from popcorn_ml.publishing.export import Exported


@click.command()
@click.argument("country")
@click.argument("year", type=int)
@click.option(
    "--to",
    "target",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder to write into: a new or empty one, or a former export, which is updated.",
)
def export(country: str, year: int, target: Path) -> None:
    """Copy COUNTRY's maps of YEAR out: rasters, tables, report, web map and catalogue.

    Every file is compared with what was published while it is copied. Several country-years can
    go into one folder: they share its catalogue and its web map.
    """
    target = target.absolute()
    enter_home()
    from popcorn_assets.resources import StoreResource
    from popcorn_ml.publishing.names import CATALOGUE, WEB_PAGE, Names

    done = export_year(StoreResource().open(), country, year, target)
    names = Names(country, year)
    click.echo(f"{done.files} files, {done.size / 1e6:,.1f} MB, in {done.folder}")
    for title, name in (
        ("report", names.report), ("web map", WEB_PAGE), ("catalogue", CATALOGUE),
    ):  # fmt: skip
        if (done.folder / name).is_file():
            click.echo(f"{title + ':':11} {done.folder / name}")
    if done.removed:
        click.echo(f"gone since the last export: {', '.join(done.removed)}")


def export_year(store: Store, country: str, year: int, target: Path) -> Exported:
    """Copy a country-year's publication out of the store.

    Raises:
        StoreError: it has no maps, or none that were published.
        ExportError: see `popcorn_ml.publishing.export.export`.
    """
    from popcorn_assets.assets.publication import PUBLICATION
    from popcorn_assets.store.versions import Address
    from popcorn_ml.publishing.export import export as export_files
    from popcorn_ml.publishing.names import Names

    if store.find(Address("hectare_map", country, year)) is None:
        mapped = sorted(
            p.parent.name for p in (store.root / "hectare_map" / country).glob("*/LATEST")
        )
        raise StoreError(
            f"{country} has no maps of {year}",
            where=store.root,
            expected="a year that has been mapped",
            found=f"maps of {', '.join(mapped)}" if mapped else f"no maps of {country}",
            remedy=f"popcorn run {country} {year}, or the same with --job refresh to train nothing",
        )
    published = store.latest(Address(PUBLICATION, country, year))
    manifest = published.manifest()
    digests = {name: entry["sha256"] for name, entry in manifest["files"].items()}
    return export_files(published.path, digests, Names(country, year), published.version, target)
