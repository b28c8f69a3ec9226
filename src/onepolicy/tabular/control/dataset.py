"""Control from a fixed data set: value iteration on its counts, Q-learning on its transitions, both with pessimism.

The course's rule, repeated until it changes nothing,

    Q(s, a) <- 1/N(s, a) sum_{i: s_i = s, a_i = a} (r_i + gamma V(s'_i)),    V(s) <- max_a Q(s, a),

is value iteration on the empirical model. What was never tried has no Q by this rule: `unseen` says what becomes of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import numpy as np
from numpy.typing import NDArray

from onepolicy.errors import ConfigError, DataError
from onepolicy.tabular.control.settings import fraction
from onepolicy.tabular.control.step import Floats, Ints, update
from onepolicy.tabular.dataset import Coverage, Dataset, named
from onepolicy.tabular.jit import jit
from onepolicy.tabular.simulate import below, streams

Unseen = Literal["exclude", "floor", "raise"]


@final
@dataclass(frozen=True, eq=False)
class DatasetSolution:
    """Control from a data set of S states and K pairs (state, action).

    q [K]: NaN for excluded pairs. values [S]: max_a Q over the pairs that count; the floor in dead ends, 0 in terminal
    states. policy [S]: the greedy action, -1 where none counts. change: the last sweep's largest change of Q. bound:
    of |Q - its fixed point|, inf where gamma is 1. sweeps: over the data. coverage: what the data say nothing of.
    """

    q: Floats
    values: Floats
    policy: Ints
    change: float
    bound: float
    sweeps: int
    coverage: Coverage


def value_iteration_from(
    data: Dataset,
    *,
    gamma: float,
    unseen: Unseen = "exclude",
    floor: float | None = None,
    penalty: float = 0.0,
    tolerance: float = 1e-10,
    max_sweeps: int = 100_000,
) -> DatasetSolution:
    """Value iteration on a data set: the rule of this module's head, pair by pair in place, until Q stands still.

    unseen: "exclude" leaves pairs never tried out of every maximum; "floor" values them at `floor`; "raise" refuses a
    data set that has any. floor: the least a state can be worth, by default min reward / (1 - gamma) (or 0 if rewards
    are positive); dead ends are worth it in either case, and no pair less. penalty: c of c / sqrt(N(s, a)), taken off
    each target (`hoeffding_penalty` for one under which Q is, with high probability, a lower bound).
    Stops when a sweep's change bounds the error by `tolerance`, or, for gamma 1, is below it.
    Raises: ConfigError for a gamma outside [0, 1], a negative penalty, or gamma 1 without a floor where one is needed;
    DataError for unseen pairs where they are refused, by name, and when max_sweeps do not suffice.
    Source: the course's Q-learning from a data set; the penalty: Rashidinejad et al. 2021 (arXiv 2103.12021), VI-LCB.
    """
    coverage, bottom = prepared(data, gamma, unseen, floor)
    if not penalty >= 0.0:
        raise ConfigError(f"penalty is {penalty}; it is taken off, so it is at least 0.")
    ptr, following, times = merged(data)
    tries = np.maximum(coverage.counts, 1)
    means = np.bincount(data.row, weights=data.reward, minlength=data.num_rows) / tries - penalty / np.sqrt(tries)
    q, values, counts_in = blank(data, coverage, unseen, bottom)
    least = bottom if penalty > 0.0 else -np.inf
    stop = tolerance if gamma in (0.0, 1.0) else tolerance * (1.0 - gamma) / gamma
    model = (data.row_ptr, ptr, following, times / np.repeat(tries, np.diff(ptr)), coverage.counts, means, counts_in)
    sweeps, change = _iterate(*model, gamma, least, stop, max_sweeps, q, values)
    if sweeps == max_sweeps and change > stop:
        raise DataError(
            f"after {sweeps} sweeps Q still changes by {change:.3g}, more than {stop:.3g}. Raise max_sweeps; with "
            "gamma 1, the data may hold a loop of rewards that never ends."
        )
    bound = np.inf if gamma == 1.0 else change * gamma / (1.0 - gamma)
    return solution(data, coverage, q, values, counts_in, change, bound, sweeps)


def q_learning_from(
    data: Dataset,
    *,
    gamma: float,
    sweeps: int,
    alpha: float = 1.0,
    alpha_power: float = 0.7,
    unseen: Unseen = "exclude",
    floor: float | None = None,
    seed: int = 0,
) -> DatasetSolution:
    """Q-learning on a data set: Q(s, a) += alpha_n (r + gamma max_a' Q(s', a') - Q(s, a)) on transitions drawn from it.

    `sweeps` times N transitions are drawn, each as likely, with step alpha / n^alpha_power at a pair's n-th update. Its
    limit is `value_iteration_from` without a penalty. `change`: the largest difference of Q from one application of
    the module's rule to it; `bound`: change / (1 - gamma). Other arguments and errors: as there.
    """
    coverage, bottom = prepared(data, gamma, unseen, floor)
    if sweeps < 1:
        raise ConfigError(f"sweeps is {sweeps}; there must be at least 1. Set sweeps >= 1.")
    if not 0.0 < alpha <= 1.0:
        raise ConfigError(f"alpha is {alpha}; a step size is in (0, 1]. Set 0 < alpha <= 1.")
    fraction("alpha_power", alpha_power)
    q, values, counts_in = blank(data, coverage, unseen, bottom)
    following = np.where(data.terminated, -1, data.next_state)
    state, stream = data.state_of(np.arange(data.num_rows)), streams(seed, 1)[0]
    visits, draws = np.zeros(data.num_rows, dtype=np.int64), sweeps * len(data.row)
    rates = (gamma, alpha, alpha_power, draws)
    _replay(data.row_ptr, state, data.row, data.reward, following, counts_in, *rates, stream, q, values, visits)
    targets = data.reward + gamma * np.where(data.terminated, 0.0, values[data.next_state])
    means = np.bincount(data.row, weights=targets, minlength=data.num_rows) / np.maximum(coverage.counts, 1)
    change = float(np.max(np.abs(means - q)[coverage.counts > 0]))
    bound = np.inf if gamma == 1.0 else change / (1.0 - gamma)
    return solution(data, coverage, q, values, counts_in, change, bound, sweeps)


def hoeffding_penalty(data: Dataset, *, gamma: float, delta: float = 0.05, span: float | None = None) -> float:
    """The c for which Q of `value_iteration_from(penalty=c)` is below Q of its own policy, with probability 1 - delta.

    c = b sqrt(ln(K / delta) / 2), b = span of a target r + gamma V(s'): by default (max reward - min reward) / (1 -
    gamma), rewards taken from the data (with 0 among them, as the value of an end). Hoeffding's inequality for each of
    the K pairs at fixed V; as V comes from the same data, the guarantee is the customary one, not a strict one.
    Raises: ConfigError for gamma 1 without a span, or delta outside (0, 1).
    Source: Hoeffding 1963; Rashidinejad et al. 2021 (arXiv 2103.12021), algorithm 1.
    """
    if not 0.0 < delta < 1.0:
        raise ConfigError(f"delta is {delta}; a probability of failure is in (0, 1).")
    if span is None:
        if gamma >= 1.0:
            raise ConfigError("gamma is 1 and there is no span; values have no bound then. Give span, in reward units.")
        span = (max(data.reward.max(), 0.0) - min(data.reward.min(), 0.0)) / (1.0 - gamma)
    return float(span * np.sqrt(np.log(data.num_rows / delta) / 2.0))


def merged(data: Dataset) -> tuple[Ints, Ints, Ints]:
    """(ptr [K+1], next states, how often each): the distinct continuations of each row, ends left out."""
    goes_on = ~data.terminated
    key, times = np.unique(data.row[goes_on] * data.num_states + data.next_state[goes_on], return_counts=True)
    row, following = np.divmod(key, data.num_states)
    return np.concatenate([[0], np.cumsum(np.bincount(row, minlength=data.num_rows))]), following, times


def prepared(data: Dataset, gamma: float, unseen: Unseen, floor: float | None) -> tuple[Coverage, float]:
    """The coverage and the floor, checked."""
    fraction("gamma", gamma)
    if unseen not in ("exclude", "floor", "raise"):
        raise ConfigError(f"unseen is {unseen!r}; it is 'exclude', 'floor' or 'raise'.")
    coverage = data.coverage()
    if unseen == "raise" and len(coverage.unseen):
        raise DataError(
            f"the data set never tries {named(coverage.unseen)}. Collect those, or take unseen='exclude' or 'floor'."
        )
    if floor is not None:
        return coverage, float(floor)
    if gamma < 1.0:
        return coverage, min(float(data.reward.min()), 0.0) / (1.0 - gamma)
    if len(coverage.dead_ends) or (unseen == "floor" and len(coverage.unseen)):
        raise ConfigError("gamma is 1, so that the least a state can be worth is not known. Give floor.")
    return coverage, -np.inf


def blank(data: Dataset, coverage: Coverage, unseen: Unseen, floor: float) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Q [K] and V [S] before the first sweep, and which rows count in a maximum [K]."""
    counts_in = coverage.counts > 0
    q = np.zeros(data.num_rows)
    if unseen == "floor":
        rows = data.row_ptr[coverage.unseen[:, 0]] + coverage.unseen[:, 1]
        counts_in[rows], q[rows] = True, floor
    values = np.zeros(data.num_states)
    values[coverage.dead_ends] = floor
    for state in range(data.num_states):
        _lift(data.row_ptr, state, counts_in, q, values)
    return q, values, counts_in


def solution(
    data: Dataset,
    coverage: Coverage,
    q: Floats,
    values: Floats,
    counts_in: NDArray[np.bool_],
    change: float,
    bound: float,
    sweeps: int,
) -> DatasetSolution:
    """The result, with the greedy policy and NaN for the pairs that do not count."""
    policy = np.full(data.num_states, -1, dtype=np.int64)
    shown = np.where(counts_in, q, np.nan)
    for state, (first, last) in enumerate(zip(data.row_ptr, data.row_ptr[1:])):
        if counts_in[first:last].any():
            policy[state] = np.nanargmax(shown[first:last])
    return DatasetSolution(shown, values, policy, change, float(bound), sweeps, coverage)


@jit
def _lift(row_ptr: Ints, state: int, counts_in: NDArray[np.bool_], q: Floats, values: Floats) -> None:
    """V(s) <- max_a Q(s, a) over the rows that count; left as it is where none does."""
    top, any_counts = 0.0, False
    for row in range(row_ptr[state], row_ptr[state + 1]):
        if counts_in[row] and (not any_counts or q[row] > top):
            top, any_counts = q[row], True
    if any_counts:
        values[state] = top


@jit
def _iterate(
    row_ptr: Ints,
    ptr: Ints,
    following: Ints,
    shares: Floats,
    counts: Ints,
    means: Floats,
    counts_in: NDArray[np.bool_],
    gamma: float,
    least: float,
    stop: float,
    max_sweeps: int,
    q: Floats,
    values: Floats,
) -> tuple[int, float]:
    """Sweeps of value iteration in place: (sweeps, the last one's largest change).

    ptr [K+1]: the next states of a row; following, shares: which they are, and how often of all times. means [K]:
    rewards, penalty off; counts [K]: 0 where a row keeps its Q. It also ends where a change is no more than rounding.
    """
    change, sweeps, largest = np.inf, 0, 0.0
    while sweeps < max_sweeps and change > max(stop, 1e-15 * largest):
        change = 0.0
        sweeps += 1
        for state in range(row_ptr.shape[0] - 1):
            for row in range(row_ptr[state], row_ptr[state + 1]):
                if counts[row] == 0:
                    continue
                target = means[row]
                for i in range(ptr[row], ptr[row + 1]):
                    target += gamma * shares[i] * values[following[i]]
                target = max(target, least)
                change, largest = max(change, abs(target - q[row])), max(largest, abs(target))
                q[row] = target
            _lift(row_ptr, state, counts_in, q, values)
    return sweeps, change


@jit
def _replay(
    row_ptr: Ints,
    state: Ints,
    rows: Ints,
    rewards: Floats,
    following: Ints,
    counts_in: NDArray[np.bool_],
    gamma: float,
    alpha: float,
    power: float,
    draws: int,
    stream: NDArray[np.uint64],
    q: Floats,
    values: Floats,
    visits: Ints,
) -> None:
    """`draws` updates of Q-learning on transitions drawn from the data; V is kept up to date."""
    for _ in range(draws):
        i = below(stream, rows.shape[0])
        target = rewards[i]
        if following[i] >= 0:
            target += gamma * values[following[i]]
        update(q, visits, rows[i], target, alpha, power)
        _lift(row_ptr, state[rows[i]], counts_in, q, values)
