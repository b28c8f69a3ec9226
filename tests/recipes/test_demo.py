"""The demonstration at a tiny size: its three parts run, and its report says what their files say."""

from __future__ import annotations

import json

import pytest

from onepolicy.recipes import demo


def last_accuracy(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["eval/accuracy"] for line in lines if "eval/accuracy" in line][-1]


def test_the_table_is_what_the_three_runs_measured(tmp_path):
    out = tmp_path / "demo"
    sizes = {"warm_steps": 4, "rl_steps": 2, "control_steps": 3, "prompts": 4, "group_size": 2, "exam_size": 16}
    report = demo.main(demo.Config(demonstrations=64, out=str(out), **sizes))
    for name in ("warm", "control", "rl"):
        assert report.metrics[f"demo/{name}"] == last_accuracy(out / name)
    row = next(line for line in report.text.splitlines() if "reinforcement learning" in line)
    assert f"{last_accuracy(out / 'rl'):.1%}" in row
    assert (out / "curves.png").stat().st_size > 10_000
    assert "control: more supervised fine-tuning" in (out / "report.md").read_text()
    before = next(sat.accuracy for sat in demo.sittings(out / "rl"))
    assert before == last_accuracy(out / "warm"), "reinforcement learning starts where the warm start ended"


def test_the_control_continues_the_same_demonstrations(tmp_path):
    config = demo.Config(seed=3)
    warm, control = demo.warm_config(config, tmp_path), demo.control_config(config, tmp_path)
    assert (warm.demonstrations, warm.seed, warm.problems) == (control.demonstrations, control.seed, control.problems)
    assert control.model == str(tmp_path / "warm" / "model") == demo.rl_config(config, tmp_path).model


def test_seconds_add_up_over_steps(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    timing = [{"step": 1, "time/step_seconds": 1.5}, {"step": 2, "time/step_seconds": 0.5}]
    exam = {"eval/accuracy": 0.5, "eval/accuracy_low": 0.4, "eval/accuracy_high": 0.6}
    metrics = [{"step": 0, **exam}, {"step": 1}, {"step": 2, **exam}]
    for name, lines in (("timing", timing), ("metrics", metrics)):
        (run / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [(sat.step, sat.seconds) for sat in demo.sittings(run)] == [(0, 0.0), (2, pytest.approx(2.0))]
