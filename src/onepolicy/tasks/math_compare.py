"""Whether two readings of answers are the same answer."""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from onepolicy.tasks.math_formula import (
    Call,
    Formula,
    Number,
    Symbol,
    Unread,
    free_symbols,
)
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
)
from onepolicy.tasks.math_solved import interval, variable
from onepolicy.tasks.math_units import compatible
from onepolicy.tasks.math_values import equal, value, value_at_first_point


@dataclass(frozen=True)
class Tolerance:
    """How far a number may be from the gold value: relative in parts of it, absolute in its unit. 0, 0 is exact."""

    relative: float = 0.0
    absolute: float = 0.0


EXACT = Tolerance()


def same(gold: Reading, answer: Reading, tolerance: Tolerance = EXACT) -> bool:
    """Whether the answer is the gold answer. Raises: Unread where a value cannot be computed."""
    if gold == answer:
        return True
    if isinstance(gold, Sequence) and gold.brackets == "choice":
        return any(same(part, answer, tolerance) for part in gold.items)
    if isinstance(answer, Sequence) and answer.brackets == "choice":
        return any(same(gold, part, tolerance) for part in answer.items)
    if isinstance(gold, Relation) or isinstance(answer, Relation):
        return _relations(gold, answer, tolerance)
    if isinstance(gold, Word) and isinstance(answer, Word):
        return gold.text == answer.text or _same_time(gold.text, answer.text)
    if isinstance(gold, Word) or isinstance(answer, Word):
        return _letter(gold) is not None and _letter(gold) == _letter(answer)
    if isinstance(gold, Based) or isinstance(answer, Based):
        return _based(gold, answer)
    if isinstance(gold, Scalar) and isinstance(answer, Scalar):
        return _scalars(gold, answer, tolerance)
    if isinstance(gold, Grid) or isinstance(answer, Grid):
        return _grids(gold, answer, tolerance)
    if isinstance(gold, Union) or isinstance(answer, Union):
        return _unions(gold, answer, tolerance)
    if isinstance(gold, Sequence) and isinstance(answer, Sequence):
        return _sequences(gold, answer, tolerance)
    one, two = (gold, answer) if isinstance(gold, Sequence) else (answer, gold)
    if isinstance(one, Sequence) and one.brackets in ("{}", "[]") and len(one.items) == 1:
        return same(one.items[0], two, tolerance)
    return False


def _same_time(gold: str, answer: str) -> bool:
    """Whether two times of day agree where one does not say whether it is before noon."""
    suffixes = {text[-2:] for text in (gold, answer)} & {"am", "pm"}
    bare = [text.removesuffix("am").removesuffix("pm") for text in (gold, answer)]
    return ":" in gold and bare[0] == bare[1] and len(suffixes) < 2


def _letter(reading: Reading) -> str | None:
    """The single letter that a choice or a symbol is, lower case."""
    if isinstance(reading, Word):
        return reading.text if reading.choice else None
    if isinstance(reading, Scalar) and isinstance(reading.formula, Symbol) and not reading.unit:
        return reading.formula.name.lstrip("\\").lower()
    return None


def _scalars(gold: Scalar, answer: Scalar, tolerance: Tolerance) -> bool:
    one, two = gold.formula, answer.formula
    if "%" in (gold.unit, answer.unit) and gold.unit != answer.unit:
        if {gold.unit, answer.unit} - {"%", ""}:
            return False
        hundred = Number(Fraction(100))
        if gold.unit != "%" and _below_one(one):
            return _equal(one, Call("div", (two, hundred)), tolerance)
        parts = [Call("div", (one, hundred)), two] if gold.unit == "%" else [one, Call("div", (two, hundred))]
        if _equal(parts[0], parts[1], Tolerance(tolerance.relative, tolerance.absolute / 100)):
            return True
    if gold.unit and not answer.unit and _equal(_with_unit(gold), two, tolerance):
        return True
    return compatible(gold.unit, answer.unit) and _equal(one, two, tolerance)


def _below_one(formula: Formula) -> bool:
    """Whether a value is less than 1, so that its percentage cannot be meant by the same digits: 0.25 is not 0.25 %."""
    return not free_symbols(formula) and abs(value(formula)) < 1


def _with_unit(scalar: Scalar) -> Formula:
    r"""A value times its unit as a formula, which `5\,m^2` is read as."""
    try:
        return Call("mul", (scalar.formula, parse(scalar.unit)))
    except Unread:
        return scalar.formula


def _equal(gold: Formula, answer: Formula, tolerance: Tolerance) -> bool:
    return equal(gold, answer, tolerance.relative, tolerance.absolute)


def _based(gold: Reading, answer: Reading) -> bool:
    """Digits in a base: the same digits, and the same base where both say it."""
    if isinstance(gold, Based) and isinstance(answer, Based):
        return (gold.digits, gold.base) == (answer.digits, answer.base)
    based, other = (gold, answer) if isinstance(gold, Based) else (answer, gold)
    assert isinstance(based, Based)
    if not isinstance(other, Scalar) or not isinstance(other.formula, Number) or not isinstance(gold, Based):
        return False
    return other.formula.text.lstrip("0") == based.digits.lstrip("0")


