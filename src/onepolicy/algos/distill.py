"""On-policy distillation: the student writes, the teacher says how probable each of its tokens is.

What is minimised is the reverse KL at every token of the student's own texts,

    J = E_{y ~ pi} mean_t KL(pi(. | y_<t) || pi_T(. | y_<t)),

the texts taken as given, so that a token answers for itself alone. From the token that was drawn, its gradient is that
of REINFORCE with advantage A_t = -(log pi(y_t) - log pi_T(y_t)) and mean over tokens (LOSS); from the whole
vocabulary it is that of the divergence itself (nn.divergence), without the noise of the draw.
Source: Agarwal et al. 2024 (GKD, arXiv 2306.13649), with beta 1 and the student's texts alone; Thinking Machines Lab
2025, On-Policy Distillation, for the estimate from the token drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from onepolicy.batch import PolicyBatch
from onepolicy.core.policy import PolicyLoss, reinforce
from onepolicy.data.packing import minibatches, token_batch
from onepolicy.run.seeding import derive_seed
from onepolicy.types import Episode, Metrics, Prompts, Task

LOSS = PolicyLoss(reinforce)
"""-A log pi, per token; the learner's reduction is token_mean."""


def credit(episodes: Sequence[Episode], teacher: Callable[[PolicyBatch], Tensor], pad_id: int) -> PolicyBatch:
    """The student's texts with advantage -(log pi - log pi_T) at each of its tokens, nats.

    teacher(batch): log pi_T of the batch's tokens [B, T]. log pi is that of the distribution sampled from.
    """
    batch = token_batch(episodes, [0.0] * len(episodes), pad_id)
    scored = teacher(batch)
    return replace(batch, advantage=torch.where(batch.mask, scored - batch.logp_behaviour, 0.0))


def divergence(batch: PolicyBatch) -> Metrics:
    """The reverse KL's estimate of a credited batch: a token's mean, and a text's sum, nats."""
    cost = -batch.advantage.sum()
    return {
        "distill/kl": float(cost / batch.mask.sum().clamp(min=1)),
        "distill/kl_sequence": float(cost / len(batch)),
    }


def fit(
    learner: Any,
    prompts: Prompts,
    *,
    act: Callable[[Sequence[Task], int], tuple[list[Episode], Metrics]],
    teacher: Callable[[PolicyBatch], Tensor],
    publish: Callable[[int], None],
    exact: bool,
    parts: int,
    pad_id: int,
    seed: int,
    start: int,
    steps: int,
    after_step: Callable[[int, Metrics], bool],
) -> None:
    """Train from step `start` to `steps`; one step is one rollout and `parts` optimizer steps.

    act(tasks, step): the student's texts and their metrics. teacher(batch): see `credit`. exact: the learner's policy
    is a Divergence, whose loss is the KL over the vocabulary; advantages are then 1. publish(step): the weights go to
    the generator. after_step(step, metrics): called with 1-based steps; logs, evaluates, saves; True stops.
    """
    for step in range(start, steps):
        episodes, metrics = act(prompts.next(), step)
        batch = credit(episodes, teacher, pad_id)
        metrics |= divergence(batch)
        if exact:
            batch = replace(batch, advantage=batch.mask.to(batch.advantage.dtype))
        updates = [learner.step(part) for part in minibatches(batch, parts, derive_seed(seed, "minibatch", step, 0))]
        metrics |= {name: sum(u[name] for u in updates) / len(updates) for name in updates[0]}
        if exact:  # the divergence is no log-probability: there is no sampler's to hold it against
            metrics["distill/kl_exact"] = metrics["policy/loss"]
            metrics = {k: v for k, v in metrics.items() if k not in ("learner/logp_gap", "policy/kl_old")}
        else:
            metrics["rollout/logp_gap"] = updates[0]["learner/logp_gap"]
        publish(step + 1)
        if after_step(step + 1, metrics):
            return
