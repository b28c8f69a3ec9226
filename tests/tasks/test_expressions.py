"""The parser agrees with Python's on what it accepts, refuses the rest fast, and reduces in the right order."""

from __future__ import annotations

import contextlib
import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.errors import DataError
from onepolicy.tasks.expressions import (
    evaluate,
    literals,
    number_text,
    parse,
    read_integer,
    read_number,
    reductions,
    to_text,
)

INTEGERS = st.integers(0, 99).map(str)
EXPRESSIONS = st.recursive(
    INTEGERS,
    lambda inner: (
        st.tuples(inner, st.sampled_from("+-*"), inner).map("".join)
        | inner.map(lambda text: f"({text})")
        | inner.map(lambda text: f"(-{text})")
    ),
    max_leaves=8,
)

HOSTILE = [
    "__import__('os').system('true')",
    "9**9**9**9",
    "9^9^9",
    "100000000!",
    "(" * 3000 + "1" + ")" * 3000,
    "-" * 390 + "1",
    "(" * 200,
    "9" * 5000,
    "1e999999999",
    "0x10",
    "1_000",
    "٣+٤",
    "1 2",
    "2(3)",
    "lambda: 1",
    "1;2",
    "1==1",
    "a",
    "",
    " ",
    "()",
    "1+",
    "*1",
    "+1",
    "1//2",
    "1..2",
    ".",
    "\x00",
    "1\n+\n2=",
    "½",
    "inf",
    "nan",
]


@settings(max_examples=300, deadline=None)
@given(EXPRESSIONS)
def test_values_are_python_s(text):
    """The texts are built from digits and operators by this test, so Python may evaluate them."""
    assert evaluate(parse(text)) == eval(text)  # noqa: S307


@settings(max_examples=200, deadline=None)
@given(EXPRESSIONS)
def test_printing_returns_what_was_parsed(text):
    assert to_text(parse(text)) == text


@settings(max_examples=200, deadline=None)
@given(EXPRESSIONS)
def test_reductions_end_at_the_value_and_keep_it_all_along(text):
    node = parse(text)
    rest = node
    for step, rest in reductions(node):
        assert len(list(literals(step))) == 2
        assert evaluate(rest) == evaluate(node)
    assert len(list(reductions(node))) == len(list(literals(node))) - 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2+3*4", 14),
        ("(2+3)*4", 20),
        ("10-4-3", 3),
        ("24/4/3", 2),
        ("1/3+1/6", Fraction(1, 2)),
        ("-3*-2", 6),
        ("--3", 3),
        ("-(2+3)", -5),
        (".5*4.", 2),
        (" 1 + 1 ", 2),
        ("0.1+0.2", Fraction(3, 10)),
    ],
)
def test_values_by_hand(text, value):
    assert evaluate(parse(text)) == value


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_no_expression_is_refused_at_once(text):
    started = time.process_time()
    with pytest.raises(DataError):
        parse(text)
    assert time.process_time() - started < 0.2


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=80) | st.text("0123456789+-*/(). ", max_size=400))
def test_any_text_is_a_value_or_a_dataerror(text):
    with contextlib.suppress(DataError):
        evaluate(parse(text))


def test_the_longest_accepted_products_and_quotients_are_fast():
    """400 characters of nines multiply or divide to some hundred digits, in about a millisecond."""
    started = time.process_time()
    evaluate(parse("*".join(["9" * 30] * 12)))
    evaluate(parse("+".join(f"1/{n}" for n in range(101, 160))))
    assert time.process_time() - started < 0.2


def test_order_of_reduction_is_brackets_then_products_then_left_to_right():
    steps = [to_text(step) for step, _ in reductions(parse("1+2*3-(4-5*(6+7))"))]
    assert steps == ["6+7", "5*13", "4-65", "2*3", "1+6", "7--61"]


def test_division_by_zero_is_an_error_that_says_so():
    with pytest.raises(DataError, match="divides by zero"):
        evaluate(parse("1/(2-2)"))


@settings(max_examples=200, deadline=None)
@given(st.fractions(-1000, 1000, max_denominator=1000))
def test_number_text_reads_back(value):
    assert read_number(number_text(value)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("7", 7), ("+7", 7), ("-0", 0), ("007", 7), ("7.", None), ("9" * 40, None), ("7\n8", None), ("７", None)],
)
def test_integers_are_read_strictly(text, value):
    assert read_integer(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("1.50", Fraction(3, 2)), ("-1/2", Fraction(-1, 2)), ("1/-2", Fraction(-1, 2)), ("1/2/3", None), ("5%", None)],
)
def test_numbers_are_read_strictly(text, value):
    assert read_number(text) == value
