"""Random finite models by the million: successors anywhere (Garnet) or nearby, built without a loop over states."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onepolicy.errors import ConfigError
from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.storage import Ints
from onepolicy.tabular.worlds.tables import at, at_least, large, require_room


def garnet(states: int = 100, *, actions: int = 4, branching: int = 5, seed: int = 0) -> MDP:
    """A Garnet: each (state, action) leads to `branching` different states, drawn uniformly.

    Their probabilities are the lengths of the pieces that uniform cuts leave of [0, 1]; the reward of a row is a
    standard normal. It never ends; start: uniform.
    Raises: ConfigError for sizes below 1, or more successors than states.
    Source: Archibald, McKinnon and Thomas 1995, On the generation of Markov decision processes; rewards as in Bhatnagar
    et al. 2009, Natural actor-critic algorithms, section 6.
    """
    rng = np.random.default_rng(seed)
    rows = _rows(states, actions, branching, states)
    return _with_chances(_subsets(rng, rows, states, branching).reshape(states, actions, branching), rng)


def local(states: int = 100, *, actions: int = 4, branching: int = 5, window: int = 10, seed: int = 0) -> MDP:
    """A random model on a circle: successors are `branching` different ones of the states s - window .. s + window.

    Probabilities and rewards are those of `garnet`. Neighbours in memory, so sweeps are as fast as memory allows, and
    values travel slowly, as in grids and queues.
    Raises: ConfigError for sizes below 1, a circle smaller than the window, or more successors than the window has.
    """
    near = 2 * at_least("window", window, 1) + 1
    if near > states:
        raise ConfigError(f"window is {window}: {near} states, of {states}. Give window <= {(states - 1) // 2}.")
    rng = np.random.default_rng(seed)
    rows = _rows(states, actions, branching, near)
    to = _subsets(rng, rows, near, branching).reshape(states, actions, branching)
    to += np.arange(states, dtype=np.int32)[:, None, None] - np.int32(window)
    to %= np.int32(states)
    to.sort(axis=-1)
    return _with_chances(to, rng)


def _rows(states: int, actions: int, branching: int, most: int) -> int:
    at_least("states", states, 1)
    at_least("actions", actions, 1)
    if at_least("branching", branching, 1) > most:
        raise ConfigError(f"branching is {branching}; there are {most} states to lead to. Give branching <= {most}.")
    rows = states * actions
    drawn = rows * most if _dense(most, branching) else rows * branching
    require_room(states, rows * branching, 8 + 12 * drawn // (rows * branching))
    return rows


def _dense(of: int, size: int) -> bool:
    """Whether subsets are so large that most draws with repetition would repeat a member."""
    return size * size > 4 * of


def _subsets(rng: np.random.Generator, rows: int, of: int, size: int) -> NDArray[np.int32]:
    """`rows` uniform subsets of 0 .. of - 1 with `size` members, ascending, [rows, size].

    Sparse ones: draws with repetition, those rows again that repeat a member. Dense ones: the first of a shuffle.
    """
    if _dense(of, size):
        shuffled: Ints = rng.random((rows, of), dtype=np.float32).argpartition(size - 1, axis=1)
        return np.sort(shuffled[:, :size].astype(np.int32), axis=1)
    drawn = np.sort(rng.integers(of, size=(rows, size), dtype=np.int32), axis=1)
    again: Any = np.flatnonzero((drawn[:, 1:] == drawn[:, :-1]).any(axis=1))
    while again.size:
        fresh = np.sort(rng.integers(of, size=(again.size, size), dtype=np.int32), axis=1)
        drawn[again] = fresh
        again = again[(fresh[:, 1:] == fresh[:, :-1]).any(axis=1)]
    return drawn


def _with_chances(to: NDArray[np.int32], rng: np.random.Generator) -> MDP:
    """Probabilities (exponentials over their sum: pieces between uniform cuts) and rewards for successors [S, A, b]."""
    pieces = rng.standard_exponential(to.shape)
    pieces /= pieces.sum(axis=-1, keepdims=True)
    return large(to, pieces, rng.standard_normal(to.shape[:2]), terminal=at(len(to)), start=None)
