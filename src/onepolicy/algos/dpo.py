"""Direct preference optimisation and its kin: preferences straight into the policy, without a reward model.

    h = log pi(c)/pi_ref(c) - log pi(r)/pi_ref(r)        L = -log sigmoid(beta h)          (DPO)

The kin differ in the function of h (IPO, hinge, robust, conservative), in what a log-probability is (the mean per
token, length-normalised), in having no reference (SimPO, ORPO), or in judging answers one by one (KTO). One learner,
one loop; an objective is a choice of function. Online, the pairs are sampled and judged anew each round.
Source: Rafailov et al. 2023 (arXiv 2305.18290), equation 7; of the others, core/preference.py names each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor

from onepolicy.batch import LossOutput
from onepolicy.core import preference
from onepolicy.data.demonstrations import Example
from onepolicy.data.preferences import RankedExample, token_inputs
from onepolicy.errors import ConfigError, nearest
from onepolicy.learning.rows import parts
from onepolicy.types import Metrics

Kind = Literal["sigmoid", "ipo", "hinge", "robust", "simpo", "orpo", "kto"]
KINDS: tuple[Kind, ...] = get_args(Kind)
WITHOUT_REFERENCE = ("simpo", "orpo")


@dataclass(frozen=True)
class Objective:
    """Which loss, and its constants."""

    kind: Kind = "sigmoid"
    """sigmoid is DPO, with label_smoothing its conservative form; ipo, hinge, robust, simpo, orpo, kto."""
    beta: float = 0.1
    """Inverse of how far the policy may leave the reference; for ORPO the coefficient of its penalty."""
    label_smoothing: float = 0.0
    """Share of preferences taken to be the wrong way round (sigmoid, robust)."""
    margin: float = 0.0
    """SimPO's gamma, reward units."""
    per_token: bool = False
    """Log-probabilities are means over an answer's tokens: length-normalised DPO, and IPO as its authors run it."""
    nll_coef: float = 0.0
    """Coefficient of the chosen answer's negative log-likelihood per token, added (RPO)."""
    good: float = 1.0
    """KTO's weight of good answers."""
    bad: float = 1.0
    """KTO's weight of bad answers."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"unknown objective {self.kind!r}. {nearest(self.kind, KINDS)}")
        if not self.beta > 0:
            raise ConfigError(f"beta is {self.beta}; it must be positive: 0 would ignore the preferences.")
        if self.label_smoothing and self.kind not in ("sigmoid", "robust"):
            raise ConfigError(f"label_smoothing is {self.label_smoothing}; {self.kind!r} has none. Set it to 0.")
        if self.margin and self.kind != "simpo":
            raise ConfigError(f"margin is {self.margin}; only SimPO has one. Set it to 0, or kind to simpo.")
        if self.nll_coef < 0 or (self.nll_coef and self.kind in ("orpo", "kto")):
            raise ConfigError(
                f"nll_coef is {self.nll_coef} with {self.kind!r}; ORPO has its own, KTO none. Set it to 0."
            )

    @property
    def needs_reference(self) -> bool:
        """Whether the loss reads the reference's log-probabilities."""
        return self.kind not in WITHOUT_REFERENCE


@dataclass(frozen=True)
class Pair:
    """Two answers to a prompt as tokens, the better first; of each the reference's log-probability, nats."""

    chosen: Example
    rejected: Example
    ref_chosen: float = 0.0
    ref_rejected: float = 0.0


@dataclass(frozen=True)
class Single:
    """An answer judged alone, for KTO; `other` is its prompt with somebody else's answer, which measures the KL."""

    answer: Example
    good: bool
    other: Example
    ref_answer: float = 0.0
    ref_other: float = 0.0


class Rows(Protocol):
    """A resumable source of batches of pairs or singles."""

    def next(self) -> Sequence[Any]: ...


def pairs_of(rows: Sequence[RankedExample]) -> list[Pair]:
    """Every pair of the rankings that is not a tie, the better answer first."""
    found = []
    for row in rows:
        for i, j in combinations(range(len(row.rank)), 2):
            if row.rank[i] != row.rank[j]:
                better, worse = (i, j) if row.rank[i] < row.rank[j] else (j, i)
                found.append(Pair(row.examples[better], row.examples[worse]))
    return found


def singles_of(examples: Sequence[tuple[Example, bool]]) -> list[Single]:
    """Judged answers, each with the next one's answer behind its own prompt.

    Raises: ConfigError for fewer than two: the KL is measured on answers to other prompts.
    """
    if len(examples) < 2:
        raise ConfigError(f"KTO got {len(examples)} judged answer; it needs at least 2, to measure the KL on others'.")
    return [
        Single(example, good, _swapped(example, examples[(i + 1) % len(examples)][0]))
        for i, (example, good) in enumerate(examples)
    ]


def singles_of_pairs(pairs: Sequence[Pair]) -> list[Single]:
    """The answers of pairs called good and bad, for KTO."""
    return singles_of([(e, good) for pair in pairs for e, good in ((pair.chosen, True), (pair.rejected, False))])


def logp_of(policy: Any, examples: Sequence[Example], pad_id: int) -> tuple[Tensor, Tensor]:
    """(log-probability of each answer, nats, [B]; its tokens, [B])."""
    inputs = token_inputs(examples, pad_id).to(next(policy.parameters()).device)
    return policy.evaluate(inputs, inputs.tokens).logp.sum(-1), inputs.is_action.sum(-1)


