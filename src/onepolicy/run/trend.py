"""A test for a trend in a noisy, autocorrelated series: is the last third different from the start?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Trend:
    """Means of the start and the last third of a series, and the two-sided p-value of their difference."""

    first: float
    last: float
    p: float


def trend(values: Sequence[float], start: int | None = None) -> Trend:
    """Welch's t-test of the last third against the first `start` values or the first third, each with its effective
    sample size.

    n_eff = n (1 - r) / (1 + r) with r the lag-1 autocorrelation of the residuals of a line through the third, at
    least 0: successive steps of training are not independent, and a plain t-test would find trends in drift.
    values: at least 6, finite. start: at least 2.
    Source: Welch 1947; n_eff as in Wilks 2011, section 5.2.4, equation 5.12.

    >>> trend([0.0, 0.1] * 10 + [0.9, 1.0] * 5).p < 0.001
    True
    """
    from scipy.special import stdtr

    third = len(values) // 3
    if third < 2 or (start is not None and start < 2):
        raise ValueError(f"a trend needs at least 6 values and a start of 2, got {len(values)} and {start}")
    first, last = np.asarray(values[: start or third], float), np.asarray(values[-third:], float)
    (mean_1, var_1, n_1), (mean_2, var_2, n_2) = _moments(first), _moments(last)
    error_1, error_2 = var_1 / n_1, var_2 / n_2
    error = error_1 + error_2
    if error == 0:
        return Trend(mean_1, mean_2, 1.0 if mean_1 == mean_2 else 0.0)
    df = error**2 / (error_1**2 / (n_1 - 1) + error_2**2 / (n_2 - 1))
    p = 2 * float(stdtr(df, -abs(mean_2 - mean_1) / math.sqrt(error)))
    return Trend(mean_1, mean_2, p)


def _moments(x: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean, unbiased variance and effective sample size (at least 2)."""
    time = np.arange(len(x)) - (len(x) - 1) / 2
    residual = x - x.mean() - time * (time @ x) / (time @ time)
    power = residual @ residual
    r = float(residual[1:] @ residual[:-1] / power) if power > 1e-12 * len(x) * max(1.0, float(x @ x)) else 0.0
    r = min(max(r, 0.0), 0.95)
    return float(x.mean()), float(x.var(ddof=1)), max(2.0, len(x) * (1 - r) / (1 + r))
