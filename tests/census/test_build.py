"""Both steps together: coverage that adds up, merged units, levels kept apart, random countries."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from popcorn_ml import raster
from popcorn_ml.census.findings import CHECKS, COUNT_CHECKS, UNIT_CHECKS
from popcorn_ml.census.settings import CensusSettings
from popcorn_ml.census.validate import evaluation_kept_out

from . import place
from .place import TOTAL, Unit, build, settings, write_boundaries, write_counts
from .test_units import GRID, squares, voronoi


def test_a_sound_census_passes_every_check(tmp_path: Path) -> None:
    place.write_place(tmp_path)
    built = build(tmp_path)
    assert [c.name for c in built.units.checks] == list(UNIT_CHECKS)
    assert [c.name for c in built.counts.checks] == list(COUNT_CHECKS)
    assert set(CHECKS) == set(UNIT_CHECKS) | set(COUNT_CHECKS)
    assert all(c.passed and not c.rows for c in built.checks.values())
    entry = built.entries()[0]
    assert entry == {
        "number": 1, "id": "0001", "name": "Añasco", "people": 107.0, "kind": "census",
        "method": "census 2020",
    }  # fmt: skip
    assert built.units.coverage["levels"]["district"] == {
        "units": 12, "with_pixels": 12, "by_centre": 12, "best_pixel": 0, "merged": 0,
        "off_grid": 0, "overlapping_pairs": 0, "geometry_findings": 0, "pixels": 19200,
        "area_ha": pytest.approx(192, rel=0.01),
    }  # fmt: skip


def test_merged_units_keep_their_people_together(tmp_path: Path) -> None:
    rows = place.write_place(tmp_path)
    tiny = squares((10.1, 10.1, 10.3, 10.3), (12.1, 10.1, 12.3, 10.3)).geometry
    rows += [Unit("0013", "X", "Nord", 11, tiny[0]), Unit("0014", "Y", "Nord", 5, tiny[1])]
    write_boundaries(tmp_path / "units.gpkg", rows)
    write_counts(tmp_path / "counts.csv", rows)
    built = build(tmp_path, settings(small_units="merge"))
    entries = {e["id"]: e for e in built.entries()}
    assert len(entries) == 12
    assert entries["0001"]["people"] == 107 + 16
    assert entries["0001"]["members"] == ["0001", "0013", "0014"]
    assert built.counts.coverage["levels"]["district"]["people_in_pixels"] == TOTAL + 16
    merged = built.checks["unit_pixels"]
    assert merged.severity == "warn"
    assert [r["merged_into"] for r in merged.rows] == ["0001", "0001"]
    # The table of counts still has each unit's own people.
    assert len(built.counts.counts) == 14


def with_merged(tmp_path: Path, host: object, *guests: object) -> place.Built:
    """The country with the first unit's count, and those of tiny units within it, as given."""
    rows = place.write_place(tmp_path)
    rows[0].people = host
    tiny = squares(*((10.1 + 2 * k, 10.1, 10.3 + 2 * k, 10.3) for k in range(len(guests))))
    rows += [
        Unit(f"{13 + k:04d}", "XYZ"[k], "Nord", people, tiny.geometry[k])
        for k, people in enumerate(guests)
    ]
    write_boundaries(tmp_path / "units.gpkg", rows)
    write_counts(tmp_path / "counts.csv", rows)
    return build(tmp_path, settings(small_units="merge"))


def test_a_merged_unit_without_a_count_leaves_its_host_the_known_people(tmp_path: Path) -> None:
    built = with_merged(tmp_path, 107, "", 5)
    host = built.entries()[0]
    assert (host["id"], host["people"], host["members"]) == ("0001", 112.0, ["0001", "0014"])
    found = built.checks["people_in_pixels"]
    assert (found.passed, found.severity) == (False, "warn")
    (named,) = found.rows
    assert (named["id"], named["name"], named["merged_into"]) == ("0013", "X", "0001")
    covered = built.counts.coverage["levels"]["district"]
    assert (covered["units_without_count"], covered["people_without_pixel"]) == (1, 0)
    assert covered["people_in_pixels"] == TOTAL + 5


def test_people_merged_into_a_unit_without_a_count_have_no_pixel(tmp_path: Path) -> None:
    built = with_merged(tmp_path, "", 11)
    assert "0001" not in {e["id"] for e in built.entries()}
    lost = built.checks["people_in_pixels"]
    assert lost.blocks
    assert (lost.rows[0]["id"], lost.rows[0]["people"]) == ("0013", 11.0)
    covered = built.counts.coverage["levels"]["district"]
    assert (covered["people_in_pixels"], covered["people_without_pixel"]) == (TOTAL - 107, 11)


def test_people_of_units_off_the_grid_are_told(tmp_path: Path) -> None:
    rows = place.write_place(tmp_path)
    far = Unit("0000", "Z", "Nord", 31, shapely.box(520_000, 9_790_000, 520_500, 9_790_500))
    write_boundaries(tmp_path / "units.gpkg", [*rows, far])
    write_counts(tmp_path / "counts.csv", [*rows, far])
    built = build(tmp_path, settings(box=(30.0, -5.0, 35.0, 0.0)))
    assert built.checks["unit_pixels"].blocks
    lost = built.checks["people_in_pixels"]
    assert lost.blocks
    assert [(row["id"], row["people"]) for row in lost.rows] == [("0000", 31.0)]
    assert built.counts.coverage["levels"]["district"]["people_without_pixel"] == 31.0
    assert "0000" not in {e["id"] for e in built.entries()}


