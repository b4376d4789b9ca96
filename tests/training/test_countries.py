"""One model on the units of several countries: what is counted, held out, scored, and refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popcorn_ml import raster
from popcorn_ml.errors import CensusError, ConfigError, WeightsError
from popcorn_ml.grid import Grid
from popcorn_ml.mapping.builtup import EXTRACTOR_TAG
from popcorn_ml.training.countries import units_of
from popcorn_ml.training.fit import COUNTRIES, train_member
from popcorn_ml.training.left_out import LEFT_OUT
from popcorn_ml.training.out_of_fold import by_country, collected, read_member
from popcorn_ml.training.places import TrainingPlace, own_ids, qualified, require_like_pixels
from popcorn_ml.training.samples import Samples
from popcorn_ml.training.spec import TrainingSpec
from popcorn_ml.training.units import find_units, initial_bias
from tests.training.places import Place, block_units, write_place

pytestmark = pytest.mark.long(30)

FOLDS = {"held_out": "folds", "folds": 2, "keep_epoch": "last"}
DEGREES = Grid("EPSG:4326", 6.0, 47.0, 8.983152841195215e-05, 90, 60)
"""A Swiss grid of the published pixel: 10 m from south to north, 6.8 m from west to east."""


def as_place(place: Place, code: str, **changes: str) -> TrainingPlace:
    spec = place.spec()
    values = {name: getattr(spec, name) for name in ("s1", "s2", "builtup", "units", "counts")}
    return TrainingPlace(code, **(values | changes))


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[Place, Place]:
    """A country of twelve units in metres, and one of four in degrees; numbers and ids alike."""
    folder = tmp_path_factory.mktemp("pair")
    return (
        write_place(folder / "a", block_units(90, 120, 3, 4)),
        write_place(folder / "b", block_units(60, 90, 2, 2), seed=3, grid=DEGREES),
    )


def both(pair, name: str = "run", **changes) -> TrainingSpec:
    first, second = pair
    return first.spec(name, place="aaa", further=(as_place(second, "bbb"),), **changes)


def test_a_training_of_one_country_says_and_counts_as_a_half_done_one_what_it_did(place):
    """By what the specification gave before there were several: a state of then is taken up."""
    files = [f"/none/{letter}" for letter in "cdef"]
    spec = TrainingSpec({"spring": "/none/a"}, {"spring": "/none/b"}, *files, "g", "h", seed=1600)
    assert spec.fingerprint() == "a7ce030345781e6741070fbbd838b3d8b46105aa37d8b252c35bd22fc9ed1326"
    digest = hashlib.sha256(spec.to_json().encode()).hexdigest()
    assert digest == "d4ecb4e111f865317f8b9a5f76cfbaf4bdb83d463a0061d8a0cc7d8197ea41af"
    assert not {"place", "further"} & spec.hyperparameters().keys()


def test_the_specification_of_several_travels_as_json(pair):
    spec = both(pair)
    assert TrainingSpec.from_json(spec.to_json()) == spec
    assert [place.code for place in spec.places] == ["aaa", "bbb"]
    assert spec.fingerprint() != pair[0].spec().fingerprint()
    written = json.loads(spec.to_json())
    del written["further"][0]["counts"]
    with pytest.raises(ConfigError, match="counts"):
        TrainingSpec.from_json(json.dumps(written), "spec.json")


@settings(max_examples=8, deadline=None)
@given(st.sets(st.integers(1, 12), min_size=1, max_size=11))
def test_one_country_split_in_two_is_the_same_units(tmp_path_factory, pair, numbers):
    """Whatever the border: people, pixels, score, first guess and every pixel's values."""
    whole, _ = pair
    folder = tmp_path_factory.mktemp("split")
    parts = []
    for name, chosen in (("one", numbers), ("two", set(range(1, 13)) - numbers)):
        values = np.where(np.isin(whole.units, [*chosen]), whole.units, 0).astype(np.uint32)
        path = folder / f"{name}.tif"
        raster.write(path, values, whole.grid, ["unit"], 0, resampling="nearest")
        counts = folder / f"{name}.json"
        counts.write_text(json.dumps([c for c in whole.counts if c["number"] in chosen]))
        parts.append(as_place(whole, name, units=str(path), counts=str(counts)))
    first, second = parts
    alone = whole.spec(held_out="none")
    split = dataclasses.replace(
        alone, place="one", units=first.units, counts=first.counts, further=(second,)
    )
    grid, units = find_units(alone.units, alone.builtup, alone.counts, alone.seasons, 0.0)
    found = units_of(split)[1]
    one = {u.number: u for u in units.trained}
    for unit in found.trained:
        same = one.pop(unit.number)
        code = "one" if unit.number in numbers else "two"
        assert unit.id == qualified(code, same.id)
        assert dataclasses.replace(unit, id=same.id, place=0) == same
    assert not one
    assert sum(u.people for u in found.trained) == sum(u.people for u in units.trained)
    assert initial_bias(found.trained) == pytest.approx(initial_bias(units.trained), rel=1e-12)
    with_one, with_two = Samples(alone, grid, units.trained), Samples(split, grid, found.trained)
    try:
        for unit in found.trained:
            ours = with_two.get((unit.key, 0, 1))
            theirs = with_one.get((unit.number, 0, 1))
            for name in ("channels", "pixels", "score"):
                assert getattr(ours, name).equal(getattr(theirs, name))
    finally:
        with_one.close()
        with_two.close()


