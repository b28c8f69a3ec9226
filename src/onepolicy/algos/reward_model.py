"""Reward models from rankings: Bradley and Terry's likelihood, a prompt's pairs all at once (K-wise) or one by one.

    loss = -1/C(K,2) sum over pairs (w, l) of a ranking  log sigmoid(r(x, y_w) - r(x, y_l) - margin)

K-wise, the K answers to a prompt go through the model once and make all their pairs; taken apart into shuffled pairs,
each answer comes K - 1 times, and the model overfits. The score is read at an answer's last token.
Source: Ouyang et al. 2022 (InstructGPT, arXiv 2203.02155), section 3.5 and equation 1; margin: Touvron et al. 2023
(Llama 2, arXiv 2307.09288), equation 2; centering: Eisenstein et al. 2023 (arXiv 2312.09244).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Protocol

import torch

from onepolicy.batch import LossOutput
from onepolicy.core.preference import all_pairs
from onepolicy.data.preferences import RankedExample, grid, token_inputs
from onepolicy.learning.rows import parts
from onepolicy.types import Metrics


class Rankings(Protocol):
    """A resumable source of batches of rankings."""

    def next(self) -> Sequence[RankedExample]: ...


@dataclass(frozen=True)
class PairResult:
    """What a reward model says of one pair.

    ranking: of which ranking. lead: score of the better answer less that of the worse, reward units. gap: difference of
    their ranks, at least 0.
    """

    ranking: int
    lead: float
    gap: float


def loss(
    scorer: Any, rows: Sequence[RankedExample], weight: float, *, pad_id: int, center_coef: float = 0.0
) -> LossOutput:
    """weight * (sum over rankings of the loss above), and metrics as sums with that weight.

    center_coef: on each ranking's mean squared score, which keeps scores near 0; 0 for none.
    """
    examples, *places = grid(rows)
    device = _device(scorer)
    place, rank, present = (x.to(device) for x in places)
    score = scorer(token_inputs(examples, pad_id).to(device))[place]
    margin = torch.tensor([row.margin for row in rows], device=score.device)
    comparison = all_pairs(score, rank, present, margin)
    count = present.sum(-1)
    square = (score.square() * present).sum(-1) / count
    total = weight * (comparison + center_coef * square).sum()
    with torch.no_grad():
        wins = (rank.unsqueeze(2) < rank.unsqueeze(1)) & present.unsqueeze(2) & present.unsqueeze(1)
        lead = score.unsqueeze(2) - score.unsqueeze(1)
        pairs = wins.sum((1, 2)).clamp(min=1)
        metrics = {
            "reward_model/loss": weight * comparison.sum(),
            "reward_model/accuracy": weight * (((lead > 0) & wins).sum((1, 2)) / pairs).sum(),
            "reward_model/lead": weight * ((lead * wins).sum((1, 2)) / pairs).sum(),
            "reward_model/score": weight * ((score * present).sum(-1) / count).sum(),
        }
    return LossOutput(total, metrics)


def tokens_of(row: RankedExample) -> int:
    """Padded tokens of a ranking."""
    return len(row.examples) * max(len(tokens) for tokens, _ in row.examples)


def one_by_one(rows: Sequence[RankedExample]) -> list[RankedExample]:
    """Every pair of the rankings as a ranking of two: what the K-wise loss is compared with."""
    return [
        RankedExample((row.examples[i], row.examples[j]), (row.rank[i], row.rank[j]), row.margin)
        for row in rows
        for i, j in combinations(range(len(row.rank)), 2)
        if row.rank[i] != row.rank[j]
    ]


@torch.no_grad()
def scores_of(
    scorer: Any, examples: Sequence[tuple[list[int], list[bool]]], *, pad_id: int, budget: int | None
) -> list[float]:
    """The score of every text, in order, at most `budget` padded tokens at a time."""
    found: dict[int, float] = {}
    for part in parts(list(enumerate(examples)), lambda item: len(item[1][0]), budget):
        inputs = token_inputs([example for _, example in part], pad_id).to(_device(scorer))
        found |= dict(zip([place for place, _ in part], scorer(inputs).tolist(), strict=True))
    return [found[i] for i in range(len(examples))]


def compare(scorer: Any, rows: Sequence[RankedExample], *, pad_id: int, budget: int | None) -> Iterator[PairResult]:
    """What the reward model says of every pair of the rankings that is not a tie."""
    examples = [example for row in rows for example in row.examples]
    score = iter(scores_of(scorer, examples, pad_id=pad_id, budget=budget))
    for number, row in enumerate(rows):
        found = [next(score) for _ in row.examples]
        for i, j in combinations(range(len(row.rank)), 2):
            if row.rank[i] != row.rank[j]:
                sign = 1.0 if row.rank[i] < row.rank[j] else -1.0
                yield PairResult(number, sign * (found[i] - found[j]), abs(row.rank[i] - row.rank[j]))


def fit(learner: Any, data: Rankings, *, start: int, steps: int, after_step: Callable[[int, Metrics], bool]) -> None:
    """Train from step `start` to `steps`.

    after_step(step, metrics): called with 1-based steps after each; logs, evaluates and saves; True stops.
    """
    for step in range(start, steps):
        if after_step(step + 1, learner.step(data.next())):
            return


def _device(scorer: Any) -> torch.device:
    return scorer.gain.device  # type: ignore[no-any-return]
