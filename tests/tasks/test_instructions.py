"""Constraints bound to arguments: what is refused, strict and loose, parts, and that nothing passes by default."""

from __future__ import annotations

import pickle
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.errors import ConfigError, DataError
from onepolicy.tasks.base import conversation
from onepolicy.tasks.instructions import (
    CONSTRAINTS,
    IFEVAL_IDS,
    Bound,
    InstructionVerifier,
    bind,
    conflicting,
    loose_variants,
)
from onepolicy.tasks.instructions_constraint import ERRATA
from onepolicy.tasks.instructions_prompts import compose
from onepolicy.tasks.rewards import TAGGED
from onepolicy.types import Task

NO_COMMA = Bound("punctuation:no_comma")
TITLE = Bound("detectable_format:title")
WORDS = Bound("length_constraints:number_words", {"num_words": 3, "relation": "at least"})


def drawn(name, rng):
    return Bound(name, CONSTRAINTS[name].draw(rng))


def score(verifier, text):
    return verifier(Task("t", conversation("Go."), "", verifier), text)


def test_there_are_the_25_of_ifeval_and_more_than_20_of_our_own():
    assert len(IFEVAL_IDS) == 25
    assert len(CONSTRAINTS) - 25 == 42


@pytest.mark.parametrize(
    ("ids", "arguments", "words"),
    [
        (["punctuation:no_coma"], [{}], "Did you mean 'punctuation:no_comma'"),
        (["no_comma"], [{}], "Unknown constraint 'no_comma'"),
        ([""], [{}], "Unknown constraint ''"),
        ([None], [{}], "Unknown constraint None"),
        ([["punctuation:no_comma"]], [{}], "Unknown constraint"),
        (["punctuation:no_comma"], [""], "must be an object"),
        (["punctuation:no_comma"] * 2, [{}, {}], "asked 2 times"),
        ([], [], "at least one"),
        (["punctuation:no_comma"], [], "1 constraints and 0 sets"),
        (["punctuation:no_comma"], [{"comma": 1}], "no argument 'comma'. It takes none"),
        (["punctuation:no_comma"], [[1]], "must be an object"),
        (["length_constraints:number_words"], [{}], "needs the argument 'num_words', 'relation'"),
        (["length_constraints:number_words"], [None], "needs the argument"),
        (["length_constraints:number_words"], [{"num_words": 3, "relation": None}], "needs the argument 'relation'"),
        (["length_constraints:number_words"], [{"num_word": 3, "relation": "at least"}], "Did you mean 'num_words'"),
        (["length_constraints:number_words"], [{"num_words": 3, "relation": "at most"}], "'less than', 'at least'"),
        (["length_constraints:number_words"], [{"num_words": "3", "relation": "at least"}], "a whole number"),
        (["length_constraints:number_words"], [{"num_words": True, "relation": "at least"}], "a whole number"),
        (["length_constraints:number_words"], [{"num_words": 2.5, "relation": "at least"}], "a whole number"),
        (["length_constraints:number_words"], [{"num_words": 0, "relation": "at least"}], "from 1 to"),
        (["length_constraints:number_words"], [{"num_words": -1, "relation": "at least"}], "from 1 to"),
        (["length_constraints:number_words"], [{"num_words": float("nan"), "relation": "at least"}], "a whole number"),
        (["length_constraints:number_words"], [{"num_words": float("inf"), "relation": "at least"}], "a whole number"),
        (["keywords:existence"], [{"keywords": "river"}], "a list of one or more"),
        (["keywords:existence"], [{"keywords": []}], "a list of one or more"),
        (["keywords:existence"], [{"keywords": ["a", "a"]}], "without repetitions"),
        (["keywords:existence"], [{"keywords": ["a", " "]}], "not blank"),
        (["keywords:letter_frequency"], [{"letter": "ab", "let_frequency": 1, "let_relation": "at least"}], "single"),
        (["language:response_language"], [{"language": "English"}], "language 'English' is unknown"),
        (
            ["length_constraints:nth_paragraph_first_word"],
            [{"num_paragraphs": 2, "nth_paragraph": 3, "first_word": "so"}],
            "nth_paragraph is 3 of 2",
        ),
        (["words:range"], [{"low": 5, "high": 4}], "low is at most high"),
        (["copy:span"], [{"text": "one two", "first": 2, "last": 3}], "of a text of 2 words"),
    ],
)
def test_a_constraint_that_cannot_be_meant_is_refused(ids, arguments, words):
    with pytest.raises(DataError, match=words.replace("'", ".").replace("(", ".")):
        bind(ids, arguments)


