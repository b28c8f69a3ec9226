"""A plain policy's gradient by hand: autograd's, for any number of rows, and where it is not known."""

from copy import deepcopy
from functools import partial

import pytest
import torch

from onepolicy.batch import Evaluation, PolicyBatch
from onepolicy.core.policy import PolicyLoss, clipped
from onepolicy.learning.learner import PolicyLearner
from onepolicy.learning.optim import OptimConfig
from onepolicy.nn.mlp import NetworkOptions
from onepolicy.nn.multi import MultiCategoricalPolicy
from onepolicy.nn.policies import CategoricalPolicy, GaussianPolicy
from onepolicy.nn.policy_gradient import ROWS, SIZES, gradient_of

DIM, OUT = 5, 3


def policy_of(kind, activation="tanh", hidden=(24, 12)):
    chosen = {"hidden": hidden, "options": NetworkOptions(activation, orthogonal=False), "seed": 3}
    if kind == "gaussian":
        return GaussianPolicy(DIM, OUT, log_std=-0.4, **chosen)
    return CategoricalPolicy(DIM, OUT, **chosen)


def taken(kind, *lead, seed=0):
    rng = torch.Generator().manual_seed(seed)
    obs = torch.randn(*lead, DIM, generator=rng)
    if kind == "gaussian":
        return obs, torch.randn(*lead, OUT, generator=rng)
    return obs, torch.randint(OUT, lead, generator=rng)


def slopes_of(*lead, seed=0):
    rng = torch.Generator().manual_seed(100 + seed)
    return Evaluation(*(torch.randn(*lead, generator=rng) for _ in range(3)))


def by_autograd(policy, obs, action, slopes):
    said = policy.evaluate(obs, action)
    total = (said.logp * slopes.logp + said.entropy * slopes.entropy + said.value * slopes.value).sum()
    return said, torch.autograd.grad(total, list(policy.parameters()))


@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("hidden", [(24, 12), (8,), (300, 300)])
def test_it_says_what_evaluate_does_and_its_gradient_is_autograd_s(kind, activation, hidden):
    """To 1e-5 of the largest; the widest layers are large enough for the other library of products."""
    policy = policy_of(kind, activation, hidden)
    mine = gradient_of(policy)
    for lead in ((40, 1), (6, 4), (1, 1)):
        obs, action = taken(kind, *lead)
        expected, gradients = by_autograd(policy, obs, action, slopes_of(*lead))
        found = mine.evaluate(obs, action)
        for name in ("logp", "entropy", "value"):
            torch.testing.assert_close(getattr(found, name), getattr(expected, name), atol=1e-5, rtol=1e-5)
        policy.zero_grad()
        mine.backward(slopes_of(*lead))
        for p, gradient in zip(policy.parameters(), gradients, strict=True):
            torch.testing.assert_close(p.grad, gradient, atol=1e-5 * float(gradient.abs().max()) + 1e-7, rtol=1e-5)


@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
def test_gradients_add_up_as_autograd_s_do(kind):
    """Two parts of one size, then one of another: the sum of the three."""
    policy = policy_of(kind)
    mine, total = gradient_of(policy), [torch.zeros_like(p) for p in policy.parameters()]
    for part, lead in enumerate(((10, 1), (10, 1), (7, 1))):
        obs, action = taken(kind, *lead, seed=part)
        _, gradients = by_autograd(policy, obs, action, slopes_of(*lead, seed=part))
        total = [before + new for before, new in zip(total, gradients, strict=True)]
        mine.evaluate(obs, action)
        mine.backward(slopes_of(*lead, seed=part))
    for p, expected in zip(policy.parameters(), total, strict=True):
        torch.testing.assert_close(p.grad, expected, atol=1e-5, rtol=1e-5)


def test_more_sizes_than_are_kept_change_nothing():
    policy = policy_of("gaussian")
    mine = gradient_of(policy)
    for rows in (*range(1, SIZES + 4), 1, ROWS - 1, ROWS + 5):
        obs, action = taken("gaussian", rows, 1)
        torch.testing.assert_close(mine.evaluate(obs, action).logp, policy.evaluate(obs, action).logp.detach())
        assert len(mine._known) <= SIZES
        assert sum(mine._known) <= max(rows, ROWS)


@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
def test_a_learner_by_hand_learns_what_one_by_autograd_does(kind):
    """Ten steps on two minibatches of unequal size, clipping included; weights and metrics equal to 1e-5."""
    optim = OptimConfig(lr=1e-2, name="adam", max_grad_norm=0.1)
    loss = PolicyLoss(partial(clipped, low=0.2, high=0.2), value_coef=0.5, entropy_coef=0.01)
    mine, plain = (PolicyLearner(policy_of(kind), loss, optim=optim) for _ in range(2))
    plain._gradient_of = lambda policy: None
    for step in range(10):
        obs, action = taken(kind, 20 if step % 2 else 13, 1, seed=step)
        with torch.no_grad():
            old = policy_of(kind).evaluate(obs, action)
        batch = PolicyBatch(
            inputs=obs,
            action=action,
            mask=torch.ones(action.shape[:2], dtype=torch.bool),
            logp_behaviour=old.logp,
            advantage=old.value - 0.1,
            value_target=old.value + 1.0,
        )
        found, expected = mine.step(batch), plain.step(batch)
        assert found == pytest.approx(expected, abs=1e-5)
    assert mine._hand is not None
    assert plain._hand is None
    for one, two in zip(mine.policy.parameters(), plain.policy.parameters(), strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)


def test_where_it_is_not_known_autograd_stays():
    assert gradient_of(policy_of("gaussian"))
    assert gradient_of(policy_of("categorical"))
    assert not gradient_of(policy_of("gaussian").double())
    assert not gradient_of(CategoricalPolicy(8, 3, masked=True))
    assert not gradient_of(CategoricalPolicy(8, 3, recurrent="lstm"))
    assert not gradient_of(MultiCategoricalPolicy(8, (3, 2)))
    held = policy_of("gaussian")
    held.log_std.requires_grad_(False)
    assert not gradient_of(held)


def test_it_notices_that_weights_were_moved_or_held():
    """What it sees would be stale: the learner asks and makes another, or leaves it to autograd."""
    policy = policy_of("categorical")
    mine = gradient_of(policy)
    assert mine.current
    policy.load_state_dict(deepcopy(policy.state_dict()))
    assert mine.current
    policy.networks.actor.bias.requires_grad_(False)
    assert not mine.current
    policy.networks.actor.bias.requires_grad_(True)
    policy.networks.critic.weight.data = policy.networks.critic.weight.data.clone()
    assert not mine.current
