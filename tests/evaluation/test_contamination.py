"""Copies of problems in a training file, by hand and against a naive search."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onepolicy.errors import ConfigError, DataError
from onepolicy.evaluation.contamination import contamination, training_rows, words

LONG = "A train leaves the station at nine and travels at sixty miles an hour for three hours how far"


def test_a_copy_is_found_with_its_row_and_words():
    """19 words make 7 13-grams; a copy of the first 15 words holds 3 of them."""
    part = " ".join(LONG.split()[:15])
    found = contamination({"a": LONG, "b": LONG.replace("train", "bus").replace("sixty", "ten")}, [(4, f"Q: {part}!")])
    (one,) = found.flagged
    assert (one.problem, one.row, one.share) == ("a", 4, 3 / 7)
    assert one.words in part.casefold()
    assert found.ids == {"a"}
    assert (found.problems, found.rows, found.too_short) == (2, 1, 0)


def test_twelve_words_are_not_thirteen_but_are_eight():
    part = [(1, " ".join(LONG.split()[:12]))]
    assert contamination({"a": LONG}, part).flagged == ()
    assert contamination({"a": LONG}, part, n=8).ids == {"a"}


def test_case_spacing_and_punctuation_do_not_hide_a_copy():
    hidden = LONG.upper().replace(" ", ",  ") + "?"
    assert contamination({"a": LONG}, [(1, hidden)]).flagged[0].share == 1.0


def test_short_problems_are_looked_for_as_a_whole():
    """7 words are one n-gram; 4 are not looked for; a part of the 7 is no copy."""
    problems = {"seven": "What is the sum of 3 and", "four": "What is 2+2"}
    found = contamination(problems, [(1, "so what is the sum of 3 and 4"), (2, "what is 2+2")])
    assert (found.ids, found.too_short) == ({"seven"}, 1)
    assert contamination(problems, [(1, "what is the sum of 3 or")]).flagged == ()


def test_an_ngram_does_not_cross_rows():
    first, second = LONG.split()[:8], LONG.split()[8:]
    rows = [(1, " ".join(first)), (2, " ".join(second))]
    assert contamination({"a": LONG}, rows).flagged == ()


def test_the_least_share():
    part = [(1, " ".join(LONG.split()[:15]))]
    assert contamination({"a": LONG}, part, share=0.4).ids == {"a"}
    assert contamination({"a": LONG}, part, share=0.5).flagged == ()


@given(
    st.lists(st.lists(st.sampled_from("abc"), min_size=5, max_size=12), min_size=1, max_size=4),
    st.lists(st.lists(st.sampled_from("abc"), max_size=14), min_size=1, max_size=4),
    st.integers(5, 8),
)
def test_it_agrees_with_a_naive_search(problems, rows, n):
    found = contamination(
        {str(i): " ".join(p) for i, p in enumerate(problems)}, [(i, " ".join(r)) for i, r in enumerate(rows)], n=n
    )
    for i, problem in enumerate(problems):
        size = min(n, len(problem))
        grams = {tuple(problem[j : j + size]) for j in range(len(problem) - size + 1)}
        seen = {gram for gram in grams for r in rows if any(tuple(r[j : j + size]) == gram for j in range(len(r)))}
        shares = [one.share for one in found.flagged if one.problem == str(i)]
        assert shares == ([pytest.approx(len(seen) / len(grams))] if seen else [])


def test_the_texts_of_a_training_file(tmp_path):
    """Every text of a JSON row by itself, messages too; other lines as they are; blank ones are none."""
    file = tmp_path / "train.jsonl"
    rows = [{"prompt": "p", "meta": {"n": 3, "tags": ["t", "u"]}}, {"messages": [{"role": "user", "content": "c"}]}]
    file.write_text("\n".join([*map(json.dumps, rows), "", "plain text"]))
    assert list(training_rows(file)) == [(1, "p"), (1, "t"), (1, "u"), (2, "user"), (2, "c"), (4, "plain text")]
    assert contamination({"a": LONG}, training_rows(file)).rows == 3
    file.write_bytes(b"ok\n\xff\n")
    with pytest.raises(DataError, match="line 2: not UTF-8"):
        list(training_rows(file))
    with pytest.raises(DataError, match="is not a file"):
        list(training_rows(tmp_path / "none"))


def test_words_and_bounds():
    assert words("It's $x^2$ — ÉTÉ") == ["it", "s", "x", "2", "été"]
    with pytest.raises(ConfigError, match="fewer than 5"):
        contamination({}, [], n=4)
