"""The gradient of a TD error by hand: autograd's, step by step of a whole learner, and where it is not known."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from onepolicy.algos.dqn import Config, Learner
from onepolicy.data.replay import Transitions
from onepolicy.learning.optim import OptimConfig
from onepolicy.nn.q_gradient import QGradient, by_hand, huber
from onepolicy.nn.stacked import StackedQ

ROWS, ACTIONS = 6, 3


def batch(rng, learners, *, weighted=False):
    def draw(*shape):
        return torch.from_numpy(3 * rng.standard_normal((learners, ROWS, *shape), dtype=np.float32))

    action = torch.from_numpy(rng.integers(0, ACTIONS, (learners, ROWS)))
    weight = draw().abs() if weighted else None
    row = np.zeros((learners, ROWS), np.int64)
    return Transitions(draw(4), action, draw(), draw(4), torch.where(draw() > 2, 0.0, 0.9), row, weight=weight)


@pytest.mark.parametrize("hidden", [(), (8,), (17, 5)])
@pytest.mark.parametrize("learners", [1, 3])
def test_the_gradients_are_autograd_s(hidden, learners):
    """Mean Huber loss against a fixed goal, errors on both sides of 1: values 1e-6, gradients 1e-6."""
    q = StackedQ(range(learners), 4, ACTIONS, hidden)
    data = batch(np.random.default_rng(0), learners)
    found = QGradient(q, ROWS)
    both = found.forward(data.obs, data.next_obs).copy()
    np.testing.assert_allclose(both[:, ROWS:], q(data.next_obs).detach(), atol=1e-6)
    values = found.forward(data.obs)
    np.testing.assert_allclose(both[:, :ROWS], values, atol=1e-6)
    taken = q(data.obs).gather(-1, data.action.unsqueeze(-1)).squeeze(-1)
    loss = torch.nn.functional.smooth_l1_loss(taken, data.reward, reduction="none")
    mine, slope = huber(values[(*found.places, data.action.numpy())] - data.reward.numpy())
    np.testing.assert_allclose(mine, loss.detach(), rtol=1e-5, atol=1e-6)
    expected = torch.autograd.grad(loss.mean(-1).sum(), list(q.parameters()))
    for one, two in zip(found.backward(data.action.numpy(), slope / ROWS), expected, strict=True):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_a_learner_by_hand_learns_what_one_by_autograd_does(double, weighted):
    """Five updates, clipping included: weights, losses and errors equal to 1e-5."""
    optim = OptimConfig(lr=1e-2, name="adam", max_grad_norm=0.1)
    mine = Learner((3, 8), 4, ACTIONS, (16, 16), Config(batch_size=ROWS, double=double), optim)
    plain = Learner((3, 8), 4, ACTIONS, (16, 16), Config(batch_size=ROWS, double=double), optim)
    plain.load_state_dict(deepcopy(mine.state_dict()))
    plain.gradient, rng = None, np.random.default_rng(0)
    assert mine.gradient is not None
    for _ in range(5):
        data = batch(rng, 2, weighted=weighted)
        errors = [part.update(data, part.look_ahead(data)) for part in (mine, plain)]
        torch.testing.assert_close(*errors, atol=1e-5, rtol=1e-5)
    for name, value in mine.metrics.items():
        torch.testing.assert_close(value, plain.metrics[name], atol=1e-5, rtol=1e-5)
    for one, two in zip(mine.q.parameters(), plain.q.parameters(), strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)


def test_where_it_is_not_known_autograd_stays():
    assert by_hand(StackedQ((0,), 4, 2, (8,)))
    assert not by_hand(StackedQ((0,), 4, 2, (8,), dueling=True))
    assert not by_hand(StackedQ((0,), 6, 2, (8,), masked=True))
