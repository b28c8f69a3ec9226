"""gymnasium's worlds behind our seam: resets within the step, final observations, exact saving, clear errors."""

import gymnasium
import numpy as np
import pytest
import torch

from onepolicy.envs.batched import Batched
from onepolicy.envs.classic import CartPole
from onepolicy.envs.gym import GymEnv
from onepolicy.envs.vector import Box, Discrete, make
from onepolicy.errors import ConfigError


def test_our_loop_around_gymnasiums_cartpole_equals_our_batched_one():
    theirs, ours = GymEnv("CartPole-v1", 3, 5), CartPole(3, 5)
    rng = np.random.default_rng(0)
    assert torch.equal(theirs.obs, ours.obs)
    ends = 0
    for _ in range(200):
        action = torch.from_numpy(rng.integers(0, 2, 3))
        a, b = theirs.step(action), ours.step(action)
        for name in ("obs", "reward", "terminated", "truncated", "final_obs"):
            assert torch.equal(getattr(a, name), getattr(b, name)), name
        ends += int(a.terminated.sum())
    assert ends > 5


def test_what_ours_is_and_what_gymnasiums_is():
    assert isinstance(make("CartPole-v1", 2, 0), Batched)
    assert isinstance(make("FrozenLake-v1", 2, 0), GymEnv)


@pytest.mark.parametrize(
    ("env_id", "obs_dim", "actions"),
    [
        ("Acrobot-v1", 6, Discrete(3)),
        ("Pendulum-v1", 3, Box((-2.0,), (2.0,))),
        ("FrozenLake-v1", 16, Discrete(4)),  # a Discrete observation becomes one-hot
        ("Blackjack-v1", 32 + 11 + 2, Discrete(2)),  # a tuple of three Discrete ones
    ],
)
def test_spaces_become_vectors(env_id, obs_dim, actions):
    env = GymEnv(env_id, 2, 0)
    assert (env.obs_dim, env.actions) == (obs_dim, actions)
    assert env.obs.shape == (2, obs_dim)
    assert env.obs.dtype == torch.float32


def test_continuous_actions_are_clipped_at_the_world():
    wild, held = GymEnv("Pendulum-v1", 1, 0), GymEnv("Pendulum-v1", 1, 0)
    assert torch.equal(wild.step(torch.tensor([[50.0]])).obs, held.step(torch.tensor([[2.0]])).obs)


def test_discrete_actions_that_start_elsewhere_are_shifted():
    class From5(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(0.0, 9.0, (1,))
        action_space = gymnasium.spaces.Discrete(2, start=5)

        def reset(self, *, seed=None, options=None):
            return np.zeros(1, np.float32), {}

        def step(self, action):
            return np.array([action], np.float32), 0.0, False, False, {}

    gymnasium.register("From5-v0", From5)
    try:
        assert make("From5-v0", 2, 0).step(torch.tensor([0, 1])).obs.tolist() == [[5.0], [6.0]]
    finally:
        del gymnasium.registry["From5-v0"]


def test_the_time_limit_truncates_and_keeps_the_final_observation():
    env = GymEnv("MountainCar-v0", 1, 0)
    for _ in range(199):
        step = env.step(torch.tensor([1]))
        assert not bool(step.truncated[0])
    before = step.obs.clone()
    step = env.step(torch.tensor([1]))
    assert (bool(step.terminated[0]), bool(step.truncated[0])) == (False, True)
    assert (step.final_obs - before).abs().max() < 0.01  # one step further
    assert -0.6 <= float(step.obs[0, 0]) <= -0.4  # where episodes start


@pytest.mark.parametrize("env_id", ["Acrobot-v1", "Pendulum-v1", "MountainCarContinuous-v0", "FrozenLake-v1"])
def test_a_saved_state_goes_on_as_if_never_stopped(env_id):
    first, second = GymEnv(env_id, 2, 0), GymEnv(env_id, 2, 77)
    rng = np.random.default_rng(0)

    def act():
        if isinstance(first.actions, Discrete):
            return torch.from_numpy(rng.integers(0, first.actions.n, 2))
        return torch.from_numpy(rng.standard_normal((2, first.actions.dim)).astype(np.float32))

    for _ in range(150):
        first.step(act())
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.obs, second.obs)
    for _ in range(300):  # past the 200 or 500 steps at which these worlds start anew
        action = act()
        a, b = first.step(action), second.step(action)
        assert torch.equal(a.obs, b.obs)
        assert torch.equal(a.reward, b.reward)
        assert torch.equal(a.truncated, b.truncated)


class Opaque(gymnasium.Env):
    """A world whose state is an object of its own, as a physics engine's is."""

    observation_space = gymnasium.spaces.Box(-9.0, 9.0, (1,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self):
        self.world = object()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.random(1).astype(np.float32)
        return self.place, {}

    def step(self, action):
        return self.place, 0.0, False, False, {}


def test_a_world_that_cannot_be_saved_says_so_at_resume_and_starts_anew():
    gymnasium.register("Opaque-v0", Opaque)
    try:
        env, other = make("Opaque-v0", 2, 0), make("Opaque-v0", 2, 0)
        state = env.state_dict()
        with pytest.warns(RuntimeWarning, match=r"Opaque-v0 cannot be saved: its Opaque.world is a object"):
            other.load_state_dict(state)
        assert not torch.equal(other.obs, env.obs)
        once = other.obs
        with pytest.warns(RuntimeWarning, match="cannot be saved"):
            other.load_state_dict(other.state_dict())
        assert not torch.equal(other.obs, once)  # not the same episodes at every resume
    finally:
        del gymnasium.registry["Opaque-v0"]


@pytest.mark.parametrize(
    ("env_id", "words"),
    [
        ("CartPole-v7", "Did you mean 'CartPole-v1'"),
        ("Acrobat-v1", "Did you mean 'Acrobot-v1'"),
        ("zzz", "lists all that are known"),
        ("nosuchmodule:World-v0", "nosuchmodule"),
    ],
)
def test_an_unknown_id_offers_the_nearest(env_id, words):
    with pytest.raises(ConfigError, match=words):
        make(env_id, 1, 0)


def test_a_missing_package_names_its_extra():
    pytest.importorskip("gymnasium")
    try:
        import Box2D  # noqa: F401
    except ImportError:
        with pytest.raises(ConfigError, match=r"gymnasium\[box2d\]"):
            make("LunarLander-v3", 1, 0)


def test_actions_we_cannot_take_are_refused():
    class Two(Opaque):
        action_space = gymnasium.spaces.MultiDiscrete([2, 3])

    gymnasium.register("Two-v0", Two)
    try:
        with pytest.raises(ConfigError, match="only Discrete and Box"):
            make("Two-v0", 1, 0)
    finally:
        del gymnasium.registry["Two-v0"]


def test_no_worlds_are_refused():
    with pytest.raises(ConfigError, match="num_envs is 0"):
        make("CartPole-v1", 0, 0)
