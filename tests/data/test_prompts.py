"""Prompts in a seeded order that can be stopped and continued anywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onepolicy.data.prompts import PromptStream, Shuffled, fit_prompts
from onepolicy.errors import ConfigError, DataError
from onepolicy.types import Message, Score, Task


def right(_task, _text):
    return Score(1.0)


def tasks(n):
    return [Task(f"t{i}", (Message("user", "x" * i),), "", right) for i in range(n)]


@given(n=st.integers(1, 12), batch=st.integers(1, 30), seed=st.integers(0, 99))
def test_every_epoch_has_every_task_once_whatever_the_batch_size(n, batch, seed):
    stream = PromptStream(tasks(n), batch, seed)
    ids = [task.id for _ in range(3 * n) for task in stream.next()]
    for start in range(0, len(ids) - n + 1, n):
        assert sorted(ids[start : start + n]) == sorted(f"t{i}" for i in range(n))


def test_epochs_and_seeds_differ_and_repeat_exactly():
    def order(seed, epochs=2):
        stream = PromptStream(tasks(20), 20, seed)
        return [[task.id for task in stream.next()] for _ in range(epochs)]

    assert order(0) == order(0)
    assert order(0)[0] != order(0)[1]
    assert order(0)[0] != order(1)[0]
    assert order(0)[0] != [f"t{i}" for i in range(20)]


def test_the_batch_size_does_not_change_the_order():
    by_three, by_seven = PromptStream(tasks(10), 3, 5), PromptStream(tasks(10), 7, 5)
    first = [t.id for _ in range(7) for t in by_three.next()]
    assert first == [t.id for _ in range(3) for t in by_seven.next()]


@given(n=st.integers(1, 12), batch=st.integers(1, 30), steps=st.integers(0, 9))
def test_a_resumed_stream_goes_on_exactly(n, batch, steps):
    whole, stopped = PromptStream(tasks(n), batch, 3), PromptStream(tasks(n), batch, 3)
    for _ in range(steps):
        whole.next()
        stopped.next()
    fresh = PromptStream(tasks(n), batch, 3)
    fresh.load_state_dict(stopped.state_dict())
    for _ in range(4):
        assert fresh.next() == whole.next()
    assert fresh.state_dict() == whole.state_dict()


def test_the_state_by_hand():
    """10 tasks by 4: after three batches 12 were taken, that is epoch 1 at place 2."""
    stream = PromptStream(tasks(10), 4, 0)
    for _ in range(3):
        stream.next()
    assert stream.state_dict() == {"epoch": 1, "position": 2, "size": 10}


def test_bad_streams_are_named():
    with pytest.raises(DataError, match="0 prompts"):
        PromptStream([], 4, 0)
    with pytest.raises(DataError, match="two tasks have the id 't0'"):
        PromptStream(tasks(2) + tasks(1), 4, 0)
    with pytest.raises(ConfigError, match="batch_size is 0"):
        PromptStream(tasks(2), 0, 0)
    with pytest.raises(DataError, match="position is in 10 prompts but there are now 9"):
        PromptStream(tasks(9), 4, 0).load_state_dict({"epoch": 0, "position": 0, "size": 10})


def test_streams_of_other_things_have_orders_of_their_own():
    items = list(range(30))
    assert Shuffled(items, 30, 0, "a").next() != Shuffled(items, 30, 0, "b").next()


def count(task):
    return [0] * len(task.messages[0].content)


def test_prompts_that_fit_are_kept_with_their_tokens():
    fitted = fit_prompts(tasks(4), count, limit=3)
    assert fitted.dropped == 0
    assert fitted.tokens == {"t0": [], "t1": [0], "t2": [0, 0], "t3": [0, 0, 0]}


def test_a_prompt_beyond_the_context_stops_or_is_dropped_and_counted():
    with pytest.raises(DataError, match=r"2 of 4 prompts are longer than 1 tokens.*task 't3', has 3"):
        fit_prompts(tasks(4), count, limit=1)
    fitted = fit_prompts(tasks(4), count, limit=1, policy="drop")
    assert [task.id for task in fitted.tasks] == ["t0", "t1"]
    assert fitted.dropped == 2
    assert set(fitted.tokens) == {"t0", "t1"}
    with pytest.raises(DataError, match="3 of 3"):
        fit_prompts(tasks(4)[1:], count, limit=0, policy="drop")
