"""Finite models solved: optimal values under every criterion, and what a given policy is worth, with bounds.

`plan` and `evaluate` are where to begin; the other criteria and methods have a function each.
"""

from __future__ import annotations

from onepolicy.tabular.planning.average_reward import relative_value_iteration
from onepolicy.tabular.planning.horizon import backward_induction
from onepolicy.tabular.planning.methods import METHODS, plan
from onepolicy.tabular.planning.policy_value import evaluate, evaluate_average
from onepolicy.tabular.planning.soft import soft_value_iteration
from onepolicy.tabular.planning.solution import Solution

__all__ = [
    "METHODS",
    "Solution",
    "backward_induction",
    "evaluate",
    "evaluate_average",
    "plan",
    "relative_value_iteration",
    "soft_value_iteration",
]
