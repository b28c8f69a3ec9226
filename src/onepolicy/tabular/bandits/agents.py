"""Bandit agents: what they are called, what can be set, and the constants the compiled step reads.

In: greedy, epsilon-greedy (fixed, decaying), optimistic, UCB1, KL-UCB, Thompson sampling (Bernoulli, Gaussian),
gradient bandit, EXP3, LinUCB, linear Thompson sampling. Q(a) is the estimated reward of arm a, N(a) its pulls,
t = 1, 2, ... the step. Estimates move by Q += step_size (r - Q); step_size None is 1/N, the mean. Equal arms are
equally likely.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol, final

import numpy as np

from onepolicy.errors import ConfigError, nearest
from onepolicy.tabular.bandits import steps
from onepolicy.tabular.bandits.random import Floats

BASELINES = ("before", "through", "none")
"""Of the gradient bandit."""


@dataclass(frozen=True)
class Form:
    """An agent as the compiled step reads it: kind, its own constants (at most 7), step size (0: 1/n), first values.

    unit: rewards must lie in [0, 1]. ridge: of a linear agent, else 0. disjoint: a linear model for each arm.
    """

    kind: int
    own: tuple[float, ...] = ()
    step_size: float = 0.0
    initial: float = 0.0
    unit: bool = False
    ridge: float = 0.0
    disjoint: bool = False

    def constants(self) -> Floats:
        """The eight constants."""
        packed = np.zeros(steps.STEP_SIZE + 1)
        packed[: len(self.own)] = self.own
        packed[steps.STEP_SIZE] = self.step_size
        return packed


class Agent(Protocol):
    """Whatever has a form."""

    def form(self) -> Form:
        """The agent for the compiled step."""


@final
@dataclass(frozen=True)
class EpsilonGreedy:
    """argmax Q with probability 1 - epsilon, else any arm: the best has 1 - eps + eps/A, each other one eps/A.

    epsilon 0 is the greedy agent. initial: Q before the first pull (optimistic if above what arms give, and of lasting
    effect only with a constant step size: 1/n forgets it at the first pull).
    Source: Sutton and Barto 2018, sections 2.2 to 2.6.
    """

    epsilon: float = 0.1
    initial: float = 0.0
    step_size: float | None = None

    def __post_init__(self) -> None:
        _within("epsilon", self.epsilon, 0.0, 1.0)
        _finite("initial", self.initial)
        _step_size(self.step_size)

    def form(self) -> Form:
        """Constants: epsilon, power 0."""
        return Form(steps.EPSILON_GREEDY, (self.epsilon, 0.0), self.step_size or 0.0, self.initial)


def greedy(*, initial: float = 0.0, step_size: float | None = None) -> EpsilonGreedy:
    """The agent that always takes argmax Q."""
    return EpsilonGreedy(0.0, initial, step_size)


def optimistic(*, initial: float = 5.0, step_size: float = 0.1) -> EpsilonGreedy:
    """The greedy agent that explores because it expects too much. Source: Sutton and Barto 2018, figure 2.3."""
    return EpsilonGreedy(0.0, initial, step_size)


@final
@dataclass(frozen=True)
class DecayingEpsilonGreedy:
    """Epsilon-greedy with epsilon_t = min(1, scale / t^power).

    scale 1, power 1 is 1/t. Auer's epsilon_n-greedy, whose regret is logarithmic, has scale c A / d^2, where d is at
    most the gap between the best arm and the next. Source: Auer, Cesa-Bianchi and Fischer 2002, figure 3.
    """

    scale: float = 1.0
    power: float = 1.0
    initial: float = 0.0
    step_size: float | None = None

    def __post_init__(self) -> None:
        _positive("scale", self.scale)
        _positive("power", self.power)
        _finite("initial", self.initial)
        _step_size(self.step_size)

    def form(self) -> Form:
        """Constants: scale, power."""
        return Form(steps.EPSILON_GREEDY, (self.scale, self.power), self.step_size or 0.0, self.initial)


@final
@dataclass(frozen=True)
class UCB1:
    """argmax Q(a) + c sqrt(log t / N(a)); an arm never pulled comes first.

    c in units of the rewards: sqrt(2) for rewards in [0, 1], with which Auer proves logarithmic regret; t counts this
    step too, as in Sutton and Barto's equation 2.10 (Auer: the pulls before it). Source: Auer et al. 2002, figure 1.
    """

    c: float = math.sqrt(2.0)
    step_size: float | None = None

    def __post_init__(self) -> None:
        _nonnegative("c", self.c)
        _step_size(self.step_size)

    def form(self) -> Form:
        """Constants: c."""
        return Form(steps.UCB, (self.c,), self.step_size or 0.0)


@final
@dataclass(frozen=True)
class KLUCB:
    """argmax of the largest q with N(a) kl(Q(a), q) <= log t + c log log t, kl that of Bernoulli; rewards in [0, 1].

    Its regret reaches the Lai-Robbins bound for Bernoulli arms. c = 3 is in the proof, 0 the authors' advice.
    Source: Garivier and Cappe 2011 (arXiv 1102.2490), algorithm 1.
    """

    c: float = 0.0

    def __post_init__(self) -> None:
        _nonnegative("c", self.c)

    def form(self) -> Form:
        """Constants: c."""
        return Form(steps.KL_UCB, (self.c,), unit=True)


@final
@dataclass(frozen=True)
class BernoulliThompson:
    """argmax of draws from Beta(a + successes, b + failures); rewards in [0, 1], fractions count as such.

    Source: Thompson 1933; Kaufmann, Korda and Munos 2012 (arXiv 1205.4217): regret at the Lai-Robbins bound.
    """

    a: float = 1.0
    b: float = 1.0

    def __post_init__(self) -> None:
        _positive("a", self.a)
        _positive("b", self.b)

    def form(self) -> Form:
        """Constants: a, b."""
        return Form(steps.BETA_THOMPSON, (self.a, self.b), unit=True)


@final
@dataclass(frozen=True)
class GaussianThompson:
    """argmax of draws from the posterior of each mean: prior N(mean, deviation^2), rewards N(., noise^2).

    Posterior precision 1/deviation^2 + N/noise^2, mean its weighted one. Source: Russo et al. 2018 (arXiv 1707.02038).
    """

    mean: float = 0.0
    deviation: float = 1.0
    noise: float = 1.0

    def __post_init__(self) -> None:
        _finite("mean", self.mean)
        _positive("deviation", self.deviation)
        _positive("noise", self.noise)

    def form(self) -> Form:
        """Constants: prior mean, prior deviation, noise."""
        return Form(steps.NORMAL_THOMPSON, (self.mean, self.deviation, self.noise))


@final
@dataclass(frozen=True)
class GradientBandit:
    """Softmax of preferences H, moved along the gradient: H(a) += step_size (r - baseline) (1[a = A] - pi(a)).

    baseline: "before", the mean of the rewards before this one (in the first step, of itself); "through", of this one
    too, which is the same with a step size of step_size (1 - 1/t); or "none", 0.
    Source: Sutton and Barto 2018, equation 2.12 and the text below it ("before"; "through" in its first printings).
    """

    step_size: float = 0.1
    baseline: Literal["before", "through", "none"] = "before"

    def __post_init__(self) -> None:
        _positive("step_size", self.step_size)
        if self.baseline not in BASELINES:
            raise ConfigError(f"baseline is {self.baseline!r}. {nearest(str(self.baseline), BASELINES)}")

    def form(self) -> Form:
        """Constants: the baseline's weight, whether it goes through this reward."""
        own = (float(self.baseline != "none"), float(self.baseline == "through"))
        return Form(steps.GRADIENT, own, self.step_size)


