"""The exactness laboratory: advantages from a critic. docs/laboratory.md, "A critic, and a teacher".

A2C, PPO and REINFORCE as control credits them (algos/a2c, ppo, reinforce, on a Rollout), PPO-RLHF as algos/rlhf.fit
does, over every completion by its probability.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from tests.learning import laboratory as at
from tests.learning.laboratory import Laboratory, compared, groups, language_model, same, stated
from torch.nn.functional import pad

from onepolicy.algos import a2c, ppo, reinforce, rlhf
from onepolicy.core.policy import PolicyLoss, clipped
from onepolicy.data.rollout import Rollout

SECTION = "A critic, and a teacher"

BETA = 0.5


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


def true_value(lab, cost=None):
    """E[what is still earned | the prefix] at every token, [N, T]: the score at the end, less the tokens' `cost`."""
    cost = torch.zeros_like(lab.rows.tokens).double() if cost is None else cost
    to_go = lab.score[:, None] - cost.flip(-1).cumsum(-1).flip(-1)
    chance, value = lab.logp().exp().detach(), torch.zeros_like(to_go)
    for t in range(1, lab.longest + 1):
        alike = (lab.rows.tokens[:, None, :t] == lab.rows.tokens[None, :, :t]).all(-1) & lab.rows.is_action[:, t]
        value[:, t] = (alike * chance * to_go[:, t]).sum(-1) / (alike * chance).sum(-1).clamp(min=1e-300)
    return torch.where(lab.rows.is_action, value, 0.0)


def anything(lab):
    """A critic that says anything, the same of the same prefix."""
    number = at.Tabular.prefix(lab.rows.tokens).double()
    return torch.where(lab.rows.is_action, torch.sin(1.0 + 3.0 * number), 0.0)


def rollout(lab, value):
    """Every completion as an episode of control: one row each, the score paid at its last step."""
    value, there = value[:, 1:], lab.rows.is_action[:, 1:]
    last = there & ~pad(there, (0, 1))[:, 1:]
    return Rollout(
        obs=lab.rows.tokens[:, :-1, None], action=lab.rows.tokens[:, 1:], logp=lab.tokens_logp().detach()[:, 1:],
        value=value, next_value=torch.where(last, 0.0, pad(value, (0, 1))[:, 1:]), reward=last * lab.score[:, None],
        terminated=last, truncated=torch.zeros_like(last), mask=there,
    )  # fmt: skip


def on_control(lab, batch, loss):
    """What a credited rollout [N, T] teaches the language model: the same tensors, one column of prompt before them."""
    wide = replace(batch, inputs=None).map(lambda x: pad(x, (1, 0)))
    weight = lab.logp().exp().detach()[:, None] * wide.mask
    return at.ascent(lab, replace(wide, inputs=lab.rows), weight, loss)


METHODS = {
    "reinforce": lambda r, lam: (reinforce.credit(r, reinforce.Config(gamma=1.0)), reinforce.Config()),
    "a2c": lambda r, lam: (a2c.credit(r, a2c.Config(gamma=1.0, lam=lam)), a2c.Config()),
    "ppo": lambda r, lam: (ppo.credit(r, ppo.Config(gamma=1.0, lam=lam)), ppo.Config()),
}


def followed(lab, name, value, lam=1.0):
    batch, config = METHODS[name](rollout(lab, value), lam)
    module = {"reinforce": reinforce, "a2c": a2c, "ppo": ppo}[name]
    loss = module.loss(config, 1.0) if name == "ppo" else module.loss(config)
    return on_control(lab, batch, replace(loss, value_coef=0.0))


@pytest.mark.parametrize("name", METHODS)
def test_any_critic_will_do_when_lambda_is_one(lab, name):
    """Returns less whatever the critic says of the prefix: the exact gradient, for PPO at ratio 1 as well."""
    for value in (torch.zeros_like(anything(lab)), anything(lab), true_value(lab)):
        assert same(followed(lab, name, value), lab.gradient(), tolerance=1e-9)


@pytest.mark.parametrize("name", ["a2c", "ppo"])
def test_the_true_critic_will_do_for_any_lambda(lab, name):
    """GAE(lambda) is unbiased when V is the policy's own; with another it is not, and lambda 0.95 less than 0."""
    for lam in (0.0, 0.5, 0.95):
        assert same(followed(lab, name, true_value(lab), lam), lab.gradient(), tolerance=1e-9)
    found = [compared(followed(lab, name, anything(lab), lam), lab.gradient()) for lam in (0.0, 0.5, 0.95)]
    assert found[0][1] > found[1][1] > found[2][1] > 0.1
    if name == "a2c":
        stated(SECTION, "GAE with a wrong critic, lambda 0, 0.5, 0.95", *(angle for _, angle in found))


def rlhf_follows(lab, reference, value, size=1, reduction="sequence_sum", **credit):
    """What algos/rlhf.fit hands to the learner, each step `size` completions, summed by probability."""
    recorder, episodes, steps = at.Recorder(), lab.episodes(), groups(len(lab.every), size)
    table = steps.tolist()
    rlhf.fit(
        recorder, recorder, act=lambda tasks, step: ([episodes[i] for i in table[step]], {}),
        reference=lab.of(lab.tokens_logp(reference).detach()), values=lab.of(value), mix=list,
        publish=recorder.publish, coefficient=rlhf.KlCoefficient(BETA),
        credit=rlhf.Credit(**{"lam": 1.0, "whiten_advantage": False, **credit}), epochs=1, parts=1, pad_id=at.END,
        seed=0, start=0, steps=len(table), after_step=lambda step, metrics: False,
    )  # fmt: skip
    loss = PolicyLoss(partial(clipped, low=0.2, high=0.2))
    return at.expected(lab, recorder, lab.chances(steps), loss, reduction)


def objective(lab, reference):
    """The exact gradient of E[r] - beta KL(pi || ref)."""
    return lab.gradient() - BETA * lab.derivative(lab.divergence(reference))


def test_ppo_rlhf_follows_the_penalised_reward(lab, reference):
    """Score at the last token, -beta k1 at each, GAE(1, 1): exact with any critic; with the true one for any lambda."""
    exact = objective(lab, reference)
    assert same(rlhf_follows(lab, reference, anything(lab)), exact)
    cost = BETA * (lab.tokens_logp() - lab.tokens_logp(reference)).detach()
    assert same(rlhf_follows(lab, reference, true_value(lab, cost), lam=0.5), exact)


def test_what_ppo_rlhf_adds_to_it(lab, reference):
    """Steps of two completions: the mean over their tokens, whitening, and lambda 0.95 with a critic of zeros."""
    exact, nothing = objective(lab, reference), torch.zeros_like(anything(lab))
    stated(
        SECTION,
        "PPO-RLHF, lambda 0.95, a critic of zeros",
        *compared(rlhf_follows(lab, reference, nothing, lam=0.95), exact),
    )
    good = true_value(lab, BETA * (lab.tokens_logp() - lab.tokens_logp(reference)).detach())
    mean = rlhf_follows(lab, reference, good, 2, "token_mean")
    white = rlhf_follows(lab, reference, good, 2, "token_mean", whiten_advantage=True)
    stated(SECTION, "PPO-RLHF, token mean", *compared(mean, exact))
    stated(SECTION, "PPO-RLHF, token mean, whitened", *compared(white, exact))
