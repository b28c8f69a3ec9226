"""One storage turned into another, and a model kept in a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import DTypeLike

from onepolicy.errors import ConfigError, DataError, nearest
from onepolicy.tabular.mdp import MDP, ragged
from onepolicy.tabular.planning import kernels
from onepolicy.tabular.storage import (
    LAYOUTS,
    Floats,
    Generated,
    Padded,
    Rows,
    Table,
    as_stored,
    require_memory,
    storage_bytes,
)

_STORAGES: dict[str, Any] = {"Rows": Rows, "Padded": Padded, "Table": Table}
_NAMES = ("state_names", "action_names")
_EXTRAS = ("transition_rewards", "row_labels")


def with_layout(mdp: MDP, layout: str, *, dtype: DTypeLike = np.float64, limit: int | None = None) -> MDP:
    """The same MDP in another storage: "rows" (ragged), "padded", or "table" (deterministic models only).

    A sweep over "padded" is fastest where all rows are about equally long, over "table" where actions are
    deterministic. dtype: of the probabilities, float64 or float32. limit: bytes of memory, default what is available.
    Raises: ConfigError for an unknown layout or too little memory, before anything is allocated; DataError for a table
    of a model that is not deterministic, with the state.
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"layout is {layout!r}. {nearest(layout, LAYOUTS)}")
    rows, each = _rows_and_rewards(mdp, limit)
    rows = rows._replace(probabilities=as_stored(rows.probabilities, dtype))
    mdp = replace(mdp, transition_rewards=each)
    if layout == "rows":
        return replace(mdp, storage=rows)
    states, itemsize = mdp.num_states, np.dtype(dtype).itemsize
    most = int(np.diff(rows.row_ptr).max(initial=0))
    lengths = np.diff(rows.ptr)
    width = int(lengths.max(initial=1))
    needed = storage_bytes(layout, states, states * most, states * most * width, itemsize=itemsize)
    require_memory(needed, f"A {layout} storage", limit)
    if layout == "padded":
        shape = (states, most, width)
        successors, probabilities = np.zeros(shape, dtype=np.int32), np.zeros(shape, dtype=dtype)
        padded = Padded(np.zeros(states, dtype=np.int32), successors, probabilities, np.zeros(shape[:2]))
        kernels.fill_padded(rows, states, padded)
        return replace(mdp, storage=padded)
    if width > 1:
        row = int(np.argmax(lengths > 1))
        state = int(np.searchsorted(rows.row_ptr, row, side="right")) - 1
        raise DataError(
            f"State {mdp.state_name(state)}, action {row - rows.row_ptr[state]} has {lengths[row]} successors; "
            "a table holds deterministic models. Use layout 'rows' or 'padded'."
        )
    counts = np.diff(rows.row_ptr).astype(np.int32)
    table = Table(counts, np.zeros((states, most), np.int32), np.zeros((states, most)))
    filled = np.arange(most) < counts[:, None]
    table.successors[filled] = rows.successors
    table.rewards[filled] = rows.rewards
    return replace(mdp, storage=table)


def _rows_and_rewards(mdp: MDP, limit: int | None) -> tuple[Rows, Floats | None]:
    """The ragged storage of any model, and its transition_rewards."""
    if isinstance(mdp.storage, Rows):
        return mdp.storage, mdp.transition_rewards
    rows, each = ragged(mdp, limit)
    if not isinstance(mdp.storage, Generated):
        return rows, mdp.transition_rewards
    return rows, None if np.array_equal(each, np.repeat(rows.rewards, np.diff(rows.ptr))) else each


