"""The exactness laboratory: whose expected gradient is the exact one, and whose a stated multiple of it.

Every group that a small language model could draw goes through algos/grpo.fit, the recipe's credit and loss, and
TokenPolicy, weighed by its probability. docs/laboratory.md, "Exact gradients".
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from tests.learning import laboratory as at
from tests.learning.laboratory import Laboratory, follow, groups, language_model, rollouts, same
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from onepolicy.algos import grpo
from onepolicy.core import policy as surrogates
from onepolicy.core.policy import PolicyLoss
from onepolicy.core.reduce import loss_weights
from onepolicy.learning.learner import PolicyLearner
from onepolicy.learning.optim import OptimConfig


@pytest.fixture(scope="module")
def lab():
    """40 completions of at most 3 tokens."""
    return Laboratory(language_model())


@pytest.fixture(scope="module")
def small():
    """13 completions of at most 2 tokens."""
    return Laboratory(language_model(seed=1, longest=2), longest=2)


def test_the_completions_are_all_there_are(lab):
    """1 + 3 of one and two tokens that end, 9 + 27 of three: their probabilities add up to 1."""
    assert len(lab.every) == 40
    assert sum(len(y) == 3 for y in lab.every) == 36
    assert float(lab.logp().exp().sum().detach()) == pytest.approx(1.0, abs=1e-14)
    assert float(lab.chances(groups(40, 2)).sum()) == pytest.approx(1.0, abs=1e-12)


def test_the_exact_gradient_is_the_slope_of_the_expected_reward(lab):
    """Against central differences along random directions: the laboratory's own yardstick."""
    gradient, start = lab.gradient(), parameters_to_vector(lab.parameters).detach().clone()
    for seed in range(3):
        way = torch.randn(len(start), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        ends = []
        for sign in (1.0, -1.0):
            vector_to_parameters(start + sign * 1e-5 * way, lab.parameters)
            ends.append(float(lab.expectation(lab.score).detach()))
        vector_to_parameters(start, lab.parameters)
        assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(float(gradient @ way), rel=1e-6)


def test_steps_of_the_learner_add_up_to_what_the_laboratory_says(small):
    """PolicyLearner itself, one SGD step for every group from the same weights: displacements by probability."""
    credit, steps = grpo.Credit(2, scale="std"), groups(13, 2)
    loss = PolicyLoss(partial(surrogates.clipped, low=0.2, high=0.2))
    optim = OptimConfig(lr=1.0, name="sgd", betas=(0.0, 0.0), max_grad_norm=0.0)
    start, chances = parameters_to_vector(small.parameters).detach().clone(), small.chances(steps)
    made, total = rollouts(small, steps, credit), torch.zeros_like(start)
    learner = PolicyLearner(small.policy, loss, optim=optim, reduction="sequence_mean")
    for step, batch in zip(made.steps, made.batches, strict=True):
        learner.step(batch)
        total += chances[step] * (parameters_to_vector(small.parameters).detach() - start)
        vector_to_parameters(start.clone(), small.parameters)
    assert same(at.expected(small, made, chances, loss, "sequence_mean"), total, tolerance=1e-9)
    assert same(follow(small, credit, loss, "sequence_mean"), total, tolerance=1e-9)


@pytest.mark.parametrize(
    ("name", "multiple"),
    [("rloo", lambda size, longest: 1.0), ("dr-grpo", lambda size, longest: (size - 1) / (size * longest))],
)
def test_methods_that_follow_the_exact_gradient(lab, small, name, multiple):
    """RLOO: itself. Dr. GRPO: (G - 1) / (G length) of it, the mean's own share and the constant length."""
    assert same(at.by_convention(lab, name, 2), lab.gradient(), multiple(2, 3))
    assert same(at.by_convention(small, name, 3), small.gradient(), multiple(3, 2))


@pytest.mark.parametrize(("center", "multiple"), [("none", 1.0), ("leave_one_out", 1.0), ("mean", 2 / 3)])
def test_centres_with_whole_sequences(small, center, multiple):
    """No baseline, and the others' mean: exact. A mean that the sample is part of: (G - 1) / G of it."""
    assert same(follow(small, grpo.Credit(3, center=center, scale="none")), small.gradient(), multiple)


class Begun:
    """A moving baseline that stands at `value` before every step."""

    def __init__(self, value):
        self.value = value

    def subtract(self, episodes):
        moving = grpo.MovingBaseline()
        moving.load_state_dict({"value": self.value})
        return moving.subtract(episodes)


@pytest.mark.parametrize(("value", "multiple"), [(0.25, 1.0), (-3.0, 1.0), (None, 1 / 2)])
def test_the_moving_baseline_is_exact_after_its_first_rollout(lab, value, multiple):
    """Any number of rollouts before does; the first rollout's own mean takes 1 / n with it, n its completions."""
    steps = groups(40, 2)
    made = rollouts(lab, steps, grpo.Credit(2, center="none", scale="none"), baseline=Begun(value))
    assert same(at.expected(lab, made, lab.chances(steps)), lab.gradient(), multiple)


def test_on_policy_the_family_is_two_methods(lab):
    """At ratio 1 GSPO is GRPO, and CISPO is DAPO: only the reduction tells them apart."""
    found = {name: at.by_convention(lab, name, 2) for name in ("grpo", "gspo", "dapo", "cispo")}
    assert same(found["gspo"], found["grpo"], tolerance=1e-7)
    assert same(found["cispo"], found["dapo"], tolerance=1e-7)
    assert not same(found["grpo"], found["dapo"], tolerance=0.05)


CLIPPING = [
    partial(surrogates.clipped, low=0.2, high=0.28),
    partial(surrogates.dual_clipped, low=0.2, high=0.2, c=3.0),
    partial(surrogates.dppo, low=0.2, high=0.2),
    partial(surrogates.cispo, low=1.0, high=4.0),
    partial(surrogates.kl_penalised, beta=3.0),
]


@pytest.mark.parametrize("surrogate", CLIPPING, ids=lambda s: s.func.__name__)
def test_at_ratio_one_every_surrogate_has_reinforce_s_gradient(lab, surrogate):
    """Not on average: for each batch, whatever its advantages."""
    steps = groups(40, 2)
    batch = rollouts(lab, steps[100:130], grpo.Credit(2)).batches
    whole = at.joined(batch, 4)
    whole = whole.map(lambda x: x.double() if x.is_floating_point() else x)
    exact = lab.policy.evaluate(whole.inputs, whole.action).logp.detach()
    whole = replace(whole, logp_behaviour=exact)
    weight = loss_weights(whole.mask, "token_mean", dtype=torch.float64)
    found = at.ascent(lab, whole, weight, PolicyLoss(surrogate))
    assert same(found, at.ascent(lab, whole, weight, at.REINFORCE), tolerance=1e-12)


def test_sequence_mean_follows_another_number(lab):
    """E[r / len] with the mean reward as its baseline: grad E[r / len] - E[r] grad E[1 / len], exactly (times 1/2)."""
    found = follow(lab, grpo.Credit(2, scale="none"), reduction="sequence_mean")
    mean = float(lab.expectation(lab.score).detach())
    follows = lab.gradient(lab.score / lab.length) - mean * lab.gradient(1.0 / lab.length)
    assert same(found, follows, 1 / 2)
    assert not same(found, lab.gradient(), 1 / 2, tolerance=0.1)


def test_overlong_shaping_is_another_reward_and_no_bias(lab):
    """DAPO's soft punishment over the last 2 of 3 tokens: the exact gradient of the shaped reward."""
    episodes = grpo.shaped(lab.episodes(), 3, 2)
    shaped = torch.tensor([e.score.value for e in episodes], dtype=torch.float64)
    assert sorted(set((lab.score - shaped).tolist())) == [0.0, 0.5, 1.0]
    credit = grpo.Credit(2, center="leave_one_out", scale="none", overlong=(3, 2))
    found = follow(lab, credit)
    assert same(found, lab.gradient(shaped))
    assert not same(found, lab.gradient(), tolerance=0.1)


def test_a_scale_that_is_the_same_for_every_group_changes_only_the_length(small):
    """Rewards of 0 and 1 have one spread in groups of 2 that differ, 1 / sqrt 2: std costs no direction there."""
    binary = Laboratory(small.policy, 2, score=lambda y: float(1 in y))
    assert same(follow(binary, grpo.Credit(2, scale="std", eps=0.0)), binary.gradient(), math.sqrt(2) / 2)
