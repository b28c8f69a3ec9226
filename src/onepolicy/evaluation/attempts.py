"""Attempts: one completion of one problem with its verdict, as data that a file can hold and a report is made of.

Everything an accuracy report says is a function of attempts, so an evaluation that was killed and continued from a file
gives the same figures as one that was not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from onepolicy.errors import ConfigError, DataError
from onepolicy.run.seeding import derive_seed
from onepolicy.tasks.expressions import number_text, read_number
from onepolicy.tasks.length import with_tokens
from onepolicy.tasks.rewards import AnswerFormat
from onepolicy.tasks.verdicts import Scorer, verify_each
from onepolicy.types import Generator, Sampling, Task

Render = Callable[[Task], list[int]]
Decode = Callable[[Sequence[int]], str]
AnswerOf = Callable[[Task, str], str | None]
Mode = Literal["greedy", "sampled"]
State = Literal["judged", "invalid", "skipped"]

UNCOUNTABLE = ("code", "plain")
"""Answer formats whose answers differ although they say the same, so that no majority is taken."""
GREEDY: Mode = "greedy"
SAMPLED: Mode = "sampled"


@dataclass(frozen=True)
class Attempt:
    """One completion and its verdict.

    sample: its number among the problem's completions of this mode. vote: the answer it votes for in a majority, None
    for none. value, parts, error: the verifier's Score. stop: "length" means cut off. tokens: its length.
    """

    task: str
    mode: Mode
    sample: int
    text: str
    vote: str | None
    value: float | None
    parts: Mapping[str, float | None] = field(default_factory=dict)
    error: str | None = None
    stop: Literal["stop", "length"] = "stop"
    tokens: int = 0

    @property
    def state(self) -> State:
        """judged: it has a value. invalid: judging failed. skipped: the verifier does not apply to it."""
        if self.value is not None:
            return "judged"
        return "skipped" if self.error is None else "invalid"

    def part(self, name: str) -> float:
        """A part of the score, NaN where the attempt was not judged or has no such part.

        Raises: ConfigError for a judged attempt without the part `correct`, which accuracy counts.
        """
        if self.value is None:
            return float("nan")
        part = self.parts.get(name)
        if part is None and name == "correct":
            raise ConfigError(
                "A verifier's Score has no part 'correct'; accuracy counts it. Add it to the Score's parts, as 0 or 1."
            )
        return float("nan") if part is None else float(part)

    def record(self, task: Task) -> dict[str, Any]:
        """The attempt as a line of samples.jsonl, with the problem it is of."""
        return {
            "task": self.task,
            "prompt": task.messages[-1].content,
            "gold": task.answer,
            "mode": self.mode,
            "sample": self.sample,
            "text": self.text,
            "answer": self.vote,
            "score": self.value,
            "correct": self.parts.get("correct"),
            "format": self.parts.get("format"),
            "parts": dict(self.parts),
            "error": self.error,
            "stop": self.stop,
            "tokens": self.tokens,
        }


def attempt_of(record: Mapping[str, Any]) -> Attempt:
    """The attempt that `Attempt.record` wrote. Raises: DataError for a line that is none."""
    try:
        return Attempt(
            task=record["task"],
            mode=record["mode"],
            sample=record["sample"],
            text=record["text"],
            vote=record["answer"],
            value=record["score"],
            parts=record["parts"],
            error=record["error"],
            stop=record["stop"],
            tokens=record["tokens"],
        )
    except KeyError as error:
        raise DataError(f"a line of samples has no field {error}; it was not written by an evaluation.") from error


def make_attempts(
    generator: Generator,
    tasks: Sequence[Task],
    render: Render,
    decode: Decode,
    *,
    sampling: Sampling,
    k: int = 0,
    seed: int = 0,
    answer_of: AnswerOf | None = None,
    scorer: Scorer = verify_each,
) -> list[Attempt]:
    """One greedy attempt at every task and then, for k > 0, k sampled ones: ordered by mode, task, sample.

    render(task): the prompt's token ids. decode(tokens): the completion's text. sampling: of the k samples; the greedy
    attempt takes its max_tokens and stops. seed: each problem's sampling seed derives from it and the task's id, so
    order and batching change nothing. answer_of: (task, text) -> the answer as it votes; `answer_text` if not given.
    scorer: judges (task, text) pairs, in order.

    Raises: ConfigError for k samples at temperature 0, which would all be equal.
    """
    if k > 0 and sampling.temperature == 0:
        raise ConfigError(f"k is {k} at temperature 0: all samples would be equal. Set temperature > 0, or k to 0.")
    prompts = [render(task) for task in tasks]
    seeds = [derive_seed(seed, "evaluate", task.id) for task in tasks]
    plain = replace(sampling, temperature=0.0, top_k=0, top_p=1.0)
    wanted: list[tuple[Mode, int, Sampling]] = [(GREEDY, 1, plain), (SAMPLED, k, sampling)]
    vote = answer_of or answer_text
    found: list[Attempt] = []
    for mode, n, how in wanted[: 2 if k > 0 else 1]:
        completions = generator.generate(prompts, n, how, seeds)
        flat = [(task, c, decode(c.tokens)) for task, row in zip(tasks, completions, strict=True) for c in row]
        scores = scorer([(with_tokens(task, len(completion.tokens)), text) for task, completion, text in flat])
        for place, ((task, completion, text), score) in enumerate(zip(flat, scores, strict=True)):
            found.append(
                Attempt(
                    task.id,
                    mode,
                    place % n,
                    text,
                    vote(task, text),
                    score.value,
                    dict(score.parts),
                    score.error,
                    completion.stop,
                    len(completion.tokens),
                )
            )
    return found


def answer_text(task: Task, text: str) -> str | None:
    """The answer a completion votes for, in the format its verifier reads, normalised; None where it reads none."""
    answer = task.verifier.form.extract(text) if can_vote(task) else None  # type: ignore[attr-defined]
    return None if answer is None else normalised(answer)


def can_vote(task: Task) -> bool:
    """Whether a task's completions have answers that can be counted: not whole replies, not programs."""
    form: AnswerFormat | None = getattr(task.verifier, "form", None)
    return form is not None and form.name not in UNCOUNTABLE


