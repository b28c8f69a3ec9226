"""The arrays of a finite MDP, as named tuples that compiled functions take as they are.

A *row* is a (state, action) pair. Four storages hold the same model and differ in memory and in speed: ragged rows,
padded rows, a table of next states, and no arrays at all but a compiled function. layouts.py turns one into another.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from onepolicy.errors import ConfigError, DataError

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]
Policy: TypeAlias = NDArray[np.int32]
Probabilities: TypeAlias = NDArray[np.floating[Any]]
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
    """[n], ascending within a row; those of a compiled function in its order"""
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
    """Ragged storage: any number of actions a state, of transitions a row. The layout is that of `Csr`."""

    row_ptr: Ints
    ptr: Ints
    successors: NDArray[np.int32]
    probabilities: Probabilities
    rewards: Floats


class Padded(NamedTuple):
    """Rectangular storage: A rows for every state, b transitions for every row, what is short filled with p = 0."""

    counts: NDArray[np.int32]
    """[S], how many of the A actions a state has; 0 for a terminal one"""
    successors: NDArray[np.int32]
    """[S, A, b]"""
    probabilities: Probabilities
    """[S, A, b]"""
    rewards: Floats
    """[S, A]"""


class Table(NamedTuple):
    """Deterministic storage: where each action leads."""

    counts: NDArray[np.int32]
    """[S]"""
    successors: NDArray[np.int32]
    """[S, A]"""
    rewards: Floats
    """[S, A]"""


class Generated(NamedTuple):
    """No stored transitions: a function compiled by `numba.njit` that says what can happen.

    outcome(state, action, k) -> (successor, probability, reward) for k = 0 .. width - 1; a probability of 0 fills up.
    It must be a function of its arguments alone.
    """

    outcome: Callable[[int, int, int], tuple[int, float, float]]
    width: int
    counts: NDArray[np.int32]
    """[S]"""


Storage: TypeAlias = Rows | Padded | Table | Generated
LAYOUTS = ("rows", "padded", "table")


def storage_bytes(layout: str, states: int, rows: int, transitions: int, *, itemsize: int = 8) -> int:
    """The memory of a storage, in bytes.

    rows: of a padded one or a table, states times the most actions; transitions: of a padded one, rows times the most
    transitions of a row. itemsize: of a probability, 8 or 4.

    >>> storage_bytes("rows", 10**6, 4 * 10**6, 2 * 10**7, itemsize=4) / 1e6
    232.000016
    """
    if layout == "rows":
        return 8 * (states + 1) + 16 * rows + 8 + (4 + itemsize) * transitions
    if layout == "padded":
        return 4 * states + 8 * rows + (4 + itemsize) * transitions
    return 4 * states + 12 * rows


def as_stored(probabilities: Probabilities, dtype: DTypeLike) -> Probabilities:
    """Probabilities in the precision of a storage; what is above 0 stays above 0.

    Raises: DataError for another precision than float64 or float32.
    """
    kind = np.dtype(dtype)
    if kind not in (np.float64, np.float32):
        raise DataError(f"dtype is {kind}; probabilities are stored as float64 or float32.")
    stored = probabilities.astype(kind, copy=False)
    if stored.min(initial=1) == 0:
        stored[(stored == 0) & (probabilities > 0)] = np.finfo(kind).smallest_subnormal
    return stored


def available_memory() -> int:
    """Bytes that can be allocated now without swapping, as the system says; on a system that does not, 2^63."""
    info = Path("/proc/meminfo")
    if info.is_file():
        for line in info.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 2**63


def require_memory(needed: int, what: str, limit: int | None = None) -> None:
    """Nothing, if `needed` bytes are within `limit` (default: what is available now).

    Raises: ConfigError that says how much is needed, how much there is, and what needs less.
    """
    there = available_memory() if limit is None else limit
    if needed > there:
        raise ConfigError(
            f"{what} needs {_size(needed)} and there are {_size(there)}. Store probabilities as float32 "
            "(dtype='float32'), give a deterministic model as a table, or a compiled function (build.from_function)."
        )


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**27 else f"{count:,} bytes"
