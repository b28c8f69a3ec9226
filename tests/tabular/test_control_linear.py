"""Linear control, mountain car, gymnasium's worlds: against plain loops, the tables' learners and known numbers."""

from __future__ import annotations

import re
from collections import defaultdict

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from onepolicy.core.returns import discounted_returns, n_step_returns
from onepolicy.errors import ConfigError
from onepolicy.tabular import control
from onepolicy.tabular.control import Settings
from onepolicy.tabular.control.gym import learn_gym, state_index
from onepolicy.tabular.control.tiles import MOUNTAIN_CAR, active_tiles, sarsa_lambda_tiles, tiles_of
from onepolicy.tabular.features import aggregation, from_matrix, tile_indices, unit_cube
from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.simulate import streams, uniform
from onepolicy.tabular.worlds.gridworlds import cliff
from onepolicy.tabular.worlds.mountain_car import step as car_step
from onepolicy.tabular.worlds.walks import short_corridor

# three states with two, three and one action, all deterministic; state 3 is the end
NEXT = {(0, 0): (1, 1.0), (0, 1): (0, -1.0), (1, 0): (2, 0.5), (1, 1): (0, -0.5), (1, 2): (3, 2.0), (2, 0): (0, 1.0)}
ACTIONS = {0: 2, 1: 3, 2: 1}
X = np.array([[1.0, 0.5], [0.0, 2.0], [-1.0, 1.0], [5.0, 5.0]])
GAMMA, LAM, EPISODES, LIMIT = 0.9, 0.7, 30, 3


def model():
    rows = [(s, a, t, 1.0, r) for (s, a), (t, r) in NEXT.items()]
    return MDP.from_coo(*map(list, zip(*rows)), num_states=4, start=0)


def naive_sarsa_lambda(alpha, epsilon, replacing, seed):
    """Dense weights [A, d] and traces, q as a product, everything written out."""
    stream, w = streams(seed, 1)[0], np.zeros((3, 2))

    def act(s):
        u, q = uniform(stream), w[: ACTIONS[s]] @ X[s]
        if u < epsilon:
            return int(u / epsilon * ACTIONS[s])
        ties = np.flatnonzero(q == q.max())
        return int(ties[int((u - epsilon) / (1 - epsilon) * len(ties))])

    for _ in range(EPISODES):
        uniform(stream)
        s, z, length = 0, np.zeros((3, 2)), 0
        a = act(s)
        while s != 3 and length < LIMIT:
            z *= GAMMA * LAM
            if replacing:
                z[a] = np.where(X[s] != 0, X[s], z[a])
            else:
                z[a] += X[s]
            t, r = NEXT[s, a]
            delta = r - w[a] @ X[s]
            if t != 3:
                b = act(t)
                delta += GAMMA * w[b] @ X[t]
            w += alpha * delta * z
            s, a, length = t, b, length + 1
    return w


@pytest.mark.parametrize("trace", ["accumulating", "replacing"])
def test_sarsa_lambda_is_the_plain_loop(trace):
    chosen = Settings(episodes=EPISODES, alpha=0.02, epsilon=0.2, gamma=GAMMA, max_steps=LIMIT, seed=5)
    found = control.sarsa_lambda(model(), chosen, lam=LAM, features=from_matrix(X), trace=trace)
    w = naive_sarsa_lambda(0.02, 0.2, trace == "replacing", 5)
    np.testing.assert_allclose(found.tables["weights"][0].reshape(3, 2), w, atol=1e-8)
    np.testing.assert_allclose(found.q[0], [w[a] @ X[s] for s, a in sorted(NEXT)], atol=1e-8)
    assert 0 < found.truncated.sum() < EPISODES


def test_sarsa_lambda_of_a_table_at_lambda_0_is_sarsa():
    chosen = Settings(episodes=100, alpha=0.5, runs=2)
    one, other = control.sarsa_lambda(cliff(), chosen, lam=0.0), control.sarsa(cliff(), chosen)
    np.testing.assert_allclose(one.q, other.q, atol=1e-9)
    np.testing.assert_array_equal(one.lengths, other.lengths)


