"""Joins of people and polygons: what matches, what is repaired, and that nobody is lost."""

from __future__ import annotations

import string

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from popcorn_ml.census import join
from popcorn_ml.census.text import clean_id, decode, name_key, parse_number, sniff_delimiter
from popcorn_ml.census.units import PolygonBurner
from popcorn_ml.errors import CensusError
from popcorn_ml.zones import zone_sums

from .test_units import GRID, voronoi


def units_of(*ids: str, names: tuple[str, ...] = (), parents: tuple[str, ...] = ()) -> pd.DataFrame:
    count = len(ids)
    return pd.DataFrame(
        {
            "id": list(ids),
            "name": list(names) or [""] * count,
            "parent": list(parents) or [""] * count,
            "row": range(1, count + 1),
            "file": "u.gpkg",
        }
    )


def counts_of(rows: list[tuple[str, str, str, float]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["id", "name", "parent", "people"])
    frame["year"], frame["file"] = 2020, "c.csv"
    frame["row"] = range(2, len(frame) + 2)
    return frame


ids = st.text(string.ascii_letters + string.digits, min_size=1, max_size=6)


@budget(max_examples=80, deadline=None)
@given(
    known=st.lists(ids, min_size=1, max_size=12, unique=True),
    rows=st.lists(st.tuples(ids, st.integers(0, 10**6)), min_size=1, max_size=20),
    share=st.integers(0, 12),
)
def test_nobody_is_lost_by_a_join_by_id(known, rows, share) -> None:
    mixed = [(known[k % len(known)], 7) for k in range(share)] + rows
    counts = counts_of([(i, "", "", float(p)) for i, p in mixed])
    joined = join.by_id(units_of(*known), counts, "c.csv").counts
    assert len(joined) == len(counts)
    assert joined["people"].sum() == counts["people"].sum()
    assert set(joined["unit"]) <= {*known, ""}
    exact = joined[joined["id"].isin(known)]
    assert (exact["unit"] == exact["id"]).all(), "an identifier as written goes before any repair"
    # A repair never sends two different identifiers to one unit.
    placed = joined[joined["unit"] != ""]
    assert (placed.groupby("unit")["id"].nunique() == 1).all()
    # And every row is either placed or reported, with its people.
    findings = join.unmatched(units_of(*known), joined, trains=True)
    lost = [f for f in findings if f.check == "people_have_polygon"]
    reported = sum(r.get("people", 0) for f in lost for r in f.rows)
    assert placed["people"].sum() + reported == counts["people"].sum()


accents = st.text("áéíóúñçöüâêîôûABCdef -'’.", min_size=1, max_size=8).filter(name_key)


@budget(max_examples=60, deadline=None)
@given(names=st.lists(accents, min_size=1, max_size=10, unique_by=name_key), data=st.data())
def test_nobody_is_lost_by_a_join_by_name(names, data) -> None:
    spelt = [data.draw(st.sampled_from([n, n.upper(), name_key(n), f"  {n} "])) for n in names]
    counts = counts_of([("", n, "", 10.0 + k) for k, n in enumerate(spelt)])
    frame = units_of(*(f"u{k}" for k in range(len(names))), names=tuple(names))
    joined = join.by_name(frame, counts, "c.csv")
    assert list(joined.counts["unit"]) == list(frame["id"])
    assert {(f.check, f.severity) for f in joined.findings} <= {("join_exact", "warn")}
    exact = [
        k + 2 for k, (n, s) in enumerate(zip(names, spelt, strict=True)) if s.split() == n.split()
    ]
    assert not {r["row"] for r in joined.relaxed} & set(exact), "as written is no relaxed rule"


def test_parents_tell_units_of_one_name_apart() -> None:
    frame = units_of("1", "2", names=("Centre", "Centre"), parents=("Nord", "Sud"))
    counts = counts_of([("", "CENTRE", "sud", 5.0), ("", "centre", "NORD", 7.0)])
    assert list(join.by_name(frame, counts, "c").counts["unit"]) == ["2", "1"]


def test_a_repair_that_is_not_certain_is_not_made() -> None:
    frame = units_of("01", "001")
    joined = join.by_id(frame, counts_of([("1", "", "", 5.0), ("01", "", "", 6.0)]), "c")
    assert list(joined.counts["unit"]) == ["001", "01"], "01 is taken, 001 is left"
    both = join.by_id(frame, counts_of([("1", "", "", 5.0)]), "c")
    assert list(both.counts["unit"]) == [""], "two units could be meant"


def test_suggestions_for_names_that_nearly_fit() -> None:
    frame = units_of("1", "2", names=("Nyarugenge", "Gasabo"))
    joined = join.by_name(
        frame, counts_of([("", "Nyarugengue", "", 5.0), ("", "Gasabo", "", 1.0)]), "c"
    )
    findings = join.unmatched(frame, joined.counts, trains=True)
    assert findings[0].rows[0]["nearest"] == "Nyarugenge"


def test_no_row_at_all_is_an_error() -> None:
    with pytest.raises(CensusError, match="not one id is the same"):
        join.join(units_of("1"), counts_of([("x", "", "", 1.0)]), "c.csv", "id")


@budget(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6), count=st.integers(2, 30), shift=st.floats(0, 60),
    least=st.floats(0.05, 0.95),
)  # fmt: skip
def test_overlap_matches_one_to_one_and_reports_the_rest(seed, count, shift, least) -> None:
    left = voronoi(seed, count)
    left["id"] = [f"L{k}" for k in range(len(left))]
    right = left.sample(frac=1, random_state=seed).reset_index(drop=True)
    right["geometry"] = right.geometry.translate(shift, -shift / 2)
    right["id"] = [f"R{k}" for k in range(len(right))]
    matched, lost = join.by_overlap(left, right.to_crs("EPSG:4326"), least)
    assert len(set(matched.values())) == len(matched)
    assert sorted([*matched, *(i for i, _, _ in lost)]) == sorted(right["id"])
    by_id = {
        **dict(zip(left["id"], left.geometry, strict=True)),
        **dict(zip(right["id"], right.geometry, strict=True)),
    }
    for other, unit in matched.items():
        a, b = by_id[other], by_id[unit]
        assert a.intersection(b).area / a.union(b).area >= least - 0.02
    if shift == 0:
        assert not lost


