"""The library's front door, used as the README uses it, on settings of a moment."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import onepolicy as op
from onepolicy.errors import CheckpointError, ConfigError
from onepolicy.run.journal import read_lines

PPO = {"steps": 64, "num_envs": 2, "n_steps": 16, "batch_size": 16, "epochs": 1, "eval_episodes": 2, "eval_every": 0}
GRPO = {
    "level": 1, "steps": 2, "prompts": 2, "group_size": 4, "max_tokens": 8, "save_every": 1, "eval_every": 0,
    "warm__steps": 2, "warm__batch_size": 4, "exam__size": 4, "tiny__context": 32, "machine__threads": 1,
}  # fmt: skip


def test_a_controller_is_trained_acts_and_is_evaluated(tmp_path):
    """The same seed plays the same episodes; the report's policy and the loaded one are one."""
    report = op.train("ppo", env="CartPole-v1", out=str(tmp_path / "run"), **PPO)
    obs = torch.zeros(1, 4)
    said = report.policy.evaluate(obs, torch.zeros(1, dtype=torch.int64))
    again = op.load(tmp_path / "run").policy
    torch.testing.assert_close(again.evaluate(obs, torch.zeros(1, dtype=torch.int64)).value, said.value)
    assert report.policy.act(obs[0]) == again.act(obs)[0] in (0, 1)
    assert op.evaluate(report.policy, episodes=6, seed=3) == op.evaluate(again, env="CartPole-v1", episodes=6, seed=3)
    with pytest.raises(ConfigError, match=r"Pendulum-v1 observes 3 numbers .* this policy learnt in CartPole-v1"):
        op.evaluate(again, env="Pendulum-v1")
    first, second = (op.evaluate(p, env="CartPole-v1", episodes=6, seed=3) for p in (report.policy, again))
    assert first == second != op.evaluate(report.policy, env="CartPole-v1", episodes=6, seed=4)
    interval = first.interval()
    assert interval.low <= interval.value <= interval.high


def test_a_language_model_is_trained_completes_and_is_evaluated(tmp_path):
    """Fields of a group have two underscores; the preset gives what is not said."""
    run = tmp_path / "run"
    report = op.train("grpo", preset="arithmetic", out=str(run), **GRPO)
    assert report.run_dir == run
    lines = list(read_lines(run / "metrics.jsonl"))
    assert [line["step"] for line in lines] == [0, 1, 2]
    assert report.metrics["eval/accuracy"] == lines[-1]["eval/accuracy"]
    said = report.policy.complete("1+2=", max_tokens=6)
    assert said == op.load(run).policy.complete("1+2=", max_tokens=6)
    marks = op.evaluate(run, tasks="arithmetic", level=1, size=4, max_tokens=8, machine__threads=1)
    assert marks.metrics["arithmetic/accuracy"] == lines[-1]["eval/accuracy"]
    assert marks.metrics["arithmetic/length"] == lines[-1]["eval/length"]


def test_a_run_is_gone_on_with(copied):
    """Without its last checkpoint a run goes on from the one before, to the same end."""
    run = copied("ppo")
    whole = (run / "metrics.jsonl").read_text()
    shutil.rmtree(run / "checkpoints")
    (run / "report.md").unlink()
    report = op.resume(run)
    assert (run / "metrics.jsonl").read_text() == whole
    assert (report.run_dir / "report.md").exists()
    assert re.match(r"ppo on CartPole-v1, seed 0: mean return", report.text)


def test_without_a_preset_a_world_has_its_own(tmp_path, monkeypatch):
    """The configuration that training gets, without training."""
    from onepolicy.recipes import control

    monkeypatch.setattr(control, "main", lambda config: config)
    monkeypatch.setattr("onepolicy.api.playable", lambda config: config)
    assert op.train("ppo", seed=3).lr == control.PRESETS["ppo/CartPole-v1"].lr
    assert op.train("a2c", env="Acrobot-v1").lr == control.DEFAULTS["a2c"].lr
    named = op.train("ppo", preset="ppo/LunarLander-v3", steps=7)
    assert (named.env, named.steps, named.n_steps) == ("LunarLander-v3", 7, 1024)
    assert op.train("a2c").algo == "a2c"


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: op.train("pppo"), ConfigError, "Did you mean 'ppo'"),
        (lambda: op.train("ppo", preset="CartPole"), ConfigError, "Did you mean 'ppo/CartPole-v1'"),
        (lambda: op.train("ppo", step=3), ConfigError, "step is not a field of control.Config. Did you mean 'steps'"),
        (lambda: op.train("grpo", warm__step=3), ConfigError, r"(?s)step is not a field.*Did you mean 'steps'"),
        (lambda: op.train("a2c", algo="ppo"), ConfigError, "algo is 'ppo', but 'a2c' decides it"),
        (lambda: op.train("ppo", steps=2.5), ConfigError, "steps is 2.5, a float; expected a whole number"),
        (lambda: op.load("nowhere"), CheckpointError, "nowhere is not a directory"),
        (lambda: op.resume("nowhere"), CheckpointError, "nowhere is not a directory"),
        (lambda: op.evaluate("runs/x", task="gsm8k"), ConfigError, "Did you mean 'tasks'"),
        (lambda: op.evaluate(object()), ConfigError, 'got no env; give env="CartPole-v1", episodes and seed'),
        (lambda: op.evaluate(object(), env="x", tasks="y"), ConfigError, "got unknown tasks"),
    ],
)
def test_what_is_wrong_is_said(call, error, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=words):
        call()
    assert not list(Path().iterdir())


def test_every_public_name_is_there():
    assert all(getattr(op, name) is not None for name in op.__all__)
    assert dir(op) == sorted(op.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = op.trian


def test_evaluation_of_a_policy_is_of_greedy_whole_episodes(made):
    """CartPole pays 1 a step: the mean return of n episodes is the mean length, and n values are there."""
    found = op.evaluate(op.load(made("ppo")).policy, env="CartPole-v1", episodes=5, seed=0)
    values = np.asarray(found.returns)
    assert values.shape == (5,)
    assert found.interval().value == pytest.approx(values.mean())
