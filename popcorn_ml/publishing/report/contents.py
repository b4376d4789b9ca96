"""What the report says: facts, tables and pictures put together for the page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from popcorn_ml.errors import StoreError
from popcorn_ml.files import write_bytes
from popcorn_ml.publishing.names import Names
from popcorn_ml.publishing.report import charts, maps

if TYPE_CHECKING:
    import geopandas as gpd

MOST_UNITS = 60
"""Rows of the table of units; the rest are in the CSV file."""

APPROACHES = {
    "adjusted": "this map",
    "map": "the model alone, not adjusted",
    "builtup": "census people spread over built-up area",
    "uniform": "census people spread evenly",
    "out_of_fold": "the model, of units it had not seen",
}
MEASURES = ("r2", "mae", "rmse", "bias")
DIFFERENCE = (-0.5, -0.25, -0.1, 0.1, 0.25, 0.5)
DIFFERENCE_COLOURS = (
    "#5e3c99", "#9a8cc4", "#d8daeb", "#f7f7f7", "#fee0b6", "#f1a340", "#b35806",
)  # fmt: skip
WIDTHS = (0.25, 0.5, 1, 2, 4, 8)
WIDTH_COLOURS = (
    "#f7fcfd", "#e0ecf4", "#bfd3e6", "#9ebcda", "#8c96c6", "#88419d", "#4d004b",
)  # fmt: skip
LEVELS = {80: ("p10", "p90"), 95: ("p2_5", "p97_5")}


def write_report(folder: Path, facts: Mapping[str, Any]) -> Path:
    """Write the report of a map beside its files.

    Args:
        folder: with the files that the facts name.
        facts: of the map, as `publishing.facts` gives them.

    Returns:
        The page's path.

    Raises:
        StoreError: a file that the facts name is not there.
        RasterError: a raster cannot be read.
    """
    frame = _units(folder, facts)
    page = _page().render(
        facts=facts,
        pictures=_pictures(folder, facts, frame),
        levels=_levels(frame, facts),
        basis=((facts["intervals"].get("model") or {}).get("basis") or {}).get("told"),
        measured=_measured(facts),
        not_scored=(facts["evaluation"].get("without_truth") or {}).get("why_not"),
        compared=_compared(facts),
        seasons=_seasons(facts),
        units=_unit_rows(frame, facts),
        csv=_file(facts, "units_csv"),
        most=MOST_UNITS,
        without=[f"{one['what'].replace('_', ' ')}: {one['why']}" for one in facts["left_out"]],
        failed=[one for one in facts["checks"] if not one["passed"]],
    )
    path = folder / Names(facts["code"], facts["year"]).report
    write_bytes(path, page.encode())
    return path


def _page():
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(people=people, share=share, number=number, web=web_address)
    source = resources.files(__package__) / "report.html.j2"
    return environment.from_string(source.read_text("utf-8"))


def people(value: float | None) -> str:
    """A number of people as it is read: whole from a hundred on."""
    if value is None or not math.isfinite(value):
        return "unknown"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.1f}"


def share(value: float | None, digits: int = 1) -> str:
    """A share in per cent."""
    return "unknown" if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f} %"


def number(value: float | None) -> str:
    """A measure, to three figures."""
    if value is None or not math.isfinite(value):
        return "–"
    rounded = 0.0 if abs(value) < 5e-4 else value
    return f"{rounded:,.0f}" if abs(rounded) >= 1000 else f"{rounded:.3g}"


def web_address(text: str | None) -> str | None:
    """An address that may be linked to: of the web, nothing that a browser would run."""
    return text if isinstance(text, str) and text.startswith(("https://", "http://")) else None


def _units(folder: Path, facts: Mapping[str, Any]) -> gpd.GeoDataFrame:
    import geopandas as gpd

    path = folder / str(_file(facts, "units_parquet"))
    if not path.is_file():
        raise StoreError(
            "the table of census units is not there", where=path, remedy="export the map again"
        )
    return gpd.read_parquet(path)


def _file(facts: Mapping[str, Any], role: str) -> str | None:
    return next((one["file"] for one in facts["tables"] if one["role"] == role), None)


def _product(facts: Mapping[str, Any], role: str) -> Mapping[str, Any] | None:
    return next((one for one in facts["products"] if one["role"] == role), None)


def _classes(bounds: tuple[float, ...], colours: tuple[str, ...]) -> list[dict[str, Any]]:
    told = [f"{100 * bound:g}" for bound in bounds]
    labels = [f"below {told[0]} %"]
    labels += [f"{low} to {high} %" for low, high in pairwise(told)]
    labels += [f"{told[-1]} % and more"]
    rows = zip([*bounds, None], colours, labels, strict=True)
    return [{"upper": upper, "colour": colour, "label": label} for upper, colour, label in rows]


def _pictures(
    folder: Path, facts: Mapping[str, Any], frame: gpd.GeoDataFrame
) -> dict[str, str | None]:
    """Name -> data address; None for what there is not."""
    level = facts["census"]["level"]
    own = frame[frame["level"] == level]
    found: dict[str, str | None] = dict.fromkeys(("people", "interval", "change", "residual"))

    def bands(role: str, wanted: list[int]):
        product = _product(facts, role)
        return None if product is None else maps.read_bands(folder / product["file"], wanted)

    population = bands("population", [1])
    if population is not None:
        product = _product(facts, "population")
        assert product is not None
        picture = maps.Picture(
            population[0][0], population[1], product["classes"], _short(product["unit"])
        )
        found["people"] = maps.draw_map(picture, own, names=True)
    ends = bands("intervals", [1, 4])
    if ends is not None and population is not None:
        middle = population[0][0]
        with np.errstate(divide="ignore", invalid="ignore"):
            width = np.where(middle >= 1, (ends[0][1] - ends[0][0]) / middle, np.nan)
        classes = _classes(WIDTHS, WIDTH_COLOURS)
        picture = maps.Picture(width, ends[1], classes, "95 % interval\nover the people")
        found["interval"] = maps.draw_map(picture, own, caption="Blank: fewer\nthan one person")
    change = bands("change", [1])
    if change is not None:
        product = _product(facts, "change")
        assert product is not None
        picture = maps.Picture(change[0][0], change[1], product["classes"], _short(product["unit"]))
        found["change"] = maps.draw_map(picture, own)
    counted = own["census"].to_numpy(float)
    if np.isfinite(counted).any():
        off = own["relative_difference"].to_numpy(float)
        classes = _classes(DIFFERENCE, DIFFERENCE_COLOURS)
        found["residual"] = maps.draw_units(own, off, classes, "model minus census,\nover census")
    return found


def _short(unit: str) -> str:
    return unit if len(unit) <= 24 else unit.replace(" per ", "\nper ")


def _levels(frame: gpd.GeoDataFrame, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What is said of each census level: its counts against the model, and its intervals."""
    found = []
    for told in facts["census"]["levels"]:
        of = frame[frame["level"] == told["level"]]
        counted, predicted = of["census"].to_numpy(float), of["map"].to_numpy(float)
        known = np.isfinite(counted) & np.isfinite(predicted)
        held = _held(of, counted, told["level"], facts)
        found.append(
            {
                **told,
                "scatter": charts.scatter(counted[known], predicted[known], told["level"])
                if known.any()
                else None,
                "compared": int(known.sum()),
                "held": held,
                "coverage": charts.coverage(held) if held else None,
            }
        )
    return found