def two_levels(tmp_path: Path, **changes) -> dict:
    rows = place.write_place(tmp_path)
    fine = place.halves(rows)
    write_boundaries(tmp_path / "fine.gpkg", fine)
    write_counts(tmp_path / "fine.csv", fine)
    section = settings()
    section["levels"]["sector"] = {
        "role": "evaluate",
        "boundaries": {"file": "fine.gpkg", "columns": {"id": "code", "name": "name"}},
        "counts": {
            "file": "fine.csv", "year": 2020, "columns": {"id": "code", "people": "population"}
        },
        **changes,
    }  # fmt: skip
    return section


def test_evaluation_level_with_the_training_levels_units_is_refused(tmp_path: Path) -> None:
    section = two_levels(tmp_path)
    assert build(tmp_path, section).checks["levels_separate"].passed
    copy = {**section["levels"]["district"], "role": "evaluate"}
    section["levels"]["sector"] = copy
    result = build(tmp_path, section).checks["levels_separate"]
    assert result.blocks
    assert "would measure the training data" in result.message


def test_a_model_trained_on_an_evaluation_level_is_found_out(tmp_path: Path) -> None:
    census = CensusSettings.model_validate(two_levels(tmp_path))
    assert evaluation_kept_out(census, ["district"]).passed
    caught = evaluation_kept_out(census, ["district", "sector"])
    assert caught.blocks
    assert caught.rows == ({"level": "sector", "role": "evaluate"},)


def test_levels_on_the_same_ground_that_disagree(tmp_path: Path) -> None:
    section = two_levels(tmp_path)
    fine = place.halves(place.units())
    for unit in fine:
        unit.people = round(unit.people * 1.2)
    write_counts(tmp_path / "fine.csv", fine)
    result = build(tmp_path, section).checks["levels_agree"]
    assert (result.passed, result.severity) == (False, "warn")


def test_an_evaluation_level_of_one_town_only_is_not_compared(tmp_path: Path) -> None:
    section = two_levels(tmp_path)
    fine = place.halves(place.units())[:6]
    (tmp_path / "fine.gpkg").unlink()
    write_boundaries(tmp_path / "fine.gpkg", fine)
    write_counts(tmp_path / "fine.csv", fine)
    assert build(tmp_path, section).failed == {}


def test_old_counts_are_said_aloud(tmp_path: Path) -> None:
    place.write_place(tmp_path)
    result = build(tmp_path, settings(), year=2035).checks["years"]
    assert (result.passed, result.severity) == (False, "warn")


def test_national_growth_is_used_and_recorded(tmp_path: Path) -> None:
    place.write_place(tmp_path)
    section = settings(annual_growth=0.02, national_totals={2020: TOTAL})
    built = build(tmp_path, section, year=2022)
    assert not built.failed
    assert built.counts.totals["district"] == pytest.approx(TOTAL * 1.02**2)
    assert {(e["kind"], e["method"]) for e in built.entries()} == {
        ("projection", "national growth rate from 2020")
    }
    assert set(built.counts.counts["base_year"]) == {2020}


@budget(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(2, 40),
    rule=st.sampled_from(["best_pixel", "merge"]),
    withheld=st.sampled_from([0.0, 0.3]),
)
def test_people_are_conserved_in_random_countries(
    seed: int, count: int, rule: str, withheld: float
) -> None:
    """Units of all sizes, some below a pixel, some without a count: nobody is lost or doubled."""
    rng = np.random.default_rng(seed)
    frame = voronoi(seed, count)
    holes = squares(*[
        (x, y, x + size, y + size)
        for x, y, size in zip(
            rng.uniform(0, 55, 8), rng.uniform(0, 45, 8), rng.uniform(0.01, 1.5, 8), strict=True
        )
    ])  # fmt: skip
    geometry = [*frame.geometry, *holes.geometry]
    rows = [
        Unit(f"{k:03d}", f"unit {k}", "", int(rng.integers(0, 5000)), g)
        for k, g in enumerate(geometry)
    ]
    for unit in rows[1:]:
        if rng.random() < withheld:
            unit.people = ""
    counted = {unit.id: unit.people for unit in rows if unit.people != ""}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_boundaries(folder / "units.gpkg", rows)
        write_counts(folder / "counts.csv", [*rows, Unit("999", "elsewhere", "", 321, None)])
        section = settings(small_units=rule, max_people_per_ha=1e6)
        built = build(folder, section, grid=GRID)
        covered = built.counts.coverage["levels"]["district"]
        total = sum(counted.values())
        assert covered["years"]["2020"]["people"] == total + 321
        assert covered["years"]["2020"]["people_unmatched"] == 321
        placed = sum(e["people"] for e in built.entries())
        assert placed + covered["people_without_pixel"] == pytest.approx(total)
        host = dict(zip(built.units.units["id"], built.units.units["merged_into"], strict=True))
        stranded = {unit for unit in counted if host[unit] and host[unit] not in counted}
        assert covered["people_without_pixel"] == sum(counted[unit] for unit in stranded)
        assert built.checks["people_in_pixels"].blocks == any(counted[unit] for unit in stranded)
        # Each entry's number is in the raster, and no other counted unit's but those merged away.
        burnt = raster.read(built.units.rasters["district"], bands=1)
        ids = dict(zip(built.units.units["number"], built.units.units["id"], strict=True))
        on_grid = {ids[number] for number in np.unique(burnt).tolist() if number}
        assert {ids[e["number"]] for e in built.entries()} == on_grid & counted.keys()
        members = [m for e in built.entries() for m in e.get("members", [e["id"]])]
        assert sorted(members) == sorted(counted.keys() - stranded)
