"""Stochastic shortest paths: total reward without discount, until a terminal state is reached.

V* is the best value of a policy that ends with probability 1 from every state (a *proper* one). What is done for it:

1. Every state must be able to end; if not, the error names a recurrent class that cannot.
2. Sets of states among which one can wander for ever for nothing are made one state: the Bellman equation has many
   solutions there, and sweeps from above would stop at a wrong one.
3. If one can stay for ever and earn, the value is infinite, and that is an error.
4. Bounds. Let w(s) > 0. If r + P(v + e w) <= v + e w for every row, then V* <= v + e w: follow the inequality along any
   proper policy. If pi is proper and r_pi + P_pi(v - c w) >= v - c w, then v - c w <= V^pi <= V*. As w serves the
   expected number of steps: under pi for the lower bound, and the longest of all rows whose advantage r + P v - v is
   near 0 for the upper one, because those are the ones a small e has to hold for. Whether the inequalities hold is
   checked for every row, rounding included; how w was found does not matter.

Source: Bertsekas and Tsitsiklis 1991, An analysis of stochastic shortest path problems; for 2, de Alfaro 1999; Baier et
al. 2017, Ensuring the reliability of your model checker (interval iteration), section 4.
"""

from __future__ import annotations

from typing import final

import numpy as np

from onepolicy.errors import ConfigError
from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.planning import steps
from onepolicy.tabular.planning.average_reward import gain_interval
from onepolicy.tabular.planning.criteria import UNIT, Bounds, Gap
from onepolicy.tabular.planning.graph import (
    Merged,
    end_components,
    joined,
    lingering,
    merged_states,
    recurrent_class,
    row_states,
)
from onepolicy.tabular.planning.solution import Work
from onepolicy.tabular.planning.sweeps import Change, Sweeps
from onepolicy.tabular.storage import Bools, Floats, Policy, Rows

SHOWN = 5
"""States of a class that a message names."""


@final
class ShortestPath:
    """The criterion for discount 1: `sweeps` is what to iterate on, the model with its idle states made one."""

    def __init__(self, mdp: MDP, *, threads: int | None, work: Work) -> None:
        csr = mdp.csr()
        self.full, self.work = mdp, work
        self.rows = Rows(*csr[:5])
        check_ends(mdp)
        self.merged = _without_idling(mdp)
        _check_finite(self.merged.mdp)
        self.sweeps = Sweeps(self.merged.mdp, 1.0, threads)
        small = self.merged.mdp.csr()
        self.small = Rows(*small[:5])
        self.here, self.small_here = row_states(csr), row_states(small)
        width = int(np.diff(csr.ptr).max(initial=0))
        self.units = UNIT * (width + 8)
        self.largest = float(np.abs(csr.rewards).max(initial=0.0))
        self.next_try = work.tolerance
        self.found: Bounds | None = None
        self.w_lower, self.w_upper = np.zeros(mdp.num_states), np.zeros(self.merged.mdp.num_states)

    def reduced(self, v: Floats) -> Floats:
        """A value [S] of the model as given, for the one that is iterated on."""
        small = np.zeros(self.merged.mdp.num_states)
        small[self.merged.place] = v
        return small

    def look(self, out: Floats, change: Change) -> Gap:
        """A gap from time to time, when the change has fallen enough; infinite else."""
        left = max(0.0, -change[0], change[1])
        attainable = 4 * self.units * (self.largest + float(np.abs(out).max()))
        if left > self.next_try and left > attainable and not self.work.over():
            return Gap(np.inf, 0.0)
        self.next_try = min(self.next_try, left) / 10
        self.found = self._attempt(out)
        gap = float((self.found.upper - self.found.lower).max())
        return Gap(gap, np.inf if left <= attainable and self.next_try < attainable else 0.0)

    def bounds(self, out: Floats, policy: Policy, change: Change) -> Bounds:
        """The last bounds found, or what can be said without."""
        return self.found or self._attempt(out)

    def middle(self, change: Change) -> float:
        """0: values are not shifted, since those of terminal states are 0."""
        return 0.0

    def lowest(self, change: Change) -> float:
        """0, for the same reason."""
        return 0.0

    def first_policy(self, out: Floats, policy: Policy) -> Policy:
        """A policy for policy iteration to begin with: one that ends."""
        advantage = self.sweeps.action_values(out) - out[self.small_here]
        return joined(self.small, self.merged.mdp.terminal, advantage, -np.inf)[1]

    def _attempt(self, out: Floats) -> Bounds:
        v = out[self.merged.place]
        policy, lower = self._below(v)
        upper = self._above(out)[self.merged.place]
        ends = self.full.terminal
        lower[ends], upper[ends] = 0.0, 0.0
        middle = np.where(np.isfinite(lower) & np.isfinite(upper), (lower + upper) / 2, v)
        return Bounds(middle, policy, lower, upper)

    def _error(self, v: Floats) -> float:
        return float(self.units * (self.largest + np.abs(v).max()))

    def _below(self, v: Floats) -> tuple[Policy, Floats]:
        """A proper policy of nearly greedy rows, and v - c w of its expected steps w."""
        advantage = steps.expected(self.rows, v) + self.rows.rewards - v[self.here]
        error = self._error(v)
        best = (
            np.maximum.reduceat(advantage, self.rows.row_ptr[:-1][~self.full.terminal]) if len(advantage) else advantage
        )
        near = -max(8 * error, -10 * float(best.min(initial=0.0)))
        for least in (near, 1e3 * near, -np.inf):
            ends, policy = joined(self.rows, self.full.terminal, advantage, least)
            if ends.all():
                break
        chosen = np.zeros(len(advantage), dtype=np.bool_)
        chosen[(self.rows.row_ptr[:-1] + policy)[~self.full.terminal]] = True
        self.w_lower = steps.longest(self.rows, self.full.terminal, chosen, self.w_lower, self.work)
        w = self.w_lower
        drop = w[self.here] - steps.expected(self.rows, w) - self.units * w.max(initial=0.0)
        if not (drop[chosen] > 0).all():
            return policy, np.full_like(v, 0.0 if (self.rows.rewards >= 0).all() else -np.inf)
        c = float(np.max((error - advantage[chosen]) / drop[chosen], initial=0.0))
        low = v - c * w
        return policy, low - 4 * UNIT * (np.abs(low) + np.abs(v))

    def _above(self, v: Floats) -> Floats:
        """v + e w, w the longest expected steps of the rows of nearly no disadvantage."""
        rows, terminal = self.small, self.merged.mdp.terminal
        w = self.w_upper
        advantage = steps.expected(rows, v) + rows.rewards - v[self.small_here] + self._error(v)
        excess = float(advantage.max(initial=0.0))
        cut = 4 * excess * max(1.0, w.max(initial=0.0))
        for _ in range(8):
            near: Bools = advantage >= -cut
            if lingering(rows, terminal, near):
                break
            w = steps.longest(rows, terminal, near, w, self.work)
            e = _shift(advantage, w[self.small_here] - steps.expected(rows, w) - self.units * w.max(initial=0.0))
            if e is not None:
                self.w_upper = w
                high = v + e * w
                return np.asarray(high + 4 * UNIT * (np.abs(high) + np.abs(v)))
            cut = 4 * max(cut, excess * float(w.max()))
        return np.full_like(v, 0.0 if (rows.rewards <= 0).all() else np.inf)


