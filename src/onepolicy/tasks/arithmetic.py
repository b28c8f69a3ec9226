"""Multi-step arithmetic: chains of + - * over integers with negative numbers and brackets, made without end.

Whether a problem belongs to the train or the held-out split is a hash of its text, so the two are disjoint whatever
the level, seed or size. Demonstrations work a problem out one operation at a time, in the styles of `tasks.worked`, and
are written only for the train split. Division is left out: answers are integers, read strictly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from onepolicy.errors import ConfigError, nearest
from onepolicy.run.seeding import derive_rng
from onepolicy.tasks.base import TaskSet, conversation
from onepolicy.tasks.expressions import evaluate, parse, read_integer, reductions
from onepolicy.tasks.procedural import draw, named_levels, shares
from onepolicy.tasks.rewards import DEFAULT_WEIGHTS, TAGGED, AnswerVerifier, RewardWeights
from onepolicy.tasks.worked import STYLES
from onepolicy.types import Task

CHARACTERS = "0123456789+-*()=:; "
"""Every character of a prompt or demonstration outside the four tags."""


@dataclass(frozen=True)
class ArithmeticLevel:
    """How hard a problem is.

    terms: numbers in the expression. digits: of each number. operators: drawn from, each equally likely.
    brackets: pairs, around two terms or more and never the whole. negatives: share of terms that are negative
    (written `(-5)`, at the start `-5`). limit: magnitude that no intermediate result exceeds.
    """

    terms: int
    digits: int = 1
    operators: str = "+-"
    brackets: int = 0
    negatives: float = 0.0
    limit: int = 999

    def __post_init__(self) -> None:
        fits = 2 <= self.terms <= 20 and 1 <= self.digits <= 6 and self.limit >= 10**self.digits - 1
        if not fits or not self.operators or set(self.operators) - set("+-*") or not 0 <= self.negatives <= 1:
            raise ConfigError(
                f"{self} is no level: terms are 2 to 20, digits 1 to 6, operators among '+-*', negatives 0 to 1, "
                "and limit at least the largest number."
            )
        if not 0 <= self.brackets <= (self.terms - 1) // 2:
            raise ConfigError(
                f"{self.brackets} pairs of brackets do not fit {self.terms} terms; at most (terms - 1) // 2, "
                f"here {(self.terms - 1) // 2}."
            )


LEVELS: dict[int, ArithmeticLevel] = {
    1: ArithmeticLevel(2),
    2: ArithmeticLevel(3),
    3: ArithmeticLevel(4, operators="+-*", brackets=1, limit=9),
    4: ArithmeticLevel(5),
    5: ArithmeticLevel(5, negatives=0.25),
    6: ArithmeticLevel(5, operators="+-*", brackets=1, negatives=0.25),
    7: ArithmeticLevel(4, digits=2, brackets=1),
    8: ArithmeticLevel(6, digits=2, operators="+-*", brackets=2, negatives=0.25, limit=9999),
}
"""From two one-digit terms to six two-digit terms with products, brackets and negative numbers."""


def load(
    split: str = "train",
    *,
    level: int | Sequence[int] | ArithmeticLevel = 4,
    n: int = 10_000,
    at_most: bool = False,
    seed: int = 0,
    style: str = "steps",
    system: str = "",
    weights: RewardWeights = DEFAULT_WEIGHTS,
) -> TaskSet:
    """n different problems of a level, or of several levels in turn.

    split: "train" or "test". at_most: where a level has fewer, take them all. style: of the demonstrations (STYLES).
    system: a system message for every task. counts: asked (n), tasks.
    Raises: ConfigError for an unknown level or style, or more problems asked than the level has, unless at_most.
    """
    if style not in STYLES:
        raise ConfigError(f"Unknown style {style!r} of arithmetic. {nearest(style, STYLES)}")
    chosen = named_levels(level, LEVELS, "arithmetic")
    seen: set[str] = set()
    tasks: list[Task] = []
    verifier = AnswerVerifier(judge, TAGGED, weights)
    for (name, one), count in zip(chosen, shares(n, len(chosen)), strict=True):
        rng = derive_rng(seed, "arithmetic", split, str(one))
        for expression in draw(partial(_make, one, rng), count, split, seen, str(one), at_most):
            answer = str(evaluate(parse(expression)))
            meta = {"level": name, "terms": one.terms, "expression": expression}
            task_id = f"arithmetic/{expression}"
            tasks.append(Task(task_id, conversation(f"{expression}=", system), answer, verifier, meta))
    order = derive_rng(seed, "arithmetic", "order", split).permutation(len(tasks))
    return TaskSet(
        name=f"arithmetic/{split}",
        tasks=tuple(tasks[i] for i in order),
        characters=CHARACTERS,
        demonstrate=partial(demonstrate, style=style) if split == "train" else None,
        counts={"asked": n, "tasks": len(tasks)},
    )


def judge(task: Task, answer: str) -> bool:
    """Whether the answer is the integer of the gold answer, written as digits with an optional sign."""
    number = read_integer(answer)
    return number is not None and number == read_integer(task.answer)


def demonstrate(task: Task, style: str = "steps") -> str:
    """A worked completion: the steps as thinking, then the answer."""
    return TAGGED.write(STYLES[style](task.meta["expression"]), task.answer)


def _make(level: ArithmeticLevel, rng: np.random.Generator) -> tuple[str, str] | None:
    """A random expression, as key and problem, unless an intermediate result exceeds the limit."""
    expression = _expression(level, rng)
    results = (evaluate(step) for step, _ in reductions(parse(expression)))
    return (expression, expression) if all(-level.limit <= result <= level.limit for result in results) else None


def _expression(level: ArithmeticLevel, rng: np.random.Generator) -> str:
    """A random expression, its brackets in disjoint spans of two terms or more."""
    low = 10 ** (level.digits - 1) if level.digits > 1 else 0
    numbers = rng.integers(low, 10**level.digits, size=level.terms)
    negative = rng.random(level.terms) < level.negatives
    operators = [level.operators[i] for i in rng.integers(len(level.operators), size=level.terms - 1)]
    opens, closes = _spans(level, rng)
    text = ""
    for i, number in enumerate(numbers):
        text += operators[i - 1] if i else ""
        starts = i == 0 or i in opens
        text += "(" if i in opens else ""
        minus = negative[i] and number > 0
        text += f"-{number}" if minus and starts else f"(-{number})" if minus else str(number)
        text += ")" if i in closes else ""
    return text


def _spans(level: ArithmeticLevel, rng: np.random.Generator) -> tuple[set[int], set[int]]:
    """First and last terms of the bracketed spans: sorted distinct cut points, taken in pairs."""
    if level.brackets == 0:
        return set(), set()
    while True:
        ends = sorted(rng.choice(level.terms, size=2 * level.brackets, replace=False).tolist())
        opens, closes = ends[0::2], ends[1::2]
        if (opens[0], closes[0]) != (0, level.terms - 1):
            return set(opens), set(closes)
