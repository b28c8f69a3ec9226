"""The benchmarks of mathematics: authors' layouts, broken rows, and every published gold answer against itself."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter

import pytest

from onepolicy.errors import ConfigError, DataError
from onepolicy.tasks.base import load_task_set
from onepolicy.tasks.gsm8k import load as load_gsm8k
from onepolicy.tasks.math import MathVerifier, judge, read_gold
from onepolicy.tasks.math_sets import BENCHMARKS
from onepolicy.tasks.rewards import HASHED

MATH = {"problem": "1+1?", "solution": r"It is $\boxed{2}$.", "answer": "2", "level": 1, "subject": "Algebra"}


def write(folder, *rows, name="test.jsonl"):
    file = folder / name
    file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return str(file)


@pytest.fixture(scope="session")
def published(gsm8k_files):
    return gsm8k_files.parent


@pytest.mark.parametrize(
    ("name", "row", "answer"),
    [
        ("math500", MATH, "2"),
        ("aime24", {"id": 60, "problem": "?", "solution": r"\boxed{025}", "answer": "025"}, "025"),
        ("aime25", {"question": "?", "answer": "70"}, "70"),
        ("aime25", {"problem_idx": 1, "problem": "?", "answer": 70}, "70"),
        ("amc23", {"id": 0, "question": "?", "answer": 27.0}, "27"),
        ("minerva", {"problem": "?", "solution": r"so \boxed{1.6} cm", "type": "Astronomy"}, "1.6"),
        ("minerva", {"question": "?", "answer": "1.6"}, "1.6"),
        ("maths", {"question": "?", "solution": r"\boxed{1} then \boxed{x^2}"}, "x^2"),
        ("maths", {"prompt": "?", "ground_truth": "x^2"}, "x^2"),
    ],
)
def test_the_layouts_that_authors_publish(tmp_path, name, row, answer):
    tasks = load_task_set(name, "test", path=write(tmp_path, row))
    assert [task.answer for task in tasks] == [answer]
    assert tasks.isolated
    assert tasks.tasks[0].messages[0].content == tasks.form.instructions
    assert r"\boxed{}" in tasks.form.instructions


def test_olympiadbench_has_context_units_and_its_own_tolerance(tmp_path):
    row = {"question": "How fast?", "context": "A car.", "solution": ["Fast."], "final_answer": ["$\\frac{600}{7}$"]}
    row |= {"unit": "km/h", "error": "1e-1", "answer_type": "Numerical", "subfield": "Algebra", "id": 1}
    task = load_task_set("olympiadbench", "test", path=write(tmp_path, row)).tasks[0]
    assert task.messages[-1].content == "A car.\n\nHow fast?"
    said = [r"\frac{600}{7}", "85.7", "85.5", r"85.7\text{ km/h}", r"85.7\text{ mph}"]
    assert [task.verifier(task, rf"\boxed{{{a}}}").parts["correct"] for a in said] == [1, 1, 0, 1, 0]


def test_a_tolerance_is_an_option_and_not_the_default(tmp_path):
    row = {"problem": "?", "solution": r"\boxed{4.5e33}"}
    for tolerance, expected in ((0.0, 0.0), (0.01, 1.0)):
        task = load_task_set("minerva", "test", path=write(tmp_path, row), tolerance=tolerance).tasks[0]
        assert task.verifier(task, r"\boxed{4.51 \times 10^{33}}").parts["correct"] == expected


def test_train_rows_are_demonstrations(tmp_path):
    plain = {"problem": "2+2?", "answer": "4"}
    path = write(tmp_path, MATH, plain, name="train.jsonl")
    tasks = load_task_set("maths", "train", path=path)
    said = {talk[-1].content for talk in tasks.demonstrations(2, seed=0)}
    assert said == {r"It is $\boxed{2}$.", r"\boxed{4}"}
    tagged = load_task_set("maths", "train", path=path, read="tag").demonstrations(2, seed=0)
    assert "<think>It is $2$.</think><answer>2</answer>" in {talk[-1].content for talk in tagged}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"problem": "?"}, "no field 'answer'"),
        ({"problem": "?", "answer": ""}, "must be text or a number"),
        ({"problem": "?", "answer": "\\frac{1}{"}, "cannot be read"),
        ({"problem": "?", "answer": "9^{9^{9^9}}"}, "cannot be read"),
        ({"problem": "?", "answer": ["1", "2"]}, "must be text or a number"),
        ({"answer": "1"}, "no field 'problem'"),
    ],
)
def test_a_broken_row_is_named_or_dropped(tmp_path, row, words):
    path = write(tmp_path, MATH, row)
    with pytest.raises(DataError, match="row 2") as error:
        load_task_set("math500", "test", path=path)
    assert words in str(error.value)
    tasks = load_task_set("math500", "test", path=path, on_error="drop")
    assert len(tasks) == 1
    assert words in tasks.dropped[0]


def test_mistaken_options_are_named(tmp_path):
    path = write(tmp_path, MATH)
    (tmp_path / "sub").mkdir()
    with pytest.raises(ConfigError, match="Did you mean 'boxed'"):
        load_task_set("math500", "test", path=path, read="boxes")
    with pytest.raises(ConfigError, match="tolerance is 2"):
        load_task_set("math500", "test", path=path, tolerance=2)
    with pytest.raises(ConfigError, match="held-out problems only"):
        load_task_set("math500", "train")
    with pytest.raises(ConfigError, match="read from a file"):
        load_task_set("maths", "test")
    with pytest.raises(DataError, match=r"no test\.jsonl of aime24"):
        load_task_set("aime24", "test", path=str(tmp_path / "sub"))


def test_workers_begin_with_the_library_at_work():
    code = (
        "import sys; from onepolicy.tasks.math_warm import FIRST; print(FIRST.by, FIRST.right, 'torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["math-verify", "False", "False"]


COUNTS = {"math500": 500, "aime24": 30, "amc23": 40, "minerva": 272, "olympiadbench": 674}
"""Problems whose gold answer verifies against itself (the set is not built otherwise), of the published files."""

SOLVED = {"math500": 500, "aime24": 30, "minerva": 272}
"""Problems whose gold answer is what the verifier reads in the authors' own solution, boxes and all."""


