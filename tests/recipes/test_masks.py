"""Masks, several choices and numbered SAC as runs: no illegal action, exact resume, policies that fit the world."""

import json
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import onepolicy
from onepolicy.errors import ConfigError, DataError
from onepolicy.evaluation.returns import evaluate_policy
from onepolicy.recipes import control, off_policy, side_by_side
from onepolicy.recipes.off_policy_config import SacOptions
from onepolicy.run.config import from_json
from onepolicy.run.run import Run

ALGOS = ("ppo", "a2c", "reinforce", "trpo", "dqn", "sac")


class Pairs(gymnasium.Env):
    """Choices of 2 and 3, legal at random: an illegal one raises. Reward 1 for each that is the greatest legal one."""

    action_space = spaces.MultiDiscrete([2, 3])
    observation_space = spaces.Box(-1.0, 1.0, (2,))
    spoilt = 10**9

    def _see(self):
        self.mask = self.np_random.integers(0, 2, 5).astype(np.int8)
        self.mask[[0, 2 + self.np_random.integers(3)]] = 1
        if self.t >= self.spoilt:
            self.mask[:] = 0
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {"action_mask": self.mask}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._see()

    def step(self, action):
        legal = np.split(self.mask, [2])
        assert all(mask[a] for mask, a in zip(legal, action, strict=True)), (action, legal)
        reward = sum(float(a == np.flatnonzero(mask)[-1]) for mask, a in zip(legal, action, strict=True))
        self.t += 1
        return *self._see()[:1], reward, False, self.t == 8, {"action_mask": self.mask}


class One(Pairs):
    """The second choice alone."""

    action_space = spaces.Discrete(3)

    def _see(self):
        obs, _ = super()._see()
        self.whole = self.mask
        return obs, {"action_mask": self.mask[2:]}

    def step(self, action):
        self.mask = self.whole
        obs, reward, terminated, truncated, _ = super().step([0, action])
        return obs, reward, terminated, truncated, {"action_mask": self.whole[2:]}


class Told(One):
    """The mask is in the observation, a Dict."""

    observation_space = spaces.Dict({"seen": Pairs.observation_space, "action_mask": spaces.MultiBinary(3)})

    def _see(self):
        obs, info = super()._see()
        return {"seen": obs, **info}, {}


class Spoilt(One):
    spoilt = 5


@pytest.fixture(scope="module", autouse=True)
def registered():
    worlds = {"Pairs-v0": Pairs, "One-v0": One, "Told-v0": Told, "Spoilt-v0": Spoilt}
    for name, world in worlds.items():
        gymnasium.register(name, world)
    yield
    for name in worlds:
        del gymnasium.registry[name]


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """No curves, which take longer than these runs."""
    monkeypatch.setattr(control, "finish", lambda *_: "")
    monkeypatch.setattr(off_policy, "finish", lambda *_: "")


def tiny(algo, directory, **changes):
    if algo in off_policy.DEFAULTS:
        start = replace(off_policy.DEFAULTS[algo], steps=200, learning_starts=100, batch_size=8, capacity=200)
        start = replace(start, train_every=4)
    else:
        start = replace(control.DEFAULTS[algo], steps=512, num_envs=4, n_steps=16, batch_size=32, epochs=2)
    return replace(start, hidden=(8,), eval_every=200, eval_episodes=4, out=str(directory), **changes)


def main(config, **more):
    return (off_policy if isinstance(config, off_policy.Config) else control).main(config, **more)


@pytest.mark.parametrize("env", ["One-v0", "Pairs-v0"])
@pytest.mark.parametrize("algo", ALGOS)
def test_no_illegal_action_is_ever_taken(algo, env, tmp_path):
    """In random beginnings, exploration, learning and evaluation: the world would raise. The policy loaded fits it."""
    main(tiny(algo, tmp_path / "run", env=env))
    policy = onepolicy.load(tmp_path / "run").policy
    assert len(evaluate_policy(policy, env=env, episodes=20).returns) == 20
    world = gymnasium.make(env)
    obs, info = world.reset(seed=0)
    for _ in range(8):
        obs, *_, info = world.step(policy.act(obs, legal=info["action_mask"]))


