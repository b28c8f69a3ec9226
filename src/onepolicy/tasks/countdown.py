"""Countdown: reach a target from given numbers with + - * / and brackets; any valid expression counts.

Problems are made from a random expression, so each has a solution, and every intermediate result of it is a positive
integer. Which split a problem belongs to is a hash of its numbers and target, whatever their order. As in TinyZero
each number is used exactly once by default; `use="some"` allows numbers to be left over, as on television.
Source: TinyZero, github.com/Jiayi-Pan/TinyZero, `verl/utils/reward_score/countdown.py` (which evaluates with `eval`;
here a parser over exact rationals does).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random

from onepolicy.errors import ConfigError, DataError, nearest
from onepolicy.run.seeding import derive_seed
from onepolicy.tasks.base import TaskSet, conversation
from onepolicy.tasks.expressions import (
    Group,
    Negative,
    Node,
    Number,
    Operation,
    Value,
    evaluate,
    literals,
    parse,
    to_text,
)
from onepolicy.tasks.procedural import draw, named_levels, shares
from onepolicy.tasks.rewards import DEFAULT_WEIGHTS, TAGGED, AnswerVerifier, RewardWeights
from onepolicy.tasks.worked import STYLES
from onepolicy.types import Task

CHARACTERS = "0123456789+-*/()=:;r "
"""Every character of a prompt without a system message, or of a demonstration, outside the four tags."""

Problem = tuple[tuple[int, ...], Node]
"""(numbers, solution)"""


@dataclass(frozen=True)
class CountdownLevel:
    """How hard a problem is.

    numbers: given. largest: of them. target: at most. operators: that its making draws from; a solution may use others.
    """

    numbers: int
    largest: int
    target: int
    operators: str = "+-*/"

    def __post_init__(self) -> None:
        fits = 2 <= self.numbers <= 8 and 2 <= self.largest <= 999 and 1 <= self.target <= 9999
        if not fits or not self.operators or set(self.operators) - set("+-*/"):
            raise ConfigError(
                f"{self} is no level: numbers are 2 to 8, largest 2 to 999, target 1 to 9999, operators among '+-*/'."
            )


LEVELS: dict[int, CountdownLevel] = {
    1: CountdownLevel(2, 99, 198, "+-"),
    2: CountdownLevel(3, 30, 60, "+-"),
    3: CountdownLevel(3, 20, 100),
    4: CountdownLevel(3, 99, 100),
    5: CountdownLevel(4, 99, 100),
    6: CountdownLevel(5, 99, 999),
}
"""From two small numbers to five; 4 and 5 are the sizes of TinyZero's data set."""


def load(
    split: str = "train",
    *,
    level: int | Sequence[int] | CountdownLevel = 3,
    n: int = 5_000,
    at_most: bool = False,
    seed: int = 0,
    use: str = "all",
    style: str = "steps",
    system: str = "",
    weights: RewardWeights = DEFAULT_WEIGHTS,
) -> TaskSet:
    """n different problems of a level, or of several in turn.

    at_most: where a level has fewer, take them all. use: "all" (each number exactly once) or "some" (at most once).
    style: of the demonstrations, which work out the expression a problem was made from. system: a system message; with
    one the question is asked in words, without one it is `3 5 8=16`. counts: asked (n), tasks.

    Raises: ConfigError for an unknown level, use or style, or more problems asked than the level has, unless at_most.
    """
    for option, known in ((use, tuple(USES)), (style, tuple(STYLES))):
        if option not in known:
            raise ConfigError(f"countdown has no {option!r}. {nearest(option, known)}")
    chosen = named_levels(level, LEVELS, "countdown")
    verifier = AnswerVerifier(partial(judge, use=use), TAGGED, weights)
    seen: set[str] = set()
    tasks: list[Task] = []
    for (name, one), count in zip(chosen, shares(n, len(chosen)), strict=True):
        rng = Random(derive_seed(seed, "countdown", split, str(one)))
        for numbers, node in draw(partial(_make, one, rng), count, split, seen, str(one), at_most):
            target = int(evaluate(node))
            asked = _in_words(numbers, target, use) if system else f"{' '.join(map(str, numbers))}={target}"
            meta = {"level": name, "numbers": numbers, "target": target}
            task_id = f"countdown/{key(numbers, target)}"
            tasks.append(Task(task_id, conversation(asked, system), to_text(node), verifier, meta))
    return TaskSet(
        name=f"countdown/{split}",
        tasks=tuple(tasks),
        characters="" if system else CHARACTERS,
        demonstrate=partial(demonstrate, style=style) if split == "train" else None,
        counts={"asked": n, "tasks": len(tasks)},
    )


