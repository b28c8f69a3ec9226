"""Programs judged by their tests: gold passes, wrong fails, tricks score nothing, a failed sandbox is no verdict."""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onepolicy.errors import ConfigError, RewardError
from onepolicy.tasks import code
from onepolicy.tasks.base import TAGGED
from onepolicy.tasks.code import FENCED, CodeVerifier, last_block
from onepolicy.tasks.code_compare import Comparison
from onepolicy.tasks.code_tests import CodeTest
from onepolicy.tasks.rewards import RewardWeights
from onepolicy.tasks.sandbox import Call, Limits, Stdin, default_sandbox
from onepolicy.tasks.verdicts import verify_each
from onepolicy.types import Message, Task

LIMITS = Limits(seconds=0.6, memory=128, processes=16, disk=4)
CALLS = tuple(CodeTest(Call("f", (x,)), x * x) for x in (0, 2, 3, 5))
LINES = tuple(CodeTest(Stdin(f"{x}\n"), f"{x * x}\n", Comparison("lines")) for x in (2, 3))


def task(tests=CALLS, verifier=None, **meta):
    return Task(
        "t", (Message("user", "Square."),), "", verifier or CodeVerifier(limits=LIMITS), {"tests": tests, **meta}
    )


def fenced(source):
    return f"Here it is.\n```python\n{source}\n```\n"


def judged(source, tests=CALLS, verifier=None, **meta):
    one = task(tests, verifier, **meta)
    return one.verifier(one, fenced(source))


def test_a_right_program_scores_and_its_parts_say_so():
    score = judged("def f(x):\n    return x * x")
    assert score.value == pytest.approx(1.1)
    none = dict.fromkeys(("compile", "time", "memory", "output", "crash", "killed"), 0.0)
    assert score.parts == {"correct": 1.0, "format": 1.0, "passed": 1.0, "tests": 4.0, **none}


@pytest.mark.parametrize(
    ("source", "passed", "part"),
    [
        ("def f(x): return 0", 0.25, {}),
        ("def f(x): return x + x", 0.5, {}),
        ("def f(x): return float(x * x)", 0.0, {}),
        ("def f(x): return x * x == 1 or x * x", 1.0, {}),
        ("def f(x): return 1 / x", 0.0, {"crash": 0.25}),
        ("def f(x) return x", 0.0, {"compile": 1.0}),
        ("def g(x): return x * x", 0.0, {"crash": 1.0}),
        ("def f(x):\n    while x == 5: pass\n    return x * x", 0.75, {"time": 0.25}),
        ("def f(x): return bytearray(10**9 if x == 3 else 1) and x * x", 0.75, {"memory": 0.25}),
        ("def f(x):\n    while x: print('x' * 999)\n    return x", 0.25, {"output": 0.75}),
    ],
)
def test_the_share_of_tests_passed_and_what_kept_it_from_the_rest(source, passed, part):
    share = judged(source, verifier=CodeVerifier(mode="share", limits=LIMITS, weights=RewardWeights(1.0, 0.0)))
    assert share.value == share.parts["passed"] == passed
    assert {name: share.parts[name] for name in part} == part
    every = judged(source, verifier=CodeVerifier(limits=LIMITS, weights=RewardWeights(1.0, 0.0)))
    assert every.value == float(passed == 1.0) == every.parts["correct"]


def test_programs_that_read_and_write():
    assert judged("print(int(input()) ** 2)", LINES).parts["correct"] == 1.0
    assert judged("import sys\nsys.stdout.write(f'{int(input()) ** 2}   \\n\\n')", LINES).parts["correct"] == 1.0
    assert judged("print(4)", LINES).parts["passed"] == 0.5
    assert judged("print(int(input()) ** 2); print('extra')", LINES).parts["passed"] == 0.0
    assert judged("print(int(input()) ** 2); raise SystemExit(3)", LINES).parts["passed"] == 0.0


def test_another_language_by_the_tasks_meta():
    source = '#include <stdio.h>\nint main() { int x; scanf("%d", &x); printf("%d", x * x); }'
    one = task(LINES, language="c")
    assert one.verifier(one, f"```c\n{source}\n```").parts["correct"] == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "def f(x): return x * x",
        "<think>```python\ndef f(x): return x * x\n```</think>I do not know.",
        "<think>never closed\n```python\ndef f(x): return x * x\n```",
        "```python\ndef f(x): return x * x\n```\nno:\n```python\ndef f(x): return 0\n```",
        "```python\n\n```",
        "```python\ndef f(x): return x * x",
        "",
    ],
)
def test_only_the_last_block_outside_the_thinking_counts(text):
    one = task()
    assert one.verifier(one, text).parts["correct"] == 0.0