def test_traces_carry_an_end_s_reward_back_over_the_whole_episode():
    """Ten states in a row, reward 1 at the end: at lambda 1, alpha 1 every state is right after one episode."""
    corridor = MDP.from_coo(range(10), [0] * 10, range(1, 11), [1.0] * 10, [0.0] * 9 + [1.0], num_states=11, start=0)
    chosen = Settings(episodes=1, alpha=1.0, gamma=0.9)
    found = control.sarsa_lambda(corridor, chosen, lam=1.0)
    np.testing.assert_allclose(found.q[0], 0.9 ** np.arange(9, -1, -1))
    assert np.count_nonzero(control.sarsa_lambda(corridor, chosen, lam=0.0).q) == 1


def naive_actor_critic(alpha, actor_alpha, lam, seed):
    stream, theta, w = streams(seed, 1)[0], np.zeros((3, 2)), np.zeros(2)
    for _ in range(EPISODES):
        uniform(stream)
        s, z, zw, length = 0, np.zeros((3, 2)), np.zeros(2), 0
        while s != 3 and length < LIMIT:
            n = ACTIONS[s]
            p = np.exp(theta[:n] @ X[s])
            p /= p.sum()
            a = min(int(np.searchsorted(np.cumsum(p), uniform(stream), side="right")), n - 1)
            z, zw = GAMMA * lam * z, GAMMA * lam * zw + X[s]
            z[:n] += ((np.arange(n) == a) - p)[:, None] * X[s]
            t, r = NEXT[s, a]
            delta = r + (GAMMA * w @ X[t] if t != 3 else 0.0) - w @ X[s]
            w, theta = w + alpha * delta * zw, theta + actor_alpha * delta * z
            s, length = t, length + 1
    return theta, w


@pytest.mark.parametrize("lam", [0.0, LAM])
def test_actor_critic_is_the_plain_loop(lam):
    chosen = Settings(episodes=EPISODES, alpha=0.05, gamma=GAMMA, max_steps=LIMIT, seed=6)
    found = control.actor_critic(model(), chosen, actor_alpha=0.03, lam=lam, features=from_matrix(X))
    theta, w = naive_actor_critic(0.05, 0.03, lam, 6)
    np.testing.assert_allclose(found.tables["actor"][0].reshape(3, 2), theta, atol=1e-7)
    np.testing.assert_allclose(found.tables["critic"][0], w, atol=1e-7)
    np.testing.assert_allclose(found.tables["values"][0, :3], X[:3] @ w, atol=1e-7)
    by_state = defaultdict(float)
    for (s, _), p in zip(sorted(NEXT), found.tables["policy"][0]):
        by_state[s] += p
    assert all(total == pytest.approx(1.0) for total in by_state.values())


def test_actor_critic_finds_the_corridor_s_mixed_policy():
    """All states look alike: the best probability of right is 2 - sqrt(2) = 0.586, worth -11.66 from the start;
    an epsilon-greedy table policy gets -44.2 or -82.1. One feature for all states, lambda 1: REINFORCE with a baseline.
    """
    chosen = Settings(episodes=3000, alpha=0.001, runs=20, seed=1)
    corridor = short_corridor()
    right = corridor.action_names.index("right")
    alike = aggregation([0] * corridor.num_states)
    found = control.actor_critic(corridor, chosen, actor_alpha=0.0005, lam=1.0, features=alike)
    share = found.tables["policy"][:, right]
    assert share.mean() == pytest.approx(2 - np.sqrt(2), abs=0.03)
    assert found.returns[:, 2000:].mean() == pytest.approx(-11.66, abs=0.5)


def test_actor_critic_learns_to_walk_at_the_cliff():
    found = control.actor_critic(cliff(), Settings(episodes=2000, alpha=0.2, runs=10, max_steps=500), actor_alpha=0.05)
    assert found.returns[:, 1800:].mean() > -25  # the best is -13, a random walk loses thousands
    assert found.returns[:, 0].mean() < -500


def test_tiles_are_those_of_the_features():
    rng = np.random.default_rng(0)
    low, high = np.array([-1.2, -0.07]), np.array([0.5, 0.07])
    points = low + (high - low) * np.vstack([rng.random((200, 2)), [[0, 0], [1, 1], [0, 1], [0.5, 0.25]]])
    coding, out = tiles_of(low, high, tiles=8, tilings=8), np.empty(8, dtype=np.int64)
    for point, want in zip(points, tile_indices(unit_cube(points, low, high), tiles=8, tilings=8)):
        active_tiles(coding, point, out)
        assert out.tolist() == want.tolist()


