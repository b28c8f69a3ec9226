"""Control in any gymnasium world, step by step in Python: tables for discrete observations, tile coding for vectors.

The update functions are those of the compiled loops, which play a world whose model is known some hundred times faster.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike

from onepolicy.errors import ConfigError, nearest
from onepolicy.tabular.control.linear import Trace
from onepolicy.tabular.control.settings import ControlResult, Record, Settings, blank, fraction
from onepolicy.tabular.control.step import EXPECTED_SARSA, Q_LEARNING, SARSA, bootstrap, choose, update
from onepolicy.tabular.control.tiles import Tiles, active_tiles, blank_tiles, tile_values, tiles_of
from onepolicy.tabular.control.traces import credit, forget, mark
from onepolicy.tabular.simulate import streams, uniform

RULES = {"sarsa": SARSA, "q-learning": Q_LEARNING, "expected-sarsa": EXPECTED_SARSA}
Played = tuple[float, int, bool]
"""An episode's return, steps, and whether it was truncated."""


def learn_gym(env: Any, settings: Settings, *, rule: str) -> ControlResult:
    """Runs of SARSA, Q-learning or Expected SARSA ("sarsa", "q-learning", "expected-sarsa") in a gymnasium world.

    The world's own time limit truncates as max_steps does: the target keeps its bootstrap. Run r resets the world with
    seed + r once. In a deterministic world with one start, the numbers are those of the compiled loops.
    Raises: ConfigError for spaces that are not discrete, an unknown rule, and settings that only models have.
    """
    if rule not in RULES:
        raise ConfigError(f"rule is {rule!r}, which is none of ours. {nearest(rule, RULES)}")
    if np.any(np.asarray(settings.reward_std) != 0.0):
        raise ConfigError("reward_std belongs to finite models; this world has its own rewards. Leave it at 0.")
    states, index = state_index(env.observation_space)
    actions = _actions(env)
    record = blank(settings, states * actions)

    def play(obs: Any, run: int, epsilon: float, stream: Any) -> Played:
        q, visits = record.q[run], record.visits[run]
        return _episode(env, index(obs), index, actions, settings, RULES[rule], epsilon, stream, q, visits)

    return _played(env, settings, record, actions, play)


def sarsa_lambda_gym(
    env: Any,
    settings: Settings,
    *,
    lam: float,
    low: ArrayLike | None = None,
    high: ArrayLike | None = None,
    tiles: int = 8,
    tilings: int = 8,
    trace: Trace = "replacing",
) -> ControlResult:
    """Semi-gradient SARSA(lambda) on tile coding in a gymnasium world whose observations are vectors [k].

    Settings, weights and equation as in `tiles.sarsa_lambda_tiles`; time limits and seeds as in `learn_gym`. low, high
    [k]: the box that the tiles divide, default that of the observations; what is outside counts as at its edge.
    Raises: ConfigError for other spaces, observations without bounds where none are given, and bad settings.
    """
    fraction("lam", lam)
    space, actions = env.observation_space, _actions(env)
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise ConfigError(f"observations are {space}; tiles need a Box of one dimension. Use learn_gym for numbers.")
    box = [np.broadcast_to(np.asarray(x, dtype=np.float64), space.shape) for x in (
        space.low if low is None else low, space.high if high is None else high
    )]  # fmt: skip
    endless = np.flatnonzero(~(np.abs(box) < 1e30).all(axis=0))
    if endless.size:
        k = endless[0]
        raise ConfigError(f"observation {k} is from {box[0][k]:g} to {box[1][k]:g}; tiles need bounds. Give low, high.")
    coding = tiles_of(box[0], box[1], tiles=tiles, tilings=tilings)
    record = blank_tiles(coding, settings, actions)
    size = record.q.shape[1]
    traces = np.zeros(size), np.full(size, -1), np.zeros(size, dtype=np.int64)

    def play(obs: Any, run: int, epsilon: float, stream: Any) -> Played:
        weights = record.q[run], record.visits[run]
        how = settings, epsilon, settings.gamma * lam, trace == "replacing"
        return _tiled_episode(env, obs, coding, how, stream, weights, traces)

    return _played(env, settings, record, actions, play)


def _actions(env: Any) -> int:
    if not isinstance(env.action_space, spaces.Discrete):
        raise ConfigError(f"actions are {env.action_space}; a table needs a Discrete space.")
    return int(env.action_space.n)


