"""GRPO on a bandit of tokens, where the best policy is known; its credit by hand; its gradient against REINFORCE's."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.algos import grpo
from onepolicy.batch import Evaluation
from onepolicy.core.conventions import CONVENTIONS, policy_loss_of
from onepolicy.core.policy import PolicyLoss, clipped, policy_loss, reinforce
from onepolicy.core.reduce import loss_weights
from onepolicy.errors import ConfigError, RewardError
from onepolicy.learning.learner import PolicyLearner
from onepolicy.learning.optim import OptimConfig
from onepolicy.types import Episode, Message, Score, Task

TOKENS = 6
PAID = 4


class Unigram(torch.nn.Module):
    """A policy that knows no state: one logit per token."""

    def __init__(self, tokens=TOKENS, dtype=torch.float32):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.zeros(tokens, dtype=dtype))

    def evaluate(self, inputs, action):
        logp = torch.log_softmax(self.logits, -1)
        entropy = -(logp.exp() * logp).sum()
        taken = torch.where(inputs.is_action, logp[action], 0.0)
        return Evaluation(logp=taken, entropy=entropy.expand_as(taken))


def episode(score, *, group=0, tokens=(4,), truncated=False, logp=-1.0, name="t"):
    """An episode with the prompt 0 1 and some action tokens; score None could not be judged."""
    n = len(tokens)
    return Episode(
        task_id=name,
        group=group,
        tokens=(0, 1, *tokens),
        is_action=(False, False, *([True] * n)),
        logp=(0.0, 0.0, *([logp] * n)),
        score=Score(score, error=None if score is not None else "a parser crashed"),
        truncated=truncated,
    )


def episodes_of(*groups):
    return [episode(score, group=g) for g, scores in enumerate(groups) for score in scores]


class Prompts:
    """Four tasks, for ever."""

    def next(self):
        return [Task(str(i), (Message("user", "?"),), "", lambda task, text: Score(0.0)) for i in range(4)]


def actor(policy, size):
    """Samples one token per episode from the policy; pays for PAID."""

    def act(tasks, step):
        rng = torch.Generator().manual_seed(step)
        logp = torch.log_softmax(policy.logits.detach(), -1)
        drawn = torch.multinomial(logp.exp(), len(tasks) * size, replacement=True, generator=rng).tolist()
        found = [
            episode(float(token == PAID), group=i // size, tokens=(token,), logp=float(logp[token]))
            for i, token in enumerate(drawn)
        ]
        return found, {"rollout/score": sum(e.score.value for e in found) / len(found)}

    return act


def train(credit, loss, *, reduction="token_mean", steps=60, schedule="constant", reference=None):
    """Probability of each token after GRPO from the uniform policy."""
    policy = Unigram()
    optim = OptimConfig(lr=0.1, weight_decay=0.0, warmup_steps=0, schedule=schedule, total_steps=steps)
    length = 1 if reduction == "fixed_length" else None
    grpo.fit(
        PolicyLearner(policy, loss, optim=optim, reduction=reduction, length=length),
        Prompts(),
        act=actor(policy, credit.group_size),
        reference=reference,
        publish=lambda version: None,
        credit=credit,
        epochs=1,
        parts=1,
        pad_id=0,
        seed=0,
        start=0,
        steps=steps,
        after_step=lambda step, metrics: False,
    )
    return torch.softmax(policy.logits.detach(), -1)


GROUPED = [name for name, each in CONVENTIONS.items() if each.credit == "group"]


@pytest.mark.parametrize("name", GROUPED)
def test_every_convention_finds_the_token_that_pays(name):
    """One token of six pays 1: the best policy always says it."""
    chosen = CONVENTIONS[name]
    credit = grpo.Credit(group_size=8, center=chosen.center, scale=chosen.scale, eps=chosen.eps)
    loss = replace(policy_loss_of(chosen), kl_coef=0.0)
    assert train(credit, loss, reduction=chosen.reduction)[PAID] > 0.9


def test_without_advantages_nothing_is_found(monkeypatch):
    """The same training with every advantage 1: the expected gradient is 0, what remains is the draws' noise."""
    monkeypatch.setattr(grpo, "advantages", lambda episodes, credit: torch.ones(len(episodes)))
    probability = train(grpo.Credit(group_size=8), PolicyLoss(reinforce))
    assert probability[PAID] < 0.5


