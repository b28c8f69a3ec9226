"""Control from experience: the learners of a finite model, under one name each.

Worlds of gymnasium are in gym.py, fixed data sets in dataset.py, real-valued states in tiles.py.
"""

from __future__ import annotations

from onepolicy.tabular.control.linear import actor_critic, sarsa_lambda
from onepolicy.tabular.control.model import dyna_q, r_max
from onepolicy.tabular.control.returns import mc_control, n_step_sarsa
from onepolicy.tabular.control.settings import ControlResult, Settings, decaying, one_over_episode
from onepolicy.tabular.control.td import double_q_learning, expected_sarsa, q_learning, sarsa

__all__ = [
    "ControlResult",
    "Settings",
    "actor_critic",
    "decaying",
    "double_q_learning",
    "dyna_q",
    "expected_sarsa",
    "mc_control",
    "n_step_sarsa",
    "one_over_episode",
    "q_learning",
    "r_max",
    "sarsa",
    "sarsa_lambda",
]
