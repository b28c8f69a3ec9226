"""Random walks and corridors: values in closed form, the two fixpoints of aggregation, aliased states."""

import numpy as np
import pytest

from onepolicy.errors import ConfigError
from onepolicy.tabular.worlds import make
from onepolicy.tabular.worlds.walks import ALIASED_OBSERVATIONS, maximisation_bias, random_walk


def test_short_walks_in_closed_form(exact):
    """v(i) = left + i (right - left) / (n + 1); the errors that the customary first guesses start with."""
    for name, expected, guess, error in (
        ("walk-5", np.arange(1, 6) / 6, 0.5, 0.2357),
        ("walk-19", np.arange(-18, 19, 2) / 20, 0.0, 0.547723),
    ):
        e = exact(make(name))
        value = e.evaluate(e.uniform(), 1.0)[1:-1]
        np.testing.assert_allclose(value, expected, atol=1e-12)
        assert np.sqrt(np.mean((value - guess) ** 2)) == pytest.approx(error, abs=5e-5)


def test_walk_of_1000_states_and_its_aggregation(exact):
    """Ten groups of 100: the fixpoint of gradient Monte Carlo is the mean of v weighted by visits, that of TD(0) and
    LSTD solves A w = b; root value errors weighted by visits."""
    e = exact(make("walk-1000"))
    value = e.evaluate(e.uniform(), 1.0)
    np.testing.assert_allclose(value[[1, 100, 500, 1000]], [-0.92196, -0.75418, -0.00094, 0.92196], atol=5e-6)
    P, r = e.chain(e.uniform())
    visits = np.zeros(1002)
    visits[e.alive] = np.linalg.solve(np.eye(1000) - P[1:-1, 1:-1].T, e.start[e.alive])
    assert visits.sum() == pytest.approx(83.1524, abs=5e-5)
    share = visits / visits.sum()
    x = np.zeros((1002, 10))
    x[np.arange(1, 1001), np.arange(1000) // 100] = 1.0
    xd = x.T * share
    mc = np.linalg.solve(xd @ x, xd @ value)
    td = np.linalg.solve(xd @ (x - P @ x), xd @ r)
    expected = [-0.83005, -0.65164, -0.46614, -0.27907, -0.08669, 0.09282, 0.2791, 0.46614, 0.65164, 0.83005]
    np.testing.assert_allclose(mc, expected, atol=5.1e-6)
    expected = [-0.69322, -0.48051, -0.30333, -0.14583, -0.00094, 0.12238, 0.24972, 0.38806, 0.54369, 0.73053]
    np.testing.assert_allclose(td, expected, atol=5.1e-6)
    for w, error in ((mc, 0.054377), (td, 0.116735)):
        assert np.sqrt(share @ (x @ w - value) ** 2) == pytest.approx(error, abs=5e-7)


def test_walk_steps_by_hand(exact):
    """Two neighbours of five states: from 1 a step of 1 or 2 to the left ends the walk."""
    e = exact(random_walk(states=5, neighbours=2, left=-1.0, right=2.0))
    np.testing.assert_allclose(e.P[0], [0.5, 0, 0.25, 0.25, 0, 0, 0])
    assert (e.r[0], e.r[2], e.r[4]) == (-0.5, 0.0, 1.0)
    with pytest.raises(ConfigError, match="neighbours is 0"):
        random_walk(neighbours=0)


def test_short_corridor(exact):
    """J(p) of going right with probability p in all states; the best p is 2 - sqrt(2)."""
    e = exact(make("short-corridor"))

    def worth(p):
        return e.evaluate(np.tile([1 - p, p], 3), 1.0)[0]

    best = 2 - np.sqrt(2)
    assert best == pytest.approx(0.585786, abs=5e-7)
    assert worth(best) == pytest.approx(-11.656854, abs=5e-7)
    assert worth(best) > max(worth(best - 0.01), worth(best + 0.01))
    assert worth(0.05) == pytest.approx(-82.105, abs=5e-4)
    assert worth(0.95) == pytest.approx(-44.2105, abs=5e-5)


def test_aliased_corridor_needs_a_stochastic_policy(exact):
    """Deterministic in what is seen: one of the two s2 never gets out (value 0); s2 by a coin reaches the goal."""
    e = exact(make("aliased-corridor"))
    actions = dict(zip(("left", "right", "down"), np.eye(3), strict=True))
    seen = np.array(ALIASED_OBSERVATIONS)

    def worth(s2):
        rule = {1: actions["right"], 2: s2, 3: actions["down"], 4: actions["left"]}
        return e.evaluate(np.concatenate([rule[o] for o in seen[:5]]), 0.9)

    for move in ("left", "right"):
        value = worth(actions[move])
        assert np.isclose(value[[1, 3]].min(), 0.0)
    coin = worth((actions["left"] + actions["right"]) / 2)
    np.testing.assert_allclose(coin[[1, 3]], 0.45 / (1 - 0.405))
    best, _, _ = e.optimum(0.9)
    np.testing.assert_allclose(best[:5], [0.81, 0.9, 1, 0.9, 0.81], atol=1e-12)


def test_maximisation_bias_pays_the_normal(exact):
    """Left is worth -0.1 whatever is done in B; atoms have the normal's mean, deviation and, nearly, its kurtosis 3."""
    world = make("maximisation-bias")
    e = exact(world)
    q = e.q(e.optimum(1.0)[0], 1.0)
    np.testing.assert_allclose(q, [-0.1, 0.0, *[-0.1] * 10], atol=1e-12)
    model = world.csr()
    paid = model.transition_rewards[model.ptr[2] : model.ptr[3]]
    assert len(paid) == 201
    assert paid.std() == pytest.approx(1.0)
    assert np.mean((paid + 0.1) ** 4) == pytest.approx(3.0, abs=0.15)
    assert maximisation_bias(atoms=1).csr().rewards.tolist() == [0.0, 0.0, *[-0.1] * 10]
    with pytest.raises(ConfigError, match="atoms is 0"):
        maximisation_bias(atoms=0)
