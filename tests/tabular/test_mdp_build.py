"""Models from matrices, a grid drawn as text, gymnasium's worlds, a step function, and a compiled function."""

from __future__ import annotations

import re
from types import SimpleNamespace

import gymnasium
import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from tests.tabular.conftest import as_mdp, random_rational

from onepolicy.errors import ConfigError, DataError
from onepolicy.tabular.build import from_arrays, from_function, from_grid, from_gymnasium, from_step
from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.planning import plan


def entries(mdp: MDP) -> dict[tuple[int, int], dict[int, tuple[float, float]]]:
    """(state, action) -> successor -> probability and reward, as stored."""
    csr, found = mdp.csr(), {}
    for s in range(mdp.num_states):
        for a in range(mdp.num_actions(s)):
            k = csr.row_ptr[s] + a
            found[s, a] = {
                int(csr.successors[i]): (float(csr.probabilities[i]), float(csr.transition_rewards[i]))
                for i in range(csr.ptr[k], csr.ptr[k + 1])
            }
    return found


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 5), st.integers(1, 3), st.booleans())
def test_dense_and_sparse_matrices_are_the_same_model(seed, states, actions, ending):
    """Ragged actions: those that a state lacks have the reward -inf in [S, A]; transition rewards need all of them."""
    model = random_rational(seed, states, actions, ending=ending)
    p, r = np.zeros((actions, states, states)), np.zeros((actions, states, states))
    expected = np.full((states, actions), -np.inf)
    for (s, a), row in model.items():
        for t, (probability, reward) in row.items():
            p[a, s, t], r[a, s, t] = float(probability), float(reward)
        expected[s, a] = float(sum(p * r for p, r in row.values()))
    ends = [states - 1] if ending else []
    mdp = from_arrays(p, expected, terminal=ends)
    listed = as_mdp(model, states)
    for s, a in model:
        assert {t: x for t, (x, _) in entries(mdp)[s, a].items()} == {
            t: x for t, (x, _) in entries(listed)[s, a].items()
        }
    np.testing.assert_allclose(mdp.csr().rewards, listed.csr().rewards, rtol=1e-12, atol=1e-12)
    matrices = [sparse.csr_array(matrix) for matrix in p]
    assert entries(from_arrays(matrices, expected, terminal=ends)) == entries(mdp)
    for s in range(states - ending):
        for a in range(actions):
            if (s, a) not in model:
                p[a, s, s] = 1
    whole = entries(from_arrays(p, r, terminal=ends))
    assert {key: row for key, row in whole.items() if key in model} == entries(listed)
    assert whole == entries(from_arrays(list(map(sparse.coo_array, p)), list(map(sparse.coo_array, r)), terminal=ends))


def test_actions_that_are_not_allowed_keep_the_numbers_of_the_others():
    """State 0 may do 0 and 2, state 1 only 1: rows (0, 0), (0, 2), (1, 1)."""
    move = np.array([np.eye(2), np.eye(2)[::-1], np.eye(2)[::-1]])
    no = -np.inf
    mdp = from_arrays(move, np.array([[1.0, no, 3.0], [no, 5.0, no]]))
    assert mdp.row_labels.tolist() == [0, 2, 1]
    assert mdp.csr().rewards.tolist() == [1, 3, 5]
    assert mdp.csr().successors.tolist() == [0, 1, 0]
    assert from_arrays(move, np.zeros((2, 3))).row_labels is None


def test_rewards_of_states_and_states_that_end():
    """Rows of zeros, or a stay for nothing, end; [S] pays for being in a state, whatever is done."""
    move = np.array([[[0.0, 1.0], [0.0, 0.0]]] * 2)
    mdp = from_arrays(move, [7.0, 0.0])
    assert mdp.terminal.tolist() == [False, True]
    assert mdp.csr().rewards.tolist() == [7, 7]
    stays = np.array([[[0.0, 1.0], [0.0, 1.0]]] * 2)
    assert entries(from_arrays(stays, [7.0, 0.0], terminal=[1])) == entries(mdp)
    assert from_arrays(stays, [7.0, 0.0]).num_rows == 4


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: from_arrays([], []), "give one [S, S] for each action"),
        (lambda: from_arrays(np.ones((1, 2, 3)), np.ones(2)), "transitions have shapes [(2, 3)]"),
        (lambda: from_arrays(np.eye(2), np.ones(2)), "transitions have shapes [(2,), (2,)]"),
        (lambda: from_arrays([np.eye(2)], np.ones(3)), "rewards have shape (3,); give [S], [S, A] or [A, S, S], with"),
        (lambda: from_arrays([np.eye(2)] * 2, [sparse.eye_array(2)]), "There are 1 sparse reward matrices"),
        (lambda: from_arrays([np.eye(2)], [[np.nan], [0.0]]), "State 0, action 0 -> 0 has probability 1 and reward na"),
        (lambda: from_arrays([[[-1.0, 2.0], [0, 1]]], np.ones(2)), "State 0, action 0 -> 0 has probability -1"),
        (lambda: from_grid("..\n..."), "The lines of the grid have lengths [2, 3]"),
        (lambda: from_grid("  \n"), "The lines of the grid have lengths []"),
        (lambda: from_grid("##"), "num_states is 0"),
        (lambda: from_grid("S.G", rewards={"X": 1.0, "G": 2.0}), "rewards names ['X'], which the grid does not have"),
    ],
)
def test_matrices_and_grids_that_do_not_fit_are_named(call, words):
    with pytest.raises(DataError, match=re.escape(words)):
        call()