def _grids(gold: Reading, answer: Reading, tolerance: Tolerance) -> bool:
    if isinstance(gold, Grid) and isinstance(answer, Grid):
        shapes = [[len(row) for row in grid.rows] for grid in (gold, answer)]
        pairs = zip((c for row in gold.rows for c in row), (c for row in answer.rows for c in row), strict=False)
        return shapes[0] == shapes[1] and all(same(one, two, tolerance) for one, two in pairs)
    grid, other = (gold, answer) if isinstance(gold, Grid) else (answer, gold)
    assert isinstance(grid, Grid)
    if isinstance(other, Scalar):
        return len(grid.rows) == len(grid.rows[0]) == 1 and same(grid.rows[0][0], other, tolerance)
    if (
        isinstance(other, Sequence)
        and other.items
        and all(isinstance(row, Sequence) and row.brackets == other.brackets == "[]" for row in other.items)
    ):
        rows = tuple(Sequence("[]", row) for row in grid.rows)
        return _in_order(rows, other.items, tolerance) if grid is gold else _in_order(other.items, rows, tolerance)
    if not isinstance(other, Sequence) or other.brackets != "()" or any(len(row) != 1 for row in grid.rows):
        return False
    column = Sequence("()", tuple(row[0] for row in grid.rows))
    return _sequences(column, other, tolerance) if grid is gold else _sequences(other, column, tolerance)


def _sequences(gold: Sequence, answer: Sequence, tolerance: Tolerance) -> bool:
    """Lists without brackets and sets in any order, all others in order; a bare list may stand for a tuple or set."""
    kinds = {gold.brackets, answer.brackets}
    if kinds == {""} or kinds == {"{}"}:
        one, two = (_distinct(gold), _distinct(answer)) if kinds == {"{}"} else (gold.items, answer.items)
        return _matched(one, two, tolerance)
    if kinds == {"", "{}"}:
        return _matched(_distinct(gold), _distinct(answer), tolerance)
    if len(kinds) == 1 or kinds in ({"", "()"}, {"", "[]"}):
        return _in_order(_by_name(gold.items), _by_name(answer.items), tolerance)
    return False


def _by_name(items: Items[Reading], names: Items[Reading] | None = None) -> Items[Reading]:
    """Values that stand beside names, `y=2, x=3` or `(y,x)=(2,3)`, in the names' order where they have one: x before y.

    An order is that of letters, or of one letter's indices, that follow one another; other names stay as they stand.
    """
    sides = names or [item.sides[0] for item in items if isinstance(item, Relation) and item.signs == ("=",)]
    said = [side.formula.name for side in sides if isinstance(side, Scalar) and isinstance(side.formula, Symbol)]
    if len(said) != len(items) or len(set(said)) != len(said):
        return items
    keys = [tuple(map(ord, name)) for name in sorted(said)]
    if any(one[:-1] != two[:-1] or two[-1] - one[-1] != 1 for one, two in pairwise(keys)):
        return items
    return [items[said.index(name)] for name in sorted(said)]


def _in_order(gold: Items[Reading], answer: Items[Reading], tolerance: Tolerance) -> bool:
    return len(gold) == len(answer) and all(same(one, two, tolerance) for one, two in zip(gold, answer, strict=True))


def _matched(gold: Items[Reading], answer: Items[Reading], tolerance: Tolerance) -> bool:
    """Whether each gold element has an answer's element of its own."""
    if len(gold) != len(answer):
        return False
    left = list(answer)
    for one in gold:
        place = next((i for i, two in enumerate(left) if same(one, two, tolerance)), None)
        if place is None:
            return False
        left.pop(place)
    return True


def _distinct(sequence: Sequence) -> list[Reading]:
    kept: list[Reading] = []
    for item in sequence.items:
        if not any(same(item, other) for other in kept):
            kept.append(item)
    return kept


def _unions(gold: Reading, answer: Reading, tolerance: Tolerance) -> bool:
    one, two = _pieces(gold), _pieces(answer)
    return bool(one) and _matched(one, two, tolerance)


def _pieces(reading: Reading) -> list[Reading]:
    """The intervals and points of a union; a list of points counts as its points."""
    if isinstance(reading, Union):
        return [piece for part in reading.parts for piece in _pieces(part)]
    if isinstance(reading, Sequence) and reading.brackets in ("", "{}"):
        return [piece for item in reading.items for piece in _pieces(item)]
    found = interval(reading) if isinstance(reading, Relation) else None
    return [reading] if found is None else _pieces(found) if isinstance(found, Union) else [found]


