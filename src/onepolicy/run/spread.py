"""What several seeds say together: their interquartile mean and how far it can be trusted, at one step or at many.

numpy only. In: the statistic and its bootstrap band over seeds; seeds brought to the same steps. Not in: intervals of
single numbers and comparisons (evaluation/stats.py), which stand on these.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onepolicy.run.metrics import Series

Array = NDArray[np.float64]
RESAMPLES = 2000
_CHUNK = 1 << 22


def iqm(x: Array) -> Array:
    """The interquartile mean over the last axis: the mean of what remains when floor(n/4) values are cut at each end.

    Less moved by outliers than the mean, less wasteful than the median. n below 4 cuts nothing.
    Source: Agarwal et al. 2021 (arXiv 2108.13264), section 4.3, as in rliable (scipy's `trim_mean` at 0.25).

    >>> float(iqm(np.array([0.0, 1.0, 2.0, 100.0])))
    1.5
    """
    n = x.shape[-1]
    cut = n // 4
    return np.asarray(np.sort(x, axis=-1)[..., cut : n - cut].mean(axis=-1))


def iqm_band(
    values: Array, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[Array, Array, Array]:
    """The interquartile mean over seeds at each step, and the ends of its percentile bootstrap interval, [T] each.

    values [S, T], finite. A resample takes whole curves, S of them with replacement: the band at a step is that of the
    step alone, and neighbouring steps share their resamples, so that the band is as smooth as the curves.
    Source: Agarwal et al. 2021 (arXiv 2108.13264), sections 4.1 and 4.3.
    """
    seeds, steps = values.shape
    rows = np.random.default_rng(seed).integers(seeds, size=(resamples, seeds))
    width = max(1, _CHUNK // (resamples * seeds))
    tails = ((1 - level) / 2, (1 + level) / 2)
    ends = [
        np.quantile(iqm(values[:, start : start + width].T[:, rows]), tails, axis=1) for start in range(0, steps, width)
    ]
    low, high = np.concatenate(ends, axis=1)
    return iqm(values.T), low, high


def aligned(series: Sequence[Series]) -> tuple[Array, Array]:
    """Seeds' curves at the same steps: steps [T] and values [S, T]; T is 0 where they have nothing in common.

    The steps all of them have, where those are at least half of the shortest's. Otherwise (REINFORCE counts in whole
    episodes, which differ) the shortest's own steps within the range all of them cover, the others' values there by
    the straight line between their neighbours. Values that are not finite are left out first.
    """
    tables = [{s: v for s, v in zip(each.steps, each.values) if np.isfinite(v)} for each in series]
    shortest = min(tables, key=len)
    common = sorted(set.intersection(*(set(table) for table in tables)))
    if 2 * len(common) < len(shortest):
        first, last = max(min(table) for table in tables), min(max(table) for table in tables)
        common = [step for step in sorted(shortest) if first <= step <= last]
    values = [np.interp(common, sorted(table), [table[s] for s in sorted(table)]) for table in tables if table]
    return np.array(common, float), np.array(values).reshape(len(tables), -1)
