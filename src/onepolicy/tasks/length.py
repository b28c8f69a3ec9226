"""How long a completion is, and how much of it is said twice: rewards and penalties on both.

A verifier sees text: lengths are in characters or words, or in tokens where the task's meta has `completion_tokens` or
a counting function is given. The cosine reward wraps a verifier of correctness; L1-Max is multiplied with one.
Sources: DAPO (arXiv 2503.14476), L1 (arXiv 2503.04697), Demystifying Long Chain-of-Thought (arXiv 2502.03373).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from onepolicy.errors import ConfigError, nearest
from onepolicy.tasks.form import Side, check_side, side_of
from onepolicy.tasks.instructions_text import plain_words
from onepolicy.types import Score, Task, Verifier

Unit = Literal["characters", "words", "tokens"]
UNITS: tuple[Unit, ...] = ("characters", "words", "tokens")

TOKENS = "completion_tokens"
"""The key of a task's meta under which recipes put the completion's number of tokens, its stop token included."""


def with_tokens(task: Task, count: int) -> Task:
    """The task as the verifiers of one completion see it: with that completion's number of tokens in its meta.

    A task whose meta has such a key already keeps it.
    """
    return task if TOKENS in task.meta else replace(task, meta={**task.meta, TOKENS: count})


@dataclass(frozen=True)
class Ruler:
    """Measures a completion. unit: of length. side: which part. count: text -> tokens, for unit "tokens"; a function
    that can be pickled.

    Raises: ConfigError for an unknown unit or side, or a count with another unit than tokens.
    """

    unit: Unit = "words"
    side: Side = "text"
    count: Callable[[str], int] | None = None

    def __post_init__(self) -> None:
        check_side(self.side)
        if self.unit not in UNITS:
            raise ConfigError(f"Unknown unit of length {self.unit!r}. {nearest(str(self.unit), UNITS)}")
        if self.count is not None and self.unit != "tokens":
            raise ConfigError(f"a counting function with unit {self.unit!r}; it counts tokens: set unit='tokens'.")

    def length(self, task: Task, text: str) -> int | None:
        """The length, or None where it is to be in tokens and nobody counts them."""
        judged = side_of(text, self.side)
        if self.unit == "characters":
            return len(judged)
        if self.unit == "words":
            return len(plain_words(judged))
        if self.count is not None:
            return self.count(judged)
        given = task.meta.get(TOKENS) if self.side == "text" else None
        return given if isinstance(given, int) else None

    def score(self, task: Task, text: str, value: Callable[[int], float]) -> Score:
        """The value at a completion's length, with the part `length`; invalid where the length is unknown."""
        length = self.length(task, text)
        if length is None:
            return Score(None, {"length": None}, f"other: {self._unknown()}")
        return Score(value(length), {"length": float(length)})

    def _unknown(self) -> str:
        """Why there is no length, and what to do."""
        if self.side != "text":
            return (
                f"no length in tokens: only whole completions are counted, not their {self.side}. Give Ruler a "
                "counting function (count=), or measure side='text'."
            )
        return (
            f"no length in tokens: the task's meta has no whole number {TOKENS!r}. Training and evaluation put it "
            "there; alone, put it there yourself, or give Ruler a counting function (count=)."
        )


WORDS = Ruler()


def soft_overlong(length: int, limit: int, buffer: int) -> float:
    """DAPO's soft overlong punishment, in [-1, 0].

    0 up to limit - buffer; ((limit - buffer) - length) / buffer from there to the limit; -1 beyond.
    Source: DAPO, arXiv 2503.14476, equation 13 (L_max = limit, L_cache = buffer).

    >>> [soft_overlong(length, 20, 4) for length in (16, 17, 20, 21)]
    [0.0, -0.25, -1.0, -1.0]
    """
    free = limit - buffer
    if length <= free:
        return 0.0
    return (free - length) / buffer if length <= limit else -1.0


@dataclass(frozen=True)
class OverlongPenalty:
    """`soft_overlong` of a completion, to be added to a reward. limit, buffer: in the ruler's unit.

    Raises: ConfigError unless 0 < buffer <= limit.
    """

    limit: int
    buffer: int
    ruler: Ruler = WORDS

    def __post_init__(self) -> None:
        if not 0 < self.buffer <= self.limit:
            raise ConfigError(f"buffer {self.buffer} of a limit of {self.limit}; it must be in 1 to the limit.")

    def __call__(self, task: Task, text: str) -> Score:
        return self.ruler.score(task, text, lambda length: soft_overlong(length, self.limit, self.buffer))