def _played(
    env: Any, settings: Settings, record: Record, actions: int, play: Callable[[Any, int, float, Any], Played]
) -> ControlResult:
    """All runs, each by `play`(first observation, run, epsilon, stream), an episode."""
    epsilons, started = settings.epsilons(), time.perf_counter()
    for run, stream in enumerate(streams(settings.seed, settings.runs)):
        obs, _ = env.reset(seed=settings.seed + run)
        for episode, epsilon in enumerate(epsilons):
            if episode > 0:
                obs, _ = env.reset()
            uniform(stream)  # the compiled loops' draw of a start
            played = play(obs, run, epsilon, stream)
            record.returns[run, episode], record.lengths[run, episode], record.truncated[run, episode] = played
    row_ptr = np.arange(0, record.q.shape[1] + 1, actions)
    return ControlResult(record.q, row_ptr, *record[1:], time.perf_counter() - started, {})


def _tiled_episode(
    env: Any,
    obs: Any,
    coding: Tiles,
    how: tuple[Settings, float, float, bool],
    stream: Any,
    weights: tuple[Any, Any],
    traces: tuple[Any, Any, Any],
) -> Played:
    """One episode of SARSA(lambda), as `tiles.tile_runs` plays it: (return, steps, truncated)."""
    settings, epsilon, decay, replacing = how
    (w, visits), (trace, place, listed) = weights, traces
    actions, offset = int(env.action_space.n), int(env.action_space.start)
    q, here = np.zeros(actions), np.zeros(len(coding.shift), dtype=np.int64)

    def look(seen: Any) -> int:
        active_tiles(coding, np.clip(np.asarray(seen, dtype=np.float64), coding.low, coding.high), here)
        tile_values(w, here, q)
        return int(choose(q, 0, actions, epsilon, uniform(stream)))

    action = look(obs)
    total, length, count, ended, cut = 0.0, 0, 0, False, False
    while not (ended or cut):
        for tile in here:
            count = mark(trace, place, listed, count, tile * actions + action, 1.0, replacing)
            visits[tile * actions + action] += 1
        before = q[action]
        obs, reward, ended, cut, _ = env.step(action + offset)
        total, length, error = total + float(reward), length + 1, float(reward) - before
        cut = cut or length >= settings.max_steps
        if not ended:
            action = look(obs)
            error += settings.gamma * q[action]
        count = credit(w, trace, place, listed, count, settings.alpha * error, decay)
        tile_values(w, here, q)
    forget(place, listed, count)
    return total, length, not ended


def _episode(
    env: Any,
    s: int,
    index: Callable[[Any], int],
    actions: int,
    settings: Settings,
    rule: int,
    epsilon: float,
    stream: Any,
    q: Any,
    visits: Any,
) -> Played:
    """One episode from state s, learnt from as it goes: (return, steps, truncated)."""
    alpha, power, offset = settings.alpha, settings.alpha_power, int(env.action_space.start)
    row = choose(q, s * actions, (s + 1) * actions, epsilon, uniform(stream))
    total, length, ended, cut = 0.0, 0, False, False
    while not (ended or cut):
        obs, reward, ended, cut, _ = env.step(row % actions + offset)
        s, total, length = index(obs), total + float(reward), length + 1
        cut = cut or length >= settings.max_steps
        first, last, following, target = s * actions, (s + 1) * actions, row, float(reward)
        if not ended:
            if rule == SARSA:
                following = choose(q, first, last, epsilon, uniform(stream))
            target += settings.gamma * bootstrap(rule, q, first, last, following, epsilon)
        update(q, visits, row, target, alpha, power)
        if not ended and rule != SARSA:
            following = choose(q, first, last, epsilon, uniform(stream))
        row = following
    return total, length, not ended


def state_index(space: Any) -> tuple[int, Callable[[Any], int]]:
    """(number of states, observation -> 0 .. number - 1) of a Discrete or MultiDiscrete space, or a Tuple of them.

    Raises: ConfigError for any other space.

    >>> count, index = state_index(spaces.Tuple((spaces.Discrete(32), spaces.Discrete(11), spaces.Discrete(2))))
    >>> count, index((13, 2, 1))
    (704, 291)
    """
    if isinstance(space, spaces.Discrete):
        return int(space.n), lambda obs: int(obs) - int(space.start)
    if isinstance(space, spaces.MultiDiscrete):
        sizes = tuple(int(n) for n in space.nvec.ravel())
        return int(np.prod(sizes)), lambda obs: int(
            np.ravel_multi_index(tuple(np.ravel(obs - space.start).tolist()), sizes)
        )
    if isinstance(space, spaces.Tuple):
        parts = [state_index(part) for part in space.spaces]
        sizes = tuple(size for size, _ in parts)
        return int(np.prod(sizes)), lambda obs: int(
            np.ravel_multi_index(tuple(part(o) for (_, part), o in zip(parts, obs)), sizes)
        )
    raise ConfigError(f"observations are {space}; a table needs Discrete, MultiDiscrete, or a Tuple of those.")