def test_a_slip_is_a_probability():
    for slip in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigError, match=rf"slip is {slip}; a probability is from 0 to 1"):
            from_grid("S.G", slip=slip)


def test_a_grid_by_hand():
    """Cells (0,0) S, (0,1), (1,0), (1,2) G; (0,2) and (1,1) are walls. With slip 0.2: right from S arrives with 0.8,
    bumps into the edge above with 0.1, comes down with 0.1."""
    mdp = from_grid("S.#\n.#G", slip=0.2, rewards={"G": 10.0})
    assert mdp.state_names == ("(0,0)", "(0,1)", "(1,0)", "(1,2)")
    assert mdp.action_names == ("up", "right", "down", "left")
    assert mdp.terminal.tolist() == [False, False, False, True]
    assert mdp.start.tolist() == [1, 0, 0, 0]
    row = entries(mdp)[0, 1]
    assert {t: (round(p, 12), r) for t, (p, r) in row.items()} == {0: (0.1, -1), 1: (0.8, -1), 2: (0.1, -1)}
    assert {t: round(p, 12) for t, (p, _) in entries(mdp)[0, 0].items()} == {0: 0.9, 1: 0.1}
    assert mdp.reachable().tolist() == [True, True, True, False]
    sure = from_grid("S.G", rewards={"G": 10.0}, step_reward=-2.0)
    assert [entries(sure)[1, a] for a in range(4)] == [{1: (1, -2)}, {2: (1, 10)}, {1: (1, -2)}, {0: (1, -2)}]
    assert from_grid("..G").start.tolist() == [0.5, 0.5, 0]
    assert from_grid("SoG", terminal="o", dtype="float32").terminal.tolist() == [False, True, False]


TOYS = [
    ("FrozenLake-v1", {}, 16, [5, 7, 11, 12, 15]),
    ("FrozenLake-v1", {"desc": ["SF", "HG"], "is_slippery": False}, 4, [2, 3]),
    ("CliffWalking-v1", {}, 48, [47]),
    ("CliffWalkingSlippery-v1", {}, 48, [47]),
    ("Taxi-v4", {}, 501, [500]),
]


@pytest.mark.parametrize(("name", "options", "states", "ends"), TOYS)
def test_the_table_of_a_gymnasium_world(name, options, states, ends):
    """Every row is that of `P`, what ends led to a terminal state; made worlds and ids are the same."""
    env = gymnasium.make(name, **options)
    mdp = from_gymnasium(env)
    assert mdp.num_states == states
    assert np.flatnonzero(mdp.terminal).tolist() == ends
    table, found = env.unwrapped.P, entries(mdp)
    for (s, a), row in found.items():
        expected: dict[int, list[float]] = {}
        for p, t, r, done in table[s][a]:
            each = expected.setdefault(states - 1 if done and states > len(table) else int(t), [0.0, 0.0])
            each[0] += p
            each[1] += p * r
        assert set(row) == set(expected)
        for t, (p, r) in row.items():
            assert (p, p * r) == pytest.approx(tuple(expected[t]), abs=1e-12)
    assert len(found) == sum(len(table[s]) for s in table if s not in ends)
    np.testing.assert_allclose(mdp.start[: len(table)], env.unwrapped.initial_state_distrib)
    if not options:
        assert entries(from_gymnasium(name)) == found


def test_a_state_that_sometimes_ends_gets_a_last_one_beside_it():
    """Entering 1 from 0 ends with action 1 and not with action 0; state 1 goes on to 0."""
    table = {
        0: {0: [(1.0, 1, 2.0, False)], 1: [(0.5, 1, 4.0, True), (0.5, 0, 0.0, False)]},
        1: {0: [(1.0, 0, 3.0, False)]},
    }
    world = SimpleNamespace(P=table)
    mdp = from_gymnasium(SimpleNamespace(unwrapped=world))
    assert mdp.terminal.tolist() == [False, False, True]
    assert entries(mdp) == {(0, 0): {1: (1, 2)}, (0, 1): {0: (0.5, 0), 2: (0.5, 4)}, (1, 0): {0: (1, 3)}}
    assert mdp.start.tolist() == [0.5, 0.5, 0]


