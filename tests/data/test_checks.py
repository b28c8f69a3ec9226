"""What a check finds in files made to be wrong, by row number."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.data.checks import Lengths, check_file, fault_of, form_of, near_duplicates
from onepolicy.errors import DataError


@pytest.fixture
def file(tmp_path):
    """file(*lines): a file of these lines, objects as JSON, bytes as they are."""

    def write(*lines):
        path = tmp_path / "rows.jsonl"
        path.write_bytes(b"\n".join(x if isinstance(x, bytes) else json.dumps(x).encode() for x in lines))
        return path

    return write


TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
GOOD = {
    "messages": {"messages": TALK},
    "demonstration": {"prompt": "1+1=", "completion": "2"},
    "preference": {"prompt": "1+1=", "chosen": "2", "rejected": "3"},
    "judgement": {"prompt": "1+1=", "completion": "2", "label": True},
    "problem": {"question": "1+1=", "answer": "2"},
}


@pytest.mark.parametrize("form", GOOD)
def test_every_form_is_known_and_passes(form, file):
    assert form_of(GOOD[form]) == form
    assert fault_of(GOOD[form], form) is None
    found = check_file(file(GOOD[form]))
    assert (found.rows, found.faults, dict(found.forms)) == (1, (), {form: 1})


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"text": "x"}, "fit no form"),
        ({"messages": []}, "at least one message"),
        ({"messages": [{"role": "user", "content": "x"}]}, "assistant wrote nothing"),
        ({"messages": [{"content": "x"}]}, "without a role"),
        ({"prompt": "x", "completion": ""}, "assistant wrote nothing"),
        ({"prompt": "x", "completion": 3}, "neither a text nor a list"),
        ({"prompt": "", "completion": "y"}, "prompt is empty"),
        ({"prompt": "x", "chosen": "y", "rejected": "y"}, "equal"),
        ({"prompt": "x", "chosen": "y", "rejected": ""}, "empty"),
        ({"prompt": "x", "completion": "y", "label": "good"}, "expected true or false"),
        ({"problem": "x", "answer": None}, "neither text nor a number"),
        ({"problem": " ", "answer": "1"}, "prompt is empty"),
        ({"problem": "Caf\ufffd", "answer": "1"}, "wrong decoding"),
        ({"problem": "a\x00b", "answer": "1"}, "wrong decoding"),
        (b"{", "not JSON"),
        (b"[1]", "a JSON list, not an object"),
        (b'{"problem": "caf\xe9", "answer": "1"}', "not UTF-8 (byte 0xe9 at position 16)"),
    ],
)
def test_faults_have_their_row_number(row, words, file):
    """Row 3: behind a good row and a blank line."""
    found = check_file(file(GOOD["problem"], b"", row))
    ((number, reason),) = [fault for fault in found.faults if fault[0] == 3]
    assert words in reason
    assert found.rows == 2


def test_an_answer_may_be_a_number(file):
    assert check_file(file({"problem": "x?", "answer": 27.0})).faults == ()


def test_mixed_forms_are_a_fault_of_the_fewer(file):
    found = check_file(file(GOOD["problem"], {"question": "2+2=", "answer": "4"}, GOOD["demonstration"]))
    assert found.faults == ((3, "form is 'demonstration', most rows are 'problem'"),)
    assert found.rows == 3


def test_duplicates_and_conflicts(file):
    """Rows 1 and 3 are equal but for case and blanks; 2 and 4 ask the same and answer differently."""
    rows = [("What is one?", "1"), ("What is two?", "2"), ("what  IS one? ", "1"), ("What is two?", "3")]
    found = check_file(file(*({"question": q, "answer": a} for q, a in rows)))
    assert found.duplicates == ((1, 3),)
    assert found.conflicts == ((2, 4),)


def test_near_duplicates_have_their_similarity(file):
    """24 words, one changed in the middle: 20 shingles, 5 of them differ: Jaccard 15 / 25 = 0.6; at the end 19 / 21."""
    words = [f"w{i}" for i in range(24)]
    middle, end = [*words], [*words]
    middle[12], end[23] = "x", "y"
    rows = [" ".join(one) for one in (words, middle, end)]
    texts = dict(enumerate(rows, start=1))
    assert near_duplicates(texts, 0.8) == ((1, 3, pytest.approx(19 / 21)),)
    found = {(a, b): s for a, b, s in near_duplicates(texts, 0.55)}
    assert found[1, 2] == pytest.approx(0.6)
    checked = check_file(file(*({"question": row, "answer": "1"} for row in rows)))
    assert [(a, b) for a, b, _ in checked.near] == [(1, 3)]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcd"), min_size=6, max_size=14), min_size=2, max_size=12))
def test_near_duplicates_agree_with_all_pairs(rows):
    """Every pair that a comparison of all pairs finds at 0.8 is found, and no other."""
    texts = {i: " ".join(row) for i, row in enumerate(rows)}
    sets = {i: {tuple(row[j : j + 5]) for j in range(len(row) - 4)} for i, row in enumerate(rows)}
    naive = {(i, j): len(sets[i] & sets[j]) / len(sets[i] | sets[j]) for i in sets for j in sets if i < j and sets[i]}
    expected = {pair: s for pair, s in naive.items() if s >= 0.8}
    assert {(a, b): s for a, b, s in near_duplicates(texts, 0.8)} == pytest.approx(expected)


def test_lengths(file):
    found = check_file(file(*({"question": "x" * n, "answer": "1"} for n in range(1, 101))))
    one = found.lengths["prompt"]
    assert (one.n, one.least, one.median, one.most, one.mean) == (100, 1, 50.5, 100, 50.5)
    assert one.p95 == pytest.approx(np.quantile(range(1, 101), 0.95))
    counted = check_file(file(GOOD["problem"]), count_tokens=lambda text: 7)
    assert counted.lengths["answer"] == Lengths(1, 7, 7.0, 7.0, 7, 7.0)


def test_no_file_and_an_empty_one(file, tmp_path):
    with pytest.raises(DataError, match="is not a file"):
        check_file(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="is empty"):
        check_file(file())
