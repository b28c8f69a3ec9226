"""Trust region policy optimisation on control: the natural gradient, as far as the divergence allows.

    maximise  L(theta) = E[ pi_theta(a|s) / pi_old(a|s) A ]   subject to   E[ KL(pi_old || pi_theta) ] <= delta
    x = (F + damping I)^-1 g,   theta = theta_old + shrink^j sqrt(2 delta / x^T (F + damping I) x) x

g is L's gradient and F the curvature of the mean KL, both at theta_old; x comes from conjugate gradients, which need
only products F v = J^T M J v (J: derivative of the distributions' numbers, M: their Fisher information); j is the
first at which L has risen and the KL is below delta. The critic learns by Adam: that part is the learner's.
Source: Schulman et al. 2015 (arXiv 1502.05477), section 6 and appendix C; advantages by GAE as in Schulman et al. 2016
(arXiv 1506.02438); defaults of sb3-contrib.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from onepolicy.acting.collect import Collector, episode_metrics
from onepolicy.batch import PolicyBatch
from onepolicy.core.advantages import whiten
from onepolicy.core.check import fraction
from onepolicy.core.policy import PolicyLoss
from onepolicy.core.returns import gae
from onepolicy.data.rollout import Rollout, critic_metrics, flatten, minibatches
from onepolicy.errors import ConfigError
from onepolicy.learning.learner import PolicyLearner
from onepolicy.nn.flat_actor import FlatActor, Said
from onepolicy.types import Metrics


@dataclass(frozen=True)
class Config:
    """TRPO's choices; those of the critic's optimizer are the learner's.

    gamma, lam: discount and GAE's lambda, in [0, 1]. target_kl: delta, nats. damping: added to F's diagonal. cg_steps:
    conjugate gradient steps at most. cg_tolerance: they end at this squared residual. shrink: factor between two tries
    of the line search, in (0, 1). tries: of the line search at most. epochs, batch_size: the critic's.
    """

    gamma: float = 0.99
    lam: float = 0.95
    target_kl: float = 0.01
    damping: float = 0.1
    cg_steps: int = 15
    cg_tolerance: float = 1e-10
    shrink: float = 0.8
    tries: int = 10
    epochs: int = 10
    batch_size: int = 128

    def __post_init__(self) -> None:
        fraction("gamma", self.gamma)
        fraction("lam", self.lam)
        for name in ("cg_steps", "tries", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; TRPO needs at least 1. Set {name} >= 1.")
        if not self.target_kl > 0:
            raise ConfigError(f"target_kl is {self.target_kl}; TRPO's bound on the KL is positive. Set target_kl > 0.")
        if self.damping < 0 or self.cg_tolerance < 0:
            raise ConfigError(
                f"damping is {self.damping} and cg_tolerance {self.cg_tolerance}; neither is negative. Set them >= 0."
            )
        if not 0 < self.shrink < 1:
            raise ConfigError(f"shrink is {self.shrink}; a line search goes back by a factor in (0, 1). Set it to 0.8.")


class Solution(NamedTuple):
    """x: the vector found. steps: products it took. curved: a direction of no positive curvature was met."""

    x: Tensor
    steps: int
    curved: bool


def conjugate_gradient(product: Callable[[Tensor], Tensor], b: Tensor, *, steps: int, tolerance: float) -> Solution:
    """The solution of A x = b for a positive definite A [P, P] known by its products, from x = 0.

    product: v -> A v. b [P]. steps: at most; P are enough in exact arithmetic. tolerance: ends at |A x - b|^2 below it.
    A direction p with p^T A p <= 0 ends it too, at the x before: A is then not positive definite, or rounding has won.
    Source: Hestenes and Stiefel 1952.
    """
    x, residual, direction = torch.zeros_like(b), b.clone(), b.clone()
    size = residual @ residual
    for step in range(steps):
        if size <= tolerance:
            return Solution(x, step, False)
        bent = product(direction)
        curvature = direction @ bent
        if not curvature > 0:
            return Solution(x, step, True)
        x = x + (size / curvature) * direction
        residual = residual - (size / curvature) * bent
        before, size = size, residual @ residual
        direction = residual + (size / before) * direction
    return Solution(x, steps, False)


def line_search(accepts: Callable[[float], bool], *, shrink: float, tries: int) -> float:
    """The first of 1, shrink, shrink^2, ... that is accepted, of `tries`; 0 when none is.

    >>> line_search(lambda share: share < 0.7, shrink=0.8, tries=3)
    0.6400000000000001
    >>> line_search(lambda share: share < 0.6, shrink=0.8, tries=3)
    0.0
    """
    return next((shrink**k for k in range(tries) if accepts(shrink**k)), 0.0)


@final
class Failures:
    """Rollouts since the start that moved the policy nowhere, or less well: a checkpoint part.

    rejected: no try of the line search was accepted. curvature: conjugate gradients met no positive curvature.
    """

    def __init__(self) -> None:
        self.rejected = self.curvature = 0

    def state_dict(self) -> dict[str, Any]:
        """The counts."""
        return {"rejected": self.rejected, "curvature": self.curvature}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of state_dict."""
        self.rejected, self.curvature = int(state["rejected"]), int(state["curvature"])


