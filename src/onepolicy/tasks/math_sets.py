r"""Benchmarks of mathematics in their authors' layouts: MATH-500, AIME, AMC 2023, Minerva, OlympiadBench; and `maths`.

Each row becomes a problem and a gold answer that the verifier can read, or the row is named with its reason. Rows whose
gold answer no text can match are left out by name (`Benchmark.left_out`), golds with a slip of the pen are corrected by
name (`Benchmark.corrected`); both are listed in `TaskSet.dropped` and in docs/benchmarks.md. `maths` reads training
data of your own: any rows with a problem and an answer, or a solution that ends in a box.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from onepolicy.errors import ConfigError, DataError, nearest
from onepolicy.tasks.base import TaskSet, conversation
from onepolicy.tasks.hub import open_rows
from onepolicy.tasks.math import MATH_FORMATS, MathVerifier, read_gold
from onepolicy.tasks.math_compare import Tolerance
from onepolicy.tasks.math_text import BOXED, boxes
from onepolicy.tasks.rewards import DEFAULT_WEIGHTS, AnswerFormat, RewardWeights
from onepolicy.tasks.rows import Policy, Row
from onepolicy.types import Task

MODULES = ("onepolicy.tasks.math_warm",)
"""What worker processes import before they judge."""

QUESTION_FIELDS = ("problem", "question", "Problem", "prompt")
ANSWER_FIELDS = ("answer", "Answer", "expected_answer", "ground_truth", "final_answer")
SOLUTION_FIELDS = ("solution", "Solution", "solutions", "generated_solution")


@dataclass(frozen=True)
class Problem:
    """A row read: question, gold answer, the authors' solution ("" without), what else is kept, absolute tolerance."""

    question: str
    answer: str
    solution: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)
    absolute: float = 0.0


@dataclass(frozen=True)
class Benchmark:
    """One data set: how a row is read, and its rows that need naming. folder: another name of its folder.

    left_out: row id -> why no answer can be right.
    corrected: row id -> (gold as published, gold as meant).
    """

    name: str
    read: Callable[[Row], Problem]
    folder: str = ""
    left_out: Mapping[int, str] = field(default_factory=dict)
    corrected: Mapping[int, tuple[str, str]] = field(default_factory=dict)


def load(
    benchmark: Benchmark,
    split: str = "test",
    *,
    path: str = "",
    read: str = "boxed",
    n: int | None = None,
    system: str | None = None,
    on_error: Policy = "stop",
    tolerance: float = 0.0,
    weights: RewardWeights = DEFAULT_WEIGHTS,
) -> TaskSet:
    r"""The problems of a JSONL file or folder, or of the hub's test split when path is "".

    read: where a completion's answer stands: "boxed" (the last `\boxed{}`, the default), "open" (a box, or what the
    prose ends in), "tag", "hash" or "last". tolerance: relative, for golds that are rounded measurements; 0 is exact.
    n: only the first n. system: the system message; None is the answer format in words, "" is none. on_error: "stop" at
    a broken row, or "drop" and list it. The train split, from a file only, gives the solutions as demonstrations.

    Raises: ConfigError for an unknown option or a split that the hub does not have; DataError for a missing or empty
    file or a broken row.
    """
    if read not in MATH_FORMATS:
        raise ConfigError(f"Unknown way to read answers {read!r}. {nearest(read, MATH_FORMATS)}")
    if tolerance < 0 or tolerance >= 1:
        raise ConfigError(f"tolerance is {tolerance}; it is a part of the gold value, from 0 (exact) to below 1.")
    form = MATH_FORMATS[read]
    message = form.instructions if system is None else system
    notes: list[str] = []

    def task(number: int, row: Row) -> Task | None:
        identity = row.get("id")
        if isinstance(identity, int) and identity in benchmark.left_out:
            notes.append(f"row {number} (id {identity}): {benchmark.left_out[identity]}")
            return None
        problem = benchmark.read(row)
        published, meant = benchmark.corrected.get(identity, ("", "")) if isinstance(identity, int) else ("", "")
        answer = meant if meant and problem.answer == published else problem.answer
        if answer != problem.answer:
            notes.append(f"row {number} (id {identity}): kept, its answer {published!r} read as {meant!r}")
        if gold_error := read_gold(answer).error:
            raise DataError(f"the gold answer {answer[:60]!r} cannot be read: {gold_error}.")
        verifier = MathVerifier(form, weights, Tolerance(tolerance, problem.absolute))
        meta = {"row": number, "solution": problem.solution, **problem.meta}
        name = f"{benchmark.name}/{split}/{number}"
        return Task(name, conversation(problem.question, message), answer, verifier, meta)

    place = find_rows(path, benchmark, split) if path else ""
    rows = open_rows(benchmark.name, split, place, task, on_error)
    tasks = tuple(task for task in rows.kept if task is not None)[:n]
    broken = tuple(f"row {number}: {reason}" for number, reason in rows.dropped)
    return TaskSet(
        name=f"{benchmark.name}/{split}",
        tasks=tasks,
        demonstrate=partial(demonstrate, form=form) if split == "train" else None,
        form=form,
        counts={"rows": len(rows.kept) + len(rows.dropped), "dropped": len(rows.dropped), "tasks": len(tasks)},
        dropped=(*broken, *notes),
        isolated=True,
        modules=MODULES,
    )


