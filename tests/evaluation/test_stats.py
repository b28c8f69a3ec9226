"""Intervals and estimators against hand numbers, enumeration and coverage."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from onepolicy.errors import DataError
from onepolicy.evaluation.stats import (
    bca_interval,
    bootstrap_interval,
    iqm,
    maj_at_k,
    mean,
    paired_difference,
    pass_at_k,
    stratified_interval,
    wilson_interval,
)


def test_pass_at_k_by_hand():
    """n=4, c=1: two samples contain the right one in C(3,1)/C(4,2) = 3/6 cases; c=3: they always do."""
    assert pass_at_k(4, [0, 1, 2, 3, 4], 2).tolist() == pytest.approx([0, 3 / 6, 5 / 6, 1, 1])
    assert pass_at_k(4, 1, 1) == pytest.approx(0.25)
    assert pass_at_k(4, 1, 4) == pytest.approx(1.0)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(case):
    n, c, k = case
    subsets = list(combinations(range(n), k))
    expected = sum(any(i < c for i in subset) for subset in subsets) / len(subsets)
    assert pass_at_k(n, c, k) == pytest.approx(expected, abs=1e-12)


def test_pass_at_k_is_unbiased():
    """Samples are right with probability 0.3, so pass@4 is 1 - 0.7^4 = 0.7599 whatever n it is estimated from."""
    correct = np.random.default_rng(0).binomial(10, 0.3, size=200_000)
    assert pass_at_k(10, correct, 4).mean() == pytest.approx(1 - 0.7**4, abs=2e-3)
    naive = (1 - (1 - correct / 10) ** 4).mean()
    assert abs(naive - (1 - 0.7**4)) > 0.01


@pytest.mark.parametrize(("n", "correct", "k"), [(4, 2, 5), (4, 2, 0), (4, 5, 2), (4, -1, 2)])
def test_pass_at_k_refuses_what_has_no_meaning(n, correct, k):
    with pytest.raises(DataError):
        pass_at_k(n, correct, k)


def test_majority_by_hand():
    """Votes of 4: 7 twice (right), 8 once, one without answer. In blocks of 2: {7,8} ties (1/2), {7,None} is right."""
    answers, correct = ["7", "8", "7", None], [True, False, True, False]
    assert maj_at_k(answers, correct, 4) == 1.0
    assert maj_at_k(answers, correct, 2) == 0.75
    assert maj_at_k(answers, correct, 1) == 0.5
    assert maj_at_k(answers, correct, 3) == 1.0


def test_right_answers_vote_as_one_and_silence_is_wrong():
    assert maj_at_k(["1+2", "2+1", "9", "9"], [True, True, False, False], 4) == 0.5
    assert maj_at_k([None, None], [False, False], 2) == 0.0
    with pytest.raises(DataError):
        maj_at_k(["1"], [True], 2)


def test_wilson_by_hand():
    """8 of 10 at 95 %: z = 1.96 gives 0.490 to 0.943 (Brown, Cai and DasGupta's form)."""
    interval = wilson_interval(8, 10)
    assert (interval.value, round(interval.low, 3), round(interval.high, 3)) == (0.8, 0.490, 0.943)
    expected = scipy_stats.binomtest(37, 120).proportion_ci(method="wilson")
    found = wilson_interval(37, 120)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert wilson_interval(10, 10).high == pytest.approx(1.0)
    assert 0.6 < wilson_interval(10, 10).low < 0.8


def test_iqm_cuts_a_quarter_at_each_end():
    assert float(iqm(np.array([9.0, 1, 2, 3, 4, 5, 6, 100]))) == pytest.approx((3 + 4 + 5 + 6) / 4)
    x = np.random.default_rng(1).normal(size=(5, 21))
    assert iqm(x) == pytest.approx(scipy_stats.trim_mean(x, 0.25, axis=-1))


@pytest.mark.parametrize("interval", [bootstrap_interval, bca_interval])
def test_intervals_agree_with_scipy_and_with_the_normal_limit(interval):
    x = np.random.default_rng(2).exponential(size=400)
    found = interval(x, resamples=4000)
    method = "BCa" if interval is bca_interval else "percentile"
    expected = scipy_stats.bootstrap(
        (x,), np.mean, method=method, n_resamples=4000, rng=np.random.default_rng(3)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.02)
    half = 1.96 * x.std() / 20
    assert found.high - found.low == pytest.approx(2 * half, rel=0.1)


def test_bca_covers_a_skewed_mean_better_than_percentile():
    """Lognormal, n = 20: both fall short of 95 %, the corrected interval less."""
    rng = np.random.default_rng(4)
    truth, hits = np.exp(0.5), {bootstrap_interval: 0, bca_interval: 0}
    for trial in range(300):
        x = rng.lognormal(size=20)
        for method in hits:
            found = method(x, resamples=500, seed=trial)
            hits[method] += found.low <= truth <= found.high
    assert 0.75 < hits[bootstrap_interval] / 300 < hits[bca_interval] / 300 <= 0.97


def test_bootstrap_covers_a_proportion_as_often_as_it_says():
    rng = np.random.default_rng(5)
    covered = 0
    for trial in range(300):
        found = bootstrap_interval(rng.random(150) < 0.7, resamples=400, seed=trial)
        covered += found.low <= 0.7 <= found.high
    assert 0.90 <= covered / 300 <= 0.99


def test_the_seed_decides_and_the_estimate_does_not_depend_on_it():
    x = np.random.default_rng(6).random(50)
    assert bootstrap_interval(x, seed=1) == bootstrap_interval(x, seed=1)
    assert bootstrap_interval(x, seed=1) != bootstrap_interval(x, seed=2)
    assert bootstrap_interval(x, seed=1).value == bootstrap_interval(x, seed=2).value == mean(x)


def test_chunks_do_not_change_the_draws(monkeypatch):
    from onepolicy.evaluation import stats

    x = np.random.default_rng(7).random(64)
    whole = bootstrap_interval(x, iqm), bca_interval(x, iqm)
    monkeypatch.setattr(stats, "_CHUNK", 640)
    assert (bootstrap_interval(x, iqm), bca_interval(x, iqm)) == whole


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-10, 10), min_size=2, max_size=20), st.floats(-5, 5), st.floats(0.1, 4))
def test_an_interval_moves_and_scales_with_its_data(values, shift, scale):
    x = np.array(values)
    base = bootstrap_interval(x, resamples=100)
    moved = bootstrap_interval(scale * x + shift, resamples=100)
    expected = [scale * v + shift for v in (base.value, base.low, base.high)]
    assert [moved.value, moved.low, moved.high] == pytest.approx(expected, abs=1e-9)


