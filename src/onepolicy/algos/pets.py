"""PETS: learn what the world does, and do at each step the first action of the plan that is best by it.

`fit` is the algorithm: MBPO's model without its agent. In: when the model is learnt, what acts, for S learners at once.
Not in: the model and its training, the search (acting/planning.py).
Source: Chua et al. 2018 (arXiv 1805.12114), algorithm 1; the reward is learnt here with the state, where they are
given it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from torch import Tensor

from onepolicy.acting.explore import Choose, Explorer
from onepolicy.acting.planning import PlanAhead, Planner
from onepolicy.data.replay import Floats, Replay
from onepolicy.errors import ConfigError
from onepolicy.learning import world_model
from onepolicy.learning.world_model import WorldModel


@dataclass(frozen=True)
class Config:
    """What PETS decides. Everything that counts, counts environment steps of one learner.

    learning_starts: steps before the first training of the model, with random actions. model_every: steps between
    trainings. model_steps: optimizer steps each time. plan: how actions are searched for.
    """

    learning_starts: int = 200
    model_every: int = 50
    model_steps: int = 200
    plan: PlanAhead = field(default_factory=PlanAhead)

    def __post_init__(self) -> None:
        for name in ("learning_starts", "model_every", "model_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it is at least 1. Set {name} >= 1.")


@final
class Learner:
    """The models of S learners and who plans in them; actions are in [-1, 1]. A checkpoint part. metrics: [S] each."""

    def __init__(
        self,
        seeds: Sequence[int],
        worlds: int,
        obs_dim: int,
        action_dim: int,
        config: Config,
        model: world_model.Config,
    ) -> None:
        self.config, self.seeds = config, tuple(seeds)
        self.model = WorldModel(seeds, obs_dim, action_dim, model)
        self.planner = Planner(seeds, worlds, action_dim, config.plan)
        self.metrics: dict[str, Tensor] = {}

    def explore(self, steps: int) -> Choose:
        """The planned actions, from the planner's own random streams; at all `steps` the same."""
        del steps

        def choose(obs: Floats, rngs: Sequence[np.random.Generator]) -> Floats:
            del rngs
            return self.planner.act(self.model.dynamics, obs)

        return choose

    def learn(self, lived: Replay) -> None:
        """One training of the model."""
        self.metrics |= self.model.train(lived, self.config.model_steps)

    def state_dict(self) -> dict[str, Any]:
        """Model, planner and metrics."""
        return {"model": self.model.state_dict(), "planner": self.planner.state_dict(), "metrics": self.metrics}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of state_dict."""
        self.model.load_state_dict(state["model"])
        self.planner.load_state_dict(state["planner"])
        self.metrics = dict(state["metrics"])


def fit(
    learner: Learner, explorer: Explorer, *, steps: int, after_step: Callable[[int, dict[str, Tensor]], bool]
) -> None:
    """Plan, play and model until every learner has played `steps` steps, or after_step says True."""
    lived, config = explorer.replay, learner.config
    assert isinstance(lived, Replay), "a world model learns vectors, not images"
    while explorer.steps < steps:
        explorer.step(learner.explore(explorer.steps))
        newest = (lived.added - lived.num_envs) % lived.capacity
        learner.planner.forget(lived.ended[:, newest : newest + lived.num_envs])
        begins = learner.model.optimizer.steps == 0
        if explorer.steps >= config.learning_starts and (begins or explorer.passed(config.model_every)):
            learner.learn(lived)
        if after_step(explorer.steps, learner.metrics | learner.planner.metrics):
            break
