"""The two halves of an agent's step, compiled: `choose` an arm, `learn` from its reward; all agents in one function.

An agent is a number (its kind) and eight constants; which constant means what is said at the agents
(agents.py). What it believes is two arrays: `tally` [4, A], a row for each of COUNT (pulls of an arm), VALUE
(estimated reward; preference of the gradient bandit, log-weight of EXP3), SCORE (what the last choice was by: index or
draw; of the gradient bandit and EXP3 the probabilities, always up to date) and BASELINE (its first two numbers: mean of
all rewards, and how many); and `models` [M, 2D+3, D] of linear.py. Not in: the arms, and the loop.
"""

from __future__ import annotations

import numpy as np

from onepolicy.tabular.bandits import linear
from onepolicy.tabular.bandits.random import Floats, Stream, argmax, beta, compiled, gaussian, pick
from onepolicy.tabular.simulate import below, uniform

EPSILON_GREEDY, UCB, KL_UCB, BETA_THOMPSON, NORMAL_THOMPSON, GRADIENT, EXP3, LIN_UCB, LIN_THOMPSON = range(9)
COUNT, VALUE, SCORE, BASELINE = range(4)
STEP_SIZE = 7
"""The place of the constant step size among the eight constants; 0 stands for 1/n."""


@compiled
def kl_index(mean: float, level: float) -> float:
    """The largest q in [mean, 1] with kl(mean, q) <= level, kl that of two Bernoulli distributions.

    Newton's method from above, where it converges monotonically until rounding stops it, kl being convex in q: from
    the lesser of the bounds mean + sqrt(level / 2) (Pinsker) and 1 - exp(-(level + entropy) / (1 - mean)).
    """
    if mean >= 1.0 or level <= 0.0:
        return min(mean, 1.0)
    if mean <= 0.0:
        return 1.0 - np.exp(-level)
    entropy = -mean * np.log(mean) - (1.0 - mean) * np.log(1.0 - mean)
    q = min(mean + np.sqrt(0.5 * level), 1.0 - np.exp(-(level + entropy) / (1.0 - mean)))
    for _ in range(60):
        if q >= 1.0:
            return 1.0
        if q <= mean:
            return mean
        excess = -entropy - mean * np.log(q) - (1.0 - mean) * np.log(1.0 - q) - level
        step = excess * q * (1.0 - q) / (q - mean)
        if step < 1e-12:
            return q
        q -= step
    return q


@compiled
def _upper_bounds(kind: int, p: Floats, t: int, tally: Floats) -> None:
    """Indices of UCB and KL-UCB; an arm never pulled has an infinite one."""
    log_t = np.log(t)
    if kind == KL_UCB:
        log_t += p[0] * np.log(max(log_t, 1.0))
    bonus = p[0] * np.sqrt(log_t)
    for a in range(tally.shape[1]):
        if tally[COUNT, a] == 0.0:
            tally[SCORE, a] = np.inf
        elif kind == UCB:
            tally[SCORE, a] = tally[VALUE, a] + bonus / np.sqrt(tally[COUNT, a])
        else:
            tally[SCORE, a] = kl_index(tally[VALUE, a], log_t / tally[COUNT, a])


@compiled
def _posterior_draws(kind: int, p: Floats, tally: Floats, stream: Stream) -> None:
    """A draw of each arm's mean from its posterior, Beta or normal."""
    for a in range(tally.shape[1]):
        count, total = tally[COUNT, a], tally[COUNT, a] * tally[VALUE, a]
        if kind == BETA_THOMPSON:
            tally[SCORE, a] = beta(stream, p[0] + total, p[1] + count - total)
        else:
            prior, each = 1.0 / (p[1] * p[1]), 1.0 / (p[2] * p[2])
            precision = prior + count * each
            tally[SCORE, a] = (p[0] * prior + total * each) / precision + gaussian(stream) / np.sqrt(precision)


@compiled
def _predictions(kind: int, p: Floats, tally: Floats, models: Floats, x: Floats, stream: Stream) -> None:
    """LinUCB's index, or the reward that a drawn theta predicts; x [A, D]."""
    disjoint = models.shape[0] > 1
    if kind == LIN_UCB:
        for a in range(tally.shape[1]):
            tally[SCORE, a] = linear.upper_bound(models, a if disjoint else 0, x, a, p[0])
    else:
        for m in range(models.shape[0]):
            linear.draw(models, m, p[0], stream)
        for a in range(tally.shape[1]):
            tally[SCORE, a] = linear.prediction(models, a if disjoint else 0, x, a)


@compiled
def _softmax(kind: int, p: Floats, tally: Floats) -> None:
    """Probabilities from preferences or log-weights; for EXP3 mixed with gamma = p[0] of the uniform distribution."""
    arms = tally.shape[1]
    top, total = tally[VALUE, 0], 0.0
    for a in range(1, arms):
        top = max(top, tally[VALUE, a])
    for a in range(arms):
        tally[SCORE, a] = np.exp(tally[VALUE, a] - top)
        total += tally[SCORE, a]
    for a in range(arms):
        tally[SCORE, a] /= total
        if kind == EXP3:
            tally[SCORE, a] = (1.0 - p[0]) * tally[SCORE, a] + p[0] / arms


@compiled
def choose(kind: int, p: Floats, t: int, tally: Floats, models: Floats, x: Floats, stream: Stream) -> int:
    """The arm an agent pulls in step t = 1, 2, ...; x [A, D]: features, read by linear agents only."""
    if kind == EPSILON_GREEDY:
        epsilon = p[0] if p[1] == 0.0 else min(1.0, p[0] / t ** p[1])
        if epsilon > 0.0 and uniform(stream) < epsilon:
            return below(stream, tally.shape[1])
        return argmax(tally, VALUE, stream)
    if kind in (GRADIENT, EXP3):
        return pick(tally, SCORE, stream)
    if kind in (UCB, KL_UCB):
        _upper_bounds(kind, p, t, tally)
    elif kind in (BETA_THOMPSON, NORMAL_THOMPSON):
        _posterior_draws(kind, p, tally, stream)
    else:
        _predictions(kind, p, tally, models, x, stream)
    return argmax(tally, SCORE, stream)


@compiled
def learn(kind: int, p: Floats, tally: Floats, models: Floats, x: Floats, arm: int, reward: float) -> None:
    """What an agent believes after `reward` from `arm`, in place."""
    arms = tally.shape[1]
    tally[COUNT, arm] += 1.0
    if kind == GRADIENT:
        if tally[BASELINE, 1] == 0.0:
            tally[BASELINE, 0] = reward
        ahead = p[STEP_SIZE] * (reward - p[0] * tally[BASELINE, 0])
        if p[1] == 1.0:
            ahead -= ahead / (tally[BASELINE, 1] + 1.0)
        for a in range(arms):
            tally[VALUE, a] -= ahead * tally[SCORE, a]
        tally[VALUE, arm] += ahead
        tally[BASELINE, 1] += 1.0
        tally[BASELINE, 0] += (reward - tally[BASELINE, 0]) / tally[BASELINE, 1]
        _softmax(kind, p, tally)
    elif kind == EXP3:
        tally[VALUE, arm] += p[0] * reward / (tally[SCORE, arm] * arms)
        _softmax(kind, p, tally)
    else:
        step = p[STEP_SIZE] if p[STEP_SIZE] > 0.0 else 1.0 / tally[COUNT, arm]
        tally[VALUE, arm] += step * (reward - tally[VALUE, arm])
        if kind in (LIN_UCB, LIN_THOMPSON):
            linear.observe(models, arm if models.shape[0] > 1 else 0, x, arm, reward)
