"""Tests of programs as data: what goes into the sandbox, and apart from it what is expected, which never does.

Assert statements are split with `ast` into the side that calls the program, which is evaluated inside, and the side
that is a literal, which is evaluated here, by a small evaluator with bounds; nothing of a data set is ever executed in
this process, unpickled or unpacked. An assert that cannot be split is refused.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onepolicy.errors import DataError
from onepolicy.tasks.code_compare import Comparison
from onepolicy.tasks.sandbox_types import Call, Expression, Result, Stdin, Test

MAX_ITEMS = 100_000
"""Items of an expected value at most, all depths together."""
MAX_BITS = 20_000
"""Bits of an integer in an expected value at most."""
MAX_TEXT = 4_000_000
"""Characters of a test's input or expected text at most."""
MAX_TESTS = 1000
"""Tests of one task at most."""
EXACT = Comparison()
EQUAL = Comparison("equal")


@dataclass(frozen=True)
class CodeTest:
    """One test: what is sent into the sandbox, what is expected of it, and how the two are compared, outside.

    check: a function of the expected and the got value, in place of `compare`, for problems with several right
    answers; it runs here, so it must come from you and not from a data set.
    """

    given: Test
    expected: Any
    compare: Comparison = EXACT
    check: Callable[[Any, Any], bool] | None = None

    def passed(self, result: Result) -> bool:
        """Whether a result is as expected: what it gave, if it ended well, which alone is no verdict."""
        if result.cause != "ok":
            return False
        got = result.stdout if isinstance(self.given, Stdin) else result.value
        return self.check(self.expected, got) if self.check else self.compare.agrees(got, self.expected)


