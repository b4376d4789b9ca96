"""What came out of a run, at the terminal: what was made, how many people, where it lies, and which
checks failed."""

from __future__ import annotations

from typing import Any

import dagster as dg
from rich.console import Console
from rich.markup import escape

from popcorn_assets.commands.progress import failure_text
from popcorn_assets.commands.show import places, tell_check
from popcorn_assets.commands.working import Worked
from popcorn_assets.country import load_country
from popcorn_assets.resources import StoreResource
from popcorn_assets.runs.home import webserver
from popcorn_assets.upkeep.standing import Year, standing

SHOWN = {
    "checkpoints": ("held-out MAE, people, mean of members",),
    "student": ("MAE, people, student",),
    "census_counts": ("people",),
    "population_map": ("people on the grid", "model"),
    "adjusted_map": ("people in census units",),
    "evaluation": ("R2, map, per unit",),
    "change": ("significant", "not compared"),
}
"""Asset -> the figures of it that are told, where the run made it or found it current."""


def tell_made(
    console: Console,
    instance: dg.DagsterInstance,
    worked: Worked,
    job: str,
    country: str,
    year: int,
) -> None:
    """What a run that succeeded has made, and where it is."""
    made, current = assets_of(instance, worked.run_id)
    of = standing(StoreResource().open(), load_country(country), year)
    console.print(
        f"\n[green]{country}|{year}, {job}: done[/green] in {worked.seconds:.0f} s; assets made: "
        f"{len(made)}, current already: {len(current)} (run {worked.run_id[:8]})",
        highlight=False,
    )
    for title, text in _told(of, {*made, *current}):
        console.print(f"{title + ':':22} {text}", highlight=False, soft_wrap=True)
    tell_checks(console, instance, worked.run_id)
    console.print(f"{'all about it:':22} popcorn show {country} {year}\n", highlight=False)


def _told(of: Year, assets: set[str]) -> list[tuple[str, str]]:
    """Figures and places of what a run was about."""
    lines = []
    for asset, titles in SHOWN.items():
        for title in titles if asset in assets else ():
            value = of.figure(asset, title)
            if value is not None:
                text = f"{value:,.4g}" if isinstance(value, float) and abs(value) < 1000 else (
                    f"{value:,.0f}" if isinstance(value, int | float) else str(value)
                )  # fmt: skip
                lines.append((title.replace(", mean of members", ""), text))
    if "hectare_map" in assets or "publication" in assets:
        return [*lines, *places(of)]
    kept = ("student", "checkpoints", "census_counts")
    folders = [of.parts[name].path for name in kept if name in assets and name in of.parts]
    return [*lines, *(("folder", path) for path in folders)]


def tell_failure(
    console: Console, instance: dg.DagsterInstance, worked: Worked, again: str
) -> None:
    """Why a run failed, what it made nevertheless, and how to go on."""
    console.print(f"\n[red]The run failed.[/red] {escape(failure_text(instance, worked.run_id))}")
    made, current = assets_of(instance, worked.run_id)
    tell_checks(console, instance, worked.run_id)
    console.print(
        f"Assets made before that, which are kept: {len(made)}; current already: {len(current)}\n"
        f"Its log: popcorn ui, then {webserver()}/runs/{worked.run_id}\n"
        f"When the cause is mended, this goes on with the rest: {again}\n",
        highlight=False,
        soft_wrap=True,
    )


def tell_checks(console: Console, instance: dg.DagsterInstance, run_id: str) -> None:
    """The checks of a run that failed, with what they say to do."""
    failed = [verdict for verdict in verdicts_of(instance, run_id) if not verdict.passed]
    for verdict in failed:
        severity = "error" if verdict.severity == dg.AssetCheckSeverity.ERROR else "warn"
        asset = verdict.asset_key.to_user_string()
        tell_check(console, asset, verdict.check_name, severity, verdict.description or "")


def assets_of(instance: dg.DagsterInstance, run_id: str) -> tuple[list[str], list[str]]:
    """Assets that a run made, and those that it found current."""
    made: list[str] = []
    current: list[str] = []
    for entry in _entries(instance, run_id, dg.DagsterEventType.ASSET_MATERIALIZATION):
        told = entry.step_materialization_data.materialization
        (current if "reused" in told.metadata else made).append(told.asset_key.to_user_string())
    return made, current


def verdicts_of(instance: dg.DagsterInstance, run_id: str) -> list[Any]:
    """What the checks of a run said."""
    events = _entries(instance, run_id, dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    return [event.asset_check_evaluation_data for event in events]


def _entries(
    instance: dg.DagsterInstance, run_id: str, kind: dg.DagsterEventType
) -> list[dg.DagsterEvent]:
    found, cursor, more = [], None, True
    while more:
        records = instance.get_records_for_run(run_id, cursor=cursor, of_type=kind)
        found += [one.event_log_entry.get_dagster_event() for one in records.records]
        cursor, more = records.cursor, records.has_more
    return found
