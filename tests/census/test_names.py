"""Names of places in every script: letter by letter first, and what was let go is listed."""

from __future__ import annotations

import time

import pandas as pd
import pytest

from popcorn_ml.census import asides, join
from popcorn_ml.census.likeness import Names
from popcorn_ml.census.text import name_key, spelling_key

APOSTROPHES = "'`\u00b4\u2018\u2019\u02bb\u02bc\u02be\u02bf\u2032\uff07\ua78c"


def units_of(*names: str, parents: tuple[str, ...] = ()) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": [f"u{k}" for k in range(len(names))],
            "name": names,
            "parent": parents or "",
            "file": "u.gpkg",
            "row": range(1, len(names) + 1),
        }
    )


def rows_of(*names: str, years: tuple[int, ...] = (), parents: tuple[str, ...] = ()):
    return pd.DataFrame(
        {
            "id": "",
            "name": names,
            "parent": parents or "",
            "year": years or 2020,
            "people": [100.0 + k for k in range(len(names))],
            "file": "c.csv",
            "row": range(2, len(names) + 2),
        }
    )


def joined(units: pd.DataFrame, rows: pd.DataFrame) -> list[str]:
    return list(join.by_name(units, rows, "c.csv").counts["unit"])


@pytest.mark.parametrize(
    "names",
    [
        ("กา", "กี", "ก่า", "ก้า"),
        ("কালি", "কিলি", "কুলি"),
        ("កោះកុង", "កុះកង", "កោះកង"),
        ("Thanh Lộc", "Thạnh Lộc", "Thành Lộc", "Thanh Lóc"),
        ("कमल", "कमला", "किमल"),
        ("かき", "がき"),
    ],
    ids=["Thai", "Bengali", "Khmer", "Vietnamese", "Hindi", "Japanese"],
)
def test_vowel_signs_and_tone_marks_are_letters(names: tuple[str, ...]) -> None:
    assert len({spelling_key(n) for n in names}) == len(names)
    frame = units_of(*names)
    result = join.by_name(frame, rows_of(*reversed(names)), "c.csv")
    assert list(result.counts["unit"]) == list(reversed(frame["id"]))
    assert not result.findings
    assert not result.relaxed


def test_a_name_as_written_goes_before_one_without_its_accents() -> None:
    frame = units_of("Thanh Lộc", "Thạnh Lộc")
    assert joined(frame, rows_of("Thạnh Lộc")) == ["u1"]
    result = join.by_name(frame, rows_of("Thạnh Lộc", "Thanh Loc"), "c.csv")
    assert list(result.counts["unit"]) == ["u1", "u0"], "what is left is clear"
    assert [(r["row"], r["unit_name"], r["how"]) for r in result.relaxed] == [
        (3, "Thanh Lộc", "accents")
    ]
    assert [(f.check, f.severity) for f in result.findings] == [("join_exact", "warn")]


def test_two_names_that_fit_one_unit_only_without_accents_fit_none() -> None:
    result = join.by_name(units_of("Thanh Loc"), rows_of("Thanh Lộc", "Thạnh Lộc"), "c.csv")
    assert list(result.counts["unit"]) == ["", ""]
    assert result.findings[0].severity == "error"


def test_a_unit_may_be_spelt_otherwise_in_another_year() -> None:
    rows = rows_of("Étang", "ETANG", years=(2010, 2020))
    assert joined(units_of("Étang", "Huye"), rows) == ["u0", "u0"]


def test_parents_differ_in_their_writing_while_names_need_every_accent() -> None:
    frame = units_of("Thanh", "Thạnh", parents=("Sóc Trăng", "Sóc Trăng"))
    rows = rows_of("Thạnh", "Thanh", parents=("SOC TRANG", "SOC TRANG"))
    assert joined(frame, rows) == ["u1", "u0"]


@pytest.mark.parametrize("mark", APOSTROPHES)
def test_apostrophes_of_every_kind_do_not_count(mark: str) -> None:
    assert name_key(f"Murang{mark}a") == name_key("MURANGA") == "muranga"
    assert name_key(f"N{mark}Djaména") == name_key("N'Djamena")
    assert joined(units_of(f"Murang{mark}a"), rows_of("Muranga")) == ["u0"]
    assert joined(units_of("L'Île"), rows_of(f"L{mark} Ile")) == ["u0"]


def test_swapped_names_that_differ_in_a_tone_mark_are_found() -> None:
    frame = units_of("Thanh Lộc", "Thạnh Lộc", "Huye")
    rows = rows_of("Thạnh Lộc", "Thanh Lộc", "HUYE").assign(unit=["u0", "u1", "u2"])
    (finding,) = join.swapped(frame, rows)
    assert (finding.severity, [r["row"] for r in finding.rows]) == ("error", [2, 3])
    assert not join.swapped(frame, rows.assign(unit=["u1", "u0", "u2"]))


def test_twenty_thousand_unmatched_names_take_seconds() -> None:
    """Names of one country are much alike; they were compared each with each for half an hour."""
    names = tuple(f"Commune de Saint-{k:05d} le Grand" for k in range(20_000))
    lost = tuple(f"Comune de Saint-{k:05d} du Lac" for k in range(20_000, 40_000))
    frame = units_of(*names)
    rows = rows_of(*lost).assign(
        column="people", cell="1", problem="", growth_cell="", growth_problem=""
    )
    rows["id"] = [f"x{k}" for k in range(len(rows))]
    begun = time.monotonic()
    found = join.by_name(frame, rows, "c.csv").counts
    found = asides.sorted_out(frame, found, ()).counts
    (people, bare) = join.unmatched(frame, found, trains=True)
    seconds = time.monotonic() - begun
    assert (len(people.rows), len(bare.rows)) == (20_000, 20_000)
    assert seconds < 60


def test_twenty_thousand_identifiers_that_lost_their_zeros_take_seconds() -> None:
    frame = units_of(*("" for _ in range(20_000))).assign(id=[f"{k:08d}" for k in range(20_000)])
    rows = rows_of(*("" for _ in range(20_000))).assign(id=[str(k) for k in range(20_000)])
    begun = time.monotonic()
    result = join.by_id(frame, rows, "c.csv")
    assert (result.counts["unit"] == frame["id"]).sum() >= 19_999  # a zero alone is nothing
    assert time.monotonic() - begun < 60


def test_hints_find_what_is_alike() -> None:
    names = Names(["Nyarugenge", "Gasabo", "Kicukiro", "Bugesera", "ថ្មគោល"])
    assert names.nearest("Nyarugengue") == "Nyarugenge"
    assert names.nearest("BUGESSERA") == "Bugesera"
    assert names.nearest("ថ្មកោល") == "ថ្មគោល"
    assert names.nearest("Paris") is None
    assert names.nearest("") is None
