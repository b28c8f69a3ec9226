"""The arena: `run` plays an agent against arms, many times at once; `Player` plays step by step.

Agents are in agents.py, arms in arms.py, what is measured in curves.py, the compiled loop in play.py.
"""

from __future__ import annotations

from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onepolicy.errors import ConfigError, DataError
from onepolicy.tabular.bandits.agents import (
    Agent,
    Form,
)
from onepolicy.tabular.bandits.arms import (
    Bandit,
    LoggedArms,
    OwnArms,
    arms_of,
    features_of,
    lai_robbins,
    range_of,
)
from onepolicy.tabular.bandits.curves import Curves
from onepolicy.tabular.bandits.play import Start, choose_all, learn_all, play, replay
from onepolicy.tabular.bandits.random import Floats, Ints, Stream
from onepolicy.tabular.bandits.steps import COUNT, SCORE, VALUE
from onepolicy.tabular.simulate import spread, streams

MEMORY = 4 << 30
"""Bytes that one result may take."""


def run(
    bandit: Bandit, agent: Agent, steps: int, runs: int, seed: int, *, every: int = 1, threads: int | None = None
) -> Curves:
    """`runs` independent plays of `steps` steps each, recorded every `every` steps.

    Run i draws its arms and their noise from one stream and the agent's choices from another, both made of seed and i:
    agents compared with the same seed meet the same arms, and the number of threads or runs changes nothing.
    threads: of the compiled loop, None for all of NUMBA_NUM_THREADS. Memory: 20 bytes for each run and recorded step.
    Returns: Curves of R runs and steps // every points.
    Raises: ConfigError for numbers below 1, `every` that does not divide steps, a result above 4 GiB, or an agent that
    needs features or rewards in [0, 1] where there are none. DataError for a log that is too short.
    """
    form = _checked(bandit, agent, steps, runs, every)
    player = _start(form, arms_of(bandit), features_of(bandit))
    seeds = _seeds(seed, runs)
    at = np.arange(every, steps + 1, every, dtype=np.int64)
    reward = np.zeros((runs, len(at)))
    if isinstance(bandit, LoggedArms):
        events, counted = bandit.events(), np.zeros(runs, dtype=np.int64)
        spread(lambda one, end: replay(player, events, seeds, one, end, every, reward, counted), runs, threads)
        if counted.min() < steps:
            raise DataError(
                f"run {counted.argmin()} used up all {len(events[0])} events after {counted.min()} of {steps} steps; "
                f"about one event in {arms_of(bandit)} counts. Set steps <= {counted.min()}, or log more."
            )
        return Curves(at, reward, None, None)
    regret, optimal = np.zeros(reward.shape), np.zeros(reward.shape, dtype=np.int32)
    if isinstance(bandit, OwnArms):
        known = _play_own(
            bandit, Player(agent, bandit.number, runs=runs, seed=seed), seed, at, (reward, regret, optimal)
        )
        return Curves(at, reward, regret if known else None, optimal if known else None)
    arms = bandit.arms()
    spread(lambda one, end: play(player, arms, seeds, one, end, every, reward, regret, optimal), runs, threads)
    return Curves(at, reward, regret, optimal, _line(bandit))


@final
class Player:
    """An agent step by step, in R runs side by side: `choose` arms, `update` with their rewards.

    features: D, for linear agents. tally [R, 4, A] and models [R, M, 2D+3, D] are what it believes (steps.py),
    of which count, value and score [R, A] are views.
    Raises: ConfigError for fewer than 2 arms or 1 run, or a linear agent without features.
    """

    def __init__(self, agent: Agent, arms: int, *, runs: int = 1, seed: int = 0, features: int = 0) -> None:
        if arms < 2 or runs < 1:
            raise ConfigError(f"arms is {arms}, runs {runs}; a bandit has 2 arms or more, and is played at least once.")
        self.form = agent.form()
        if self.form.ridge > 0.0 and features < 1:
            raise ConfigError(f"features is {features}; {type(agent).__name__} learns from features, at least 1.")
        self.kind, self.constants, tally, models = _start(self.form, arms, features)
        self.tally, self.models = (np.repeat(first[None], runs, axis=0) for first in (tally, models))
        self.step = 0
        self._streams = _seeds(seed, runs)
        self._features = np.zeros((runs, arms, features))

    @property
    def count(self) -> Floats:
        """Pulls of each arm so far, [R, A]."""
        return self.tally[:, COUNT]

    @property
    def value(self) -> Floats:
        """Estimated rewards, [R, A]; preferences of the gradient bandit, log-weights of EXP3."""
        return self.tally[:, VALUE]

    @property
    def score(self) -> Floats:
        """What decides, [R, A]: the indices or draws of the last choice, or the probabilities of the next."""
        return self.tally[:, SCORE]

    def choose(self, features: ArrayLike | None = None) -> Ints:
        """The arms to pull next, [R]. features [R, A, D], or anything that broadcasts to it.

        Raises: DataError for features of another shape, or none where the agent needs them.
        """
        if features is None and self.form.ridge > 0.0:
            raise DataError("features is None; a linear agent needs those of every arm before each choice, [R, A, D].")
        if features is not None:
            try:
                self._features[:] = features
            except ValueError as error:
                raise DataError(
                    f"features has shape {np.shape(features)}; it must broadcast to {self._features.shape}."
                ) from error
        out = np.empty(len(self.tally), dtype=np.int64)
        agent = self.kind, self.constants, self.step + 1, self.tally, self.models
        choose_all(*agent, self._features, self._streams, out)
        return out

    def update(self, arm: ArrayLike, reward: ArrayLike) -> None:
        """Learn from the rewards of the arms that were pulled, each [R] or a number; features are those of `choose`.

        Raises: DataError for arms that are not there, rewards that are not finite, or outside [0, 1] where those count.
        """
        runs, arms = self.count.shape
        pulled = np.broadcast_to(np.asarray(arm, dtype=np.int64), runs).copy()
        value = np.broadcast_to(np.asarray(reward, dtype=np.float64), runs).copy()
        if pulled.min() < 0 or pulled.max() >= arms:
            raise DataError(f"arm is {pulled.tolist()}; there are arms 0 to {arms - 1}.")
        low, high = (0.0, 1.0) if self.form.unit else (-np.inf, np.inf)
        if not (np.isfinite(value) & (value >= low) & (value <= high)).all():
            raise DataError(f"reward is {value.tolist()}; this agent needs finite numbers in [{low:g}, {high:g}].")
        learn_all(self.kind, self.constants, self.tally, self.models, self._features, pulled, value)
        self.step += 1


