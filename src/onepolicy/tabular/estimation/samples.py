"""Expectations estimated from samples, with intervals: Monte Carlo and importance sampling.

Every estimator here and in estimation/episodes.py is a sum of K ratios of means over n samples,

    estimate = sum_k mean_i(term[i, k]) / mean_i(weight[i, k]),        `Ratios`

so that one standard error (linearised) and one bootstrap serve all. Importance weights come as log-ratios log p/q:
`log_ratio` makes them. In: plain and self-normalised estimates, effective sample size, tail index. Not in: episodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from onepolicy.errors import ConfigError, DataError

Array = NDArray[np.float64]
_CHUNK = 1 << 22


@final
@dataclass(frozen=True)
class Estimate:
    """An estimate, its standard error and interval, all in the estimated quantity's unit.

    n: samples. effective: how many samples of the target distribution they are worth, at most n.
    With one sample nothing is known of the error: it is infinite, and so is the interval.
    """

    value: float
    error: float
    low: float
    high: float
    n: int
    effective: float

    def __str__(self) -> str:
        return f"{self.value:.6g} [{self.low:.6g}, {self.high:.6g}], n {self.n}, effective {self.effective:.1f}"


@final
@dataclass(frozen=True, eq=False)
class Ratios:
    """A sum of ratios of means: term, weight [n, K]; a weight [n, 1] of ones makes it a plain mean."""

    term: Array
    weight: Array

    def value(self) -> float:
        """The estimate. Raises: DataError where a column's weights are all 0, since it says nothing."""
        total = self.weight.sum(axis=0)
        if not (total > 0.0).all():
            raise DataError(
                "all weights are 0: the target never does what was logged, so the data say nothing about it. Log with "
                "a policy that takes every action the target takes."
            )
        return float((self.term.sum(axis=0) / total).sum())

    def influence(self) -> Array:
        """What each sample adds to the estimate's error, [n]: sum_k (term - ratio weight) / mean weight."""
        mean = self.weight.mean(axis=0)
        ratio = self.term.mean(axis=0) / mean
        return np.asarray(((self.term - ratio * self.weight) / mean).sum(axis=1))


Interval = Callable[[Ratios, float, float, float], tuple[float, float]]
"""(ratios, value, standard error, level) -> (low, high)."""


def normal(ratios: Ratios, value: float, error: float, level: float) -> tuple[float, float]:
    """value +- z error: right for many samples of finite variance."""
    half = float(ndtri(0.5 + level / 2)) * error
    return value - half, value + half


