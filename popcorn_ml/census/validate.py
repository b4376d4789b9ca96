"""Judging counts: what training, adjustment or evaluation must not be given, and why.

Each function takes tables and gives findings; `findings.results` gathers them into checks. What
is wrong with files and polygons themselves is found where they are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from popcorn_ml.census.findings import CheckResult, Finding, results, rows_text
from popcorn_ml.census.settings import CensusSettings

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

FAR_YEARS = 12
"""Years between a count and the year it is used for, above which it is said aloud."""
RATE_ERROR = 0.15
"""Growth a year, either way, that no country's units keep up."""
RATE_WARN = 0.08
"""Growth a year that is remarkable when kept up for `LONG_SPAN` years; single years are jumpy."""
LONG_SPAN = 5
JUMP = 3.0
"""Factor between two counts that is remarkable however many years lie between them."""
SMALL_COUNT = 500
"""People below which a unit's growth says little."""
SMALL_UNIT_HA = 10.0
"""Units below this area are left out of the density check: one tower block fills them."""
LEVELS_TOLERANCE = 0.02
SAME_GROUND = 0.9
"""Share of the union of two units from which they are the same place."""
SHARED_ERROR = 0.5
"""Share of an evaluation level's units from which it is the training level under other names."""
COUNT_COLUMNS = ("id", "name", "parent", "unit", "year", "people", "kind", "file", "row")


@lru_cache(maxsize=1)
def counts_schema():
    """The pandera schema of joined counts: one row a unit and year, whole people, none negative.

    Names of its checks are names in `findings.COUNT_CHECKS`.
    """
    import pandera.pandas as pa

    def whole(frame: pd.DataFrame) -> pd.Series:
        people = frame["people"]
        return (frame["kind"] != "census") | people.isna() | (people.round() == people)

    def once(frame: pd.DataFrame) -> pd.Series:
        return ~frame.duplicated(["unit", "year"], keep=False) | (frame["unit"] == "")

    # Own functions rather than built-in checks, whose failures do not bear the name given here.
    in_range = pa.Check(lambda year: year.between(1800, 2199), name="years")
    not_negative = pa.Check(lambda people: people >= 0, name="counts_nonnegative")
    return pa.DataFrameSchema(
        {
            "unit": pa.Column(str),
            "year": pa.Column(int, in_range),
            "people": pa.Column(float, not_negative, nullable=True),
            "kind": pa.Column(str),
        },
        checks=[
            pa.Check(whole, name="counts_whole", ignore_na=False),
            pa.Check(once, name="counts_unique"),
        ],
    )


def rows(counts: pd.DataFrame) -> tuple[pd.DataFrame, list[Finding]]:
    """Judge joined rows one by one.

    Repeated rows that agree are made one and said so; a row that is wrong is left without its
    count, so that nothing wrong goes on, and the finding blocks.

    Args:
        counts: `COUNT_COLUMNS` and more.

    Returns:
        The counts to go on with, one row a unit and year, and the findings.
    """
    import pandera.errors

    counts, findings = _once(counts)
    try:
        counts_schema().validate(counts, lazy=True)
    except pandera.errors.SchemaErrors as error:
        cases = error.failure_cases
        wrong: dict[str, set[Any]] = {}
        for check, index in zip(cases["check"], cases["index"], strict=True):
            wrong.setdefault(str(check), set()).add(index)
        for check, places in sorted(wrong.items()):
            chosen = counts.loc[sorted(p for p in places if p in counts.index)]
            if check not in ROW_MESSAGES:
                raise  # a type no reader may give: not the operator's fault
            findings.append(_row_finding(check, chosen))
            counts = counts.copy()
            counts.loc[chosen.index, "people"] = float("nan")
    return counts, findings


