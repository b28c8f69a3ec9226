"""Arithmetic: the levels mean what they say, the splits are disjoint, demonstrations are right, answers are strict."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.errors import ConfigError
from onepolicy.tasks import worked
from onepolicy.tasks.arithmetic import LEVELS, STYLES, ArithmeticLevel, load
from onepolicy.tasks.base import TAGS, check_gold, load_task_set
from onepolicy.tasks.expressions import evaluate, literals, parse, reductions

SMALL = {1: 30, 2: 200}
TASK = load("train", level=4, n=1).tasks[0]


def sample(level, split="train", **options):
    return load(split, level=level, n=SMALL.get(level, 300), **options)


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_has_its_terms_digits_operators_and_bounds(level):
    spec = LEVELS[level]
    for task in sample(level):
        tree = parse(task.meta["expression"])
        numbers = list(literals(tree))
        assert len(numbers) == spec.terms
        assert all(abs(x) < 10**spec.digits for x in numbers)
        assert spec.digits == 1 or all(abs(x) >= 10 ** (spec.digits - 1) for x in numbers)
        assert spec.negatives or all(x >= 0 for x in numbers)
        assert set(task.meta["expression"]) <= set("0123456789()" + spec.operators + ("-" if spec.negatives else ""))
        assert all(abs(evaluate(step)) <= spec.limit for step, _ in reductions(tree))
        assert int(task.answer) == evaluate(tree)
        plain = task.meta["expression"].replace("(-", "(").count("(")
        assert plain >= spec.brackets


def test_python_agrees_with_every_answer():
    """The expressions here are made by this package, never by a model, so Python's own evaluator is a fair witness."""
    for level in (5, 6, 8):
        for task in sample(level):
            assert eval(task.meta["expression"]) == int(task.answer)  # noqa: S307


@pytest.mark.parametrize("level", LEVELS)
def test_train_and_test_are_disjoint_for_every_seed(level):
    n = 10 if level == 1 else 60
    train = {t.id for seed in range(3) for t in load("train", level=level, n=2 * n, seed=seed)}
    test = {t.id for seed in range(3) for t in load("test", level=level, n=n, seed=seed)}
    assert train
    assert test
    assert not train & test


def test_the_same_seed_gives_the_same_tasks_in_another_process():
    code = (
        "from onepolicy.tasks.arithmetic import load\n"
        "s = load('train', level=(4, 6), n=50, seed=3)\n"
        "print([t.id for t in s], [c[-1].content for c in s.demonstrations(5, 1)])"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": hash_seed},
        ).stdout
        for hash_seed in ("1", "2")
    ]
    here = load("train", level=(4, 6), n=50, seed=3)
    assert runs[0] == runs[1]
    assert runs[0].strip() == f"{[t.id for t in here]} {[c[-1].content for c in here.demonstrations(5, 1)]}"
    assert [t.id for t in here] != [t.id for t in load("train", level=(4, 6), n=50, seed=4)]


def test_demonstrations_by_hand():
    """3-8+5-9+2 runs through -5, 0, -9, -7; in 4-2*(3-8) the bracket comes first, then the product."""
    assert worked.steps("3-8+5-9+2") == "3-8=-5;-5+5=0;0-9=-9;-9+2=-7"
    assert worked.totals("3-8+5-9+2") == "-5 0 -9 -7"
    assert worked.rewrites("3-8+5") == "-5+5=0"
    assert worked.steps("4-2*(3-8)") == "3-8=-5;2*-5=-10;4--10=14"
    assert worked.steps("-3-(-4)*2") == "-4*2=-8;-3--8=5"
    assert worked.totals("4-2*(3-8)") == "-5 -10 14"


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("level", [1, 4, 6, 8])
def test_every_demonstration_is_right_in_format_and_within_the_characters(style, level):
    tasks = sample(level, style=style)
    for *prompt, answer in tasks.demonstrations(30, seed=0):
        text = answer.content
        for tag in TAGS:
            text = text.replace(tag, "")
        assert set(text + prompt[-1].content) <= set(tasks.characters)


def test_demonstrations_are_of_different_train_problems():
    tasks = sample(4)
    chosen = tasks.demonstrations(300, seed=1)
    assert len({c[0].content for c in chosen}) == 300
    assert tasks.demonstrations(20, seed=1) == chosen[:20]
    with pytest.raises(ConfigError, match="it can give 1 to 300"):
        tasks.demonstrations(301, seed=1)
    with pytest.raises(ConfigError, match="train split"):
        sample(4, "test").demonstrations(1, seed=0)


def test_levels_can_be_mixed_evenly_and_made_to_measure():
    mixed = load("train", level=(2, 4, 6), n=90)
    assert [sum(t.meta["level"] == level for t in mixed) for level in (2, 4, 6)] == [30, 30, 30]
    own = load("train", level=ArithmeticLevel(3, operators="*", limit=100), n=20)
    assert {t.meta["level"] for t in own} == {0}


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60) | st.from_regex(r"<think>.*</think><answer>[-+0-9 ().a-z]*</answer>", fullmatch=True))
def test_no_text_makes_the_verifier_raise_and_only_the_right_integer_passes(text):
    task = TASK
    score = task.verifier(task, text)
    assert score.error is None
    if score.parts["correct"]:
        assert task.answer.lstrip("-") in text


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("{gold}", 1.0),
        (" {gold}\n", 1.0),
        ("{gold}.0", 0.0),
        ("{gold} ", 1.0),
        ("{gold}1", 0.0),
        ("--{gold}", 0.0),
        ("={gold}", 0.0),
        ("{gold} or 3", 0.0),
        ("int({gold})", 0.0),
        ("", 0.0),
        ("٣", 0.0),
        ("9" * 5000, 0.0),
    ],
)
def test_answers_are_read_strictly(answer, right):
    filled = answer.replace("{gold}", TASK.answer)
    assert TASK.verifier(TASK, f"<think></think><answer>{filled}</answer>").parts["correct"] == right


def test_a_corrupted_gold_answer_is_found():
    tasks = sample(4).tasks[:10]
    assert check_gold(tasks).verified == 10
    wrong = [f"<think></think><answer>{int(t.answer) + 1}</answer>" for t in tasks]
    assert all(t.verifier(t, text).parts["correct"] == 0 for t, text in zip(tasks, wrong))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": 9}, "levels are 1 to 8"),
        ({"level": 1, "n": 500}, "different problems"),
        ({"style": "stepz"}, "'steps'"),
        ({"levell": 3}, "'level'"),
        ({"n": 0}, "no tasks"),
    ],
)
def test_what_cannot_be_made_is_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        load_task_set("arithmetic", "train", **options)


@pytest.mark.parametrize(
    "fields", [{"terms": 1}, {"terms": 3, "operators": "/"}, {"terms": 3, "brackets": 2}, {"terms": 3, "negatives": 2}]
)
def test_an_impossible_level_is_an_error(fields):
    with pytest.raises(ConfigError):
        ArithmeticLevel(**fields)


def test_the_system_message_comes_first_when_given():
    task = load("test", level=4, n=1, system="Count.").tasks[0]
    assert [m.role for m in task.messages] == ["system", "user"]
    assert task.messages[1].content == f"{task.meta['expression']}="
