"""The exactness laboratory: a bandit through the language path and through control's is one core. docs/laboratory.md.

Arms are tokens of a completion of one token, or actions of an episode of one step: the same softmax, the same bits.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from onepolicy.algos import a2c, grpo, reinforce
from onepolicy.batch import Evaluation, TokenInputs
from onepolicy.core.policy import PolicyLoss, clipped
from onepolicy.core.policy import reinforce as score_function
from onepolicy.core.reduce import REDUCTIONS
from onepolicy.data.packing import token_batch
from onepolicy.data.rollout import Rollout, flatten
from onepolicy.learning.learner import PolicyLearner
from onepolicy.learning.optim import OptimConfig
from onepolicy.nn.policies import CategoricalPolicy
from onepolicy.types import Episode, Score

ARMS = 5


class Softmax(nn.Module):
    """Preferences of K arms, whatever the prompt or the observation says."""

    def __init__(self, seed=0):
        super().__init__()
        self.logits = nn.Parameter(torch.randn(ARMS, generator=torch.Generator().manual_seed(seed)))

    def evaluate(self, inputs, action):
        logp = self.logits.log_softmax(-1)
        there = inputs.is_action if isinstance(inputs, TokenInputs) else torch.ones_like(action, dtype=torch.bool)
        entropy = -(logp.exp() * logp).sum().detach().expand(action.shape)
        return Evaluation(torch.where(there, logp[action], 0.0), torch.where(there, entropy, 0.0))


def pulls(count, seed=0):
    """(arms [n], rewards [n], the sampler's log-probabilities [n]), as float32 gives them."""
    rng = torch.Generator().manual_seed(seed)
    policy = Softmax()
    arm = torch.multinomial(policy.logits.detach().softmax(-1), count, replacement=True, generator=rng)
    reward = torch.randn(count, generator=rng)
    return arm, reward, policy.logits.detach().log_softmax(-1)[arm]


def as_text(arm, reward, logp):
    """A completion of one token for each pull."""
    return [
        Episode("bandit", 0, (0, int(a)), (False, True), (0.0, float(p)), Score(float(r)))
        for a, r, p in zip(arm, reward, logp, strict=True)
    ]


def as_control(arm, reward, logp, value):
    """An episode of one step for each pull; `value` is what the critic says of the one state."""
    n, column = len(arm), lambda x: x[:, None]
    return Rollout(
        obs=torch.ones(n, 1, 1), action=column(arm), logp=column(logp), value=column(value),
        next_value=torch.zeros(n, 1), reward=column(reward), terminated=torch.ones(n, 1, dtype=torch.bool),
        truncated=torch.zeros(n, 1, dtype=torch.bool), mask=torch.ones(n, 1, dtype=torch.bool),
    )  # fmt: skip


def gradient(policy, batch, loss, reduction="token_mean", length=None):
    """The learner's own gradient: what one SGD step of rate 1 takes from the parameters, exact from logits of 0."""
    seen = []
    for p in policy.parameters():
        p.register_hook(lambda g: seen.append(g.clone()))
    optim = OptimConfig(lr=1.0, name="sgd", betas=(0.0, 0.0), max_grad_norm=0.0)
    PolicyLearner(policy, loss, optim=optim, reduction=reduction, length=length).step(batch)
    return seen[0]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("seed", range(3))
def test_grpo_on_a_bandit_is_reinforce_with_a_baseline(seed, reduction):
    """The group's mean is the baseline: batch and gradient are REINFORCE's to the last bit, under every reduction."""
    arm, reward, logp = pulls(8, seed)
    length = 1 if reduction == "fixed_length" else None
    ours = grpo.assign(as_text(arm, reward, logp), grpo.Credit(8, scale="none"), pad_id=0)
    baseline = reward.double().mean()
    theirs = token_batch(as_text(arm, reward, logp), (reward.double() - baseline).float().numpy(), 0)
    for name in ("action", "mask", "logp_behaviour", "advantage"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    grpo_loss = PolicyLoss(partial(clipped, low=0.2, high=0.2))
    found = gradient(Softmax(), ours, grpo_loss, reduction, length)
    assert torch.equal(found, gradient(Softmax(), theirs, PolicyLoss(score_function), reduction, length))
    assert found.abs().max() > 1e-3


@pytest.mark.parametrize("credit", ["reinforce", "a2c"])
def test_language_and_control_are_one_core(credit):
    """The same pulls as completions [B, 2] and as episodes [B, 1]: the same advantages and gradient, bit for bit."""
    arm, reward, logp = pulls(64)
    mean = reward.mean().expand(64)
    module = {"reinforce": reinforce, "a2c": a2c}[credit]
    control = flatten(module.credit(as_control(arm, reward, logp, mean), module.Config()))
    text = token_batch(as_text(arm, reward, logp), (reward - mean).numpy(), 0)
    assert torch.equal(control.advantage[:, 0], text.advantage[:, 1])
    assert torch.equal(control.logp_behaviour[:, 0], text.logp_behaviour[:, 1])
    loss = PolicyLoss(partial(clipped, low=0.2, high=0.2))
    assert torch.equal(gradient(Softmax(), control, loss), gradient(Softmax(), text, loss))


def test_training_both_ways_ends_in_the_same_place():
    """Learning both ways from the same pulls, Adam and all: the same parameters, and the best arm."""
    ends, worth = [], torch.tensor([0.0, 0.2, 1.0, 0.5, -0.3])
    for way in ("text", "control"):
        policy, rng = Softmax(), torch.Generator().manual_seed(1)
        learner = PolicyLearner(policy, PolicyLoss(score_function), optim=OptimConfig(lr=0.05, name="adam"))
        for _ in range(150):
            logp = policy.logits.detach().log_softmax(-1)
            arm = torch.multinomial(logp.exp(), 16, replacement=True, generator=rng)
            reward = worth[arm]
            if way == "text":
                batch = grpo.assign(as_text(arm, reward, logp[arm]), grpo.Credit(16, scale="none"), 0)
                if batch is None:
                    continue
            else:
                mean = reward.double().mean().expand(16)
                if bool((reward == reward[0]).all()):
                    continue
                rollout = as_control(arm, reward, logp[arm], torch.zeros(16))
                credited = flatten(a2c.credit(rollout, a2c.Config()))
                batch = replace(credited, advantage=(reward.double() - mean).float()[:, None])
            learner.step(batch)
        ends.append(policy.logits.detach().clone())
    assert torch.equal(*ends)
    assert float(ends[0].softmax(-1)[2]) > 0.9


def test_the_policy_of_control_takes_the_same_step():
    """CategoricalPolicy with an observation of one number: its gradient in the logits is the bandit's softmax's."""
    arm, reward, logp = pulls(32)
    policy = CategoricalPolicy(1, ARMS, hidden=(4,), seed=0)
    obs = torch.ones(32, 1, 1)
    start = policy.networks(torch.ones(1, 1))[0].detach()[0]
    softmax = Softmax()
    with torch.no_grad():
        softmax.logits.copy_(start)
    batch = flatten(reinforce.credit(as_control(arm, reward, logp, reward.mean().expand(32)), reinforce.Config()))
    batch = replace(batch, inputs=obs)
    bias = next(p for p in policy.parameters() if p.shape == (ARMS,))
    seen = []
    bias.register_hook(lambda g: seen.append(g.clone()))
    PolicyLearner(policy, PolicyLoss(score_function), optim=OptimConfig(lr=1.0, name="sgd")).step(batch)
    found = gradient(softmax, batch, PolicyLoss(score_function))
    torch.testing.assert_close(seen[0], found, rtol=1e-5, atol=1e-7)