def demonstrate(task: Task, form: AnswerFormat) -> str:
    """The authors' solution in the answer format, or the bare answer where there is none."""
    solution = str(task.meta["solution"])
    if form.name == BOXED.name and len(set(boxes(solution))) == 1:
        return solution
    for content in boxes(solution) if form.name != BOXED.name else []:
        solution = solution.replace(f"\\boxed{{{content}}}", content)
    return form.write(solution if form.name != BOXED.name or not boxes(solution) else "", task.answer)


def find_rows(path: str, benchmark: Benchmark, split: str) -> Path:
    """The file itself, or the split's in a folder: `test.jsonl`, or below the benchmark's name. Raises: DataError."""
    place = Path(path)
    if not place.is_dir():
        return place
    tried = [place / f"{split}.jsonl", *(place / f / f"{split}.jsonl" for f in (benchmark.name, benchmark.folder) if f)]
    for file in tried:
        if file.is_file():
            return file
    raise DataError(f"{place} has no {split}.jsonl of {benchmark.name}; looked for {', '.join(map(str, tried))}.")


def text_of(row: Row, *names: str) -> str:
    """The first of the fields that a row has, as text: a number without a needless `.0`, a list's single element.

    Raises: DataError naming what is missing or of another type.
    """
    for name in names:
        value = row.get(name)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if isinstance(value, bool) or value is None:
            continue
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int | float):
            return str(value)
        if isinstance(value, str) and value.strip():
            return value
        raise DataError(f"field {name!r} is {str(value)[:40]!r}; it must be text or a number.")
    raise DataError(f"no field {' or '.join(map(repr, names))}; the row has {', '.join(map(str, row))[:120]}.")


def _maybe(row: Row, *names: str) -> str:
    try:
        return text_of(row, *names)
    except DataError:
        return ""


def _plain(row: Row) -> Problem:
    """A problem with its answer in a field, or else in the last box of its solution."""
    solution = _maybe(row, *SOLUTION_FIELDS)
    found = boxes(solution)
    answer = found[-1] if found and not any(name in row for name in ANSWER_FIELDS) else text_of(row, *ANSWER_FIELDS)
    meta = {name: row[name] for name in ("level", "subject", "type") if isinstance(row.get(name), int | str)}
    if "type" in meta:
        meta["subject"] = meta.pop("type")
    return Problem(text_of(row, *QUESTION_FIELDS), answer, solution, meta)


def _minerva(row: Row) -> Problem:
    """The answer is the box of the solution."""
    problem = _plain(row)
    if "answer" not in row and not boxes(problem.solution):
        raise DataError("the solution has no \\boxed{} answer.")
    return problem


_UNITS = {"%": r"\%", "$cm^2$": r"\text{ cm}^2"}


def _olympiad(row: Row) -> Problem:
    """Context and question; the final answer with its unit; the published tolerance, absolute."""
    answers, solutions, unit = row.get("final_answer"), row.get("solution"), str(row.get("unit") or "")
    if not isinstance(answers, list) or len(answers) != 1 or not isinstance(answers[0], str):
        raise DataError(f"field 'final_answer' is {str(answers)[:40]!r}; it must be a list of one text.")
    answer, error = answers[0], row.get("error")
    if unit in _UNITS or unit.replace("/", "").isalpha():
        answer = answer.strip("$") + _UNITS.get(unit, f"\\text{{ {unit}}}")
    context = row.get("context")
    question = f"{context}\n\n{text_of(row, 'question')}" if isinstance(context, str) else text_of(row, "question")
    solution = "\n\n".join(map(str, solutions)) if isinstance(solutions, list) else ""
    try:
        absolute = float(error) if error else 0.0
    except (TypeError, ValueError):
        raise DataError(f"field 'error' is {str(error)[:40]!r}; it must be a number.") from None
    meta = {"subject": str(row.get("subfield") or ""), "type": str(row.get("answer_type") or "")}
    return Problem(question, answer, solution, meta, absolute)


BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark("math500", _plain),
        Benchmark("aime24", _plain),
        Benchmark("aime25", _plain),
        Benchmark("amc23", _plain),
        Benchmark("minerva", _minerva, folder="minerva_math"),
        Benchmark(
            "olympiadbench",
            _olympiad,
            left_out={1965: "its answer is a sentence with two quantified constants"},
            corrected={2045: ("$t(0,4]$", "$(0,4]$"), 2349: ("$221,$8$", "$221,8$")},
        ),
        Benchmark("maths", _plain),
    )
}
"""The benchmarks by name."""

math500, aime24, aime25, amc23, minerva, olympiadbench, maths = (partial(load, b) for b in BENCHMARKS.values())
