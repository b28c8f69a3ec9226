"""How many problems of a task set a policy gets right, greedily and by sampling, with intervals over problems.

Right is what `Score.parts["correct"]` says: the same verifier that trains. What could not be judged is left out and
counted. Rendering a task to tokens and decoding them are passed in, so any `Generator` can be evaluated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onepolicy.errors import ConfigError
from onepolicy.evaluation.attempts import (
    GREEDY,
    SAMPLED,
    AnswerOf,
    Attempt,
    Decode,
    Render,
    Sheet,
    answer_text,
    can_vote,
    make_attempts,
)
from onepolicy.evaluation.followed import PARTS, followed
from onepolicy.evaluation.passk import most_voted, pass_hat_k
from onepolicy.evaluation.stats import Interval, bootstrap_interval, maj_at_k, pass_at_k, wilson_interval
from onepolicy.tasks.verdicts import Scorer, verify_each
from onepolicy.types import Generator, Metrics, Sampling, Task

__all__ = ["AccuracyReport", "Outcome", "Rates", "answer_text", "evaluate_tasks", "powers_of_two", "summarise"]

Flags = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Rates:
    """What was seen besides right and wrong, over all completions of one mode.

    format: share that kept the answer format. truncated: share cut off at max_tokens. length: mean tokens.
    invalid: completions whose judging failed, causes: how many by reason. skipped: those the verifier does not apply
    to. Both are left out of every accuracy.
    """

    format: float
    truncated: float
    length: float
    invalid: int
    skipped: int = 0
    causes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """One problem's result: the greedy verdict (1, 0 or NaN), right and judged samples, what most samples answered.

    majority: the answer with the most votes, None without votes. agreement: its share of the judged samples.
    """

    task: str
    greedy: float
    right: int
    judged: int
    majority: str | None
    agreement: float

    @property
    def average(self) -> float:
        """The share of right samples, NaN where none was judged."""
        return self.right / self.judged if self.judged else float("nan")


@dataclass(frozen=True)
class AccuracyReport:
    """The result of `evaluate_tasks`; every Interval is over problems.

    greedy: accuracy at temperature 0, `greedy_rates` beside it. levels: the same for each `meta["level"]`, subjects for
    each `meta["subject"]`. average: mean accuracy of a sample (avg@k). passed, majority, always: pass@j, maj@j and
    pass^j by j. parts: the greedy scores' other parts, a mean each. followed: IFEval's four accuracies of the greedy
    replies, where there are instructions. samples: transcripts. correct: each problem's
    greedy verdict, 1, 0 or NaN, in task order. outcomes: each problem's result, for tables and paired comparisons.
    """

    problems: int
    k: int
    greedy: Interval
    greedy_rates: Rates
    levels: Mapping[str, Interval]
    average: Interval | None
    sampled_rates: Rates | None
    passed: Mapping[int, Interval]
    majority: Mapping[int, Interval]
    samples: tuple[Mapping[str, Any], ...]
    correct: tuple[float, ...]
    always: Mapping[int, Interval] = field(default_factory=dict)
    subjects: Mapping[str, Interval] = field(default_factory=dict)
    parts: Mapping[str, float] = field(default_factory=dict)
    outcomes: tuple[Outcome, ...] = ()
    followed: Mapping[str, Interval] = field(default_factory=dict)

    def metrics(self) -> Metrics:
        """Numbers to log: shares in [0, 1], lengths in tokens, counts."""
        found = {
            "eval/accuracy": self.greedy.value,
            "eval/accuracy_low": self.greedy.low,
            "eval/accuracy_high": self.greedy.high,
            **_named("eval/", self.greedy_rates),
            **{f"eval/part_{name}": value for name, value in self.parts.items()},
            **{f"eval/{name}": interval.value for name, interval in self.followed.items()},
        }
        if self.average is not None and self.sampled_rates is not None:
            found[f"eval/avg@{self.k}"] = self.average.value
            found |= {f"eval/pass@{j}": interval.value for j, interval in self.passed.items()}
            found |= {f"eval/maj@{j}": interval.value for j, interval in self.majority.items()}
            found |= {f"eval/pass_hat@{j}": interval.value for j, interval in self.always.items()}
            found |= _named("eval/sampled_", self.sampled_rates)
        return found

    def rows(self) -> list[tuple[str, str]]:
        """The report as (what, its value with its 95 % interval over problems)."""
        rows = [(f"accuracy, greedy, {self.problems} problems", self.greedy.percent())]
        rows += [(f"  level {name}", interval.percent()) for name, interval in self.levels.items()]
        rows += [(f"  {name}", interval.percent()) for name, interval in self.subjects.items()]
        rows += [(f"{name.replace('_', ' level, ')}", interval.percent()) for name, interval in self.followed.items()]
        rows += [(f"  part {name}, mean", f"{value:.4g}") for name, value in self.parts.items()]
        rows += _rate_rows("greedy", self.greedy_rates)
        if self.average is not None and self.sampled_rates is not None:
            rows += [(f"avg@{self.k}", self.average.percent())]
            rows += [(f"pass@{j}", interval.percent()) for j, interval in self.passed.items()]
            rows += [(f"pass^{j}", interval.percent()) for j, interval in self.always.items()]
            rows += [(f"maj@{j}", interval.percent()) for j, interval in self.majority.items()]
            rows += _rate_rows("sampled", self.sampled_rates)
        return rows

    def table(self) -> str:
        """`rows` as text, one line for each number."""
        rows = self.rows()
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def evaluate_tasks(
    generator: Generator,
    tasks: Iterable[Task],
    render: Render,
    decode: Decode,
    *,
    sampling: Sampling,
    k: int = 0,
    seed: int = 0,
    keep: int = 50,
    answer_of: AnswerOf | None = None,
    scorer: Scorer = verify_each,
) -> AccuracyReport:
    """Greedy accuracy and, for k > 0, avg@k, pass@j, pass^j and maj@j for j = 1, 2, 4, … up to k and k itself.

    Arguments as those of `make_attempts`. keep: problems whose transcripts are kept.
    Raises: ConfigError for no tasks, k samples at temperature 0, or a verifier without a part `correct`.
    """
    problems = list(tasks)
    if not problems:
        raise ConfigError("There are no tasks to evaluate; give at least one.")
    attempts = make_attempts(
        generator, problems, render, decode, sampling=sampling, k=k, seed=seed, answer_of=answer_of, scorer=scorer
    )
    return summarise(problems, attempts, k=k, keep=keep)


def summarise(
    problems: Sequence[Task], attempts: Sequence[Attempt], *, k: int, keep: int = 0, at: Sequence[int] = ()
) -> AccuracyReport:
    """The report of attempts: a function of what they say, whenever and in whatever order they were made.

    at: the numbers of samples j for which pass@j, pass^j and maj@j are given; `powers_of_two` of k if empty.
    Raises: DataError when a problem lacks attempts; ConfigError for j outside 1..k.
    """
    greedy = Sheet.of(problems, attempts, GREEDY)
    sampled = Sheet.of(problems, attempts, SAMPLED) if k > 0 else None
    if wrong := [j for j in at if not 1 <= j <= k]:
        raise ConfigError(f"pass@{wrong[0]} was asked of {k} samples a problem; ask for 1 to {k}, or set k higher.")
    correct = greedy.part("correct")[:, 0]
    votes = any(can_vote(task) for task in problems) or any(attempt.vote is not None for attempt in attempts)
    instructions = followed(greedy.rows)
    passed, always, majority = _by_number(sampled, list(at) or powers_of_two(k), votes=votes)
    shown = [attempt.record(task) for task, rows in _kept(problems, keep, greedy, sampled) for attempt in rows]
    return AccuracyReport(
        problems=len(problems),
        k=k,
        greedy=proportion(correct),
        greedy_rates=_rates(greedy),
        levels=_by_meta(problems, correct, "level"),
        average=_average(sampled.part("correct")) if sampled else None,
        sampled_rates=_rates(sampled) if sampled else None,
        passed=passed,
        majority=majority,
        samples=tuple(shown),
        correct=tuple(correct.tolist()),
        always=always,
        subjects=_by_meta(problems, correct, "subject"),
        parts=_parts(greedy, leave_out=PARTS if instructions else ()),
        outcomes=tuple(_outcome(task, greedy, sampled, i) for i, task in enumerate(problems)),
        followed=instructions,
    )


def powers_of_two(k: int) -> list[int]:
    """1, 2, 4, … up to k, and k itself.

    >>> powers_of_two(6)
    [1, 2, 4, 6]
    """
    return sorted({2**i for i in range(k.bit_length())} | {k}) if k > 0 else []


def proportion(values: Flags) -> Interval:
    """The mean of the judged (not NaN) among [P], by bootstrap; by Wilson where all are 0 or 1 and it has no width."""
    judged = values[~np.isnan(values)]
    if judged.size == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    if judged.min() == judged.max() and judged.min() in (0.0, 1.0):
        return wilson_interval(int(judged.sum()), judged.size)
    return bootstrap_interval(judged)


def _rates(sheet: Sheet) -> Rates:
    attempts = sheet.all()
    kept = sheet.part("format")
    known = kept[~np.isnan(kept)]
    causes = Counter((a.error or "").partition(":")[0][:60] for a in attempts if a.state == "invalid")
    return Rates(
        format=float(known.mean()) if known.size else float("nan"),
        truncated=float(np.mean([a.stop == "length" for a in attempts])),
        length=float(np.mean([a.tokens for a in attempts])),
        invalid=causes.total(),
        skipped=sum(a.state == "skipped" for a in attempts),
        causes=dict(sorted(causes.items())),
    )


def _parts(sheet: Sheet, leave_out: Sequence[str] = ()) -> dict[str, float]:
    """The mean of each part but `correct`, `format` and those left out over the judged attempts."""
    judged = [a for a in sheet.all() if a.state == "judged"]
    names = dict.fromkeys(name for a in judged for name in a.parts if name not in ("correct", "format", *leave_out))
    values = {name: np.array([a.part(name) for a in judged]) for name in names}
    return {name: float(np.nanmean(v)) for name, v in values.items() if not np.isnan(v).all()}


def _average(correct: Flags) -> Interval:
    """The mean over problems of each problem's share of right samples [P, k]."""
    judged = ~np.isnan(correct)
    some = judged.any(axis=1)
    return proportion(np.nansum(correct[some], axis=1) / judged[some].sum(axis=1))