@final
@dataclass(frozen=True)
class EXP3:
    """Exponential weights: pi(a) = (1 - gamma) w(a) / sum w + gamma / A, w(A) *= exp(gamma r / (pi(A) A)).

    For rewards in [0, 1] that an adversary may choose. Source: Auer et al. 2002, The nonstochastic multiarmed bandit
    problem (SIAM J. Comput. 32), figure 1.
    """

    gamma: float = 0.1

    def __post_init__(self) -> None:
        _within("gamma", self.gamma, 0.0, 1.0)
        _positive("gamma", self.gamma)

    def form(self) -> Form:
        """Constants: gamma."""
        return Form(steps.EXP3, (self.gamma,), unit=True)


@final
@dataclass(frozen=True)
class LinUCB:
    """argmax theta . x(a) + alpha sqrt(x(a)^T A^-1 x(a)), theta = A^-1 b by ridge regression on features x [D].

    disjoint: a model for each arm (Li et al.), else one for all (Chu et al. 2011). Features are those of the bandit.
    Source: Li et al. 2010 (arXiv 1003.0146), algorithm 1.
    """

    alpha: float = 1.0
    ridge: float = 1.0
    disjoint: bool = False

    def __post_init__(self) -> None:
        _nonnegative("alpha", self.alpha)
        _positive("ridge", self.ridge)

    def form(self) -> Form:
        """Constants: alpha."""
        return Form(steps.LIN_UCB, (self.alpha,), ridge=self.ridge, disjoint=self.disjoint)


@final
@dataclass(frozen=True)
class LinThompson:
    """argmax theta . x(a) of a drawn theta ~ N(A^-1 b, scale^2 A^-1), A = ridge I + sum x x^T.

    scale: the noise's standard deviation, for the posterior under the prior N(0, scale^2 / ridge).
    Source: Agrawal and Goyal 2013 (arXiv 1209.3352), algorithm 1.
    """

    scale: float = 1.0
    ridge: float = 1.0
    disjoint: bool = False

    def __post_init__(self) -> None:
        _positive("scale", self.scale)
        _positive("ridge", self.ridge)

    def form(self) -> Form:
        """Constants: scale."""
        return Form(steps.LIN_THOMPSON, (self.scale,), ridge=self.ridge, disjoint=self.disjoint)


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{name} is {value}; it must lie in [{low:g}, {high:g}]. Set {low:g} <= {name} <= {high:g}.")


def _finite(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise ConfigError(f"{name} is {value}; it must be a finite number.")


def _positive(name: str, value: float) -> None:
    if not 0.0 < value < math.inf:
        raise ConfigError(f"{name} is {value}; it must be a number above 0.")


def _nonnegative(name: str, value: float) -> None:
    if not 0.0 <= value < math.inf:
        raise ConfigError(f"{name} is {value}; it must be a number of at least 0.")


def _step_size(value: float | None) -> None:
    if value is not None and not 0.0 < value <= 1.0:
        raise ConfigError(f"step_size is {value}; it must lie in (0, 1], or be None for 1/n.")
