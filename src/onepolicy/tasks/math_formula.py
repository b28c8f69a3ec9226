"""Formulas as trees: exact numbers, symbols and calls. `math_grammar` reads them, `math_values` computes them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


class Unread(ValueError):
    """A formula outside the grammar, or a value outside what is computed; says why."""


@dataclass(frozen=True)
class Number:
    """An exact literal. text: as it was written, for how many places it has."""

    value: Fraction
    text: str = ""


@dataclass(frozen=True)
class Symbol:
    """A variable, with its subscripts and accents in its name."""

    name: str


@dataclass(frozen=True)
class Call:
    """An operation (`add mul div neg pow sqrt root fact binom abs floor ceil log`) or a function on its arguments."""

    name: str
    args: tuple[Formula, ...]


Formula = Number | Symbol | Call

PI, EULER, IMAGINARY, INFINITY = Symbol("\\pi"), Symbol("\\e"), Symbol("\\i"), Symbol("\\infty")
NEGATIVE_INFINITY = Call("neg", (INFINITY,))
"""Constants; as names that no variable has."""


def free_symbols(formula: Formula) -> frozenset[str]:
    """The names of a formula's variables."""
    if isinstance(formula, Number):
        return frozenset()
    if isinstance(formula, Symbol):
        return frozenset() if formula in (PI, EULER, IMAGINARY, INFINITY) else frozenset((formula.name,))
    return frozenset().union(*(free_symbols(argument) for argument in formula.args))
