"""The batched worlds against gymnasium's, to the bit: single steps from random states, and whole seeded runs."""

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.envs.batched import Batched
from onepolicy.envs.classic import WORLDS, CartPole, accelerate, accelerate_one, dynamics_of
from onepolicy.envs.vector import Discrete, make
from onepolicy.errors import ConfigError

STATES = {
    "CartPole-v1": [3.0, 3.0, 0.5, 3.0],
    "MountainCar-v0": [[-1.2, 0.6], 0.07],
    "MountainCarContinuous-v0": [[-1.2, 0.6], 0.07],
    "Pendulum-v1": [12.0, 8.0],
    "Acrobot-v1": [np.pi, np.pi, 4 * np.pi, 9 * np.pi],
}
"""Bounds of the random states that steps start from: each number's lowest and highest, or one for +-."""


def random_states(env_id, count, rng):
    bounds = np.array([b if isinstance(b, list) else [-b, b] for b in STATES[env_id]])
    states = rng.uniform(bounds[:, :1], bounds[:, 1:], (len(bounds), count))
    edge = rng.random(states.shape) < 0.05  # some at the walls and speed limits themselves
    return np.where(edge, bounds[:, :1], states)


def random_actions(env, rng, scale=1.0):
    if isinstance(env.actions, Discrete):
        return torch.from_numpy(rng.integers(0, env.actions.n, env.num_envs))
    wide = scale * np.array(env.actions.high)
    return torch.from_numpy(rng.uniform(-wide, wide, (env.num_envs, env.actions.dim)).astype(np.float32))


def theirs_takes(action):
    return int(action) if action.dtype == torch.int64 else action.numpy()


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("env_id", WORLDS)
def test_one_step_from_random_states_equals_gymnasium_to_the_bit(env_id, fresh):
    count, rng = 2000, np.random.default_rng(0)
    ours, theirs = make(env_id, count, 0), gymnasium.make(env_id).unwrapped
    theirs.reset(seed=0)
    states = random_states(env_id, count, rng)
    single = env_id == "MountainCarContinuous-v0" and not fresh  # gymnasium keeps later states in float32
    states = states.astype(np.float32).astype(np.float64) if single else states
    ours.state[:], ours.elapsed[:] = states, 0 if fresh else 1
    actions = random_actions(ours, rng)
    after, reward, terminated = ours.dynamics.advance(states.copy(), ours._native(actions), ours.elapsed == 0)
    step = ours.step(actions)
    for i in range(count):
        theirs.state = states[:, i].astype(np.float32) if single else states[:, i].copy()
        theirs.steps_beyond_terminated = None
        obs, expected, over, _, _ = theirs.step(theirs_takes(actions[i]))
        assert np.array_equal(after[:, i], np.asarray(theirs.state, dtype=np.float64)), (i, states[:, i])
        assert np.array_equal(step.final_obs[i].numpy(), obs)
        assert (reward[i], bool(terminated[i])) == (expected, over)
        assert (float(step.reward[i]), bool(step.terminated[i])) == (float(np.float32(expected)), over)


@settings(max_examples=100, deadline=None)
@given(
    state=st.lists(st.floats(-3.0, 3.0), min_size=4, max_size=4),
    action=st.integers(0, 1),
)
def test_the_equations_of_the_cart_from_any_state(state, action):
    theirs = gymnasium.make("CartPole-v1").unwrapped
    theirs.reset(seed=0)
    theirs.state = np.array(state)
    theirs.step(action)
    mine, force = np.array(state)[:, None], 20.0 * action - 10.0
    assert np.array_equal(accelerate(mine, np.array([force]))[:, 0], theirs.state)
    assert np.array_equal(accelerate_one(mine, force)[:, 0], theirs.state)


def good_action(env):
    """Actions that reach the goal now and then, so that all ways for an episode to end occur."""
    obs = env.obs
    if env.env_id == "CartPole-v1":
        return (obs[:, 2] + 0.3 * obs[:, 3] + 0.05 * obs[:, 0] > 0).long()
    if env.env_id == "Acrobot-v1":
        return 1 + obs[:, 5].sign().long()
    push = obs[:, 1:2].sign() if env.env_id != "Pendulum-v1" else -obs[:, 2:]
    return push if env.env_id != "MountainCar-v0" else 1 + push[:, 0].long()


@pytest.mark.parametrize(("env_id", "steps"), [(name, 1100) for name in STATES])
def test_a_seeded_run_equals_gymnasium_episode_after_episode(env_id, steps):
    worlds, seed = 3, 11
    ours = make(env_id, worlds, seed)
    theirs = [gymnasium.make(env_id) for _ in range(worlds)]
    first = np.stack([env.reset(seed=seed + i)[0] for i, env in enumerate(theirs)])
    assert np.array_equal(ours.obs.numpy(), first)
    rng = np.random.default_rng(0)
    ended = {"terminated": 0, "truncated": 0}
    for t in range(steps):
        action = good_action(ours) if t > 250 else random_actions(ours, rng)
        step = ours.step(action)
        for i, env in enumerate(theirs):
            obs, reward, terminated, truncated, _ = env.step(theirs_takes(action[i]))
            assert np.array_equal(step.final_obs[i].numpy(), obs)
            assert (np.float32(reward), terminated, truncated) == (
                float(step.reward[i]), bool(step.terminated[i]), bool(step.truncated[i]),
            )  # fmt: skip
            ended["terminated"] += terminated
            ended["truncated"] += truncated
            if terminated or truncated:
                obs, _ = env.reset()
            assert np.array_equal(step.obs[i].numpy(), obs)
            assert np.array_equal(ours.state[:, i], np.asarray(env.unwrapped.state))
        assert torch.equal(step.obs, ours.obs)
    assert sum(ended.values()) > 5
    assert ended["terminated"] > 0 or env_id == "Pendulum-v1"