def test_pairing_narrows_the_difference():
    """b = a - 0.1 on every problem: the paired difference has no spread at all, though a itself varies."""
    a = np.random.default_rng(8).random(100)
    found = paired_difference(a, a - 0.1)
    assert (found.low, found.value, found.high) == pytest.approx((0.1, 0.1, 0.1))
    assert bootstrap_interval(a).high - bootstrap_interval(a).low > 0.05
    with pytest.raises(DataError, match="same problems"):
        paired_difference([1, 2], [1])


def test_stratified_resampling_ignores_the_spread_between_tasks():
    """Tasks at 0, 50 and 100, hardly any spread over seeds: the stratified interval is tiny, a pooled one is not."""
    noise = np.random.default_rng(9).normal(scale=0.01, size=(10, 3))
    scores = noise + np.array([0.0, 50.0, 100.0])
    found = stratified_interval(scores, mean)
    pooled = bootstrap_interval(scores.reshape(-1))
    assert found.value == pytest.approx(50, abs=0.1)
    assert found.high - found.low < 0.02 < 10 < pooled.high - pooled.low
    with pytest.raises(DataError, match="seeds, tasks"):
        stratified_interval([1.0, 2.0])


@pytest.mark.parametrize("x", [[], [1.0, float("nan")], [float("inf")]])
def test_nothing_to_measure_is_an_error(x):
    with pytest.raises(DataError):
        bootstrap_interval(x)


def test_a_single_value_has_an_interval_without_width():
    assert bca_interval([2.0]) == bootstrap_interval([2.0])
    assert bca_interval([1.0, 1.0, 1.0]).high == 1.0
    with pytest.raises(DataError, match="level"):
        bootstrap_interval([1.0], level=95)
