"""What a planner answers, and the watch it keeps over its sweeps."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import final

import numpy as np
from numpy.typing import NDArray

from onepolicy.errors import ConfigError
from onepolicy.run.progress import Bar, progress
from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.planning.sweeps import Sweeps
from onepolicy.tabular.storage import Floats, Policy


@final
@dataclass(frozen=True, eq=False)
class Solution:
    """A value between two certified bounds, and the policy that earns at least the lower one.

    The bounds hold whether or not the method converged, rounding included; `converged` says that they are as near as
    was asked for: every |value - V*| <= tolerance.
    """

    mdp: MDP
    method: str
    discount: float
    value: Floats
    """[S]; [T + 1, S] for a finite horizon, by step; the relative value for the average criterion"""
    policy: Policy | Floats
    """[S] local actions (-1: terminal), [T, S] for a finite horizon; or a probability for each row [K]"""
    lower: Floats
    """[S] or [T + 1, S]: at most V* and at most the value of `policy`; of the gain for the average criterion"""
    upper: Floats
    """[S] or [T + 1, S]: at least V*"""
    converged: bool
    reason: str
    """Why it ended: "converged", "sweeps", "time", "rounding", "no certificate"."""
    sweeps: float
    """Passes over all rows, passes over one action a state counted by the rows they read"""
    seconds: float
    gain: float | None = None
    """Reward a step, for the average criterion"""

    @property
    def gap(self) -> float:
        """The greatest distance of the two bounds."""
        wide = self.upper - self.lower
        return float(wide.max(initial=0.0)) if not np.isnan(wide).any() else math.inf

    def q(self, step: int = 0) -> Floats:
        """r + discount P V for every row [K]; step: of a finite horizon, what to do at that step.

        For the average criterion less the gain, so that the best action of a state has its relative value.
        """
        v = self.value if self.value.ndim == 1 else self.value[step + 1]
        with Sweeps(self.mdp, self.discount) as sweeps:
            return sweeps.action_values(v) - (self.gain or 0.0)

    def __str__(self) -> str:
        """A line for people.

        What was done, how near the bounds are, and why it ended.
        """
        ended = "" if self.converged else f", not converged ({self.reason})"
        return f"{self.method}: bounds {self.gap:.3g} apart, {self.sweeps:g} sweeps, {self.seconds:.2f} s{ended}"


@final
class Work:
    """Sweeps and seconds so far, the limits on them, and a bar for what takes longer than two seconds."""

    def __init__(
        self, description: str, tolerance: float, *, max_sweeps: int | None = None, time_limit: float | None = None
    ) -> None:
        if not tolerance > 0:
            raise ConfigError(f"tolerance is {tolerance}; ask for a distance above 0, such as 1e-6.")
        for name, limit in (("max_sweeps", max_sweeps), ("time_limit", time_limit)):
            if limit is not None and not limit > 0:
                raise ConfigError(f"{name} is {limit}; a limit is above 0, or None for none.")
        self.description, self.tolerance = description, tolerance
        self.max_sweeps = math.inf if max_sweeps is None else max_sweeps
        self.time_limit = math.inf if time_limit is None else time_limit
        self.sweeps = 0.0

    def __enter__(self) -> Work:
        self._started = time.perf_counter()
        self._stack = ExitStack()
        self._bar: Bar = self._stack.enter_context(progress(100, self.description))
        self._percent, self._first = 0, math.nan
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    @property
    def seconds(self) -> float:
        """Since the work began."""
        return time.perf_counter() - self._started

    def over(self) -> str | None:
        """The limit that is reached, if one is."""
        if self.sweeps >= self.max_sweeps:
            return "sweeps"
        return "time" if self.seconds >= self.time_limit else None

    def verdict(self, gap: float, attainable: float = 0.0) -> str | None:
        """Why to stop, with bounds `gap` apart of which `attainable` is rounding; None to go on."""
        self._show(gap)
        if gap <= 2 * self.tolerance:
            return "converged"
        if gap <= 1.5 * attainable:
            return "rounding" if gap < math.inf else "no certificate"
        return self.over()

    def _show(self, gap: float) -> None:
        """The bar counts the digits gained, in percent of those asked for."""
        if not 0 < gap < math.inf:
            return
        if math.isnan(self._first):
            self._first = gap
        wanted = math.log(max(self._first / (2 * self.tolerance), 1 + 1e-9))
        percent = max(self._percent, min(100, int(100 * math.log(self._first / gap) / wanted)))
        self._bar.advance(percent - self._percent, gap=gap, sweeps=float(self.sweeps))
        self._percent = percent


def labelled(policy: Policy, mdp: MDP) -> NDArray[np.int32]:
    """A policy in the caller's numbers of the actions, where these are not the local ones; -1 for terminal states."""
    acting = ~mdp.terminal
    named = np.where(acting, policy, -1).astype(np.int32)
    if mdp.row_labels is not None:
        named[acting] = mdp.row_labels[mdp.row_ptr[:-1][acting] + policy[acting]]
    return named
