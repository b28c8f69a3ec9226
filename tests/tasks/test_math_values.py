"""Values of formulas: exact arithmetic against Fraction, equality under rewriting, bounds."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from onepolicy.tasks.math import judge
from onepolicy.tasks.math_formula import Call, Number, Unread, free_symbols
from onepolicy.tasks.math_grammar import parse
from onepolicy.tasks.math_values import equal, exact, value

RATIONALS = st.fractions(min_value=-1000, max_value=1000, max_denominator=1000)


@st.composite
def expressions(draw, depth=3):
    """(LaTeX, its exact value) of a random rational expression."""
    if depth == 0 or draw(st.booleans()):
        number = draw(st.integers(0, 99))
        return str(number), Fraction(number)
    kind = draw(st.sampled_from("+-*/^n"))
    left, one = draw(expressions(depth=depth - 1))
    if kind == "n":
        return f"-({left})", -one
    if kind == "^":
        power = draw(st.integers(0, 3))
        return rf"\left({left}\right)^{{{power}}}", one**power
    right, two = draw(expressions(depth=depth - 1))
    if kind == "/":
        assume(two != 0)
        return rf"\frac{{{left}}}{{{right}}}", one / two
    found = {"+": one + two, "-": one - two, "*": one * two}[kind]
    return f"({left}) {kind.replace('*', chr(92) + 'cdot')} ({right})", found


@settings(max_examples=150, deadline=None)
@given(expressions())
def test_rational_expressions_have_their_exact_value(pair):
    text, expected = pair
    assert judge(f"{expected.numerator}/{expected.denominator}", text).right is True
    assert judge(f"{expected.numerator + expected.denominator}/{expected.denominator}", text).right is False


@settings(max_examples=100, deadline=None)
@given(RATIONALS, RATIONALS)
def test_two_rationals_are_equal_only_if_they_are(one, two):
    assert judge(f"{one.numerator}/{one.denominator}", rf"\frac{{{two.numerator}}}{{{two.denominator}}}").right is (
        one == two
    )


@settings(max_examples=100, deadline=None)
@given(st.integers(-(10**8), 10**8), st.integers(0, 8), st.sampled_from([-1, 0, 1]))
def test_decimals_are_exact_to_their_last_digit(digits, places, off):
    gold, answer = (f"{number / Fraction(10**places)}" for number in (digits, digits + off))
    written = f"{(digits + off) / 10**places:.{places}f}"
    assert judge(gold, answer).right is (off == 0)
    assert judge(gold, written).right is (off == 0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-9, 9), min_size=1, max_size=4), st.lists(st.integers(-9, 9), min_size=1, max_size=4))
def test_a_product_of_polynomials_is_its_expansion(one, two):
    """Convolution by hand is the reference."""
    product = [0] * (len(one) + len(two) - 1)
    for i, a in enumerate(one):
        for j, b in enumerate(two):
            product[i + j] += a * b

    def text(coefficients):
        return " + ".join(f"({c}) x^{{{power}}}" for power, c in enumerate(coefficients))

    assert judge(f"({text(one)})({text(two)})", text(product)).right is True
    product[0] += 1
    assert judge(f"({text(one)})({text(two)})", text(product)).right is False


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400))
def test_roots_are_equal_as_their_squares_are(one, two):
    assert judge(rf"\sqrt{{{one}}}", rf"\frac{{{one}}}{{\sqrt{{{two}}}}}").right is (one == two)


@pytest.mark.parametrize("n", [0, 1, 5, 20, 100])
def test_factorials_and_binomials(n):
    assert exact(parse(f"{n}!")) == math.factorial(n)
    assert exact(parse(rf"\binom{{{n}}}{{{n // 2}}}")) == math.comb(n, n // 2)


def test_values_to_sixty_digits():
    """Archimedes' constant from its published digits."""
    digits = "3.14159265358979323846264338327950288419716939937510582097494"
    assert abs(value(parse(r"\pi")) - value(parse(digits))) < 1e-58
    assert equal(parse(r"4\arctan 1"), parse(r"\pi"))
    assert not equal(parse(r"\pi"), parse(r"\pi + 10^{-40}"))
    assert equal(parse(r"\sqrt{2}\sqrt{3}-\sqrt{6}"), parse("0"))
    assert not equal(parse("10^{-60}"), parse("0"))
    assert not equal(parse("e^{-200}"), parse("e^{-201}"))


def test_variables_agree_everywhere_or_not_at_all():
    assert equal(parse(r"\sqrt{\frac{1}{n}}"), parse(r"\frac{1}{\sqrt{n}}"))
    assert not equal(parse(r"\sqrt{x^2}"), parse("x"))
    assert equal(parse(r"\sqrt{x^2}"), parse("|x|"))
    assert not equal(parse(r"\ln x^2"), parse(r"2\ln x"))
    assert equal(parse(r"\lfloor (n+1)/2\rfloor"), parse(r"\lceil n/2\rceil"))
    assert not equal(parse(r"\lfloor x\rfloor"), parse("x"))


def test_the_tree_is_what_precedence_says():
    assert parse("1-2-3") == Call("add", (*(Number(Fraction(n), str(n)) for n in (1, -2, -3)),))
    assert exact(parse("-2^2")) == -4
    assert exact(parse("1/2/2")) == Fraction(1, 4)
    assert exact(parse(r"\frac12^2")) == Fraction(1, 4)
    assert exact(parse("2^-1")) == Fraction(1, 2)
    assert free_symbols(parse(r"\frac{dx}{dt}+C_{1}e^{i\pi}")) == {"d", "x", "t", "C_1"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1+",
        "(1",
        "1)",
        "1 2",
        r"\frac{1}",
        r"\nosuch{1}",
        "2_3",
        "x^",
        "^2",
        "|x",
        r"\sqrt",
        "1..2",
        "a=b",
        "&",
        r"\\",
    ],
)
def test_what_is_no_formula_is_not_read(text):
    with pytest.raises(Unread):
        parse(text)


@pytest.mark.parametrize("text", ["9^{9^{9}}", "10^{10^{10}}", "100000000!", "1/0", "0^{-1}", r"\tan(10^{5000})"])
def test_values_out_of_bounds_are_refused(text):
    with pytest.raises(Unread):
        value(parse(text))
