"""Behaviour of the networks that parity alone does not show."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from popcorn_ml.model.popcorn import (
    BuiltupExtractor,
    OccupancyModel,
    from_extractor,
    population,
)
from popcorn_ml.model.unet import DoubleConv


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randn(2, 6, 40, 52, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def extractor() -> BuiltupExtractor:
    torch.manual_seed(11)
    return BuiltupExtractor().eval()


def norms(model):
    return [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]


def test_batch_norm_stays_frozen_while_training(extractor, image):
    model = from_extractor(extractor, 0.3, seed=1)
    assert model.training
    before = {k: v.clone() for k, v in model.state_dict().items() if "norm" in k}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        model.train()
        optimizer.zero_grad()
        (model(image) - 1).square().sum().backward()
        optimizer.step()
    for key, value in before.items():
        assert torch.equal(model.state_dict()[key], value), key
    assert not any(norm.training for norm in norms(model))
    assert not torch.equal(
        model.state_dict()["unet.s1.enter.conv1.weight"], extractor.unet.s1.enter.conv1.weight
    )


def test_frozen_norms_folded_into_weights_are_the_same_function(image):
    torch.manual_seed(2)
    block = DoubleConv(6, 8)
    for norm in (block.norm1, block.norm2):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.1, 2)
        with torch.no_grad():
            norm.weight.normal_()
            norm.bias.normal_()
    block.eval()

    def plain(x):
        for conv, norm in ((block.conv1, block.norm1), (block.conv2, block.norm2)):
            x = F.batch_norm(
                conv(x), norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
            )
            x = F.relu(x)
        return x

    torch.testing.assert_close(block(image), plain(image), atol=1e-5, rtol=1e-5)
    weights = [*block.parameters()]
    ours = torch.autograd.grad(block(image).square().sum(), weights)
    theirs = torch.autograd.grad(plain(image).square().sum(), weights)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3 * float(b.abs().max()), rtol=1e-3)


def test_waking_norms_learn_in_pretraining(image):
    """The extractor's own norms are ordinary: pre-training needs their statistics to move."""
    model = BuiltupExtractor().train()
    before = model.unet.s1.enter.norm1.running_mean.clone()
    model.logits_unpadded(image)
    assert not torch.equal(model.unet.s1.enter.norm1.running_mean, before)


@pytest.mark.parametrize(("sensors", "ignored"), [("s1", slice(2, 6)), ("s2", slice(0, 2))])
def test_one_sensor_ignores_the_other(extractor, image, sensors, ignored):
    other = image.clone()
    other[:, ignored] = 7.0
    assert torch.equal(extractor(image, sensors), extractor(other, sensors))
    assert not torch.equal(extractor(image), extractor(other))


def test_an_unknown_sensor_is_refused(extractor, image):
    with pytest.raises(ValueError, match="s3"):
        extractor(image, "s3")


def test_only_the_first_output_of_the_head_counts(extractor, image):
    model = from_extractor(extractor, 0.5, seed=1).eval()
    before = model(image)
    with torch.no_grad():
        model.head[-1].weight[1].fill_(9)
        model.head[-1].bias[1] = 9
    assert torch.equal(model(image), before)
    with torch.no_grad():
        model.head[-1].bias[0] += 1
    assert not torch.equal(model(image), before)


def test_the_start_of_training(extractor, image):
    """The extractor's U-Net, a head from the seed, its last bias as told; no side effects."""
    state = torch.get_rng_state()
    a, b, c = (from_extractor(extractor, 0.9407, seed) for seed in (1600, 1600, 1601))
    assert torch.equal(torch.get_rng_state(), state)
    for key, value in extractor.unet.state_dict().items():
        assert torch.equal(a.unet.state_dict()[key], value)
    assert torch.equal(a.head[0].weight, b.head[0].weight)
    assert not torch.equal(a.head[0].weight, c.head[0].weight)
    assert a.head[-1].bias.tolist() == pytest.approx([0.9407, 0.9407])
    with torch.no_grad():
        a.unet.s1.enter.conv1.weight.add_(1)
    assert not torch.equal(a.unet.s1.enter.conv1.weight, extractor.unet.s1.enter.conv1.weight)


def test_shapes_and_range(extractor, image):
    model = OccupancyModel().eval()
    with torch.no_grad():
        occupancy, score = model(image), extractor(image)
    assert occupancy.shape == score.shape == population(occupancy, score).shape == (2, 40, 52)
    assert (occupancy >= 0).all()
    assert ((score > 0) & (score < 1)).all()