def _by_number(sheet: Sheet | None, numbers: Sequence[int], *, votes: bool) -> tuple[dict[int, Interval], ...]:
    """pass@j, pass^j and maj@j over the problems with at least j judged samples.

    votes: whether there are answers to count; without them there is no maj@j.
    """
    passed: dict[int, Interval] = {}
    always: dict[int, Interval] = {}
    majority: dict[int, Interval] = {}
    if sheet is None:
        return passed, always, majority
    correct = sheet.part("correct")
    judged = ~np.isnan(correct)
    for j in numbers:
        enough = np.flatnonzero(judged.sum(axis=1) >= j)
        if enough.size == 0:
            continue
        n, right = judged[enough].sum(axis=1), np.nansum(correct[enough], axis=1)
        passed[j] = proportion(pass_at_k(n, right, j))
        always[j] = proportion(pass_hat_k(n, right, j))
        if votes:
            majority[j] = proportion(np.array([_majority(sheet.rows[p], j) for p in enough]))
    return passed, always, majority


def _majority(row: Sequence[Attempt], j: int) -> float:
    judged = [a for a in row if a.state == "judged"]
    return maj_at_k([a.vote for a in judged], [a.part("correct") == 1 for a in judged], j)


def _outcome(task: Task, greedy: Sheet, sampled: Sheet | None, place: int) -> Outcome:
    judged = [a for a in sampled.rows[place] if a.state == "judged"] if sampled else []
    right = [a.part("correct") == 1 for a in judged]
    answer, votes = most_voted([a.vote for a in judged], right)
    agreement = votes / len(judged) if judged else float("nan")
    return Outcome(task.id, greedy.rows[place][0].part("correct"), sum(right), len(judged), answer, agreement)


