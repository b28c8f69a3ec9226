"""How many problems of a task set a policy gets right, greedily and by sampling, with intervals over problems.

Right is what `Score.parts["correct"]` says: the same verifier that trains. What could not be judged is left out and
counted. Rendering a task to tokens and decoding them are passed in, so any `Generator` can be evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onepolicy.errors import ConfigError
from onepolicy.evaluation.stats import Interval, bootstrap_interval, maj_at_k, pass_at_k, wilson_interval
from onepolicy.run.seeding import derive_seed
from onepolicy.tasks.expressions import number_text, read_number
from onepolicy.tasks.rewards import TAGGED, AnswerVerifier
from onepolicy.types import Completion, Generator, Metrics, Sampling, Score, Task

Render = Callable[[Task], list[int]]
Decode = Callable[[Sequence[int]], str]
AnswerOf = Callable[[Task, str], str | None]
Flags = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Rates:
    """What was seen besides right and wrong, over all completions of one mode.

    format: share that kept the answer format. truncated: share cut off at max_tokens. length: mean tokens.
    invalid: completions that could not be judged (left out of every other accuracy).
    """

    format: float
    truncated: float
    length: float
    invalid: int


@dataclass(frozen=True)
class AccuracyReport:
    """The result of `evaluate_tasks`; every Interval is over problems.

    greedy: accuracy at temperature 0, `greedy_rates` beside it. levels: the same for each `meta["level"]`.
    average: mean accuracy of a sample (avg@k). passed, majority: pass@j and maj@j by j. samples: transcripts.
    correct: each problem's greedy verdict, 1, 0 or NaN, in task order, for paired comparisons.
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

    def metrics(self) -> Metrics:
        """Numbers to log: shares in [0, 1], lengths in tokens, counts."""
        found = {
            "eval/accuracy": self.greedy.value,
            "eval/accuracy_low": self.greedy.low,
            "eval/accuracy_high": self.greedy.high,
            **_named("eval/", self.greedy_rates),
        }
        if self.average is not None and self.sampled_rates is not None:
            found[f"eval/avg@{self.k}"] = self.average.value
            found |= {f"eval/pass@{j}": interval.value for j, interval in self.passed.items()}
            found |= {f"eval/maj@{j}": interval.value for j, interval in self.majority.items()}
            found |= _named("eval/sampled_", self.sampled_rates)
        return found

    def table(self) -> str:
        """The report as text, one line for each number, 95 % intervals over problems."""
        rows = [(f"accuracy, greedy, {self.problems} problems", self.greedy.percent())]
        rows += [(f"  level {name}", interval.percent()) for name, interval in self.levels.items()]
        rows += _rate_rows("greedy", self.greedy_rates)
        if self.average is not None and self.sampled_rates is not None:
            rows += [(f"avg@{self.k}", self.average.percent())]
            rows += [(f"pass@{j}", interval.percent()) for j, interval in self.passed.items()]
            rows += [(f"maj@{j}", interval.percent()) for j, interval in self.majority.items()]
            rows += _rate_rows("sampled", self.sampled_rates)
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


@dataclass(frozen=True)
class _Judged:
    """Completions of one mode with their verdicts, each [P][n]."""

    completions: list[list[Completion]]
    texts: list[list[str]]
    scores: list[list[Score]]

    def part(self, name: str) -> Flags:
        """Score.parts[name] [P, n], NaN where it could not be judged."""
        return np.array([[_part(score, name) for score in row] for row in self.scores], dtype=np.float64)

    def rates(self) -> Rates:
        ends = [c.stop == "length" for row in self.completions for c in row]
        lengths = [len(c.tokens) for row in self.completions for c in row]
        kept = self.part("format")
        invalid = sum(score.value is None for row in self.scores for score in row)
        known = kept[~np.isnan(kept)]
        format_rate = float(known.mean()) if known.size else float("nan")
        return Rates(format_rate, float(np.mean(ends)), float(np.mean(lengths)), invalid)


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
) -> AccuracyReport:
    """Greedy accuracy and, for k > 0, avg@k, pass@j and maj@j for j = 1, 2, 4, … up to k and k itself.

    render(task): the prompt's token ids. decode(tokens): the completion's text, its end token removed.
    sampling: of the k samples; the greedy run takes its max_tokens and stops. seed: each problem's sampling seed
    derives from it and the task's id, so order and batching change nothing. keep: problems whose transcripts are kept.
    answer_of: (task, text) -> the answer as it votes, None for no vote; the verifier's own answer format if not given.

    Raises: ConfigError for no tasks, k samples at temperature 0, or a verifier without a part `correct`.
    """
    problems = list(tasks)
    if not problems:
        raise ConfigError("There are no tasks to evaluate; give at least one.")
    if k > 0 and sampling.temperature == 0:
        raise ConfigError(f"k is {k} at temperature 0: all samples would be equal. Set temperature > 0, or k to 0.")
    prompts = [render(task) for task in problems]
    seeds = [derive_seed(seed, "evaluate", task.id) for task in problems]

    def judged(n: int, how: Sampling) -> _Judged:
        completions = generator.generate(prompts, n, how, seeds)
        texts = [[decode(c.tokens) for c in row] for row in completions]
        scores = [[task.verifier(task, text) for text in row] for task, row in zip(problems, texts, strict=True)]
        return _Judged(completions, texts, scores)

    greedy = judged(1, replace(sampling, temperature=0.0, top_k=0, top_p=1.0))
    sampled = judged(k, sampling) if k > 0 else None
    correct = greedy.part("correct")[:, 0]
    passed, majority = _by_power(problems, sampled, answer_of or answer_text)
    return AccuracyReport(
        problems=len(problems),
        k=k,
        greedy=_proportion(correct),
        greedy_rates=greedy.rates(),
        levels=_by_level(problems, correct),
        average=_average(sampled.part("correct")) if sampled else None,
        sampled_rates=sampled.rates() if sampled else None,
        passed=passed,
        majority=majority,
        samples=tuple(_transcripts(problems[:keep], greedy, sampled)),
        correct=tuple(correct.tolist()),
    )