def test_the_same_id_twice_needs_to_be_meant():
    both = ["length_constraints:number_words"] * 2
    bounds = [{"num_words": 3, "relation": "at least"}, {"num_words": 6, "relation": "less than"}]
    verifier = InstructionVerifier(bind(both, bounds, repeats=True), repeats=True)
    assert [score(verifier, " ".join(["word"] * n)).value for n in (2, 3, 5, 6)] == [0.5, 1, 1, 0.5]
    with pytest.raises(DataError, match="asked 2 times"):
        InstructionVerifier(verifier.constraints)


@pytest.mark.parametrize("empty", ["", " ", "\n\n", "\t", "<think>no, comma</think>", "<think>never closed", "\u3000"])
@pytest.mark.parametrize("errata", ERRATA)
def test_an_empty_reply_follows_nothing(empty, errata):
    for name in CONSTRAINTS:
        parts = score(InstructionVerifier((drawn(name, np.random.default_rng(0)),), errata=errata), empty).parts
        assert (parts["correct"], parts["prompt_loose"], parts["followed_loose"]) == (0, 0, 0), name


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_a_constraint_follows_its_own_text_and_refuses_junk(name):
    """Each constraint's writer makes a text that follows it; one of a few texts made for nothing does not."""
    rng = np.random.default_rng(5)
    for _ in range(5):
        bound = drawn(name, rng)
        text = compose([bound], rng)
        assert bound.follows(text, "original"), (bound, text)
        assert bound.follows(text, "corrected"), (bound, text)
        assert bound.describe()
    junk = ("?", "a, b, 7", "__import__('os').system('x')", "{", "x" * 200_000, "a a.\n\nB b! (c) 5 \U0001f600\n" * 40)
    assert not all(bound.follows(one) for one in junk)


def test_the_eight_variants_are_the_papers():
    assert loose_variants("one\n*two*\nthree") == [
        "one\n*two*\nthree", "one\ntwo\nthree",
        "*two*\nthree", "one\n*two*", "*two*",
        "two\nthree", "one\ntwo", "two",
    ]  # fmt: skip
    assert [bool(one) for one in loose_variants("alone")] == [True, True, *[False] * 6]


def test_strict_and_loose_by_prompt_and_by_instruction():
    """`Sure, here:` breaks the comma rule strictly; without its first line the reply keeps it. A title is missing."""
    verifier = InstructionVerifier((NO_COMMA, TITLE, WORDS), reward="instruction_loose")
    got = score(verifier, "Sure, here:\nfour words of text")
    assert got.parts == {
        "correct": 0.0, "prompt_strict": 0.0, "prompt_loose": 0.0,
        "instruction_strict": pytest.approx(1 / 3), "instruction_loose": pytest.approx(2 / 3),
        "constraints": 3.0, "followed_strict": 1.0, "followed_loose": 2.0,
    }  # fmt: skip
    assert got.value == pytest.approx(2 / 3)
    assert verifier.decisions("Sure, here:\nfour words of text") == [(False, True), (False, False), (True, True)]


