"""Planning in a learnt model (PETS): at each step the best sequence of actions is searched for, and its first is done.

In: the search of one step, who plans while learning, and the policy that a learnt model is. Not in: the search method
(core/cem.py), the model (nn/dynamics.py), the loop (algos/pets.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onepolicy.batch import Evaluation
from onepolicy.core.cem import Search, cross_entropy
from onepolicy.core.check import fraction
from onepolicy.data.replay import Floats
from onepolicy.errors import ConfigError
from onepolicy.nn.actors import Bounded
from onepolicy.nn.dynamics import Dynamics
from onepolicy.nn.frozen import Memory, Remembering
from onepolicy.run.seeding import derive_seed


@dataclass(frozen=True)
class PlanAhead:
    """horizon: steps that are looked ahead. search: of the cross-entropy method, over sequences of actions in [-1, 1].
    std: the deviation a search begins with. carry: it begins at the last plan, moved on by a step; else at 0.
    particles: rollouts of a plan by each elite, with its noise; 0 for one by its means. gamma: the discount.

    Source: Chua et al. 2018 (PETS), section 5, which has 20 particles of 5 members, and no discount.
    """

    horizon: int = 15
    search: Search = field(default_factory=lambda: Search(population=200, elites=20, rounds=4))
    std: float = 0.5
    carry: bool = True
    particles: int = 0
    gamma: float = 1.0

    def __post_init__(self) -> None:
        if self.horizon < 1:
            raise ConfigError(f"horizon is {self.horizon}; a plan has at least 1 step. Set horizon >= 1.")
        if not self.std > 0.0:
            raise ConfigError(f"std is {self.std}; a search that begins without spread finds nothing. Set it above 0.")
        if self.particles < 0:
            raise ConfigError(f"particles is {self.particles}; set 0 for the means, 4 say for draws.")
        fraction("gamma", self.gamma)


@dataclass(frozen=True)
class Plans:
    """The plans [S, N, H, A] for N worlds of each of S learners; the deviation [S, N, A] that is left of their first
    actions; what the model says that the best plans of the last round are worth, [S, N]."""

    plan: Tensor
    std: Tensor
    worth: Tensor

    def moved_on(self) -> Tensor:
        """The plans a step later, 0 at the end."""
        return torch.cat([self.plan[:, :, 1:], torch.zeros_like(self.plan[:, :, :1])], dim=2)


@torch.no_grad()
def look_ahead(
    dynamics: Dynamics, obs: Tensor, begin: Tensor, config: PlanAhead, rngs: Sequence[torch.Generator]
) -> Plans:
    """The plans that the cross-entropy method finds for observations [S, N, D], from `begin` [S, N, H, A] on.

    A plan is worth the mean over elites and particles of its discounted rewards until they say that it ends.
    rngs: one a learner, of all its worlds.
    """
    learners, worlds, horizon, dim = begin.shape
    follow, copies = _follow(dynamics, config.particles, rngs), max(config.particles, 1)
    elites, population = dynamics.elites.shape[1], config.search.population
    rows = worlds * population * copies
    start = obs.repeat_interleave(population * copies, dim=1).unsqueeze(1).expand(learners, elites, rows, -1)
    last = torch.zeros(())

    def worth(plans: Tensor) -> Tensor:
        nonlocal last
        at, total, counts = start, torch.zeros(start.shape[:3]), torch.ones(start.shape[:3])
        actions = plans.view(learners, worlds * population, horizon, dim).repeat_interleave(copies, dim=1)
        for step in range(horizon):
            ahead = follow(at, actions[:, None, :, step].expand(learners, elites, rows, dim))
            total.addcmul_(counts, ahead.reward)
            counts *= config.gamma
            counts.masked_fill_(ahead.terminated, 0.0)
            at = ahead.next_obs
        last = total.mean(1).view(learners * worlds, population, copies).mean(2)
        return last

    flat = begin.flatten(0, 1)
    mean, std = cross_entropy(worth, flat, torch.full_like(flat, config.std), config.search, rngs)
    best = torch.nan_to_num(last, nan=-torch.inf, posinf=-torch.inf).topk(config.search.elites, dim=1).values.mean(1)
    return Plans(mean.view(begin.shape), std[:, 0].view(learners, worlds, dim), best.view(learners, worlds))


def _follow(dynamics: Dynamics, particles: int, rngs: Sequence[torch.Generator]) -> Callable[[Tensor, Tensor], Any]:
    """The model's step: by its means, or with draws from the learners' own generators."""
    if particles == 0:
        return dynamics.means()

    def draw(obs: Tensor, action: Tensor) -> Any:
        shape = (*obs.shape[1:-1], dynamics.obs_dim + 1)
        return dynamics.imagine(obs, action, torch.stack([torch.randn(shape, generator=rng) for rng in rngs]))

    return draw


@final
class Planner:
    """Plans for N worlds of each of S learners, step by step. A checkpoint part.

    metrics: [S] each, of the last step: plan/worth, what the model promises for the plan; plan/std, the deviation that
    is left of its first action.
    """

    def __init__(self, seeds: Sequence[int], worlds: int, action_dim: int, config: PlanAhead) -> None:
        self.config = config
        self.rngs = [torch.Generator().manual_seed(derive_seed(seed, "plan")) for seed in seeds]
        self.plan = torch.zeros(len(seeds), worlds, config.horizon, action_dim)
        self.metrics: dict[str, Tensor] = {}

    def act(self, dynamics: Dynamics, obs: Floats) -> Floats:
        """Actions [S, N, A] in [-1, 1] for observations [S, N, D]."""
        found = look_ahead(dynamics, torch.from_numpy(obs), self.plan, self.config, self.rngs)
        if self.config.carry:
            self.plan = found.moved_on()
        self.metrics = {"plan/worth": found.worth.mean(1), "plan/std": found.std.mean((1, 2))}
        return found.plan[:, :, 0].numpy()

    def forget(self, over: NDArray[np.bool_]) -> None:
        """The next search begins at 0 in the worlds whose episode is over, bool [S, N]."""
        if over.any():
            self.plan = self.plan.masked_fill(torch.from_numpy(over)[:, :, None, None], 0.0)

    def state_dict(self) -> dict[str, Any]:
        """The plans under way, the random streams and the last metrics."""
        return {"plan": self.plan, "rngs": [rng.get_state() for rng in self.rngs], "metrics": self.metrics}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of state_dict."""
        self.plan, self.metrics = state["plan"].clone(), dict(state["metrics"])
        for rng, saved in zip(self.rngs, state["rngs"], strict=True):
            rng.set_state(saved)


