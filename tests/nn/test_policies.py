"""Policies for control: by hand, numpy against torch, sampling against the probabilities they claim, gradients."""

import math

import numpy as np
import pytest
import torch

from onepolicy.batch import Image, Layout
from onepolicy.errors import ConfigError, ModelError
from onepolicy.nn.flat_actor import FlatActor
from onepolicy.nn.heads import draw_categorical, draw_gaussian
from onepolicy.nn.mlp import NetworkOptions, StackedMLP, orthogonal
from onepolicy.nn.policies import CategoricalPolicy, GaussianPolicy


def spread(policy):
    """The policy with weights far from their near-uniform start."""
    with torch.no_grad():
        for p in policy.networks.actor.parameters():
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    return policy


POLICIES = {
    "categorical": lambda: spread(CategoricalPolicy(3, 4, seed=1)),
    "gaussian": lambda: spread(GaussianPolicy(3, 2, log_std=-0.4, seed=1)),
}


def test_a_stack_equals_its_networks_one_by_one():
    stack = StackedMLP(3, (4, 8, 6), rng=torch.Generator().manual_seed(0)).double()
    x = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for k, out in enumerate(stack(x)):
        h = x
        for weight, bias in ((stack.weight0, stack.bias0), (stack.weight1, stack.bias1)):
            h = torch.tanh(h @ weight[k] + bias[k])
        assert torch.allclose(out, h, atol=1e-12)


def test_initial_weights_are_orthogonal_with_the_papers_gains():
    rng = torch.Generator().manual_seed(0)
    wide = orthogonal(2, 3, 5, gain=2.0, rng=rng)
    for matrix in wide:
        assert torch.allclose(matrix @ matrix.T, 4.0 * torch.eye(3), atol=1e-5)
    networks = CategoricalPolicy(4, 2, seed=0).networks
    assert torch.allclose(networks.actor.weight.norm(dim=1), torch.full((2,), 0.01), atol=1e-6)
    assert torch.allclose(networks.critic.weight.norm(dim=1), torch.ones(1), atol=1e-6)
    first = networks.body.weight0[0]
    assert torch.allclose(first @ first.T, 2.0 * torch.eye(4), atol=1e-5)


def test_actor_and_critic_share_nothing():
    policy = CategoricalPolicy(3, 2, seed=0)
    obs = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    policy.evaluate(obs, torch.zeros(4, dtype=torch.int64)).value.sum().backward()
    weight = policy.networks.body.weight1.grad
    assert weight[0].abs().max() == 0
    assert weight[1].abs().max() > 0


def test_the_same_seed_gives_the_same_policy():
    a, b, c = (CategoricalPolicy(3, 2, seed=seed).networks.body.weight0 for seed in (5, 5, 6))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_categorical_by_hand():
    """Logits (0, log 3) at every state: p = (1/4, 3/4), entropy = log 4 - (3/4) log 3, the value is its bias."""
    policy = CategoricalPolicy(2, 2, seed=0)
    with torch.no_grad():
        policy.networks.actor.weight.zero_()
        policy.networks.actor.bias.copy_(torch.tensor([0.0, math.log(3.0)]))
        policy.networks.critic.weight.zero_()
        policy.networks.critic.bias.fill_(7.0)
    said = policy.evaluate(torch.randn(2, 2), torch.tensor([0, 1]))
    assert said.logp.exp().tolist() == pytest.approx([0.25, 0.75])
    assert said.entropy.tolist() == pytest.approx([math.log(4) - 0.75 * math.log(3)] * 2)
    assert said.value.tolist() == [7.0, 7.0]


def test_gaussian_by_hand():
    """Mean 0 at every state, std 1/2 and 2: log density at (1/2, 2) is -1/2 - 1/2 - log(1/2 * 2) - log(2 pi)."""
    policy = GaussianPolicy(2, 2, seed=0)
    with torch.no_grad():
        policy.networks.actor.weight.zero_()
        policy.log_std.copy_(torch.tensor([0.5, 2.0]).log())
    said = policy.evaluate(torch.randn(1, 2), torch.tensor([[0.5, 2.0]]))
    assert said.logp.item() == pytest.approx(-1.0 - math.log(2 * math.pi), abs=1e-6)
    assert said.entropy.item() == pytest.approx(1.0 + math.log(2 * math.pi), abs=1e-6)


@pytest.mark.parametrize("kind", POLICIES)
def test_leading_dimensions_are_rows(kind):
    policy = POLICIES[kind]()
    obs = torch.randn(3, 5, 3, generator=torch.Generator().manual_seed(3))
    action, said = policy.act(obs, rng=torch.Generator().manual_seed(0))
    flat = policy.evaluate(obs.reshape(15, 3), action.reshape(15, *action.shape[2:]))
    for name in ("logp", "entropy", "value"):
        assert getattr(said, name).shape == (3, 5)
        assert torch.allclose(getattr(said, name).reshape(15), getattr(flat, name), atol=1e-6)


@pytest.mark.parametrize("kind", POLICIES)
def test_the_numpy_copy_says_what_torch_says(kind):
    policy = POLICIES[kind]()
    obs = np.random.default_rng(0).standard_normal((200, 3)).astype(np.float32)
    sampler = policy.sampler(np.random.default_rng(1))
    (action, logp), later = sampler.draw(obs)
    assert later is None
    value = sampler.value(obs)
    said = policy.evaluate(torch.from_numpy(obs), torch.from_numpy(action))
    assert torch.allclose(said.logp, torch.from_numpy(logp), atol=2e-6)
    assert torch.allclose(said.value, torch.from_numpy(value), atol=2e-6)
    np.testing.assert_allclose(np.concatenate([sampler.value(row[None]) for row in obs]), value, atol=1e-6)
    assert (action.dtype, logp.dtype, value.dtype) == (
        np.int64 if kind == "categorical" else np.float32, np.float32, np.float32,
    )  # fmt: skip


