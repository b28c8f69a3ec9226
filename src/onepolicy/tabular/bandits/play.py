"""The loop over runs and steps, compiled: arms and agent in one function, without the interpreter's lock.

Two random streams a run, the arms' and the agent's: run i has the same arms and the same noise whoever plays, and any
number of threads gives the same numbers. An agent is given as its kind, constants, and first beliefs (`tally` and
`models` of steps.py). Inside the loop everything is a local array: counting references to an array that several
threads share costs more than a step.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from onepolicy.tabular.bandits.random import Floats, Ints, Stream, compiled, gaussian
from onepolicy.tabular.bandits.steps import choose, learn
from onepolicy.tabular.jit import jit
from onepolicy.tabular.simulate import below, uniform

GAUSSIAN, BERNOULLI, LINEAR = range(3)
Start = tuple[int, Floats, Floats, Floats]
"""An agent: kind, constants [8], tally [4, A], models [M, 2D+3, D]."""


class Arms(NamedTuple):
    """A bandit as the compiled loop reads it.

    center, noise [A]. walk: deviation of a mean's move each step, spread: of what is added to `center` once a run.
    theta [1, D] or [A, D], features [A, D] or of size 0 (drawn each step): linear arms.
    """

    kind: int
    center: Floats
    noise: Floats
    walk: float
    spread: float
    theta: Floats
    features: Floats


@compiled
def _begin(center: Floats, spread: float, features: Floats, mean: Floats, x: Floats, nature: Stream) -> None:
    """The means of a run, in place; fixed features."""
    for a in range(mean.size):
        mean[a] = center[a]
        if spread > 0.0:
            mean[a] += spread * gaussian(nature)
    for a in range(features.shape[0]):
        for i in range(features.shape[1]):
            x[a, i] = features[a, i]


@compiled
def _walk(kind: int, step: float, mean: Floats, nature: Stream) -> None:
    """The means after one step of a random walk, in place; probabilities are reflected at 0 and 1."""
    for a in range(mean.size):
        mean[a] += step * gaussian(nature)
        if kind == BERNOULLI:
            mean[a] %= 2.0
            mean[a] = min(mean[a], 2.0 - mean[a])


@compiled
def _look(theta: Floats, fixed: bool, mean: Floats, x: Floats, nature: Stream) -> None:
    """The next features and what they mean, in place: x [A, D] on the unit sphere unless fixed, mean = theta . x."""
    own = theta.shape[0] > 1
    for a in range(mean.size):
        if not fixed and (a == 0 or not own):
            length = 0.0
            for i in range(x.shape[1]):
                x[a, i] = gaussian(nature)
                length += x[a, i] * x[a, i]
            for i in range(x.shape[1]):
                x[a, i] /= np.sqrt(length)
        mean[a] = 0.0
        for i in range(x.shape[1]):
            if own and a > 0:
                x[a, i] = x[0, i]
            mean[a] += theta[a if own else 0, i] * x[a, i]


@jit(error_model="numpy")
def play(
    agent: Start,
    arms: Arms,
    streams: Stream,
    first: int,
    last: int,
    every: int,
    reward_sum: Floats,
    regret_sum: Floats,
    optimal_sum: NDArray[np.int32],
) -> None:
    """Runs first .. last-1: sums so far at every `every`-th step, written to rows of [R, P]; streams [R, 2, 4].

    Regret is the sum of the gaps between the best mean and that of the arm pulled; optimal counts gaps of 0.
    """
    kind, p, tally_first, models_first = agent
    p, theta = p.copy(), arms.theta.copy()
    bernoulli, linear, walk, noise = arms.kind == BERNOULLI, arms.kind == LINEAR, arms.walk, arms.noise.copy()
    mean = np.empty(noise.size)
    x = np.empty((noise.size, theta.shape[1]))
    rewards, regrets, optimals = np.empty(reward_sum.shape[1]), np.empty(reward_sum.shape[1]), optimal_sum[0].copy()
    for run in range(first, last):
        nature, own = streams[run, 0].copy(), streams[run, 1].copy()
        tally, models = tally_first.copy(), models_first.copy()
        _begin(arms.center, arms.spread, arms.features, mean, x, nature)
        best = np.max(mean)
        reward_total, regret, optimal = 0.0, 0.0, 0
        for t in range(1, every * rewards.size + 1):
            if walk > 0.0:
                _walk(arms.kind, walk, mean, nature)
                best = np.max(mean)
            if linear:
                _look(theta, arms.features.size > 0, mean, x, nature)
                best = np.max(mean)
            arm = choose(kind, p, t, tally, models, x, own)
            if bernoulli:
                reward = 1.0 if uniform(nature) < mean[arm] else 0.0
            else:
                reward = mean[arm] + noise[arm] * gaussian(nature)
            learn(kind, p, tally, models, x, arm, reward)
            reward_total += reward
            regret += best - mean[arm]
            if mean[arm] >= best:
                optimal += 1
            if t % every == 0:
                point = t // every - 1
                rewards[point], regrets[point], optimals[point] = reward_total, regret, optimal
        reward_sum[run], regret_sum[run], optimal_sum[run] = rewards, regrets, optimals


@jit(error_model="numpy")
def replay(
    agent: Start,
    events: tuple[Ints, Floats, Floats, Floats],
    streams: Stream,
    first: int,
    last: int,
    every: int,
    reward_sum: Floats,
    counted: Ints,
) -> None:
    """A log's events in an order of each run's own until every * P of them counted: reward_sum [R, P], counted [R]."""
    kind, p, tally_first, models_first = agent
    logged, reward, keep, context = events
    for run in range(first, last):
        nature, own = streams[run, 0].copy(), streams[run, 1].copy()
        tally, models = tally_first.copy(), models_first.copy()
        order = np.arange(logged.size)
        total, t = 0.0, 0
        for i in range(order.size):
            if t == every * reward_sum.shape[1]:
                break
            j = i + below(nature, order.size - i)
            event = order[j]
            order[j] = order[i]
            if keep[event] < 1.0 and uniform(nature) >= keep[event]:
                continue
            arm = choose(kind, p, t + 1, tally, models, context[event], own)
            if arm != logged[event]:
                continue
            learn(kind, p, tally, models, context[event], arm, reward[event])
            total += reward[event]
            t += 1
            if t % every == 0:
                reward_sum[run, t // every - 1] = total
        counted[run] = t


@jit(error_model="numpy")
def choose_all(
    kind: int, p: Floats, t: int, tally: Floats, models: Floats, x: Floats, streams: Stream, out: Ints
) -> None:
    """Each run's arm in step t, out [R]; tally, models, x and streams [R, ...]."""
    for run in range(out.size):
        out[run] = choose(kind, p, t, tally[run], models[run], x[run], streams[run, 1])


@jit(error_model="numpy")
def learn_all(kind: int, p: Floats, tally: Floats, models: Floats, x: Floats, arm: Ints, reward: Floats) -> None:
    """What each run learns, arm and reward [R]; tally, models and x [R, ...]."""
    for run in range(arm.size):
        learn(kind, p, tally[run], models[run], x[run], arm[run], reward[run])
