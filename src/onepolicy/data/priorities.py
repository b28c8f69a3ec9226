"""Priorities: which of a learner's transitions are drawn how often, in a tree of sums.

In: the tree of each of S learners side by side, draws from it. Not in: the transitions (replay.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from onepolicy.core.check import fraction
from onepolicy.errors import CheckpointError

BRANCH = 32
"""Children of a node. Numpy's price is by the call, so a tree of few levels and wide nodes is fast."""
LEAST = 1e-6
"""Added to each error, so that none is never drawn again."""


@final
class Priorities:
    """(|error| + 1e-6)^alpha of each of `capacity` transitions of S learners, 0 where there is none yet.

    levels: float64 [S, n] each, the priorities first, then the sums of BRANCH neighbours each, up to at most BRANCH. A
    sum is always made anew from its children, in their order: nothing drifts, and a tree loaded is the tree saved.
    most: [S] the greatest so far, which new transitions get; 1 before any error is known.
    Source: Schaul et al. 2016, equation 1, algorithm 1 and appendix B.2.1 (proportional).
    """

    def __init__(self, learners: int, capacity: int, alpha: float) -> None:
        self.alpha = fraction("priority", alpha)
        self.levels: list[NDArray[np.float64]] = []
        wide = capacity
        while wide > 1 or not self.levels:
            wide = -(-wide // BRANCH)
            self.levels.append(np.zeros((learners, wide * BRANCH)))
        self.most = np.ones(learners)
        self._each = np.arange(learners)[:, None]

    def add(self, first: int, count: int) -> None:
        """New transitions in the places from `first` on, with the greatest priority so far."""
        row = np.arange(first, first + count)
        self.levels[0][:, row] = self.most[:, None]
        self._sum(np.broadcast_to(row, (len(self.most), count)))

    def drop(self, row: NDArray[np.int64]) -> None:
        """The transitions at `row` [n] of every learner are not drawn any more."""
        self.levels[0][:, row] = 0.0
        self._sum(np.broadcast_to(row, (len(self.most), len(row))))

    def set(self, row: NDArray[np.int64], error: NDArray[np.floating[Any]]) -> None:
        """Priorities at `row` [S, B] by the sizes of their errors [S, B]; of a row that comes twice, the last."""
        priority = (np.abs(error).astype(np.float64) + LEAST) ** self.alpha
        self.levels[0][self._each, row] = priority
        self.most = np.maximum(self.most, priority.max(axis=-1))
        self._sum(row)

    def draw(
        self, rngs: Sequence[np.random.Generator], batch_size: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Rows [S, B], and the probability of each, priority / sum. Row b comes from the b-th of B equal parts of the
        sum, so that a batch is spread over them; learner s draws from rngs[s]."""
        top = np.cumsum(self.levels[-1], axis=-1)[:, -1:]
        place = (np.arange(batch_size) + np.stack([rng.random(batch_size) for rng in rngs])) / batch_size * top
        row = np.zeros(place.shape, np.int64)
        for level in reversed(self.levels):
            sums = np.cumsum(self._children(level, row), axis=-1)
            np.minimum(place, np.nextafter(sums[..., -1], 0.0), out=place)  # rounding must not lead past the last
            child = (sums <= place[..., None]).sum(axis=-1)
            before = np.take_along_axis(sums, np.maximum(child - 1, 0)[..., None], axis=-1)[..., 0]
            place -= np.where(child > 0, before, 0.0)
            row = row * BRANCH + child
        return row, self.levels[0][self._each, row] / top

    def state_dict(self, kept: int) -> dict[str, Any]:
        """The priorities of the first `kept` places, and the greatest so far."""
        return {"priority": self.levels[0][:, :kept].copy(), "most_priority": self.most.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of state_dict. Raises: CheckpointError for a memory that was saved without priorities."""
        if "priority" not in state:
            raise CheckpointError("the saved memory has no priorities. Resume with the priority of the run.")
        kept = state["priority"].shape[1]
        self.levels[0][:, :kept], self.most = state["priority"], state["most_priority"].copy()
        self._sum(np.broadcast_to(np.arange(kept), (len(self.most), kept)))

    def _sum(self, row: NDArray[np.int64]) -> None:
        """Makes anew the sums above `row` [S, B]."""
        for below, level in zip(self.levels, self.levels[1:]):
            row = row // BRANCH
            level[self._each, row] = np.cumsum(self._children(below, row), axis=-1)[..., -1]

    def _children(self, level: NDArray[np.float64], node: NDArray[np.int64]) -> NDArray[np.float64]:
        """[S, B, BRANCH] below nodes [S, B]."""
        return level.reshape(len(level), -1, BRANCH)[self._each, node]
