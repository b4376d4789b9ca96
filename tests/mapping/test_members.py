"""Members meet the score of the extractor that they were trained on."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from popcorn_ml import raster
from popcorn_ml.errors import WeightsError
from popcorn_ml.mapping.builtup import BuiltupSpec, extractor_of_score, run_builtup
from popcorn_ml.mapping.predict import map_population
from popcorn_ml.model.weights import fingerprint, save_extractor, save_occupancy
from popcorn_ml.training.fit import train_member
from tests.mapping.places import a_member, a_spec, an_extractor
from tests.training.places import block_units, write_place


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_score_and_its_map_say_which_extractor_made_them(tmp_path, elsewhere):
    """Whoever does the work."""
    spec = a_spec(tmp_path, (30, 40), seeds=(1,))
    extractor = an_extractor(7)
    weights = save_extractor(extractor, tmp_path / "extractor.safetensors", {"name": "seven"})
    builtup = BuiltupSpec(spec.composites, weights, spec.grid, tmp_path / "seven.tif", threads=1)
    with ThreadPoolExecutor(1) as pool:
        run_builtup(replace(builtup, device="cpu"), pool=pool if elsewhere else None)
    assert extractor_of_score(builtup.out) == fingerprint(extractor)
    mapped = replace(spec, builtup=builtup.out)
    map_population(mapped)
    tags = raster.tags(mapped.out / "population.tif")
    assert tags["extractor_fingerprint"] == fingerprint(extractor)


def test_members_of_another_extractors_score_map_nothing(tmp_path):
    spec = a_spec(tmp_path, (30, 40), seeds=(1,))
    own = extractor_of_score(spec.builtup)
    for digest, fits in ((own, True), ("0" * 64, False)):
        card = {"extractor_fingerprint": digest}
        member = save_occupancy(a_member(2), tmp_path / "m" / "occupancy.safetensors", card)
        both = replace(spec, members=[*spec.members, member], out=tmp_path / f"map {fits}")
        if fits:
            map_population(both)
            continue
        with pytest.raises(WeightsError, match="another extractor") as refused:
            map_population(both)
        assert str(member) in str(refused.value)
        assert not both.out.exists()


def test_training_refuses_the_score_of_another_extractor(tmp_path):
    """Its network would begin from one extractor, and learn the people of another's score."""
    place = write_place(tmp_path, block_units(40, 40, 2, 2))
    path = tmp_path / "builtup_score.tif"
    names = list(place.spec().seasons)
    tags = {"extractor_fingerprint": "0" * 64}
    raster.write(path, place.scores, place.grid, names, float("nan"), tags=tags)
    spec = place.spec(epochs=1)
    with pytest.raises(WeightsError, match="another extractor than the built-up score") as refused:
        train_member(spec)
    assert str(path) in str(refused.value)
    assert not (tmp_path / "run" / "out").exists()
