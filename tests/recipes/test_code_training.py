"""Training on programs: the sandbox is in the loop, its verdicts are what is learnt from, nothing is left over."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from onepolicy.recipes import grpo
from onepolicy.recipes.options import ExamOptions, Machine, ProblemOptions, WarmStart
from onepolicy.recipes.verifying import Judge
from onepolicy.tasks.base import load_task_set
from onepolicy.tasks.sandbox import default_sandbox


def test_a_run_judges_programs_in_the_sandbox():
    """What the recipe's judge does with a task set of programs: parts by name, and a run for each different program."""
    tasks = load_task_set("code", "train", level=1, n=20)
    pairs = [(task, f"<think></think><answer>{task.answer}  # judged</answer>") for task in tasks]
    before = default_sandbox().runs
    with Judge(Machine(), tasks) as judge:
        scores = judge.score(pairs + pairs[:4])
        assert judge.timing()["time/verify_seconds"] > 0
    assert [score.value for score in scores] == [1.1] * 24
    assert default_sandbox().runs - before == 20


@pytest.mark.slow
def test_grpo_learns_from_programs_that_were_run(tmp_path):
    config = replace(
        grpo.Config(),
        tasks="code",
        level=1,
        steps=2,
        prompts=4,
        group_size=4,
        max_tokens=40,
        eval_every=0,
        save_every=0,
        out=str(tmp_path / "run"),
        warm=WarmStart(steps=120, lr=3e-3),
        problems=ProblemOptions(),
        exam=ExamOptions(size=16),
        machine=Machine(threads=1),
    )
    before = default_sandbox().runs
    grpo.main(config)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert default_sandbox().runs > before + 16
    assert any(line.get("rollout/tests") == 4.0 for line in lines)
    assert all(line.get("rollout/score_invalid", 0.0) == 0.0 for line in lines)
    assert all(not slot.group.members() for slot in default_sandbox().backend._free.queue if slot.group)
