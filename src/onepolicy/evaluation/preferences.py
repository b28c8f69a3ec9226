"""How well a reward model agrees with held-out preferences: accuracy, calibration, and both by margin.

Pairs of one ranking are not independent, so intervals resample rankings. Not here: the model (nn/scorer.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onepolicy.errors import DataError
from onepolicy.evaluation.stats import Interval
from onepolicy.run.seeding import derive_rng
from onepolicy.types import Metrics

BINS = 10
"""Of the calibration curve."""


@dataclass(frozen=True)
class CalibrationBin:
    """Pairs of which the model was about equally sure.

    said: mean of sigmoid(|lead|), the probability it gave its favourite. right: share of them that were. pairs: count.
    """

    said: float
    right: float
    pairs: int


@dataclass(frozen=True)
class PairReport:
    """Agreement of a reward model with held-out preferences.

    accuracy: share of pairs whose better answer scores higher, an equal score counts half; 95 % by rankings. loss: mean
    -log sigmoid(lead), nats. calibration: by how sure it was. error: mean |said - right| over pairs (ECE). by_gap:
    (least, most difference in rank, pairs, accuracy). by_lead: likewise by |lead|, quarters of the pairs.
    """

    accuracy: Interval
    loss: float
    rankings: int
    pairs: int
    calibration: tuple[CalibrationBin, ...]
    error: float
    by_gap: tuple[tuple[float, float, int, float], ...]
    by_lead: tuple[tuple[float, float, int, float], ...]

    def metrics(self) -> Metrics:
        """The report's numbers for a run's log."""
        return {
            "eval/pair_accuracy": self.accuracy.value,
            "eval/pair_accuracy_low": self.accuracy.low,
            "eval/pair_accuracy_high": self.accuracy.high,
            "eval/pair_loss": self.loss,
            "eval/calibration_error": self.error,
        }

    def table(self) -> str:
        """The report for people."""
        lines = [
            f"pair accuracy      {self.accuracy.percent()}   ({self.pairs} pairs of {self.rankings} rankings)",
            f"loss               {self.loss:.4f} nats (log 2 = 0.6931 knows nothing)",
            f"calibration error  {self.error:.3f}",
            "said   right   pairs",
            *(f"{one.said:>5.2f}  {one.right:>5.2f}  {one.pairs:>6}" for one in self.calibration),
        ]
        for title, rows in (("difference of ranks", self.by_gap), ("|difference of scores|", self.by_lead)):
            lines.append(f"{title:<24} pairs  accuracy")
            lines += [
                f"{low:>9.2f} to {high:<11.2f} {pairs:>6}  {100 * right:.1f} %" for low, high, pairs, right in rows
            ]
        return "\n".join(lines)


def pair_report(lead: ArrayLike, ranking: ArrayLike, gap: ArrayLike, *, resamples: int = 2000) -> PairReport:
    """The report on N pairs.

    lead [N]: score of the better answer less that of the worse. ranking [N]: which ranking each pair is of.
    gap [N]: the difference of their ranks, at least 0.
    Raises: DataError for no pair or a score that is not finite.
    """
    leads, groups, gaps = np.asarray(lead, float), np.asarray(ranking), np.asarray(gap, float)
    if not len(leads):
        raise DataError("there is no held-out pair; give eval_data with at least one ranking that is not all ties.")
    if not np.isfinite(leads).all():
        raise DataError(
            f"{int((~np.isfinite(leads)).sum())} of {len(leads)} scores are not finite; the model is broken."
        )
    right = np.where(leads == 0, 0.5, leads > 0)
    sure = 1.0 / (1.0 + np.exp(-np.abs(leads)))
    bins = _calibration(sure, right)
    return PairReport(
        accuracy=_by_group(right, groups, resamples),
        loss=float(np.logaddexp(0.0, -leads).mean()),
        rankings=len(np.unique(groups)),
        pairs=len(leads),
        calibration=bins,
        error=sum(one.pairs * abs(one.said - one.right) for one in bins) / len(leads),
        by_gap=_parts(gaps, right, _edges(gaps)),
        by_lead=_parts(np.abs(leads), right, np.quantile(np.abs(leads), (0.25, 0.5, 0.75))),
    )


def _by_group(right: NDArray[np.float64], groups: NDArray[np.int64], resamples: int) -> Interval:
    """Mean over pairs, its interval by resampling whole groups."""
    _, place = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(place, right), np.bincount(place)
    drawn = derive_rng("pair-accuracy", len(sums)).integers(len(sums), size=(resamples, len(sums)))
    draws = sums[drawn].sum(-1) / counts[drawn].sum(-1)
    low, high = np.quantile(draws, (0.025, 0.975))
    return Interval(float(right.mean()), float(low), float(high))


def _calibration(sure: NDArray[np.float64], right: NDArray[np.float64]) -> tuple[CalibrationBin, ...]:
    """Equal steps of said probability from a half to one; empty ones left out."""
    place = np.minimum(((sure - 0.5) * 2 * BINS).astype(int), BINS - 1)
    return tuple(
        CalibrationBin(float(sure[place == b].mean()), float(right[place == b].mean()), int((place == b).sum()))
        for b in range(BINS)
        if (place == b).any()
    )


def _edges(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Between the values where there are few, else quartiles."""
    values = np.unique(x)
    return (values[1:] + values[:-1]) / 2 if len(values) <= 8 else np.quantile(x, (0.25, 0.5, 0.75))


def _parts(
    x: NDArray[np.float64], right: NDArray[np.float64], edges: NDArray[np.float64] | Sequence[float]
) -> tuple[tuple[float, float, int, float], ...]:
    place = np.searchsorted(np.asarray(edges), x, side="right")
    found = []
    for b in np.unique(place):
        chosen = place == b
        found.append((float(x[chosen].min()), float(x[chosen].max()), int(chosen.sum()), float(right[chosen].mean())))
    return tuple(found)