def test_mountain_car_curve():
    """Steps of an episode at alpha 0.5/8, epsilon 0: the mean of the first 50 is 282.7."""
    found = sarsa_lambda_tiles(MOUNTAIN_CAR, Settings(episodes=50, alpha=0.5 / 8, epsilon=0.0, runs=20), lam=0.0)
    each = found.lengths.mean(axis=1)
    assert abs(each.mean() - 282.7) <= 3 * np.sqrt(2) * each.std(ddof=1) / np.sqrt(20)
    assert (found.returns == -found.lengths).all()


@pytest.mark.slow
@pytest.mark.parametrize(("step", "late", "early"), [(0.1, 138.0, 566.7), (0.2, 127.3, 406.1), (0.5, 118.0, 282.7)])
def test_mountain_car_curves(step, late, early):
    """Steps of episodes 401 to 500, and of the first 50, at three step sizes."""
    chosen = Settings(episodes=500, alpha=step / 8, epsilon=0.0, runs=100, seed=3)
    found = sarsa_lambda_tiles(MOUNTAIN_CAR, chosen, lam=0.0)
    for each, target in ((found.lengths[:, 400:].mean(axis=1), late), (found.lengths[:, :50].mean(axis=1), early)):
        assert abs(each.mean() - target) <= 3 * np.sqrt(2) * each.std(ddof=1) / 10 + 0.05


def test_a_mountain_car_s_first_episode_by_a_plain_loop():
    stream, w, size, alpha = streams(4, 1)[0], np.zeros((8 * 81, 3)), 40, 0.05
    chosen = Settings(episodes=1, alpha=alpha, epsilon=0.1, gamma=0.9, seed=4, max_steps=size)

    def tiles(x, v):
        return tile_indices(unit_cube([[x, v]], MOUNTAIN_CAR.low, MOUNTAIN_CAR.high), tiles=8, tilings=8)[0]

    def act(q):
        u = uniform(stream)
        if u < 0.1:
            return int(u / 0.1 * 3)
        ties = np.flatnonzero(q == q.max())
        return int(ties[int((u - 0.1) / 0.9 * len(ties))])

    x, v, z = -0.6 + 0.2 * uniform(stream), 0.0, np.zeros_like(w)
    action, here = act(w[tiles(x, v)].sum(axis=0)), tiles(x, v)
    for _ in range(size):
        z *= 0.9 * 0.8
        z[here, action] = 1.0
        delta = -w[here, action].sum()
        x, v, reward, _ = car_step(x, v, action)
        here = tiles(x, v)
        action = act(w[here].sum(axis=0))
        w += alpha * (reward + delta + 0.9 * w[here, action].sum()) * z
    found = sarsa_lambda_tiles(MOUNTAIN_CAR, chosen, lam=0.8)
    assert found.truncated.all()
    np.testing.assert_allclose(found.q[0].reshape(-1, 3), w, atol=1e-8)


@pytest.mark.parametrize(
    ("rule", "learner"),
    [("sarsa", control.sarsa), ("q-learning", control.q_learning), ("expected-sarsa", control.expected_sarsa)],
)
def test_a_gymnasium_world_is_learnt_as_its_model(rule, learner):
    """CliffWalking is deterministic and starts in one state: both paths draw the same numbers and leave the same Q."""
    chosen = Settings(episodes=20, alpha=0.5, epsilon=0.2, gamma=0.95, runs=2, max_steps=60)
    env = gymnasium.make("CliffWalking-v1")
    found, model_based = learn_gym(env, chosen, rule=rule), learner(cliff(), chosen)
    np.testing.assert_array_equal(found.lengths, model_based.lengths)
    np.testing.assert_array_equal(found.truncated, model_based.truncated)
    np.testing.assert_allclose(found.returns, model_based.returns)
    np.testing.assert_allclose(found.q[:, : model_based.q.shape[1]], model_based.q, atol=1e-10)
    assert found.truncated.any()


