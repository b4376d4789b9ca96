"""`popcorn show`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from popcorn_assets.commands.console import PIPE_WIDTH, open_console, write_utf8
from popcorn_assets.runs.home import enter_home

if TYPE_CHECKING:
    from rich.console import Console

    from popcorn_assets.country import Country
    from popcorn_assets.store.versions import Store
    from popcorn_assets.upkeep.standing import Part, Year

COLOURS = {"current": "green", "outdated": "yellow", "missing": "dim"}
"""Of a state; of any other, red."""

DAY_S = 86_400
DAYS_A_MONTH = 30.4


@click.command()
@click.argument("country")
@click.argument("year", type=int, required=False)
@click.option("--json", "as_json", is_flag=True, help="All of it as JSON.")
def show(country: str, year: int | None, as_json: bool) -> None:
    """Tell what there is of COUNTRY: its maps, how good and how old they are, what is missing.

    With a YEAR, asset by asset, with what every check said.
    """
    enter_home()
    from popcorn_assets.country import load_country
    from popcorn_assets.paths import data_root
    from popcorn_assets.store.versions import Store
    from popcorn_assets.upkeep.standing import standing, told_json, years_of

    settings, store = load_country(country), Store(data_root())
    years = [year] if year is not None else years_of(store, country)
    if year is not None:
        _require_year(year)
    found = [standing(store, settings, one) for one in years]
    verdicts = {year: _judged(country, year)} if year is not None else {}
    if as_json:
        write_utf8()
        click.echo(told_json(country, found, verdicts))
        return
    console = open_console(PIPE_WIDTH)
    if year is None:
        _overview(console, settings, store, found)
    else:
        _year(console, settings, found[0], verdicts[year])


def _require_year(year: int) -> None:
    from popcorn_assets.partitions import require_year

    require_year(year, datetime.now(UTC))


def _judged(country: str, year: int) -> list[dict[str, Any]]:
    """What Dagster has on record of a year; its library is loaded for nothing else."""
    import dagster as dg

    from popcorn_assets.audit.recorded import reading_dagster
    from popcorn_assets.upkeep.judged import judged_after

    remedy = "show it as the user who runs Dagster; without a year its records are not asked"
    with reading_dagster(remedy), dg.DagsterInstance.get() as instance:
        return judged_after(instance, country, year)


# All years ----------------------------------------------------------------------------------------


def _overview(console: Console, country: Country, store: Store, years: list[Year]) -> None:
    from popcorn_assets.upkeep.standing import FILLED, PRODUCT, SEASON_COMPOSITES

    rows = []
    for of in years:
        composites = [of.parts[asset] for asset in (*SEASON_COMPOSITES, *FILLED)]
        student = of.parts.get("student")
        there, product = sum(part.is_there for part in composites), of.parts[PRODUCT]
        rows.append(
            {
                "year": str(of.year),
                "composites": f"{there} of {len(composites)}",
                "census": _people(of.figure("census_counts", "people")),
                "trained": _date(of.parts["checkpoints"].made),
                "student": _date(student.made) if student else "",
                "map": _coloured(product.state),
                "made": _date(product.made),
                "people, model": _people(of.figure("population_map", "people on the grid")),
                "people, adjusted": _people(of.figure("adjusted_map", "people in census units")),
                "unseen units": _score(of),
                "80 % holds": _share(of.intervals.get("80")),
                "failed checks": _failures(of.parts.values()),
            }
        )
    _table(console, f"{country.name} ({country.code}), in {store.root}", rows)
    if not years:
        console.print("Nothing is made yet.")
        console.print(f"What its imagery will take: popcorn imagery estimate {country.code} YEAR")
        console.print(f"To make it:                 popcorn run {country.code} YEAR")
        return
    _todo(console, years)
    console.print(f"\nOne year in detail: popcorn show {country.code} {years[-1].year}")


# One year -----------------------------------------------------------------------------------------


def _year(console: Console, country: Country, of: Year, verdicts: list[dict[str, Any]]) -> None:
    rows = [
        {
            "asset": part.asset,
            "state": _coloured(part.state),
            "made": _when(part.made),
            "version": part.version,
            "own checks": _checks(part),
            "why": "; ".join(why.splitlines()[0] for why in part.why),
        }
        for part in of.parts.values()
    ]
    _table(console, f"{country.name} ({of.country}) {of.year}", rows)
    for title, text in (("maps with", _kind(country)), *_figures(of)):
        console.print(f"{title + ':':22} {text}", highlight=False, soft_wrap=True)
    _verdicts(console, of, verdicts)
    for title, path in places(of):
        console.print(f"{title + ':':22} {path}", highlight=False, soft_wrap=True)
    _todo(console, [of])


def _kind(country: Country) -> str:
    """Which kind of model the country's file says, and of whom."""
    choice = country.model
    looks_at = {"both": "both sensors", "s2": "Sentinel-2 alone", "s1": "Sentinel-1 alone"}
    kind = f"a student, {looks_at[choice.sensors]}" if choice.kind == "student" else "the Bag"
    return f"{kind} (model.kind: {choice.kind})"


