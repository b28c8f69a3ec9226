"""The report on pairs: by hand, calibrated by construction, intervals by rankings."""

from __future__ import annotations

import math

import numpy as np
import pytest

from onepolicy.errors import DataError
from onepolicy.evaluation.preferences import pair_report


def test_four_pairs_by_hand():
    """Leads 2, -1, 0, 0.5: right 1, 0, 1/2, 1. Loss: mean of log(1 + e^-lead)."""
    found = pair_report([2.0, -1.0, 0.0, 0.5], [0, 0, 1, 1], [1, 2, 1, 1])
    assert found.accuracy.value == pytest.approx(2.5 / 4)
    assert (found.accuracy.low, found.accuracy.high) == (0.5, 0.75)  # the two rankings have 1/2 and 3/4
    assert found.loss == pytest.approx(sum(math.log1p(math.exp(-x)) for x in (2.0, -1.0, 0.0, 0.5)) / 4)
    assert found.by_gap == ((1.0, 1.0, 3, pytest.approx(2.5 / 3)), (2.0, 2.0, 1, 0.0))
    assert sum(one.pairs for one in found.calibration) == 4
    assert "62.5 %" in found.table()
    assert found.metrics()["eval/pair_accuracy"] == found.accuracy.value


def test_who_says_the_true_probability_is_calibrated_and_an_overconfident_one_is_not():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=40_000) * 2
    lead = np.where(rng.random(40_000) < 1 / (1 + np.exp(-truth)), truth, -truth)
    groups = np.arange(40_000)
    assert pair_report(lead, groups, np.ones(40_000), resamples=10).error < 0.01
    assert pair_report(4 * lead, groups, np.ones(40_000), resamples=10).error > 0.1


def test_pairs_of_one_ranking_move_together():
    """50 rankings of 20 pairs, all right or all wrong: the interval is that of 50 coins, not of 1,000."""
    right = np.repeat(np.random.default_rng(1).random(50) < 0.5, 20)
    found = pair_report(np.where(right, 1.0, -1.0), np.repeat(np.arange(50), 20), np.ones(1000))
    assert found.accuracy.high - found.accuracy.low == pytest.approx(2 * 1.96 * 0.5 / 50**0.5, rel=0.15)


def test_nothing_or_nan_is_refused():
    with pytest.raises(DataError, match="no held-out pair"):
        pair_report([], [], [])
    with pytest.raises(DataError, match="1 of 2 scores"):
        pair_report([1.0, float("nan")], [0, 1], [1, 1])
