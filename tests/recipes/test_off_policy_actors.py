"""ddpg, td3 and sac as runs: exact resume wherever killed, seeds as alone, presets, bad input, the policy left."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from onepolicy.envs.scaled import Scaled
from onepolicy.envs.vector import Box, make
from onepolicy.errors import ConfigError
from onepolicy.evaluation.returns import evaluate_policy
from onepolicy.nn.state_noise import SdeOptions
from onepolicy.recipes import off_policy, side_by_side
from onepolicy.recipes.off_policy import DEFAULTS, PRESETS, load, main, starting_point
from onepolicy.recipes.off_policy_config import SacOptions, Td3Options
from onepolicy.run.config import from_json
from onepolicy.run.run import Run

ALGOS = ("ddpg", "td3", "sac")


@pytest.fixture(autouse=True)
def log_every_step(monkeypatch):
    monkeypatch.setattr(side_by_side, "LOG_EVERY", 1)
    monkeypatch.setattr(off_policy, "finish", lambda *_: "")


def tiny(algo, directory, **changes):
    start = replace(DEFAULTS[algo], steps=30, learning_starts=10, batch_size=8, hidden=(8, 8), capacity=25)
    return replace(start, **{"eval_episodes": 2, "eval_every": 15, "save_every": 1, "out": str(directory)} | changes)


def prints(directory):
    """Hashes of the metrics and of the newest checkpoint: networks, optimizers, memory, worlds, generators."""
    newest = max((directory / "checkpoints").iterdir(), key=lambda path: int(path.name.split("-")[1]))
    files = [path for path in sorted(newest.iterdir()) if path.name != "MANIFEST.json"]
    assert {path.stem for path in files} == {"learner", "explorer"}
    found = [directory / "metrics.jsonl", *files]
    return newest.name, [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in found]


class Killed(BaseException):
    """What SIGKILL would be, if a test could survive it."""


CASES = [
    ("ddpg", {}),
    ("td3", {"td3": Td3Options(noise=0.3, drifting=True), "seeds": 2}),
    (
        "sac",
        {
            "train_every": 4,
            "gradient_steps": 2,
            "schedule": "linear",
            "num_envs": 2,
            "seeds": 2,
            "sac": SacOptions(hold=5),
        },
    ),
    ("sac", {"train_every": 3, "gradient_steps": 1, "num_envs": 3, "seeds": 2, "sde": SdeOptions(use=True)}),
]


@pytest.mark.parametrize(("algo", "changes"), CASES, ids=["ddpg", "td3", "sac", "by state"])
def test_killed_anywhere_it_resumes_to_the_same_bytes(algo, changes, tmp_path, monkeypatch):
    """After saves before and after learning began, and once the memory had gone round."""
    main(tiny(algo, tmp_path / "whole", **changes))
    expected, save = prints(tmp_path / "whole"), Run.save
    for last in (4, 15, 27):
        place = tmp_path / str(last)

        def dying(self, step, *, last=last, **parts):
            path = save(self, step, **parts)
            if step >= last:
                raise Killed
            return path

        with monkeypatch.context() as patch:
            patch.setattr(Run, "save", dying)
            with pytest.raises(Killed):
                main(tiny(algo, place, **changes))
        main(from_json(off_policy.Config, Run.open(place).config), resume=place)
        assert prints(place) == expected, last


@pytest.mark.parametrize("algo", ALGOS)
def test_several_seeds_are_the_runs_they_would_be_alone(algo, tmp_path):
    """Every number logged of seed 6 beside seed 5, to 1e-4 after 20 updates."""
    main(tiny(algo, tmp_path / "both", seed=5, seeds=2))
    main(tiny(algo, tmp_path / "alone", seed=6))
    both, single = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").open()] for name in ("both", "alone")
    )
    assert len(both) == len(single) > 20
    for among, own in zip(both, single, strict=True):
        for name, value in own.items():
            if name != "step":
                assert among[f"seed6/{name}"] == pytest.approx(value, rel=1e-4, abs=1e-4), (own["step"], name)


@pytest.mark.parametrize("algo", ALGOS)
def test_the_policy_that_is_left_acts_in_the_world_s_units(algo, tmp_path):
    report = main(tiny(algo, tmp_path / "run"))
    loaded = load(Run.open(tmp_path / "run"))
    scores = [evaluate_policy(p, env="Pendulum-v1", episodes=3, seed=1) for p in (report.policy, loaded.policy)]
    assert scores[0] == scores[1]
    with torch.no_grad():
        for parameter in loaded.policy.actor.parameters():
            parameter.fill_(1.0)
    assert loaded.policy.greedy()(np.ones((1, 3), np.float32)).item() == pytest.approx(2.0)


def test_worlds_are_stepped_in_their_own_units():
    """Pendulum's torque from -2 to 2: 0.5 inside is 1 outside, and 3 is held at 2."""
    inside, outside = Scaled(make("Pendulum-v1", 2, 0)), make("Pendulum-v1", 2, 0)
    assert inside.actions == Box((-1.0,), (1.0,))
    for action, torque in ((0.5, 1.0), (-1.0, -2.0), (3.0, 2.0)):
        mine, theirs = inside.step(torch.full((2, 1), action)), outside.step(torch.full((2, 1), torque))
        assert torch.equal(mine.obs, theirs.obs)
        assert torch.equal(mine.reward, theirs.reward)


