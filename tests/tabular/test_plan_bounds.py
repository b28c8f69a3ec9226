"""The bounds against the truth over the rationals, and what else a certificate promises."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tabular.conftest import (
    Rational,
    actions_of,
    as_mdp,
    forest,
    random_rational,
    small,
    true_gain,
    true_optimum,
    true_q,
    true_value,
)

from onepolicy.tabular.build import from_grid
from onepolicy.tabular.layouts import with_layout
from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.planning import METHODS, plan
from onepolicy.tabular.planning.average_reward import relative_value_iteration
from onepolicy.tabular.planning.horizon import backward_induction
from onepolicy.tabular.planning.policy_value import evaluate
from onepolicy.tabular.planning.soft import soft_value_iteration

DISCOUNTS = [Fraction(0), Fraction(1, 2), Fraction(9, 10), Fraction(99, 100), Fraction(1)]
models = st.tuples(
    st.integers(0, 10**6), st.integers(2, 7), st.integers(1, 3), st.booleans(), st.sampled_from(DISCOUNTS)
)


def holds(lower: np.ndarray, truth: list[Fraction], upper: np.ndarray) -> bool:
    """lower <= truth <= upper, compared exactly."""
    return all(Fraction(float(x)) <= y <= Fraction(float(z)) for x, y, z in zip(lower, truth, upper, strict=True))


def certified(found, truth: list[Fraction], model: Rational, discount: Fraction) -> None:
    """The bounds hold the optimum, and the policy's own value is no lower than the lower one; both exactly."""
    assert holds(found.lower, truth, found.upper)
    policy = {s: int(found.policy[s]) for s in {s for s, _ in model}}
    own = true_value(model, len(truth), discount, policy)
    assert all(Fraction(float(x)) <= y for x, y in zip(found.lower, own, strict=True))


@settings(max_examples=40, deadline=None)
@given(models)
def test_every_planner_bounds_the_rational_truth(drawn):
    seed, states, actions, ending, discount = drawn
    ending = ending or discount == 1
    model = random_rational(seed, states, actions, ending=ending)
    truth, _ = true_optimum(model, states, discount)
    mdp = as_mdp(model, states)
    for method in METHODS:
        found = plan(mdp, float(discount), method, tolerance=1e-6)
        assert found.converged, (method, found)
        assert found.gap <= 2.001e-6, (method, found)
        certified(found, truth, model, discount)


@settings(max_examples=40, deadline=None)
@given(models, st.integers(1, 12))
def test_bounds_hold_when_a_limit_stops_it(drawn, sweeps):
    seed, states, actions, ending, discount = drawn
    ending = ending or discount == 1
    model = random_rational(seed, states, actions, ending=ending)
    truth, _ = true_optimum(model, states, discount)
    mdp = as_mdp(model, states)
    start = np.random.default_rng(seed).normal(size=states) * 100
    for method in METHODS:
        found = plan(mdp, float(discount), method, tolerance=1e-12, initial=start, max_sweeps=sweeps)
        assert found.reason != "converged" or found.gap <= 2.001e-12
        certified(found, truth, model, discount)


@settings(max_examples=30, deadline=None)
@given(models, st.sampled_from(["exact", "iterative"]))
def test_evaluations_bound_the_rational_truth(drawn, method):
    seed, states, actions, ending, discount = drawn
    ending = ending or discount == 1
    model = random_rational(seed, states, actions, ending=ending)
    policy = {s: actions_of(model, s)[-1] for s, _ in model}
    truth = true_value(model, states, discount, policy)
    chosen = np.array([policy.get(s, -1) for s in range(states)])
    found = evaluate(as_mdp(model, states), chosen, float(discount), method, tolerance=1e-8)
    assert found.converged
    assert holds(found.lower, truth, found.upper)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 6), st.integers(1, 3))
