"""Sentences, words and words in capitals as nltk counts them: its own answers on texts of ours, and identities."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.tasks.instructions_text import (
    capital_words,
    contains_word,
    count_phrase,
    count_words,
    paragraphs,
    plain_words,
    sentences,
)

SENTENCES = [
    ("One. Two. Three.", ["One.", "Two.", "Three."]),
    ("Dr. Smith met Mrs. Jones. They talked.", ["Dr. Smith met Mrs. Jones.", "They talked."]),
    ("He came at 5 p.m. on Monday. It rained.", ["He came at 5 p.m. on Monday.", "It rained."]),
    ("He came at 5 p.m. It rained.", ["He came at 5 p.m.", "It rained."]),
    ("It costs $3.50. Really! Why? Because.", ["It costs $3.50.", "Really!", "Why?", "Because."]),
    ('She said "Go away!" and left. Then "Stop." Bye.', ['She said "Go away!"', "and left.", 'Then "Stop."', "Bye."]),
    ("Wait... what? No.", ["Wait... what?", "No."]),
    ("He waited... Then he left.", ["He waited... Then he left."]),
    ("J. K. Rowling wrote it. J. R. Tolkien did not.", ["J. K. Rowling wrote it.", "J. R. Tolkien did not."]),
    ("The U.S. Army is big. The U.S. is too.", ["The U.S. Army is big.", "The U.S. is too."]),
    ("1. First item\n2. Second item\n3. Third", ["1.", "First item\n2.", "Second item\n3.", "Third"]),
    ("e.g. this and i.e. that, etc. and so on.", ["e.g.", "this and i.e.", "that, etc.", "and so on."]),
    ("No stop at all", ["No stop at all"]),
    ("(In brackets.) Then more.", ["(In brackets.)", "Then more."]),
    ("Visit example.com today. OK?", ["Visit example.com today.", "OK?"]),
    ("Amazing!!! Truly?! Yes.", ["Amazing!!!", "Truly?!", "Yes."]),
    ("Line one\nLine two.\n\nNew paragraph. End", ["Line one\nLine two.", "New paragraph.", "End"]),
    ("“Quoted.” Then he said: ‘Yes.’ Done.", ["“Quoted.”", "Then he said: ‘Yes.’", "Done."]),
    ("The end.* Next.", ["The end.", "* Next."]),
    ("Smith, Inc. However, it fell. Jan. 5 was cold.", ["Smith, Inc.", "However, it fell.", "Jan. 5 was cold."]),
    ("   \n", []),
    ("", []),
    ("...", ["..."]),
]

CAPITALS = [
    ("I AM here.", 2),
    ("NASA and JPL. The U.S. too.", 3),
    ("WELL-KNOWN facts: IT'S true, DON'T ask.", 5),
    ("CANNOT or GONNA or GIMME", 6),
    ("A/B testing of COVID-19 in 3D", 3),
    ("WOW!!! REALLY?YES", 3),
    ('"QUOTED" (BRACKETED) [AND] {SO} <ON>', 5),
    ("X,Y and 3,4 and P:Q 5:6", 4),
    ("THE END...", 2),
    ("well—KNOWN and en–DASH -- OK", 3),
    ("I'll, I'm, I've, WE'LL, THEY'RE", 7),
    ("ÜBER ÄRGER über", 2),
    ("EMAIL@HOST #TAG 50% $5 A&B", 5),
    ("no capitals Here", 0),
]


@pytest.mark.parametrize(("text", "expected"), SENTENCES)
def test_sentences_as_punkt_splits_them(text, expected):
    assert sentences(text) == expected


@pytest.mark.parametrize(("text", "expected"), CAPITALS)
def test_capital_words_as_the_treebank_tokenizer_cuts_them(text, expected):
    assert capital_words(text) == expected


def test_words():
    assert [count_words(text) for text in ("", "a", "it's", "state-of-the-art", "3.5 km", "snake_case über")] == [
        0,
        1,
        2,
        4,
        3,
        2,
    ]
    assert plain_words("It's state-of-the-art: 3.5 KM!") == ["it's", "state-of-the-art", "3", "5", "km"]
    assert count_phrase("The cat, THE CAT and the catalogue.", "the cat") == 2
    assert contains_word("C++ is", "c++")
    assert not contains_word("concatenate", "cat")
    assert paragraphs("a\nb\n\n\n\nc\n \t\nd") == ["a\nb", "c", "d"]


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=80) | st.text("aA .?!\"')\n-*1U.S", max_size=80))
def test_sentences_are_the_text_in_order(text):
    """Put together again, without blanks, the sentences are the text."""
    assert "".join("".join(sentences(text)).split()) == "".join(text.split())
    assert capital_words(text) >= 0


@pytest.mark.parametrize("unit", [". ", "a. ", "A.", "!", "! ", "...", ".. ", "\"' ", ". . ", "-", "a.b ", "\n"])
def test_long_junk_takes_no_time(unit):
    text = unit * (30_000 // len(unit)) + "x"
    started = time.process_time()
    sentences(text)
    capital_words(text)
    assert time.process_time() - started < 1.0