@budget(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 80))
def test_people_on_the_grid_are_conserved_by_zone_sums(seed: int, count: int) -> None:
    """Each person of a map is in exactly one unit, or in none, and counted once."""
    burnt = PolygonBurner(voronoi(seed, max(count, 2)), GRID).burn(GRID.whole())
    rng = np.random.default_rng(seed)
    people = rng.integers(0, 50, GRID.shape).astype(np.float32)
    burnt[rng.random(GRID.shape) < 0.05] = 0
    sums = zone_sums(burnt, people, int(burnt.max()))
    assert sums.sum() == people.sum(dtype=np.float64)
    one = int(rng.integers(0, burnt.max() + 1))
    assert sums[one] == people[burnt == one].sum(dtype=np.float64)


# Text -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Añasco", "ANASCO"), ("Saint-Étienne", "saint etienne"), ("Łódź", "Lodz"),
        ("N'Djaména", "N’Djamena"), ("Tromsø", "TROMSO"), ("  Kéla\u00a0II ", "kela ii"),
        ("Straße", "STRASSE"), ("Cafe\u0301", "Café"), ("St. Gallen", "St Gallen"),
    ],
)  # fmt: skip
def test_spellings_of_one_name(one: str, other: str) -> None:
    assert name_key(one) == name_key(other)


def test_scripts_that_are_not_latin_keep_their_letters() -> None:
    assert name_key("Київ") != name_key("Львів")
    assert name_key("ኢትዮጵያ")
    assert name_key("مصر")


@given(st.text(max_size=30))
def test_a_name_key_is_stable(text: str) -> None:
    assert name_key(name_key(text)) == name_key(text)


@pytest.mark.parametrize(
    ("given_value", "text"),
    [("0012", "0012"), (12.0, "12"), ("72001.0", "72001"), (" 7 ", "7"), (None, ""),
     (float("nan"), ""), ("1.5", "1.5"), ("XX.01", "XX.01"), (2**60, str(2**60))],
)  # fmt: skip
def test_identifiers_stay_text(given_value: object, text: str) -> None:
    assert clean_id(given_value) == text


@pytest.mark.parametrize(
    ("text", "value", "problem"),
    [("607", 607.0, ""), ("-3", -3.0, ""), ("1.5", 1.5, ""), ("1,234,567", 1234567.0, "grouped"),
     ("1 234", 1234.0, "grouped"), ("12\u202f345", 12345.0, "grouped"),
     ("1'234", 1234.0, "grouped"), ("1,23", None, "text"), ("12a", None, "text"),
     ("", None, "missing"), ("N/A", None, "missing"),
     ("<5", None, "suppressed"), ("1e3", None, "exponent"), ("1.234.567", None, "text")],
)  # fmt: skip
def test_numbers(text: str, value: float | None, problem: str) -> None:
    number = parse_number(text)
    assert (number.value, number.problem) == (value, problem)


def test_numbers_as_the_settings_say() -> None:
    assert parse_number("1.234.567", thousands=".").value == 1234567.0
    assert parse_number("1.234,5", ",", ".").value == 1234.5
    assert parse_number("1.5", ",").problem == "text"


@given(st.integers(-(10**12), 10**12))
def test_whole_numbers_survive(number: int) -> None:
    assert parse_number(str(number)).value == number
    assert parse_number(f"{number:,}").value == number


names = st.text("abcdefghijklmnopqrstuvwxyzáéñöüçÅß", min_size=1, max_size=12)


@given(st.lists(names, min_size=1, max_size=30))
def test_utf8_is_never_guessed(words: list[str]) -> None:
    text = "\n".join(words)
    decoded = decode(text.encode())
    assert (decoded.text, decoded.guessed) == (text, False)
    assert decode(text.encode("utf-8-sig")).text == text
    assert decode(text.encode("utf-16")).text == text


def test_western_names_in_old_encodings() -> None:
    text = "code,name\n" + "\n".join(
        f"{k},{n}"
        for k, n in enumerate(("Añasco", "Comerío", "Rincón", "Göteborg", "São João", "Mayagüez"))
    )
    for encoding in ("cp1252", "latin_1"):
        decoded = decode(text.encode(encoding))
        assert decoded.text == text
        assert decoded.guessed


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters(delimiter: str) -> None:
    lines = [["code", "name, old", "people"], ["1", "a; b", "5"], ["2", "c|d", "6"]]
    text = "\n".join(delimiter.join(f'"{c}"' for c in row) for row in lines)
    assert sniff_delimiter(text) == delimiter


def test_overlap_of_nothing() -> None:
    left = gpd.GeoDataFrame({"id": ["a"]}, geometry=[shapely.box(0, 0, 1, 1)], crs="EPSG:4326")
    right = gpd.GeoDataFrame({"id": ["b"]}, geometry=[shapely.box(5, 5, 6, 6)], crs="EPSG:4326")
    assert join.by_overlap(left, right, 0.5) == ({}, [("b", "", 0.0)])
