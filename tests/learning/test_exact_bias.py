"""The exactness laboratory: what the shortcuts of the family cost, measured. docs/laboratory.md, "The shortcuts".

Each is compared with the exact gradient by a multiple (the length along it) and an angle, degrees. The numbers of the
page are read from it and must be those found here.
"""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from tests.learning import laboratory as at
from tests.learning.laboratory import Laboratory, compared, groups, language_model, rollouts, same, stated

from onepolicy.algos import grpo
from onepolicy.core.conventions import CONVENTIONS

SECTION = "The shortcuts, one by one"


@pytest.fixture(scope="module")
def lab():
    """40 completions of at most 3 tokens."""
    return Laboratory(language_model())


@pytest.fixture(scope="module")
def small():
    """13 completions of at most 2 tokens."""
    return Laboratory(language_model(seed=1, longest=2), longest=2)


FAMILY = [name for name, each in CONVENTIONS.items() if each.credit == "group"]


@pytest.mark.parametrize("name", FAMILY)
def test_each_method_whole(lab, small, name):
    """On policy, KL off: one group of 2 out of 40 completions, and one of 3 out of 13, is a step."""
    two = compared(at.by_convention(lab, name, 2), lab.gradient())
    three = compared(at.by_convention(small, name, 3), small.gradient())
    stated("Every method whole", f"`{name}`", *two, *three)


def alone(lab, size, reduction="sequence_sum", **credit):
    """The mean's advantage with one shortcut added to it."""
    chosen = grpo.Credit(size, **{"scale": "none", "eps": 0.0, **credit})
    if not chosen.whiten and chosen.truncated == "keep":
        return compared(at.follow(lab, chosen, reduction=reduction), lab.gradient())
    steps = groups(len(lab.every), size)
    made = rollouts(lab, steps, chosen)
    return compared(at.expected(lab, made, lab.chances(steps), reduction=reduction), lab.gradient())


SHORTCUTS = {
    "std scaling": {"scale": "std"},
    "mean over each sequence": {"reduction": "sequence_mean"},
    "mean over the step's tokens": {"reduction": "token_mean"},
    "cut-off completions masked": {"truncated": "mask"},
    "whitening over the step, no group": {"center": "none", "whiten": True},
}


@pytest.mark.parametrize("name", SHORTCUTS)
def test_each_shortcut_alone(lab, small, name):
    """Added to the mean's advantage with whole sequences, which has no angle of its own."""
    found = [*alone(lab, 2, **SHORTCUTS[name]), *alone(small, 3, **SHORTCUTS[name])]
    stated(SECTION, name, *found)
    assert found[1] > 1.0
    assert found[3] > 0.3


def test_the_std_s_bias_is_that_of_each_group_s_spread(small):
    """Expectation of advantage over spread, by a loop over ordered groups that knows nothing of the library."""
    p, r = small.logp().exp().detach(), small.score
    slope = [small.derivative(small.logp()[i]) for i in range(13)]
    total = torch.zeros_like(slope[0])
    for group in product(range(13), repeat=3):
        scores = r[list(group)]
        if scores.std() > 0:
            for i in group:
                total += p[list(group)].prod() * (r[i] - scores.mean()) / scores.std() * slope[i] / 3
    assert same(at.follow(small, grpo.Credit(3, scale="std", eps=0.0)), total)


def pairs_of_groups(lab):
    """Steps of two groups of 2, [M, 4], and their probabilities."""
    one = groups(len(lab.every), 2)
    first, second = groups(len(one), 2).unbind(1)
    chance, orders = lab.chances(one), 2.0 - (first == second).double()
    return torch.cat([one[first], one[second]], 1), orders * chance[first] * chance[second]


@pytest.mark.parametrize(
    ("name", "credit", "reduction", "falls"),
    [
        ("std scaling", {"scale": "std"}, "sequence_sum", False),
        ("whitening", {"center": "none", "whiten": True}, "token_mean", True),
        ("mean over the step's tokens", {}, "token_mean", True),
    ],
)
def test_more_samples(small, name, credit, reduction, falls):
    """A divisor is ever less a matter of one completion: the angle falls; that of the std not from 2 to 3."""
    angles = [alone(small, size, reduction, **credit)[1] for size in (2, 3, 4)]
    stated(SECTION, f"{name}: 2, 3, 4 completions a step", *angles)
    assert (angles[0] > angles[1] > angles[2]) is falls


