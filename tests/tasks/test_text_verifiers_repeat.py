"""V9 and V4 for the verifiers of text: the same verdicts 20 times in 3 processes, and nothing in an answer is run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import hashlib, pickle, sys
import numpy as np
from onepolicy.tasks.base import conversation
from onepolicy.tasks.form import JsonVerifier, RegexVerifier, TagVerifier
from onepolicy.tasks.instructions import CONSTRAINTS, Bound, InstructionVerifier
from onepolicy.tasks.instructions_prompts import compose
from onepolicy.tasks.language import LanguageVerifier
from onepolicy.tasks.length import LengthBudget, LengthTarget, OverlongPenalty
from onepolicy.tasks.repetition import RepetitionPenalty
from onepolicy.tasks.text import METRICS, OverlapVerifier
from onepolicy.types import Task

def verifiers():
    rng = np.random.default_rng(1)
    for name in CONSTRAINTS:
        bound = Bound(name, CONSTRAINTS[name].draw(rng))
        for errata in ("original", "corrected"):
            yield InstructionVerifier((bound,), errata=errata), compose([bound], rng)
    for language in ("en", "fr", "zh", "ja", "ru", "hi"):
        yield LanguageVerifier(language, minimum=5), ""
    for metric in METRICS:
        yield OverlapVerifier(metric), ""
    for one in (TagVerifier(), JsonVerifier({"type": "object"}), RegexVerifier("[a-z ]+", "search"), LengthBudget(9),
                LengthTarget(7), OverlongPenalty(9, 4), RepetitionPenalty(2)):
        yield one, ""

code = "__import__('pathlib').Path('RAN').touch()"
texts = ("Das ist ein Haus, ja.", "HELLO, WORLD!\\n* a\\n* b", '{"a": "b c"}', "这是一个很好的句子。これは文です。",
         code,
         "```python\\n" + code + "\\n```", "<think>" + code + "</think><answer>" + code + "</answer>", "{" + code + "}")
digests = set()
for _ in range(int(sys.argv[1])):
    said = []
    for verifier, own in verifiers():
        for text in (own, *texts):
            said.append(repr(verifier(Task("t", conversation("Go."), "Das ist das Haus.", verifier), text)))
    digests.add(hashlib.sha256("\\n".join(said).encode()).hexdigest())
assert not any(name.split(".")[0] == "torch" for name in sys.modules), "torch was imported"
print(len(said), *digests)
"""


@pytest.mark.parametrize("repeats", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_the_same_in_three_processes_and_nothing_is_run(repeats, tmp_path):
    source = Path(__file__).resolve().parents[2] / "src"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(repeats)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(source), "PYTHONHASHSEED": seed},
        )
        for seed in ("0", "1", "random")
    ]
    said = [process.communicate(timeout=200) for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], said[0][1][-2000:]
    counts = {out.split()[0] for out, _ in said}
    assert int(counts.pop()) > 1000
    assert counts == set()
    assert len({digest for out, _ in said for digest in out.split()[1:]}) == 1
    assert list(tmp_path.iterdir()) == []
