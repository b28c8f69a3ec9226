"""Compiled updates of a linear value v(s) = w . x(s) along episodes: what learners.py and linear.py are made of.

A table is the case of one feature a state. Every loop takes runs first .. last-1 of a `Job`, starts each from its row
of weights [R, d], changes it in place, and writes the error after every episode. Equations and sources are with the
functions that users call.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onepolicy.tabular.features import Features
from onepolicy.tabular.jit import jit
from onepolicy.tabular.simulate import Episodes

Array = NDArray[np.float64]


class Job(NamedTuple):
    """What all loops share. S states, K rows, d features.

    ratio [K]: target over behaviour probability of a row, or empty: on-policy. The n-th update (from 0) under a
    counter has the step size step / (1 + decay n); counter [S]: which counter a state's updates advance. truth,
    weighting [S]: errors are sqrt(sum_s weighting(s) (v(s) - truth(s))^2); empty: not computed.
    """

    episodes: Episodes
    features: Features
    ratio: Array
    discount: float
    step: float
    decay: float
    counter: NDArray[np.int64]
    truth: Array
    weighting: Array


class Trace(NamedTuple):
    """An eligibility trace [d]; the entries in use are the first length[0] of `used`, those marked in `listed`."""

    value: Array
    used: NDArray[np.int64]
    listed: NDArray[np.bool_]
    length: NDArray[np.int64]


def compiled(function: Any) -> Any:
    """The function as machine code that releases the interpreter's lock; kept on disk."""
    return jit(function)


def helper(function: Any) -> Any:
    """A compiled function that allocates nothing, so that it may go without counting references to its arrays: counting
    those of a `Job` at every call takes five times as long as an update."""
    return jit(function, _nrt=False)


@helper
def value(job: Job, state: int, w: Array) -> float:
    """w . x(s)."""
    x, total = job.features, 0.0
    for k in range(x.ptr[state], x.ptr[state + 1]):
        total += x.value[k] * w[x.column[k]]
    return total


@helper
def add(job: Job, state: int, amount: float, w: Array) -> None:
    """w += amount x(s), in place."""
    x = job.features
    for k in range(x.ptr[state], x.ptr[state + 1]):
        w[x.column[k]] += amount * x.value[k]


@helper
def add_next(job: Job, t: int, amount: float, w: Array) -> None:
    """w += amount x(S_{t+1}), in place; a terminal state has no features."""
    if not job.episodes.terminated[t]:
        add(job, job.episodes.next_state[t], amount, w)


@helper
def state_at(job: Job, t: int) -> int:
    """S_t."""
    return job.episodes.state[t]


@helper
def next_value(job: Job, t: int, w: Array) -> float:
    """v(S_{t+1}), 0 where it is terminal."""
    if job.episodes.terminated[t]:
        return 0.0
    return value(job, job.episodes.next_state[t], w)


@helper
def td_error(job: Job, t: int, w: Array) -> float:
    """delta_t = R_{t+1} + gamma v(S_{t+1}) - v(S_t)."""
    ahead = job.discount * next_value(job, t, w)
    return job.episodes.reward[t] + ahead - value(job, job.episodes.state[t], w)


@helper
def step_size(job: Job, state: int, counts: NDArray[np.int64]) -> float:
    """The step size of an update of this state; counts it."""
    counter = job.counter[state]
    counts[counter] += 1
    return job.step / (1.0 + job.decay * (counts[counter] - 1))


@helper
def ratio(job: Job, t: int) -> float:
    """pi(A_t|S_t) / b(A_t|S_t)."""
    return 1.0 if job.ratio.shape[0] == 0 else job.ratio[job.episodes.row[t]]


@helper
def error(job: Job, w: Array) -> float:
    """The weighted root mean square error of the values."""
    total = 0.0
    for state in range(job.truth.shape[0]):
        if job.weighting[state] > 0.0:
            total += job.weighting[state] * (value(job, state, w) - job.truth[state]) ** 2
    return np.sqrt(total)


