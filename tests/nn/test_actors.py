"""Actors for real-valued actions: the squashed density against an integral, and policies in the world's own units."""

import math

import numpy as np
import pytest
import torch

from onepolicy.core.distributions import tanh_gaussian_logp
from onepolicy.nn.actors import ActorPolicy, SquashedPolicy, StackedActor, StackedGaussian, squashed
from onepolicy.nn.stacked import StackedCritic, alone
from onepolicy.nn.stacked_layers import layers

LOW, HIGH = torch.tensor([-2.0, 0.0]), torch.tensor([2.0, 10.0])


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (1.5, -1.0), (-0.7, 0.4)])
def test_the_squashed_density_integrates_to_one_and_to_its_share_below_any_point(mean, log_std):
    """The density over actions on a fine grid; P(a <= x) is the Gaussian's at atanh(x)."""
    action = torch.linspace(-1, 1, 400_001, dtype=torch.float64)[1:-1]
    noise = (torch.atanh(action) - mean) / math.exp(log_std)
    full = torch.full_like(noise, mean), torch.full_like(noise, log_std)
    found, logp = squashed(*(x.unsqueeze(-1) for x in (*full, noise)))
    torch.testing.assert_close(found.squeeze(-1), action)
    mass = logp.exp() * (action[1] - action[0])
    assert mass.sum().item() == pytest.approx(1.0, abs=2e-3)
    below = action <= 0.4
    expected = 0.5 * (1 + math.erf((math.atanh(0.4) - mean) / math.exp(log_std) / math.sqrt(2)))
    assert mass[below].sum().item() == pytest.approx(expected, abs=2e-3)


def test_the_squashed_density_is_core_s_and_so_are_its_gradients():
    rng = torch.Generator().manual_seed(0)
    mean, log_std, noise = (torch.randn(5, 3, generator=rng, dtype=torch.float64) for _ in range(3))
    mean.requires_grad_(), log_std.requires_grad_()
    _, logp = squashed(mean, log_std, noise)
    expected = tanh_gaussian_logp(mean, log_std, mean + log_std.exp() * noise)
    torch.testing.assert_close(logp, expected)
    for mine, theirs in zip(*(torch.autograd.grad(x.sum(), (mean, log_std)) for x in (logp, expected)), strict=True):
        torch.testing.assert_close(mine, theirs)
    assert torch.autograd.gradcheck(lambda m, s: squashed(m, s, noise), (mean, log_std))


def test_far_out_the_density_stays_finite_and_has_a_gradient():
    """At u = 30 the action rounds to 1 and 1 - tanh(u)^2 to 0; log pi is log N(0) - 2 log 2 + 2 u."""
    mean = torch.tensor([30.0], requires_grad=True)
    action, logp = squashed(mean, torch.zeros(1), torch.zeros(1))
    assert action.item() == 1.0
    assert logp.item() == pytest.approx(-0.5 * math.log(2 * math.pi) - 2 * math.log(2) + 60, rel=1e-6)
    assert torch.autograd.grad(logp, mean)[0].item() == pytest.approx(2.0)


def test_log_std_is_clamped_without_a_gradient_beyond():
    actor = StackedGaussian((0,), 1, 1, (4,))
    with torch.no_grad():
        actor.body.bias1.copy_(torch.tensor([0.0, 50.0]))
    _, log_std = actor(torch.zeros(1, 1, 1))
    assert log_std.item() == 2.0
    gradient = torch.autograd.grad(log_std.sum(), actor.body.bias1)[0]
    assert torch.equal(gradient, torch.zeros(1, 1, 2))
    view = actor.numpy_view()
    assert view(np.zeros((1, 1, 1), np.float32))[1].item() == 2.0


@pytest.mark.parametrize("kind", [StackedActor, StackedGaussian])
def test_in_numpy_as_in_torch(kind):
    actor = kind((3, 8), 4, 2, (16, 16))
    obs = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    for mine, theirs in zip(actor.numpy_view()(obs.numpy()), actor(obs), strict=True):
        np.testing.assert_allclose(mine, theirs.detach().numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("kind", "policy"), [(StackedActor, ActorPolicy), (StackedGaussian, SquashedPolicy)])
def test_what_is_left_acts_in_the_world_s_units_as_the_learner_did(kind, policy):
    """The second learner of two, its best actions stretched from [-1, 1] to the bounds."""
    actor = kind((3, 8), 4, 2, (16, 16))
    obs = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    left = policy(alone(actor, 1), 4, LOW, HIGH)
    raw = actor(torch.stack([obs, obs]))
    inside = (raw if kind is StackedActor else torch.tanh(raw[0]))[1].detach().numpy()
    np.testing.assert_allclose(left.greedy()(obs.numpy()), inside * [2, 5] + [0, 5], rtol=1e-4, atol=1e-5)
    action, said = left.act(obs, rng=torch.Generator().manual_seed(0))
    assert action.shape == (6, 2)
    assert ((action >= LOW) & (action <= HIGH)).all()
    assert said.logp.shape == (6,)
    one, _ = left.act(obs[0], rng=torch.Generator().manual_seed(0))
    assert one.shape == (2,)


def test_the_density_of_a_policy_is_per_world_s_unit():
    """Over an interval 10 long, a nearly uniform squashed Gaussian has density near 1 / 10, not 1 / 2."""
    actor = StackedGaussian((0,), 1, 1, (4,))
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.zero_()
        actor.body.bias1[..., 1] = math.log(0.9)
    policy = SquashedPolicy(actor, 1, torch.tensor([0.0]), torch.tensor([10.0]))
    _, said = policy.act(torch.zeros(50_000, 1), rng=torch.Generator().manual_seed(0))
    spread = 3 * said.logp.std().item() / 50_000**0.5
    assert -said.logp.mean().item() == pytest.approx(said.entropy[0].item(), abs=spread)
    assert said.entropy[0].item() == pytest.approx(math.log(10), abs=0.05)


@pytest.mark.parametrize("activation", ["relu", "tanh", "silu"])
def test_layers_by_hand_pass_gradcheck(activation):
    rng = torch.Generator().manual_seed(1)
    shapes = [(2, 4, 3), (2, 3, 5), (2, 1, 5), (2, 5, 1), (2, 1, 1)]
    inputs = [torch.randn(shape, generator=rng, dtype=torch.float64).requires_grad_() for shape in shapes]
    assert torch.autograd.gradcheck(lambda x, *p: layers(x, p, activation=activation), inputs)


def test_what_does_not_learn_passes_the_action_s_gradient_on():
    """learn=False: the same gradient for the action, none for the critics; `first` is the first critic of each."""
    critic = StackedCritic((0, 1), 3, 2, (8, 8))
    rng = torch.Generator().manual_seed(0)
    obs, action = torch.randn(2, 6, 3, generator=rng), torch.randn(2, 6, 2, generator=rng).requires_grad_()
    both = critic(obs, action)
    frozen = critic(obs, action, learn=False)
    assert torch.equal(both, frozen)
    grads = [torch.autograd.grad(q.square().sum(), action)[0] for q in (both, frozen)]
    assert torch.equal(*grads)
    frozen = critic(obs, action, learn=False)
    found = torch.autograd.grad(frozen.sum(), list(critic.parameters()), allow_unused=True)
    assert all(gradient is None for gradient in found)
    torch.testing.assert_close(critic.first(obs, action), both[:, 0])
