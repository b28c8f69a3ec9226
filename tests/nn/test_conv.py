"""Convolutions over rows of bytes, against torch's own layers built by hand, alone and among other learners."""

import numpy as np
import pytest
import torch
from torch import nn

from onepolicy.batch import Image, Layout
from onepolicy.errors import ConfigError
from onepolicy.nn.conv import MIDDLE, MINIATURE, NATURE, ImageActorCritic, StackedEncoder, filters_for
from onepolicy.nn.stacked import StackedQ, alone

ATARI = Layout((Image(1, 84, 84),), stack=4)
MIXED = Layout((Image(3, 10, 12), Image(1, 20, 16, full=1)), numbers=2, stack=2)


def rows_of(layout, *lead, seed=0):
    rows = np.random.default_rng(seed).integers(0, 256, (*lead, layout.width)).astype(np.uint8)
    if layout.numbers:
        numbers = np.random.default_rng(seed).normal(size=(*lead, layout.stack, layout.numbers)).astype(np.float32)
        frames = rows.reshape(*lead, layout.stack, layout.frame)
        frames[..., -4 * layout.numbers :] = numbers.view(np.uint8)
    return torch.from_numpy(rows)


def by_hand(encoder, rows, learner=0):
    """The features by torch's modules, image by image, pixels as floats."""
    layout, parts = encoder.layout, []
    frames = rows.view(-1, layout.stack, layout.frame)
    first = 0
    for place, image in enumerate(layout.images):
        pixels = frames[:, :, first : first + image.size].reshape(len(rows), -1, image.height, image.width)
        first += image.size
        x = pixels.float() / image.full
        for layer, (out, side, stride) in enumerate(filters_for(image)):
            conv = nn.Conv2d(x.shape[1], out, side, stride)
            conv.weight.data = getattr(encoder, f"conv{place}_{layer}")[learner].data
            conv.bias.data = getattr(encoder, f"conv{place}_{layer}_bias")[learner].data
            x = nn.functional.relu(conv(x))
        parts.append(x.flatten(1))
    numbers = np.ascontiguousarray(frames.numpy()[:, :, first:]).view(np.float32).reshape(len(rows), -1)
    return torch.cat([*parts, torch.from_numpy(numbers)], dim=1)


@pytest.mark.parametrize("layout", [ATARI, MIXED], ids=["atari", "mixed"])
def test_features_are_those_of_torchs_layers(layout):
    encoder, rows = StackedEncoder((3, 4), layout, name="eyes"), rows_of(layout, 2, 5)
    found = encoder(rows)
    assert found.shape == (2, 5, encoder.features)
    for learner in range(2):
        torch.testing.assert_close(found[learner], by_hand(encoder, rows[learner], learner), rtol=1e-4, atol=1e-4)


def test_the_networks_have_the_sizes_of_their_papers():
    """Mnih et al. 2015: 20 x 20 x 32, 9 x 9 x 64, 7 x 7 x 64 = 3136 features; MinAtar: 8 x 8 x 16 = 1024."""
    assert StackedEncoder((0,), ATARI, name="eyes").features == 3136
    assert StackedEncoder((0,), Layout((Image(4, 10, 10, full=1),)), name="eyes").features == 1024
    sizes = {36: NATURE, 35: MIDDLE, 16: MIDDLE, 15: MINIATURE, 5: MINIATURE}
    assert {side: filters_for(Image(1, side, 40)) for side in sizes} == sizes
    with pytest.raises(ConfigError, match=r"2 by 40 is too small.*world\.flat"):
        filters_for(Image(1, 2, 40))


def test_a_learner_among_others_is_what_it_is_alone():
    """First weights, outputs, gradients; taken out, it is the same."""
    rows = rows_of(MIXED, 3, 4)
    among, single = (StackedQ(seeds, MIXED.width, 5, (8,), layout=MIXED) for seeds in ((7, 8, 9), (8,)))
    torch.testing.assert_close(among(rows)[1:2], single(rows[1:2]))
    torch.testing.assert_close(alone(among, 1)(rows[1:2]), single(rows[1:2]))
    (among(rows) ** 2).sum().backward()
    (single(rows[1:2]) ** 2).sum().backward()
    for name, parameter in single.named_parameters():
        torch.testing.assert_close(dict(among.named_parameters())[name].grad[1:2], parameter.grad)


def test_values_in_numpy_are_torchs_as_they_learn():
    q, rows = StackedQ((1,), MIXED.width, 3, (8,), dueling=True, layout=MIXED), rows_of(MIXED, 1, 4)
    view = q.numpy_view()
    with torch.no_grad():
        q.eyes.conv0_0.mul_(3.0)
        assert np.array_equal(view(rows.numpy()), q(rows).numpy())


def test_gradients_reach_every_weight():
    """By differences: the loss moves as the gradient says, in each parameter along its own gradient."""
    networks, rows = ImageActorCritic(MIXED, 3, (16,), seed=0).double(), rows_of(MIXED, 6)

    def loss():
        logits, value = networks(rows)
        return (logits**2).sum() * 100 + (value - 1).square().sum()

    loss().backward()
    for name, parameter in networks.named_parameters():
        slope = parameter.grad
        assert float(slope.norm()) > 0, name
        with torch.no_grad():
            step = 1e-6 * slope / slope.norm()
            up = float((parameter.add_(step), loss())[1])
            down = float((parameter.sub_(2 * step), loss())[1])
            parameter.add_(step)
        assert (up - down) / 2e-6 == pytest.approx(float(slope.norm()), rel=1e-4), name


def test_actor_and_critic_begin_near_uniform_and_orthogonal():
    """Gains sqrt(2), 0.01 and 1; 32 filters of 256 pixels are 32 orthogonal rows."""
    networks = ImageActorCritic(ATARI, 6, (512,), seed=1)
    first = networks.eyes.conv0_0[0].detach().view(32, -1)
    torch.testing.assert_close(first @ first.T, 2 * torch.eye(32), rtol=0, atol=1e-5)
    logits, value = networks(rows_of(ATARI, 2, 3))
    assert (logits.shape, value.shape) == ((2, 3, 6), (2, 3))
    assert float(logits.detach().abs().max()) < 0.1
    frozen = networks.frozen().both
    rows = rows_of(ATARI, 3)
    before = frozen(rows.numpy())
    with torch.no_grad():
        networks.critic.bias.add_(5.0)
    after = frozen(rows.numpy())
    assert np.array_equal(before[1], after[1])
    assert float(networks(rows)[1][0].detach()) == pytest.approx(float(before[1][0]) + 5.0, abs=1e-5)