def test_blocks():
    assert last_block("a\n```\nx\n```\nb\n```py\ny\n```") == "y\n"
    assert FENCED.extract(FENCED.write("because", "x = 1")) == "x = 1\n"
    assert FENCED.matches(FENCED.write("because", "x = 1"))
    assert not FENCED.matches("```\na\n```\n```\nb\n```")
    inside = task(verifier=CodeVerifier(limits=LIMITS, form=TAGGED))
    answer = "<think></think><answer>```python\ndef f(x): return x * x\n```</answer>"
    assert inside.verifier(inside, answer.replace("```python", "\n```python")).parts["correct"] == 1.0
    assert inside.verifier(inside, TAGGED.write("", "def f(x): return x * x")).value == 1.1


@given(st.lists(st.sampled_from(["```", "```py", "  ```  ", "x", "", "``", "a ```"]), max_size=12).map("\n".join))
def test_the_last_block_is_what_a_pattern_finds(text):
    """The pattern says it in one line, in time quadratic in the text."""
    found = re.findall(r"^[ \t]*```[^\n`]*\n(.*?)^[ \t]*```[ \t]*$", text, re.DOTALL | re.MULTILINE)
    assert last_block(text) == (found[-1] if found else None)
    assert FENCED.matches(text) is (len(found) == 1 and text.count("```") == 2)


def test_fences_that_never_close_cost_time_linear_in_the_text():
    """The pattern takes ten seconds for these 80 kB."""
    started = time.process_time()
    assert last_block("```x\n" * 20_000) is None
    assert not FENCED.matches("```x\n" * 20_000)
    assert time.process_time() - started < 1.0
    assert last_block("```py\r\nx = 1\r\n```\r\n") == "x = 1\r\n"


def test_a_program_that_is_too_long_is_not_run():
    assert judged("def f(x): return x * x\n#" + "x" * 70_000).parts["correct"] == 0.0


def test_a_checker_of_your_own_sees_plain_values_here():
    def is_root(expected, got):
        return type(got) is int and got * got == expected

    tests = tuple(CodeTest(Call("f", (x * x,)), x * x, check=is_root) for x in (2, 3))
    assert judged("def f(x): return -int(x ** 0.5)", tests).parts["correct"] == 1.0
    assert judged("class E(int):\n    __mul__ = lambda s, o: 4\ndef f(x): return E(9)", tests).parts["correct"] == 0.0


def test_what_enters_the_sandbox_has_no_expected_value(monkeypatch):
    """S5, at the source: the bytes that are sent, whole."""
    sent = []
    backend = default_sandbox().backend
    whole = backend.talk

    def talk(argv, head, tests, nonce, bounds):
        sent.append(" ".join(argv).encode() + head + b"".join(tests))
        return whole(argv, head, tests, nonce, bounds)

    monkeypatch.setattr(backend, "talk", talk)
    tests = (CodeTest(Call("f", (2,)), 8734561928), CodeTest(Call("f", (3,)), "Zanzibar"))
    judged("def f(x): return x", tests)
    text = CodeTest(Stdin("2"), "Timbuktu", Comparison("lines"))
    judged("print(2)", (text,))
    assert len(sent) == 2
    assert not any(
        word in one for one in sent for word in (b"8734561928", b"Zanzibar", b"Timbuktu", b"lines", b"exact")
    )


def test_many_at_once_are_scored_in_order_and_each_program_is_run_once(monkeypatch):
    code.forget()
    one = task()
    texts = [fenced(f"def f(x): return x * x + {i % 6}  # many") for i in range(30)]
    before = default_sandbox().runs
    scores = one.verifier.batch([one] * 30, texts)
    assert [score.parts["correct"] for score in scores] == [float(i % 6 == 0) for i in range(30)]
    assert default_sandbox().runs - before == 6
    assert verify_each([(one, text) for text in texts]) == scores
    assert default_sandbox().runs - before == 6
    code.forget()
    assert one.verifier(one, texts[0]) == scores[0]
    assert default_sandbox().runs - before == 7


def test_a_step_whose_completions_attack_completes_and_the_honest_lose_nothing():
    """S6: a flood, a fork bomb and kill -1 in one batch with honest programs."""
    code.forget()
    one = task()
    attacks = [
        "import os\ndef f(x):\n    while True: os.write(1, b'x' * 65536)",
        "import os\ndef f(x):\n    while True:\n        try: os.fork()\n        except OSError: pass",
        "import os\ndef f(x): os.kill(-1, 9)",
    ]
    texts = [fenced(f"def f(x): return x * x  # honest {i}") for i in range(9)]
    texts[1:1], texts[5:5], texts[9:9] = ([fenced(attack)] for attack in attacks)
    scores = verify_each([(one, text) for text in texts])
    honest = ["honest" in text for text in texts]
    assert [score.parts["correct"] == 1.0 for score in scores] == honest
    assert all(score.error is None for score in scores)
    assert max(score.parts["output"] for score in scores) == max(score.parts["killed"] for score in scores) == 1.0
    slots = list(default_sandbox().backend._free.queue)
    assert all(not slot.group.members() for slot in slots if slot.group)


