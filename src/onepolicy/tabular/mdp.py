"""A finite Markov decision process: states 0 .. S-1, actions counted from 0 in each state, known probabilities.

The discount is no part of it; every planner and learner takes one. What else can be built from: build.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from scipy.sparse import csr_array

from onepolicy.errors import DataError
from onepolicy.tabular.coo import entries_of, merged, rows_of, start_distribution, terminal_states, without_absorbing
from onepolicy.tabular.storage import Bools, Csr, Floats, Generated, Ints, Rows, Storage, require_memory, storage_bytes

__all__ = ["MDP", "Csr"]


COO_BYTES = 120
"""Memory that sorting a list of transitions takes, in bytes a transition."""


@final
@dataclass(frozen=True, eq=False)
class MDP:
    """A finite MDP. V(terminal) = 0; policies are int [S] (local actions) or float64 [K] (a probability a row)."""

    storage: Storage
    terminal: Bools
    """[S]"""
    start: Floats
    """[S], sums to 1"""
    transition_rewards: Floats | None = None
    """[n], or None where every transition of a row has the row's reward"""
    state_names: tuple[str, ...] | None = None
    action_names: tuple[str, ...] | None = None
    row_labels: NDArray[np.int32] | None = None
    """[K], the caller's number of a row's action, where that is not its local one because others are not allowed"""

    @property
    def num_states(self) -> int:
        """S."""
        return len(self.terminal)

    @property
    def num_rows(self) -> int:
        """K, the number of (state, action) pairs."""
        return int(self.row_ptr[-1])

    @cached_property
    def row_ptr(self) -> Ints:
        """The first row of each state, and K [S + 1]."""
        if isinstance(self.storage, Rows):
            return self.storage.row_ptr
        return np.concatenate([[0], np.cumsum(self.storage.counts, dtype=np.int64)])

    def num_actions(self, state: int) -> int:
        """How many actions a state has; 0 for a terminal one."""
        return int(self.row_ptr[state + 1] - self.row_ptr[state])

    def csr(self) -> Csr:
        """All of it as arrays that compiled functions take; made on the first call from storages that are not ragged.

        Raises: ConfigError when they need more memory than is available.
        """
        return self._csr

    @cached_property
    def _csr(self) -> Csr:
        rewards = self.transition_rewards
        if isinstance(self.storage, Rows):
            rows = self.storage
        else:
            rows, each = ragged(self)
            if isinstance(self.storage, Generated):
                rewards = each
        if rewards is None:
            rewards = np.repeat(rows.rewards, np.diff(rows.ptr))
        return Csr(*rows, rewards, self.terminal, self.start)

    def reachable(self) -> Bools:
        """Which states can be met from the start distribution [S]."""
        return _reached(self.csr())

    def check_reachable(self) -> None:
        """Nothing, if every state can be met from the start.

        Raises: DataError with the first state that cannot.
        """
        lost = np.flatnonzero(~self.reachable())
        if lost.size:
            raise DataError(
                f"State {self.state_name(int(lost[0]))} cannot be reached from the start ({lost.size} such states). "
                "Leave it out, or give the start distribution some probability there."
            )

    def state_name(self, state: int) -> str:
        """A state for messages: its name, or its number."""
        return self.state_names[state] if self.state_names else str(state)

    @staticmethod
    def from_coo(
        state: ArrayLike,
        action: ArrayLike,
        successor: ArrayLike,
        probability: ArrayLike,
        reward: ArrayLike,
        *,
        num_states: int,
        terminal: ArrayLike | None = None,
        start: ArrayLike | None = None,
        state_names: Sequence[str] | None = None,
        action_names: Sequence[str] | None = None,
        dtype: DTypeLike = np.float64,
        limit: int | None = None,
    ) -> MDP:
        """The MDP of a list of transitions, in any order.

        state, action, successor, probability, reward [n]: one entry a transition, the reward that of the transition
        (a number serves all); entries of the same (s, a, s') are added up, their rewards averaged by probability. The
        actions of a state are 0 .. its number - 1. terminal: bool [S], a list of states, or None for the states
        without actions; a self-loop of reward 0 there is dropped. start: a distribution [S], one state, or None for
        uniform over what is not terminal. dtype: of the stored probabilities, float64 or float32. limit: bytes of
        memory to work with, default what is available.
        Raises: ConfigError for too little memory. DataError that names state and action, for rows that do not sum to
        1 (within 1e-6; nearer ones are divided by their sum), negative or non-finite numbers, gaps in the actions,
        states without actions that are not terminal, actions of terminal states.

        >>> mdp = MDP.from_coo([0, 0], [0, 1], [0, 1], [1.0, 1.0], [1.0, 5.0], num_states=2)
        >>> mdp.terminal, mdp.csr().rewards
        (array([False,  True]), array([1., 5.]))
        """
        require_memory(COO_BYTES * np.size(probability), f"Sorting {np.size(probability):,} transitions", limit)
        names = tuple(state_names) if state_names is not None else None
        labels = tuple(action_names) if action_names is not None else None
        entries = entries_of(state, action, successor, probability, reward, num_states, names)
        ends = terminal_states(terminal, num_states)
        if ends is not None:
            entries = without_absorbing(entries, ends, names)
        s, a, t, p, r = merged(*entries, num_states)
        rows, rewards = rows_of(s, a, t, p, r, num_states, ends, names, np.dtype(dtype))
        most = int(np.diff(rows.row_ptr).max())
        if labels is not None and len(labels) < most:
            raise DataError(f"There are {len(labels)} action names and a state with {most} actions; give one for each.")
        if ends is None:
            ends = np.diff(rows.row_ptr) == 0
        return MDP(rows, ends, start_distribution(start, ends), rewards, names, labels)


def ragged(mdp: MDP, limit: int | None = None) -> tuple[Rows, Floats]:
    """The ragged storage of an MDP that is stored in another way, and the reward of every transition.

    limit: bytes of memory, default what is available. Raises: ConfigError when it needs more.
    """
    from onepolicy.tabular.planning import kernels

    row_ptr = np.zeros(mdp.num_states + 1, dtype=np.int64)
    transitions, _ = kernels.count_rows(mdp.storage, mdp.num_states, row_ptr)
    count = int(row_ptr[-1])
    require_memory(storage_bytes("rows", mdp.num_states, count, 2 * transitions), "A ragged copy of the model", limit)
    stored = getattr(mdp.storage, "probabilities", np.empty(0)).dtype
    rows = Rows(
        row_ptr,
        np.zeros(count + 1, dtype=np.int64),
        np.empty(transitions, dtype=np.int32),
        np.empty(transitions, dtype=stored),
        np.empty(count),
    )
    each = np.empty(transitions)
    kernels.fill_rows(mdp.storage, mdp.num_states, rows, each, np.zeros(mdp.num_states))
    return rows, each


def _reached(csr: Csr) -> Bools:
    """The states with a path of positive probability from the start."""
    states = len(csr.terminal)
    out = csr.ptr[csr.row_ptr]
    graph = csr_array((np.ones(len(csr.successors), dtype=np.int8), csr.successors, out), shape=(states, states))
    met = csr.start > 0
    frontier = np.flatnonzero(met)
    while frontier.size:
        ahead = np.unique(graph[frontier].indices)
        frontier = ahead[~met[ahead]]
        met[frontier] = True
    return met
