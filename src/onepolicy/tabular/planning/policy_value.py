"""The value of a given policy: the planners on the chain that it makes of the model.

Under a policy the model is a Markov reward process, which is an MDP of one action a state; V^pi is its V*. So every
planner evaluates, with its bounds: policy iteration is the linear solve, value iteration is iterative evaluation.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse
from scipy.sparse import linalg

from onepolicy.errors import ConfigError, nearest
from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.planning.average_reward import check_recurring, relative_value_iteration
from onepolicy.tabular.planning.graph import row_states
from onepolicy.tabular.planning.methods import TOLERANCE, plan
from onepolicy.tabular.planning.solution import Solution
from onepolicy.tabular.storage import Floats, Rows

EVALUATIONS = {"exact": "policy-iteration", "iterative": "value-iteration"}
"""How a policy can be evaluated, and which planner does it on its chain."""
LU_UP_TO = 20_000
"""States up to which the average reward is solved directly."""


def evaluate(
    mdp: MDP,
    policy: ArrayLike,
    discount: float,
    method: str = "exact",
    *,
    tolerance: float = TOLERANCE,
    initial: ArrayLike | None = None,
    max_sweeps: int | None = None,
    time_limit: float | None = None,
    threads: int | None = None,
) -> Solution:
    """V^pi with bounds; `q()` is Q^pi. Settings as in `plan`.

    policy: int [S], a local action for each state, or float [K], a probability for each row. method: "exact", by the
    linear equations (I - discount P_pi) v = r_pi, dense for small models and by Krylov's BiCGSTAB for large ones;
    "iterative", by sweeps v <- T_pi v. discount = 1: the total reward until a terminal state, which the policy has to
    reach from everywhere.
    Raises: ConfigError for an unknown method, a policy that is none, or one that does not end where it has to.
    Source: Sutton and Barto 2018, section 4.1; Puterman 1994, section 6.1.
    """
    if method not in EVALUATIONS:
        raise ConfigError(f"method is {method!r}. {nearest(method, EVALUATIONS)}")
    weights = row_weights(mdp, policy)
    found = plan(
        policy_chain(mdp, weights), discount, EVALUATIONS[method],
        tolerance=tolerance, initial=initial, max_sweeps=max_sweeps, time_limit=time_limit, threads=threads,
    )  # fmt: skip
    return replace(found, mdp=mdp, method=f"{method} evaluation", policy=np.asarray(policy))


def evaluate_average(
    mdp: MDP,
    policy: ArrayLike,
    *,
    tolerance: float = TOLERANCE,
    max_sweeps: int | None = None,
    time_limit: float | None = None,
    threads: int | None = None,
) -> Solution:
    """The gain of a policy, its reward a step in the long run, with bounds; and its relative value.

    Small models: g and h of g + h = r_pi + P_pi h, h(0) = 0, by a sparse LU, then one sweep for the bounds; large ones
    by relative value iteration. The bounds meet if the gain is the same from every state (one recurrent class).
    Raises: ConfigError for a model with terminal states or a policy that is none. Source: Puterman 1994, section 8.2.3.
    """
    check_recurring(mdp)
    chain = policy_chain(mdp, row_weights(mdp, policy))
    found = relative_value_iteration(
        chain, tolerance=tolerance, initial=_bias(chain), max_sweeps=max_sweeps, time_limit=time_limit, threads=threads
    )
    return replace(found, mdp=mdp, method="average evaluation", policy=np.asarray(policy))


def row_weights(mdp: MDP, policy: ArrayLike) -> Floats:
    """A policy as the probability of each row [K].

    Raises: ConfigError that names the state where it is no policy.
    """
    given = np.asarray(policy)
    first, counts = mdp.row_ptr[:-1], np.diff(mdp.row_ptr)
    acting = ~mdp.terminal
    if np.issubdtype(given.dtype, np.integer) and given.shape == (mdp.num_states,):
        wrong = np.flatnonzero(acting & ((given < 0) | (given >= counts)))
        if wrong.size:
            s = wrong[0]
            raise ConfigError(
                f"The policy takes action {given[s]} in state {mdp.state_name(s)}, which has {counts[s]}."
            )
        weights = np.zeros(mdp.num_rows)
        weights[first[acting] + given[acting]] = 1
        return weights
    if given.shape != (mdp.num_rows,):
        raise ConfigError(
            f"The policy has shape {given.shape} and dtype {given.dtype}; give a local action for each of "
            f"{mdp.num_states} states (integers), or a probability for each of {mdp.num_rows} rows (floats)."
        )
    weights = given.astype(np.float64)
    sums = np.add.reduceat(weights, first[acting]) if acting.any() else np.zeros(0)
    least = np.minimum.reduceat(weights, first[acting]) if acting.any() else sums
    wrong = np.flatnonzero(~((np.abs(sums - 1) <= 1e-6) & (least >= 0)))
    if wrong.size:
        s = int(np.flatnonzero(acting)[wrong[0]])
        raise ConfigError(
            f"The policy's probabilities in state {mdp.state_name(s)} are {weights[first[s] : first[s] + counts[s]]}; "
            "they are at least 0 and sum to 1."
        )
    return weights / np.repeat(sums, counts[acting])


def policy_chain(mdp: MDP, weights: Floats) -> MDP:
    """The Markov reward process of a policy [K], as an MDP of one action a state."""
    csr = mdp.csr()
    states, rows = mdp.num_states, mdp.num_rows
    mix = sparse.csr_array((weights, np.arange(rows), csr.row_ptr), shape=(states, rows))
    follow = sparse.csr_array((csr.probabilities.astype(np.float64), csr.successors, csr.ptr), shape=(rows, states))
    chain = sparse.csr_array(mix @ follow)
    chain.eliminate_zeros()
    chain.sort_indices()
    acting = ~mdp.terminal
    row_ptr = np.concatenate([[0], np.cumsum(acting)]).astype(np.int64)
    ptr = np.concatenate([[0], chain.indptr[1:][acting]]).astype(np.int64)
    rewards = np.asarray(mix @ csr.rewards)[acting]
    storage = Rows(row_ptr, ptr, chain.indices.astype(np.int32), chain.data, rewards)
    return MDP(storage, mdp.terminal, mdp.start, state_names=mdp.state_names)


def _bias(chain: MDP) -> Floats | None:
    """h with h(0) = 0 of g + h = r + P h; None where the equations do not say, or there are too many."""
    states = chain.num_states
    if states > LU_UP_TO:
        return None
    csr = chain.csr()
    matrix = sparse.lil_array(sparse.eye_array(states) - sparse.csr_array(
        (csr.probabilities, (np.repeat(row_states(csr), np.diff(csr.ptr)), csr.successors)), shape=(states, states)
    ))  # fmt: skip
    matrix[:, [0]] = np.ones((states, 1))
    try:
        solved = linalg.splu(sparse.csc_array(matrix)).solve(csr.rewards)
    except RuntimeError:
        return None
    solved[0] = 0.0
    return np.asarray(solved) if np.isfinite(solved).all() else None
