"""The keys and values of running sequences: one row per sequence, rows filled from a prompt's shared cache.

In: allocation under a bound, admission of a row from a computed prompt, moving rows so that live ones stay together.
Not in: paging. A row owns a rectangle of `capacity` positions; rows are few and moved rarely, so a gather through a
block table on every step would cost more than it saves at the sizes this engine is for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

Shapes = Sequence[tuple[int, int]]
"""(heads, head dimension) of every cached tensor, in the order key, value, key, value, ... over the layers."""


@final
class Cache:
    """Keys and values of all layers for `rows` sequences of up to `capacity` positions.

    entries: for each of `shapes` a view [rows, heads, capacity, dim]; equal shapes share one storage, so that an
    admission or a move is one copy for all layers of a usual model.
    """

    def __init__(self, shapes: Shapes, dtype: torch.dtype, device: torch.device) -> None:
        self._shapes, self._dtype, self._device = list(shapes), dtype, device
        self._storages: dict[tuple[int, int], Tensor] = {}
        self.entries: list[Tensor] = []
        self.rows = self.capacity = 0

    def reserve(self, rows: int, capacity: int) -> None:
        """Room for `rows` sequences of `capacity` positions; what was cached is lost when the room has to grow."""
        if rows == self.rows and capacity == self.capacity:
            return
        size = rows * capacity
        for shape in set(self._shapes):
            count = self._shapes.count(shape)
            needed = count * size * shape[0] * shape[1]
            old = self._storages.get(shape)
            flat = old.flatten() if old is not None and old.numel() == needed else None
            if flat is None:
                self._storages.pop(shape, None)
                flat = torch.zeros(needed, dtype=self._dtype, device=self._device)
            self._storages[shape] = flat.view(count, rows, shape[0], capacity, shape[1])
        seen = {shape: iter(storage) for shape, storage in self._storages.items()}
        self.entries = [next(seen[shape]) for shape in self._shapes]
        self.rows, self.capacity = rows, capacity

    def release(self) -> None:
        """Frees the memory; `reserve` allocates it anew."""
        self._storages, self.entries, self.rows, self.capacity = {}, [], 0, 0

    @property
    def bytes(self) -> int:
        """Memory held, in bytes."""
        return sum(storage.numel() * storage.element_size() for storage in self._storages.values())

    def admit(self, rows: Tensor, prompts: Prompts, which: Tensor) -> None:
        """Rows [r] int64 start as copies of prompts `which` [r] int64."""
        for shape, storage in self._storages.items():
            source = prompts.storages[shape]
            storage[:, rows, :, : source.shape[3]] = source[:, which]

    def move(self, source: Tensor, target: Tensor, length: int) -> None:
        """Rows `target` [r] int64 become rows `source` [r], as far as `length` positions."""
        for storage in self._storages.values():
            storage[:, target, :, :length] = storage[:, source, :, :length]


@final
class Prompts:
    """The keys and values of a few prompts, each computed once and copied to every row that samples from it.

    storages: by shape, [entries, prompts, heads, longest, dim]; positions past a prompt's own end hold what its
    padding gave, which no row ever attends to.
    """

    def __init__(self, entries: Sequence[Tensor]) -> None:
        by_shape: dict[tuple[int, int], list[Tensor]] = {}
        for entry in entries:
            by_shape.setdefault((entry.shape[1], entry.shape[3]), []).append(entry)
        self.storages = {shape: torch.stack(group) for shape, group in by_shape.items()}

    @property
    def bytes(self) -> int:
        """Memory held, in bytes."""
        return sum(storage.numel() * storage.element_size() for storage in self.storages.values())

    @property
    def tokens(self) -> int:
        """Positions held, padding included."""
        return next(storage.shape[1] * storage.shape[3] for storage in self.storages.values())
