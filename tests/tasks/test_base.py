"""Task sets: gold answers verify, ids are unique, names and options are found or their nearest offered."""

from __future__ import annotations

import subprocess
import sys

import pytest

from onepolicy.errors import ConfigError, DataError
from onepolicy.tasks.base import TASKS, TaskSet, check_gold, conversation, load_task_set
from onepolicy.tasks.rewards import TAGGED, AnswerVerifier
from onepolicy.types import Score, Task


def judge(task, answer):
    return answer == task.answer and answer != "corrupt"


VERIFIER = AnswerVerifier(judge, TAGGED)


def task(name, answer="1", verifier=VERIFIER):
    return Task(name, conversation("?"), answer, verifier)


def test_a_gold_answer_its_verifier_rejects_is_an_error_that_lists_it():
    tasks = [task("a"), task("b", "corrupt"), task("c")]
    report = check_gold(tasks)
    assert (report.checked, report.verified) == (3, 2)
    assert report.failures == (("b", "gold answer 'corrupt' is judged wrong"),)
    with pytest.raises(DataError, match="1 of 3 gold answers") as caught:
        TaskSet("set", tuple(tasks))
    assert "b: gold answer 'corrupt'" in str(caught.value)


def test_a_gold_answer_that_cannot_be_judged_is_a_failure_not_a_pass():
    def unsure(task, text):
        return Score(None, {}, "timed out")

    assert check_gold([task("a", verifier=unsure)]).failures == (("a", "timed out"),)


def test_empty_sets_and_repeated_ids_are_errors():
    with pytest.raises(DataError, match="no tasks"):
        TaskSet("set", ())
    with pytest.raises(DataError, match="2 tasks with id 'a'"):
        TaskSet("set", (task("a"), task("a")))


def test_a_wrong_demonstration_is_never_handed_out():
    worked = TaskSet("set", (task("a"),), demonstrate=lambda task: TAGGED.write("", "2"))
    with pytest.raises(DataError, match="not right and in format"):
        worked.demonstrations(1, seed=0)
    unformatted = TaskSet("set", (task("a"),), demonstrate=lambda task: "<answer>1</answer>")
    with pytest.raises(DataError, match="not right and in format"):
        unformatted.demonstrations(1, seed=0)


@pytest.mark.parametrize(
    ("name", "split", "options", "message"),
    [
        ("arithmetics", "train", {}, "'arithmetic'"),
        ("gsm8k_steps", "train", {}, "'gsm8k-steps'"),
        ("countdown", "tset", {}, "'test'"),
        ("countdown", "train", {"levle": 2}, "'level'"),
    ],
)
def test_unknown_names_offer_the_nearest(name, split, options, message):
    with pytest.raises(ConfigError, match=message):
        load_task_set(name, split, **options)


def test_every_named_set_has_a_loader_that_takes_a_split():
    import inspect
    from importlib import import_module

    for target in TASKS.values():
        module, function = target.split(":")
        parameters = inspect.signature(getattr(import_module(module), function)).parameters
        assert next(iter(parameters)) == "split"
        assert "system" in parameters


def test_tasks_load_without_torch():
    code = (
        "import sys\nfrom onepolicy.tasks.base import load_task_set\n"
        "load_task_set('countdown', n=5)\nprint('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False", "False"]


@pytest.mark.parametrize("name", ["arithmetic", "countdown"])
def test_every_verifier_says_the_same_each_time_and_in_every_process(name):
    """Each completion judged 20 times here and in 3 processes with other hash seeds: identical."""
    code = (
        "from onepolicy.tasks.base import load_task_set\n"
        f"s = load_task_set('{name}', 'test', n=8)\n"
        "texts = ['', '7', '<answer>7</answer>', '<think>1</think><answer>1+1</answer>']\n"
        "texts += [s.form.write('x', t.answer) for t in s]\n"
        "runs = [[t.verifier(t, x).value for t in s for x in texts] for _ in range(20)]\n"
        "assert all(run == runs[0] for run in runs)\nprint(runs[0])"
    )
    outs = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": str(i)}
        ).stdout
        for i in range(3)
    }
    assert len(outs) == 1
