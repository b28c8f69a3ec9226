"""Generated prompts: different, reproducible, without contradiction, their gold answers right; the benchmark's file."""

from __future__ import annotations

import json
import pickle
from collections import Counter

import pytest

from onepolicy.errors import ConfigError, DataError
from onepolicy.tasks import ifeval
from onepolicy.tasks.base import check_gold, load_task_set
from onepolicy.tasks.instructions import CONSTRAINTS, IFEVAL_IDS, PLAIN, conflicting
from onepolicy.tasks.instructions_prompts import InstructionLevel, allowed, load


@pytest.fixture(scope="module")
def sets():
    """400 prompts of one to six constraints, and 40 held out."""
    levels = (1, 2, 3, 4, 5, 6)
    return load("train", level=levels, n=400, seed=3), load("test", level=levels, n=40, seed=3)


def test_prompts_ask_for_what_their_level_says(sets):
    for task in sets[0]:
        ids = task.meta["instruction_id_list"]
        assert len(ids) == len(set(ids)) == task.meta["level"]
        assert conflicting(ids) == []
        for bound in task.verifier.constraints:
            assert bound.describe() in task.messages[-1].content


def test_every_gold_answer_follows_every_constraint(sets):
    for one in sets:
        assert check_gold(one.tasks, PLAIN).failures == ()
    for task in sets[0]:
        assert task.verifier(task, task.answer).parts["prompt_strict"] == 1
        assert task.verifier(task, "").parts["prompt_loose"] == 0


def test_constraints_of_every_kind_are_drawn(sets):
    seen = Counter(name for task in sets[0] for name in task.meta["instruction_id_list"])
    assert len(seen) > 55
    assert len({task.messages[-1].content for task in sets[0]}) == 400


def test_the_splits_are_disjoint_and_seeds_reproduce(sets):
    prompts = [{task.messages[-1].content for task in one} for one in sets]
    assert not prompts[0] & prompts[1]
    again = load("test", level=(1, 2, 3, 4, 5, 6), n=40, seed=3)
    assert [(a.id, a.messages, a.answer) for a in again] == [(a.id, a.messages, a.answer) for a in sets[1]]
    assert [a.verifier for a in again] == [a.verifier for a in sets[1]]
    other = load("test", level=(1, 2, 3, 4, 5, 6), n=40, seed=4)
    assert [task.messages for task in other] != [task.messages for task in again]


def test_pools_and_what_is_left_out():
    assert len(allowed("all")) == len(CONSTRAINTS)
    assert allowed("ifeval") == list(IFEVAL_IDS)
    assert not set(allowed("own")) & set(IFEVAL_IDS)
    assert "format:csv" not in allowed("own", ["format:csv"])
    own = load("train", level=InstructionLevel(2), n=20, pool="own", leave_out=("format:csv",))
    assert all(name not in IFEVAL_IDS for task in own for name in task.meta["instruction_id_list"])
    with pytest.raises(ConfigError, match="Did you mean 'ifeval'"):
        load(pool="ifval")
    with pytest.raises(ConfigError, match="Did you mean 'format:csv'"):
        load(leave_out=("format:cvs",))
    with pytest.raises(ConfigError, match="levels are 1 to 6"):
        load(level=7)
    with pytest.raises(ConfigError, match="left out"):
        allowed("ifeval", IFEVAL_IDS)


def test_by_name_and_with_an_error_for_a_misspelt_option():
    tasks = load_task_set("instructions", "train", n=6, level=2)
    assert len(tasks) == 6
    pickle.loads(pickle.dumps(tasks.tasks))  # noqa: S301
    assert [talk[-1].role for talk in tasks.demonstrations(6, seed=0)] == ["assistant"] * 6
    with pytest.raises(ConfigError, match="pool"):
        load_task_set("instructions", pol="own")


ROWS = [
    {"key": 7, "prompt": "Go.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
    {
        "key": 8,
        "prompt": "Go on.",
        "instruction_id_list": ["length_constraints:number_words"] * 2,
        "kwargs": [
            {"num_words": 4, "relation": "at least", "letter": None},
            {"num_words": 90.0, "relation": "less than", "letter": None},
        ],
    },
    {"key": 9, "prompt": "No.", "instruction_id_list": ["startend:quotation"] * 2, "kwargs": [{}, {}]},
    {
        "key": 10,
        "prompt": "Both.",
        "instruction_id_list": ["change_case:english_capital", "change_case:english_lowercase"],
        "kwargs": [{}, {}],
    },
]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_the_authors_layout(tmp_path):
    tasks = ifeval.load(path=write(tmp_path / "ifeval.jsonl", ROWS))
    assert [task.id for task in tasks] == ["ifeval/7", "ifeval/8", "ifeval/9", "ifeval/10"]
    assert [task.meta["level"] for task in tasks] == [1, 2, 2, 2]
    assert tasks.counts == {"rows": 4, "dropped": 0, "tasks": 4, "gold": 3}
    first, second, third, _ = tasks.tasks
    assert first.verifier(first, "a, b").value == 0
    assert second.verifier(second, "just three words").parts["instruction_strict"] == 0.5
    assert second.verifier(second, "now four words here").value == 1
    assert third.verifier(third, '"so"').parts["followed_strict"] == 2


def test_the_papers_four_numbers(tmp_path):
    """Four prompts with 1, 2, 2, 2 instructions: the reply `Well, a b` follows none of 1, 1 of 2 (under 90 words),
    none of 2, none of 2 strictly; loosely nothing more, for it is one line. Two lines more and loose follows."""
    tasks = ifeval.load(path=write(tmp_path / "ifeval.jsonl", ROWS))
    same = ifeval.accuracies(task.verifier(task, "Well, a b") for task in tasks)
    assert same == {
        "prompt_strict": 0,
        "instruction_strict": 1 / 7,
        "prompt_loose": 0,
        "instruction_loose": 1 / 7,
    }
    more = ifeval.accuracies(task.verifier(task, 'Well, so:\n"one two three four"') for task in tasks)
    assert more == {
        "prompt_strict": 1 / 4,
        "instruction_strict": 2 / 7,
        "prompt_loose": 3 / 4,
        "instruction_loose": 6 / 7,
    }
    assert ifeval.accuracies([]) == {}


def test_what_cannot_be_meant_stops_or_is_listed(tmp_path):
    broken = [
        {**ROWS[0], "instruction_id_list": ["punctuation:no_coma"]},
        {**ROWS[0], "kwargs": []},
        {**ROWS[0], "kwargs": [{"num_words": 3}]},
        {**ROWS[0], "prompt": ""},
        {"prompt": "x"},
    ]
    path = write(tmp_path / "broken.jsonl", [*ROWS[:1], *broken])
    with pytest.raises(DataError, match=r"row 2: Unknown constraint 'punctuation:no_coma'\. Did you mean"):
        ifeval.load(path=path)
    tasks = ifeval.load(path=path, on_error="drop")
    assert (len(tasks), len(tasks.dropped)) == (1, 5)
    assert [line.partition(":")[0] for line in tasks.dropped] == [f"row {i}" for i in range(2, 7)]
    with pytest.raises(ConfigError, match="train on the task set"):
        ifeval.load("train", path=path)
