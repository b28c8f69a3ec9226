"""The compiled sweeps shared among threads: one call works on all states and answers for all of them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from types import TracebackType
from typing import Any, final

import numpy as np
from numba import get_num_threads

from onepolicy.errors import ConfigError
from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.planning import kernels
from onepolicy.tabular.storage import Floats, Policy

SHARED_FROM = 100_000
"""Rows from which a pass is shared among threads; below, handing out the work (0.15 ms) costs more than it saves."""
PIECES = 4
"""Pieces of a sweep for each thread, so that one that was interrupted does not keep all waiting."""

Change = tuple[float, float]
"""Least and greatest change of the states with actions."""


@final
class Sweeps:
    """Bellman operators of one model and discount. threads: default numba's number (NUMBA_NUM_THREADS)."""

    def __init__(self, mdp: MDP, discount: float, threads: int | None = None) -> None:
        wanted = get_num_threads() if threads is None else threads
        if wanted < 1:
            raise ConfigError(f"threads is {wanted}; at least one thread has to do the work.")
        self.mdp, self.model, self.discount = mdp, mdp.storage, discount
        self.num_states, self.num_rows = mdp.num_states, mdp.num_rows
        self.threads = wanted if self.num_rows >= SHARED_FROM else 1
        pieces = self.threads * PIECES if self.threads > 1 else 1
        bounds = [self.num_states * i // pieces for i in range(pieces + 1)]
        self._parts = list(pairwise(bounds))
        self._pool = ThreadPoolExecutor(self.threads) if self.threads > 1 else None

    def __enter__(self) -> Sweeps:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    @property
    def share(self) -> float:
        """The part of a sweep that a pass over one action a state is."""
        return float(np.count_nonzero(~self.mdp.terminal)) / max(1, self.num_rows)

    def optimal(self, v: Floats, out: Floats, policy: Policy) -> Change:
        """out = T v, and the policy that is greedy with respect to v."""
        return self._all(kernels.optimal_sweep, v, out, policy)

    def follow(self, v: Floats, out: Floats, policy: Policy) -> Change:
        """out = T_pi v for one action a state."""
        return self._all(kernels.policy_sweep, v, out, policy, rows=self.num_states)

    def soft(self, v: Floats, out: Floats, temperature: float) -> Change:
        """out = the soft maximum of r + discount P v."""
        return self._all(kernels.soft_sweep, v, out, temperature)

    def action_values(self, v: Floats) -> Floats:
        """r + discount P v [K]."""
        out = np.empty(self.num_rows)
        v = np.ascontiguousarray(v, dtype=np.float64)
        self.run(lambda first, last: kernels.action_values(
            self.model, v, self.discount, first, last, out, self.mdp.row_ptr
        ))  # fmt: skip
        return out

    def in_place(self, v: Floats, policy: Policy, *, backwards: bool, follow: bool) -> float:
        """One Gauss-Seidel sweep of v on one thread; the greatest change.

        follow: of T_pi for the policy given, not of T, whose greedy policy is written into it.
        """
        first, last, step = (self.num_states - 1, -1, -1) if backwards else (0, self.num_states, 1)
        kernel = kernels.policy_in_place if follow else kernels.optimal_in_place
        return float(kernel(self.model, v, self.discount, first, last, step, policy))

    def survey(self) -> tuple[float, float, int, float]:
        """Least and greatest probability of a row to go on, most transitions of a row, greatest |reward|."""
        found = self.run(lambda first, last: kernels.survey(self.model, self.mdp.terminal, first, last))
        low, high, width, largest = (list(column) for column in list(zip(*found))[:4])
        return min(low), max(high), max(width), max(largest)

    def _all(
        self, kernel: Callable[..., Change], v: Floats, out: Floats, *more: Any, rows: int | None = None
    ) -> Change:
        changes = self.run(lambda first, last: kernel(self.model, v, self.discount, first, last, out, *more), rows)
        return min(low for low, _ in changes), max(high for _, high in changes)

    def run(self, work: Callable[[int, int], Any], rows: int | None = None) -> list[Any]:
        """What `work(first, last)` answers for the states of each part; rows: that it reads, default all."""
        if self._pool is None or (rows is not None and rows < SHARED_FROM):
            return [work(0, self.num_states)]
        return list(self._pool.map(lambda part: work(*part), self._parts))
