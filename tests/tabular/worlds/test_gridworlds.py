"""Grids: values to the digits of Sutton and Barto and of the exact solutions; gymnasium's tables entry by entry."""

import numpy as np
import pytest
from gymnasium.envs.toy_text.cliffwalking import CliffWalkingEnv

from onepolicy.errors import ConfigError
from onepolicy.tabular.worlds import make
from onepolicy.tabular.worlds.gridworlds import open_grid


def test_the_course_grid_by_hand(exact):
    """Undiscounted, the way to Success costs one less than its moves. At 0.9: s4, s6 10; s3 -1 + 9 = 8; s1 and s2
    (and s5, s3's neighbours) -1 + 7.2 = 6.2 or 8; s0 -1 + 0.9 * 6.2 = 4.58."""
    world = make("course-grid")
    assert world.state_names == ("s0", "s1", "Fail", "s2", "s3", "s4", "s5", "s6", "Success")
    e = exact(world)
    np.testing.assert_allclose(e.optimum(1.0)[0], [7, 8, 0, 8, 9, 10, 9, 10, 0], atol=1e-12)
    np.testing.assert_allclose(e.optimum(0.9)[0], [4.58, 6.2, 0, 6.2, 8, 10, 8, 10, 0], atol=1e-12)


def test_the_course_grid_repeats_the_worked_updates():
    """Q(s6, up) = Q(s6, right) = 0.5, alpha 1, gamma 0.9: -1 + 0.9 * 0.5 - 0.5 = -1.05 and 10 + 0 - 0.5 = 9.5."""
    world = make("course-grid")
    model = world.csr()
    s6 = world.state_names.index("s6")
    up, right = (model.row_ptr[s6] + world.action_names.index(move) for move in ("up", "right"))
    q = np.full(world.num_rows, 0.5)
    deltas = []
    for row in (up, right):
        (to,) = model.successors[model.ptr[row] : model.ptr[row + 1]]
        following = q[model.row_ptr[to] : model.row_ptr[to + 1]].max(initial=0.0) * (not model.terminal[to])
        deltas.append(model.rewards[row] + 0.9 * following - q[row])
    assert world.state_names[model.successors[model.ptr[up]]] == "s3"
    np.testing.assert_allclose(deltas, [-1.05, 9.5], atol=1e-12)


def test_4x4_values_and_sweeps(exact):
    e = exact(make("grid-4x4"))
    expected = [0, -14, -20, -22, -14, -18, -20, -20, -20, -20, -18, -14, -22, -20, -14, 0]
    np.testing.assert_allclose(e.evaluate(e.uniform(), 1.0), expected, atol=1e-10)
    np.testing.assert_allclose(
        e.optimum(1.0)[0], [0, -1, -2, -3, -1, -2, -3, -2, -2, -3, -2, -1, -3, -2, -1, 0], atol=1e-12
    )
    sweeps = e.within(400, e.uniform())[::-1]
    np.testing.assert_allclose(sweeps[1][[1, 5, 3]], -1)
    np.testing.assert_allclose(sweeps[2][[1, 2, 5]], [-1.75, -2, -2])
    np.testing.assert_allclose(sweeps[3][[1, 2, 3, 5]], [-2.4375, -2.9375, -3, -2.875])
    np.testing.assert_allclose(sweeps[10][[1, 2, 3, 5, 6]], [-6.138, -8.3524, -8.9673, -7.7374, -8.4278], atol=5e-5)


def test_4x4_sweeps_that_change_a_value_by_1e4(exact):
    """172 synchronous and 113 in-place sweeps change some value by 1e-4 or more; the next one does not."""
    e = exact(make("grid-4x4"))
    changes = np.abs(np.diff(e.within(400, e.uniform())[::-1], axis=0)).max(axis=1)
    assert int((changes >= 1e-4).sum()) == 172
    value, sweeps = np.zeros(16), 0
    while e.in_place(value, 1.0, e.uniform()) >= 1e-4:
        sweeps += 1
    assert sweeps == 113


def test_5x5_values(exact):
    e = exact(make("grid-5x5"))
    rows = """3.3090 8.7893 4.4276 5.3224 1.4922   1.5216 2.9923 2.2501 1.9076 .5474   .0508 .7382 .6731 .3582 -.4031
        -.9736 -.4355 -.3549 -.5856 -1.1831   -1.8577 -1.3452 -1.2293 -1.4229 -1.9752"""
    np.testing.assert_allclose(e.evaluate(e.uniform(), 0.9), np.array(rows.split(), float), atol=5.1e-5)
    best, _, _ = e.optimum(0.9)
    np.testing.assert_allclose(best[:5], [21.9775, 24.4194, 21.9775, 19.4194, 17.4775], atol=5e-5)
    assert best[24] == pytest.approx(11.6797, abs=5e-5)