def _checked(bandit: Bandit, agent: Agent, steps: int, runs: int, every: int) -> Form:
    for name, value in (("steps", steps), ("runs", runs), ("every", every)):
        if value < 1:
            raise ConfigError(f"{name} is {value}; it must be at least 1.")
    if steps % every:
        raise ConfigError(f"every is {every}, steps {steps}; give an `every` that divides steps.")
    needed = 20 * runs * (steps // every)
    if needed > MEMORY:
        raise ConfigError(
            f"{runs} runs recorded at {steps // every} steps need {needed / 2**30:.1f} GiB; the limit is "
            f"{MEMORY / 2**30:.0f}. Set every > {every}, or do fewer runs at a time."
        )
    form, name = agent.form(), type(agent).__name__
    low, high = range_of(bandit)
    if form.unit and not (low >= 0.0 and high <= 1.0):
        raise ConfigError(
            f"{name} needs rewards in [0, 1]; those of {type(bandit).__name__} are in [{low:g}, {high:g}]. Scale them, "
            "or give OwnArms low=0 and high=1."
        )
    if form.ridge > 0.0 and features_of(bandit) == 0:
        raise ConfigError(
            f"{name} learns from features and {type(bandit).__name__} has none. Use LinearArms, or a log."
        )
    return form


def _seeds(seed: int, runs: int) -> Stream:
    """Two random streams for each run, the arms' and the agent's, [R, 2, 4]."""
    if seed < 0:
        raise ConfigError(f"seed is {seed}; it must be at least 0.")
    return streams(seed, 2 * runs).reshape(runs, 2, 4)


def _start(form: Form, arms: int, features: int) -> Start:
    """An agent before its first step, as the compiled loops take it."""
    models, width = (arms if form.disjoint else 1, features) if form.ridge > 0.0 else (1, 0)
    tally = np.zeros((4, arms))
    tally[VALUE], tally[SCORE] = form.initial, 1.0 / arms
    regression = np.zeros((models, 2 * width + 3, width))
    if width:
        regression[:, :width] = np.eye(width) / form.ridge
    return form.kind, form.constants(), tally, regression


def _play_own(
    bandit: OwnArms, player: Player, seed: int, at: Ints, sums: tuple[Floats, Floats, NDArray[np.int32]]
) -> bool:
    """All runs in step, rewards from the user's function, sums written at the steps `at`; True if means are known."""
    rngs = [np.random.default_rng([seed, i]) for i in range(len(player.tally))]
    total = np.zeros((3, len(rngs)))
    for t in range(1, at[-1] + 1):
        arm = player.choose()
        reward = np.array([bandit.function(int(a), t, rng) for a, rng in zip(arm, rngs)], dtype=np.float64)
        wrong = np.flatnonzero(~(np.isfinite(reward) & (reward >= bandit.low) & (reward <= bandit.high)))
        if wrong.size:
            raise DataError(
                f"arm {arm[wrong[0]]} gave {reward[wrong[0]]} in step {t}; rewards are finite and in "
                f"[{bandit.low:g}, {bandit.high:g}]. Change the function, or low and high."
            )
        player.update(arm, reward)
        total[0] += reward
        if bandit.means is not None:
            mean = _means_at(bandit, t)
            total[1] += mean.max() - mean[arm]
            total[2] += mean[arm] >= mean.max()
        if t % at[0] == 0:
            point = t // at[0] - 1
            sums[0][:, point], sums[1][:, point], sums[2][:, point] = total
    return bandit.means is not None


def _means_at(bandit: OwnArms, step: int) -> Floats:
    assert bandit.means is not None
    mean = np.asarray(bandit.means(step), dtype=np.float64)
    if mean.shape != (bandit.number,) or not np.isfinite(mean).all():
        raise DataError(f"means({step}) has shape {mean.shape}; it must be {bandit.number} finite numbers.")
    return mean


def _line(bandit: Bandit) -> float | None:
    try:
        return lai_robbins(bandit)
    except ConfigError:
        return None
