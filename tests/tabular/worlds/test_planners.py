"""The package's planners on every world, beside the dense oracle: the bounds hold the truth, the policy earns it."""

import numpy as np
import pytest

from onepolicy.tabular.planning import METHODS, plan
from onepolicy.tabular.planning.average_reward import relative_value_iteration
from onepolicy.tabular.planning.horizon import backward_induction
from onepolicy.tabular.planning.policy_value import evaluate
from onepolicy.tabular.worlds import WORLDS, make

TOTAL = [name for name, world in WORLDS.items() if world.discount is not None and world.horizon is None]
SMALL = ("course-grid", "cliff", "frozenlake", "gambler", "forest")


@pytest.mark.parametrize("name", TOTAL)
def test_bounds_hold_the_truth(exact, name):
    """At the customary discount, to 1e-6; the policy is worth at least the lower bound."""
    discount = WORLDS[name].discount
    e = exact(make(name))
    truth, _, _ = e.optimum(discount)
    found = plan(e.mdp, discount)
    assert found.converged
    assert (found.lower <= truth + 1e-10).all()
    assert (truth <= found.upper + 1e-10).all()
    assert found.gap <= 2.1e-6
    earned = e.evaluate(np.maximum(found.policy, 0).astype(np.int64), discount)
    assert (earned >= found.lower - 1e-10).all()
    np.testing.assert_allclose(earned, truth, atol=2.1e-6)


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("name", SMALL)
def test_all_methods_agree(exact, name, method):
    discount = WORLDS[name].discount
    e = exact(make(name))
    found = plan(e.mdp, discount, method, tolerance=1e-8)
    assert found.converged
    np.testing.assert_allclose(found.value, e.optimum(discount)[0], atol=1.1e-8)


@pytest.mark.parametrize("name", ["grid-4x4", "grid-5x5", "frozenlake", "blackjack", "walk-19", "baird"])
def test_the_random_policy(exact, name):
    discount = WORLDS[name].discount
    e = exact(make(name))
    truth = e.evaluate(e.uniform(), discount)
    np.testing.assert_allclose(evaluate(e.mdp, e.uniform(), discount).value, truth, atol=1e-6)


def test_average_and_finite_horizon(exact):
    queue = relative_value_iteration(make("access-control"), tolerance=1e-9)
    assert queue.gain == pytest.approx(2.7476419505725, abs=1.1e-9)
    stock = backward_induction(make("puterman-inventory"), 3)
    np.testing.assert_allclose(stock.value[0], np.array([67, 129, 194, 227]) / 16, atol=1e-12)
    lake = backward_induction(make("frozenlake"), WORLDS["frozenlake"].time_limit)
    assert lake.value[0][0] == pytest.approx(0.7441902878, abs=5e-11)
