"""gymnasium's worlds behind our seam: resets within the step, final observations, exact saving, clear errors."""

import gymnasium
import numpy as np
import pytest
import torch

from onepolicy.envs.batched import Batched
from onepolicy.envs.classic import CartPole
from onepolicy.envs.gym import GymEnv
from onepolicy.envs.vector import Box, Discrete, MultiDiscrete, make
from onepolicy.errors import ConfigError, DataError


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


@pytest.fixture
def registered():
    """Registers world classes under names that are forgotten afterwards."""
    names = []

    def register(name, world):
        gymnasium.register(name, world)
        names.append(name)
        return name

    yield register
    for name in names:
        del gymnasium.registry[name]


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (gymnasium.spaces.Text(3), "only Discrete, MultiDiscrete, MultiBinary and Box"),
        (gymnasium.spaces.Box(0, 9, (2,), np.int32), "only Discrete, MultiDiscrete, MultiBinary and Box"),
    ],
)
def test_actions_we_cannot_take_are_refused(space, words, registered):
    name = registered("Two-v0", type("Two", (Opaque,), {"action_space": space}))
    with pytest.raises(ConfigError, match=words):
        make(name, 1, 0)


def test_observations_of_no_fixed_length_are_refused(registered):
    space = gymnasium.spaces.Sequence(gymnasium.spaces.Discrete(2))
    name = registered("Long-v0", type("Long", (Opaque,), {"observation_space": space}))
    with pytest.raises(ConfigError, match=r"has no fixed length\. Wrap it"):
        make(name, 1, 0)


class Echo(gymnasium.Env):
    """Remembers the actions it was given."""

    observation_space = gymnasium.spaces.Box(0.0, 9.0, (1,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self):
        self.given = []

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.given.append(action)
        return np.zeros(1, np.float32), 0.0, False, False, {}


def test_an_observation_of_another_length_is_not_spread_over_the_row(registered):
    name = registered("Narrow-v0", type("Narrow", (Echo,), {"observation_space": gymnasium.spaces.Box(0, 9, (3,))}))
    with pytest.raises(DataError, match="ValueError in world 0 at its reset"):
        make(name, 1, 0)


@pytest.mark.parametrize(
    ("space", "sizes", "chosen", "expected"),
    [
        (gymnasium.spaces.MultiDiscrete([2, 3], start=[0, 5]), (2, 3), [1, 2], [1, 7]),
        (gymnasium.spaces.MultiBinary(2), (2, 2), [0, 1], [0, 1]),
        (gymnasium.spaces.MultiBinary((2, 1)), (2, 2), [1, 0], [[1], [0]]),
        (gymnasium.spaces.MultiDiscrete(np.array([[2], [4]])), (2, 4), [1, 3], [[1], [3]]),
    ],
)
def test_several_choices_at_once_are_a_row_of_numbers(space, sizes, chosen, expected, registered):
    env = make(registered("Several-v0", type("Several", (Echo,), {"action_space": space})), 1, 0)
    assert env.actions == MultiDiscrete(sizes)
    env.step(torch.tensor([chosen]))
    (given,) = env.envs[0].unwrapped.given
    assert given.tolist() == expected
    assert space.contains(given)
    for wrong in ([-1, 0], [0, sizes[1]]):
        with pytest.raises(ConfigError, match=rf"takes numbers from 0 to {sizes[0] - 1} and {sizes[1] - 1}, 2 a world"):
            env.step(torch.tensor([wrong]))


def test_parts_of_observations_stand_in_the_documented_order(registered):
    """A plain Dict's keys are sorted, b after a; a Tuple is as it stands; each discrete choice is one-hot."""
    spaces = gymnasium.spaces
    inner = spaces.Dict({"b": spaces.Box(-9, 9, (2, 1)), "a": spaces.Discrete(3)})
    space = spaces.Tuple((spaces.MultiBinary(2), inner, spaces.MultiDiscrete([2, 2])))

    class Parts(Opaque):
        observation_space = space

        def reset(self, *, seed=None, options=None):
            parts = {"b": np.array([[4.0], [5.0]], np.float32), "a": 2}
            return (np.array([1, 0], np.int8), parts, np.array([0, 1])), {}

    env = make(registered("Parts-v0", Parts), 2, 0)
    assert env.obs.tolist() == [[1, 0, 0, 0, 1, 4, 5, 1, 0, 0, 1]] * 2


class Breaking(Echo):
    """Fails in its third step."""

    def step(self, action):
        if len(self.given) == 2:
            raise KeyError("no such place")
        return super().step(action)


def test_a_world_that_raises_is_named_with_its_step(registered):
    env = make(registered("Breaking-v0", Breaking), 2, 0)
    env.envs[0].unwrapped.given = [0, 0, 0]  # the first copy is past it
    for _ in range(2):
        env.step(torch.tensor([0, 1]))
    with pytest.raises(
        DataError, match="Breaking-v0 raised KeyError in world 1 after 2 steps, at action 1: 'no such pl"
    ):
        env.step(torch.tensor([0, 1]))


def test_a_world_that_raises_or_misshapes_at_its_reset_is_named_with_its_seed(registered):
    class Shy(Echo):
        def reset(self, *, seed=None, options=None):
            if seed == 8:
                return np.zeros(3, np.float32), {}
            return super().reset()

    name = registered("Shy-v0", Shy)
    make(name, 1, 7)
    with pytest.raises(DataError, match="Shy-v0 raised ValueError in world 1 at its reset with seed 8"):
        make(name, 2, 7)


def test_no_worlds_are_refused():
    with pytest.raises(ConfigError, match="num_envs is 0"):
        make("CartPole-v1", 0, 0)


@pytest.mark.parametrize("env_id", ["HalfCheetah-v5", "Ant-v5", "Hopper-v5", "Humanoid-v5"])
def test_mujocos_worlds_go_on_as_if_never_stopped(env_id):
    """To the bit, with the forces and centres of mass that their rewards read, from the midst of contacts."""
    pytest.importorskip("mujoco")
    first, second = GymEnv(env_id, 1, 0), GymEnv(env_id, 1, 77)
    rng = np.random.default_rng(0)

    def act():
        return torch.from_numpy(rng.uniform(-1, 1, (1, first.actions.dim)).astype(np.float32))

    for _ in range(15):
        first.step(act())
    second.load_state_dict(first.state_dict())
    for _ in range(40):
        action = act()
        a, b = first.step(action), second.step(action)
        assert torch.equal(a.obs, b.obs)
        assert torch.equal(a.reward, b.reward)
