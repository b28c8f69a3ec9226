"""The arrays of a finite MDP, as named tuples that compiled functions take as they are.

A *row* is a (state, action) pair. All storages hold the same numbers; they differ in memory and in speed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Probabilities = NDArray[np.floating[Any]]
"""float64, or float32 by choice."""


class Csr(NamedTuple):
    """Everything about an MDP of S states, K rows and n transitions, ragged: for learners and samplers.

    State s has the rows row_ptr[s] : row_ptr[s + 1]; its local action a is row row_ptr[s] + a. Row k has the
    transitions ptr[k] : ptr[k + 1]. A terminal state has no rows.
    """

    row_ptr: Ints
    """[S + 1]"""
    ptr: Ints
    """[K + 1]"""
    successors: NDArray[np.int32]
    """[n], ascending within a row"""
    probabilities: Probabilities
    """[n]"""
    rewards: Floats
    """[K], the expected reward of a row"""
    transition_rewards: Floats
    """[n], the expected reward of a transition"""
    terminal: Bools
    """[S]"""
    start: Floats
    """[S], the distribution of the first state"""


class Rows(NamedTuple):
    """Ragged storage: what planning needs of `Csr`. Memory: 12 bytes a transition (8 with float32), 16 a row."""

    row_ptr: Ints
    ptr: Ints
    successors: NDArray[np.int32]
    probabilities: Probabilities
    rewards: Floats
