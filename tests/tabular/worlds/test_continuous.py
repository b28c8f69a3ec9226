"""Baird's counterexample run to the reference's numbers, and mountain car beside gymnasium's."""

import numpy as np
import pytest
from gymnasium.envs.classic_control.mountain_car import MountainCarEnv

from onepolicy.tabular.worlds import mountain_car
from onepolicy.tabular.worlds.baird import DISCOUNT, baird, behaviour, features, initial_weights, target


@pytest.fixture
def expected(exact):
    """The state chain of the target, the states' shares under the behaviour, and the features."""
    e = exact(baird())
    P, r = e.chain(target())
    mu = e.gain(behaviour())[0], np.full(7, 1 / 7)
    Pb, _ = e.chain(behaviour())
    np.testing.assert_allclose(mu[1] @ Pb, mu[1], atol=1e-15)
    assert not r.any()
    return P, mu[1], features()


def test_semi_gradient_updates_diverge(expected):
    P, mu, x = expected
    w = initial_weights()
    for t in range(1, 1001):
        w = w + 0.01 * (mu * (DISCOUNT * P @ x @ w - x @ w)) @ x
        if t == 1:
            np.testing.assert_allclose(w, [*[1.02537] * 6, 9.99983, 1.07577], atol=5e-6)
    np.testing.assert_allclose(w, [*[114.43372] * 6, 6.85003, 335.00121], atol=5e-6)


def test_tdc_and_emphatic_updates_converge(expected):
    P, mu, x = expected
    w, h = initial_weights(), np.zeros(8)
    for _ in range(1000):
        delta = DISCOUNT * P @ x @ w - x @ w
        w, h = (
            w + 0.005 * ((mu * delta) @ x - DISCOUNT * (mu * (x @ h)) @ P @ x),
            h + 0.05 * (mu * (delta - x @ h)) @ x,
        )
    np.testing.assert_allclose(w, [*[2.13531] * 6, 6.62805, -2.33796], atol=5e-6)
    assert np.sqrt(mu @ (x @ w) ** 2) == pytest.approx(1.93546, abs=5e-6)
    delta = mu * (DISCOUNT * P @ x @ w - x @ w) @ x
    projected = delta @ np.linalg.pinv((x.T * mu) @ x) @ delta
    assert np.sqrt(projected) == pytest.approx(0.0073786, abs=5e-8)
    emphasis = np.linalg.solve(np.eye(7) - DISCOUNT * P.T, mu)
    np.testing.assert_allclose(emphasis, [*[1 / 7] * 6, 99.14286], atol=5e-6)
    w = initial_weights()
    for _ in range(1000):
        w = w + 0.03 * (emphasis * (DISCOUNT * P @ x @ w - x @ w)) @ x
    np.testing.assert_allclose(w, [*[1.69231] * 6, 6.76923, -3.38462], atol=5e-6)
    assert np.sqrt(mu @ (x @ w) ** 2) < 1e-14


def test_mountain_car_is_gymnasiums():
    """A hundred episodes of random and of pumping actions: the same numbers, up to the goal."""
    env = MountainCarEnv()
    rng = np.random.default_rng(0)
    reached = 0
    for episode in range(30):
        (x, v), _ = env.reset(seed=episode)
        x, v = (float(number) for number in env.unwrapped.state)
        assert mountain_car.start((x + 0.6) / 0.2) == pytest.approx((x, 0.0))
        for _ in range(300):
            action = int(rng.integers(3)) if episode % 2 else (2 if v >= 0 else 0)
            env.step(action)
            x, v, reward, ended = mountain_car.step(x, v, action)
            theirs = env.unwrapped.state
            assert reward == -1.0
            assert (min(theirs[0], 0.5), theirs[1]) == pytest.approx((x, v), abs=1e-12)
            assert ended == (theirs[0] >= 0.5)
            if ended:
                reached += 1
                break
    assert reached >= 15


def test_mountain_car_bounds():
    x, v, _, ended = mountain_car.step(-1.19, -0.07, 0)
    assert (x, v, ended) == (-1.2, 0.0, False)
    assert mountain_car.step(0.49, 0.07, 2)[0] == 0.5
    assert mountain_car.start(0.0)[0] == -0.6