def credit(rollout: Rollout, config: Config) -> PolicyBatch:
    """The rollout [N, T] with its generalised advantages."""
    discount = rollout.discount(config.gamma)
    return rollout.batch(gae(rollout.reward, rollout.value, rollout.next_value, discount, rollout.carry, config.lam))


def loss() -> PolicyLoss:
    """What the learner minimises: half the critic's squared error, nothing of the actor's."""
    return PolicyLoss(lambda log_ratio, logp, advantage: torch.zeros_like(advantage), value_coef=1.0)


def full_step(actor: FlatActor, old: Said, gradient: Tensor, config: Config) -> tuple[Tensor, Solution]:
    """The natural gradient's step [P] to a KL of target_kl by its quadratic model, and how it was solved for.

    old: what the actor says of the batch's states. gradient [P]: of the surrogate. A step of 0 where the solution has
    no positive curvature, or the gradient is 0.
    """

    def curved(v: Tensor) -> Tensor:
        bent = actor.family.metric(old.out, actor.along(old, v))
        return actor.back(old, bent / len(old.out)) + config.damping * v

    found = conjugate_gradient(curved, gradient, steps=config.cg_steps, tolerance=config.cg_tolerance)
    curvature = float(found.x @ curved(found.x))
    if not curvature > 0:
        return torch.zeros_like(found.x), found._replace(curved=found.curved or curvature < 0)
    return found.x * math.sqrt(2.0 * config.target_kl / curvature), found


@torch.no_grad()
def improve(actor: FlatActor, batch: PolicyBatch, config: Config, failures: Failures) -> Metrics:
    """One step of the actor on the batch [B, 1], its advantages as they are; counts failures and says how it went."""
    obs, action, advantage = batch.inputs[:, 0], batch.action[:, 0], batch.advantage[:, 0]
    family, start = actor.family, actor.vector()
    old = actor.forward(start, obs)
    with torch.enable_grad():
        numbers = old.out.detach().requires_grad_()
        logp_old = family.logp(numbers, action)
        (slope,) = torch.autograd.grad((logp_old * advantage).mean(), numbers)
    logp_old = logp_old.detach()
    step, found = full_step(actor, old, actor.back(old, slope), config)
    before = float(advantage.mean())
    reached = [before, 0.0]

    def accepts(share: float) -> bool:
        new = actor.forward(start + share * step, obs).out
        surrogate = float((torch.exp(family.logp(new, action) - logp_old) * advantage).mean())
        divergence = float(family.kl(old.out, new).mean())
        accepted = surrogate > before and divergence < config.target_kl
        if accepted:
            reached[:] = surrogate, divergence
        return accepted

    share = line_search(accepts, shrink=config.shrink, tries=config.tries) if bool(step.any()) else 0.0
    actor.assign(start + share * step)
    failures.curvature += found.curved
    failures.rejected += share == 0.0
    return {
        "policy/loss": -reached[0],
        "policy/kl": reached[1],
        "policy/step_share": share,
        "policy/cg_steps": float(found.steps),
        "learner/rejected": float(failures.rejected),
        "learner/negative_curvature": float(failures.curvature),
        "rollout/logp_gap": float((logp_old - batch.logp_behaviour[:, 0]).abs().max()),
    }


def fit(
    learner: PolicyLearner,
    collector: Collector,
    config: Config,
    failures: Failures,
    *,
    steps: int,
    seed: int,
    after_step: Callable[[int, Metrics], bool],
) -> None:
    """Train until `steps` environment steps were played, from as many as the collector has behind it.

    seed: of the critic's minibatches. after_step(environment steps so far, metrics): after each rollout's updates;
    logs, evaluates, saves; True stops.
    """
    actor = FlatActor(learner.policy)
    while collector.env_steps < steps:
        start = collector.env_steps
        batch = flatten(credit(collector.collect(), config))
        moved = improve(actor, replace(batch, advantage=whiten(batch.advantage, batch.mask)), config, failures)
        updates: list[Metrics] = []
        for epoch in range(config.epochs):
            parts = minibatches(batch, config.batch_size, seed, "minibatch", start, epoch)
            updates.extend(learner.step(part) for part in parts)
        metrics = {name: sum(u[name] for u in updates) / len(updates) for name in updates[0]}
        metrics |= moved | critic_metrics(batch) | episode_metrics(collector.window)
        if after_step(collector.env_steps, metrics):
            return
