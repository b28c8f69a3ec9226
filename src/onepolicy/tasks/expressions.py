"""Arithmetic expressions as text, tree and exact rational value; reduced one operation at a time.

The parser is a tokenizer and a recursive descent over `+ - * / ( )` and decimal numbers: no `eval`, no powers, no
names. Length, digits and nesting are bounded, so that a hostile text is refused in microseconds. Values are
`Fraction`: nothing is rounded. Units, percent signs and thousands separators belong to whoever owns the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from onepolicy.errors import DataError

Value = int | Fraction
"""An exact number; integers stay `int`, which is several times faster."""

MAX_LENGTH = 400
"""Characters of an expression at most."""
MAX_DIGITS = 30
"""Digits of one number at most."""
MAX_DEPTH = 40
"""Nested brackets and signs at most."""

_TOKEN = re.compile(r"\s*(?:([0-9]+(?:\.[0-9]*)?|\.[0-9]+)|([-+*/()]))")
_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)")
_INTEGER = re.compile(r"[-+]?[0-9]+")


@dataclass(frozen=True)
class Number:
    """A literal. `text` is how it was written; empty means `number_text(value)`."""

    value: Value
    text: str = ""


@dataclass(frozen=True)
class Negative:
    """A minus sign before something that is not a literal."""

    operand: Node


@dataclass(frozen=True)
class Group:
    """Something in brackets, kept so that a tree prints as it was written."""

    inner: Node


@dataclass(frozen=True)
class Operation:
    """`left operator right`, the operator one of `+ - * /`."""

    operator: str
    left: Node
    right: Node


Node = Number | Negative | Group | Operation


def parse(text: str) -> Node:
    """The tree of an expression; `*` and `/` bind tighter than `+` and `-`, equals associate to the left.

    Raises: DataError, saying what is wrong, for anything that is not an expression within the bounds.

    >>> to_text(parse(" 2*(3 - 8)+.5"))
    '2*(3-8)+.5'
    """
    return _Parser(text).whole()


def evaluate(node: Node) -> Value:
    """The exact value of a tree. Raises: DataError for a division by zero.

    >>> evaluate(parse("1/3+1/6"))
    Fraction(1, 2)
    """
    if isinstance(node, Number):
        return node.value
    if isinstance(node, Negative):
        return -evaluate(node.operand)
    if isinstance(node, Group):
        return evaluate(node.inner)
    return apply(node.operator, evaluate(node.left), evaluate(node.right))


def apply(operator: str, left: Value, right: Value) -> Value:
    """`left operator right`, exactly. Raises: DataError for a division by zero."""
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    if operator == "*":
        return left * right
    if right == 0:
        raise DataError(f"{left}/{right} divides by zero; an expression needs non-zero divisors.")
    quotient = Fraction(left) / right
    return quotient.numerator if quotient.denominator == 1 else quotient


def to_text(node: Node) -> str:
    """A tree as it is written, without spaces."""
    if isinstance(node, Number):
        return node.text or number_text(node.value)
    if isinstance(node, Negative):
        return f"-{to_text(node.operand)}"
    if isinstance(node, Group):
        return f"({to_text(node.inner)})"
    return f"{to_text(node.left)}{node.operator}{to_text(node.right)}"


def literals(node: Node) -> Iterator[Value]:
    """The numbers of a tree, left to right; `-5` counts as -5, `-(5+1)` has 5 and 1."""
    if isinstance(node, Number):
        yield node.value
    elif isinstance(node, Negative):
        yield from literals(node.operand)
    elif isinstance(node, Group):
        yield from literals(node.inner)
    else:
        yield from literals(node.left)
        yield from literals(node.right)


def reductions(node: Node) -> Iterator[tuple[Operation, Node]]:
    """One operation at a time, (the operation on two numbers, the tree with its result in its place).

    Order: the deepest brackets first, then products before sums, then left to right.

    >>> [(to_text(step), to_text(rest)) for step, rest in reductions(parse("4-2*(3-8)"))]
    [('3-8', '4-2*-5'), ('2*-5', '4--10'), ('4--10', '14')]
    """
    node = _folded(node)
    while not isinstance(node, Number):
        target = max(_ready(node, 0), key=lambda found: found[0])[1]
        result = Number(evaluate(target))
        node = _folded(_replaced(node, target, result))
        yield target, node


def number_text(value: Value) -> str:
    """A rational as an integer, as a decimal when it has finitely many (at most 12) places, else as `p/q`.

    >>> [number_text(Fraction(*pair)) for pair in ((-6, 2), (1, 8), (1, 3))]
    ['-3', '0.125', '1/3']
    """
    if value.denominator == 1:
        return str(value.numerator)
    for places in range(1, 13):
        scaled = value * 10**places
        if scaled.denominator == 1:
            digits = str(abs(scaled.numerator)).rjust(places + 1, "0")
            return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"
    return str(value)


def read_integer(text: str) -> int | None:
    """The integer a text is, surrounding blanks aside, or None: ASCII digits with an optional sign, nothing else.

    >>> [read_integer(text) for text in (" -7 ", "7.0", "1_000", "")]
    [-7, None, None, None]
    """
    text = text.strip()
    if len(text) > MAX_DIGITS + 1 or not _INTEGER.fullmatch(text):
        return None
    return int(text)


def read_number(text: str) -> Fraction | None:
    """The rational a text is, or None: a decimal, or two decimals with one `/` between them.

    >>> [read_number(text) for text in ("0.50", ".5", "-1/2", "1/0", "1e3")]
    [Fraction(1, 2), Fraction(1, 2), Fraction(-1, 2), None, None]
    """
    over, slash, under = text.strip().partition("/")
    numerator = _decimal(over)
    denominator = _decimal(under) if slash else Fraction(1)
    return numerator / denominator if numerator is not None and denominator else None


def _decimal(text: str) -> Fraction | None:
    text = text.strip()
    if len(text) > MAX_DIGITS + 2 or not _NUMBER.fullmatch(text):
        return None
    return Fraction(text)


def _ready(node: Node, depth: int) -> Iterator[tuple[tuple[int, bool], Operation]]:
    """Operations whose operands are numbers, left to right, with (bracket depth, is a product)."""
    if isinstance(node, Group):
        yield from _ready(node.inner, depth + 1)
    elif isinstance(node, Negative):
        yield from _ready(node.operand, depth)
    elif isinstance(node, Operation):
        if isinstance(node.left, Number) and isinstance(node.right, Number):
            yield (depth, node.operator in "*/"), node
        else:
            yield from _ready(node.left, depth)
            yield from _ready(node.right, depth)


def _replaced(node: Node, target: Operation, result: Number) -> Node:
    if node is target:
        return result
    if isinstance(node, Operation):
        return Operation(node.operator, _replaced(node.left, target, result), _replaced(node.right, target, result))
    if isinstance(node, Group):
        return Group(_replaced(node.inner, target, result))
    if isinstance(node, Negative):
        return Negative(_replaced(node.operand, target, result))
    return node


def _folded(node: Node) -> Node:
    """The tree with brackets and signs around single numbers absorbed into the number."""
    if isinstance(node, Operation):
        return Operation(node.operator, _folded(node.left), _folded(node.right))
    if isinstance(node, Group):
        inner = _folded(node.inner)
        return inner if isinstance(inner, Number) else Group(inner)
    if isinstance(node, Negative):
        inner = _folded(node.operand)
        return Number(-inner.value) if isinstance(inner, Number) else Negative(inner)
    return node


class _Parser:
    """Recursive descent over the tokens of one text."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_LENGTH:
            raise DataError(f"The expression has {len(text)} characters; at most {MAX_LENGTH} are read.")
        self.text = text
        self.tokens = self._tokens(text.rstrip())
        self.position = 0
        self.depth = 0

    def whole(self) -> Node:
        node = self._sum()
        if self.position < len(self.tokens):
            raise self._error(f"unexpected {self.tokens[self.position]!r}")
        return node

    def _tokens(self, text: str) -> list[str]:
        tokens, position = [], 0
        while position < len(text):
            found = _TOKEN.match(text, position)
            if found is None:
                raise self._error(f"unexpected {text[position]!r}")
            token = found[1] or found[2]
            if len(token) > MAX_DIGITS + 1:
                raise self._error(f"a number of {len(token)} characters (at most {MAX_DIGITS} digits)")
            tokens.append(token)
            position = found.end()
        return tokens

    def _error(self, reason: str) -> DataError:
        return DataError(f"{self.text[:60]!r} is not an expression: {reason}. Use numbers, + - * / and brackets.")

    def _peek(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        self.position += 1
        return token

    def _sum(self) -> Node:
        node = self._product()
        while self._peek() in ("+", "-"):
            node = Operation(self._next(), node, self._product())
        return node

    def _product(self) -> Node:
        node = self._signed()
        while self._peek() in ("*", "/"):
            node = Operation(self._next(), node, self._signed())
        return node

    def _signed(self) -> Node:
        token = self._next()
        if token == "" or token in "+*/)":
            raise self._error(f"a number or bracket is missing before {token!r}" if token else "it ends too early")
        if token not in ("-", "("):
            return Number(Fraction(token) if "." in token else int(token), token)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self._error(f"nested deeper than {MAX_DEPTH}")
        node = self._negated() if token == "-" else self._bracketed()
        self.depth -= 1
        return node

    def _negated(self) -> Node:
        operand = self._signed()
        if isinstance(operand, Number) and operand.value >= 0:
            return Number(-operand.value, f"-{operand.text}")
        return Negative(operand)

    def _bracketed(self) -> Node:
        inner = self._sum()
        if self._next() != ")":
            raise self._error("a bracket is not closed")
        return Group(inner)