def test_the_gain_is_bounded_by_the_best_of_all_policies(seed, states, actions):
    """With a chance of going to state 0 from everywhere every policy has one recurrent class; all are tried."""
    model = random_rational(seed, states, actions, ending=False)
    for row in model.values():
        weight = Fraction(1, 7)
        for t in row:
            row[t] = (row[t][0] * (1 - weight), row[t][1])
        p, r = row.get(0, (Fraction(0), Fraction(0)))
        row[0] = (p + weight, r)
    choices = [actions_of(model, s) for s in range(states)]
    best = max(true_gain(model, states, dict(enumerate(each))) for each in product(*choices))
    found = relative_value_iteration(as_mdp(model, states), tolerance=1e-7)
    assert found.converged
    assert holds(found.lower[:1], [best], found.upper[:1])
    own = true_gain(model, states, dict(enumerate(found.policy.tolist())))
    assert Fraction(float(found.lower[0])) <= own


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 6), st.integers(1, 3), st.booleans(), st.integers(1, 6))
def test_finite_horizons_are_the_rational_recursion(seed, states, actions, ending, horizon):
    model = random_rational(seed, states, actions, ending=ending)
    found = backward_induction(as_mdp(model, states), horizon, discount=0.75)
    v = [Fraction(0)] * states
    for t in range(horizon - 1, -1, -1):
        v = [
            max((true_q(model, v, Fraction(3, 4), s, a) for a in actions_of(model, s)), default=Fraction(0))
            for s in range(states)
        ]
        assert holds(found.lower[t], v, found.upper[t])
    assert found.gap < 1e-12


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.1, 1.0, 5.0]))
def test_soft_bounds_hold_the_converged_value(seed, temperature):
    model = random_rational(seed, 5, 3, ending=bool(seed % 2))
    mdp = as_mdp(model, 5)
    exact = soft_value_iteration(mdp, 0.9, temperature, tolerance=1e-11).value
    early = soft_value_iteration(mdp, 0.9, temperature, tolerance=1e-11, max_sweeps=1 + seed % 9)
    assert (early.lower <= exact + 1e-11).all()
    assert (exact <= early.upper + 1e-11).all()
    assert not early.converged or early.gap <= 2.001e-11


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["padded", "rows"]))
def test_single_precision_is_bounded_as_stored(seed, layout):
    """The truth of float32 probabilities is that of the numbers as stored; float64 differs from it."""
    model = random_rational(seed, 6, 3, ending=bool(seed % 2))
    stored = with_layout(as_mdp(model, 6), layout, dtype=np.float32)
    csr = stored.csr()
    exact: Rational = {}
    for s in range(6):
        for a in range(stored.num_actions(s)):
            k = csr.row_ptr[s] + a
            span = range(csr.ptr[k], csr.ptr[k + 1])
            r = Fraction(float(csr.rewards[k]))
            exact[s, a] = {int(csr.successors[i]): (Fraction(float(csr.probabilities[i])), Fraction(0)) for i in span}
            total = sum(p for p, _ in exact[s, a].values())
            exact[s, a] = {t: (p, r / total) for t, (p, _) in exact[s, a].items()}
    truth, _ = true_optimum(exact, 6, Fraction(9, 10))
    found = plan(stored, 0.9, "value-iteration", tolerance=1e-9)
    assert found.converged
    assert holds(found.lower, truth, found.upper)


def test_warm_start_takes_fewer_sweeps():
    first = plan(small(), 0.99, "value-iteration", tolerance=1e-8)
    again = plan(small(), 0.99, "value-iteration", tolerance=1e-8, initial=first.value)
    assert again.sweeps <= 2 < first.sweeps


def test_span_stop_beats_the_norm():
    """Stopping when no value changes by more than (1 - discount) tolerance takes far over a hundred sweeps."""
    found = plan(small(), 0.99, "value-iteration", tolerance=1e-3)
    v, sweeps, change = np.zeros(2), 0, np.inf
    transition, reward = np.array([[[0.5, 0.5], [0, 1]], [[0.8, 0.2], [0.1, 0.9]]]), np.array([[5.0, 10], [-1, 2]])
    while change > 1e-3 * 0.01:
        new = (reward + 0.99 * transition @ v).max(axis=1)
        v, change, sweeps = new, np.abs(new - v).max(), sweeps + 1
    assert found.converged
    assert 10 * found.sweeps < sweeps


def test_a_time_limit_is_kept_and_said():
    found = plan(forest(200), 0.9999999, "value-iteration", tolerance=1e-9, time_limit=1e-9)
    assert (found.converged, found.reason, found.sweeps) == (False, "time", 1)
    exact = plan(forest(200), 0.9999999, "policy-iteration", tolerance=1e-4)
    assert (found.lower <= exact.upper).all()
    assert (exact.lower <= found.upper).all()


def test_what_rounding_cannot_reach_is_not_called_converged():
    found = plan(small(), 0.9, "value-iteration", tolerance=1e-15)
    assert (found.converged, found.reason) == (False, "rounding")
    assert 1e-15 < found.gap < 1e-11
    path = plan(from_grid("S..\n..G", slip=0.3), 1.0, "value-iteration", tolerance=1e-17)
    assert not path.converged
    assert path.reason == "rounding"
    assert path.gap < 1e-12


def test_a_gain_that_depends_on_the_state_is_bounded_but_not_converged():
    """Two states that cannot leave, one earning 1 a step, one nothing: the best gain is 1 or 0."""
    mdp = MDP.from_coo([0, 1], [0, 0], [0, 1], [1.0, 1.0], [1.0, 0.0], num_states=2)
    found = relative_value_iteration(mdp, max_sweeps=50)
    assert (found.converged, found.reason) == (False, "sweeps")
    assert found.lower[0] <= 0
    assert found.upper[0] >= 1


@pytest.mark.parametrize("method", METHODS)
def test_wandering_for_nothing_is_worth_what_leaving_is(method):
    """States 0 and 1 lead to each other for nothing; 1 can leave for 5, 0 for 2. From above, any v(0) = v(1) >= 5
    solves the equation; the value of a policy that ends is 5."""
    mdp = MDP.from_coo([0, 0, 1, 1], [0, 1, 0, 1], [1, 2, 0, 2], [1.0] * 4, [0.0, 2.0, 0.0, 5.0], num_states=3)
    found = plan(mdp, 1.0, method, initial=[100.0, 100.0, 0.0])
    assert found.converged
    np.testing.assert_allclose(found.value, [5, 5, 0], atol=1e-6)
    assert found.policy.tolist() == [0, 1, -1]
