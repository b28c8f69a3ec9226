"""Verifiers called safely: whatever one does, a completion gets a Score in one of the three states.

In: one verdict (`verdict`), many in this process (`verify_each`), how verdicts are counted (`Tally`). Verifiers that
can hang or die are called in worker processes: pool.py.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from onepolicy.types import CAUSES, Metrics, Score, Task

Scorer = Callable[[Sequence[tuple[Task, str]]], list[Score]]
"""Judges (task, completion text) pairs; one Score for each, in order."""

MAX_ERROR = 500
"""Characters of an error at most."""


def verdict(task: Task, text: str) -> Score:
    """The Score of the task's own verifier; an invalid one where it raises or returns anything but a finite Score.

    An exception is a failure to judge, cause "crash" or "memory"; a value that is no finite number has cause "reward".
    """
    try:
        score = task.verifier(task, text)
    except MemoryError:
        return invalid("memory", "the verifier ran out of memory")
    except Exception as error:  # noqa: BLE001 - a verifier may raise anything; it becomes data
        return invalid("crash", f"the verifier raised {type(error).__name__}: {error}")
    if not isinstance(score, Score):
        return invalid("reward", f"the verifier returned {type(score).__name__} {str(score)[:60]!r}, not a Score")
    if score.value is not None and not _finite(score.value):
        return Score(None, score.parts, f"reward: the verifier's value is {score.value!r}; it must be a finite number")
    return score


@runtime_checkable
class ManyVerifier(Protocol):
    """A verifier that judges many completions faster together than one by one, as that of programs does."""

    def many(self, pairs: Sequence[tuple[Task, str]]) -> list[Score]:
        """One Score for each pair, in order, the same as alone."""
        ...


def verify_each(pairs: Sequence[tuple[Task, str]]) -> list[Score]:
    """The score each task's own verifier gives, in this process, one after the other where it does not take many."""
    found: dict[int, Score] = {}
    together: dict[int, list[int]] = {}
    for i, (task, _) in enumerate(pairs):
        if isinstance(task.verifier, ManyVerifier):
            together.setdefault(id(task.verifier), []).append(i)
    for members in together.values():
        verifier = pairs[members[0]][0].verifier
        assert isinstance(verifier, ManyVerifier)
        found |= zip(members, verifier.many([pairs[i] for i in members]), strict=True)
    return [found[i] if i in found else verdict(task, text) for i, (task, text) in enumerate(pairs)]


def invalid(cause: str, words: str) -> Score:
    """A Score of a completion that could not be judged, its error beginning with the cause (one of types.CAUSES)."""
    assert cause in CAUSES, cause
    return Score(None, {}, f"{cause}: {words}"[:MAX_ERROR])


def _finite(value: object) -> bool:
    try:
        return not isinstance(value, str | bytes) and math.isfinite(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return False


@dataclass(frozen=True)
class Tally:
    """How many verdicts there were in each state, the invalid by cause."""

    judged: int
    skipped: int
    causes: Counter[str]

    @staticmethod
    def of(scores: Iterable[Score]) -> Tally:
        """The count over scores."""
        states: Counter[str] = Counter()
        causes: Counter[str] = Counter()
        for score in scores:
            states[score.state] += 1
            if score.cause is not None:
                causes[score.cause] += 1
        return Tally(states["judged"], states["skipped"], causes)

    def metrics(self) -> Metrics:
        """Shares of all completions: `reward/skipped`, and `reward/invalid_<cause>` of the causes there were."""
        total = self.judged + self.skipped + self.causes.total()
        found: Metrics = {"reward/skipped": self.skipped / total} if total else {}
        return found | {f"reward/invalid_{name.replace('-', '_')}": n / total for name, n in self.causes.items()}
