r"""Answers read as structures: lists, tuples, sets, intervals, unions, matrices, relations, words, numbers in a base.

`read` gives every way an answer may be meant (`1,234` is a number or a list); what it cannot read is `Unread`.
"""

from __future__ import annotations

import re
from fractions import Fraction

from onepolicy.tasks.math_formula import INFINITY, NEGATIVE_INFINITY, Call, Number, Unread
from onepolicy.tasks.math_grammar import parse
from onepolicy.tasks.math_readings import (
    FLIPPED,
    Based,
    Grid,
    Reading,
    Relation,
    Scalar,
    Sequence,
    Union,
    Word,
    is_name,
    punctured,
)
from onepolicy.tasks.math_text import split_top, too_hard
from onepolicy.tasks.math_units import split_unit

MAX_ITEMS = 64
"""Elements of a list at most, after every plus-minus sign became two."""


_BASED = re.compile(r"(-?[0-9A-Z]+(?:\.[0-9A-Z]+)?)\s*_\s*(?:\{\s*(?:\\text\s*\{)?\s*(\w+)\s*\}?\s*\}|(\d+))")
_BASE_NAMES = "two three four five six seven eight nine ten eleven twelve"
_BASES = {name: str(number) for number, name in enumerate(_BASE_NAMES.split(), start=2)}
_GROUPED = re.compile(r"-?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?")
_COMMA_DECIMAL = re.compile(r"-?(?:\d+,\d{1,2}|0,\d+)")
_CHOICE = re.compile(r"(?:(?i:option|choice|answer)\s*)?\(?\s*([A-Za-z])\s*[).:]*")
_CHOICE_AND_MORE = re.compile(
    r"(?:\\text\s*\{\s*)?\(([A-Z])\)\s*\}?\s*[.:]?\s*(?=\S)(?![-+*/^_=<>,(])(.+)|([A-Z])[.):]\s+(.+)"
)
_ONLY_TEXT = re.compile(r"\\text\s*\{((?:[^{}]|\{[^{}]*\})*)\}[.\s]*")
_WORDS = re.compile(r"[A-Za-z][A-Za-z'’.\-]+(?:[\s,]+[A-Za-z'’.\-\d]+)*")
_TIME = re.compile(r"0?(\d{1,2}):(\d\d)(?::(\d\d))?\s*(?:\\text\s*\{)?\s*(?:([AaPp])\.?\s*[Mm]\.?)?\s*\}?")
_BUILDER = re.compile(r"\s*([A-Za-z])\s*(?:\\in\s*\\mathbb\{R\})?\s*[|:](.+)")
_POSITIVE = re.compile(r"\\mathbb\{R\}\s*(?:[\^_]\s*\{?\s*(?:\+|>\s*0|(\\ge)\s*0)\s*\}?)")
_WITHOUT = re.compile(r"\\mathbb\{R\}\s*(?:\\(?:setminus|backslash)|\\|-)\s*\\\{(.+)\\\}")
_RELATION = re.compile(r"\\(?:le|ge|ne|in|notin|to|equiv|subseteq|subset|parallel|perp|sim|cong)(?![A-Za-z])|[<>=]")
_MATRIX = re.compile(r"\\begin\{pmatrix\}(.*)\\end\{pmatrix\}")
_NOT_NAMES = ("pi", "inf", "oo", "infinity", "sqrt", "sin", "cos", "tan", "log", "ln", "exp")
_OPENINGS, _CLOSINGS = {"(": "(", "[": "[", "]": "(", "\\{": "{", "\\langle": "(", "{": "group"}, {
    ")": ")", "]": "]", "[": ")", "\\}": "}", "\\rangle": ")", "}": "group",
}  # fmt: skip
_REALS = Sequence("()", (Scalar(NEGATIVE_INFINITY), Scalar(INFINITY)))