@pytest.mark.parametrize("kind", POLICIES)
def test_the_numpy_copy_is_of_its_moment(kind):
    policy = POLICIES[kind]()
    obs = np.ones((1, 3), dtype=np.float32)
    sampler, greedy = policy.sampler(np.random.default_rng(0)), policy.greedy()
    value, best = sampler.value(obs), greedy(obs)
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(1.0)
    assert np.array_equal(sampler.value(obs), value)
    assert np.array_equal(greedy(obs), best)


def test_draws_have_the_probabilities_they_claim():
    logits = np.log(np.array([0.1, 0.0001, 0.6, 0.2999], dtype=np.float32))
    draw = draw_categorical(np.tile(logits, (100_000, 1)), np.random.default_rng(0))
    frequency = np.bincount(draw.action, minlength=4) / 100_000
    assert np.abs(frequency - np.exp(logits)).max() < 0.006  # four standard errors
    assert np.allclose(draw.logp, logits[draw.action], atol=1e-6)


def test_an_impossible_action_is_never_drawn():
    logits = np.array([[-np.inf, 0.0, -np.inf, 0.0, -np.inf]], dtype=np.float32)
    draw = draw_categorical(np.repeat(logits, 10_000, axis=0), np.random.default_rng(0))
    assert set(draw.action.tolist()) == {1, 3}


def test_gaussian_draws_have_the_moments_they_claim():
    mean, log_std = np.array([[1.0, -2.0]], dtype=np.float32), np.log(np.array([0.5, 3.0], dtype=np.float32))
    draw = draw_gaussian(np.repeat(mean, 100_000, axis=0), log_std, np.random.default_rng(0))
    assert np.allclose(draw.action.mean(axis=0), mean[0], atol=0.04)
    assert np.allclose(draw.action.std(axis=0), [0.5, 3.0], rtol=0.02)
    assert -draw.logp.mean() == pytest.approx((1 + math.log(2 * math.pi)) + math.log(1.5), abs=0.02)  # the entropy


def test_greedy_is_the_most_probable_action():
    policy = POLICIES["categorical"]()
    obs = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    logp = torch.stack([policy.evaluate(obs, torch.full((50,), a)).logp for a in range(4)])
    assert policy.greedy()(obs.numpy()).tolist() == logp.argmax(0).tolist()
    policy = POLICIES["gaussian"]()
    density = policy.evaluate(obs, torch.from_numpy(policy.greedy()(obs.numpy()))).logp
    assert torch.allclose(density, (-policy.log_std - 0.5 * math.log(2 * math.pi)).sum().expand(50), atol=1e-5)


@pytest.mark.parametrize("kind", POLICIES)
def test_gradients_are_those_of_finite_differences(kind):
    policy = POLICIES[kind]().double()
    obs = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    action = torch.tensor([0, 1, 2, 3]) if kind == "categorical" else torch.ones(4, 2, dtype=torch.float64)
    weight = policy.networks.body.weight0

    def loss(w):
        out = torch.func.functional_call(policy, {"networks.body.weight0": w}, (obs, action))
        return out.logp.sum() + out.entropy.sum() + out.value.sum()

    policy.forward = policy.evaluate
    assert torch.autograd.gradcheck(loss, weight)


def test_networks_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="at least one hidden layer"):
        CategoricalPolicy(3, 2, hidden=())
    with pytest.raises(ConfigError, match="at least 1"):
        CategoricalPolicy(0, 2)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("orthogonal", [True, False])
def test_network_options_are_what_torchs_layers_would_be(activation, orthogonal):
    """Both networks by torch's own modules; uniform weights and biases reach 1 / sqrt(in), orthogonal biases are 0."""
    options = NetworkOptions(activation=activation, orthogonal=orthogonal)
    policy = CategoricalPolicy(5, 3, hidden=(64, 32), seed=1, options=options)
    networks, obs = policy.networks, torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    logits, value = networks(obs)
    for place, (head, found) in enumerate(((networks.actor, logits), (networks.critic, value[:, None]))):
        h = obs
        for weight, bias in networks.body.layers:
            h = h @ getattr(networks.body, weight)[place] + getattr(networks.body, bias)[place]
            h = torch.tanh(h) if activation == "tanh" else h.clamp(min=0)
        torch.testing.assert_close(found, torch.nn.functional.linear(h, head.weight, head.bias))
    numpy_logits, numpy_value = networks.frozen().both(obs.numpy())
    np.testing.assert_allclose(numpy_logits, logits.detach().numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(numpy_value, value.detach().numpy(), rtol=1e-5, atol=1e-6)
    first = networks.body.weight0.detach()[0]
    if orthogonal:
        assert not networks.actor.bias.detach().any()
        torch.testing.assert_close(first @ first.T, 2 * torch.eye(5))
    else:
        assert 0.43 < float(first.abs().max()) <= 5**-0.5
        assert 0.15 < float(networks.actor.weight.detach().abs().max()) <= 32**-0.5
        assert float(networks.body.bias1.detach().abs().max()) <= 64**-0.5


def test_network_options_do_not_go_with_memory_images_or_curvature():
    relu = NetworkOptions(activation="relu")
    with pytest.raises(ConfigError, match="Leave network out"):
        CategoricalPolicy(5, 3, options=relu, recurrent="lstm")
    with pytest.raises(ConfigError, match=r"'gru' with images.*world\.frame_stack"):
        CategoricalPolicy(100, 3, layout=Layout((Image(1, 10, 10),)), recurrent="gru")
    with pytest.raises(ModelError, match=r"network\.activation"):
        FlatActor(CategoricalPolicy(5, 3, options=relu))
