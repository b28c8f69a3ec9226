"""One-step control in any gymnasium world with discrete spaces, step by step in Python.

The update functions are those of the compiled loops, which play a world whose model is known some hundred times faster.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces

from onepolicy.errors import ConfigError, nearest
from onepolicy.tabular.control.settings import ControlResult, Settings, blank
from onepolicy.tabular.control.step import EXPECTED_SARSA, Q_LEARNING, SARSA, bootstrap, choose, update
from onepolicy.tabular.simulate import streams, uniform

RULES = {"sarsa": SARSA, "q-learning": Q_LEARNING, "expected-sarsa": EXPECTED_SARSA}


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
    if not isinstance(env.action_space, spaces.Discrete):
        raise ConfigError(f"actions are {env.action_space}; a table needs a Discrete space.")
    actions = int(env.action_space.n)
    record, epsilons = blank(settings, states * actions), settings.epsilons()
    started = time.perf_counter()
    for run, stream in enumerate(streams(settings.seed, settings.runs)):
        obs, _ = env.reset(seed=settings.seed + run)
        for episode, epsilon in enumerate(epsilons):
            if episode > 0:
                obs, _ = env.reset()
            uniform(stream)  # the compiled loops' draw of a start
            played = _episode(env, index(obs), index, actions, settings, RULES[rule], epsilon, stream, record.q[run],
                              record.visits[run])  # fmt: skip
            record.returns[run, episode], record.lengths[run, episode], record.truncated[run, episode] = played
    row_ptr = np.arange(0, states * actions + 1, actions)
    return ControlResult(record.q, row_ptr, *record[1:], time.perf_counter() - started, {})


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
) -> tuple[float, int, bool]:
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
