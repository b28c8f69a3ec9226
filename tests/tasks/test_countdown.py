"""Countdown: solvable by construction, any valid expression counts, nothing is executed."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.errors import ConfigError
from onepolicy.tasks.base import TAGS, check_gold, conversation
from onepolicy.tasks.countdown import LEVELS, CountdownLevel, judge, key, load
from onepolicy.tasks.expressions import evaluate, literals, parse, reductions
from onepolicy.tasks.rewards import TAGGED, AnswerVerifier
from onepolicy.types import Task


def given_task(numbers, target, use="all"):
    def verify(task, answer):
        return judge(task, answer, use=use)

    verifier = AnswerVerifier(verify, TAGGED)
    return Task("t", conversation("?"), "", verifier, {"numbers": numbers, "target": target})


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("3*5+1", True),
        ("1+5*3", True),
        (" ( 5 * 3 ) + 1 ", True),
        ("5*(3+1)-4", False),
        ("15+1", False),
        ("3*5", False),
        ("3*5+1+1", False),
        ("3*5+1=16", False),
        ("16", False),
        ("3*5--1", False),
        ("-(-3)*5+1", False),
        ("3*5*1", False),
        ("3*5+1/", False),
        ("3*5+1 or 5*3+1", False),
        ("", False),
    ],
)
def test_16_from_3_5_1_by_hand(answer, right):
    assert judge(given_task((3, 5, 1), 16), answer) is right


def test_fractions_on_the_way_are_fine_and_exact():
    """8/(3-8/3) = 24 passes through 1/3; 1/3*3 is exactly 1; dividing by zero is only wrong."""
    assert judge(given_task((8, 8, 3, 3), 24), "8/(3-8/3)")
    assert judge(given_task((1, 3, 3), 1), "1/3*3")
    assert not judge(given_task((1, 3, 3), 1), "1/(3-3)")


def test_repeated_numbers_may_be_used_as_often_as_given():
    assert judge(given_task((4, 4), 8), "4+4")
    assert not judge(given_task((4, 2), 8), "4+4")


def test_some_numbers_may_be_left_over_only_where_the_task_says_so():
    some = load("train", level=3, n=5, use="some").tasks[0]
    every = load("train", level=3, n=5).tasks[0]
    spare = Task("t", some.messages, "", some.verifier, {"numbers": (3, 5, 1), "target": 8})
    assert some.verifier(spare, "<answer>3+5</answer>").parts["correct"] == 1
    assert every.verifier(spare, "<answer>3+5</answer>").parts["correct"] == 0
    assert some.verifier(spare, "<answer>3+5+5-5</answer>").parts["correct"] == 0


@pytest.mark.parametrize("level", LEVELS)
def test_every_problem_has_a_solution_of_positive_integers(level):
    spec = LEVELS[level]
    tasks = load("train", level=level, n=150)
    assert check_gold(tasks).verified == 150
    for task in tasks:
        node = parse(task.answer)
        assert evaluate(node) == task.meta["target"] <= spec.target
        assert sorted(literals(node)) == sorted(task.meta["numbers"])
        assert all(1 <= x <= spec.largest for x in task.meta["numbers"])
        assert all(evaluate(step) == int(evaluate(step)) > 0 for step, _ in reductions(node))


@pytest.mark.parametrize("level", LEVELS)
def test_train_and_test_share_no_problem_in_any_order_of_its_numbers(level):
    train = {
        key(t.meta["numbers"], t.meta["target"]) for s in range(2) for t in load("train", level=level, n=300, seed=s)
    }
    test = {key(t.meta["numbers"], t.meta["target"]) for s in range(2) for t in load("test", level=level, n=50, seed=s)}
    assert train
    assert test
    assert not train & test


def test_demonstrations_work_the_solution_out():
    tasks = load("train", level=(3, 5), n=100)
    for _, reply in tasks.demonstrations(100, seed=0):
        text = reply.content
        for tag in TAGS:
            text = text.replace(tag, "")
        assert set(text) <= set(tasks.characters)
    with pytest.raises(ConfigError, match="train split"):
        load("test", level=3, n=10).demonstrations(1, seed=0)


def test_every_style_is_written_in_the_characters():
    for style in ("steps", "totals", "rewrites", "worked"):
        tasks = load("train", level=(3, 6), n=60, style=style)
        for question, reply in tasks.demonstrations(60, seed=0):
            text = question.content + reply.content
            for tag in TAGS:
                text = text.replace(tag, "")
            assert set(text) <= set(tasks.characters), text


def test_with_a_system_message_the_question_is_in_words():
    task = load("train", level=3, n=1, system="Think.").tasks[0]
    assert [m.role for m in task.messages] == ["system", "user"]
    assert str(task.meta["target"]) in task.messages[1].content
    assert "exactly once" in task.messages[1].content
    assert "at most once" in load("train", level=3, n=1, use="some", system="x").tasks[0].messages[1].content


@pytest.mark.parametrize(
    "answer",
    [
        "__import__('os').system('touch /tmp/countdown-was-here')",
        "9**9**9",
        "(" * 1900,
        "1/" * 900 + "0",
        "9" * 1999,
        "exec('3')",
        "[3,5,1]",
        "3*5+1#",
        "３*5+1",
    ],
)
def test_hostile_answers_are_wrong_and_fast(answer, tmp_path):
    started = time.process_time()
    assert not judge(given_task((3, 5, 1), 16), answer)
    assert time.process_time() - started < 0.1


@settings(max_examples=200, deadline=None)
@given(st.text("0123456789+-*/()= .", max_size=40))
def test_what_passes_really_reaches_the_target(text):
    """Whatever is accepted uses 2, 3 and 4 once each and equals 10 by Python's own evaluator."""
    if judge(given_task((2, 3, 4), 10), text):
        assert eval(text) == 10  # noqa: S307 - only digits, operators and brackets get here
        assert sorted(c for c in text if c.isdigit()) == ["2", "3", "4"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": 7}, "levels are 1 to 6"),
        ({"use": "al"}, "'all'"),
        ({"style": "stepz"}, "'steps'"),
        ({"level": 1, "n": 10**5}, "different"),
    ],
)
def test_what_cannot_be_made_is_an_error(options, message):
    with pytest.raises(ConfigError, match=message):
        load("train", **options)


@pytest.mark.parametrize("fields", [(1, 9, 9), (3, 1, 9), (3, 9, 0), (3, 9, 9, "^")])
def test_an_impossible_level_is_an_error(fields):
    with pytest.raises(ConfigError):
        CountdownLevel(*fields)
