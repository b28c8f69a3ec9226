"""The hub's benchmarks: rows in the layout that each is published in, through a `datasets` that is none."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from onepolicy.errors import ConfigError, DataError
from onepolicy.tasks.base import TASKS, check_gold, load_task_set
from onepolicy.tasks.hub import PLACES
from onepolicy.tasks.rewards import TAGGED

NUMBERS = ("highlights", "words", "placeholders", "bullets", "sections", "paragraphs", "sentences")
OTHERS = ("relation", "prompt_to_repeat", "section_spliter", "capital_relation", "capital_frequency", "keywords")
OTHERS += ("language", "let_relation", "letter", "let_frequency", "end_phrase", "forbidden_words", "keyword")
OTHERS += ("frequency", "postscript_marker", "first_word", "nth_paragraph")
IFEVAL_ARGUMENTS = (*(f"num_{name}" for name in NUMBERS), *OTHERS)
"""The hub writes every argument into every row, and None where it is not meant."""


def ifeval_row(key, prompt, ids, arguments):
    kwargs = [{name: given.get(name) for name in IFEVAL_ARGUMENTS} for given in arguments]
    return {"key": key, "prompt": prompt, "instruction_id_list": ids, "kwargs": kwargs}


def olympiad_row(name, question, answer, **more):
    row = {"id": name, "question": question, "solution": ["So it is."], "final_answer": [answer], "context": None}
    row |= {"image_1": None, "modality": "Text-only", "difficulty": "Competition", "is_multiple_answer": False}
    row |= {"unit": None, "answer_type": "Numerical", "error": None, "question_type": "Open-ended"}
    return row | {"subfield": "Algebra", "subject": "Math", "language": "English"} | more


def arc_row(labels, texts, right):
    return {"id": "M_1", "question": "Hot?", "choices": {"text": texts, "label": labels}, "answerKey": right}


HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": 'def twice(x: int) -> int:\n    """ Two times x. """\n',
    "canonical_solution": "    return 2 * x\n",
    "test": "METADATA = {}\n\n\ndef check(candidate):\n    assert candidate(2) == 4\n    assert candidate(0) == 0\n",
    "entry_point": "twice",
}
MBPP = {
    "task_id": 11,
    "text": "Write a python function to double.",
    "code": "def twice(x):\r\n  return 2 * x",
    "test_list": ["assert twice(2) == 4", "assert twice(0) == 0"],
    "test_setup_code": "",
    "challenge_test_list": ["assert twice(-1) == -2"],
}

PUBLISHED = {
    # name: (data set, configuration, its split, rows, (question, gold answer) of each task)
    "math500": (
        *("HuggingFaceH4/MATH-500", None, "test"),
        [
            {
                "problem": "What is $1+1$?",
                "solution": "It is $\\boxed{2}.$",
                "answer": "2",
                "subject": "Prealgebra",
                "level": 1,
                "unique_id": "test/prealgebra/1.json",
            }
        ],
        [("What is $1+1$?", "2")],
    ),
    "aime24": (
        *("HuggingFaceH4/aime_2024", None, "train"),
        [{"id": 60, "problem": "Find $n$.", "solution": "$\\boxed{025}$", "answer": "025", "url": "u", "year": "2024"}],
        [("Find $n$.", "025")],
    ),
    "aime25": (
        *("math-ai/aime25", None, "test"),
        [{"problem": "Find $b$.", "answer": "70", "id": "0"}],
        [("Find $b$.", "70")],
    ),
    "amc23": (
        *("math-ai/amc23", None, "test"),
        [
            {"id": 0, "question": "How many?", "answer": "27", "url": "u"},
            {"id": 1, "question": "b", "answer": 27.0, "url": "u"},
        ],
        [("How many?", "27"), ("b", "27")],
    ),
    "minerva": (
        *("math-ai/minervamath", None, "test"),
        [{"question": "How bright?", "answer": "4.5e33"}, {"question": "b", "answer": "\\frac{1}{2} m v^2"}],
        [("How bright?", "4.5e33"), ("b", "\\frac{1}{2} m v^2")],
    ),
    "olympiadbench": (
        *("Hothan/OlympiadBench", "OE_TO_maths_en_COMP", "train"),
        [
            olympiad_row(1606, "How many moves?", "2"),
            olympiad_row(1607, "How far?", "$3$", context="A train.", unit="km", error="0.1"),
        ],
        [("How many moves?", "2"), ("A train.\n\nHow far?", "3\\text{ km}")],
    ),
    "gsm8k": (
        *("openai/gsm8k", "main", "test"),
        [{"question": "Eggs?", "answer": "16-3=<<16-3=13>>13\n#### 1,013"}],
        [("Eggs?", "1,013")],
    ),
    "arc-easy": (
        *("allenai/ai2_arc", "ARC-Easy", "test"),
        [arc_row(["A", "B"], ["Ice", "Sun"], "B"), arc_row(["1", "2", "3"], ["Ice", "Snow", "Sun"], "3")],
        [("Hot?\nA. Ice\nB. Sun", "B"), ("Hot?\n1. Ice\n2. Snow\n3. Sun", "3")],
    ),
    "arc-challenge": (
        *("allenai/ai2_arc", "ARC-Challenge", "test"),
        [arc_row(["A", "B"], ["Ice", "Sun"], "B")],
        [("Hot?\nA. Ice\nB. Sun", "B")],
    ),
    "ifeval": (
        *("google/IFEval", None, "train"),
        [
            ifeval_row(1000, "Write without commas.", ["punctuation:no_comma"], [{}]),
            ifeval_row(
                1001,
                "Write.",
                ["length_constraints:number_words", "keywords:existence"],
                [{"relation": "at least", "num_words": 20}, {"keywords": ["river", "boat"]}],
            ),
        ],
        [("Write without commas.", None), ("Write.", None)],
    ),
    "humaneval": (
        *("openai/openai_humaneval", None, "test"),
        [HUMANEVAL],
        [(f"Complete this Python function.\n\n```python\n{HUMANEVAL['prompt'].strip()}\n```", None)],
    ),
    "mbpp": (
        *("google-research-datasets/mbpp", "full", "test"),
        [MBPP],
        [
            (
                "Write a python function to double. Your code should pass these tests:\n\n"
                "assert twice(2) == 4\nassert twice(0) == 0",
                MBPP["code"],
            )
        ],
    ),
}


@pytest.fixture
def hub(monkeypatch):
    """A function that puts rows on a hub that is none; the list of what is asked of it."""
    asked = []

    def serve(rows):
        def load_dataset(path, name=None, *, split):
            asked.append((path, name, split))
            if isinstance(rows, Exception):
                raise rows
            return list(rows)

        monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
        return asked

    return serve


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_row_becomes_its_task(hub, name):
    """The data set, configuration and split that are asked for; each row's question and gold answer, which verifies."""
    *place, rows, expected = PUBLISHED[name]
    asked = hub(rows)
    tasks = load_task_set(name, "test")
    assert asked == [tuple(place)]
    assert [task.messages[-1].content for task in tasks] == [question for question, _ in expected]
    assert all(gold in (None, task.answer) for task, (_, gold) in zip(tasks, expected, strict=True))
    assert tasks.dropped == ()
    assert check_gold(tasks, tasks.form).failures == ()


