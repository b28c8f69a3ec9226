"""The calculations inside GSM8K's own solutions as problems: numbers people wrote, held out by the test file.

Every `<<48/2=24>>` becomes the problem `48/2=` with the answer 24. Problems are unique by their text. A problem of the
test file that occurs in the train file, in whatever order its sums and products are written, is removed, so that the
two are disjoint. Answers are rationals, compared exactly; where an annotation is a rounding (`1/3=.33`) both the exact
value and the rounding are right. An annotation that calculates wrong is dropped and listed.
Source of the data: Cobbe et al. 2021 (arXiv 2110.14168).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from onepolicy.errors import ConfigError, DataError, nearest
from onepolicy.run.seeding import derive_rng
from onepolicy.tasks.base import GoldReport, TaskSet, conversation
from onepolicy.tasks.expressions import (
    Group,
    Negative,
    Node,
    Number,
    Operation,
    Value,
    evaluate,
    literals,
    number_text,
    parse,
    read_number,
    reductions,
)
from onepolicy.tasks.gsm8k import calculations
from onepolicy.tasks.hub import open_rows
from onepolicy.tasks.rewards import DEFAULT_WEIGHTS, TAGGED, AnswerVerifier, RewardWeights
from onepolicy.tasks.rows import Policy, Row, text_field
from onepolicy.tasks.worked import CHARACTERS, STYLES, places
from onepolicy.types import Task

_PLUS_SIGN = re.compile(r"(?<![0-9.)])\+")


@dataclass(frozen=True)
class Calculation:
    """One annotation as a problem.

    expression: as written, without blanks and plus signs before a number. value: exact. written: the annotation's own
    result, equal to value unless it is a rounding.
    """

    expression: str
    value: Value
    written: Value


@dataclass(frozen=True)
class Filter:
    """Which calculations to keep; None keeps all.

    digits: significant digits of every number, intermediate and result, at most. length: characters of the expression
    at most. terms: numbers in it at most. decimals: decimal places anywhere at most (0: integers only). operators:
    those that may occur; a bracket counts as the operator "(".
    """

    digits: int | None = None
    length: int | None = None
    terms: int | None = None
    decimals: int | None = None
    operators: str = "+-*/("

    def __call__(self, calculation: Calculation) -> bool:
        node = parse(calculation.expression)
        numbers = [*literals(node), *(evaluate(step) for step, _ in reductions(node))]
        return (
            (self.length is None or len(calculation.expression) <= self.length)
            and (self.terms is None or len(list(literals(node))) <= self.terms)
            and set(re.findall(r"[-+*/(]", calculation.expression)) <= set(self.operators)
            and (self.decimals is None or all(places(value) <= self.decimals for value in numbers))
            and (self.digits is None or all(significant_digits(value) <= self.digits for value in numbers))
        )


def load(
    split: str = "train",
    *,
    path: str = "",
    exclude: str = "",
    n: int | None = None,
    seed: int = 0,
    digits: int | None = None,
    length: int | None = None,
    terms: int | None = None,
    decimals: int | None = None,
    operators: str = "+-*/(",
    style: str = "worked",
    system: str = "",
    on_error: Policy = "stop",
    weights: RewardWeights = DEFAULT_WEIGHTS,
) -> TaskSet:
    """The calculations of a GSM8K file (of the hub's split when path is "") that pass the filter.

    exclude: for the test split, the train file whose problems are removed; "" is `train.jsonl` beside path. digits,
    length, terms, decimals, operators: see Filter. n: so many of them, drawn by seed; None keeps all. style: of the
    demonstrations.
    counts: rows, annotations, rounded, wrong, bare (no operation), repeated, in_train, filtered, tasks.

    Raises: ConfigError for an unknown style, or a test file without a train file; DataError for an unreadable file.
    """
    if style not in STYLES:
        raise ConfigError(f"Unknown style {style!r} of gsm8k-steps. {nearest(style, STYLES)}")
    counts: Counter[str] = Counter()
    found, dropped = _calculations(split, path, on_error, counts)
    in_train: set[str] = set()
    if split == "test":
        train, _ = _calculations("train", exclude or _beside(path), on_error, Counter())
        in_train = {canonical(parse(one.expression)) for one in train}
    passes = Filter(digits, length, terms, decimals, operators)
    kept = _unique(found, in_train, passes, counts)
    if n is not None and n < len(kept):
        kept = [kept[i] for i in sorted(derive_rng(seed, "gsm8k-steps", split).permutation(len(kept))[:n])]
    verifier = AnswerVerifier(judge, TAGGED, weights)
    tasks = tuple(_task(one, verifier, system) for one in kept)
    counts["tasks"] = len(tasks)
    return TaskSet(
        name=f"gsm8k-steps/{split}",
        tasks=tasks,
        characters=CHARACTERS,
        demonstrate=partial(demonstrate, style=style) if split == "train" else None,
        counts=dict(counts),
        dropped=tuple(dropped),
    )


@lru_cache(maxsize=1 << 16)
def read_calculation(annotation: str) -> Calculation:
    """The problem in an annotation `48/2=24`.

    `//` is read as `/`. A result that is not the exact value must be its rounding or truncation to the places written.
    Raises: DataError for one that cannot be read or calculates wrong.

    >>> read_calculation("1/3=.33").value, read_calculation("+5+3=8").expression
    (Fraction(1, 3), '5+3')
    """
    left, equals, right = annotation.partition("=")
    expression = _PLUS_SIGN.sub("", re.sub(r"\s", "", left).replace("//", "/"))
    written = read_number(right)
    if not equals or written is None:
        raise DataError(f"<<{annotation[:60]}>> is no calculation with a number as its result.")
    value = evaluate(parse(expression))
    if written != value and not is_rounding(written, value, right):
        raise DataError(f"<<{annotation[:60]}>> calculates wrong: {expression} is {number_text(value)}.")
    return Calculation(expression, value, written)


def is_rounding(written: Value, value: Value, text: str) -> bool:
    """Whether a number, written as `text`, is value rounded or cut off at its decimal places; 0 is no rounding.

    >>> from fractions import Fraction
    >>> is_rounding(Fraction("0.67"), Fraction(2, 3), "0.67"), is_rounding(Fraction("0.7"), Fraction(3, 5), "0.7")
    (True, False)
    """
    unit = 10 ** len(text.strip().partition(".")[2])
    off = (written - value) * unit
    nearest_one, cut_off = -1 <= 2 * off <= 1, -1 < off < 1 and (off < 0) == (value > 0)
    return written != 0 and (nearest_one or cut_off)


def check_gold(split: str, path: str = "") -> GoldReport:
    """Whether each annotation of a file is right by its own verifier, repeated and bare ones included."""
    counts: Counter[str] = Counter()
    found, dropped = _calculations(split, path, "stop", counts)
    verifier = AnswerVerifier(judge, TAGGED)
    tasks = (_task(one, verifier, "") for one in found)
    wrong = [task.id for task in tasks if verifier(task, TAGGED.write("", task.answer)).parts["correct"] != 1.0]
    failures = [(line.partition(":")[0], line.partition(": ")[2]) for line in dropped]
    return GoldReport(counts["annotations"], tuple(failures + [(name, "gold is judged wrong") for name in wrong]))


def judge(task: Task, answer: str) -> bool:
    """Whether the answer is the exact value, or the annotation's own rounding of it."""
    number = read_number(answer)
    return number is not None and number in (read_number(task.answer), read_number(task.meta["exact"]))


def demonstrate(task: Task, style: str = "worked") -> str:
    """A worked completion: the expression worked out in a style of `tasks.worked`, then the answer."""
    return TAGGED.write(STYLES[style](task.meta["expression"]), task.answer)


def canonical(node: Node) -> str:
    """A text equal for expressions that differ only in how numbers are written or sums and products ordered.

    >>> canonical(parse("2*(3.0+.5)")) == canonical(parse("(0.5+3)*2"))
    True
    """
    if isinstance(node, Number):
        return str(node.value)
    if isinstance(node, Group):
        return canonical(node.inner)
    if isinstance(node, Negative):
        return f"-({canonical(node.operand)})"
    if node.operator in "+*":
        return f"({node.operator.join(sorted(_operands(node, node.operator)))})"
    return f"({canonical(node.left)}{node.operator}{canonical(node.right)})"


def _operands(node: Node, operator: str) -> list[str]:
    """The canonical operands of a chain of one operator."""
    inner = node.inner if isinstance(node, Group) else node
    if isinstance(inner, Operation) and inner.operator == operator:
        return _operands(inner.left, operator) + _operands(inner.right, operator)
    return [canonical(inner)]


def significant_digits(value: Value) -> int:
    """Digits of a number without sign, point and zeros in front; a fraction counts above and below its bar.

    >>> from fractions import Fraction
    >>> [significant_digits(value) for value in (-120, Fraction(1, 4), Fraction(1, 3))]
    [3, 2, 2]
    """
    return max(1, len(re.sub(r"[-./]", "", number_text(value)).lstrip("0")))


def _beside(path: str) -> str:
    """The train file next to a test file; "" (the hub's) for the hub's."""
    train = Path(path).with_name("train.jsonl") if path else Path()
    if path and not train.is_file():
        raise ConfigError(
            f"The test split of gsm8k-steps needs the train file to be held out from, and {train} is not there; "
            "give it as exclude=."
        )
    return str(train) if path else ""


def _calculations(split: str, path: str, on_error: Policy, counts: Counter[str]) -> tuple[list[Calculation], list[str]]:
    """Every readable annotation of a file in order, and a line for each that is not."""
    rows = open_rows("gsm8k", split, path, _annotations, on_error)
    dropped = [f"row {number}: {reason}" for number, reason in rows.dropped]
    counts["rows"] = len(rows.kept) + len(rows.dropped)
    found: list[Calculation] = []
    for number, listed in rows.kept:
        for annotation in listed:
            counts["annotations"] += 1
            try:
                calculation = read_calculation(annotation)
            except DataError as error:
                counts["wrong"] += 1
                dropped.append(f"row {number}: {error}")
                continue
            counts["rounded"] += calculation.written != calculation.value
            found.append(calculation)
    return found, dropped


def _annotations(number: int, row: Row) -> tuple[int, list[str]]:
    return number, calculations(text_field(row, "answer"))


def _unique(
    found: Iterable[Calculation], in_train: set[str], passes: Filter, counts: Counter[str]
) -> list[Calculation]:
    """Calculations with an operation, once each, outside the train file and within the filter."""
    kept: dict[str, Calculation] = {}
    seen: set[str] = set()
    for one in found:
        node = parse(one.expression)
        if len(list(literals(node))) < 2:
            counts["bare"] += 1
        elif one.expression in seen:
            counts["repeated"] += 1
        elif canonical(node) in in_train:
            counts["in_train"] += 1
        elif not passes(one):
            counts["filtered"] += 1
        else:
            kept[one.expression] = one
        seen.add(one.expression)
    return list(kept.values())


def _task(one: Calculation, verifier: AnswerVerifier, system: str) -> Task:
    operators = sorted(set(re.findall(r"[-+*/]", one.expression[1:])))
    kind = operators[0] if len(operators) == 1 else "mixed"
    meta = {"level": kind, "expression": one.expression, "exact": number_text(one.value)}
    answer = number_text(one.written)
    return Task(f"gsm8k-steps/{one.expression}", conversation(f"{one.expression}=", system), answer, verifier, meta)