@pytest.mark.parametrize("env_id", WORLDS)
def test_what_a_world_is_equals_gymnasiums(env_id):
    ours, theirs = make(env_id, 2, 0), gymnasium.make(env_id)
    assert isinstance(ours, Batched)
    assert ours.max_steps == theirs.spec.max_episode_steps
    assert ours.obs_dim == theirs.observation_space.shape[0]
    if isinstance(ours.actions, Discrete):
        assert ours.actions.n == theirs.action_space.n
    else:
        assert ours.actions.low == tuple(theirs.action_space.low)
        assert ours.actions.high == tuple(theirs.action_space.high)


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "MountainCarContinuous-v0"])
def test_real_actions_are_clipped_at_the_world(env_id):
    wild, held = make(env_id, 64, 0), make(env_id, 64, 0)
    action = random_actions(wild, np.random.default_rng(0), scale=3.0)
    bound = held.actions.high[0]
    a, b = wild.step(action), held.step(action.clamp(-bound, bound))
    assert torch.equal(a.obs, b.obs)
    assert torch.equal(a.reward, b.reward)


def test_a_finished_world_starts_anew_in_the_same_step_and_its_last_observation_is_kept():
    env = CartPole(2, 0)
    env.state[:, 0] = [2.39, 10.0, 0.0, 0.0]  # the next step takes it past 2.4
    step = env.step(torch.tensor([1, 1]))
    assert step.terminated.tolist() == [True, False]
    assert float(step.final_obs[0, 0]) == pytest.approx(2.39 + 0.02 * 10.0)
    assert step.obs[0].abs().max() <= 0.05
    assert torch.equal(step.obs[1], step.final_obs[1])


@pytest.mark.parametrize("env_id", WORLDS)
def test_the_time_limit_truncates_and_does_not_terminate(env_id):
    env = Batched(dynamics_of(env_id), 1, 0, max_steps=3)
    rng, flags = np.random.default_rng(0), []
    for _ in range(3):
        step = env.step(random_actions(env, rng))
        flags.append((bool(step.terminated[0]), bool(step.truncated[0])))
    assert flags == [(False, False), (False, False), (False, True)]
    assert env.elapsed.tolist() == [0]


def test_falling_at_the_time_limit_is_both():
    env = CartPole(1, 0, max_steps=1)
    env.state[:, 0] = [0.0, 0.0, 0.3, 0.0]
    step = env.step(torch.tensor([1]))
    assert bool(step.terminated[0])
    assert bool(step.truncated[0])


@pytest.mark.parametrize("env_id", WORLDS)
def test_a_world_does_not_depend_on_its_neighbours(env_id):
    alone, among = make(env_id, 1, 7), make(env_id, 5, 5)  # world 2 of the second has seed 7 too
    rng = np.random.default_rng(1)
    for _ in range(250):
        action = random_actions(among, rng)
        one, five = alone.step(action[2:3]), among.step(action)
        assert torch.equal(one.obs[0], five.obs[2])
        assert torch.equal(one.reward[0], five.reward[2])


@pytest.mark.parametrize("env_id", WORLDS)
def test_a_saved_state_goes_on_as_if_never_stopped(env_id):
    make_short = [Batched(dynamics_of(env_id), 4, seed, max_steps=30) for seed in (0, 99)]
    first, second = make_short
    rng = np.random.default_rng(0)
    for t in range(120):
        action = random_actions(first, rng)
        if t in (30, 37):  # right after a reset, and in the middle of an episode
            second.load_state_dict(first.state_dict())
            assert torch.equal(first.obs, second.obs)
        a = first.step(action)
        if t >= 30:  # several resets follow, so the generators must have been saved too
            b = second.step(action)
            assert torch.equal(a.obs, b.obs)
            assert torch.equal(a.truncated, b.truncated)


@pytest.mark.parametrize("env_id", WORLDS)
def test_reset_with_a_seed_forgets_the_past(env_id):
    env, fresh = make(env_id, 2, 3), make(env_id, 2, 3)
    rng = np.random.default_rng(0)
    for _ in range(30):
        env.step(random_actions(env, rng))
    assert torch.equal(env.reset(3), fresh.obs)
    for _ in range(30):
        action = random_actions(env, rng)
        assert torch.equal(env.step(action).obs, fresh.step(action).obs)


@pytest.mark.parametrize("action", [[2, 0], [0, -1], [0], [[0, 1]], [0.0, 1.0]])
def test_actions_that_are_none_are_refused(action):
    with pytest.raises(ConfigError, match="takes as many int64 numbers, each 0 to 1"):
        CartPole(2, 0).step(torch.tensor(action))


@pytest.mark.parametrize("action", [[0.5, 0.5], [[0.5]], [[1], [0]]])
def test_real_actions_of_another_shape_or_type_are_refused(action):
    with pytest.raises(ConfigError, match=r"takes float32 numbers of shape \[2, 1\]"):
        make("Pendulum-v1", 2, 0).step(torch.tensor(action))


def test_a_state_of_another_number_of_worlds_is_refused():
    with pytest.raises(ConfigError, match="num_envs=3"):
        CartPole(2, 0).load_state_dict(CartPole(3, 0).state_dict())