def bootstrap(*, resamples: int = 2000, seed: int = 0) -> Interval:
    """The percentile bootstrap: samples drawn with replacement, all columns of a sample together.

    Resamples in which all weights of a column are 0 have no estimate and are left out.
    Source: Efron and Tibshirani 1993, section 13.3.
    """
    if resamples < 2:
        raise ConfigError(f"resamples is {resamples}; a bootstrap needs at least 2, 1000 or more to be of use.")

    def interval(ratios: Ratios, value: float, error: float, level: float) -> tuple[float, float]:
        n = len(ratios.term)
        if n == 1:
            return -math.inf, math.inf
        rng, rows = np.random.default_rng(seed), max(1, _CHUNK // n)
        draws = []
        for start in range(0, resamples, rows):
            count = rng.multinomial(n, np.full(n, 1.0 / n), size=min(rows, resamples - start)).astype(np.float64)
            with np.errstate(invalid="ignore", divide="ignore"):
                draws.append(((count @ ratios.term) / (count @ ratios.weight)).sum(axis=1))
        every = np.concatenate(draws)
        low, high = np.quantile(every[np.isfinite(every)], [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    return interval


def estimated(ratios: Ratios, effective: float, interval: Interval, level: float) -> Estimate:
    """The estimate that a sum of ratios is, with its linearised standard error sd(influence) / sqrt(n)."""
    if not 0.0 < level < 1.0:
        raise ConfigError(f"level is {level}; an interval's level is between 0 and 1, such as 0.95.")
    value, n = ratios.value(), len(ratios.term)
    error = float(ratios.influence().std(ddof=1)) / math.sqrt(n) if n > 1 else math.inf
    low, high = interval(ratios, value, error, level)
    return Estimate(value, error, low, high, n, effective)


def monte_carlo(x: ArrayLike, *, interval: Interval = normal, level: float = 0.95) -> Estimate:
    """The mean of samples x [n] as an estimate of E[x].

    Raises: DataError for an empty or non-finite x.

    >>> monte_carlo([1.0, 2.0, 3.0]).value
    2.0
    """
    values = finite("x", x, 1)
    return estimated(_mean_of(values), float(len(values)), interval, level)


def importance_sampling(
    x: ArrayLike, log_ratio: ArrayLike, *, interval: Interval = normal, level: float = 0.95
) -> Estimate:
    """Ordinary importance sampling: E_p[x] ~ 1/n sum_i (p/q)(i) x_i, of samples drawn from q.

    x, log_ratio [n]; log_ratio = log p/q, -inf where p is 0. Unbiased; its variance may be infinite.
    Raises: DataError for empty data, shapes that differ, x not finite, a log-ratio that is NaN or +inf.
    Source: Sutton and Barto 2018, equation 5.5.
    """
    values, logs = _weighed(x, log_ratio)
    return estimated(_mean_of(weights(logs) * values), effective_sample_size(logs), interval, level)


def weighted_importance_sampling(
    x: ArrayLike, log_ratio: ArrayLike, *, interval: Interval = normal, level: float = 0.95
) -> Estimate:
    """Self-normalised importance sampling: sum_i w_i x_i / sum_i w_i, w = p/q up to a constant factor.

    Biased by O(1/n), inside the range of x, and usually of much less variance. As `importance_sampling` otherwise.
    Source: Sutton and Barto 2018, equation 5.6; the standard error by linearisation: Owen 2013, equation 9.8.
    """
    values, logs = _weighed(x, log_ratio)
    weight = np.exp(logs - _top(logs))
    return estimated(Ratios((weight * values)[:, None], weight[:, None]), effective_sample_size(logs), interval, level)


def effective_sample_size(log_ratio: ArrayLike) -> float:
    """(sum w)^2 / sum w^2 of weights w = exp(log_ratio) [n]: n when all are equal, 1 when one has it all, 0 for none.

    Source: Kong, Liu and Wong 1994.

    >>> effective_sample_size(np.log([1.0, 1.0, 2.0])) == 16 / 6
    True
    """
    logs = log_ratios(log_ratio, np.shape(log_ratio))
    weight = np.exp(logs - _top(logs))
    return float(weight.sum() ** 2 / (weight**2).sum()) if weight.any() else 0.0


def tail_index(log_ratio: ArrayLike) -> float:
    """The shape k of the weights' upper tail: from 0.5 on their variance is infinite, from 1 on their mean.

    The generalised Pareto distribution fitted to the weights above the largest min(n/5, 3 sqrt n), with a weak prior at
    0.5; -inf where none is above. Above 0.7 no estimate made with these weights is to be trusted, whatever its standard
    error. For weights that spread: on a few values, such as powers of 2, it comes out too low.
    Raises: DataError for fewer than 25 weights.
    Source: Vehtari et al. 2024 (arXiv 1507.02646), section 3; Zhang and Stephens 2009, A new and efficient estimation
    method for the generalized Pareto distribution.
    """
    logs = log_ratios(log_ratio, np.shape(log_ratio)).ravel()
    tail = int(min(logs.size // 5, 3 * math.sqrt(logs.size)))
    if tail < 5:
        raise DataError(f"{logs.size} weights have too short a tail to judge; give at least 25.")
    largest = np.sort(np.exp(logs - _top(logs)))[-tail - 1 :]
    excess = largest[largest > largest[0]] - largest[0]
    tail = excess.size
    if tail == 0:
        return -math.inf
    quartile = excess[max(int(tail / 4 + 0.5), 1) - 1]
    m = 30 + int(math.sqrt(tail))
    theta = 1.0 / excess[-1] + (1.0 - np.sqrt(m / (np.arange(1, m + 1) - 0.5))) / (3.0 * quartile)
    shape = np.log1p(-theta[:, None] * excess).mean(axis=1)
    fit = tail * (np.log(-theta / shape) - shape - 1.0)
    share = np.exp(fit - fit.max())
    best = float((theta * share).sum() / share.sum())
    return (tail * float(np.log1p(-best * excess).mean()) + 5.0) / (tail + 10.0)


def log_ratio(target: ArrayLike, behaviour: ArrayLike) -> Array:
    """log(target / behaviour) of the probabilities (or densities) of what was sampled, equal shapes; -inf for target 0.

    Raises: DataError where behaviour is 0 (what was sampled cannot have had that probability; a whole table is checked
    by `covered`), and for numbers that are negative, NaN or infinite.

    >>> log_ratio([0.5, 0.0], [0.25, 0.5])
    array([0.69314718,       -inf])
    """
    p, q = finite("target", target), finite("behaviour", behaviour)
    _same_shape(target=p, behaviour=q)
    _nonnegative("target", p)
    _nonnegative("behaviour", q)
    if (q == 0.0).any():
        place = _first(q == 0.0)
        raise DataError(
            f"behaviour is 0 at {place}, where target is {p[place]:g}; a sample cannot have probability 0. Log the "
            "probabilities of the policy that acted."
        )
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(p) - np.log(q))


def log_weights(ratio: ArrayLike) -> Array:
    """The logarithms of given ratios p/q, any shape; -inf for 0.

    Raises: DataError for ratios that are negative, NaN or infinite.
    """
    values = finite("ratio", ratio)
    _nonnegative("ratio", values)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(values))


def weights(logs: Array) -> Array:
    """The ratios exp(logs). Raises: DataError where one is too large for a float64."""
    with np.errstate(over="ignore"):
        ratio = np.exp(logs)
    if np.isinf(ratio).any():
        raise DataError(
            f"a log-ratio of {logs.max():.0f} has no ratio in float64; target and behaviour have little in common. "
            "Use a weighted estimator, or shorter episodes."
        )
    return np.asarray(ratio)


def covered(target: ArrayLike, behaviour: ArrayLike) -> None:
    """Coverage of one policy by another, tables [S, A] of probabilities: behaviour > 0 wherever target > 0.

    Raises: DataError naming the first state and action of the target that behaviour never takes.
    """
    p, q = finite("target", target, 2), finite("behaviour", behaviour, 2)
    _same_shape(target=p, behaviour=q)
    missing = (p > 0.0) & (q <= 0.0)
    if missing.any():
        state, action = _first(missing)
        raise DataError(
            f"the target takes action {action} in state {state} with probability {p[state, action]:g} and behaviour "
            "never does; importance sampling cannot see what follows. Give behaviour some probability there."
        )


def finite(name: str, x: ArrayLike, dims: int | None = None) -> Array:
    """x as float64. Raises: DataError when it is empty, not finite, or has another number of dimensions."""
    values = np.asarray(x, dtype=np.float64)
    if values.size == 0 or (dims is not None and values.ndim != dims):
        wanted = "at least one number" if dims is None else f"at least one number in {dims} dimension(s)"
        raise DataError(f"{name} has shape {values.shape}; give {wanted}.")
    bad = ~np.isfinite(values)
    if bad.any():
        raise DataError(f"{name} is {values[_first(bad)]} at {_first(bad)}; give finite numbers.")
    return values


def log_ratios(log_ratio: ArrayLike, shape: tuple[int, ...]) -> Array:
    """Log-ratios as float64 of a shape. Raises: DataError when empty, of another shape, NaN or +inf."""
    logs = np.asarray(log_ratio, dtype=np.float64)
    if logs.size == 0 or logs.shape != shape:
        raise DataError(f"log_ratio has shape {logs.shape}, the data {shape}; give one for each, at least one.")
    bad = np.isnan(logs) | (logs == np.inf)
    if bad.any():
        raise DataError(
            f"log_ratio is {logs[_first(bad)]} at {_first(bad)}; it is log p - log q, finite or -inf. Ratios "
            "themselves go through log_weights."
        )
    return logs


def _mean_of(x: Array) -> Ratios:
    return Ratios(x[:, None], np.ones((len(x), 1)))


def _weighed(x: ArrayLike, log_ratio: ArrayLike) -> tuple[Array, Array]:
    values = finite("x", x, 1)
    return values, log_ratios(log_ratio, values.shape)


def _top(logs: Array) -> float:
    """The largest log-weight, or 0 when there is none to speak of: dividing by it keeps weights finite."""
    top = float(logs.max())
    return top if math.isfinite(top) else 0.0


def _nonnegative(name: str, x: Array) -> None:
    if (x < 0.0).any():
        raise DataError(f"{name} is {x[_first(x < 0.0)]:g} at {_first(x < 0.0)}; it cannot be negative.")


def _same_shape(**arrays: Array) -> None:
    (one, first), (two, second) = arrays.items()
    if first.shape != second.shape:
        raise DataError(f"{one} has shape {first.shape} but {two} has shape {second.shape}; they must be equal.")


def _first(where: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(where)[0])
