"""Advantage actor-critic, synchronous: short rollouts of many worlds, one update each.

    A_t = sum_l (gamma lam)^l delta_{t+l},   delta_t = r_t + gamma V(s_{t+1}) - V(s_t);  lam = 1: n-step returns minus V
    J = E[ A_t log pi(a_t|s_t) ] - value_coef E[(V - R)^2 / 2] + entropy_coef E[H]

Source: Mnih et al. 2016 (arXiv 1602.01783), algorithm S3, in the synchronous form of OpenAI Baselines; defaults of
stable-baselines3, whose RMSprop (epsilon outside the root, or inside as TensorFlow's) the recipe uses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from onepolicy.acting.collect import Collector, episode_metrics
from onepolicy.batch import PolicyBatch
from onepolicy.core.check import fraction
from onepolicy.core.policy import PolicyLoss, reinforce
from onepolicy.core.returns import gae
from onepolicy.data.rollout import Rollout, critic_metrics, flatten
from onepolicy.learning.learner import PolicyLearner
from onepolicy.types import Metrics


@dataclass(frozen=True)
class Config:
    """A2C's choices; those of the optimizer are the learner's.

    gamma, lam: discount and GAE's lambda, in [0, 1]. value_coef: on half the squared error. entropy_coef: on the
    entropy bonus. Advantages are not normalised: over as few steps as A2C learns from, it hurts.
    """

    gamma: float = 0.99
    lam: float = 1.0
    value_coef: float = 1.0
    entropy_coef: float = 0.0

    def __post_init__(self) -> None:
        fraction("gamma", self.gamma)
        fraction("lam", self.lam)


def credit(rollout: Rollout, config: Config) -> PolicyBatch:
    """The rollout [N, T] with its advantages."""
    discount = rollout.discount(config.gamma)
    return rollout.batch(gae(rollout.reward, rollout.value, rollout.next_value, discount, rollout.carry, config.lam))


def loss(config: Config) -> PolicyLoss:
    """What is minimised."""
    return PolicyLoss(reinforce, value_coef=config.value_coef, entropy_coef=config.entropy_coef)


def fit(
    learner: PolicyLearner,
    collector: Collector,
    config: Config,
    *,
    steps: int,
    after_step: Callable[[int, Metrics], bool],
) -> None:
    """Train until `steps` environment steps were played, from as many as the collector has behind it.

    after_step(environment steps so far, metrics): after each update; logs, evaluates, saves; True stops.
    """
    while collector.env_steps < steps:
        batch = flatten(credit(collector.collect(), config))
        metrics = learner.step(batch) | critic_metrics(batch) | episode_metrics(collector.window)
        if after_step(collector.env_steps, metrics):
            return
