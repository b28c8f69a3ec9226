"""The calculations of GSM8K's solutions: exact or the annotation's rounding, disjoint from the train file, filtered."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from functools import partial

import pytest

from onepolicy.errors import ConfigError, DataError
from onepolicy.tasks.base import TAGS, load_task_set
from onepolicy.tasks.expressions import evaluate, parse
from onepolicy.tasks.gsm8k_steps import (
    Filter,
    canonical,
    check_gold,
    demonstrate,
    load,
    read_calculation,
    significant_digits,
)


def write(path, *annotations):
    rows = [{"question": "?", "answer": f"so <<{text}>> it is\n#### 1"} for text in annotations]
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("annotation", "expression", "value", "written"),
    [
        ("48/2=24", "48/2", 24, 24),
        ("2*.25=.50", "2*.25", Fraction(1, 2), Fraction(1, 2)),
        ("+30+46=76", "30+46", 76, 76),
        ("3*+6=18", "3*6", 18, 18),
        ("560//10=56", "560/10", 56, 56),
        ("100*(1 - 0.2)=80", "100*(1-0.2)", 80, 80),
        ("1/3=.33", "1/3", Fraction(1, 3), Fraction(33, 100)),
        ("2/3=0.67", "2/3", Fraction(2, 3), Fraction(67, 100)),
        ("2/3=0.66", "2/3", Fraction(2, 3), Fraction(66, 100)),
        ("10/3=3", "10/3", Fraction(10, 3), 3),
        ("3/4=3/4", "3/4", Fraction(3, 4), Fraction(3, 4)),
        ("5-8=-3", "5-8", -3, -3),
    ],
)
def test_annotations_by_hand(annotation, expression, value, written):
    found = read_calculation(annotation)
    assert (found.expression, found.value, found.written) == (expression, value, written)


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        ("2+2=5", "2\\+2 is 4"),
        ("1/3=0.34", "calculates wrong"),
        ("1/300=0", "calculates wrong"),
        ("2/3=0.65", "calculates wrong"),
        ("2+2", "no calculation"),
        ("2+x=5", "not an expression"),
        ("2+2=four", "no calculation"),
        ("1/0=0", "divides by zero"),
        ("", "no calculation"),
    ],
)
def test_annotations_that_are_wrong_or_unreadable_are_refused(annotation, reason):
    with pytest.raises(DataError, match=reason):
        read_calculation(annotation)


def test_wrong_annotations_are_dropped_counted_and_listed(tmp_path):
    path = write(tmp_path / "train.jsonl", "48/2=24", "2+2=5", "1/3=.33", "48/2=24", "7=7")
    tasks = load("train", path=path)
    assert [t.meta["expression"] for t in tasks] == ["48/2", "1/3"]
    assert tasks.counts == {
        "rows": 5,
        "annotations": 5,
        "rounded": 1,
        "wrong": 1,
        "repeated": 1,
        "bare": 1,
        "tasks": 2,
    }
    assert tasks.dropped == ("row 2: <<2+2=5>> calculates wrong: 2+2 is 4.",)
    report = check_gold("train", path)
    assert (report.checked, report.verified) == (5, 4)
    assert report.failures[0][0] == "row 2"


@pytest.mark.parametrize(
    ("answer", "right"),
    [("1/3", 1), (".33", 1), ("0.330", 1), ("0.333", 0), ("0.3333333333", 0), ("33%", 0), ("1 / 3", 1), ("2/6", 1)],
)
def test_the_exact_value_and_the_annotation_s_rounding_are_right(tmp_path, answer, right):
    task = load("train", path=write(tmp_path / "train.jsonl", "1/3=.33")).tasks[0]
    assert task.verifier(task, f"<think></think><answer>{answer}</answer>").parts["correct"] == right


def test_a_test_problem_of_the_train_file_is_removed_in_whatever_order_it_is_written(tmp_path):
    write(tmp_path / "train.jsonl", "2*3=6", "1+2+3=6", "8-3=5", "0.5*4=2")
    path = write(tmp_path / "test.jsonl", "3*2=6", "3+2+1=6", "3-8=-5", ".50*4=2", "2*(1+2)=6", "9/3=3", "9/3=3")
    tasks = load("test", path=path)
    assert [t.meta["expression"] for t in tasks] == ["3-8", "2*(1+2)", "9/3"]
    assert (tasks.counts["in_train"], tasks.counts["repeated"]) == (3, 1)
    assert canonical(parse("1+(2+3)")) == canonical(parse("3+1+2")) != canonical(parse("1-(2+3)"))


def test_a_test_file_without_its_train_file_is_an_error(tmp_path):
    path = write(tmp_path / "test.jsonl", "9/3=3")
    with pytest.raises(ConfigError, match="exclude="):
        load("test", path=path)
    other = write(tmp_path / "other.jsonl", "1+1=2")
    assert len(load("test", path=path, exclude=other)) == 1


@pytest.mark.parametrize(
    ("filter", "kept"),
    [
        (Filter(), ["48/2", "1200*3", "1/3*30", "2*(3+4)", "5*0.25", "1+2+3"]),
        (Filter(digits=2), ["48/2", "1/3*30", "2*(3+4)", "1+2+3"]),
        (Filter(length=4), ["48/2"]),
        (Filter(terms=2), ["48/2", "1200*3", "5*0.25"]),
        (Filter(decimals=0), ["48/2", "1200*3", "2*(3+4)", "1+2+3"]),
        (Filter(decimals=2), ["48/2", "1200*3", "2*(3+4)", "5*0.25", "1+2+3"]),
        (Filter(operators="+*"), ["1200*3", "5*0.25", "1+2+3"]),
    ],
)
def test_filters_by_hand(filter, kept):
    """Significant digits count in every intermediate: 5*0.25 = 1.25 has three, 1200 four, 1/3 two."""
    texts = ["48/2=24", "1200*3=3600", "1/3*30=10", "2*(3+4)=14", "5*0.25=1.25", "1+2+3=6"]
    found = [read_calculation(text) for text in texts]
    assert [one.expression for one in found if filter(one)] == kept
    assert [significant_digits(x) for x in (0, 7, -120, Fraction(1, 40))] == [1, 1, 3, 2]


def test_unknown_options_offer_the_nearest(tmp_path):
    path = write(tmp_path / "train.jsonl", "9/3=3")
    with pytest.raises(ConfigError, match="'digits'"):
        load_task_set("gsm8k-steps", "train", path=path, digit=3)
    with pytest.raises(ConfigError, match="'worked'"):
        load("train", path=path, style="work")
    with pytest.raises(DataError, match="no tasks"):
        load("train", path=path, digits=0)


def test_all_27998_annotations_verify(gsm8k_files):
    reports = [check_gold(split, str(gsm8k_files / f"{split}.jsonl")) for split in ("train", "test")]
    assert [(one.checked, one.verified) for one in reports] == [(23716, 23716), (4282, 4282)]


@pytest.fixture(scope="module")
def real_train(gsm8k_files):
    return load("train", path=str(gsm8k_files / "train.jsonl"))


@pytest.fixture(scope="module")
def real_test(gsm8k_files):
    return load("test", path=str(gsm8k_files / "test.jsonl"))


def test_the_real_held_out_set_is_disjoint(real_train, real_test):
    keys = [{canonical(parse(task.meta["expression"])) for task in tasks} for tasks in (real_train, real_test)]
    assert not keys[0] & keys[1]
    assert (len(real_train), len(real_test)) == (10640, 1171)
    with pytest.raises(ConfigError, match="train split"):
        real_test.demonstrations(1, seed=0)


@pytest.mark.parametrize("style", ["worked", "steps", "totals", "rewrites"])
def test_real_demonstrations_are_right_in_format_and_within_the_characters(real_train, style):
    """`demonstrations` itself refuses one that its verifier does not give full marks."""
    styled = replace(real_train, tasks=real_train.tasks[:2000], demonstrate=partial(demonstrate, style=style))
    for question, reply in styled.demonstrations(2000, seed=0):
        text = question.content + reply.content
        for tag in TAGS:
            text = text.replace(tag, "")
        assert set(text) <= set(styled.characters), text


def test_corrupted_gold_fails_on_every_real_problem(real_test):
    for task in real_test:
        wrong = evaluate(parse(task.answer)) + 1
        assert task.verifier(task, f"<answer>{wrong}</answer>").parts["correct"] == 0
