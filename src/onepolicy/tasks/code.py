"""Programs judged by their tests: run in a sandbox, compared outside it.

The program is the last fenced code block outside the thinking (or stands in the task's own answer format). It gets a
test's input and nothing else; what it gives is compared here, so that printing "PASSED", leaving with status 0, an
`__eq__` that is always True or a walk over frames cannot make it right: to be judged right it has to give the right
values. A sandbox that fails is no wrong answer: the Score is invalid, cause "sandbox". docs/sandbox.md has the threats.
"""

from __future__ import annotations

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

from onepolicy.errors import ConfigError, RewardError
from onepolicy.tasks.code_tests import CodeTest
from onepolicy.tasks.rewards import DEFAULT_WEIGHTS, AnswerFormat, RewardWeights, split_thinking
from onepolicy.tasks.sandbox import Sandbox, default_sandbox
from onepolicy.tasks.sandbox_types import DEFAULT_LIMITS, Limits, Result
from onepolicy.tasks.verdicts import invalid
from onepolicy.types import Score, Task

MAX_PROGRAM = 65_536
"""Characters of a program at most; a longer one is wrong without being run."""
REMEMBERED = 20_000
"""Verdicts kept, the least recently used forgotten first."""

Results = tuple[Result, ...]

_OPENS, _CLOSES = re.compile(r"[ \t]*```[^`]*"), re.compile(r"[ \t]*```[ \t\r]*")


def last_block(text: str) -> str | None:
    """The last closed fenced code block outside the thinking, or None.

    >>> last_block("<think>```\\nno\\n```</think>First\\n```python\\nx = 1\\n```\\nthen\\n```py\\nx = 2\\n```")
    'x = 2\\n'
    """
    found = _blocks(split_thinking(text)[1])
    return found[-1] if found else None


def _blocks(text: str) -> list[str]:
    """The contents of the closed fenced blocks, in order, in time linear in the text."""
    found: list[str] = []
    lines = text.split("\n")
    began: int | None = None
    for place, line in enumerate(lines):
        if began is not None and _CLOSES.fullmatch(line):
            found.append("".join(f"{inside}\n" for inside in lines[began:place]))
            began = None
        elif began is None and _OPENS.fullmatch(line):
            began = place + 1
    return found


def _keeps_fence(text: str) -> bool:
    """One fenced block outside the thinking, with words around it or without; a thinking that was begun is closed."""
    rest = split_thinking(text)[1]
    return rest.count("```") == 2 and len(_blocks(rest)) == 1


def _write_fenced(thinking: str, answer: str) -> str:
    head = f"<think>{thinking}</think>\n" if thinking else ""
    return f"{head}```python\n{answer.rstrip()}\n```"


FENCED = AnswerFormat(
    "code",
    last_block,
    _keeps_fence,
    _write_fenced,
    "Write the program in one code block between ```python and ```; it is tested as it stands.",
)
"""The program in a fenced block, the last one if there are several (then the format is not kept)."""