def test_every_place_of_the_table_is_tested():
    assert set(PLACES) == set(PUBLISHED) <= set(TASKS)
    for name, place in PLACES.items():
        repository, configuration, split, rows, _ = PUBLISHED[name]
        assert (place.repository, place.configuration, place.splits["test"]) == (repository, configuration, split)
        assert all(set(place.columns) <= set(row) for row in rows)


@pytest.mark.parametrize(("name", "split"), [("gsm8k", "train"), ("arc-easy", "train"), ("mbpp", "train")])
def test_training_rows_are_there_where_the_authors_publish_some(hub, name, split):
    rows = [{**MBPP, "task_id": 601}] if name == "mbpp" else PUBLISHED[name][3]
    asked = hub(rows)
    assert len(load_task_set(name, split)) == len(rows)
    assert asked[0][2] == "train"


def test_what_each_column_is_used_for(hub):
    """Tolerance and unit of OlympiadBench, level of MATH-500, both test lists of MBPP, labels of ARC, no None."""
    hub(PUBLISHED["olympiadbench"][3])
    far = load_task_set("olympiadbench", "test").tasks[1]
    judged = [far.verifier(far, f"\\boxed{{{answer}}}").parts["correct"] for answer in ("3.1", "3.2", "3.05 km", "3 m")]
    assert judged == [1.0, 0.0, 1.0, 0.0]
    hub(PUBLISHED["math500"][3])
    assert {k: load_task_set("math500", "test").tasks[0].meta[k] for k in ("level", "subject")} == {
        "level": 1,
        "subject": "Prealgebra",
    }
    hub([MBPP])
    assert [test.expected for test in load_task_set("mbpp", "test").tasks[0].meta["tests"]] == [4, 0, -2]
    hub(PUBLISHED["arc-easy"][3])
    task = load_task_set("arc-easy", "test").tasks[1]
    assert [task.verifier(task, TAGGED.write("", letter)).parts["correct"] for letter in "31"] == [1.0, 0.0]
    hub(PUBLISHED["ifeval"][3])
    task = load_task_set("ifeval", "test").tasks[1]
    assert task.meta["kwargs"] == [{"relation": "at least", "num_words": 20}, {"keywords": ("river", "boat")}]


@pytest.mark.parametrize("name", PLACES)
def test_a_layout_that_changed_is_named_with_its_column(hub, name):
    rows, column = PUBLISHED[name][3], PLACES[name].columns[-1]
    hub([{key: value for key, value in row.items() if key != column} for row in rows])
    with pytest.raises(DataError, match=f"has no column {column}; it has .*path="):
        load_task_set(name, "test")


def test_a_hub_that_cannot_be_reached_says_what_to_do(hub):
    hub(ConnectionError("Couldn't reach 'math-ai/aime25' on the Hub"))
    with pytest.raises(
        DataError, match=r"aime25 cannot be read from the hub \(math-ai/aime25\): ConnectionError.*path="
    ):
        load_task_set("aime25", "test")


def test_splits_and_sets_that_are_not_there(hub, monkeypatch):
    hub([])
    for name in ("math500", "olympiadbench", "aime24"):
        with pytest.raises(ConfigError, match="held-out problems only"):
            load_task_set(name, "train")
    with pytest.raises(ConfigError, match="read from a file"):
        load_task_set("maths", "test")
    with pytest.raises(DataError, match="no usable row"):
        load_task_set("aime25", "test")
    monkeypatch.setitem(sys.modules, "datasets", None)
    for name in PLACES:
        with pytest.raises(ConfigError, match=r"onepolicy\[hub\]"):
            load_task_set(name, "test")
