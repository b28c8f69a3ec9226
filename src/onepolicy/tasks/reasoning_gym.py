"""The generators of the library `reasoning-gym` as task sets: `reasoning-gym:NAME`, or a mixture `reasoning-gym:A+B`.

Questions, gold answers and scorers are the library's; ours are the answer's place (`<answer>`), the splits, the checks
and the limits. Its scorers are third-party code of uneven quality, so the sets are judged in the verifier pool. A score
between 0 and 1 is kept as the reward; only 1 counts as correct. Refused generators and guards: docs/verifiers.md.
Source: Stojanovski et al. 2025 (arXiv 2505.24760), https://github.com/open-thought/reasoning-gym.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import json
import math
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from hashlib import blake2b
from importlib import import_module
from typing import Any

from onepolicy.errors import ConfigError, DataError, nearest
from onepolicy.run.seeding import derive_rng, derive_seed
from onepolicy.tasks.base import TaskSet, conversation
from onepolicy.tasks.procedural import shares
from onepolicy.tasks.rewards import DEFAULT_WEIGHTS, MAX_ANSWER, TAGGED, RewardWeights
from onepolicy.tasks.verdicts import verdict
from onepolicy.types import Score, Task

REFUSED: dict[str, str] = {
    "boxnet": "it gives no gold answer that could show its scorer right",
    "composite": "it is the library's own mixture; write reasoning-gym:A+B instead",
    "game_of_life_halting": "its scorer takes any text for the answer True",
    "rush_hour": "it gives no gold answer that could show its scorer right",
}
"""Generators that cannot be used, and why."""

LITERALS = frozenset({"binary_matrix", "n_queens", "spiral_matrix", "string_insertion"})
"""Generators whose scorer calls `eval` on the answer: it is given plain literals and plain words only."""
FORMULAS = frozenset(
    {"countdown", "intermediate_integration", "polynomial_multiplication", "puzzle24", "simple_integration"}
)
"""Generators whose scorer calls sympy's `parse_expr`, which is `eval`: it is given numbers, letters and known
functions only."""
_TRIGONOMETRIC = ("sin", "cos", "tan", "sec", "csc", "cot")
FUNCTIONS = {"exp", "log", "ln", "sqrt", "pi", "abs", "Abs", "C", "E", "X", "Y", "Z", "sinh", "cosh", "tanh"}.union(
    _TRIGONOMETRIC, (prefix + name for prefix in ("a", "arc") for name in _TRIGONOMETRIC)
)
"""Names of more than one letter that a formula may hold, and the capitals."""
UNSTABLE = frozenset({"isomorphic_strings", "knight_swap", "polynomial_multiplication", "ransom_note", "word_ladder"})
"""Generators whose problems hang on the order of sets: they are made in a process with a fixed hash seed, so that the
same seed gives the same problems everywhere."""

_EXECUTES = re.compile(
    r"\b(?:eval|exec|compile|parse_expr|sympify)\(\s*(?:\w+\.)?(?:answer|response|solution|predicted|user)\w*\b"
)
_WORDS = re.compile(r"[\w\s]*", re.ASCII)
_FORMULA = re.compile(r"[0-9A-Za-z+\-*/^().\s]*")
_NAME = re.compile(r"[A-Za-z]+")
_ATTRIBUTE = re.compile(r"\.\s*[A-Za-z]")

MODULES = ("reasoning_gym",)
JUNK = "no answer at all"
"""A text that answers no problem."""
OURS = ("seed", "size")
"""Options of every generator that the loader sets itself."""
BARREN = 3
"""Batches in a row without a new problem after which a generator counts as exhausted."""
TRIAL = 16
"""Problems of which over half may be judged wrongly by their own scorer before the generator is refused."""

Config = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class GymVerifier:
    """The library's own scorer on what stands in `<answer>`.

    value = weights.correct * score + weights.format * [format kept]; parts: `score` in [0, 1], `correct` where it is 1,
    `format`, and `unreadable`: the scorer raised on the text, or would have executed it; it is wrong then.
    generator, config: what made the problem, whose entry is in the task's meta.
    """

    generator: str
    config: Config = ()
    weights: RewardWeights = DEFAULT_WEIGHTS

    def __call__(self, task: Task, text: str) -> Score:
        answer = TAGGED.extract(text)
        kept = float(TAGGED.matches(text))
        score, unreadable = 0.0, False
        if answer is not None and 0 < len(answer) <= max(MAX_ANSWER, 2 * len(task.answer)):
            unreadable = not harmless(self.generator, answer)
            if not unreadable:
                scorer = _generator(self.generator, self.config)
                try:
                    with contextlib.redirect_stdout(io.StringIO()):
                        score = float(scorer.score_answer(answer, dict(task.meta["entry"])))
                except (ArithmeticError, AttributeError, LookupError, SyntaxError, TypeError, ValueError):
                    unreadable = True
        if not math.isfinite(score):
            return Score(None, {"format": kept}, f"reward: {self.generator}'s scorer gave {score}")
        score = min(1.0, max(0.0, score))
        parts = {"correct": float(score == 1.0), "score": score, "format": kept, "unreadable": float(unreadable)}
        return Score(self.weights.correct * score + self.weights.format * kept, parts)


def harmless(generator: str, answer: str) -> bool:
    """Whether a generator's scorer may see an answer: one that would be evaluated is data, not a program.

    >>> harmless("spiral_matrix", "[1, 2]"), harmless("spiral_matrix", "print(1)"), harmless("gcd", "print(1)")
    (True, False, True)
    """
    if generator in LITERALS:
        try:
            ast.literal_eval(answer)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            return _WORDS.fullmatch(answer) is not None
    if generator in FORMULAS:
        names = _NAME.findall(answer)
        known = all(name in FUNCTIONS or (len(name) == 1 and name.islower()) for name in names)
        return known and _FORMULA.fullmatch(answer) is not None and _ATTRIBUTE.search(answer) is None
    return True


def load(
    split: str = "train",
    *,
    name: str,
    n: int = 1000,
    at_most: bool = False,
    seed: int = 0,
    system: str = "",
    weights: RewardWeights = DEFAULT_WEIGHTS,
    **config: Any,
) -> TaskSet:
    """n different problems of a generator, or of several (`name` "a+b") in equal shares.

    Train and test draw from different seeds and, besides, share no question: which of the two a question belongs to is
    a hash of its text. at_most: where there are fewer, take them all. config: the generator's own options; in a mixture
    they go to every member that has them, `NAME.option` to one. Problems whose own scorer does not give the gold answer
    1, or gives it to junk, are left out and listed in `dropped`; demonstrations (train only) are gold answers without
    thinking.

    Raises: ConfigError for an unknown or refused generator or option, too few problems, or without the library;
    DataError for a generator that judges over half of its problems wrongly.
    """
    names = list(dict.fromkeys(part.strip() for part in name.split("+") if part.strip()))
    settings = {one: _settings(one, names, config) for one in names}
    _check_options(names, settings, config)
    tasks: list[Task] = []
    dropped: list[str] = []
    for one, count in zip(names, shares(n, len(names)) if names else (), strict=True):
        verifier = GymVerifier(one, settings[one], weights)
        made: list[Task] = []
        failed: list[str] = []
        for question, entry in _problems(one, settings[one], split, seed, count):
            key = blake2b(question.encode(), digest_size=6).hexdigest()
            meta = {"level": one, "entry": entry}
            answer = gold(one, entry)
            task = Task(f"reasoning-gym/{one}/{key}", conversation(question, system), answer, verifier, meta)
            if problem := _unsound(task):
                failed.append(f"{task.id}: {problem}")
            else:
                made.append(task)
            if len(failed) > max(TRIAL // 2, len(made)):
                raise DataError(
                    f"reasoning-gym:{one}: {len(failed)} of {len(failed) + len(made)} problems are judged wrongly by "
                    f"their own scorer ({failed[0]}). Take another generator, or other options."
                )
            if len(made) == count:
                break
        if len(made) < count and not at_most:
            raise ConfigError(
                f"reasoning-gym:{one} gave only {len(made)} different problems for the {split} split; {count} were "
                "asked. Ask for fewer, or widen its options."
            )
        tasks += made
        dropped += failed
    order = derive_rng(seed, "reasoning-gym", "order", split).permutation(len(tasks))
    return TaskSet(
        name=f"reasoning-gym:{name}/{split}",
        tasks=tuple(tasks[i] for i in order),
        demonstrate=demonstrate if split == "train" else None,
        counts={"asked": n, "tasks": len(tasks), "dropped": len(dropped)},
        dropped=tuple(dropped),
        isolated=True,
        modules=MODULES,
    )


def gold(name: str, entry: Mapping[str, Any]) -> str:
    """The gold answer of a problem as text: the library's, or for the three that have none their example of one."""
    if name == "graph_color":
        return json.dumps(entry["metadata"]["possible_answer"])
    example = {"propositional_logic": "example_answer", "rubiks_cube": "example_correct_answer"}.get(name)
    return str(entry["answer"] if example is None else entry["metadata"][example]).strip()


