"""Baird's counterexample: seven states, linear features, and a behaviour that is not the target: the deadly triad.

What semi-gradient, gradient and emphatic methods make of it is the business of prediction; here are model and features.
"""

from __future__ import annotations

import numpy as np

from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.storage import Floats
from onepolicy.tabular.worlds.tables import from_outcomes

DISCOUNT = 0.99
DASHED, SOLID = 0, 1


def baird() -> MDP:
    """Baird's counterexample: seven states, no rewards, no end; the value of every policy is 0.

    Actions: dashed leads to one of states 0 to 5, equally likely; solid to state 6. Start: uniform.
    Source: Sutton and Barto 2018, example in section 11.2; Baird 1995.
    """
    to = np.broadcast_to(np.stack([np.arange(6), np.full(6, 6)]), (7, 2, 6))
    return from_outcomes(to, 1.0 / 6, 0.0, action_names=("dashed", "solid"))


def features() -> Floats:
    """x(s), [7, 8]: the value is 2 w_s + w_7 in states 0 to 5, w_6 + 2 w_7 in state 6; 0 on a line of weights."""
    x = np.eye(7, 8) * 2.0
    x[:, 7] = 1.0
    x[6, 6:] = 1.0, 2.0
    return x


def initial_weights() -> Floats:
    """The customary first weights (1, 1, 1, 1, 1, 1, 10, 1), [8]."""
    return np.array([1.0] * 6 + [10.0, 1.0])


def behaviour() -> Floats:
    """The behaviour's probabilities, [14], one a row (state, action): dashed 6/7, solid 1/7; its states are uniform."""
    return np.tile([6.0 / 7, 1.0 / 7], 7)


def target() -> Floats:
    """The target policy's probabilities, [14]: always solid."""
    return np.tile([0.0, 1.0], 7)
