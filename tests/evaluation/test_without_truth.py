"""Scores without any truth: who saw what, sums of members, shares, and when there is no score."""

from __future__ import annotations

import numpy as np
import pytest

from popcorn_ml import raster
from popcorn_ml.evaluation.unseen_figure import stacked, unseen_figure
from popcorn_ml.evaluation.without_truth import (
    FEWEST_UNITS,
    score_without_truth,
    unseen_units,
    with_shares,
)
from popcorn_ml.grid import Grid
from popcorn_ml.mapping.pictures import figure_png
from tests.training.places import block_units

ROWS, COLS = 6, 8
UNITS = ROWS * COLS


@pytest.fixture
def place(tmp_path):
    """A map of three members, a hole in unit 1, and counts that the members are near to."""
    chance = np.random.default_rng(8)
    units = block_units(120, 160, ROWS, COLS)
    grid = Grid("EPSG:32736", 500_000.0, 9_800_000.0, 10.0, 160, 120)
    density = np.concatenate([[0], chance.lognormal(0, 1, UNITS)])[units]
    members = density * chance.lognormal(0, 0.2, (3, *units.shape))
    members[:, :20, :10] = np.nan
    score = np.clip(density / 10, 0.01, 1)
    population = members.mean(axis=0)
    people = np.bincount(units.ravel(), density.ravel())[1:] * chance.lognormal(0, 0.1, UNITS)
    files = {
        "members": (members, ["1", "2", "3"], np.nan),
        "population": (population[None], ["population"], np.nan),
        "builtup": (score[None], ["score"], np.nan),
    }
    for name, (values, bands, nodata) in files.items():
        raster.write(tmp_path / f"{name}.tif", values.astype(np.float32), grid, bands, nodata)
    raster.write(tmp_path / "units.tif", units, grid, ["unit"], 0, resampling="nearest")
    paths = {name: tmp_path / f"{name}.tif" for name in (*files, "units")}
    return {"grid": grid, "people": people, **paths}, units, members


def test_units_are_the_sums_of_the_members_that_never_saw_them(place):
    given, units, members = place
    saw = np.ones((3, UNITS), bool)
    for number in range(1, UNITS):  # the last one was seen by all
        saw[number % 3, number - 1] = False
    saw[0, 4] = saw[1, 4] = saw[2, 4] = False
    found = unseen_units(**given, saw=saw)
    assert np.isnan(found.predicted[0])  # half of it is a hole
    assert np.isnan(found.predicted[-1])
    assert found.scored.sum() == UNITS - 2
    assert found.members[4] == 3
    for number in range(2, UNITS):
        here = units == number
        unseen = members[~saw[:, number - 1]].astype(np.float32)
        expected = unseen[:, here].sum(axis=1, dtype=np.float64).mean()
        assert found.predicted[number - 1] == pytest.approx(expected, rel=1e-5)
        assert found.area[number - 1] == here.sum()
    with pytest.raises(ValueError, match="3 members"):
        unseen_units(**given, saw=saw[:2])


def test_scores_and_shares(place):
    given, *_ = place
    found = unseen_units(**given, saw=np.zeros((3, UNITS), bool))
    scores = score_without_truth(found)
    known = found.scored
    counted, predicted = found.people[known], found.predicted[known]
    told = scores.out_of_fold
    assert told["n"] == scores.units == UNITS - 1
    assert told["bias"] == pytest.approx((predicted - counted).mean())
    assert told["mae_share"] == pytest.approx(abs(predicted - counted).sum() / counted.sum())
    assert told["rmse_share"] == pytest.approx(told["rmse"] / counted.mean())
    assert [entry["joined"] for entry in scores.coarsened] == [2, 4, 8]
    for entry in scores.coarsened:
        by = entry["metrics"]
        assert by["adjusted"]["mae"] < by["uniform"]["mae"]
        assert entry["parts"] == pytest.approx(entry["units"] / entry["super_units"])
        assert {scores["n"] for scores in by.values()} == {entry["units"]}
    two, four = scores.coarsened[:2]
    at = scores.within(np.sqrt(two["parts"] * four["parts"]))["adjusted"]["mae_share"]
    ends = [entry["metrics"]["adjusted"]["mae_share"] for entry in (two, four)]
    assert at == pytest.approx(np.mean(ends))
    assert scores.within(1000)["builtup"] == {
        name: scores.coarsened[-1]["metrics"]["builtup"][name]
        for name in ("mae_share", "rmse_share")
    }


@pytest.mark.parametrize("unseen", [0, FEWEST_UNITS - 1])
def test_too_few_units_give_no_score_and_say_how_many_are_needed(place, unseen):
    given, *_ = place
    saw = np.ones((3, UNITS), bool)
    saw[0, 1 : 1 + unseen] = False
    scores = score_without_truth(unseen_units(**given, saw=saw))
    assert scores.out_of_fold == {}
    assert scores.coarsened == []
    assert "at least 20 are needed" in scores.why_not
    assert scores.why_not.startswith("no census unit was" if unseen == 0 else "19 census units")


def test_where_nobody_lives_there_is_no_share():
    told = with_shares(np.zeros(3), np.ones(3))
    assert told["mae"] == 1
    assert told["mae_share"] is None


def test_the_picture_shows_estimates_and_what_is_real(place):
    given, *_ = place
    found = unseen_units(**given, saw=np.zeros((3, UNITS), bool))
    real = {"adjusted": {"mae_share": 0.1, "rmse_share": 0.2}}
    figure = unseen_figure(found, score_without_truth(found), real, 3.5)
    left, right = figure.axes
    assert f"n {UNITS - 1}" in left.get_title()
    diamonds = [line for line in right.lines if line.get_marker() == "D" and len(line.get_xdata())]
    assert [(*line.get_xdata(), *line.get_ydata()) for line in diamonds] == [(3.5, 10.0)]
    picture = figure_png(figure)
    both = stacked(picture, picture)
    assert both.startswith(b"\x89PNG")
    assert both == stacked(picture, picture)
