"""ARC's two layouts, and what counts as naming the right letter."""

from __future__ import annotations

import json

import pytest

from onepolicy.errors import ConfigError, DataError
from onepolicy.tasks.arc import FORMS, judge, parse
from onepolicy.tasks.base import load_task_set

CHOICES = [("A", "Ice"), ("B", "The Sun"), ("C", "Snow")]
AI2 = {
    "id": "Mercury_1",
    "question": {"stem": "What is hot?", "choices": [{"text": t, "label": x} for x, t in CHOICES]},
    "answerKey": "B",
}
HF = {
    "id": "Mercury_1",
    "question": "What is hot?",
    "choices": {"text": [t for _, t in CHOICES], "label": [x for x, _ in CHOICES]},
    "answerKey": "B",
}


@pytest.fixture
def tasks(tmp_path):
    def make(*rows, **options):
        file = tmp_path / "arc.jsonl"
        file.write_text("\n".join(map(json.dumps, rows)))
        return load_task_set("arc-easy", "test", path=str(file), **options)

    return make


def test_both_layouts_are_the_same_question(tasks):
    ours, theirs = tasks(AI2).tasks[0], tasks(HF).tasks[0]
    assert parse(AI2) == parse(HF) == ("What is hot?", tuple(CHOICES), "B")
    assert ours.messages == theirs.messages
    assert ours.messages[-1].content == "What is hot?\nA. Ice\nB. The Sun\nC. Snow"
    assert (ours.meta["stem"], ours.meta["choices"], ours.answer) == ("What is hot?", tuple(CHOICES), "B")


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("B", True), ("b", True), ("(B)", True), ("B.", True), ("B. The Sun", True), ("the sun", True), ("**B**", True),
        ("A", False), ("B or C", False), ("A B", False), ("BB", False), ("B. Ice", False), ("", False), ("Ice", False),
        ("1", False), ("Sun", False), ("B" * 3000, False),
    ],
)  # fmt: skip
def test_what_names_the_right_choice(answer, right, tasks):
    assert judge(tasks(AI2).tasks[0], answer) is right


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The answer is B.", "B"),
        ("I first thought the answer is A, but the answer is (B)", "B"),
        ("<think>the answer is A</think>Answer: B", "B"),
        ("B) The Sun", "B"),
        ("B", "B"),
        ("**B**", "B"),
        ("<answer>B</answer>", "B"),
        ("Because it is hot", None),
        ("A sun is hot", None),
        ("<think>the answer is B", None),
        ("", None),
    ],
)
def test_the_lenient_format_reads_a_letter(text, letter):
    assert FORMS["letter"].extract(text) == letter


def test_scores_by_both_formats(tasks):
    tagged, lenient = tasks(AI2).tasks[0], tasks(AI2, read="letter").tasks[0]
    assert tagged.verifier(tagged, "<think>hot</think><answer>B</answer>").parts == {"correct": 1.0, "format": 1.0}
    assert tagged.verifier(tagged, "The answer is B.").parts["correct"] == 0.0
    assert lenient.verifier(lenient, "The answer is B.").parts["correct"] == 1.0
    assert lenient.verifier(lenient, "The answer is C.").parts["correct"] == 0.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"answerKey": "D"}, "answerKey 'D' is none of the labels"),
        ({"answerKey": None}, "field 'answerKey'"),
        ({"question": {"stem": "x", "choices": [{"text": "y", "label": "A"}]}}, "at least two"),
        ({"question": {"stem": "x", "choices": [{"text": "y", "label": "A"}] * 2}}, "not different"),
        ({"question": {"stem": "x", "choices": [{"text": "", "label": "A"}, {"text": "z", "label": "B"}]}}, "no text"),
        ({"question": {"choices": []}}, "no field 'stem'"),
        ({"question": "x", "choices": {"text": ["a", "b"], "label": ["A"]}}, "of equal length"),
    ],
)
def test_broken_rows_are_named(change, words, tasks):
    with pytest.raises(DataError, match=words) as error:
        tasks(AI2, {**AI2, **change})
    assert "row 2" in str(error.value)
    assert len(tasks(AI2, {**AI2, **change}, on_error="drop")) == 1


def test_unknown_ways_to_read(tasks):
    with pytest.raises(ConfigError, match="Did you mean 'letter'"):
        tasks(AI2, read="leter")
