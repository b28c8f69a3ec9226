"""How much of a text is said more than once: repeated n-grams, loops, and the penalty for them.

Tokens here are words, marks, and single characters of scripts without blanks; no tokenizer is needed, so the figures of
two models compare.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from onepolicy.errors import ConfigError, nearest
from onepolicy.tasks.form import Side, check_side, side_of
from onepolicy.types import Score, Task

MAX_TOKENS = 50_000
"""Tokens of a text that are looked at; the first ones."""

MAX_PERIOD = 200
"""The longest loop that is looked for, tokens."""

_TOKEN = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|\w+|[^\w\s]")


def tokens_of(text: str) -> list[str]:
    """Words, marks, and characters of scripts without blanks, in lower case.

    >>> tokens_of("Wait, wait: 好的")
    ['wait', ',', 'wait', ':', '好', '的']
    """
    return [found[0] for _, found in zip(range(MAX_TOKENS), _TOKEN.finditer(text.lower()), strict=False)]


def duplicate_share(tokens: Sequence[Hashable], n: int) -> float:
    """1 - different n-grams / n-grams, in [0, 1); 0 for fewer than n + 1 tokens.

    >>> duplicate_share("abcabc", 3)
    0.25
    """
    count = len(tokens) - n + 1
    return 1 - len({tuple(tokens[i : i + n]) for i in range(count)}) / count if count > 1 else 0.0


def covered_share(tokens: Sequence[Hashable], n: int) -> float:
    """The share of tokens that lie in an n-gram which has occurred before, in [0, 1).

    Source: Demystifying Long Chain-of-Thought (arXiv 2502.03373), appendix, the n-gram repetition penalty: each token
    of a repeated n-gram gets the penalty; here the mean over the tokens.

    >>> covered_share("abcabc", 3)
    0.5
    """
    seen: set[tuple[Hashable, ...]] = set()
    covered, marked = 0, 0
    for i in range(len(tokens) - n + 1):
        gram = tuple(tokens[i : i + n])
        if gram in seen:
            covered += i + n - max(i, marked)
            marked = i + n
        seen.add(gram)
    return covered / len(tokens) if tokens else 0.0


def longest_loop(tokens: Sequence[Hashable]) -> tuple[int, int]:
    """(tokens, period) of the longest stretch that repeats a block of at most MAX_PERIOD tokens at least once.

    The block may be cut off at the end; (0, 0) where nothing follows itself. Of equal stretches, the shortest block.

    >>> longest_loop("xabababay"), longest_loop("abc")
    ((7, 2), (0, 0))
    """
    numbers: dict[Hashable, int] = {}
    ids = np.array([numbers.setdefault(token, len(numbers)) for token in tokens], dtype=np.int64)
    best, period = 0, 0
    for p in range(1, min(MAX_PERIOD, len(ids) // 2) + 1):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], (ids[p:] == ids[:-p]).astype(np.int8), [0]])))
        run = int((edges[1::2] - edges[0::2]).max()) if len(edges) else 0
        if run >= p and run + p > best:
            best, period = run + p, p
    return best, period


@dataclass(frozen=True)
class RepetitionPenalty:
    """A penalty, 0 or below, for saying things again; to be added to a reward.

    n: tokens of an n-gram. penalty: what a text made of nothing but repetition gets. measure: "covered" counts tokens
    in repeated n-grams (arXiv 2502.03373), "duplicates" n-grams that are not new. free: a share that costs nothing.
    Parts: `repetition_covered`, `repetition_duplicates`, `repetition_loop` (the longest loop as a share of the tokens).
    A text of fewer than 2 n tokens is skipped.

    Raises: ConfigError for n below 1, a penalty above 0, or a free share outside [0, 1).
    """

    n: int = 20
    penalty: float = -1.0
    measure: Literal["covered", "duplicates"] = "covered"
    free: float = 0.0
    side: Side = "text"

    def __post_init__(self) -> None:
        check_side(self.side)
        if self.measure not in ("covered", "duplicates"):
            raise ConfigError(
                f"Unknown measure {self.measure!r}. {nearest(str(self.measure), ('covered', 'duplicates'))}"
            )
        if self.n < 1 or not (math.isfinite(self.penalty) and self.penalty <= 0) or not 0 <= self.free < 1:
            raise ConfigError(
                f"n {self.n}, penalty {self.penalty}, free {self.free}; n >= 1, penalty <= 0, free in [0, 1)."
            )

    def __call__(self, task: Task, text: str) -> Score:
        tokens = tokens_of(side_of(text, self.side))
        if len(tokens) < 2 * self.n:
            return Score(None, {"repetition_covered": None, "repetition_duplicates": None, "repetition_loop": None})
        covered, duplicates = covered_share(tokens, self.n), duplicate_share(tokens, self.n)
        share = covered if self.measure == "covered" else duplicates
        paid = max(0.0, share - self.free) / (1 - self.free)
        parts = {
            "repetition_covered": covered,
            "repetition_duplicates": duplicates,
            "repetition_loop": longest_loop(tokens)[0] / len(tokens),
        }
        return Score(self.penalty * paid + 0.0, parts)
