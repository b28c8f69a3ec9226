"""The control recipe in normalised worlds: exact resume, the exam with the training's statistic, raw returns."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from onepolicy.acting.normalised import NormalisedPolicy
from onepolicy.envs.classic import CartPole
from onepolicy.evaluation.returns import evaluate_policy
from onepolicy.nn.policies import CategoricalPolicy
from onepolicy.recipes import control
from onepolicy.recipes.control import Config, load, main
from onepolicy.run.config import from_json
from onepolicy.run.run import Run

TINY = {
    "both": Config(num_envs=2, n_steps=16, batch_size=10, epochs=2, steps=128, norm_obs=True, norm_reward=True),
    "obs": Config(algo="a2c", num_envs=2, n_steps=5, lam=1.0, steps=60, norm_obs=True),
    "reward": Config(env="Pendulum-v1", num_envs=2, n_steps=16, batch_size=10, epochs=2, steps=96, norm_reward=True),
    "episodes": Config(algo="reinforce", num_envs=2, n_steps=9, steps=150, norm_obs=True, norm_reward=True),
}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Every update is logged, and runs end without pictures."""
    monkeypatch.setattr(control, "LOG_EVERY", 1)
    monkeypatch.setattr(control, "finish", lambda *_: "")


def tiny(kind, directory, **changes):
    return replace(TINY[kind], eval_episodes=3, eval_every=40, save_every=1, out=str(directory), **changes)


def prints(directory):
    newest = max((directory / "checkpoints").iterdir(), key=lambda path: int(path.name.split("-")[1]))
    files = [directory / "metrics.jsonl", *(p for p in sorted(newest.iterdir()) if p.name != "MANIFEST.json")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


class Killed(BaseException):
    """What SIGKILL would be, if a test could survive it."""


@pytest.mark.parametrize("kind", TINY)
def test_killed_and_resumed_it_ends_the_same(kind, tmp_path, monkeypatch):
    main(tiny(kind, tmp_path / "whole"))
    expected = prints(tmp_path / "whole")
    assert any(name.startswith("normaliser") for name in expected) == TINY[kind].norm_obs
    for count in (1, 2):
        left, save = [count], Run.save

        def dying(self, step, left=left, save=save, **parts):
            path = save(self, step, **parts)
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return path

        place = tmp_path / str(count)
        with monkeypatch.context() as patch:
            patch.setattr(Run, "save", dying)
            with pytest.raises(Killed):
                main(tiny(kind, place))
        main(from_json(Config, Run.open(place).config), resume=place)
        assert prints(place) == expected


def test_the_exam_uses_the_statistic_of_training_and_changes_nothing(tmp_path):
    often, never = tiny("both", tmp_path / "often"), tiny("both", tmp_path / "never")
    main(replace(often, eval_every=1))
    main(replace(never, eval_every=0))
    kept = [prints(tmp_path / name) for name in ("often", "never")]
    for found in kept:
        found.pop("metrics.jsonl")
    assert kept[0] == kept[1]


def test_the_policy_that_is_reported_and_loaded_plays_in_the_world_as_it_is(tmp_path):
    report = main(tiny("both", tmp_path / "run"))
    loaded = load(Run.open(tmp_path / "run"))
    assert isinstance(report.policy, NormalisedPolicy)
    assert isinstance(loaded.policy, NormalisedPolicy)
    assert np.array_equal(loaded.policy.moments.mean, report.policy.moments.mean)
    assert loaded.policy.moments.count == report.policy.moments.count > 128
    scores = [evaluate_policy(p, env="CartPole-v1", episodes=5, seed=1) for p in (report.policy, loaded.policy)]
    assert scores[0] == scores[1]


def test_rewards_alone_leave_the_policy_as_it_is(tmp_path):
    report = main(replace(tiny("both", tmp_path / "run"), norm_obs=False))
    assert isinstance(report.policy, CategoricalPolicy)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    found = [line for line in lines if "rollout/return" in line]
    assert found
    assert all(line["rollout/return"] == pytest.approx(line["rollout/length"]) for line in found)  # +1 a step, raw


class Far:
    """CartPole seen a thousand times too small, off by 5: a policy learns it only once it is standardised."""

    def __init__(self, num_envs, seed):
        self.inner = CartPole(num_envs, seed)
        self.num_envs, self.env_id, self.obs_dim, self.actions = num_envs, "CartPole-v1", 4, self.inner.actions
        self.layout = None

    def seen(self, obs):
        return 5.0 + 1e-3 * obs

    @property
    def obs(self):
        return self.seen(self.inner.obs)

    def reset(self, seed):
        return self.seen(self.inner.reset(seed))

    def step(self, action):
        step = self.inner.step(action)
        return replace(step, obs=self.seen(step.obs), final_obs=self.seen(step.final_obs))

    def state_dict(self):
        return self.inner.state_dict()

    def load_state_dict(self, state):
        self.inner.load_state_dict(state)


def test_observations_on_a_bad_scale_are_learnt_from_only_when_normalised(tmp_path, monkeypatch):
    monkeypatch.setattr(control, "make", lambda _, num_envs, seed, *__, **___: Far(num_envs, seed))
    base = replace(control.PRESETS["ppo/CartPole-v1"], steps=25_000, eval_every=0, eval_episodes=20, save_every=0)
    found = {
        norm: main(replace(base, norm_obs=norm, out=str(tmp_path / str(norm)))).metrics["eval/return"]
        for norm in (True, False)
    }
    assert found[True] > 150
    assert found[False] < 100


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("preset", "steps", "score"),
    [
        ("ppo/Acrobot-v1", 150_000, -100.0),
        ("ppo/Pendulum-v1", 100_000, -300.0),
        ("ppo/MountainCar-v0", 250_000, -145.0),
        ("ppo/MountainCarContinuous-v0", 20_000, 80.0),
        ("a2c/Acrobot-v1", 150_000, -120.0),
    ],
)
def test_the_presets_learn_the_small_worlds(preset, steps, score, seed, tmp_path):
    """Well before the zoo's steps are over; mean return over 100 greedy episodes of the last policy."""
    config = replace(control.PRESETS[preset], steps=steps, seed=seed, eval_every=0, out=str(tmp_path / "run"))
    assert main(config).metrics["eval/return"] >= score
