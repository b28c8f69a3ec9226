"""Expected numbers of steps to the end: the weights of the bounds for stochastic shortest paths."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse import linalg

from onepolicy.tabular.jit import jit
from onepolicy.tabular.planning.kernels import Index, U
from onepolicy.tabular.planning.solution import Work
from onepolicy.tabular.storage import Bools, Floats, Ints, Rows

FEW = 300
"""Sweeps after which a model that is small enough is solved directly instead."""
DIRECT_UP_TO = 50_000
MOST = 100_000


def expected(rows: Rows, v: Floats) -> Floats:
    """P v [K]."""
    out = np.empty(len(rows.rewards))
    _expected(rows, v, out)
    return out


def longest(rows: Rows, terminal: Bools, near: Bools, w: Floats, work: Work) -> Floats:
    """About the greatest expected number of steps to the end [S] by rows of `near` [K], none of which may linger.

    w = 1 + max_{a: near} P w, 0 where terminal; solved until w exceeds the right side less a half, or as near as the
    limits of `work` allow: the caller checks. w [S]: where to start from.
    """
    w = np.where(terminal, 0.0, w)
    for count in range(MOST):
        if count == FEW and len(w) <= DIRECT_UP_TO:
            return _direct(rows, terminal, near, w)
        change = _steps_sweep(rows, near, w, count % 2 == 0)
        work.sweeps += float(near.mean())
        if change <= 0.25 or (count > 10 and work.over()):
            break
    return w


def _direct(rows: Rows, terminal: Bools, near: Bools, w: Floats) -> Floats:
    """Policy iteration on the number of steps, each policy by a sparse LU."""
    states = len(w)
    choice = np.zeros(states, dtype=np.int64)
    acting = np.flatnonzero(~terminal)
    for _ in range(50):
        _longest_rows(rows, near, expected(rows, w), choice)
        k = choice[acting]
        lengths = np.diff(rows.ptr)[k]
        picked = np.repeat(rows.ptr[k] - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths) + np.arange(
            lengths.sum()
        )
        matrix = sparse.csr_array(
            (rows.probabilities[picked].astype(np.float64), (np.repeat(acting, lengths), rows.successors[picked])),
            shape=(states, states),
        )
        solved = linalg.spsolve(sparse.csc_array(sparse.eye_array(states) - matrix), np.where(terminal, 0.0, 1.0))
        if not np.isfinite(solved).all():
            return w
        gain = float(np.max(solved - w, initial=0.0))
        w = solved
        if gain <= 1e-6 * (1 + float(w.max())):
            break
    return w


@jit
def _expected(rows: Rows, v: Floats, out: Floats) -> None:
    for k in range(len(out)):
        out[k] = row_mean(rows, U(k), v)


@jit(inline="always")
def row_mean(rows: Rows, k: Index, v: Floats) -> float:
    """The expected v of what follows row k."""
    first, total = U(rows.ptr[k]), 0.0
    for j in range(rows.ptr[k + U(1)] - rows.ptr[k]):
        i = first + U(j)
        total += rows.probabilities[i] * v[U(rows.successors[i])]
    return total


@jit
def _steps_sweep(rows: Rows, near: Bools, w: Floats, backwards: bool) -> float:
    """w in place; the greatest change."""
    greatest, states = 0.0, len(w)
    for i in range(states):
        s = U(states - 1 - i if backwards else i)
        best = -1.0
        for a in range(rows.row_ptr[s + U(1)] - rows.row_ptr[s]):
            k = U(rows.row_ptr[s]) + U(a)
            if near[k]:
                best = max(best, row_mean(rows, k, w))
        if best >= 0.0:
            greatest = max(greatest, abs(1.0 + best - w[s]))
            w[s] = 1.0 + best
    return greatest


@jit
def _longest_rows(rows: Rows, near: Bools, following: Floats, choice: Ints) -> None:
    """The row of `near` with the greatest number of steps to follow, for each state."""
    for s in range(len(choice)):
        best = -1.0
        for k in range(rows.row_ptr[s], rows.row_ptr[s + 1]):
            if near[k] and following[k] > best:
                best, choice[s] = following[k], k
