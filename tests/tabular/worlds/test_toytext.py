"""FrozenLake, Taxi and the mazes: gymnasium's tables entry by entry, exact values, success within a time limit."""

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv
from gymnasium.envs.toy_text.taxi import TaxiEnv

from onepolicy.errors import ConfigError
from onepolicy.tabular.worlds import WORLDS, make
from onepolicy.tabular.worlds.mazes import maze
from onepolicy.tabular.worlds.toytext import frozen_lake, random_map


@pytest.mark.parametrize(
    ("discount", "value"), [(1.0, 14 / 17), (0.99, 0.5420259320), (0.95, 0.1804715784), (0.9, 0.0688909049)]
)
def test_frozenlake_values(exact, discount, value):
    assert exact(make("frozenlake")).optimum(discount)[0][0] == pytest.approx(value, abs=5e-11)


@pytest.mark.parametrize(
    ("name", "steps", "best", "stationary"),
    [
        ("frozenlake", 100, 0.7441902878, {1: 0.7401648978, 0.99: 0.7401648978, 0.95: 0.7297660174, 0.9: 0.7297660174}),
        ("frozenlake-8x8", 200, 0.9132201502, {1 - 1e-6: 0.8856539193, 0.99: 0.8629553800}),
        ("frozenlake-8x8", 100, 0.6407192703, {0.99: 0.6317380010}),
    ],
)
def test_frozenlake_success_within_the_time_limit(exact, name, steps, best, stationary):
    """The policy that knows the clock, and stationary ones, each optimal for its discount. Undiscounted policies tie on
    the 8x8 lake (V = 1): its number is that of the limit of discounts towards 1."""
    e = exact(make(name))
    assert e.within(steps)[0][0] == pytest.approx(best, abs=5e-11)
    for discount, success in stationary.items():
        _, policy, _ = e.optimum(discount)
        assert e.within(steps, policy)[0][0] == pytest.approx(success, abs=5e-11), discount


def test_frozenlake_random_and_8x8_values(exact):
    e, large = exact(make("frozenlake")), exact(make("frozenlake-8x8"))
    assert e.within(100, e.uniform())[0][0] == pytest.approx(0.0139397960, abs=5e-11)
    assert large.optimum(1.0)[0][0] == pytest.approx(1.0, abs=1e-9)
    assert large.optimum(0.99)[0][0] == pytest.approx(0.4146403618, abs=5e-11)


@pytest.mark.parametrize(
    "options",
    [{}, {"is_slippery": False}, {"map_name": "8x8"}, {"success_rate": 0.7}, {"desc": ["SFFG", "HFFF", "FFFG"]}],
)
def test_frozenlake_is_gymnasiums(exact, gym_rows, options):
    words = {"map_name": "map", "desc": "map", "is_slippery": "slippery", "success_rate": "success_rate"}
    e = exact(frozen_lake(**{words[key]: value for key, value in options.items()}))
    P, r = gym_rows(FrozenLakeEnv(**options))
    alive = ~e.terminal
    np.testing.assert_allclose(e.P, P[alive].reshape(len(e.r), -1), atol=1e-15)
    np.testing.assert_allclose(e.r, r[alive].ravel(), atol=1e-15)
    ends = np.flatnonzero(e.terminal)
    np.testing.assert_allclose(P[ends, :, ends], 1.0)


def test_time_limits_are_those_of_the_registered_environments():
    for name, env_id in (("frozenlake", "FrozenLake-v1"), ("frozenlake-8x8", "FrozenLake8x8-v1"), ("taxi", "Taxi-v4")):
        assert gymnasium.spec(env_id).max_episode_steps == WORLDS[name].time_limit


def test_random_maps_have_a_path(exact):
    maps = [random_map(6, frozen=0.6, seed=seed) for seed in range(20)]
    assert len(set(maps)) == 20
    for rows in maps:
        assert rows[0][0] == "S"
        assert rows[-1][-1] == "G"
        assert exact(frozen_lake(rows, slippery=False)).optimum(0.9)[0][0] >= 0.9**35
    with pytest.raises(ConfigError, match="no path can lead"):
        random_map(4, frozen=0.0)


@pytest.mark.parametrize(
    ("map", "words"),
    [
        ("4x5", "Did you mean '4x4'"),
        (["SF", "FFG"], r"lengths \[2, 3\]"),
        (["SX", "FG"], r"letters \['X'\]"),
        (["SF", "FF"], "has no G"),
        ("FF\nFG", "has no S"),
    ],
)
def test_maps_that_are_none(map, words):
    with pytest.raises(ConfigError, match=words):
        frozen_lake(map)


@pytest.mark.parametrize("rainy", [False, True])
def test_taxi_is_gymnasiums(exact, gym_rows, rainy):
    env = TaxiEnv(is_rainy=rainy)
    e = exact(make("taxi", rainy=rainy))
    P, r = gym_rows(env)
    alive = ~e.terminal
    assert alive.sum() == 400
    np.testing.assert_allclose(e.P, P[alive].reshape(2400, -1), atol=1e-15)
    np.testing.assert_allclose(e.r, r[alive].ravel(), atol=1e-12)
    np.testing.assert_allclose(e.start, env.initial_state_distrib, atol=1e-15)


def test_taxi_ends_where_gymnasium_terminates(exact):
    e = exact(make("taxi"))
    table = TaxiEnv().P
    ends = {to for s in e.alive for outcomes in table[s].values() for _, to, _, terminated in outcomes if terminated}
    entered = {to for s in e.alive for outcomes in table[s].values() for _, to, _, _ in outcomes if e.terminal[to]}
    assert ends == entered
    assert len(ends) == 4


def test_taxi_values(exact):
    e = exact(make("taxi"))
    value, _, _ = e.optimum(1.0)
    starts = value[e.start > 0]
    assert len(starts) == 300
    assert value @ e.start == pytest.approx(7.93, abs=1e-9)
    assert (starts.min(), starts.max()) == (pytest.approx(3), pytest.approx(15))
    for discount, mean in ((0.99, 6.3274643149), (0.95, 1.7299300168), (0.9, -1.2633230990)):
        assert e.optimum(discount)[0] @ e.start == pytest.approx(mean, abs=5e-11)
    assert e.within(200, e.uniform())[0] @ e.start == pytest.approx(-771.09, abs=5e-3)


@pytest.mark.parametrize(
    ("name", "options", "steps"),
    [
        ("dyna-maze", {}, 14),
        ("blocking-maze", {}, 10),
        ("blocking-maze", {"after": True}, 16),
        ("shortcut-maze", {}, 16),
        ("shortcut-maze", {"after": True}, 10),
    ],
)
def test_mazes_shortest_paths(exact, name, options, steps):
    """+1 on entering G after n moves is worth 0.95^(n - 1); with -1 a move and 0 at G, -n + 1."""
    e = exact(make(name, **options))
    assert e.optimum(0.95)[0] @ e.start == pytest.approx(0.95 ** (steps - 1), abs=1e-12)


def test_mazes_walls_and_rewards_by_hand(exact):
    e = exact(maze("S#\n.G", step_reward=-1.0, goal_reward=5.0))
    assert e.terminal.tolist() == [False, True, False, True]
    assert e.P.argmax(axis=1).tolist() == [0, 0, 2, 0, 0, 3, 2, 2]
    assert e.r.tolist() == [-1, -1, -1, -1, -1, 5, -1, -1]
    with pytest.raises(ConfigError, match=r"letters \['H'\]"):
        maze("SH\n.G")
