"""A run directory's life: made, logged to, saved, resumed to the byte, refused when something is off."""

import json

import pytest
import torch

from onepolicy.errors import CheckpointError, ConfigError
from onepolicy.run.run import Run


class Counter:
    """The smallest stateful part."""

    def __init__(self):
        self.value = 0

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


def train(run, part, last, save_every=2):
    """A deterministic loop: the metric depends on the part's state only."""
    start = run.resume(counter=part)
    for step in range(start + 1, last + 1):
        part.value = part.value * 31 + step
        run.log(step, {"policy/loss": part.value / 7}, {"time/step": 0.1})
        run.sample(step, [{"prompt": f"p{step}", "score": part.value}])
        if step % save_every == 0:
            run.save(step, counter=part)


def test_resume_cuts_the_files_back_to_the_checkpoint_and_repeats_them_to_the_byte(tmp_path):
    """Killed after step 5 with a checkpoint at 4: step 5's lines go, and come back equal."""
    straight = Run.create(tmp_path / "a", recipe="count", config={"steps": 8})
    train(straight, Counter(), 8)
    broken = Run.create(tmp_path / "b", recipe="count", config={"steps": 8})
    train(broken, Counter(), 5)
    with (tmp_path / "b" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "policy/lo')
    again, part = Run.open(tmp_path / "b"), Counter()
    assert again.resume(counter=part) == 4
    steps = [json.loads(line)["step"] for line in (tmp_path / "b" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]
    train(again, part, 8)
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_resume_without_a_checkpoint_starts_over(tmp_path):
    """Step 0's evaluation was logged before the kill; a start from 0 logs it again, so it must go."""
    run = Run.create(tmp_path / "r", recipe="count", config={})
    run.log(0, {"eval/accuracy": 0.5})
    assert Run.open(tmp_path / "r").resume(counter=Counter()) == 0
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
