"""A user's reward function: every way it can go wrong is named, and none moves another sample's reward."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from onepolicy.errors import RewardError
from onepolicy.tasks.base import as_reward, conversation
from onepolicy.types import Task


def length(prompts, completions, **columns):
    return [float(len(text)) for text in completions]


TASKS = [Task(f"t{i}", conversation(f"ask {i}"), str(i), as_reward(length), {"level": i}) for i in range(3)]
TEXTS = ["a", "bb", "ccc"]


def returning(value):
    def reward(prompts, completions, **columns):
        return value

    return as_reward(reward)


def test_the_function_sees_prompts_completions_and_columns():
    seen = {}

    def reward(prompts, completions, **columns):
        seen.update(columns, prompts=prompts, completions=completions)
        return [1.0] * len(prompts)

    assert [s.value for s in as_reward(reward).batch(TASKS, TEXTS)] == [1.0, 1.0, 1.0]
    assert seen == {
        "prompts": ["ask 0", "ask 1", "ask 2"],
        "completions": TEXTS,
        "answer": ["0", "1", "2"],
        "task_id": ["t0", "t1", "t2"],
        "level": [0, 1, 2],
    }


def test_a_function_without_columns_is_given_those_it_names():
    def reward(prompts, completions, answer):
        return [float(text == gold) for text, gold in zip(completions, answer)]

    assert [as_reward(reward)(TASKS[1], text).value for text in ("1", "2")] == [1.0, 0.0]


def test_one_by_one_and_batch_agree():
    reward = as_reward(length)
    assert [reward(task, text) for task, text in zip(TASKS, TEXTS)] == reward.batch(TASKS, TEXTS)
    assert pickle.loads(pickle.dumps(reward))(TASKS[0], "abc").value == 3.0  # noqa: S301


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1.0, 2.0], "2 rewards for 3 completions"),
        ([1.0], "1 rewards for 3 completions"),
        ([], "0 rewards for 3"),
        (1.0, "returned float"),
        (None, "returned NoneType"),
        ("123", "returned str"),
        ({"a": 1, "b": 2, "c": 3}, "returned dict"),
        ([1.0, "good", 0.0], "returned str 'good' as a reward"),
        ([1.0, [2.0], 0.0], "as a reward"),
    ],
)
def test_a_breach_of_the_form_is_an_error_that_names_the_function(value, message):
    with pytest.raises(RewardError, match=message) as caught:
        returning(value).batch(TASKS, TEXTS)
    assert "reward function reward" in str(caught.value)


@pytest.mark.parametrize(
    ("bad", "message"), [(float("nan"), "returned nan"), (float("inf"), "returned inf"), (-np.inf, "returned -inf")]
)
def test_an_infinite_reward_is_invalid_never_zero(bad, message):
    scores = returning([1.0, bad, 0.5]).batch(TASKS, TEXTS)
    assert [s.value for s in scores] == [1.0, None, 0.5]
    assert (scores[1].state, scores[1].cause) == ("invalid", "reward")
    assert message in scores[1].error


def test_none_says_that_the_reward_does_not_apply():
    scores = returning([1.0, None, 0.5]).batch(TASKS, TEXTS)
    assert [(s.value, s.state) for s in scores] == [(1.0, "judged"), (None, "skipped"), (0.5, "judged")]


def test_numbers_of_other_libraries_are_numbers():
    scores = returning(np.array([1, 0, 1], dtype=np.float32)).batch(TASKS, TEXTS)
    assert [s.value for s in scores] == [1.0, 0.0, 1.0]
    assert [s.value for s in returning([True, 0, np.int64(2)]).batch(TASKS, TEXTS)] == [1.0, 0.0, 2.0]


def test_one_completion_that_makes_it_raise_does_not_spoil_the_others():
    def fragile(prompts, completions, **columns):
        if "bb" in completions:
            raise KeyError("bb")
        return [1.0] * len(completions)

    scores = as_reward(fragile).batch(TASKS, TEXTS)
    assert [s.value for s in scores] == [1.0, None, 1.0]
    assert scores[1].error == "crash: reward function fragile raised KeyError: 'bb'"
    assert as_reward(fragile)(TASKS[0], "bb").value is None


def test_a_function_that_always_raises_stops_the_run():
    def broken(prompts, completions, **columns):
        raise NameError("tpyo")

    with pytest.raises(RewardError, match="every one of 3 completions") as caught:
        as_reward(broken).batch(TASKS, TEXTS)
    assert isinstance(caught.value.__cause__, NameError)


def test_columns_are_those_every_task_has():
    seen = {}

    def reward(prompts, completions, **columns):
        seen.update(columns)
        return [0.0] * len(prompts)

    as_reward(reward).batch([TASKS[0], replace(TASKS[1], meta={})], ["a", "b"])
    assert set(seen) == {"answer", "task_id"}


@pytest.mark.parametrize(
    ("function", "message"),
    [(3, "not callable"), (lambda text: 1.0, "prompts and completions"), (lambda prompts: 1, "completions")],
)
def test_what_cannot_be_called_so_is_refused_at_once(function, message):
    with pytest.raises(RewardError, match=message):
        as_reward(function)
