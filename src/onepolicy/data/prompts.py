"""Training prompts in a seeded order that can be stopped and continued anywhere.

In: `PromptStream` over tasks, `Shuffled` (the order itself, also used for demonstrations), `fit_prompts`.
Not here: rendering (chat_template.py), what to do with a prompt (acting).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from onepolicy.errors import ConfigError, DataError
from onepolicy.run.seeding import derive_rng
from onepolicy.types import Task

X = TypeVar("X")


class Shuffled(Generic[X]):
    """Endless batches of items, each epoch in its own order; no item is dropped or repeated within an epoch.

    The order of epoch e depends on (seed, name, e) only, so a position is two numbers and resuming is exact. A batch
    that reaches the end of an epoch is filled up from the next one.
    """

    def __init__(self, items: Sequence[X], batch_size: int, seed: int, name: str = "demonstrations") -> None:
        if not items:
            raise DataError(f"there are 0 {name}; training needs at least one. Check the data file and its filters.")
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}; it must be at least 1.")
        self.items = items
        self.batch_size = batch_size
        self.seed = seed
        self.name = name
        self.epoch = 0
        self.position = 0
        self._order = self._permutation()

    def next(self) -> list[X]:
        """The next batch_size items."""
        batch: list[X] = []
        while len(batch) < self.batch_size:
            take = self._order[self.position : self.position + self.batch_size - len(batch)]
            batch += [self.items[i] for i in take]
            self.position += len(take)
            if self.position == len(self._order):
                self.epoch += 1
                self.position = 0
                self._order = self._permutation()
        return batch

    def state_dict(self) -> dict[str, int]:
        """The position, and the number of items it is a position in."""
        return {"epoch": self.epoch, "position": self.position, "size": len(self.items)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue at a saved position. Raises: DataError when it was saved with another number of items."""
        if state["size"] != len(self.items):
            raise DataError(
                f"the saved position is in {state['size']} {self.name} but there are now {len(self.items)}; resume "
                "with the data the run was started with."
            )
        self.epoch = int(state["epoch"])
        self.position = int(state["position"])
        self._order = self._permutation()

    def _permutation(self) -> list[int]:
        order: list[int] = derive_rng(self.seed, self.name, self.epoch).permutation(len(self.items)).tolist()
        return order


class PromptStream:
    """Batches of tasks for rollouts, in a seeded order, resumable.

    Raises: DataError for no tasks or two tasks with one id (ids seed the samples, so equal ids would sample alike).
    """

    def __init__(self, tasks: Sequence[Task], batch_size: int, seed: int) -> None:
        seen: set[str] = set()
        for task in tasks:
            if task.id in seen:
                raise DataError(f"two tasks have the id {task.id!r}; ids must be unique, samples are seeded by them.")
            seen.add(task.id)
        self._stream = Shuffled(tasks, batch_size, seed, "prompts")

    @property
    def tasks(self) -> Sequence[Task]:
        """All tasks."""
        return self._stream.items

    def next(self) -> list[Task]:
        """The next batch_size tasks."""
        return self._stream.next()

    def state_dict(self) -> dict[str, int]:
        """The position: epoch, place in it, and the number of tasks."""
        return self._stream.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue at a saved position."""
        self._stream.load_state_dict(state)


@dataclass(frozen=True)
class FittedPrompts:
    """Tasks whose prompts fit, their prompts as token ids by task id, and how many were dropped."""

    tasks: tuple[Task, ...]
    tokens: dict[str, list[int]]
    dropped: int


def fit_prompts(
    tasks: Sequence[Task],
    render: Callable[[Task], list[int]],
    limit: int,
    policy: Literal["stop", "drop"] = "stop",
) -> FittedPrompts:
    """The tasks whose prompts have at most `limit` tokens (the context less the completion's max_tokens).

    Raises: DataError naming the longest prompt if one is longer and policy is "stop", or if none is left.
    """
    tokens = {task.id: render(task) for task in tasks}
    kept = tuple(task for task in tasks if len(tokens[task.id]) <= limit)
    dropped = len(tasks) - len(kept)
    if dropped and (policy == "stop" or not kept):
        worst = max(tasks, key=lambda task: len(tokens[task.id]))
        raise DataError(
            f"{dropped} of {len(tasks)} prompts are longer than {limit} tokens (the context less max_tokens); the "
            f"longest, task {worst.id!r}, has {len(tokens[worst.id])}. Use a larger context, a smaller max_tokens, or "
            'drop long prompts with policy="drop".'
        )
    return FittedPrompts(kept, {task.id: tokens[task.id] for task in kept}, dropped)
