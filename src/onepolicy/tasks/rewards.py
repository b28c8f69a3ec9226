"""How a completion's text becomes a Score: where its answer stands, whether it is right, what that is worth.

One verifier serves training and evaluation: `Score.value` is the training reward, `Score.parts["correct"]` is what
accuracy counts. `as_reward` in `tasks.functions` wraps a user's own reward function. What makes an answer *right*
belongs to each task's module.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from onepolicy.errors import ConfigError
from onepolicy.types import Score, Task

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
"""The tags of the answer format; a tokenizer may make each one token."""

MAX_ANSWER = 2000
"""Characters of an answer at most; a longer one is wrong without being parsed."""

Judge = Callable[[Task, str], bool]
"""Whether an answer's text answers the task; deterministic, never raises on any text."""


@dataclass(frozen=True)
class RewardWeights:
    """The reward's parts: value = correct * [answer right] + format * [format kept], reward units.

    The default pays mostly for being right and a little for keeping the format, so that a right answer in a broken
    format (1.0) still beats a wrong one in a perfect format (0.1).
    """

    correct: float = 1.0
    format: float = 0.1

    def __post_init__(self) -> None:
        for name, weight in (("correct", self.correct), ("format", self.format)):
            if not (math.isfinite(weight) and weight >= 0):
                raise ConfigError(f"reward weight {name} is {weight}; weights are finite and not negative.")


DEFAULT_WEIGHTS = RewardWeights()


@dataclass(frozen=True)
class AnswerFormat:
    """A way to mark the answer in a completion.

    extract(text): the answer's text, or None where there is none or it is ambiguous. matches(text): the whole
    completion keeps the format. write(thinking, answer): a completion in this format. instructions: it in words.
    """

    name: str
    extract: Callable[[str], str | None]
    matches: Callable[[str], bool]
    write: Callable[[str, str], str]
    instructions: str


@dataclass(frozen=True)
class AnswerVerifier:
    """Extracts the answer by `form`, judges it, and adds up the parts `correct` and `format`, each 0 or 1."""

    judge: Judge
    form: AnswerFormat
    weights: RewardWeights = DEFAULT_WEIGHTS

    def __call__(self, task: Task, text: str) -> Score:
        answer = self.form.extract(text)
        readable = answer is not None and 0 < len(answer) <= MAX_ANSWER
        correct = float(answer is not None and readable and self.judge(task, answer))
        kept = float(self.form.matches(text))
        value = self.weights.correct * correct + self.weights.format * kept
        return Score(value, {"correct": correct, "format": kept})


def split_thinking(text: str) -> tuple[str | None, str]:
    """(thinking, rest): what stands inside `<think>…</think>`, None without such tags, and what follows it.

    The rest starts after the last `</think>`; an opening tag that is never closed swallows all that follows.

    >>> split_thinking("<think>1+1</think><answer>2</answer>")
    ('1+1', '<answer>2</answer>')
    >>> split_thinking("<think>never closed <answer>2</answer>")
    ('never closed <answer>2</answer>', '')
    """
    before, closed, rest = text.rpartition("</think>")
    rest, opened, swallowed = rest.partition("<think>")
    if not closed and not opened:
        return None, text
    thinking = before.partition("<think>")[2] if "<think>" in before else before
    return thinking + swallowed, rest


def extract_tag(text: str, tag: str) -> str | None:
    """The content of `<tag>…</tag>`, stripped; None when absent, unbalanced, or given twice with different contents.

    >>> extract_tag("so <answer> 7 </answer>", "answer")
    '7'
    >>> extract_tag("<answer>7</answer> or <answer>8</answer>", "answer") is None
    True
    """
    opening, closing = f"<{tag}>", f"</{tag}>"
    spans = text.split(opening)[1:]
    if not spans or text.count(closing) != len(spans):
        return None
    contents = set()
    for span in spans:
        content, closed, _ = span.partition(closing)
        if not closed:
            return None
        contents.add(content.strip())
    return contents.pop() if len(contents) == 1 else None


def keeps_tags(text: str) -> bool:
    """Whether a text is `<think>…</think><answer>…</answer>`, blanks between aside, each tag once, nothing else.

    >>> keeps_tags("<think>1</think> <answer>2</answer>"), keeps_tags("<think>1</think><answer>2</answer> Bye")
    (True, False)
    """
    text = text.strip()
    if any(text.count(tag) != 1 for tag in TAGS) or not text.startswith("<think>") or not text.endswith("</answer>"):
        return False
    between = text[text.index("</think>") + len("</think>") : text.index("<answer>")] if _ordered(text) else "x"
    return between.strip() == ""


def _ordered(text: str) -> bool:
    positions = [text.index(tag) for tag in TAGS]
    return positions == sorted(positions)


def _tagged_answer(text: str) -> str | None:
    return extract_tag(split_thinking(text)[1], "answer")


def _write_tagged(thinking: str, answer: str) -> str:
    return f"<think>{thinking}</think><answer>{answer}</answer>"


def _hashed_answer(text: str) -> str | None:
    """What follows the only `####` on its line, or None."""
    parts = split_thinking(text)[1].split("####")
    if len(parts) != 2:
        return None
    lines = parts[1].strip().splitlines()
    return lines[0].strip() if lines else None


def _keeps_hash(text: str) -> bool:
    """One `####`, followed by one line that is the end of the text."""
    parts = text.strip().split("####")
    return len(parts) == 2 and parts[1].strip() != "" and "\n" not in parts[1].strip()


def _write_hashed(thinking: str, answer: str) -> str:
    return f"{thinking}\n#### {answer}" if thinking else f"#### {answer}"


_NUMBER_IN_TEXT = re.compile(r"-?\$?(?:[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)%?(?:/[0-9]+)?")


def _last_number(text: str) -> str | None:
    """The last number outside the thinking, of the last 2,000 characters."""
    found = _NUMBER_IN_TEXT.findall(split_thinking(text)[1][-MAX_ANSWER:])
    return found[-1].rstrip(",") if found else None


def _has_number(text: str) -> bool:
    return _last_number(text) is not None


TAGGED = AnswerFormat(
    "tag",
    _tagged_answer,
    keeps_tags,
    _write_tagged,
    "Think step by step inside <think> and </think>, then give the final answer inside <answer> and </answer>, "
    "and write nothing else.",
)
"""`<think>…</think><answer>…</answer>` (DeepSeek-R1, arXiv 2501.12948 table 1). An answer outside the thinking and
unambiguous is read; the format counts as kept only if there is nothing else."""

HASHED = AnswerFormat(
    "hash",
    _hashed_answer,
    _keeps_hash,
    _write_hashed,
    "Think step by step, then write the final answer alone on the last line after ####.",
)
"""GSM8K's own: the answer on the last line, after `####`."""

LAST_NUMBER = AnswerFormat(
    "last", _last_number, _has_number, _write_hashed, "Think step by step and end with the final answer, a number."
)
"""Lenient: the last number of the text, whatever stands around it. For models trained elsewhere; a model that lists
many numbers is judged by the last one."""

FORMATS = {form.name: form for form in (TAGGED, HASHED, LAST_NUMBER)}
"""Answer formats by name."""
