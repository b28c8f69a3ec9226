"""What goes through the verifier pool: batches of answers, packed for the workers, and their gate; its counts."""

from __future__ import annotations

import pickle
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, final

from onepolicy.errors import RewardError
from onepolicy.types import Score, Task, Verifier


@dataclass(eq=False)
class Batch:
    """Answers that came together: what their caller waits for, the scores so far, how many are missing."""

    future: Future[list[Score]]
    scores: list[Any]
    left: int

    def fail(self, error: BaseException) -> None:
        """Give the caller an exception, unless it has something already."""
        if not self.future.done() and self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)

    def settle(self, place: int, score: Score) -> bool:
        """Note a score; whether it was the last that was missing. Then the caller has them all."""
        self.scores[place] = score
        self.left -= 1
        if self.left == 0 and not self.future.done() and self.future.set_running_or_notify_cancel():
            self.future.set_result(self.scores)
        return self.left == 0


@dataclass(eq=False)
class Answer:
    """One answer: its place in a batch, the number of its verifier, its task as bytes. alone: it may have broken a
    worker, which only one that has done nothing else can show."""

    batch: Batch
    place: int
    verifier: int
    task: bytes
    text: str
    alone: bool = False


@final
class Packer:
    """Tasks and verifiers as bytes; each verifier is pickled once and has a number.

    verifiers: their bytes and names, by number.
    """

    def __init__(self) -> None:
        self.verifiers: list[tuple[bytes, str]] = []
        self._numbers: dict[bytes, int] = {}
        self._seen: dict[int, tuple[Verifier, int]] = {}
        self._lock = threading.Lock()

    def batch(self, pairs: Sequence[tuple[Task, str]]) -> tuple[Batch, list[Answer]]:
        """The answers of one call. Raises: RewardError for a task or verifier that cannot be pickled."""
        batch = Batch(Future(), [None] * len(pairs), len(pairs))
        tasks: dict[int, bytes] = {}
        for task, _ in pairs:
            if id(task) not in tasks:
                tasks[id(task)] = _task_bytes(task)
        numbered = ((place, self._number(task.verifier), task, text) for place, (task, text) in enumerate(pairs))
        return batch, [Answer(batch, place, number, tasks[id(task)], text) for place, number, task, text in numbered]

    def _number(self, verifier: Verifier) -> int:
        known = self._seen.get(id(verifier))
        if known is not None:
            return known[1]
        name = getattr(verifier, "__name__", type(verifier).__name__)
        try:
            blob = pickle.dumps(verifier)
        except Exception as error:
            raise RewardError(
                f"verifier {name} cannot be sent to a worker process ({type(error).__name__}: {error}); define it at "
                "the top level of a module, or as a frozen dataclass."
            ) from error
        with self._lock:
            number = self._numbers.setdefault(blob, len(self.verifiers))
            if number == len(self.verifiers):
                self.verifiers.append((blob, name))
            self._seen[id(verifier)] = (verifier, number)
        return number


def _task_bytes(task: Task) -> bytes:
    """A task without its verifier, pickled."""
    try:
        return pickle.dumps(Task(task.id, task.messages, task.answer, None, task.meta))  # type: ignore[arg-type]
    except Exception as error:
        raise RewardError(
            f"task {task.id!r} cannot be sent to a worker process ({type(error).__name__}: {error}); its meta must "
            "hold plain data."
        ) from error


@final
class Gate:
    """Back-pressure: room for so many answers at a time, first come, first served.

    A batch larger than the whole room is let in when it is alone.
    """

    def __init__(self, room: int) -> None:
        self._room = self._free = room
        self._waiting: deque[tuple[int, Future[None]]] = deque()
        self._lock = threading.Lock()

    def enter(self, answers: int) -> Future[None]:
        """Done when there is room; a thread waits for its result, a coroutine awaits it."""
        future: Future[None] = Future()
        with self._lock:
            self._waiting.append((min(answers, self._room), future))
        self._let_in()
        return future

    def leave(self, answers: int) -> None:
        """Answers let in by `enter` have been judged."""
        with self._lock:
            self._free += min(answers, self._room)
        self._let_in()

    def _let_in(self) -> None:
        admitted = []
        with self._lock:
            while self._waiting and (self._waiting[0][0] <= self._free or self._waiting[0][1].cancelled()):
                answers, future = self._waiting.popleft()
                if future.set_running_or_notify_cancel():
                    self._free -= answers
                    admitted.append(future)
        for future in admitted:
            future.set_result(None)


@dataclass(frozen=True)
class PoolStats:
    """What a pool has done so far.

    answers: judged, those without a verdict included. timeouts, memory, crashes: of them, how many ended so. hired:
    worker processes started; the first ones and one for each replaced. parked: answers that were set aside as long.
    seconds: wall clock during which there was work. workers, waiting: processes, and answers in the queue, now.
    """

    answers: int
    timeouts: int
    memory: int
    crashes: int
    hired: int
    parked: int
    seconds: float
    workers: int
    waiting: int

    @property
    def per_second(self) -> float:
        """Answers judged in a second of work."""
        return self.answers / self.seconds if self.seconds else 0.0
