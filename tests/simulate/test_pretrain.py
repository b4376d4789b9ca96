"""Pre-training on other places, and the weights that came of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from popcorn_ml.model.stored import read_card
from popcorn_ml.model.weights import load_extractor, save_extractor
from popcorn_ml.simulate import training_places
from popcorn_ml.simulate.spec import CountrySpec
from popcorn_ml.simulate.training_places import make_place
from popcorn_ml.simulate.world import make_world, surface
from popcorn_ml.training import pretrain
from popcorn_ml.training.pretrain import HELD_OUT_FROM, OUTPUTS, PretrainSpec, pretrain_extractor

pytestmark = pytest.mark.long(30)

WEIGHTS = Path(training_places.__file__).parent / "weights" / "demo_extractor.safetensors"
SHORT = PretrainSpec(places=20, held_out=4, place_px=128, crop_px=64, batch=4, steps=600)
"""A quarter of the pixels that the packaged weights were trained on, in a fifth more steps."""

MARGIN_F1 = 0.05


@pytest.fixture(autouse=True)
def one_thread():
    """Beside other tests on two cores, one thread is the fastest; and it is put back."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def card():
    return read_card(WEIGHTS)


@pytest.fixture(scope="module")
def unseen():
    return [make_place(HELD_OUT_FROM + 500 + n, 128) for n in range(4)]


def test_the_card_says_how_the_weights_came_about(card):
    assert card["command"].startswith("python -m popcorn_ml.training.pretrain")
    assert PretrainSpec(**card["settings"]) == PretrainSpec()
    assert card["code_commit"]
    assert set(card["scores"]) == set(OUTPUTS)
    assert WEIGHTS.stat().st_size < 200_000


def test_the_packaged_weights_are_as_good_as_their_card_on_places_of_no_list(card, unseen):
    model = load_extractor(WEIGHTS)
    for output in OUTPUTS:
        found = pretrain.score(model, unseen, output).f1
        assert found > card["scores"][output]["f1"] - MARGIN_F1, output


def test_the_command_still_makes_an_extractor_as_good(card, tmp_path, capsys):
    """Through the command line, from no weights at all to a file that loads."""
    options = {
        "places": 20,
        "held-out": 4,
        "place-px": 128,
        "crop-px": 64,
        "batch": 4,
        "steps": 600,
        "threads": 1,
    }
    pretrain.main(
        ["--out", str(tmp_path), *(f"--{name}={value}" for name, value in options.items())]
    )
    made = read_card(tmp_path / "demo_extractor.safetensors")
    assert PretrainSpec(**made["settings"]) == SHORT
    for output in OUTPUTS:
        assert made["scores"][output]["f1"] > card["scores"][output]["f1"] - MARGIN_F1, output
    model = load_extractor(tmp_path / "demo_extractor.safetensors")
    assert not model.training
    assert "F1" in capsys.readouterr().out


def test_it_finds_the_demo_countrys_buildings(card):
    """A country it was never trained on."""
    spec = CountrySpec()
    world = make_world(spec.seed, (256, 256), spec.base_year, 0.3)
    covered = surface(world, spec.base_year)
    rng = np.random.default_rng(0)
    place = training_places.LabelledPlace(
        training_places.composite(world, covered, "autumn", rng)[None],
        covered.built >= training_places.BUILT_SHARE,
        covered.built * 0,
    )
    found = pretrain.score(load_extractor(WEIGHTS), [place], "both")
    assert found.f1 > card["scores"]["both"]["f1"] - MARGIN_F1


def test_no_country_can_be_a_training_place():
    """Countries' seeds stay below those of training places; and the two sets never meet."""
    assert CountrySpec().seed < training_places.FIRST_SEED
    assert PretrainSpec().places < HELD_OUT_FROM
    with pytest.raises(ValueError, match="seed"):
        CountrySpec(seed=training_places.FIRST_SEED)
    with pytest.raises(ValueError, match="places"):
        PretrainSpec(places=HELD_OUT_FROM + 1)


def test_labels_are_buildings_and_channels_are_normalised():
    place = make_place(3, 96)
    assert place.channels.shape == (4, 6, 96, 96)
    assert place.channels.dtype == np.float32
    assert place.built.dtype == bool
    assert 0.02 < place.built.mean() < 0.7
    assert np.abs(place.channels.mean((0, 2, 3))).max() < 1.5
    built = place.channels[:, 0][:, place.built].mean()
    assert built > place.channels[:, 0][:, ~place.built].mean() + 0.2  # walls shine in VV
    assert np.array_equal(place.channels, make_place(3, 96).channels)


def test_the_same_seed_gives_the_same_weights(tmp_path):
    spec = PretrainSpec(places=2, held_out=1, place_px=64, crop_px=32, batch=2, steps=4)
    a, b = (pretrain_extractor(spec) for _ in range(2))
    assert a.loss == b.loss
    for name, value in a.extractor.state_dict().items():
        assert torch.equal(value, b.extractor.state_dict()[name]), name
    assert a.scores == b.scores
    path = save_extractor(a.extractor, tmp_path / "x.safetensors", pretrain.card(spec, a, None))
    assert json.loads(path.with_suffix(".json").read_text())["code_commit"] is None
