"""One-line programs: the words mean what they say, the pure check agrees with the sandbox, other programs count too."""

from __future__ import annotations

import re
from random import Random

import numpy as np
import pytest

from onepolicy.errors import ConfigError, DataError
from onepolicy.tasks import code_lines
from onepolicy.tasks.base import TAGGED, load_task_set
from onepolicy.tasks.code_lines import (
    INPUTS,
    LEVELS,
    STARTS,
    STYLES,
    LineLevel,
    answer,
    demonstrate,
    evaluate,
    expression,
    folded,
    load,
    prove,
)
from onepolicy.tasks.verdicts import verify_each


@pytest.mark.parametrize(
    ("words", "given", "code", "result"),
    [
        ("larger plus 3", (2, 5), "max(x,y)+3", 8),
        ("larger plus 1 times 3", (2, 5), "(max(x,y)+1)*3", 18),
        ("gap modulo 4", (1, -6), "abs(x-y)%4", 3),
        ("sum minus difference", (2, 5), "x+y-(x-y)", 10),
        ("product times 2 modulo 7", (3, 4), "x*y*2%7", 3),
        ("sum times product", (2, 3), "(x+y)*(x*y)", 30),
    ],
)
def test_steps_apply_from_left_to_right_with_the_brackets_that_takes(words, given, code, result):
    """By hand: (max(2, 5) + 1) * 3 = 18; |1 + 6| mod 4 = 3; 7 - (2 - 5) = 10."""
    words = tuple(words.split())
    assert expression(words, "x,y") == code
    assert answer(words, "x,y", given) == result == evaluate(f"def f(x,y):return {code}", given)


def test_lists():
    assert answer(("range", "plus", "count"), "a", ([3, -2, 5],)) == 10
    assert expression(("range", "times", "2"), "a") == "(max(a)-min(a))*2"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("larger plus 1 times 3", "max(x,y)*3+3"),
        ("difference minus 3 minus 4", "x-y-7"),
        ("sum minus 2 times 5", "(x+y)*5-10"),
        ("gap plus 4 minus 4", "abs(x-y)"),
        ("product times 2 times 7", "x*y*14"),
        ("sum plus 4 times 2 modulo 7 plus 1 plus 1", "((x+y)*2+8)%7+2"),
        ("larger plus 1 times 2 minus difference", "max(x,y)*2+2-(x-y)"),
    ],
)
def test_folded_programs_have_one_factor_and_one_term(words, code):
    """By hand: (m + 1) * 3 = 3 m + 3; a modulo or a second start ends what can be multiplied out."""
    assert folded(tuple(words.split()), "x,y") == code


@pytest.mark.parametrize("level", LEVELS)
def test_folded_programs_compute_what_plain_ones_do(level):
    for task in load("train", level=level, n=60, at_most=True):
        assert prove(task, demonstrate(task, "folded")).parts == {"correct": 1.0, "format": 1.0}


def test_a_third_of_mixed_demonstrations_is_plain():
    tasks = load("train", level=3, n=600, style="mixed")
    programs = [talk[-1].content for talk in tasks.demonstrations(600, 0)]
    by_prompt = {task.messages: task for task in tasks}
    chosen = [by_prompt[talk[:-1]] for talk in tasks.demonstrations(600, 0)]
    told = [(demonstrate(task, "plain"), demonstrate(task, "folded"), text) for task, text in zip(chosen, programs)]
    plain = [text == first for first, second, text in told if first != second]
    assert all(text in (first, second) for first, second, text in told)
    assert 0.26 < sum(plain) / len(plain) < 0.41
    assert STYLES["mixed"].count(expression) == 1


def values_of_all(level, inputs):
    """[N, I] what each of a level's problems comes to on each input, written without the module's own evaluator."""
    starts = {
        "larger": lambda x, y: max(x, y),
        "smaller": lambda x, y: min(x, y),
        "sum": lambda x, y: x + y,
        "difference": lambda x, y: x - y,
        "product": lambda x, y: x * y,
        "gap": lambda x, y: abs(x - y),
        "largest": max,
        "smallest": min,
        "total": sum,
        "count": len,
        "range": lambda a: max(a) - min(a),
    }
    done = {"plus": np.add, "minus": np.subtract, "times": np.multiply, "modulo": np.mod}
    begun = {name: np.array([starts[name](*given) for given in inputs]) for name in STARTS[level.arguments]}
    rows = np.stack(list(begun.values()))
    for step in range(level.steps):
        joins = level.joined and step == level.steps - 1
        others = list(begun.values()) if joins else range(2, 10)
        rows = np.concatenate([done[name](rows, other) for name in level.operators for other in others])
    return rows


@pytest.mark.parametrize(
    ("level", "problems", "functions"),
    [(1, 144, 144), (2, 3_456, 1_872), (3, 196_608, 46_851), (4, 2_592, 1_911), (5, 163_840, 39_633)],
)
def test_the_inputs_tell_all_functions_of_a_level_apart(level, problems, functions):
    """Problems that agree on INPUTS agree on 180 further inputs as well.

    By hand: 6 * 3 * 8 problems of level 1, 6 * 24^2 of level 2, 6 * 32^3 of level 3, 6 * 24 * 18 of level 4, 5 * 32^3
    of level 5. With the four inputs there once were, level 3 had 35,195 classes.
    """
    one, rng = LEVELS[level], Random(7)
    if one.arguments == "x,y":
        further = [(rng.randint(-60, 60), rng.randint(-60, 60)) for _ in range(180)]
    else:
        further = [([rng.randint(-40, 40) for _ in range(1 + i % 18)],) for i in range(180)]
    chosen, wide = (values_of_all(one, list(inputs)) for inputs in (INPUTS[one.arguments], further))
    keys = [np.unique(rows @ Random(3).choices(range(1, 2**40), k=rows.shape[1])) for rows in (chosen, wide)]
    assert (len(chosen), len(keys[0]), len(keys[1])) == (problems, functions, functions)


