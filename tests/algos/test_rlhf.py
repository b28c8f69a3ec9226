"""PPO-RLHF's credit by hand and against a naive loop; the steered coefficient; learning rates and clipping apart."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from onepolicy.acting.episodes import judged
from onepolicy.algos.rlhf import Credit, KlCoefficient, assign
from onepolicy.batch import Evaluation, PolicyBatch, TokenInputs
from onepolicy.core.policy import PolicyLoss, reinforce
from onepolicy.data.packing import token_batch
from onepolicy.errors import ConfigError, RewardError
from onepolicy.learning.learner import Mixed, PolicyLearner
from onepolicy.learning.optim import OptimConfig
from onepolicy.types import Episode, Score

PLAIN = Credit(lam=1.0, whiten_advantage=False)


def rollout(acts, logp, logp_ref):
    """Rows of the given action marks and log-probabilities."""
    episodes = [
        Episode(str(i), i, tuple(range(2, 2 + len(a))), tuple(a), tuple(p), Score(0.0))
        for i, (a, p) in enumerate(zip(acts, logp, strict=True))
    ]
    batch = token_batch(episodes, [0.0] * len(episodes), pad_id=0)
    ref = torch.zeros_like(batch.logp_behaviour)
    for i, row in enumerate(logp_ref):
        ref[i, : len(row)] = torch.tensor(row)
    return replace(batch, logp_ref=ref)


def test_the_score_comes_with_the_last_action_and_the_kl_with_each():
    """Two actions behind one prompt token, beta 0.5, k1 of 0.2 and -0.4: rewards -0.1 and 0.2 + 3.

    Values 1 and 2, lambda 1: A_1 = 3.2 - 2 = 1.2 and A_0 = -0.1 + 3.2 - 1 = 2.1; targets are the returns 3.1 and 3.2.
    """
    batch = rollout([[False, True, True]], [[0.0, -1.0, -2.0]], [[0.0, -1.2, -1.6]])
    value = torch.tensor([[9.0, 1.0, 2.0]])
    done, metrics = assign(batch, torch.tensor([3.0]), torch.tensor([False]), value, 0.5, PLAIN)
    assert done.advantage[0].tolist() == pytest.approx([0.0, 2.1, 1.2])
    assert done.value_target[0].tolist() == pytest.approx([0.0, 3.1, 3.2])
    assert done.value_old[0].tolist() == [0.0, 1.0, 2.0]
    assert metrics["rlhf/kl"] == pytest.approx(-0.2)
    assert metrics["rlhf/objective"] == pytest.approx(3.0 + 0.5 * 0.2)


def naive(batch, score, value, coef, lam):
    """GAE over a row's actions, whatever stands between them."""
    advantage = torch.zeros_like(value)
    for b in range(len(score)):
        places = batch.mask[b].nonzero()[:, 0].tolist()
        following, carried = 0.0, 0.0
        for k in reversed(range(len(places))):
            t = places[k]
            reward = -coef * (batch.logp_behaviour[b, t] - batch.logp_ref[b, t]).item()
            reward += score[b].item() if k == len(places) - 1 else 0.0
            carried = reward + following - value[b, t].item() + lam * carried
            advantage[b, t] = carried
            following = value[b, t].item()
    return advantage


def test_tokens_of_others_are_no_time_steps():
    """Random rows whose actions come in spans with other tokens between, against the loop."""
    generator = torch.Generator().manual_seed(0)
    acts = [[False, True, True, False, True], [False, False, True], [False, True, False, False, True, True, True]]
    logp = [[-float(x) for x in torch.rand(len(a), generator=generator)] for a in acts]
    ref = [[-float(x) for x in torch.rand(len(a), generator=generator)] for a in acts]
    batch = rollout(acts, logp, ref)
    value, score = torch.randn(batch.mask.shape, generator=generator), torch.tensor([1.0, -2.0, 0.5])
    done, _ = assign(batch, score, torch.zeros(3, dtype=torch.bool), value, 0.3, replace(PLAIN, lam=0.7))
    want = naive(batch, score, value, 0.3, 0.7)
    assert torch.allclose(done.advantage, want, atol=1e-5)
    assert torch.allclose(done.value_target, torch.where(batch.mask, want + value, 0.0), atol=1e-5)
    white, _ = assign(
        batch, score, torch.zeros(3, dtype=torch.bool), value, 0.3, replace(PLAIN, lam=0.7, whiten_advantage=True)
    )
    counted = white.advantage[batch.mask]
    assert counted.mean().item() == pytest.approx(0.0, abs=1e-6)
    assert counted.std().item() == pytest.approx(1.0, abs=1e-4)


