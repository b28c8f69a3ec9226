"""PPO on a language model against a learnt or given reward, as in InstructGPT.

    r_t = -beta k1_t + [t is the last token] score,   A = GAE(r, V; gamma = 1, lambda)
    L = clipped(A) + c_v value loss - gamma_ptx E_pretraining[log pi]

The critic starts from the reward model. The KL coefficient beta is fixed, or steered to a target. Pretraining text is
mixed into every optimizer step so that the policy does not forget it (PPO-ptx).
Source: Ouyang et al. 2022 (InstructGPT, arXiv 2203.02155), equation 2 and appendix C.4; Ziegler et al. 2019 (arXiv
1909.08593), section 2.2; Huang et al. 2024, The N+ implementation details of RLHF with PPO (arXiv 2403.17031).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, final

import torch
from torch import Tensor

from onepolicy.acting.episodes import judged
from onepolicy.batch import PolicyBatch
from onepolicy.core import kl
from onepolicy.core.advantages import whiten
from onepolicy.core.returns import gae
from onepolicy.data.packing import minibatches, token_batch
from onepolicy.errors import ConfigError
from onepolicy.run.seeding import derive_seed
from onepolicy.types import Episode, Metrics, Prompts, Task


@dataclass(frozen=True)
class Credit:
    """How scores become advantages.

    gamma, lam: of GAE over tokens. estimator: of the KL that each token pays. whiten_reward: rewards to unit standard
    deviation, their mean kept (lm-human-preferences). whiten_advantage: advantages to mean 0 and deviation 1 over the
    rollout. no_end_score: what a completion without an end token scores instead, None for what it got. score_clip:
    bound on |score|, reward units, None for none.
    """

    gamma: float = 1.0
    lam: float = 0.95
    estimator: Literal["k1", "k2", "k3"] = "k1"
    whiten_reward: bool = False
    whiten_advantage: bool = True
    no_end_score: float | None = None
    score_clip: float | None = None

    def __post_init__(self) -> None:
        if not (0.0 <= self.gamma <= 1.0 and 0.0 <= self.lam <= 1.0):
            raise ConfigError(f"gamma is {self.gamma} and lam {self.lam}; both are in [0, 1].")
        if self.score_clip is not None and self.score_clip <= 0:
            raise ConfigError(f"score_clip is {self.score_clip}; it bounds |score| and is above 0. None clips nothing.")


@final
class KlCoefficient:
    """beta, fixed or steered so that the KL of a sequence stays near a target.

    value: reward units per nat, now. target: nats per sequence, None for a fixed beta. horizon: see core.kl.adapted.
    """

    def __init__(self, value: float, *, target: float | None = None, horizon: int = 10_000) -> None:
        if value < 0 or (target is not None and (target <= 0 or value == 0)) or horizon < 1:
            raise ConfigError(
                f"kl_coef is {value}, its target {target}, horizon {horizon}; a coefficient is at least 0, and "
                "above it with a target, which is above 0 as the horizon is."
            )
        self.value = value
        self.target = target
        self.horizon = horizon

    def observe(self, divergence: float, samples: int) -> None:
        """Takes note of a rollout of `samples` sequences, `divergence` nats each on average."""
        if self.target is not None:
            self.value = kl.adapted(self.value, divergence, target=self.target, samples=samples, horizon=self.horizon)

    def state_dict(self) -> dict[str, float]:
        """The coefficient now."""
        return {"value": self.value}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """The inverse of state_dict."""
        self.value = float(state["value"])


def assign(
    batch: PolicyBatch, score: Tensor, truncated: Tensor, value: Tensor, coef: float, credit: Credit
) -> tuple[PolicyBatch, Metrics]:
    """The batch with advantages, values and their targets, and what the rollout was worth.

    batch: [B, T] with logp_ref. score [B]: reward units. truncated [B] bool: no end token was written. value [B, T]: of
    the critic before the step, at counted tokens. coef: beta. Tokens that are not the policy's are no time steps: an
    action's successor is the next action of its row.
    """
    assert batch.logp_ref is not None
    mask = batch.mask
    if credit.no_end_score is not None:
        score = torch.where(truncated, torch.full_like(score, credit.no_end_score), score)
    if credit.score_clip is not None:
        score = score.clamp(-credit.score_clip, credit.score_clip)
    cost = torch.where(mask, getattr(kl, credit.estimator)(batch.logp_behaviour, batch.logp_ref), 0.0)
    order = torch.argsort((~mask).to(torch.uint8), dim=-1, stable=True)  # a row's actions first
    there = mask.gather(-1, order)
    last = there & (there.cumsum(-1) == mask.sum(-1, keepdim=True))
    reward = -coef * cost.gather(-1, order) + last * score[:, None]
    if credit.whiten_reward:
        reward = whiten(reward, there, center=False)
    seen = torch.where(there, value.gather(-1, order), 0.0)
    going = (there & ~last).to(seen.dtype)
    following = torch.cat([seen[:, 1:], torch.zeros_like(seen[:, :1])], dim=-1)
    advantage = gae(reward, seen, following, credit.gamma * going, going, credit.lam)
    advantage = torch.zeros_like(advantage).scatter(-1, order, torch.where(there, advantage, 0.0))
    target = torch.where(mask, advantage + value, 0.0)
    per_row = cost.sum(-1)
    spread = target[mask].var(unbiased=False)
    metrics = {
        "rlhf/score": float(score.mean()),
        "rlhf/kl": float(per_row.mean()),
        "rlhf/kl_coef": coef,
        "rlhf/objective": float((score - coef * per_row).mean()),
        "value/explained_variance": float(1.0 - (target - value)[mask].var(unbiased=False) / spread.clamp(min=1e-12)),
    }
    if credit.whiten_advantage:
        advantage = whiten(advantage, mask)
    return replace(batch, advantage=advantage, value_old=torch.where(mask, value, 0.0), value_target=target), metrics


def fit(
    learner: Any,
    prompts: Prompts,
    *,
    act: Callable[[Sequence[Task], int], tuple[list[Episode], Metrics]],
    reference: Callable[[PolicyBatch], Tensor],
    values: Callable[[PolicyBatch], Tensor],
    mix: Callable[[], Sequence[Any]],
    publish: Callable[[int], None],
    coefficient: KlCoefficient,
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

    act(tasks, step): episodes with scores, and their metrics. reference(batch), values(batch): log-probs of the
    reference and values of the critic, [B, T]. mix(): what is mixed into the next optimizer step. publish(step): the
    weights go to the generator. after_step(step, metrics): 1-based; logs, evaluates, saves; True stops.
    """
    for step in range(start, steps):
        episodes, metrics = act(prompts.next(), step)
        kept = judged(episodes)
        batch = token_batch(kept, [0.0] * len(kept), pad_id)
        batch = replace(batch, logp_ref=reference(batch))
        score = torch.tensor([e.score.value for e in kept], dtype=batch.advantage.dtype)
        truncated = torch.tensor([e.truncated for e in kept])
        batch, found = assign(batch, score, truncated, values(batch), coefficient.value, credit)
        updates = [
            learner.step(part, mix())
            for epoch in range(epochs)
            for part in minibatches(batch, parts, derive_seed(seed, "minibatch", step, epoch))
        ]
        metrics |= found | {name: sum(u[name] for u in updates) / len(updates) for name in updates[0]}
        metrics["rollout/logp_gap"] = updates[0]["learner/logp_gap"]
        metrics["rollout/trained"] = len(kept) / len(episodes)
        coefficient.observe(found["rlhf/kl"], len(kept))
        publish(step + 1)
        if after_step(step + 1, metrics):
            return
