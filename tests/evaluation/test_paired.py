"""Paired comparisons against exact numbers, naive enumeration and scipy."""

from __future__ import annotations

from itertools import product
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from onepolicy.errors import DataError
from onepolicy.evaluation.paired import compare, holm, mcnemar, sign_permutation


def test_mcnemar_by_hand():
    """8 wins, 2 losses: 2 (C(10,0) + C(10,1) + C(10,2)) / 1024 = 112 / 1024."""
    assert mcnemar(8, 2) == pytest.approx(112 / 1024)
    assert mcnemar(2, 8) == mcnemar(8, 2)
    assert mcnemar(3, 3) == 1.0
    assert mcnemar(0, 0) == 1.0


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_exact_binomial_test(wins, losses):
    n = wins + losses
    expected = binomtest(wins, n, 0.5).pvalue if n else 1.0
    assert mcnemar(wins, losses) == pytest.approx(expected, rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=8))
def test_sign_permutation_is_the_naive_enumeration(differences):
    d = np.array(differences) / 8
    nonzero = [x for x in d if x]
    sums = [abs(sum(s * x for s, x in zip(signs, nonzero))) for signs in product((1, -1), repeat=len(nonzero))]
    expected = np.mean([s >= abs(sum(nonzero)) - 1e-12 for s in sums]) if nonzero else 1.0
    assert sign_permutation(d) == pytest.approx(expected)


def test_sign_permutation_of_equal_differences_is_mcnemar():
    """All differences +-1: both count signs."""
    d = [1.0] * 9 + [-1.0] * 3 + [0.0] * 5
    assert sign_permutation(d) == pytest.approx(mcnemar(9, 3))


def test_drawn_signs_come_close_to_the_exact_p():
    """20 differences of 1, 14 positive: 2 P(X <= 6), X ~ Binomial(20, 1/2) = 0.1153; 20,000 draws are within 0.01."""
    exact = 2 * sum(comb(20, i) for i in range(7)) / 2**20
    d = [1.0] * 14 + [-1.0] * 6
    assert sign_permutation(d) == pytest.approx(exact, abs=0.01)
    assert sign_permutation(d, seed=1) == sign_permutation(d, seed=1)


def test_p_is_uniform_when_there_is_no_difference():
    """1,000 pairs of fair coins on 40 problems: p <= 0.05 in at most 5 % of them, within 3 standard errors."""
    rng = np.random.default_rng(0)
    flips = rng.integers(2, size=(1000, 2, 40))
    p = [mcnemar(int((a > b).sum()), int((a < b).sum())) for a, b in flips]
    assert np.mean(np.array(p) <= 0.05) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 1000)


def test_compare_by_hand():
    """A right on 1, 2, 3 of four, B on 1 and 4: means 3/4 and 2/4, two wins, one loss, p = 1."""
    found = compare("set", {"1": 1, "2": 1, "3": 1, "4": 0}, {"1": 1, "2": 0, "3": 0, "4": 1})
    assert (found.a, found.b, found.difference.value) == (0.75, 0.5, 0.25)
    assert (found.problems, found.wins, found.losses, found.p) == (4, 2, 1, 1.0)
    assert found.test == "McNemar, exact"
    assert "better on 2 and worse on 1 of 4 problems, p = 1 (McNemar, exact)" in found.text()


def test_the_paired_interval_is_narrower_than_two_apart():
    """B is right wherever A is but for 5 of 200 problems: the difference is sure although both vary widely."""
    rng = np.random.default_rng(1)
    a = {str(i): float(rng.random() < 0.5) for i in range(200)}
    b = dict(a)
    for name in [name for name, right in a.items() if right][:12]:
        b[name] = 0.0
    found = compare("set", a, b)
    assert found.difference.low > 0.02
    assert found.difference.high - found.difference.low < 0.08
    assert found.p == pytest.approx(2 / 2**12)


def test_shares_are_tested_by_signs_and_what_is_not_judged_is_left_out():
    nan = float("nan")
    found = compare("avg@4", {"1": 0.75, "2": 0.5, "3": nan, "4": 1.0}, {"1": 0.5, "2": 0.25, "3": 1.0, "5": 1.0})
    assert (found.problems, found.left_out, found.test) == (2, 3, "sign permutation")
    assert found.p == 0.5
    assert "3 left out" in found.text()
    with pytest.raises(DataError, match="share no problem"):
        compare("x", {"1": 1.0}, {"2": 1.0})


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_against_its_definition(p):
    """The corrected p_i <= alpha exactly where the step-down procedure rejects at alpha."""
    found = holm(p)
    order = sorted(range(len(p)), key=lambda i: p[i])
    for alpha in (0.01, 0.05, 0.3):
        rejected = set()
        for rank, place in enumerate(order):
            if min(1.0, (len(p) - rank) * p[place]) > alpha:
                break
            rejected.add(place)
        assert {i for i, value in enumerate(found) if value <= alpha} == rejected
