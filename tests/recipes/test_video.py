"""Videos show the policy's own episodes, and what is missing is named."""

import builtins

import gymnasium
import numpy as np
import pytest

from onepolicy.acting.player import Player
from onepolicy.envs.vector import make
from onepolicy.errors import ConfigError
from onepolicy.evaluation.returns import play
from onepolicy.nn.policies import CategoricalPolicy
from onepolicy.recipes import video

pytest.importorskip("imageio_ffmpeg")


class Bright(gymnasium.Env):
    """An episode of three steps, each a picture brighter by 60."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}
    observation_space = gymnasium.spaces.Box(-1, 1, (4,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, render_mode=None):
        self.render_mode, self.t = render_mode, 0

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return np.zeros(4, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.zeros(4, np.float32), 1.5, self.t == 3, False, {}

    def render(self):
        return np.full((32, 48, 3), 60 * self.t, np.uint8)


class Blind(Bright):
    metadata = {"render_modes": []}


gymnasium.register("VideoBright-v0", Bright)
gymnasium.register("VideoBlind-v0", Blind)


def player(env_id):
    return Player(CategoricalPolicy(4, 2), make(env_id, 1, 0))


def test_each_picture_is_a_frame(tmp_path):
    import imageio

    found = video.record(player("VideoBright-v0"), tmp_path / "deep" / "a.mp4", episodes=2)
    assert (found.returns, found.lengths) == ((4.5, 4.5), (3, 3))
    frames = [frame for frame in imageio.get_reader(found.path)]  # noqa: C416 (its length is infinite)
    assert len(frames) == 8
    assert frames[0].shape == (32, 48, 3)
    np.testing.assert_allclose([frame.mean() for frame in frames[:4]], [0, 60, 120, 180], atol=8)
    assert imageio.get_reader(found.path).get_meta_data()["fps"] == 5


def test_our_batched_world_and_the_filmed_one_are_one(tmp_path, monkeypatch):
    """The return of the filmed episode is that of the same seed in evaluation."""
    pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    policy = player("CartPole-v1")
    found = video.record(policy, tmp_path / "a.mp4", seed=3)
    assert found.returns == play(make("CartPole-v1", 1, 3), policy.greedy(), 1, 3).returns
    assert (tmp_path / "a.mp4").stat().st_size > 1000


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="VideoBlind-v0 has no pictures"):
        video.record(player("VideoBlind-v0"), tmp_path / "a.mp4")
    with pytest.raises(ConfigError, match=r"ends in \.mp4"):
        video.record(player("VideoBright-v0"), tmp_path / "a.xyz")
    with pytest.raises(ConfigError, match="episodes is 0"):
        video.record(player("VideoBright-v0"), tmp_path / "a.mp4", episodes=0)
    real = builtins.__import__

    def without(name, *rest, **named):
        if name == "imageio_ffmpeg":
            raise ImportError("No module named 'imageio_ffmpeg'")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r'pip install "onepolicy\[video\]"'):
        video.record(player("VideoBright-v0"), tmp_path / "a.mp4")


def test_mujoco_says_how_it_draws_without_a_screen():
    assert "MUJOCO_GL=osmesa" in video._mujoco("HalfCheetah-v5")
    assert video._mujoco("CartPole-v1") == ""
