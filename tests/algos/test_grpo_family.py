"""What the kin of GRPO add: dynamic sampling, overlong shaping, a moving baseline, whitening over the rollout."""

from __future__ import annotations

import pytest
import torch

from onepolicy.algos import grpo
from onepolicy.core.kl import k1, k3
from onepolicy.errors import ConfigError
from onepolicy.types import Episode, Score


def episode(score, length=2, group=0):
    return Episode(
        str(group), group, tuple(range(length + 1)), (False,) + (True,) * length, (0.0,) + (-1.0,) * length,
        Score(score, {"correct": score}),
    )  # fmt: skip


class Counted:
    """Prompts by number, two at a time."""

    def __init__(self):
        self.at = 0

    def next(self):
        self.at += 2
        return [self.at - 2, self.at - 1]


def draws(scores):
    """An act that gives the groups of these scores, by the prompt's number."""

    def act(tasks, step):
        return [episode(x, group=i) for i, t in enumerate(tasks) for x in scores[t]], {"rollout/score": float(tasks[0])}

    return act


def test_dynamic_sampling_draws_until_enough_groups_have_variance():
    """Prompts 0 to 5: only 1, 4 and 5 vary. Two are asked for: three rollouts, the third's second group left out."""
    act = draws({0: (1, 1), 1: (0, 1), 2: (0, 0), 3: (1, 1), 4: (1, 0), 5: (0, 1)})
    prompts = Counted()
    credit = grpo.Credit(2, zero_variance="drop", resample=4)
    episodes, metrics = grpo.sampled(prompts, act, 0, credit)
    assert [e.score.value for e in episodes] == [0, 1, 1, 0]
    assert metrics == {"rollout/score": 2.0, "rollout/rounds": 3.0}
    assert prompts.at == 6
    episodes, metrics = grpo.sampled(Counted(), act, 0, grpo.Credit(2, zero_variance="drop", resample=2))
    assert [e.score.value for e in episodes] == [0, 1]
    assert metrics["rollout/rounds"] == 2.0
    flat, _ = grpo.sampled(Counted(), draws(dict.fromkeys(range(8), (1, 1))), 0, credit)
    assert len(flat) == 4  # nothing varies: the first rollout, of which assign makes no batch
    with pytest.raises(ConfigError, match="resample is 3 with zero_variance 'keep'"):
        grpo.Credit(2, resample=3)


def test_an_unjudged_sample_does_not_make_a_group_vary():
    group = [episode(1.0), episode(None)]
    assert grpo.with_variance(group, 2) == []


def test_overlong_answers_lose_linearly_over_the_cache():
    """Limit 10, cache 4: nothing up to 6 tokens, a quarter at 7, all at 10; parts say so, the unjudged stay so."""
    found = grpo.shaped([episode(1.0, n) for n in (5, 6, 7, 9, 10)] + [episode(None, 9)], 10, 4)
    assert [e.score.value for e in found[:5]] == [1.0, 1.0, 0.75, 0.25, 0.0]
    assert found[5].score.value is None
    assert found[2].score.parts == {"correct": 1.0, "overlong": -0.25}
    with pytest.raises(ConfigError, match="cache is 11 of 10"):
        grpo.Credit(2, overlong=(10, 11))


def test_the_moving_baseline_is_that_of_the_rollouts_before():
    """Means 1 then 3, decay 0.5: the first rollout subtracts 1 (its own), the second 1, the third 2."""
    base = grpo.MovingBaseline(0.5)
    assert [e.score.value for e in base.subtract([episode(0.0), episode(2.0), episode(None)])] == [-1.0, 1.0, None]
    assert [e.score.value for e in base.subtract([episode(3.0)])] == [2.0]
    again = grpo.MovingBaseline(0.5)
    again.load_state_dict(base.state_dict())
    assert [e.score.value for e in again.subtract([episode(3.0)])] == [1.0]
    with pytest.raises(ConfigError, match="decay is 1"):
        grpo.MovingBaseline(1.0)


class Learner:
    """Keeps the batches it is given."""

    def __init__(self):
        self.batches = []

    def step(self, batch):
        self.batches.append(batch)
        return {"learner/logp_gap": 0.0}


def fitted(credit, scores, **extra):
    learner = Learner()
    grpo.fit(
        learner, Counted(), act=draws(scores), reference=extra.pop("reference", None), publish=lambda v: None,
        credit=credit, epochs=1, parts=1, pad_id=0, seed=0, start=0, steps=1, after_step=lambda s, m: False, **extra,
    )  # fmt: skip
    return learner.batches[0]


def test_whitening_is_over_the_rollout_after_the_kl_s_cost():
    """Scores 0, 1 and 5, 6, no group baseline, KL 0.5 per token at the first row only: mean 0 and deviation 1."""

    def reference(batch):
        ref = batch.logp_behaviour.clone()
        ref[0] -= 0.5
        return ref

    credit = grpo.Credit(2, center="none", scale="none", whiten=True, kl_coef=1.0)
    batch = fitted(credit, {0: (0.0, 1.0), 1: (5.0, 6.0)}, reference=reference)
    counted = batch.advantage[batch.mask]
    raw = torch.tensor([-1.0, -0.5, 1.0, 1.0, 5.0, 5.0, 6.0, 6.0])  # the first row pays 1 and 0.5 to go
    assert torch.allclose(counted, (raw - raw.mean()) / raw.std(), atol=1e-5)


def test_the_kl_s_estimator_in_the_reward_is_a_choice():
    batch = fitted(
        grpo.Credit(2, center="none", scale="none", kl_coef=1.0, kl=k3),
        {0: (0.0, 0.0), 1: (1.0, 0.0)},
        reference=lambda b: b.logp_behaviour - 0.5,
    )
    cost = float(k3(torch.tensor(0.0), torch.tensor(-0.5)))
    assert cost != float(k1(torch.tensor(0.0), torch.tensor(-0.5)))
    assert batch.advantage[2][batch.mask[2]].tolist() == pytest.approx([1.0 - 2 * cost, 1.0 - cost])


def test_renew_and_proximal_are_called_where_they_belong():
    calls = []

    def proximal(batch):
        calls.append("proximal")
        return batch, {"rollout/effective_share": 0.5}

    fitted(grpo.Credit(2), {0: (0, 1), 1: (0, 1)}, proximal=proximal, renew=lambda step: calls.append(step))
    assert calls == [0, "proximal"]
