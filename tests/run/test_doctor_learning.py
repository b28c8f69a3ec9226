"""The doctor on runs that learned all they did in their first steps, and on those that did not learn at all."""

import numpy as np
import pytest

from onepolicy.run import doctor

N = 120
STEPS = np.arange(N)
NOISE = np.random.default_rng(0).normal(size=N)
EARLY = 0.2 + 0.5 * (1 - np.exp(-STEPS / 7))
"""A score that has nearly all its gain after 20 of 120 steps."""


def findings(run):
    return {finding.name: finding for finding in doctor.diagnose(run.directory)}


def exams(first, last, key="eval/accuracy"):
    """Evaluations before and after, their intervals 0.05 wide on either side."""
    between = [None] * (N - 2)
    return {
        key: [first, *between, last],
        f"{key}_low": [first - 0.05, *between, last - 0.05],
        f"{key}_high": [first + 0.05, *between, last + 0.05],
    }


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("rollout/score", EARLY + 0.05 * NOISE),
        ("rollout/return", 20 + 400 * EARLY + 20 * NOISE),
        ("sft/nll", 2 - 2 * EARLY + 0.2 * NOISE),
    ],
)
def test_what_was_learned_in_the_first_steps_is_learning(make_run, key, values):
    """First and last third do not differ at p < 0.01; the first five values and the last third do."""
    found = findings(make_run({key: list(values)}))
    assert "no learning" not in found
    assert found["learning"].severity == "good"
    assert "(first 5 values)" in found["learning"].words
    assert found["learning"].words.endswith("the gain is in the first third.")


@pytest.mark.parametrize("key", ["eval/accuracy", "eval/return"])
def test_a_held_out_gain_overrules_a_training_score_that_did_not_move(make_run, key):
    """The gain was made in the first step: no window of the training score shows it, the exams do."""
    flat = {"rollout/score": list(0.6 + 0.05 * NOISE)}
    assert "no learning" in findings(make_run(flat, name="alone"))
    found = findings(make_run(flat | exams(0.2, 0.6, key)))
    assert "no learning" not in found
    assert "what it learned, it learned early." in found["level"].words
    assert "no learning" in findings(make_run(flat | exams(0.55, 0.6, key), name="close"))


def test_falling_held_out_marks_overrule_nothing(make_run):
    found = findings(make_run({"rollout/score": list(0.6 + 0.05 * NOISE)} | exams(0.6, 0.2)))
    assert {"no learning", "held-out loss"} <= set(found)


def test_a_score_that_rose_and_fell_back_to_its_start_has_not_learned(make_run):
    score = list(0.2 + 0.5 * np.minimum(STEPS / 20, 1) - 0.5 * np.clip((STEPS - 50) / 20, 0, 1) + 0.05 * NOISE)
    assert "learning" not in findings(make_run({"rollout/score": score}))


def test_drifting_noise_is_rarely_taken_for_early_learning(make_run):
    """AR(1) noise with 0.6 from step to step, 30 runs: an early gain must be twice the spread, not only significant."""
    rng = np.random.default_rng(5)
    alarms = 0
    for number in range(30):
        shocks, drift = rng.normal(size=N), np.zeros(N)
        for t in range(1, N):
            drift[t] = 0.6 * drift[t - 1] + shocks[t]
        found = findings(make_run({"rollout/return": list(drift)}, name=f"run{number}"))
        alarms += "learning" in found
    assert alarms <= 2