ROW_MESSAGES: Mapping[str, str] = {
    "counts_nonnegative": "have a negative count. Correct them; codes such as -1 or -99 stand for "
    "missing values and should be empty",
    "counts_whole": "of a census have a fraction of a person. Were thousands separated by a full "
    "stop? State `thousands`, or `kind: estimate` if these are no counts",
    "counts_unique": "give different counts for one unit and year. Keep one of them",
    "years": "have a year out of range",
}


def _row_finding(check: str, chosen: pd.DataFrame) -> Finding:
    described = tuple(_described(row) for _, row in chosen.iterrows())
    files = ", ".join(sorted(set(chosen["file"])))
    return Finding(
        check,
        "error",
        f"{files}: rows that {ROW_MESSAGES[check]}: {rows_text(described)}",
        described,
    )


def _described(row: pd.Series) -> dict[str, Any]:
    return {
        "file": row["file"],
        "row": int(row["row"]),
        "id": row["id"],
        "name": row["name"],
        "year": int(row["year"]),
        "people": None if row["people"] != row["people"] else float(row["people"]),
    }


def _once(counts: pd.DataFrame) -> tuple[pd.DataFrame, list[Finding]]:
    """Rows that say the same of one unit and year twice, made one."""
    placed = counts["unit"] != ""
    again = placed & counts.duplicated(["unit", "year", "people"], keep="first")
    if not again.any():
        return counts, []
    described = tuple(_described(row) for _, row in counts[again].iterrows())
    finding = Finding(
        "counts_unique",
        "warn",
        f"{described[0]['file']}: rows that repeat another and were counted once: "
        f"{rows_text(described)}. Remove them",
        described,
    )
    return counts[~again], [finding]


def density(counts: pd.DataFrame, settings: CensusSettings) -> list[Finding]:
    """Units denser than `max_people_per_ha`.

    Args:
        counts: id, name, file, row, people, area_ha.
        settings: the country's.
    """
    dense = counts[
        (counts["area_ha"] >= SMALL_UNIT_HA)
        & (counts["people"] > settings.max_people_per_ha * counts["area_ha"])
    ]
    if dense.empty:
        return []
    described = tuple(
        {
            "file": r["file"], "row": int(r["row"]), "id": r["id"], "name": r["name"],
            "people": float(r["people"]), "people_per_ha": round(r["people"] / r["area_ha"], 1),
        }
        for _, r in dense.iterrows()
    )  # fmt: skip
    return [
        Finding(
            "density",
            "error",
            f"{described[0]['file']}: units that hold more than "
            f"{settings.max_people_per_ha:g} people per hectare: {rows_text(described)}. See "
            "whether the counts are of these units, and the boundaries in the right CRS; raise "
            "`max_people_per_ha` if the place is that dense",
            described,
        )
    ]


def national_total(
    level: str, total: float, year: int, settings: CensusSettings, file: str
) -> list[Finding]:
    """The level's sum against the stated national figure.

    A figure of another year is taken to the year at the country's growth, and compared with 5
    points more tolerance for each year between.
    """
    if not settings.national_totals:
        return []
    nearest = min(settings.national_totals, key=lambda y: (abs(y - year), y))
    stated = settings.national_totals[nearest]
    expected = stated * (1 + (settings.annual_growth or 0.0)) ** (year - nearest)
    tolerance = settings.national_tolerance + 0.05 * abs(year - nearest)
    off = abs(total - expected) / expected
    if off <= tolerance:
        return []
    ratio = total / expected if total >= expected else expected / max(total, 1e-9)
    hint = ""
    for factor in (2, 10, 100, 1000, 1_000_000):
        if abs(ratio - factor) < 0.1 * factor:
            way = "too high" if total > expected else "too low"
            hint = f" It is {factor} times {way}: "
            hint += (
                "are totals, or both sexes and their sum, counted twice?"
                if factor == 2
                else "are the counts in another unit, such as thousands?"
            )
    return [
        Finding(
            "national_total",
            "error",
            f"{file}: level {level} adds up to {total:,.0f} people in {year}, the national figure "
            f"is {expected:,.0f} (stated for {nearest}), {100 * off:.1f} % apart where "
            f"{100 * tolerance:.1f} % pass.{hint} Correct the counts or `national_totals`",
            ({"file": file, "level": level, "people": total, "stated": stated, "year": nearest},),
        )
    ]


