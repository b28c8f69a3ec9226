"""CartPole against gymnasium's, to the bit, step by step and over whole seeded runs."""

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.envs.classic import CartPole, accelerate
from onepolicy.errors import ConfigError


def push(*actions):
    return torch.tensor(actions)


@settings(max_examples=200, deadline=None)
@given(
    state=st.lists(st.floats(-3.0, 3.0), min_size=4, max_size=4),
    action=st.integers(0, 1),
)
def test_one_step_from_any_state_equals_gymnasium_to_the_bit(state, action):
    theirs = gymnasium.make("CartPole-v1").unwrapped
    theirs.reset(seed=0)
    theirs.state = np.array(state)
    obs, reward, terminated, _, _ = theirs.step(action)
    ours = CartPole(1, 0)
    ours.state[:, 0] = state
    step = ours.step(push(action))
    assert np.array_equal(step.final_obs[0].numpy(), obs)
    assert (float(step.reward[0]), bool(step.terminated[0])) == (reward, terminated)
    assert np.array_equal(accelerate(np.array(state)[:, None], np.array([20.0 * action - 10.0]))[:, 0], theirs.state)


def test_a_seeded_run_equals_gymnasium_episode_after_episode():
    worlds, seed = 3, 11
    ours = CartPole(worlds, seed)
    theirs = [gymnasium.make("CartPole-v1") for _ in range(worlds)]
    first = np.stack([env.reset(seed=seed + i)[0] for i, env in enumerate(theirs)])
    assert np.array_equal(ours.obs.numpy(), first)
    rng = np.random.default_rng(0)
    ends = 0
    for t in range(1500):
        # Half of the time the better action, so that long episodes and the time limit occur too.
        good = (ours.obs[:, 2] + 0.3 * ours.obs[:, 3] + 0.05 * ours.obs[:, 0] > 0).long()
        action = good if t > 300 else torch.from_numpy(rng.integers(0, 2, worlds))
        step = ours.step(action)
        for i, env in enumerate(theirs):
            obs, reward, terminated, truncated, _ = env.step(int(action[i]))
            assert np.array_equal(step.final_obs[i].numpy(), obs)
            assert (reward, terminated, truncated) == (
                float(step.reward[i]), bool(step.terminated[i]), bool(step.truncated[i]),
            )  # fmt: skip
            if terminated or truncated:
                obs, _ = env.reset()
                ends += 1
            assert np.array_equal(step.obs[i].numpy(), obs)
            assert np.array_equal(ours.state[:, i], np.asarray(env.unwrapped.state))
    assert ends > 20


def test_a_finished_world_starts_anew_in_the_same_step_and_its_last_observation_is_kept():
    env = CartPole(2, 0)
    env.state[:, 0] = [2.39, 10.0, 0.0, 0.0]  # the next step takes it past 2.4
    step = env.step(push(1, 1))
    assert step.terminated.tolist() == [True, False]
    assert float(step.final_obs[0, 0]) == pytest.approx(2.39 + 0.02 * 10.0)
    assert step.obs[0].abs().max() <= 0.05
    assert torch.equal(step.obs[1], step.final_obs[1])


def test_the_time_limit_truncates_and_does_not_terminate():
    env = CartPole(1, 0, max_steps=3)
    flags = []
    for action in (0, 1, 0):
        step = env.step(push(action))
        flags.append((bool(step.terminated[0]), bool(step.truncated[0])))
    assert flags == [(False, False), (False, False), (False, True)]
    assert env.elapsed.tolist() == [0]


def test_falling_at_the_time_limit_is_both():
    env = CartPole(1, 0, max_steps=1)
    env.state[:, 0] = [0.0, 0.0, 0.3, 0.0]
    step = env.step(push(1))
    assert bool(step.terminated[0])
    assert bool(step.truncated[0])


def test_a_world_does_not_depend_on_its_neighbours():
    alone, among = CartPole(1, 7), CartPole(5, 5)  # world 2 of the second has seed 7 too
    rng = np.random.default_rng(1)
    for _ in range(200):
        action = torch.from_numpy(rng.integers(0, 2, 5))
        one, five = alone.step(action[2:3]), among.step(action)
        assert torch.equal(one.obs[0], five.obs[2])


def test_a_saved_state_goes_on_as_if_never_stopped():
    first, second = CartPole(4, 0), CartPole(4, 99)
    rng = np.random.default_rng(0)
    actions = torch.from_numpy(rng.integers(0, 2, (120, 4)))
    for action in actions[:37]:
        first.step(action)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.obs, second.obs)
    for action in actions[37:]:  # several resets follow, so the generators must have been saved too
        a, b = first.step(action), second.step(action)
        assert torch.equal(a.obs, b.obs)
        assert torch.equal(a.terminated, b.terminated)


def test_reset_with_a_seed_forgets_the_past():
    env, fresh = CartPole(2, 3), CartPole(2, 3)
    for _ in range(30):
        env.step(push(0, 1))
    assert torch.equal(env.reset(3), fresh.obs)
    for _ in range(30):
        assert torch.equal(env.step(push(0, 1)).obs, fresh.step(push(0, 1)).obs)


@pytest.mark.parametrize("action", [[2, 0], [0, -1], [0], [[0, 1]], [0.0, 1.0]])
def test_actions_that_are_none_are_refused(action):
    with pytest.raises(ConfigError, match="takes as many int64 numbers, each 0"):
        CartPole(2, 0).step(torch.tensor(action))


def test_a_state_of_another_number_of_worlds_is_refused():
    with pytest.raises(ConfigError, match="num_envs=3"):
        CartPole(2, 0).load_state_dict(CartPole(3, 0).state_dict())
