"""Control by longer targets on a finite model: Monte Carlo over whole episodes, n-step SARSA.

The returns are those of `core.returns`: an episode cut by its time limit goes on in the value of the state it was cut
at, it does not end in 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onepolicy.errors import ConfigError
from onepolicy.tabular.control.settings import ControlResult, Rates, Record, Settings, learn
from onepolicy.tabular.control.step import Dynamics, Floats, choose, expected, reward_of, update
from onepolicy.tabular.jit import jit
from onepolicy.tabular.simulate import Streams, sample_start, sample_successor, uniform

if TYPE_CHECKING:
    from onepolicy.tabular.mdp import MDP


def mc_control(mdp: MDP, settings: Settings, *, first_visit: bool = True) -> ControlResult:
    """Monte Carlo control: Q(S_t, A_t) += alpha (G_t - Q(S_t, A_t)) for an episode's steps, from its last to its first.

    GLIE when epsilon is `one_over_episode` and the step size 1/n (alpha=1, alpha_power=1): then Q -> Q*. first_visit:
    only the first step of an episode in each (state, action) counts; else every step. A truncated episode's return goes
    on in E_pi Q of the state it was cut at. Room for max_steps steps is set aside on each thread, 16 bytes a step.
    Source: Sutton and Barto 2018, section 5.4; the course's GLIE Monte Carlo control.
    """
    return learn(mc_runs, mdp, settings, first_visit)


def n_step_sarsa(mdp: MDP, settings: Settings, *, n: int) -> ControlResult:
    """n-step SARSA: Q(S_t, A_t) += alpha (G - Q(S_t, A_t)), G = R_{t+1} + ... + gamma^n Q(S_{t+n}, A_{t+n}).

    n = 1 is SARSA, n beyond the episode's length every-visit Monte Carlo. The returns of the last n steps end with the
    episode; where it is truncated, in the Q of the action that would have come next.
    Raises: ConfigError for n < 1. Source: Sutton and Barto 2018, section 7.2, equations 7.4 and 7.5.
    """
    if n < 1:
        raise ConfigError(f"n is {n}; an n-step return looks at least 1 step ahead. Set n >= 1.")
    return learn(n_step_runs, mdp, settings, n)


@jit
def mc_runs(
    first_run: int, last_run: int, world: Dynamics, rates: Rates, seeds: Streams, record: Record, first_visit: bool
) -> None:
    """Runs of Monte Carlo control, whole: see `learn` for the arguments."""
    rows, rewards = np.empty(rates.limit, dtype=np.int64), np.empty(rates.limit)
    since = np.empty(record.q.shape[1], dtype=np.int64)
    for run in range(first_run, last_run):
        stream, q = seeds[run], record.q[run]
        for episode in range(rates.epsilon.shape[0]):
            epsilon = rates.epsilon[episode]
            s = sample_start(world.start, uniform(stream))
            since[:] = -1
            total, length, ended = 0.0, 0, False
            while not ended and length < rates.limit:
                row = choose(q, world.row_ptr[s], world.row_ptr[s + 1], epsilon, uniform(stream))
                j = world.ptr[row]
                if world.ptr[row + 1] - j > 1:
                    j = sample_successor(world.ptr, world.cumulative, row, uniform(stream))
                rows[length] = row
                rewards[length] = reward_of(world.rewards, world.noise, row, j, stream)
                if since[row] < 0:
                    since[row] = length
                s = world.successors[j]
                total += rewards[length]
                length += 1
                ended = world.terminal[s]
            target = 0.0 if ended else expected(q, world.row_ptr[s], world.row_ptr[s + 1], epsilon)
            for t in range(length - 1, -1, -1):
                target = rewards[t] + rates.gamma * target
                if not first_visit or since[rows[t]] == t:
                    update(q, record.visits[run], rows[t], target, rates.alpha, rates.power)
            record.returns[run, episode] = total
            record.lengths[run, episode] = length
            record.truncated[run, episode] = not ended


@jit
def _windowed(rewards: Floats, start: int, stop: int, gamma: float) -> float:
    """sum_{i=start}^{stop-1} gamma^{i-start} r_i of a ring of rewards."""
    found = 0.0
    for i in range(stop - 1, start - 1, -1):
        found = rewards[i % rewards.shape[0]] + gamma * found
    return found


@jit
def n_step_runs(
    first_run: int, last_run: int, world: Dynamics, rates: Rates, seeds: Streams, record: Record, n: int
) -> None:
    """Runs of n-step SARSA, whole; step t's row and reward are at place t % (n + 1) of a ring."""
    rows, rewards = np.empty(n + 1, dtype=np.int64), np.empty(n + 1)
    for run in range(first_run, last_run):
        stream, q = seeds[run], record.q[run]
        for episode in range(rates.epsilon.shape[0]):
            epsilon = rates.epsilon[episode]
            s = sample_start(world.start, uniform(stream))
            rows[0] = choose(q, world.row_ptr[s], world.row_ptr[s + 1], epsilon, uniform(stream))
            total, length, ended, learnt = 0.0, 0, False, 0
            while learnt < length or (not ended and length < rates.limit):
                over = ended or length == rates.limit
                if not over:
                    row = rows[length % (n + 1)]
                    j = world.ptr[row]
                    if world.ptr[row + 1] - j > 1:
                        j = sample_successor(world.ptr, world.cumulative, row, uniform(stream))
                    reward = reward_of(world.rewards, world.noise, row, j, stream)
                    rewards[length % (n + 1)] = reward
                    s = world.successors[j]
                    total += reward
                    length += 1
                    ended = world.terminal[s]
                    over = ended or length == rates.limit
                    if not ended:
                        following = choose(q, world.row_ptr[s], world.row_ptr[s + 1], epsilon, uniform(stream))
                        rows[length % (n + 1)] = following
                if over or length - learnt == n:
                    stop = min(learnt + n, length)
                    target = _windowed(rewards, learnt, stop, rates.gamma)
                    if stop < length or not ended:
                        target += rates.gamma ** (stop - learnt) * q[rows[stop % (n + 1)]]
                    update(q, record.visits[run], rows[learnt % (n + 1)], target, rates.alpha, rates.power)
                    learnt += 1
            record.returns[run, episode] = total
            record.lengths[run, episode] = length
            record.truncated[run, episode] = not ended
