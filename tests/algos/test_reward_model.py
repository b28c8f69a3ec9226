"""The ranking loss of a reward model against a naive loop, K-wise against its pairs, and what it learns."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch
from torch import nn

from onepolicy.algos.reward_model import compare, loss, one_by_one, scores_of, tokens_of
from onepolicy.data.preferences import RankedExample
from onepolicy.learning.optim import OptimConfig
from onepolicy.learning.rows import RowLearner


class LastToken(nn.Module):
    """A row's score is the weight of its last real token."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1.0, 1.0, 10, dtype=torch.float64))
        self.gain = torch.ones(())

    def forward(self, inputs):
        last = inputs.attention.sum(-1) - 1
        return self.weight[inputs.tokens.gather(1, last[:, None])[:, 0]]


def text(*tokens):
    return (list(tokens), [False] + [True] * (len(tokens) - 1))


ROWS = [
    RankedExample((text(1, 2), text(1, 7, 5), text(1, 9)), (1.0, 2.0, 2.0), margin=0.5),
    RankedExample((text(3, 8), text(3, 4, 4, 6)), (2.0, 1.0)),
]


def test_the_loss_is_the_mean_over_rankings_of_the_mean_over_pairs():
    model = LastToken()
    w = model.weight.tolist()
    first = [-math.log(1 / (1 + math.exp(-(w[2] - w[t] - 0.5)))) for t in (5, 9)]  # a tie: two of C(3,2) = 3 pairs
    second = -math.log(1 / (1 + math.exp(-(w[6] - w[8]))))
    want = (sum(first) / 3 + second) / 2
    out = loss(model, ROWS, 0.5, pad_id=0)
    assert out.loss.item() == pytest.approx(want, abs=1e-7)
    assert out.metrics["reward_model/loss"].item() == pytest.approx(want, abs=1e-7)
    assert out.metrics["reward_model/accuracy"].item() == 0.0
    square = (sum(w[t] ** 2 for t in (2, 5, 9)) / 3 + (w[8] ** 2 + w[6] ** 2) / 2) / 2
    assert loss(model, ROWS, 0.5, pad_id=0, center_coef=0.1).loss.item() == pytest.approx(want + 0.1 * square, abs=1e-7)


def test_micro_batches_leave_the_step_alone():
    """Rows of 9 and 8 tokens, together or one at a time: the same parameters afterwards."""
    after = []
    for budget in (None, 9):
        model = LastToken()
        learner = RowLearner(
            model,
            lambda rows, weight, m=model: loss(m, rows, weight, pad_id=0),
            tokens_of,
            optim=OptimConfig(lr=0.1, name="sgd", betas=(0.0, 0.0), max_grad_norm=0.0),
            micro_tokens=budget,
        )
        metrics = learner.step(ROWS)
        after.append((model.weight.detach().clone(), metrics["reward_model/loss"]))
    assert torch.allclose(after[0][0], after[1][0], atol=1e-12)
    assert after[0][1] == pytest.approx(after[1][1], abs=1e-12)


def test_pairs_of_a_ranking_without_ties_weigh_as_the_ranking_does():
    model = LastToken()
    row = RankedExample((text(1, 2), text(1, 7), text(1, 9)), (3.0, 1.0, 2.0))
    pairs = one_by_one([row])
    assert len(pairs) == 3
    whole, apart = loss(model, [row], 1.0, pad_id=0).loss, loss(model, pairs, 1 / 3, pad_id=0).loss
    assert whole.item() == pytest.approx(apart.item(), abs=1e-7)
    assert len(one_by_one(ROWS)) == 3  # two of the first, whose tie is no pair, and one


def test_scores_come_back_in_order_and_pairs_are_compared_the_right_way():
    model = LastToken()
    texts = [example for row in ROWS for example in row.examples]
    want = [model.weight[t].item() for t in (2, 5, 9, 8, 6)]
    for budget in (None, 4):
        assert scores_of(model, texts, pad_id=0, budget=budget) == pytest.approx(want)
    found = list(compare(model, ROWS, pad_id=0, budget=None))
    assert [p.ranking for p in found] == [0, 0, 1]
    assert [p.lead for p in found] == pytest.approx([want[0] - want[1], want[0] - want[2], want[4] - want[3]])
    assert [p.gap for p in found] == [1.0, 1.0, 1.0]


def test_a_consistent_order_is_learnt():
    """All pairs of the tokens 0 to 9, the larger preferred: their weights end in that order, from the reverse."""
    model = LastToken()
    with torch.no_grad():
        model.weight.copy_(model.weight.flip(0))
    rows = [
        RankedExample((text(1, i), text(1, j)), (float(i < j) + 1, float(j < i) + 1))
        for i, j in combinations(range(10), 2)
    ]
    learner = RowLearner(
        model, lambda part, weight: loss(model, part, weight, pad_id=0), tokens_of, optim=OptimConfig(lr=0.1)
    )
    for _ in range(60):
        learner.step(rows)
    assert model.weight.argsort().tolist() == list(range(10))
