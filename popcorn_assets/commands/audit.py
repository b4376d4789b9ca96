"""`popcorn audit`, `popcorn impact` and `popcorn reproduce`."""

from __future__ import annotations

import json
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TextIO

import click

from popcorn_assets.commands.console import write_utf8
from popcorn_assets.runs.home import enter_home

FORMATS = ("text", "json", "prov", "openlineage", "html")


@click.command()
@click.argument("country")
@click.argument("year", type=int)
@click.option("--asset", help="Only this asset and what it was made from.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file.")
@click.option("--strict", is_flag=True, help="Fail on what is only doubtful, too.")
@click.option("--without-dagster", is_flag=True, help="Leave Dagster's records out.")
@click.option(
    "--repository",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Clone to look for the code in, instead of the checkout this is run from.",
)
def audit(
    country: str,
    year: int,
    asset: str | None,
    form: str,
    out: Path | None,
    strict: bool,
    without_dagster: bool,
    repository: Path | None,
) -> None:
    """Trace COUNTRY's YEAR back to scenes, census files and weights; say what is not as recorded.

    Every file on the way is read again. The exit code is 0 when nothing is changed, missing or
    unrecorded, 1 when something is, and 2 when something could not be read and so not be judged.
    Code that is not in the repository, and versions older than their
    input, are told and fail only with --strict.
    """
    typed = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    out = out.absolute() if out else None
    repository = repository.absolute() if repository else None
    enter_home()
    import dagster as dg

    from popcorn_assets.audit.code import CHECKOUT
    from popcorn_assets.audit.judge import audit as run_audit
    from popcorn_assets.audit.recorded import DagsterRecords, reading_dagster
    from popcorn_assets.audit.tree import summary
    from popcorn_assets.resources import StoreResource

    store = StoreResource().open()
    asked = partial(
        run_audit,
        store,
        country,
        year,
        asset=asset,
        repository=repository or CHECKOUT,
        command=typed,
    )
    if without_dagster:
        report = asked()
    else:
        with reading_dagster():
            instance = dg.DagsterInstance.get()
        with instance:
            report = asked(dagster=DagsterRecords(instance))
    if out is None:
        if form != "text":
            write_utf8()
        _write(report, form, strict, sys.stdout)
    else:
        with open(out, "w", encoding="utf-8") as file:
            _write(report, form, strict, file)
        click.echo(f"{summary(report)}\nwritten to {out}")
    sys.exit(report.exit_code(strict))


def _write(report, form: str, strict: bool, out: TextIO) -> None:
    if form == "text":
        from popcorn_assets.audit.tree import print_tree

        print_tree(report, out)
    elif form == "html":
        from popcorn_assets.audit.page import page

        out.write(page(report))
    else:
        json.dump(_as_json(report, form, strict), out, indent=1, ensure_ascii=False)
        out.write("\n")


def _as_json(report, form: str, strict: bool):
    if form == "prov":
        from popcorn_assets.audit.prov import as_prov

        return as_prov(report.trail)
    if form == "openlineage":
        from popcorn_assets.audit.openlineage import as_events

        return as_events(report.trail)
    from popcorn_assets.audit.tree import as_dict

    return as_dict(report, strict)


@click.command()
@click.argument("file_or_version")
@click.option("--current", is_flag=True, help="Only what LATEST names today.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def impact(file_or_version: str, current: bool, as_json: bool) -> None:
    """Everything that was made with a scene, a file or a version, however indirectly.

    FILE_OR_VERSION is a scene's id, a version, a sha256, or a file's name or path. The exit code
    is 1 when nothing was made with it.
    """
    here = Path(file_or_version)
    thing = str(here.absolute()) if here.is_file() else file_or_version
    enter_home()
    from dataclasses import asdict

    from popcorn_assets.audit.impact import impact as uses_of
    from popcorn_assets.resources import StoreResource

    uses = [use for use in uses_of(StoreResource().open(), thing) if use.current or not current]
    if as_json:
        write_utf8()
        click.echo(json.dumps([asdict(use) for use in uses], indent=1, ensure_ascii=False))
    else:
        for kind, what in dict.fromkeys((use.kind, use.what) for use in uses):
            of_it = [use for use in uses if (use.kind, use.what) == (kind, what)]
            click.echo(f"{kind} {what}, {' and '.join(sorted({use.first for use in of_it}))}")
            click.echo("\n".join(dict.fromkeys(f"  {use}" for use in of_it)))
        if not uses:
            click.echo(f"nothing in the warehouse was made with {file_or_version}")
    sys.exit(0 if uses else 1)


@click.command()
@click.argument("country")
@click.argument("year", type=int)
@click.option("--asset", "assets", multiple=True, help="Instead of the three maps; repeatable.")
def reproduce(country: str, year: int, assets: tuple[str, ...]) -> None:
    """Make COUNTRY's maps of YEAR again from their manifests, and say whether they are identical,
    or equal to 1e-5 as another processor or engine makes them.

    Each is made from exactly the versions that its manifest names, in a store of its own; yours is
    not written. The exit code is 0 when all are identical to the last byte, or equal; else 1.
    """
    enter_home()
    from popcorn_assets.audit.closeness import TOLERANCE
    from popcorn_assets.audit.reproduce import MAPS
    from popcorn_assets.audit.reproduce import reproduce as again
    from popcorn_assets.resources import StoreResource
    from popcorn_assets.store.versions import Address

    store, equal = StoreResource().open(), True
    for asset in assets or MAPS:
        remade = again(store, Address(asset, country, year))
        if remade.identical:
            click.echo(f"identical  {remade.address} {remade.version}")
        elif remade.equal:
            click.echo(
                f"equal to {TOLERANCE:g}  {remade.address} {remade.version}: no pixel is off by "
                f"more than {remade.apart:.1e} of its raster's largest"
            )
        else:
            equal = False
            click.echo(f"differs    {remade.address} {remade.version}, again {remade.again}")
        for text in [*remade.files, *remade.differences]:
            click.echo(f"  {text}")
    sys.exit(0 if equal else 1)
