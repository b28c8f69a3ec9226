r"""Inequalities that say what their variable may be, as sets: `x > 5`, `-2 <= x < 7`, `x \ne 2`, `|x - 1| < 3`."""

from __future__ import annotations

from fractions import Fraction

from onepolicy.tasks.math_formula import (
    INFINITY,
    NEGATIVE_INFINITY,
    Call,
    Formula,
    Number,
    Symbol,
    Unread,
    free_symbols,
)
from onepolicy.tasks.math_readings import FLIPPED, Reading, Relation, Scalar, Sequence, Union, punctured
from onepolicy.tasks.math_values import scale, value


def variable(relation: Relation) -> Reading:
    """What an inequality that has an interval is about."""
    if len(relation.signs) == 2:
        return relation.sides[1]
    for side in relation.sides:
        if _is_variable(side):
            return side
        if (around := _around(side)) is not None:
            return around[0]
    raise Unread("an inequality about nothing")


def _around(side: Reading) -> tuple[Scalar, Formula] | None:
    """(x, a) of a distance |x - a|."""
    if not isinstance(side, Scalar) or not isinstance(side.formula, Call) or side.formula.name != "abs":
        return None
    (inside,) = side.formula.args
    if isinstance(inside, Symbol) and free_symbols(inside):
        return Scalar(inside), Number(Fraction(0), "0")
    if isinstance(inside, Call) and inside.name == "add" and isinstance(inside.args[0], Symbol):
        rest = Call("add", inside.args[1:])
        return (Scalar(inside.args[0]), Call("neg", (rest,))) if not free_symbols(rest) else None
    return None


def _distance(relation: Relation) -> Reading | None:
    """The set that `|x - a| < r` describes, r being positive, or None."""
    (sign,), (left, right) = relation.signs, relation.sides
    if _around(right) is not None:
        sign, left, right = FLIPPED[sign], right, left
    around = _around(left)
    if around is None or not isinstance(right, Scalar) or not _constant(right) or value(right.formula).real <= 0:
        return None
    low = Scalar(Call("add", (around[1], Call("neg", (right.formula,)))))
    high = Scalar(Call("add", (around[1], right.formula)))
    closed = sign in ("\\le", "\\ge")
    if sign in ("<", "\\le"):
        return Sequence("[]" if closed else "()", (low, high))
    outer = (Scalar(NEGATIVE_INFINITY), low), (high, Scalar(INFINITY))
    return Union((Sequence("(]" if closed else "()", outer[0]), Sequence("[)" if closed else "()", outer[1])))


def _is_variable(side: Reading) -> bool:
    return isinstance(side, Scalar) and isinstance(side.formula, Symbol) and bool(free_symbols(side.formula))


def interval(relation: Relation) -> Reading | None:
    """The set that a solved inequality (`x > 5`, `-2 <= x < 7`) describes, or None."""
    signs, sides = relation.signs, relation.sides
    if len(signs) == 1 and signs[0] in ("<", ">", "\\le", "\\ge") and any(map(_around, sides)):
        return _distance(relation)
    if len(signs) == 1 and signs[0] in ("<", ">", "\\le", "\\ge", "\\ne"):
        if _is_variable(sides[1]) and not _is_variable(sides[0]):
            signs, sides = (FLIPPED[signs[0]],), (sides[1], sides[0])
        if not _is_variable(sides[0]) or not _constant(sides[1]):
            return None
        closed = signs[0] in ("\\le", "\\ge")
        if signs[0] == "\\ne":
            assert isinstance(sides[1], Scalar)
            return punctured([sides[1]])
        if signs[0] in ("<", "\\le"):
            return Sequence("(]" if closed else "()", (Scalar(NEGATIVE_INFINITY), sides[1]))
        return Sequence("[)" if closed else "()", (sides[1], Scalar(INFINITY)))
    if len(signs) != 2 or not _is_variable(sides[1]) or not (_constant(sides[0]) and _constant(sides[2])):
        return None
    if set(signs) <= {">", "\\ge"}:
        signs, sides = (FLIPPED[signs[1]], FLIPPED[signs[0]]), (sides[2], sides[1], sides[0])
    if not set(signs) <= {"<", "\\le"}:
        return None
    brackets = ("[" if signs[0] == "\\le" else "(") + ("]" if signs[1] == "\\le" else ")")
    return Sequence(brackets, (sides[0], sides[2]))


def _constant(side: Reading) -> bool:
    try:
        return isinstance(side, Scalar) and scale(side.formula) is not None
    except Unread:
        return False