PENALISED = {
    "k1 in the reward": (1.0, 0.0, torch.e / (torch.e + TOKENS - 1)),
    "k3 in the loss": (0.0, 1.0, TOKENS**-0.5),
}


@pytest.mark.parametrize("place", PENALISED)
def test_a_penalty_to_the_reference_has_the_optimum_of_the_books(place):
    """Coefficient 1 to the uniform reference, in the reward and in the loss.

    In the reward k1 is the reverse KL, whose optimum is pi(a) proportional to ref(a) exp(r(a)): e / (e + 5) = 0.352.
    In the loss the gradient of k3 is that of the forward KL: p (1 - p) + 1/6 - p = 0, so p = 1 / sqrt(6) = 0.408.
    """
    charged, kl_coef, best = PENALISED[place]
    uniform = partial(torch.full_like, fill_value=-torch.log(torch.tensor(float(TOKENS))).item())
    found = train(
        grpo.Credit(group_size=64, center="mean", scale="none", kl_coef=charged),
        PolicyLoss(reinforce, kl_coef=kl_coef),
        steps=120,
        schedule="linear",
        reference=lambda batch: uniform(batch.logp_behaviour),
    )
    assert found[PAID] == pytest.approx(best, abs=0.02)


def test_credit_by_hand():
    """Scores 1 0 0 1: mean 1/2, unbiased spread sqrt(4 * 1/4 / 3) = 0.5774, so +-0.8660 at the action tokens only."""
    batch = grpo.assign(episodes_of((1.0, 0.0, 0.0, 1.0)), grpo.Credit(group_size=4, eps=0.0), pad_id=0)
    torch.testing.assert_close(batch.advantage[:, 2], torch.tensor([0.8660254, -0.8660254, -0.8660254, 0.8660254]))
    assert batch.advantage[:, :2].eq(0).all()
    assert batch.mask.tolist() == [[False, False, True]] * 4


def test_what_could_not_be_judged_moves_no_baseline():
    """Scores 1, None, 0, 0: the mean of the three judged is 1/3; the fourth is not in the batch, and is not a 0."""
    credit = grpo.Credit(group_size=4, scale="none")
    batch = grpo.assign(episodes_of((1.0, None, 0.0, 0.0)), credit, pad_id=0)
    torch.testing.assert_close(batch.advantage[:, 2], torch.tensor([2 / 3, -1 / 3, -1 / 3]))
    alone = grpo.assign(episodes_of((1.0, None, None, None), (1.0, 0.0, 0.0, 0.0)), credit, pad_id=0)
    assert alone.advantage[0, 2] == 0.0
    assert len(alone) == 5


def test_groups_without_variance_are_kept_or_dropped():
    scores = ((1.0, 1.0), (0.0, 1.0), (0.0, 0.0))
    keep, drop = (grpo.Credit(2, scale="none", zero_variance=choice) for choice in ("keep", "drop"))
    assert grpo.assign(episodes_of(*scores), keep, 0).advantage[:, 2].tolist() == [0, 0, -0.5, 0.5, 0, 0]
    assert grpo.assign(episodes_of(*scores), drop, 0).advantage[:, 2].tolist() == [-0.5, 0.5]
    for credit in (keep, drop):
        assert grpo.assign(episodes_of((1.0, 1.0), (0.0, 0.0)), credit, 0) is None


