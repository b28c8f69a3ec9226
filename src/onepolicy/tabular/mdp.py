"""A finite Markov decision process: states 0 .. S-1, actions counted from 0 in each state, known probabilities.

The discount is no part of it; every planner and learner takes one. What else can be built from: build.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from onepolicy.tabular.coo import entries_of, merged, rows_of, start_distribution, terminal_states, without_absorbing
from onepolicy.tabular.storage import Bools, Csr, Floats, Rows

__all__ = ["MDP", "Csr"]


@final
@dataclass(frozen=True, eq=False)
class MDP:
    """A finite MDP. V(terminal) = 0; policies are int [S] (local actions) or float64 [K] (a probability a row)."""

    storage: Rows
    terminal: Bools
    """[S]"""
    start: Floats
    """[S], sums to 1"""
    transition_rewards: Floats | None = None
    """[n], or None where every transition of a row has the row's reward"""
    state_names: tuple[str, ...] | None = None
    action_names: tuple[str, ...] | None = None

    @property
    def num_states(self) -> int:
        """S."""
        return len(self.terminal)

    @property
    def num_rows(self) -> int:
        """K, the number of (state, action) pairs."""
        return len(self.storage.rewards)

    def num_actions(self, state: int) -> int:
        """How many actions a state has; 0 for a terminal one."""
        return int(self.storage.row_ptr[state + 1] - self.storage.row_ptr[state])

    def csr(self) -> Csr:
        """All of it as arrays that compiled functions take."""
        return self._csr

    @cached_property
    def _csr(self) -> Csr:
        rows = self.storage
        rewards = self.transition_rewards
        if rewards is None:
            rewards = np.repeat(rows.rewards, np.diff(rows.ptr))
        return Csr(*rows, rewards, self.terminal, self.start)

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
    ) -> MDP:
        """The MDP of a list of transitions, in any order.

        state, action, successor, probability, reward [n]: one entry a transition, the reward that of the transition
        (a number serves all); entries of the same (s, a, s') are added up, their rewards averaged by probability. The
        actions of a state are 0 .. its number - 1. terminal: bool [S], a list of states, or None for the states
        without actions; a self-loop of reward 0 there is dropped. start: a distribution [S], one state, or None for
        uniform over what is not terminal. dtype: of the stored probabilities, float64 or float32.
        Raises: DataError that names state and action, for rows that do not sum to 1 (within 1e-6; nearer ones are
        divided by their sum), negative or non-finite numbers, gaps in the actions, states without actions that are
        not terminal, actions of terminal states.

        >>> mdp = MDP.from_coo([0, 0], [0, 1], [0, 1], [1.0, 1.0], [1.0, 5.0], num_states=2)
        >>> mdp.terminal, mdp.csr().rewards
        (array([False,  True]), array([1., 5.]))
        """
        names = tuple(state_names) if state_names is not None else None
        labels = tuple(action_names) if action_names is not None else None
        entries = entries_of(state, action, successor, probability, reward, num_states, names)
        ends = terminal_states(terminal, num_states)
        if ends is not None:
            entries = without_absorbing(entries, ends, names)
        s, a, t, p, r = merged(*entries, num_states)
        rows, rewards = rows_of(s, a, t, p, r, num_states, ends, names, np.dtype(dtype))
        if ends is None:
            ends = np.diff(rows.row_ptr) == 0
        return MDP(rows, ends, start_distribution(start, ends), rewards, names, labels)
