"""The reward a step in the long run: relative value iteration, with bounds on the gain that hold for any model.

For any v, min(T v - v) <= g* <= max(T v - v), and the first also bounds the gain of the policy that is greedy with
respect to v: apply T n times and divide by n. Source: Odoni 1969; Puterman 1994, Theorem 8.5.5.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from onepolicy.errors import ConfigError
from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.planning.criteria import UNIT
from onepolicy.tabular.planning.graph import row_states
from onepolicy.tabular.planning.solution import Solution, Work
from onepolicy.tabular.planning.sweeps import Change, Sweeps
from onepolicy.tabular.storage import Bools, Floats, Policy, Rows

DAMPING = 0.95
"""The part of a step that is taken: below 1, periodic models converge too (Puterman 1994, section 8.5.4)."""


def relative_value_iteration(
    mdp: MDP,
    *,
    tolerance: float = 1e-6,
    initial: ArrayLike | None = None,
    max_sweeps: int | None = None,
    time_limit: float | None = None,
    threads: int | None = None,
) -> Solution:
    """The greatest average reward g* of a model without terminal states, and the relative values h of g + h = T h.

    v <- v + damping (T v - v), less v(0). The bounds hold for every model; they meet where the best gain does not
    depend on the state (weakly communicating models). Elsewhere it ends at a limit: give one.
    Returns: a Solution with `gain` midway between the bounds, h as `value` with h(0) = 0, and as `lower` and `upper`
    the bounds of the gain.
    Raises: ConfigError for a model with terminal states.
    Source: White 1963; Puterman 1994, section 8.5.5.
    """
    check_recurring(mdp)
    v = np.zeros(mdp.num_states) if initial is None else np.array(initial, dtype=np.float64)
    work = Work("relative-value-iteration", tolerance, max_sweeps=max_sweeps, time_limit=time_limit)
    with work, Sweeps(mdp, 1.0, threads) as sweeps:
        out, policy = np.empty_like(v), np.zeros(len(v), dtype=np.int32)
        error = gain_error(sweeps)
        while True:
            change = sweeps.optimal(v, out, policy)
            work.sweeps += 1
            low, high, reason = looked(change, error * float(1 + np.abs(v).max()), work)
            if reason is not None:
                return gain_solution(mdp, work, v, policy, (low, high), reason)
            v += DAMPING * (out - v)
            v -= v[0]


def looked(change: Change, error: float, work: Work) -> tuple[float, float, str | None]:
    """The bounds of a gain from a sweep, and why to stop."""
    low, high = change[0] - error, change[1] + error
    return low, high, work.verdict(high - low, 2 * error)


def gain_error(sweeps: Sweeps) -> float:
    """The error of T v - v for values of size 1: rounding, and rows whose stored probabilities do not sum to 1."""
    low, high, width, largest = sweeps.survey()
    rounding = UNIT * (width + int(np.diff(sweeps.mdp.row_ptr).max()) + 8) * max(1.0, largest)
    return rounding + max(abs(1 - low), abs(high - 1))


def gain_solution(
    mdp: MDP, work: Work, v: Floats, policy: Policy | Floats, interval: tuple[float, float], reason: str
) -> Solution:
    """The answer; the same bounds for all states."""
    low, high = interval
    return Solution(
        mdp, work.description, 1.0, v - v[0], policy.copy(),
        np.full(mdp.num_states, low), np.full(mdp.num_states, high),
        reason == "converged", reason, work.sweeps, work.seconds, gain=(low + high) / 2,
    )  # fmt: skip


def check_recurring(mdp: MDP) -> None:
    """Raises ConfigError for a model with terminal states."""
    ends = np.flatnonzero(mdp.terminal)
    if ends.size:
        raise ConfigError(
            f"State {mdp.state_name(int(ends[0]))} is terminal ({ends.size} such states); the average reward is of "
            "what goes on for ever. Lead it back to a start state, or take a discount."
        )


def gain_interval(mdp: MDP, inner: Bools, sweeps: int = 500) -> tuple[float, float]:
    """Bounds of the best gain within an end component given by its rows [K], from at most so many sweeps."""
    csr = mdp.csr()
    here = row_states(csr)[inner]
    members, place = np.unique(here, return_inverse=True)
    number = np.full(mdp.num_states, -1, dtype=np.int32)
    number[members] = np.arange(len(members))
    used = np.repeat(inner, np.diff(csr.ptr))
    ptr = np.concatenate([[0], np.cumsum(np.diff(csr.ptr)[inner])])
    row_ptr = np.concatenate([[0], np.cumsum(np.bincount(place, minlength=len(members)))])
    rows = Rows(row_ptr, ptr, number[csr.successors[used]], csr.probabilities[used], csr.rewards[inner])
    nowhere = np.zeros(len(members), dtype=np.bool_)
    part = MDP(rows, nowhere, np.full(len(members), 1 / len(members)))
    scale = float(np.abs(rows.rewards).max())
    found = relative_value_iteration(part, tolerance=1e-9 * scale, max_sweeps=sweeps)
    return float(found.lower[0]), float(found.upper[0])
