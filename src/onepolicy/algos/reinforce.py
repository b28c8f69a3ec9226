"""REINFORCE with a learned baseline: whole episodes, one update each batch of them.

    G_t = r_t + gamma G_{t+1},   J = E[ (G_t - V(s_t)) log pi(a_t|s_t) ] - value_coef E[(V - G)^2 / 2]

G is the reward to go, of complete episodes only. An episode cut off by its time limit goes on in V of its last
observation. Advantages are whitened over the batch. Departures from the paper: no factor gamma^t on later steps, which
all practice drops; the loss is a mean over steps, so that long episodes do not raise the step size.
Source: Williams 1992; Sutton and Barto 2018, section 13.4 (box "REINFORCE with Baseline").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from onepolicy.acting.collect import Collector, collect_episodes, episode_metrics
from onepolicy.batch import PolicyBatch
from onepolicy.core.advantages import whiten
from onepolicy.core.check import fraction
from onepolicy.core.policy import PolicyLoss, reinforce
from onepolicy.core.returns import discounted_returns
from onepolicy.data.rollout import Rollout, critic_metrics, flatten
from onepolicy.learning.learner import PolicyLearner
from onepolicy.run.seeding import derive_seed
from onepolicy.types import Metrics


@dataclass(frozen=True)
class Config:
    """REINFORCE's choices; those of the optimizer are the learner's.

    gamma: discount, in [0, 1]. episodes: in each update, a multiple of the number of worlds. value_coef: on half the
    squared error of the baseline. entropy_coef: on the entropy bonus.
    """

    gamma: float = 0.99
    episodes: int = 8
    value_coef: float = 1.0
    entropy_coef: float = 0.0

    def __post_init__(self) -> None:
        fraction("gamma", self.gamma)


def credit(rollout: Rollout, config: Config) -> PolicyBatch:
    """The rollout [N, T] of whole episodes with the reward to go over the baseline."""
    to_go = discounted_returns(rollout.reward, rollout.discount(config.gamma), rollout.next_value, rollout.carry)
    return rollout.batch(to_go - rollout.value)


def loss(config: Config) -> PolicyLoss:
    """What is minimised."""
    return PolicyLoss(reinforce, value_coef=config.value_coef, entropy_coef=config.entropy_coef)


def fit(
    learner: PolicyLearner,
    collector: Collector,
    config: Config,
    *,
    steps: int,
    seed: int,
    after_step: Callable[[int, Metrics], bool],
) -> None:
    """Train until `steps` environment steps were played, from as many as the collector has behind it.

    seed: of the episodes' starts. after_step(environment steps so far, metrics): after each update; logs, evaluates,
    saves; True stops.
    """
    while collector.env_steps < steps:
        rollout = collect_episodes(collector, config.episodes, derive_seed(seed, "episodes", collector.env_steps))
        batch = flatten(credit(rollout, config))
        metrics = learner.step(replace(batch, advantage=whiten(batch.advantage, batch.mask)))
        metrics |= critic_metrics(batch) | episode_metrics(rollout.ended)
        if after_step(collector.env_steps, metrics):
            return
