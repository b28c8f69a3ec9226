"""The table of cases: gold and answer pairs with the verdict a careful reader gives, both ways of being wrong."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import pytest

from onepolicy.tasks.math import MathVerifier, judge
from onepolicy.types import Message, Task

TABLE = Path(__file__).with_name("cases") / "maths.tsv"


def cases():
    """(section, right, gold, answer) of each line."""
    section = ""
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            section = line[2:]
        elif line:
            right, gold, answer = line.split("\t")
            yield section, right == "1", gold, answer


SECTIONS = defaultdict(list)
for name, *case in cases():
    SECTIONS[name].append(case)


@pytest.mark.parametrize("section", SECTIONS)
def test_every_case_has_its_verdict(section):
    wrong = [
        (gold, answer, judge(gold, answer).reason)
        for right, gold, answer in SECTIONS[section]
        if judge(gold, answer).right is not right
    ]
    assert wrong == []


def test_the_table_has_both_verdicts_in_every_section():
    counts = Counter((section, right) for section, right, _, _ in cases())
    assert sum(counts.values()) >= 500
    assert all(counts[section, verdict] >= 5 for section in SECTIONS for verdict in (True, False))


@pytest.mark.parametrize("section", SECTIONS)
def test_every_gold_answer_is_its_own_and_so_is_every_right_answer(section):
    """Equality is reflexive on whatever can be read: gold against itself, and a right answer against itself."""
    texts = {gold for _, gold, _ in SECTIONS[section]} | {answer for right, _, answer in SECTIONS[section] if right}
    assert [text for text in texts if judge(text, f" {text} ").right is not True] == []


@pytest.mark.parametrize("section", SECTIONS)
def test_the_verifier_says_what_judge_says_in_a_box(section):
    verifier = MathVerifier()
    for right, gold, answer in SECTIONS[section]:
        if answer.count("{") != answer.count("}"):
            continue
        score = verifier(Task("t", (Message("user", "?"),), gold, verifier), f"So $\\boxed{{{answer}}}$.")
        assert (score.parts["correct"], score.parts["format"]) == (float(right), 1.0), (gold, answer)
