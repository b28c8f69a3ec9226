"""Callbacks, the early stop and videos: they see what is logged, end what they should, and change nothing else."""

import json
from dataclasses import replace

import numpy as np
import pytest

import onepolicy as op
from onepolicy.errors import ConfigError
from onepolicy.recipes import control, lockstep, off_policy, side_by_side
from onepolicy.recipes.callbacks import Watch
from onepolicy.recipes.seeds import train_seeds

SMALL = {
    "num_envs": 2,
    "n_steps": 16,
    "batch_size": 16,
    "epochs": 1,
    "eval_episodes": 2,
    "eval_every": 64,
    "steps": 192,
}
PPO = control.Config(**SMALL)
DQN = off_policy.Config(algo="dqn", steps=60, learning_starts=20, eval_every=30, eval_episodes=2, capacity=100)


@pytest.fixture(autouse=True)
def log_every_step(monkeypatch):
    monkeypatch.setattr(control, "LOG_EVERY", 1)
    monkeypatch.setattr(side_by_side, "LOG_EVERY", 1)


def lines(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


KINDS = {"ppo": (control, PPO), "seeds": (lockstep, replace(PPO, seeds=2)), "dqn": (off_policy, DQN)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_callback_sees_each_line_and_changes_none(kind, tmp_path):
    """Even one that acts with the policy, by draws: they come from a stream of its own."""
    recipe, config = KINDS[kind]
    seen = []

    def look(event):
        action = event.policy.act(np.zeros(4), stochastic=True)
        assert action in (0, 1)
        event.metrics["own/thing"] = 1.0
        seen.append((event.step, dict(event.metrics), len(event.policies), event.run_dir))

    recipe.main(replace(config, out=str(tmp_path / "watched")), callbacks=[look])
    recipe.main(replace(config, out=str(tmp_path / "alone")))
    assert (tmp_path / "watched/metrics.jsonl").read_bytes() == (tmp_path / "alone/metrics.jsonl").read_bytes()
    logged = lines(tmp_path / "alone")[1:]
    assert [step for step, *_ in seen] == [line["step"] for line in logged]
    assert all(metrics | {"step": step} == line | {"own/thing": 1.0} for (step, metrics, *_), line in zip(seen, logged))
    assert {count for _, _, count, _ in seen} == {config.seeds}
    assert seen[0][3] == tmp_path / "watched"


@pytest.mark.parametrize("kind", KINDS)
def test_a_callback_ends_training_with_an_evaluation_a_checkpoint_and_a_report(kind, tmp_path):
    recipe, config = KINDS[kind]
    out = tmp_path / "run"
    at = 40 if kind == "dqn" else 96
    report = recipe.main(replace(config, out=str(out)), callbacks=[lambda event: "stop" if event.step >= at else None])
    last = lines(out)[-1]
    assert last["step"] == at
    assert any(key.endswith("eval/return") for key in last)
    assert json.loads((out / "status.json").read_text())["state"] == "finished"
    assert [path.name for path in (out / "checkpoints").iterdir()] == [f"step-{at}"]
    assert "mean return" in report.text
    resumed = recipe.main(replace(config, out=str(out)), out)
    assert lines(resumed.run_dir)[-1]["step"] == config.steps


@pytest.mark.parametrize("kind", KINDS)
def test_training_ends_at_a_return_and_has_nothing_left_to_do(kind, tmp_path):
    recipe, config = KINDS[kind]
    config = replace(config, stop_at_return=-1.0, out=str(tmp_path / "run"))
    recipe.main(config)
    assert lines(tmp_path / "run")[-1]["step"] == config.eval_every
    before = (tmp_path / "run/metrics.jsonl").read_bytes()
    recipe.main(config, tmp_path / "run")
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == before


def test_every_seed_must_reach_the_return():
    watch = Watch.__new__(Watch)
    watch.stop_at_return = 10.0
    assert watch.reached({"eval/return": 10.0})
    assert not watch.reached({"eval/return": 15.0, "seed0/eval/return": 9.0, "seed1/eval/return": 21.0})
    assert not watch.reached({"rollout/return": 50.0})


def test_a_word_that_is_not_stop_is_refused(tmp_path):
    def typo(event):
        return "halt"

    with pytest.raises(ConfigError, match="the callback typo returned 'halt'"):
        control.main(replace(PPO, out=str(tmp_path / "run")), callbacks=[typo])


def test_where_nothing_can_be_called_back(tmp_path):
    with pytest.raises(ConfigError, match="processes of their own"):
        train_seeds(replace(PPO, seeds=2, target_kl=0.1, out=str(tmp_path / "run")), None, [print])
    with pytest.raises(ConfigError, match="callbacks are for deep control; 'sft' calls none"):
        op.train("sft", callbacks=[print])


def test_videos_are_made_on_time_and_at_the_end(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr("onepolicy.recipes.video.record", lambda player, path, seed: made.append((path.name, seed)))
    control.main(replace(PPO, video=96, out=str(tmp_path / "run")))
    assert made == [("step-96.mp4", 96), ("step-192.mp4", 192)]
