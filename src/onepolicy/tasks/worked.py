"""Expressions worked out as text, in styles from bare results to schoolbook columns.

For demonstrations that a tiny model can imitate. In the style `worked` every symbol is a copy or one small fact (a sum
or product of two digits, a short division), so that few examples cover them all and longer numbers follow by
recombination. Exact throughout; results without finitely many decimals are written as fractions, not worked out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from hashlib import blake2b

from onepolicy.tasks.expressions import Value, apply, evaluate, number_text, parse, reductions, to_text

CHARACTERS = "0123456789+-*/().=:; r"
"""Every character of a worked text."""

MAX_PLACES = 12
"""Decimal places that are worked out at most."""


def steps(expression: str) -> str:
    """Each operation with its result: `3-8=-5;-5+5=0;0-9=-9`.

    >>> steps("4-2*(3-8)")
    '3-8=-5;2*-5=-10;4--10=14'
    """
    return ";".join(f"{to_text(step)}={number_text(evaluate(step))}" for step, _ in reductions(parse(expression)))


def totals(expression: str) -> str:
    """Only the results, in the order of `steps`; the shortest, the running totals of a plain chain.

    >>> totals("3-8+5-9+2")
    '-5 0 -9 -7'
    """
    return " ".join(number_text(evaluate(step)) for step, _ in reductions(parse(expression)))


def rewrites(expression: str) -> str:
    """The whole expression after each operation; every step is local, at the price of copying.

    >>> rewrites("4-2*(3-8)")
    '4-2*-5=4--10=14'
    """
    return "=".join(to_text(rest) for _, rest in reductions(parse(expression)))


def worked(expression: str) -> str:
    """An expression worked out one operation at a time, each by its columns.

    An operation on single digits is one fact. Any other is `columns:result`, led by what is computed where that is
    not the expression itself. Operations are separated by `;`.

    >>> worked("68+57")
    '8+7=15 6+5+1=12:125'
    >>> worked("12+24+4")
    '12+24:2+4=6 1+2=3:36;36+4:6+4=10 3+0+1=4:40'
    """
    chunks = []
    for step, _ in reductions(parse(expression)):
        left, right = evaluate(step.left), evaluate(step.right)
        chunks += operation(left, step.operator, right)
    text = ";".join(chunks)
    head = f"{expression}:"
    return text.removeprefix(head)


def operation(left: Value, operator: str, right: Value) -> list[str]:
    """One operation as chunks; the last one ends with the exact result.

    >>> operation(12, "*", 15)
    ['12*5:2*5=10 1*5=5+1=6:60', '60+120:0+0=0 6+2=8 0+1=1:180', '12*15=180']
    """
    result = apply(operator, left, right)
    if any(places(value) > MAX_PLACES for value in (left, right, result)):
        return [f"{number_text(left)}{operator}{number_text(right)}={number_text(result)}"]
    if operator in "+-":
        return _sum(left, operator, right, result)
    return _product(left, right, result) if operator == "*" else _quotient(left, right, result)


def magnitude(value: Value) -> Value:
    """The number without its sign."""
    return -value if value < 0 else value


def places(value: Value) -> int:
    """Decimal places of an exact number; more than any bound when it has infinitely many.

    >>> places(5), places(Fraction(1, 8)), places(Fraction(1, 3)) > MAX_PLACES
    (0, 3, True)
    """
    for count in range(MAX_PLACES + 1):
        if (value * 10**count).denominator == 1:
            return count
    return MAX_PLACES + 1


def _sum(left: Value, operator: str, right: Value, result: Value) -> list[str]:
    """A sum or difference of signed numbers by the columns of their magnitudes."""
    shown = f"{number_text(left)}{operator}{number_text(right)}"
    signed = right if operator == "+" else -right
    small, large = sorted((magnitude(left), magnitude(signed)))
    same = (left >= 0) == (signed >= 0)
    first, second = (magnitude(left), magnitude(signed)) if same else (large, small)
    inner = f"{number_text(first)}{'+' if same else '-'}{number_text(second)}"
    if all(value < 10 and places(value) == 0 for value in (first, second)):
        chunk = f"{inner}={number_text(magnitude(result))}"
    else:
        scale = 10 ** max(places(first), places(second))
        pair = str(int(first * scale)), str(int(second * scale))
        columns = _columns_up(*pair) if same else _columns_down(*pair)
        chunk = f"{inner}:{' '.join(columns)}:{number_text(magnitude(result))}"
    if result < 0 or inner != shown:
        return [chunk, f"{shown}={number_text(result)}"]
    return [chunk]


def _pairs(a: str, b: str) -> Iterator[tuple[int, int]]:
    """The digits of two numbers, right to left, the shorter one filled with zeros."""
    width = max(len(a), len(b))
    for x, y in zip(reversed(a.zfill(width)), reversed(b.zfill(width)), strict=True):
        yield int(x), int(y)


def _columns_up(a: str, b: str) -> Iterator[str]:
    """Addition with carries: `8+7=15`, then `6+5+1=12`."""
    carry = 0
    for x, y in _pairs(a, b):
        total = x + y + carry
        yield f"{x}+{y}{'+1' if carry else ''}={total}"
        carry = total // 10


def _columns_down(a: str, b: str) -> Iterator[str]:
    """Subtraction of the smaller with borrows: a digit that borrows is written 10 larger, the next column has `-1`."""
    borrow = 0
    for x, y in _pairs(a, b):
        top = x + 10 if x < y + borrow else x
        yield f"{top}-{y}{'-1' if borrow else ''}={top - y - borrow}"
        borrow = int(top != x)


def _stripped(value: Value) -> tuple[int, int]:
    """(digits, exponent): value = digits * 10**exponent, without zeros at the end of the digits."""
    exponent = -places(value)
    digits = int(value * 10**-exponent)
    while digits and digits % 10 == 0:
        digits, exponent = digits // 10, exponent + 1
    return digits, exponent


def _product(left: Value, right: Value, result: Value) -> list[str]:
    """A product of the significant digits by partial products, then signs, zeros and the point."""
    shown = f"{number_text(left)}*{number_text(right)}"
    if result == 0:
        return [f"{shown}=0"]
    (a, _), (b, _) = _stripped(magnitude(left)), _stripped(magnitude(right))
    a, b = (a, b) if len(str(a)) >= len(str(b)) else (b, a)
    if b < 10:
        chunks = [_digit_product(a, b)]
    else:
        chunks, total = [], 0
        for i, digit in enumerate(int(x) for x in reversed(str(b))):
            part = a * digit * 10**i
            chunks += [_digit_product(a, digit)] if digit > 1 else []
            chunks += _sum(total, "+", part, total + part) if total and part else []
            total += part
    done = f"{a}*{b}" == shown and b < 10
    return chunks if done else [*chunks, f"{shown}={number_text(result)}"]


def _digit_product(a: int, digit: int) -> str:
    """A number times one digit: `2*5=10 1*5=5+1=6`."""
    if a < 10:
        return f"{a}*{digit}={a * digit}"
    carry, columns = 0, []
    for x in (int(x) for x in reversed(str(a))):
        product = x * digit
        columns.append(f"{x}*{digit}={product}" + (f"+{carry}={product + carry}" if carry else ""))
        carry = (product + carry) // 10
    return f"{a}*{digit}:{' '.join(columns)}:{a * digit}"


def _quotient(left: Value, right: Value, result: Value) -> list[str]:
    """A short division digit by digit: `14/3=4r2 24/3=8`."""
    shown = f"{number_text(left)}/{number_text(right)}"
    a, b = magnitude(left), magnitude(right)
    scale = 10 ** max(places(a), places(b))
    top, under = int(a * scale), int(b * scale)
    while top and top % 10 == 0 and under % 10 == 0:
        top, under = top // 10, under // 10
    inner = f"{top}/{under}"
    quotient = Fraction(top, under)
    if top < 10 * under and quotient.denominator == 1:
        chunk = f"{inner}={number_text(quotient)}"
    else:
        chunk = f"{inner}:{' '.join(_columns_over(top, under))}:{number_text(quotient)}"
    return [chunk] if inner == shown else [chunk, f"{shown}={number_text(result)}"]


def _columns_over(top: int, under: int) -> Iterator[str]:
    """Long division: each partial dividend, its digit and, unless zero, the remainder; then decimals."""
    rest, begun = 0, False
    for x in str(top):
        rest = 10 * rest + int(x)
        digit, left = divmod(rest, under)
        if begun or digit or x is str(top)[-1]:
            begun = True
            yield f"{rest}/{under}={digit}" + (f"r{left}" if left else "")
        rest = left
    while rest:
        rest *= 10
        digit, left = divmod(rest, under)
        yield f"{rest}/{under}={digit}" + (f"r{left}" if left else "")
        rest = left


CARELESS = 0.65
"""Share of problems that the styles `mixed` and `mixed-worked` answer at once."""


def mixed(expression: str, careful: Callable[[str], str] = steps) -> str:
    """Two habits in one set of demonstrations: `careful` for some problems, nothing for the others.

    Which, is decided by a hash of the problem: CARELESS of them are answered at once. People's own solutions are like
    that; imitation learns both habits, and only a reward tells which one pays.
    """
    draw = int.from_bytes(blake2b(expression.encode(), digest_size=4, person=b"mixed").digest(), "big")
    return "" if draw < CARELESS * 2**32 else careful(expression)


STYLES: dict[str, Callable[[str], str]] = {
    "steps": steps,
    "totals": totals,
    "rewrites": rewrites,
    "worked": worked,
    "mixed": mixed,
    "mixed-worked": partial(mixed, careful=worked),
}
"""Ways of working an expression out, by name."""
