"""HumanEval, MBPP and files of your own: programming problems whose tests are split before anything is run.

Read in the layout their authors publish, from a local file or the hub. Every gold program runs on its own tests, in the
sandbox, when a set is loaded. A row of a benchmark whose tests cannot be split into calls and literals (a loop over
random inputs, a value worked out on the way) is left out and listed in `TaskSet.dropped`, whatever `on_error` says of
broken rows; of HumanEval's 164 these are 5, of MBPP's 974 none.

Source: Chen et al. 2021 (arXiv 2107.03374, github.com/openai/human-eval); Austin et al. 2021 (arXiv 2108.07732,
github.com/google-research/google-research/tree/master/mbpp).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from onepolicy.errors import ConfigError, DataError
from onepolicy.tasks.base import INSTRUCTIONS, TaskSet, conversation
from onepolicy.tasks.code import FENCED, CodeVerifier
from onepolicy.tasks.code_tests import MAX_TEXT, CodeTest, read_tests, split_asserts, split_statements
from onepolicy.tasks.hub import open_rows
from onepolicy.tasks.rewards import DEFAULT_WEIGHTS, RewardWeights
from onepolicy.tasks.rows import Policy, Row, text_field
from onepolicy.tasks.sandbox import default_sandbox
from onepolicy.tasks.sandbox_languages import language_of
from onepolicy.tasks.sandbox_types import Limits
from onepolicy.types import Task

Mode = Literal["all", "share"]

MBPP_SPLITS = {"test": (11, 510), "train": (601, 974), "validation": (511, 600)}
"""First and last task id of each split (README of MBPP); 1 to 10 are the authors' few-shot prompt."""

BENCHMARK = Limits(seconds=15.0, total=45.0, memory=1024)


@dataclass(frozen=True)
class Refused:
    """A row whose tests cannot be split, and why."""

    row: int
    reason: str


def load_humaneval(
    split: str = "test",
    *,
    path: str = "",
    system: str | None = None,
    mode: Mode = "all",
    n: int | None = None,
    on_error: Policy = "stop",
    weights: RewardWeights = DEFAULT_WEIGHTS,
) -> TaskSet:
    """HumanEval's 164 functions, from a file in its JSONL layout, or from the hub when path is "".

    A row's `check(candidate)` is split into its asserts. A completion's block may be the whole function or its body.
    system: the system message; None is the answer format in words. n: only the first n. There is no train split.
    Raises: ConfigError for the train split, or without a sandbox; DataError for a missing file or a broken row.
    """
    if split != "test":
        raise ConfigError("HumanEval has no train split; it is for evaluation. Use split='test'.")
    verifier = CodeVerifier(mode=mode, limits=BENCHMARK, weights=weights, program=complete)

    def task(number: int, row: Row) -> Task | Refused:
        prompt, entry, source = (text_field(row, field) for field in ("prompt", "entry_point", "test"))
        tests = _split(number, lambda: humaneval_tests(source, entry))
        if isinstance(tests, Refused):
            return tests
        asked = f"Complete this Python function.\n\n```python\n{prompt.strip()}\n```"
        meta = {"tests": tuple(tests), "row": number, "prompt": prompt, "entry": entry}
        gold = prompt + text_field(row, "canonical_solution")
        return Task(_name("humaneval", row), _asked(asked, system), gold, verifier, meta)

    return _task_set("humaneval", "test", path, task, on_error, n)


def load_mbpp(
    split: str = "test",
    *,
    path: str = "",
    system: str | None = None,
    mode: Mode = "all",
    n: int | None = None,
    on_error: Policy = "stop",
    weights: RewardWeights = DEFAULT_WEIGHTS,
) -> TaskSet:
    """MBPP's problems of a split (test: ids 11 to 510, train: 601 to 974), from its JSONL file or the hub.

    Asked as the authors do, with the tests in the prompt. `test_list` and, if there are any, `challenge_test_list` are
    what a program is tested on. Options as those of `load_humaneval`.
    """
    verifier = CodeVerifier(mode=mode, limits=BENCHMARK, weights=weights)
    low, high = MBPP_SPLITS[split]

    def task(number: int, row: Row) -> Task | Refused | None:
        if not isinstance(row.get("task_id"), int):
            raise DataError(f"task_id is {row.get('task_id')!r}; MBPP's are integers.")
        if not low <= row["task_id"] <= high:
            return None
        shown = _texts(row, "test_list")
        setup = "\n".join(_texts(row, "test_imports", True) + [str(row.get("test_setup_code") or "")]).strip()
        texts = shown + _texts(row, "challenge_test_list", True)
        tests = _split(number, lambda: [test for text in texts for test in split_asserts(text, setup)])
        if isinstance(tests, Refused):
            return tests
        words = text_field(row, "text" if "text" in row else "prompt")
        asked = f"{words.strip()} Your code should pass these tests:\n\n" + "\n".join(shown)
        meta = {"tests": tuple(tests), "row": number}
        return Task(_name("mbpp", row), _asked(asked, system), text_field(row, "code"), verifier, meta)

    return _task_set("mbpp", split, path, task, on_error, n)


