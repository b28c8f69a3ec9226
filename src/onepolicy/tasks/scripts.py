"""Scripts of the world by Unicode block, and text with everything taken out that is in no language.

What a language looks like, not what it means: `tasks.language` decides between languages of one script.
Source of the blocks: The Unicode Standard, Blocks.txt.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from functools import lru_cache

_BLOCKS: tuple[tuple[int, int, str], ...] = (
    (0x0041, 0x024F, "Latin"),
    (0x0250, 0x02AF, "Latin"),
    (0x0370, 0x03FF, "Greek"),
    (0x0400, 0x052F, "Cyrillic"),
    (0x0530, 0x058F, "Armenian"),
    (0x0590, 0x05FF, "Hebrew"),
    (0x0600, 0x06FF, "Arabic"),
    (0x0750, 0x077F, "Arabic"),
    (0x08A0, 0x08FF, "Arabic"),
    (0x0900, 0x097F, "Devanagari"),
    (0x0980, 0x09FF, "Bengali"),
    (0x0A00, 0x0A7F, "Gurmukhi"),
    (0x0A80, 0x0AFF, "Gujarati"),
    (0x0B00, 0x0B7F, "Oriya"),
    (0x0B80, 0x0BFF, "Tamil"),
    (0x0C00, 0x0C7F, "Telugu"),
    (0x0C80, 0x0CFF, "Kannada"),
    (0x0D00, 0x0D7F, "Malayalam"),
    (0x0D80, 0x0DFF, "Sinhala"),
    (0x0E00, 0x0E7F, "Thai"),
    (0x0E80, 0x0EFF, "Lao"),
    (0x0F00, 0x0FFF, "Tibetan"),
    (0x1000, 0x109F, "Myanmar"),
    (0x10A0, 0x10FF, "Georgian"),
    (0x1100, 0x11FF, "Hangul"),
    (0x1200, 0x139F, "Ethiopic"),
    (0x1780, 0x17FF, "Khmer"),
    (0x1800, 0x18AF, "Mongolian"),
    (0x1C80, 0x1C8F, "Cyrillic"),
    (0x1C90, 0x1CBF, "Georgian"),
    (0x1E00, 0x1EFF, "Latin"),
    (0x1F00, 0x1FFF, "Greek"),
    (0x2C60, 0x2C7F, "Latin"),
    (0x2DE0, 0x2DFF, "Cyrillic"),
    (0x2E80, 0x2FDF, "Han"),
    (0x3005, 0x3007, "Han"),
    (0x3040, 0x309F, "Hiragana"),
    (0x30A0, 0x30FF, "Katakana"),
    (0x3100, 0x312F, "Bopomofo"),
    (0x3130, 0x318F, "Hangul"),
    (0x31F0, 0x31FF, "Katakana"),
    (0x3400, 0x4DBF, "Han"),
    (0x4E00, 0x9FFF, "Han"),
    (0xA640, 0xA69F, "Cyrillic"),
    (0xA720, 0xA7FF, "Latin"),
    (0xA960, 0xA97F, "Hangul"),
    (0xAC00, 0xD7FF, "Hangul"),
    (0xF900, 0xFAFF, "Han"),
    (0xFB1D, 0xFB4F, "Hebrew"),
    (0xFB50, 0xFDFF, "Arabic"),
    (0xFE70, 0xFEFE, "Arabic"),
    (0xFF21, 0xFF5A, "Latin"),
    (0xFF66, 0xFF9F, "Katakana"),
    (0x20000, 0x3134F, "Han"),
)
_STARTS = [start for start, _, _ in _BLOCKS]

KANA = frozenset({"Hiragana", "Katakana"})

UNSPACED = frozenset({"Han", "Hiragana", "Katakana", "Bopomofo", "Thai", "Lao", "Khmer", "Myanmar", "Tibetan"})
"""Scripts that put no blank between words: each of their characters counts as a word."""

MAX_TEXT = 100_000
"""Characters of a text that are judged; what follows is not looked at."""


@lru_cache(maxsize=16_384)
def script_of(character: str) -> str:
    """The script of a letter or of a sign that belongs to one, "Other" for letters of no listed block, "" for the rest.

    >>> [script_of(character) for character in "aß你ひ한я1 ."]
    ['Latin', 'Latin', 'Han', 'Hiragana', 'Hangul', 'Cyrillic', '', '', '']
    """
    if unicodedata.category(character)[0] not in "LM":
        return ""
    code = ord(character)
    start, end, name = _BLOCKS[max(0, bisect_right(_STARTS, code) - 1)]
    if start <= code <= end:
        return name
    return "Other" if unicodedata.category(character)[0] == "L" else ""


def words_by_script(text: str) -> list[tuple[str, int]]:
    """(script, letters) of each word: a run of letters of one script, or one character of an unspaced script.

    Combining signs belong to the word they stand in and are no letters of their own; an apostrophe or hyphen inside
    a word does not end it.

    >>> words_by_script("don't 你好 привет")
    [('Latin', 4), ('Han', 1), ('Han', 1), ('Cyrillic', 6)]
    """
    words: list[tuple[str, int]] = []
    script, letters = "", 0
    for character in text:
        if character in "'’-\u200c\u200d" and script:
            continue
        one = script_of(character)
        sign = unicodedata.category(character)[0] == "M"
        if script and one != script and not (sign and letters):
            words.append((script, letters))
            script, letters = "", 0
        if one in UNSPACED:
            if not sign:
                words.append((one, 1))
        elif one and not sign:
            script, letters = one, letters + 1
    if letters:
        words.append((script, letters))
    return words


_PAIRS = (("```", "```", True), ("~~~", "~~~", True), ("`", "`", False), ("$$", "$$", False))
_PAIRS_LATEX = (("\\[", "\\]", False), ("\\(", "\\)", False), ("$", "$", False))
_ENVIRONMENT = re.compile(r"\\(begin|end)\{([a-zA-Z]{1,20}\*?)\}")
_LINK = re.compile(r"(?:https?://|ftp://|www\.)[^\s<>\"'，。]{1,2000}|[\w.+-]{1,64}@[\w-]{1,64}\.[\w.-]{1,64}")
_COMMAND = re.compile(r"\\[A-Za-z]{1,30}\*?|</?[A-Za-z][A-Za-z0-9_-]{0,30}(?: [^<>\n]{0,200})?/?>")
_DIGITS = re.compile(r"[0-9]{1,40}")


def natural_text(text: str) -> str:
    """The text without code, LaTeX, addresses, tags and digits: what is left is in some language.

    Code is what stands between backticks (a fence that is not closed takes all that follows); LaTeX what stands
    between $, $$, \\( \\), \\[ \\] or in an environment, and any \\command. Linear in the text's length.

    >>> natural_text("Take `x = 1` and $x^2$: see https://a.b/c now").split()
    ['Take', 'and', ':', 'see', 'now']
    """
    text = text[:MAX_TEXT]
    for opening, closing, to_end in (*_PAIRS, *_PAIRS_LATEX):
        text = _without(text, opening, closing, to_end)
    text = _without_environments(text)
    for pattern in (_LINK, _COMMAND, _DIGITS):
        text = pattern.sub(" ", text)
    return text


def _without(text: str, opening: str, closing: str, to_end: bool) -> str:
    """The text without spans between two marks; a lone mark takes the rest with it if `to_end`, else it stays.

    A span of a single character such as $ or ` ends on its own line: two prices are no formula.
    """
    kept: list[str] = []
    position = 0
    while (start := text.find(opening, position)) >= 0:
        end = text.find(closing, start + len(opening))
        line = len(opening) == 1
        if end < 0:
            return "".join(kept) + text[position:start] if to_end else "".join(kept) + text[position:]
        if line and ("\n" in text[start:end] or (opening == "$" and not _formula(text[start + 1 : end]))):
            kept.append(text[position : start + 1])
            position = start + 1
            continue
        kept.append(text[position:start] + " ")
        position = end + len(closing)
    return "".join(kept) + text[position:]


def _formula(span: str) -> bool:
    """Whether what stands between two dollar signs is a formula, not the words between two prices."""
    return bool(span) and not span[0].isspace() and not span[-1].isspace() and len(span) <= 2000


def _without_environments(text: str) -> str:
    kept: list[str] = []
    position = depth = 0
    for found in _ENVIRONMENT.finditer(text):
        if found[1] == "begin":
            if depth == 0:
                kept.append(text[position : found.start()])
                position = found.start()
            depth += 1
        elif depth:
            depth -= 1
            if depth == 0:
                position = found.end()
    return " ".join(kept) + text[position:]
