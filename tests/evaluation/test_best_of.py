"""Best of n against every choice of n samples."""

from __future__ import annotations

from itertools import combinations
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onepolicy.errors import DataError
from onepolicy.evaluation.best_of import best_of_n

samples = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1)), min_size=1, max_size=7)


def naive(scores, values, n):
    """The mean over all choices; among the equally good, each is taken equally often."""
    found = []
    for chosen in combinations(range(len(scores)), n):
        top = max(scores[i] for i in chosen)
        found.append(fmean(values[i] for i in chosen if scores[i] == top))
    return fmean(found)


@given(samples, st.data())
def test_equals_the_mean_over_all_choices(drawn, data):
    scores, values = [float(s) for s, _ in drawn], [float(v) for _, v in drawn]
    n = data.draw(st.integers(1, len(drawn)))
    assert best_of_n(scores, values, n) == pytest.approx(naive(scores, values, n))


def test_one_is_the_mean_and_all_is_the_best():
    assert best_of_n([3.0, 1.0, 2.0, 0.0], [1.0, 0.0, 0.0, 0.0], 1) == 0.25
    assert best_of_n([3.0, 1.0, 2.0, 0.0], [1.0, 0.0, 0.0, 0.0], 4) == 1.0
    assert best_of_n([3.0, 1.0, 2.0, 0.0], [1.0, 0.0, 0.0, 0.0], 2) == 0.5


def test_a_judge_who_knows_gives_pass_at_k():
    """Scores that are the truth: the best of n is right if any is, 1 - C(wrong, n) / C(N, n)."""
    assert best_of_n([1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], 2) == pytest.approx(1 - 3 / 6)


@pytest.mark.parametrize(("scores", "values", "n"), [([1.0], [1.0], 2), ([1.0], [1.0], 0), ([1.0], [], 1)])
def test_what_cannot_be(scores, values, n):
    with pytest.raises(DataError, match="best of"):
        best_of_n(scores, values, n)