def _figures(of: Year) -> Iterable[tuple[str, str]]:
    """What a map says in one look."""
    model, adjusted = (
        of.figure("population_map", "people on the grid"),
        of.figure("adjusted_map", "people in census units"),
    )
    if model is not None:
        yield "people, by the model", f"{model:,.0f}"
    if adjusted is not None:
        yield "people, adjusted", f"{adjusted:,.0f}"
    if told := of.figure("population_map", "model"):
        yield "model", str(told)
    if of.scores:
        yield "units never seen", f"{_score(of)} over {of.scores.get('n', 0):,.0f} units"
    if of.intervals:
        held = " and ".join(_share(of.intervals.get(level)) for level in ("80", "95"))
        yield "80 and 95 % hold", f"{held} of units never seen"
    elif told := of.figure("hectare_map", "intervals"):
        yield "intervals", str(told)
    if told := of.figure("change", "significant"):
        yield "change", str(told)


def places(of: Year) -> Iterable[tuple[str, str]]:
    """Where a person finds what was made, as far as it is."""
    from popcorn_ml.publishing.names import WEB_PAGE, Names

    product, published = of.parts["hectare_map"], of.parts["publication"]
    if product.is_there:
        yield "maps folder", product.path
    if published.is_there:
        yield "report", f"{published.path}/{Names(of.country, of.year).report}"
        yield "web map", f"popcorn view {published.path}   (its page: {WEB_PAGE})"
        yield "for others", f"popcorn export {of.country} {of.year} --to DIR"


def _verdicts(console: Console, of: Year, verdicts: list[dict[str, Any]]) -> None:
    """Every check that did not pass, in full; how many did."""
    own = [
        {**check, "asset": part.asset} for part in of.parts.values() for check in part.not_passed
    ]
    failed = [*own, *(one for one in verdicts if not one["passed"])]
    judged = sum(part.judged for part in of.parts.values()) + len(verdicts)
    if judged:
        console.print(f"{'checks:':22} {judged - len(failed)} of {judged} passed", highlight=False)
    for one in failed:
        tell_check(console, one["asset"], one["name"], one["severity"], one["message"])


def tell_check(console: Console, asset: str, name: str, severity: str, message: str) -> None:
    """A check that did not pass, with what it said to do."""
    from rich.markup import escape

    kind = "[red]error[/red]" if severity == "error" else "[yellow]warning[/yellow]"
    console.print(f"  {kind} {name} on {asset}: {escape(message)}", highlight=False, soft_wrap=True)


# Words --------------------------------------------------------------------------------------------


def _todo(console: Console, years: list[Year]) -> None:
    from rich.markup import escape

    rows = [(of.year, what, command) for of in years for what, command in of.todo()]
    if not rows:
        console.print("\nNothing is missing, and all of it is up to date.")
        return
    console.print("\n[bold]To do[/bold]")
    for year, what, command in rows:
        console.print(
            f"  {year}: {escape(what)}\n        {command}", highlight=False, soft_wrap=True
        )


def _table(console: Console, title: str, rows: list[dict[str, str]]) -> None:
    from rich.table import Table

    if not rows:
        console.print(title, highlight=False)
        return
    table = Table(title=title, title_justify="left")
    for name in rows[0]:
        if any(row[name] for row in rows):
            table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(row[str(column.header)] for column in table.columns))
    console.print(table)


def _coloured(state: str) -> str:
    colour = COLOURS.get(state, "red")
    return f"[{colour}]{state}[/{colour}]"


def _checks(part: Part) -> str:
    if not part.judged:
        return ""
    if not part.not_passed:
        return f"{part.judged} passed"
    return f"{len(part.not_passed)} of {part.judged} failed"


def _failures(parts: Iterable[Part]) -> str:
    """How many of the checks that a version carries failed."""
    failed = [check for part in parts for check in part.not_passed]
    return str(len(failed)) if failed else ""


def _people(value: Any) -> str:
    return f"{value:,.0f}" if isinstance(value, int | float) else ""


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _score(of: Year) -> str:
    """How well units are told by members that never saw them: R2, and by how much they are off."""
    r2, off = of.scores.get("r2"), of.scores.get("mae_share")
    told = [f"R2 {r2:.2f}"] if r2 is not None else []
    return ", ".join([*told, *([f"off by {off:.0%}"] if off is not None else [])])


def _date(made: str) -> str:
    return made[:10]


def _when(made: str) -> str:
    """A day, and how long ago that is."""
    if not made:
        return ""
    days = (datetime.now(UTC) - datetime.fromisoformat(made)).total_seconds() / DAY_S
    months = f"{days / DAYS_A_MONTH:.0f} months ago"
    ago = "today" if days < 1 else f"{days:.0f} days ago" if days < 100 else months
    return f"{made[:16].replace('T', ' ')} ({ago})"
