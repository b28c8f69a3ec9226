"""Transitions in any order, checked and sorted into rows: what `MDP.from_coo` does."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from onepolicy.errors import DataError
from onepolicy.tabular.storage import Bools, Floats, Ints, Rows, as_stored

ROW_SUM_TOLERANCE = 1e-6
"""How far the probabilities of a row may be from 1; what is nearer is divided by its sum."""


Entries = tuple[Ints, Ints, Ints, Floats, Floats]


def entries_of(
    state: ArrayLike,
    action: ArrayLike,
    successor: ArrayLike,
    probability: ArrayLike,
    reward: ArrayLike,
    num_states: int,
    names: tuple[str, ...] | None,
) -> Entries:
    """The transitions as arrays of one length, each in its range."""
    if not 1 <= num_states < 2**31:
        raise DataError(f"num_states is {num_states}; an MDP has 1 to 2^31 - 1 states.")
    if names is not None and len(names) != num_states:
        raise DataError(f"There are {len(names)} state names for {num_states} states; give one for each.")
    s, a, t = (_integers(x, what) for x, what in ((state, "state"), (action, "action"), (successor, "successor")))
    p = np.asarray(probability, dtype=np.float64)
    r = np.asarray(reward, dtype=np.float64)
    shapes = {x.shape for x in (s, a, t, p)}
    if len(shapes) != 1 or p.ndim != 1 or r.shape not in ((), p.shape):
        raise DataError(
            f"state, action, successor, probability and reward have shapes {[x.shape for x in (s, a, t, p, r)]}; "
            "give 1-D arrays of one length, or one number as the reward of all."
        )
    r = np.broadcast_to(r, p.shape)
    for x, what in ((s, "state"), (t, "successor")):
        wrong = np.flatnonzero((x < 0) | (x >= num_states))
        if wrong.size:
            i = wrong[0]
            raise DataError(f"Transition {i} ({s[i]}, {a[i]}) -> {t[i]} has a {what} outside 0 .. {num_states - 1}.")
    wrong = np.flatnonzero(~np.isfinite(p) | (p < 0) | ~np.isfinite(r) | (a < 0))
    if wrong.size:
        i = wrong[0]
        raise DataError(
            f"State {s[i]}, action {a[i]} -> {t[i]} has probability {p[i]:g} and reward {r[i]:g}; "
            "probabilities are at least 0, rewards finite, actions counted from 0. Leave out what is not allowed."
        )
    return s, a, t, p, r


def _integers(x: ArrayLike, what: str) -> Ints:
    array = np.asarray(x)
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise DataError(f"{what} has dtype {array.dtype}; indices are integers.")
    return array.astype(np.int64, copy=False)


def terminal_states(terminal: ArrayLike | None, num_states: int) -> Bools | None:
    """Terminal states as bool [S], or None when nobody said."""
    if terminal is None:
        return None
    given = np.asarray(terminal)
    if given.dtype == np.bool_:
        if given.shape != (num_states,):
            raise DataError(f"terminal has shape {given.shape}; give bool [{num_states}] or a list of states.")
        return given.copy()
    states = _integers(given, "terminal").reshape(-1)
    if states.size and not (states.min() >= 0 and states.max() < num_states):
        raise DataError(
            f"terminal has states outside 0 .. {num_states - 1}: {states[(states < 0) | (states >= num_states)][:5]}."
        )
    ends = np.zeros(num_states, dtype=np.bool_)
    ends[states] = True
    return ends


def without_absorbing(entries: Entries, ends: Bools, names: tuple[str, ...] | None) -> Entries:
    """The transitions of states that are not terminal; a terminal one may only stay where it is, for nothing."""
    s, a, t, p, r = entries
    out = ends[s]
    if not out.any():
        return entries
    wrong = np.flatnonzero(out & (p > 0) & ((s != t) | (r != 0)))
    if wrong.size:
        i = wrong[0]
        raise DataError(
            f"Terminal state {_name(s[i], names)} has action {a[i]} to state {t[i]} with reward {r[i]:g}; "
            "nothing follows a terminal state. Leave it out, or give the reward on the way in."
        )
    keep = ~out
    return s[keep], a[keep], t[keep], p[keep], r[keep]


def merged(s: Ints, a: Ints, t: Ints, p: Floats, r: Floats, num_states: int) -> Entries:
    """Sorted by state, action, successor; the same transition once, its reward the mean by probability."""
    if s.size == 0:
        return s, a, t, p, r
    actions = int(a.max()) + 1
    if num_states * actions * num_states < 2**63:
        key = (s * actions + a) * num_states + t
        if np.any(key[1:] < key[:-1]):
            order = np.argsort(key, kind="stable")
            s, a, t, p, r, key = s[order], a[order], t[order], p[order], r[order], key[order]
        new = np.concatenate([[True], key[1:] != key[:-1]])
    else:
        order = np.lexsort((t, a, s))
        s, a, t, p, r = s[order], a[order], t[order], p[order], r[order]
        new = np.concatenate([[True], (s[1:] != s[:-1]) | (a[1:] != a[:-1]) | (t[1:] != t[:-1])])
    if new.all():
        return s, a, t, p, r
    first = np.flatnonzero(new)
    total, earned, plain = np.add.reduceat(p, first), np.add.reduceat(p * r, first), np.add.reduceat(r, first)
    counts = np.diff(np.append(first, s.size))
    mean = np.divide(earned, total, out=plain / counts, where=total > 0)
    alone = counts == 1
    mean[alone] = r[first[alone]]
    return s[first], a[first], t[first], total, mean


def rows_of(
    s: Ints, a: Ints, t: Ints, p: Floats, r: Floats, num_states: int,
    ends: Bools | None, names: tuple[str, ...] | None, dtype: np.dtype[Any],
) -> tuple[Rows, Floats | None]:  # fmt: skip
    """The ragged storage of merged transitions, and their rewards where these differ within a row."""
    new = np.ones(s.size, dtype=np.bool_)
    new[1:] = (s[1:] != s[:-1]) | (a[1:] != a[:-1])
    first = np.flatnonzero(new)
    row_state, row_action = s[first], a[first]
    row_ptr = np.concatenate([[0], np.cumsum(np.bincount(row_state, minlength=num_states))]).astype(np.int64)
    _check_actions(row_state, row_action, row_ptr, ends, names)
    sums = np.add.reduceat(p, first) if s.size else p
    wrong = np.flatnonzero(~(np.abs(sums - 1) <= ROW_SUM_TOLERANCE))
    if wrong.size:
        k = wrong[0]
        raise DataError(
            f"State {_name(row_state[k], names)}, action {row_action[k]}: the probabilities sum to {sums[k]:.9g}, "
            f"not 1 ({wrong.size} such rows of {first.size}). Check the transitions, or divide each row by its sum."
        )
    row = np.cumsum(new) - 1
    p = np.where(sums[row] == 1, p, p / sums[row]) if s.size else p
    rewards = np.add.reduceat(p * r, first) if s.size else r
    same = (np.minimum.reduceat(r, first) == np.maximum.reduceat(r, first)) if s.size else np.ones(0, dtype=np.bool_)
    if s.size:
        rewards[same] = r[first[same]]
    keep = p > 0
    if not keep.all():
        t, p, r, row = t[keep], p[keep], r[keep], row[keep]
    ptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=first.size))]).astype(np.int64)
    storage = Rows(row_ptr, ptr, t.astype(np.int32), as_stored(p, dtype), rewards)
    return storage, None if same.all() else np.ascontiguousarray(r)


def _check_actions(s: Ints, a: Ints, row_ptr: Ints, ends: Bools | None, names: tuple[str, ...] | None) -> None:
    """Each state's actions are 0 .. n - 1, and only terminal states have none."""
    wrong = np.flatnonzero(a != np.arange(a.size) - row_ptr[s])
    if wrong.size:
        k = wrong[0]
        raise DataError(
            f"State {_name(s[k], names)} has an action {a[k]} but no action {k - row_ptr[s[k]]}; "
            "the actions of a state are counted 0, 1, ... without gaps."
        )
    if ends is not None:
        stuck = np.flatnonzero((np.diff(row_ptr) == 0) & ~ends)
        if stuck.size:
            raise DataError(
                f"State {_name(stuck[0], names)} has no actions and is not terminal ({stuck.size} such states). "
                "Give it an action, or name it in terminal."
            )


def start_distribution(start: ArrayLike | None, terminal: Bools) -> Floats:
    """A start distribution [S]: as given, all on one state, or uniform over what is not terminal (None)."""
    num_states = len(terminal)
    if start is None:
        weights = ~terminal if not terminal.all() else terminal
        return np.asarray(weights / weights.sum(), dtype=np.float64)
    given = np.asarray(start)
    if given.ndim == 0 and np.issubdtype(given.dtype, np.integer):
        if not 0 <= given < num_states:
            raise DataError(f"start is {given}; states are 0 .. {num_states - 1}.")
        return np.asarray(np.arange(num_states) == given, dtype=np.float64)
    weights = given.astype(np.float64)
    if weights.shape != (num_states,) or not (weights >= 0).all() or abs(weights.sum() - 1) > ROW_SUM_TOLERANCE:
        raise DataError(
            f"start has shape {weights.shape} and sums to {weights.sum():g}; "
            f"give a state, or probabilities [{num_states}]."
        )
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def _name(state: int | np.integer[Any], names: tuple[str, ...] | None) -> str:
    return f"{names[state]!r}" if names else str(state)
