"""The exactness laboratory: where direct preference optimisation ends, on exact preferences. docs/laboratory.md.

Every ordered pair of completions is a row of algos/dpo.loss, weighed by the Bradley-Terry chance that it is observed
that way round; the mean loss is minimised to its end. Distances are KL(pi || optimum), nats.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from tests.learning import laboratory as at
from tests.learning.laboratory import Laboratory, Tabular, stated

from onepolicy.algos import dpo

SECTION = "Where preferences end"

BETA = 0.5


def ones(tokens):
    """The reward: how many tokens are 1, so that few chances of winning occur, each one call of the loss."""
    return float(tokens.count(1))


@pytest.fixture
def lab():
    """13 completions of at most 2 tokens; the policy starts at the reference."""
    return Laboratory(Tabular(2, seed=3), longest=2, score=ones)


def tilted(lab, gain):
    """log of pi_ref exp(gain) / Z, [N]: pi_ref is where the table starts."""
    logp = lab.logp(Tabular(2, seed=3)).detach() + gain
    return logp - logp.logsumexp(0)


def distance(lab, optimum):
    """KL(pi || optimum), nats."""
    logp = lab.logp().detach()
    return float((logp.exp() * (logp - optimum)).sum())


def examples(lab):
    """Every completion behind the prompt, as data/ gives it."""
    return [([at.PROMPT, *y], [False] + [True] * len(y)) for y in lab.every]


def pairs(lab, drawn=None):
    """(chance that i beats j, the share of such pairs among those drawn, rows) of ordered pairs, by equal chance."""
    ref, written = lab.logp(Tabular(2, seed=3)).detach().tolist(), examples(lab)
    share = torch.full((13,), 1.0 / 13) if drawn is None else drawn
    found = {}
    for i, y in enumerate(written):
        for j, other in enumerate(written):
            if i != j:
                lead = float(lab.score[i] - lab.score[j])
                key = (lead, round(float(share[i] * share[j]), 9))
                found.setdefault(key, []).append(dpo.Pair(y, other, ref[i], ref[j]))
    return [(float(torch.tensor(lead).sigmoid()), weight, rows) for (lead, weight), rows in found.items()]


def minimised(lab, total):
    """The table at the least of total(); the length of the slope there."""
    search = torch.optim.LBFGS(
        lab.parameters, max_iter=120, line_search_fn="strong_wolfe", tolerance_grad=1e-9, tolerance_change=1e-16
    )

    def closure():
        search.zero_grad()
        loss = total()
        loss.backward()
        return loss

    search.step(closure)
    return float(lab.derivative(total()).norm())


def expected_loss(lab, objective, flip=0.0, drawn=None):
    """The mean loss over all pairs, a share `flip` of the labels the wrong way round, as a function."""
    table = pairs(lab, drawn)

    def total():
        parts = []
        for chance, share, rows in table:
            seen = (1.0 - flip) * chance + flip * (1.0 - chance)
            parts.append(dpo.loss(lab.policy, rows, share * seen, objective=objective, pad_id=at.END).loss)
        return torch.stack(parts).sum()

    return total


def test_dpo_reaches_the_optimum_of_the_reward_behind_the_preferences(lab):
    """pi_ref exp(r / beta) / Z, though no reward was ever seen."""
    optimum = tilted(lab, lab.score / BETA)
    before = distance(lab, optimum)
    assert minimised(lab, expected_loss(lab, dpo.Objective(beta=BETA))) < 1e-6
    assert distance(lab, optimum) < 1e-9
    stated(SECTION, "the reference", before)
    stated(SECTION, "DPO", distance(lab, optimum))


def test_dpo_s_end_does_not_depend_on_which_pairs_are_drawn(lab):
    """Completions drawn ten times as often as others: the same optimum, because a table can meet every preference."""
    drawn = torch.where(torch.arange(13) % 2 == 0, 10.0, 1.0)
    assert minimised(lab, expected_loss(lab, dpo.Objective(beta=BETA), drawn=drawn / drawn.sum())) < 1e-6
    assert distance(lab, tilted(lab, lab.score / BETA)) < 1e-9


def test_flipped_labels(lab):
    """A fifth of the labels wrong: robust DPO ends where it should, DPO and its conservative form short of it."""
    optimum, start = tilted(lab, lab.score / BETA), lab.policy.logits.detach().clone()
    found = {}
    for kind, smoothing in (("robust", 0.2), ("sigmoid", 0.0), ("sigmoid", 0.2)):
        with torch.no_grad():
            lab.policy.logits.copy_(start)
        objective = dpo.Objective(kind=kind, beta=BETA, label_smoothing=smoothing)
        assert minimised(lab, expected_loss(lab, objective, flip=0.2)) < 1e-6
        found[kind, smoothing] = distance(lab, optimum)
    assert found["robust", 0.2] < 1e-8
    assert found["sigmoid", 0.2] > found["sigmoid", 0.0] > 0.01
    stated(SECTION, "a fifth of the labels wrong: robust, DPO, conservative DPO", *found.values())


def test_ipo_ends_where_its_own_theory_says(lab):
    """pi_ref exp(p(y beats a random completion) / beta) / Z, the least squares of all pairs: not the reward's."""
    assert minimised(lab, expected_loss(lab, dpo.Objective(kind="ipo", beta=BETA))) < 1e-6
    beats = torch.sigmoid(lab.score[:, None] - lab.score[None]).mean(1)
    assert distance(lab, tilted(lab, beats / BETA)) < 1e-9
    stated(SECTION, "IPO", distance(lab, tilted(lab, lab.score / BETA)))


def test_kto_has_no_such_end(lab):
    """Answers judged one by one, good with chance sigmoid(r - 1): what is good more often than not takes all."""
    ref, written, good = lab.logp(Tabular(2, seed=3)).detach().tolist(), examples(lab), torch.sigmoid(lab.score - 1.0)
    optimum, search = tilted(lab, lab.score / BETA), torch.optim.Adam(lab.parameters, lr=0.1)
    objective, found, frozen = dpo.Objective(kind="kto", beta=BETA), [], Tabular(2, seed=3)
    for step in range(240):
        z = max(0.0, float(lab.divergence(frozen).detach()))
        divergence, parts = partial(float, z), []
        for level in lab.score.unique():
            for label in (True, False):
                at_level = [i for i in range(13) if lab.score[i] == level]
                rows = [dpo.Single(written[i], label, written[i], ref[i], ref[i]) for i in at_level]
                weight = float(good[at_level[0]]) if label else 1.0 - float(good[at_level[0]])
                parts.append(
                    dpo.kto_loss(
                        lab.policy, rows, weight / 13, divergence=divergence, objective=objective, pad_id=at.END
                    ).loss
                )
        search.zero_grad()
        torch.stack(parts).sum().backward()
        search.step()
        if step in (59, 239):
            found.append(distance(lab, optimum))
    stated(SECTION, "KTO, after 60 and 240 steps", *found)
    mass = lab.logp().detach().exp()
    shares = [float(x[good < 0.5].sum()) for x in (mass, optimum.exp())]
    stated(SECTION, "KTO's share of answers bad more often than not, the optimum's", *shares)
