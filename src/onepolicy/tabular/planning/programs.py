"""The linear program of an MDP, solved by scipy's HiGHS."""

from __future__ import annotations

import math

import numpy as np
from scipy import sparse
from scipy.optimize import linprog

from onepolicy.errors import ConfigError
from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.planning.solution import Work
from onepolicy.tabular.storage import Floats


def program_value(mdp: MDP, discount: float, work: Work) -> Floats:
    """The least v [S] with v(s) >= r(s, a) + discount sum_s' p(s'|s, a) v(s') for every row, 0 where terminal.

    Stops at the time limit of `work`, with 0.
    Raises: ConfigError when there is none, for a value without bounds.
    """
    csr = mdp.csr()
    rows, states = mdp.num_rows, mdp.num_states
    here = np.repeat(np.arange(states), np.diff(csr.row_ptr))
    choose = sparse.csr_array((np.ones(rows), here, np.arange(rows + 1)), shape=(rows, states))
    follow = sparse.csr_array((csr.probabilities.astype(np.float64), csr.successors, csr.ptr), shape=(rows, states))
    limits = np.full((states, 2), [-np.inf, np.inf])
    limits[mdp.terminal] = 0
    left = work.time_limit - work.seconds
    options = {} if math.isinf(left) else {"time_limit": max(0.1, left)}
    found = linprog(
        np.ones(states),
        A_ub=discount * follow - choose,
        b_ub=-csr.rewards,
        bounds=limits,
        method="highs",
        options=options,
    )
    if found.x is not None:
        return np.asarray(found.x, dtype=np.float64)
    if found.status == 1:
        return np.zeros(states)
    raise ConfigError(f"The linear program has no solution ({found.message}); the value is not bounded.")