@final
class PlanningPolicy(nn.Module):
    """One learner's model as a policy in the world's units: each action is planned. For observations [..., D].

    seed: of the searches' draws, which begin anew with each `greedy`, so that equal calls give equal actions.
    """

    def __init__(self, dynamics: Dynamics, config: PlanAhead, low: Tensor, high: Tensor, seed: int) -> None:
        super().__init__()
        self.dynamics, self.config, self.bounded = dynamics, config, Bounded(low, high)
        self.obs_dim, self.seed = dynamics.obs_dim, seed

    @torch.no_grad()
    def act(self, inputs: Tensor, *, rng: torch.Generator | None = None) -> tuple[Tensor, Evaluation]:
        """Actions [..., A], planned without a memory of earlier steps. What is random is the search: there is no
        density to speak of, and log-prob and entropy are nan."""
        rows, config = inputs.reshape(1, -1, self.obs_dim), self.config
        begin = torch.zeros(1, rows.shape[1], config.horizon, len(self.bounded.reach))
        found = look_ahead(self.dynamics, rows, begin, config, [rng or torch.default_generator])
        unknown = torch.full(inputs.shape[:-1], torch.nan)
        return self.bounded(found.plan[0, :, 0]).view(*inputs.shape[:-1], -1), Evaluation(unknown, unknown)

    def greedy(self) -> Remembering:
        """The first actions of the best plans, [N, D] -> [N, A]; successive calls are successive steps, whose plans it
        remembers."""
        rng, dim = torch.Generator().manual_seed(self.seed), len(self.bounded.reach)
        memory = Memory(self.config.horizon * dim)

        def act(obs: Floats) -> Floats:
            begin = torch.from_numpy(memory.of(len(obs))).view(1, len(obs), self.config.horizon, dim)
            found = look_ahead(self.dynamics, torch.from_numpy(obs)[None], begin, self.config, [rng])
            if self.config.carry:
                memory.state = found.moved_on().view(len(obs), -1).numpy()
            return self.bounded(found.plan[0, :, 0]).numpy()

        return Remembering(act, memory)
