"""Control with linear features on a finite model: SARSA(lambda) and actor-critic. One-hot features make them tables.

Weights are one vector for each action index, A d in all; features are those of features.py. SARSA(lambda) in a world
of real-valued states is in tiles.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from onepolicy.errors import ConfigError
from onepolicy.tabular.control.settings import ControlResult, Rates, Record, Settings, fraction, learn
from onepolicy.tabular.control.step import Dynamics, Floats, choose, reward_of
from onepolicy.tabular.control.traces import credit, forget, inner, mark
from onepolicy.tabular.features import Features, one_hot
from onepolicy.tabular.jit import jit
from onepolicy.tabular.simulate import Streams, sample_start, sample_successor, uniform

if TYPE_CHECKING:
    from onepolicy.tabular.mdp import MDP

Trace = Literal["accumulating", "replacing"]


def sarsa_lambda(
    mdp: MDP, settings: Settings, *, lam: float, features: Features | None = None, trace: Trace = "accumulating"
) -> ControlResult:
    """SARSA(lambda): w += alpha delta z, z = gamma lam z + x(S, A), delta = R + gamma q(S', A') - q(S, A), q = w_a . x.

    features: x(s) of each state; None for a table. trace: "replacing" sets z to x(S, A) where x is not 0 instead of
    adding it. Weights begin at 0. `q` [R, K] are the values of the last weights, `tables["weights"]` [R, A d].
    Raises: ConfigError for lam outside [0, 1], features of another number of states, an unknown trace, and settings
    that only tables have. Source: Sutton and Barto 2018, section 12.7.
    """
    fraction("lam", lam)
    if trace not in ("accumulating", "replacing"):
        raise ConfigError(f"trace is {trace!r}; it is 'accumulating' or 'replacing'.")
    x = features_for(mdp, settings, features)
    weights = np.zeros((settings.runs, _most_actions(mdp) * x.size))
    return learn(sarsa_lambda_runs, mdp, settings, x, weights, float(lam), trace == "replacing", weights=weights)


def actor_critic(
    mdp: MDP, settings: Settings, *, actor_alpha: float, lam: float = 0.0, features: Features | None = None
) -> ControlResult:
    """Actor-critic: delta = R + gamma v(S') - v(S), w += alpha delta z_w, theta += actor_alpha delta z_theta.

    The policy is softmax(theta_a . x(s)) over the state's actions, the critic v = w . x(s); the traces decay by gamma
    lam and take in x(S) and grad ln pi(A|S). No factor gamma^t on the actor's steps. features: as in `sarsa_lambda`.
    epsilon is not read. `q` [R, K] are the preferences theta_a . x(s), so that `policy()` is the most probable action;
    `tables`: "policy" [R, K] probabilities, "values" [R, S], "actor" [R, A d], "critic" [R, d].
    Raises: ConfigError as `sarsa_lambda`, and for actor_alpha <= 0. Source: Sutton and Barto 2018, section 13.5.
    """
    fraction("lam", lam)
    if not actor_alpha > 0.0:
        raise ConfigError(f"actor_alpha is {actor_alpha}; a step size is above 0. Set actor_alpha > 0.")
    x = features_for(mdp, settings, features)
    actor, critic = np.zeros((settings.runs, _most_actions(mdp) * x.size)), np.zeros((settings.runs, x.size))
    tables = {"policy": np.zeros((settings.runs, mdp.num_rows)), "values": np.zeros((settings.runs, mdp.num_states))}
    extra = (x, actor, critic, tables["policy"], tables["values"], float(actor_alpha), float(lam))
    return learn(actor_critic_runs, mdp, settings, *extra, **tables, actor=actor, critic=critic)


def features_for(mdp: MDP, settings: Settings, features: Features | None) -> Features:
    """The features of a model's states, one-hot when none are given. Raises: ConfigError where they do not fit."""
    if settings.alpha_power != 0.0 or np.any(np.asarray(settings.initial_q) != 0.0):
        raise ConfigError("alpha_power and initial_q belong to tables; weights step by alpha from 0. Leave them at 0.")
    if features is None:
        return one_hot(mdp.num_states)
    if len(features.ptr) - 1 != mdp.num_states:
        raise ConfigError(f"features are of {len(features.ptr) - 1} states; the model has {mdp.num_states}.")
    return features


def _most_actions(mdp: MDP) -> int:
    return int(np.diff(mdp.csr().row_ptr).max())


@jit
def _action_values(x: Features, weights: Floats, s: int, q: Floats, first: int, last: int) -> None:
    """Writes w_a . x(s) of a state's actions to its rows first .. last-1 of q."""
    for row in range(first, last):
        q[row] = inner(weights, x.column, x.value, x.ptr[s], x.ptr[s + 1], (row - first) * x.size)


@jit
def _probabilities(preferences: Floats, first: int, last: int, out: Floats) -> None:
    """Writes softmax of rows first .. last-1 to `out`, at the same rows."""
    top, total = preferences[first:last].max(), 0.0
    for row in range(first, last):
        out[row] = np.exp(preferences[row] - top)
        total += out[row]
    for row in range(first, last):
        out[row] /= total


@jit
def _drawn(probabilities: Floats, first: int, last: int, u: float) -> int:
    """The row of first .. last-1 that a uniform number falls on."""
    for row in range(first, last - 1):
        u -= probabilities[row]
        if u < 0.0:
            return row
    return last - 1


@jit
def sarsa_lambda_runs(
    first_run: int,
    last_run: int,
    world: Dynamics,
    rates: Rates,
    seeds: Streams,
    record: Record,
    x: Features,
    weights: Floats,
    lam: float,
    replacing: bool,
) -> None:
    """Runs of SARSA(lambda), whole; q is computed anew wherever it is read."""
    size, decay = weights.shape[1], rates.gamma * lam
    trace, place, listed = np.zeros(size), np.full(size, -1), np.zeros(size, np.int64)
    for run in range(first_run, last_run):
        stream, q, w = seeds[run], record.q[run], weights[run]
        for episode in range(rates.epsilon.shape[0]):
            epsilon = rates.epsilon[episode]
            s = sample_start(world.start, uniform(stream))
            first, last = world.row_ptr[s], world.row_ptr[s + 1]
            _action_values(x, w, s, q, first, last)
            row = choose(q, first, last, epsilon, uniform(stream))
            total, length, ended, count = 0.0, 0, False, 0
            while not ended and length < rates.limit:
                for i in range(x.ptr[s], x.ptr[s + 1]):
                    weight = (row - first) * x.size + x.column[i]
                    count = mark(trace, place, listed, count, weight, x.value[i], replacing)
                j = world.ptr[row]
                if world.ptr[row + 1] - j > 1:
                    j = sample_successor(world.ptr, world.cumulative, row, uniform(stream))
                reward = reward_of(world.rewards, world.noise, row, j, stream)
                error = reward - q[row]
                record.visits[run, row] += 1
                s = world.successors[j]
                total += reward
                length += 1
                ended = world.terminal[s]
                first, last = world.row_ptr[s], world.row_ptr[s + 1]
                if not ended:
                    _action_values(x, w, s, q, first, last)
                    row = choose(q, first, last, epsilon, uniform(stream))
                    error += rates.gamma * q[row]
                count = credit(w, trace, place, listed, count, rates.alpha * error, decay)
                if not ended:
                    _action_values(x, w, s, q, first, last)
            forget(place, listed, count)
            record.returns[run, episode] = total
            record.lengths[run, episode] = length
            record.truncated[run, episode] = not ended
        for s in range(world.terminal.shape[0]):
            _action_values(x, w, s, q, world.row_ptr[s], world.row_ptr[s + 1])


@jit
def actor_critic_runs(
    first_run: int,
    last_run: int,
    world: Dynamics,
    rates: Rates,
    seeds: Streams,
    record: Record,
    x: Features,
    actor: Floats,
    critic: Floats,
    policy: Floats,
    values: Floats,
    actor_alpha: float,
    lam: float,
) -> None:
    """Runs of actor-critic, whole; policy [R, K] and values [R, S] are computed anew wherever they are read."""
    size, decay = actor.shape[1], rates.gamma * lam
    trace, place, listed = np.zeros(size), np.full(size, -1), np.zeros(size, np.int64)
    trace_v, place_v, listed_v = np.zeros(x.size), np.full(x.size, -1), np.zeros(x.size, np.int64)
    for run in range(first_run, last_run):
        stream, h, p, theta, w = seeds[run], record.q[run], policy[run], actor[run], critic[run]
        for episode in range(rates.epsilon.shape[0]):
            s = sample_start(world.start, uniform(stream))
            total, length, ended, count, count_v = 0.0, 0, False, 0, 0
            while not ended and length < rates.limit:
                first, last = world.row_ptr[s], world.row_ptr[s + 1]
                _action_values(x, theta, s, h, first, last)
                _probabilities(h, first, last, p)
                row = _drawn(p, first, last, uniform(stream))
                error = -inner(w, x.column, x.value, x.ptr[s], x.ptr[s + 1], 0)
                for i in range(x.ptr[s], x.ptr[s + 1]):
                    count_v = mark(trace_v, place_v, listed_v, count_v, x.column[i], x.value[i], False)
                    for k in range(first, last):
                        slope = (1.0 if k == row else 0.0) - p[k]
                        weight = (k - first) * x.size + x.column[i]
                        count = mark(trace, place, listed, count, weight, slope * x.value[i], False)
                j = world.ptr[row]
                if world.ptr[row + 1] - j > 1:
                    j = sample_successor(world.ptr, world.cumulative, row, uniform(stream))
                reward = reward_of(world.rewards, world.noise, row, j, stream)
                record.visits[run, row] += 1
                s = world.successors[j]
                total += reward
                length += 1
                ended = world.terminal[s]
                error += reward
                if not ended:
                    error += rates.gamma * inner(w, x.column, x.value, x.ptr[s], x.ptr[s + 1], 0)
                count_v = credit(w, trace_v, place_v, listed_v, count_v, rates.alpha * error, decay)
                count = credit(theta, trace, place, listed, count, actor_alpha * error, decay)
            forget(place, listed, count)
            forget(place_v, listed_v, count_v)
            record.returns[run, episode] = total
            record.lengths[run, episode] = length
            record.truncated[run, episode] = not ended
        for s in range(world.terminal.shape[0]):
            first, last = world.row_ptr[s], world.row_ptr[s + 1]
            if last > first:
                _action_values(x, theta, s, h, first, last)
                _probabilities(h, first, last, p)
                values[run, s] = inner(w, x.column, x.value, x.ptr[s], x.ptr[s + 1], 0)
