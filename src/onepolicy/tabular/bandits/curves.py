"""What playing a bandit many times gives: reward, share of optimal pulls, regret, each with an interval over runs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from onepolicy.errors import ConfigError, DataError
from onepolicy.tabular.bandits.random import Floats, Ints


@final
@dataclass(frozen=True, eq=False)
class Band:
    """A mean over runs with its standard error and interval, each [P]: one for every recorded step."""

    mean: Floats
    error: Floats
    low: Floats
    high: Floats


@final
@dataclass(frozen=True, eq=False)
class Curves:
    """R runs of one agent, recorded at P steps.

    step [P]: steps played, every, 2 every, .... reward_sum [R, P]: rewards so far. regret_sum [R, P]: pseudo-regret so
    far, the sum of the gaps between the best mean and that of the arm pulled; optimal_sum [R, P]: pulls so far of an
    arm with the best mean. Both None where means are not known. lai_robbins: the constant of the least regret, or None.
    """

    step: Ints
    reward_sum: Floats
    regret_sum: Floats | None
    optimal_sum: NDArray[np.int32] | None
    lai_robbins: float | None = None

    def reward(self, level: float = 0.95) -> Band:
        """The mean reward of a step (of the steps since the last recorded one)."""
        return _band(self._per_step(self.reward_sum), level)

    def optimal(self, level: float = 0.95) -> Band:
        """The share of pulls, since the last recorded step, that were of an optimal arm, in [0, 1]."""
        return _band(self._per_step(_known(self.optimal_sum)), level)

    def regret(self, level: float = 0.95) -> Band:
        """The cumulative pseudo-regret."""
        return _band(_known(self.regret_sum), level)

    def regret_quantiles(self, *share: float) -> Floats:
        """Quantiles over runs of the cumulative pseudo-regret, [len(share), P]: regret has a heavy tail."""
        return np.asarray(np.quantile(_known(self.regret_sum), share, axis=0))

    def regret_bound(self) -> Floats:
        """The Lai-Robbins line C log t, [P]: what no consistent agent stays below as t grows.

        Raises: ConfigError where the bandit has none.
        """
        if self.lai_robbins is None:
            raise ConfigError("this bandit has no Lai-Robbins line; see `lai_robbins`, which says which ones have.")
        return self.lai_robbins * np.log(self.step)

    def reward_between(self, first: int, last: int, level: float = 0.95) -> Band:
        """The mean reward of steps first .. last (from 1, both counted), each field a number [1]."""
        return self._between(self.reward_sum, first, last, level)

    def optimal_between(self, first: int, last: int, level: float = 0.95) -> Band:
        """The share of optimal pulls in steps first .. last, each field a number [1]."""
        return self._between(_known(self.optimal_sum), first, last, level)

    def _per_step(self, total: Floats) -> Floats:
        return np.diff(total, axis=1, prepend=0.0) / np.diff(self.step, prepend=0)

    def _between(self, total: Floats, first: int, last: int, level: float) -> Band:
        """Raises: ConfigError for steps that were not recorded."""
        recorded = (first == 1 or first - 1 in self.step) and last in self.step
        if not 1 <= first <= last or not recorded:
            raise ConfigError(
                f"steps {first} to {last} of {self.step[-1]}, recorded every {self.step[0]}; begin after and end at a "
                "recorded step, or run with every=1."
            )
        before, end = np.searchsorted(self.step, (first - 1, last))
        start = total[:, before] if first > 1 else np.zeros(len(total))
        return _band(((total[:, end] - start) / (last - first + 1))[:, None], level)


def _known(total: NDArray[np.float64] | NDArray[np.int32] | None) -> Floats:
    if total is None:
        raise DataError(
            "the arms' true means are not known, so neither is regret. Give OwnArms its means; logs have none."
        )
    return np.asarray(total, dtype=np.float64)


def _band(value: Floats, level: float) -> Band:
    """Mean over the first axis, standard error, normal interval; one run has an infinite interval."""
    if not 0.0 < level < 1.0:
        raise ConfigError(f"level is {level}; an interval's level is between 0 and 1, such as 0.95.")
    runs, mean = len(value), value.mean(axis=0)
    error = value.std(axis=0, ddof=1) / math.sqrt(runs) if runs > 1 else np.full(mean.shape, np.inf)
    half = float(ndtri(0.5 + level / 2)) * error
    return Band(mean, error, mean - half, mean + half)