@torch.no_grad()
def logp_in_parts(policy: Any, examples: Sequence[Example], *, pad_id: int, budget: int | None) -> list[float]:
    """The log-probability of each answer, nats, in order, at most `budget` padded tokens at a time."""
    found: dict[int, float] = {}
    for part in parts(list(enumerate(examples)), lambda item: len(item[1][0]), budget):
        logp, _ = logp_of(policy, [example for _, example in part], pad_id)
        found |= dict(zip([place for place, _ in part], logp.tolist(), strict=True))
    return [found[i] for i in range(len(examples))]


def referenced(rows: Sequence[Any], logp: Callable[[Sequence[Example]], list[float]]) -> list[Any]:
    """Pairs or singles with the reference's log-probabilities, by one call for all."""
    if not rows:
        return []
    names = [("answer", "other") if isinstance(row, Single) else ("chosen", "rejected") for row in rows]
    found = iter(logp([getattr(row, name) for row, both in zip(rows, names, strict=True) for name in both]))
    return [
        replace(row, **{f"ref_{name}": next(found) for name in both}) for row, both in zip(rows, names, strict=True)
    ]


def loss(policy: Any, rows: Sequence[Pair], weight: float, *, objective: Objective, pad_id: int) -> LossOutput:
    """weight * (sum over pairs of the objective), and metrics as sums with that weight."""
    logp, length = logp_of(policy, [e for row in rows for e in (row.chosen, row.rejected)], pad_id)
    ref = torch.tensor([x for row in rows for x in (row.ref_chosen, row.ref_rejected)], device=logp.device)
    mean = logp / length.clamp(min=1)
    chosen, rejected = mean[0::2], mean[1::2]
    if objective.kind == "simpo":
        each = preference.simpo(chosen, rejected, objective.beta, objective.margin)
    elif objective.kind == "orpo":
        each = -chosen + objective.beta * preference.odds_ratio(chosen, rejected)
    else:
        over = length.clamp(min=1) if objective.per_token else torch.ones_like(length)
        c, r, rc, rr = (x / over[i::2] for x, i in ((logp[0::2], 0), (logp[1::2], 1), (ref[0::2], 0), (ref[1::2], 1)))
        kind: Any = objective.kind
        each = preference.dpo(c, r, rc, rr, objective.beta, kind, objective.label_smoothing)
    if objective.nll_coef:
        each = each - objective.nll_coef * chosen
    with torch.no_grad():
        gain = objective.beta * (mean if not objective.needs_reference else logp - ref)
        lead = gain[0::2] - gain[1::2]
        metrics = {
            "dpo/loss": each,
            "dpo/accuracy": (lead > 0).to(each.dtype),
            "dpo/margin": lead,
            "dpo/chosen_logp": logp[0::2],
            "dpo/rejected_logp": logp[1::2],
        }
        if objective.needs_reference:
            metrics |= {"dpo/chosen_drift": (logp - ref)[0::2], "dpo/rejected_drift": (logp - ref)[1::2]}
        sums = {name: weight * values.sum() for name, values in metrics.items()}
    return LossOutput(weight * each.sum(), sums)


def kto_loss(
    policy: Any,
    rows: Sequence[Single],
    weight: float,
    *,
    divergence: Callable[[], float],
    objective: Objective,
    pad_id: int,
) -> LossOutput:
    """weight * (sum over answers of KTO's loss), and metrics as sums with that weight.

    divergence(): the policy's KL to the reference at the step's beginning, `measured`.
    """
    logp, _ = logp_of(policy, [row.answer for row in rows], pad_id)
    ref = torch.tensor([row.ref_answer for row in rows], device=logp.device)
    good = torch.tensor([row.good for row in rows], device=logp.device)
    z = divergence()
    each = preference.kto(logp, ref, good, z, objective.beta, objective.good, objective.bad)
    with torch.no_grad():
        drift = logp - ref
        right = ((drift - z > 0) == good).to(each.dtype)
        metrics = {"dpo/loss": each, "dpo/accuracy": right, "dpo/kl": torch.full_like(each, z)}
        metrics |= {"dpo/chosen_drift": drift * good, "dpo/rejected_drift": drift * ~good}
        sums = {name: weight * values.sum() for name, values in metrics.items()}
    return LossOutput(weight * each.sum(), sums)


def measured(policy: Any, rows: Sequence[Single], *, pad_id: int, budget: int | None) -> float:
    """KTO's z: the mean log-ratio to the reference of answers to other prompts, at least 0, nats.

    Source: Ethayarajh et al. 2024 (KTO), section 4.2.
    """
    found = logp_in_parts(policy, [row.other for row in rows], pad_id=pad_id, budget=budget)
    return max(0.0, sum(logp - row.ref_other for logp, row in zip(found, rows, strict=True)) / len(rows))


def tokens_of(row: Pair | Single) -> int:
    """Padded tokens of a row."""
    if isinstance(row, Single):
        return len(row.answer[0])
    return 2 * max(len(row.chosen[0]), len(row.rejected[0]))


def fit(
    learner: Any,
    data: Rows,
    *,
    start: int,
    steps: int,
    before_step: Callable[[Sequence[Any]], None],
    after_step: Callable[[int, Metrics], bool],
) -> None:
    """Train from step `start` to `steps`.

    before_step(rows): what the loss needs to know of the whole step (KTO's KL). after_step(step, metrics): called with
    1-based steps after each; logs, evaluates and saves; True stops.
    """
    for step in range(start, steps):
        rows = data.next()
        before_step(rows)
        if after_step(step + 1, learner.step(rows)):
            return


def _swapped(mine: Example, theirs: Example) -> Example:
    """My prompt with their answer: what I did not write and what they wrote last."""
    (my_tokens, my_acts), (their_tokens, their_acts) = mine, theirs
    prompt, begin = my_acts.index(True), their_acts.index(True)
    answer = their_tokens[begin:]
    return (my_tokens[:prompt] + answer, [False] * prompt + their_acts[begin:])
