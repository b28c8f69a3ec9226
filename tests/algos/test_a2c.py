"""A2C: n-step returns by hand, one update a rollout, its gradient that of the sum it stands for."""

import pytest
import torch

from onepolicy.acting.collect import Collector
from onepolicy.algos import a2c
from onepolicy.data.rollout import flatten
from onepolicy.envs.classic import CartPole
from onepolicy.errors import ConfigError
from onepolicy.learning.learner import PolicyLearner
from onepolicy.learning.optim import OptimConfig
from onepolicy.nn.policies import CategoricalPolicy


def test_at_lambda_one_the_targets_are_n_step_returns(by_hand):
    """gamma 1/2: 1 + 2/2 + 10/4 up to the truncation, 3 at the termination, 4 + 20/2 at the rollout's end."""
    batch = a2c.credit(by_hand, a2c.Config(gamma=0.5, lam=1.0))
    assert batch.value_target.tolist() == [[4.5, 7.0, 3.0, 14.0]]
    assert batch.advantage.tolist() == [[4.0, 6.0, 1.5, 12.0]]


def test_at_lambda_zero_they_are_one_step_ones(by_hand):
    batch = a2c.credit(by_hand, a2c.Config(gamma=0.5, lam=0.0))
    assert batch.value_target.tolist() == [[1.5, 7.0, 3.0, 14.0]]


def test_one_update_a_rollout_with_advantages_as_they_are(notebook):
    learner, steps = notebook(), []
    play = Collector(CartPole(2, 0), CategoricalPolicy(4, 2, seed=0), steps=5, seed=0)
    a2c.fit(learner, play, a2c.Config(), steps=25, after_step=lambda n, _: bool(steps.append(n)))
    assert steps == [10, 20, 30]
    assert [len(b) for b in learner.batches] == [10, 10, 10]
    again = Collector(CartPole(2, 0), CategoricalPolicy(4, 2, seed=0), steps=5, seed=0).collect()
    assert torch.equal(learner.batches[0].advantage, flatten(a2c.credit(again, a2c.Config())).advantage)


def test_the_gradient_is_that_of_the_naive_loss(by_hand):
    """-A log pi + (V - R)^2 / 2 - 0.1 H, written out step by step and averaged."""
    config = a2c.Config(gamma=0.5, entropy_coef=0.1)
    batch = flatten(a2c.credit(by_hand, config)).map(lambda x: x.double() if x.is_floating_point() else x)
    batch = batch.map(lambda x: x + 0.3 if x.dim() == 3 else x)  # an observation that is not zero
    policy = CategoricalPolicy(2, 2, hidden=(5,), seed=0).double()
    total = torch.zeros((), dtype=torch.float64)
    for row in range(4):
        logits, value = policy.networks(batch.inputs[row, 0])
        p = torch.softmax(logits, -1)
        total += -batch.advantage[row, 0] * p[batch.action[row, 0]].log()
        total += 0.5 * (value - batch.value_target[row, 0]) ** 2 + 0.1 * (p * p.log()).sum()
    expected = torch.autograd.grad(total / 4, list(policy.parameters()))
    before = [p.detach().clone() for p in policy.parameters()]
    sgd = OptimConfig(lr=1.0, name="sgd", betas=(0.0, 0.0), max_grad_norm=0.0)
    PolicyLearner(policy, a2c.loss(config), optim=sgd).step(batch)
    for old, new, gradient in zip(before, policy.parameters(), expected, strict=True):
        assert torch.allclose(old - new, gradient, atol=1e-12)


def test_choices_that_cannot_work_are_refused():
    with pytest.raises(ConfigError, match="gamma is 2"):
        a2c.Config(gamma=2.0)
