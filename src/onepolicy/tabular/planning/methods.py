"""Planners: seven ways to V* of a known model, each with certified bounds and the policy that earns the lower one.

All are one loop: a Bellman sweep gives T v, its greedy policy and the bounds (criteria.py); unless these are near
enough, the method chooses the next v. What a method is, is how it chooses. discount < 1: discounted; discount = 1:
stochastic shortest paths (shortest_path.py), where terminal states end all reward. Not here: finite horizons
(horizon.py), the average reward (average_reward.py), the value of a given policy (policy_value.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from onepolicy.errors import ConfigError, nearest
from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.planning.criteria import Bounds, Discounted, Gap
from onepolicy.tabular.planning.linear_solve import SHARE, correction
from onepolicy.tabular.planning.prioritised import Prioritised
from onepolicy.tabular.planning.programs import program_value
from onepolicy.tabular.planning.shortest_path import ShortestPath
from onepolicy.tabular.planning.solution import Solution, Work
from onepolicy.tabular.planning.sweeps import Change, Sweeps
from onepolicy.tabular.storage import Floats, Generated, Policy, Rows

TOLERANCE = 1e-6
"""How near V* a value has to be, unless said otherwise; in the unit of the rewards."""


class Criterion(Protocol):
    """How near a sweep has come, and the bounds."""

    def look(self, out: Floats, change: Change) -> Gap: ...

    def bounds(self, out: Floats, policy: Policy, change: Change) -> Bounds: ...

    def middle(self, change: Change) -> float: ...

    def lowest(self, change: Change) -> float: ...

    def first_policy(self, out: Floats, policy: Policy) -> Policy: ...


ROUNDS, FOLLOWED = 8, 2
"""Of Gauss-Seidel: rounds between two looks at the bounds, and pairs of policy sweeps in each."""
FEW, NEAR = 300, 0.02
"""Of `suited`: states that are few, and a distance in numbers that is near, as a part of the number of states."""
Choice = Callable[[Floats, Floats, Policy, Change], tuple[Floats, Floats]]
"""The next v and an array to write into, from v, T v, the greedy policy and the change."""
Method = Callable[[Sweeps, Criterion, Work], Choice]


def plan(
    mdp: MDP,
    discount: float,
    method: str = "auto",
    *,
    tolerance: float = TOLERANCE,
    initial: ArrayLike | None = None,
    max_sweeps: int | None = None,
    time_limit: float | None = None,
    threads: int | None = None,
) -> Solution:
    """V* by a method of `METHODS`, or by one that suits the model ("auto", `suited`).

    discount: in [0, 1); 1 for stochastic shortest paths. tolerance: the certified distance from V* to stop at.
    initial: a value [S] to start from (default 0), such as that of a solution before. max_sweeps, time_limit (seconds):
    to stop at, with whatever bounds there are then. threads: default numba's number.
    Raises: ConfigError for an unknown method, a discount outside [0, 1], or one of 1 where some state cannot end.
    """
    if method not in METHODS and method != "auto":
        raise ConfigError(f"method is {method!r}. {nearest(method, ['auto', *METHODS])}")
    if not 0 <= discount <= 1:
        raise ConfigError(f"discount is {discount}; it is from 0 to 1.")
    method = suited(mdp, discount) if method == "auto" else method
    with Work(method, tolerance, max_sweeps=max_sweeps, time_limit=time_limit) as work:
        criterion: Criterion
        if discount == 1:
            path = ShortestPath(mdp, threads=threads, work=work)
            sweeps, criterion, first = path.sweeps, path, path.reduced(starting_value(mdp, initial))
        else:
            sweeps = Sweeps(mdp, discount, threads)
            criterion, first = Discounted(sweeps), starting_value(mdp, initial)
        with sweeps:
            choose = METHODS[method](sweeps, criterion, work)
            bounds, reason = iterate(sweeps, criterion, choose, work, first, fresh=initial is None)
        return solution_of(mdp, method, discount, bounds, reason, work)


def iterate(
    sweeps: Sweeps, criterion: Criterion, choose: Choice, work: Work, v: Floats, *, fresh: bool
) -> tuple[Bounds, str]:
    """The loop of all planners: sweep, look, choose. Returns the last bounds and why they are the last.

    fresh: v is no guess of the caller's; the first T v is taken to its lower bound where that helps.
    """
    out, policy = np.empty_like(v), np.zeros(len(v), dtype=np.int32)
    while True:
        change = sweeps.optimal(v, out, policy)
        work.sweeps += 1
        reason = work.verdict(*criterion.look(out, change))
        if reason is not None:
            return criterion.bounds(out, policy, change), reason
        if fresh:
            out += np.where(sweeps.mdp.terminal, 0.0, criterion.lowest(change))
            fresh = False
        v, out = choose(v, out, policy, change)


def solution_of(mdp: MDP, method: str, discount: float, bounds: Bounds, reason: str, work: Work) -> Solution:
    """The answer."""
    policy = np.where(mdp.terminal, -1, bounds.policy).astype(np.int32)
    gap = bounds.upper - bounds.lower
    converged = reason == "converged" and bool(np.all(gap <= 2.001 * work.tolerance))
    return Solution(
        mdp, method, discount, bounds.value, policy, bounds.lower, bounds.upper,
        converged, reason, work.sweeps, work.seconds,
    )  # fmt: skip


def value_iteration(sweeps: Sweeps, criterion: Criterion, work: Work) -> Choice:
    """v <- T v, all states at once.

    Stops on the span of T v - v, not its norm, because the bounds do. Source: Bellman 1957; Puterman 1994, section 6.6.
    """
    return lambda v, out, policy, change: (out, v)


def gauss_seidel(sweeps: Sweeps, criterion: Criterion, work: Work) -> Choice:
    """v(s) <- (T v)(s), state after state, each with the newest values; sweeps forwards and backwards in turn.

    After each pair of these, pairs of T_pi alone, one action a state, for as long as they gain.
    Best where states are numbered along the ways that lead through them, as on grids. One thread.
    Source: Puterman 1994, sections 6.3.3 and 6.5.
    """

    def choose(v: Floats, out: Floats, policy: Policy, change: Change) -> tuple[Floats, Floats]:
        out += np.where(sweeps.mdp.terminal, 0.0, criterion.middle(change))
        goal = 0.03 * max(abs(change[0]), abs(change[1]))
        for count in range(ROUNDS):
            for follow in (False,) + (True,) * (FOLLOWED if count and sweeps.discount < 1 else 0):
                left = [sweeps.in_place(out, policy, backwards=back, follow=follow) for back in (True, False)]
                work.sweeps += 2 * sweeps.share if follow else 2
            if max(left) <= goal or work.over():
                break
        return out, v

    return choose


def prioritised_sweeping(sweeps: Sweeps, criterion: Criterion, work: Work) -> Choice:
    """State by state, that with the greatest change first, each pushing those it can be reached from.

    Pays where few states have rewards. One thread; needs the ragged arrays and their reverse.
    Source: Moore and Atkeson 1993; Sutton and Barto 2018, section 8.4, with full backups.
    """
    queue = Prioritised(sweeps)

    def choose(v: Floats, out: Floats, policy: Policy, change: Change) -> tuple[Floats, Floats]:
        out += np.where(sweeps.mdp.terminal, 0.0, criterion.middle(change))
        least = max(abs(change[0]), abs(change[1])) / 30
        while not work.over():
            backups, done = queue.drain(out, least)
            work.sweeps += backups / max(1, sweeps.num_states)
            if done:
                break
        return out, v

    return choose


def policy_iteration(sweeps: Sweeps, criterion: Criterion, work: Work) -> Choice:
    """v <- V^pi of the greedy policy, by a linear solve: dense for small models, Krylov's BiCGSTAB for large ones.

    An action is changed only for a better one, so that a policy that ends is followed by one that ends.
    Source: Howard 1960; Puterman 1994, section 6.4; van der Vorst 1992 for BiCGSTAB.
    """
    current: Policy | None = None

    def choose(v: Floats, out: Floats, policy: Policy, change: Change) -> tuple[Floats, Floats]:
        nonlocal current
        if current is None:
            current = criterion.first_policy(out, policy)
        kept = np.empty_like(v)
        sweeps.follow(v, kept, current)
        work.sweeps += sweeps.share
        better = out > kept + 1e-12 * np.abs(kept)
        current = np.where(better, policy, current)
        residual = np.where(better, out, kept) - v
        return v + correction(sweeps, residual, current, work, share=SHARE), out

    return choose


def modified_policy_iteration(sweeps: Sweeps, criterion: Criterion, work: Work) -> Choice:
    """v <- T_pi^m T v of the greedy policy: m cheap sweeps between the dear ones.

    The cheap sweeps stop when the span of their change has fallen to a tenth, or at a most, which is halved when all
    they did was no gain: without discount a policy that does not end can lead astray, and T alone does not.
    Source: Puterman and Shin 1978; Puterman 1994, section 6.5.
    """

    most, least = 200, np.inf

    def choose(v: Floats, out: Floats, policy: Policy, change: Change) -> tuple[Floats, Floats]:
        nonlocal most, least
        span = change[1] - change[0]
        most = most if span < least else most // 2
        least = min(least, span)
        for _ in range(most):
            low, high = sweeps.follow(out, v, policy)
            work.sweeps += sweeps.share
            v, out = out, v
            if high - low <= 0.1 * span or work.over():
                break
        return out, v

    return choose


def linear_program(sweeps: Sweeps, criterion: Criterion, work: Work) -> Choice:
    """The least v with v >= T v, by scipy's HiGHS; sweeps of value iteration take it on from the solver's tolerance.

    min sum_s v(s) subject to v(s) - discount sum_s' p(s'|s, a) v(s') >= r(s, a) for every row.
    Source: d'Epenoux 1960; Puterman 1994, section 6.9.
    """
    solved = False

    def choose(v: Floats, out: Floats, policy: Policy, change: Change) -> tuple[Floats, Floats]:
        nonlocal solved
        if solved:
            return out, v
        solved = True
        return program_value(sweeps.mdp, sweeps.discount, work), v

    return choose


METHODS: dict[str, Method] = {
    "value-iteration": value_iteration,
    "gauss-seidel": gauss_seidel,
    "prioritised-sweeping": prioritised_sweeping,
    "policy-iteration": policy_iteration,
    "modified-policy-iteration": modified_policy_iteration,
    "linear-program": linear_program,
}


def starting_value(mdp: MDP, initial: ArrayLike | None) -> Floats:
    """The value to start from: 0 in terminal states."""
    if initial is None:
        return np.zeros(mdp.num_states)
    v = np.array(initial, dtype=np.float64)
    if v.shape != (mdp.num_states,) or not np.isfinite(v).all():
        raise ConfigError(f"initial has shape {v.shape}; give a finite value for each of {mdp.num_states} states.")
    v[mdp.terminal] = 0
    return v


def suited(mdp: MDP, discount: float) -> str:
    """The method that is likely the fastest.

    Few states: policy iteration, exact. Where rows end and successors have near numbers, as on grids: Gauss-Seidel.
    Else modified policy iteration; without discount Gauss-Seidel, which does not depend on policies that end.
    """
    if mdp.num_states <= FEW:
        return "policy-iteration"
    if discount == 1:
        return "gauss-seidel"
    if not mdp.terminal.any():
        return "modified-policy-iteration"
    distances = [abs(t - s) for s, t in sampled_steps(mdp)]
    return "gauss-seidel" if np.median(distances) <= NEAR * mdp.num_states else "modified-policy-iteration"


def sampled_steps(mdp: MDP, count: int = 1000) -> list[tuple[int, int]]:
    """A state and where the first outcome of its first action leads, for about `count` states spread evenly."""
    acting = np.flatnonzero(~mdp.terminal)
    model = mdp.storage
    pairs = []
    for s in acting[:: max(1, len(acting) // count)].tolist():
        if isinstance(model, Rows):
            pairs.append((s, int(model.successors[model.ptr[model.row_ptr[s]]])))
        elif isinstance(model, Generated):
            pairs.append((s, int(model.outcome(s, 0, 0)[0])))
        else:
            pairs.append((s, int(model.successors[s, 0].reshape(-1)[0])))
    return pairs