def test_no_end_and_clipped_scores():
    batch = rollout([[False, True], [False, True]], [[0.0, -1.0]] * 2, [[0.0, -1.0]] * 2)
    zero = torch.zeros(batch.mask.shape)
    credit = replace(PLAIN, no_end_score=-1.0, score_clip=2.0)
    done, metrics = assign(batch, torch.tensor([5.0, 5.0]), torch.tensor([False, True]), zero, 0.0, credit)
    assert done.advantage[:, 1].tolist() == [2.0, -1.0]
    assert metrics["rlhf/score"] == 0.5
    with pytest.raises(ConfigError, match="score_clip is 0"):
        Credit(score_clip=0)


def test_the_coefficient_is_steered_towards_its_target():
    """KL twice the target: clipped at +20 %, 100 of 1,000 samples: +2 %. At the target it stays. It is saved."""
    beta = KlCoefficient(0.1, target=6.0, horizon=1000)
    beta.observe(12.0, 100)
    assert beta.value == pytest.approx(0.102)
    beta.observe(6.0, 100)
    assert beta.value == pytest.approx(0.102)
    other = KlCoefficient(0.5, target=6.0)
    other.load_state_dict(beta.state_dict())
    assert other.value == beta.value
    fixed = KlCoefficient(0.1)
    fixed.observe(1e9, 100)
    assert fixed.value == 0.1
    with pytest.raises(ConfigError, match="kl_coef is 0"):
        KlCoefficient(0.0, target=1.0)


def test_episodes_nobody_could_judge_are_left_out_and_a_rollout_of_them_stops():
    good = Episode("a", 0, (1, 2), (False, True), (0.0, -1.0), Score(1.0))
    bad = replace(good, score=Score(None, {}, "time-out"))
    assert judged([bad, good]) == [good]
    with pytest.raises(RewardError, match="2 of them: time-out"):
        judged([bad, bad])


class Two(torch.nn.Module):
    """An actor and a critic of one number each: logp = actor, value = critic."""

    def __init__(self):
        super().__init__()
        self.actor = torch.nn.Linear(1, 1, bias=False)
        self.critic = torch.nn.Linear(1, 1, bias=False)
        for part in (self.actor, self.critic):
            part.weight.data.fill_(1.0)

    def evaluate(self, inputs, action):
        shape = action.shape
        logp = self.actor.weight.expand(shape)
        return Evaluation(logp=logp, entropy=torch.zeros(shape), value=self.critic.weight.expand(shape))


def test_a_critic_apart_has_its_own_rate_and_its_own_clip():
    """d loss/d actor = -2, d loss/d critic = (1 - 5) x 100 = -400, each clipped to 1 alone: steps lr and 10 lr."""
    model = Two()
    tokens = torch.ones(1, 1, dtype=torch.int64)
    real = torch.ones(1, 1, dtype=torch.bool)
    batch = PolicyBatch(
        TokenInputs(tokens, real, real), tokens, real, torch.zeros(1, 1), torch.full((1, 1), 2.0),
        value_target=torch.full((1, 1), 5.0), value_old=torch.ones(1, 1),
    )  # fmt: skip
    learner = PolicyLearner(
        model,
        PolicyLoss(surrogate=reinforce, value_coef=100.0),
        optim=OptimConfig(lr=0.01, name="sgd", betas=(0.0, 0.0), max_grad_norm=1.0),
        apart=model.critic,
        apart_lr=10.0,
    )
    metrics = learner.step(batch)
    assert model.actor.weight.item() == pytest.approx(1.01, abs=1e-6)
    assert model.critic.weight.item() == pytest.approx(1.1, abs=1e-6)
    assert metrics["learner/grad_norm"] == pytest.approx((4 + 400**2) ** 0.5)
    # a batch mixed in is evaluated by whom it names: an actor alone, whose value is None
    alone = type(
        "Alone", (), {"evaluate": lambda self, inputs, action: replace(model.evaluate(inputs, action), value=None)}
    )()
    mixed = Mixed(
        "ptx", replace(batch, value_target=None, value_old=None), PolicyLoss(surrogate=reinforce), 1.0, policy=alone
    )
    assert learner.step(batch, [mixed])["ptx/loss"] == pytest.approx(-2 * 1.01, abs=1e-5)
