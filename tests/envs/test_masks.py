"""Masks of actions wherever a world gives them, as numbers behind the features; joint actions; bad masks."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from onepolicy.envs.gym import GymEnv
from onepolicy.envs.joint import Joint
from onepolicy.envs.vector import Discrete, MultiDiscrete
from onepolicy.errors import ConfigError, DataError


class Clock(gymnasium.Env):
    """Observes its step t, where action t mod 3 alone is illegal. Ends after 3 steps. `where`: its mask."""

    where = "info"
    action_space = spaces.Discrete(3)
    observation_space = spaces.Box(0.0, 9.0, (1,))

    def legal(self):
        return [int(a != self.t % 3) for a in range(3)]

    def seen(self):
        obs, info = np.array([self.t], np.float32), {}
        if self.where == "info":
            info["action_mask"] = np.array(self.legal(), np.int8)
        if self.where == "observation":
            obs = {"observation": obs, "action_mask": np.array(self.legal(), np.int8)}
        return obs, info

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return self.seen()

    def step(self, action):
        self.t += 1
        obs, info = self.seen()
        return obs, 0.0, self.t == 3, False, info


class Asked(Clock):
    where = "method"

    def action_masks(self):
        return self.legal()


class Observed(Clock):
    where = "observation"
    observation_space = spaces.Dict(
        {"observation": spaces.Box(0.0, 9.0, (1,)), "action_mask": spaces.Box(0, 1, (3,), np.int8)}
    )


@pytest.fixture
def registered():
    """Registers world classes under names that are forgotten afterwards."""
    names = []

    def register(world, name="Masked-v0"):
        gymnasium.register(name, world)
        names.append(name)
        return name

    yield register
    for name in names:
        del gymnasium.registry[name]


@pytest.mark.parametrize("world", [Clock, Asked, Observed])
def test_the_mask_stands_behind_the_features_of_what_is_seen(world, registered):
    """Steps 0 to 3: the final observation's mask is that of step 3, the next one's that of the new episode."""
    env = GymEnv(registered(world), 2, 0)
    assert env.actions == Discrete(3, masked=True)
    assert env.obs_dim == 4
    assert env.obs.tolist() == [[0, 0, 1, 1]] * 2
    for expected in ([1, 1, 0, 1], [2, 1, 1, 0]):
        assert env.step(torch.tensor([2, 2])).obs.tolist() == [expected] * 2
    last = env.step(torch.tensor([0, 0]))
    assert last.final_obs.tolist() == [[3, 0, 1, 1]] * 2
    assert last.obs.tolist() == [[0, 0, 1, 1]] * 2


def test_gymnasium_s_taxi_gives_its_mask():
    env = GymEnv("Taxi-v4", 1, 0)
    assert env.actions == Discrete(6, masked=True)
    assert env.obs_dim == 500 + 6
    row, mask = env.envs[0].unwrapped, env.obs[0, 500:]
    assert mask.tolist() == row.action_mask(row.s).tolist()


def test_a_mask_among_real_numbered_actions_is_an_observation(registered):
    world = type("Real", (Observed,), {"action_space": spaces.Box(-1.0, 1.0, (1,))})
    assert GymEnv(registered(world), 1, 0).obs_dim == 4


class Pairs(Clock):
    """Two choices, of 2 and 3: (0, .) and (., 1) are illegal at first."""

    action_space = spaces.MultiDiscrete([2, 3])
    mask = ([0, 1], [1, 0, 1])

    def legal(self):
        return [*self.mask[0], *self.mask[1]]

    def step(self, action):
        self.given = action
        return super().step(action)


class PairsAsTuple(Pairs):
    where = "method"

    def action_masks(self):
        return tuple(np.array(part) for part in self.mask)


@pytest.mark.parametrize("world", [Pairs, PairsAsTuple])
def test_choices_have_their_masks_one_after_the_other_and_combinations_the_product(world, registered):
    name = registered(world)
    env = GymEnv(name, 1, 0)
    assert env.actions == MultiDiscrete((2, 3), masked=True)
    assert env.obs.tolist() == [[0, 0, 1, 1, 0, 1]]
    joint = Joint(GymEnv(name, 1, 0))
    assert (joint.actions, joint.obs_dim) == (Discrete(6, masked=True), 7)
    assert joint.obs.tolist() == [[0, 0, 0, 0, 1, 0, 1]]
    for number in range(6):
        step = joint.step(torch.tensor([number]))
        assert joint.env.envs[0].unwrapped.given.tolist() == [number // 3, number % 3]
        assert step.obs[:, 1:].tolist() == [[0, 0, 0, 1, 0, 1]]
    with pytest.raises(ConfigError, match="numbers from 0 to 5"):
        joint.step(torch.tensor([6]))


def test_too_many_combinations_are_refused(registered):
    world = type("Many", (Clock,), {"action_space": spaces.MultiBinary(64), "where": "nowhere"})
    with pytest.raises(ConfigError, match=r"64 choices at once, 18,446,744,073,709,551,616 comb.*at most 4,096"):
        Joint(GymEnv(registered(world), 1, 0))


@pytest.mark.parametrize(
    ("world", "mask", "words"),
    [
        (Clock, [0, 0, 0], r"\[0, 0, 0\] leaves no legal action"),
        (Pairs, [1, 0, 0, 0, 0], "leaves no legal action of choice 1"),
        (Clock, [1, 1], r"it has 2 numbers for 3 actions, of choices \[3\]"),
        (Clock, [1, 2, 0], r"\[1, 2, 0\] has numbers other than 0 and 1"),
        (Clock, None, "info has no 'action_mask', which it had at the first reset"),
    ],
)
def test_a_bad_mask_names_world_copy_and_step(world, mask, words, registered):
    """Copy 1 goes bad in its second step, which comes after one step."""
    env = GymEnv(registered(world), 2, 0)
    bad = env.envs[1].unwrapped
    action = torch.zeros((2, *[2] * (world is Pairs)), dtype=torch.int64)
    env.step(action)
    if mask is None:
        bad.where = "nowhere"
    else:
        bad.legal = lambda: mask
    with pytest.raises(DataError, match=rf"Masked-v0 gave a bad action mask in world 1 after 1 steps, .*{words}"):
        env.step(action)


def test_no_action_need_be_legal_where_an_episode_has_ended(registered):
    class Over(Clock):
        def legal(self):
            return [0, 0, 0] if self.t == 3 else super().legal()

    env = GymEnv(registered(Over), 1, 0)
    for _ in range(3):
        step = env.step(torch.tensor([0]))
    assert step.final_obs.tolist() == [[3, 0, 0, 0]]
    assert step.obs.tolist() == [[0, 0, 1, 1]]


def test_a_restored_world_has_the_mask_it_had(registered):
    name = registered(Clock)
    env, again = GymEnv(name, 1, 0), GymEnv(name, 1, 0)
    env.step(torch.tensor([1]))
    again.load_state_dict(env.state_dict())
    assert torch.equal(again.obs, env.obs)
    assert torch.equal(again.step(torch.tensor([0])).obs, env.step(torch.tensor([0])).obs)
