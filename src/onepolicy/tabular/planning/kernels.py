"""One sweep over the states of a model, compiled for each storage: the Bellman operators and what is read off a row.

Every sweep works on states first .. last - 1, so that threads can share one; all release the interpreter's lock. A
terminal state has no rows and the value 0. Indices are unsigned: numba then knows that none counts from the end, and
the loops are several times faster. `num_actions`, `num_outcomes`, `transition` and `backup` are how a sweep
reads a model; numba chooses theirs by the storage's type.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numba.extending import overload

from onepolicy.tabular.jit import jit
from onepolicy.tabular.storage import Bools, Floats, Ints, Padded, Policy, Rows, Storage, Table

U = np.uint64
Index: TypeAlias = int | np.uint64


def num_actions(model: Storage, s: Index) -> int:
    """The number of actions of state s."""
    raise NotImplementedError


def num_outcomes(model: Storage, s: Index, a: Index) -> int:
    """The number of stored transitions of a row, those of probability 0 included."""
    raise NotImplementedError


def transition(model: Storage, s: Index, a: Index, j: Index) -> tuple[int, float, float]:
    """The j-th transition of a row: successor, probability, reward (that of the row where only that is stored)."""
    raise NotImplementedError


def backup(model: Storage, s: Index, a: Index, v: Floats) -> tuple[float, float]:
    """The expected reward of a row and the expected v of what follows it."""
    raise NotImplementedError


@overload(num_actions, strict=False)
def _num_actions(model: Any, s: Any) -> Callable[..., Any]:
    if model.instance_class is Rows:
        return lambda model, s: model.row_ptr[U(s) + U(1)] - model.row_ptr[U(s)]
    return lambda model, s: np.int64(model.counts[U(s)])


@overload(num_outcomes, strict=False)
def _num_outcomes(model: Any, s: Any, a: Any) -> Callable[..., Any]:
    if model.instance_class is Rows:

        def of_rows(model: Rows, s: int, a: int) -> Any:
            k = U(model.row_ptr[U(s)]) + U(a)
            return model.ptr[k + U(1)] - model.ptr[k]

        return of_rows
    if model.instance_class is Padded:
        return lambda model, s, a: model.successors.shape[2]
    if model.instance_class is Table:
        return lambda model, s, a: 1
    return lambda model, s, a: model.width


@overload(transition, strict=False)
def _transition(model: Any, s: Any, a: Any, j: Any) -> Callable[..., Any]:
    if model.instance_class is Rows:

        def of_rows(model: Rows, s: int, a: int, j: int) -> Any:
            k = U(model.row_ptr[U(s)]) + U(a)
            i = U(model.ptr[k]) + U(j)
            return np.int64(model.successors[i]), np.float64(model.probabilities[i]), model.rewards[k]

        return of_rows
    if model.instance_class is Padded:

        def of_padded(model: Padded, s: int, a: int, j: int) -> Any:
            at = U(s), U(a), U(j)
            return np.int64(model.successors[at]), np.float64(model.probabilities[at]), model.rewards[U(s), U(a)]

        return of_padded
    if model.instance_class is Table:
        return lambda model, s, a, j: (np.int64(model.successors[U(s), U(a)]), 1.0, model.rewards[U(s), U(a)])

    def of_function(model: Any, s: int, a: int, j: int) -> Any:
        t, p, r = model.outcome(np.int64(s), np.int64(a), np.int64(j))
        return np.int64(t), np.float64(p), np.float64(r)

    return of_function


@overload(backup, strict=False)
def _backup(model: Any, s: Any, a: Any, v: Any) -> Callable[..., Any]:
    if model.instance_class is Rows:

        def of_rows(model: Rows, s: int, a: int, v: Floats) -> tuple[float, float]:
            k = U(model.row_ptr[U(s)]) + U(a)
            first, following = U(model.ptr[k]), 0.0
            for j in range(model.ptr[k + U(1)] - model.ptr[k]):
                i = first + U(j)
                following += model.probabilities[i] * v[U(model.successors[i])]
            return model.rewards[k], following

        return of_rows
    if model.instance_class is Padded:

        def of_padded(model: Padded, s: int, a: int, v: Floats) -> tuple[float, float]:
            following = 0.0
            for j in range(model.successors.shape[2]):
                at = U(s), U(a), U(j)
                following += model.probabilities[at] * v[U(model.successors[at])]
            return model.rewards[U(s), U(a)], following

        return of_padded
    if model.instance_class is Table:
        return lambda model, s, a, v: (model.rewards[U(s), U(a)], v[U(model.successors[U(s), U(a)])])

    def of_function(model: Any, s: int, a: int, v: Floats) -> tuple[float, float]:
        reward, following = 0.0, 0.0
        for j in range(model.width):
            t, p, r = model.outcome(np.int64(s), np.int64(a), np.int64(j))
            reward += p * r
            following += p * v[U(t)]
        return reward, following

    return of_function


@jit(inline="always")
def widened(low: float, high: float, change: float, counts: bool) -> tuple[float, float]:
    """The interval, widened to hold a change that counts."""
    return (min(low, change), max(high, change)) if counts else (low, high)


@jit(inline="always")
def best_row(model: Storage, s: Index, v: Floats, discount: float) -> tuple[float, int]:
    """max_a r(s, a) + discount sum_s' p(s'|s, a) v(s') and its first best action; 0 and 0 where there is none."""
    best, choice, n = -np.inf, 0, num_actions(model, s)
    for a in range(n):
        reward, following = backup(model, s, a, v)
        q = reward + discount * following
        if q > best:
            best, choice = q, a
    return (best, choice) if n > 0 else (0.0, 0)


@jit
def optimal_sweep(
    model: Storage, v: Floats, discount: float, first: int, last: int, out: Floats, policy: Policy
) -> tuple[float, float]:
    """out = T v, policy = its first best action; least and greatest of T v - v over the states with actions."""
    low, high = np.inf, -np.inf
    for i in range(last - first):
        s = U(first) + U(i)
        out[s], policy[s] = best_row(model, s, v, discount)
        low, high = widened(low, high, out[s] - v[s], num_actions(model, s) > 0)
    return low, high


@jit
def policy_sweep(
    model: Storage, v: Floats, discount: float, first: int, last: int, out: Floats, policy: Policy
) -> tuple[float, float]:
    """out = T_pi v for one action a state; least and greatest of T_pi v - v over the states with actions."""
    low, high = np.inf, -np.inf
    for i in range(last - first):
        s = U(first) + U(i)
        new, acts = 0.0, num_actions(model, s) > 0
        if acts:
            reward, following = backup(model, s, policy[s], v)
            new = reward + discount * following
        low, high = widened(low, high, new - v[s], acts)
        out[s] = new
    return low, high


@jit
def soft_sweep(
    model: Storage, v: Floats, discount: float, first: int, last: int, out: Floats, temperature: float
) -> tuple[float, float]:
    """out(s) = temperature log sum_a exp(q(s, a) / temperature), in one pass; least and greatest change."""
    low, high = np.inf, -np.inf
    for i in range(last - first):
        s = U(first) + U(i)
        best, total, n = -np.inf, 0.0, num_actions(model, s)
        for a in range(n):
            reward, following = backup(model, s, a, v)
            q = reward + discount * following
            if q > best:
                total = total * np.exp((best - q) / temperature) + 1.0
                best = q
            else:
                total += np.exp((q - best) / temperature)
        out[s] = best + temperature * np.log(total) if n > 0 else 0.0
        low, high = widened(low, high, out[s] - v[s], n > 0)
    return low, high


@jit
def optimal_in_place(
    model: Storage, v: Floats, discount: float, first: int, last: int, step: int, policy: Policy
) -> float:
    """v(s) = (T v)(s) with the newest values of the others, in the order first, first + step, ...; greatest change."""
    greatest = 0.0
    for i in range(first, last, step):
        s = U(i)
        new, policy[s] = best_row(model, s, v, discount)
        greatest = max(greatest, abs(new - v[s]))
        v[s] = new
    return greatest


@jit
def policy_in_place(
    model: Storage, v: Floats, discount: float, first: int, last: int, step: int, policy: Policy
) -> float:
    """v(s) = (T_pi v)(s) with the newest values of the others, as in `optimal_in_place`."""
    greatest = 0.0
    for i in range(first, last, step):
        s = U(i)
        if num_actions(model, s) > 0:
            reward, following = backup(model, s, policy[s], v)
            new = reward + discount * following
            greatest = max(greatest, abs(new - v[s]))
            v[s] = new
    return greatest


@jit
def action_values(
    model: Storage, v: Floats, discount: float, first: int, last: int, out: Floats, row_ptr: Ints
) -> None:
    """out [K] = r + discount P v, row by row."""
    for s in range(first, last):
        for a in range(num_actions(model, s)):
            reward, following = backup(model, s, a, v)
            out[row_ptr[s] + a] = reward + discount * following


@jit
def survey(model: Storage, terminal: Bools, first: int, last: int) -> tuple[float, float, int, float, int, int, float]:
    """What bounds and checks need to know of a model.

    Least and greatest probability, over rows, of going on to a state that is not terminal; most transitions of a row;
    greatest |reward|; a state and an action that are wrong (-1: none) and the sum of the probabilities there.
    """
    low, high, width, largest = np.inf, 0.0, 0, 0.0
    for s in range(first, last):
        for a in range(num_actions(model, s)):
            total, going, count = 0.0, 0.0, 0
            for j in range(num_outcomes(model, s, a)):
                t, p, r = transition(model, s, a, j)
                if p == 0.0:
                    continue
                if not (0 <= t < len(terminal) and 0.0 < p < 1.0 + 1e-6 and abs(r) < np.inf):
                    return low, high, width, largest, s, a, p
                count += 1
                total += p
                largest = max(largest, abs(r))
                if not terminal[t]:
                    going += p
            if not abs(total - 1.0) <= 1e-6:
                return low, high, width, largest, s, a, total
            low, high, width = min(low, going), max(high, going), max(width, count)
    return low, high, width, largest, -1, -1, 0.0


@jit
def count_rows(model: Storage, states: int, row_ptr: Ints) -> tuple[int, int]:
    """row_ptr [S + 1] filled; the number of transitions of positive probability, and the most of a row."""
    transitions, width = 0, 0
    for s in range(states):
        n = num_actions(model, s)
        row_ptr[s + 1] = row_ptr[s] + n
        for a in range(n):
            count = 0
            for j in range(num_outcomes(model, s, a)):
                _, p, _ = transition(model, s, a, j)
                count += p > 0.0
            transitions += count
            width = max(width, count)
    return transitions, width


@jit
def fill_rows(model: Storage, states: int, rows: Rows, transition_rewards: Floats, zeros: Floats) -> None:
    """The ragged storage of any model, its row_ptr as `count_rows` left it; zeros [S]."""
    k, i = 0, 0
    for s in range(states):
        for a in range(num_actions(model, s)):
            for j in range(num_outcomes(model, s, a)):
                t, p, r = transition(model, s, a, j)
                if p > 0.0:
                    rows.successors[i], rows.probabilities[i], transition_rewards[i] = t, p, r
                    i += 1
            rows.rewards[k] = backup(model, s, a, zeros)[0]
            k += 1
            rows.ptr[k] = i


@jit
def fill_padded(model: Rows, states: int, padded: Padded) -> None:
    """The rectangular storage of a ragged one; padding repeats a successor with probability 0."""
    for s in range(states):
        padded.counts[s] = num_actions(model, s)
        for a in range(num_actions(model, s)):
            padded.rewards[s, a] = model.rewards[model.row_ptr[s] + a]
            n = num_outcomes(model, s, a)
            for j in range(padded.successors.shape[2]):
                t, p, _ = transition(model, s, a, min(j, n - 1))
                padded.successors[s, a, j] = t
                padded.probabilities[s, a, j] = p if j < n else 0.0


@jit
def count_chosen(model: Storage, states: int, policy: Policy, ptr: Ints) -> None:
    """ptr [S + 1]: the number of transitions of the chosen rows, added up."""
    for s in range(states):
        ptr[s + 1] = ptr[s] + (num_outcomes(model, s, policy[s]) if num_actions(model, s) > 0 else 0)


@jit
def fill_chosen(
    model: Storage, states: int, policy: Policy, ptr: Ints, successors: Ints, probabilities: Floats
) -> None:
    """The transitions of the chosen rows, those of probability 0 included."""
    for s in range(states):
        for i in range(ptr[s + 1] - ptr[s]):
            t, p, _ = transition(model, s, policy[s], i)
            successors[ptr[s] + i], probabilities[ptr[s] + i] = t, p