def _unsound(task: Task) -> str:
    """What is wrong with how a problem's scorer judges: a gold answer that is not right, or junk that is. Or ""."""
    score = verdict(task, TAGGED.write("", task.answer))
    if score.parts.get("correct") != 1.0:
        got = score.error or f"score {score.parts.get('score')}"
        return f"the gold answer {task.answer[:40]!r} is not right by its own scorer: {got}"
    if verdict(task, TAGGED.write("", JUNK)).parts.get("correct") == 1.0:
        return f"its own scorer takes {JUNK!r} for right"
    return ""


def demonstrate(task: Task) -> str:
    """The gold answer in the answer format, without thinking."""
    return TAGGED.write("", task.answer)


def generators() -> dict[str, str]:
    """Every generator of the library that can be used, with the group it belongs to."""
    known = _library().factory.DATASETS
    return {name: known[name][0].__module__.split(".")[1] for name in sorted(known) if name not in REFUSED}


def _problems(name: str, config: Config, split: str, seed: int, count: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Different problems of a split without end, or until the generator has no more: (question, entry)."""
    seen: set[str] = set()
    batch, barren = 0, 0
    while barren < BARREN:
        before = len(seen)
        entries = _apart if name in UNSTABLE else _entries
        for entry in entries(
            name, config, 2 * count + 8, derive_seed("reasoning-gym", name, split, seed, batch) % 2**31
        ):
            question = str(entry["question"])
            held_out = blake2b(question.encode(), digest_size=4).digest()[0] % 2 == 0
            if question not in seen and held_out == (split == "test"):
                seen.add(question)
                yield question, entry
        barren = barren + 1 if len(seen) == before else 0
        batch += 1


def _entries(name: str, config: Config, size: int, seed: int) -> Iterator[Mapping[str, Any]]:
    """`size` problems by a seed, made as they are asked for."""
    made = _make(name, config, size=size, seed=seed)
    for index in range(size):
        with contextlib.redirect_stdout(io.StringIO()):
            entry = made[index]
        yield entry


def _apart(name: str, config: Config, size: int, seed: int) -> list[Mapping[str, Any]]:
    """As `_entries`, made in a process of its own whose hash seed is fixed."""
    code = f"from {__name__} import _write_entries; _write_entries()"
    run = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps((name, config, size, seed)),
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
    )
    if run.returncode:
        raise DataError(f"reasoning-gym:{name}: making {size} problems ended with exit code {run.returncode}.")
    found: list[Mapping[str, Any]] = pickle.loads(run.stdout)  # noqa: S301 - written by our own child process
    return found


def _write_entries() -> None:
    """What the process of `_apart` does: (name, config, size, seed) from its input, the problems to its output."""
    request = pickle.loads(sys.stdin.buffer.read())  # noqa: S301 - written by our own parent process
    sys.stdout.buffer.write(pickle.dumps(list(_entries(*request))))


def _settings(name: str, names: list[str], config: Mapping[str, Any]) -> Config:
    """The options that go to a generator, sorted."""
    known = _options(name)
    found = {key: value for key, value in config.items() if key in known}
    found |= {key.partition(".")[2]: value for key, value in config.items() if key.partition(".")[0] == name}
    return tuple(sorted((key, _frozen(value)) for key, value in found.items()))


def _check_options(names: list[str], settings: Mapping[str, Config], config: Mapping[str, Any]) -> None:
    """Raises ConfigError for no generator, an option that none has, or values that a generator does not take."""
    if not names:
        raise ConfigError("reasoning-gym: without a generator; write reasoning-gym:NAME, or A+B for a mixture.")
    every = [option for name in names for option in _options(name)]
    for key in config:
        member, dot, option = key.partition(".")
        known = _options(member) if dot and member in names else every
        if (option if dot else key) not in known:
            raise ConfigError(f"reasoning-gym:{'+'.join(names)} has no option {key!r}. {nearest(option or key, known)}")
    for name in names:
        _make(name, settings[name], size=1, seed=0)


def _options(name: str) -> list[str]:
    """The options of a generator. Raises: ConfigError for one that is unknown or refused."""
    known = _library().factory.DATASETS
    if name in REFUSED:
        raise ConfigError(f"reasoning-gym:{name} is refused: {REFUSED[name]}.")
    if name not in known:
        raise ConfigError(f"reasoning-gym has no generator {name!r}. {nearest(name, generators())}")
    if name not in LITERALS | FORMULAS and _executes(known[name][0].__module__):
        raise ConfigError(f"reasoning-gym:{name} is refused: its scorer executes the answer, and nobody guards it.")
    return [field.name for field in fields(known[name][1]) if field.name not in OURS]


def _make(name: str, config: Config, *, size: int, seed: int) -> Any:
    """The library's generator. Raises: ConfigError for options that it does not take."""
    try:
        return _library().create_dataset(name, size=size, seed=seed, **dict(config))
    except (AssertionError, TypeError, ValueError) as error:
        shown = ", ".join(f"{key}={value!r}" for key, value in config) or "no options"
        raise ConfigError(f"reasoning-gym:{name} with {shown}: {error or type(error).__name__}.") from error


@lru_cache(maxsize=256)
def _generator(name: str, config: Config) -> Any:
    """A generator to score with; one a process."""
    return _make(name, config, size=1, seed=0)


@lru_cache(maxsize=256)
def _executes(module: str) -> bool:
    """Whether the source of a generator's module evaluates something that is called like an answer."""
    return _EXECUTES.search(inspect.getsource(import_module(module))) is not None


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def _library() -> Any:
    """The library. Raises: ConfigError when the extra is not installed."""
    try:
        import reasoning_gym
        import reasoning_gym.factory
    except ImportError as error:
        raise ConfigError(
            "reasoning-gym task sets need the extra `reasoning-gym`: pip install 'onepolicy[reasoning-gym]'."
        ) from error
    return reasoning_gym
