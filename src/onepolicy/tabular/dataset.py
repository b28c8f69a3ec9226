"""A fixed data set of transitions: which (state, action) pairs it covers, and the model its counts make.

What to do with it is in control/dataset.py. An episode cut by a time limit leaves an ordinary transition; only what
ended in a terminal state is `terminated`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onepolicy.errors import DataError
from onepolicy.tabular.mdp import MDP

if TYPE_CHECKING:
    from onepolicy.tabular.simulate import Episodes

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
SHOWN = 5
"""Pairs named in a message; the rest are counted."""


@final
@dataclass(frozen=True, eq=False)
class Dataset:
    """N transitions among S states: row [N] of (state, action), reward [N], next_state [N], terminated [N].

    row_ptr [S+1]: state s has the rows row_ptr[s]:row_ptr[s+1], one for each action, seen or not. Made by `dataset`.
    """

    row: Ints
    reward: Floats
    next_state: Ints
    terminated: NDArray[np.bool_]
    row_ptr: Ints

    @property
    def num_states(self) -> int:
        """S."""
        return len(self.row_ptr) - 1

    @property
    def num_rows(self) -> int:
        """K, the number of (state, action) pairs, seen or not."""
        return int(self.row_ptr[-1])

    def counts(self) -> Ints:
        """How often each (state, action) pair was seen, [K]."""
        return np.bincount(self.row, minlength=self.num_rows)

    def state_of(self, row: ArrayLike) -> Ints:
        """The state of each row."""
        return np.asarray(np.searchsorted(self.row_ptr, row, side="right") - 1)

    def coverage(self) -> Coverage:
        """Which pairs were seen and which were not."""
        counts, actions = self.counts(), np.diff(self.row_ptr)
        before = np.concatenate([[0], np.cumsum(counts)])[self.row_ptr]
        acted, ended, went_on = np.diff(before) > 0, np.zeros_like(actions, bool), np.zeros_like(actions, bool)
        ended[self.next_state[self.terminated]] = True
        went_on[self.next_state[~self.terminated]] = True
        terminal = (actions == 0) | (ended & ~acted & ~went_on)
        state = self.state_of(np.arange(self.num_rows))
        unseen = np.flatnonzero((counts == 0) & (acted | went_on)[state])
        return Coverage(
            counts,
            unseen=np.stack([state[unseen], unseen - self.row_ptr[state[unseen]]], axis=1),
            dead_ends=np.flatnonzero(went_on & ~acted & ~terminal),
            terminal=np.flatnonzero(terminal),
            unvisited=np.flatnonzero(~(acted | went_on | terminal)),
        )


@final
@dataclass(frozen=True, eq=False)
class Coverage:
    """What a data set says nothing of.

    counts [K]: how often each pair was seen. unseen [U, 2]: pairs (state, action) that never were, in states that were.
    dead_ends: states that were reached and not left, although the episode did not end there; their pairs are among the
    unseen. terminal: states without actions, or where episodes ended and nothing was ever done. unvisited: states that
    do not occur.
    """

    counts: Ints
    unseen: Ints
    dead_ends: Ints
    terminal: Ints
    unvisited: Ints

    def __str__(self) -> str:
        seen = self.counts[self.counts > 0]
        times = f", {seen.min()} to {seen.max()} times each" if len(seen) else ""
        text = f"{len(seen)} of {len(seen) + len(self.unseen)} (state, action) pairs seen{times}"
        if len(self.unseen):
            text += f"; unseen: {named(self.unseen)}"
        for what, states in (("reached but never left", self.dead_ends), ("never visited", self.unvisited)):
            if len(states):
                text += f"; {what}: {_listed([f'state {s}' for s in states[:SHOWN]], states)}"
        return text + "."


def named(pairs: Ints) -> str:
    """The first pairs (state, action) in words, and how many more there are.

    >>> named(np.array([[3, 1], [4, 0]]))
    'action 1 of state 3, action 0 of state 4'
    """
    return _listed([f"action {a} of state {s}" for s, a in pairs[:SHOWN]], pairs)


def _listed(words: list[str], everything: Ints) -> str:
    more = len(everything) - len(words)
    return ", ".join(words) + (f" and {more} more" if more else "")


def dataset(
    state: ArrayLike,
    action: ArrayLike,
    reward: ArrayLike,
    next_state: ArrayLike,
    terminated: ArrayLike,
    *,
    num_states: int,
    num_actions: ArrayLike,
) -> Dataset:
    """The data set of N transitions, arrays [N]. num_actions: of every state, or of each [S].

    Raises: DataError naming the transition, for arrays of different lengths, a state or action out of range, a reward
    that is not finite, a missing `terminated` dtype of bool, or no transition at all.

    >>> print(dataset([0, 0], [0, 1], [1.0, 0.0], [1, 0], [True, False], num_states=2, num_actions=2).coverage())
    2 of 2 (state, action) pairs seen, 1 to 1 times each.
    """
    columns = {"state": state, "action": action, "reward": reward, "next_state": next_state, "terminated": terminated}
    arrays = {name: np.asarray(column) for name, column in columns.items()}
    length = len(arrays["state"]) if arrays["state"].ndim == 1 else 0
    if length == 0:
        raise DataError(f"state has shape {arrays['state'].shape}; a data set has at least one transition, arrays [N].")
    for name, array in arrays.items():
        if array.shape != (length,):
            raise DataError(f"{name} has shape {array.shape}, state ({length},); all are one number a transition.")
    if arrays["terminated"].dtype != np.bool_:
        raise DataError(f"terminated has dtype {arrays['terminated'].dtype}; it is bool, True where the episode ended.")
    actions = np.broadcast_to(np.asarray(num_actions, dtype=np.int64), num_states)
    states = _indices("state", arrays["state"], np.full(length, num_states), "the data set has states")
    following = _indices("next_state", arrays["next_state"], np.full(length, num_states), "the data set has states")
    chosen = _indices("action", arrays["action"], actions[states], "its state has actions")
    rewards = arrays["reward"].astype(np.float64)
    if not np.all(np.isfinite(rewards)):
        first = int(np.argmin(np.isfinite(rewards)))
        raise DataError(f"reward is {rewards[first]} at transition {first}; rewards are finite.")
    row_ptr = np.concatenate([[0], np.cumsum(actions)])
    return Dataset(row_ptr[states] + chosen, rewards, following, arrays["terminated"], row_ptr)


def _indices(name: str, values: NDArray[np.generic], bound: Ints, what: str) -> Ints:
    """Integers inside 0 .. bound - 1, element by element."""
    if values.dtype.kind not in "iu":
        raise DataError(f"{name} has dtype {values.dtype}; it is integers, counted from 0.")
    found = values.astype(np.int64)
    wrong = np.flatnonzero((found < 0) | (found >= bound))
    if len(wrong):
        first = wrong[0]
        raise DataError(f"{name} is {found[first]} at transition {first}; {what} 0 .. {bound[first] - 1}.")
    return found


def from_episodes(mdp: MDP, episodes: Episodes) -> Dataset:
    """The data set of episodes sampled from a model (`simulate.sample_episodes`), with the model's own rows."""
    row_ptr = np.asarray(mdp.csr().row_ptr, dtype=np.int64)
    row, following = episodes.row.astype(np.int64), episodes.next_state.astype(np.int64)
    return Dataset(row, episodes.reward, following, episodes.terminated, row_ptr)