def test_gymnasium_worlds_without_a_table_or_unknown_are_refused():
    with pytest.raises(ConfigError, match=r"gymnasium has no world 'FrozenLak-v1'\. Did you mean 'FrozenLake-v1'\?"):
        from_gymnasium("FrozenLak-v1")
    for env in ("Blackjack-v1", gymnasium.make("Blackjack-v1"), gymnasium.make("CartPole-v1")):
        with pytest.raises(ConfigError, match=r"has no table P of transitions; use from_step, or learn from episodes"):
            from_gymnasium(env)


def test_exploring_a_step_function():
    """A countdown of two piles, states of tuples: (1, 2) can lose one of either pile; the last to take earns 1."""

    def step(state, action):
        left = tuple(n - (i == action) for i, n in enumerate(state))
        return [(0.75, left, float(sum(left) == 0)), (0.25, state, 0.0)]

    mdp, states = from_step(step, lambda state: [i for i, n in enumerate(state) if n], (1, 2))
    assert states == [(1, 2), (0, 2), (1, 1), (0, 1), (1, 0), (0, 0)]
    assert [mdp.num_actions(s) for s in range(6)] == [2, 1, 2, 1, 1, 0]
    assert mdp.state_names[1] == "(0, 2)"
    assert mdp.start.tolist() == [1, 0, 0, 0, 0, 0]
    assert entries(mdp)[2, 1] == {2: (0.25, 0), 4: (0.75, 0)}
    assert plan(mdp, 1.0).value == pytest.approx([1, 1, 1, 1, 1, 0], abs=1e-6)
    again, same = from_step(step, lambda state: [i for i, n in enumerate(state) if n], {(0, 1): 0.25, (1, 0): 0.75})
    assert same == [(0, 1), (1, 0), (0, 0)]
    assert again.start.tolist() == [0.25, 0.75, 0]


def test_exploration_stops_at_the_most_states():
    """0, 1, ... 9: ten states are allowed, nine are not, and the one too many is named."""

    def further(n, action):
        return [(1.0, n + action, -1.0)]

    mdp, states = from_step(further, lambda n: [1] if n < 9 else [], 0, max_states=10)
    assert (mdp.num_states, states) == (10, list(range(10)))
    with pytest.raises(ConfigError, match="Exploration met more than max_states=9 states, the last 9"):
        from_step(further, lambda n: [1] if n < 9 else [], 0, max_states=9)
    with pytest.raises(ConfigError, match="max_states=1,000 states, the last 1000"):
        from_step(further, lambda n: [1], 0, max_states=1000)


def test_where_nothing_can_be_done_or_nothing_follows_is_named():
    with pytest.raises(DataError, match=r"nothing can be done in the start 'home': actions\('home'\) is empty"):
        from_step(lambda s, a: [], lambda s: [], "home")
    with pytest.raises(DataError, match=r"step\(1, 'go'\) has no outcomes; its probabilities sum to 1"):
        from_step(lambda s, a: [(1.0, 1, 0.0)] if s == 0 else [], lambda s: ["go"], 0)
    with pytest.raises(DataError, match="start has shape"):
        from_step(lambda s, a: [(1.0, 2, 0.0)], lambda s: ["go"] if s < 2 else [], {0: 0.5, 1: 0.4})


@numba.njit
def slide(s, a, k):
    """Down to 0, which ends, one or two at a time."""
    return (max(s - a - 1, 0), 0.5, -1.0) if k == 0 else (s, 0.5, -1.0)


def test_a_compiled_function_is_a_model():
    """From 1: leaving takes two tries of -1 on average; from 3 by two: 3 -> 1 -> 0, four tries."""
    mdp = from_function(slide, num_states=4, num_actions=2, num_outcomes=2, terminal=[0], start=3)
    assert (mdp.num_rows, mdp.row_ptr.tolist()) == (6, [0, 0, 2, 4, 6])
    assert mdp.start.tolist() == [0, 0, 0, 1]
    assert entries(mdp)[3, 1] == {1: (0.5, -1), 3: (0.5, -1)}
    assert plan(mdp, 1.0).value == pytest.approx([0, -2, -2, -4], abs=1e-6)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"num_states": 0}, "num_states is 0; an MDP has 1 to 2^31 - 1 states"),
        ({"num_states": 2**31}, "num_states is 2147483648"),
        ({"num_actions": [1, 2]}, "num_actions has shape (2,); give one number, or one for each of 4"),
        ({"num_actions": -1}, "State 1 has no actions and is not terminal"),
        ({"num_outcomes": 1}, "State 1, action 0: the probabilities of the outcomes sum to 0.5, not 1"),
    ],
)
def test_settings_of_a_compiled_function_that_do_not_fit(changed, words):
    given_ = {"num_states": 4, "num_actions": 2, "num_outcomes": 2, "terminal": [0]}
    with pytest.raises(DataError, match=re.escape(words)):
        from_function(slide, **(given_ | changed))
