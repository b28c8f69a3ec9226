"""Supervised fine-tuning: the log-likelihood of demonstrations.

The negative log-likelihood is REINFORCE with advantage 1 on the demonstrated tokens, so SFT needs no trainer of its
own: `credit` fills the advantage with ones and the learner does the rest.
Source: Ouyang et al. 2022 (InstructGPT), section 3.5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from onepolicy.batch import PolicyBatch
from onepolicy.core.policy import PolicyLoss, reinforce
from onepolicy.data.packing import token_batch
from onepolicy.learning.learner import evaluate_in_parts
from onepolicy.types import Episode, Metrics, Score

LOSS = PolicyLoss(surrogate=reinforce)
"""-log pi of each assistant token; mean over tokens by the learner's reduction."""


class Demonstrations(Protocol):
    """A resumable source of batches of (tokens, is_action) examples."""

    def next(self) -> list[tuple[list[int], list[bool]]]: ...


def credit(examples: Sequence[tuple[list[int], list[bool]]], pad_id: int) -> PolicyBatch:
    """The batch whose loss is the mean negative log-likelihood of the assistant tokens.

    examples: (tokens, is_action) pairs, is_action True on tokens the assistant wrote.
    """
    episodes = [
        Episode(
            task_id=str(row),
            group=row,
            tokens=tuple(tokens),
            is_action=tuple(is_action),
            logp=(0.0,) * len(tokens),
            score=Score(1.0),
        )
        for row, (tokens, is_action) in enumerate(examples)
    ]
    return token_batch(episodes, np.ones(len(episodes)), pad_id)


def nats(
    policy: Any, examples: Sequence[tuple[list[int], list[bool]]], *, pad_id: int, budget: int | None
) -> tuple[float, int]:
    """The examples' negative log-likelihood, summed over the assistant tokens in float64, and how many those are.

    budget: padded tokens at once, None for all.
    """
    parameter = next(policy.parameters())
    batch = credit(examples, pad_id).map(lambda x: x.to(parameter.device))
    found = evaluate_in_parts(policy, batch, budget)
    return -float(found.logp[batch.mask].double().sum()), int(batch.mask.sum())


def fit(
    learner: Any,
    data: Demonstrations,
    *,
    pad_id: int,
    start: int,
    steps: int,
    after_step: Callable[[int, Metrics], bool],
    area: str = "sft",
) -> None:
    """Train from step `start` to `steps`.

    after_step(step, metrics): called with 1-based steps after each; logs, evaluates and saves; True stops. area: of the
    metrics `nll` and `tokens`; pretraining's is `pretrain`.
    """
    for step in range(start, steps):
        batch = credit(data.next(), pad_id)
        metrics = learner.step(batch)
        for name in ("policy/kl_old", "learner/logp_gap"):  # nobody sampled the demonstrations: there is no old policy
            metrics.pop(name, None)
        metrics[f"{area}/nll"] = metrics["policy/loss"]
        metrics[f"{area}/tokens"] = float(batch.mask.sum())
        if after_step(step + 1, metrics):
            return
