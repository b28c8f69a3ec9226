"""Networks side by side: each is the network it would be alone, in torch, in numpy and in its gradients."""

import numpy as np
import pytest
import torch
from torch import nn

from onepolicy.errors import ConfigError
from onepolicy.nn.greedy import GreedyPolicy
from onepolicy.nn.stacked import Stacked, StackedCritic, StackedQ, alone, follow, target_of

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "silu": nn.SiLU}


def network_of(stack, g):
    """The g-th network as torch would have it: linear layers and activations in a row."""
    parts = []
    for weight, bias in stack.layers:
        w, b = (getattr(stack, name).detach()[g] for name in (weight, bias))
        linear = nn.Linear(*w.shape)
        linear.weight, linear.bias = nn.Parameter(w.T.clone()), nn.Parameter(b[0].clone())
        parts += [linear, ACTIVATIONS[stack.activation]()]
    return nn.Sequential(*parts[:-1])


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("sizes", "each"), [((3, 5, 4, 2), 1), ((3, 7, 1), 2), ((4, 2), 1)])
def test_each_is_the_network_it_would_be_in_torch(sizes, each, activation):
    """Outputs, and the gradient of a sum of squares in every weight."""
    stack = Stacked((4, 9, 2), sizes, each=each, activation=activation, name="x")
    x = torch.randn(3 * each, 6, sizes[0], generator=torch.Generator().manual_seed(0))
    out = stack(x)
    out.square().sum().backward()
    for g in range(3 * each):
        one = network_of(stack, g)
        expected = one(x[g])
        expected.square().sum().backward()
        torch.testing.assert_close(out[g], expected)
        linears = [part for part in one if isinstance(part, nn.Linear)]
        for linear, (weight, bias) in zip(linears, stack.layers, strict=True):
            torch.testing.assert_close(getattr(stack, weight).grad[g], linear.weight.grad.T, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(getattr(stack, bias).grad[g, 0], linear.bias.grad, rtol=1e-4, atol=1e-5)


def test_a_seed_begins_alike_whoever_is_beside_it():
    """And within 1 / sqrt(inputs), differently for each seed and each network of a learner."""
    together = Stacked((4, 9), (16, 5, 2), each=2, name="x")
    for k, seed in enumerate((4, 9)):
        single = Stacked((seed,), (16, 5, 2), each=2, name="x")
        for name, parameter in together.named_parameters():
            assert torch.equal(parameter[2 * k : 2 * k + 2], getattr(single, name))
    flat = together.weight0.detach().reshape(4, -1)
    assert len({tuple(row.tolist()) for row in flat}) == 4
    assert 0.23 < flat.abs().max() <= 1 / 4
    assert 0.4 < together.weight1.abs().max() <= 5**-0.5


@pytest.mark.parametrize("dueling", [False, True])
def test_q_in_numpy_follows_what_is_learnt(dueling):
    q = StackedQ((1, 2), 3, 4, (8, 6), dueling=dueling)
    view = q.numpy_view()
    optimizer = torch.optim.SGD(q.parameters(), lr=0.1)
    obs = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(1))
    before = view(obs.numpy()).copy()
    for _ in range(2):
        values = q(obs)
        np.testing.assert_allclose(view(obs.numpy()), values.detach().numpy(), rtol=1e-5, atol=1e-6)
        values.square().sum().backward()
        optimizer.step()
    assert np.abs(view(obs.numpy()) - before).max() > 1e-3


def test_dueling_by_hand():
    """Stream one sees max(x, 0) and doubles it, stream two sees max(-x, 0): Q = V + A - mean A."""
    q = StackedQ((0,), 1, 2, (1,), dueling=True)
    with torch.no_grad():
        for parameter in q.parameters():
            parameter.zero_()
        q.body.weight0[0, 0] = torch.tensor([1.0, -1.0])
        q.value.weight0[0] = 2.0
        q.advantage.weight0[0, 0] = torch.tensor([3.0, 5.0])
    assert q(torch.tensor([[[1.5], [-2.0]]])).tolist() == [[[3.0, 3.0], [-2.0, 2.0]]]


def test_dueling_streams_have_the_value_as_their_mean():
    q = StackedQ((3, 4), 3, 5, (8, 6), dueling=True)
    obs = torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(1))
    left = torch.relu(q.body(obs))[..., :6]
    torch.testing.assert_close(q(obs).mean(-1), q.value(left).squeeze(-1))


@pytest.mark.parametrize("dueling", [False, True])
def test_one_learner_taken_out_is_a_copy(dueling):
    q = StackedQ((1, 2, 3), 3, 4, (6,), dueling=dueling)
    single = alone(q, 1)
    obs = torch.randn(3, 5, 3, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(single(obs[1:2]), q(obs)[1:2])
    kept = single(obs[1:2]).detach()
    with torch.no_grad():
        for parameter in q.parameters():
            parameter += 1
    torch.testing.assert_close(single(obs[1:2]), kept)
    policy = GreedyPolicy(single, 3)
    action, found = policy.act(obs[1])
    assert action.tolist() == kept[0].argmax(-1).tolist() == policy.greedy()(obs[1].numpy()).tolist()
    torch.testing.assert_close(found.value, kept[0].max(-1).values)
    assert policy.act(obs[1, 0])[0].shape == ()
    assert found.logp.tolist() == found.entropy.tolist() == [0] * 5


def test_critics_see_observation_and_action():
    critic = StackedCritic((1, 2), 3, 2, (6,), count=2)
    rng = torch.Generator().manual_seed(1)
    obs, action = torch.randn(2, 5, 3, generator=rng), torch.randn(2, 5, 2, generator=rng)
    found = critic(obs, action)
    for learner in range(2):
        x = torch.cat([obs[learner], action[learner]], -1)
        for k in range(2):
            expected = network_of(critic.body, 2 * learner + k)(x).squeeze(-1)
            torch.testing.assert_close(found[learner, k], expected)


def test_a_target_follows_by_its_share_and_learns_nothing():
    q = StackedQ((1,), 2, 2, (3,))
    target = target_of(q)
    assert not any(parameter.requires_grad for parameter in target.parameters())
    with torch.no_grad():
        for parameter in q.parameters():
            parameter += 1
    before = [parameter.clone() for parameter in target.parameters()]
    follow(target, q, 0.25)
    for old, new in zip(before, target.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.25)
    follow(target, q, 1.0)
    for mine, new in zip(q.parameters(), target.parameters(), strict=True):
        assert torch.equal(mine, new)


def test_networks_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match=r"sizes is \(3,\)"):
        Stacked((1,), (3,), name="x")
    with pytest.raises(ConfigError, match=r"sizes is \(3, 0, 2\)"):
        Stacked((1,), (3, 0, 2), name="x")
    with pytest.raises(ConfigError, match=r"hidden is \(\) with dueling"):
        StackedQ((1,), 3, 2, (), dueling=True)