@dataclass(frozen=True)
class CodeVerifier:
    """Runs the program of a completion on `task.meta["tests"]`, a sequence of `CodeTest`.

    mode: what the part `passed`'s share is worth: "all" or nothing, or the "share" itself. value = weights.correct *
    that + weights.format * [format kept]. limits: of the sandbox. form: where the program stands. language: of
    programs, unless meta["language"] names another. program: (task, extracted text) -> what is run, for tasks that put
    something before or after it. sandbox: None for the process's own.

    Parts: correct (every test passed), format, passed (share of tests), tests (how many), and as shares of them
    compile, time, memory, output, crash, killed: what kept the program from answering.
    """

    mode: Literal["all", "share"] = "all"
    limits: Limits = DEFAULT_LIMITS
    form: AnswerFormat = FENCED
    weights: RewardWeights = DEFAULT_WEIGHTS
    language: str = "python"
    program: Callable[[Task, str], str] | None = None
    sandbox: Sandbox | None = None

    def __post_init__(self) -> None:
        if self.mode not in ("all", "share"):
            raise ConfigError(
                f"mode is {self.mode!r}; it is 'all' (every test or nothing) or 'share' (of tests passed)."
            )

    def __call__(self, task: Task, text: str) -> Score:
        source = self.source(task, text)
        if source is None:
            return self._score(task, text, None)
        try:
            return self._score(task, text, self._results(task, source))
        except (RewardError, ConfigError) as error:
            return invalid("sandbox", str(error))

    def batch(self, tasks: Sequence[Task], texts: Sequence[str]) -> list[Score]:
        """Scores of completions, in order, as many programs at once as the sandbox has slots."""
        return self.many(list(zip(tasks, texts, strict=True)))

    def many(self, pairs: Sequence[tuple[Task, str]]) -> list[Score]:
        """As `batch`, of (task, completion) pairs. A program that comes twice for a task is run once."""
        first: dict[tuple[str, str], int] = {}
        same = [first.setdefault((task.id, text), i) for i, (task, text) in enumerate(pairs)]
        found = dict(zip(first.values(), _threads().map(lambda i: self(*pairs[i]), first.values()), strict=True))
        return [found[i] for i in same]

    def source(self, task: Task, text: str) -> str | None:
        """The program that is run for a completion; None where there is none or it is too long."""
        found = self.form.extract(text)
        if found is None:
            return None
        found = last_block(found) or found
        if len(found) > MAX_PROGRAM or not found.strip():
            return None
        return self.program(task, found) if self.program else found

    def results(self, task: Task, text: str) -> Results:
        """What each test gave, to look at. Raises: RewardError when the sandbox failed; ConfigError where none is."""
        source = self.source(task, text)
        return () if source is None else self._results(task, source)

    def _results(self, task: Task, source: str) -> Results:
        tests: Sequence[CodeTest] = task.meta["tests"]
        language = task.meta.get("language", self.language)
        given = [test.given for test in tests]
        key = blake2b(repr((source, language, self.limits, given)).encode("utf-8", "replace")).digest()
        known = _CACHE.get(key)
        if known is None:
            sandbox = self.sandbox or default_sandbox()
            try:
                known = tuple(sandbox.run_tests(source, given, language, self.limits))
            except RewardError:  # whatever it was, it was not the program: once more before it is given up
                known = tuple(sandbox.run_tests(source, given, language, self.limits))
            _CACHE.put(key, known)
        return known

    def _score(self, task: Task, text: str, results: Results | None) -> Score:
        tests: Sequence[CodeTest] = task.meta["tests"]
        passed = [test.passed(result) for test, result in zip(tests, results or ())]
        share = sum(passed) / len(tests)
        correct, kept = float(share == 1.0), float(self.form.matches(text))
        value = self.weights.correct * (share if self.mode == "share" else correct) + self.weights.format * kept
        parts: dict[str, float | None] = {
            "correct": correct,
            "format": kept,
            "passed": share,
            "tests": float(len(tests)),
        }
        for cause in ("compile", "time", "memory", "output", "crash", "killed"):
            parts[cause] = sum(result.cause == cause for result in results or ()) / len(tests)
        return Score(value, parts)


class _Cache:
    """What programs gave, by their content; safe from many threads."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, Results] = OrderedDict()

    def get(self, key: bytes) -> Results | None:
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
            return self._known.get(key)

    def put(self, key: bytes, value: Results) -> None:
        if sum(len(result.stdout) + len(result.stderr) for result in value) > MAX_PROGRAM:
            return
        with self._lock:
            self._known[key] = value
            while len(self._known) > self.size:
                self._known.popitem(last=False)

    def clear(self) -> None:
        with self._lock:
            self._known.clear()


_CACHE = _Cache(REMEMBERED)
_POOLS: dict[int, ThreadPoolExecutor] = {}
_POOL_LOCK = threading.Lock()


def forget() -> None:
    """Forget all verdicts, so that every program is run again."""
    _CACHE.clear()


def _threads() -> ThreadPoolExecutor:
    """This process's threads that wait for programs; each holds a slot of the sandbox while it does."""
    with _POOL_LOCK:
        if os.getpid() not in _POOLS:
            _POOLS.clear()
            _POOLS[os.getpid()] = ThreadPoolExecutor(2 * (os.cpu_count() or 1), thread_name_prefix="sandbox")
        return _POOLS[os.getpid()]
