"""Rewards of length and repetition: the equations by hand, limits, and what is skipped or refused."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.errors import ConfigError
from onepolicy.tasks.base import conversation
from onepolicy.tasks.length import (
    CosineLength,
    LengthBudget,
    LengthTarget,
    OverlongPenalty,
    Ruler,
    cosine,
    soft_overlong,
    with_tokens,
)
from onepolicy.tasks.repetition import RepetitionPenalty, covered_share, duplicate_share, longest_loop, tokens_of
from onepolicy.types import Score, Task

CHARACTERS = Ruler("characters")


def score(verifier, text, **meta):
    return verifier(Task("t", conversation("Go."), "", verifier, meta), text)


def test_dapos_equation_with_its_own_numbers():
    """L_max 20,480 and L_cache 4,096: free up to 16,384, half the punishment in the middle, -1 beyond."""
    lengths = (0, 16_384, 18_432, 20_480, 20_481)
    assert [soft_overlong(length, 20_480, 4_096) for length in lengths] == [0, 0, -0.5, -1, -1]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 300), st.integers(1, 100), st.integers(0, 100))
def test_the_punishment_falls_and_is_continuous(length, buffer, more):
    limit = buffer + more
    here, then = soft_overlong(length, limit, buffer), soft_overlong(length + 1, limit, buffer)
    assert -1 <= then <= here <= 0
    assert here - then <= 1 / buffer + 1e-12


def test_units():
    text = "<think>one two</think>It's  well-known."
    assert [Ruler(unit).length(None, text) for unit in ("characters", "words")] == [len(text), 6]
    assert Ruler("words", "answer").length(None, text) == 2
    assert Ruler("tokens", count=len).length(None, "abc") == 3
    assert score(OverlongPenalty(10, 4, Ruler("tokens")), "x", completion_tokens=8) == Score(-0.5, {"length": 8})
    missing = score(OverlongPenalty(10, 4, Ruler("tokens")), "x")
    assert (missing.state, missing.cause) == ("invalid", "other")
    assert "meta has no whole number 'completion_tokens'" in missing.error
    inside = score(OverlongPenalty(10, 4, Ruler("tokens", "thinking")), "x", completion_tokens=8)
    assert "not their thinking. Give Ruler a counting function" in inside.error


def test_a_task_is_given_the_tokens_of_its_completion_once():
    one = Task("t", conversation("?"), "", None, {"level": 1})
    counted = with_tokens(one, 7)
    assert (counted.meta, one.meta) == ({"level": 1, "completion_tokens": 7}, {"level": 1})
    assert with_tokens(counted, 9) is counted


@pytest.mark.parametrize(
    ("verifier", "text", "value"),
    [
        (OverlongPenalty(10, 5, CHARACTERS), "x" * 5, 0),
        (OverlongPenalty(10, 5, CHARACTERS), "x" * 8, -0.6),
        (OverlongPenalty(10, 5, CHARACTERS), "x" * 11, -1),
        (LengthBudget(3), "a b c", 1),
        (LengthBudget(3), "a b c d", 0),
        (LengthBudget(3), "", 0),
        (LengthBudget(3, low=2, slack=2), "a b c d", 0.5),
        (LengthBudget(3, low=2, slack=2), "a", 0.5),
        (LengthTarget(4, alpha=0.1), "a b c", -0.1),
        (LengthTarget(4, alpha=0.1), "a b c d e f", -0.2),
        (LengthTarget(4, "max", alpha=0.1), "a b", 0.7),
        (LengthTarget(4, "max", alpha=0.1), "a b c d", 0.5),
        (LengthTarget(4, "max", alpha=0.5), "a b c d e f", 0),
        (LengthTarget(9, "max", alpha=0.5), "a", 1),
    ],
)
def test_by_hand(verifier, text, value):
    assert score(verifier, text).value == pytest.approx(value, abs=1e-12)


def test_a_target_from_the_prompt():
    assert score(LengthTarget(alpha=1.0), "a b", target_length=5).value == -3
    for wrong in (None, "5", 0, True):
        got = score(LengthTarget(), "a b", target_length=wrong)
        assert (got.state, got.cause) == ("invalid", "gold")


def right(task, text):
    return Score(1.0, {"correct": 1.0})


def wrong(task, text):
    return Score(0.0, {"correct": 0.0})


def broken(task, text):
    return Score(None, {}, "crash: it broke")


def test_the_cosine_by_hand():
    """Half way (5 of 10 words) the cosine is the mean of its ends; a third of the way it has lost a quarter."""
    half, third = "a " * 5, "a " * 4
    assert score(CosineLength(right, 10), half).value == pytest.approx(0.75)
    assert score(CosineLength(wrong, 10), half).value == pytest.approx(-0.75)
    assert score(CosineLength(right, 12), third).value == pytest.approx(1 - 0.5 * 0.25)
    assert score(CosineLength(right, 5), half) == Score(-1.0, {"correct": 1.0, "length": 5.0})
    assert score(CosineLength(broken, 5), half) == broken(None, "")
    assert cosine(2, 12, 1, 0) == pytest.approx((1 + math.cos(math.pi / 6)) / 2)


def test_settings_that_cannot_work_are_refused():
    for make in (
        lambda: OverlongPenalty(10, 0),
        lambda: OverlongPenalty(10, 11),
        lambda: LengthBudget(3, low=4),
        lambda: LengthTarget(0),
        lambda: LengthTarget(3, "exactly"),
        lambda: LengthTarget(3, alpha=0),
        lambda: CosineLength(right, 0),
        lambda: Ruler("token"),
        lambda: Ruler("words", count=len),
        lambda: RepetitionPenalty(0),
        lambda: RepetitionPenalty(3, penalty=0.5),
        lambda: RepetitionPenalty(3, penalty=float("nan")),
        lambda: RepetitionPenalty(3, measure="cover"),
        lambda: RepetitionPenalty(3, free=1.0),
    ):
        with pytest.raises(ConfigError):
            make()


def naive_covered(tokens, n):
    """Every token of an n-gram that occurred before is marked, one by one."""
    seen, marked = set(), [False] * len(tokens)
    for i in range(len(tokens) - n + 1):
        gram = tuple(tokens[i : i + n])
        if gram in seen:
            marked[i : i + n] = [True] * n
        seen.add(gram)
    return sum(marked) / len(tokens) if tokens else 0.0


def naive_loop(tokens):
    """The longest stretch that equals itself shifted by a period, at least two periods long."""
    best = (0, 0)
    for p in range(1, len(tokens) // 2 + 1):
        for start in range(len(tokens)):
            end = start
            while end + p < len(tokens) and tokens[end] == tokens[end + p]:
                end += 1
            if end - start >= p and end - start + p > best[0]:
                best = (end - start + p, p)
    return best


@settings(max_examples=300, deadline=None)
@given(st.text("ab", max_size=14) | st.text("abc", max_size=20), st.integers(1, 4))
def test_repetition_agrees_with_the_naive_loops(tokens, n):
    assert covered_share(tokens, n) == pytest.approx(naive_covered(tokens, n))
    assert longest_loop(tokens) == naive_loop(tokens)
    grams = [tokens[i : i + n] for i in range(len(tokens) - n + 1)]
    assert duplicate_share(tokens, n) == pytest.approx(1 - len(set(grams)) / len(grams) if len(grams) > 1 else 0)


def test_the_penalty_by_hand():
    """`a b c` twice: with n = 3 one of four trigrams is not new, half of the tokens lie in it, and all is one loop."""
    got = score(RepetitionPenalty(3), "a b c a b c")
    assert got.parts == {"repetition_covered": 0.5, "repetition_duplicates": 0.25, "repetition_loop": 1.0}
    assert got.value == -0.5
    assert score(RepetitionPenalty(3, measure="duplicates"), "a b c a b c").value == -0.25
    assert score(RepetitionPenalty(3, penalty=-2, free=0.25), "a b c a b c").value == pytest.approx(-2 / 3)
    assert score(RepetitionPenalty(3), "a b c d e f") == Score(
        0.0, {"repetition_covered": 0.0, "repetition_duplicates": 0.0, "repetition_loop": 0.0}
    )
    assert score(RepetitionPenalty(3), "a b c a b").state == "skipped"


def test_a_loop_in_a_script_without_blanks_is_seen():
    assert tokens_of("好的 OK!") == ["好", "的", "ok", "!"]
    assert score(RepetitionPenalty(2), "我很好" * 20).parts["repetition_loop"] == 1


def test_long_text_takes_no_time():
    started = time.process_time()
    score(RepetitionPenalty(20), "wait " * 40_000)
    score(RepetitionPenalty(20), "".join(f"{i} " for i in range(40_000)))
    assert time.process_time() - started < 2.0
