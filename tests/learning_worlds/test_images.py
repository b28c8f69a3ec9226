"""Images: a world that cannot be told from one frame is learnt from two, by memory and by rollouts; exact resume."""

import hashlib
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import onepolicy as op
from onepolicy.envs.vector import WorldOptions
from onepolicy.errors import ConfigError
from onepolicy.evaluation.returns import play
from onepolicy.recipes import control, off_policy
from onepolicy.recipes.control_config import Config
from onepolicy.recipes.off_policy_config import Config as OffPolicyConfig
from onepolicy.recipes.off_policy_config import DqnOptions
from onepolicy.run.run import Run

SIZE, STEPS = 8, 8


class Drift(gymnasium.Env):
    """A dot in an 8 by 8 image of bytes jumps up, stays or jumps down at each step, drawn anew, over the edges.

    The action names the move that led to what is seen: 0, 1 or 2, for which the reward is 1. Nothing moved before the
    first frame, so that its stack tells "stayed". With two frames every move is known: 8 rewards in 8 steps; with one
    frame all moves are alike, but that of the first step: 1 + 7 / 3 at best, as nothing says that it is the first.
    """

    observation_space = spaces.Box(0, 255, (SIZE, SIZE), np.uint8)
    action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.move, self.steps = self.np_random.integers(SIZE, size=2), 1, 0
        return self.seen(), {}

    def step(self, action):
        reward = float(action == self.move)
        self.move = int(self.np_random.integers(3))
        self.place = (self.place + [self.move - 1, 0]) % SIZE
        self.steps += 1
        return self.seen(), reward, False, self.steps >= STEPS, {}

    def seen(self):
        pixels = np.zeros((SIZE, SIZE), np.uint8)
        pixels[tuple(self.place)] = 255
        return pixels


BEST, BLIND = float(STEPS), 1 + (STEPS - 1) / 3

TWO = WorldOptions(frame_stack=2)
PPO = Config(
    env="Drift-v0", world=TWO, steps=6144, num_envs=16, n_steps=16, batch_size=128, epochs=8, lr=3e-3, gamma=0.5,
    hidden=(64,), eval_every=0, eval_episodes=100, save_every=0,
)  # fmt: skip
DQN = OffPolicyConfig(
    env="Drift-v0", world=TWO, steps=4000, num_envs=8, gamma=0.5, capacity=8000, batch_size=64, learning_starts=400,
    train_every=8, target_every=200, lr=3e-3, hidden=(64,), dqn=DqnOptions(epsilon_fraction=0.5), eval_every=0,
    eval_episodes=100, save_every=0,
)  # fmt: skip
SHORT = {
    "dqn": replace(DQN, steps=480, capacity=240, learning_starts=40, save_every=100, eval_episodes=4,
                   dqn=DqnOptions(priority=0.6), n_step=2, seeds=2),
    "ppo": replace(PPO, steps=1024, num_envs=4, save_every=128, eval_episodes=4),
}  # fmt: skip


@pytest.fixture(autouse=True)
def registered():
    gymnasium.register("Drift-v0", Drift)
    yield
    del gymnasium.registry["Drift-v0"]


@pytest.mark.parametrize(("recipe", "config"), [(control, PPO), (off_policy, DQN)], ids=["ppo", "dqn"])
def test_two_frames_tell_what_one_does_not(recipe, config, tmp_path, monkeypatch):
    """Every move named with a stack of two; without it no more than the guesses' worth (std 0.12 over 100 episodes)."""
    monkeypatch.setattr(recipe, "finish", lambda *_: "")
    seeing = recipe.main(replace(config, out=str(tmp_path / "seeing")))
    assert seeing.metrics["eval/return"] > BEST - 0.1
    blind = recipe.main(replace(config, world=WorldOptions(), steps=1000, out=str(tmp_path / "blind")))
    assert blind.metrics["eval/return"] < BLIND + 0.5
    loaded = recipe.load(Run.open(tmp_path / "seeing")).policy
    assert np.mean(op.evaluate(op.load(tmp_path / "seeing").policy, episodes=16).returns) > BEST - 0.3
    worlds = off_policy.make("Drift-v0", 8, 5, TWO)
    assert np.mean(play(worlds, loaded.greedy(), 16, 5).returns) > BEST - 0.3
    action, _ = loaded.act(worlds.obs)
    assert torch.equal(action, torch.from_numpy(loaded.greedy()(worlds.obs.numpy())))


class Killed(BaseException):
    """What SIGKILL would be, if a test could survive it."""


def prints(directory):
    """Hashes of the metrics and of all in the newest checkpoint."""
    newest = max((directory / "checkpoints").iterdir(), key=lambda path: int(path.name.split("-")[1]))
    files = [path for path in sorted(newest.rglob("*")) if path.is_file() and path.name != "MANIFEST.json"]
    assert ("frames.gz" in {path.name for path in files}) == ("explorer.json" in {path.name for path in files})
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in [directory / "metrics.jsonl", *files]]


@pytest.mark.parametrize("kind", SHORT)
def test_killed_and_resumed_it_ends_the_same(kind, tmp_path, monkeypatch):
    """Stacks, frames, priorities and last frames of episodes: to the byte."""
    recipe = {"ppo": control, "dqn": off_policy}[kind]
    monkeypatch.setattr(recipe, "finish", lambda *_: "")
    recipe.main(replace(SHORT[kind], out=str(tmp_path / "whole")))
    save, left = Run.save, [3]

    def dying(self, step, **parts):
        path = save(self, step, **parts)
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        return path

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", dying)
        with pytest.raises(Killed):
            recipe.main(replace(SHORT[kind], out=str(tmp_path / "cut")))
    recipe.main(replace(SHORT[kind], out=str(tmp_path / "cut")), resume=tmp_path / "cut")
    assert prints(tmp_path / "cut") == prints(tmp_path / "whole")


def test_what_does_not_go_with_images_says_so(tmp_path):
    with pytest.raises(ConfigError, match="norm_obs is on in Drift-v0, which shows images"):
        control.main(replace(PPO, norm_obs=True, out=str(tmp_path / "a")))

    class Real(Drift):
        action_space = spaces.Box(-1, 1, (1,))

    gymnasium.register("Real-v0", Real)
    try:
        with pytest.raises(ConfigError, match=r"shows images; sac sees vectors.*world\.flat"):
            off_policy.main(replace(DQN, algo="sac", env="Real-v0", out=str(tmp_path / "b")))
    finally:
        del gymnasium.registry["Real-v0"]