def growth_between(counts: pd.DataFrame) -> list[Finding]:
    """Units that grew or shrank between two counts as no place does.

    Args:
        counts: joined rows of all years.
    """
    found: list[tuple[float, dict[str, Any]]] = []
    several = counts[(counts["unit"] != "") & counts["people"].notna()]
    several = several[several.groupby("unit")["year"].transform("nunique") > 1]
    for unit, group in several.sort_values("year").groupby("unit", sort=True):
        pairs = list(zip(group["year"], group["people"], group["row"], group["file"], strict=True))
        for (y1, p1, _, _), (y2, p2, row, file) in pairwise(pairs):
            if y2 == y1 or min(p1, p2) <= 0 or max(p1, p2) < SMALL_COUNT:
                continue
            rate = (p2 / p1) ** (1 / (y2 - y1)) - 1
            if max(p1 / p2, p2 / p1) > JUMP or (y2 - y1 >= LONG_SPAN and abs(rate) > RATE_WARN):
                item = {"file": file, "row": int(row), "id": unit, "years": f"{y1}-{y2}"}
                found.append((abs(rate), {**item, "from": p1, "to": p2, "rate": round(rate, 4)}))
    if not found:
        return []
    described = tuple(item for _, item in sorted(found, key=lambda f: -f[0]))
    wild = sum(rate > RATE_ERROR for rate, _ in found)
    # Single units do boom; when many do, the two tables are not of the same units.
    systematic = wild > 0.25 * several["unit"].nunique() and wild > 2
    return [
        Finding(
            "growth",
            "error" if systematic else "warn",
            f"{described[0]['file']}: units that grow or shrink as places "
            f"hardly do: {rows_text(described)}. See whether the two tables "
            "are of the same units and in the same measure",
            described,
        )
    ]


def unit_growth(counts: pd.DataFrame) -> list[Finding]:
    """Stated growth rates that are percent where fractions are meant."""
    rated = counts[counts["annual_growth"].notna()]
    wild = rated[rated["annual_growth"].abs() > RATE_ERROR]
    if wild.empty:
        return []
    described = tuple(
        {
            "file": r["file"], "row": int(r["row"]), "id": r["id"],
            "annual_growth": float(r["annual_growth"]),
        }
        for _, r in wild.iterrows()
    )  # fmt: skip
    return [
        Finding(
            "growth",
            "error",
            f"{described[0]['file']}: stated growth rates beyond "
            f"{100 * RATE_ERROR:.0f} % a year: {rows_text(described)}. Write fractions: 0.023 for "
            "2.3 %",
            described,
        )
    ]


def years(level: str, base_years: Sequence[int], year: int, file: str) -> list[Finding]:
    """Whether the nearest counts are far from the year they are used for."""
    far = sorted({y for y in base_years if abs(y - year) > FAR_YEARS})
    if not far:
        return []
    return [
        Finding(
            "years",
            "warn",
            f"{file}: level {level} uses counts of {', '.join(map(str, far))} for {year}; that "
            "far, a projection says little. Add a later census or estimate",
            ({"file": file, "level": level, "years": ", ".join(map(str, far)), "year": year},),
        )
    ]


