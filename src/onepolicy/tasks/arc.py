"""ARC: science questions for schools with three to five given answers, easy and challenging.

Read from AI2's JSONL layout, from the hub's layout in a file, or from the hub. Judged here by letter; a set's problems
also carry what judging by likelihood needs (evaluation/choice.py): `meta["stem"]`, the question alone, and
`meta["choices"]`, (label, text) pairs. Source: Clark et al. 2018 (arXiv 1803.05457).
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from onepolicy.errors import ConfigError, DataError, nearest
from onepolicy.tasks.base import TaskSet, conversation
from onepolicy.tasks.hub import open_rows
from onepolicy.tasks.rewards import (
    DEFAULT_WEIGHTS,
    TAGGED,
    AnswerFormat,
    AnswerVerifier,
    RewardWeights,
    extract_tag,
    split_thinking,
)
from onepolicy.tasks.rows import Policy, Row, text_field
from onepolicy.types import Task

Choice = tuple[str, str]
"""(label, text) of a given answer."""

_STATED = re.compile(r"answer\s*(?:is|:)?\s*:?\s*\**\(?([A-Za-z1-9])\b\)?", re.IGNORECASE)
_ALONE = re.compile(r"^\**\(?([A-Za-z1-9])(?:\)|\.|:|\**$)")


def load(
    part: str,
    split: str = "train",
    *,
    path: str = "",
    read: str = "tag",
    n: int | None = None,
    system: str | None = None,
    on_error: Policy = "stop",
    weights: RewardWeights = DEFAULT_WEIGHTS,
) -> TaskSet:
    """The questions of a file, or of the hub's split when path is "".

    part: "easy" or "challenge". read: where the letter stands: "tag" (strict, the default) or "letter" (lenient: the
    last "answer is B", or a first line that begins with the letter). The other options as gsm8k's.
    Raises: ConfigError for an unknown option; DataError for a missing or empty file or a broken row.
    """
    if read not in FORMS:
        raise ConfigError(f"Unknown way to read answers {read!r}. {nearest(read, FORMS)}")
    form = FORMS[read]
    verifier = AnswerVerifier(judge, form, weights)
    message = form.instructions if system is None else system

    def task(number: int, row: Row) -> Task:
        stem, choices, answer = parse(row)
        asked = stem + "\n" + "\n".join(f"{label}. {text}" for label, text in choices)
        meta = {"stem": stem, "choices": choices, "row": number}
        return Task(f"arc-{part}/{split}/{number}", conversation(asked, message), answer, verifier, meta)

    rows = open_rows(f"arc-{part}", split, path, task, on_error)
    tasks = rows.kept[:n]
    return TaskSet(
        name=f"arc-{part}/{split}",
        tasks=tasks,
        form=form,
        counts={"rows": len(rows.kept) + len(rows.dropped), "dropped": len(rows.dropped), "tasks": len(tasks)},
        dropped=tuple(f"row {number}: {reason}" for number, reason in rows.dropped),
    )


load_easy = partial(load, "easy")
load_challenge = partial(load, "challenge")
"""The questions that retrieval and co-occurrence of words got wrong."""


def parse(row: Row) -> tuple[str, tuple[Choice, ...], str]:
    """(question, its choices, the right label) of a row in AI2's layout or the hub's.

    Raises: DataError naming what is missing, for fewer than two choices, a label given twice, or a right label that is
    none of theirs.

    >>> parse({"question": {"stem": "Hot?", "choices": [{"text": "Ice", "label": "A"}, {"text": "Sun", "label": "B"}]},
    ...        "answerKey": "B"})
    ('Hot?', (('A', 'Ice'), ('B', 'Sun')), 'B')
    """
    question: Any = row.get("question")
    if isinstance(question, dict):
        stem, given = text_field(question, "stem"), question.get("choices")
        pairs = [(one.get("label"), one.get("text")) for one in given] if _objects(given) and given else None
    else:
        stem, given = text_field(row, "question"), row.get("choices")
        lists = isinstance(given, dict) and isinstance(given.get("label"), list) and isinstance(given.get("text"), list)
        whole = lists and len(given["label"]) == len(given["text"])  # type: ignore[index]
        pairs = list(zip(given["label"], given["text"])) if whole else None  # type: ignore[index]
    if pairs is None or len(pairs) < 2:
        raise DataError(
            "the choices are neither [{text, label}, …] nor {text: […], label: […]} of equal length, at least two."
        )
    if not all(isinstance(part, str) and part.strip() for pair in pairs for part in pair):
        raise DataError("a choice has no text or no label.")
    labels = [label for label, _ in pairs]
    if len(set(labels)) != len(labels):
        raise DataError(f"labels {labels} are not different.")
    answer = text_field(row, "answerKey")
    if answer not in labels:
        raise DataError(f"answerKey {answer!r} is none of the labels {labels}.")
    return stem, tuple((str(label), str(text)) for label, text in pairs), answer


def judge(task: Task, answer: str) -> bool:
    """Whether the answer is the right label, as "B", "(B)", "B." or "B. text", or exactly the right choice's text."""
    answer = answer.strip().strip("*$").strip()
    choices = dict(task.meta["choices"])
    if answer.casefold() == choices[task.answer].strip().casefold():
        return True
    found = re.match(r"^\(?([A-Za-z1-9])\)?(?:[.:)]?\s*(.*))?$", answer, re.DOTALL)
    if found is None or found[1].upper() != task.answer.upper():
        return False
    rest = (found[2] or "").strip()
    return not rest or rest.casefold() == choices[task.answer].strip().casefold()


def _objects(given: Any) -> bool:
    return isinstance(given, list) and all(isinstance(one, dict) for one in given)


def _letter(text: str) -> str | None:
    """The letter a text names: the last "answer is B", or the one that its first line begins with or is."""
    rest = split_thinking(text)[1].strip()
    if (tagged := extract_tag(rest, "answer")) is not None:
        return tagged
    if stated := _STATED.findall(rest[-2000:]):
        return str(stated[-1]).upper()
    alone = _ALONE.match(rest.split("\n", 1)[0].strip())
    return alone[1].upper() if alone else None


def _names_letter(text: str) -> bool:
    return _letter(text) is not None


def _write_letter(thinking: str, answer: str) -> str:
    return f"{thinking} The answer is {answer}.".strip()


TAGGED_LETTER = AnswerFormat(
    "tag",
    TAGGED.extract,
    TAGGED.matches,
    TAGGED.write,
    TAGGED.instructions + " The final answer is the letter of the right choice.",
)
"""The letter inside `<answer>…</answer>`."""

LETTER = AnswerFormat(
    "letter", _letter, _names_letter, _write_letter, 'End with "The answer is X.", X the letter of the right choice.'
)
"""Lenient, for models trained elsewhere."""

FORMS = {form.name: form for form in (TAGGED_LETTER, LETTER)}
