"""Soft value iteration: the value with entropy, V = tau log sum exp(Q / tau), and the policy exp((Q - V) / tau)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from onepolicy.errors import ConfigError
from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.planning.criteria import Discounted
from onepolicy.tabular.planning.methods import TOLERANCE, starting_value
from onepolicy.tabular.planning.solution import Solution, Work
from onepolicy.tabular.planning.sweeps import Sweeps
from onepolicy.tabular.storage import Floats


def soft_value_iteration(
    mdp: MDP,
    discount: float,
    temperature: float,
    *,
    tolerance: float = TOLERANCE,
    initial: ArrayLike | None = None,
    max_sweeps: int | None = None,
    time_limit: float | None = None,
    threads: int | None = None,
) -> Solution:
    """The greatest discounted sum of reward + temperature * entropy, by sweeps; settings as in `plan`.

    V(s) = temperature log sum_a exp(Q(s, a) / temperature), Q = r + discount P V. The policy [K] is
    exp((Q - V) / temperature); the bounds are those of the value with its entropy. temperature -> 0 gives V*.
    Raises: ConfigError for a temperature not above 0 or a discount outside [0, 1).
    Source: Ziebart 2010, section 5.2; Haarnoja et al. 2017 (arXiv 1702.08165), Theorem 1.
    """
    if not 0 < temperature < np.inf:
        raise ConfigError(f"temperature is {temperature}; it is above 0. For no entropy at all take `plan`.")
    work = Work("soft-value-iteration", tolerance, max_sweeps=max_sweeps, time_limit=time_limit)
    with work, Sweeps(mdp, discount, threads) as sweeps:
        criterion = Discounted(sweeps)
        criterion.largest += temperature
        v = starting_value(mdp, initial)
        out = np.empty_like(v)
        while True:
            change = sweeps.soft(v, out, temperature)
            work.sweeps += 1
            reason = work.verdict(*criterion.look(out, change))
            if reason is not None:
                break
            v, out = out, v
        found = criterion.bounds(out, np.zeros(0, dtype=np.int32), change)
        weights = soft_policy(mdp, sweeps.action_values(v), temperature)
        return Solution(
            mdp, work.description, discount, found.value, weights, found.lower, found.upper,
            reason == "converged", reason, work.sweeps, work.seconds,
        )  # fmt: skip


def soft_policy(mdp: MDP, q: Floats, temperature: float) -> Floats:
    """exp(q / temperature) [K], normalised over the actions of each state."""
    acting = np.flatnonzero(~mdp.terminal)
    first, counts = mdp.row_ptr[acting], np.diff(mdp.row_ptr)[acting]
    if not acting.size:
        return np.zeros(0)
    weights = np.exp((q - np.repeat(np.maximum.reduceat(q, first), counts)) / temperature)
    return np.asarray(weights / np.repeat(np.add.reduceat(weights, first), counts))