def levels_agree(sums: Mapping[str, tuple[float, float]], train: str) -> list[Finding]:
    """Levels that cover the same ground (to 2 % of area) against the training level.

    Args:
        sums: level -> (people, area in ha) of its units with counts.
        train: the training level.
    """
    if train not in sums:
        return []
    people, area = sums[train]
    findings = []
    for level, (other, other_area) in sums.items():
        same_ground = abs(other_area - area) <= LEVELS_TOLERANCE * max(area, 1e-9)
        if level == train or not same_ground or people <= 0:
            continue
        off = abs(other - people) / people
        if off > LEVELS_TOLERANCE:
            findings.append(
                Finding(
                    "levels_agree",
                    "warn",
                    f"level {level} adds up to {other:,.0f} people, level {train} to "
                    f"{people:,.0f} on the same ground ({100 * off:.1f} % apart). See whether "
                    "they are of one census",
                    ({"level": level, "people": other, "train_level_people": people},),
                )
            )
    return findings


def levels_separate(
    tables: Mapping[str, gpd.GeoDataFrame], settings: CensusSettings
) -> list[Finding]:
    """Evaluation levels whose units are those of the training level, whatever they are called.

    A unit is shared where the training level has one of the same ground (`SAME_GROUND` of their
    union) with the same people (to `LEVELS_TOLERANCE`, or a person).

    Args:
        tables: level -> id, people, geometry of its units with counts.
        settings: the country's.
    """
    train = settings.train_level
    findings = []
    for level in settings.evaluation_levels:
        own = tables[level]
        shared = shared_units(own, tables[train])
        if not shared:
            continue
        many = len(shared) >= SHARED_ERROR * len(own)
        rows = tuple(
            {"level": level, "id": unit, "same_as": other} for unit, other in sorted(shared.items())
        )
        findings.append(
            Finding(
                "levels_separate",
                "error" if many else "warn",
                f"level {level} shares {len(shared)} of its {len(own)} units, ground and people, "
                f"with the training level {train}: {rows_text(rows)}. Evaluation on these would "
                "measure the training data. "
                + ("Give finer units" if many else "See whether the scores rest on them"),
                rows,
            )
        )
    return findings


def shared_units(one: gpd.GeoDataFrame, other: gpd.GeoDataFrame) -> dict[str, str]:
    """Units of one table that another has as well, by ground and people: id -> the other's id."""
    import numpy as np
    import shapely

    from popcorn_ml.census.globe import equal_area

    left, right = equal_area(one), equal_area(other)
    area, other_area = shapely.area(left), shapely.area(right)
    people, other_people = one["people"].to_numpy(), other["people"].to_numpy()
    inside = shapely.point_on_surface(left)
    i, j = shapely.STRtree(right).query(inside)
    # Cheap tests first: of a fine level, next to no pair goes on to the intersection.
    alike = np.minimum(area[i], other_area[j]) >= SAME_GROUND * np.maximum(area[i], other_area[j])
    apart = np.abs(people[i] - other_people[j])
    alike &= apart <= np.maximum(LEVELS_TOLERANCE * np.maximum(people[i], other_people[j]), 1.0)
    i, j = i[alike], j[alike]
    common = shapely.area(shapely.intersection(left[i], right[j]))
    same = common >= SAME_GROUND * (area[i] + other_area[j] - common)
    ids, other_ids = list(one["id"]), list(other["id"])
    return {ids[a]: other_ids[b] for a, b in zip(i[same], j[same], strict=True)}


def evaluation_kept_out(settings: CensusSettings, trained_on: Sequence[str]) -> CheckResult:
    """Whether a model was trained on none of the evaluation levels.

    Args:
        settings: the country's.
        trained_on: names of the levels that the model's card or manifest says it used.
    """
    used = sorted(set(trained_on) & set(settings.evaluation_levels))
    findings = [
        Finding(
            "levels_separate",
            "error",
            f"the model was trained on {', '.join(used)}, which the country's file keeps for "
            "evaluation. Train on the level with the role `train`, or evaluate on another",
            tuple({"level": level, "role": "evaluate"} for level in used),
        )
    ]
    return results(
        {"levels_separate": "Training used no evaluation level."}, findings if used else []
    )[0]
