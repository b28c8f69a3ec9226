"""Our own 42 constraints: one text that follows, and those that nearly do, by hand."""

from __future__ import annotations

import pytest

from onepolicy.tasks.instructions import CONSTRAINTS, IFEVAL_IDS, Bound

TABLE = "Look:\n| a | b |\n|---|---|\n| 1 | 2 |"
QUOTE = {"text": "one two three four", "first": 2, "last": 3}

ROWS = [
    ("words:range", {"low": 2, "high": 3}, ["a b", "it's well-known now"], ["a", "a b c d", "?"]),
    ("words:unique_at_least", {"count": 3}, ["a b c", "a a b C"], ["a b B", "a A a"]),
    ("words:no_repeat", {}, ["a b c", "Go."], ["a b A", "the cat. The dog"]),
    ("words:palindromes", {"count": 2}, ["level Radar", "noon, kayak: go"], ["level level", "a I level", "121 level"]),
    ("words:alternating_case", {}, ["HELLO dear WORLD", "I am"], ["hello DEAR", "HELLO Dear", "HELLO", "HELLO WORLD"]),
    ("words:at_most_letters", {"letters": 4}, ["four here", "it's"], ["house", "a-bcde"]),
    ("words:at_least_letters", {"letters": 3}, ["the cat", "Yes!"], ["a cat", "the 5 cats"]),
    ("words:first", {"word": "Hello"}, ["hello, you", "**Hello** you", "HELLO"], ["Say hello", "Hello-ing"]),
    ("words:last", {"word": "end"}, ["So we END.", "end"], ["The end is near", "weekend"]),
    ("words:position", {"position": 2, "word": "two"}, ["one two three", "One: Two."], ["two one", "one", "one-two"]),
    ("words:alliteration", {"letter": "b"}, ["Big bears bite", "be-here be"], ["Big cats", "b"]),
    ("words:neighbors_differ", {}, ["one two", "a b a"], ["big bear", "one Only", "one"]),
    ("letters:exactly", {"letter": "a", "count": 2}, ["Aha", "banan"], ["banana", "b", "aaa"]),
    ("letters:exactly", {"letter": "a", "count": 0}, ["bcd"], ["abc"]),
    ("letters:none", {"letter": "e"}, ["A cat sat.", "1"], ["The", "E"]),
    ("letters:one_vowel", {"vowel": "o"}, ["Good dogs. Oh!", "dry gyms of"], ["God is", "rhythm", "É so a"]),
    ("sentences:exactly", {"count": 2}, ["One. Two.", "Dr. No came. Why?"], ["One.", "One. Two. Three."]),
    ("sentences:words_each", {"low": 2, "high": 3}, ["Go now. Run to me.", "Go now"], ["Go. Run now.", "a b c d", "?"]),
    ("sentences:different_starts", {}, ["He came. She went.", "Go"], ["He came. he went.", "?"]),
    ("sentences:growing", {}, ["Go. Go now. Go to me."], ["Go now. Go.", "Go. Go.", "Go."]),
    ("sentences:questions", {"count": 2}, ["Why? How?", 'Why? "How?" Yes.'], ["Why? Yes.", "Why??", "Why"]),
    (
        "order:keywords",
        {"words": ["sun", "moon"]},
        ["The Sun and the moon", "moon sun moon"],
        ["moon, sun", "sunny moon"],
    ),
    (
        "order:keyword_in_sentence",
        {"word": "cat", "sentence": 2},
        ["Go. A cat.", "Go. Cat! Go."],
        ["A cat. Go.", "cat", "a. catty"],
    ),
    (
        "lines:numbered",
        {"count": 2},
        ["1. a\n2. b", "Steps:\n1) a\n\n2) b\nDone"],
        ["1. a\n3. b", "1. a\n2. b\n3. c", "1.\n2.", "2. a\n1. b"],
    ),
    ("lines:exactly", {"count": 2}, ["a\nb", "a\n\n b\n"], ["a", "a\nb\nc"]),
    ("lines:stairs", {"lines": 3}, ["a\n b\n  c", " a\n  b\n   c\n    d"], ["a\n b", "a\nb\nc", "a\n b\n b"]),
    (
        "format:csv",
        {"rows": 2, "columns": 2},
        ["a,b\nc,d", '"a,x",b\nc,d\n'],
        ["a,b", "a,b\nc", "a,\nc,d", "a b\nc d", '"a,b\nc,d'],
    ),
    (
        "format:table",
        {"rows": 1, "columns": 2},
        [TABLE, "|a|b|\n|:--:|---:|\n|x\\|y|z|".replace(":--:", ":---:")],
        [TABLE + "\n| 3 | 4 |", "| a | b |\n| 1 | 2 |", "|a|\n|---|\n|1|", "a | b"],
    ),
    ("format:emoji", {"count": 2}, ["a \U0001f600\U0001f680", "\u2600\u2b50"], ["\U0001f600", ":) :)", "→ ©"]),
    ("format:emoji_ends", {}, ["a \U0001f600\nb \u2764\ufe0f"], ["a \U0001f600\nb", "\U0001f600 a", "a"]),
    (
        "format:headings",
        {"count": 2},
        ["# A\ntext\n## B", "###### A\n# B"],
        ["# A", "#A\n# B", "# A\n# B\n# C", " a # b"],
    ),
    (
        "format:code_blocks",
        {"count": 1, "language": "python"},
        ["a\n```python\nx\n```", "```Python\n```"],
        ["```\nx\n```", "```python\nx", "```json\nx\n```", "``python``"],
    ),
    ("format:nested_brackets", {"depth": 2}, ["(a (b)) c", "()(())"], ["(a)", "((a)", "(((a)))", ")(()"]),
    (
        "copy:phrase",
        {"phrase": "so be it", "count": 2},
        ["so be it, so be it"],
        ["So be it, so be it", "so be it", "so be it " * 3],
    ),
    ("copy:first_last", {}, ["Go now. Why not? Go now."], ["Go now. Go now.", "Go now. Why? Go.", "Go."]),
    ("copy:span", QUOTE, ["It is two three.", "two\nthree"], ["two four three", "Two three", "twothree"]),
    ("punctuation:only_stops", {}, ["It's well-known. Yes."], ["No, never.", "Why?", "none", "a (b)."]),
    ("punctuation:exclamations", {"count": 2}, ["Hey! Ho!", "!!"], ["Hey!", "!!!", "none"]),
    ("punctuation:variety", {}, ["A, b. C! D? E; f: g"], ["A, b. C! D? E; f", "none"]),
    (
        "numbers:exactly",
        {"count": 2},
        ["1,000 and 2.5", "In 1999 we were 7."],
        ["1", "1 2 3", "one two", "a1 b2", "3D 4"],
    ),
    ("numbers:none", {}, ["none at all"], ["1", "a1", "\u0663"]),
    ("paragraphs:exactly", {"count": 2}, ["a\n\nb", "a\nb\n\n\nc\n"], ["a\nb", "a\n\nb\n\nc"]),
    (
        "paragraphs:same_start",
        {"count": 2, "word": "So"},
        ["So a.\n\n**so** b", "So\n\nSo\n\nSo"],
        ["So a.", "So a.\n\nb", "So\n\nSome"],
    ),
]


@pytest.mark.parametrize(("name", "args", "followed", "broken"), ROWS)
def test_by_hand(name, args, followed, broken):
    bound = Bound(name, args)
    assert [text for text in followed if not bound.follows(text)] == []
    assert [text for text in broken if bound.follows(text)] == []


def test_the_table_has_every_constraint_of_our_own():
    assert {row[0] for row in ROWS} == set(CONSTRAINTS) - set(IFEVAL_IDS)
