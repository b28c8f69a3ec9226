"""Tests as data: asserts split into call and literal, what cannot be split is refused, nothing of data is executed."""

from __future__ import annotations

import ast
import base64
import math
import pickle
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.errors import DataError
from onepolicy.tasks.code_compare import Comparison
from onepolicy.tasks.code_tests import CodeTest, constant, read_tests, split_asserts
from onepolicy.tasks.sandbox import Call, Expression, Result, Stdin

EQUAL, EXACT = Comparison("equal"), Comparison("exact")

SPLITS = {
    "assert f(1) == 2": ("f(1)", 2, EQUAL),
    "assert 2 == f(1)": ("f(1)", 2, EQUAL),
    "assert f(1) == -2.5, 'message'": ("f(1)", -2.5, EQUAL),
    "assert f([1, 2], k=(3,)) == [(1, 'a'), {'b': None}]": ("f([1, 2], k=(3,))", [(1, "a"), {"b": None}], EQUAL),
    "assert set(f(1)) == set([1, 2])": ("set(f(1))", {1, 2}, EQUAL),
    "assert sum(1, 2) == 3": ("sum(1, 2)", 3, EQUAL),
    "assert f(1) is None": ("f(1)", None, EXACT),
    "assert f(1)": ("bool(f(1))", True, EXACT),
    "assert not f(1)": ("not f(1)", True, EXACT),
    "assert f(1) != 2": ("f(1)", [2], Comparison("differs")),
    "assert f(1) in (1, 2)": ("f(1)", [1, 2], Comparison("any")),
    "assert f(1) not in [1]": ("f(1)", [1], Comparison("differs")),
    "assert abs(f(1) - 0.5) < 1e-6": ("f(1)", 0.5, Comparison("equal", absolute=1e-6)),
    "assert abs(0.5 - f(1)) <= 1e-6": ("f(1)", 0.5, Comparison("equal", absolute=1e-6)),
    "assert math.isclose(f(1), 0.5, rel_tol=0.001)": ("f(1)", 0.5, Comparison("equal", relative=0.001)),
    "assert f(Pair(1)) == 10 ** 3 + len('abc')": ("f(Pair(1))", 1003, EQUAL),
}


@pytest.mark.parametrize("source", SPLITS)
def test_an_assert_is_a_call_and_a_literal(source):
    code, expected, compare = SPLITS[source]
    assert split_asserts(source) == [CodeTest(Expression(code), expected, compare)]


def test_several_statements_constants_loops_and_what_says_nothing():
    source = '''
"""A text."""
import math
print
x = [1, 2]
assert True, "says nothing"
assert f(x) == f(x)
assert f(x) == x and f(3) == math.pi
for i in range(2, 4):
    assert f(i, i + 1) == str(i)
'''
    tests = split_asserts(source, "import re")
    assert [(one.given.code, one.expected) for one in tests] == [
        ("f(x)", [1, 2]),
        ("f(3)", math.pi),
        ("f(i, i + 1)", "2"),
        ("f(i, i + 1)", "3"),
    ]
    assert tests[0].given.setup == "import re\nx = [1, 2]"
    assert tests[-1].given.setup.endswith("i = 3")


def test_no_literal_enters_with_its_call():
    """Of each pair only the call is sent."""
    for source, (_, expected, _) in SPLITS.items():
        if isinstance(expected, float) or expected == 1003:
            (test,) = split_asserts(source)
            assert repr(expected) not in test.given.code + test.given.setup


