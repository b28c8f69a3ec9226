"""Preference objectives on a tiny language model: each against its formula on log-probabilities summed by hand."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from onepolicy.algos import dpo
from onepolicy.core import preference
from onepolicy.data.preferences import RankedExample
from onepolicy.errors import ConfigError
from onepolicy.learning.optim import OptimConfig
from onepolicy.learning.rows import RowLearner
from onepolicy.nn.language import build_model
from onepolicy.nn.token_policy import TokenPolicy


def text(prompt, answer):
    return (prompt + answer, [False] * len(prompt) + [True] * len(answer))


PAIRS = [
    dpo.Pair(text([2, 3], [4, 5, 1]), text([2, 3], [6, 1]), ref_chosen=-7.0, ref_rejected=-4.5),
    dpo.Pair(text([7], [8, 1]), text([7], [9, 9, 9, 9, 1]), ref_chosen=-5.0, ref_rejected=-12.0),
]


@pytest.fixture
def policy():
    return TokenPolicy(build_model("tiny-0.2m", 10, context=16, pad_token_id=0, eos_token_id=1, seed=2))


def sums(policy, examples):
    """log p of each answer, token by token through the plain model."""
    found = []
    for tokens, acts in examples:
        logp = policy.model(torch.tensor([tokens])).logits[0].log_softmax(-1)
        found.append(sum(logp[t - 1, tokens[t]] for t in range(len(tokens)) if acts[t]))
    return torch.stack(found)


REF = (torch.tensor([-7.0, -5.0]), torch.tensor([-4.5, -12.0]))
OBJECTIVES = {
    "dpo": (dpo.Objective(beta=0.3), lambda c, r, n: preference.dpo(c, r, *REF, 0.3)),
    "conservative": (
        dpo.Objective(beta=0.3, label_smoothing=0.1),
        lambda c, r, n: preference.dpo(c, r, *REF, 0.3, label_smoothing=0.1),
    ),
    "robust": (
        dpo.Objective("robust", beta=0.3, label_smoothing=0.1),
        lambda c, r, n: preference.dpo(c, r, *REF, 0.3, "robust", 0.1),
    ),
    "hinge": (dpo.Objective("hinge", beta=0.3), lambda c, r, n: preference.dpo(c, r, *REF, 0.3, "hinge")),
    "ipo": (dpo.Objective("ipo", beta=0.3), lambda c, r, n: preference.dpo(c, r, *REF, 0.3, "ipo")),
    "ipo per token": (
        dpo.Objective("ipo", beta=0.3, per_token=True),
        lambda c, r, n: preference.dpo(c / n[0], r / n[1], REF[0] / n[0], REF[1] / n[1], 0.3, "ipo"),
    ),
    "rpo": (dpo.Objective(nll_coef=0.5), lambda c, r, n: preference.dpo(c, r, *REF, 0.1) - 0.5 * c / n[0]),
    "simpo": (
        dpo.Objective("simpo", beta=2.0, margin=0.5),
        lambda c, r, n: preference.simpo(c / n[0], r / n[1], 2.0, 0.5),
    ),
    "orpo": (
        dpo.Objective("orpo", beta=0.2),
        lambda c, r, n: -c / n[0] + 0.2 * preference.odds_ratio(c / n[0], r / n[1]),
    ),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_each_objective_is_its_formula(name, policy):
    objective, formula = OBJECTIVES[name]
    chosen, rejected = (sums(policy, [getattr(pair, side) for pair in PAIRS]) for side in ("chosen", "rejected"))
    lengths = (torch.tensor([3.0, 2.0]), torch.tensor([2.0, 5.0]))
    out = dpo.loss(policy, PAIRS, 0.5, objective=objective, pad_id=0)
    want = formula(chosen, rejected, lengths)
    assert out.loss.item() == pytest.approx(want.mean().item(), abs=1e-5)
    assert out.metrics["dpo/chosen_logp"].item() == pytest.approx(chosen.mean().item(), abs=1e-4)
    if objective.needs_reference:
        assert out.metrics["dpo/rejected_drift"].item() == pytest.approx((rejected - REF[1]).mean().item(), abs=1e-4)
    else:
        assert "dpo/rejected_drift" not in out.metrics


def test_micro_batches_leave_the_step_alone(policy):
    gradients = []
    for budget in (None, 12):
        learner = RowLearner(
            policy,
            partial(dpo.loss, policy, objective=dpo.Objective(), pad_id=0),
            dpo.tokens_of,
            optim=OptimConfig(lr=1e-12, name="sgd", betas=(0.0, 0.0), max_grad_norm=0.0),
            micro_tokens=budget,
        )
        gradients.append(learner.step(PAIRS)["learner/grad_norm"])
    assert gradients[0] == pytest.approx(gradients[1], rel=1e-5)


def test_kto_by_hand(policy):
    """Two pairs are four judged answers; z is the mean log-ratio of each prompt with the next one's answer."""
    rows = dpo.singles_of_pairs(PAIRS)
    assert [row.good for row in rows] == [True, False, True, False]
    assert rows[1].other == text([2, 3], [8, 1])
    assert rows[3].other == text([7], [4, 5, 1])
    rows = dpo.referenced(rows, lambda examples: [-0.5 * len(tokens) for tokens, _ in examples])
    assert rows[0].ref_answer == -2.5
    others = sums(policy, [row.other for row in rows])
    ref = torch.tensor([row.ref_other for row in rows])
    z = dpo.measured(policy, rows, pad_id=0, budget=8)
    assert z == pytest.approx(max(0.0, (others - ref).mean().item()), abs=1e-5)
    objective = dpo.Objective("kto", beta=0.2, good=1.0, bad=1.3)
    out = dpo.kto_loss(policy, rows, 0.25, divergence=lambda: 0.7, objective=objective, pad_id=0)
    logp = sums(policy, [row.answer for row in rows])
    h = 0.2 * (logp - torch.tensor([row.ref_answer for row in rows]) - 0.7)
    want = [torch.sigmoid(-h[0]), 1.3 * torch.sigmoid(h[1]), torch.sigmoid(-h[2]), 1.3 * torch.sigmoid(h[3])]
    assert out.loss.item() == pytest.approx(sum(w.item() for w in want) / 4, abs=1e-5)
    with pytest.raises(ConfigError, match="at least 2"):
        dpo.singles_of([(PAIRS[0].chosen, True)])


