"""One-step control on a finite model: SARSA, Q-learning, Expected SARSA, double Q-learning.

World and learner run in one compiled loop. At a time limit the target keeps its bootstrap; at a terminal state it has
none. Longer targets are in returns.py, learning with a model in model.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onepolicy.tabular.control.settings import ControlResult, Rates, Record, Settings, learn
from onepolicy.tabular.control.step import (
    EXPECTED_SARSA,
    Q_LEARNING,
    SARSA,
    Dynamics,
    Floats,
    bootstrap,
    choose,
    greedy,
    reward_of,
    update,
)
from onepolicy.tabular.jit import jit
from onepolicy.tabular.simulate import Streams, sample_start, sample_successor, uniform

if TYPE_CHECKING:
    from onepolicy.tabular.mdp import MDP


def sarsa(mdp: MDP, settings: Settings) -> ControlResult:
    """SARSA: Q(S, A) += alpha (R + gamma Q(S', A') - Q(S, A)), A' being what is done next.

    On-policy: it learns the value of the epsilon-greedy policy it plays. A' is drawn before the update.
    Source: Sutton and Barto 2018, equation 6.7; Rummery and Niranjan 1994.
    """
    return learn(one_step_runs, mdp, settings, SARSA)


def q_learning(mdp: MDP, settings: Settings) -> ControlResult:
    """Q-learning: Q(S, A) += alpha (R + gamma max_a Q(S', a) - Q(S, A)); the action is drawn after the update.

    Off-policy: it learns Q*, whatever it plays. Source: Sutton and Barto 2018, equation 6.8; Watkins 1989.
    """
    return learn(one_step_runs, mdp, settings, Q_LEARNING)


def expected_sarsa(mdp: MDP, settings: Settings) -> ControlResult:
    """Expected SARSA: Q(S, A) += alpha (R + gamma sum_a pi(a|S') Q(S', a) - Q(S, A)), pi epsilon-greedy.

    SARSA without the variance of A'. Source: Sutton and Barto 2018, equation 6.9; van Seijen et al. 2009.
    """
    return learn(one_step_runs, mdp, settings, EXPECTED_SARSA)


def double_q_learning(mdp: MDP, settings: Settings) -> ControlResult:
    """Double Q-learning: Q1(S, A) += alpha (R + gamma Q2(S', argmax_a Q1(S', a)) - Q1(S, A)), or 1 and 2 exchanged.

    A coin decides which; actions are epsilon-greedy in Q1 + Q2. Choosing and judging by different tables removes the
    maximisation bias. `q` is the mean of the two, `tables["pair"]` [R, 2, K] both, `visits` counts both.
    Draws: the coin, then a number for ties in the argmax, in each step after the world's.
    Source: Sutton and Barto 2018, section 6.7; van Hasselt 2010. With alpha_power, n counts the updates of one table.
    """
    rows = mdp.num_rows
    pair = np.empty((settings.runs, 2, rows))
    counts = np.zeros((settings.runs, 2, rows), dtype=np.int64)
    pair[:] = np.asarray(settings.initial_q, dtype=np.float64)
    return learn(double_q_runs, mdp, settings, pair, counts, pair=pair)


@jit
def one_step_runs(
    first_run: int, last_run: int, world: Dynamics, rates: Rates, seeds: Streams, record: Record, rule: int
) -> None:
    """Runs of SARSA, Q-learning or Expected SARSA, whole: see `learn` for the arguments."""
    for run in range(first_run, last_run):
        stream, q, visits = seeds[run], record.q[run], record.visits[run]
        for episode in range(rates.epsilon.shape[0]):
            epsilon = rates.epsilon[episode]
            s = sample_start(world.start, uniform(stream))
            row = choose(q, world.row_ptr[s], world.row_ptr[s + 1], epsilon, uniform(stream))
            total, length, ended = 0.0, 0, False
            while not ended and length < rates.limit:
                j = world.ptr[row]
                if world.ptr[row + 1] - j > 1:
                    j = sample_successor(world.ptr, world.cumulative, row, uniform(stream))
                target = reward_of(world.rewards, world.noise, row, j, stream)
                s = world.successors[j]
                total += target
                length += 1
                ended = world.terminal[s]
                first, last, following = world.row_ptr[s], world.row_ptr[s + 1], row
                if not ended:
                    if rule == SARSA:
                        following = choose(q, first, last, epsilon, uniform(stream))
                    target += rates.gamma * bootstrap(rule, q, first, last, following, epsilon)
                update(q, visits, row, target, rates.alpha, rates.power)
                if not ended and rule != SARSA:
                    following = choose(q, first, last, epsilon, uniform(stream))
                row = following
            record.returns[run, episode] = total
            record.lengths[run, episode] = length
            record.truncated[run, episode] = not ended


@jit
def double_q_runs(
    first_run: int,
    last_run: int,
    world: Dynamics,
    rates: Rates,
    seeds: Streams,
    record: Record,
    pair: Floats,
    counts: Streams,
) -> None:
    """Runs of double Q-learning; pair, counts [R, 2, K]: the tables and the updates of each."""
    for run in range(first_run, last_run):
        stream, q = seeds[run], record.q[run]
        for episode in range(rates.epsilon.shape[0]):
            epsilon = rates.epsilon[episode]
            s = sample_start(world.start, uniform(stream))
            total, length, ended = 0.0, 0, False
            while not ended and length < rates.limit:
                row = choose(q, world.row_ptr[s], world.row_ptr[s + 1], epsilon, uniform(stream))
                j = world.ptr[row]
                if world.ptr[row + 1] - j > 1:
                    j = sample_successor(world.ptr, world.cumulative, row, uniform(stream))
                target = reward_of(world.rewards, world.noise, row, j, stream)
                s = world.successors[j]
                total += target
                length += 1
                ended = world.terminal[s]
                mine = int(uniform(stream) < 0.5)
                if not ended:
                    top = greedy(pair[run, mine], world.row_ptr[s], world.row_ptr[s + 1], uniform(stream))
                    target += rates.gamma * pair[run, 1 - mine, top]
                update(pair[run, mine], counts[run, mine], row, target, rates.alpha, rates.power)
                q[row] = 0.5 * (pair[run, 0, row] + pair[run, 1, row])
                record.visits[run, row] += 1
            record.returns[run, episode] = total
            record.lengths[run, episode] = length
            record.truncated[run, episode] = not ended
