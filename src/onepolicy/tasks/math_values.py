"""Whether two formulas are equal: exactly where they are rational, else by their values to 60 digits at fixed points.

Values are computed by mpmath with bounds on magnitude, so that every formula of the grammar ends in microseconds or is
refused. Two formulas in variables are equal when they agree wherever both are real, and are real at the same points:
sqrt(x^2) is not x, sqrt(1/n) is 1/sqrt(n). Points come from a hash of the variable's name: nothing is random.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import mpmath  # type: ignore[import-untyped]

from onepolicy.tasks.math_formula import (
    EULER,
    IMAGINARY,
    INFINITY,
    NEGATIVE_INFINITY,
    PI,
    Call,
    Formula,
    Number,
    Symbol,
    Unread,
    free_symbols,
)

DIGITS = 60
"""Decimal digits that values are computed to; again with twice as many where they might be zero."""
AGREE = -45
"""Two values agree when their difference is below 10 to this power, relative to the larger one."""
MAX_BITS = 50_000
"""Bits of an exact number at most."""
MAX_MAGNITUDE = 1_000_000
"""Binary digits before the point of a computed value at most."""
PLACES = 6
"""Decimal places, and significant digits, a decimal needs to stand for a value that no decimal writes exactly."""
NOISE_DIGITS = 15
"""Significant digits from which on a decimal may carry the noise of binary arithmetic, 1e-14 relative."""
POINTS = 10
"""Points at which formulas with variables are compared."""

_CONTEXTS = threading.local()
_RANGES = ((0.1, 0.6), (0.7, 3.0), (-0.6, -0.1), (-3.0, -0.7), (3.0, 9.0))
_COUNTING = "ijklmnpqdrsNKMLRC"
"""First letters of variables that are taken for whole numbers in formulas of floors, factorials and signs."""
_WHOLE = {"floor", "ceil", "fact", "binom"}
_MP_NAMES = {
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arccot": "acot", "arcsec": "asec", "arccsc": "acsc",
    "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh", "ln": "ln", "sqrt": "sqrt", "abs": "fabs",
}  # fmt: skip


def equal(gold: Formula, answer: Formula, relative: float = 0.0, absolute: float = 0.0) -> bool:
    """Whether two formulas have the same value.

    relative, absolute: tolerances for numbers, in parts of the gold value and in its unit; 0 is exact. Without them
    a decimal of at least PLACES places is also right as the rounding (or cut) of a value that has no exact
    decimal, and one of at least NOISE_DIGITS digits within 1e-14.
    Raises: Unread where a value cannot be computed within the bounds.
    """
    if gold == answer:
        return True
    one, two = exact(gold), exact(answer)
    if one is not None and two is not None and not (relative or absolute):
        return one == two or _rounds(gold, one, two) or _rounds(answer, two, one)
    if not free_symbols(gold) and not free_symbols(answer):
        return _numbers_equal(gold, answer, relative, absolute)
    if _agree_at(gold, answer, _points(gold, answer, whole=False)):
        return True
    counting = all(name.lstrip("\\")[0] in _COUNTING for name in free_symbols(gold) | free_symbols(answer))
    return (
        counting
        and _of_whole(gold)
        and _of_whole(answer)
        and _agree_at(gold, answer, _points(gold, answer, whole=True))
    )


def exact(formula: Formula) -> Fraction | None:
    """The rational number a formula is, or None where it is none or too large. Raises: Unread for a division by 0."""
    if isinstance(formula, Number):
        return formula.value
    if isinstance(formula, Symbol):
        return None
    values = []
    for argument in formula.args:
        value = exact(argument)
        if value is None:
            return None
        values.append(value)
    result = _exact_call(formula.name, values)
    if result is not None and max(result.numerator.bit_length(), result.denominator.bit_length()) > MAX_BITS:
        return None
    return result


def value(formula: Formula, digits: int = DIGITS, at: Mapping[str, Any] | None = None) -> Any:
    """A formula's value as mpmath's real or complex number. Raises: Unread outside the bounds or the domain."""
    context = _context(digits)
    try:
        return _value(formula, context, at or {})
    except (ArithmeticError, ValueError, TypeError, MemoryError) as error:
        raise Unread(f"no value ({error})") from None


def scale(formula: Formula) -> float | None:
    """A formula without variables as a float, for sorting; None where it has no real value."""
    if formula == INFINITY:
        return float("inf")
    if formula == NEGATIVE_INFINITY:
        return float("-inf")
    if free_symbols(formula):
        return None
    found = value(formula)
    return None if _complex(found) else float(found)


def _exact_call(name: str, values: list[Fraction]) -> Fraction | None:
    if name == "add":
        return sum(values, Fraction(0))
    if name == "mul":
        return _product(values)
    if name == "neg":
        return -values[0]
    if name == "abs":
        return abs(values[0])
    if name == "div":
        if values[1] == 0:
            raise Unread("a division by zero")
        return values[0] / values[1]
    if name == "pow":
        return _exact_power(values[0], values[1])
    if name in ("floor", "ceil"):
        return Fraction(values[0].__floor__() if name == "floor" else values[0].__ceil__())
    if name == "fact" and values[0].denominator == 1 and 0 <= values[0] <= 3000:
        return Fraction(math.factorial(int(values[0])))
    if name == "binom" and all(v.denominator == 1 for v in values) and 0 <= values[1] <= values[0] <= 3000:
        upper, lower = int(values[0]), int(values[1])
        return Fraction(math.factorial(upper), math.factorial(lower) * math.factorial(upper - lower))
    return _exact_root(name, values)


def _product(values: list[Fraction]) -> Fraction | None:
    """The product, or None where it outgrows MAX_BITS on the way."""
    result = Fraction(1)
    for factor in values:
        result *= factor
        if max(result.numerator.bit_length(), result.denominator.bit_length()) > MAX_BITS:
            return None
    return result


def _exact_power(base: Fraction, power: Fraction) -> Fraction | None:
    if power.denominator != 1:
        return _exact_root("root", [base, Fraction(power.denominator)]) if power.numerator == 1 else None
    if base == 0 and power < 0:
        raise Unread("a division by zero")
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    return base**power.numerator if bits * abs(power.numerator) <= MAX_BITS else None


def _exact_root(name: str, values: list[Fraction]) -> Fraction | None:
    """A square or higher root that is rational."""
    degree = {"sqrt": 2}.get(name, int(values[1]) if name == "root" and values[1].denominator == 1 else 0)
    if not 2 <= degree <= 20 or values[0] < 0 or values[0].numerator.bit_length() > 4000:
        return None
    roots = [_integer_root(part, degree) for part in (values[0].numerator, values[0].denominator)]
    return Fraction(roots[0], roots[1]) if roots[0] is not None and roots[1] is not None else None


def _integer_root(number: int, degree: int) -> int | None:
    guess = 1 << -(-number.bit_length() // degree)
    while guess**degree > number:
        guess = ((degree - 1) * guess + number // guess ** (degree - 1)) // degree
    return guess if guess**degree == number else None


def _context(digits: int) -> Any:
    """This thread's arithmetic of so many digits; mpmath's own global one is not safe in threads."""
    contexts: dict[int, Any] = _CONTEXTS.__dict__.setdefault("by_digits", {})
    if digits not in contexts:
        contexts[digits] = mpmath.MPContext()
        contexts[digits].dps = digits
    return contexts[digits]


def _value(formula: Formula, context: Any, at: Mapping[str, Any]) -> Any:
    if isinstance(formula, Number):
        return context.mpf(formula.value.numerator) / formula.value.denominator
    if isinstance(formula, Symbol):
        constants = {PI: context.pi, EULER: context.e, IMAGINARY: context.mpc(0, 1)}
        if formula in constants:
            return +constants[formula]
        if formula.name not in at:
            raise Unread(f"{formula.name} has no value")
        return context.mpf(at[formula.name])
    values = [_value(argument, context, at) for argument in formula.args]
    result = _real_root(formula, values, context)
    if result is None:
        result = _call(formula.name, values, context)
    if context.isnan(result) or context.isinf(result) or (result != 0 and abs(context.mag(result)) > MAX_MAGNITUDE):
        raise Unread("a value out of bounds")
    return result


def _call(name: str, values: list[Any], context: Any) -> Any:
    first = values[0]
    if name == "add":
        return context.fsum(values)
    if name == "mul":
        return context.fprod(values)
    if name == "div":
        return first / values[1]
    if name == "neg":
        return -first
    if name == "pow":
        return _power(first, values[1], context)
    if name == "root":
        return _power(first, 1 / values[1], context)
    if name == "log":
        return context.ln(first) / context.ln(values[1])
    if name in ("floor", "ceil"):
        return getattr(context, name)(first)
    if name in ("fact", "binom"):
        if max(abs(number) for number in values) > 100_000:
            raise Unread("a factorial out of bounds")
        return context.factorial(first) if name == "fact" else context.binomial(first, values[1])
    if context.mag(first) > 4096:
        raise Unread("an argument out of bounds")
    return getattr(context, _MP_NAMES.get(name, name))(first)


def _real_root(formula: Call, values: list[Any], context: Any) -> Any:
    """The real value of a negative number to a power with an odd denominator, as in school; None for all else."""
    if formula.name not in ("pow", "root") or not isinstance(values[0], context.mpf) or values[0] >= 0:
        return None
    power = exact(formula.args[1])
    if power is not None and formula.name == "root" and power != 0:
        power = 1 / power
    if power is None or power.denominator == 1 or power.denominator % 2 == 0 or power.denominator > 99:
        return None
    size = _power(-values[0], context.mpf(power.numerator) / power.denominator, context)
    return -size if power.numerator % 2 else size


def _power(base: Any, power: Any, context: Any) -> Any:
    if base != 0 and abs(context.mag(base)) * max(abs(power), 1) > MAX_MAGNITUDE:
        raise Unread("a power out of bounds")
    return context.power(base, power)


def _numbers_equal(gold: Formula, answer: Formula, relative: float, absolute: float) -> bool:
    for infinite in (INFINITY, NEGATIVE_INFINITY):
        if infinite in (gold, answer):
            return gold == answer
    one, two = value(gold), value(answer)
    if relative or absolute:
        return bool(abs(one - two) <= max(relative * abs(one), absolute))
    if _same(one, two) or (_vanishes(gold, one) and _vanishes(answer, two)):
        return True
    if _complex(one) or _complex(two):
        return False
    return _rounds(gold, None, two) or _rounds(answer, None, one)


def _same(one: Any, two: Any) -> bool:
    larger = max(abs(one), abs(two))
    return bool(larger == 0 or abs(one - two) <= larger * one.context.mpf(10) ** AGREE)


def _vanishes(formula: Formula, found: Any, point: Mapping[str, Fraction] | None = None) -> bool:
    """Whether a value is 0 but for rounding: it shrinks with the rounding when computed to twice the digits."""
    if found == 0:
        return True
    if abs(found) >= 1e-30:
        return False
    again = _value_at(formula, point or {}, 2 * DIGITS)
    return again is not None and bool(abs(again) < abs(found) * 1e-30)


def _complex(number: Any) -> bool:
    """Whether a value has an imaginary part that is more than rounding."""
    imaginary = abs(number.imag)
    return bool(imaginary > abs(number) * number.context.mpf(10) ** AGREE)


def _rounds(decimal: Formula, number: Fraction | None, other: Any) -> bool:
    """Whether a decimal literal stands for `other`, a Fraction or a computed real: its rounding, cut, or noise.

    number: the literal's value where `other` is exact too; a rational that some decimal writes exactly is not rounded.
    """
    while isinstance(decimal, Call) and decimal.name == "neg":
        decimal, other = decimal.args[0], -other
    if not isinstance(decimal, Number) or "." not in decimal.text or "e" in decimal.text.lower():
        return False
    places = len(decimal.text.partition(".")[2])
    digits = decimal.text.lstrip("-").replace(".", "").lstrip("0")
    written = decimal.value
    if not isinstance(other, Fraction):
        if abs(other.real) > 10**30:
            return False
        other = Fraction(str(other.context.nstr(other.real, DIGITS - 10, min_fixed=-400, max_fixed=400)))
    elif _terminates(other):
        return len(digits) >= NOISE_DIGITS and abs(written - other) <= abs(other) * Fraction(1, 10**14)
    if min(len(digits), places) < PLACES:
        return False
    scaled, target = other * 10**places, written * 10**places
    return bool(target in (scaled.__trunc__(), round(scaled)) or abs(scaled - target) <= abs(target) / 10**14)


def _terminates(number: Fraction) -> bool:
    """Whether finitely many decimal places write a rational."""
    rest = number.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1


def _of_whole(formula: Formula) -> bool:
    """Whether a formula has functions of whole numbers, or a negative number to a variable power."""
    if not isinstance(formula, Call):
        return False
    if formula.name in _WHOLE:
        return True
    if formula.name == "pow" and free_symbols(formula.args[1]):
        base = exact(formula.args[0])
        if base is not None and base < 0:
            return True
    return any(_of_whole(argument) for argument in formula.args)


def _points(gold: Formula, answer: Formula, *, whole: bool) -> Iterator[dict[str, Fraction]]:
    names = sorted(free_symbols(gold) | free_symbols(answer))
    for point in range(POINTS):
        found = {}
        for name in names:
            digest = hashlib.blake2b(f"{name}/{point}".encode(), digest_size=6).digest()
            share = Fraction(int.from_bytes(digest, "big"), 2**48)
            low, high = (Fraction(end) for end in _RANGES[point % len(_RANGES)])
            found[name] = Fraction(1 + int(share * 40)) if whole else low + share * (high - low)
        yield found


def _agree_at(gold: Formula, answer: Formula, points: Iterator[dict[str, Fraction]]) -> bool:
    """Whether two formulas agree at enough points: wherever both are real, and nowhere is only one of them real."""
    real = complex_ = 0
    imaginary = _has_i(gold) or _has_i(answer)
    for point in points:
        one, two = _value_at(gold, point), _value_at(answer, point)
        if (one is None) != (two is None):
            return False
        if one is None:
            continue
        if not imaginary and _complex(one) != _complex(two):
            return False
        same = _same(one, two) or (_vanishes(gold, one, point) and _vanishes(answer, two, point))
        if _complex(one) and not imaginary:
            complex_ += same
            continue
        if not same:
            return False
        real += 1
    return real >= 3 or (real == 0 and complex_ >= 6)


def _value_at(formula: Formula, point: Mapping[str, Fraction], digits: int = DIGITS) -> Any:
    """A formula's value at a point, or None where it has none."""
    context = _context(digits)
    try:
        return value(formula, digits, at={name: context.mpf(v.numerator) / v.denominator for name, v in point.items()})
    except Unread:
        return None


def _has_i(formula: Formula) -> bool:
    if isinstance(formula, Call):
        return any(_has_i(argument) for argument in formula.args)
    return formula == IMAGINARY


def value_at_first_point(formula: Formula, of: Formula) -> Any:
    """A formula's value at the first point that `of` is compared at, or None where it has none."""
    return _value_at(formula, next(_points(of, of, whole=False)))
