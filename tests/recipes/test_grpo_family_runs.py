"""Stopping at the doctor's word, and the surrogate before and after the updates, in whole runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from onepolicy.errors import TrainingError
from onepolicy.recipes import grpo
from onepolicy.recipes.options import ExamOptions
from onepolicy.run.history import Finding
from onepolicy.run.journal import read_lines
from onepolicy.run.manifest import saved_steps


def lines(config):
    return {line["step"]: line for line in read_lines(Path(config.out) / "metrics.jsonl")}


def test_a_finding_that_was_chosen_stops_the_run_saved_and_it_can_go_on(tiny_grpo, monkeypatch):
    """The doctor cries at the exam of step 2 and again when resumed, unless it was not to be heard."""
    found = [Finding("problem", "KL blow-up", "It is 20 nats.", "Lower lr.")]
    monkeypatch.setattr("onepolicy.run.doctor.diagnose", lambda directory: found)
    config = tiny_grpo(exam=ExamOptions(size=4, stop_on="reward hacking, problem"), save_every=0, eval_every=2)
    with pytest.raises(TrainingError, match=r"stopped by the doctor: KL blow-up\. It is 20 nats\. Lower lr\."):
        grpo.main(config)
    assert saved_steps(Path(config.out) / "checkpoints") == [2]
    found[0] = replace(found[0], name="length drift", severity="warning")
    grpo.main(config, resume=Path(config.out))
    assert max(lines(config)) == 4


def test_the_surrogate_is_0_before_and_above_it_after_a_step_uphill(tiny_grpo):
    """Group-centred advantages at ratio 1 have mean 0 where a completion's tokens weigh the same; the updates raise it.

    Measured at steps 1, 2 and 4 only: those with an exam.
    """
    config = tiny_grpo(steps=4, eval_every=2, lr=1e-2)
    grpo.main(config)
    found = lines(config)
    assert {step for step in found if "policy/surrogate_after" in found[step]} <= {1, 2, 4}
    gains = [
        found[step]["policy/surrogate_after"] - found[step]["policy/surrogate_before"]
        for step in found
        if "policy/surrogate_after" in found[step]
    ]
    assert gains
    assert max(gains) > 0
    off = tiny_grpo("off", exam=ExamOptions(size=4, probe=False))
    grpo.main(off)
    assert not any("policy/surrogate_before" in line for line in lines(off).values())