def test_programs_that_differ_for_one_number_in_nine_are_told_apart():
    """x % 9 % 8 is x % 9 but where that is 8."""
    task = next(
        task for task in load("train", level=3, n=3_000) if task.meta["words"][3:] == ("modulo", "9", "modulo", "8")
    )
    near = task.answer.removesuffix("%8")
    scores = verify_each([(task, TAGGED.write("", program)) for program in (task.answer, near)])
    assert [score.parts["correct"] for score in scores] == [1.0, 0.0]
    assert prove(task, TAGGED.write("", near)).parts["correct"] == 0.0


@pytest.mark.parametrize("level", LEVELS)
def test_python_agrees_with_every_answer(level):
    """The programs here are made by this package, never by a model, so Python itself is a fair witness."""
    for task in load("train", level=level, n=60, at_most=True):
        scope = {}
        exec(task.answer, scope)  # noqa: S102
        for test in task.meta["tests"]:
            assert eval(test.given.code, scope) == test.expected  # noqa: S307
        assert set(task.messages[-1].content + task.answer) <= set(code_lines.CHARACTERS)


def test_the_pure_check_agrees_with_the_sandbox():
    """On gold programs, and on wrong ones of the vocabulary."""
    tasks = [task for level in (1, 4, 6) for task in load("train", level=level, n=8)]
    texts = [demonstrate(task) for task in tasks]
    texts += [TAGGED.write("", task.answer.replace("max", "min").replace("+", "-")) for task in tasks]
    pairs = list(zip(tasks * 2, texts))
    real = [score.parts["correct"] for score in verify_each(pairs)]
    assert real == [prove(task, text).parts["correct"] for task, text in pairs]
    assert sum(real[: len(tasks)]) == len(tasks)
    assert 0 < sum(real[len(tasks) :]) < len(tasks)


def test_any_program_that_computes_the_function_is_right():
    task = next(task for task in load("train", level=2, n=500) if task.meta["words"][:3] == ("larger", "plus", "3"))
    step, number = task.meta["words"][3:]
    sign = {"plus": "+", "minus": "-", "times": "*"}[step]
    other = f"def f(x,y):\n    if x < y: x = y\n    return (3 + x) {sign} {number}"
    wrong = f"def f(x,y):return (max(x,y)+4){sign}{number}"
    scores = verify_each([(task, TAGGED.write("", program)) for program in (task.answer, other, wrong)])
    assert [score.parts["correct"] for score in scores] == [1.0, 1.0, 0.0]
    assert [score.value for score in scores] == [1.1, 1.1, 0.1]


def test_train_and_test_are_disjoint_and_every_seed_is_its_own():
    train = {task.id for seed in range(2) for task in load("train", level=2, n=300, seed=seed)}
    test = {task.id for task in load("test", level=2, n=100)}
    assert not train & test
    assert [t.id for t in load("test", n=50)] == [t.id for t in load("test", n=50)]
    assert [t.id for t in load("train", n=50)] != [t.id for t in load("train", n=50, seed=1)]


def test_demonstrations_and_a_prompt_in_words():
    tasks = load_task_set("code", "train", level=[1, 2], n=40)
    assert tasks.counts == {"asked": 40, "tasks": 40}
    talk = tasks.demonstrations(3, 0)[0]
    assert re.fullmatch(r"<think></think><answer>def f\(x,y\):return [^<]+</answer>", talk[-1].content)
    asked = load("test", n=1, system="Answer.").tasks[0].messages
    assert asked[0].content == "Answer."
    assert asked[1].content.startswith("Write a Python function f(x,y) of two integers")
    assert load("test", n=1).demonstrate is None


def test_both_notations_ask_for_the_same_programs():
    words, signs = (load("train", level=4, n=30, notation=notation).tasks for notation in ("words", "signs"))
    assert [task.id for task in words] == [task.id for task in signs]
    for task, other in zip(words, signs):
        assert task.messages[-1].content == "f(x,y):" + " ".join(task.meta["words"])
        known = {"plus": "+", "minus": "-", "times": "*"}
        assert other.messages[-1].content == "".join(known.get(word, word) for word in task.meta["words"])
        assert set(other.messages[-1].content) <= set(code_lines.CHARACTERS)


@pytest.mark.parametrize(
    "source",
    [
        "",
        "x",
        "def f(x,y):return __import__('os')",
        "def f(x,y):return open(x)",
        "import os",
        "def f(x,y):\n  x=1\n  return x",
    ],
)
def test_the_pure_check_runs_nothing(source):
    with pytest.raises(DataError, match="no one-line program"):
        evaluate(source, (1, 2))


def test_settings_that_cannot_work_are_errors():
    with pytest.raises(ConfigError, match="levels are 1 to 6"):
        load(level=9)
    with pytest.raises(ConfigError, match="Unknown style 'fold' of code"):
        load(style="fold")
    with pytest.raises(ConfigError, match="Unknown notation 'symbols' of code"):
        load(notation="symbols")
    with pytest.raises(ConfigError, match="arguments x,y or a"):
        LineLevel(1, arguments="z")
    with pytest.raises(ConfigError, match="gave only"):
        load(level=1, n=10_000)
    assert len(load(level=1, n=10_000, at_most=True)) < 162