def _held(
    of: gpd.GeoDataFrame, counted: np.ndarray, level: str, facts: Mapping[str, Any]
) -> dict[str, dict[int, float]]:
    """Whose intervals -> level in per cent -> share of a census level's counts that they held.

    Units that the model was trained on say nothing of its intervals, and those that the map is
    adjusted to hold their count by construction: of these it is told what was held when they were
    predicted by members that had not seen them.
    """
    if level == facts["census"]["level"]:
        shares = ((facts["intervals"].get("model") or {}).get("coverage")) or {}
        unseen = {int(meant): float(found) for meant, found in shares.items()}
        return {"predicted without having been seen": unseen} if unseen else {}
    held = {}
    for title, before in (("the model alone", ""), ("this map", "adjusted_")):
        ends = {
            meant: (of[f"{before}{low}"].to_numpy(float), of[f"{before}{high}"].to_numpy(float))
            for meant, (low, high) in LEVELS.items()
        }
        shares = charts.shares_held(counted, ends)
        if shares:
            held[title] = shares
    return held


def _measured(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of scores: what was scored, on what, and how well."""
    rows = []
    for approach, scales in facts["evaluation"]["metrics"].items():
        title = APPROACHES.get(approach, approach.replace("_", " "))
        for scale, scores in scales.items():
            if isinstance(scores, Mapping) and "r2" in scores:
                rows.append(
                    {
                        "approach": title,
                        "own": approach == "adjusted",
                        "scale": facts["evaluation"].get("unit_level", "unit")
                        if scale == "unit"
                        else scale,
                        "n": scores.get("n"),
                        **{key: scores.get(key) for key in MEASURES},
                    }
                )
    order = list(APPROACHES.values())
    place = {title: k for k, title in enumerate(order)}
    rows.sort(key=lambda row: (row["scale"] == "hectare", place.get(row["approach"], 99)))
    return [*rows, *_unseen(facts)]


def _unseen(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Scores that need no truth: of units that the model had not seen, and within joined units."""
    told = facts["evaluation"].get("without_truth") or {}
    level = facts["census"]["level"]
    found = []
    if told.get("out_of_fold"):
        found.append((APPROACHES["out_of_fold"], level, told["out_of_fold"]))
    for entry in told.get("coarsened") or ():
        for approach, scores in entry["metrics"].items():
            title = APPROACHES.get(approach, approach.replace("_", " "))
            scale = f"{level}, by maps that knew about {entry['joined']} units joined"
            found.append((title, scale, scores))
    return [
        {
            "approach": approach,
            "own": False,
            "scale": scale,
            "n": scores.get("n"),
            **{key: scores.get(key) for key in MEASURES},
        }
        for approach, scale, scores in found
    ]


def _compared(facts: Mapping[str, Any]) -> dict[str, str]:
    """What is said of the comparison with the earlier year, in words."""
    found = facts["change"].get("found") or {}
    return {
        key: people(value) if isinstance(value, float) else str(value)
        for key, value in found.items()
        if isinstance(value, str | int | float) and not isinstance(value, bool)
    }


def _seasons(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    sensors = {"s1": "Sentinel-1", "s2": "Sentinel-2"}
    return [
        {
            **one,
            "sensor": sensors.get(one["sensor"], one["sensor"]),
            "elsewhere": sum(
                value
                for rule, value in (one.get("filled") or {}).items()
                if rule not in ("observed", "empty") and value is not None
            ),
        }
        for one in facts["quality"]["seasons"]
    ]


def _unit_rows(frame: gpd.GeoDataFrame, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The units with most people of the level that the map is adjusted to."""
    own = frame[frame["level"] == facts["census"]["level"]]
    first = own.sort_values("adjusted", ascending=False).head(MOST_UNITS)
    rows = first.drop(columns="geometry").to_dict("records")
    for row in rows:
        row["name"] = row["name"] if isinstance(row["name"], str) else ""
    return {
        "rows": rows,
        "all": len(own),
        "intervals": bool(own["p2_5"].notna().any()),
        "change": bool(own["change"].notna().any()),
    }