def test_every_reward_is_the_part_of_its_name():
    for reward, value in (("prompt_strict", 0.0), ("prompt_loose", 1.0), ("instruction_strict", 0.5)):
        verifier = InstructionVerifier((NO_COMMA, WORDS), reward=reward)
        assert score(verifier, "Sure, here:\nthree words only").value == value


def test_the_thinking_is_not_the_reply():
    verifier = InstructionVerifier((NO_COMMA,))
    assert score(verifier, "<think>a, b, c</think>\nall good").parts["correct"] == 1
    assert score(verifier, "<think>good</think>\na, b").parts["correct"] == 0
    quoted = InstructionVerifier((Bound("startend:quotation"),))
    for text, followed in (('"a"', 1), ('<think>b</think><answer>"a"</answer>', 1), ('<answer>"a"</answer> b', 0)):
        assert score(quoted, text).parts["correct"] == followed
    tagged = InstructionVerifier((NO_COMMA,), form=TAGGED)
    assert score(tagged, "<think>a, b</think><answer>good</answer>").parts["correct"] == 1
    assert score(tagged, "good").parts["correct"] == 0


def test_settings_that_are_unknown_are_refused():
    with pytest.raises(ConfigError, match="prompt_strict"):
        InstructionVerifier((NO_COMMA,), reward="prompt_strikt")
    with pytest.raises(ConfigError, match="corrected"):
        InstructionVerifier((NO_COMMA,), errata="correct")


def test_a_missing_langid_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "py3langid", None)
    with pytest.raises(ConfigError, match="pip install 'onepolicy\\[langid\\]'"):
        InstructionVerifier((Bound("change_case:english_capital"),))
    InstructionVerifier((NO_COMMA,))


def test_conflicts_hold_both_ways():
    pairs = [(one, two) for one in CONSTRAINTS for two in CONSTRAINTS if one < two]
    for one, two in pairs:
        assert bool(conflicting([one, two])) == bool(conflicting([two, one])), (one, two)
    assert conflicting(["detectable_format:json_format", "format:emoji"])
    known = set(CONSTRAINTS)
    for constraint in CONSTRAINTS.values():
        for named in constraint.conflicts - {"*"}:
            category, _, name = named.partition(":")
            assert any(one.startswith(category + ":") for one in known) if name == "*" else named in known, named


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200) | st.text("aA.,!*#\n- 1[]()<>\"'{}|:`", max_size=200))
def test_no_text_makes_a_constraint_raise(text):
    rng = np.random.default_rng(0)
    for name in CONSTRAINTS:
        if not name.startswith(("language:", "change_case:english")):
            bound = drawn(name, rng)
            for errata in ERRATA:
                assert bound.follows(text, errata) in (True, False)


@pytest.mark.parametrize(
    "unit", ["*", "[", "(", "<<", "-\n", "a. ", "\"'", "\n\n", "***", "P.S.", "```", "|", "1. ", "#\n"]
)
def test_long_junk_takes_no_time(unit):
    rng = np.random.default_rng(0)
    text = unit * (20_000 // len(unit)) + "x"
    started = time.process_time()
    for name in CONSTRAINTS:
        drawn(name, rng).follows(text, "original")
        drawn(name, rng).follows(text, "corrected")
    assert time.process_time() - started < 1.5


def test_code_in_a_reply_is_not_run(tmp_path):
    mark = tmp_path / "ran"
    code = f"__import__('pathlib').Path({str(mark)!r}).touch()"
    rng = np.random.default_rng(0)
    for name in CONSTRAINTS:
        for text in (code, f"```python\n{code}\n```", "{{" + code + "}}", '{"a": ' + code + "}"):
            drawn(name, rng).follows(text)
    assert not mark.exists()


def test_a_verifier_can_be_sent_to_another_process():
    verifier = InstructionVerifier((NO_COMMA, WORDS))
    again = pickle.loads(pickle.dumps(verifier))  # noqa: S301
    assert again == verifier
    assert score(again, "three words here").value == 1
