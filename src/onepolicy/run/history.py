"""What the doctor reads of a run, and what a finding is."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from onepolicy.run.header import read_header
from onepolicy.run.journal import read_lines
from onepolicy.run.metrics import Series, read_series
from onepolicy.run.process import Status, read_status

RECENT = 20
"""Logged values that count as "now"."""
ENOUGH = 3
"""Logged values below which a rate is not judged."""

_SEED = re.compile(r"seed\d+/")


@dataclass(frozen=True)
class Finding:
    """One thing the doctor noticed.

    severity: "problem" (it ruins the run), "warning" (look at it), "info", "good". name: short, the same for the same
    thing. words: what was measured, with numbers. advice: what to do; "" for nothing. steps: first and last it is
    about, or None.
    """

    severity: Literal["problem", "warning", "info", "good"]
    name: str
    words: str
    advice: str = ""
    steps: tuple[int, int] | None = None


@dataclass(frozen=True)
class Window:
    """Consecutive finite values of one metric."""

    steps: list[int]
    values: list[float]

    @property
    def mean(self) -> float:
        """Their mean."""
        return math.fsum(self.values) / len(self.values)

    @property
    def span(self) -> tuple[int, int]:
        """Their first and last step."""
        return self.steps[0], self.steps[-1]


@dataclass(frozen=True)
class History:
    """A run as its files tell it.

    header: config.json. metrics, timing: by key. status: who runs it, None when unknown.
    """

    directory: Path
    header: Mapping[str, Any]
    metrics: Mapping[str, Series]
    timing: Mapping[str, Series]
    status: Status | None

    @property
    def config(self) -> Mapping[str, Any]:
        """The recipe's configuration."""
        found: Mapping[str, Any] = self.header["config"]
        return found

    @property
    def last_step(self) -> int:
        """The last step that was logged; 0 when none was."""
        return max((series.steps[-1] for series in self.metrics.values()), default=0)

    @cached_property
    def samples(self) -> list[dict[str, Any]]:
        """The records of samples.jsonl."""
        return list(read_lines(self.directory / "samples.jsonl"))

    def by_seed(self) -> dict[str, History]:
        """The run apart for each seed trained in it, under "seed<n>"; {"": itself} when it trained one."""
        seeds = sorted({key.partition("/")[0] for key in self.metrics if _SEED.match(key)}, key=lambda s: int(s[4:]))
        found = {}
        for seed in seeds:
            own = {key.partition("/")[2]: series for key, series in self.metrics.items() if key.startswith(f"{seed}/")}
            found[seed] = replace(self, metrics=own)
        return found or {"": self}

    def finite(self, key: str) -> Window | None:
        """All finite values of a metric; None when there are fewer than ENOUGH."""
        series = self.metrics.get(key, Series([], []))
        pairs = [(step, value) for step, value in zip(series.steps, series.values) if math.isfinite(value)]
        return Window([p[0] for p in pairs], [p[1] for p in pairs]) if len(pairs) >= ENOUGH else None

    def recent(self, key: str) -> Window | None:
        """The last RECENT finite values of a metric; None when there are fewer than ENOUGH."""
        found = self.finite(key)
        return Window(found.steps[-RECENT:], found.values[-RECENT:]) if found else None

    def start(self, key: str) -> Window | None:
        """The first few finite values of a metric (a tenth of them, ENOUGH to RECENT); None when there are too few."""
        found = self.finite(key)
        if found is None:
            return None
        n = max(ENOUGH, min(RECENT, len(found.values) // 10))
        return Window(found.steps[:n], found.values[:n])


def read_history(directory: Path) -> History:
    """Everything the doctor looks at. Raises: CheckpointError when it is no run or a file is damaged."""
    return History(
        directory,
        read_header(directory),
        read_series(directory / "metrics.jsonl"),
        read_series(directory / "timing.jsonl"),
        read_status(directory),
    )


def percent(share: float) -> str:
    """A share as text.

    >>> percent(0.2345), percent(0.0123)
    ('23 %', '1.2 %')
    """
    return f"{100 * share:.0f} %" if abs(share) >= 0.1 else f"{100 * share:.2g} %"


def p_value(p: float) -> str:
    """A p-value as text.

    >>> p_value(0.0312), p_value(1e-9)
    ('p = 0.031', 'p < 0.001')
    """
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def most_common(words: Sequence[str]) -> str:
    """The most frequent of some texts, shortened."""
    return max(set(words), key=lambda word: (words.count(word), word))[:120] if words else ""
