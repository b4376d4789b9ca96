"""`popcorn models`, `popcorn promote` and `popcorn rollback`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from popcorn_assets.commands.console import PIPE_WIDTH, open_console, write_utf8
from popcorn_assets.runs.home import enter_home

if TYPE_CHECKING:
    from popcorn_assets.promotion.entries import Entry

SHORT = 10
"""Digits of a version that are shown; `promote` takes as few."""


@click.command()
@click.argument("country")
@click.option("--json", "as_json", is_flag=True, help="All of it as JSON.")
def models(country: str, as_json: bool) -> None:
    """Which checkpoints and students could map COUNTRY, how they do, which is in use, by whom."""
    enter_home()
    from popcorn_assets.promotion.candidates import candidates, mapped
    from popcorn_assets.promotion.entries import named
    from popcorn_assets.promotion.ledger import read_ledger
    from popcorn_assets.resources import StoreResource

    store = StoreResource().open()
    rows, maps = candidates(store, country), mapped(store, country)
    entries = read_ledger(store, country).entries
    if as_json:
        write_utf8()
        decisions = [entry.model_dump(mode="json") for entry in entries]
        found = {"country": country, "candidates": rows, "ledger": decisions, "maps": maps}
        click.echo(json.dumps(found, indent=1, ensure_ascii=False))
        return
    hidden = ("level", "latest training")
    _print(f"Models for {country}", [_short(row, hidden) for row in rows])
    decided = [
        {
            "entry": entry.id,
            "when": entry.when[:16].replace("T", " "),
            "decision": f"{entry.action}{' (forced)' if entry.forced else ''}",
            "for": "all years" if entry.year is None else str(entry.year),
            "model": f"{named(entry.model.kind)}{entry.model.country}|{entry.model.year} "
            f"{entry.model.version[:SHORT]}",
            "by": entry.who if entry.explicit else f"the rules ({entry.who})",
            "reason": entry.reason,
        }
        for entry in entries
    ]
    _print("Decisions", decided)
    waiting = [str(row["year"]) for row in maps if not row["as decided"]]
    if waiting:
        click.echo(f"Mapped by an earlier decision: {', '.join(waiting)}; refresh them")


@click.command()
@click.argument("country")
@click.option(
    "--from",
    "source",
    required=True,
    metavar="TRAINED",
    help="Trained country and year, 'demo|2020' or 2020, with @VERSION if not the current one; a "
    "student is 'student demo|2020'.",
)
@click.option("--year", type=int, help="Mapped year it is for; all years without it.")
@click.option("--force", is_flag=True, help="Also if worse or not comparable; needs --reason.")
@click.option("--reason", default="", help="Why; kept in the ledger.")
@click.option("--transfer", is_flag=True, help="Checkpoints of another country are meant.")
def promote(
    country: str, source: str, year: int | None, force: bool, reason: str, transfer: bool
) -> None:
    """Put checkpoints, or a student, in use for COUNTRY; refused if worse, unless forced."""
    enter_home()
    from popcorn_assets.promotion import by_hand
    from popcorn_assets.promotion.who import os_user
    from popcorn_assets.resources import StoreResource

    entry = by_hand.promote(
        StoreResource().open(),
        country,
        source,
        who=os_user(),
        year=year,
        force=force,
        reason=reason,
        transfer=transfer,
    )
    _tell(country, entry)


@click.command()
@click.argument("country")
@click.option("--to", default="", help="Ledger entry or version; without it, the one before.")
@click.option("--year", type=int, help="Mapped year; without it, those of the entry.")
@click.option("--reason", required=True, help="Why; kept in the ledger.")
def rollback(country: str, to: str, year: int | None, reason: str) -> None:
    """Put a model of COUNTRY in use again that was in use before."""
    enter_home()
    from popcorn_assets.promotion import by_hand
    from popcorn_assets.promotion.who import os_user
    from popcorn_assets.resources import StoreResource

    entry = by_hand.roll_back(
        StoreResource().open(), country, who=os_user(), reason=reason, to=to, year=year
    )
    _tell(country, entry)


def _tell(country: str, entry: Entry) -> None:
    years = "all years" if entry.year is None else str(entry.year)
    click.echo(f"{entry.model} is in use for {country}, {years}: ledger entry {entry.id}")
    click.echo(entry.reason)
    click.echo("Maps follow when they are refreshed: job refresh, a partition a year")


def _short(row: dict[str, Any], hidden: tuple[str, ...]) -> dict[str, Any]:
    return {
        key: value[:SHORT] if key == "version" else value
        for key, value in row.items()
        if key not in hidden
    }


def _print(title: str, rows: list[dict[str, Any]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from popcorn_assets.wording import told

    console = open_console(PIPE_WIDTH)
    table = Table(title=title, title_justify="left")
    for name in rows[0] if rows else ["(none)"]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(escape(told(value, key)) for key, value in row.items()))
    console.print(table)
