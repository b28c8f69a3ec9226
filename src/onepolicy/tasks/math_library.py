r"""math-verify behind a strict wrapper, for what the grammar does not read: sums, integrals, limits, remainders.

Both sides go into `\boxed{}` and are read by the LaTeX reader alone, without anchors, first matches or fall-backs; a
formula that is not read to its end is not read. Numbers are compared to 30 digits, not to the library's 6 places. Its
own time-outs use a signal that breaks in threads, so they are off, and what may take long is refused before; a hard
limit is the business of the pool of worker processes. The library's `parse_expr` route, which evaluates Python, is
never configured. Source: math-verify 0.9 (github.com/huggingface/Math-Verify).
"""

from __future__ import annotations

import logging
import re
from functools import cache
from typing import Any

from onepolicy.tasks.math_formula import Unread

MAX_LENGTH = 300
"""Characters of a formula given to the library at most."""
_NESTING = 12
_HARD = re.compile(
    r"!|\\[dt]?binom|\d{7,}|\^\s*\{?\s*-?\d{4,}|\\operatorname|\\det|\\rm\b|_\s*\{[^{}]*\d{5,}|(?<![A-Za-z\\])[A-Za-z]\d"
)
_ITS_OWN = re.compile(
    r"\\(?:sum|prod|i*nt|lim|gcd|lcm|max|min|[bp]?mod|begin|cap|setminus|backslash|Re|Im|arg|partial)(?![A-Za-z])"
)


def worth_asking(text: str) -> bool:
    """Whether a text has anything that the library reads and the grammar does not; asking takes 20 to 500 ms."""
    return _ITS_OWN.search(text) is not None


def read(text: str) -> Any:
    """The library's reading of a formula. Raises: Unread where it has none, reads a part only, or is not asked."""
    if len(text) > MAX_LENGTH or _depth(text) > _NESTING or _tower(text) > 2 or _HARD.search(text):
        raise Unread("neither read nor given to math-verify (too long or too large)")
    parse, config, normalised, parser = _library()
    boxed = f"\\boxed{{{text}}}"
    try:
        found = parse(
            boxed,
            [config],
            fallback_mode="no_fallback",
            extraction_mode="first_match",
            parsing_timeout=None,
        )
    except (ValueError, TypeError, ArithmeticError, AttributeError, RecursionError) as error:
        raise Unread(f"math-verify does not read it ({error})") from None
    if len(found) != 1 or isinstance(found[0], str) or not _to_its_end(parser, normalised(boxed, config)):
        raise Unread("neither the grammar nor math-verify reads it")
    return found[0]


def same(gold: Any, answer: Any) -> bool:
    """Whether two readings are equal by the library's rules, at 30 digits.

    A sum, product, integral, limit or derivative is never evaluated: it equals only what is written the same way, up to
    the order of factors and terms. To repeat the question is no answer, and evaluation has no bounds.
    """
    from math_verify import verify
    from sympy import Derivative, Integral, Limit, Product, Sum

    try:
        if any(side.has(Derivative, Integral, Limit, Product, Sum) for side in (gold, answer)):
            return bool(_ordered(gold) == _ordered(answer))
        return bool(verify(gold, answer, float_rounding=30, numeric_precision=50, timeout_seconds=None))
    except (ValueError, TypeError, ArithmeticError, AttributeError, NotImplementedError, RecursionError):
        return False


def _ordered(expression: Any) -> Any:
    """An expression with the factors and terms of every product and sum in the library's own order."""
    from sympy import Add, Mul

    if not expression.args:
        return expression
    parts = [_ordered(part) for part in expression.args]
    if isinstance(expression, Add | Mul):
        return type(expression)(*sorted(parts, key=str), evaluate=False)
    return expression.func(*parts)


@cache
def _library() -> tuple[Any, Any, Any, Any]:
    from latex2sympy2_extended.latex2sympy2 import _Latex2Sympy, normalize_latex
    from math_verify import LatexExtractionConfig, parse

    for name in ("math_verify.parser", "math_verify.grader"):
        logging.getLogger(name).setLevel(logging.ERROR)  # it warns once that its own time-outs are off
    config = LatexExtractionConfig(boxed_match_priority=0, try_extract_without_anchor=False)
    return parse, config, lambda text, config: normalize_latex(text, config.normalization_config), _Latex2Sympy


def _to_its_end(parser: Any, text: str) -> bool:
    """Whether the library's grammar takes the whole text; by itself it is content with a beginning."""
    try:
        state = parser().create_parser(text)
        state.math()
        return bool(state.getCurrentToken().type == -1)
    except Exception:  # noqa: BLE001  the library raises bare Exception for a syntax error
        return False


def _depth(text: str) -> int:
    depth = deepest = 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        deepest = max(deepest, depth)
    return deepest


def _tower(text: str) -> int:
    """How many powers stand on one another."""
    tower, found = [0], 0
    power = False
    for letter in text:
        if letter in "([{":
            tower.append(tower[-1] + power)
        elif letter in ")]}" and len(tower) > 1:
            tower.pop()
        elif letter == "^":
            found = max(found, tower[-1] + 1 + (1 if power else 0))
        power = letter == "^" or (power and letter == " ")
    return found