def test_truncated_completions_leave_the_loss_but_not_the_baseline():
    """Scores 1 and 0 (cut off): the first keeps its advantage over both, the second is not counted."""
    pair = [episode(1.0, tokens=(2, 3)), episode(0.0, tokens=(4, 5), truncated=True)]
    credit = grpo.Credit(2, scale="none", truncated="mask")
    batch = grpo.assign(pair, credit, pad_id=0)
    assert batch.advantage[0, 2:].tolist() == [0.5, 0.5]
    assert batch.mask.tolist() == [[False, False, True, True], [False] * 4]
    assert loss_weights(batch.mask, "token_mean").tolist()[1] == [0.0] * 4
    assert grpo.assign([replace(e, truncated=True) for e in pair], credit, pad_id=0) is None
    assert grpo.assign(pair, replace(credit, truncated="keep"), pad_id=0).mask[1].tolist() == [False, False, True, True]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from([None, 0.0, 0.5, 1.0]), min_size=4, max_size=4), min_size=2, max_size=5),
    st.randoms(use_true_random=False),
)
def test_an_advantage_depends_on_its_own_group_alone(groups, random):
    """Shuffling the groups, and the samples within them, shuffles the advantages alike."""
    credit = grpo.Credit(4)
    places = [(g, i) for g in range(len(groups)) for i in range(4)]
    order = random.sample(range(len(groups)), len(groups))
    inside = {g: random.sample(range(4), 4) for g in order}
    before = dict(zip(places, grpo.advantages(episodes_of(*groups), credit).tolist(), strict=True))
    shuffled = [(g, i) for g in order for i in inside[g]]
    after = grpo.advantages([episode(groups[g][i], group=g) for g, i in shuffled], credit).tolist()
    assert after == pytest.approx([before[place] for place in shuffled], abs=1e-6)


def test_a_step_of_which_nothing_could_be_judged_is_an_error():
    with pytest.raises(RewardError, match=r"not one of the 4 completions .* could be judged \(4 of them: a parser cra"):
        grpo.assign(episodes_of((None, None), (None, None)), grpo.Credit(2), pad_id=0)


def test_a_group_of_one_needs_no_center():
    with pytest.raises(ConfigError, match=r"group_size is 1; GRPO's baseline needs at least 2 .* or center=\"none\""):
        grpo.Credit(group_size=1)
    assert grpo.assign(episodes_of((2.0,)), grpo.Credit(1, center="none", scale="none"), 0).advantage[0, 2] == 2.0


def gradient(batch, loss, reduction="token_mean"):
    """The gradient of a loss at a policy that is not uniform, float64."""
    policy = Unigram(dtype=torch.float64)
    with torch.no_grad():
        policy.logits.copy_(torch.arange(TOKENS) / 3)
    weight = loss_weights(batch.mask, reduction, dtype=torch.float64)
    policy_loss(policy.evaluate(batch.inputs, batch.action), batch, weight, loss).loss.backward()
    return policy.logits.grad


def on_policy(batch):
    """The batch with log-probs of the policy that `gradient` evaluates."""
    policy = Unigram(dtype=torch.float64)
    with torch.no_grad():
        policy.logits.copy_(torch.arange(TOKENS) / 3)
        return replace(batch, logp_behaviour=policy.evaluate(batch.inputs, batch.action).logp)


UNEVEN = [
    episode(2.0, tokens=(2, 3, 5)),
    episode(-1.0, tokens=(4,)),
    episode(0.5, group=1, tokens=(1, 1)),
    episode(0.5, group=1, tokens=(5, 2, 2, 2)),
]


def test_without_center_and_scale_it_is_reinforce():
    """-sum_i,t R_i grad log pi(a_it) / tokens, added up one token after the other."""
    batch = on_policy(grpo.assign(UNEVEN, grpo.Credit(2, center="none", scale="none"), pad_id=0))
    probability = torch.softmax(torch.arange(TOKENS, dtype=torch.float64) / 3, -1)
    expected, count = torch.zeros(TOKENS, dtype=torch.float64), sum(sum(e.is_action) for e in UNEVEN)
    for each in UNEVEN:
        for token in each.tokens[2:]:
            score = torch.nn.functional.one_hot(torch.tensor(token), TOKENS) - probability
            expected -= each.score.value * score / count
    torch.testing.assert_close(gradient(batch, PolicyLoss(reinforce)), expected)


def test_on_policy_the_clipped_surrogate_has_the_gradient_of_reinforce():
    """At ratio 1, grad r A = A grad log pi, and nothing is clipped."""
    batch = on_policy(grpo.assign(UNEVEN, grpo.Credit(2), pad_id=0))
    ppo = PolicyLoss(partial(clipped, low=0.2, high=0.2))
    torch.testing.assert_close(gradient(batch, ppo), gradient(batch, PolicyLoss(reinforce)))