def answer_text(task: Task, text: str) -> str | None:
    """The answer a completion votes for, in the format its verifier reads; equal numbers are written alike."""
    form = task.verifier.form if isinstance(task.verifier, AnswerVerifier) else TAGGED
    answer = form.extract(text)
    number = read_number(answer) if answer is not None else None
    return answer if number is None else number_text(number)


def powers_of_two(k: int) -> list[int]:
    """1, 2, 4, … up to k, and k itself.

    >>> powers_of_two(6)
    [1, 2, 4, 6]
    """
    return sorted({2**i for i in range(k.bit_length())} | {k}) if k > 0 else []


def _part(score: Score, name: str) -> float:
    if score.value is None:
        return float("nan")
    part = score.parts.get(name)
    if part is None and name == "correct":
        raise ConfigError(
            "A verifier's Score has no part 'correct'; accuracy counts it. Add it to the Score's parts, as 0 or 1."
        )
    return float("nan") if part is None else part


def _proportion(values: Flags) -> Interval:
    """The mean of the judged among [P], by bootstrap; by Wilson where all are equal and a bootstrap has no width."""
    judged = values[~np.isnan(values)]
    if judged.size == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    if judged.min() == judged.max() and judged.min() in (0.0, 1.0):
        return wilson_interval(int(judged.sum()), judged.size)
    return bootstrap_interval(judged)


def _average(correct: Flags) -> Interval:
    """The mean over problems of each problem's share of right samples [P, k]."""
    judged = ~np.isnan(correct)
    some = judged.any(axis=1)
    return _proportion(np.nansum(correct[some], axis=1) / judged[some].sum(axis=1))


def _by_power(
    problems: Sequence[Task], sampled: _Judged | None, answer_of: AnswerOf
) -> tuple[dict[int, Interval], dict[int, Interval]]:
    """pass@j and maj@j over the problems with at least j judged samples."""
    passed: dict[int, Interval] = {}
    majority: dict[int, Interval] = {}
    if sampled is None:
        return passed, majority
    correct = sampled.part("correct")
    judged = ~np.isnan(correct)
    votes = [[answer_of(task, text) for text in row] for task, row in zip(problems, sampled.texts, strict=True)]
    for j in powers_of_two(correct.shape[1]):
        enough = np.flatnonzero(judged.sum(axis=1) >= j)
        if enough.size == 0:
            continue
        passed[j] = _proportion(pass_at_k(judged[enough].sum(axis=1), np.nansum(correct[enough], axis=1), j))
        won = [_majority(votes[p], correct[p], j) for p in enough]
        majority[j] = _proportion(np.array(won))
    return passed, majority


def _majority(votes: list[str | None], correct: Flags, j: int) -> float:
    judged = np.flatnonzero(~np.isnan(correct))
    return maj_at_k([votes[i] for i in judged], [correct[i] == 1 for i in judged], j)


def _by_level(problems: Sequence[Task], correct: Flags) -> dict[str, Interval]:
    levels = [str(task.meta["level"]) if "level" in task.meta else "" for task in problems]
    names = sorted(set(levels) - {""}, key=lambda name: (len(name), name))
    return {name: _proportion(correct[[level == name for level in levels]]) for name in names}


def _transcripts(problems: Sequence[Task], greedy: _Judged, sampled: _Judged | None) -> Iterable[dict[str, Any]]:
    for p, task in enumerate(problems):
        for mode, judged in (("greedy", greedy), ("sampled", sampled)):
            for i, text in enumerate(judged.texts[p] if judged else ()):
                assert judged is not None
                score, completion = judged.scores[p][i], judged.completions[p][i]
                yield {
                    "task": task.id,
                    "prompt": task.messages[-1].content,
                    "gold": task.answer,
                    "mode": mode,
                    "sample": i,
                    "text": text,
                    "correct": score.parts.get("correct"),
                    "format": score.parts.get("format"),
                    "error": score.error,
                    "stop": completion.stop,
                    "tokens": len(completion.tokens),
                }


def _named(prefix: str, rates: Rates) -> Metrics:
    return {
        f"{prefix}format": rates.format,
        f"{prefix}truncated": rates.truncated,
        f"{prefix}length": rates.length,
        f"{prefix}invalid": float(rates.invalid),
    }


def _rate_rows(mode: str, rates: Rates) -> list[tuple[str, str]]:
    return [
        (f"format kept, {mode}", f"{100 * rates.format:.1f} %"),
        (f"truncated, {mode}", f"{100 * rates.truncated:.1f} %"),
        (f"mean length, {mode}", f"{rates.length:.1f} tokens"),
        (f"could not be judged, {mode}", str(rates.invalid)),
    ]
