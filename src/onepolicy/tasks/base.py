"""Sets of tasks: what they hold, that their gold answers verify, and how to find one by name.

A task set is data: tasks, the text that asks for the answer format, and for training splits a function that writes
a worked solution. Which tasks to sample when belongs to `data/prompts.py`; scoring to `tasks.rewards`.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module

from onepolicy.errors import ConfigError, DataError, nearest
from onepolicy.run.seeding import derive_rng
from onepolicy.tasks.functions import FunctionReward, as_reward
from onepolicy.tasks.rewards import (
    FORMATS,
    TAGGED,
    TAGS,
    AnswerFormat,
    AnswerVerifier,
    RewardWeights,
    extract_tag,
    split_thinking,
)
from onepolicy.types import Message, Task, Verifier

__all__ = [
    "FORMATS",
    "INSTRUCTIONS",
    "TAGGED",
    "TAGS",
    "TASKS",
    "AnswerFormat",
    "AnswerVerifier",
    "Conversation",
    "FunctionReward",
    "GoldReport",
    "RewardWeights",
    "TaskSet",
    "as_reward",
    "check_gold",
    "conversation",
    "extract_tag",
    "load_task_set",
    "makes_problems",
    "read_options",
    "split_thinking",
    "task_options",
]

Conversation = tuple[Message, ...]
"""Messages in order; a demonstration ends with the assistant's."""

TASKS: dict[str, str] = {
    "aime24": "onepolicy.tasks.math_sets:aime24",
    "aime25": "onepolicy.tasks.math_sets:aime25",
    "amc23": "onepolicy.tasks.math_sets:amc23",
    "arc-challenge": "onepolicy.tasks.arc:load_challenge",
    "arc-easy": "onepolicy.tasks.arc:load_easy",
    "arithmetic": "onepolicy.tasks.arithmetic:load",
    "bilingual": "onepolicy.tasks.bilingual:load",
    "code": "onepolicy.tasks.code_lines:load",
    "code-file": "onepolicy.tasks.code_sets:load_file",
    "countdown": "onepolicy.tasks.countdown:load",
    "gsm8k": "onepolicy.tasks.gsm8k:load",
    "gsm8k-steps": "onepolicy.tasks.gsm8k_steps:load",
    "humaneval": "onepolicy.tasks.code_sets:load_humaneval",
    "ifeval": "onepolicy.tasks.ifeval:load",
    "instructions": "onepolicy.tasks.instructions_prompts:load",
    "letters": "onepolicy.tasks.letters:load",
    "math500": "onepolicy.tasks.math_sets:math500",
    "maths": "onepolicy.tasks.math_sets:maths",
    "mbpp": "onepolicy.tasks.code_sets:load_mbpp",
    "minerva": "onepolicy.tasks.math_sets:minerva",
    "mixture": "onepolicy.tasks.mixture:load",
    "olympiadbench": "onepolicy.tasks.math_sets:olympiadbench",
    "reasoning-gym": "onepolicy.tasks.reasoning_gym:load",
}
"""Task sets by name: `module:function`, called with the split and its own options."""

INSTRUCTIONS = TAGGED.instructions
"""The answer format in words, for models that understand them; a model trained on demonstrations needs none."""


@dataclass(frozen=True)
class GoldReport:
    """How many gold answers were checked, and which failed: (task id, reason)."""

    checked: int
    failures: tuple[tuple[str, str], ...]

    @property
    def verified(self) -> int:
        """Gold answers that their own verifier accepts."""
        return self.checked - len(self.failures)


@dataclass(frozen=True)
class TaskSet:
    """Tasks of one split. Building it fails unless ids are unique and every gold answer verifies against itself.

    name: `arithmetic/train`. characters: every character that prompts and
    demonstrations can contain outside the four tags, "" where text is open. demonstrate: (task) -> a worked
    completion; None where there are none, as in held-out splits. form: how answers are marked. counts: what was
    read, dropped and kept, by name. dropped: what was left out and why, a line each. isolated: its verifiers can be
    slow, hang or die, so they judge in worker processes (tasks.pool), which import `modules` first. prove: checks
    gold answers and demonstrations in place of the verifiers, where those are too slow for thousands of them.

    Raises: DataError for no tasks, a repeated id, or a gold answer that its own verifier rejects.
    """

    name: str
    tasks: tuple[Task, ...]
    characters: str = ""
    demonstrate: Callable[[Task], str] | None = None
    form: AnswerFormat = TAGGED
    counts: Mapping[str, int] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    isolated: bool = False
    modules: tuple[str, ...] = ()
    prove: Verifier | None = None

    def __post_init__(self) -> None:
        if not self.tasks:
            raise DataError(f"{self.name} has no tasks; loosen its filters or give it data.")
        name, times = Counter(task.id for task in self.tasks).most_common(1)[0]
        if times > 1:
            raise DataError(f"{self.name} has {times} tasks with id {name!r}; ids seed the samples and must be unique.")
        gold = check_gold(self.tasks, self.form, self.prove)
        if gold.failures:
            shown = "; ".join(f"{task_id}: {reason}" for task_id, reason in gold.failures[:3])
            raise DataError(
                f"{self.name}: {len(gold.failures)} of {gold.checked} gold answers fail their own verifier ({shown}). "
                "Correct or drop these rows: a model can never be right on them."
            )

    @property
    def instructions(self) -> str:
        """The answer format in words."""
        return self.form.instructions

    def __len__(self) -> int:
        return len(self.tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)

    def demonstrations(self, n: int, seed: int) -> list[Conversation]:
        """n different tasks, drawn by `seed`, each with a worked completion as the assistant's turn.

        Raises: ConfigError where the set gives none or fewer than n; DataError for one its verifier rejects.
        """
        if self.demonstrate is None:
            raise ConfigError(f"{self.name} gives no demonstrations; take them from the train split.")
        if not 0 < n <= len(self.tasks):
            raise ConfigError(f"{n} demonstrations asked of {self.name}; it can give 1 to {len(self.tasks)}.")
        order = derive_rng(seed, "demonstrations", self.name).permutation(len(self.tasks))[:n]
        return [self._worked(self.tasks[i]) for i in order]

    def _worked(self, task: Task) -> Conversation:
        assert self.demonstrate is not None
        text = self.demonstrate(task)
        parts = (self.prove or task.verifier)(task, text).parts
        if parts.get("correct") != 1.0 or parts.get("format", 1.0) != 1.0:
            raise DataError(f"{task.id}: the demonstration {text[:200]!r} is not right and in format.")
        return (*task.messages, Message("assistant", text))