def read(text: str, *, decimal_comma: bool = True) -> list[Reading]:
    r"""The readings of a normalised answer, the likeliest first; never empty. Raises: Unread with the reason.

    decimal_comma: `1,5` may be 1.5 as well as a list; not so in a gold answer, where it is a list (`1,25` may be both).

    >>> [type(reading).__name__ for reading in read("1,234")]
    ['Scalar', 'Sequence']
    """
    if reason := too_hard(text):
        raise Unread(reason)
    if not text:
        raise Unread("nothing")
    found: list[Reading] = []
    reason = ""
    time = _as_time(text)
    if time is not None and (time.text[-1] == "m" or ":0" in time.text):
        return [time]
    for way in (_as_choice, _as_grouped, _as_words, _as_based, _as_structure):
        try:
            reading = way(text)
        except (Unread, RecursionError) as error:
            reason = reason or str(error)
            continue
        if way is _as_grouped and not decimal_comma and re.search(r",\d$", split_unit(text)[0]):
            continue
        if reading is not None and reading not in found:
            found.append(reading)
    if not found:
        raise Unread(reason or "it is no answer")
    return found


def _as_choice(text: str) -> Reading | None:
    """A marked letter: (C), \\text{C}, \\text{(C)}, C. or C)."""
    only = _ONLY_TEXT.fullmatch(text)
    match = _CHOICE.fullmatch((only[1] if only else text).strip())
    if match and (only or not text.strip().isalpha()):
        return Word(match[1].lower(), choice=True)
    if match and match[1].isupper():
        return Word(match[1].lower(), choice=True)
    return None


def _as_grouped(text: str) -> Reading | None:
    """A number with thousands commas, or with a decimal comma."""
    bare, unit = split_unit(text)
    if _GROUPED.fullmatch(bare):
        return Scalar(parse(bare.replace(",", "")), unit)
    if _COMMA_DECIMAL.fullmatch(bare):
        return Scalar(parse(bare.replace(",", ".")), unit)
    return None