@helper
def span(job: Job, run: int, episode: int) -> tuple[int, int]:
    """First step, and one past the last, of an episode of a run."""
    i = run * ((job.episodes.ptr.shape[0] - 1) // job.episodes.runs) + episode
    return job.episodes.ptr[i], job.episodes.ptr[i + 1]


@compiled
def counters(job: Job) -> NDArray[np.int64]:
    """Counts of updates, all 0."""
    return np.zeros(job.counter.max() + 1, dtype=np.int64)


@helper
def longest(job: Job) -> int:
    """Steps of the longest episode."""
    episodes, most = job.episodes, 0
    for i in range(episodes.ptr.shape[0] - 1):
        most = max(most, episodes.ptr[i + 1] - episodes.ptr[i])
    return most


@helper
def lambda_returns_of(job: Job, begin: int, end: int, ahead: Array, lam: float, out: Array) -> None:
    """G_t = r_t + gamma ((1 - lam) ahead_t + lam G_{t+1}) of one episode; ahead and out start at its first step."""
    episodes, gamma = job.episodes, job.discount
    following = 0.0
    for t in range(end - 1, begin - 1, -1):
        value, keep = ahead[t - begin], lam
        if t == end - 1:
            keep = 0.0
        following = episodes.reward[t] + gamma * ((1.0 - keep) * value + keep * following)
        out[t - begin] = following


@helper
def rewards_ahead(job: Job, t: int, stop: int) -> tuple[float, float]:
    """(r_t + gamma r_{t+1} + ... of the steps before stop, gamma to the power of their number)."""
    episodes, gamma = job.episodes, job.discount
    total, factor = 0.0, 1.0
    for k in range(t, stop):
        total += factor * episodes.reward[k]
        factor *= gamma
    return total, factor


@compiled
def monte_carlo(first: int, last: int, job: Job, weights: Array, errors: Array, first_visits: bool) -> None:
    """Towards the return, at the end of each episode: for every visit, or for the first to a state."""
    returns, ahead = np.empty(longest(job)), np.zeros(longest(job))
    for run in range(first, last):
        w, counts, seen = weights[run], counters(job), np.full(job.counter.shape[0], -1)
        for episode in range(errors.shape[1]):
            begin, end = span(job, run, episode)
            if end > begin:
                ahead[end - begin - 1] = next_value(job, end - 1, w)
                lambda_returns_of(job, begin, end, ahead, 1.0, returns)
            for t in range(begin, end):
                s = state_at(job, t)
                if first_visits and seen[s] == episode:
                    continue
                seen[s] = episode
                delta = returns[t - begin] - value(job, s, w)
                add(job, s, step_size(job, s, counts) * delta, w)
            errors[run, episode] = error(job, w)


@compiled
def n_step(first: int, last: int, job: Job, weights: Array, errors: Array, n: int, baseline: float) -> None:
    """Towards rho G_{t:t+n} + baseline (1 - rho) v(S_t), with the weights of the time when the n steps are known."""
    for run in range(first, last):
        w, counts = weights[run], counters(job)
        for episode in range(errors.shape[1]):
            begin, end = span(job, run, episode)
            for t in range(begin, end):
                stop = min(t + n, end)
                target, factor = rewards_ahead(job, t, stop)
                target += factor * next_value(job, stop - 1, w)
                weight, s = 1.0, state_at(job, t)
                for k in range(t, stop):
                    weight *= ratio(job, k)
                now = value(job, s, w)
                delta = weight * target + baseline * (1.0 - weight) * now - now
                add(job, s, step_size(job, s, counts) * delta, w)
            errors[run, episode] = error(job, w)


@compiled
def lambda_return(first: int, last: int, job: Job, weights: Array, errors: Array, lam: float, at_once: bool) -> None:
    """Towards the lambda-return, at the end of each episode; returns by the weights of its start, and with at_once
    the errors too."""
    returns, ahead = np.empty(longest(job)), np.empty(longest(job))
    for run in range(first, last):
        w, counts = weights[run], counters(job)
        for episode in range(errors.shape[1]):
            begin, end = span(job, run, episode)
            for t in range(begin, end):
                ahead[t - begin] = next_value(job, t, w)
            lambda_returns_of(job, begin, end, ahead, lam, returns)
            old = w.copy() if at_once else w
            for t in range(begin, end):
                s = state_at(job, t)
                add(job, s, step_size(job, s, counts) * (returns[t - begin] - value(job, s, old)), w)
            errors[run, episode] = error(job, w)


@compiled
def new_trace(size: int) -> Trace:
    """A trace of zeros."""
    used = np.empty(size, dtype=np.int64)
    return Trace(np.zeros(size), used, np.zeros(size, dtype=np.bool_), np.zeros(1, dtype=np.int64))


@helper
def fade(trace: Trace, factor: float) -> None:
    """z *= factor; factor 0 empties the list of entries in use."""
    for i in range(trace.length[0]):
        trace.value[trace.used[i]] *= factor
        if factor == 0.0:
            trace.listed[trace.used[i]] = False
    if factor == 0.0:
        trace.length[0] = 0


@helper
def raise_trace(trace: Trace, job: Job, state: int, amount: float, keep: float) -> None:
    """z_i <- keep z_i + amount x_i(s) for the features i of the state; keep 1 accumulates, 0 replaces."""
    x = job.features
    for k in range(x.ptr[state], x.ptr[state + 1]):
        i = x.column[k]
        if not trace.listed[i]:
            trace.listed[i] = True
            trace.used[trace.length[0]] = i
            trace.length[0] += 1
        trace.value[i] = keep * trace.value[i] + amount * x.value[k]


@helper
def follow(trace: Trace, amount: float, w: Array) -> None:
    """w += amount z."""
    for i in range(trace.length[0]):
        w[trace.used[i]] += amount * trace.value[trace.used[i]]


@compiled
def td_lambda(first: int, last: int, job: Job, weights: Array, errors: Array, lam: float, keep: float) -> None:
    """w += delta z with z = rho (gamma lam z + alpha x): keep 1 accumulating, 0 replacing traces."""
    for run in range(first, last):
        w, counts, trace = weights[run], counters(job), new_trace(job.features.size)
        for episode in range(errors.shape[1]):
            begin, end = span(job, run, episode)
            fade(trace, 0.0)
            for t in range(begin, end):
                s, rho = state_at(job, t), ratio(job, t)
                fade(trace, job.discount * lam * rho)
                raise_trace(trace, job, s, rho * step_size(job, s, counts), keep)
                follow(trace, td_error(job, t, w), w)
            errors[run, episode] = error(job, w)


@compiled
def true_online(first: int, last: int, job: Job, weights: Array, errors: Array, lam: float) -> None:
    """w += (delta + v - v_old) z - alpha (v - v_old) x with the dutch trace z."""
    for run in range(first, last):
        w, counts, trace = weights[run], counters(job), new_trace(job.features.size)
        for episode in range(errors.shape[1]):
            begin, end = span(job, run, episode)
            fade(trace, 0.0)
            ahead = 0.0
            for t in range(begin, end):
                s = state_at(job, t)
                now, delta = value(job, s, w), td_error(job, t, w)
                old = now if t == begin else ahead
                ahead = next_value(job, t, w)
                alpha = step_size(job, s, counts)
                fade(trace, job.discount * lam)
                raise_trace(trace, job, s, alpha * (1.0 - value(job, s, trace.value)), 1.0)
                follow(trace, delta + now - old, w)
                add(job, s, -alpha * (now - old), w)
            errors[run, episode] = error(job, w)


@compiled
def gradient_td(
    first: int, last: int, job: Job, weights: Array, errors: Array, second: float, correct: bool, helpers: Array
) -> None:
    """TDC (correct) or GTD2: w += alpha rho (c x - gamma (x . h) x'), c = delta or x . h; h [R, d] with `second`."""
    for run in range(first, last):
        w, h, counts = weights[run], helpers[run], counters(job)
        for episode in range(errors.shape[1]):
            begin, end = span(job, run, episode)
            for t in range(begin, end):
                s, delta = state_at(job, t), td_error(job, t, w)
                guess = value(job, s, h)
                alpha = step_size(job, s, counts) * ratio(job, t)
                add(job, s, alpha * (delta if correct else guess), w)
                add_next(job, t, -alpha * job.discount * guess, w)
                add(job, s, second * ratio(job, t) * (delta - guess), h)
            errors[run, episode] = error(job, w)


@compiled
def emphatic(first: int, last: int, job: Job, weights: Array, errors: Array, lam: float, interest: Array) -> None:
    """w += delta z, z = rho (gamma lam z + alpha M x), M = lam i + (1 - lam) F, F = gamma rho_{t-1} F + i."""
    for run in range(first, last):
        w, counts, trace = weights[run], counters(job), new_trace(job.features.size)
        for episode in range(errors.shape[1]):
            begin, end = span(job, run, episode)
            fade(trace, 0.0)
            follow_on, rho = 0.0, 0.0
            for t in range(begin, end):
                s = state_at(job, t)
                follow_on = job.discount * rho * follow_on + interest[s]
                rho = ratio(job, t)
                emphasis = lam * interest[s] + (1.0 - lam) * follow_on
                fade(trace, job.discount * lam * rho)
                raise_trace(trace, job, s, rho * emphasis * step_size(job, s, counts), 1.0)
                follow(trace, td_error(job, t, w), w)
            errors[run, episode] = error(job, w)


@compiled
def fill_lambda_returns(first: int, last: int, job: Job, ahead: Array, lam: float, out: Array) -> None:
    """The lambda-return of every step of episodes first .. last-1."""
    for episode in range(first, last):
        begin, end = job.episodes.ptr[episode], job.episodes.ptr[episode + 1]
        lambda_returns_of(job, begin, end, ahead[begin:end], lam, out[begin:end])


@compiled
def fill_n_step_returns(first: int, last: int, job: Job, ahead: Array, n: int, out: Array) -> None:
    """The n-step return of every step of episodes first .. last-1."""
    for episode in range(first, last):
        begin, end = job.episodes.ptr[episode], job.episodes.ptr[episode + 1]
        for t in range(begin, end):
            stop = min(t + n, end)
            total, factor = rewards_ahead(job, t, stop)
            out[t] = total + factor * ahead[stop - 1]
