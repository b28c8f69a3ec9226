"""What answers are read as: structures of formulas and words. `math_answers` makes them, `math_compare` uses them."""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from onepolicy.tasks.math_formula import INFINITY, NEGATIVE_INFINITY, Call, Formula, Number, Symbol, free_symbols
from onepolicy.tasks.math_values import value

FLIPPED = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le"}
FLIPPED |= {sign: sign for sign in ("=", "\\ne", "\\equiv", "\\parallel", "\\perp", "\\sim", "\\cong")}
"""The signs of relations that are read, with what they become when the sides change places."""


@dataclass(frozen=True)
class Scalar:
    """A number or formula, with its unit ("" without one; "%" where a percent sign was written)."""

    formula: Formula
    unit: str = ""


@dataclass(frozen=True)
class Sequence:
    r"""Several answers. brackets: "" (any order), "()" and "[]" (ordered), "{}" (a set), "[)" and "(]" (intervals),
    ":" (a ratio of three or more, as multiples of its first)."""

    brackets: str
    items: tuple[Reading, ...]


@dataclass(frozen=True)
class Union:
    """Intervals and finite sets together, any order."""

    parts: tuple[Reading, ...]


@dataclass(frozen=True)
class Grid:
    """A matrix, by rows."""

    rows: tuple[tuple[Scalar, ...], ...]


@dataclass(frozen=True)
class Relation:
    """A chain such as `-2 <= x < 7` or `y = 2x+3`; signs[i] stands between sides[i] and sides[i+1]."""

    signs: tuple[str, ...]
    sides: tuple[Reading, ...]


@dataclass(frozen=True)
class Word:
    """A name or phrase, lower case, without blanks. choice: a single letter marked as a choice, `(C)` or \\text{C}."""

    text: str
    choice: bool = False


@dataclass(frozen=True)
class Based:
    """Digits of a number written in a base; they are compared as written."""

    digits: str
    base: str


Reading = Scalar | Sequence | Union | Grid | Relation | Word | Based


def punctured(points: Items[Scalar]) -> Union:
    """The real numbers without some. Raises: Unread for points that are no real numbers."""
    values = {value(point.formula).real: point for point in points}
    ends = [Scalar(NEGATIVE_INFINITY), *(values[key] for key in sorted(values)), Scalar(INFINITY)]
    return Union(tuple(Sequence("()", pair) for pair in pairwise(ends)))


def is_name(reading: Reading, *, sums: bool) -> bool:
    """Whether a left side only names what is asked: a symbol, a ratio or product of symbols, a name, or their sum."""
    if isinstance(reading, Word):
        return True
    if isinstance(reading, Sequence):
        return all(is_name(item, sums=sums) for item in reading.items)
    if not isinstance(reading, Scalar) or not free_symbols(reading.formula):
        return False
    return _only_symbols(reading.formula, sums)


def _only_symbols(formula: Formula, sums: bool) -> bool:
    if isinstance(formula, Number):
        return False
    if isinstance(formula, Call):
        parts = formula.args
        if formula.name == "add" and sums:
            parts = tuple(part.args[0] if isinstance(part, Call) and part.name == "neg" else part for part in parts)
        elif formula.name == "pow" and isinstance(formula.args[0], Symbol) and formula.args[0].name in ("f", "g", "h"):
            return formula.args[1] == Number(Fraction(-1), "-1")
        elif formula.name not in ("mul", "div", "abs"):
            return False
        return all(_only_symbols(part, sums) for part in parts)
    return True