def test_dropping_groups_without_variance_is_a_multiple():
    """Two groups of one prompt, each kept with chance q: what is kept is averaged over fewer, 2 - q times as much.

    With drop a step of one kept group has its gradient whole, with keep half of it.
    """
    lab = Laboratory(language_model(seed=1, longest=1), longest=1, score=lambda y: float(1 in y))
    steps, chances = pairs_of_groups(lab)
    p = float(lab.expectation(lab.score).detach())
    q = 2 * p * (1 - p)
    for rule, multiple in (("keep", 1.0), ("drop", 2.0 - q)):
        credit = grpo.Credit(2, center="leave_one_out", scale="none", zero_variance=rule)
        found = at.expected(lab, rollouts(lab, steps, credit), chances)
        assert same(found, lab.gradient(), multiple)
    stated(SECTION, "groups without variance dropped, 2 a step", 2.0 - q)


def test_dynamic_sampling_multiplies_by_the_chance_of_variance():
    """Drawn again until a group varies: 1 / q of the exact gradient, so a prompt that rarely varies weighs more."""
    lab = Laboratory(language_model(seed=1, longest=2), longest=2, score=lambda y: float(1 in y))
    steps = groups(13, 2)
    p = float(lab.expectation(lab.score).detach())
    credit = grpo.Credit(2, center="leave_one_out", scale="none", zero_variance="drop", resample=2)
    episodes = [[lab.episodes()[i] for i in row] for row in steps.tolist()]
    varies = torch.tensor([len(grpo.with_variance(group, 2)) > 0 for group in episodes])
    chances = lab.chances(steps)
    q = float(chances[varies].sum())
    assert q == pytest.approx(2 * p * (1 - p))
    made = rollouts(lab, steps[varies], credit)
    found = at.expected(lab, made, chances[varies] / q)
    assert same(found, lab.gradient(), 1.0 / q)
    stated(SECTION, "dynamic sampling", 1.0 / q)


@pytest.mark.parametrize("size", [2, 4, 8])
def test_the_std_prefers_prompts_that_are_nearly_always_failed(size):
    """Right or wrong, by the chance p of right: what follows is f(p) times the exact gradient, 1 for p = 1/2.

    By the binomial sum over the number k of right ones, against grpo.assign on every count. G = 2: all alike.
    """

    def weight(p):
        total = 0.0
        for k in range(1, size):
            scores = torch.tensor([1.0] * k + [0.0] * (size - k))
            advantage = grpo.advantages(at.scored(scores.tolist()), grpo.Credit(size, scale="std", eps=0.0)).double()
            # d log pi / d logit: 1 - p where right, -p where wrong
            slope = (advantage * (scores.double() - p)).mean()
            total += math.comb(size, k) * p**k * (1 - p) ** (size - k) * float(slope)
            spread = math.sqrt(k * (size - k) / (size * (size - 1)))
            assert float(slope) == pytest.approx(k * (size - k) / size**2 / spread, rel=1e-6)
        return total / (p * (1 - p))

    stated(SECTION, f"solved once in 20 over half the time, G = {size}", weight(0.05) / weight(0.5))


def test_a_constant_number_added_to_all_rewards_moves_what_has_no_baseline(lab):
    """Nothing is moved in the mean over draws of REINFORCE; with a mean over each sequence it is."""
    raised = Laboratory(lab.policy, score=lambda y: at.worth(y) + 8.0)
    credit = grpo.Credit(2, center="none", scale="none")
    for reduction, moved in (("sequence_sum", False), ("sequence_mean", True)):
        plain, other = (at.follow(x, credit, reduction=reduction) for x in (lab, raised))
        assert same(other, plain, tolerance=1e-4) is not moved
