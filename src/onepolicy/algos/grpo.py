"""Group relative policy optimisation and, by its choices, its kin.

The advantage of a completion is its score against its group's, broadcast to its tokens; there is no critic:

    A_i = (r_i - mean(r)) / std(r)
    J = sum_i,t w_it [ min(rho_it A_i, clip(rho_it, 1 - low, 1 + high) A_i) - beta k3_it ]

where the choice of centre, scale, ratio level, surrogate and weights w makes GRPO, Dr. GRPO, DAPO, GSPO, CISPO or RLOO
(core.conventions). Source: Shao et al. 2024 (DeepSeekMath), section 4.1; DeepSeek-AI 2025 (R1), section 2.1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from onepolicy.batch import PolicyBatch
from onepolicy.core.advantages import Center, Scale, group_advantage
from onepolicy.core.kl import k1
from onepolicy.core.returns import discounted_returns
from onepolicy.data.packing import minibatches, token_batch
from onepolicy.errors import ConfigError, RewardError
from onepolicy.run.seeding import derive_seed
from onepolicy.types import Episode, Metrics, Task


@dataclass(frozen=True)
class Credit:
    """How scores become advantages.

    group_size: completions per prompt, at least 2 unless center is "none". center, scale, eps: see
    core.advantages.group_advantage. zero_variance: "drop" leaves groups whose scores are all equal out of the step
    (their advantage is 0), "keep" lets them count in the mean. truncated: "mask" takes cut-off completions out of the
    loss, not out of the baseline. kl_coef: of the KL to the reference as a cost of each token (`charge_kl`); 0 where
    there is none, or where it stands in the loss.
    """

    group_size: int
    center: Center = "mean"
    scale: Scale = "std"
    eps: float = 1e-6
    zero_variance: Literal["keep", "drop"] = "keep"
    truncated: Literal["keep", "mask"] = "keep"
    kl_coef: float = 0.0

    def __post_init__(self) -> None:
        if self.group_size < 2 and self.center != "none":
            raise ConfigError(
                f"group_size is {self.group_size}; GRPO's baseline needs at least 2 completions per prompt. "
                'Set group_size >= 2, or center="none".'
            )


class Prompts(Protocol):
    """A resumable source of batches of tasks."""

    def next(self) -> Sequence[Task]: ...


def advantages(episodes: Sequence[Episode], credit: Credit) -> Tensor:
    """Advantage of each episode, [P * G], in the episodes' order; 0 where a score could not be judged."""
    scores = torch.tensor([float("nan") if e.score.value is None else e.score.value for e in episodes])
    grouped = scores.view(-1, credit.group_size)
    return group_advantage(grouped, center=credit.center, scale=credit.scale, eps=credit.eps).reshape(-1)


def assign(episodes: Sequence[Episode], credit: Credit, pad_id: int) -> PolicyBatch | None:
    """The batch to learn from, or None when no group has anything to teach.

    episodes: grouped, group_size of each prompt in a row. Episodes that could not be judged are left out.
    Raises: RewardError when not one of them could be judged: nothing could ever be learned.
    """
    if all(episode.score.value is None for episode in episodes):
        cause, count = Counter(episode.score.error or "skipped" for episode in episodes).most_common(1)[0]
        raise RewardError(
            f"not one of the {len(episodes)} completions of this step could be judged ({count} of them: {cause}). "
            "Mend the reward function or verifier; a number is needed for some completions at least."
        )
    advantage = advantages(episodes, credit)
    informative = advantage.view(-1, credit.group_size).ne(0).any(-1).repeat_interleave(credit.group_size)
    chosen = [
        i
        for i, episode in enumerate(episodes)
        if episode.score.value is not None and (credit.zero_variance == "keep" or bool(informative[i]))
    ]
    if not chosen or not bool(informative.any()):
        return None
    kept = [episodes[i] for i in chosen]
    if credit.truncated == "mask" and all(e.truncated for e in kept):
        return None
    return token_batch(kept, advantage[chosen].numpy(), pad_id, truncated=credit.truncated)


def charge_kl(batch: PolicyBatch, kl_coef: float) -> PolicyBatch:
    """The batch with the KL to the reference as a cost of each token: A_t - kl_coef sum_{t' >= t} k1_t'.

    batch: with logp_ref; k1 is taken of logp_behaviour against it, at counted tokens. The cost of a token is charged to
    it and to those before it, as a reward without discount is; the group's baseline does not see it.
    Source: OpenRLHF, openrlhf/trainer/ppo_utils/experience_maker.py (group_norm with its KL in the reward).
    """
    assert batch.logp_ref is not None
    cost = torch.where(batch.mask, k1(batch.logp_behaviour, batch.logp_ref), 0.0)
    to_go = discounted_returns(cost, torch.ones_like(cost), 0.0)
    return replace(batch, advantage=torch.where(batch.mask, batch.advantage - kl_coef * to_go, 0.0))


def fit(
    learner: Any,
    prompts: Prompts,
    *,
    act: Callable[[Sequence[Task], int], tuple[list[Episode], Metrics]],
    reference: Callable[[PolicyBatch], Tensor] | None,
    publish: Callable[[int], None],
    credit: Credit,
    epochs: int,
    parts: int,
    pad_id: int,
    seed: int,
    start: int,
    steps: int,
    after_step: Callable[[int, Metrics], bool],
) -> None:
    """Train from step `start` to `steps`; one step is one rollout and epochs * parts optimizer steps.

    act(tasks, step): episodes, group_size of each task, and their metrics. reference(batch): log-probs [B, T] under
    the reference policy, None without a KL term. publish(step): the weights go to the generator. after_step(step,
    metrics): called with 1-based steps; logs, evaluates, saves; True stops.
    """
    for step in range(start, steps):
        episodes, metrics = act(prompts.next(), step)
        batch = assign(episodes, credit, pad_id)
        if batch is not None:
            if reference is not None:
                batch = replace(batch, logp_ref=reference(batch))
                batch = charge_kl(batch, credit.kl_coef) if credit.kl_coef else batch
            updates = [
                learner.step(part)
                for epoch in range(epochs)
                for part in minibatches(batch, parts, derive_seed(seed, "minibatch", step, epoch))
            ]
            metrics |= {name: sum(u[name] for u in updates) / len(updates) for name in updates[0]}
            metrics["rollout/logp_gap"] = updates[0]["learner/logp_gap"]
            publish(step + 1)
        metrics["rollout/trained"] = 0.0 if batch is None else len(batch) / len(episodes)
        if after_step(step + 1, metrics):
            return
