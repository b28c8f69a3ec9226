"""Finite horizons: backward induction, exact to rounding."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from onepolicy.errors import ConfigError
from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.planning.criteria import UNIT
from onepolicy.tabular.planning.solution import Solution, Work
from onepolicy.tabular.planning.sweeps import Sweeps
from onepolicy.tabular.storage import require_memory


def backward_induction(
    mdp: MDP,
    horizon: int,
    *,
    discount: float = 1.0,
    final: ArrayLike | None = None,
    threads: int | None = None,
    limit: int | None = None,
) -> Solution:
    """The best value of `horizon` more steps and what to do at each: V_T = final, V_t = T V_{t+1}.

    final [S]: what it is worth to be in a state after the last step (default 0); nothing for terminal states. limit:
    bytes of memory, default what is available.
    Returns: a Solution with value [T + 1, S], policy [T, S], and bounds that allow for rounding alone.
    Raises: ConfigError for a horizon below 1, a negative discount, a final value that does not fit, too little memory.
    Source: Bellman 1957; Puterman 1994, section 4.5.
    """
    if horizon < 1:
        raise ConfigError(f"horizon is {horizon}; there is at least 1 step to take.")
    if not 0 <= discount < np.inf:
        raise ConfigError(f"discount is {discount}; it is at least 0.")
    states = mdp.num_states
    require_memory(states * (28 * horizon + 24), f"A value for each of {states:,} states and {horizon:,} steps", limit)
    value = np.zeros((horizon + 1, states))
    if final is not None:
        given = np.asarray(final, dtype=np.float64)
        if given.shape != (states,) or not np.isfinite(given).all():
            raise ConfigError(f"final has shape {given.shape}; give a finite value for each of {states} states.")
        value[horizon] = np.where(mdp.terminal, 0.0, given)
    policy = np.full((horizon, states), -1, dtype=np.int32)
    errors = np.zeros(horizon + 1)
    with Work("backward-induction", 1.0) as work, Sweeps(mdp, discount, threads) as sweeps:
        _, _, width, largest = sweeps.survey()
        units = UNIT * (width + int(np.diff(mdp.row_ptr).max()) + 8)
        for t in range(horizon - 1, -1, -1):
            sweeps.optimal(value[t + 1], value[t], policy[t])
            work.sweeps += 1
            size = largest + discount * (np.abs(value[t + 1]).max() + errors[t + 1])
            errors[t] = (1 + 1e-6) * discount * errors[t + 1] + units * size
        spread = errors[:, None] * ~mdp.terminal
        return Solution(
            mdp, work.description, discount, value, policy, value - spread, value + spread,
            True, "converged", work.sweeps, work.seconds,
        )  # fmt: skip