def load_file(
    split: str = "train",
    *,
    path: str = "",
    system: str | None = None,
    mode: Mode = "share",
    language: str = "python",
    n: int | None = None,
    on_error: Policy = "stop",
    weights: RewardWeights = DEFAULT_WEIGHTS,
) -> TaskSet:
    """Problems of your own: a JSONL file, a row `{"prompt": ..., "tests": [...], "solution": ...}`.

    tests: see `code_tests.read_tests`; with calls by value also `"function"`. `"language"` overrides `language`, `"id"`
    the row's number. Every solution is run on its tests; demonstrations (train only) are the solutions.
    """
    if not path:
        raise ConfigError("code-file needs a file: --data problems.jsonl.")
    verifier = CodeVerifier(mode=mode, weights=weights, language=language_of(language))

    def task(number: int, row: Row) -> Task:
        chosen = language_of(text_field(row, "language")) if "language" in row else verifier.language
        function = text_field(row, "function") if "function" in row else ""
        meta = {"tests": tuple(read_tests(row.get("tests"), function)), "row": number, "language": chosen}
        name = f"code-file/{split}/{row.get('id', number)}"
        return Task(name, _asked(text_field(row, "prompt"), system), text_field(row, "solution"), verifier, meta)

    return _task_set("code-file", split, path, task, on_error, n)


def humaneval_tests(source: str, entry: str) -> list[CodeTest]:
    """The tests of HumanEval's `check(candidate)`. Raises: DataError for statements that cannot be split."""
    if not entry.isidentifier():
        raise DataError(f"entry_point {entry[:40]!r} is no name of a function.")
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise DataError(f"the tests are not Python: {type(error).__name__}: {error}") from error
    checks = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "check"]
    if len(checks) != 1 or [argument.arg for argument in checks[0].args.args] != ["candidate"]:
        raise DataError("the tests have no function check(candidate).")
    # HumanEval/33 compares the candidate with itself, by its own name
    body = [ast.parse(re.sub(rf"\b{entry}\b", "candidate", ast.unparse(one))).body[0] for one in checks[0].body]
    return split_statements(body, f"candidate = {entry}")


def complete(task: Task, text: str) -> str:
    """HumanEval's prompt before a completion: under the signature where it is only the body, else before the whole.

    The prompt's imports and helpers are there either way; a function written out again takes the prompt's place.
    """
    prompt = task.meta["prompt"]
    whole = re.search(rf"^\s*(?:async\s+)?def\s+{re.escape(task.meta['entry'])}\b", text, re.MULTILINE)
    return f"{prompt}\n    pass\n\n{text}" if whole else prompt + text


def _task_set(
    name: str,
    split: str,
    path: str,
    convert: Callable[[int, Row], Task | Refused | None],
    on_error: Policy,
    n: int | None,
) -> TaskSet:
    """The tasks of a file or of the hub whose gold programs pass, by `on_error`."""
    default_sandbox()
    rows = open_rows(name, split, path, convert, on_error)
    tasks = [task for task in rows.kept if isinstance(task, Task)][:n]
    refused = [task for task in rows.kept if isinstance(task, Refused)]
    if not tasks:
        raise DataError(f"{path or name} has no row of the split {split!r}.")
    kept, failed = _with_right_gold(tasks)
    if failed and on_error == "stop":
        raise DataError(f"{name}/{split}: {len(failed)} of {len(tasks)} gold programs fail: {'; '.join(failed[:3])}.")
    left_out = sorted([*rows.dropped, *((one.row, one.reason) for one in refused)])
    dropped = (*(f"row {number}: {reason}" for number, reason in left_out), *failed)
    return TaskSet(
        name=f"{name}/{split}",
        tasks=tuple(kept),
        demonstrate=_demonstrate if split == "train" else None,
        form=FENCED,
        counts={"rows": len(rows.kept) + len(rows.dropped), "dropped": len(dropped), "tasks": len(kept)},
        dropped=dropped,
    )


def _with_right_gold(tasks: Sequence[Task]) -> tuple[list[Task], list[str]]:
    """The tasks whose gold program passes all its tests, and for the others row and reason; run side by side."""
    verifier = tasks[0].verifier
    assert isinstance(verifier, CodeVerifier)
    scores = verifier.many([(task, FENCED.write("", task.answer)) for task in tasks])
    kept, failed = [], []
    for task, score in zip(tasks, scores, strict=True):
        if score.parts.get("correct") == 1.0:
            kept.append(task)
        else:
            causes = ", ".join(cause for cause in ("compile", "time", "memory", "crash") if score.parts.get(cause))
            why = score.error or f"the gold program passes {score.parts['passed']:.0%} of its tests"
            failed.append(f"row {task.meta['row']}: {why}" + (f" ({causes})" if causes else ""))
    return kept, failed


def _split(number: int, make: Callable[[], list[CodeTest]]) -> list[CodeTest] | Refused:
    try:
        return make()
    except DataError as error:
        return Refused(number, str(error))


def _demonstrate(task: Task) -> str:
    return FENCED.write("", task.answer)


def _asked(question: str, system: str | None) -> Any:
    """The conversation; recipes offer the words of the answer tags, which are not how programs are marked."""
    return conversation(question, FENCED.instructions if system in (None, INSTRUCTIONS) else system or "")


def _name(kind: str, row: Row) -> str:
    return f"{kind}/{str(row.get('task_id')).rpartition('/')[2]}"


def _texts(row: Row, field: str, optional: bool = False) -> list[str]:
    """A row's field as a list of texts. Raises: DataError for anything else."""
    value = row.get(field)
    if value is None and optional:
        return []
    if not isinstance(value, list) or not all(isinstance(text, str) and len(text) <= MAX_TEXT for text in value):
        raise DataError(f"field {field!r} is {str(value)[:40]!r}; it must be a list of texts.")
    return value
