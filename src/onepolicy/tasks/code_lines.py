"""One-line programs asked for in a tiny vocabulary: `larger times 3 plus 1` wants `def f(x,y):return max(x,y)*3+1`.

Steps apply from left to right, so brackets are needed where Python would take another order. Any program that computes
the function is right: it runs in the sandbox on a few inputs, whose answers a small evaluator here works out from the
words and never sends along. Gold programs are checked the same pure way when a set is loaded, and a sample of them in
the sandbox besides. Which split a problem belongs to is a hash of its words.

Demonstrations have two habits, both right: to write the steps as they were asked, or with all constants multiplied out
(`max(x,y)*3+3`), which takes arithmetic that a small model does badly.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, Literal

from onepolicy.errors import ConfigError, DataError, nearest
from onepolicy.run.seeding import derive_rng, derive_seed
from onepolicy.tasks.base import TaskSet, conversation
from onepolicy.tasks.code import CodeVerifier
from onepolicy.tasks.code_tests import CodeTest
from onepolicy.tasks.procedural import draw, named_levels, shares
from onepolicy.tasks.rewards import DEFAULT_WEIGHTS, TAGGED, RewardWeights
from onepolicy.tasks.sandbox_types import Expression, Limits
from onepolicy.types import Score, Task

LIMITS = Limits(seconds=2.0, total=4.0, memory=256, processes=16, disk=4, output=4096)

SAMPLE = 8
"""Gold programs of a set that run in the sandbox when it is loaded."""


@dataclass(frozen=True)
class Word:
    """A word of the vocabulary: the Python it stands for, and what it computes."""

    code: str
    compute: Callable[..., int]


STARTS: dict[str, dict[str, Word]] = {
    "x,y": {
        "larger": Word("max(x,y)", max),
        "smaller": Word("min(x,y)", min),
        "sum": Word("x+y", operator.add),
        "difference": Word("x-y", operator.sub),
        "product": Word("x*y", operator.mul),
        "gap": Word("abs(x-y)", lambda x, y: abs(x - y)),
    },
    "a": {
        "largest": Word("max(a)", max),
        "smallest": Word("min(a)", min),
        "total": Word("sum(a)", sum),
        "count": Word("len(a)", len),
        "range": Word("max(a)-min(a)", lambda a: max(a) - min(a)),
    },
}
"""What a problem starts from, by the function's arguments: two numbers, or a list of them."""

INPUTS: dict[str, tuple[tuple[Any, ...], ...]] = {
    "x,y": (
        *((7, 19), (16, -8), (-13, 4), (-5, -18), (-17, -3), (-1, -30), (-28, -18), (-4, -11)),
        *((-7, -25), (-5, 11), (12, 9), (26, -24), (-2, 29), (4, -30), (5, -16), (0, 3)),
    ),
    "a": (
        ([3, -7, 12],),
        ([-4, -19],),
        ([20, 5, 8, -11, 6],),
        ([-16, 2, 17, -1],),
        ([16, 10, -12, 2, 20, 11, -2, -9, -25, -26, -26, 22, -16, -23, 3, -1, 15],),
        ([-30, -5, 23, -9, -20, -14, 1],),
        ([-28, 29, -13, 19, -23, -3, -25, -18, -29, 1, 10, -22, 17, -13, 13],),
        ([18, 5, -7, -14, 27, -23],),
        ([7],),
        ([24, -28, 7],),
        ([-8, -21, -6, -27, -26, -14, -26, 19, 1],),
        ([28, 0, 12, 29, -5, 1, -24, -4],),
        ([21, 7, 4, 9, -18, 4, -3, 15, 25, -15, 6, -22, 5, -1],),
        ([24, -10, 24, 19, -20, 26, 10, -8, 26, 3, -15, -10],),
        ([-18, -2, 9, 14, 1, -6, 11, 25, -21, 4, 13],),
        ([29, -4, 6, 17, 2],),
    ),
}
"""What a program is tried on: signs of all kinds, the larger number first and last, lists of many lengths.

Chosen so that two problems of one level that are different functions differ on one of them: in all pairs of levels 1
to 5; of level 6's problems 0.08 % have another that agrees on all of them. Four inputs do for levels without
`modulo`; `x%9%8` and `x%9` differ for one number in nine, so those with it need more.
"""

