"""Stacks of observations, and rows of bytes where worlds show images, against what was shown, frame by frame."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from onepolicy.batch import Image, Layout
from onepolicy.envs.frames import FrameStack
from onepolicy.envs.gym import GymEnv
from onepolicy.envs.spaces import Rows, image_of
from onepolicy.envs.vector import WorldOptions, make
from onepolicy.errors import ConfigError, DataError


class Counter(gymnasium.Env):
    """Shows 10 * its seed's last digit, then one more at each step; truncated after `last` steps."""

    observation_space = spaces.Box(-9999, 9999, (2,), np.float32)
    action_space = spaces.Discrete(2)
    last = 3

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.shown = 10 * (seed % 10) if seed is not None else 500
        self.steps = 0
        return self.seen(), {}

    def step(self, action):
        self.shown += 1
        self.steps += 1
        return self.seen(), 0.0, False, self.steps >= self.last, {}

    def seen(self):
        return np.array([self.shown, -self.shown], np.float32)


class Shown(Counter):
    """The same as an image of 3 channels, the last axis, and a number beside it."""

    observation_space = spaces.Dict(
        image=spaces.Box(0, 255, (6, 5, 3), np.uint8), speed=spaces.Box(-9, 9, (2,)), gear=spaces.Discrete(3)
    )

    def seen(self):
        pixels = np.arange(90).reshape(6, 5, 3)
        return {"image": (pixels + self.shown).astype(np.uint8), "speed": np.array([0.5, -3.25]), "gear": 2}


class Choosy(Counter):
    """The same with a mask of actions."""

    def action_masks(self):
        return [self.shown % 2, 1]


@pytest.fixture(autouse=True)
def registered():
    for name, world in (("Counter-v0", Counter), ("Shown-v0", Shown), ("Choosy-v0", Choosy)):
        gymnasium.register(name, world)
    yield
    for name in ("Counter-v0", "Shown-v0", "Choosy-v0"):
        del gymnasium.registry[name]


def test_a_stack_has_its_own_episodes_observations_alone():
    """By hand: world 1 shows 10, 11, 12, 13 and then 500; the end is stacked with what came before it."""
    env = make("Counter-v0", 2, 0, WorldOptions(frame_stack=3))
    assert env.obs.tolist() == [[0, 0] * 3, [10, -10] * 3]
    seen = [env.step(torch.tensor([0, 1])) for _ in range(4)]
    assert seen[0].obs[1].tolist() == [10, -10, 10, -10, 11, -11]
    assert seen[1].obs[1].tolist() == [10, -10, 11, -11, 12, -12]
    assert seen[2].final_obs[1].tolist() == [11, -11, 12, -12, 13, -13]
    assert bool(seen[2].truncated.all())
    assert seen[2].obs[1].tolist() == [500, -500] * 3
    assert seen[3].obs[1].tolist() == [500, -500, 500, -500, 501, -501]
    assert torch.equal(env.obs, seen[3].obs)
    assert torch.equal(seen[1].final_obs, seen[1].obs)


def test_stacks_equal_gymnasiums():
    """Its FrameStackObservation, one world, over three episodes."""
    theirs = gymnasium.wrappers.FrameStackObservation(gymnasium.make("Acrobot-v1", max_episode_steps=7), 4)
    env = FrameStack(GymEnv("Acrobot-v1", 1, 5), 4)
    env.env.envs[0] = gymnasium.make("Acrobot-v1", max_episode_steps=7)
    expected = theirs.reset(seed=5)[0]
    assert np.array_equal(env.reset(5)[0].numpy(), expected.ravel())
    for step in range(20):
        expected, _, _, truncated, _ = theirs.step(step % 3)
        found = env.step(torch.tensor([step % 3]))
        assert np.array_equal(found.final_obs[0].numpy(), expected.ravel())
        if truncated:
            expected = theirs.reset()[0]
        assert np.array_equal(found.obs[0].numpy(), expected.ravel())


