"""Bandits: agents, arms, and `run`, which plays one against the other, many times at once.

curves = run(gaussian_testbed(), EpsilonGreedy(0.1), steps=1000, runs=2000, seed=0)
curves.reward().mean, curves.optimal().mean, curves.regret()
"""

from __future__ import annotations

from onepolicy.tabular.bandits.agents import (
    EXP3,
    KLUCB,
    UCB1,
    Agent,
    BernoulliThompson,
    DecayingEpsilonGreedy,
    EpsilonGreedy,
    GaussianThompson,
    GradientBandit,
    LinThompson,
    LinUCB,
    greedy,
    optimistic,
)
from onepolicy.tabular.bandits.arms import (
    Bandit,
    BernoulliArms,
    GaussianArms,
    LinearArms,
    LoggedArms,
    OwnArms,
    gaussian_testbed,
    lai_robbins,
)
from onepolicy.tabular.bandits.curves import Band, Curves
from onepolicy.tabular.bandits.runs import Player, run

__all__ = [
    "EXP3",
    "KLUCB",
    "UCB1",
    "Agent",
    "Band",
    "Bandit",
    "BernoulliArms",
    "BernoulliThompson",
    "Curves",
    "DecayingEpsilonGreedy",
    "EpsilonGreedy",
    "GaussianArms",
    "GaussianThompson",
    "GradientBandit",
    "LinThompson",
    "LinUCB",
    "LinearArms",
    "LoggedArms",
    "OwnArms",
    "Player",
    "gaussian_testbed",
    "greedy",
    "lai_robbins",
    "optimistic",
    "run",
]