def normalised(answer: str) -> str:
    r"""An answer as it votes: equal numbers alike, and without what only changes how it looks.

    Right answers vote together anyway, however written; this joins equal wrong ones.

    >>> [normalised(text) for text in ("6.0", r"$\dfrac{1}{ 2}$", r"\left( 3, 4 \right).", "(B)")]
    ['6', '\\frac{1}{2}', '(3,4)', '(B)']
    """
    number = read_number(answer)
    if number is not None:
        return number_text(number)
    for pattern, instead in _LOOKS:
        answer = pattern.sub(instead, answer)
    return answer


_LOOKS = (
    (re.compile(r"\\left|\\right|\\[,;!: ]|\$|\s|\.$"), ""),
    (re.compile(r"\\[dt]frac"), r"\\frac"),
    (re.compile(r"\.$"), ""),
)


@dataclass(frozen=True)
class Sheet:
    """The attempts of one mode at P problems, [P][n], in the problems' order."""

    rows: tuple[tuple[Attempt, ...], ...]

    @staticmethod
    def of(tasks: Sequence[Task], attempts: Sequence[Attempt], mode: Mode) -> Sheet:
        """The attempts of a mode, by problem. Raises: DataError where a problem has fewer than another."""
        rows: dict[str, list[Attempt]] = {task.id: [] for task in tasks}
        for attempt in attempts:
            if attempt.mode == mode:
                rows[attempt.task].append(attempt)
        if len({len(row) for row in rows.values()}) > 1:
            few = min(rows, key=lambda name: len(rows[name]))
            raise DataError(f"{few} has {len(rows[few])} {mode} attempts, others more; evaluate it anew.")
        return Sheet(tuple(tuple(sorted(row, key=lambda a: a.sample)) for row in rows.values()))

    def part(self, name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        """A part of the scores [P, n], NaN where it was not judged."""
        return np.array([[a.part(name) for a in row] for row in self.rows], dtype=np.float64)

    def all(self) -> list[Attempt]:
        """Every attempt, problem by problem."""
        return [attempt for row in self.rows for attempt in row]
