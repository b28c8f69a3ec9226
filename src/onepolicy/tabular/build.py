"""MDPs from dense or sparse matrices, a gymnasium toy-text world, a grid drawn as text, or a function of the state."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from scipy import sparse

from onepolicy.errors import ConfigError, DataError, nearest
from onepolicy.tabular.coo import start_distribution, terminal_states
from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.storage import Bools, Generated, require_memory

State = TypeVar("State", bound=Hashable)
Outcome = tuple[float, State, float]
"""Probability, next state, reward."""
MOVES = {"up": (-1, 0), "right": (0, 1), "down": (1, 0), "left": (0, -1)}
"""The actions of a grid and where they lead: rows down, columns to the right."""


def from_arrays(
    transitions: NDArray[Any] | Sequence[Any],
    rewards: NDArray[Any] | Sequence[Any],
    *,
    terminal: ArrayLike | None = None,
    start: ArrayLike | None = None,
    dtype: DTypeLike = np.float64,
    limit: int | None = None,
) -> MDP:
    """The MDP of one matrix [S, S] an action.

    transitions: P [A, S, S], P[a, s, s'], or A sparse matrices [S, S]. rewards: [S], [S, A], or of the transitions,
    [A, S, S] or A sparse matrices. A reward of -inf in [S, A] says that the action is not allowed there; the local
    actions of a state are those allowed, in order, and `row_labels` has their numbers. A terminal state's rows are
    left out: all zero, or a stay for a reward of 0.
    Raises: DataError for shapes that do not fit, and what `MDP.from_coo` refuses.
    """
    matrices = [sparse.coo_array(matrix) for matrix in transitions]
    if not matrices or any(m.shape != (matrices[0].shape[0],) * 2 for m in matrices):
        raise DataError(f"transitions have shapes {[m.shape for m in matrices]}; give one [S, S] for each action.")
    num_states, actions = matrices[0].shape[0], len(matrices)
    s = np.concatenate([m.coords[0] for m in matrices]).astype(np.int64)
    t = np.concatenate([m.coords[1] for m in matrices]).astype(np.int64)
    p = np.concatenate([m.data for m in matrices]).astype(np.float64)
    a = np.repeat(np.arange(actions), [m.nnz for m in matrices])
    r, allowed = _rewards(rewards, s, a, t, num_states, actions)
    keep = (p != 0) & allowed[s, a]
    s, a, t, p, r = s[keep], a[keep], t[keep], p[keep], r[keep]
    ends = terminal_states(terminal, num_states)
    present = _present(s, a, num_states, actions)
    over: Bools = np.logical_not(np.any(present, axis=1)) if ends is None else ends
    wrong = np.argwhere(allowed & ~present & ~over[:, None])
    if wrong.size:
        raise DataError(f"State {wrong[0][0]}, action {wrong[0][1]}: the probabilities sum to 0, not 1.")
    local: NDArray[np.int64] = np.cumsum(allowed, axis=1) - 1
    mdp = MDP.from_coo(
        s, local[s, a], t, p, r, num_states=num_states, terminal=terminal, start=start, dtype=dtype, limit=limit
    )
    if allowed.all():
        return mdp
    labels = np.argwhere(allowed & ~mdp.terminal[:, None])[:, 1].astype(np.int32)
    return MDP(mdp.storage, mdp.terminal, mdp.start, mdp.transition_rewards, row_labels=labels)


def _present(s: NDArray[np.int64], a: NDArray[np.int64], num_states: int, actions: int) -> NDArray[np.bool_]:
    found = np.zeros((num_states, actions), dtype=np.bool_)
    found[s, a] = True
    return found


def _rewards(
    rewards: NDArray[Any] | Sequence[Any], s: NDArray[np.int64], a: NDArray[np.int64], t: NDArray[np.int64],
    num_states: int, actions: int,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:  # fmt: skip
    """The reward of each transition (s, a, t), and which actions are allowed [S, A]."""
    allowed = np.ones((num_states, actions), dtype=np.bool_)
    if not isinstance(rewards, np.ndarray) and any(sparse.issparse(part) for part in rewards):
        parts = [sparse.csr_array(part) for part in rewards]
        if len(parts) != actions or any(part.shape != (num_states, num_states) for part in parts):
            raise DataError(f"There are {len(parts)} sparse reward matrices; give one [S, S] for each of {actions}.")
        r = np.zeros(len(s))
        for action, part in enumerate(parts):
            mine = a == action
            r[mine] = np.asarray(part[s[mine], t[mine]]).reshape(-1)
        return r, allowed
    array = np.asarray(rewards, dtype=np.float64)
    if array.shape == (num_states,):
        return array[s], allowed
    if array.shape == (actions, num_states, num_states):
        return array[a, s, t], allowed
    if array.shape == (num_states, actions):
        return array[s, a], ~np.isneginf(array)
    raise DataError(
        f"rewards have shape {array.shape}; give [S], [S, A] or [A, S, S], with S = {num_states} and A = {actions}."
    )


def from_function(
    outcome: Callable[[int, int, int], tuple[int, float, float]],
    *,
    num_states: int,
    num_actions: int | ArrayLike,
    num_outcomes: int,
    terminal: ArrayLike | None = None,
    start: ArrayLike | None = None,
    limit: int | None = None,
) -> MDP:
    """The MDP of a compiled function, no transition of which is stored.

    outcome(state, action, k) -> (successor, probability, reward) for k = 0 .. num_outcomes - 1, made with `numba.njit`,
    a function of its arguments alone; a probability of 0 fills up. num_actions: one number, or one for each state [S].
    It is called for every row once here, for the checks.
    Raises: ConfigError for a function that is not compiled or too little memory; DataError for rows that are wrong.
    """
    if not hasattr(outcome, "py_func"):
        raise ConfigError(f"{outcome!r} is no compiled function; decorate it with numba.njit.")
    if not 1 <= num_states < 2**31:
        raise DataError(f"num_states is {num_states}; an MDP has 1 to 2^31 - 1 states.")
    require_memory(21 * num_states, f"A model of {num_states:,} states", limit)
    actions = np.asarray(num_actions)
    if actions.shape not in ((), (num_states,)):
        raise DataError(f"num_actions has shape {actions.shape}; give one number, or one for each of {num_states}.")
    counts = np.empty(num_states, dtype=np.int32)
    counts[:] = actions
    ends = terminal_states(terminal, num_states)
    if ends is None:
        ends = counts == 0
    counts[ends] = 0
    stuck = np.flatnonzero((counts < 1) & ~ends)
    if stuck.size:
        raise DataError(f"State {stuck[0]} has no actions and is not terminal. Give it one, or name it in terminal.")
    mdp = MDP(Generated(outcome, num_outcomes, counts), ends, start_distribution(start, ends))
    from onepolicy.tabular.planning.kernels import survey

    *_, state, action, total = survey(mdp.storage, ends, 0, num_states)
    if state >= 0:
        raise DataError(
            f"State {state}, action {action}: the probabilities of the outcomes sum to {total:.9g}, not 1, or one is "
            f"negative, or they lead outside 0 .. {num_states - 1}, or a reward is not finite."
        )
    return mdp


def from_gymnasium(env: Any, *, dtype: DTypeLike = np.float64) -> MDP:
    """The MDP of a gymnasium toy-text world: an id such as "FrozenLake-v1", or a made one with a table `P`.

    A state that is only ever entered by a step that ends the episode is terminal. Where some steps into a state end
    the episode and others do not, those that do lead to one more state, the last. The start is the world's own
    distribution.
    Raises: ConfigError for an unknown id, offering the nearest, or a world without a table of transitions.
    """
    if isinstance(env, str):
        import gymnasium

        if env not in gymnasium.registry:
            raise ConfigError(f"gymnasium has no world {env!r}. {nearest(env, gymnasium.registry)}")
        env = gymnasium.make(env)
    world = env.unwrapped
    table = getattr(world, "P", None)
    if not isinstance(table, Mapping):
        raise ConfigError(f"{env} has no table P of transitions; use from_step, or learn from episodes.")
    listed = [
        (s, a, int(t), float(p), float(r), bool(done))
        for s, actions in table.items()
        for a, outcomes in actions.items()
        for p, t, r, done in outcomes
    ]
    ends = {t for *_, t, _, _, done in listed if done}
    if any(t in ends and not done and s not in ends for s, _, t, _, _, done in listed):
        ends = {len(table)}
        listed = [(s, a, len(table) if done else t, p, r, done) for s, a, t, p, r, done in listed]
    entries = [(s, a, t, p, r) for s, a, t, p, r, _ in listed if s not in ends]
    num_states = max(len(table), 1 + max(ends, default=0))
    first = getattr(world, "initial_state_distrib", None)
    start = None if first is None else np.pad(np.asarray(first, dtype=np.float64), (0, num_states - len(table)))
    s, a, t, p, r = (np.asarray(column) for column in zip(*entries))
    return MDP.from_coo(s, a, t, p, r, num_states=num_states, terminal=sorted(ends), start=start, dtype=dtype)


def from_grid(
    text: str,
    *,
    rewards: Mapping[str, float] | None = None,
    step_reward: float = -1.0,
    slip: float = 0.0,
    terminal: str = "GX",
    wall: str = "#",
    start: str = "S",
    dtype: DTypeLike = np.float64,
) -> MDP:
    """The MDP of a grid drawn as text, a line a row; every cell but a wall is a state, named by row and column.

    rewards: of entering a cell with that character, instead of step_reward. slip: the probability of moving to one of
    the two sides instead, half each. Who would leave the grid or enter a wall stays. The actions are up, right, down,
    left. start: where episodes begin, uniformly; anywhere if no cell has it.
    Raises: DataError for lines of unequal length or a character in `rewards` that is not on the grid.

    >>> from_grid("S.G").num_actions(0)
    4
    """
    lines = [line.strip() for line in text.strip().splitlines()]
    if len({len(line) for line in lines}) != 1:
        raise DataError(f"The lines of the grid have lengths {[len(line) for line in lines]}; make them equal.")
    if not 0 <= slip <= 1:
        raise ConfigError(f"slip is {slip}; a probability is from 0 to 1.")
    cells = np.array([list(line) for line in lines])
    unknown = set(rewards or {}) - set(cells.reshape(-1).tolist())
    if unknown:
        raise DataError(f"rewards names {sorted(unknown)}, which the grid does not have.")
    free = cells != wall
    number = np.where(free, np.cumsum(free).reshape(free.shape) - 1, -1)
    gain = np.full(cells.shape, float(step_reward))
    for character, reward in (rewards or {}).items():
        gain[cells == character] = reward
    ends = np.isin(cells, list(terminal))
    rows, columns = np.nonzero(free & ~ends)
    directions = list(MOVES.values())
    parts = []
    for a in range(4):
        for turn, p in ((0, 1 - slip), (1, slip / 2), (3, slip / 2)):
            down, right = directions[(a + turn) % 4]
            to_row = np.clip(rows + down, 0, cells.shape[0] - 1)
            to_column = np.clip(columns + right, 0, cells.shape[1] - 1)
            stay = ~free[to_row, to_column]
            to_row, to_column = np.where(stay, rows, to_row), np.where(stay, columns, to_column)
            here = number[rows, columns]
            parts.append(
                (here, np.full_like(here, a), number[to_row, to_column], np.full(here.size, p), gain[to_row, to_column])
            )
    s, a_, t, p_, r = (np.concatenate(column) for column in zip(*parts))
    begins = (cells == start)[free].astype(np.float64)
    return MDP.from_coo(
        s, a_, t, p_, r,
        num_states=int(free.sum()),
        terminal=ends[free],
        start=begins / begins.sum() if begins.any() else None,
        state_names=[f"({i},{j})" for i, j in np.argwhere(free)],
        action_names=tuple(MOVES),
        dtype=dtype,
    )  # fmt: skip


def from_step(
    step: Callable[[State, Any], Iterable[Outcome[State]]],
    actions: Callable[[State], Iterable[Any]],
    start: State | Mapping[State, float],
    *,
    max_states: int = 1_000_000,
    dtype: DTypeLike = np.float64,
) -> tuple[MDP, list[State]]:
    """The MDP of all states that can be reached from the start, found breadth first, and those states in its order.

    step(state, action) -> the possible outcomes, as (probability, next state, reward). actions(state) -> what can be
    done there; nothing means that the state is terminal. start: a state, or states with probabilities. States are
    anything hashable.
    Raises: ConfigError for more than max_states states. DataError for a start where nothing can be done, and for an
    action without outcomes.

    >>> mdp, states = from_step(lambda n, a: [(1.0, n + a, -1.0)], lambda n: [1, 2] if n < 3 else [], 0)
    >>> states
    [0, 1, 2, 3, 4]
    """
    weights: Mapping[State, float] = start if isinstance(start, Mapping) else {start: 1.0}
    found: dict[State, int] = {state: i for i, state in enumerate(weights)}
    states = list(found)
    entries: list[tuple[int, int, int, float, float]] = []
    for s, state in enumerate(states):
        for a, action in enumerate(actions(state)):
            before = len(entries)
            for p, following, reward in step(state, action):
                if following not in found:
                    if len(states) >= max_states:
                        raise ConfigError(
                            f"Exploration met more than max_states={max_states:,} states, the last {following!r}. "
                            "Raise max_states, or merge states that need not be told apart."
                        )
                    found[following] = len(states)
                    states.append(following)
                entries.append((s, a, found[following], p, reward))
            if len(entries) == before:
                raise DataError(
                    f"step({state!r}, {action!r}) has no outcomes; its probabilities sum to 1. "
                    "Where nothing can be done, leave the action out of actions(state)."
                )
    if not entries:
        raise DataError(f"nothing can be done in the start {states[0]!r}: actions({states[0]!r}) is empty.")
    s_, a_, t, p_, r = (np.asarray(column) for column in zip(*entries))
    first = np.zeros(len(states))
    first[: len(weights)] = list(weights.values())
    names = [str(state) for state in states]
    mdp = MDP.from_coo(s_, a_, t, p_, r, num_states=len(states), start=first, state_names=names, dtype=dtype)
    return mdp, states