def test_saved_between_two_steps_it_goes_on_as_it_would_have():
    one, two = (make("Counter-v0", 2, seed, WorldOptions(frame_stack=3)) for seed in (4, 9))
    for _ in range(5):
        one.step(torch.zeros(2, dtype=torch.int64))
    two.load_state_dict(one.state_dict())
    for _ in range(7):
        a, b = one.step(torch.zeros(2, dtype=torch.int64)), two.step(torch.zeros(2, dtype=torch.int64))
        assert torch.equal(a.obs, b.obs)
        assert torch.equal(a.final_obs, b.final_obs)


def test_masks_stay_at_the_end_and_are_not_stacked():
    env = make("Choosy-v0", 1, 1, WorldOptions(frame_stack=2))
    assert env.obs.tolist() == [[10, -10, 10, -10, 0, 1]]
    assert env.step(torch.tensor([1])).obs.tolist() == [[10, -10, 11, -11, 1, 1]]
    assert env.obs_dim == 6


def test_images_and_numbers_of_a_dict_are_one_row_of_bytes():
    """Channels come first, the numbers are the speed and gear 2 of 3, bit for bit; frames in a stack stay apart."""
    env = make("Shown-v0", 1, 0, WorldOptions(frame_stack=2))
    assert env.layout == Layout((Image(3, 6, 5),), numbers=5, stack=2)
    assert (env.obs.dtype, env.obs.shape) == (torch.uint8, (1, 2 * (90 + 20)))
    step = env.step(torch.tensor([0]))
    (image,) = env.layout.images_of(step.obs)
    first = torch.arange(90, dtype=torch.uint8).view(6, 5, 3).permute(2, 0, 1)
    assert torch.equal(image, torch.cat([first, first + 1])[None])
    assert env.layout.numbers_of(step.obs).tolist() == [[0.5, -3.25, 0, 0, 1] * 2]


def test_flat_worlds_are_what_gymnasium_flattens():
    env = make("Shown-v0", 1, 0, WorldOptions(flat=True))
    assert (env.layout, env.obs.dtype) == (None, torch.float32)
    assert env.obs[0].tolist() == spaces.flatten(Shown.observation_space, env.envs[0].unwrapped.seen()).tolist()


@pytest.mark.parametrize(
    ("space", "image"),
    [
        (spaces.Box(0, 255, (84, 96, 3), np.uint8), Image(3, 84, 96)),
        (spaces.Box(0, 255, (4, 84, 96), np.uint8), Image(4, 84, 96)),
        (spaces.Box(0, 255, (84, 96), np.uint8), Image(1, 84, 96)),
        (spaces.Box(0, 1, (10, 10, 6), np.bool_), Image(6, 10, 10, full=1)),
        (spaces.Box(0, 255, (128,), np.uint8), None),
        (spaces.Box(0, 255, (4, 4), np.uint8), None),
        (spaces.Box(0, 1, (10, 10, 3), np.float32), None),
        (spaces.Discrete(3), None),
    ],
)
def test_which_boxes_are_images(space, image):
    assert image_of(space) == image


def test_channels_of_either_order_are_the_same_rows():
    pixels = np.random.default_rng(0).integers(0, 256, (9, 8, 3)).astype(np.uint8)
    last = Rows("World", spaces.Box(0, 255, (9, 8, 3), np.uint8)).of(pixels)
    first = Rows("World", spaces.Box(0, 255, (3, 9, 8), np.uint8)).of(pixels.transpose(2, 0, 1))
    assert np.array_equal(last, first)
    assert np.array_equal(last.reshape(3, 9, 8)[1], pixels[:, :, 1])


def test_what_does_not_fit_its_space_is_named(monkeypatch):
    env = make("Shown-v0", 2, 0)
    env.step(torch.tensor([0, 0]))
    good = Shown.seen
    monkeypatch.setattr(Shown, "seen", lambda self: good(self) | {"speed": np.array([0.0, np.nan])})
    with pytest.raises(DataError, match=r"Shown-v0 .*world 0 after 1 steps.*nan.*must be finite"):
        env.step(torch.tensor([0, 0]))
    monkeypatch.setattr(Shown, "seen", lambda self: good(self) | {"image": np.zeros((5, 6, 3), np.uint8)})
    with pytest.raises(DataError, match=r"\(5, 6, 3\) was observed; the space says \(6, 5, 3\)"):
        env.step(torch.tensor([0, 0]))
    with pytest.raises(ConfigError, match="frame_stack 0"):
        WorldOptions(frame_stack=0)
