"""Units: taken off an answer, and whether two may stand for each other."""

from __future__ import annotations

import re

_NAMES = {
    "cm": "cm centimeter centimeters centimetre centimetres",
    "mm": "mm millimeter millimeters millimetre millimetres",
    "m": "m meter meters metre metres",
    "km": "km kilometer kilometers kilometre kilometres",
    "in": "in inch inches",
    "ft": "ft foot feet",
    "yd": "yd yard yards",
    "mi": "mi mile miles",
    "s": "s sec secs second seconds",
    "min": "min mins minute minutes",
    "h": "h hr hrs hour hours",
    "day": "day days",
    "week": "week weeks",
    "month": "month months",
    "year": "year years yr yrs",
    "g": "g gram grams",
    "kg": "kg kilogram kilograms",
    "lb": "lb lbs pound pounds",
    "oz": "oz ounce ounces",
    "l": "l liter liters litre litres",
    "ml": "ml milliliter milliliters",
    "dollar": "dollar dollars usd",
    "cent": "cent cents",
    "degree": "degree degrees deg",
    "radian": "radian radians rad",
    "mph": "mph milesperhour mi/h mi/hr miles/hour mile/hour",
    "km/h": "kmh kmph km/h km/hr kilometersperhour kph",
    "m/s": "m/s meterspersecond metersps",
    "%": "percent percentage pct",
}
_CANONICAL = {name: unit for unit, names in _NAMES.items() for name in names.split()}
_COUNTED_NAMES = (
    "unit units square squares cubic people students apples pieces ways points way point coins balls books students "
    "boys girls men women games tickets rupees yuan euros pages tiles steps numbers integers solutions hours"
)
_COUNTED = set(_COUNTED_NAMES.split())
_PLAIN = [name for name in _CANONICAL if len(name) > 1] + sorted(_COUNTED)

_TEXT = re.compile(r"^(.*?[^\s\\])\s*\\text\s*\{([^{}]*)\}\s*(?:\^\s*\{?\s*(-?\d)\s*\}?)?\s*$")
_WORD = "|".join(sorted(map(re.escape, _PLAIN), key=len, reverse=True))
_BARE = re.compile(
    rf"^(.*[\d}})])\s*((?:(?:{_WORD})\b[\s.]*(?:/|per\b)?\s*)+)(?:\^\s*\{{?\s*(\d)\s*\}}?)?\s*$", re.IGNORECASE
)
_UNIT_WORDS = re.compile(r"[A-Za-z.]+(?:[\s/.\-]+[A-Za-z.]+){0,4}")
_HEDGES = frozenset(("or", "and", "not", "if", "else", "either", "maybe", "perhaps", "but", "than", "plus", "minus"))
_DEGREE = re.compile(r"^(.*\S)\s*\\degree\s*[CFK]?$")
_ANGLE = re.compile(r"sin|cos|tan|cot|sec|csc")
_PERCENT = re.compile(r"^(.*[^\s\\])\s*\\?%$")


def split_unit(text: str) -> tuple[str, str]:
    r"""(the rest, its unit): a percent sign, degrees, `\text{…}` at the end, or a known unit's name behind a number.

    >>> split_unit(r"864 \text{ inches}^2"), split_unit(r"50\%"), split_unit("2n")
    (('864', 'in^2'), ('50', '%'), ('2n', ''))
    """
    text = text.strip()
    if match := _PERCENT.match(text):
        return match[1].strip(), "%"
    if (match := _DEGREE.match(text)) and not _ANGLE.search(text):
        return match[1].strip(), "degree"
    match = _TEXT.match(text) or _BARE.match(text)
    if match is None or not _ends_value(match[1]):
        return text, ""
    if not _UNIT_WORDS.fullmatch(match[2].strip()) or _HEDGES & set(match[2].lower().split()):
        return text, ""
    power = match[3] or ""
    rest, inner = split_unit(match[1])
    name = _canonical(match[2], power)
    return (rest, f"{inner} {name}".strip()) if inner and inner != "%" else (match[1].strip(), name)


def compatible(one: str, two: str) -> bool:
    """Whether two units may stand for each other: equal, or one is not said, or not known."""
    if not one or not two or one == two:
        return True
    known = {*_NAMES} | {f"{unit}^{power}" for unit in _NAMES for power in "23"}
    return not (one in known and two in known)


def _ends_value(text: str) -> bool:
    return text.strip()[-1:] not in "_^=+-*/<>\\," and not text.rstrip().endswith(("\\cdot", "\\times", "\\le", "\\ge"))


def _canonical(words: str, power: str) -> str:
    words = words.lower().strip(" .")
    for prefix, degree in (("square ", "2"), ("sq ", "2"), ("sq. ", "2"), ("cubic ", "3")):
        if words.startswith(prefix):
            words, power = words.removeprefix(prefix), degree
    squeezed = re.sub(r"[\s.]+", "", words)
    unit = _CANONICAL.get(squeezed, squeezed)
    return f"{unit}^{power}" if power and power != "1" else unit
