"""IFEval's decisions on texts made of what decides them, against the published patterns, written here a second time."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.tasks.instructions import bind

PIECES = ["a", "Bb", "CC", " ", "  ", "\n", "\n\n", "*", "**", "***", "******", "-", "- x", "* x", "[", "]", "[a b]"]
PIECES += [
    "<<",
    ">>",
    "<<t>>",
    '"',
    "'",
    ".",
    ",",
    "?",
    "P.S.",
    "p. s.",
    "P.P.S",
    "Section 1",
    "Section2",
    "1",
    "{",
    "}",
]
PIECES += ["```json", "```", '{"a": 1}', "My answer is yes.", "My answer is no.", "word", "Word,", "'word'", "\t", "é"]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)


def spans(pattern, text):
    """Stretches of a line between two marks that hold something besides the mark."""
    return sum(bool(found.strip("*").strip()) for found in re.findall(pattern, text))


def divided(text, count):
    """Paragraphs between `***` and a blank on either side; only the first and the last may be empty."""
    parts = re.split(r"\s?\*\*\*\s?", text)
    left = len(parts)
    for place, part in enumerate(parts):
        if not part.strip():
            if place not in (0, len(parts) - 1):
                return False
            left -= 1
    return left == count


def nth(text, count, place, word):
    """Paragraphs are between two line feeds; the empty ones are not counted, but count for which is the nth."""
    parts = text.split("\n\n")
    filled = sum(bool(part.strip()) for part in parts)
    if place > filled or not parts[place - 1].strip():
        return False
    first = parts[place - 1].split()[0].lstrip("'").lstrip('"')
    said = ""
    for letter in first:
        if letter in ".,?!'\"":
            break
        said += letter.lower()
    return filled == count and said == word


def two(text):
    """Two different texts around six asterisks; nothing empty between others."""
    parts = text.split("******")
    kept = [part for part in parts if part.strip()]
    inner = all(part.strip() for part in parts[1:-1])
    return inner and len(kept) == 2 and kept[0].strip() != kept[1].strip()


def is_json(text):
    text = text.strip()
    for head in ("```json", "```Json", "```JSON", "```"):
        text = text.removeprefix(head)
    try:
        json.loads(text.removesuffix("```").strip())
    except ValueError:
        return False
    return True


PUBLISHED = {
    "detectable_content:number_placeholders": [
        ({"num_placeholders": n}, lambda text, n=n: len(re.findall(r"\[.*?\]", text)) >= n) for n in (1, 2)
    ],
    "detectable_format:number_bullet_lists": [
        (
            {"num_bullets": n},
            lambda text, n=n: (
                len(re.findall(r"^\s*\*[^\*].*$", text, re.MULTILINE))
                + len(re.findall(r"^\s*-.*$", text, re.MULTILINE))
                == n
            ),
        )
        for n in (1, 2)
    ],
    "detectable_format:number_highlighted_sections": [
        (
            {"num_highlights": n},
            lambda text, n=n: spans(r"\*[^\n\*]*\*", text) + spans(r"\*\*[^\n\*]*\*\*", text) >= n,
        )
        for n in (1, 2)
    ],
    "detectable_format:multiple_sections": [
        (
            {"section_spliter": "Section", "num_sections": n},
            lambda text, n=n: len(re.split(r"\s?Section\s?\d+\s?", text)) - 1 >= n,
        )
        for n in (1, 2)
    ],
    "detectable_format:title": [
        ({}, lambda text: any(t.lstrip("<").rstrip(">").strip() for t in re.findall(r"<<[^\n]+>>", text)))
    ],
    "detectable_format:json_format": [({}, is_json)],
    "detectable_format:constrained_response": [
        ({}, lambda text: any(f"My answer is {word}." in text.strip() for word in ("yes", "no", "maybe")))
    ],
    "detectable_content:postscript": [
        ({"postscript_marker": "P.S."}, lambda t: bool(re.findall(r"\s*p\.\s?s\..*$", t.lower(), re.MULTILINE))),
        ({"postscript_marker": "P.P.S"}, lambda t: bool(re.findall(r"\s*p\.\s?p\.\s?s.*$", t.lower(), re.MULTILINE))),
    ],
    "length_constraints:number_paragraphs": [({"num_paragraphs": n}, lambda t, n=n: divided(t, n)) for n in (1, 2, 3)],
    "length_constraints:nth_paragraph_first_word": [
        ({"num_paragraphs": n, "nth_paragraph": p, "first_word": "word"}, lambda t, n=n, p=p: nth(t, n, p, "word"))
        for n, p in ((1, 1), (2, 1), (2, 2))
    ],
    "length_constraints:number_words": [
        ({"num_words": 3, "relation": "at least"}, lambda t: len(re.findall(r"\w+", t)) >= 3),
        ({"num_words": 3, "relation": "less than"}, lambda t: len(re.findall(r"\w+", t)) < 3),
    ],
    "combination:two_responses": [({}, two)],
    "combination:repeat_prompt": [
        ({"prompt_to_repeat": " Bb word"}, lambda text: text.strip().lower().startswith("bb word"))
    ],
    "startend:end_checker": [
        ({"end_phrase": "Word,"}, lambda text: text.strip().strip('"').lower().endswith("word,")),
    ],
    "startend:quotation": [
        ({}, lambda t: len(t.strip()) > 1 and t.strip()[0] == '"' and t.strip()[-1] == '"'),
    ],
    "punctuation:no_comma": [({}, lambda text: not re.search(r"\,", text))],
    "keywords:existence": [
        ({"keywords": ["word", "bb"]}, lambda text: all(re.search(w, text, re.IGNORECASE) for w in ("word", "bb")))
    ],
    "keywords:frequency": [
        (
            {"keyword": "word", "frequency": 2, "relation": relation},
            lambda text, least=least: (len(re.findall("word", text, re.IGNORECASE)) >= 2) is least,
        )
        for relation, least in (("at least", True), ("less than", False))
    ],
    "keywords:forbidden_words": [
        ({"forbidden_words": ["word"]}, lambda text: not re.search(r"\bword\b", text, re.IGNORECASE))
    ],
    "keywords:letter_frequency": [
        (
            {"letter": "b", "let_frequency": 2, "let_relation": relation},
            lambda text, least=least: (text.lower().count("b") >= 2) is least,
        )
        for relation, least in (("at least", True), ("less than", False))
    ],
}
"""By constraint: arguments, and the published decision as a function of the text."""


@pytest.mark.parametrize("name", PUBLISHED)
@settings(max_examples=150, deadline=None, derandomize=True)
@given(text=TEXTS)
def test_decisions_are_the_published_ones(name, text):
    """A blank reply follows nothing, whatever the pattern says; the loose decision is the best of the eight texts."""
    for args, published in PUBLISHED[name]:
        (bound,) = bind([name], [args])
        assert bound.follows(text, "original") is (bool(text.strip()) and bool(published(text)))
        lines = text.split("\n")
        cut = ["\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1])]
        texts = [one.replace("*", sign) for one in (text, *cut) for sign in ("*", "")]
        loose = any(one.strip() and published(one) for one in texts)
        assert bound.follows_loosely(text, "original") is bool(loose)