def test_masks_with_a_memory_and_normalised_observations(tmp_path):
    """Mask bits stay bits behind the normaliser; the policy loaded carries its memory."""
    main(tiny("ppo", tmp_path / "run", env="Pairs-v0", recurrent="lstm", norm_obs=True))
    player = onepolicy.load(tmp_path / "run").policy
    policy = player.inner
    seen = torch.tensor([[0.3, -0.4, 1, 0, 0, 1, 0]])
    values = [policy.act(seen)[1].value.item() for _ in range(2)]
    assert values[0] != values[1]
    policy.forget()
    action, said = policy.act(seen)
    assert action.tolist() == [[0, 1]]
    assert said.value.item() == pytest.approx(values[0], abs=1e-6)
    assert evaluate_policy(player, env="Pairs-v0", episodes=5).returns


@pytest.mark.parametrize("algo", ["ppo", "sac"])
def test_a_dict_observation_tells_the_policy_its_mask(algo, tmp_path):
    more = {"recurrent": "lstm"} if algo == "ppo" else {}
    main(tiny(algo, tmp_path / "run", env="Told-v0", **more))
    policy, world = onepolicy.load(tmp_path / "run").policy, gymnasium.make("Told-v0")
    obs, _ = world.reset(seed=0)
    for _ in range(8):
        obs, *_ = world.step(policy.act(obs))


class Killed(BaseException):
    """What SIGKILL would be, if a test could survive it."""


@pytest.mark.parametrize(
    ("algo", "changes"),
    [
        ("sac", {"seeds": 2, "sac": SacOptions(entropy_penalty=0.5, q_clip=0.5)}),
        ("dqn", {}),
        ("ppo", {"recurrent": "gru"}),
    ],
)
def test_killed_it_resumes_to_the_same_numbers(algo, changes, tmp_path, monkeypatch):
    """Every line of metrics, masks, several choices and memories included."""
    monkeypatch.setattr(side_by_side, "LOG_EVERY", 1)
    monkeypatch.setattr(control, "LOG_EVERY", 1)
    main(tiny(algo, tmp_path / "whole", env="Pairs-v0", save_every=70, **changes))
    save = Run.save

    def dying(self, step, **parts):
        path = save(self, step, **parts)
        if step >= 140:
            raise Killed
        return path

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", dying)
        with pytest.raises(Killed):
            main(tiny(algo, tmp_path / "cut", env="Pairs-v0", save_every=70, **changes))
    config = from_json(
        off_policy.Config if algo in off_policy.DEFAULTS else control.Config, Run.open(tmp_path / "cut").config
    )
    main(config, resume=tmp_path / "cut")
    lines = [[json.loads(line) for line in (tmp_path / name / "metrics.jsonl").open()] for name in ("whole", "cut")]
    assert lines[0] == lines[1]
    assert len(lines[0]) > 3


def test_a_mask_without_a_legal_action_is_named(tmp_path):
    with pytest.raises(DataError, match=r"Spoilt-v0 gave a bad action mask in world 0 after 4 steps.*no legal action"):
        main(tiny("ppo", tmp_path / "run", env="Spoilt-v0"))


def test_sac_learns_cart_pole_s_numbered_actions(tmp_path):
    """A run as `onepolicy train sac --env CartPole-v1`, cut short: no error, and a policy that acts in numbers."""
    main(tiny("sac", tmp_path / "run", env="CartPole-v1"))
    policy = onepolicy.load(tmp_path / "run").policy
    assert policy.act(np.zeros(4, np.float32)) in (0, 1)
    assert policy.greedy()(np.zeros((3, 4), np.float32)).dtype == np.int64


@pytest.mark.parametrize("algo", ["td3", "ddpg", "mbpo"])
def test_others_take_real_numbers(algo, tmp_path):
    with pytest.raises(ConfigError, match=r"numbered actions, 2 x 3 of them; this algorithm takes real numbers"):
        main(tiny(algo, tmp_path / "run", env="Pairs-v0"))


def test_a_memory_is_not_for_trpo():
    with pytest.raises(ConfigError, match="recurrent is 'lstm' with trpo"):
        replace(control.DEFAULTS["trpo"], recurrent="lstm")
