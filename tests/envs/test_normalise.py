"""Normalisation: the statistic against plain means, what is counted and what is not, and errors that stay visible."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from onepolicy.acting.collect import Collector
from onepolicy.acting.normalised import NormalisedPolicy
from onepolicy.batch import EnvStep
from onepolicy.envs.classic import CartPole
from onepolicy.envs.normalise import EPS, PRIOR, Moments, Normalised
from onepolicy.envs.vector import Discrete, make
from onepolicy.errors import ConfigError, DataError
from onepolicy.evaluation.returns import evaluate_policy, play
from onepolicy.nn.policies import CategoricalPolicy


def plain(rows):
    """Mean and variance of the rows and of PRIOR rows with mean 0 and variance 1, by their sums."""
    total = PRIOR + len(rows)
    mean = rows.sum(axis=0) / total
    return mean, (PRIOR + np.square(rows).sum(axis=0)) / total - np.square(mean)


@settings(max_examples=50, deadline=None)
@given(rows=arrays(np.float64, (24, 3), elements=st.floats(-100, 100)), cut=st.integers(1, 23))
def test_the_statistic_of_blocks_is_that_of_all_rows(rows, cut):
    moments = Moments(3)
    for block in (rows[:cut], rows[cut:]):
        moments.update(block)
    mean, var = plain(rows)
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(moments.var, var, rtol=1e-6, atol=1e-6)
    assert moments.count == pytest.approx(PRIOR + 24)


def test_two_numbers_by_hand():
    """After 1 and 3 (the prior hardly counts): mean 2, variance 1; 4 is 2 deviations up, 1000 is held at 10."""
    moments = Moments(1)
    moments.update(np.array([[1.0], [3.0]]))
    assert moments.mean[0] == pytest.approx(2.0, abs=1e-3)
    assert moments.var[0] == pytest.approx(1.0, abs=1e-3)
    np.testing.assert_allclose(
        moments.standardise(np.array([[4.0], [1000.0], [-1000.0]]))[:, 0], [2, 10, -10], atol=2e-3
    )
    np.testing.assert_allclose(moments.scale(np.array([4.0, -1000.0])), [4.0, -10.0], atol=2e-3)  # not centred


class Counting:
    """Two copies that see k and 100 + k after k steps; copy 0 ends every `last` steps, truncated; rewards 1 and -2."""

    env_id, obs_dim, layout, actions, num_envs = "Counting", 1, None, Discrete(2), 2

    def __init__(self, last=3, bad=None):
        self.last, self.bad = last, bad or {}
        self.reset(0)

    @property
    def obs(self):
        return self.now.clone()

    def reset(self, seed):
        self.t, self.now = 0, torch.tensor([[0.0], [100.0]])
        return self.now

    def step(self, action):
        self.t += 1
        ended = torch.tensor([self.t % self.last == 0, False])
        final = torch.tensor([[float(self.t)], [100.0 + self.t]])
        reward = torch.tensor([1.0, -2.0])
        kind, value = self.bad.get(self.t, ("", 0.0))
        if kind == "obs":
            final[1] = value
        if kind == "reward":
            reward[1] = value
        self.now = torch.where(ended[:, None], torch.zeros(2, 1), final)
        return EnvStep(self.now.clone(), reward, torch.zeros(2).bool(), ended, final)

    def state_dict(self):
        return {"t": self.t, "now": self.now.clone()}

    def load_state_dict(self, state):
        self.t, self.now = state["t"], state["now"].clone()


def steps_of(env, count):
    return [env.step(torch.zeros(env.num_envs, dtype=torch.int64)) for _ in range(count)]


def test_what_is_acted_on_is_counted_and_what_ended_an_episode_is_scaled_alone():
    env = Normalised(Counting(), gamma=0.9)
    rows = [[0.0], [100.0], [1.0], [101.0], [2.0], [102.0], [0.0], [103.0]]  # the reset's 0, not the final 3
    step = steps_of(env, 3)[-1]
    mean, var = plain(np.array(rows))
    np.testing.assert_allclose(env.obs_moments.mean, mean)
    std = np.sqrt(var + EPS)
    np.testing.assert_allclose(step.final_obs.numpy(), (np.array([[3.0], [103.0]]) - mean) / std, rtol=1e-6)
    np.testing.assert_allclose(step.obs.numpy(), (np.array([[0.0], [103.0]]) - mean) / std, rtol=1e-6)
    assert torch.equal(env.obs, step.obs)


def test_rewards_are_divided_by_the_deviation_of_the_discounted_return_that_begins_anew_with_an_episode():
    gamma, seen, returns = 0.5, [], np.zeros(2)
    env = Normalised(Counting(), gamma=gamma)
    for t, step in enumerate(steps_of(env, 7), start=1):
        returns = gamma * returns + np.array([1.0, -2.0])
        seen += returns.tolist()
        std = np.sqrt(plain(np.array(seen))[1] + EPS)
        np.testing.assert_allclose(step.reward.numpy(), np.array([1.0, -2.0]) / std, rtol=1e-6)
        assert step.raw_reward.tolist() == [1.0, -2.0]
        returns[0] *= t % 3 > 0


def test_one_of_the_two_alone():
    only_obs, only_reward = (Normalised(Counting(), gamma=0.9, obs=o, reward=not o) for o in (True, False))
    step = steps_of(only_obs, 2)[-1]
    assert step.raw_reward is None
    assert step.reward.tolist() == [1.0, -2.0]
    step = steps_of(only_reward, 2)[-1]
    assert torch.equal(step.obs, torch.tensor([[2.0], [102.0]]))


def test_one_statistic_for_all_copies():
    """A copy's observations depend on its neighbours', as gymnasium's own wrappers' do not."""
    env = Normalised(CartPole(4, 0), gamma=0.99)
    steps_of(env, 50)
    assert env.obs_moments.mean.shape == (4,)
    assert env.obs_moments.count == pytest.approx(4 * 51 + PRIOR)


def test_scaling_by_the_return_equals_what_the_raw_rewards_say_in_a_real_world():
    env, raw, rng = (
        Normalised(make("Pendulum-v1", 3, 0), gamma=0.9),
        make("Pendulum-v1", 3, 0),
        np.random.default_rng(0),
    )
    returns, seen = np.zeros(3), []
    for _ in range(450):
        action = torch.from_numpy(rng.uniform(-2, 2, (3, 1)).astype(np.float32))
        step, plainly = env.step(action), raw.step(action)
        assert torch.equal(step.raw_reward, plainly.reward)
        returns = 0.9 * returns + plainly.reward.numpy()
        seen += returns.tolist()
        returns[plainly.truncated.numpy()] = 0.0
    std = np.sqrt(plain(np.array(seen))[1] + EPS)
    np.testing.assert_allclose(step.reward.numpy(), plainly.reward.numpy() / std, rtol=1e-5)


@pytest.mark.parametrize("cut", [60, 200])
def test_a_saved_state_goes_on_as_if_never_stopped(cut):
    first, second = (Normalised(make("Pendulum-v1", 2, seed), gamma=0.9) for seed in (0, 9))
    rng = np.random.default_rng(0)
    actions = torch.from_numpy(rng.uniform(-2, 2, (cut + 250, 2, 1)).astype(np.float32))
    for action in actions[:cut]:
        first.step(action)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.obs, second.obs)
    for action in actions[cut:]:
        a, b = first.step(action), second.step(action)
        for name in ("obs", "reward", "final_obs"):
            assert torch.equal(getattr(a, name), getattr(b, name))


def test_a_saved_state_is_a_copy():
    env = Normalised(Counting(), gamma=0.9)
    state = env.state_dict()
    before = state["obs"]["mean"].copy()
    steps_of(env, 5)
    assert np.array_equal(state["obs"]["mean"], before)


@pytest.mark.parametrize(("kind", "value"), [("obs", np.nan), ("obs", np.inf), ("reward", np.nan), ("reward", -np.inf)])
def test_what_is_not_finite_is_named_and_does_not_enter_the_statistic(kind, value):
    env = Normalised(Counting(bad={4: (kind, value)}), gamma=0.9)
    collector = Collector(env, CategoricalPolicy(1, 2, seed=0), steps=6, seed=0)
    word = "observation" if kind == "obs" else "reward"
    with pytest.raises(DataError, match=rf"Counting gave the {word} .*(nan|inf).* in world 1 after 4 steps"):
        collector.collect()
    for moments in (env.obs_moments, env.return_moments):
        assert np.isfinite(moments.mean).all()
        assert np.isfinite(moments.var).all()


def test_returns_are_reported_of_the_raw_rewards():
    env = Normalised(Counting(last=3), gamma=0.9)
    rollout = Collector(env, CategoricalPolicy(1, 2, seed=0), steps=7, seed=0).collect()
    assert [(e.world, e.total, e.length) for e in rollout.ended] == [(0, 3.0, 3), (0, 3.0, 3)]
    assert not torch.equal(rollout.reward[0], torch.ones(7))


def test_the_policy_for_the_world_itself_scales_what_it_sees_and_leaves_the_statistic_alone():
    env = Normalised(CartPole(8, 0), gamma=0.99)
    steps_of(env, 100)
    inner = CategoricalPolicy(4, 2, seed=0)
    policy = NormalisedPolicy(inner, env.obs_moments)
    before = env.obs_moments.state_dict()
    obs = CartPole(8, 3).obs
    scaled = torch.from_numpy(env.obs_moments.standardise(obs.numpy()))
    assert np.array_equal(policy.greedy()(obs.numpy()), inner.greedy()(scaled.numpy()))
    one, other = (p.sampler(np.random.default_rng(0)) for p in (policy, inner))
    for a, b in zip(one.draw(obs.numpy())[0], other.draw(scaled.numpy())[0], strict=True):
        assert np.array_equal(a, b)
    assert np.array_equal(one.value(obs.numpy()), other.value(scaled.numpy()))
    action = torch.zeros(8, dtype=torch.int64)
    assert torch.equal(policy.evaluate(obs, action).logp, inner.evaluate(scaled, action).logp)
    drawn = [p.act(o, rng=torch.Generator().manual_seed(0))[0] for p, o in ((policy, obs), (inner, scaled))]
    assert torch.equal(*drawn)
    assert evaluate_policy(policy, env="CartPole-v1", episodes=3, seed=0) == play(CartPole(3, 0), policy.greedy(), 3, 0)
    after = env.obs_moments.state_dict()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_a_discount_that_is_none_is_refused():
    with pytest.raises(ConfigError, match=r"gamma is 1\.5"):
        Normalised(CartPole(1, 0), gamma=1.5)


def test_numbers_that_are_to_stay_plain_do():
    """Masks of actions: the last two are as they were, and the statistic is that of the first alone."""
    moments, alone = Moments(1, plain=2), Moments(1)
    rows = np.array([[3.0, 1.0, 0.0], [5.0, 0.0, 1.0], [10.0, 1.0, 1.0]], np.float32)
    moments.update(rows), alone.update(rows[:, :1])
    assert moments.mean.tolist() == alone.mean.tolist()
    seen = moments.standardise(rows)
    assert seen.dtype == np.float32
    assert seen[:, 1:].tolist() == rows[:, 1:].tolist()
    assert seen[:, :1].tolist() == alone.standardise(rows[:, :1]).tolist()
