"""pass^k and majorities against enumeration of all subsets."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onepolicy.errors import DataError
from onepolicy.evaluation.passk import most_voted, pass_hat_k
from onepolicy.evaluation.stats import pass_at_k


@given(st.integers(1, 7), st.data())
def test_both_are_the_mean_over_all_subsets(n, data):
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    right = [i < c for i in range(n)]
    subsets = list(combinations(right, k))
    assert pass_hat_k(n, c, k) == pytest.approx(np.mean([all(s) for s in subsets]))
    assert pass_at_k(n, c, k) == pytest.approx(np.mean([any(s) for s in subsets]))


def test_limits_and_stability():
    """k = 1 is the accuracy for both; one wrong of 1024 at k = 1024 is 0, at 512 a half."""
    assert pass_hat_k(10, 3, 1) == pytest.approx(0.3)
    assert pass_hat_k(1024, 1023, 1024) == 0.0
    assert pass_hat_k(1024, 1023, 512) == pytest.approx(0.5)
    assert np.isfinite(pass_hat_k(100_000, 50_000, 1000))


@pytest.mark.parametrize(("n", "c", "k"), [(4, 2, 0), (4, 2, 5), (4, 5, 2), (4, -1, 2)])
def test_what_has_no_estimate(n, c, k):
    with pytest.raises(DataError):
        pass_hat_k(n, c, k)


@pytest.mark.parametrize(
    ("answers", "right", "expected"),
    [
        (["1", "2", "2"], [False] * 3, ("2", 2)),
        (["0.5", "1/2", "3"], [True, True, False], ("0.5", 2)),
        (["3", "4"], [False, True], ("3", 1)),
        ([None, None, "5"], [False] * 3, ("5", 1)),
        ([None], [False], (None, 0)),
        ([], [], (None, 0)),
    ],
)
def test_the_most_voted_answer(answers, right, expected):
    assert most_voted(answers, right) == expected
