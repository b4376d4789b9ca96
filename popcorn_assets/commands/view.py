"""`popcorn view`: an exported folder's web map in a browser."""

from __future__ import annotations

from pathlib import Path

import click

from popcorn_ml.errors import ConfigError


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=3080,
    show_default=True,
    help="Port to serve it at, on this machine alone.",
)
def view(folder: Path, port: int) -> None:
    """Show an exported FOLDER's web map in a browser."""
    from popcorn_assets.commands.ports import require_port
    from popcorn_ml.publishing.web.page import PAGE
    from popcorn_ml.publishing.web.server import MapServer, of_folder, serve

    if not (folder / PAGE).is_file():
        raise ConfigError(
            "this is no exported folder",
            where=folder,
            expected=f"a folder with {PAGE}",
            remedy="popcorn export COUNTRY YEAR --to DIR, then popcorn view DIR",
        )
    require_port("127.0.0.1", port, command="popcorn view")
    with MapServer("127.0.0.1", port, of_folder(folder)) as server:
        click.echo(f"{server.address} shows {folder}; Ctrl-C ends it")
        serve(server)
