"""The exactness laboratory: where training with a KL ends. docs/laboratory.md, "Fixed points".

A softmax of its own for every prefix can be any distribution over completions, so what is followed on average decides
alone where training ends. It is followed exactly, each softmax by its natural gradient: another optimizer takes
another way to the same place. Distances are KL(pi || optimum), nats; the optimum is pi_ref exp(r / beta) / Z.
"""

from __future__ import annotations

import pytest
import torch
from tests.learning import laboratory as at
from tests.learning.laboratory import Laboratory, Tabular, follow, groups, stated

from onepolicy.algos import grpo, rlhf
from onepolicy.core import kl
from onepolicy.core.policy import PolicyLoss, reinforce
from onepolicy.learning.learner import PolicyLearner
from onepolicy.learning.optim import OptimConfig

SECTION = "Where training ends"

BETA = 0.5


def tilted(lab, reference, beta=BETA, score=None):
    """log of pi_ref exp(r / beta) / Z, [N]."""
    logp = lab.logp(reference).detach() + (lab.score if score is None else score) / beta
    return logp - logp.logsumexp(0)


def distance(lab, optimum):
    """KL(pi || optimum), nats."""
    logp = lab.logp().detach()
    return float((logp.exp() * (logp - optimum)).sum())


def settle(lab, direction, rate=0.5, rounds=60):
    """The table after `rounds` steps of `rate` natural gradients along what `direction()` says; whether it rests."""
    logits, acts = lab.policy.logits, lab.rows.is_action
    prefix = Tabular.prefix(lab.rows.tokens)
    for _ in range(rounds):
        found = direction().view_as(logits)
        with torch.no_grad():
            met = torch.zeros(len(logits), dtype=torch.float64)
            met.index_add_(0, prefix[acts], lab.logp().exp()[:, None].expand(acts.shape)[acts])
            # each completion through a prefix was counted once: p(prefix), 0 for prefixes that END cuts off
            scale = met[:, None] * logits.softmax(-1)
            move = torch.where(scale > 0, found / scale.clamp(min=1e-300), 0.0)
            logits += rate / BETA * move
    return float(move.abs().max()) < 1e-4


@pytest.fixture
def lab():
    """13 completions of at most 2 tokens; the policy starts at the reference."""
    return Laboratory(Tabular(2, seed=3), longest=2)


@pytest.fixture
def reference():
    """Where the policy starts."""
    return Tabular(2, seed=3)


def grouped(lab, reference, estimator=kl.k1, place="reward", reduction="sequence_sum", length=None, **credit):
    """What groups of 2 follow with a KL of coefficient BETA, as a function of the policy as it is when asked."""
    chosen = grpo.Credit(
        2, **{"center": "leave_one_out", "scale": "none", "eps": 0.0, **credit},
        kl_coef=BETA if place == "reward" else 0.0, kl=estimator,
    )  # fmt: skip
    loss = PolicyLoss(reinforce, kl_coef=BETA if place == "loss" else 0.0, kl=estimator)
    frozen = lab.of(lab.tokens_logp(reference).detach())
    return lambda: follow(lab, chosen, loss, reduction, length, reference=frozen)