TESTS = 4
"""Tests of a program, each of which calls it on as many inputs: calls are cheap, processes are not."""

STEPS: dict[str, Word] = {
    "plus": Word("+", operator.add),
    "minus": Word("-", operator.sub),
    "times": Word("*", operator.mul),
    "modulo": Word("%", operator.mod),
}
"""What is done next, with a number or with another start."""


CHARACTERS = "".join(
    sorted(
        {letter for words in (*STARTS.values(), STEPS) for name, word in words.items() for letter in name + word.code}
        | set("def f(x,y):return 0123456789")
    )
)
"""Every character of a prompt without a system message, or of a demonstration, outside the four tags."""


@dataclass(frozen=True)
class LineLevel:
    """How hard a problem is.

    steps: after the start. arguments: "x,y" or "a". operators: names of STEPS. joined: the last step takes a second
    start in place of a number.
    """

    steps: int
    arguments: str = "x,y"
    operators: tuple[str, ...] = ("plus", "minus", "times")
    joined: bool = False

    def __post_init__(self) -> None:
        known = self.arguments in STARTS and bool(self.operators) and set(self.operators) <= set(STEPS)
        if not (1 <= self.steps <= 6 and known):
            raise ConfigError(
                f"{self} is no level: steps are 1 to 6, arguments {' or '.join(STARTS)}, operators among "
                f"{', '.join(STEPS)}."
            )


LEVELS: dict[int, LineLevel] = {
    1: LineLevel(1),
    2: LineLevel(2),
    3: LineLevel(3, operators=tuple(STEPS)),
    4: LineLevel(2, joined=True),
    5: LineLevel(3, arguments="a", operators=tuple(STEPS)),
    6: LineLevel(4, arguments="a", operators=tuple(STEPS), joined=True),
}
"""From one step after two numbers to four after a list."""

Words = tuple[str, ...]
"""A problem: its start, then pairs of an operator and a number or start."""


