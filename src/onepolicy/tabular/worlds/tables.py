"""What the worlds share: tables with a last axis of outcomes turned to an MDP, moves on a grid, checks of arguments."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onepolicy.errors import ConfigError
from onepolicy.tabular.coo import start_distribution
from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.storage import Bools, Floats, Ints, Rows, Table, available_memory

Integer = TypeVar("Integer", bound=np.signedinteger[Any])

UP, RIGHT, DOWN, LEFT = (-1, 0), (0, 1), (1, 0), (0, -1)
"""(rows, columns) of a move; row 0 is the top."""
COMPASS = {"up": UP, "right": RIGHT, "down": DOWN, "left": LEFT}
"""The four moves in the order of gymnasium's CliffWalking, clockwise: what is beside action a is a - 1 and a + 1."""
OUTCOME_BYTES = 160
"""Memory that making a world by `from_outcomes` or `MDP.from_coo` takes at its peak, in bytes a transition."""


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


def large(
    successor: NDArray[np.int32],
    probability: ArrayLike,
    reward: Floats,
    *,
    terminal: Bools,
    start: int | None,
    **named: Any,
) -> MDP:
    """`from_outcomes` for millions of states: ragged storage written as it is, or a table where b is 1; no checks.

    successor: [S, A, b]. reward: [S, A], the expected one, taken as every transition's.
    terminal: bool [S]. start: a state, or None for uniform.
    """
    ends, begins = terminal, start_distribution(start, terminal)
    num_states, actions, width = successor.shape
    if width == 1:
        counts = np.where(ends, 0, actions).astype(np.int32)
        return MDP(Table(counts, successor[..., 0], reward), ends, begins, **named)
    if ends.any():
        successor, reward = successor[~ends], reward[~ends]
        probability = np.broadcast_to(probability, (num_states, actions, width))[~ends]
    t, p = successor.ravel(), np.broadcast_to(probability, successor.shape).ravel()
    if (successor[..., 1:] <= successor[..., :-1]).any():
        order = successor.argsort(axis=-1, kind="stable")
        t = np.take_along_axis(successor, order, axis=-1).ravel()
        p = np.take_along_axis(p.reshape(successor.shape), order, axis=-1).ravel()
    new = np.ones((t.size // width, width), dtype=np.bool_)
    new[:, 1:] = np.diff(t.reshape(new.shape)) != 0
    ptr = np.arange(0, t.size + 1, width)
    if not new.all():
        first = np.flatnonzero(new)
        t, p, ptr = t[first], np.add.reduceat(p, first), np.searchsorted(first, ptr)
    row_ptr = np.concatenate([[0], np.cumsum(np.where(ends, 0, actions))])
    return MDP(Rows(row_ptr, ptr, t, p, reward.ravel()), ends, begins, **named)


def reach(rows: int, cols: int, moves: ArrayLike, walls: Bools | None = None) -> Ints:
    """The cell that each move leads to, [rows * cols, A]; cells are numbered row by row from the top left.

    moves: (rows, columns) of each, [A, 2], or of each in each cell, [rows * cols, A, 2]. A move off the grid is cut at
    its edge, each coordinate for itself. walls: bool [rows * cols], cells that are not entered: one stays.
    """
    step = np.asarray(moves, dtype=np.int64)
    step = step.reshape(rows, cols, -1, 2) if step.ndim == 3 else step
    row = np.clip(np.arange(rows)[:, None, None] + step[..., 0], 0, rows - 1)
    col = np.clip(np.arange(cols)[:, None] + step[..., 1], 0, cols - 1)
    to: Ints = (row * cols + col).reshape(rows * cols, -1)
    return to if walls is None else np.where(walls[to], np.arange(rows * cols)[:, None], to)


def sideways(to: NDArray[Integer]) -> NDArray[Integer]:
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


def require_room(states: int, transitions: int, each: int = OUTCOME_BYTES) -> None:
    """Nothing, if a world of this size can be made. each: bytes a transition, at the peak.

    Raises: ConfigError for more memory than there is, or states that no int32 counts; before anything is allocated.
    """
    needed, there = each * transitions, available_memory()
    if needed > there or states >= 2**31:
        raise ConfigError(
            f"A world of {states:,} states and {transitions:,} transitions takes {needed / 2**30:.2f} GiB to make, and "
            f"there are {there / 2**30:.2f} GiB; states are counted up to 2^31. Make it smaller, or give the model as "
            "a compiled function (build.from_function)."
        )
