"""Numbers with their uncertainty: bootstrap and Wilson intervals, interquartile mean, pass@k and majority vote.

numpy only, every draw seeded. A *statistic* is a function that reduces the last axis of an array, so that all
resamples are evaluated in one call. What is resampled is the unit that generalises: problems for a test set, seeds for
an algorithm. Not here: hypothesis tests and corrections for many comparisons.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from onepolicy.errors import DataError
from onepolicy.run.spread import iqm as iqm

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]
"""Reduces the last axis: [..., n] -> [...]."""

_CHUNK = 1 << 22


@dataclass(frozen=True)
class Interval:
    """An estimate and the interval around it, all in the estimate's unit."""

    value: float
    low: float
    high: float

    def percent(self) -> str:
        """As percentages.

        >>> Interval(0.5, 0.456, 0.544).percent()
        '50.0 % [45.6, 54.4]'
        """
        return f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def mean(x: Array) -> Array:
    """The mean over the last axis."""
    return np.asarray(x.mean(axis=-1))


def bootstrap_interval(
    x: ArrayLike, statistic: Statistic = mean, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """The percentile bootstrap interval of a statistic of x [n], its elements resampled with replacement.

    All of x equal gives an interval of no width: for a proportion that is 0 or 1 take `wilson_interval`.
    Raises: DataError for an empty or non-finite x. Source: Efron and Tibshirani 1993, section 13.3.
    """
    values = _checked(x)
    draws = _resampled(values, statistic, resamples, seed)
    low, high = np.quantile(draws, _tails(level))
    return Interval(float(statistic(values)), float(low), float(high))


def bca_interval(
    x: ArrayLike, statistic: Statistic = mean, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """The bias-corrected and accelerated bootstrap interval of a statistic of x [n].

    Second-order accurate for skewed statistics and small n, where the percentile interval is off.
    Raises: DataError for an empty or non-finite x. Source: Efron 1987; Efron and Tibshirani 1993, section 14.3.
    """
    values = _checked(x)
    estimate = float(statistic(values))
    draws = _resampled(values, statistic, resamples, seed)
    below = (np.sum(draws < estimate) + 0.5 * np.sum(draws == estimate)) / resamples
    bias = ndtri(np.clip(below, 1 / (resamples + 1), resamples / (resamples + 1)))
    influence = _jackknife(values, statistic)
    spread = influence.mean() - influence
    scale = np.sum(spread**2) ** 1.5
    acceleration = np.sum(spread**3) / (6 * scale) if scale > 0 else 0.0
    z = bias + ndtri(_tails(level))
    low, high = np.quantile(draws, ndtr(bias + z / (1 - acceleration * z)))
    return Interval(estimate, float(low), float(high))


def stratified_interval(
    scores: ArrayLike, statistic: Statistic = iqm, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """The percentile interval of a statistic over all of scores [seeds, tasks], seeds resampled within each task.

    Every resample keeps each task's number of seeds, so that tasks of different difficulty do not add to the spread.
    Source: Agarwal et al. 2021 (arXiv 2108.13264), section 4.1.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2:
        raise DataError(f"scores has shape {values.shape}; a stratified interval needs [seeds, tasks].")
    _checked(values.reshape(-1))
    seeds, tasks = values.shape
    rng = np.random.default_rng(seed)
    rows = rng.integers(seeds, size=(resamples, seeds, tasks))
    draws = statistic(values[rows, np.arange(tasks)].reshape(resamples, -1))
    low, high = np.quantile(draws, _tails(level))
    return Interval(float(statistic(values.reshape(-1))), float(low), float(high))


def probability_of_improvement(
    a: Sequence[ArrayLike], b: Sequence[ArrayLike], *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """How likely a seed of A scores above a seed of B, the mean over tasks, with its stratified bootstrap interval.

    P(A > B) = 1/M sum_m 1/(N_m K_m) sum_ij S(a_mi, b_mj), S = 1 where a is more, 1/2 where they are equal, 0 else.
    a, b: the scores of each task's seeds, [N_m] and [K_m], more is better; task m is the same in both. Ranks only, so
    that tasks need no common scale. Seeds are resampled within each task, A's and B's apart.
    Raises: DataError for different or no tasks, or a task without finite scores.
    Source: Agarwal et al. 2021 (arXiv 2108.13264), section 4.3, as in rliable's `probability_of_improvement`.

    >>> probability_of_improvement([[3.0, 1.0]], [[2.0, 1.0]]).value
    0.625
    """
    if len(a) != len(b) or not len(a):
        raise DataError(f"{len(a)} tasks on one side and {len(b)} on the other; compare on the same tasks, at least 1.")
    rng = np.random.default_rng(seed)
    values, draws = np.zeros(len(a)), np.zeros((len(a), resamples))
    for task, (mine, yours) in enumerate(zip(a, b, strict=True)):
        first, second = _checked(mine), _checked(yours)
        wins = np.sign(first[:, None] - second) / 2 + 0.5
        rows = rng.integers(first.size, size=(resamples, first.size))
        columns = rng.integers(second.size, size=(resamples, second.size))
        values[task] = wins.mean()
        draws[task] = wins[rows[:, :, None], columns[:, None, :]].mean(axis=(1, 2))
    low, high = np.quantile(draws.mean(axis=0), _tails(level))
    return Interval(float(values.mean()), float(low), float(high))


def paired_difference(
    a: ArrayLike, b: ArrayLike, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """The bootstrap interval of mean(a - b), a and b [n] measured on the same n problems, in the same order.

    Much narrower than the gap of two separate intervals, because what makes a problem hard cancels.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise DataError(f"Shapes {first.shape} and {second.shape} differ; a paired difference needs the same problems.")
    return bootstrap_interval(first - second, level=level, resamples=resamples, seed=seed)


def wilson_interval(successes: int, n: int, *, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion; sound at 0 and n successes too.

    Centre (p + z^2/2n) / (1 + z^2/n), half-width z sqrt(p(1-p)/n + z^2/4n^2) / (1 + z^2/n).
    Source: Wilson 1927; Brown, Cai and DasGupta 2001.
    """
    if not 0 <= successes <= n or n == 0:
        raise DataError(f"{successes} successes of {n}; need 0 <= successes <= n and n >= 1.")
    z = float(ndtri(0.5 + level / 2))
    p, shrink = successes / n, 1 + z * z / n
    centre = (p + z * z / (2 * n)) / shrink
    half = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / shrink
    return Interval(p, max(0.0, float(centre - half)), min(1.0, float(centre + half)))


def pass_at_k(n: ArrayLike, correct: ArrayLike, k: int) -> Array:
    """The probability that at least one of k samples is right, estimated without bias from `correct` right of n.

    pass@k = 1 - C(n-c, k) / C(n, k) = 1 - prod_{i=n-c+1}^{n} (1 - k/i), elementwise over n and correct.
    Raises: DataError for k outside 1..n or correct outside 0..n. Source: Chen et al. 2021 (arXiv 2107.03374), eq. 1.

    >>> pass_at_k(4, [0, 1, 3], 2)
    array([0. , 0.5, 1. ])
    """
    return 1 - all_of_k(n, np.asarray(n) - np.asarray(correct), k)


def all_of_k(n: ArrayLike, some: ArrayLike, k: int) -> Array:
    """The probability that k samples drawn from n without putting back are all among `some` of them, elementwise.

    C(some, k) / C(n, k) = prod_{i=0}^{k-1} (some - i) / (n - i).
    Raises: DataError for k outside 1..n or some outside 0..n.
    """
    total, chosen = np.broadcast_arrays(np.asarray(n, dtype=np.int64), np.asarray(some, dtype=np.int64))
    if k < 1 or np.any(total < k):
        raise DataError(f"k is {k}, the samples per problem {total.min() if total.size else 0}; need 1 <= k <= n.")
    if np.any(chosen < 0) or np.any(chosen > total):
        raise DataError("correct is outside 0..n for some problem; count the right ones among its n samples.")
    share = np.ones(total.shape)
    for i in range(k):
        share *= np.maximum(chosen - i, 0) / (total - i)
    return share


def maj_at_k(answers: Sequence[str | None], correct: Sequence[bool], k: int) -> float:
    """The probability that a majority vote of k samples is right, the mean over the floor(n/k) disjoint blocks of k.

    answers: each sample's answer; a wrong one without an answer does not vote. correct: whether it is right; all right
    ones vote together, however written. A tie counts by the share of right ones among the winners, no vote as 0.
    Source: Wang et al. 2023 (arXiv 2203.11171).

    >>> maj_at_k(["7", "8", "7", None], [True, False, True, False], 4)
    1.0
    """
    if not 1 <= k <= len(answers) or len(answers) != len(correct):
        raise DataError(f"k is {k} for {len(answers)} answers and {len(correct)} verdicts; need 1 <= k <= n, equal n.")
    blocks = [range(start, start + k) for start in range(0, len(answers) - k + 1, k)]
    return sum(_vote([(answers[i], bool(correct[i])) for i in block]) for block in blocks) / len(blocks)


def _vote(block: Sequence[tuple[str | None, bool]]) -> float:
    votes = Counter((True, "") if right else (False, answer) for answer, right in block if right or answer)
    if not votes:
        return 0.0
    most = max(votes.values())
    winners = [right for (right, _), count in votes.items() if count == most]
    return sum(winners) / len(winners)


def _checked(x: ArrayLike) -> Array:
    values = np.asarray(x, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise DataError(f"An array of shape {values.shape} has no interval; give at least one value, as [n].")
    if not np.isfinite(values).all():
        raise DataError("Some values are not finite; leave out what could not be judged, and count it.")
    return values


def _tails(level: float) -> Array:
    if not 0 < level < 1:
        raise DataError(f"level is {level}; an interval's level is between 0 and 1, such as 0.95.")
    return np.array([(1 - level) / 2, (1 + level) / 2])


def _resampled(x: Array, statistic: Statistic, resamples: int, seed: int) -> Array:
    """The statistic of `resamples` resamples [resamples], in chunks of bounded memory."""
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK // x.size)
    counts = [min(rows, resamples - start) for start in range(0, resamples, rows)]
    return np.concatenate([statistic(x[rng.integers(x.size, size=(count, x.size))]) for count in counts])


def _jackknife(x: Array, statistic: Statistic) -> Array:
    """The statistic with each element left out in turn [n], in chunks of bounded memory."""
    n = x.size
    if n == 1:
        return np.zeros(1)
    rows = max(1, _CHUNK // n)
    others = np.arange(n - 1)
    parts = []
    for start in range(0, n, rows):
        left_out = np.arange(start, min(start + rows, n))[:, None]
        parts.append(statistic(x[others + (others >= left_out)]))
    return np.concatenate(parts)
