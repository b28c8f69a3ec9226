"""A run directory's life: made, logged to, saved, resumed to the byte, refused when something is off."""

import json
import sys
import time
import types

import pytest
import torch

from onepolicy.errors import CheckpointError, ConfigError, DataError, TrainingError
from onepolicy.run.process import versions
from onepolicy.run.run import Run


def train(run, part, last, save_every=2):
    """A deterministic loop: the metric depends on the part's state only."""
    start = run.resume(counter=part)
    for step in range(start + 1, last + 1):
        part.value = part.value * 31 + step
        run.log(step, {"policy/loss": part.value / 7}, {"time/step": 0.1})
        run.sample(step, [{"prompt": f"p{step}", "score": part.value}])
        if step % save_every == 0:
            run.save(step, counter=part)


def test_resume_cuts_the_files_back_to_the_checkpoint_and_repeats_them_to_the_byte(tmp_path, counter):
    """Killed after step 5 with a checkpoint at 4: step 5's lines go, and come back equal."""
    straight = Run.create(tmp_path / "a", recipe="count", config={"steps": 8})
    train(straight, counter(), 8)
    broken = Run.create(tmp_path / "b", recipe="count", config={"steps": 8})
    train(broken, counter(), 5)
    with (tmp_path / "b" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "policy/lo')
    again, part = Run.open(tmp_path / "b"), counter()
    assert again.resume(counter=part) == 4
    steps = [json.loads(line)["step"] for line in (tmp_path / "b" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]
    train(again, part, 8)
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_resume_without_a_checkpoint_starts_over(tmp_path, counter):
    """Step 0's evaluation was logged before the kill; a start from 0 logs it again, so it must go."""
    run = Run.create(tmp_path / "r", recipe="count", config={})
    run.log(0, {"eval/accuracy": 0.5})
    assert Run.open(tmp_path / "r").resume(counter=counter()) == 0
    assert (tmp_path / "r" / "metrics.jsonl").read_text() == ""


def test_metrics_lines_are_sorted_exact_and_have_null_for_nan(tmp_path):
    run = Run.create(tmp_path / "r", recipe="count", config={})
    run.log(
        3, {"value/loss": float("nan"), "policy/loss": 0.1, "policy/kl_old": torch.tensor(0.25), "rollout/episodes": 7}
    )
    line = (tmp_path / "r" / "metrics.jsonl").read_text()
    assert line == '{"step": 3, "policy/kl_old": 0.25, "policy/loss": 0.1, "rollout/episodes": 7, "value/loss": null}\n'


@pytest.mark.parametrize(("metrics", "words"), [({"loss": 1.0}, "area/name"), ({"policy/loss": "high"}, "no number")])
def test_a_metric_that_is_none_is_an_error(tmp_path, metrics, words):
    run = Run.create(tmp_path / "r", recipe="count", config={})
    with pytest.raises(ConfigError, match=words):
        run.log(1, metrics)


def test_a_used_directory_is_refused(tmp_path):
    Run.create(tmp_path / "r", recipe="count", config={})
    with pytest.raises(ConfigError, match="onepolicy resume"):
        Run.create(tmp_path / "r", recipe="count", config={})


def test_a_directory_that_cannot_be_made_is_a_config_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/r cannot be made.*Give --out"):
        Run.create(tmp_path / "file" / "r", recipe="count", config={})


def test_missing_and_half_written_directories_are_named_with_their_neighbours(tmp_path):
    Run.create(tmp_path / "grpo-1", recipe="count", config={})
    with pytest.raises(CheckpointError, match=r"grpo-2 is not a directory.*grpo-1"):
        Run.open(tmp_path / "grpo-2")
    (tmp_path / "half").mkdir()
    with pytest.raises(CheckpointError, match=r"has no config.json"):
        Run.open(tmp_path / "half")
    (tmp_path / "half" / "config.json").write_text('{"recipe": "grpo", "conf')
    with pytest.raises(CheckpointError, match="half-written"):
        Run.open(tmp_path / "half")


def test_without_a_directory_the_first_free_number_is_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [str(Run.create("", recipe="ppo", config={}).directory) for _ in range(2)]
    assert names == ["runs/ppo-1", "runs/ppo-2"]


def test_config_json_says_what_ran_and_on_what(tmp_path):
    Run.create(tmp_path / "r", recipe="grpo", config={"lr": 0.1}, data={"train": "ab12"})
    header = json.loads((tmp_path / "r" / "config.json").read_text())
    assert header["config"] == {"lr": 0.1}
    assert header["data"] == {"train": "ab12"}
    assert header["versions"]["torch"] == torch.__version__
    assert header["versions"]["python"].startswith("3.")
    assert header["versions"]["transformers"]
    assert len(header["config_hash"]) == 64
    assert header["git"] is None or len(header["git"].removesuffix("-dirty")) == 40


def test_a_run_is_continued_only_by_the_same_experiment(tmp_path, counter):
    """fresh=False is what a pipeline of stages needs: the same command again goes on where it stopped."""
    first = Run.create(tmp_path / "r", recipe="count", config={"steps": 8, "out": "a"})
    train(first, counter(), 4)
    again = Run.create(tmp_path / "r", recipe="count", config={"steps": 8, "out": "b"}, fresh=False)
    assert again.resume(counter=counter()) == 4
    with pytest.raises(ConfigError, match=r"another experiment \(steps: 8 -> 9"):
        Run.create(tmp_path / "r", recipe="count", config={"steps": 9}, fresh=False)
    with pytest.raises(ConfigError, match="recipe: count -> sft"):
        Run.create(tmp_path / "r", recipe="sft", config={"steps": 8}, fresh=False)
    assert Run.create(tmp_path / "new", recipe="sft", config={}, fresh=False).directory.is_dir()


def test_other_data_is_refused_by_name(tmp_path):
    run = Run.create(tmp_path / "r", recipe="sft", config={}, data={"train": "aa"})
    run.use_data({"train": "aa", "eval": "bb"})
    again = Run.open(tmp_path / "r")
    again.use_data({"eval": "bb"})
    with pytest.raises(DataError, match="data of eval changed"):
        again.use_data({"train": "aa", "eval": "cc"})


def test_steps_that_go_back_are_an_error(tmp_path):
    run = Run.create(tmp_path / "r", recipe="count", config={})
    run.log(5, {"policy/loss": 1.0})
    run.log(5, {"eval/accuracy": 1.0})
    with pytest.raises(TrainingError, match="step 4 after step 5"):
        run.log(4, {"policy/loss": 1.0})


def test_timing_has_the_clock_and_memory_and_metrics_have_not(tmp_path):
    run = Run.create(tmp_path / "r", recipe="count", config={})
    run.log(1, {"policy/loss": 1.0}, {"time/rollout_seconds": 2.0})
    timing = json.loads((tmp_path / "r" / "timing.jsonl").read_text())
    assert timing["time/rollout_seconds"] == 2.0
    assert abs(timing["time/unix"] - time.time()) < 60
    assert timing["memory/resident"] > 10
    assert json.loads((tmp_path / "r" / "metrics.jsonl").read_text()) == {"step": 1, "policy/loss": 1.0}


def test_a_broken_line_in_the_middle_is_named(tmp_path, counter):
    run = Run.create(tmp_path / "r", recipe="count", config={})
    train(run, counter(), 4)
    path = tmp_path / "r" / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + "garbage\n" + "".join(lines[2:]))
    with pytest.raises(CheckpointError, match=r"metrics.jsonl line 2 is not JSON.*Remove that line"):
        Run.open(tmp_path / "r").resume(counter=counter())


def test_another_version_of_a_library_is_said_not_refused(tmp_path, counter, monkeypatch):
    run = Run.create(tmp_path / "r", recipe="count", config={})
    train(run, counter(), 2)
    monkeypatch.setattr("onepolicy.run.run.versions", lambda: {**versions(), "torch": "9.9"})
    assert Run.open(tmp_path / "r").resume(counter=counter()) == 2
    assert f"torch {torch.__version__} -> 9.9" in (tmp_path / "r" / "log.txt").read_text()


def test_a_tracker_that_is_unknown_or_not_installed(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="Did you mean 'wandb'"):
        Run.create(tmp_path / "a", recipe="r", config={}, tracker="wanb")
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(ConfigError, match=r'pip install "onepolicy\[trackio\]"'):
        Run.create(tmp_path / "b", recipe="r", config={}, tracker="trackio")
    assert not (tmp_path / "b" / "config.json").exists()


def test_a_hosted_tracker_gets_every_finite_number_and_goes_on_under_its_name(tmp_path, monkeypatch):
    """A stand-in for wandb with its interface records the calls."""
    calls = []
    wandb = types.SimpleNamespace(
        init=lambda **arguments: calls.append(("init", arguments["id"], arguments["resume"], arguments["config"])),
        log=lambda values, step: calls.append(("log", step, values)),
        finish=lambda: calls.append(("finish",)),
    )
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    run = Run.create(tmp_path / "grpo-1", recipe="grpo", config={"lr": 0.1}, tracker="wandb")
    run.log(1, {"policy/loss": 0.5, "value/loss": float("nan")}, {"time/step_seconds": 2})
    run.close()
    again = Run.open(tmp_path / "grpo-1")
    again.log(2, {"policy/loss": 0.4})
    assert calls == [
        ("init", "grpo-1", "allow", {"lr": 0.1}),
        ("log", 1, {"policy/loss": 0.5, "time/step_seconds": 2}),
        ("finish",),
        ("init", "grpo-1", "allow", {"lr": 0.1}),
        ("log", 2, {"policy/loss": 0.4}),
    ]
