"""The exactness laboratory: what each way of paying for the KL to the reference pulls towards. docs/laboratory.md.

A KL of whole completions is the sum of its prefixes' own, weighed by how often each is met. A penalty per token in the
loss pulls on the first and forgets the second: that what is written now decides which prefixes follow.
"""

from __future__ import annotations

import pytest
import torch
from tests.learning import laboratory as at
from tests.learning.laboratory import Laboratory, compared, follow, language_model, same, stated

from onepolicy.algos import grpo
from onepolicy.core import kl
from onepolicy.core.policy import PolicyLoss, reinforce

SECTION = "The KL to the reference"

BETA = 0.5
WHOLE = {"center": "leave_one_out", "scale": "none"}


@pytest.fixture(scope="module")
def policy():
    """A language model."""
    return language_model()


@pytest.fixture(scope="module")
def reference(policy):
    """The policy moved a little: where it came from."""
    return language_model(seed=5, like=policy, by=0.15)


@pytest.fixture(scope="module")
def lab(policy):
    """40 completions of at most 3 tokens."""
    return Laboratory(policy)


def in_the_loss(lab, reference, estimator, reduction="sequence_sum"):
    """The pull of the penalty alone: what the learner follows with coefficient 1, less what it follows with 0."""
    frozen = lab.of(lab.tokens_logp(reference).detach())
    with_it, without = (
        follow(
            lab, grpo.Credit(2, **WHOLE), PolicyLoss(reinforce, kl_coef=c, kl=estimator), reduction, reference=frozen
        )
        for c in (1.0, 0.0)
    )
    return with_it - without


def in_the_reward(lab, reference, estimator=kl.k1, coef=1.0, **credit):
    """What is followed when each token pays for its own KL and, by reward to go, for that of those after it."""
    frozen = lab.of(lab.tokens_logp(reference).detach())
    return follow(lab, grpo.Credit(2, **{**WHOLE, **credit}, kl_coef=coef, kl=estimator), reference=frozen)


def against(lab, reference, found):
    """(multiple, angle) of a pull and that of the KL of completions."""
    return compared(found, -lab.derivative(lab.divergence(reference)))


def test_the_yardsticks_agree(lab, reference):
    """Prefix by prefix the KL adds up to that of completions; its derivative without the prefixes' own does not."""
    whole, parts = lab.divergence(reference), lab.token_divergence(reference)
    logp, frozen = lab.tokens_logp(), lab.tokens_logp(reference)
    by_token = (lab.logp().exp() * (logp - frozen).sum(-1)).sum()
    assert float(whole.detach()) == pytest.approx(float(by_token.detach()), rel=1e-12)
    assert not same(lab.derivative(parts), lab.derivative(lab.divergence(reference)), tolerance=0.05)


def test_k1_in_the_reward_is_the_gradient_of_the_kl(lab, reference):
    """RLOO as shipped: grad E[r] - beta grad KL(pi || ref) of whole completions, exactly."""
    objective = lab.gradient() - BETA * lab.derivative(lab.divergence(reference))
    assert same(in_the_reward(lab, reference, coef=BETA), objective)
    assert same(at.by_convention(lab, "rloo", 2, reference, kl_coef=BETA), objective)


def test_the_group_s_mean_raises_beta(lab, reference):
    """The mean takes 1 / G of the reward's share and nothing of the KL's: beta acts as beta G / (G - 1)."""
    objective = 0.5 * lab.gradient() - BETA * lab.derivative(lab.divergence(reference))
    assert same(in_the_reward(lab, reference, coef=BETA, center="mean"), objective)


def test_k2_in_the_loss_pulls_on_each_prefix_alone(lab, reference):
    """The gradient of every prefix's own KL(pi || ref), with the prefixes as they come: not that of completions."""
    found = in_the_loss(lab, reference, kl.k2)
    assert same(found, -lab.derivative(lab.token_divergence(reference)))
    stated(SECTION, "k2 in the loss", *against(lab, reference, found))


def test_k3_in_the_loss_pulls_towards_the_other_kl(lab, reference):
    """sum over prefixes of p(prefix) KL(ref || pi), p without gradient: by a loop over prefixes and tokens."""
    found = in_the_loss(lab, reference, kl.k3)
    tokens, every = lab.rows.tokens, range(at.VOCABULARY)
    chance = lab.logp().exp().detach()
    ours, theirs = lab.tokens_logp(), lab.tokens_logp(reference).detach()
    total, seen = 0.0, set()
    for i, t in lab.rows.is_action.nonzero().tolist():
        prefix, token = tuple(tokens[i, :t].tolist()), int(tokens[i, t])
        if (prefix, token) in seen:
            continue
        seen.add((prefix, token))
        met = sum(chance[j] for j in range(40) if tuple(tokens[j, :t].tolist()) == prefix and lab.rows.is_action[j, t])
        total = total + met * theirs[i, t].exp() * (theirs[i, t] - ours[i, t])
    assert len(seen) == 13 * len(every)
    assert same(found, -lab.derivative(total))
    stated(SECTION, "k3 in the loss", *against(lab, reference, found))


def test_k1_in_the_loss_pulls_on_nothing_or_on_length(lab, reference):
    """Whole sequences: 0. A mean over each sequence: minus grad E[1 / len], whatever the reference: it lengthens."""
    scale = float(lab.derivative(lab.divergence(reference)).norm())
    assert float(in_the_loss(lab, reference, kl.k1).norm()) < 1e-12 * scale
    found = in_the_loss(lab, reference, kl.k1, "sequence_mean")
    assert same(found, -lab.gradient(1.0 / lab.length), tolerance=1e-9)
    stated(
        SECTION,
        "k1 in the loss, mean over each sequence",
        *against(lab, reference, found),
    )


def test_k2_and_k3_in_the_reward(lab, reference):
    """In the reward an estimator is a fixed cost: only k1, whose own slope has mean 0, gives the KL's gradient."""
    plain = follow(lab, grpo.Credit(2, **WHOLE))
    for name, estimator in (("k2", kl.k2), ("k3", kl.k3)):
        found = in_the_reward(lab, reference, estimator) - plain
        stated(
            SECTION,
            f"{name} in the reward",
            *against(lab, reference, found),
        )


def test_of_one_token_k2_is_exact(reference, policy):
    """A bandit has no later prefixes: k2 in the loss is k1 in the reward, and the KL's gradient."""
    bandit = Laboratory(policy, longest=1)
    exact = -bandit.derivative(bandit.divergence(reference))
    assert same(in_the_loss(bandit, reference, kl.k2), exact)
    assert same(in_the_reward(bandit, reference) - follow(bandit, grpo.Credit(2, **WHOLE)), exact)
    stated(SECTION, "k3 in the loss, one token", *against(bandit, reference, in_the_loss(bandit, reference, kl.k3)))


def test_what_the_estimators_say_on_average(lab, reference):
    """k1 and k3 summed over tokens: the KL of completions. k2: not."""
    chance = lab.logp().exp().detach()
    ours, theirs = lab.tokens_logp().detach(), lab.tokens_logp(reference).detach()
    says = [float((chance * f(ours, theirs).sum(-1)).sum()) for f in (kl.k1, kl.k2, kl.k3)]
    truth = float(lab.divergence(reference).detach())
    assert says[0] == pytest.approx(truth, rel=1e-12)
    assert says[2] == pytest.approx(truth, rel=1e-12)
    stated(SECTION, "value of the KL, of k2's mean", truth, says[1])
    assert torch.tensor(says[1]).isfinite()
