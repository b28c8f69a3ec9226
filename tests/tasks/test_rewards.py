"""Where an answer stands, what keeps the format, and what they are worth."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.errors import ConfigError
from onepolicy.tasks.base import conversation
from onepolicy.tasks.rewards import (
    FORMATS,
    HASHED,
    LAST_NUMBER,
    TAGGED,
    TAGS,
    AnswerVerifier,
    RewardWeights,
    extract_tag,
    keeps_tags,
    split_thinking,
)
from onepolicy.types import Score, Task


def judge(task, answer):
    return answer == task.answer


TASK = Task("t", conversation("6+1="), "7", AnswerVerifier(judge, TAGGED))
PIECES = st.lists(st.sampled_from([*TAGS, "7", "8", "6+1", " ", "\n", "<", "think>"]), max_size=9).map("".join)


@pytest.mark.parametrize(
    ("text", "correct", "format_kept"),
    [
        ("<think>6+1</think><answer>7</answer>", 1, 1),
        ("<think></think><answer>7</answer>", 1, 1),
        (" <think>6+1</think>\n<answer> 7 </answer>\n", 1, 1),
        ("<think>6+1</think><answer>8</answer>", 0, 1),
        ("<think>6+1</think><answer></answer>", 0, 1),
        ("<answer>7</answer>", 1, 0),
        ("6+1 is <answer>7</answer>.", 1, 0),
        ("<think>6+1</think><answer>7</answer> Done.", 1, 0),
        ("Well, <think>6+1</think><answer>7</answer>", 1, 0),
        ("<think>6+1</think><answer>7</answer><answer>7</answer>", 1, 0),
        ("<think>6+1</think><answer>7</answer><answer>8</answer>", 0, 0),
        ("<think>6+1</think><answer>7", 0, 0),
        ("<think>6+1<answer>7</answer>", 0, 0),
        ("<think><answer>7</answer></think>", 0, 0),
        ("<think><answer>7</answer></think><answer>8</answer>", 0, 0),
        ("<answer>7</answer><think>6+1</think>", 0, 0),
        ("<think>6+1</think><answer><answer>7</answer></answer>", 0, 0),
        ("</think><think><answer>7</answer>", 0, 0),
        ("<THINK></THINK><ANSWER>7</ANSWER>", 0, 0),
        ("7", 0, 0),
        ("", 0, 0),
    ],
)
def test_by_hand(text, correct, format_kept):
    """An answer counts outside the thinking and unambiguous; the format is the two blocks and nothing else."""
    score = TASK.verifier(TASK, text)
    assert score == Score(correct + 0.1 * format_kept, {"correct": correct, "format": format_kept})


@settings(max_examples=500, deadline=None)
@given(PIECES | st.text(max_size=60))
def test_no_text_makes_a_verifier_raise(text):
    for form in FORMATS.values():
        score = AnswerVerifier(judge, form)(TASK, text)
        assert score.error is None
        assert set(score.parts) == {"correct", "format"}


@settings(max_examples=500, deadline=None)
@given(PIECES)
def test_a_kept_format_always_has_a_readable_answer(text):
    if keeps_tags(text):
        assert TAGGED.extract(text) is not None
        assert split_thinking(text)[0] is not None


@settings(max_examples=200, deadline=None)
@given(st.text("0123456789+-=; \n", max_size=30), st.text("0123456789-/.", min_size=1, max_size=8))
def test_what_a_format_writes_it_reads(thinking, answer):
    for form in (TAGGED, HASHED):
        text = form.write(thinking, answer)
        assert form.matches(text)
        assert form.extract(text) == answer


def test_weights_are_the_price_of_each_part():
    verifier = AnswerVerifier(judge, TAGGED, RewardWeights(correct=2.0, format=0.5))
    values = [verifier(TASK, t).value for t in ("<think></think><answer>7</answer>", "<answer>7</answer>", "7")]
    assert values == [2.5, 2.0, 0.0]
    with pytest.raises(ConfigError, match="format"):
        RewardWeights(format=float("nan"))
    with pytest.raises(ConfigError, match="correct"):
        RewardWeights(correct=-1.0)


def test_a_right_answer_in_a_broken_format_beats_a_wrong_one_in_a_perfect_format():
    right = TASK.verifier(TASK, "<answer>7</answer>").value
    wrong = TASK.verifier(TASK, "<think></think><answer>8</answer>").value
    assert right > wrong


def test_an_over_long_answer_is_wrong_without_being_judged():
    def exploding(task, answer):
        raise AssertionError("judged")

    verifier = AnswerVerifier(exploding, TAGGED)
    assert verifier(TASK, f"<answer>{'7' * 2001}</answer>").parts["correct"] == 0


@pytest.mark.parametrize(
    "text", ["<answer>" * 20_000, "<think>" * 20_000, "####" * 20_000, "1,1" * 30_000, "<" * 100_000]
)
def test_long_junk_takes_no_time(text):

    started = time.process_time()
    for form in FORMATS.values():
        AnswerVerifier(judge, form)(TASK, text)
    assert time.process_time() - started < 0.2


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("steps\n#### 7", "7"),
        ("#### 7\nand more", "7"),
        ("#### 7 #### 8", None),
        ("no mark 7", None),
        ("<think>#### 8</think>#### 7", "7"),
        ("####", None),
    ],
)
def test_the_answer_after_hashes(text, answer):
    assert HASHED.extract(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("It is 7.", "7"),
        ("First 8, then 1,234.50", "1,234.50"),
        ("He pays $12, so 5%", "5%"),
        ("<think>8</think> seven", None),
        ("it fell to -3", "-3"),
        ("1/2", "1/2"),
    ],
)
def test_the_last_number(text, answer):
    assert LAST_NUMBER.extract(text) == answer


def test_tags_by_hand():
    assert extract_tag("a <answer>x</answer> b <answer> x </answer>", "answer") == "x"
    assert extract_tag("<answer>x", "answer") is None
    assert extract_tag("x</answer>", "answer") is None
    assert split_thinking("no tags") == (None, "no tags")
    assert split_thinking("opened by the prompt</think>7") == ("opened by the prompt", "7")
