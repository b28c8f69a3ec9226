"""Prioritised sweeping with full backups: a heap of states by the change that waits for them."""

from __future__ import annotations

from typing import final

import numpy as np

from onepolicy.tabular.jit import jit
from onepolicy.tabular.planning.kernels import backup, num_actions
from onepolicy.tabular.planning.sweeps import Sweeps
from onepolicy.tabular.storage import Floats, Ints, Rows

PIECE = 1_000_000
"""Backups after which the limits are looked at."""


@final
class Prioritised:
    """The queue of one model: who precedes a state, and how much each state would change."""

    def __init__(self, sweeps: Sweeps) -> None:
        csr = sweeps.mdp.csr()
        self.rows, self.discount = Rows(*csr[:5]), sweeps.discount
        states = sweeps.num_states
        here = np.repeat(np.repeat(np.arange(states), np.diff(csr.row_ptr)), np.diff(csr.ptr))
        order = np.argsort(csr.successors, kind="stable")
        self.before = here[order].astype(np.int32)
        self.before_ptr = np.concatenate([[0], np.cumsum(np.bincount(csr.successors, minlength=states))])
        self.heap, self.place = np.empty(states, dtype=np.int64), np.full(states, -1, dtype=np.int64)
        self.waiting = np.zeros(states)
        self.size = 0

    def drain(self, v: Floats, least: float) -> tuple[int, bool]:
        """Backups of v in place until no state would change by more than `least`, at most a piece of them.

        Returns: the number of backups (looking how much a state would change counts as one), and whether it is done.
        """
        fresh = self.size == 0
        backups, self.size = _drain(
            self.rows, v, self.discount, least, self.before, self.before_ptr, self.heap, self.place, self.waiting,
            self.size, fresh, PIECE,
        )  # fmt: skip
        return int(backups), self.size == 0


@jit
def _best(rows: Rows, v: Floats, discount: float, s: int) -> float:
    best = -np.inf
    for a in range(num_actions(rows, s)):
        reward, following = backup(rows, s, a, v)
        best = max(best, reward + discount * following)
    return best


@jit
def _up(heap: Ints, place: Ints, waiting: Floats, i: int) -> None:
    """The heap put in order after the state at i has more waiting for it."""
    s = heap[i]
    while i > 0:
        parent = (i - 1) // 2
        if waiting[heap[parent]] >= waiting[s]:
            break
        heap[i] = heap[parent]
        place[heap[i]] = i
        i = parent
    heap[i] = s
    place[s] = i


@jit
def _pop(heap: Ints, place: Ints, waiting: Floats, size: int) -> int:
    """The first state taken off a heap of `size`."""
    top, s = heap[0], heap[size - 1]
    place[top] = -1
    size -= 1
    if size == 0:
        return top
    i = 0
    while 2 * i + 1 < size:
        child = 2 * i + 1
        if child + 1 < size and waiting[heap[child + 1]] > waiting[heap[child]]:
            child += 1
        if waiting[heap[child]] <= waiting[s]:
            break
        heap[i] = heap[child]
        place[heap[i]] = i
        i = child
    heap[i] = s
    place[s] = i
    return top


@jit
def _drain(
    rows: Rows, v: Floats, discount: float, least: float, before: Ints, before_ptr: Ints, heap: Ints, place: Ints,
    waiting: Floats, size: int, fresh: bool, piece: int,
) -> tuple[int, int]:  # fmt: skip
    """Backups done and states left on the heap."""
    backups = 0
    if fresh:
        for s in range(len(v)):
            if num_actions(rows, s) == 0:
                continue
            change = abs(_best(rows, v, discount, s) - v[s])
            backups += 1
            if change > least:
                waiting[s] = change
                heap[size] = s
                _up(heap, place, waiting, size)
                size += 1
    while size > 0 and backups < piece:
        s = _pop(heap, place, waiting, size)
        size -= 1
        v[s] = _best(rows, v, discount, s)
        backups += 1
        for i in range(before_ptr[s], before_ptr[s + 1]):
            p = before[i]
            change = abs(_best(rows, v, discount, p) - v[p])
            backups += 1
            if place[p] >= 0:
                if change > waiting[p]:
                    waiting[p] = change
                    _up(heap, place, waiting, place[p])
            elif change > least:
                waiting[p] = change
                heap[size] = p
                _up(heap, place, waiting, size)
                size += 1
    return backups, size