def test_a_ranking_gives_its_pairs_better_first_without_ties():
    a, b, c = text([2], [3, 1]), text([2], [4, 1]), text([2], [5, 1])
    pairs = dpo.pairs_of([RankedExample((a, b, c), (2.0, 1.0, 2.0))])
    assert [(p.chosen, p.rejected) for p in pairs] == [(b, a), (b, c)]


def test_dpo_moves_the_pair_apart_and_drives_both_log_probabilities(policy):
    """30 steps on one pair from its own reference: every step's margin is larger than at the start."""
    pair = PAIRS[0]
    logps = dpo.logp_in_parts(policy, [pair.chosen, pair.rejected], pad_id=0, budget=None)
    rows = dpo.referenced([pair], lambda examples: logps)
    learner = RowLearner(
        policy,
        partial(dpo.loss, policy, objective=dpo.Objective(beta=0.5), pad_id=0),
        dpo.tokens_of,
        optim=OptimConfig(lr=1e-3),
    )
    found = [learner.step(rows) for _ in range(30)]
    assert found[0]["dpo/loss"] == pytest.approx(0.6931, abs=1e-3)
    assert found[-1]["dpo/margin"] > 1.0
    assert found[-1]["dpo/accuracy"] == 1.0


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"kind": "sgimoid"}, "Did you mean 'sigmoid'"),
        ({"beta": 0.0}, "beta is 0"),
        ({"kind": "ipo", "label_smoothing": 0.1}, "'ipo' has none"),
        ({"margin": 0.5}, "only SimPO"),
        ({"kind": "orpo", "nll_coef": 1.0}, "ORPO has its own"),
    ],
)
def test_an_objective_that_cannot_be_is_refused(fields, reason):
    with pytest.raises(ConfigError, match=reason):
        dpo.Objective(**fields)
