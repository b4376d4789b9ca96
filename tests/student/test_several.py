"""Members that were trained on the units of several countries teach a student of one of them: by
what they held out of that one, whatever they held out of the others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from popcorn_ml.errors import TrainingError
from popcorn_ml.grid import Window
from popcorn_ml.student.fit import train_student
from popcorn_ml.student.spec import StudentSpec
from popcorn_ml.student.teacher import Lesson, lessons_of
from popcorn_ml.training.out_of_fold import read_collected
from popcorn_ml.training.places import qualified
from popcorn_ml.training.units import Unit
from tests.student.places import FOLDS, student_spec, write_taught_place
from tests.student.test_fit import content
from tests.training.places import Place

UNITS = [
    Unit(n, f"{n:05d}", 10.0 * n, Window(0, 0, 1, 1), 1, (1,), (1.0,), (0,)) for n in range(1, 13)
]
IDS = [unit.id for unit in UNITS]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Place:
    return write_taught_place(tmp_path_factory.mktemp("several"))


def hold_out(place: Place, held_out: Sequence[Sequence[str]]) -> None:
    """Say of each member what it held out."""
    folders = sorted((place.folder / "members").iterdir())
    for folder, ids in zip(folders, held_out, strict=True):
        (folder / "units.json").write_text(json.dumps({"trained": [], "held_out": list(ids)}))


def of(code: str, held_out: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[qualified(code, one) for one in ids] for ids in held_out]


def together(*of_countries: Sequence[Sequence[str]]) -> list[list[str]]:
    """What each member held out of several countries."""
    return [[*chain.from_iterable(by)] for by in zip(*of_countries, strict=True)]


EACH = st.tuples(*[st.sets(st.sampled_from(IDS))] * FOLDS).map(lambda sets: [*map(sorted, sets)])


@given(own=EACH, other=EACH, changed=EACH, code=st.sampled_from(["uga", "ug", "rwa"]))
def test_what_was_held_out_of_another_country_changes_no_lesson(place, own, other, changed, code):
    """Nor does it matter that its units have the same numbers, or its code begins as this one's."""
    spec, another = student_spec(place), {"uga": "ug", "ug": "uga", "rwa": "che"}[code]
    hold_out(place, own)
    alone = lessons_of(spec, UNITS)
    for theirs in (other, changed, [[]] * FOLDS):
        hold_out(place, together(of(another, theirs), of(code, own)))
        assert lessons_of(replace(spec, place=code), UNITS) == alone
    hold_out(place, of(another, other))
    assert lessons_of(replace(spec, place=code), UNITS) == [Lesson(None, (1, 2))]


def test_a_student_taught_so_is_to_the_byte_one_taught_by_its_own_countrys_members(place, tmp_path):
    """And a member that held out none of its units teaches the one that maps alone."""
    held_out = [IDS[:4], []]
    hold_out(place, held_out)
    alone = student_spec(place, out=str(tmp_path / "a"), work=str(tmp_path / "aw"), steps=2)
    train_student(alone)
    hold_out(place, together(of("che", [IDS[3:], IDS[:3]]), of("rwa", held_out)))
    several = replace(alone, place="rwa", out=str(tmp_path / "b"), work=str(tmp_path / "bw"))
    train_student(several)
    assert content(several.out) == content(alone.out)
    told = json.loads((Path(several.out) / "units.json").read_text())
    assert [(f["members"], f["held_out"]) for f in told["folds"]] == [([1], IDS[:4])]
    rows = read_collected(Path(several.out) / "out_of_fold.json")
    assert [(row.id, row.country) for row in rows] == [(one, "") for one in IDS[:4]]


def test_the_country_tells_half_done_work_apart_and_none_is_as_before(place):
    spec: StudentSpec = student_spec(place)
    assert spec.fingerprint() != replace(spec, place="rwa").fingerprint()
    assert spec.hyperparameters() == replace(spec, place="rwa").hyperparameters()
    assert "place" not in spec.hyperparameters()
    old = json.loads(spec.to_json())
    del old["place"]
    assert StudentSpec.from_json(json.dumps(old)) == spec


def test_ids_that_are_none_are_said(place):
    hold_out(place, [[1, 2], []])  # type: ignore[list-item]
    with pytest.raises(TrainingError, match="which units a member held out"):
        lessons_of(replace(student_spec(place), place="rwa"), UNITS)