def test_a_gymnasium_world_s_time_limit_keeps_the_bootstrap():
    class Forever(gymnasium.Env):
        observation_space, action_space = spaces.Discrete(1, start=3), spaces.Discrete(1, start=7)

        def reset(self, *, seed=None, options=None):
            return 3, {}

        def step(self, action):
            assert action == 7
            return 3, 1.0, False, True, {}

    found = learn_gym(Forever(), Settings(episodes=500, alpha=0.2, gamma=0.9), rule="q-learning")
    assert found.q[0, 0] == pytest.approx(10.0, abs=1e-3)


def test_observations_of_several_numbers_are_counted():
    size, index = state_index(spaces.Tuple((spaces.Discrete(3), spaces.MultiDiscrete([2, 4]))))
    assert size == 24
    assert {index((i, np.array([j, k]))) for i in range(3) for j in range(2) for k in range(4)} == set(range(24))
    found = learn_gym(gymnasium.make("Blackjack-v1"), Settings(episodes=200, alpha=0.1), rule="sarsa")
    assert found.q.shape == (1, 704 * 2)
    assert set(found.returns[0]) <= {-1.0, 0.0, 1.0}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: control.sarsa_lambda(cliff(), Settings(), lam=1.5), "lam is 1.5"),
        (lambda: control.sarsa_lambda(cliff(), Settings(), lam=0.5, trace="dutch"), "trace is 'dutch'"),
        (lambda: control.sarsa_lambda(cliff(), Settings(), lam=0.5, features=from_matrix(X)), "features are of 4"),
        (lambda: control.sarsa_lambda(cliff(), Settings(initial_q=1.0), lam=0.5), "belong to tables"),
        (lambda: control.actor_critic(cliff(), Settings(), actor_alpha=0.0), "actor_alpha is 0.0"),
        (lambda: sarsa_lambda_tiles(MOUNTAIN_CAR, Settings(), lam=0.5, tiles=0), "tiles is 0"),
        (lambda: sarsa_lambda_tiles(MOUNTAIN_CAR, Settings(alpha_power=0.5), lam=0.5), "belong to finite models"),
        (lambda: tiles_of(np.zeros(2), np.array([1.0, 0.0]), tiles=8, tilings=8), "needs low < high"),
        (
            lambda: learn_gym(gymnasium.make("CliffWalking-v1"), Settings(), rule="q_learning"),
            "rule is 'q_learning', which is none of ours. Did you mean 'q-learning'?",
        ),
        (lambda: learn_gym(gymnasium.make("CartPole-v1"), Settings(), rule="sarsa"), "a table needs Discrete"),
        (lambda: learn_gym(gymnasium.make("CliffWalking-v1"), Settings(reward_std=1.0), rule="sarsa"), "reward_std"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(call, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        call()


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 5), st.floats(0, 1), st.integers(0, 10_000))
@examples(max_examples=40, deadline=None)
def test_returns_are_those_of_the_core(states, limit, n, gamma, seed):
    """A row of states walked once, cut before its end or not: at step size 1, Q becomes the return itself."""
    rng = np.random.default_rng(seed)
    reward, q = rng.normal(size=states), rng.normal(size=states)
    ahead = range(1, states + 1)
    chain = MDP.from_coo(range(states), [0] * states, ahead, np.ones(states), reward, num_states=states + 1, start=0)
    chosen = Settings(episodes=1, alpha=1.0, gamma=gamma, max_steps=limit, initial_q=q)
    steps = min(states, limit)
    values = np.append(q, 0.0)[1 : steps + 1]
    rewards, discount = torch.tensor(reward[:steps]), torch.full((steps,), gamma, dtype=torch.float64)
    discount[-1] *= steps < states  # terminated, not truncated
    monte_carlo = discounted_returns(rewards, discount, torch.tensor(values[-1]))
    np.testing.assert_allclose(control.mc_control(chain, chosen).q[0, :steps], monte_carlo.numpy(), atol=1e-12)
    bootstrapped = n_step_returns(rewards, discount, torch.tensor(values), n)
    np.testing.assert_allclose(control.n_step_sarsa(chain, chosen, n=n).q[0, :steps], bootstrapped.numpy(), atol=1e-12)
    one_step = rewards + discount * torch.tensor(values)
    np.testing.assert_allclose(control.q_learning(chain, chosen).q[0, :steps], one_step.numpy(), atol=1e-12)
