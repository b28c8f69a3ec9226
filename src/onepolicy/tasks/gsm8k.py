"""GSM8K: grade-school word problems whose final answer follows `####`.

Read from OpenAI's JSONL layout (`question`, `answer`) or from the hub. An answer is right when it is the gold number
exactly, as a rational, once thousands commas, a currency or percent sign and a final full stop are put aside.
Source: Cobbe et al. 2021 (arXiv 2110.14168).
"""

from __future__ import annotations

import re
from functools import partial

from onepolicy.errors import ConfigError, DataError, nearest
from onepolicy.tasks.base import TaskSet, conversation
from onepolicy.tasks.expressions import Value, number_text, read_number
from onepolicy.tasks.hub import open_rows
from onepolicy.tasks.rewards import DEFAULT_WEIGHTS, FORMATS, AnswerFormat, AnswerVerifier, RewardWeights
from onepolicy.tasks.rows import Policy, Row, text_field
from onepolicy.types import Task

_CALCULATION = re.compile(r"<<([^<>\n]*)>>")
_GROUPED = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])")


def load(
    split: str = "train",
    *,
    path: str = "",
    read: str = "tag",
    n: int | None = None,
    system: str | None = None,
    on_error: Policy = "stop",
    weights: RewardWeights = DEFAULT_WEIGHTS,
) -> TaskSet:
    """The problems of a file, or of the hub's split when path is "".

    read: where a completion's answer stands: "tag" (strict, the default), "hash" or "last" (see tasks.rewards).
    n: only the first n. system: the system message; None is the answer format in words, "" is none.
    on_error: "stop" at a broken row, or "drop" and list it in `TaskSet.dropped`. Demonstrations (train only) are the
    data set's own solutions without their calculator annotations. meta["level"] is a solution's number of
    calculations.

    Raises: ConfigError for an unknown option; DataError for a missing or empty file or a broken row.
    """
    if read not in FORMATS:
        raise ConfigError(f"Unknown way to read answers {read!r}. {nearest(read, FORMATS)}")
    form = FORMATS[read]
    verifier = AnswerVerifier(judge, form, weights)
    message = form.instructions if system is None else system

    def task(number: int, row: Row) -> Task:
        question, (solution, answer) = text_field(row, "question"), split_answer(text_field(row, "answer"))
        meta = {"level": len(calculations(solution)), "solution": solution, "row": number}
        return Task(f"gsm8k/{split}/{number}", conversation(question, message), answer, verifier, meta)

    rows = open_rows("gsm8k", split, path, task, on_error)
    tasks = rows.kept[:n]
    return TaskSet(
        name=f"gsm8k/{split}",
        tasks=tasks,
        demonstrate=partial(demonstrate, form=form) if split == "train" else None,
        form=form,
        counts={"rows": len(rows.kept) + len(rows.dropped), "dropped": len(rows.dropped), "tasks": len(tasks)},
        dropped=tuple(f"row {number}: {reason}" for number, reason in rows.dropped),
    )


def split_answer(text: str) -> tuple[str, str]:
    """(solution, final answer) of the data set's answer field. Raises: DataError unless one number follows `####`."""
    parts = text.split("####")
    if len(parts) != 2:
        raise DataError(f"the answer has {len(parts) - 1} '####'; exactly one comes before the final answer.")
    solution, answer = parts[0].strip(), parts[1].strip()
    if read_amount(answer) is None:
        raise DataError(f"the final answer {answer[:40]!r} is not a number.")
    return solution, answer


def calculations(solution: str) -> list[str]:
    """The calculator annotations of a solution, without their brackets.

    >>> calculations("48/2 = <<48/2=24>>24 clips")
    ['48/2=24']
    """
    return _CALCULATION.findall(solution)


def without_calculations(solution: str) -> str:
    """A solution without its calculator annotations.

    >>> without_calculations("48/2 = <<48/2=24>>24 clips")
    '48/2 = 24 clips'
    """
    return _CALCULATION.sub("", solution)


def read_amount(text: str) -> Value | None:
    """The number a text is, or None for anything but a number.

    Put aside: one currency sign, commas between groups of three, a percent sign (a unit: the gold answers are written
    without it), a final full stop. Compared as a rational, so that 18, 18.00 and 36/2 are equal.

    >>> [str(read_amount(text)) for text in ("$1,080", "18.00", "50%", "1/2", "7 eggs", "1,08")]
    ['1080', '18', '50', '1/2', 'None', 'None']
    """
    text = text.strip().replace("\\$", "$").removesuffix(".").rstrip()
    text = text.removesuffix("%").removesuffix("\\").rstrip()
    sign = "-" if text.startswith("-") else ""
    text = text.removeprefix("-").lstrip()
    if text[:1] in ("$", "€", "£"):
        text = text[1:].lstrip()
        sign, text = ("-", text[1:]) if text.startswith("-") and not sign else (sign, text)
    if len(text) > 60 or text[:1] in ("-", "+"):
        return None
    return read_number(sign + _GROUPED.sub(lambda found: found[0].replace(",", ""), text))


def judge(task: Task, answer: str) -> bool:
    """Whether the answer is the gold number, exactly."""
    number = read_amount(answer)
    return number is not None and number == read_amount(task.answer)


def demonstrate(task: Task, form: AnswerFormat) -> str:
    """The data set's own solution, its calculator annotations removed, in the answer format."""
    value = read_amount(task.answer)
    assert value is not None
    return form.write(without_calculations(task.meta["solution"]), number_text(value))