def judge(task: Task, answer: str, use: str = "all") -> bool:
    """Whether the answer is an expression of the given numbers, used as told, that equals the target exactly.

    No sign before a number, no other number, no `=`: an expression and nothing else.
    """
    try:
        node = parse(answer)
        reached = evaluate(node)
    except DataError:
        return False
    given: Counter[Value] = Counter(task.meta["numbers"])
    used = Counter(literals(node))
    return reached == task.meta["target"] and not _has_sign(node) and USES[use](used, given)


def demonstrate(task: Task, style: str = "steps") -> str:
    """A worked completion: the expression the problem was made from, worked out, as thinking and as answer."""
    return TAGGED.write(STYLES[style](task.answer), task.answer)


def key(numbers: Sequence[int], target: int) -> str:
    """What makes a problem: its numbers, in whatever order, and its target.

    >>> key((8, 3, 5), 16)
    '3 5 8=16'
    """
    return f"{' '.join(map(str, sorted(numbers)))}={target}"


def _exactly(used: Counter[Value], given: Counter[Value]) -> bool:
    return used == given


def _at_most(used: Counter[Value], given: Counter[Value]) -> bool:
    return used <= given


USES: dict[str, Callable[[Counter[Value], Counter[Value]], bool]] = {"all": _exactly, "some": _at_most}
"""How the given numbers are to be used, by name."""


def _has_sign(node: Node) -> bool:
    if isinstance(node, Operation):
        return _has_sign(node.left) or _has_sign(node.right)
    return isinstance(node, Negative) or (isinstance(node, Group) and _has_sign(node.inner))


def _in_words(numbers: Sequence[int], target: int, use: str) -> str:
    often = "exactly once" if use == "all" else "at most once"
    return (
        f"Using the numbers {list(numbers)}, write an expression that equals {target}. Use +, -, *, / and brackets, "
        f"and each number {often}. Answer with the expression alone."
    )


def _make(level: CountdownLevel, rng: Random) -> tuple[str, Problem] | None:
    """A random problem with its key, or None where this try has no solution of the level."""
    numbers = tuple(1 + _below(level.largest, rng) for _ in range(level.numbers))
    node = _solution(numbers, level, rng)
    return None if node is None else (key(numbers, int(evaluate(node))), (numbers, node))


def _solution(numbers: Sequence[int], level: CountdownLevel, rng: Random) -> Node | None:
    """A random expression of all the numbers with positive integer results within the target, or None this time."""
    parts: list[tuple[int, Node]] = [(number, Number(number)) for number in numbers]
    while len(parts) > 1:
        (a, left), (b, right) = parts.pop(_below(len(parts), rng)), parts.pop(_below(len(parts), rng))
        operator = level.operators[_below(len(level.operators), rng)]
        if operator in "-/" and a < b:
            (a, left), (b, right) = (b, right), (a, left)
        value = {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[operator]
        is_exact = operator != "/" or a % b == 0
        is_idle = operator in "*/" and b == 1
        if value < 1 or value > 10 * level.target or not is_exact or is_idle:
            return None
        parts.append((value, _joined(operator, left, right)))
    return parts[0][1] if parts[0][0] <= level.target else None


def _below(n: int, rng: Random) -> int:
    """A number in 0..n-1; `random()` alone is promised to stay the same from one Python to the next."""
    return int(rng.random() * n)


def _joined(operator: str, left: Node, right: Node) -> Node:
    """`left operator right` with the brackets that keep its value."""

    def bracketed(node: Node, weaker: str) -> Node:
        return Group(node) if isinstance(node, Operation) and node.operator in weaker else node

    if operator == "+":
        return Operation(operator, left, right)
    if operator == "-":
        return Operation(operator, left, bracketed(right, "+-"))
    return Operation(operator, bracketed(left, "+-"), bracketed(right, "+-*/" if operator == "/" else "+-"))
