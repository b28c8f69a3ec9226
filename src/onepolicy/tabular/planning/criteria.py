"""Certified bounds from one Bellman sweep, for discounts below 1.

With d = T v - v over the states with actions, and beta the discount times the probability of a row to go on to a state
that is not terminal, least and greatest over the rows (terminal values are 0 and do not shift):

    T v + low / (1 - beta) beta  <=  V^pi  <=  V*  <=  T v + high / (1 - beta) beta

with low = min d, high = max d, pi greedy with respect to v, and for each bound the beta that makes it hold: the
greatest where it adds to what d already says, the least where it takes away. The same holds for T_pi of one policy and
for the soft operator, for all are monotone and shift by at most beta times a constant. Nothing is asked of v.

Rounding: a sum of n products has a relative error below n units; |d| is therefore known within (n + 8) u (R + |v|),
u = 2^-53, n the transitions of a row and the actions of a state. That also covers reading the model's numbers from
decimals or fractions. It is added to both ends.

Source: MacQueen 1966; Porteus 1971; Puterman 1994, Theorem 6.6.3 and Proposition 6.6.5.
"""

from __future__ import annotations

from typing import NamedTuple, final

import numpy as np

from onepolicy.errors import ConfigError
from onepolicy.tabular.planning.sweeps import Change, Sweeps
from onepolicy.tabular.storage import Floats, Policy

UNIT = 2.0**-53


class Bounds(NamedTuple):
    """A value, the policy that is certified with it, and the bounds; `rounding` is the part of the gap it causes."""

    value: Floats
    policy: Policy
    lower: Floats
    upper: Floats


class Gap(NamedTuple):
    """How far the bounds are apart, and what of it is rounding."""

    gap: float
    rounding: float


@final
class Discounted:
    """The bounds for a discount in [0, 1), a few operations a sweep."""

    def __init__(self, sweeps: Sweeps) -> None:
        discount = sweeps.discount
        if not 0 <= discount < 1:
            raise ConfigError(f"discount is {discount}; it is from 0 to below 1, or 1 for shortest paths.")
        low, high, width, self.largest = sweeps.survey()
        slack = 1 + 4 * UNIT * (width + 2)
        self.beta_low, self.beta_high = discount * min(low, high) / slack, discount * high * slack
        if self.beta_high >= 1:
            raise ConfigError(
                f"discount is {discount} and a row's probabilities, as stored, sum to {high}: the value could be "
                "infinite. Store probabilities as float64, or discount more."
            )
        self.units = UNIT * (width + int(np.diff(sweeps.mdp.row_ptr).max()) + 8)
        self.ends = self.beta_low < 0.999 * self.beta_high
        self.acting = ~sweeps.mdp.terminal

    def look(self, out: Floats, change: Change) -> Gap:
        """The gap that T v leaves; nothing of size S is allocated."""
        error = self._error(out, change)
        below, above = self._shifts(change, error)
        return Gap(max(0.0, above - below) + 2 * error, 2 * error / (1 - self.beta_high))

    def bounds(self, out: Floats, policy: Policy, change: Change) -> Bounds:
        """The bounds themselves; the value is midway."""
        error = self._error(out, change)
        below, above = self._shifts(change, error)
        lower = np.where(self.acting, out + (below - error), 0.0)
        upper = np.where(self.acting, out + (above + error), 0.0)
        return Bounds(np.where(self.acting, out + (below + above) / 2, 0.0), policy, lower, upper)

    def middle(self, change: Change) -> float:
        """A constant for T v that takes it nearer: midway between its bounds, where all states change in one direction.

        Then no state is further from its own backup afterwards. 0 elsewhere, and where rows end: terminal values stay.
        """
        if self.ends or change[0] * change[1] <= 0:
            return 0.0
        below, above = self._shifts(change, 0.0)
        return (below + above) / 2

    def lowest(self, change: Change) -> float:
        """The constant that takes T v to its lower bound, where rows end; 0 where constants do not matter.

        From below, what is near the end is right first and the rest follows; from above, every state has to find out
        for itself that nothing better comes.
        """
        return self._shifts(change, 0.0)[0] if self.ends else 0.0

    def first_policy(self, out: Floats, policy: Policy) -> Policy:
        """A policy for policy iteration to begin with."""
        return policy.copy()

    def _error(self, out: Floats, change: Change) -> float:
        size = max(-out.min(), out.max()) + (max(-change[0], change[1]) if self.acting.any() else 0.0)
        return float(self.units * (self.largest + size))

    def _shifts(self, change: Change, error: float) -> tuple[float, float]:
        if not self.acting.any():
            return 0.0, 0.0
        low, high = change[0] - error, change[1] + error
        less, more = self.beta_low / (1 - self.beta_low), self.beta_high / (1 - self.beta_high)
        return low * (less if low > 0 else more), high * (more if high > 0 else less)
