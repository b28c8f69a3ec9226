"""Monte Carlo and importance sampling on samples: worked numbers, intervals that cover, properties, bad input."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.errors import ConfigError, DataError
from onepolicy.tabular.estimation import (
    bootstrap,
    covered,
    effective_sample_size,
    importance_sampling,
    log_ratio,
    log_weights,
    monte_carlo,
    tail_index,
    weighted_importance_sampling,
)

DIE_Q = [Fraction(1, 12)] * 3 + [Fraction(1, 4)] * 3
"""A loaded die as the proposal for a fair one: 1/12 on 1 to 3, 1/4 on 4 to 6."""


def test_the_die_by_hand():
    """P(x >= 4) of a fair die from rolls of the loaded one in their exact proportions (1 to 3 once each, 4 to 6 three
    times each): each weight on 4 to 6 is (1/6)/(1/4) = 2/3, so the mean is 3 * (2/3) * (1/4) = 1/2."""
    faces = np.repeat(np.arange(1, 7), [int(12 * q) for q in DIE_Q])
    logs = log_ratio(np.full(12, 1 / 6), [float(DIE_Q[face - 1]) for face in faces])
    assert np.exp(logs[faces >= 4]) == pytest.approx(2 / 3)
    event = (faces >= 4).astype(float)
    assert importance_sampling(event, logs).value == pytest.approx(0.5, rel=1e-12)
    assert weighted_importance_sampling(event, logs).value == pytest.approx(0.5, rel=1e-12)
    assert effective_sample_size(logs) == pytest.approx(12**2 / (3 * 4 + 9 * 4 / 9))
    exact = sum(q * (Fraction(1, 6) / q) ** 2 for q in DIE_Q[3:]) - Fraction(1, 4)
    assert 12 * 11 / 12 * importance_sampling(event, logs).error ** 2 == pytest.approx(float(exact))


def test_the_die_rolled():
    """20,000 rolls of either die: both estimate 1/2; the loaded die with two thirds of the standard error or less."""
    rng = np.random.default_rng(0)
    fair = monte_carlo((rng.integers(1, 7, 20_000) >= 4).astype(float))
    faces = rng.choice(6, size=20_000, p=[float(q) for q in DIE_Q]) + 1
    logs = log_ratio(np.full(20_000, 1 / 6), np.array([float(q) for q in DIE_Q])[faces - 1])
    loaded = importance_sampling((faces >= 4).astype(float), logs)
    for estimate in (fair, loaded):
        assert abs(estimate.value - 0.5) < 3 * estimate.error
    assert loaded.error / fair.error == pytest.approx(math.sqrt(1 / 12) / 0.5, rel=0.03)


def test_monte_carlo_by_hand():
    """1, 2, 3, 6: mean 3, variance (4 + 1 + 0 + 9) / 3, standard error its root over 2, and 1.96 of it to each side."""
    estimate = monte_carlo([1.0, 2.0, 3.0, 6.0])
    error = math.sqrt(14 / 3) / 2
    assert (estimate.value, estimate.error, estimate.n, estimate.effective) == pytest.approx((3.0, error, 4, 4.0))
    assert (estimate.low, estimate.high) == pytest.approx((3 - 1.959964 * error, 3 + 1.959964 * error))
    assert str(estimate).startswith("3 [")


def test_one_sample_says_nothing_of_its_error():
    for interval in (bootstrap(), None):
        estimate = monte_carlo([2.0]) if interval is None else monte_carlo([2.0], interval=interval)
        assert (estimate.value, estimate.error, estimate.low, estimate.high) == (2.0, math.inf, -math.inf, math.inf)


def test_weighted_standard_error_is_the_linearised_one():
    """sqrt(sum w^2 (x - mean)^2) / sum w, with n / (n - 1) for the sample variance (Owen 2013, equation 9.8)."""
    rng = np.random.default_rng(1)
    x, logs = rng.normal(size=50), rng.normal(size=50)
    estimate, w = weighted_importance_sampling(x, logs), np.exp(logs)
    mean = (w * x).sum() / w.sum()
    assert estimate.value == pytest.approx(mean, rel=1e-12)
    error = math.sqrt((w**2 * (x - mean) ** 2).sum()) / w.sum() * math.sqrt(50 / 49)
    assert estimate.error == pytest.approx(error, rel=1e-12)


@pytest.mark.parametrize("estimator", [importance_sampling, weighted_importance_sampling])
def test_intervals_cover(estimator):
    """E[x^2] = 1 of N(0, 1) from N(0, 1.5^2): 95 % intervals hold it in about 95 of 100 cases, bootstrap and normal."""
    rng, hits = np.random.default_rng(2), {"normal": 0, "bootstrap": 0}
    for repeat in range(300):
        x = 1.5 * rng.normal(size=200)
        logs = math.log(1.5) - 0.5 * x**2 + 0.5 * (x / 1.5) ** 2
        plain = estimator(x**2, logs)
        hits["normal"] += plain.low <= 1.0 <= plain.high
        if repeat < 100:
            resampled = estimator(x**2, logs, interval=bootstrap(resamples=200, seed=repeat))
            hits["bootstrap"] += resampled.low <= 1.0 <= resampled.high
            assert (plain.value, plain.error) == (resampled.value, resampled.error)
    assert 0.91 < hits["normal"] / 300 < 0.985
    assert 0.86 < hits["bootstrap"] / 100 < 1.0


def test_bootstrap_resamples_samples_whole():
    """Every resample of a constant has the constant's value, whatever its weights; and wider levels are wider."""
    logs = np.random.default_rng(3).normal(size=30)
    constant = weighted_importance_sampling(np.full(30, 7.0), logs, interval=bootstrap(resamples=100))
    assert (constant.low, constant.high) == pytest.approx((7.0, 7.0))
    x = np.random.default_rng(4).normal(size=30)
    narrow = weighted_importance_sampling(x, logs, interval=bootstrap(), level=0.5)
    wide = weighted_importance_sampling(x, logs, interval=bootstrap(), level=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


numbers = st.floats(-100, 100)
samples = st.lists(st.tuples(numbers, st.floats(-20, 20)), min_size=2, max_size=30).map(np.array)


@settings(max_examples=100, deadline=None)
@given(samples, st.floats(-300, 300))
def test_self_normalised_estimates(data, shift):
    """They stay in the range of x, do not see a constant factor of the weights, and 1 <= effective size <= n."""
    x, logs = data.T
    estimate = weighted_importance_sampling(x, logs)
    assert x.min() - 1e-9 <= estimate.value <= x.max() + 1e-9
    assert weighted_importance_sampling(x, logs + shift).value == pytest.approx(estimate.value, abs=1e-9)
    assert 1 - 1e-12 <= estimate.effective <= len(x) * (1 + 1e-12)
    assert effective_sample_size(logs + shift) == pytest.approx(estimate.effective, rel=1e-9)


@settings(max_examples=50, deadline=None)
@given(st.lists(numbers, min_size=2, max_size=30))
def test_equal_distributions_need_no_weights(x):
    """With log-ratio 0 both are Monte Carlo, to the interval."""
    plain, zero = monte_carlo(x), np.zeros(len(x))
    for estimator in (importance_sampling, weighted_importance_sampling):
        estimate = estimator(x, zero)
        for field in ("value", "error", "low", "high", "effective"):
            assert getattr(estimate, field) == pytest.approx(getattr(plain, field), abs=1e-9)


@pytest.mark.parametrize("shape", [0.2, 0.6, 0.9])
def test_tail_index_of_pareto_weights(shape):
    """Weights U^-k have tail index k: below 0.5 a finite variance, above 0.7 no trust."""
    logs = -shape * np.log(np.random.default_rng(5).random(50_000))
    assert tail_index(logs) == pytest.approx(shape, abs=0.12)
    assert tail_index(np.zeros(100)) == -math.inf


def test_weights_of_0():
    """Where the target never does it the weight is 0: it counts in n and in the plain mean, not in the weighted one."""
    logs = log_weights([0.0, 2.0, 0.0, 2.0])
    assert importance_sampling([5.0, 1.0, 5.0, 3.0], logs).value == 2.0
    assert weighted_importance_sampling([5.0, 1.0, 5.0, 3.0], logs).value == 2.0
    assert effective_sample_size(logs) == 2.0
    assert effective_sample_size([-math.inf, -math.inf]) == 0.0
    assert importance_sampling([1.0, 2.0], [-math.inf, -math.inf]).value == 0.0


def test_coverage_of_a_table():
    covered([[1.0, 0.0], [0.5, 0.5]], [[0.5, 0.5], [0.9, 0.1]])
    with pytest.raises(DataError, match=r"takes action 1 in state 0 with probability 0.25 and behaviour never"):
        covered([[0.75, 0.25]], [[1.0, 0.0]])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: monte_carlo([]), "at least one number"),
        (lambda: monte_carlo([[1.0]]), "1 dimension"),
        (lambda: monte_carlo([1.0, math.nan]), r"x is nan at \(1,\)"),
        (lambda: monte_carlo([1.0], level=1.0), "level is 1.0"),
        (lambda: monte_carlo([1.0, 2.0], interval=bootstrap(resamples=1)), "resamples is 1"),
        (lambda: importance_sampling([1.0, 2.0], [0.0]), r"log_ratio has shape \(1,\), the data \(2,\)"),
        (lambda: importance_sampling([1.0], [math.nan]), "log_ratio is nan"),
        (lambda: importance_sampling([1.0], [math.inf]), "log_ratio is inf"),
        (lambda: importance_sampling([1.0], [800.0]), "no ratio in float64"),
        (lambda: weighted_importance_sampling([1.0, 2.0], [-math.inf, -math.inf]), "all weights are 0"),
        (lambda: effective_sample_size([]), "at least one"),
        (lambda: tail_index(np.zeros(10)), "at least 25"),
        (lambda: log_weights([0.5, -0.1]), r"ratio is -0.1 at \(1,\); it cannot be negative"),
        (lambda: log_weights([math.nan]), "ratio is nan"),
        (lambda: log_ratio([0.5], [0.0]), r"behaviour is 0 at \(0,\), where target is 0.5"),
        (lambda: log_ratio([0.0], [0.0]), "behaviour is 0"),
        (lambda: log_ratio([-0.5], [0.5]), "target is -0.5"),
        (lambda: log_ratio([0.5, 0.5], [0.5]), "must be equal"),
        (lambda: covered([[1.0]], [[0.5, 0.5]]), "must be equal"),
    ],
)
def test_data_that_cannot_be_used(wrong, words):
    with pytest.raises((DataError, ConfigError), match=words):
        wrong()
