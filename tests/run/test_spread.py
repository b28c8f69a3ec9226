"""What several seeds say together, and on which steps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onepolicy.run.metrics import Series
from onepolicy.run.spread import aligned, iqm, iqm_band


def test_a_fourth_of_the_seeds_is_cut_at_each_end():
    """floor(8 / 4) = 2 are cut at each end: (3 + 4 + 5 + 6) / 4."""
    values = np.array([8.0, 1.0, 1000.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert iqm(values) == 4.5


def test_the_band_of_two_values_is_that_of_their_binomial():
    """Seeds 0 and 1: a resample's mean is 0, 1/2, 1 with probability 1/4, 1/2, 1/4; tails of 30 % end at 1/2."""
    middle, low, high = iqm_band(np.array([[0.0, 3.0], [1.0, 3.0]]), level=0.4)
    assert (middle.tolist(), low.tolist(), high.tolist()) == ([0.5, 3.0], [0.5, 3.0], [0.5, 3.0])
    _, low, high = iqm_band(np.array([[0.0], [1.0]]), level=0.95)
    assert (low.tolist(), high.tolist()) == ([0.0], [1.0])


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=9), st.floats(0.1, 10), st.floats(-50, 50))
def test_the_band_moves_with_the_scores(scores, stretch, shift):
    values = np.array(scores)[:, None]
    plain = np.array(iqm_band(values, resamples=50))
    moved = np.array(iqm_band(stretch * values + shift, resamples=50))
    np.testing.assert_allclose(moved, stretch * plain + shift, atol=1e-9)
    assert (plain[1] <= plain[2]).all()


def test_the_band_in_parts_is_the_band_as_a_whole(monkeypatch):
    values = np.random.default_rng(0).normal(size=(5, 7))
    whole = iqm_band(values, resamples=40)
    monkeypatch.setattr("onepolicy.run.spread._CHUNK", 400)
    np.testing.assert_array_equal(whole, iqm_band(values, resamples=40))


def test_the_band_covers_the_truth_about_as_often_as_it_says():
    """Of 200 samples of 10 standard normals, the 95 % band of the percentile bootstrap holds the mean in 88 to 97 %."""
    rng = np.random.default_rng(1)
    values = rng.normal(size=(10, 200))
    _, low, high = iqm_band(values)
    assert 0.86 <= float(((low < 0) & (high > 0)).mean()) <= 0.98


@pytest.mark.parametrize(
    ("series", "steps", "values"),
    [
        ([Series([1, 2, 3], [1, 2, 3]), Series([2, 3], [5, 6])], [2, 3], [[2, 3], [5, 6]]),
        ([Series([0, 10], [0, 10]), Series([1, 4, 9], [1, 4, 9])], [], [[], []]),
        ([Series([0, 5, 10], [0, 5, 10]), Series([1, 4, 9, 12], [2, 8, 18, 24])], [5, 10], [[5, 10], [10, 20]]),
        ([Series([1, 2], [1, float("nan")]), Series([1, 2], [3, 4])], [1], [[1], [3]]),
    ],
)
def test_curves_meet_at_shared_steps_or_on_straight_lines(series, steps, values):
    found = aligned(series)
    assert (found[0].tolist(), found[1].tolist()) == (steps, values)
