"""Episodes of a finite model, sampled by compiled loops: random streams, cumulative probabilities, flat arrays.

A stream is four words of xoshiro256++, one stream per episode (or per run in a fused loop), so that what episode i
draws depends on the seed and on i alone, never on the number of threads or of other episodes. The compiled functions
`uniform`, `below`, `sample_start`, `sample_action`, `sample_successor` may be called from other compiled loops.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import get_num_threads
from numpy.typing import ArrayLike, NDArray

from onepolicy.errors import ConfigError
from onepolicy.tabular.jit import jit

if TYPE_CHECKING:
    from onepolicy.tabular.mdp import MDP, Csr

Array = NDArray[np.float64]
Streams = NDArray[np.uint64]

_17, _19, _23, _41, _45, _11 = (np.uint64(n) for n in (17, 19, 23, 41, 45, 11))
_UNIT = 2.0**-53
_SCAN_UP_TO = 16


class Sampler(NamedTuple):
    """A model and a policy, ready for compiled sampling. S states, K rows (state, action), N transitions.

    start [S]: cumulative start distribution; row_ptr [S+1]: rows of a state; actions [K]: cumulative policy within a
    state; ptr [K+1]: transitions of a row; successors [N]; cumulative [N]: cumulative probability within a row;
    rewards [N]: reward of a transition; terminal [S].
    """

    start: Array
    row_ptr: NDArray[np.int64]
    actions: Array
    ptr: NDArray[np.int64]
    successors: NDArray[np.int32]
    cumulative: Array
    rewards: Array
    terminal: NDArray[np.bool_]


class Episodes(NamedTuple):
    """Episodes one after another in flat arrays of T steps; episode i has the steps ptr[i]:ptr[i+1].

    state, next_state [T]: state before and after the step; row [T]: the (state, action) row taken; reward [T];
    terminated [T]: next_state is terminal; truncated [T]: cut there, next_state still has a value; ptr [E+1];
    runs: the episodes belong to this many independent runs, the same number to each, run after run.
    """

    state: NDArray[np.int32]
    row: NDArray[np.int32]
    reward: Array
    next_state: NDArray[np.int32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    ptr: NDArray[np.int64]
    runs: int


def streams(seed: int, count: int) -> Streams:
    """`count` independent random streams, uint64 [count, 4]; the first m of them are streams(seed, m)."""
    words = np.random.SeedSequence(seed).generate_state(4 * count, np.uint64)
    return words.astype(np.uint64, copy=False).reshape(count, 4)


@jit
def uniform(stream: Streams) -> float:
    """The next number of a stream uint64 [4], uniform in [0, 1) with 53 bits; advances the stream.

    Source: Blackman and Vigna 2021, Scrambled linear pseudorandom number generators: xoshiro256++.
    """
    s0, s1, s2, s3 = stream[0], stream[1], stream[2], stream[3]
    total = s0 + s3
    word = ((total << _23) | (total >> _41)) + s0
    shifted = s1 << _17
    s2 ^= s0
    s3 ^= s1
    stream[1] = s1 ^ s2
    stream[0] = s0 ^ s3
    stream[2] = s2 ^ shifted
    stream[3] = (s3 << _45) | (s3 >> _19)
    return np.float64(word >> _11) * _UNIT


@jit
def below(stream: Streams, n: int) -> int:
    """The next integer of a stream, uniform in 0 .. n-1 (bias below n / 2^53)."""
    return int(uniform(stream) * n)


@jit
def _first_above(cumulative: Array, first: int, last: int, u: float) -> int:
    """The first index in first .. last-1 with u < cumulative[index], cumulative rising to 1 at last-1."""
    if last - first <= _SCAN_UP_TO:
        while u >= cumulative[first]:
            first += 1
        return first
    while first < last - 1:
        middle = (first + last - 1) // 2
        if u < cumulative[middle]:
            last = middle + 1
        else:
            first = middle + 1
    return first


@jit
def sample_start(cumulative_start: Array, u: float) -> int:
    """The start state that u in [0, 1) stands for, by the cumulative start distribution [S]."""
    return _first_above(cumulative_start, 0, cumulative_start.shape[0], u)


@jit
def sample_action(row_ptr: NDArray[np.int64], cumulative_actions: Array, state: int, u: float) -> int:
    """The row (not the local action) of a state that u in [0, 1) stands for, by the cumulative policy [K]."""
    return _first_above(cumulative_actions, row_ptr[state], row_ptr[state + 1], u)


@jit
def sample_successor(ptr: NDArray[np.int64], cumulative: Array, row: int, u: float) -> int:
    """The transition index k of a row that u in [0, 1) stands for; the successor is successors[k]."""
    return _first_above(cumulative, ptr[row], ptr[row + 1], u)


@jit
def _accumulate(ptr: NDArray[np.int64], probabilities: Array, out: Array) -> None:
    for segment in range(ptr.shape[0] - 1):
        total, last = 0.0, ptr[segment]
        for k in range(ptr[segment], ptr[segment + 1]):
            total += probabilities[k]
            out[k] = total
            if probabilities[k] > 0.0:
                last = k
        # rounding must leave neither a gap at the top nor a way to an impossible outcome
        out[last : ptr[segment + 1]] = 1.0


def cumulative_sums(ptr: NDArray[np.int64], probabilities: ArrayLike) -> Array:
    """Cumulative probabilities within each segment ptr[i]:ptr[i+1], ending in exactly 1; float64, same length.

    >>> cumulative_sums(np.array([0, 3, 4]), [0.25, 0.75, 0.0, 1.0])
    array([0.25, 1.  , 1.  , 1.  ])
    """
    values = np.ascontiguousarray(probabilities, dtype=np.float64)
    out = np.empty_like(values)
    _accumulate(np.asarray(ptr, dtype=np.int64), values, out)
    return out


def row_probabilities(csr: Csr, policy: ArrayLike | None) -> Array:
    """A policy as probabilities per row, float64 [K].

    policy: integers [S], the local action of each state (ignored where a state has no actions); numbers [K], a
    probability per row; or None, uniform over the actions of a state.
    Raises: ConfigError for a wrong length, an action that the state does not have, or rows that do not sum to 1.
    """
    row_ptr, num_rows = csr.row_ptr, int(csr.row_ptr[-1])
    counts = np.diff(row_ptr)
    acting = np.flatnonzero(counts)
    if policy is None:
        return np.repeat(1.0 / np.maximum(counts, 1), counts)
    given = np.asarray(policy)
    if given.dtype.kind in "iu":
        return _deterministic(row_ptr, counts, acting, given)
    if given.shape != (num_rows,):
        raise ConfigError(
            f"policy has shape {given.shape}; it needs integers [{len(counts)}], an action per state, or numbers "
            f"[{num_rows}], a probability per (state, action) row."
        )
    probabilities = given.astype(np.float64)
    sums = np.add.reduceat(probabilities, row_ptr[acting]) if len(acting) else np.empty(0)
    wrong = np.flatnonzero(~(np.abs(sums - 1.0) <= 1e-8))
    if len(wrong):
        state = acting[wrong[0]]
        raise ConfigError(f"policy sums to {sums[wrong[0]]:.9g} in state {state}; the probabilities must sum to 1.")
    if np.any(probabilities < 0):
        row = int(np.argmax(probabilities < 0))
        state = int(np.searchsorted(row_ptr, row, side="right")) - 1
        raise ConfigError(f"policy is {probabilities[row]:g} for action {row - row_ptr[state]} of state {state}; >= 0.")
    return probabilities


def _deterministic(
    row_ptr: NDArray[np.int64], counts: NDArray[np.int64], acting: NDArray[np.int64], actions: NDArray[np.int64]
) -> Array:
    if actions.shape != counts.shape:
        raise ConfigError(f"policy has shape {actions.shape}; integers are an action per state, [{len(counts)}].")
    wrong = acting[(actions[acting] < 0) | (actions[acting] >= counts[acting])]
    if len(wrong):
        state = wrong[0]
        raise ConfigError(f"policy takes action {actions[state]} in state {state}, which has 0 .. {counts[state] - 1}.")
    probabilities = np.zeros(int(row_ptr[-1]))
    probabilities[row_ptr[acting] + actions[acting]] = 1.0
    return probabilities


def sampler(mdp: MDP, policy: ArrayLike | None = None) -> Sampler:
    """What the compiled loops need of a model and of a policy (see `row_probabilities`; None is uniform)."""
    csr = mdp.csr()
    states = np.array([0, len(csr.start)])
    return Sampler(
        start=cumulative_sums(states, csr.start),
        row_ptr=np.asarray(csr.row_ptr, dtype=np.int64),
        actions=cumulative_sums(csr.row_ptr, row_probabilities(csr, policy)),
        ptr=np.asarray(csr.ptr, dtype=np.int64),
        successors=np.asarray(csr.successors, dtype=np.int32),
        cumulative=cumulative_sums(csr.ptr, csr.probabilities),
        rewards=np.asarray(csr.transition_rewards, dtype=np.float64),
        terminal=np.asarray(csr.terminal, dtype=np.bool_),
    )


@jit
def _lengths(model: Sampler, seeds: Streams, max_steps: int, first: int, last: int, out: NDArray[np.int64]) -> None:
    for episode in range(first, last):
        stream = seeds[episode].copy()
        state, steps = sample_start(model.start, uniform(stream)), 0
        while steps < max_steps and not model.terminal[state]:
            row = sample_action(model.row_ptr, model.actions, state, uniform(stream))
            state = model.successors[sample_successor(model.ptr, model.cumulative, row, uniform(stream))]
            steps += 1
        out[episode] = steps


@jit
def _fill(model: Sampler, seeds: Streams, first: int, last: int, out: Episodes) -> None:
    for episode in range(first, last):
        stream = seeds[episode].copy()
        state = sample_start(model.start, uniform(stream))
        for t in range(out.ptr[episode], out.ptr[episode + 1]):
            row = sample_action(model.row_ptr, model.actions, state, uniform(stream))
            k = sample_successor(model.ptr, model.cumulative, row, uniform(stream))
            out.state[t], out.row[t], out.reward[t] = state, row, model.rewards[k]
            state = model.successors[k]
            out.next_state[t] = state
            out.terminated[t] = model.terminal[state]
            out.truncated[t] = not model.terminal[state] and t == out.ptr[episode + 1] - 1


def sample_episodes(
    model: Sampler, episodes: int, *, runs: int = 1, seed: int = 0, max_steps: int = 100_000, threads: int | None = None
) -> Episodes:
    """Episodes of each of `runs` runs, all independent; the same numbers for any number of threads.

    Sampled twice from the same streams: once to count the steps, once to write them. An episode that has not ended
    after max_steps is cut there (truncated). Episode e of run r draws from stream r * episodes + e. Memory: 22 bytes
    a step.
    Raises: ConfigError for less than one episode, run or step.
    """
    for name, value in {"episodes": episodes, "runs": runs, "max_steps": max_steps}.items():
        if value < 1:
            raise ConfigError(f"{name} is {value}; sampling needs at least 1.")
    seeds, ptr = streams(seed, runs * episodes), np.zeros(runs * episodes + 1, dtype=np.int64)
    spread(lambda first, last: _lengths(model, seeds, max_steps, first, last, ptr[1:]), runs * episodes, threads)
    np.cumsum(ptr, out=ptr)
    steps = int(ptr[-1])
    out = Episodes(
        state=np.empty(steps, dtype=np.int32),
        row=np.empty(steps, dtype=np.int32),
        reward=np.empty(steps),
        next_state=np.empty(steps, dtype=np.int32),
        terminated=np.empty(steps, dtype=np.bool_),
        truncated=np.empty(steps, dtype=np.bool_),
        ptr=ptr,
        runs=runs,
    )
    spread(lambda first, last: _fill(model, seeds, first, last, out), runs * episodes, threads)
    return out


def spread(work: Callable[[int, int], None], count: int, threads: int | None = None) -> None:
    """Calls work(first, last) for pieces of range(count), at the same time on `threads` threads (default: numba's).

    work must release the interpreter's lock (njit with nogil) and must not let pieces touch the same data.
    """
    threads = min(get_num_threads() if threads is None else threads, count)
    if threads <= 1:
        work(0, count)
        return
    bounds = [count * i // threads for i in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, first, last) for first, last in pairwise(bounds)]:
            done.result()
