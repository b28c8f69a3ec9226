"""Known answers: the exact numbers of the literature and of other libraries' examples, reproduced by every method."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from tests.tabular.conftest import forest, four_by_four, inventory, mushroom_grid, puterman, small

from onepolicy.tabular.build import from_gymnasium
from onepolicy.tabular.planning import METHODS, plan
from onepolicy.tabular.planning.average_reward import relative_value_iteration
from onepolicy.tabular.planning.horizon import backward_induction
from onepolicy.tabular.planning.policy_value import evaluate, evaluate_average
from onepolicy.tabular.planning.soft import soft_value_iteration

FOREST_10 = [
    26.8301859311444, 28.0723241686974, 29.5099841658652, 31.1739424959205, 33.0998201927438,
    35.3288453048078, 37.9087354808078, 40.8947194808078, 44.3507194808078, 48.3507194808078,
]  # fmt: skip

DISCOUNTED = [
    (forest, 0.9, [26.244, 29.484, 33.484]),
    (forest, 0.96, [74.6496, 78.1056, 82.1056]),
    (lambda: forest(10), 0.96, FOREST_10),
    (small, 0.9, [42.4418604651163, 36.0465116279070]),
    (small, 0.96, [100.67873303167413, 94.45701357466055]),
    (small, 0.99, [392.29910714, 386.16071429]),
    (puterman, 0.95, [-60 / 7, -20]),
    (mushroom_grid, 0.95, [0.93953176, 0.99447514, 0.99447514, 0]),
]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_reproduces_the_discounted_examples(method):
    for make, discount, expected in DISCOUNTED:
        found = plan(make(), discount, method, tolerance=1e-8)
        assert found.converged
        assert found.reason == "converged"
        assert_allclose(found.value, expected, atol=2e-8)
        assert (found.lower <= np.array(expected) + 1e-8).all()
        assert (np.array(expected) - 1e-8 <= found.upper).all()


def test_policies_and_action_values_of_the_examples():
    found = plan(forest(), 0.9, tolerance=1e-9)
    assert found.policy.tolist() == [0, 0, 0]
    assert_allclose(found.q(), [26.244, 23.6196, 29.484, 24.6196, 33.484, 25.6196], atol=1e-8)
    assert plan(small(), 0.9).policy.tolist() == [1, 0]
    assert plan(puterman(), 0.95).policy.tolist() == [0, 0]
    grid = plan(mushroom_grid(), 0.95, tolerance=1e-10)
    best = [np.flatnonzero(np.isclose(q, q.max(), atol=1e-8)).tolist() for q in grid.q().reshape(3, 4)]
    assert best == [[1, 3], [1], [3]]
    assert grid.policy[3] == -1


def test_forest_average_and_small_gain():
    """Small: action 1 in state 0, 0 in state 1: 4/9 * 10 - 5/9 * 1 = 35/9."""
    assert_allclose(relative_value_iteration(forest(), tolerance=1e-9).gain, 3.24, atol=1e-9)
    assert_allclose(relative_value_iteration(forest(10), tolerance=1e-9).gain, 1.549681956, atol=1e-9)
    found = relative_value_iteration(small(), tolerance=1e-10)
    assert_allclose(found.gain, 35 / 9, atol=1e-9)
    assert found.policy.tolist() == [1, 0]
    assert found.value[0] == 0
    assert_allclose(evaluate_average(small(), found.policy).gain, 35 / 9, atol=1e-12)


@pytest.mark.parametrize("method", ["exact", "iterative"])
def test_a_policy_of_the_forest_evaluated(method):
    found = evaluate(forest(), np.array([0, 1, 0]), 0.9, method, tolerance=1e-10)
    assert_allclose(found.value, [4.47513812154696, 5.02762430939227, 23.17243384704857], atol=1e-9)


def test_finite_horizons_of_forest_and_inventory():
    found = backward_induction(forest(), 3, discount=0.9)
    assert_allclose(found.value.T, [[2.6973, 0.81, 0, 0], [5.9373, 3.24, 1, 0], [9.9373, 7.24, 4, 0]], atol=1e-12)
    assert found.policy.T.tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 0]]
    stock = backward_induction(inventory(), 3)
    expected = [
        [67 / 16, 129 / 16, 194 / 16, 227 / 16], [2, 25 / 4, 10, 21 / 2], [0, 5, 6, 5], [0, 0, 0, 0],
    ]  # fmt: skip
    assert_allclose(stock.value, expected, atol=1e-12)
    assert stock.policy.tolist() == [[3, 0, 0, 0], [2, 0, 0, 0], [0, 0, 0, 0]]
    assert (stock.lower <= expected).all()
    assert (expected <= stock.upper).all()
    assert stock.gap < 1e-12
    salvage = backward_induction(inventory(), 1, final=[0, 1, 2, 3])
    full_shelf = 5 + (3 + 2 * 2 + 1) / 4  # order nothing: earn 5, keep 3, 2 or 1 with 1/4, 1/2, 1/4
    assert_allclose(salvage.value[0, 3], full_shelf, atol=1e-12)


GRID_RANDOM = [0, -14, -20, -22, -14, -18, -20, -20, -20, -20, -18, -14, -22, -20, -14, 0]
GRID_BEST = [0, -1, -2, -3, -1, -2, -3, -2, -2, -3, -2, -1, -3, -2, -1, 0]


@pytest.mark.parametrize("method", ["exact", "iterative"])
def test_the_random_policy_on_the_four_by_four_grid(method):
    grid = four_by_four()
    found = evaluate(grid, np.full(grid.num_rows, 0.25), 1.0, method, tolerance=1e-7)
    assert found.converged
    assert_allclose(found.value, GRID_RANDOM, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_shortest_paths_without_discount(method):
    """The 4x4 grid; FrozenLake, where 14/17 is missed by anyone who may wander at no cost; the cliff; Taxi."""
    found = plan(four_by_four(), 1.0, method)
    assert found.converged
    assert found.value.tolist() == pytest.approx(GRID_BEST, abs=1e-6)
    lake = plan(from_gymnasium("FrozenLake-v1"), 1.0, method, tolerance=1e-6)
    assert lake.converged
    assert lake.lower[0] <= 14 / 17 <= lake.upper[0]
    assert_allclose(evaluate(lake.mdp, lake.policy, 1.0).value[0], 14 / 17, atol=1e-5)
    assert_allclose(plan(from_gymnasium("CliffWalking-v1"), 1.0, method).value[36], -13, atol=1e-6)


def test_gymnasium_worlds_by_the_method_that_suits():
    lake, large = from_gymnasium("FrozenLake-v1"), from_gymnasium("FrozenLake8x8-v1")
    for discount, value in ((0.99, 0.5420259320), (0.95, 0.1804715784), (0.9, 0.0688909049)):
        assert_allclose(plan(lake, discount, tolerance=1e-9).value[0], value, atol=2e-9)
    assert_allclose(plan(large, 1.0, tolerance=1e-6).value[0], 1, atol=2e-6)
    assert_allclose(plan(large, 0.99, tolerance=1e-9).value[0], 0.4146403618, atol=2e-9)
    within = backward_induction(lake, 100).value[0, 0], backward_induction(large, 200).value[0, 0]
    assert_allclose(within, [0.7441902878, 0.9132201502], atol=1e-9)


def test_the_average_taxi():
    taxi = from_gymnasium("Taxi-v4")
    for discount, value in ((1.0, 7.93), (0.99, 6.3274643149), (0.95, 1.7299300168)):
        assert_allclose(plan(taxi, discount, tolerance=1e-8).value @ taxi.start, value, atol=1e-7)


def test_soft_values_of_one_state():
    """One state, rewards 0 and 1: V = tau log(1 + exp(1/tau)) / (1 - discount), whatever the discount does."""
    from onepolicy.tabular.mdp import MDP

    mdp = MDP.from_coo([0, 0], [0, 1], [0, 0], [1.0, 1.0], [0.0, 1.0], num_states=1)
    found = soft_value_iteration(mdp, 0.9, 0.5, tolerance=1e-9)
    expected = 0.5 * np.log1p(np.exp(2.0)) / 0.1
    assert_allclose(found.value, [expected], atol=1e-8)
    assert_allclose(found.policy, [1 / (1 + np.exp(2)), 1 / (1 + np.exp(-2))], atol=1e-12)
    cold = soft_value_iteration(forest(), 0.9, 1e-3)
    assert_allclose(cold.value, [26.244, 29.484, 33.484], atol=1e-2)
