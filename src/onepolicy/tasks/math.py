r"""The verifier of mathematics: whether a completion's final answer is the gold answer, and why.

An answer is right in one of three ways, tried in this order: its text is the gold's; both are read by the house's own
grammar and are equal (`math_compare`); the grammar does not read one of them, and math-verify behind its strict wrapper
reads both and finds them equal (`math_library`). What cannot be read is not right; a gold answer that cannot be read
makes the task invalid. No text of a model is ever evaluated as code. Reading and comparing are bounded but for the
library's part, so untrusted answers belong into the pool of worker processes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from onepolicy.tasks import math_library
from onepolicy.tasks.math_answers import read
from onepolicy.tasks.math_compare import EXACT, Tolerance, same
from onepolicy.tasks.math_formula import Unread, free_symbols
from onepolicy.tasks.math_readings import Reading, Scalar, Sequence, Union
from onepolicy.tasks.math_spelling import conclusion
from onepolicy.tasks.math_text import BOXED, OPEN, boxes, final_answer, normalise, too_hard
from onepolicy.tasks.math_values import value
from onepolicy.tasks.rewards import DEFAULT_WEIGHTS, FORMATS, AnswerFormat, RewardWeights, split_thinking
from onepolicy.types import Score, Task

MATH_FORMATS = {form.name: form for form in (BOXED, OPEN)} | FORMATS
"""Answer formats by name: boxed, open, tag, hash, last."""

_DOTS = re.compile(r"\\[lcv]?dots(?![A-Za-z])|\.\.\.|…")
"""What the library reads over."""

By = Literal["text", "grammar", "math-verify", "nothing"]


@dataclass(frozen=True)
class Verdict:
    """What became of one answer.

    right: None where the gold answer cannot be read, unless the answer is the same text. by: what decided. reason: in
    words. gold, answer: the texts as compared, after normalisation. parsed: the answer could be read.
    """

    right: bool | None
    by: By
    reason: str
    gold: str
    answer: str
    parsed: bool = True


@dataclass(frozen=True)
class Gold:
    """A gold answer as read once: its text, its readings by the grammar, else the library's.

    error: why there is no reading. foreign: because nobody reads such text, not because it has no value.
    """

    text: str
    readings: tuple[Reading, ...] = ()
    library: Any = None
    error: str = ""
    foreign: bool = False


def judge(gold: str, answer: str, tolerance: Tolerance = EXACT) -> Verdict:
    r"""Whether an answer is the gold answer. Both are answers, not solutions; a `\boxed{}` is taken off.

    >>> judge("\\frac{1}{2}", "0.5").right, judge("0.1", "0.10000001").right, judge("\\frac{1}{", "1").right
    (True, False, None)
    """
    standard = read_gold(gold)
    answer = _unboxed(answer)
    if reason := too_hard(answer):
        return Verdict(_wrong(standard), "nothing", f"the answer has {reason}", standard.text, "", False)
    text = normalise(answer)
    if standard.error:
        if standard.foreign and text and text == standard.text and _closed(text):
            return Verdict(True, "text", "the same text, which cannot be read", standard.text, text)
        return Verdict(None, "nothing", f"the gold answer cannot be read: {standard.error}", standard.text, text)
    if not text:
        return Verdict(False, "nothing", "the answer is empty", standard.text, text, False)
    if text == standard.text:
        return Verdict(True, "text", "the same text", standard.text, text)
    text = conclusion(text)
    if standard.readings:
        try:
            readings = read(text)
        except Unread as error:
            if not math_library.worth_asking(text):
                return Verdict(False, "nothing", f"the answer cannot be read: {error}", standard.text, text, False)
            return _by_library(standard, text, str(error))
        return _by_grammar(standard, readings, text, tolerance)
    return _by_library(standard, text, "the gold answer is outside the grammar")


@lru_cache(maxsize=4096)
def read_gold(gold: str) -> Gold:
    """A gold answer, read; `error` says why it cannot be. Several boxes are a list."""
    answer = " , ".join(dict.fromkeys(boxes(gold))) or gold
    if reason := too_hard(answer):
        return Gold("", error=reason)
    found = _read_gold(normalise(answer))
    if found.error and (led := conclusion(found.text)) != found.text:
        found = replace(_read_gold(led), text=found.text)
    marked = any(sign in answer for sign in ("$", "\\[", "\\("))
    prose = final_answer(answer) if found.error and marked else None
    return _read_gold(normalise(prose)) if prose is not None and prose != answer else found


def _read_gold(text: str) -> Gold:
    try:
        found = read(text, decimal_comma=False)
    except Unread as error:
        try:
            return Gold(text, library=math_library.read(text))
        except Unread:
            return Gold(text, error=str(error), foreign=True)
    readings, reason = [], ""
    for reading in found:
        try:
            _computable(reading)
            readings.append(reading)
        except Unread as error:
            reason = str(error)
    return Gold(text, tuple(readings), error="" if readings else reason)


def _computable(reading: Reading) -> None:
    """Raises: Unread where a gold value is out of bounds, as in 9^{9^{9^9}}; found by comparing it with a number."""
    parts = getattr(reading, "items", None) or getattr(reading, "parts", None) or getattr(reading, "sides", None)
    for part in parts or ():
        _computable(part)
    if isinstance(reading, Scalar) and not free_symbols(reading.formula) and "infty" not in str(reading.formula):
        value(reading.formula)


def _wrong(gold: Gold) -> bool | None:
    return None if gold.error else False


def _closed(text: str) -> bool:
    """Whether every brace has its other half: a text that does not is a broken one, and equal to nothing."""
    return text.count("{") == text.count("}")


def _unboxed(text: str) -> str:
    found = boxes(text)
    return found[-1] if found else text


def _by_grammar(gold: Gold, readings: list[Reading], text: str, tolerance: Tolerance) -> Verdict:
    reason = "read, and not the same"
    for one in gold.readings:
        for two in readings:
            try:
                if same(one, two, tolerance):
                    return Verdict(True, "grammar", f"equal: {shown(one)} and {shown(two)}", gold.text, text)
            except Unread as error:
                reason = f"cannot be compared: {error}"
    return Verdict(False, "grammar", f"{reason}: {shown(gold.readings[0])}, {shown(readings[0])}", gold.text, text)


def _by_library(gold: Gold, text: str, reason: str) -> Verdict:
    if (_DOTS.search(gold.text) is None) is not (_DOTS.search(text) is None):
        return Verdict(False, "nothing", "only one of the two goes on (dots)", gold.text, text, False)
    try:
        standard = gold.library if gold.library is not None else math_library.read(gold.text)
        answer = math_library.read(text)
    except Unread as error:
        return Verdict(False, "nothing", f"the answer cannot be read: {reason}; {error}", gold.text, text, False)
    right = math_library.same(standard, answer)
    return Verdict(right, "math-verify", "equal" if right else "not equal", gold.text, text)


def shown(reading: Reading) -> str:
    """A reading in a few words, for people."""
    name = type(reading).__name__.lower()
    if isinstance(reading, Sequence):
        kind = {"": "list", "()": "tuple", "[]": "bracketed list", "{}": "set", "choice": "choice"}
        return f"a {kind.get(reading.brackets, 'half-open interval')} of {len(reading.items)}"
    if isinstance(reading, Union):
        return f"a union of {len(reading.parts)}"
    return {"scalar": "a number or formula", "grid": "a matrix", "word": "words", "based": "digits in a base"}.get(
        name, f"a {name}"
    )


@dataclass(frozen=True)
class MathVerifier:
    r"""Judges the final answer of a completion against `Task.answer`.

    form: where the answer stands; BOXED (default) takes the last `\boxed{}` after the thinking. Boxes that differ make
    it wrong, unless the gold answer is a list and each box has one of its elements. tolerance: for numbers; none by
    default. Parts: `correct`, `format` and `parsed`, each 0 or 1; the value is the weighted sum of the first two.
    """

    form: AnswerFormat = BOXED
    weights: RewardWeights = DEFAULT_WEIGHTS
    tolerance: Tolerance = EXACT

    def __call__(self, task: Task, text: str) -> Score:
        verdict = self.explain(task.answer, text)
        if verdict.right is None:
            return Score(None, {}, f"gold: {task.id}: {verdict.reason}"[:500])
        correct, kept = float(verdict.right), float(self.form.matches(text))
        value = self.weights.correct * correct + self.weights.format * kept
        return Score(value, {"correct": correct, "format": kept, "parsed": float(verdict.parsed)})

    def explain(self, gold: str, text: str) -> Verdict:
        """The verdict on a completion's text, with its reason."""
        rest = split_thinking(text)[1]
        found = boxes(rest) if self.form.name in (BOXED.name, OPEN.name) else []
        if found:
            return self._of_boxes(gold, found)
        answer = self.form.extract(text)
        if answer is not None:
            return judge(gold, answer, self.tolerance)
        bare = text.replace("<think>", "").replace("</think>", "")
        where = " outside the thinking" if rest != text and self.form.extract(bare) is not None else ""
        return _no_answer(gold, f"no single answer in the format {self.form.name!r}{where}")

    def _of_boxes(self, gold: str, found: list[str]) -> Verdict:
        different = list(dict.fromkeys(found))
        verdict = judge(gold, different[-1], self.tolerance)
        if len(different) == 1 or verdict.right is None:
            return verdict
        if len(different) > 20:
            return Verdict(False, "nothing", f"{len(different)} different boxes", verdict.gold, verdict.answer)
        if verdict.right and all(judge(gold, other, self.tolerance).right for other in different[:-1]):
            return verdict
        elements = read_gold(gold).readings
        if any(
            isinstance(e, Sequence) and e.brackets in ("", "{}") and len(e.items) == len(different) for e in elements
        ):
            return judge(gold, " , ".join(different), self.tolerance)
        reason = f"{len(different)} boxes with different answers"
        return Verdict(False, "nothing", reason, verdict.gold, verdict.answer)


def _no_answer(gold: str, reason: str) -> Verdict:
    standard = read_gold(gold)
    if standard.error:
        return Verdict(None, "nothing", f"the gold answer cannot be read: {standard.error}", standard.text, "", False)
    return Verdict(False, "nothing", reason, standard.text, "", False)
