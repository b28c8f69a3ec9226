"""A user's own reward function as a verifier, every way it can go wrong named.

The form is TRL's: `f(prompts, completions, **columns) -> list[float | None]`. A breach of the form (wrong length,
text instead of numbers) is a bug in the function and raises; a non-finite number, or an exception on one completion,
makes that completion *invalid*: its Score has no value and says why; None says that the reward does not apply, and
the completion is *skipped*. Both are counted, never taken as 0. One sample's failure cannot move another's reward.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from onepolicy.errors import RewardError
from onepolicy.types import Score, Task

RewardFunction = Callable[..., Sequence[float | None]]
"""TRL's form: (prompts, completions, **columns) -> one number or None for each completion."""


@dataclass(frozen=True)
class FunctionReward:
    """A reward function as a Verifier; `batch` judges many completions in one call of the function.

    The function receives `prompts` (each task's last message), `completions`, and as columns, each a list of the
    same length: `answer`, `task_id` and every key that all the tasks' `meta` have. It is given those it names, or all
    if it has `**columns`. Its number is the Score's value and its part `reward`; a part `correct` it does not set.
    """

    function: RewardFunction
    name: str
    wanted: tuple[str, ...] | None

    def __call__(self, task: Task, text: str) -> Score:
        try:
            result = self._call([task], [text])
        except Exception as error:  # noqa: BLE001 - a user's function may raise anything; it becomes data
            return self._raised(error)
        return self._score(self._checked(result, 1)[0])

    def batch(self, tasks: Sequence[Task], texts: Sequence[str]) -> list[Score]:
        """Scores of completions, in order. A call that raises is repeated one by one to find the culprits.

        Raises: RewardError for a breach of the form, or when every one of several completions raises.
        """
        try:
            result = self._call(tasks, texts)
        except Exception as error:
            scores = [self(task, text) for task, text in zip(tasks, texts, strict=True)]
            if len(scores) > 1 and all(score.error and " raised " in score.error for score in scores):
                raise RewardError(
                    f"{self.name} raised {type(error).__name__}: {error} on every one of {len(scores)} completions; "
                    "the fault is in the function, not in a completion. Correct it."
                ) from error
            return scores
        return [self._score(value) for value in self._checked(result, len(texts))]

    def _call(self, tasks: Sequence[Task], texts: Sequence[str]) -> object:
        columns: dict[str, list[Any]] = {"answer": [task.answer for task in tasks]}
        columns["task_id"] = [task.id for task in tasks]
        shared = set.intersection(*(set(task.meta) for task in tasks)) if tasks else set()
        columns |= {key: [task.meta[key] for task in tasks] for key in sorted(shared)}
        if self.wanted is not None:
            columns = {key: column for key, column in columns.items() if key in self.wanted}
        prompts = [task.messages[-1].content for task in tasks]
        return self.function(prompts=prompts, completions=list(texts), **columns)

    def _checked(self, result: Any, count: int) -> list[Any]:
        try:
            values = None if isinstance(result, str | bytes | Mapping | Set) else list(result)
        except TypeError:
            values = None
        if values is None:
            raise RewardError(
                f"{self.name} returned {type(result).__name__} {str(result)[:60]!r}; return a list of {count} numbers."
            )
        if len(values) != count:
            raise RewardError(
                f"{self.name} returned {len(values)} rewards for {count} completions; return exactly one for each, "
                "in order (None where it does not apply)."
            )
        return values

    def _score(self, value: Any) -> Score:
        if value is None:
            return Score(None, {"reward": None})
        try:
            number = None if isinstance(value, str | bytes) else float(value)
        except (TypeError, ValueError):
            number = None
        if number is None:
            raise RewardError(
                f"{self.name} returned {type(value).__name__} {str(value)[:60]!r} as a reward; return a number or None."
            )
        if not math.isfinite(number):
            return Score(None, {"reward": None}, f"reward: {self.name} returned {number}; rewards must be finite.")
        return Score(number, {"reward": number})

    def _raised(self, error: Exception) -> Score:
        return Score(None, {"reward": None}, f"crash: {self.name} raised {type(error).__name__}: {error}"[:500])


def as_reward(function: RewardFunction) -> FunctionReward:
    """A function in TRL's form as a Verifier.

    Raises: RewardError for something that cannot be called with `prompts` and `completions`.

    >>> from onepolicy.types import Message
    >>> shorter = as_reward(lambda prompts, completions, **columns: [-float(len(text)) for text in completions])
    >>> task = Task("t", (Message("user", "Be brief."),), "", shorter)
    >>> shorter(task, "Yes.").value
    -4.0
    """
    name = f"reward function {getattr(function, '__name__', repr(function))}"
    if not callable(function):
        raise RewardError(f"{name} is not callable; pass f(prompts, completions, **columns) -> list of numbers.")
    parameters = inspect.signature(function).parameters
    takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    missing = [key for key in ("prompts", "completions") if key not in parameters]
    if missing and not takes_all:
        raise RewardError(
            f"{name} has no parameter {' and '.join(missing)}; its form is f(prompts, completions, **columns)."
        )
    return FunctionReward(function, name, None if takes_all else tuple(parameters))
