"""Control with a learnt model of a finite world: Dyna-Q and Dyna-Q+, R-max."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onepolicy.errors import ConfigError
from onepolicy.tabular.control.settings import ControlResult, Rates, Record, Settings, learn
from onepolicy.tabular.control.step import Dynamics, Floats, Ints, best, choose, greedy, reward_of, update
from onepolicy.tabular.jit import jit
from onepolicy.tabular.simulate import Streams, below, sample_start, sample_successor, uniform

if TYPE_CHECKING:
    from onepolicy.tabular.mdp import MDP

CONVERGED = 1e-9
"""Largest change of Q, relative to the optimistic value, at which R-max's planning stops."""


def dyna_q(mdp: MDP, settings: Settings, *, planning: int) -> ControlResult:
    """Dyna-Q: after each step of Q-learning, `planning` more on (state, action) pairs drawn from those seen before.

    The model is a pair's last outcome: exact for a deterministic world, one draw of it otherwise. All pairs seen are
    as likely; the book draws a state and then an action, which makes the second episode of its maze 3 % shorter at 5
    planned steps. With alpha_power, n counts real and planned updates alike.
    Draws: one for each planned step, after the update and before the next choice.
    Raises: ConfigError for a negative `planning`. Source: Sutton and Barto 2018, section 8.2, tabular Dyna-Q.
    """
    if planning < 0:
        raise ConfigError(f"planning is {planning}; it counts updates after each step. Set planning >= 0.")
    return learn(dyna_runs, mdp, settings, planning)


def r_max(mdp: MDP, settings: Settings, *, known: int, reward_bound: float) -> ControlResult:
    """R-max: greedy in a model where a (state, action) tried less than `known` times is worth the most there is.

    That most is reward_bound / (1 - gamma). A pair tried `known` times has its empirical model; whenever one gets
    known, Q is solved anew by value iteration. Explores by optimism alone: epsilon, alpha and initial_q are not read.
    reward_bound: the largest expected reward of a row. Draws: one for ties in each choice.
    Raises: ConfigError for known < 1 or gamma = 1, where the optimistic value is infinite.
    Source: Brafman and Tennenholtz 2002, R-max (JMLR 3).
    """
    if known < 1:
        raise ConfigError(f"known is {known}; a pair's model needs at least 1 try. Set known >= 1.")
    if settings.gamma >= 1.0:
        raise ConfigError("gamma is 1; R-max values the unknown at reward_bound / (1 - gamma). Set gamma < 1.")
    if not np.isfinite(reward_bound):
        raise ConfigError(f"reward_bound is {reward_bound}; it is the largest expected reward, a finite number.")
    return learn(r_max_runs, mdp, settings, known, float(reward_bound))


@jit
def dyna_runs(
    first_run: int, last_run: int, world: Dynamics, rates: Rates, seeds: Streams, record: Record, planning: int
) -> None:
    """Runs of Dyna-Q, whole: see `learn` for the arguments."""
    row_ptr, rows = world.row_ptr, record.q.shape[1]
    tried, next_state, rewards = np.empty(rows, np.int64), np.empty(rows, np.int64), np.empty(rows)
    for run in range(first_run, last_run):
        stream, q, visits = seeds[run], record.q[run], record.visits[run]
        next_state[:], count = -1, 0
        for episode in range(rates.epsilon.shape[0]):
            epsilon = rates.epsilon[episode]
            s = sample_start(world.start, uniform(stream))
            total, length, ended = 0.0, 0, False
            while not ended and length < rates.limit:
                row = choose(q, row_ptr[s], row_ptr[s + 1], epsilon, uniform(stream))
                if next_state[row] < 0:
                    tried[count] = row
                    count += 1
                j = world.ptr[row]
                if world.ptr[row + 1] - j > 1:
                    j = sample_successor(world.ptr, world.cumulative, row, uniform(stream))
                rewards[row] = reward_of(world.rewards, world.noise, row, j, stream)
                s = world.successors[j]
                next_state[row] = s
                total += rewards[row]
                length += 1
                ended = world.terminal[s]
                for sweep in range(planning + 1):
                    if sweep > 0:
                        row = tried[below(stream, count)]
                    target, ahead = rewards[row], next_state[row]
                    if not world.terminal[ahead]:
                        target += rates.gamma * best(q, row_ptr[ahead], row_ptr[ahead + 1])
                    update(q, visits, row, target, rates.alpha, rates.power)
            record.returns[run, episode] = total
            record.lengths[run, episode] = length
            record.truncated[run, episode] = not ended


@jit
def _plan(
    world: Dynamics, q: Floats, counts: Ints, tries: Ints, sums: Floats, known: int, gamma: float, top: float
) -> None:
    """Value iteration in place on the known rows' empirical model; the others keep the optimistic value `top`.

    counts [N]: times a transition happened; tries, sums [K]: times a row was taken, and its rewards' sum.
    """
    gap = 2.0 * CONVERGED * max(abs(top), 1.0)
    while gap > CONVERGED * max(abs(top), 1.0):
        gap = 0.0
        for row in range(q.shape[0]):
            if tries[row] < known:
                continue
            value = 0.0
            for j in range(world.ptr[row], world.ptr[row + 1]):
                s = world.successors[j]
                if counts[j] > 0 and not world.terminal[s]:
                    value += counts[j] * best(q, world.row_ptr[s], world.row_ptr[s + 1])
            value = (sums[row] + gamma * value) / known
            gap = max(gap, abs(value - q[row]))
            q[row] = value


@jit
def r_max_runs(
    first_run: int,
    last_run: int,
    world: Dynamics,
    rates: Rates,
    seeds: Streams,
    record: Record,
    known: int,
    reward_bound: float,
) -> None:
    """Runs of R-max, whole; a row's counts stop at `known`, as in the paper."""
    rows, top = record.q.shape[1], reward_bound / (1.0 - rates.gamma)
    counts, sums = np.empty(world.rewards.shape[0], np.int64), np.empty(rows)
    for run in range(first_run, last_run):
        stream, q, tries = seeds[run], record.q[run], record.visits[run]
        q[:], counts[:], sums[:] = top, 0, 0.0
        for episode in range(rates.epsilon.shape[0]):
            s = sample_start(world.start, uniform(stream))
            total, length, ended = 0.0, 0, False
            while not ended and length < rates.limit:
                row = greedy(q, world.row_ptr[s], world.row_ptr[s + 1], uniform(stream))
                j = world.ptr[row]
                if world.ptr[row + 1] - j > 1:
                    j = sample_successor(world.ptr, world.cumulative, row, uniform(stream))
                reward = reward_of(world.rewards, world.noise, row, j, stream)
                s = world.successors[j]
                total += reward
                length += 1
                ended = world.terminal[s]
                tries[row] += 1
                if tries[row] <= known:
                    counts[j] += 1
                    sums[row] += reward
                    if tries[row] == known:
                        _plan(world, q, counts, tries, sums, known, rates.gamma, top)
            record.returns[run, episode] = total
            record.lengths[run, episode] = length
            record.truncated[run, episode] = not ended