def test_cliff_values_of_the_limits_of_q_learning_and_sarsa(exact):
    """Q-learning ends at the edge, acted epsilon-greedily; Sarsa at the best epsilon-soft policy, through row 1.

    Optimal policies differ off the edge: -51.8132 belongs to the one that goes down before it goes right, -45.8033
    to those that go right along the upper rows."""
    e = exact(make("cliff"))
    value, _, _ = e.optimum(1.0)
    assert value[36] == pytest.approx(-13, abs=1e-10)
    best = e.optimal_rows(1.0).reshape(-1, 4)
    orders = {"down first": [2, 0, 1, 3], "right first": [1, 0, 2, 3]}
    edge = {}
    for name, order in orders.items():
        policy = np.zeros(48, dtype=np.int64)
        policy[e.alive] = np.array(order)[best[:, order].argmax(axis=1)]
        edge[name] = e.evaluate(e.chances(policy, 0.1), 1.0)[36]
    assert edge["down first"] == pytest.approx(-51.8132, abs=5e-5)
    assert edge["right first"] == pytest.approx(-45.8033, abs=5e-5)
    soft, policy, _ = e.optimum(1.0, epsilon=0.1)
    assert soft[36] == pytest.approx(-20.7077, abs=5e-5)
    path = [36]
    while path[-1] != 47:
        path.append(int(e.P[e.first[path[-1]] + policy[path[-1]]].argmax()))
    assert len(path) == 16
    assert [12 + c for c in range(12)] == [s for s in path if s // 12 == 1]


def test_slippery_cliff(exact):
    assert exact(make("cliff-slippery")).optimum(1.0)[0][36] == pytest.approx(-64.70917590996, abs=1e-9)


@pytest.mark.parametrize("slippery", [False, True])
def test_cliff_is_gymnasiums(exact, gym_rows, slippery):
    e = exact(make("cliff", slippery=slippery))
    P, r = gym_rows(CliffWalkingEnv(is_slippery=slippery))
    np.testing.assert_allclose(e.P, P[:47].reshape(-1, 48), atol=1e-15)
    np.testing.assert_allclose(e.r, r[:47].ravel(), atol=1e-12)
    assert e.start[36] == 1.0
    assert np.flatnonzero(e.terminal).tolist() == [47]


@pytest.mark.parametrize(("name", "steps"), [("windy", 15), ("windy-king", 7), ("windy-king-stay", 7)])
def test_windy_shortest_paths(exact, name, steps):
    assert exact(make(name)).optimum(1.0)[0][30] == pytest.approx(-steps, abs=1e-10)


def test_windy_gusts_by_hand(exact):
    """Right from (3, 5), wind 1: columns move on, rows up by 0, 1 or 2; from (3, 0), without wind: no gust."""
    e = exact(make("windy", stochastic=True))
    np.testing.assert_allclose(e.P[e.first[35] + 1, [36, 26, 16]], 1 / 3)
    assert e.P[e.first[30] + 1, 31] == 1.0
    assert e.optimum(1.0)[0][30] < -15


@pytest.mark.parametrize("slip", [0.0, 0.3])
def test_open_grid_against_a_loop(exact, slip):
    e = exact(open_grid(rows=3, cols=4, slip=slip, reward=-0.5, goal=2.0))
    moves = [(-1, 0), (0, 1), (1, 0), (0, -1)]
    for s in range(11):
        for a in range(4):
            P, r = np.zeros(12), 0.0
            for turn, p in ((0, 1 - slip), (-1, slip / 2), (1, slip / 2)):
                row, col = (x + d for x, d in zip(divmod(s, 4), moves[(a + turn) % 4], strict=True))
                to = row * 4 + col if 0 <= row < 3 and 0 <= col < 4 else s
                P[to] += p
                r += p * (-0.5 + 2.0 * (to == 11))
            np.testing.assert_allclose(e.P[4 * s + a], P, atol=1e-15)
            assert e.r[4 * s + a] == pytest.approx(r)
    with pytest.raises(ConfigError, match=r"slip is 1\.5; it is a probability"):
        open_grid(slip=1.5)
    with pytest.raises(ConfigError, match=r"rows is 0; this world needs at least 1"):
        open_grid(rows=0)


def test_mushroom_grid(exact):
    """V(1) = 0.9 / (1 - 0.095); one of two ways from cell 0 ties, so rows are compared. Four sweeps of value iteration
    are what MushroomRL's test with eps 0.1 prints."""
    e = exact(make("mushroom-grid"))
    np.testing.assert_allclose(e.optimum(0.95)[0], [0.93953176, 0.99447514, 0.99447514, 0], atol=5e-9)
    best = e.optimal_rows(0.95).reshape(3, 4)
    assert best.tolist() == [[False, True, False, True], [False, True, False, False], [False, False, False, True]]
    np.testing.assert_allclose(e.within(4, discount=0.95)[0][:2], [0.93653921, 0.99439414], atol=5e-9)
