"""Policies that remember: sequences with resets against a loop, numpy against torch, what `act` carries and forgets."""

import numpy as np
import pytest
import torch

from onepolicy.batch import SequenceInputs
from onepolicy.errors import ConfigError, ModelError
from onepolicy.nn.flat_actor import FlatActor
from onepolicy.nn.multi import MultiCategoricalPolicy
from onepolicy.nn.policies import CategoricalPolicy, GaussianPolicy
from onepolicy.nn.recurrent import RecurrentActorCritic

CELLS = ("lstm", "gru")
SHAPES = [(6,), (5, 6)]


def networks(cell, hidden=(6,), bits=0):
    found = RecurrentActorCritic(4 + bits, 3, hidden, 0, cell=cell, bits=bits).double()
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in found.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=rng, dtype=p.dtype))
    return found


def sequences(net, rows=5, steps=17, seed=0, often=0.2):
    """Rows with many episodes, few, and none that begin within."""
    rng = torch.Generator().manual_seed(seed)
    obs = torch.randn(rows, steps, 4, generator=rng, dtype=torch.float64)
    start = torch.rand(rows, steps, generator=rng) < often
    start[0] = False
    state = torch.randn(rows, net.memory.width, generator=rng, dtype=torch.float64)
    return SequenceInputs(obs, start, state)


def by_loop(net, inputs):
    """One step of torch's own cells at a time, all forgotten where an episode starts."""
    rows, steps = inputs.start.shape
    parts = inputs.state.view(rows, -1, 2, net.size).permute(2, 1, 0, 3)
    heads = []
    for k, cell in enumerate((net.acting, net.judging)):
        state, found = [part.clone() for part in parts[k]], []
        for t in range(steps):
            state = [torch.where(inputs.start[:, t, None], 0.0, part) for part in state]
            x = inputs.obs[:, t]
            x = x if net.body is None else net.body(x)[k]
            past = tuple(part[None] for part in state)
            out, after = cell(x[None], past if len(past) == 2 else past[0])
            state = [part[0] for part in (after if isinstance(after, tuple) else (after,))]
            found.append(out[0])
        heads.append(torch.stack(found, 1))
    return net.actor(heads[0]), net.critic(heads[1])[..., 0]


@pytest.mark.parametrize("hidden", SHAPES)
@pytest.mark.parametrize("cell", CELLS)
def test_a_sequence_with_resets_is_its_steps_one_by_one_and_so_are_its_gradients(cell, hidden):
    net = networks(cell, hidden)
    inputs = sequences(net)
    for found, expected in zip(net(inputs), by_loop(net, inputs), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    slopes = []
    for run in (net, lambda x: by_loop(net, x)):
        out, value = run(inputs)
        slopes.append(torch.autograd.grad((out.sin().sum() + value.square().sum()), list(net.parameters())))
    for found, expected in zip(*slopes, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("cell", CELLS)
def test_without_resets_and_with_a_reset_at_the_first_step(cell):
    net = networks(cell)
    calm = sequences(net, often=0.0)
    begun = SequenceInputs(calm.obs, calm.start.clone(), calm.state)
    begun.start[1, 0] = True
    for inputs in (calm, begun):
        for found, expected in zip(net(inputs), by_loop(net, inputs), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert not torch.equal(net(calm)[1][1], net(begun)[1][1])
    assert torch.equal(net(calm)[1][2], net(begun)[1][2])


@pytest.mark.parametrize("hidden", SHAPES)
@pytest.mark.parametrize("cell", CELLS)
def test_acting_in_numpy_says_what_learning_in_torch_says(cell, hidden):
    """float32, to 1e-6; and the values of what follows leave the memory as it is."""
    net = networks(cell, hidden).float()
    inputs = sequences(net)
    obs, start, state = inputs.obs.float(), inputs.start, inputs.state.float()
    frozen = net.frozen()
    frozen.memory.state = state.numpy().copy()
    out, value = (x.detach().numpy() for x in net(SequenceInputs(obs, start, state)))
    for t in range(obs.shape[1]):
        frozen.memory.forget(start[:, t].numpy())
        ahead = frozen.value(obs[:, t].numpy())
        acted, judged = frozen.both(obs[:, t].numpy())
        np.testing.assert_allclose(acted, out[:, t], rtol=0, atol=1e-6)
        np.testing.assert_allclose(judged, value[:, t], rtol=0, atol=2e-6)
        np.testing.assert_array_equal(ahead, judged)


POLICIES = {
    "categorical": lambda **more: CategoricalPolicy(3, 4, hidden=(8,), seed=1, **more),
    "several": lambda **more: MultiCategoricalPolicy(3, (2, 3), hidden=(8,), seed=1, **more),
    "gaussian": lambda **more: GaussianPolicy(3, 2, hidden=(8,), seed=1, **more),
}


@pytest.mark.parametrize("kind", POLICIES)
def test_act_remembers_until_it_forgets(kind):
    """Step by step it says what evaluate says of the whole; forgetting one episode begins that one anew."""
    policy = POLICIES[kind](recurrent="lstm")
    obs = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0))
    rng = torch.Generator().manual_seed(0)
    said = [policy.act(obs[:, t], rng=rng) for t in range(6)]
    action = torch.stack([action for action, _ in said], 1)
    whole = policy.evaluate(obs, action)
    for name in ("logp", "entropy", "value"):
        stepwise = torch.stack([getattr(found, name) for _, found in said], 1)
        torch.testing.assert_close(stepwise, getattr(whole, name), rtol=0, atol=1e-6)
    first = said[0][1].value
    policy.forget(torch.tensor([True, False]))
    again = policy.act(obs[:, 0], rng=rng)[1].value
    torch.testing.assert_close(again[0], first[0], rtol=0, atol=1e-6)
    assert abs(again[1] - first[1]) > 1e-3
    policy.forget()
    torch.testing.assert_close(policy.act(obs[:, 0], rng=rng)[1].value, first, rtol=0, atol=1e-6)


def test_one_observation_alone_and_another_number_of_episodes():
    policy = POLICIES["categorical"](recurrent="gru")
    obs = torch.randn(3, generator=torch.Generator().manual_seed(0))
    action, said = policy.act(obs)
    assert action.shape == said.value.shape == ()
    two = policy.act(obs.expand(2, 3))[1].value
    torch.testing.assert_close(two, said.value.expand(2), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", POLICIES)
def test_greedy_remembers_what_it_saw(kind):
    """Its second answer is that of a policy that saw both observations."""
    policy = POLICIES[kind](recurrent="lstm")
    with torch.no_grad():
        policy.networks.actor.weight.mul_(1000.0)
    obs = np.random.default_rng(0).standard_normal((50, 2, 3)).astype(np.float32)
    fresh, greedy = policy.greedy(), policy.greedy()
    greedy(obs[:, 0])
    second = greedy(obs[:, 1])
    assert not np.array_equal(second, fresh(obs[:, 1]))
    greedy.memory.forget(np.ones(50, dtype=bool))
    again = [greedy(obs[:, t]) for t in range(2)]
    assert np.array_equal(again[1], second)


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match=r"recurrent is 'ltsm'\. Did you mean 'lstm'"):
        CategoricalPolicy(3, 2, recurrent="ltsm")
    with pytest.raises(ConfigError, match="the last of the hidden widths is the cell's"):
        CategoricalPolicy(3, 2, hidden=(), recurrent="lstm")
    with pytest.raises(ModelError, match="RecurrentActorCritic, whose curvature is not known"):
        FlatActor(POLICIES["categorical"](recurrent="lstm"))
