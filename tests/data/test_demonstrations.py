"""JSONL files with every fault named, and demonstrations as tokens with a who-wrote-it mask."""

from __future__ import annotations

import hashlib
import json
import logging

import pytest

from onepolicy.data.demonstrations import (
    DemonstrationStream,
    conversation,
    example,
    fingerprint,
    load_examples,
    read_jsonl,
)
from onepolicy.data.tokenizer import char_tokenizer
from onepolicy.errors import DataError

TOKENIZER = char_tokenizer("0123456789+=? ")
GOOD = {"prompt": "1+1=?", "completion": "2"}


def write(path, *lines):
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def number(row):
    """The row's n; KeyError or DataError otherwise."""
    if row["n"] < 0:
        raise DataError(f"n is '{row['n']}'; it must not be negative")
    return row["n"]


def test_rows_lines_and_fingerprint(tmp_path):
    path = write(tmp_path / "a.jsonl", {"n": 1}, "", {"n": 2}, "  ")
    rows = read_jsonl(path, number)
    assert (rows.rows, rows.lines, rows.dropped) == ((1, 2), (1, 3), {})
    assert rows.sha256 == fingerprint(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_windows_line_ends_and_a_byte_order_mark_are_read(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"n": 1}\r\n{"n": 2}\r\n')
    assert read_jsonl(path, number).rows == (1, 2)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"n": 1', "not valid JSON"),
        ("[1]", "a JSON list, not an object"),
        ("3", "a JSON int, not an object"),
        ('{"m": 1}', "field 'n' is missing"),
        ('{"n": -1}', "it must not be negative"),
    ],
)
def test_a_broken_row_stops_with_its_number_and_reason(tmp_path, line, reason):
    path = write(tmp_path / "a.jsonl", {"n": 1}, "", line, {"n": 2})
    with pytest.raises(DataError, match=rf"line 3: .*{reason}"):
        read_jsonl(path, number)


def test_broken_rows_are_dropped_counted_by_reason_and_logged(tmp_path, caplog):
    path = write(tmp_path / "a.jsonl", {"n": 1}, "{", {"n": -1}, {"n": -2}, {"m": 0}, {"n": 5})
    with caplog.at_level(logging.WARNING):
        rows = read_jsonl(path, number, policy="drop")
    assert rows.rows == (1, 5)
    assert rows.lines == (1, 6)
    assert rows.dropped == {"not valid JSON …": 1, "n is …": 2, "field … is missing": 1}
    assert "dropped 4 of 6 rows" in caplog.text


def test_a_file_that_is_missing_empty_or_not_text_is_named(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_jsonl(tmp_path / "nothing.jsonl", number)
    with pytest.raises(DataError, match="is a directory"):
        read_jsonl(tmp_path, number)
    with pytest.raises(DataError, match="is empty"):
        read_jsonl(write(tmp_path / "e.jsonl", "", " "), number)
    (tmp_path / "latin.jsonl").write_bytes('{"n": 1}\n{"x": "é"}'.encode("latin-1"))
    with pytest.raises(DataError, match=r"line 2: byte 0xe9 is not UTF-8.*iconv"):
        read_jsonl(tmp_path / "latin.jsonl", number)
    with pytest.raises(DataError, match=r"no usable row \(2 x not valid JSON"):
        read_jsonl(write(tmp_path / "b.jsonl", "{", "}"), number, policy="drop")


def test_both_forms_of_a_row_mean_the_same_conversation():
    turns = [{"role": "user", "content": "1+1=?"}, {"role": "assistant", "content": "2"}]
    assert conversation(GOOD) == turns
    assert conversation({"messages": turns}) == turns
    assert conversation({"prompt": turns[:1], "completion": turns[1:]}) == turns


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": "hello"}, "neither 'messages' nor 'prompt' and 'completion'"),
        ({"prompt": "a"}, "neither"),
        ({"prompt": 3, "completion": "a"}, "the prompt is neither a text nor a list"),
        ({"prompt": "a", "completion": None}, "the completion is neither a text nor a list"),
        ({"messages": []}, "at least one message"),
        ({"messages": "hi"}, "at least one message"),
        ({"messages": ["hi"]}, "without a role"),
        ({"messages": [{"role": "user"}]}, "content of a user message is not a text"),
        ({"messages": [{"role": "user", "content": "a"}]}, "the assistant wrote nothing"),
        ({"prompt": "a", "completion": ""}, "the assistant wrote nothing"),
    ],
)
def test_a_row_that_is_no_demonstration_says_why(row, reason):
    with pytest.raises(DataError, match=reason):
        conversation(row)


def test_an_example_by_hand():
    """<|user|> 1 + 1 = ? <|assistant|> 2 <eos>: the last two are the assistant's."""
    tokens, mask = example(TOKENIZER, conversation(GOOD), context=9)
    assert TOKENIZER.decode(tokens) == "<|user|>1+1=?<|assistant|>2<eos>"
    assert mask == [False] * 7 + [True] * 2
    with pytest.raises(DataError, match=r"longer \(9 tokens\) than the context of 8"):
        example(TOKENIZER, conversation(GOOD), context=8)


def test_a_file_of_demonstrations_names_the_row_it_cannot_use(tmp_path):
    long = {"prompt": "1" * 50, "completion": "2"}
    unknown = {"prompt": "1", "completion": "zwei"}
    path = write(tmp_path / "d.jsonl", GOOD, long, unknown, GOOD)
    with pytest.raises(DataError, match="line 2: longer"):
        load_examples(path, TOKENIZER, context=20)
    with pytest.raises(DataError, match="line 3: the tokenizer does not know 'e', 'i', 'w', 'z'"):
        load_examples(path, TOKENIZER, context=99)
    kept = load_examples(path, TOKENIZER, context=20, policy="drop")
    assert kept == [example(TOKENIZER, conversation(GOOD), 20)] * 2


def test_a_resumed_stream_of_demonstrations_goes_on_exactly():
    examples = [([i], [True]) for i in range(7)]
    whole, stopped = (DemonstrationStream(examples, batch_size=3, seed=1) for _ in range(2))
    batches = [whole.next() for _ in range(6)]
    for _ in range(4):
        stopped.next()
    fresh = DemonstrationStream(examples, batch_size=3, seed=1)
    fresh.load_state_dict(stopped.state_dict())
    assert [fresh.next(), fresh.next()] == batches[4:]
    first_epoch = [tokens[0] for batch in batches for tokens, _ in batch][:7]
    assert sorted(first_epoch) == list(range(7))
