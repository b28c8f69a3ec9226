"""SARSA(lambda) with tiles in gymnasium's worlds: the numbers of the compiled loop, real worlds, what is refused."""

from __future__ import annotations

import re

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.classic_control.mountain_car import MountainCarEnv

from onepolicy.errors import ConfigError
from onepolicy.tabular.control import Settings
from onepolicy.tabular.control.gym import sarsa_lambda_gym
from onepolicy.tabular.control.tiles import MOUNTAIN_CAR, sarsa_lambda_tiles
from onepolicy.tabular.jit import jit
from onepolicy.tabular.worlds import mountain_car


@jit
def _from_the_valley(state, u):
    state[0], state[1] = -0.5, 0.0


class FromTheValley(gymnasium.Env):
    """The compiled mountain car as a gymnasium world, always from the same place."""

    observation_space = spaces.Box(np.array(mountain_car.LOW), np.array(mountain_car.HIGH), dtype=np.float64)
    action_space = spaces.Discrete(3, start=4)

    def reset(self, *, seed=None, options=None):
        self.car = (-0.5, 0.0)
        return np.array(self.car), {}

    def step(self, action):
        *self.car, reward, ended = mountain_car.step(*self.car, action - 4)
        return np.array(self.car), reward, ended, False, {}


@pytest.mark.parametrize(("lam", "trace"), [(0.0, "replacing"), (0.8, "replacing"), (0.5, "accumulating")])
def test_both_paths_leave_the_same_weights(lam, trace):
    world = MOUNTAIN_CAR._replace(begin=_from_the_valley)
    chosen = Settings(episodes=3, alpha=0.03, epsilon=0.1, gamma=0.98, runs=2, seed=3, max_steps=400, initial_q=1.0)
    compiled = sarsa_lambda_tiles(world, chosen, lam=lam, trace=trace)
    found = sarsa_lambda_gym(FromTheValley(), chosen, lam=lam, trace=trace)
    np.testing.assert_array_equal(found.lengths, compiled.lengths)
    np.testing.assert_array_equal(found.visits, compiled.visits)
    np.testing.assert_allclose(found.q, compiled.q, rtol=0, atol=1e-9)
    assert found.truncated.any()


def test_gymnasiums_mountain_car_takes_as_many_steps_as_ours():
    """First 10 episodes at alpha 0.5 / 8: means of 5 runs within three standard errors of those of 200 compiled."""
    chosen = {"episodes": 10, "alpha": 0.5 / 8, "epsilon": 0.0, "max_steps": 3000}
    compiled = sarsa_lambda_tiles(MOUNTAIN_CAR, Settings(**chosen, runs=200), lam=0.9).lengths.mean(axis=1)
    found = sarsa_lambda_gym(MountainCarEnv(), Settings(**chosen, runs=5, seed=1), lam=0.9).lengths.mean(axis=1)
    error = compiled.std(ddof=1) * np.sqrt(1 / 5 + 1 / 200)
    assert abs(found.mean() - compiled.mean()) <= 3 * error


def test_a_pole_is_kept_up():
    """CartPole by optimism, since 1 / (1 - 0.99) = 100 is the most it can be worth. Its velocities have no bounds: they
    are given, and what is beyond counts as at the edge."""
    chosen = Settings(episodes=60, alpha=0.5 / 8, epsilon=0.0, gamma=0.99, initial_q=100.0)
    box = np.array([2.4, 2.0, 0.21, 2.0])
    found = sarsa_lambda_gym(gymnasium.make("CartPole-v1"), chosen, lam=0.8, low=-box, high=box, tiles=4)
    assert found.returns[0, 40:].mean() > 400


@pytest.mark.parametrize(
    ("env", "settings", "changes", "words"),
    [
        ("CartPole-v1", {}, {}, "observation 1 is from -inf to inf; tiles need bounds. Give low, high."),
        ("FrozenLake-v1", {}, {}, "observations are Discrete(16); tiles need a Box of one dimension"),
        ("Pendulum-v1", {}, {}, "actions are Box"),
        ("MountainCar-v0", {}, {"lam": 1.5}, "lam is 1.5"),
        ("MountainCar-v0", {}, {"tiles": 0}, "tiles is 0"),
        ("MountainCar-v0", {}, {"low": 1.0}, "every dimension needs low < high"),
        ("MountainCar-v0", {"alpha_power": 0.5}, {}, "belong to finite models"),
    ],
)
def test_what_tiles_cannot_do_is_refused(env, settings, changes, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        sarsa_lambda_gym(gymnasium.make(env), Settings(**settings), **{"lam": 0.5} | changes)