REFUSED = {
    "assert f(1) == g(1)": "does not compare a call with a literal",
    "assert f(1) == [x for x in y]": "does not compare",
    "assert f(1) == open('/etc/passwd').read()": "does not compare",
    "assert f(1) < 3": "does not compare",
    "assert f(1) == 1 or f(1) == 2": "cannot be split",
    "assert (lambda: 1)() == __import__('os')": "does not compare",
    "import os": "no assert",
    "from random import randint": "no assert",
    "for i in range(3): print(i)": "no assert",
    "while True: pass": "no assert",
    "def test(): assert f(1) == 1": "no assert",
    "x = input()": "is not a literal",
    "assert True": "no assert that calls",
    "": "no assert that calls",
    "assert f(": "not Python",
    "assert f(1) == 9 ** 9 ** 9": "too large",
    "assert f(1) == [0] * 10 ** 9": "too large",
    "assert f(1) == [[0] * 9999] * 9999": "too large|more than",
    "assert f(1) == 'a' * 10 ** 10": "too large",
    "assert f(1) == '%99999999999d' % 1": "too large",
    "assert f(1) == list(range(10 ** 12))": "more than",
    "assert f(1) == 1 / 0": "has no value",
    "assert f(1) == {[1]: 2}": "has no value",
    "for i in range(99999):\n    assert f(i) == i": "more than 1000 tests",
    "(" * 300 + "1" + ")" * 300: "not Python|no assert",
}


@pytest.mark.parametrize("source", REFUSED)
def test_what_cannot_be_split_is_refused_by_name(source):
    with pytest.raises(DataError, match=REFUSED[source]):
        split_asserts(source)


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(st.integers(), inner, max_size=3)
        ),
        max_leaves=8,
    )
)
def test_a_literal_has_the_value_python_gives_it(value):
    assert repr(constant(ast.parse(repr(value), mode="eval").body)) == repr(value)


def test_rows_of_your_own():
    assert read_tests([{"input": "1\n", "output": "2\n"}]) == [CodeTest(Stdin("1\n"), "2\n", Comparison("lines"))]
    called = {"args": [1], "kwargs": {"k": 2}, "expected": [3]}
    assert read_tests([called], "f") == [CodeTest(Call("f", (1,), {"k": 2}), [3], EQUAL)]
    assert read_tests(["assert f(1) == 2"]) == [CodeTest(Expression("f(1)"), 2, EQUAL)]


PICKLED = base64.b64encode(zlib.compress(pickle.dumps([{"input": "1", "output": "2"}]))).decode()
BOMB = base64.b64encode(zlib.compress(bytes(10**6))).decode()

MALICIOUS = {
    "a pickle, as some benchmarks have": (PICKLED, "they are a list"),
    "a packed bomb": (BOMB, "they are a list"),
    "a pickle inside": ([{"input": {"__reduce__": PICKLED}, "output": ""}], "'input' is no text"),
    "a path for a name": ([{"args": [], "expected": 1}], "no name of a function"),
    "other keys": ([{"input": "", "output": "", "checker": "lambda *_: True"}], "is no test"),
    "both ways at once": ([{"input": "", "output": ""}, "assert f(1) == 1"], "mix"),
    "an endless text": ([{"input": "x" * 4_000_001, "output": ""}], "at most"),
    "too many tests": ([{"input": "", "output": ""}] * 1001, "1000 are allowed"),
    "too many items": ([{"args": [[0] * 100_001], "expected": 1}], "at most"),
    "none": ([], "at least one"),
    "an assert that runs code here": (["assert f(1) == __import__('os').system('id')"], "test 1: .* does not compare"),
}


@pytest.mark.parametrize("what", MALICIOUS)
def test_malicious_and_broken_data_is_rejected(what):
    """S8: nothing is unpickled, unpacked or executed; the message says which test and why."""
    tests, reason = MALICIOUS[what]
    with pytest.raises(DataError, match=reason):
        read_tests(tests, "../../etc/passwd")


def test_a_result_passes_only_if_it_ended_well():
    test = CodeTest(Call("f"), 1)
    assert test.passed(Result("ok", value=1))
    assert not test.passed(Result("crash", value=1))
    assert not test.passed(Result("ok", stdout="1"))
    assert CodeTest(Stdin(), "1", Comparison("lines")).passed(Result("ok", stdout="1\n", value=None))
