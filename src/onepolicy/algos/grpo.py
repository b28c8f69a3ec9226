"""Group relative policy optimisation and, by its choices, its kin.

The advantage of a completion is its score against its group's, broadcast to its tokens; there is no critic:

    A_i = (r_i - mean(r)) / std(r)
    J = sum_i,t w_it [ min(rho_it A_i, clip(rho_it, 1 - low, 1 + high) A_i) - beta k3_it ]

where the choice of centre, scale, ratio level, surrogate and weights w makes GRPO, Dr. GRPO, DAPO, GSPO, CISPO or RLOO
(core.conventions). Source: Shao et al. 2024 (DeepSeekMath), section 4.1; DeepSeek-AI 2025 (R1), section 2.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, final

import torch
from torch import Tensor

from onepolicy.acting.episodes import judged
from onepolicy.batch import PolicyBatch
from onepolicy.core.advantages import Center, Scale, group_advantage, whiten
from onepolicy.core.kl import KlEstimator, k1
from onepolicy.core.returns import discounted_returns
from onepolicy.data.packing import minibatches, token_batch
from onepolicy.errors import ConfigError
from onepolicy.run.seeding import derive_seed
from onepolicy.types import Episode, Metrics, Prompts, Task


@dataclass(frozen=True)
class Credit:
    """How scores become advantages.

    group_size: completions per prompt, at least 2 unless center is "none". center, scale, eps: see
    core.advantages.group_advantage. zero_variance: "drop" leaves groups whose scores are all equal out of the step
    (their advantage is 0), "keep" lets them count in the mean. truncated: "mask" takes cut-off completions out of the
    loss, not out of the baseline. kl_coef: of the KL to the reference as a cost of each token (`charge_kl`); 0 where
    there is none, or where it stands in the loss. kl: its estimator there. whiten: advantages to mean 0 and deviation 1
    over the rollout's tokens, the KL's cost included (REINFORCE++). resample: with "drop", rollouts at most until there
    are as many groups with variance as were asked for (DAPO's dynamic sampling); 1 takes what there is. overlong:
    (limit, cache) of DAPO's soft punishment, tokens; None for none.
    """

    group_size: int
    center: Center = "mean"
    scale: Scale = "std"
    eps: float = 1e-6
    zero_variance: Literal["keep", "drop"] = "keep"
    truncated: Literal["keep", "mask"] = "keep"
    kl_coef: float = 0.0
    kl: KlEstimator = k1
    whiten: bool = False
    resample: int = 1
    overlong: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.resample < 1 or (self.resample > 1 and self.zero_variance == "keep"):
            raise ConfigError(
                f"resample is {self.resample} with zero_variance {self.zero_variance!r}; groups are drawn again in "
                'place of those that are dropped: set zero_variance="drop", or resample to 1.'
            )
        if self.overlong is not None and not 0 < self.overlong[1] <= self.overlong[0]:
            raise ConfigError(
                f"the overlong cache is {self.overlong[1]} of {self.overlong[0]} tokens; it is the last part of them."
            )
        if self.group_size < 2 and self.center != "none":
            raise ConfigError(
                f"group_size is {self.group_size}; GRPO's baseline needs at least 2 completions per prompt. "
                'Set group_size >= 2, or center="none".'
            )


@final
class MovingBaseline:
    """A running mean of scores, subtracted from those of the next rollout: the baseline of single samples.

    decay: what is kept of the mean at each rollout. value: the mean so far, None before the first rollout, whose own
    mean is taken.
    """

    def __init__(self, decay: float = 0.9) -> None:
        if not 0.0 <= decay < 1.0:
            raise ConfigError(f"decay is {decay}; it is a share that is kept, in [0, 1).")
        self.decay = decay
        self.value: float | None = None

    def subtract(self, episodes: Sequence[Episode]) -> list[Episode]:
        """The episodes with scores less the baseline, which then takes note of the scores."""
        judged = [e.score.value for e in episodes if e.score.value is not None]
        if not judged:
            return list(episodes)
        mean = sum(judged) / len(judged)
        base = mean if self.value is None else self.value
        self.value = self.decay * base + (1.0 - self.decay) * mean
        return [
            e if e.score.value is None else replace(e, score=replace(e.score, value=e.score.value - base))
            for e in episodes
        ]

    def state_dict(self) -> dict[str, float | None]:
        """The mean so far."""
        return {"value": self.value}

    def load_state_dict(self, state: Mapping[str, float | None]) -> None:
        """The inverse of state_dict."""
        self.value = state["value"]


def advantages(episodes: Sequence[Episode], credit: Credit) -> Tensor:
    """Advantage of each episode, [P * G], in the episodes' order; 0 where a score could not be judged."""
    scores = torch.tensor([float("nan") if e.score.value is None else float(e.score.value) for e in episodes])
    grouped = scores.view(-1, credit.group_size)
    return group_advantage(grouped, center=credit.center, scale=credit.scale, eps=credit.eps).reshape(-1)


def assign(episodes: Sequence[Episode], credit: Credit, pad_id: int) -> PolicyBatch | None:
    """The batch to learn from, or None when no group has anything to teach.

    episodes: grouped, group_size of each prompt in a row. Episodes that could not be judged are left out.
    Raises: RewardError when not one of them could be judged: nothing could ever be learned.
    """
    judged(episodes)
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


def charge_kl(batch: PolicyBatch, kl_coef: float, estimator: KlEstimator = k1) -> PolicyBatch:
    """The batch with the KL to the reference as a cost of each token: A_t - kl_coef sum_{t' >= t} k1_t'.

    batch: with logp_ref; the estimate is taken of logp_behaviour against it, at counted tokens. The cost of a token is
    charged to it and to those before it, as a reward without discount is; the group's baseline does not see it.
    Source: OpenRLHF, openrlhf/trainer/ppo_utils/experience_maker.py (group_norm with its KL in the reward).
    """
    assert batch.logp_ref is not None
    cost = torch.where(batch.mask, estimator(batch.logp_behaviour, batch.logp_ref), 0.0)
    to_go = discounted_returns(cost, torch.ones_like(cost), 0.0)
    return replace(batch, advantage=torch.where(batch.mask, batch.advantage - kl_coef * to_go, 0.0))


def shaped(episodes: Sequence[Episode], limit: int, cache: int) -> list[Episode]:
    """Episodes whose scores lose up to 1 over the last `cache` tokens before `limit`; part `overlong` says how much.

    0 up to limit - cache tokens of the policy, then (limit - cache - tokens) / cache, -1 from the limit on.
    Source: Yu et al. 2025 (DAPO, arXiv 2503.14476), equation 13.
    """
    found = []
    for e in episodes:
        loss = min(0.0, max(-1.0, (limit - cache - sum(e.is_action)) / cache))
        value = None if e.score.value is None else e.score.value + loss
        found.append(replace(e, score=replace(e.score, value=value, parts={**e.score.parts, "overlong": loss})))
    return found


def with_variance(episodes: Sequence[Episode], group_size: int) -> list[Episode]:
    """The episodes of groups whose judged scores are not all equal."""
    groups = [episodes[i : i + group_size] for i in range(0, len(episodes), group_size)]
    return [e for g in groups if len({x.score.value for x in g if x.score.value is not None}) > 1 for e in g]


def sampled(
    prompts: Prompts, act: Callable[[Sequence[Task], int], tuple[list[Episode], Metrics]], step: int, credit: Credit
) -> tuple[list[Episode], Metrics]:
    """A rollout, drawn on until enough groups have variance or credit.resample rollouts were drawn; shaped.

    Metrics are means over the rollouts; rollout/rounds is their number. Groups beyond those asked for are left out.
    """

    def draw() -> tuple[list[Episode], Metrics, int]:
        tasks = prompts.next()
        episodes, metrics = act(tasks, step)
        return shaped(episodes, *credit.overlong) if credit.overlong else episodes, metrics, len(tasks)

    episodes, metrics, asked = draw()
    if credit.resample == 1:
        return episodes, metrics
    kept, every, first = with_variance(episodes, credit.group_size), [metrics], episodes
    while len(kept) < asked * credit.group_size and len(every) < credit.resample:
        more, metrics, _ = draw()
        kept += with_variance(more, credit.group_size)
        every.append(metrics)
    known = {name: [m[name] for m in every if name in m] for name in every[0]}
    metrics = {name: sum(values) / len(values) for name, values in known.items()}
    metrics["rollout/rounds"] = float(len(every))
    return kept[: asked * credit.group_size] or first, metrics


def fit(
    learner: Any,
    prompts: Prompts,
    *,
    act: Callable[[Sequence[Task], int], tuple[list[Episode], Metrics]],
    reference: Callable[[PolicyBatch], Tensor] | None,
    publish: Callable[[int], None],
    credit: Credit,
    baseline: MovingBaseline | None = None,
    proximal: Callable[[PolicyBatch], tuple[PolicyBatch, Metrics]] | None = None,
    renew: Callable[[int], None] | None = None,
    probe: Callable[[PolicyBatch], float] | None = None,
    probed: Callable[[int], bool] = lambda step: True,
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
    the reference policy, None without a KL term. publish(step): the weights go to the generator. baseline: subtracted
    from scores, beside or instead of the group's. proximal(batch): the batch with logp_old and its advantages weighed
    for samples of another policy, and metrics; None for samples of this one. renew(step): the reference becomes the
    policy, where it is time. probe(batch): ratio times advantage, measured before and after the updates of the 1-based
    steps for which probed(step). after_step(step, metrics): called with 1-based steps; logs, evaluates, saves; True
    stops.
    """
    for step in range(start, steps):
        if renew is not None:
            renew(step)
        episodes, metrics = sampled(prompts, act, step, credit)
        batch = assign(baseline.subtract(episodes) if baseline else episodes, credit, pad_id)
        if batch is not None:
            if reference is not None:
                batch = replace(batch, logp_ref=reference(batch))
                batch = charge_kl(batch, credit.kl_coef, credit.kl) if credit.kl_coef else batch
            if credit.whiten:
                batch = replace(batch, advantage=whiten(batch.advantage, batch.mask))
            if proximal is not None:
                batch, found = proximal(batch)
                metrics |= found
            looked = probe if probe is not None and probed(step + 1) else None
            if looked is not None:
                metrics["policy/surrogate_before"] = looked(batch)
            updates = [
                learner.step(part)
                for epoch in range(epochs)
                for part in minibatches(batch, parts, derive_seed(seed, "minibatch", step, epoch))
            ]
            metrics |= {name: sum(u[name] for u in updates) / len(updates) for name in updates[0]}
            metrics["rollout/logp_gap"] = updates[0]["learner/logp_gap"]
            if looked is not None:
                metrics["policy/surrogate_after"] = looked(batch)
            publish(step + 1)
        metrics["rollout/trained"] = 0.0 if batch is None else len(batch) / len(episodes)
        if after_step(step + 1, metrics):
            return