def _relations(gold: Reading, answer: Reading, tolerance: Tolerance) -> bool:
    if isinstance(gold, Relation) and isinstance(answer, Relation):
        return _both_relations(gold, answer, tolerance)
    relation, other = (gold, answer) if isinstance(gold, Relation) else (answer, gold)
    assert isinstance(relation, Relation)
    if set(relation.signs) == {"="}:
        if not is_name(relation.sides[0], sums=relation is answer) and not (relation is answer and _holds(relation)):
            return False
        last, names = relation.sides[-1], relation.sides[0]
        if isinstance(names, Sequence) and isinstance(last, Sequence) and len(names.items) == len(last.items):
            last = Sequence(last.brackets, tuple(_by_name(last.items, names.items)))
        return same(last, other, tolerance) if relation is gold else same(other, last, tolerance)
    found = interval(relation)
    if found is None:
        return False
    return same(found, other, tolerance) if relation is gold else same(other, found, tolerance)


def _holds(relation: Relation) -> bool:
    """Whether an equation without variables is true, as in `1+1=2`, or leads from a name to a value."""
    sides = relation.sides
    numbers = all(isinstance(side, Scalar) and not free_symbols(side.formula) for side in sides)
    return numbers and all(same(sides[0], side) for side in sides[1:])


def _both_relations(gold: Relation, answer: Relation, tolerance: Tolerance) -> bool:
    if set(gold.signs) == set(answer.signs) == {"="}:
        return _equations(gold, answer, tolerance)
    one, two = interval(gold), interval(answer)
    if one is not None and two is not None:
        return variable(gold) == variable(answer) and same(one, two, tolerance)
    if len(gold.signs) != len(answer.signs):
        return False
    if gold.signs == answer.signs and _in_order(gold.sides, answer.sides, tolerance):
        return True
    flipped = tuple(FLIPPED[sign] for sign in reversed(answer.signs))
    if gold.signs == flipped and _in_order(gold.sides, tuple(reversed(answer.sides)), tolerance):
        return True
    return len(gold.signs) == 1 and _proportional(gold, answer)


def _equations(gold: Relation, answer: Relation, tolerance: Tolerance) -> bool:
    first, last = (gold.sides[0], answer.sides[0]), (gold.sides[-1], answer.sides[-1])
    if all(is_name(side, sums=False) for side in first):
        names = [_bound(side) for side in first]
        if names[0] is not None and names[1] is not None and names[0][0] == names[1][0]:
            return same(_renamed(last[0], names[0][1]), _renamed(last[1], names[1][1]), tolerance)
        if same(first[0], first[1]):
            return same(last[0], last[1], tolerance)
    if len(gold.sides) == len(answer.sides) == 2:
        return _proportional(gold, answer)
    return _in_order(gold.sides, answer.sides, tolerance)


def _bound(side: Reading) -> tuple[str, str] | None:
    """(function, its variable) of a left side such as `f(x)`."""
    if not isinstance(side, Scalar) or not isinstance(side.formula, Symbol):
        return None
    name, _, variable = side.formula.name.partition("(")
    return (name, variable.removesuffix(")")) if variable and not variable[:1].isdigit() else None


def _renamed(reading: Reading, name: str) -> Reading:
    if not isinstance(reading, Scalar):
        return reading
    return Scalar(_substituted(reading.formula, name), reading.unit)


def _substituted(formula: Formula, name: str) -> Formula:
    if isinstance(formula, Symbol):
        return Symbol("the variable") if formula.name == name else formula
    if isinstance(formula, Call):
        return Call(formula.name, tuple(_substituted(argument, name) for argument in formula.args))
    return formula


def _proportional(gold: Relation, answer: Relation) -> bool:
    """Whether two equations or inequalities differ by a constant factor, positive where the sign has a direction."""
    differences = []
    for relation in (gold, answer):
        sides = relation.sides
        if not all(isinstance(side, Scalar) and side.unit == "" for side in sides):
            return False
        left, right = (side.formula for side in sides if isinstance(side, Scalar))
        differences.append(Call("add", (left, Call("neg", (right,)))))
    if not free_symbols(differences[0]) or free_symbols(differences[0]) != free_symbols(differences[1]):
        return False
    sign = answer.signs[0]
    for factor in _ratios(differences[0], differences[1]):
        if gold.signs[0] == (sign if factor > 0 else FLIPPED[sign]):
            scaled = Call("mul", (Number(factor), differences[1]))
            if equal(differences[0], scaled):
                return True
    return False


def _ratios(one: Formula, two: Formula) -> list[Fraction]:
    """The rational ratio of two formulas at one point, where it is one of small terms."""
    values = [value_at_first_point(formula, one) for formula in (one, two)]
    if values[0] is None or values[1] is None or values[1] == 0:
        return []
    ratio = values[0] / values[1]
    if abs(ratio.imag) > 1e-30 or not 1e-6 < abs(ratio.real) < 1e6:
        return []
    return [Fraction(str(ratio.context.nstr(ratio.real, 50))).limit_denominator(10_000)]
