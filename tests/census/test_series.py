"""Counts of several years: of one ground and one measure, or named in an error."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import shapely

from popcorn_ml.census.findings import CheckResult
from popcorn_ml.census.projection import project

from .place import Built, Unit, build, settings, units, write_boundaries

BASE = [1000, 1050, 1100, 1150, 1200, 1250, 1300, 1350, 1400, 1450, 5000, 2300]
LAST = "0011"
"""The unit that is split, merged or redrawn; its eastern neighbour is 0012."""


def table(folder: Path, year: int, people: dict[str, float | str], name: str = "counts") -> None:
    folder.mkdir(exist_ok=True)
    with open(folder / f"{name}_{year}.csv", "w", newline="") as stream:
        out = csv.writer(stream)
        out.writerow(["code", "people"])
        out.writerows(people.items())


def grown(rate: float = 0.0, years: int = 0, **changes: float | str | None) -> dict[str, Any]:
    """People after some years of growth; `u0011=...` replaces one, None leaves it out."""
    people = {f"{k + 1:04d}": round(p * (1 + rate) ** years) for k, p in enumerate(BASE)}
    people |= {unit.removeprefix("u"): p for unit, p in changes.items()}
    return {unit: p for unit, p in people.items() if p is not None}


def section(level: dict[str, Any] | None = None, **country: Any) -> dict[str, Any]:
    columns = {"id": "code", "people": "people"}
    out = settings(counts={"file": "counts_{year}.csv", "columns": columns}, **country)
    out["levels"]["district"] |= level or {}
    return out


def run(folder: Path, year: int, **options: Any) -> Built:
    if not (folder / "units.gpkg").exists():
        write_boundaries(folder / "units.gpkg", units())
    return build(folder, section(**options), year)


def people(built: Built) -> dict[str, float]:
    return {e["id"]: e["people"] for e in built.entries()}


def named(check: CheckResult) -> set[str]:
    return {str(row["id"]) for row in check.rows}


# One ground -------------------------------------------------------------------------------------


@pytest.mark.parametrize("year", [2016, 2019, 2026])
def test_a_unit_split_off_is_named_wherever_the_older_table_is_used(
    tmp_path: Path, year: int
) -> None:
    table(tmp_path, 2016, grown(u0012=None))
    table(tmp_path, 2022, grown(0.02, 6, u0011=3200, u0012=2400))
    ground = run(tmp_path, year).checks["same_ground"]
    assert ground.blocks
    assert named(ground) == {"0012"}
    assert "`changes`" in ground.message


def test_in_the_newer_tables_own_year_a_split_takes_nothing_from_anybody(tmp_path: Path) -> None:
    table(tmp_path, 2016, grown(u0012=None))
    table(tmp_path, 2022, grown(0.02, 6, u0011=3200, u0012=2400))
    built = run(tmp_path, 2022)
    assert not built.failed
    assert people(built)["0012"] == 2400


@pytest.mark.parametrize("year", [2016, 2019, 2022])
def test_units_merged_into_one_that_keeps_its_identifier_are_named(
    tmp_path: Path, year: int
) -> None:
    """The level has the older units; the newer table counts 0010 to 0012 as 0011."""
    table(tmp_path, 2016, grown())
    table(tmp_path, 2022, grown(0.02, 6, u0010=None, u0011=9900, u0012=None))
    check = run(tmp_path, year).checks["same_ground"]
    if year == 2016:
        assert check.passed
    else:
        assert check.blocks
        assert named(check) == {"0010", "0012"}


@pytest.mark.parametrize(("year", "role"), [(2022, "train"), (2019, "evaluate")])
def test_a_split_that_only_the_newer_table_knows_is_named(
    tmp_path: Path, year: int, role: str
) -> None:
    """Its part has no polygon: at a level for evaluation that alone is but a warning."""
    rows = units()[:11]
    write_boundaries(tmp_path / "units.gpkg", rows)
    table(tmp_path, 2016, grown(u0012=None))
    table(tmp_path, 2022, grown(0.02, 6, u0011=3200, u0012=2400))
    spec = section()
    if role == "evaluate":
        level = spec["levels"]["district"]
        table(tmp_path, 2016, grown(u0012=None), "other")
        counts = {"file": "other_{year}.csv", "columns": {"id": "code", "people": "people"}}
        spec["levels"] = {
            "other": {**level, "counts": counts}, "district": {**level, "role": "evaluate"}
        }  # fmt: skip
    check = build(tmp_path, spec, year).checks["same_ground"]
    assert check.blocks
    assert named(check) == {"0012"}


@pytest.mark.parametrize("year", [2019, 2024])
def test_ground_exchanged_between_neighbours_is_named(tmp_path: Path, year: int) -> None:
    table(tmp_path, 2016, grown())
    table(tmp_path, 2022, grown(0.02, 6, u0011=3300, u0012=4920))
    check = run(tmp_path, year).checks["same_ground"]
    assert check.blocks
    assert named(check) == {"0011", "0012"}
    assert run(tmp_path, 2022).checks["same_ground"].passed


def test_a_town_that_grows_by_itself_is_not_held_for_a_redrawn_one(tmp_path: Path) -> None:
    """0001 loses what 0008 gains, but they are no neighbours."""
    table(tmp_path, 2016, grown())
    table(tmp_path, 2022, grown(0.02, 6, u0001=700, u0008=1950))
    assert run(tmp_path, 2019).checks["same_ground"].passed


def test_tables_of_a_part_of_the_country_are_what_they_are(tmp_path: Path) -> None:
    """A survey of four units of twelve counts these; a suppressed count is still a row."""
    table(tmp_path, 2016, grown(u0003=""))
    table(tmp_path, 2020, {"0001": 1100, "0002": 1150, "0005": 1300, "0006": 1350})
    built = run(tmp_path, 2020)
    assert built.checks["same_ground"].passed
    assert people(built)["0001"] == 1100
    assert people(built)["0011"] == 5000


# Stated changes ---------------------------------------------------------------------------------


def changes(folder: Path, *rows: str, header: str = "old,new,share") -> dict[str, Any]:
    (folder / "changes.csv").write_text("\n".join([header, *rows]) + "\n")
    return {"changes": {"file": "changes.csv", "year": 2020}}


@pytest.mark.parametrize(
    ("year", "total"), [(2016, 17250.0), (2019, (17250 * 19583) ** 0.5), (2022, 19583.0)]
)
@pytest.mark.parametrize("stated", ["0.6", ""])
def test_a_stated_split_gives_every_year_its_own_total(
    tmp_path: Path, year: int, total: float, stated: str
) -> None:
    rest = "" if stated == "" else "0.4"
    level = changes(tmp_path, f"0011,0011,{stated}", f"0011,0012,{rest}")
    table(tmp_path, 2016, grown(u0012=None))
    table(tmp_path, 2022, grown(0.0217, 6, u0011=3200, u0012=2300))
    newer = sum(grown(0.0217, 6, u0011=3200, u0012=2300).values())
    built = run(tmp_path, year, level=level)
    assert not built.failed
    expected = {2016: 17250.0, 2019: (17250 * newer) ** 0.5, 2022: newer}[year]
    assert sum(people(built).values()) == pytest.approx(expected, rel=2e-3)
    assert {s.file for s in built.counts.sources} >= {"changes.csv"}
    if year == 2016:
        share = 0.6 if stated else 3200 / 5500
        assert people(built)["0011"] == pytest.approx(5000 * share)
        assert people(built)["0011"] + people(built)["0012"] == pytest.approx(5000)


def test_a_three_way_split_a_merger_and_a_renaming_in_one_table(tmp_path: Path) -> None:
    level = changes(
        tmp_path, "0010,0010,0.5", "0010,0011,0.25", "0010,0012,0.25", "A,0001,1", "B,0001,1",
        "C,0002,1",
    )  # fmt: skip
    old = grown(u0001=None, u0002=None, u0011=None, u0012=None) | {"A": 600, "B": 400, "C": 1050}
    table(tmp_path, 2016, old)
    table(tmp_path, 2022, grown(0.01, 6, u0010=800, u0011=400, u0012=400))
    built = run(tmp_path, 2016, level=level)
    assert not built.failed
    found = people(built)
    assert (found["0001"], found["0002"]) == (1000, 1050)
    assert [found[u] for u in ("0010", "0011", "0012")] == [725, 362.5, 362.5]
    assert sum(found.values()) == pytest.approx(sum(old.values()))


def test_where_the_level_has_the_older_units_newer_counts_go_back(tmp_path: Path) -> None:
    write_boundaries(tmp_path / "units.gpkg", units()[:11])
    level = changes(tmp_path, "0011,0011,0.6", "0011,0012,0.4")
    table(tmp_path, 2016, grown(u0012=None))
    table(tmp_path, 2022, grown(0.02, 6, u0011=3200, u0012=2400))
    built = run(tmp_path, 2022, level=level)
    assert not built.failed
    assert people(built)["0011"] == 5600
    between = run(tmp_path, 2019, level=level)
    assert people(between)["0011"] == pytest.approx((5000 * 5600) ** 0.5)


def test_neighbours_stated_to_be_unchanged_are_taken_as_they_are(tmp_path: Path) -> None:
    level = changes(tmp_path, "0011,0011,1", "0012,0012,1")
    table(tmp_path, 2016, grown())
    table(tmp_path, 2022, grown(0.02, 6, u0011=3300, u0012=4920))
    assert run(tmp_path, 2019, level=level).checks["same_ground"].passed


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (["0011,0011,0.6", "0011,0012,0.3"], "shares add up to 0.9"),
        (["0011,0011,0.6", "0011,0099,0.4"], "there is no such new unit"),
        (["0077,0012,1"], "no table counts the old unit"),
        (["0011,0011,0.6", "0011,0012,"], "some shares are missing"),
    ],
)
def test_changes_that_cannot_be_are_named(tmp_path: Path, rows: list[str], text: str) -> None:
    table(tmp_path, 2016, grown(u0012=None))
    table(tmp_path, 2022, grown(0.02, 6, u0011=3200, u0012=2400))
    check = run(tmp_path, 2022, level=changes(tmp_path, *rows)).checks["same_ground"]
    assert check.blocks
    assert text in check.message


# The ground of an older set ---------------------------------------------------------------------


def older(folder: Path, how: str) -> dict[str, float]:
    """An older boundary set and its counts of 2016; what they are called says nothing."""
    rows = units()
    last = {u.id: u for u in rows}
    west, south, east, north = shapely.union(last["0011"].geometry, last["0012"].geometry).bounds
    if how == "split":
        last["0011"].geometry = shapely.box(west, south, east, north)
        rows = rows[:11]
    elif how == "merged":  # one of today's was three
        west, south, east, north = last["0011"].geometry.bounds
        third = (east - west) / 3
        cut = [
            shapely.box(west + k * third, south, west + (k + 1) * third, north) for k in range(3)
        ]
        last["0011"].geometry = cut[0]
        rows += [Unit(f"X{k}", "", "", 0, g) for k, g in enumerate(cut[1:])]
    else:  # half of 0012 was 0011's
        middle = (west + east) / 2 + (east - west) / 4
        last["0011"].geometry = shapely.box(west, south, middle, north)
        last["0012"].geometry = shapely.box(middle, south, east, north)
    write_boundaries(folder / "older.gpkg", rows, to="EPSG:4326")
    counts = grown(u0012=None) if how == "split" else grown()
    if how == "merged":
        counts |= {"0011": 4000, "X0": 500, "X1": 500}
    elif how == "redrawn":
        counts |= {"0011": 6150, "0012": 1150}
    table(folder, 2016, counts, "old")
    return counts


def two_sets(newer: bool = True) -> dict[str, Any]:
    columns = {"id": "code", "people": "people"}
    old = {
        "file": "old_2016.csv", "year": 2016, "columns": columns,
        "boundaries": {"file": "older.gpkg", "columns": {"id": "code"}},
    }  # fmt: skip
    new = {"file": "counts_2022.csv", "year": 2022, "columns": columns}
    return {"counts": [old, new] if newer else [old]}


@pytest.mark.parametrize("how", ["split", "merged", "redrawn"])
def test_counts_of_an_older_set_keep_their_total_on_todays_units(tmp_path: Path, how: str) -> None:
    counts = older(tmp_path, how)
    newer = grown(0.01, 6, **({"u0011": 3960, "u0012": 1320} if how == "split" else {}))
    table(tmp_path, 2022, newer)
    built = run(tmp_path, 2016, level=two_sets())
    found = people(built)
    assert sum(found.values()) == pytest.approx(sum(counts.values()))
    assert {n for n, c in built.failed.items() if c.blocks} == set()
    assert all(found[u] == counts[u] for u in counts if u in found and u < "0011")
    if how == "split":
        assert found["0011"] == pytest.approx(0.75 * counts["0011"])
        assert found["0012"] == pytest.approx(0.25 * counts["0011"])
    elif how == "merged":
        assert found["0011"] == counts["0011"] + counts["X0"] + counts["X1"]
    between = run(tmp_path, 2019, level=two_sets())
    expected = (sum(counts.values()) * sum(newer.values())) ** 0.5
    assert sum(people(between).values()) == pytest.approx(expected, rel=2e-3)


def test_an_older_set_alone_does_not_say_who_lives_in_the_parts(tmp_path: Path) -> None:
    older(tmp_path, "split")
    check = run(tmp_path, 2016, level=two_sets(newer=False)).checks["same_ground"]
    assert check.blocks
    assert named(check) == {"0011"}
    assert "0011, 0012" in check.message


# One measure ------------------------------------------------------------------------------------


def totals(folder: Path, series: dict[int, float]) -> None:
    whole = sum(BASE)
    for year, total in series.items():
        table(folder, year, {u: round(p * total / whole) for u, p in grown().items()})


BROKEN = {
    "estimates, then a census": ({2018: 20000, 2019: 19850, 2020: 20965}, 2026, (2019, 2020)),
    "a census corrects estimates downwards": (
        {2016: 20000, 2017: 20400, 2018: 20800, 2020: 19600}, 2024, (2018, 2020)
    ),
    "a revision in the middle": (
        {2014: 20000, 2016: 20600, 2017: 22700, 2019: 23300}, 2022, (2016, 2017)
    ),
    "between the two points": ({2010: 20000, 2012: 20400, 2014: 23900}, 2013, (2012, 2014)),
    "two points, and no such growth": ({2019: 20000, 2020: 21200}, 2026, (2019, 2020)),
    "another definition": ({2000: 20000, 2010: 24000, 2020: 45000}, 2024, (2010, 2020)),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_step_that_no_growth_explains_stops_with_both_points(tmp_path: Path, case: str) -> None:
    series, year, (first, last) = BROKEN[case]
    totals(tmp_path, series)
    check = run(tmp_path, year).checks["growth"]
    assert check.blocks
    (row,) = [r for r in check.rows if "from_year" in r]
    assert (row["from_year"], row["to_year"]) == (first, last)
    assert f"breaks: {{{last}: later}}" in check.message
    assert not run(tmp_path, last).checks["growth"].blocks, "its own table says"


@pytest.mark.parametrize(
    ("series", "year"),
    [
        ({1978: 4831, 1991: 7157, 2002: 8128, 2012: 10516, 2022: 13246}, 2026),  # Rwanda
        ({2018: 20000, 2019: 20300, 2020: 20620}, 2026),
        ({2010: 20000, 2020: 31000}, 2030),  # a town that grows by 4.5 %
        ({2011: 20000, 2014: 19700, 2017: 19500, 2021: 19100}, 2024),
        ({2018: 20000, 2019: 19850, 2020: 20965}, 2019),  # its own table says
    ],
)
def test_real_growth_passes(tmp_path: Path, series: dict[int, float], year: int) -> None:
    totals(tmp_path, {y: p if p > 15000 else 1000 * p / 4831 * 18 for y, p in series.items()})
    assert run(tmp_path, year).checks["growth"].passed


@pytest.mark.parametrize(
    ("side", "year", "total"),
    [
        ("later", 2026, 20965), ("later", 2018, 20965), ("both", 2026, 20965),
        ("both", 2017, 20000 * (20000 / 19850)), ("earlier", 2026, 19850 * (19850 / 20000) ** 7),
        ("real", 2026, 20965 * (20965 / 20000) ** 3),
    ],
)  # fmt: skip
def test_the_countrys_file_says_which_to_use(
    tmp_path: Path, side: str, year: int, total: float
) -> None:
    totals(tmp_path, BROKEN["estimates, then a census"][0])
    built = run(tmp_path, year, level={"breaks": {2020: side}})
    assert built.checks["growth"].passed
    assert sum(people(built).values()) == pytest.approx(total, rel=1e-3)


def test_growth_beyond_is_that_of_five_years_where_they_are_counted() -> None:
    series = {2014: (900.0, "estimate"), 2015: (1000.0, "estimate"), 2019: (1050.0, "estimate")}
    out = project({**series, 2020: (1100.0, "estimate")}, 2025)
    assert out.method == "geometric growth beyond 2015 and 2020"
    assert out.people == pytest.approx(1100 * 1.1)


# Levels and the grid ----------------------------------------------------------------------------


@pytest.mark.parametrize(("alike", "severity"), [(12, "error"), (11, "error"), (2, "warn")])
def test_an_evaluation_level_is_held_against_the_training_levels_ground_and_people(
    tmp_path: Path, alike: int, severity: str
) -> None:
    """Other identifiers, another order, another CRS; the rest has its people elsewhere."""
    mine = grown()
    theirs = [Unit(f"E{u.id}", f"Other {k}", "", 0, u.geometry) for k, u in enumerate(units())]
    write_boundaries(tmp_path / "theirs.gpkg", theirs[::-1], to="EPSG:4326")
    table(tmp_path, 2020, mine)
    counts = [p if k < alike else 2 * p for k, p in enumerate(mine.values())]
    table(tmp_path, 2020, dict(zip((u.id for u in theirs), counts, strict=True)), "theirs")
    spec = section()
    level = spec["levels"]["district"]
    spec["levels"]["e"] = {
        **level, "role": "evaluate",
        "boundaries": {"file": "theirs.gpkg", "columns": {"id": "code"}},
        "counts": {**level["counts"], "file": "theirs_{year}.csv"},
    }  # fmt: skip
    write_boundaries(tmp_path / "units.gpkg", units())
    check = build(tmp_path, spec, 2020).checks["levels_separate"]
    assert not check.passed
    assert check.severity == severity
    assert f"shares {alike} of its 12 units" in check.message


@pytest.mark.parametrize(("inside", "severity"), [(0.05, "error"), (0.4, "error"), (0.7, "warn")])
def test_people_of_a_unit_that_lies_mostly_off_the_grid(
    tmp_path: Path, inside: float, severity: str
) -> None:
    rows = units()
    west, south, east, north = rows[3].geometry.bounds
    rows[3].geometry = shapely.box(west, south, west + (east - west) / inside, north)
    write_boundaries(tmp_path / "units.gpkg", rows)
    table(tmp_path, 2020, grown())
    check = run(tmp_path, 2020).checks["unit_pixels"]
    assert not check.passed
    assert check.severity == severity
    assert check.rows[0]["share_inside"] == pytest.approx(inside, abs=1e-3)
    assert run(tmp_path, 2020, least_on_grid=0.01).checks["unit_pixels"].severity == "warn"
