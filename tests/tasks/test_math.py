"""The verifier of mathematics on completions: where answers are read, hedging, states, hostile texts, safety."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
import time

import pytest

from onepolicy.tasks.math import MATH_FORMATS, MathVerifier, judge, read_gold
from onepolicy.tasks.math_compare import Tolerance
from onepolicy.tasks.math_text import boxes, final_answer, normalise, split_top
from onepolicy.tasks.math_units import split_unit
from onepolicy.types import Message, Task

VERIFIER = MathVerifier()


def score(gold, text, verifier=VERIFIER):
    return verifier(Task("t", (Message("user", "?"),), gold, verifier), text)


def right(gold, text, verifier=VERIFIER):
    return score(gold, text, verifier).parts["correct"] == 1.0


def test_the_value_is_the_weighted_sum_of_its_parts():
    assert score("1/2", r"so \boxed{0.5}").parts == {"correct": 1.0, "format": 1.0, "parsed": 1.0}
    assert score("1/2", r"so \boxed{0.5}").value == pytest.approx(1.1)
    assert score("1/2", r"so \boxed{0.6}").value == pytest.approx(0.1)
    assert score("1/2", "so 0.5").value == 0.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\boxed{\frac{1}{2}}", True),
        (r"<think>\boxed{3}</think> \boxed{\frac12}", True),
        (r"first \boxed{\frac{1}{2}}, again $\boxed{0.5}$", True),
        (r"\fbox{0.5}", True),
        (r"\boxed{\boxed{0.5}}", True),
        (r"\boxed{ \{ \frac{1}{2} \} }", True),
        (r"\boxed{x = 0.5}", True),
        (r"\boxed{\ 0.5\ }", True),
        ("$$\n\\boxed{\n0.5\n}\n$$", True),
        (r"<think>a</think><think>\boxed{5}</think>\boxed{0.5}", True),
        (r"\boxed{0.5}}", True),
        (r"\boxed{2x = 1 \implies x = 0.5}", True),
        (r"\boxed{x = 2 \implies x = 0.5}", False),
        (r"\boxed{0.5}" * 3 + r"\boxed{0.6}", False),
        (r"<think>\boxed{0.5}</think>\boxed{0.6}", False),
        (r"\boxed{0.5 < x}", False),
        (r"\boxed{x \ne 0.5}", False),
        (r"\boxed{y = 0.5, x = 1}", False),
        (r"<think>\boxed{0.5}</think>", False),
        (r"<think>\boxed{0.5}", False),
        (r"\boxed{0.5", False),
        (r"0.5", False),
        (r"", False),
        (r"\boxed{}", False),
        (r"\boxed{1}, no, \boxed{0.5}", False),
        (r"\boxed{0.5}, no, \boxed{1}", False),
        (r"\boxed{0.5, 1}", False),
        (r"\boxed{0.5 \text{ or } 1}", False),
        (r"\boxed{0.5 \text{ or one}}", False),
        (r"\boxed{\{0.5, 1, 1.5\}}", False),
        (r"\boxed{0 \le x \le 1}", False),
        (r"\boxed{0.5 \pm 0}", False),
        (r"\boxed{\text{It is not } 0.5}", False),
    ],
)
def test_where_the_answer_is_read_and_that_hedging_is_wrong(text, expected):
    assert right(r"\frac{1}{2}", text) is expected


def test_a_list_may_stand_in_boxes_of_its_own():
    gold = r"(2, 2), (6, 2)"
    assert right(gold, r"\boxed{(2,2)} and \boxed{(6, 2)}")
    assert not right(gold, r"\boxed{(2,2)} and \boxed{(6, 3)}")
    assert not right(gold, r"\boxed{(2,2)}, \boxed{(6,2)} and \boxed{(7,2)}")
    assert not right("(2,6)", r"\boxed{2} and \boxed{6}")


def test_of_a_gold_answer_that_nobody_reads_the_same_text_is_right_and_no_other():
    for gold in (r"p \Rightarrow q", r"\forall x \exists y"):
        assert read_gold(gold).error
        assert score(gold, rf"\boxed{{{gold}}}").parts["correct"] == 1.0
        assert score(gold, rf"$\boxed{{ {gold} }}$").parts["correct"] == 1.0
        for other in ("1", r"p \Rightarrow r", r"\exists y \forall x", ""):
            assert score(gold, rf"\boxed{{{other}}}").cause == "gold"


def test_a_gold_answer_without_a_value_or_an_end_is_invalid_whatever_is_answered():
    for gold in (r"\frac{1}{", "", "9^{9^{9^9}}", "(" * 60 + "1" + ")" * 60, "1" * 3000, r"\frac{1}{0}"):
        found = score(gold, rf"\boxed{{{gold}}}")
        assert found.value is None
        assert found.state == "invalid"
        assert found.cause == "gold"
        assert score(gold, "nothing").value is None


def test_an_answer_that_cannot_be_read_is_wrong_and_says_so():
    for answer in (r"\frac{1}", "((", "5+", r"\nosuchcommand{5}", "1" * 2001, "1e99999"):
        found = score("5", rf"\boxed{{{answer}}}")
        assert found.parts["correct"] == 0.0
        assert found.parts["parsed"] == 0.0, answer


@pytest.mark.parametrize(
    ("form", "text", "expected"),
    [
        ("tag", r"<think>a</think><answer>\frac12</answer>", True),
        ("tag", "<answer>0.5</answer><answer>1</answer>", False),
        ("tag", r"\boxed{0.5}", False),
        ("hash", "so\n#### 1/2", True),
        ("last", "it is 1, then 0.5", True),
        ("open", "The answer is 0.5.", True),
        ("open", "Therefore the probability is $\\frac{1}{2}$.", True),
        ("open", r"\[ \frac{2}{4} \]", True),
        ("open", "The answer is $0.5$ or $1$.", False),
        ("open", "0.5, 1, 1.5", False),
        ("open", r"<think>The answer is 0.5</think>", False),
        ("open", "no idea", False),
    ],
)
def test_answers_in_the_other_formats(form, text, expected):
    verifier = MathVerifier(MATH_FORMATS[form])
    assert right(r"\frac{1}{2}", text, verifier) is expected
    written = MATH_FORMATS[form].write("thought", "0.5")
    assert score("1/2", written, verifier).parts == {"correct": 1.0, "format": 1.0, "parsed": 1.0}


def test_the_answer_that_prose_ends_in():
    assert final_answer("Final Answer: the final answer is $12$. I hope it is correct.") == "12"
    assert final_answer("Final Answer: Jane has 3 apples.") == "3"
    assert final_answer("The answer is Evelyn.") == "Evelyn"
    assert final_answer("They are $6$ and $8$") == "6 , 8"
    assert final_answer("so it rises by 100%.") == "100%"
    assert final_answer("nothing") is None


def test_tolerance_is_asked_for():
    exact, loose, wide = (
        MathVerifier(),
        MathVerifier(tolerance=Tolerance(0.01)),
        MathVerifier(tolerance=Tolerance(0, 0.1)),
    )
    assert [right("4.5e33", r"\boxed{4.52\times 10^{33}}", v) for v in (exact, loose)] == [False, True]
    assert [right("4.5e33", r"\boxed{4.6\times 10^{33}}", v) for v in (exact, loose)] == [False, False]
    assert [right("1.6e-19", r"\boxed{0}", v) for v in (exact, loose)] == [False, False]
    assert [right(r"4.2\%", rf"\boxed{{{a}}}", wide) for a in ("4.25", "4.4", "0.0425", "0.1")] == [
        True,
        False,
        True,
        False,
    ]


def test_the_verdict_says_what_was_read_and_why():
    verdict = VERIFIER.explain("0.5", r"\boxed{\tfrac{1}{2}}")
    assert (verdict.right, verdict.by, verdict.gold, verdict.answer) == (True, "grammar", "0.5", r"\frac{1}{2}")
    assert "2 boxes" in VERIFIER.explain("1", r"\boxed{1}\boxed{2}").reason
    assert "3,000 characters" in judge("1", "1" * 3000).reason
    assert "outside the thinking" in VERIFIER.explain("1", r"<think>\boxed{1}</think>").reason


def test_boxes_take_time_linear_in_the_text():
    started = time.perf_counter()
    assert boxes("\\boxed{" * 50_000) == []
    assert len(boxes("\\boxed{1}" * 20_000)) == 20_000
    assert time.perf_counter() - started < 2.0


def test_normalisation_puts_looks_aside():
    assert normalise(r"\[\left( 3,\, \tfrac{\pi}{2} \right).\]") == r"( 3, \frac{\pi}{2} )"
    assert normalise(r"10,\!080") == normalise("10{,}080") == normalise("10 080") == "10080"
    assert normalise(r"\mathrm{e}^{2}") == "e ^{2}"
    assert split_top(r"(1,2), \{3;4\}; 5") == ["(1,2)", r"\{3;4\}", "5"]
    assert split_unit(r"5 \text{ or } 6") == (r"5 \text{ or } 6", "")


HOSTILE = [
    "9^{9^{9^9}}",
    "10^{10^{10}}",
    "100000000!",
    "99999!^{99999}",
    r"\int e^{x^{x^x}}",
    r"\sum_{k=1}^{10^{12}} k",
    r"\prod_{k=1}^{10^9} k",
    r"\lim_{x\to\infty} x^{x^x}",
    r"\binom{10^9}{5\cdot10^8}",
    "(" * 3000 + "1" + ")" * 3000,
    "(" * 39 + "1" + ")" * 39,
    r"\sqrt" * 390 + "2",
    "-" * 1999 + "1",
    "x" * 1999,
    "3000!+" * 250 + "1",
    r"\pm" * 600 + "1",
    "1,234," * 300,
    "=" * 1500,
    "a-" * 900 + "!",
    "|" * 1000,
    "e^{" * 38 + "x" + "}" * 38,
    r"\sin" * 390 + "x",
    "9" * 1999,
    "1e400",
    r"\begin{pmatrix}" + "1&" * 900 + r"1\end{pmatrix}",
    "\\{" + ",".join(rf"\sqrt{{{i}}}" for i in range(60)) + "\\}",
]


def test_texts_built_to_hang_end_by_themselves_in_threads():
    """Without any time-out: what the grammar reads is bounded, what the library would evaluate is not evaluated."""
    results, started = {}, time.perf_counter()

    def work(number):
        results[number] = [judge("5", text).right for text in HOSTILE]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: [False] * len(HOSTILE) for number in range(2)}
    assert time.perf_counter() - started < 60


CODE = [
    "__import__('os').system('touch {canary}')",
    "open('{canary}','w')",
    "eval(\"open('{canary}','w')\")",
    "exec('import os; os.mknod(\"{canary}\")')",
    r"\text{{__import__('os').system('touch {canary}')}}",
    r"\operatorname{{__import__('os').system('touch {canary}')}}(1)",
    r"x_{{__import__('os').system('touch {canary}')}}",
    r"\sum_{{k=open('{canary}','w')}}^{{2}} k",
    r"\int_0^1 open('{canary}','w') dx",
    r"\begin{{pmatrix}}open('{canary}','w')\end{{pmatrix}}",
    r"\gcd(open('{canary}','w'), 2)",
    r"\max(__import__('os').mknod('{canary}'), 2)",
    r"f(open('{canary}','w'))",
    r"\write18{{touch {canary}}}",
    r"`touch {canary}`",
    "$(touch {canary})",
]


def test_code_in_answers_and_golds_is_never_run(tmp_path):
    canary = tmp_path / "ran"
    for template in CODE:
        text = template.format(canary=canary)
        for form in MATH_FORMATS.values():
            verifier = MathVerifier(form)
            assert right("5", form.write("", text), verifier) is False
            verifier.explain(text, form.write("", "5"))
            judge(text, text)
    assert not canary.exists()
    exec(compile(f"open({str(canary)!r}, 'w').close()", "attack", "exec"))  # noqa: S102  the attack works when it is run
    assert canary.exists()


def test_a_verifier_is_sent_to_other_processes_and_says_the_same_there():
    verifier = MathVerifier(MATH_FORMATS["open"], tolerance=Tolerance(0.01))
    assert pickle.loads(pickle.dumps(verifier)) == verifier  # noqa: S301
    code = (
        "from onepolicy.tasks.math import judge\n"
        "pairs = [('x^2+2x+1', '(x+1)^2'), ('\\\\sqrt{2}', '1.414214'), ('1,2', '2,1'), ('n!', 'n'), ('5', '4')]\n"
        "print([judge(*pair) for _ in range(20) for pair in pairs] == 20 * [judge(*pair) for pair in pairs])\n"
        "print([judge(*pair).right for pair in pairs])"
    )
    for seed in ("0", "1"):
        env = {"PYTHONHASHSEED": seed, "PATH": ""}
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env).stdout
        assert out.split("\n")[:2] == ["True", "[True, True, True, False, False]"]
