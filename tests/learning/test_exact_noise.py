"""The exactness laboratory: how much one step differs from the mean of all, and what a bias buys. docs/laboratory.md.

The standard deviation of what a step of one group follows, as a multiple of the length of its mean: learning rates and
batches that make up for it grow with its square.
"""

from __future__ import annotations

import math
from functools import partial

import pytest
from tests.learning import laboratory as at
from tests.learning.laboratory import Laboratory, follow, language_model, same, scatter, stated

from onepolicy.algos import grpo
from onepolicy.core.policy import PolicyLoss, clipped
from onepolicy.recipes.anchor import proximal_of

SECTION = "Noise, and what a bias buys"
CLIPPED = PolicyLoss(partial(clipped, low=0.2, high=0.2))


@pytest.fixture(scope="module")
def lab():
    """40 completions of at most 3 tokens."""
    return Laboratory(language_model())


@pytest.fixture(scope="module")
def older(lab):
    """The same, drawn by an older policy."""
    return Laboratory(lab.policy, sampler=language_model(seed=5, like=lab.policy, by=0.15))


def test_the_mean_of_all_steps_is_what_is_followed(lab):
    """Step by step, from slopes of single tokens, and at once: one vector. Its spread by hand for two equal groups."""
    for credit in (grpo.Credit(2, center="none", scale="none"), grpo.Credit(2, scale="std")):
        mean, noise = scatter(lab, credit, CLIPPED, "token_mean")
        assert same(mean, follow(lab, credit, CLIPPED, "token_mean"))
        assert noise > 1.0


def test_a_step_of_independent_samples_has_the_noise_of_one_over_root_n(lab):
    """Without a baseline completions do not know of one another: a group of 2 has 1 / sqrt 2 of the noise of 1."""
    one, two = (scatter(lab, grpo.Credit(n, center="none", scale="none"))[1] for n in (1, 2))
    assert two == pytest.approx(one / math.sqrt(2), rel=1e-6)


WAYS = {
    "no baseline": ({"center": "none"}, "sequence_sum", None),
    "no baseline, all rewards 8 higher": ({"center": "none"}, "sequence_sum", 8.0),
    "a constant baseline, the expected reward": ({"center": "none"}, "sequence_sum", "mean"),
    "the others' mean": ({"center": "leave_one_out"}, "sequence_sum", None),
    "the others' mean, all rewards 8 higher": ({"center": "leave_one_out"}, "sequence_sum", 8.0),
    "the group's mean": ({"center": "mean"}, "sequence_sum", None),
    "the group's mean and std": ({"center": "mean", "scale": "std"}, "sequence_sum", None),
    "the group's mean, mean over the step's tokens": ({"center": "mean"}, "token_mean", None),
    "the group's mean, mean over each sequence": ({"center": "mean"}, "sequence_mean", None),
}


@pytest.mark.parametrize("name", WAYS)
def test_what_a_baseline_is_for(lab, name):
    """Groups of 2, on policy."""
    credit, reduction, shift = WAYS[name]
    shift = -float(lab.expectation(lab.score).detach()) if shift == "mean" else shift or 0.0
    moved = Laboratory(lab.policy, score=lambda y: at.worth(y) + shift)
    moved._slopes = lab.slopes()
    chosen = grpo.Credit(2, **{"scale": "none", "eps": 0.0, **credit})
    _, noise = scatter(moved, chosen, reduction=reduction)
    stated(SECTION, name, noise)


CORRECTIONS = {
    "sequence weight, no bound": ("sequence_truncate", math.inf),
    "sequence weight, at most 2": ("sequence_truncate", 2.0),
    "sequence weight, 0 outside [1/2, 2]": ("sequence_mask", 2.0),
    "token weight, no bound": ("token_truncate", math.inf),
    "token weight, at most 2": ("token_truncate", 2.0),
    "no correction": ("none", math.inf),
}


@pytest.mark.parametrize("name", CORRECTIONS)
def test_what_a_bound_buys(older, name):
    """An older policy's samples, the others' mean."""
    correction, cap = CORRECTIONS[name]
    proximal = proximal_of(older.policy, correction=correction, cap=cap, budget=None, decoupled=True)
    credit = grpo.Credit(2, center="leave_one_out", scale="none")
    _, noise = scatter(older, credit, CLIPPED, proximal=proximal)
    stated(SECTION, name, noise)


def test_what_the_clip_buys(older):
    """PPO's ratio to the sampler itself, clipped."""
    credit = grpo.Credit(2, center="leave_one_out", scale="none")
    stated(SECTION, "PPO's ratio, clip 0.2", scatter(older, credit, CLIPPED)[1])