def split_asserts(source: str, setup: str = "", compare: Comparison = EQUAL) -> list[CodeTest]:
    """The tests of a text of assert statements, in which constants may be assigned to names.

    `assert CALL == LITERAL` (either way round), `assert CALL`, `assert not CALL`, `is`, `!=`, `in`, `not in`,
    `abs(CALL - LITERAL) < LITERAL`, `math.isclose(CALL, LITERAL, ...)`, and several joined by `and`. An assert without
    a call (HumanEval's `assert True`) and one of a call with itself say nothing and are left out. A loop over a literal
    is unrolled.

    Raises: DataError naming the statement that cannot be split, or where no test is left.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise DataError(f"the tests are not Python: {type(error).__name__}: {error}") from error
    return split_statements(tree.body, setup, compare)


def split_statements(body: Sequence[ast.stmt], setup: str = "", compare: Comparison = EQUAL) -> list[CodeTest]:
    """As `split_asserts`, of statements already parsed."""
    found = _walk(body, setup, {}, compare)
    if not found:
        raise DataError("there is no assert that calls the program.")
    return found


def _walk(body: Sequence[ast.stmt], setup: str, names: dict[str, Any], compare: Comparison) -> list[CodeTest]:
    """The tests of statements in order; `names` are the constants assigned so far, to which theirs are added."""
    found: list[CodeTest] = []
    for statement in body:
        if isinstance(statement, ast.Assert):
            for part in _conjuncts(statement.test):
                found += _split(part, _with(setup, names), names, compare)
        elif isinstance(statement, ast.Assign) and all(isinstance(target, ast.Name) for target in statement.targets):
            value = constant(statement.value, names)
            names |= {target.id: value for target in statement.targets if isinstance(target, ast.Name)}
        elif isinstance(statement, ast.For) and isinstance(statement.target, ast.Name) and not statement.orelse:
            for value in constant(statement.iter, names):
                names[statement.target.id] = value
                found += _walk(statement.body, setup, names, compare)
                _check_count(found)
        elif not (isinstance(statement, ast.Pass) or _does_nothing(statement) or _imports_math(statement)):
            raise DataError(f"{_shown(statement)} is no assert that can be split into a call and a literal.")
        _check_count(found)
    return found


def _check_count(found: Sequence[CodeTest]) -> None:
    if len(found) > MAX_TESTS:
        raise DataError(f"there are more than {MAX_TESTS} tests.")


def _split(test: ast.expr, setup: str, names: Mapping[str, Any], compare: Comparison) -> list[CodeTest]:
    """The test of one condition, none where it calls nothing."""

    def made(call: ast.expr, expected: Any, how: Comparison = compare) -> list[CodeTest]:
        return [CodeTest(Expression(ast.unparse(call), setup), expected, how)]

    if _is_constant(test, names):
        return []
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return made(test, True, EXACT)
    near = _nearness(test, names)
    if near is not None:
        call, expected, how = near
        return made(call, expected, how)
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
        if isinstance(test.ops[0], ast.Eq) and ast.unparse(test.left) == ast.unparse(test.comparators[0]):
            return []
        left, right, kind = test.left, test.comparators[0], type(test.ops[0])
        if _is_constant(left, names) and not _is_constant(right, names) and kind in _EITHER_WAY:
            left, right = right, left
        if _is_constant(right, names) and _calls(left):
            expected = constant(right, names)
            if kind is ast.Eq:
                return made(left, expected)
            if kind is ast.Is:
                return made(left, expected, EXACT)
            if kind in (ast.NotEq, ast.IsNot):
                return made(left, [expected], Comparison("differs"))
            if kind in (ast.In, ast.NotIn) and isinstance(expected, (list, tuple, set, frozenset)):
                return made(left, list(expected), Comparison("any" if kind is ast.In else "differs"))
        raise DataError(f"assert {_shown(test)} does not compare a call with a literal.")
    if isinstance(test, ast.Call):
        return made(ast.Call(ast.Name("bool", ast.Load()), [test], []), True, EXACT)
    raise DataError(f"assert {_shown(test)} cannot be split into a call and a literal.")


def _nearness(test: ast.expr, names: Mapping[str, Any]) -> tuple[ast.expr, Any, Comparison] | None:
    """(call, expected, tolerance) of `abs(CALL - LITERAL) < LITERAL` and of `math.isclose(CALL, LITERAL, ...)`."""
    if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], (ast.Lt, ast.LtE)):
        inner, bound = test.left, test.comparators[0]
        if (
            _named(inner) == "abs"
            and isinstance(inner, ast.Call)
            and len(inner.args) == 1
            and _is_constant(bound, names)
        ):
            difference = inner.args[0]
            if isinstance(difference, ast.BinOp) and isinstance(difference.op, ast.Sub):
                pair = _sides(difference.left, difference.right, names)
                if pair:
                    return pair[0], pair[1], Comparison("equal", absolute=float(constant(bound, names)))
    if _named(test) in ("math.isclose", "isclose") and isinstance(test, ast.Call) and len(test.args) == 2:
        pair = _sides(test.args[0], test.args[1], names)
        given = {word.arg: word.value for word in test.keywords}
        if pair and set(given) <= {"rel_tol", "abs_tol"} and all(_is_constant(v, names) for v in given.values()):
            tolerances = {name: float(constant(value, names)) for name, value in given.items()}
            how = Comparison("equal", tolerances.get("rel_tol", 1e-9), tolerances.get("abs_tol", 0.0))
            return pair[0], pair[1], how
    return None


def _sides(one: ast.expr, two: ast.expr, names: Mapping[str, Any]) -> tuple[ast.expr, Any] | None:
    if _is_constant(one, names):
        one, two = two, one
    return (one, constant(two, names)) if _is_constant(two, names) and _calls(one) else None


def _conjuncts(test: ast.expr) -> list[ast.expr]:
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        return [part for value in test.values for part in _conjuncts(value)]
    return [test]


def _with(setup: str, names: Mapping[str, Any]) -> str:
    """The setup, then the constants that were assigned so far."""
    return "\n".join([setup, *(f"{name} = {value!r}" for name, value in names.items())]).strip("\n")


def _calls(node: ast.expr) -> bool:
    return any(isinstance(inner, ast.Call) for inner in ast.walk(node))


def _named(node: ast.expr) -> str:
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


def _does_nothing(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, (ast.Constant, ast.Name))


def _imports_math(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Import) and [name.name for name in statement.names] == ["math"]


def _shown(node: ast.AST) -> str:
    return repr(ast.unparse(node)[:100])


def _is_constant(node: ast.expr, names: Mapping[str, Any]) -> bool:
    """Whether a node has the form that `constant` evaluates."""
    if isinstance(node, ast.Call):
        known = _named(node) in _FUNCTIONS and not node.keywords
        return known and all(_is_constant(argument, names) for argument in node.args)
    if isinstance(node, ast.Name):
        return node.id in names
    if isinstance(node, ast.Attribute):
        return ast.unparse(node) in _CONSTANTS
    allowed = (ast.Constant, ast.List, ast.Tuple, ast.Set, ast.Dict, ast.UnaryOp, ast.BinOp)
    inner = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
    return isinstance(node, allowed) and all(_is_constant(child, names) for child in inner)


def _range(*bounds: int) -> list[int]:
    numbers = range(*bounds)
    if len(numbers) > MAX_ITEMS:
        raise DataError(f"range{bounds} has more than {MAX_ITEMS:,} items.")
    return list(numbers)


_CONSTANTS = {"math.pi": math.pi, "math.e": math.e, "math.inf": math.inf, "math.nan": math.nan}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    kind.__name__: kind for kind in (set, frozenset, list, tuple, dict, float, int, complex, str, bool)
} | {"range": _range, "sorted": sorted, "abs": abs, "round": round, "len": len, "sum": sum, "min": min, "max": max}
_EITHER_WAY = (ast.Eq, ast.NotEq, ast.Is, ast.IsNot)
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Invert: operator.invert,
    ast.Not: operator.not_,
}
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}


def constant(node: ast.expr, names: Mapping[str, Any] | None = None) -> Any:
    """The value of a literal, or of arithmetic and a few pure functions of literals, within bounds.

    names: constants that it may refer to. Raises: DataError for anything else, for what fails, or is too large.

    >>> constant(ast.parse("[1, -2.5, (set([3]), 'a' * 3)]", mode="eval").body)
    [1, -2.5, ({3}, 'aaa')]
    """
    try:
        value = _value(node, names or {})
    except DataError:
        raise
    except (ArithmeticError, TypeError, ValueError, RecursionError, MemoryError) as error:
        raise DataError(f"{_shown(node)} has no value: {error}.") from error
    if _size(value) > MAX_ITEMS:
        raise DataError(f"{_shown(node)} has more than {MAX_ITEMS:,} items.")
    return value


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Constant):
        return _bounded(node.value)
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        items = [_value(item, names) for item in node.elts]
        return items if isinstance(node, ast.List) else tuple(items) if isinstance(node, ast.Tuple) else set(items)
    if isinstance(node, ast.Dict) and None not in node.keys:
        return {_value(k, names): _value(v, names) for k, v in zip(node.keys, node.values) if k is not None}
    if isinstance(node, ast.Name) and node.id in names:
        return names[node.id]
    if isinstance(node, ast.Attribute) and ast.unparse(node) in _CONSTANTS:
        return _CONSTANTS[ast.unparse(node)]
    if isinstance(node, ast.UnaryOp):
        return _UNARY[type(node.op)](_value(node.operand, names))
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        left, right = _value(node.left, names), _value(node.right, names)
        _check_growth(node, left, right)
        return _bounded(_BINARY[type(node.op)](left, right))
    if isinstance(node, ast.Call) and _named(node) in _FUNCTIONS and not node.keywords:
        arguments = [_value(argument, names) for argument in node.args]
        if sum(map(_size, arguments)) > MAX_ITEMS:
            raise DataError(f"{_shown(node)} has more than {MAX_ITEMS:,} items.")
        return _bounded(_FUNCTIONS[_named(node)](*arguments))
    raise DataError(f"{_shown(node)} is not a literal.")


def _check_growth(node: ast.BinOp, left: Any, right: Any) -> None:
    """Refuse an operation whose result would be out of all bounds, before it is made."""
    sizes = [
        (one, other) for one, other in ((left, right), (right, left)) if isinstance(one, (str, bytes, list, tuple))
    ]
    repeats = isinstance(node.op, ast.Mult) and any(
        isinstance(other, int) and max(1, _size(one)) * other > MAX_ITEMS for one, other in sizes
    )
    formats = isinstance(node.op, ast.Mod) and isinstance(left, (str, bytes))
    raised = isinstance(node.op, ast.Pow) and isinstance(left, int) and isinstance(right, int)
    if repeats or formats or (raised and (left.bit_length() * abs(right) > MAX_BITS)):
        raise DataError(f"{_shown(node)} is too large for an expected value.")


def _bounded(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise DataError(f"an integer of {value.bit_length():,} bits is too large for an expected value.")
    if isinstance(value, (str, bytes)) and len(value) > MAX_TEXT:
        raise DataError(f"a text of {len(value):,} characters is too long for an expected value.")
    return value


def _size(value: Any, room: int = MAX_ITEMS + 1) -> int:
    """Items of a value at all depths, counted up to `room`."""
    if isinstance(value, (str, bytes)):
        return 1 + len(value) // 64
    if isinstance(value, dict):
        value = [item for pair in value.items() for item in pair]
    if not isinstance(value, (list, tuple, set, frozenset)):
        return 1
    total = 1
    for item in value:
        total += _size(item, room - total)
        if total >= room:
            break
    return total


def read_tests(tests: Any, function: str = "") -> list[CodeTest]:
    """The tests of a data row: a list, each `{"input": text, "output": text}` for a program that reads and writes,
    `{"args": [...], "kwargs": {...}, "expected": value}` for `function`, or the text of an assert statement.

    Raises: DataError saying what is wrong with which test.
    """
    if not isinstance(tests, list) or not tests:
        raise DataError(f"tests are {type(tests).__name__} {str(tests)[:40]!r}; they are a list of at least one test.")
    if len(tests) > MAX_TESTS:
        raise DataError(f"there are {len(tests)} tests; {MAX_TESTS} are allowed.")
    found: list[CodeTest] = []
    for number, test in enumerate(tests, start=1):
        try:
            found += split_asserts(test) if isinstance(test, str) else [_read_test(test, function)]
        except DataError as error:
            raise DataError(f"test {number}: {error}") from error
    if len({isinstance(test.given, Stdin) for test in found}) > 1:
        raise DataError("the tests mix input texts with calls; a program is tested either way, not both.")
    return found


def _read_test(test: Any, function: str) -> CodeTest:
    fields = set(test) if isinstance(test, dict) else set()
    if fields == {"input", "output"}:
        for field in ("input", "output"):
            if not isinstance(test[field], str) or len(test[field]) > MAX_TEXT:
                raise DataError(f"{field!r} is no text of at most {MAX_TEXT:,} characters.")
        return CodeTest(Stdin(test["input"]), test["output"], Comparison("lines"))
    if {"args", "expected"} <= fields <= {"args", "kwargs", "expected"}:
        args, kwargs, expected = test["args"], test.get("kwargs", {}), test["expected"]
        if not isinstance(args, list) or not isinstance(kwargs, dict) or _size([args, kwargs, expected]) > MAX_ITEMS:
            raise DataError(f"args are a list and kwargs a dictionary, of at most {MAX_ITEMS:,} items.")
        if not function.isidentifier():
            raise DataError(f"function {function[:40]!r} is no name of a function.")
        return CodeTest(Call(function, tuple(args), kwargs), expected, EQUAL)
    raise DataError(
        f"{str(test)[:60]!r} is no test: it has the keys input and output, or args and expected, or it is an assert."
    )