def _shift(advantage: Floats, drop: Floats) -> float | None:
    """The least e >= 0 with advantage <= e drop for every row, or None."""
    falls = drop > 0
    e = float(np.max(advantage[falls] / drop[falls], initial=0.0)) * (1 + 8 * UNIT)
    return e if bool(np.all(advantage[~falls] <= e * drop[~falls] * (1 + 8 * UNIT))) else None


def check_ends(mdp: MDP) -> None:
    """Nothing, if every state can reach a terminal one.

    Raises: ConfigError that names a recurrent class that cannot end.
    """
    csr = mdp.csr()
    ends, _ = joined(Rows(*csr[:5]), mdp.terminal, np.zeros(mdp.num_rows), 0.0)
    if ends.all():
        return
    members = recurrent_class(csr, ~ends)
    names = ", ".join(mdp.state_name(int(s)) for s in members[:SHOWN])
    more = f" and {len(members) - SHOWN} more" if len(members) > SHOWN else ""
    idle = not csr.rewards[np.isin(row_states(csr), members)].any()
    advice = "Name one of them in terminal, for they earn nothing" if idle else "Give them a way to a terminal state"
    raise ConfigError(
        f"discount is 1 and no policy ends from states {{{names}{more}}}: they lead only to one another, and "
        f"{int((~ends).sum())} of {mdp.num_states} states cannot reach a terminal one. "
        f"{advice}, discount by less than 1, or take the average reward."
    )


def _without_idling(mdp: MDP) -> Merged:
    """Every set of states among which one can wander for nothing, made one state."""
    csr = mdp.csr()
    idle = csr.rewards == 0
    if idle.any():
        label, inner = end_components(csr, idle)
        if inner.any():
            return merged_states(mdp, label, inner)
    return Merged(mdp, np.arange(mdp.num_states))


def _check_finite(mdp: MDP) -> None:
    """Raises ConfigError when a policy can stay for ever and earn on average."""
    csr = mdp.csr()
    if not (csr.rewards > 0).any():
        return
    label, inner = end_components(csr, np.ones(mdp.num_rows, dtype=np.bool_))
    here = row_states(csr)
    for one in np.unique(label[here[inner & (csr.rewards > 0)]]):
        mine = inner & (label[here] == one)
        low, _ = gain_interval(mdp, mine)
        if low > 0:
            members = np.flatnonzero(label == one)
            raise ConfigError(
                f"discount is 1 and one can stay in {len(members)} states, such as {mdp.state_name(int(members[0]))}, "
                f"and earn at least {low:g} a step for ever: the value is infinite. Discount by less than 1, or take "
                "the average reward."
            )