def test_presets_are_the_zoo_s():
    assert starting_point("sac", {}) == PRESETS["sac/Pendulum-v1"]
    td3 = starting_point("td3", {"env": "Pendulum-v1"})
    assert (td3.gamma, td3.capacity, td3.learning_starts, td3.lr, td3.hidden) == (
        0.98,
        200_000,
        10_000,
        1e-3,
        (400, 300),
    )
    ddpg = starting_point("ddpg", {"env": "MountainCarContinuous-v0"})
    assert (ddpg.td3.drifting, ddpg.td3.noise, ddpg.td3.critics, ddpg.td3.delay) == (True, 0.5, 1, 1)
    assert ddpg.td3.target_noise == 0.0
    sac = starting_point("sac", {"env": "MountainCarContinuous-v0"})
    assert (sac.sac.temperature, sac.train_every, sac.gradient_steps, sac.batch_size) == (0.1, 32, 32, 512)
    unknown = starting_point("sac", {"env": "Unknown-v0"})
    assert unknown == replace(DEFAULTS["sac"], env="Unknown-v0")
    for name, preset in PRESETS.items():
        assert name.removesuffix("-nature").removesuffix("-plan") == f"{preset.algo}/{preset.env}"


@pytest.mark.parametrize("algo", ["ddpg", "td3"])
def test_numbered_actions_are_refused(algo, tmp_path):
    with pytest.raises(
        ConfigError, match=r"has numbered actions, 2 of them; this algorithm takes real numbers.*as dqn"
    ):
        main(tiny(algo, tmp_path / "run", env="CartPole-v1"))
    assert not (tmp_path / "run").exists()


def test_actions_without_bounds_are_refused():
    env = make("Pendulum-v1", 1, 0)
    env.actions = Box((float("-inf"),), (2.0,))
    with pytest.raises(ConfigError, match=r"from \[-inf\] to \[2.0\]; an actor that ends in tanh needs finite bounds"):
        Scaled(env)


@pytest.mark.parametrize(
    ("algo", "wrong", "words"),
    [
        ("td3", {"td3": Td3Options(delay=0)}, "delay is 0"),
        ("ddpg", {"td3": Td3Options(noise=-1.0)}, "noise is -1.0"),
        ("sac", {"sac": SacOptions(temperature=0.0)}, "temperature is 0.0"),
        ("sac", {"tau": 0.0}, "tau is 0.0"),
        ("sac", {"steps": 0}, "steps is 0"),
        ("sac", {"gamma": 1.5}, "gamma is 1.5"),
    ],
)
def test_settings_that_cannot_work_are_refused(algo, wrong, words):
    with pytest.raises(ConfigError, match=words):
        replace(DEFAULTS[algo], **wrong)


@pytest.mark.slow
def test_sac_swings_the_pendulum_up(tmp_path):
    """Four seeds of a small network and 4,000 steps: untrained below -1,000, the best half above -300."""
    config = replace(PRESETS["sac/Pendulum-v1"], steps=4000, hidden=(64, 64), batch_size=128, seeds=4)
    main(replace(config, eval_every=0, eval_episodes=20, out=str(tmp_path / "run")))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    first, last = (sorted(line[f"seed{k}/eval/return"] for k in range(4)) for line in (lines[0], lines[-1]))
    assert np.mean(first) < -1000
    assert np.mean(last[2:]) > -300
