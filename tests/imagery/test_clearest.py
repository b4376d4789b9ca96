"""Which observations are kept: what holds of every season, whatever it offers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import count

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from popcorn_ml.imagery.clearest import CORNER, Look, clearest

START = datetime(2020, 6, 1, tzinfo=UTC)


def look(name: str, places: Sequence[int], pixels: np.ndarray, **options) -> Look:
    """A look at some places; its day is its overpass unless told."""
    day = options.pop("day", options["overpass"])
    at = np.array(sorted(places))
    moment = START + timedelta(days=day)
    return Look(name, moment, places=at, shows=int(pixels[at].sum()), **options)


@st.composite
def seasons(draw, places: int = 6, first: int = 0):
    """Looks at some places, none of them a corner of what a look shows; and their pixels."""
    pixels = np.array(draw(st.lists(st.integers(100, 200), min_size=places, max_size=places)))
    numbers = count(first)
    looks = []
    for _ in range(draw(st.integers(1, 14))):
        overpass = draw(st.integers(0, 9))
        looks.append(
            look(
                f"look {next(numbers)}",
                draw(st.sets(st.integers(0, places - 1), min_size=1)),
                pixels,
                overpass=overpass,
                worth=draw(st.integers(1, 21)),
                part=overpass * 3 // 10,
                track=draw(st.integers(0, 1)),
                bands=draw(st.sampled_from([(0,), (0, 1), (1,)])),
            )
        )
    assert pixels.min() > CORNER * pixels.sum()
    return looks, pixels


def observations(looks: Sequence[Look], band: int, place: int) -> set[int]:
    """Overpasses that show a place in a band."""
    return {one.overpass for one in looks if band in one.bands and place in one.places}


@given(seasons(), st.integers(1, 5))
def test_every_place_keeps_as_many_as_are_asked_for_or_all(season, most: int) -> None:
    looks, pixels = season
    kept = clearest(looks, pixels, most)
    for place in range(len(pixels)):
        for band in (0, 1):
            offered = len(observations(looks, band, place))
            assert len(observations(kept, band, place)) >= min(most, offered)


@given(seasons(), st.integers(1, 5))
def test_none_is_kept_that_no_place_needs(season, most: int) -> None:
    """Of each, some place has not enough others as clear: no place has more than it must."""
    looks, pixels = season
    kept = clearest(looks, pixels, most)
    for one in kept:
        others = [other for other in kept if other is not one]
        clearer = [o for o in others if o.worth >= one.worth or o.overpass == one.overpass]
        needing = [
            place
            for place in one.places
            for band in one.bands
            if len(observations(clearer, band, place)) < most
            and one.overpass not in observations(clearer, band, place)
        ]
        assert needing or any(
            not observations(others, band, place) for place in one.places for band in one.bands
        )


@given(seasons(), st.integers(1, 5), st.randoms(use_true_random=False))
def test_the_order_of_the_catalogue_does_not_matter(season, most: int, random) -> None:
    looks, pixels = season
    shuffled = list(looks)
    random.shuffle(shuffled)
    names = [[one.name for one in clearest(some, pixels, most)] for some in (looks, shuffled)]
    assert names[0] == names[1]


@given(seasons(places=3), seasons(places=3, first=100), st.integers(1, 4))
def test_places_apart_do_not_compete(here, there, most: int) -> None:
    """Two granules without a common pixel are chosen from as if the other were not there."""
    (looks, pixels), (more, beside) = here, there
    apart = [
        look(
            one.name, [place + 3 for place in one.places], np.concatenate([pixels, beside]),
            overpass=one.overpass, worth=one.worth, part=one.part, track=one.track,
            bands=one.bands,
        )
        for one in more
    ]  # fmt: skip
    together = clearest([*looks, *apart], np.concatenate([pixels, beside]), most)
    alone = [*clearest(looks, pixels, most), *clearest(more, beside, most)]
    assert {one.name for one in together} == {one.name for one in alone}


@given(st.lists(st.integers(1, 21), min_size=1, max_size=12), st.integers(1, 12))
def test_of_one_footprint_and_part_exactly_the_clearest(worths: list[int], most: int) -> None:
    pixels = np.array([1000])
    looks = [look(f"{n:02}", [0], pixels, overpass=n, worth=w) for n, w in enumerate(worths)]
    kept = clearest(looks, pixels, most)
    assert sorted(one.worth for one in kept) == sorted(worths)[-most:]


def test_spread_over_the_season_before_all_of_one_dry_week() -> None:
    """Eighteen dates, clear in the first fortnight, half clear later: six of them, one of each."""
    pixels = np.array([1000])
    days = range(0, 90, 5)
    looks = [
        look(f"{day:02}", [0], pixels, overpass=day, day=day, part=day // 15, worth=worth)
        for day, worth in ((day, 21 if day < 15 else 11) for day in days)
    ]
    kept = clearest(looks, pixels, 6)
    assert {one.part for one in kept} == set(range(6)), "the second of a fortnight counts half"
    overcast = [one if one.part == 0 else replaced(one, worth=2) for one in looks]
    kept = clearest(overcast, pixels, 6)
    assert sum(one.part == 0 for one in kept) == 3, "three clear ones are worth more than overcast"


def replaced(one: Look, worth: int) -> Look:
    return Look(one.name, one.moment, one.overpass, worth, one.places, one.shows, one.part)


def test_the_second_track_of_sentinel_1_is_not_forgotten() -> None:
    """Sixteen passes, eight of each of two tracks over the same place: four of each."""
    pixels = np.array([1000])
    looks = [
        look(f"{n:02}", [0], pixels, overpass=n, day=6 * n, part=n // 2, track=n % 2, worth=21)
        for n in range(16)
    ]
    kept = clearest(looks, pixels, 8)
    assert sorted(one.track for one in kept) == [0] * 4 + [1] * 4
    assert {one.part for one in kept} == set(range(8))


def test_a_corner_claims_one_observation_and_no_more() -> None:
    """A track's passes end some metres apart: what lies between does not keep the cloudy ones."""
    pixels = np.array([10_000, 20])
    clear = [look(f"clear {n}", [0], pixels, overpass=n, worth=20) for n in range(4)]
    wide = [look(f"wide {n}", [0, 1], pixels, overpass=n, worth=5) for n in range(4, 8)]
    kept = clearest([*clear, *wide], pixels, 3)
    assert len([one for one in kept if one.worth == 20]) == 3
    assert len(observations(kept, 0, 1)) == 1


def test_granules_of_one_overpass_count_once_where_they_overlap() -> None:
    pixels = np.array([100, 100, 100])
    day = [
        look("west", [0, 1], pixels, overpass=0, worth=20),
        look("east", [1, 2], pixels, overpass=0, worth=20),
        look("later", [0, 1, 2], pixels, overpass=1, worth=10),
    ]
    assert len(clearest(day, pixels, 1)) == 2
    kept = clearest(day, pixels, 2)
    assert {one.name for one in kept} == {"west", "east", "later"}, "the overlap has two, not three"


def test_one_polarisation_does_not_take_the_place_of_the_other() -> None:
    pixels = np.array([100])
    alone = [look(f"vv {n}", [0], pixels, overpass=n, worth=11) for n in range(5)]
    both = [look("both", [0], pixels, overpass=9, worth=21, bands=(0, 1))]
    kept = clearest([*alone, *both], pixels, 2)
    assert "both" in {one.name for one in kept}
    assert len(observations(kept, 0, 0)) == 2