def load(
    split: str = "train",
    *,
    level: int | Sequence[int] | LineLevel = 2,
    n: int = 5_000,
    at_most: bool = False,
    seed: int = 0,
    style: str = "plain",
    notation: Literal["words", "signs"] = "words",
    system: str = "",
    mode: Literal["all", "share"] = "all",
    weights: RewardWeights = DEFAULT_WEIGHTS,
) -> TaskSet:
    """n different problems of a level, or of several in turn.

    at_most: where a level has fewer, take them all. style: of the demonstrations (STYLES). notation: of the prompt
    without a system message, `f(x,y):larger plus 1 times 3` or `larger+1*3`, both from left to right. mode: whether a
    program is worth its share of tests passed, or something only for all. counts: asked (n), tasks.

    Raises: ConfigError for an unknown level or style, more problems asked than the level has, unless at_most, or a
    machine without a sandbox; DataError for a gold program that fails.
    """
    if style not in STYLES:
        raise ConfigError(f"Unknown style {style!r} of code. {nearest(style, STYLES)}")
    if notation not in ("words", "signs"):
        raise ConfigError(f"Unknown notation {notation!r} of code. {nearest(notation, ('words', 'signs'))}")
    verifier = CodeVerifier(mode=mode, limits=LIMITS, form=TAGGED, weights=weights)
    tasks: list[Task] = []
    seen: set[str] = set()
    chosen = named_levels(level, LEVELS, "code")
    for (name, one), count in zip(chosen, shares(n, len(chosen)), strict=True):
        rng = Random(derive_seed(seed, "code", split, str(one)))
        for words in draw(partial(_make, one, rng), count, split, seen, str(one), at_most):
            meta = {"level": name, "tests": tests_of(words, one.arguments), "arguments": one.arguments, "words": words}
            asked = f"f({one.arguments}):{' '.join(words)}" if notation == "words" else _in_signs(words)
            asked = _in_words(words, one.arguments) if system else asked
            gold = _program(expression(words, one.arguments), one.arguments)
            task_id = f"code/{one.arguments}:{' '.join(words)}"
            tasks.append(Task(task_id, conversation(asked, system), gold, verifier, meta))
    order = derive_rng(seed, "code", "order", split).permutation(len(tasks))
    tasks = [tasks[i] for i in order]
    _run_sample(verifier, tasks[:: max(1, len(tasks) // SAMPLE)][:SAMPLE])
    return TaskSet(
        name=f"code/{split}",
        tasks=tuple(tasks),
        characters="" if system else CHARACTERS,
        demonstrate=partial(demonstrate, style=style) if split == "train" else None,
        counts={"asked": n, "tasks": len(tasks)},
        prove=prove,
    )


def demonstrate(task: Task, style: str = "plain") -> str:
    """A right program as the answer, without thinking; which of a mixture's habits is decided by the problem."""
    chosen = STYLES[style]
    habit = chosen[derive_seed("code", "style", task.id) % len(chosen)]
    return TAGGED.write("", _program(habit(task.meta["words"], task.meta["arguments"]), task.meta["arguments"]))


def prove(task: Task, text: str) -> Score:
    """What the verifier gives a completion whose program is in the vocabulary, worked out here without running it.

    For gold programs and demonstrations, thousands of which are checked when a set is loaded; any other program is
    judged wrong, so it is no verifier for what a model writes.
    """
    words, arguments = task.meta["words"], task.meta["arguments"]
    try:
        got = _evaluate(TAGGED.extract(text) or "", INPUTS[arguments])
        correct = got == [answer(words, arguments, given) for given in INPUTS[arguments]]
    except DataError:
        correct = False
    return Score(float(correct), {"correct": float(correct), "format": float(TAGGED.matches(text))})


def tests_of(words: Words, arguments: str) -> tuple[CodeTest, ...]:
    """The inputs of these arguments in TESTS lists, the same for all problems, with the answers that the words give.

    So a program that was run for one problem need not be run for another, whose answers differ but not its inputs.
    """
    return tuple(
        CodeTest(Expression(f"[f(*given) for given in {given!r}]"), [answer(words, arguments, one) for one in given])
        for given in (INPUTS[arguments][first::TESTS] for first in range(TESTS))
    )


def answer(words: Words, arguments: str, given: Sequence[Any]) -> int:
    """What the words come to for an input.

    >>> answer(("larger", "plus", "1", "times", "3"), "x,y", (2, 5))
    18
    """
    starts = STARTS[arguments]
    value = starts[words[0]].compute(*given)
    for name, other in zip(words[1::2], words[2::2]):
        value = STEPS[name].compute(value, starts[other].compute(*given) if other in starts else int(other))
    return value


def expression(words: Words, arguments: str) -> str:
    """The words as Python, with the brackets it needs and no others.

    >>> expression(("larger", "plus", "1", "times", "3"), "x,y")
    '(max(x,y)+1)*3'
    """
    starts = STARTS[arguments]
    text = starts[words[0]].code
    for name, other in zip(words[1::2], words[2::2]):
        text = _applied(text, STEPS[name].code, starts[other].code if other in starts else other)
    return text


def folded(words: Words, arguments: str) -> str:
    """As `expression`, with the constants of each run of `+`, `-` and `*` multiplied out to one factor and one term.

    >>> folded(("larger", "plus", "1", "times", "3", "minus", "9", "modulo", "4"), "x,y")
    '(max(x,y)*3-6)%4'
    """
    starts = STARTS[arguments]
    text, factor, term = starts[words[0]].code, 1, 0
    for name, other in zip(words[1::2], words[2::2]):
        if name == "modulo" or other in starts:
            operand = starts[other].code if other in starts else other
            text, factor, term = _applied(_affine(text, factor, term), STEPS[name].code, operand), 1, 0
        elif name == "times":
            factor, term = factor * int(other), term * int(other)
        else:
            term = STEPS[name].compute(term, int(other))
    return _affine(text, factor, term)


STYLES: dict[str, tuple[Callable[[Words, str], str], ...]] = {
    "plain": (expression,),
    "folded": (folded,),
    "mixed": (expression, folded, folded),
}
"""Habits of demonstrations, each equally likely; a mixture is folded twice for each time that it is plain."""


def evaluate(source: str, given: Sequence[Any]) -> int:
    """What a one-line program of the vocabulary gives for an input, without running it.

    Raises: DataError for any other program.

    >>> evaluate("def f(x,y):return (max(x,y)+1)*3", (2, 5))
    18
    """
    return _evaluate(source, [given])[0]


def _evaluate(source: str, inputs: Sequence[Sequence[Any]]) -> list[int]:
    """As `evaluate`, for several inputs."""
    try:
        (function,) = ast.parse(source[:500]).body
        assert isinstance(function, ast.FunctionDef)
        (line,) = function.body
        assert isinstance(line, ast.Return)
        names = [argument.arg for argument in function.args.args]
        return [int(_value(line.value, dict(zip(names, given, strict=True)))) for given in inputs]
    except (SyntaxError, ValueError, AssertionError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
        raise DataError(f"{source[:60]!r} is no one-line program of the vocabulary: {error}") from error


_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Mod: operator.mod,
}
_CALLS: dict[str, Callable[..., Any]] = {"max": max, "min": min, "abs": abs, "sum": sum, "len": len}


def _value(node: ast.expr | None, names: dict[str, Any]) -> Any:
    if isinstance(node, ast.Constant):
        return int(node.value)  # type: ignore[arg-type]
    if isinstance(node, ast.Name):
        return names[node.id]
    if isinstance(node, ast.BinOp):
        return _OPERATORS[type(node.op)](_value(node.left, names), _value(node.right, names))
    assert isinstance(node, ast.Call)
    assert isinstance(node.func, ast.Name)
    return _CALLS[node.func.id](*(_value(argument, names) for argument in node.args))


def _program(code: str, arguments: str) -> str:
    return f"def f({arguments}):return {code}"


def _applied(left: str, sign: str, right: str) -> str:
    return f"{_bracketed(left, sign, right=False)}{sign}{_bracketed(right, sign, right=True)}"


def _affine(code: str, factor: int, term: int) -> str:
    """Code times a positive factor plus a term, either left out where it does nothing."""
    code = code if factor == 1 else _applied(code, "*", str(factor))
    return code if term == 0 else f"{code}{term:+d}"


def _bracketed(code: str, sign: str, *, right: bool) -> str:
    """Code as an operand of a sign, in brackets where it is a sum beside a product, or the right side of `-` or `%`."""
    node = ast.parse(code, mode="eval").body
    if not isinstance(node, ast.BinOp):
        return code
    is_sum = isinstance(node.op, (ast.Add, ast.Sub))
    needed = (sign in "*%" and (is_sum or right)) or (right and sign == "-" and is_sum)
    return f"({code})" if needed else code


def _make(level: LineLevel, rng: Random) -> tuple[str, Words]:
    """A random problem and its key."""
    starts = tuple(STARTS[level.arguments])

    def one_of(choices: Sequence[str]) -> str:
        return choices[int(rng.random() * len(choices))]

    words = [one_of(starts)]
    for step in range(level.steps):
        sign = one_of(level.operators)
        other = str(2 + int(rng.random() * 8))
        last = level.joined and step == level.steps - 1
        # a start can be 0, by which nothing is divided
        words += ["plus" if last and sign == "modulo" else sign, one_of(starts) if last else other]
    return f"{level.arguments}:{' '.join(words)}", tuple(words)


def _in_words(words: Words, arguments: str) -> str:
    kind = "two integers x and y" if arguments == "x,y" else "a list a of integers"
    return (
        f"Write a Python function f({arguments}) of {kind} in one line. Start with their {words[0]}, then do in this "
        f"order, each with the result so far: {' '.join(words[1:])}. (gap: absolute difference; range: largest minus "
        "smallest.)"
    )


def _in_signs(words: Words) -> str:
    return "".join(STEPS[word].code if word in STEPS else word for word in words)


def _run_sample(verifier: CodeVerifier, tasks: Sequence[Task]) -> None:
    """Run some gold programs in the sandbox. Raises: ConfigError without a sandbox; DataError for one that fails."""
    scores = verifier.many([(task, demonstrate(task)) for task in tasks])
    for task, score in zip(tasks, scores, strict=True):
        if score.error is not None:
            raise ConfigError(score.error)
        if score.parts.get("correct") != 1.0:
            raise DataError(f"{task.id}: the gold program {task.answer!r} fails in the sandbox: {dict(score.parts)}.")
