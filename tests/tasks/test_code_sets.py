"""HumanEval, MBPP and files of your own, in rows written here in their authors' layout."""

from __future__ import annotations

import json

import pytest

from onepolicy.errors import ConfigError, DataError
from onepolicy.tasks.base import INSTRUCTIONS, load_task_set
from onepolicy.tasks.code import FENCED
from onepolicy.tasks.code_sets import complete

HUMANEVAL = {
    "task_id": "HumanEval/900",
    "prompt": 'from typing import List\n\n\ndef doubled(xs: List[int]) -> List[int]:\n    """ Twice each.\n    """\n',
    "entry_point": "doubled",
    "canonical_solution": "    return [2 * x for x in xs]\n",
    "test": "\n\nMETADATA = {'author': 'us'}\n\n\ndef check(candidate):\n    assert candidate([1, 2]) == [2, 4]\n"
    "    assert candidate([]) == [], 'empty'\n    assert True\n    assert doubled([3]) == candidate([3])\n",
}
RANDOM = HUMANEVAL | {
    "task_id": "HumanEval/901",
    "test": "def check(candidate):\n    import random\n    x = random.random()\n    assert candidate(x) == x * 2\n",
}
MBPP = {
    "task_id": 20,
    "text": "Write a function to find the sum of a pair.",
    "code": "class Pair(object):\r\n  def __init__(self, a, b):\r\n    self.a, self.b = a, b\r\n"
    "def add(p):\r\n  return p.a + p.b",
    "test_list": ["assert add(Pair(1, 2)) == 3", "assert add(Pair(k, 0)) == 7"],
    "test_setup_code": "k = 7",
    "challenge_test_list": ["assert add(Pair(-1, 1)) == 0"],
}


@pytest.fixture
def file(tmp_path):
    def write(*rows):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return write


def right(task, program):
    return task.verifier(task, FENCED.write("", program)).parts["correct"]


def test_humaneval(file):
    tasks = load_task_set("humaneval", "test", path=file(HUMANEVAL, RANDOM))
    assert (len(tasks), tasks.counts) == (1, {"rows": 2, "dropped": 1, "tasks": 1})
    assert tasks.dropped == ("row 2: 'import random' is no assert that can be split into a call and a literal.",)
    (task,) = tasks
    assert task.id == "humaneval/900"
    assert task.messages[-1].content.startswith("Complete this Python function.\n\n```python\nfrom typing import List")
    assert [test.expected for test in task.meta["tests"]] == [[2, 4], []]
    assert right(task, "def doubled(xs): return [x + x for x in xs]") == 1.0
    assert right(task, "    return [x + x for x in xs]") == 1.0
    assert right(task, "    return xs * 2") == 0.0
    assert right(task, "def other(xs): return [x + x for x in xs]") == 0.0


def test_a_completion_keeps_the_prompts_imports_and_helpers(file):
    (task,) = load_task_set("humaneval", "test", path=file(HUMANEVAL))
    assert right(task, "def doubled(xs: List[int]) -> List[int]:\n    return [x + x for x in xs]") == 1.0
    assert complete(task, "    return xs").endswith('"""\n    return xs')


def test_humaneval_is_for_evaluation(file):
    with pytest.raises(ConfigError, match="no train split"):
        load_task_set("humaneval", "train", path=file(HUMANEVAL))


def test_mbpp(file):
    other = MBPP | {"task_id": 700, "test_setup_code": "", "test_list": ["assert add(Pair(1, 2)) == 3"]}
    path = file(MBPP, other)
    (task,) = load_task_set("mbpp", "test", path=path)
    assert task.id == "mbpp/20"
    assert task.messages[-1].content.endswith("Your code should pass these tests:\n\n" + "\n".join(MBPP["test_list"]))
    assert [test.expected for test in task.meta["tests"]] == [3, 7, 0]
    assert right(task, MBPP["code"]) == 1.0
    assert right(task, MBPP["code"].replace("+", "-")) == 0.0
    train = load_task_set("mbpp", "train", path=path)
    assert [one.id for one in train] == ["mbpp/700"]
    assert train.demonstrations(1, 0)[0][-1].content == FENCED.write("", MBPP["code"])
    with pytest.raises(DataError, match="no row of the split 'test'"):
        load_task_set("mbpp", "test", path=file(other))


def test_a_gold_program_that_fails_stops_or_is_dropped_by_row(file):
    wrong = MBPP | {"task_id": 21, "code": "class Pair: pass\ndef add(p): return 0"}
    path = file(MBPP, wrong)
    with pytest.raises(DataError, match=r"1 of 2 gold programs fail: row 2: .* 0% of its tests \(crash\)"):
        load_task_set("mbpp", "test", path=path)
    kept = load_task_set("mbpp", "test", path=path, on_error="drop")
    assert [task.id for task in kept] == ["mbpp/20"]
    assert kept.dropped[0].startswith("row 2: the gold program passes 0%")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"test_list": "assert add(1) == 1"}, "'test_list' is 'assert add"),
        ({"test_list": [1]}, "must be a list of texts"),
        ({"task_id": "20"}, "MBPP's are integers"),
        ({"code": ""}, "field 'code'"),
    ],
)
def test_broken_rows_are_named(file, change, reason):
    with pytest.raises(DataError, match=f"row 2: .*{reason}"):
        load_task_set("mbpp", "test", path=file(MBPP, MBPP | change))


def test_a_file_of_your_own(file):
    rows = [
        {"prompt": "Square.", "tests": [{"input": "3", "output": "9"}], "solution": "print(int(input()) ** 2)"},
        {
            "prompt": "Square f.",
            "function": "f",
            "tests": [{"args": [3], "expected": 9}, {"args": [-2], "expected": 4}],
            "solution": "def f(x): return x * x",
            "id": "square",
        },
        {
            "prompt": "In C.",
            "language": "c",
            "tests": [{"input": "", "output": "hello"}],
            "solution": '#include <stdio.h>\nint main() { printf("hello\\n"); }',
        },
    ]
    tasks = load_task_set("code-file", "train", path=file(*rows))
    assert [task.id for task in tasks] == ["code-file/train/1", "code-file/train/square", "code-file/train/3"]
    second = tasks.tasks[1]
    score = second.verifier(second, FENCED.write("", "def f(x): return 9"))
    assert (score.value, score.parts["passed"], score.parts["correct"]) == (0.6, 0.5, 0.0)
    assert len(tasks.demonstrations(3, 0)) == 3
    with pytest.raises(ConfigError, match="needs a file"):
        load_task_set("code-file", "train")


def test_the_model_is_told_how_programs_are_marked(file):
    path = file(HUMANEVAL)
    for system, said in ((None, FENCED.instructions), (INSTRUCTIONS, FENCED.instructions), ("Be brief.", "Be brief.")):
        (task,) = load_task_set("humaneval", "test", path=path, system=system)
        assert task.messages[0].content == said
    (task,) = load_task_set("humaneval", "test", path=path, system="")
    assert len(task.messages) == 1