@dataclass(frozen=True)
class LengthBudget:
    """1 for a length from `low` to `high`, falling to 0 over `slack` units on either side (0: at once).

    Raises: ConfigError unless 0 <= low <= high and slack >= 0.
    """

    high: int
    low: int = 1
    slack: int = 0
    ruler: Ruler = WORDS

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high or self.slack < 0:
            raise ConfigError(
                f"length from {self.low} to {self.high}, slack {self.slack}; 0 <= low <= high, slack >= 0."
            )

    def __call__(self, task: Task, text: str) -> Score:
        return self.ruler.score(task, text, self.value)

    def value(self, length: int) -> float:
        """The reward of a length, in [0, 1].

        >>> [LengthBudget(10, 5, slack=4).value(length) for length in (5, 10, 11, 13, 14, 3)]
        [1.0, 1.0, 0.75, 0.25, 0.0, 0.5]
        """
        off = max(self.low - length, length - self.high, 0)
        return 1.0 if off == 0 else max(0.0, 1.0 - off / self.slack) if self.slack else 0.0


@dataclass(frozen=True)
class LengthTarget:
    """L1's rewards for a length that the prompt asks for.

    kind "exact": -alpha |target - length|, to be added to the reward of correctness (equation 1);
    kind "max": clip(alpha (target - length) + delta, 0, 1), to be multiplied with it (equation 2).
    target: in the ruler's unit; None takes the task's meta["target_length"], invalid where there is none.
    Source: L1, Aggarwal and Welleck 2025 (arXiv 2503.04697), alpha 0.0003 and delta 0.5 for tokens.

    Raises: ConfigError for an unknown kind, a target below 1 or an alpha that is not positive.
    """

    target: int | None = None
    kind: Literal["exact", "max"] = "exact"
    alpha: float = 0.0003
    delta: float = 0.5
    ruler: Ruler = WORDS

    def __post_init__(self) -> None:
        if self.kind not in ("exact", "max"):
            raise ConfigError(f"Unknown kind of target {self.kind!r}. {nearest(str(self.kind), ('exact', 'max'))}")
        if self.target is not None and self.target < 1:
            raise ConfigError(f"target length {self.target}; it must be at least 1.")
        if not (math.isfinite(self.alpha) and self.alpha > 0 and math.isfinite(self.delta)):
            raise ConfigError(f"alpha {self.alpha}, delta {self.delta}; alpha is positive, both are finite.")

    def __call__(self, task: Task, text: str) -> Score:
        target = self.target if self.target is not None else task.meta.get("target_length")
        if not isinstance(target, int) or isinstance(target, bool) or target < 1:
            return Score(None, {"length": None}, f"gold: target length {str(target)[:40]!r}; it must be at least 1.")
        return self.ruler.score(task, text, lambda length: self.value(length, target))

    def value(self, length: int, target: int) -> float:
        """The reward of a length."""
        if self.kind == "exact":
            return -self.alpha * abs(target - length)
        return min(1.0, max(0.0, self.alpha * (target - length) + self.delta))


def cosine(length: int, limit: int, start: float, end: float) -> float:
    """A half cosine from `start` at length 0 to `end` at the limit.

    end + (start - end) (1 + cos(pi length / limit)) / 2. Source: arXiv 2502.03373, section 4.1.

    >>> [round(cosine(length, 100, 2.0, 1.0), 3) for length in (0, 50, 100)]
    [2.0, 1.5, 1.0]
    """
    return end + (start - end) * (1 + math.cos(math.pi * length / limit)) / 2


@dataclass(frozen=True)
class CosineLength:
    """A reward of correctness shaped by length: the longer, the less right answers are worth and wrong ones cost.

    inner: the verifier whose part `correct` says which (1 is right). right, wrong: reward at length 0 and at the limit.
    exceeded: reward at the limit and beyond. Parts: the inner ones and `length`; invalid and skipped stay so.
    Source: Demystifying Long Chain-of-Thought, Yeo et al. 2025 (arXiv 2502.03373), section 4.1; the defaults are
    for rewards between -1 and 1.

    Raises: ConfigError for a limit below 1.
    """

    inner: Verifier
    limit: int
    right: tuple[float, float] = (1.0, 0.5)
    wrong: tuple[float, float] = (-1.0, -0.5)
    exceeded: float = -1.0
    ruler: Ruler = WORDS

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ConfigError(f"limit {self.limit}; it must be at least 1.")

    def __call__(self, task: Task, text: str) -> Score:
        inner = self.inner(task, text)
        if inner.value is None:
            return inner
        ends = self.right if inner.parts.get("correct") == 1.0 else self.wrong
        shaped = self.ruler.score(
            task,
            text,
            lambda length: self.exceeded if length >= self.limit else cosine(length, self.limit, *ends),
        )
        return Score(shaped.value, {**inner.parts, **shaped.parts}, shaped.error)