def test_people_per_pixel_are_those_of_the_first_countrys_pixels(pair):
    """A score in degrees weighs as much as its true area, in the unit's sum and in its sample."""
    spec = both(pair, held_out="none")
    grid, units = units_of(spec)
    abroad = [unit for unit in units.trained if unit.place == 1]
    area = DEGREES.row_area_m2()[:, None] / grid.pixel_area_m2
    assert 0.6 < area.mean() < 0.75
    samples = Samples(spec, grid, units.trained)
    try:
        for unit in abroad:
            own = pair[1].units == unit.number
            wanted = float((pair[1].scores[0] * area)[own].sum())
            assert unit.score_sum[0] == pytest.approx(wanted, rel=1e-5)
            assert float(samples.get((unit.key, 0, 0)).score.sum()) == pytest.approx(wanted, 1e-5)
    finally:
        samples.close()


def test_every_fold_has_its_share_of_every_country(pair):
    by_fold = [units_of(both(pair, **FOLDS, fold=k))[1] for k in range(2)]
    for units in by_fold:
        assert {unit.place for unit in units.held_out} == {0, 1}
        assert {unit.place for unit in units.trained} == {0, 1}
    held = [unit.id for units in by_fold for unit in units.held_out]
    everyone = [qualified(c, u["id"]) for c, p in zip(("aaa", "bbb"), pair, strict=True)
                for u in p.counts]  # fmt: skip
    assert sorted(held) == sorted(everyone)
    alone = find_units(*(getattr(pair[0].spec(), n) for n in ("units", "builtup", "counts")),
                       pair[0].spec().seasons, 0.0, both(pair, **FOLDS).own_fold)[1]  # fmt: skip
    assert own_ids((u.id for u in by_fold[0].held_out), "aaa") == {u.id for u in alone.held_out}
    with_share = units_of(both(pair, held_out="same", held_out_share=0.3))[1]
    assert {unit.place for unit in with_share.held_out} == {0, 1}


def test_two_countries_train_one_member_and_are_scored_apart(pair):
    spec = both(pair, "first", **FOLDS, leave_out=0.01, epochs=2, cache_mb=8)
    result = train_member(spec)
    card = json.loads((result.folder / "card.json").read_text())
    assert (result.trained, result.held_out) == (8, 8)
    told = card[COUNTRIES]
    assert {c: (t["trained"], t["held_out"]) for c, t in told.items()} == {
        "aaa": (6, 6),
        "bbb": (2, 2),
    }
    assert card["pixel_area_m2"] == 100.0
    assert card[LEFT_OUT].keys() == {"allowed", "aaa", "bbb"}
    fold, unseen = read_member(result.folder)
    assert fold == 0
    for score in by_country(unseen):
        own = [unit for unit in unseen if unit.id.startswith(f"{score.country}/")]
        assert score.units == len(own) == told[score.country]["units"]
        assert score.predicted == pytest.approx(sum(unit.predicted for unit in own))
        assert told[score.country]["total_ratio"] == pytest.approx(score.predicted / score.people)
    other = train_member(dataclasses.replace(spec, out=f"{spec.out}2", work=f"{spec.work}2",
                                             fold=1, seed=1601))  # fmt: skip
    rows = collected({"1600": result.folder, "1601": other.folder})
    assert len({row.id for row in rows}) == len(rows) == 16
    assert [(row.country, row.number) for row in rows] == [
        *(("aaa", k) for k in range(1, 13)),
        *(("bbb", k) for k in range(1, 5)),
    ]
    assert rows[-1].as_row()["unit_country"] == "bbb"
    # Pixels kept or read again, one thread or two: the same bytes.
    again = train_member(
        dataclasses.replace(spec, out=f"{spec.out}3", work=f"{spec.work}3", cache_mb=0, threads=2)
    )
    assert again.weights.read_bytes() == result.weights.read_bytes()


def test_what_cannot_be_trained_on_together_is_refused(pair, tmp_path):
    first, second = pair
    for place, codes in (("", ["bbb"]), ("bbb", ["bbb"]), ("aaa", ["bbb", "bbb"]), ("a/a", [])):
        with pytest.raises(ConfigError, match="further"):
            first.spec(place=place, further=tuple(as_place(second, c) for c in codes))
    three = {season: path for season, path in second.spec().s1.items() if season != "winter"}
    with pytest.raises(ConfigError, match="same seasons") as raised:
        first.spec(place="aaa", further=(as_place(second, "bbb", s1=three, s2=three),))
    assert "bbb" in str(raised.value)
    with pytest.raises(ConfigError, match="different in size") as raised:
        require_like_pixels({"aaa": 100.0, "bbb": 401.0})
    assert "bbb: 401.0 m2" in str(raised.value)
    require_like_pixels({"aaa": 100.0, "bbb": 399.0})
    empty = tmp_path / "counts.json"
    empty.write_text("[]")
    with pytest.raises(CensusError, match="no census unit to train on") as raised:
        units_of(first.spec(place="a", further=(as_place(second, "b", counts=str(empty)),)))
    assert str(empty) in str(raised.value)
    score = tmp_path / "score.tif"
    raster.write(score, second.scores, second.grid, first.spec().seasons, np.nan,
                 tags={EXTRACTOR_TAG: "another"})  # fmt: skip
    other = as_place(second, "bbb", builtup=str(score))
    with pytest.raises(WeightsError, match="another extractor") as raised:
        train_member(first.spec("refused", place="aaa", further=(other,)))
    assert str(score) in str(raised.value)
