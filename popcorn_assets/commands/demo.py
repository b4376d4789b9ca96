"""`popcorn demo`: a simulated country from its scenes to evaluated maps, as three Dagster runs.

One trains on 2020 and maps it; beside it, another makes the imagery of 2021; the third maps 2021
with the model of 2020. All are ordinary runs of ordinary jobs in the persistent instance, so that
the UI shows them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import dagster as dg
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from popcorn_assets.assets.change import CHANGE, SUMMARY
from popcorn_assets.automation import COUNTRY_YEAR_JOB, INGEST_JOB, REFRESH_JOB
from popcorn_assets.commands.console import open_console
from popcorn_assets.commands.demo_ahead import imagery_ahead, peak_rss_mb
from popcorn_assets.commands.export import export_year
from popcorn_assets.commands.outcome import tell_failure
from popcorn_assets.commands.working import work
from popcorn_assets.paths import data_root
from popcorn_assets.resources import StoreResource
from popcorn_assets.runs.home import ui_command
from popcorn_assets.store.versions import Address
from popcorn_ml.files import write_json
from popcorn_ml.simulate.spec import CountrySpec

COUNTRY = "demo"
RUNS = ((2020, COUNTRY_YEAR_JOB, "train and map"), (2021, REFRESH_JOB, "map with the 2020 model"))

APPROACHES = {
    "uniform": "uniform disaggregation",
    "builtup": "built-up disaggregation",
    "map": "map",
    "adjusted": "adjusted map",
}


def run_demo(spec: CountrySpec | None = None) -> int:
    """Run the demo and print what came out; the exit code.

    Args:
        spec: the country to simulate; None is the demo country. Its grid and files must be those
            of the country file `demo.yaml`.
    """
    spec = spec or CountrySpec()
    started = time.monotonic()
    console = open_console(110)
    console.print(f"[bold]The demo country[/bold], in {data_root()}")
    write_scenes(console, spec)
    instance = dg.DagsterInstance.get()
    runs: list[str] = []
    first, second = (year for year, _, _ in RUNS)
    with imagery_ahead(COUNTRY, first, second) as ahead:
        for year, job, purpose in RUNS:
            console.print(f"\n[bold]{COUNTRY}|{year}[/bold]: {purpose}")
            if year == second:
                ahead.wait(console)
            worked = work(instance, job, COUNTRY, year, console, small=True)
            if not worked.made:
                tell_failure(console, instance, worked, "popcorn demo")
                return 130 if worked.interrupted else 1
            runs.append(worked.run_id)
        if ahead.started:
            beside = dg.RunsFilter(job_name=INGEST_JOB)
            runs += [run.run_id for run in instance.get_runs(beside, limit=1)]
    peak_mb = peak_rss_mb() + ahead.peak_mb
    summary = summarise(seconds_spent(instance, runs), time.monotonic() - started, peak_mb)
    path = data_root() / "demo" / "summary.json"
    write_json(path, summary)
    print_summary(console, summary, path)
    export_years(console)
    return 0


def write_files(spec: CountrySpec | None = None) -> int:
    """Write the demo country's scenes, census and truth, and say where; the exit code."""
    console = open_console(110)
    write_scenes(console, spec or CountrySpec())
    console.print(f"The demo country's scenes, census and truth: {data_root() / COUNTRY}")
    return 0


def write_scenes(console: Console, spec: CountrySpec) -> None:
    """The country's scenes, census and hidden truth, unless they are there already."""
    from popcorn_ml.simulate.country import write_country

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed} of {task.total}"),
        TimeElapsedColumn(),
        console=console,
    ) as bar:
        task = bar.add_task("scenes, census and truth", total=None)
        write_country(
            data_root() / "demo",
            spec,
            [year for year, _, _ in RUNS],
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )


def seconds_spent(instance: dg.DagsterInstance, runs: Iterable[str]) -> dict[str, float]:
    """Seconds spent on each asset, the steps of a graph added up, its checks apart."""
    spent: dict[str, float] = {}
    for run_id in runs:
        for stats in instance.get_run_step_stats(run_id):
            if stats.start_time and stats.end_time:
                asset = stats.step_key.partition(".")[0]
                seconds = spent.get(asset, 0.0) + stats.end_time - stats.start_time
                spent[asset] = round(seconds, 3)
    return spent


def summarise(seconds: dict[str, float], wall: float, peak_mb: float) -> dict[str, Any]:
    """The figures of both years as plain values."""
    store = StoreResource().open()
    metrics: dict[str, Any] = {}
    totals: dict[str, Any] = {}
    changes: dict[str, Any] = {}
    for year, _, _ in RUNS:
        told = store.latest(Address(CHANGE, COUNTRY, year)).file(SUMMARY)
        changes[str(year)] = json.loads(told.read_text("utf-8"))
        path = store.latest(Address("evaluation", COUNTRY, year)).file("metrics.json")
        found = json.loads(path.read_text("utf-8"))
        metrics[str(year)] = found["metrics"]
        totals[str(year)] = {
            "predicted": found["totals"]["map"],
            "adjusted": found["totals"]["adjusted"],
            "true": found["totals"]["true"],
        }
    return {
        "metrics": metrics,
        "totals": totals,
        "change": changes,
        "seconds": seconds,
        "wall_seconds": round(wall, 1),
        "peak_rss_mb": round(peak_mb, 1),
    }


def export_years(console: Console) -> None:
    """Copy both years out into one folder, as `popcorn export` does, and say where they are."""
    from popcorn_ml.publishing.names import Names

    target = data_root() / "exports" / COUNTRY
    store = StoreResource().open()
    for year, _, _ in RUNS:
        done = export_year(store, COUNTRY, year, target)
    report = done.folder / Names(COUNTRY, RUNS[-1][0]).report
    console.print(
        f"\n[bold]What others are given[/bold]: {done.folder}\n"
        f"Its report of {RUNS[-1][0]}: {report}\n"
        f"Its web map: popcorn view {done.folder}",
        soft_wrap=True,
    )


def print_summary(console: Console, summary: dict[str, Any], path: Path) -> None:
    """The table of the two years."""
    for year, approaches in summary["metrics"].items():
        table = Table(
            title=f"\n{COUNTRY} {year}: people against the truth, per hectare and per census unit",
            title_justify="left",
        )
        table.add_column("", no_wrap=True)
        for per in ("ha", "unit"):
            for name in ("R2", "MAE", "RMSE"):
                table.add_column(f"{name}/{per}", justify="right")
        for approach, title in APPROACHES.items():
            cells = [
                f"{approaches[approach][per][name]:.2f}"
                for per in ("hectare", "unit")
                for name in ("r2", "mae", "rmse")
            ]
            table.add_row(title, *cells)
        console.print(table)
        people = summary["totals"][year]
        console.print(
            f"People: {people['predicted']:,.0f} on the map, {people['true']:,.0f} in truth "
            f"({people['predicted'] / people['true'] - 1:+.1%})"
        )
        change = summary["change"][year]
        if change["from_year"] is not None:
            console.print(f"Since {change['from_year']}: {change['significant']}")
    console.print(
        f"\n{summary['wall_seconds']:.0f} s, at most {summary['peak_rss_mb']:,.0f} MB. "
        f"The same figures: {path}\nSee the assets and their pictures: {ui_command()}"
    )