@pytest.mark.parametrize("name", COUNTS)
def test_every_published_gold_answer_verifies(published, name):
    tasks = load_task_set(name, "test", path=str(published))
    assert tasks.counts == {"rows": COUNTS[name] + len(BENCHMARKS[name].left_out), "dropped": 0, "tasks": COUNTS[name]}
    assert all(read_gold(task.answer).readings for task in tasks)
    respelt = [t.id for t in tasks if not judge(t.answer, f"${t.answer.strip('$').replace(' ', '  ')} $ .").right]
    assert respelt == []


@pytest.mark.parametrize("name", SOLVED)
def test_every_published_solution_is_right(published, name):
    tasks = load_task_set(name, "test", path=str(published))
    scores = [task.verifier(task, task.meta["solution"]) for task in tasks]
    assert sum(score.parts["correct"] == 1.0 for score in scores) == SOLVED[name]


@pytest.mark.parametrize("name", COUNTS)
def test_another_problem_s_gold_answer_is_wrong(published, name):
    """The next problem's gold is right only where both are written as the same value."""
    tasks = load_task_set(name, "test", path=str(published)).tasks
    pairs = list(zip(tasks, (*tasks[1:], tasks[0]), strict=True))
    both = Counter(one.answer.strip("$") == other.answer.strip("$") for one, other in pairs)
    right = [(one.answer, other.answer) for one, other in pairs if judge(one.answer, other.answer).right]
    assert [pair for pair in right if pair[0].strip("$") != pair[1].strip("$")] == DIFFERENT.get(name, [])
    assert len(right) == both[True] + len(DIFFERENT.get(name, []))


@pytest.mark.parametrize("name", COUNTS)
def test_a_gold_answer_with_one_digit_changed_is_wrong(published, name):
    """The last digit, one higher; every row that has a digit."""
    right = []
    for task in load_task_set(name, "test", path=str(published)):
        digits = list(re.finditer(r"\d", task.answer))
        if digits:
            place = digits[-1].start()
            changed = f"{task.answer[:place]}{(int(task.answer[place]) + 1) % 10}{task.answer[place + 1 :]}"
            right += [(task.id, changed)] if judge(task.answer, changed).right else []
    assert right == []


DIFFERENT = {"math500": [("5", "x=5")]}
"""Neighbours of one value in two spellings."""


def test_the_exceptions_are_said(published):
    dropped = load_task_set("olympiadbench", "test", path=str(published)).dropped
    assert [line.partition(":")[0] for line in dropped] == ["row 74 (id 1965)", "row 97 (id 2045)", "row 195 (id 2349)"]


def test_gsm8k_s_golds_and_solutions_by_this_verifier(published):
    tasks = load_gsm8k("test", path=str(published / "gsm8k" / "test.jsonl"), read="hash")
    verifier = MathVerifier(HASHED)
    texts = [HASHED.write(task.meta["solution"], task.answer) for task in tasks]
    right = sum(verifier(task, text).parts["correct"] == 1.0 for task, text in zip(tasks, texts, strict=True))
    assert right == len(tasks) == 1319