def empirical_model(data: Dataset, floor: float, start: ArrayLike | None = None) -> MDP:
    """The MDP of a data set's counts: P(s'|s, a) = N(s, a, s') / N(s, a), R = mean reward of the transition.

    Two terminal states are added: S, where what was terminated goes, and S + 1, where every unseen pair goes with the
    reward `floor`, so that any planner solves the model with what was never tried worth `floor`. Terminal and unvisited
    states have no rows. start: as in `MDP.from_coo`, over the S states.
    """
    coverage = data.coverage()
    end, nowhere = data.num_states, data.num_states + 1
    state, action = data.state_of(data.row), data.row - data.row_ptr[data.state_of(data.row)]
    successor = np.where(data.terminated, end, data.next_state)
    share = 1.0 / coverage.counts[data.row]
    unseen = coverage.unseen
    return MDP.from_coo(
        np.concatenate([state, unseen[:, 0]]),
        np.concatenate([action, unseen[:, 1]]),
        np.concatenate([successor, np.full(len(unseen), nowhere)]),
        np.concatenate([share, np.ones(len(unseen))]),
        np.concatenate([data.reward, np.full(len(unseen), floor)]),
        num_states=data.num_states + 2,
        terminal=[*coverage.terminal.tolist(), *coverage.unvisited.tolist(), end, nowhere],
        start=start if start is None or np.ndim(start) == 0 else np.append(np.asarray(start, dtype=np.float64), [0, 0]),
    )
