"""The exactness laboratory: samples of another policy. docs/laboratory.md, "Samples of another policy".

Completions are drawn by a sampler that is not the policy, all of them by the sampler's probability; corrected as
recipes/anchor does (decoupled PPO), and held against the exact gradient of the policy.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from tests.learning.laboratory import Laboratory, compared, follow, language_model, same, stated

from onepolicy.algos import grpo
from onepolicy.core.importance import effective_sample_share, importance_weight
from onepolicy.core.policy import PolicyLoss, cispo, clipped, dppo
from onepolicy.recipes.anchor import proximal_of

SECTION = "Samples of another policy"

CLIPPED = PolicyLoss(partial(clipped, low=0.2, high=0.2))
UNCLIPPED = PolicyLoss(partial(clipped, low=1.0, high=math.inf))


@pytest.fixture(scope="module")
def policy():
    """A language model."""
    return language_model()


@pytest.fixture(scope="module")
def sampler(policy):
    """An older one: the policy moved a little."""
    return language_model(seed=5, like=policy, by=0.15)


@pytest.fixture(scope="module")
def lab(policy, sampler):
    """40 completions of at most 3 tokens, drawn by the older policy."""
    return Laboratory(policy, sampler=sampler)


def corrected(lab, correction, cap=math.inf, loss=CLIPPED, center="leave_one_out"):
    """What is followed with logp_old the policy's own and advantages weighed, in groups of 2."""
    proximal = proximal_of(lab.policy, correction=correction, cap=cap, budget=None, decoupled=True)
    return follow(lab, grpo.Credit(2, center=center, scale="none"), loss, proximal=proximal)


def test_weights_of_whole_sequences_are_exact_without_a_bound(lab):
    """E_sampler[w(y) (r - others' mean) grad log pi(y)] = grad E_pi[r], w the product of the tokens' ratios."""
    assert same(corrected(lab, "sequence_truncate"), lab.gradient())
    assert same(corrected(lab, "sequence_truncate", center="none"), lab.gradient())
    assert same(corrected(lab, "sequence_truncate", center="mean"), lab.gradient(), 1 / 2)
    assert not same(corrected(lab, "none"), lab.gradient(), tolerance=0.1)


def test_of_one_token_the_token_s_weight_is_exact(policy, sampler):
    """A bandit: token and sequence are the same, and so is the importance ratio of the surrogate without a clip."""
    bandit = Laboratory(policy, longest=1, sampler=sampler)
    assert same(corrected(bandit, "token_truncate"), bandit.gradient())
    assert same(follow(bandit, grpo.Credit(2, center="leave_one_out", scale="none"), UNCLIPPED), bandit.gradient())


def test_the_ratio_of_ppo_is_the_token_s_weight(lab):
    """Without a clip, the ratio to the sampler and the weight with a ratio to oneself are one estimate, one bias."""
    plain = follow(lab, grpo.Credit(2, center="leave_one_out", scale="none"), UNCLIPPED)
    assert same(corrected(lab, "token_truncate"), plain)
    assert not same(plain, lab.gradient(), tolerance=0.02)


BOUNDS = {
    "no correction": ("none", math.inf),
    "token weight, no bound": ("token_truncate", math.inf),
    "token weight, at most 2": ("token_truncate", 2.0),
    "token weight, at most 1.2": ("token_truncate", 1.2),
    "token weight, 0 outside [1/2, 2]": ("token_mask", 2.0),
    "sequence weight, no bound": ("sequence_truncate", math.inf),
    "sequence weight, at most 2": ("sequence_truncate", 2.0),
    "sequence weight, at most 1.2": ("sequence_truncate", 1.2),
    "sequence weight, 0 outside [1/2, 2]": ("sequence_mask", 2.0),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_what_a_bound_costs(lab, name):
    """The angle to the exact gradient, and its length along it."""
    stated(SECTION, name, *compared(corrected(lab, *BOUNDS[name]), lab.gradient()))


def test_plain_surrogates_on_old_samples(lab):
    """The clip takes what moved too far out of the gradient; GSPO's ratio is the mean of the tokens'."""
    credit = grpo.Credit(2, center="leave_one_out", scale="none")
    stated(SECTION, "PPO's ratio, clip 0.2", *compared(follow(lab, credit, CLIPPED), lab.gradient()))
    for name, surrogate in (
        ("CISPO's weight, at most 5", partial(cispo, low=1.0, high=4.0)),
        ("DPPO's mask, 0.2", partial(dppo, low=0.2, high=0.2)),
    ):
        found = follow(lab, credit, PolicyLoss(surrogate))
        stated(SECTION, name, *compared(found, lab.gradient()))
    gspo = PolicyLoss(partial(clipped, low=1.0, high=math.inf), level="sequence")
    found = follow(lab, credit, gspo)
    stated(SECTION, "GSPO's ratio, no clip", *compared(found, lab.gradient()))


def test_the_effective_share_is_one_over_the_mean_squared_weight(lab, sampler):
    """Kish's number over the sampler's completions, 4,000,000 of them in proportion: 1 / E[w^2], exactly known here."""
    with torch.no_grad():
        ours, theirs = lab.tokens_logp(), lab.tokens_logp(sampler)
        chance, mask = theirs.sum(-1).exp(), lab.rows.is_action
        weight = importance_weight(ours, theirs, mask, "sequence_truncate", math.inf)[:, 1]
        truth = float(1.0 / (chance * weight.square()).sum())
        count = (chance * 4e6).round().long()
        drawn = weight.repeat_interleave(count)
    assert float((chance * weight).sum()) == pytest.approx(1.0, abs=1e-12)
    share = effective_sample_share(drawn, torch.ones_like(drawn, dtype=torch.bool))
    assert float(share) == pytest.approx(truth, rel=1e-4)
    stated(SECTION, "effective share of sequence weights", truth)


def test_an_older_sampler_is_no_matter_where_it_is_the_policy(policy):
    """Corrections of 1 leave the batch's gradient as it was."""
    same_one = Laboratory(policy, sampler=policy)
    plain = follow(same_one, grpo.Credit(2, center="leave_one_out", scale="none"), CLIPPED)
    for correction in ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask"):
        assert same(corrected(same_one, correction, 1.01), plain)


def test_proximal_and_behaviour_policy_apart(lab, sampler, policy):
    """Decoupled PPO with a third, proximal policy: weight pi_prox / pi_b and ratio pi / pi_prox multiply to pi / pi_b.

    For one token that is exact whoever the proximal policy is.
    """
    bandit = Laboratory(policy, longest=1, sampler=sampler)
    third = language_model(seed=9, like=policy, by=0.1)

    def apart(batch):
        old = third.evaluate(batch.inputs, batch.action).logp.detach()
        weight = importance_weight(old, batch.logp_behaviour, batch.mask, "token_truncate", math.inf)
        return replace(batch, logp_old=old, advantage=batch.advantage * weight), {}

    found = follow(bandit, grpo.Credit(2, center="leave_one_out", scale="none"), UNCLIPPED, proximal=apart)
    assert same(found, bandit.gradient())