@pytest.mark.parametrize(("reduction", "factor"), [("sequence_sum", 4 / 2), ("token_mean", 10 / 4)])
def test_dropping_groups_only_changes_what_is_divided_by(reduction, factor):
    """Groups without variance add nothing to the sum: dropping one of two scales the gradient by rows or tokens."""
    kept, dropped = (
        on_policy(grpo.assign(UNEVEN, grpo.Credit(2, zero_variance=choice), pad_id=0)) for choice in ("keep", "drop")
    )
    loss = PolicyLoss(reinforce)
    torch.testing.assert_close(gradient(dropped, loss, reduction), factor * gradient(kept, loss, reduction))


def test_the_kl_charged_to_a_token_is_what_is_still_to_come():
    """k1 = 0.1, 0.2, 0.3 at the three actions: to go 0.6, 0.5, 0.3; twice that off an advantage of 1."""
    batch = grpo.assign([episode(1.0, tokens=(2, 3, 4)), episode(0.0)], grpo.Credit(2, scale="none"), pad_id=0)
    batch = replace(batch, advantage=torch.where(batch.mask, 1.0, 0.0))
    cost = torch.tensor([[9.0, 9.0, 0.1, 0.2, 0.3], [9.0, 9.0, 0.0, 9.0, 9.0]])
    charged = grpo.charge_kl(replace(batch, logp_ref=batch.logp_behaviour - cost), kl_coef=2.0)
    expected = torch.tensor([[0, 0, 1 - 1.2, 1 - 1.0, 1 - 0.6], [0, 0, 1.0, 0, 0]])
    torch.testing.assert_close(charged.advantage, expected)
    same = grpo.charge_kl(replace(batch, logp_ref=batch.logp_behaviour), kl_coef=2.0)
    assert same.advantage.equal(batch.advantage)


@given(st.integers(1, 12), st.integers(1, 6), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_minibatches_part_the_batch(rows, count, seed):
    """Every row is in one part exactly, parts differ in size by at most one, and the seed decides all."""
    batch = grpo.assign([episode(float(i)) for i in range(rows)], grpo.Credit(1, center="none", scale="none"), pad_id=0)
    if batch is None:  # a single row that scored 0
        return
    parts = grpo.minibatches(batch, count, seed)
    sizes = [len(part) for part in parts]
    found = sorted(x for part in parts for x in part.advantage[:, 2].tolist())
    assert found == sorted(batch.advantage[:, 2].tolist())
    assert max(sizes) - min(sizes) <= 1
    assert len(parts) == min(count, rows)
    again = grpo.minibatches(batch, count, seed)
    assert all(a.advantage.equal(b.advantage) for a, b in zip(parts, again, strict=True))


class Diary:
    """A learner's stand-in that notes the batches it is given."""

    def __init__(self, events):
        self.events = events

    def step(self, batch):
        self.events.append(("learn", len(batch), batch.logp_ref is not None))
        return {"policy/loss": float(len(self.events)), "learner/logp_gap": float(len(self.events))}


def test_the_loop_samples_learns_and_publishes_in_order():
    """Two steps from the third on, two epochs of two parts; a rollout without variance trains nothing."""
    events = []
    rollouts = iter([episodes_of((0.0, 1.0), (1.0, 0.0)), episodes_of((1.0, 1.0), (0.0, 0.0))])

    def act(tasks, step):
        events.append(("act", step))
        return next(rollouts), {"rollout/score": 0.5}

    def after(step, metrics):
        events.append(("after", step, metrics["rollout/trained"], metrics.get("rollout/logp_gap")))
        return False

    grpo.fit(
        Diary(events),
        Prompts(),
        act=act,
        reference=lambda batch: batch.logp_behaviour,
        publish=lambda version: events.append(("publish", version)),
        credit=grpo.Credit(2),
        epochs=2,
        parts=2,
        pad_id=0,
        seed=0,
        start=2,
        steps=4,
        after_step=after,
    )
    learnt = [("learn", 2, True)] * 4
    assert events == [
        ("act", 2),
        *learnt,
        ("publish", 3),
        ("after", 3, 1.0, 2.0),
        ("act", 3),
        ("after", 4, 0.0, None),
    ]
