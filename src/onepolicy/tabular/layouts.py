"""One storage turned into another, and a model kept in a file."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import DTypeLike

from onepolicy.errors import ConfigError, DataError, nearest
from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.planning import kernels
from onepolicy.tabular.storage import LAYOUTS, Generated, Padded, Rows, Table, require_memory, storage_bytes

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
    csr = mdp.csr()
    rows = Rows(*csr[:5])
    states, itemsize = mdp.num_states, np.dtype(dtype).itemsize
    most = int(np.diff(rows.row_ptr).max(initial=0))
    if layout == "rows":
        return replace(mdp, storage=rows._replace(probabilities=rows.probabilities.astype(dtype, copy=False)))
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


def save(mdp: MDP, path: Path | str) -> None:
    """The MDP as an .npz file, whole or not at all.

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
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            np.savez(file, **arrays)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def load(path: Path | str) -> MDP:
    """The MDP that `save` wrote.

    Raises: DataError for a file that is no saved MDP.
    """
    try:
        with np.load(Path(path), allow_pickle=False) as file:
            arrays = dict(file)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; save an MDP there first.") from None
    except (ValueError, OSError, TypeError, BadZipFile) as error:
        raise DataError(f"{path} is no MDP of ours, nor any .npz file of plain arrays.") from error
    kind = _STORAGES.get(str(arrays.pop("storage", "")))
    needed = {"terminal", "start", *(kind._fields if kind else ())}
    if kind is None or not needed <= set(arrays):
        raise DataError(f"{path} is no MDP of ours: it has the arrays {sorted(arrays)}.")
    extra: dict[str, Any] = {name: tuple(arrays[name].tolist()) for name in _NAMES if name in arrays}
    extra |= {name: arrays[name] for name in _EXTRAS if name in arrays}
    storage = kind(*(arrays[name] for name in kind._fields))
    return MDP(storage, arrays["terminal"], arrays["start"], **extra)