def _by_meta(problems: Sequence[Task], correct: Flags, key: str) -> dict[str, Interval]:
    values = [str(task.meta[key]) if key in task.meta else "" for task in problems]
    names = sorted(set(values) - {""}, key=lambda name: (len(name), name) if key == "level" else (0, name))
    return {name: proportion(correct[[value == name for value in values]]) for name in names}


def _kept(
    problems: Sequence[Task], keep: int, greedy: Sheet, sampled: Sheet | None
) -> Iterable[tuple[Task, tuple[Attempt, ...]]]:
    for place, task in enumerate(problems[:keep]):
        yield task, (*greedy.rows[place], *(sampled.rows[place] if sampled else ()))


def _named(prefix: str, rates: Rates) -> Metrics:
    return {
        f"{prefix}format": rates.format,
        f"{prefix}truncated": rates.truncated,
        f"{prefix}length": rates.length,
        f"{prefix}invalid": float(rates.invalid),
        f"{prefix}skipped": float(rates.skipped),
    }


def _rate_rows(mode: str, rates: Rates) -> list[tuple[str, str]]:
    causes = "".join(f"; {count} x {cause}" for cause, count in rates.causes.items())
    skipped = [(f"skipped by the verifier, {mode}", str(rates.skipped))] if rates.skipped else []
    kept = [] if np.isnan(rates.format) else [(f"format kept, {mode}", f"{100 * rates.format:.1f} %")]
    return [
        *kept,
        (f"truncated, {mode}", f"{100 * rates.truncated:.1f} %"),
        (f"mean length, {mode}", f"{rates.length:.1f} tokens"),
        (f"could not be judged, {mode}", f"{rates.invalid}{causes}"),
        *skipped,
    ]