def conversation(question: str, system: str = "") -> Conversation:
    """A user's question, after a system message if `system` is not empty."""
    head = (Message("system", system),) if system else ()
    return (*head, Message("user", question))


def check_gold(tasks: Iterable[Task], form: AnswerFormat = TAGGED, prove: Verifier | None = None) -> GoldReport:
    """Whether each gold answer, written in `form`, is judged right by its own verifier, or by `prove` in its place.

    A task whose meta says `no_gold` has none to check: its verifier judges by the constraints of the prompt alone.
    """
    checked, failures = 0, []
    for task in tasks:
        if task.meta.get("no_gold") is True:
            continue
        checked += 1
        score = (prove or task.verifier)(task, form.write("", task.answer))
        if score.error is not None or score.value is None:
            failures.append((task.id, score.error or "no value"))
        elif score.parts.get("correct") != 1.0:
            failures.append((task.id, f"gold answer {task.answer[:60]!r} is judged wrong"))
    return GoldReport(checked, tuple(failures))


def load_task_set(name: str, split: str = "train", **options: object) -> TaskSet:
    """The task set `name` (a key of TASKS, or `key:member` of a family) for `split`, "train" or "test".

    options: the loader's own keywords (see docs/tasks.md).
    Raises: ConfigError for an unknown name, split or option, offering the nearest known one.
    """
    loader, member = _loader(name)
    known = task_options(name)
    if split not in ("train", "test"):
        raise ConfigError(f"Unknown split {split!r} of {name}. {nearest(split, ('train', 'test'))}")
    for option in options:
        if option not in known and not _takes_any(loader):
            raise ConfigError(f"{name} has no option {option!r}. {nearest(option, known)}")
    return loader(split, **member, **options)


def task_options(name: str) -> list[str]:
    """The keywords that the task set `name` is loaded with, besides the split. Raises: ConfigError as load_task_set."""
    loader, member = _loader(name)
    parameters = inspect.signature(loader).parameters.values()
    return [p.name for p in parameters if p.name not in ("split", *member) and p.kind is not p.VAR_KEYWORD]


def makes_problems(name: str) -> bool:
    """Whether a task set makes as many problems as asked for, instead of reading them: it takes `n` and no `path`."""
    known = task_options(name)
    return "n" in known and "path" not in known


def read_options(name: str, text: str) -> dict[str, object]:
    """Options written as `key=value,key=value`, values as Python literals where they are ones, else as text.

    Raises: ConfigError for a piece without `=`, or an option the task set does not have.

    >>> read_options("arithmetic", "level=[1,2],style=totals,at_most=True")
    {'level': [1, 2], 'style': 'totals', 'at_most': True}
    """
    loader, _ = _loader(name)
    known = task_options(name)
    found: dict[str, object] = {}
    for piece in _OUTER_COMMA.split(text) if text.strip() else ():
        key, equals, value = piece.partition("=")
        key = key.strip()
        if not equals or not key:
            raise ConfigError(f"task option {piece!r} is no key=value; write --task-options key=value,key=value.")
        if key not in known and not _takes_any(loader):
            raise ConfigError(f"{name} has no option {key!r}. {nearest(key, known)}")
        try:
            found[key] = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError):
            found[key] = value.strip()
    return found


_OUTER_COMMA = re.compile(r",(?![^\[(]*[\])])")
"""A comma outside brackets."""


def _takes_any(loader: Callable[..., TaskSet]) -> bool:
    """Whether a loader checks its options itself."""
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(loader).parameters.values())


def _loader(name: str) -> tuple[Callable[..., TaskSet], dict[str, str]]:
    """The loader of a task set, and for `key:member` the keyword `name` that chooses the member."""
    key, colon, member = name.partition(":")
    if key not in TASKS:
        raise ConfigError(f"Unknown task set {key!r}. {nearest(key, TASKS)}")
    module, function = TASKS[key].split(":")
    loader: Callable[..., TaskSet] = getattr(import_module(module), function)
    family = "name" in inspect.signature(loader).parameters
    if bool(colon) != family:
        fix = f"it is a family of sets: {key}:NAME" if family else f"it has no members; leave out {colon + member!r}"
        raise ConfigError(f"Task set {name!r} does not exist: {fix}.")
    return loader, {"name": member} if family else {}
