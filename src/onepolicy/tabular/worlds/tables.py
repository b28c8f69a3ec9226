"""What the worlds share: tables with a last axis of outcomes turned to an MDP, moves on a grid, checks of arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from onepolicy.errors import ConfigError
from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.storage import Bools, Ints

UP, RIGHT, DOWN, LEFT = (-1, 0), (0, 1), (1, 0), (0, -1)
"""(rows, columns) of a move; row 0 is the top."""
COMPASS = {"up": UP, "right": RIGHT, "down": DOWN, "left": LEFT}
"""The four moves in the order of gymnasium's CliffWalking, clockwise: what is beside action a is a - 1 and a + 1."""


def from_outcomes(
    successor: ArrayLike, probability: ArrayLike, reward: ArrayLike, *, terminal: Bools | None = None, **named: Any
) -> MDP:
    """The MDP of a table in which every state has the same actions and every action the same number of outcomes.

    successor: [S, A, b] states. probability, reward: broadcast against it; outcomes of probability 0 are left out.
    terminal: bool [S], states whose rows are left out. named: start, state_names, action_names of `MDP.from_coo`.
    """
    to = np.asarray(successor, dtype=np.int32)
    num_states, num_actions, _ = to.shape
    chances = np.broadcast_to(np.asarray(probability, dtype=np.float64), to.shape)
    keep = chances > 0
    if terminal is not None:
        keep &= ~terminal[:, None, None]
    state = np.arange(num_states, dtype=np.int32)[:, None, None]
    action = np.arange(num_actions, dtype=np.int32)[:, None]
    entries = (state, action, to, chances, np.asarray(reward, dtype=np.float64))
    s, a, t, p, r = (np.broadcast_to(entry, to.shape)[keep] for entry in entries)
    return MDP.from_coo(s, a, t, p, r, num_states=num_states, terminal=terminal, **named)


def reach(rows: int, cols: int, moves: ArrayLike, walls: Bools | None = None) -> Ints:
    """The cell that each move leads to, [rows * cols, A]; cells are numbered row by row from the top left.

    moves: (rows, columns) of each, [A, 2], or of each in each cell, [rows * cols, A, 2]. A move off the grid is cut at
    its edge, each coordinate for itself. walls: bool [rows * cols], cells that are not entered: one stays.
    """
    cell = np.arange(rows * cols)
    step = np.asarray(moves, dtype=np.int64)
    row = np.clip((cell // cols)[:, None] + step[..., 0], 0, rows - 1)
    col = np.clip((cell % cols)[:, None] + step[..., 1], 0, cols - 1)
    to: Ints = row * cols + col
    return to if walls is None else np.where(walls[to], cell[:, None], to)


def sideways(to: Ints) -> Ints:
    """What is reached ahead and to either side, [cells, 4, 3], by four moves in circular order."""
    return np.stack([to, np.roll(to, 1, axis=1), np.roll(to, -1, axis=1)], axis=2)


def at(cells: int, *where: int) -> Bools:
    """True in the named cells, bool [cells]."""
    marked = np.zeros(cells, dtype=np.bool_)
    marked[list(where)] = True
    return marked


def chance(name: str, value: float) -> float:
    """value, if it is a probability.

    Raises: ConfigError otherwise.
    """
    if not 0.0 <= value <= 1.0:
        raise ConfigError(f"{name} is {value}; it is a probability. Give {name} in [0, 1].")
    return value


def at_least(name: str, value: int, least: int) -> int:
    """value, if it is at least `least`.

    Raises: ConfigError otherwise.
    """
    if value < least:
        raise ConfigError(f"{name} is {value}; this world needs at least {least}. Give {name} >= {least}.")
    return value
