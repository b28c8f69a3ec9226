"""Control from a fixed data set: the exact solution when the data are exact, coverage, pessimism, bad input."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onepolicy.errors import ConfigError, DataError
from onepolicy.tabular.control.dataset import hoeffding_penalty, q_learning_from, value_iteration_from
from onepolicy.tabular.dataset import dataset, empirical_model, from_episodes
from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.simulate import sample_episodes, sampler

# (state, action) -> [(tenths, next state, reward)]; state 3 is the end
TENTHS = {
    (0, 0): [(7, 1, 1.0), (3, 0, -1.0)],
    (0, 1): [(10, 2, 0.0)],
    (1, 0): [(5, 2, 2.0), (5, 3, -3.0)],
    (1, 1): [(2, 0, -1.0), (8, 1, -0.25)],
    (1, 2): [(10, 3, 1.0)],
    (2, 0): [(1, 3, 10.0), (9, 2, -0.5)],
}
ACTIONS = [2, 3, 1, 0]


def model():
    rows = [(s, a, t, n / 10, r) for (s, a), found in TENTHS.items() for n, t, r in found]
    return MDP.from_coo(*map(list, zip(*rows)), num_states=4, start=0)


def exact_data(skip=()):
    """Every pair ten times, its outcomes as often as they are probable."""
    rows = [
        (s, a, r, t, t == 3) for (s, a), found in TENTHS.items() if (s, a) not in skip for n, t, r in found
        for _ in range(n)
    ]  # fmt: skip
    return dataset(*map(np.array, zip(*rows)), num_states=4, num_actions=ACTIONS)


def solved(gamma, sweeps=5000):
    """Q* of the model by the plain definition."""
    q = dict.fromkeys(TENTHS, 0.0)
    for _ in range(sweeps):
        v = [max([q[pair] for pair in q if pair[0] == s], default=0.0) for s in range(4)]
        q = {pair: sum(n / 10 * (r + gamma * v[t]) for n, t, r in TENTHS[pair]) for pair in q}
    return np.array([q[pair] for pair in sorted(q)])


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.9, 1.0])
def test_value_iteration_on_exact_data_is_the_exact_solution(gamma):
    found = value_iteration_from(exact_data(), gamma=gamma, unseen="raise")
    np.testing.assert_allclose(found.q, solved(gamma), rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.values[:3], [found.q[:2].max(), found.q[2:5].max(), found.q[5]])
    assert found.values[3] == 0.0
    assert found.policy[3] == -1
    if gamma < 1:
        assert np.abs(found.q - solved(gamma)).max() <= found.bound + 1e-14


def test_order_and_repetition_of_the_data_change_nothing():
    data = exact_data()
    shuffled = np.random.default_rng(0).permutation(np.tile(np.arange(len(data.row)), 3))
    again = type(data)(
        data.row[shuffled], data.reward[shuffled], data.next_state[shuffled], data.terminated[shuffled], data.row_ptr
    )
    first, second = value_iteration_from(data, gamma=0.9), value_iteration_from(again, gamma=0.9)
    np.testing.assert_allclose(first.q, second.q, atol=1e-9)


def test_q_learning_on_data_goes_to_the_same_fixed_point():
    data, exact = exact_data(), value_iteration_from(exact_data(), gamma=0.9)
    errors = [
        np.abs(q_learning_from(data, gamma=0.9, sweeps=sweeps, alpha_power=0.8, seed=1).q - exact.q).max()
        for sweeps in (10, 1000, 20_000)
    ]
    assert errors[0] > 0.3
    assert errors[1] < 0.3
    assert errors[2] < 0.05
    found = q_learning_from(data, gamma=0.9, sweeps=20_000, alpha_power=0.8, seed=1)
    assert np.abs(found.q - exact.q).max() <= found.bound
    np.testing.assert_array_equal(found.policy, exact.policy)


def test_a_sampled_data_set_is_the_model_of_its_counts():
    """By definition: Q = mean over the pair's transitions of r + gamma V(s')."""
    mdp = model()
    data = from_episodes(mdp, sample_episodes(sampler(mdp), 200, seed=3))
    found = value_iteration_from(data, gamma=0.9)
    for k in range(data.num_rows):
        mine = data.row == k
        target = data.reward[mine] + 0.9 * ~data.terminated[mine] * found.values[data.next_state[mine]]
        assert found.q[k] == pytest.approx(target.mean(), abs=1e-9)


def test_a_cut_episode_goes_on_and_a_terminated_one_does_not():
    """One state, reward 1 forever, seen as 9 steps that go on and one cut by a time limit: V = 1 / (1 - gamma)."""
    rows = {"state": [0] * 10, "action": [0] * 10, "reward": [1.0] * 10, "next_state": [0] * 10}
    cut = dataset(**rows, terminated=[False] * 10, num_states=1, num_actions=1)
    ended = dataset(**rows, terminated=[False] * 9 + [True], num_states=1, num_actions=1)
    assert value_iteration_from(cut, gamma=0.9).values[0] == pytest.approx(10.0)
    # v = 1 + 0.9 * 0.9 v
    assert value_iteration_from(ended, gamma=0.9).values[0] == pytest.approx(1 / (1 - 0.81))


def test_coverage_names_what_the_data_do_not_say():
    data = dataset([0, 0, 1], [0, 0, 1], [1.0, 1.0, 0.0], [1, 2, 3], [False, False, True], num_states=5, num_actions=2)
    found = data.coverage()
    assert found.counts.tolist() == [2, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    assert found.unseen.tolist() == [[0, 1], [1, 0], [2, 0], [2, 1]]
    assert (found.dead_ends.tolist(), found.terminal.tolist(), found.unvisited.tolist()) == ([2], [3], [4])
    assert str(found) == (
        "2 of 6 (state, action) pairs seen, 1 to 2 times each; unseen: action 1 of state 0, action 0 of state 1, "
        "action 0 of state 2, action 1 of state 2; reached but never left: state 2; never visited: state 4."
    )
    with pytest.raises(DataError, match="never tries action 1 of state 0, action 0 of state 1"):
        value_iteration_from(data, gamma=0.9, unseen="raise")


def test_unseen_pairs_are_left_out_or_worth_the_floor():
    """Without (1, 2): by hand with the floor at -20, or at the maximum of what remains."""
    data = exact_data(skip=[(1, 2)])
    without, floored = value_iteration_from(data, gamma=0.5), value_iteration_from(data, gamma=0.5, unseen="floor")
    assert np.isnan(without.q[4])
    assert floored.q[4] == -3.0 / (1 - 0.5)
    np.testing.assert_allclose(np.delete(without.q, 4), np.delete(floored.q, 4))
    assert value_iteration_from(data, gamma=0.5, unseen="floor", floor=5.0).policy[1] == 2
    # the empirical model, solved by definition, says the same
    csr = empirical_model(data, floor=-6.0, start=0).csr()
    v = np.zeros(6)
    for _ in range(200):
        p = np.add.reduceat(csr.probabilities * (csr.transition_rewards + 0.5 * v[csr.successors]), csr.ptr[:-1])
        v[:3] = np.maximum.reduceat(p, csr.row_ptr[:3])
    np.testing.assert_allclose(p, floored.q, atol=1e-9)
    assert csr.terminal.tolist() == [False, False, False, True, True, True]


def test_a_dead_end_is_worth_the_floor():
    data = dataset([0], [0], [1.0], [1], [False], num_states=2, num_actions=1)
    assert value_iteration_from(data, gamma=0.5).values.tolist() == [1.0, 0.0]  # no reward below 0 was seen
    assert value_iteration_from(data, gamma=0.5, floor=-4.0).values.tolist() == [-1.0, -4.0]
    with pytest.raises(ConfigError, match=r"Give floor"):
        value_iteration_from(data, gamma=1.0)
    with pytest.raises(DataError, match="action 0 of state 1"):
        value_iteration_from(data, gamma=0.5, unseen="raise")


def test_the_penalty_prefers_what_was_tried_often():
    """Two arms: 0.5 in each of 100 tries; 1.0 in one. Without penalty the lucky arm wins, with c = 1 it is at 0."""
    rewards = [0.5] * 100 + [1.0]
    data = dataset([0] * 101, [0] * 100 + [1], rewards, [1] * 101, [True] * 101, num_states=2, num_actions=[2, 0])
    assert value_iteration_from(data, gamma=0.9).policy[0] == 1
    found = value_iteration_from(data, gamma=0.9, penalty=1.0)
    np.testing.assert_allclose(found.q, [0.4, 0.0])
    assert found.policy[0] == 0
    np.testing.assert_allclose(value_iteration_from(data, gamma=0.9, penalty=9.0, floor=-1.0).q, [-0.4, -1.0])


def test_the_pessimistic_value_is_below_what_its_policy_earns():
    """In 100 data sets of 40 episodes each, with delta 0.05: the promise would be kept if it failed in 5 of them."""
    mdp, gamma, broken = model(), 0.5, 0
    csr = mdp.csr()
    for seed in range(100):
        data = from_episodes(mdp, sample_episodes(sampler(mdp), 40, seed=seed))
        found = value_iteration_from(data, gamma=gamma, unseen="floor", penalty=hoeffding_penalty(data, gamma=gamma))
        chosen = csr.row_ptr[:3] + found.policy[:3]
        p, r = np.zeros((3, 3)), csr.rewards[chosen]
        for s, k in enumerate(chosen):
            for j in range(csr.ptr[k], csr.ptr[k + 1]):
                if csr.successors[j] < 3:
                    p[s, csr.successors[j]] += csr.probabilities[j]
        truth = np.linalg.solve(np.eye(3) - gamma * p, r)
        broken += bool(np.any(found.values[:3] > truth))
    assert broken <= 5


@given(st.integers(0, 10_000), st.integers(1, 60))
def test_any_data_set_is_solved_to_its_own_equations(seed, size):
    rng = np.random.default_rng(seed)
    state, action = rng.integers(0, 4, size), rng.integers(0, 2, size)
    outcome = (rng.normal(size=size), rng.integers(0, 4, size), rng.random(size) < 0.3)
    data = dataset(state, action, *outcome, num_states=4, num_actions=2)
    for unseen in ("exclude", "floor"):
        found = value_iteration_from(data, gamma=0.9, unseen=unseen)
        v = found.values
        targets = data.reward + 0.9 * ~data.terminated * v[data.next_state]
        for k in set(data.row.tolist()):
            assert found.q[k] == pytest.approx(targets[data.row == k].mean(), abs=1e-8)
        for s in set(state.tolist()):
            assert v[s] == np.nanmax(found.q[2 * s : 2 * s + 2])
            assert found.q[2 * s + found.policy[s]] == v[s]


GOOD = {
    "state": [0, 1], "action": [0, 0], "reward": [0.0, 1.0], "next_state": [1, 0], "terminated": [False, True],
    "num_states": 2, "num_actions": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state": [0, 2]}, "state is 2 at transition 1; the data set has states 0 .. 1"),
        ({"next_state": [-1, 0]}, "next_state is -1 at transition 0; the data set has states 0 .. 1"),
        ({"action": [0, 3]}, "action is 3 at transition 1; its state has actions 0 .. 0"),
        ({"action": [0.0, 0.5]}, "action has dtype float64"),
        ({"reward": [0.0, np.nan]}, "reward is nan at transition 1"),
        ({"reward": [0.0]}, r"reward has shape (1,), state (2,)"),
        ({"terminated": [0, 1]}, "terminated has dtype int64; it is bool"),
        ({"state": []}, "at least one transition"),
    ],
)
def test_a_data_set_that_cannot_be_is_refused(changes, words):
    with pytest.raises(DataError, match=re.escape(words)):
        dataset(**GOOD | changes)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"gamma": 1.5}, ConfigError, "gamma is 1.5"),
        ({"gamma": 0.9, "penalty": -1.0}, ConfigError, "penalty is -1.0"),
        ({"gamma": 0.9, "unseen": "skip"}, ConfigError, "unseen is 'skip'"),
        ({"gamma": 0.9, "max_sweeps": 2}, DataError, "after 2 sweeps"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, error, words):
    with pytest.raises(error, match=re.escape(words)):
        value_iteration_from(exact_data(), **changes)


def test_a_loop_of_rewards_without_end_is_said():
    data = dataset([0], [0], [1.0], [0], [False], num_states=1, num_actions=1)
    with pytest.raises(DataError, match="a loop of rewards that never ends"):
        value_iteration_from(data, gamma=1.0, max_sweeps=1000)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"sweeps": 0}, "sweeps is 0"), ({"alpha": 0.0}, "alpha is 0.0"), ({"gamma": -0.1}, "gamma is")],
)
def test_q_learning_on_data_refuses_bad_rates(changes, words):
    with pytest.raises(ConfigError, match=words):
        q_learning_from(exact_data(), **{"gamma": 0.9, "sweeps": 1} | changes)