def _as_time(text: str) -> Word | None:
    """A time of day, `3:30`, `03:30 p.m.`; one with neither a suffix nor a leading zero may be a ratio as well."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    return Word(":".join(part for part in match.groups()[:3] if part) + (f"{match[4].lower()}m" if match[4] else ""))


def _as_words(text: str) -> Reading | None:
    """A name or phrase, in \\text{} or bare."""
    if (time := _as_time(text)) is not None:
        return time
    only = _ONLY_TEXT.fullmatch(text)
    content = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", text).strip()
    if not only and not _WORDS.fullmatch(content):
        return None
    if content in _NOT_NAMES or not any(letter.isalpha() for letter in content):
        return None
    parts = [re.sub(r"[\s.:'’()]+", "", part) for part in re.split(r"[,;]|\band\b", content)]
    squeezed = "".join(sorted(filter(None, parts)))
    squeezed = squeezed if squeezed.isupper() and len(squeezed) <= 3 else squeezed.lower()
    if squeezed in ("allrealnumbers", "allreals", "realnumbers"):
        return _REALS
    if squeezed in ("nosolution", "nosolutions"):
        return Sequence("{}", ())
    squeezed = {"doesnotexist": "dne", "DNE": "dne"}.get(squeezed, squeezed)
    return Word(squeezed) if len(squeezed) > 1 else None


def _as_based(text: str) -> Reading | None:
    match = _BASED.fullmatch(text.strip())
    if not match or not any(letter.isdigit() for letter in match[1]) or not match[1].isalnum():
        return None
    base = match[2] or match[3]
    return Based(match[1], _BASES.get(base.lower(), base))


def _as_structure(text: str) -> Reading:
    only = _ONLY_TEXT.fullmatch(text)
    if only and re.search(r"\d", only[1]):
        inside = only[1].strip()
        return _as_structure(inside[1:-1].strip() if inside[:1] == "(" and inside[-1:] == ")" else inside)
    if more := _CHOICE_AND_MORE.fullmatch(text):
        rest = (more[2] or more[4]).strip()
        if _as_choice(rest):
            raise Unread("two choices")
        return Sequence("choice", (Word((more[1] or more[3]).lower(), choice=True), read(rest)[-1]))
    groups = split_top(text, ";")
    if len(groups) > 1 and all(len(split_top(group, ",")) > 1 for group in groups):
        return Sequence("", tuple(Sequence("()", tuple(map(_item, split_top(group, ",")))) for group in groups))
    parts = split_top(text)
    while len(parts) > 1 and not parts[-1]:
        parts = parts[:-1]
    items: list[Reading] = []
    for part in parts:
        if not part:
            raise Unread("an empty element")
        for signed in [part] if part.startswith("\\{") else _both_signs(part):
            items.append(_item(signed))
    if len(items) > MAX_ITEMS:
        raise Unread(f"{len(items)} elements; at most {MAX_ITEMS} are read")
    if len(items) == 1:
        return items[0]
    return Sequence("", tuple(_carried(items)))


def _both_signs(text: str) -> list[str]:
    r"""A text with `\pm` once with + and once with -, and `\mp` the other way; otherwise the text."""
    if not re.search(r"\\(?:pm|mp)(?![A-Za-z])", text):
        return [text]
    plus = re.sub(r"\\pm(?![A-Za-z])", "+", re.sub(r"\\mp(?![A-Za-z])", "-", text))
    minus = re.sub(r"\\pm(?![A-Za-z])", "-", re.sub(r"\\mp(?![A-Za-z])", "+", text))
    return [plus, minus]


def _carried(items: list[Reading]) -> list[Reading]:
    """In `x = 1, 2, 3` the elements after an equation are its other solutions: the name is dropped from it."""
    first = items[0]
    named = isinstance(first, Relation) and first.signs == ("=",) and is_name(first.sides[0], sums=False)
    if isinstance(first, Relation) and named and not any(isinstance(item, Relation) for item in items[1:]):
        return [first.sides[-1], *items[1:]]
    return items


def _item(text: str) -> Reading:
    if "\\begin{pmatrix}" in text:
        return _matrix(text)
    if _relations(text):
        return _relation(text)
    if re.search(r"\\cup(?![A-Za-z])", text):
        return Union(tuple(_item(part) for part in re.split(r"\\cup(?![A-Za-z])", text) if part.strip()))
    if re.fullmatch(r"\\mathbb\{R\}|\\mathbb R|R\^1", text):
        return _REALS
    if positive := _POSITIVE.fullmatch(text):
        return Sequence("[)" if positive[1] else "()", (Scalar(Number(Fraction(0), "0")), Scalar(INFINITY)))
    if without := _WITHOUT.fullmatch(text):
        points = [Scalar(parse(part)) for part in split_top(without[1])]
        return punctured(points)
    ratio = split_top(text, ":")
    if len(ratio) > 2 and all(ratio):
        first, *others = (parse(part) for part in ratio)
        return Sequence(":", tuple(Scalar(Call("div", (other, first))) for other in others))
    if text == "\\emptyset":
        return Sequence("{}", ())
    bracketed = _bracketed(text)
    if bracketed is not None:
        return bracketed
    based = _as_based(text)
    if based is not None:
        return based
    bare, unit = split_unit(text)
    words = _as_words(text) if "\\text" in text and bare == text else None
    return words if words is not None else Scalar(parse(bare), unit)


def _bracketed(text: str) -> Reading | None:
    """What stands in one pair of brackets, unless they only group a single element."""
    text = text.strip()
    opening = next((sign for sign in _OPENINGS if text.startswith(sign)), None)
    closing = next((sign for sign in _CLOSINGS if text.endswith(sign)), None)
    if opening is None or closing is None or not _one_pair(text, opening, closing):
        return None
    inner = text[len(opening) : len(text) - len(closing)]
    brackets = _OPENINGS[opening] + _CLOSINGS[closing]
    if brackets == "{}" and (builder := _BUILDER.fullmatch(inner)) and len(split_top(builder[2])) == 1:
        condition = _item(builder[2].strip())
        if not isinstance(condition, Relation) or condition.signs == ("=",):
            raise Unread("a set builder that is not read")
        return condition
    parts = split_top(inner)
    if brackets == "groupgroup" or (len(parts) == 1 and brackets != "{}"):
        return _as_structure(inner.strip()) if split_top(inner.strip()) else None
    items = [_item(signed) for part in parts for signed in (_both_signs(part) if brackets == "{}" else [part])]
    if len(items) > MAX_ITEMS:
        raise Unread(f"{len(items)} elements; at most {MAX_ITEMS} are read")
    if brackets not in ("()", "[]", "{}", "[)", "(]") or (brackets in ("[)", "(]") and len(items) != 2):
        raise Unread(f"brackets {brackets}")
    return Sequence(brackets, tuple(items))


def _one_pair(text: str, opening: str, closing: str) -> bool:
    """Whether the first bracket is closed by the last."""
    depth, place = 0, 0
    while place < len(text):
        sign = re.match(r"\\langle|\\rangle|\\.|.", text[place:], re.DOTALL)
        assert sign is not None
        token = sign[0]
        last = place + len(token) >= len(text)
        if token in ("(", "[", "{", "\\{", "\\langle") or (place == 0 and token == opening):
            depth += 1
        elif token in (")", "]", "}", "\\}", "\\rangle") or (last and token == closing):
            depth -= 1
        if depth == 0 and not last:
            return False
        if last and token == closing:
            return depth <= 1
        place += len(token)
    return False


def _relations(text: str) -> list[re.Match[str]]:
    """Relation signs that stand in no bracket."""
    outside = []
    for match in _RELATION.finditer(text):
        before = text[: match.start()]
        depth = sum(before.count(sign) for sign in "([{") - sum(before.count(sign) for sign in ")]}")
        if depth == 0:
            outside.append(match)
    return outside


def _relation(text: str) -> Reading:
    found = _relations(text)
    starts = [0, *(match.end() for match in found)]
    ends = [*(match.start() for match in found), len(text)]
    sides = [text[start:end].strip() for start, end in zip(starts, ends, strict=True)]
    signs = tuple(match[0] for match in found)
    if signs == ("\\in",) and is_name(_name_or_item(sides[0]), sums=False):
        return _item(sides[1])
    if not sides[0] and set(signs) == {"="}:
        return _item(sides[-1])
    if not set(signs) <= set(FLIPPED) or not all(sides):
        raise Unread("a relation that is not read")
    return Relation(signs, (_name_or_item(sides[0]), *(_item(side) for side in sides[1:])))


def _name_or_item(text: str) -> Reading:
    """The left side of a relation: a formula, or any name (`\\angle ABC`, `\\text{Area}`)."""
    try:
        return _item(text)
    except Unread:
        named = re.sub(r"\\(?:text|angle|triangle|operatorname)|[{}\s]", "", text)
        if re.fullmatch(r"[A-Za-z\\_'(),:|\d]+", named):
            return Word(named, choice=False)
        raise


def _matrix(text: str) -> Reading:
    match = _MATRIX.fullmatch(_unwrapped(text.strip()))
    if match is None or "\\begin" in match[1]:
        raise Unread("a matrix among other things")
    body = re.sub(r"\\hline|\\\\\s*$", "", match[1].strip())
    rows = [row for row in re.split(r"\\\\(?:\s*\[[^\]]*\])?", body) if row.strip()]
    grid = tuple(tuple(Scalar(parse(split_unit(cell)[0])) for cell in row.split("&")) for row in rows)
    if not grid or len({len(row) for row in grid}) != 1:
        raise Unread("a matrix of uneven rows")
    return Grid(grid)


def _unwrapped(text: str) -> str:
    """A matrix without brackets around it."""
    while text[:1] in "([" and text[-1:] in ")]" and len(text) > 1:
        text = text[1:-1].strip()
    return text
