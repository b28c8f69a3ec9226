"""One call of the engine: what is to be done, and what came out. Runners take the one and give the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from onepolicy.errors import ConfigError
from onepolicy.types import Completion, Sampling


@dataclass(frozen=True)
class Plan:
    """One call's work, checked.

    prompts, seeds, limits (most new tokens): one per prompt. n: samples per prompt. slots: sequences in flight at
    most. cache_tokens: cached positions at most, or None.
    """

    prompts: list[list[int]]
    n: int
    sampling: Sampling
    seeds: Sequence[int]
    limits: list[int]
    stop_tokens: tuple[int, ...]
    decode: Callable[[Sequence[int]], str] | None
    vocab: int
    slots: int
    cache_tokens: int | None

    def ends(self, tokens: np.ndarray) -> bool:
        """Whether the last of `tokens` completed one of the stop strings, given that none before it did.

        Only as many last tokens are decoded as give text longer than the longest stop string, with some to spare: the
        first characters of a cut text may be wrong (half of a multi-byte character).
        """
        assert self.decode is not None
        needed = max(map(len, self.sampling.stop)) + 8
        window = needed
        while True:
            text = self.decode(tokens[-window:].tolist())
            if len(text) >= needed or window >= len(tokens):
                return any(stop in text for stop in self.sampling.stop)
            window *= 2


def check_room(plan: Plan, per_row: int, spare: int = 0) -> int:
    """Sequences that may run at once when each takes `per_row` cached positions and `spare` are taken besides.

    Raises ConfigError when not even one fits into plan.cache_tokens.
    """
    wanted = min(plan.slots, len(plan.prompts) * plan.n)
    if plan.cache_tokens is None:
        return wanted
    rows = min(wanted, (plan.cache_tokens - spare) // per_row)
    if rows < 1:
        raise ConfigError(
            f"cache_tokens is {plan.cache_tokens}; the longest prompt and max_tokens need {per_row + spare} cached "
            f"positions. Set cache_tokens >= {per_row + spare}, or lower max_tokens."
        )
    return rows


@dataclass
class Done:
    """What came out: per sample (prompt-major) tokens, log-probabilities, their count and whether a stop ended it.

    The numbers are those of `engine.EngineStats`.
    """

    tokens: np.ndarray
    logp: np.ndarray
    count: np.ndarray
    stopped: np.ndarray
    steps: int = 0
    row_steps: int = 0
    occupancy: float = 0.0
    rows: int = 0
    prefill_tokens: int = 0
    prefill_saved: int = 0
    cache_tokens: int = 0
    cache_bytes: int = 0

    @staticmethod
    def empty(samples: int, longest: int) -> Done:
        """Nothing drawn yet."""
        return Done(
            tokens=np.zeros((samples, longest), dtype=np.int64),
            logp=np.zeros((samples, longest), dtype=np.float32),
            count=np.zeros(samples, dtype=np.int64),
            stopped=np.zeros(samples, dtype=bool),
        )

    def completions(self, n: int, version: int) -> list[list[Completion]]:
        """The samples as completions, n to a list."""
        flat = [
            Completion(
                tuple(self.tokens[sample, :count].tolist()),
                tuple(self.logp[sample, :count].tolist()),
                "stop" if stopped else "length",
                version,
            )
            for sample, (count, stopped) in enumerate(zip(self.count.tolist(), self.stopped.tolist(), strict=True))
        ]
        return [flat[start : start + n] for start in range(0, len(flat), n)]


class Runner(Protocol):
    """Runs plans on a model: the compiled one, or one that steps through torch."""

    path: str

    def run(self, plan: Plan) -> Done: ...

    def refresh(self) -> None:
        """Takes over changed weights of the model."""
        ...

    def release(self) -> None:
        """Frees the caches; the next run allocates them anew."""
        ...
