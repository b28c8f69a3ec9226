"""JSONL files: a broken row is named by number and reason, and stops or is dropped and listed."""

from __future__ import annotations

import pytest

from onepolicy.errors import ConfigError, DataError
from onepolicy.tasks.rows import read_rows, text_field


def name(number, row):
    return text_field(row, "name")


def write(path, *lines):
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def test_rows_are_converted_in_order_and_blank_lines_skipped(tmp_path):
    path = write(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"name": "one"}', b"", b'{"name": "z\xc3\xbcrich"}', b"  ")
    assert read_rows(path, name).kept == ("one", "zürich")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"name": "x"', "not JSON"),
        (b'{"name": "\xff"}', "not UTF-8 (byte 0xff at position 10)"),
        (b"[1, 2]", "not a JSON object"),
        (b'{"nmae": "x"}', "Did you mean 'nmae'?"),
        (b'{"name": 3}', "must be non-empty text"),
        (b'{"name": " "}', "must be non-empty text"),
        (b'{"name": null}', "must be non-empty text"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_a_broken_row_stops_by_default_or_is_listed(tmp_path, line, reason):
    path = write(tmp_path / "a.jsonl", b'{"name": "one"}', line, b'{"name": "three"}')
    with pytest.raises(DataError) as caught:
        read_rows(path, name)
    assert f"{path}, row 2:" in str(caught.value)
    assert reason in str(caught.value)
    assert "on_error='drop'" in str(caught.value)
    rows = read_rows(path, name, policy="drop")
    assert rows.kept == ("one", "three")
    assert len(rows.dropped) == 1
    assert rows.dropped[0][0] == 2
    assert reason in rows.dropped[0][1]


def test_missing_empty_and_useless_files_are_errors(tmp_path):
    with pytest.raises(DataError, match="is not a file"):
        read_rows(tmp_path / "none.jsonl", name)
    with pytest.raises(DataError, match="no usable row"):
        read_rows(write(tmp_path / "empty.jsonl", b""), name)
    with pytest.raises(DataError, match=r"2 dropped; row 1: not JSON"):
        read_rows(write(tmp_path / "bad.jsonl", b"x", b"y"), name, policy="drop")


def test_an_unknown_policy_offers_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match="'drop'"):
        read_rows(write(tmp_path / "a.jsonl", b'{"name": "x"}'), name, policy="dropp")
