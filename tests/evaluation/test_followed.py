"""IFEval's four accuracies: by hand, against the verifier itself, and what is left out."""

from __future__ import annotations

import numpy as np
import pytest

from onepolicy.evaluation.accuracy import summarise
from onepolicy.evaluation.attempts import GREEDY, Attempt
from onepolicy.evaluation.followed import followed
from onepolicy.tasks.base import conversation
from onepolicy.tasks.ifeval import accuracies
from onepolicy.tasks.instructions import InstructionVerifier, bind
from onepolicy.types import Score, Task


def attempt(task, constraints, strict, loose):
    """A reply that follows so many of its instructions."""
    parts = {
        "correct": float(strict == constraints),
        "prompt_strict": float(strict == constraints),
        "prompt_loose": float(loose == constraints),
        "instruction_strict": strict / constraints,
        "instruction_loose": loose / constraints,
        "constraints": float(constraints),
        "followed_strict": float(strict),
        "followed_loose": float(loose),
    }
    return Attempt(task, GREEDY, 0, "", None, parts["correct"], parts)


ROWS = [[attempt("a", 1, 1, 1)], [attempt("b", 3, 1, 3)], [attempt("c", 2, 1, 1)]]


def test_the_four_numbers_by_hand():
    """Prompts strict 1/3, loose 2/3; instructions strict (1 + 1 + 1) / 6, loose (1 + 3 + 1) / 6; means of shares would
    be 0.61 and 0.83."""
    found = followed(ROWS)
    assert {name: round(one.value, 6) for name, one in found.items()} == {
        "prompt_strict": 0.333333,
        "instruction_strict": 0.5,
        "prompt_loose": 0.666667,
        "instruction_loose": 0.833333,
    }
    assert {name: one.value for name, one in found.items()} == accuracies(
        Score(row[0].value, row[0].parts) for row in ROWS
    )


def test_intervals_resample_prompts_as_a_loop_does():
    """The one prompt followed strictly is in none of three draws in (2/3)^3 = 30 %, in all in (1/3)^3 = 3.7 %."""
    found = followed(ROWS)
    rng = np.random.default_rng(1)
    draws = []
    for _ in range(4000):
        chosen = [ROWS[i][0].parts for i in rng.integers(3, size=3)]
        draws.append(sum(p["followed_loose"] for p in chosen) / sum(p["constraints"] for p in chosen))
    low, high = np.quantile(draws, [0.025, 0.975])
    assert (found["instruction_loose"].low, found["instruction_loose"].high) == pytest.approx((low, high), abs=0.02)
    assert (found["prompt_strict"].low, found["prompt_strict"].high) == (0.0, 1.0)


def test_all_or_none_has_an_interval_of_the_right_number_of_trials():
    """Wilson: 6 of 6 instructions, 1 - z^2 / (6 + z^2) = 0.6097; 2 of 2 prompts 0.3424."""
    found = followed([[attempt("a", 3, 3, 3)], [attempt("b", 3, 3, 3)]])
    assert found["instruction_strict"].low == pytest.approx(0.6097, abs=1e-4)
    assert found["prompt_strict"].low == pytest.approx(0.3424, abs=1e-4)


def test_what_was_not_judged_is_left_out():
    broken = Attempt("d", GREEDY, 0, "", None, None, {}, "time-out: x")
    assert followed([*ROWS, [broken]]) == followed(ROWS)
    assert followed([[broken]]) == {}
    assert followed([[Attempt("a", GREEDY, 0, "", None, 1.0, {"correct": 1.0})]]) == {}


def test_a_report_names_them_and_shows_no_means_of_counts():
    bounds = bind(["punctuation:no_comma", "change_case:english_lowercase"], [{}, {}])
    tasks = [Task(f"t{i}", conversation("?"), "", InstructionVerifier(bounds)) for i in range(2)]
    made = []
    for task, text in zip(tasks, ("all small letters in here and no comma", "small letters, with a comma in between")):
        score = task.verifier(task, text)
        made.append(Attempt(task.id, GREEDY, 0, text, None, score.value, score.parts))
    report = summarise(tasks, made, k=0)
    assert {name: one.value for name, one in report.followed.items()} == {
        "prompt_strict": 0.5,
        "instruction_strict": 0.75,
        "prompt_loose": 0.5,
        "instruction_loose": 0.75,
    }
    assert report.metrics()["eval/instruction_strict"] == 0.75
    assert dict(report.parts) == {}
    assert dict(report.rows())["instruction level, strict"].startswith("75.0 % [")