def test_the_optimum_is_what_maximises(lab, reference):
    """pi_ref exp(r / beta) / Z has E[r] - beta KL = beta log Z, more than the reference and than its neighbours."""
    optimum = tilted(lab, reference)
    ref = lab.logp(reference).detach()

    def value(logp):
        return float((logp.exp() * (lab.score - BETA * (logp - ref))).sum())

    best = BETA * float((ref + lab.score / BETA).logsumexp(0))
    assert value(optimum) == pytest.approx(best, rel=1e-12)
    assert value(ref) < best
    for seed in range(5):
        noise = 0.1 * torch.randn(13, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert value((optimum + noise).log_softmax(-1)) < best
    stated(SECTION, "the reference, where training starts", distance(lab, optimum))


def test_rloo_reaches_the_optimum(lab, reference):
    """k1 in the reward and the others' mean."""
    assert settle(lab, grouped(lab, reference))
    found = distance(lab, tilted(lab, reference))
    assert found < 1e-10
    stated(SECTION, "RLOO, k1 in the reward", found)


@pytest.mark.parametrize(("reduction", "length"), [("sequence_sum", None), ("fixed_length", 2)])
def test_the_group_s_mean_reaches_the_optimum_of_another_beta(lab, reference, reduction, length):
    """k1 in the reward, outside the mean: the optimum of beta G / (G - 1), for Dr. GRPO's constant length too."""
    assert settle(lab, grouped(lab, reference, center="mean", reduction=reduction, length=length))
    assert distance(lab, tilted(lab, reference, 2 * BETA)) < 1e-10
    stated(SECTION, "group mean, k1 in the reward", distance(lab, tilted(lab, reference)))


@pytest.mark.parametrize("credit", [{}, {"lam": 0.95}], ids=["lambda 1", "lambda 0.95"])
def test_ppo_rlhf_reaches_the_optimum(lab, reference, credit):
    """With lambda 1 and a critic of zeros; with lambda 0.95 and such a critic only near it."""
    steps, recorder = groups(13, 1).tolist(), None

    def direction():
        nonlocal recorder
        recorder, episodes = at.Recorder(), lab.episodes()
        rlhf.fit(
            recorder, recorder, act=lambda tasks, step: ([episodes[i] for (i,) in steps], {}),
            reference=lab.of(lab.tokens_logp(reference).detach()), values=lambda batch: 0.0 * batch.logp_behaviour,
            mix=list, publish=recorder.publish, coefficient=rlhf.KlCoefficient(BETA),
            credit=rlhf.Credit(**{"lam": 1.0, "whiten_advantage": False, **credit}), epochs=1, parts=1, pad_id=at.END,
            seed=0, start=0, steps=1, after_step=lambda step, metrics: False,
        )  # fmt: skip
        (batch,) = recorder.batches
        weight = lab.logp().exp().detach()[:, None] * batch.mask
        return at.ascent(lab, batch, weight, at.REINFORCE)

    assert settle(lab, direction)
    found = distance(lab, tilted(lab, reference))
    if credit:
        stated(SECTION, "PPO-RLHF, lambda 0.95, a critic of zeros", found)
    else:
        assert found < 1e-10
        stated(SECTION, "PPO-RLHF, lambda 1", found)


def backwards(lab, reference, tilt):
    """The policy [N] whose every prefix is `tilt`(reference's logits [V], what each token is worth [V]) of what follows
    under that same policy: from the longest prefixes to the first."""
    chosen, ref = Tabular(2), reference.logits.detach().log_softmax(-1)
    number = {y: i for i, y in enumerate(lab.every)}
    with torch.no_grad():
        values = {}
        for first in (1, 2, 3):
            worth = torch.stack([lab.score[number[first, t]] for t in range(4)])
            row = tilt(ref[first + 1], worth)
            chosen.logits[first + 1] = row
            values[first] = (row.softmax(-1) * worth).sum()
        worth = torch.stack([lab.score[number[(0,)]], *(values[t] for t in (1, 2, 3))])
        chosen.logits[0] = tilt(ref[0], worth)
    return lab.logp(chosen).detach()


def other_tilt(ref, worth):
    """log of ref beta / (beta + V - Q) with V such that it sums to 1, by bisection: what k3 in the loss rests at."""
    low, high = worth.max() - BETA, worth.max()
    for _ in range(200):
        middle = (low + high) / 2
        total = (ref.exp() * BETA / (BETA + middle - worth)).sum()
        low, high = (middle, high) if total > 1 else (low, middle)
    return (ref.exp() * BETA / (BETA + middle - worth)).log()


def test_k2_in_the_loss_rests_at_a_short_sighted_optimum(lab, reference):
    """Every prefix at pi_ref exp(Q / beta), Q the reward expected, not the reward less the KL still to be paid."""
    assert settle(lab, grouped(lab, reference, kl.k2, "loss"))
    assert distance(lab, backwards(lab, reference, lambda ref, q: ref + q / BETA)) < 1e-10
    stated(SECTION, "k2 in the loss", distance(lab, tilted(lab, reference)))


def test_k3_in_the_loss_rests_elsewhere(lab, reference):
    """Every prefix at pi_ref beta / (beta + V - Q): a tail where the optimum has an exponential."""
    assert settle(lab, grouped(lab, reference, kl.k3, "loss"), rate=0.2, rounds=200)
    assert distance(lab, backwards(lab, reference, other_tilt)) < 1e-8
    stated(SECTION, "k3 in the loss", distance(lab, tilted(lab, reference)))


SHIPPED = {
    "std scaling, k1 in the reward": {"center": "mean", "scale": "std"},
    "others' mean, token mean, k1 in the reward": {"reduction": "token_mean"},
    "others' mean, mean over each sequence, k1 in the reward": {"reduction": "sequence_mean"},
    "GRPO whole: std, mean over each sequence, k3 in the loss": {
        "center": "mean", "scale": "std", "reduction": "sequence_mean", "estimator": kl.k3, "place": "loss",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", SHIPPED)
def test_where_the_shortcuts_rest(lab, reference, name):
    """None of them at the optimum of the beta that was asked for."""
    assert settle(lab, grouped(lab, reference, **SHIPPED[name]), rate=0.4, rounds=150)
    found = distance(lab, tilted(lab, reference))
    assert found > 1e-4
    stated(SECTION, f"{name}", found)


def test_k1_in_the_loss_holds_nothing_back(lab, reference):
    """Its pull is 0 on average: training runs to the best completion as if there were no KL."""
    assert not settle(lab, grouped(lab, reference, kl.k1, "loss"), rate=0.1, rounds=20)
    earned = float(lab.expectation(lab.score).detach())
    assert distance(lab, tilted(lab, reference)) > 0.1
    free = Laboratory(Tabular(2, seed=3), longest=2)
    settle(free, lambda: follow(free, grpo.Credit(2, center="leave_one_out", scale="none")), rate=0.1, rounds=20)
    assert earned == pytest.approx(float(free.expectation(free.score).detach()), rel=1e-6)


class Drawn:
    """The sampler that a rollout has: completions by their probability now, group after group."""

    def __init__(self, lab, prompts, group):
        self.lab, self.count = lab, prompts * group
        self.rng = torch.Generator().manual_seed(0)

    def __call__(self, tasks, step):
        episodes = self.lab.episodes()
        chance = self.lab.logp().detach().exp()
        found = torch.multinomial(chance, self.count, replacement=True, generator=self.rng)
        return [episodes[i] for i in found.tolist()], {}


def test_rloo_from_samples_comes_near_the_optimum(lab, reference):
    """algos/grpo.fit and a learner with Adam on drawn completions, 32 groups of 4 a step, the rate falling to 0."""
    optim = OptimConfig(lr=0.1, name="adam", schedule="linear", total_steps=150)
    learner = PolicyLearner(lab.policy, PolicyLoss(reinforce), optim=optim, reduction="sequence_sum")
    frozen = lab.of(lab.tokens_logp(reference).detach())
    grpo.fit(
        learner, at.Recorder(), act=Drawn(lab, 32, 4), reference=frozen, publish=lambda version: None,
        credit=grpo.Credit(4, center="leave_one_out", scale="none", kl_coef=BETA), epochs=1, parts=1, pad_id=at.END,
        seed=0, start=0, steps=150, after_step=lambda step, metrics: False,
    )  # fmt: skip
    found = distance(lab, tilted(lab, reference))
    assert found < 0.02
    stated(SECTION, "RLOO from samples, 19,200 of them", found)
