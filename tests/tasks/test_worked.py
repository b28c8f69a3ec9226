"""Worked arithmetic: every printed fact is true, every fact is small, and the last result is the value."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.tasks.expressions import apply, evaluate, number_text, parse, read_number
from onepolicy.tasks.worked import (
    CARELESS,
    CHARACTERS,
    STYLES,
    mixed,
    operation,
    places,
    rewrites,
    steps,
    totals,
    worked,
)

NUMBERS = st.integers(-999, 999) | st.fractions(-99, 99, max_denominator=1).map(lambda x: x / 4)


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("3+4", "3+4=7"),
        ("68+57", "8+7=15 6+5+1=12:125"),
        ("97+5", "7+5=12 9+0+1=10:102"),
        ("225-127", "15-7=8 12-2-1=9 2-1-1=0:98"),
        ("3-8", "8-3=5;3-8=-5"),
        ("7*8", "7*8=56"),
        ("12*5", "2*5=10 1*5=5+1=6:60"),
        ("12*15", "12*5:2*5=10 1*5=5+1=6:60;60+120:0+0=0 6+2=8 0+1=1:180;12*15=180"),
        ("300*80", "3*8=24;300*80=24000"),
        ("144/3", "14/3=4r2 24/3=8:48"),
        ("10/4", "10/4=2r2 20/4=5:2.5"),
        ("8/40", "8/40=0r8 80/40=2:0.2"),
        ("12.6-4.6", "6-6=0 12-4=8 1-0-1=0:8"),
        ("0*12", "0*12=0"),
        ("1/3*30", "1/3=1/3;1/3*30=10"),
    ],
)
def test_by_hand(expression, text):
    assert worked(expression) == text


def facts(text):
    """Every `a op b [+c|-c] = d [= e | r e]` of a worked text as (left side, right side, remainder)."""
    for chunk in re.split(r"[;: ]", text):
        if "=" in chunk:
            yield chunk


@settings(max_examples=400, deadline=None)
@given(NUMBERS, st.sampled_from("+-*/"), NUMBERS)
def test_every_fact_is_true_and_the_last_result_exact(left, operator, right):
    if operator == "/" and right == 0:
        return
    chunks = operation(left, operator, right)
    value = apply(operator, left, right)
    assert chunks[-1].endswith(number_text(value))
    for fact in facts(";".join(chunks)):
        first, *results = fact.split("=")
        if places(value) > 12 and first == f"{number_text(left)}{operator}{number_text(right)}":
            assert read_number(results[0]) == value
            continue
        number = read_division(first) if "/" in first else evaluate(parse(first))
        for result in results:
            quotient, _, rest = result.partition("r")
            carried, _, carry = quotient.partition("+")
            if rest:
                top, under = map(int, first.split("/"))
                assert (int(quotient), int(rest)) == divmod(top, under)
            else:
                assert evaluate(parse(carried)) == number
            number = evaluate(parse(quotient)) if carry else number


def read_division(text):
    """A division's left side: both operands may be decimals or signed."""
    over, under = text.split("/")
    return Fraction(over) / Fraction(under)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 9999), st.sampled_from("+-*"), st.integers(0, 9999))
def test_columns_need_only_digit_facts(left, operator, right):
    """Besides lines that repeat the operation, no fact has an operand above 18 but a carry's product of two digits."""
    shown = f"{left}{operator}{right}"
    for fact in facts(";".join(operation(left, operator, right))):
        first, *_ = fact.split("=")
        if first != shown:
            assert all(int(x) <= 19 for x in re.findall(r"\d+", first)), fact


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 99), min_size=2, max_size=4), st.sampled_from("+-*"))
def test_all_styles_end_at_the_value_in_the_characters(numbers, operator):
    expression = operator.join(map(str, numbers))
    value = str(evaluate(parse(expression)))
    for style in (STYLES[name] for name in STYLES if not name.startswith("mixed")):
        text = style(expression)
        assert text.endswith(value)
        assert set(text) <= set(CHARACTERS)


def test_other_styles_by_hand():
    assert steps("4-2*(3-8)") == "3-8=-5;2*-5=-10;4--10=14"
    assert totals("1/4+1") == "0.25 1.25"
    assert rewrites("3-8+5") == "-5+5=0"
    assert worked("5") == ""


def test_mixed_answers_the_stated_share_at_once_and_works_out_the_rest():
    """Of 4,000 problems a share within three standard errors of CARELESS is left unworked; the others are `steps`."""
    texts = {f"{a}+{b}*{c}": mixed(f"{a}+{b}*{c}") for a in range(10) for b in range(20) for c in range(20)}
    at_once = sum(text == "" for text in texts.values()) / len(texts)
    assert abs(at_once - CARELESS) < 3 * (CARELESS * (1 - CARELESS) / len(texts)) ** 0.5
    assert all(text in ("", steps(expression)) for expression, text in texts.items())
    assert all(STYLES["mixed"](expression) == text for expression, text in texts.items())
    for expression, text in list(texts.items())[::10]:
        assert STYLES["mixed-worked"](expression) == (text and worked(expression)), "the same problems at once"