def test_verdicts_are_the_same_every_time():
    """V9: twenty times, from several threads."""
    one = task()
    text = fenced("def f(x): return {x * x} - set() and x * x  # twenty")

    def again(_):
        code.forget()
        return one.verifier(one, text)

    with ThreadPoolExecutor(4) as pool:
        assert len({json.dumps(dict(score.parts)) for score in pool.map(again, range(20))}) == 1


class Flaky:
    """A sandbox that fails a number of times, then gives what the real one does."""

    def __init__(self, failures):
        self.failures = failures

    def run_tests(self, *arguments):
        self.failures -= 1
        if self.failures >= 0:
            raise RewardError("no process could be started")
        return default_sandbox().run_tests(*arguments)


def test_a_sandbox_that_fails_is_tried_again_and_then_no_wrong_answer():
    """Invalid, cause "sandbox", and not remembered."""
    code.forget()
    source = "def f(x): return x * x  # flaky"
    once = CodeVerifier(limits=LIMITS, sandbox=Flaky(1))
    assert judged(source, verifier=once).parts["correct"] == 1.0
    code.forget()
    broken = CodeVerifier(limits=LIMITS, sandbox=Flaky(2))
    score = judged(source, verifier=broken)
    assert (score.state, score.cause, score.value) == ("invalid", "sandbox", None)
    assert judged(source, verifier=broken).parts["correct"] == 1.0


def test_an_unknown_mode_is_an_error():
    with pytest.raises(ConfigError, match="'all'"):
        CodeVerifier(mode="most")


@pytest.mark.parametrize(
    ("got", "expected", "exact", "equal"),
    [
        (1, 1, True, True),
        (True, 1, False, True),
        (1, 1.0, False, True),
        (0.1 + 0.2, 0.3, False, False),
        (float("nan"), float("nan"), True, True),
        ((1, 2), [1, 2], False, False),
        ([1, (2, [3.0])], [1, (2, [3.0])], True, True),
        ([1, (2, [3])], [1, (2, [3.0])], False, True),
        ({1, 2}, {2, 1}, True, True),
        ({1}, {1}, True, True),
        ({1.0}, {1}, False, True),
        ({1}, frozenset({1}), False, True),
        ({"a": 1}, {"a": True}, False, True),
        ({1: "a"}, {True: "a"}, False, True),
        ({1: [2]}, {1: [2]}, True, True),
        ("1", 1, False, False),
        (None, 0, False, False),
        (b"a", "a", False, False),
        (10**400, 1.0, False, False),
    ],
)
def test_values_by_exact_type_and_by_equality(got, expected, exact, equal):
    assert Comparison("exact").agrees(got, expected) is exact
    assert Comparison("equal").agrees(got, expected) is equal
    assert Comparison("differs").agrees(got, [expected]) is not equal


@pytest.mark.parametrize(
    ("kind", "tolerance", "got", "expected", "right"),
    [
        ("exact", 1e-6, 0.1 + 0.2, 0.3, True),
        ("exact", 1e-6, 1, 1.0, False),
        ("equal", 1e-6, 1, 1.0000001, True),
        ("equal", 1e-6, [0.30000001, 2], (0.3, 2), False),
        ("equal", 1e-6, {"a": 0.30000001}, {"a": 0.3}, True),
        ("equal", 1e-6, 10**400, 1.0, False),
        ("lines", 0.0, "1 \r\n2", "1\n2\n", True),
        ("lines", 0.0, "1\n\n2", "1\n2", False),
        ("lines", 0.0, " 1", "1", False),
        ("tokens", 0.0, "1   2\n3", "1 2 3", True),
        ("tokens", 0.0, "0.33333333 a", "0.3333333 a", False),
        ("tokens", 1e-6, "0.33333333 a", "0.3333333 a", True),
        ("tokens", 1e-6, "nan", "0.5", False),
        ("tokens", 1e-6, "inf", "1e308", False),
        ("text", 0.0, "1\n", "1", False),
    ],
)
def test_tolerances_and_text(kind, tolerance, got, expected, right):
    assert Comparison(kind, relative=tolerance).agrees(got, expected) is right


def test_a_comparison_that_cannot_be_is_an_error():
    with pytest.raises(ConfigError, match="Did you mean 'exact'"):
        Comparison("exat")
    with pytest.raises(ConfigError, match="finite"):
        Comparison("exact", absolute=float("inf"))
