"""Proximal policy optimisation on control.

    A_t = sum_l (gamma lam)^l delta_{t+l},   delta_t = r_t + gamma V(s_{t+1}) - V(s_t)
    J = E[ min(rho_t A_t, clip(rho_t, 1 - clip, 1 + clip) A_t) ] - value_coef E[(V - R)^2 / 2] + entropy_coef E[H]

With a KL penalty in place of the clip, J = E[ rho_t A_t ] - beta E[ KL(old || new) ] - ..., and after each rollout beta
is doubled where the KL came out over 1.5 times its target, halved where it came out under the target divided by 1.5.

Everything but the advantage is the learner's: `learner.step(batch)` is the call GRPO makes.
Source: Schulman et al. 2017 (arXiv 1707.06347), algorithm 1 and section 4; details as in Huang et al. 2022, The 37
implementation details of PPO, with the defaults of stable-baselines3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, final

import torch

from onepolicy.acting.collect import Collector, episode_metrics
from onepolicy.batch import Policy, PolicyBatch
from onepolicy.core.advantages import whiten
from onepolicy.core.check import fraction
from onepolicy.core.policy import PolicyLoss, clipped, kl_penalised
from onepolicy.core.returns import gae
from onepolicy.data.rollout import Rollout, critic_metrics, flatten, minibatches
from onepolicy.errors import ConfigError
from onepolicy.learning.learner import PolicyLearner, evaluate_in_parts
from onepolicy.types import Metrics


@dataclass(frozen=True)
class Config:
    """PPO's choices; those of the optimizer are the learner's.

    gamma, lam: discount and GAE's lambda, in [0, 1]. epochs: passes over a rollout. batch_size: steps a minibatch.
    clip: of the ratio, to [1 - clip, 1 + clip]. schedule: "linear" takes clip to 0 at the end of training.
    value_clip: reward units the critic may move in one rollout's updates, None for no bound. value_coef: on half the
    squared error. entropy_coef: on the entropy bonus. target_kl: a rollout's updates end once KL(old || new) is 1.5
    times this, None for never; the KL is the one measured in the last update's own forward pass. penalty: what the
    coefficient of the KL penalty starts from, in whitened advantages per nat; None for the clip. With it target_kl is
    what the coefficient adapts to, and no update is left out.
    """

    gamma: float = 0.99
    lam: float = 0.95
    epochs: int = 10
    batch_size: int = 64
    clip: float = 0.2
    schedule: Literal["constant", "linear"] = "constant"
    value_clip: float | None = None
    value_coef: float = 1.0
    entropy_coef: float = 0.0
    target_kl: float | None = None
    penalty: float | None = None

    def __post_init__(self) -> None:
        fraction("gamma", self.gamma)
        fraction("lam", self.lam)
        for name, value in (("epochs", self.epochs), ("batch_size", self.batch_size)):
            if value < 1:
                raise ConfigError(f"{name} is {value}; PPO learns from each rollout at least once. Set {name} >= 1.")
        for name in ("clip", "value_clip", "target_kl", "penalty"):
            bound = getattr(self, name)
            if bound is not None and not bound > 0:
                raise ConfigError(f"{name} is {bound}; it must be positive. Set {name} > 0.")
        if self.penalty is not None and self.target_kl is None:
            raise ConfigError(
                f"penalty is {self.penalty} without a target_kl, which it adapts to. Set target_kl, 0.01 say."
            )


@final
class Penalty:
    """The coefficient of the KL penalty, beta, as it is now: a checkpoint part."""

    def __init__(self, beta: float) -> None:
        self.beta = beta

    def adapt(self, kl: float, target: float) -> None:
        """Beta for the next rollout, after one whose updates came to a divergence `kl`; both in nats."""
        if kl > 1.5 * target:
            self.beta *= 2.0
        elif kl < target / 1.5:
            self.beta *= 0.5

    def state_dict(self) -> dict[str, Any]:
        """Beta."""
        return {"beta": self.beta}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of state_dict."""
        self.beta = float(state["beta"])


def credit(rollout: Rollout, config: Config) -> PolicyBatch:
    """The rollout [N, T] with its generalised advantages."""
    discount = rollout.discount(config.gamma)
    advantage = gae(rollout.reward, rollout.value, rollout.next_value, discount, rollout.carry, config.lam)
    return rollout.batch(advantage)


def normalised(batch: PolicyBatch) -> PolicyBatch:
    """The minibatch with advantages of mean 0 and standard deviation 1; a single step keeps its advantage."""
    if batch.mask.numel() == 1:
        return batch
    return replace(batch, advantage=whiten(batch.advantage, batch.mask))


def epochs_of(batch: PolicyBatch, config: Config, *seed: int | str) -> Iterator[PolicyBatch]:
    """The normalised minibatches of every epoch, each epoch in an order of its own.

    A minibatch that is the whole batch is the same in every epoch and is normalised once.
    """
    if config.batch_size >= batch.mask.numel():
        yield from [normalised(batch)] * config.epochs
        return
    for epoch in range(config.epochs):
        yield from map(normalised, minibatches(batch, config.batch_size, *seed, epoch))


def loss(config: Config, share: float, beta: float | None = None) -> PolicyLoss:
    """What is minimised when the clip range is `share` of its start; with beta, the KL penalty of that coefficient."""
    clip = config.clip * share
    return PolicyLoss(
        surrogate=partial(clipped, low=clip, high=clip) if beta is None else partial(kl_penalised, beta=beta),
        value_coef=config.value_coef,
        value_clip=config.value_clip,
        entropy_coef=config.entropy_coef,
    )


def divergence(policy: Policy, batch: PolicyBatch) -> float:
    """The mean of (r - 1) - log r over the batch, which was drawn before: KL of now from then, in nats."""
    log_ratio = evaluate_in_parts(policy, batch, None).logp - batch.logp_behaviour
    return float((torch.expm1(log_ratio) - log_ratio).mean())


def fit(
    learner: PolicyLearner,
    collector: Collector,
    config: Config,
    penalty: Penalty | None = None,
    *,
    steps: int,
    seed: int,
    after_step: Callable[[int, Metrics], bool],
) -> None:
    """Train until `steps` environment steps were played, from as many as the collector has behind it.

    penalty: where config asks for one. seed: of the minibatches. after_step(environment steps so far, metrics): after
    each rollout's updates; logs, evaluates, saves; True stops.
    """
    while collector.env_steps < steps:
        start = collector.env_steps
        share = 1.0 - start / steps if config.schedule == "linear" else 1.0
        learner.loss = loss(config, share, penalty.beta if penalty else None)
        rollout = collector.collect()
        batch = flatten(credit(rollout, config))
        updates: list[Metrics] = []
        for part in epochs_of(batch, config, seed, "minibatch", start):
            updates.append(learner.step(part))
            if (
                penalty is None
                and config.target_kl is not None
                and updates[-1]["policy/kl_old"] > 1.5 * config.target_kl
            ):
                break
        metrics = {name: sum(u[name] for u in updates) / len(updates) for name in updates[0]}
        metrics |= critic_metrics(batch) | episode_metrics(collector.window)
        metrics["rollout/logp_gap"] = updates[0]["learner/logp_gap"]
        if penalty is not None:
            assert config.target_kl is not None
            metrics |= {"policy/kl": divergence(learner.policy, batch), "policy/penalty": penalty.beta}
            penalty.adapt(metrics["policy/kl"], config.target_kl)
        if after_step(collector.env_steps, metrics):
            return
