"""`popcorn weights`."""

from __future__ import annotations

from pathlib import Path

import click

from popcorn_assets.runs.home import enter_home


@click.group()
def weights() -> None:
    """The published extractor's weights, which real countries need."""


@weights.command("fetch")
def weights_fetch() -> None:
    """Download the published weights once, checking size and sha256."""
    enter_home()
    from popcorn_assets.paths import published_weights
    from popcorn_ml.model.importing import fetch_extractor, import_extractor
    from popcorn_ml.model.published import PUBLISHED_NAME

    target = published_weights()
    fetched = fetch_extractor(target.with_name(PUBLISHED_NAME))
    import_extractor(fetched, target)
    click.echo(f"published weights are at {target}; now materialise builtup_extractor")


@weights.command("import")
@click.argument("file", type=click.Path(path_type=Path))
def weights_import(file: Path) -> None:
    """Take the published weights from FILE, checking size and sha256."""
    file = file.absolute()
    enter_home()
    from popcorn_assets.paths import published_weights
    from popcorn_ml.model.importing import import_extractor

    target = published_weights()
    import_extractor(file, target)
    click.echo(f"published weights are at {target}; now materialise builtup_extractor")
