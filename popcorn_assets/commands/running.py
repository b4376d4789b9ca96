"""`popcorn demo` and `popcorn ui`."""

from __future__ import annotations

import os
import sys

import click

from popcorn_assets.commands.ports import free_ports, require_port
from popcorn_assets.runs.home import MAPS_VARIABLE, WEBSERVER_VARIABLE, WORKSPACE, enter_home


@click.command()
@click.option("--only-files", is_flag=True, help="Write its scenes and census, and make no map.")
def demo(only_files: bool) -> None:
    """Make the demo country, train on 2020, map 2020 and 2021, evaluate."""
    enter_home(begin=True)
    from popcorn_assets.commands.demo import run_demo, write_files

    sys.exit(write_files() if only_files else run_demo())


@click.command()
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=3000,
    show_default=True,
    help="Port of the web interface.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--maps-port",
    type=click.IntRange(1, 65535),
    show_default="the next free one",
    help="Port of the published maps.",
)
def ui(port: int, host: str, maps_port: int | None) -> None:
    """Open Dagster's web interface and daemon, on this machine only unless told otherwise.

    The published maps are served beside them, read-only.
    """
    folder = enter_home(begin=True)
    require_port(host, port)
    if maps_port is not None:
        require_port(host, maps_port)
    tell_lost_runs()
    show_maps(host, maps_port or next(free_ports(host, port)))
    here = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    os.environ.setdefault(WEBSERVER_VARIABLE, f"http://{here}:{port}")  # whom sensors may ask
    arguments = ["dev", "-w", str(folder / WORKSPACE), "-h", host, "-p", str(port)]
    os.execv(sys.executable, [sys.executable, "-m", "dagster", *arguments])


def show_maps(host: str, port: int) -> None:
    """Serve the store's published maps for as long as this process lives, and say where."""
    from popcorn_assets.commands.maps import start_beside
    from popcorn_assets.resources import StoreResource

    here = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    start_beside(StoreResource().open().root, host, port)
    os.environ[MAPS_VARIABLE] = f"http://{here}:{port}/"  # what the asset links to
    click.echo(f"published maps: {os.environ[MAPS_VARIABLE]}")


def tell_lost_runs() -> None:
    """End runs whose process is gone, which would hold their slots for ever, and name them."""
    import dagster as dg

    from popcorn_assets.runs.lost import end_lost_runs

    with dg.DagsterInstance.get() as instance:
        for run in end_lost_runs(instance):
            click.echo(f"run {run.run_id[:8]} ({run.job_name}) had lost its process: it has failed")
