"""Pixels that hardly are built up are left out, and with them no more people than was allowed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popcorn_ml import raster
from popcorn_ml.errors import ConfigError
from popcorn_ml.grid import Window
from popcorn_ml.mapping.blocks import blocks_of
from popcorn_ml.mapping.checks import few_people_left_out
from popcorn_ml.mapping.predict import map_population
from popcorn_ml.mapping.sparing import (
    COMPUTED,
    SPARE_BELOW,
    SPARED,
    Occupancies,
    look_through,
    score_to_spare,
)
from popcorn_ml.mapping.spec import MappingSpec
from popcorn_ml.sentinel import SEASONS
from tests.mapping.places import a_grid, write_composites, write_members

SHAPE = (240, 360)
TOWN = slice(40, 100), slice(200, 260)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> MappingSpec:
    """A town on empty land, whose score rises eastwards from next to nothing; a corner lacks it."""
    folder = tmp_path_factory.mktemp("place")
    grid = a_grid(*SHAPE)
    rng = np.random.default_rng(3)
    scores = 10 ** (np.linspace(-12, -6, SHAPE[1]) + rng.uniform(-0.2, 0.2, (4, *SHAPE)))
    scores[(slice(None), *TOWN)] = rng.uniform(0.2, 1, (4, 60, 60))
    scores[:, -20:, :30] = np.nan
    raster.write(folder / "score.tif", scores.astype(np.float32), grid, SEASONS, np.nan)
    return MappingSpec(
        composites=write_composites(folder, grid, holes=False),
        builtup=folder / "score.tif",
        members=write_members(folder / "members", (1, 2)),
        grid=grid,
        out=folder / "all",
        tile_px=120,
        device="cpu",
        threads=1,
    )


def people(spec: MappingSpec, name: str = "population", **options) -> np.ndarray:
    return raster.read_float(spec.out / f"{name}.tif", **options)


@pytest.mark.parametrize("share", [1e-4, 1e-6])
def test_people_left_out_are_within_the_share(place, tmp_path, share):
    """Held against a map of every pixel."""
    spec = replace(place, leave_out=share, out=tmp_path / "few", threads=2)
    every, few = map_population(place), map_population(spec)
    assert every.counts[SPARED] == 0
    assert few.counts[SPARED] > (0.9 if share == 1e-4 else 0.5) * np.prod(SHAPE)
    assert few.counts[COMPUTED] < every.counts[COMPUTED]
    total = np.nansum(people(place, bands=1), dtype=np.float64)
    kept = np.nansum(people(spec, bands=1), dtype=np.float64)
    verdict = few_people_left_out({**few.counts, **few.largest}, share)
    assert verdict.passed, verdict.message
    at_most = verdict.metadata["people left out at most"]
    rounding = 1e-7 * total
    assert -rounding <= total - kept <= at_most + rounding <= share * total + 2 * rounding

    both = people(place, bands=1), people(spec, bands=1)
    assert (np.isnan(both[0]) == np.isnan(both[1])).all(), "left out is no people, not no data"
    scores = np.nan_to_num(people(place, "builtup_score", bands=1))
    np.testing.assert_array_equal(scores, np.nan_to_num(people(spec, "builtup_score", bands=1)))
    np.testing.assert_allclose(both[1][TOWN], both[0][TOWN], rtol=0, atol=1e-5)
    spared = (both[1] == 0) & (both[0] > 0)
    assert scores[spared].max() < few.largest[SPARE_BELOW]
    assert not people(spec, "population_std", bands=1)[spared].any()
    assert not people(spec, "population_members")[:, spared].any()
    assert np.isnan(people(spec, "occupancy", bands=1)[spared]).all()


def test_a_share_of_nothing_computes_every_pixel(place, tmp_path):
    spec = replace(place, leave_out=0.0, out=tmp_path / "none")
    assert map_population(spec).counts[SPARED] == 0
    map_population(place)
    for name in ("population", "population_members", "occupancy"):
        assert (spec.out / f"{name}.tif").read_bytes() == (place.out / f"{name}.tif").read_bytes()


def test_nothing_is_left_out_where_nothing_is_gained(place, tmp_path):
    """A score that is large everywhere: every pixel is computed."""
    scores = np.full((4, *SHAPE), 0.3, np.float32)
    raster.write(tmp_path / "score.tif", scores, place.grid, SEASONS, np.nan)
    spec = replace(place, builtup=tmp_path / "score.tif", leave_out=1e-4, out=tmp_path / "map")
    found = map_population(spec)
    assert found.counts[SPARED] == 0
    assert found.largest[SPARE_BELOW] == 0


def test_more_people_left_out_than_allowed_do_not_pass():
    counts = {
        "pixels computed": 10.0,
        SPARED: 5.0,
        "people": 1000.0,
        "score left out": 0.1,
        "largest occupancy": 2.0,
        SPARE_BELOW: 0.01,
    }
    assert few_people_left_out(counts, 2e-4).passed
    verdict = few_people_left_out(counts, 1e-4)
    assert not verdict.passed
    assert "mapping.leave_out" in verdict.message


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_shares_that_cannot_be_are_refused(place, tmp_path, share):
    with pytest.raises(ConfigError, match="leave_out"):
        map_population(replace(place, leave_out=share, out=tmp_path))


@given(
    exponents=st.lists(st.floats(-30, 0), min_size=1, max_size=200),
    share=st.floats(1e-6, 0.01),
    largest=st.floats(0.5, 10),
)
def test_the_score_found_keeps_the_share_whatever_the_scores(exponents, share, largest):
    """Where no pixel holds more people for its score than the largest occupancy learnt."""
    scores = np.resize(np.array(exponents), (1, 20, 20))
    scores = (10.0**scores).astype(np.float32)
    tile = look_through(scores, np.ones((20, 1)), Window(0, 0, 20, 20))
    weight = scores.sum(dtype=np.float64)
    learnt = [Occupancies(people=largest * weight, weight=weight, largest=largest)]
    below = score_to_spare([tile, tile], learnt, share)
    left = scores[scores < below].sum(dtype=np.float64)
    assert left <= share * weight


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 300),
    cols=st.integers(1, 300),
    spots=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.integers(1, 60)), max_size=6),
)
def test_rectangles_hold_every_pixel_wanted_once(rows, cols, spots):
    wanted = np.zeros((rows, cols), bool)
    for row, col, side in spots:
        r, c = int(row * (rows - 1)), int(col * (cols - 1))
        wanted[r : r + side, c : c + side] = True
    held = np.zeros((rows, cols), int)
    blocks = blocks_of(wanted, Window(1000, 2000, rows, cols))
    for block in blocks:
        held[block.inside(Window(1000, 2000, rows, cols))] += 1
    assert held.max(initial=0) <= 1
    assert (held[wanted] == 1).all()
    assert bool(blocks) == bool(wanted.any())