def save(mdp: MDP, path: Path | str) -> None:
    """The MDP as an .npz file, whole or not at all; folders that are missing are made.

    Raises: DataError for a model that is a function, which has no arrays to save.
    """
    if isinstance(mdp.storage, Generated):
        raise DataError("This model is a compiled function; save its source, or with_layout(mdp, 'rows').")
    arrays = mdp.storage._asdict()
    arrays |= {"terminal": mdp.terminal, "start": mdp.start, "storage": np.array(type(mdp.storage).__name__)}
    for name in _NAMES + _EXTRAS:
        value = getattr(mdp, name)
        if value is not None:
            arrays[name] = np.asarray(value)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            np.savez(file, **arrays)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def load(path: Path | str) -> MDP:
    """The MDP that `save` wrote.

    Raises: DataError for a file that is no saved MDP, or one whose arrays do not fit together.
    """
    try:
        with np.load(Path(path), allow_pickle=False) as file:
            arrays = dict(file)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; save an MDP there first.") from None
    except (ValueError, OSError, TypeError, EOFError, RuntimeError, BadZipFile) as error:  # RuntimeError: encrypted
        raise DataError(f"{path} is no MDP of ours, nor any .npz file of plain arrays.") from error
    kind = _STORAGES.get(str(arrays.pop("storage", "")))
    needed = {"terminal", "start", *(kind._fields if kind else ())}
    if kind is None or not needed <= set(arrays):
        raise DataError(f"{path} is no MDP of ours: it has the arrays {sorted(arrays)}.")
    extra: dict[str, Any] = {name: tuple(arrays[name].tolist()) for name in _NAMES if name in arrays}
    extra |= {name: arrays[name] for name in _EXTRAS if name in arrays}
    storage = kind(*(arrays[name] for name in kind._fields))
    mdp = MDP(storage, arrays["terminal"], arrays["start"], **extra)
    for wrong in _misfits(mdp):
        raise DataError(f"{path} is no MDP of ours: {wrong}. Build it again and save it.")
    return mdp


def _misfits(mdp: MDP) -> Iterator[str]:
    """What is wrong with arrays from outside, the first thing first: compiled functions read where they say."""
    arrays, storage = {**mdp.storage._asdict(), "start": mdp.start}, mdp.storage
    for name, array in arrays.items():
        kind = np.integer if name in ("row_ptr", "ptr", "successors", "counts") else np.floating
        if not np.issubdtype(array.dtype, kind):
            yield f"{name} has dtype {array.dtype}"
    if mdp.terminal.ndim != 1 or mdp.terminal.dtype != np.bool_ or mdp.start.shape != mdp.terminal.shape:
        yield f"start has shape {mdp.start.shape}, and terminal is {mdp.terminal.dtype} of shape {mdp.terminal.shape}"
    if isinstance(storage, Rows):
        for name, ends, first, last in (
            ("row_ptr", storage.row_ptr, mdp.num_states, storage.rewards.size),
            ("ptr", storage.ptr, storage.rewards.size, storage.successors.size),
        ):
            if ends.shape != (first + 1,) or ends[0] != 0 or ends[-1] != last or (np.diff(ends) < 0).any():
                yield f"{name} does not rise from 0 to {last} in {first} steps"
    elif not isinstance(storage, Generated):
        most = storage.rewards.shape[-1]
        fits = storage.rewards.shape == storage.successors.shape[:2] == (mdp.num_states, most)
        if not fits or storage.counts.shape != mdp.terminal.shape or storage.counts.max(initial=0) > most:
            yield f"counts, successors and rewards are not those of {mdp.num_states} states of up to {most} actions"
    if not isinstance(storage, Table) and arrays["probabilities"].shape != arrays["successors"].shape:
        yield "probabilities and successors differ in shape"
    if ((np.diff(mdp.row_ptr) < 1) != mdp.terminal).any():
        yield "terminal names other states than those without actions"
    *_, state, action, total = kernels.survey(storage, mdp.terminal, 0, mdp.num_states)
    if state >= 0:
        yield (
            f"State {state}, action {action} has probabilities that sum to {total:.9g} or are negative, "
            f"successors outside 0 .. {mdp.num_states - 1}, or rewards that are not finite"
        )
    transitions = kernels.count_rows(storage, mdp.num_states, np.zeros(mdp.num_states + 1, dtype=np.int64))[0]
    for name, found, needed in (
        ("transition_rewards", mdp.transition_rewards, transitions),
        ("row_labels", mdp.row_labels, mdp.num_rows),
    ):
        if found is not None and found.shape != (needed,):
            yield f"{name} has shape {found.shape}, not {(needed,)}"
    if mdp.state_names is not None and len(mdp.state_names) != mdp.num_states:
        yield f"there are {len(mdp.state_names)} names for {mdp.num_states} states"
