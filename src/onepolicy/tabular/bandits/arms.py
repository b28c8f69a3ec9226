"""Bandits: arms whose rewards are Gaussian, Bernoulli or linear in features, a Python function's, or from a log.

Means may walk at random (non-stationary arms). Not in: who pulls (agents.py) and the loop (runs.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onepolicy.errors import ConfigError, DataError
from onepolicy.tabular.bandits.play import BERNOULLI, GAUSSIAN, LINEAR, Arms
from onepolicy.tabular.bandits.random import Floats, Ints


@final
@dataclass(frozen=True, eq=False)
class GaussianArms:
    """Rewards N(mean(a), noise(a)^2). means [A]; noise a number or [A]; walk: deviation of each mean's step, per step.

    spread: deviation of what is added to each mean once per run; see `gaussian_testbed`.
    Raises: ConfigError for fewer than 2 arms, numbers that are not finite, negative deviations.
    """

    means: ArrayLike
    noise: ArrayLike = 1.0
    walk: float = 0.0
    spread: float = 0.0

    def __post_init__(self) -> None:
        means = _means(self.means)
        noise = np.asarray(self.noise, dtype=np.float64)
        if noise.shape not in ((), means.shape):
            raise ConfigError(f"noise has shape {noise.shape} for {means.size} arms; give one number, or one an arm.")
        for name, value in (("noise", noise), ("walk", self.walk), ("spread", self.spread)):
            _deviation(name, value)
        object.__setattr__(self, "means", means)
        object.__setattr__(self, "noise", np.broadcast_to(noise, means.shape).copy())

    def arms(self) -> Arms:
        """For the compiled loop."""
        return _plain(GAUSSIAN, self.means, self.noise, self.walk, self.spread)


def gaussian_testbed(
    arms: int = 10, *, mean: float = 0.0, spread: float = 1.0, noise: float = 1.0, walk: float = 0.0
) -> GaussianArms:
    """The 10-armed testbed: every run has its own means, N(mean, spread^2), and rewards N(mean(a), noise^2).

    With spread 0 and walk 0.01 it is the non-stationary one of exercise 2.5.
    Source: Sutton and Barto 2018, section 2.3.
    """
    if arms < 2:
        raise ConfigError(f"arms is {arms}; a bandit has at least 2. Set arms >= 2.")
    return GaussianArms(np.full(arms, mean), noise, walk, spread)


@final
@dataclass(frozen=True, eq=False)
class BernoulliArms:
    """Rewards 1 with probability mean(a), else 0. means [A] in [0, 1]; walk: as in GaussianArms, reflected at 0 and 1.

    Raises: ConfigError for fewer than 2 arms or a probability outside [0, 1].
    """

    means: ArrayLike
    walk: float = 0.0

    def __post_init__(self) -> None:
        means = _means(self.means)
        _deviation("walk", self.walk)
        outside = np.flatnonzero((means < 0.0) | (means > 1.0))
        if outside.size:
            raise ConfigError(
                f"the mean of arm {outside[0]} is {means[outside[0]]}; a Bernoulli arm's is a probability in [0, 1]."
            )
        object.__setattr__(self, "means", means)

    def arms(self) -> Arms:
        """For the compiled loop."""
        return _plain(BERNOULLI, self.means, np.zeros(np.size(self.means)), self.walk, 0.0)


@final
@dataclass(frozen=True, eq=False)
class LinearArms:
    """Rewards N(theta . x(a), noise^2), the features x known before the choice.

    theta [D]: one for all; features [A, D] fixed, or None: `arms` new ones each step, uniform on the unit sphere.
    theta [A, D]: one for each arm; a new context each step, uniform on the unit sphere, the same for all arms.
    Raises: ConfigError for shapes that do not fit, numbers that are not finite.
    """

    theta: ArrayLike
    number: int | None = None
    features: ArrayLike | None = None
    noise: float = 1.0

    def __post_init__(self) -> None:
        theta = np.asarray(self.theta, dtype=np.float64)
        features = np.zeros((0, 0)) if self.features is None else np.asarray(self.features, dtype=np.float64)
        if theta.ndim not in (1, 2) or theta.size == 0 or not np.isfinite(theta).all():
            raise ConfigError(f"theta has shape {theta.shape}; it is finite, [D], or [A, D] for a vector an arm.")
        if self.features is not None and (features.ndim != 2 or features.shape[1] != theta.shape[-1]):
            raise ConfigError(f"features has shape {features.shape}, theta {theta.shape}; give features [A, D].")
        if theta.ndim == 2 and self.features is not None:
            raise ConfigError("theta [A, D] draws its own contexts; give features with a theta [D] only.")
        if not np.isfinite(features).all():
            raise ConfigError("features are not all finite; give numbers.")
        arms = theta.shape[0] if theta.ndim == 2 else self.number if self.features is None else features.shape[0]
        if arms is None or arms < 2 or self.number not in (None, arms):
            raise ConfigError(f"number is {self.number}, so there would be {arms} arms; give the number of arms, >= 2.")
        _deviation("noise", self.noise)
        object.__setattr__(self, "theta", theta)
        object.__setattr__(self, "features", features)
        object.__setattr__(self, "number", arms)

    def arms(self) -> Arms:
        """For the compiled loop."""
        assert self.number is not None
        theta = np.atleast_2d(np.asarray(self.theta))
        zeros = np.zeros(self.number)
        return Arms(LINEAR, zeros, zeros + self.noise, 0.0, 0.0, theta, np.asarray(self.features, dtype=np.float64))


@final
@dataclass(frozen=True)
class OwnArms:
    """Rewards from `function(arm, step, rng) -> float`: any Python code, called once for each run and step.

    rng: numpy's Generator of the run. means(step) -> [A] true means at a step, if known: without them there is no
    regret. low, high: bounds on rewards, checked; KL-UCB, EXP3 and Bernoulli Thompson need [0, 1].
    """

    function: Callable[[int, int, np.random.Generator], float]
    number: int
    means: Callable[[int], ArrayLike] | None = None
    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        if self.number < 2:
            raise ConfigError(f"number is {self.number}; a bandit has at least 2 arms. Set number >= 2.")


@final
@dataclass(frozen=True, eq=False)
class LoggedArms:
    """A log of pulls as a bandit: an agent sees the events in random order, and one counts when it picks the same arm.

    arm [N] integers, reward [N]. probability [N]: with which the logger picked that arm; None says uniformly. Events of
    arms picked more often are thinned to the least probability, so that what counts is as if logged uniformly.
    context [N, D] (the same for all arms) or [N, A, D], for linear agents. number: of arms, None for the largest + 1.
    Raises: DataError for shapes that differ, an arm without an event, probabilities outside (0, 1].
    Source: Li et al. 2011 (arXiv 1003.5956), algorithm 2: what is counted is distributed as live play.
    """

    arm: ArrayLike
    reward: ArrayLike
    probability: ArrayLike | None = None
    context: ArrayLike | None = None
    number: int | None = None

    def __post_init__(self) -> None:
        arm, reward = np.asarray(self.arm), np.asarray(self.reward, dtype=np.float64)
        if arm.ndim != 1 or arm.shape != reward.shape or arm.size == 0 or arm.dtype.kind not in "iu":
            raise DataError(
                f"arm has shape {arm.shape} and dtype {arm.dtype}, reward shape {reward.shape}; a log is integers [N] "
                "and numbers [N], N >= 1."
            )
        if not np.isfinite(reward).all():
            raise DataError("some logged rewards are not finite; leave out events without a reward.")
        arms = int(arm.max()) + 1 if self.number is None else self.number
        if arms < 2 or arm.min() < 0 or arm.max() >= arms:
            raise DataError(
                f"arms {arm.min()} to {arm.max()} are logged, {arms} expected; number them from 0, at least 2."
            )
        never = np.flatnonzero(np.bincount(arm, minlength=arms) == 0)
        if never.size:
            raise DataError(f"arm {never[0]} is never logged; nothing is known of it. Leave it out of the numbering.")
        object.__setattr__(self, "arm", arm.astype(np.int64))
        object.__setattr__(self, "reward", reward)
        object.__setattr__(self, "probability", _logging(self.probability, arm.size))
        object.__setattr__(self, "context", _contexts(self.context, arm.size, arms))
        object.__setattr__(self, "number", arms)

    def events(self) -> tuple[Ints, Floats, Floats, Floats]:
        """For the compiled replay: arm [N], reward [N], chance of being kept [N], context [N, A, D]."""
        probability = np.asarray(self.probability, dtype=np.float64)
        keep = probability.min() / probability
        return np.asarray(self.arm), np.asarray(self.reward), keep, np.asarray(self.context)


Bandit = GaussianArms | BernoulliArms | LinearArms | OwnArms | LoggedArms


def arms_of(bandit: Bandit) -> int:
    """How many arms a bandit has."""
    if isinstance(bandit, GaussianArms | BernoulliArms):
        return int(np.size(bandit.means))
    assert bandit.number is not None
    return bandit.number


def features_of(bandit: Bandit) -> int:
    """How many features an arm has, 0 where there are none."""
    if isinstance(bandit, LinearArms):
        return int(np.asarray(bandit.theta).shape[-1])
    return int(np.asarray(bandit.context).shape[-1]) if isinstance(bandit, LoggedArms) else 0


def range_of(bandit: Bandit) -> tuple[float, float]:
    """The least and largest reward a bandit can give."""
    if isinstance(bandit, BernoulliArms):
        return 0.0, 1.0
    if isinstance(bandit, OwnArms):
        return bandit.low, bandit.high
    if isinstance(bandit, LoggedArms):
        return float(np.min(bandit.reward)), float(np.max(bandit.reward))
    return -math.inf, math.inf


def lai_robbins(bandit: Bandit) -> float:
    """The constant C of the least possible regret, C log t: the sum over worse arms of gap / KL(arm, best).

    KL of Bernoulli distributions, or gap^2 / (2 noise^2) of Gaussian ones of equal noise.
    Raises: ConfigError for arms that change or differ between runs, for other bandits, and for unequal noise.
    Source: Lai and Robbins 1985, Asymptotically efficient adaptive allocation rules, theorem 2.

    >>> round(lai_robbins(GaussianArms([0.0, 0.5])), 12)   # 0.5 / (0.5^2 / 2)
    4.0
    """
    fixed = isinstance(bandit, GaussianArms | BernoulliArms) and bandit.walk == 0.0
    if not fixed or (isinstance(bandit, GaussianArms) and (bandit.spread > 0.0 or np.ptp(bandit.noise) > 0.0)):
        raise ConfigError(
            f"{type(bandit).__name__} has no Lai-Robbins line; it needs Bernoulli arms, or Gaussian ones of equal "
            "noise, with means that neither walk nor differ between runs."
        )
    assert isinstance(bandit, GaussianArms | BernoulliArms)
    means = np.asarray(bandit.means)
    best = means.max()
    gap = best - means[means < best]
    if isinstance(bandit, GaussianArms):
        return float(np.sum(2.0 * np.asarray(bandit.noise)[0] ** 2 / gap))
    return float(sum(g / bernoulli_kl(best - g, best) for g in gap))


def bernoulli_kl(p: float, q: float) -> float:
    """KL(Bernoulli(p) || Bernoulli(q)) in nats, infinite where q excludes what p allows."""
    total = 0.0
    for here, there in ((p, q), (1.0 - p, 1.0 - q)):
        if here > 0.0:
            total += here * math.log(here / there) if there > 0.0 else math.inf
    return total


def _plain(kind: int, means: ArrayLike, noise: ArrayLike, walk: float, spread: float) -> Arms:
    none = np.zeros((0, 0))
    return Arms(kind, np.asarray(means, np.float64), np.asarray(noise, np.float64), walk, spread, none, none)


def _means(means: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(means, dtype=np.float64)
    if values.ndim != 1 or values.size < 2:
        raise ConfigError(f"means has shape {values.shape}; a bandit has at least 2 arms. Give [A], A >= 2.")
    if not np.isfinite(values).all():
        raise ConfigError("some means are not finite; give numbers.")
    return values


def _deviation(name: str, value: ArrayLike) -> None:
    values = np.asarray(value, dtype=np.float64)
    if not (np.isfinite(values).all() and (values >= 0.0).all()):
        raise ConfigError(f"{name} is {values}; a standard deviation is a finite number of at least 0.")


def _logging(probability: ArrayLike | None, events: int) -> Floats:
    values = np.ones(events) if probability is None else np.asarray(probability, dtype=np.float64)
    if values.shape != (events,) or not ((values > 0.0) & (values <= 1.0)).all():
        raise DataError(f"probability has shape {values.shape} for {events} events; give one in (0, 1] for each.")
    return values


def _contexts(context: ArrayLike | None, events: int, arms: int) -> Floats:
    given = np.zeros((events, 0)) if context is None else np.asarray(context, dtype=np.float64)
    values = np.repeat(given[:, None, :], arms, axis=1) if given.ndim == 2 else given
    if values.ndim != 3 or values.shape[:2] != (events, arms) or not np.isfinite(values).all():
        raise DataError(f"context has shape {given.shape}; give finite [{events}, D] or [{events}, {arms}, D].")
    return np.ascontiguousarray(values)
