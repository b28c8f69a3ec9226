"""Generation in a process of its own while training goes on, at most `staleness` updates behind.

Rollout t is sampled by the weights of version max(0, t - staleness), always: it is asked for as soon as that version is
published, and trained on when the trainer comes to it. So a run is reproducible, is resumed exactly with the rollouts
that were waiting, and with staleness 0 is the synchronous run. Requests and weights go down one pipe in order, so the
weights of a rollout are those sent before it.
Source of the scheme: Noukhovitch et al. 2024 (Asynchronous RLHF, arXiv 2410.18252); Fu et al. 2025 (AReaL).
"""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any, NoReturn, Protocol, final

import torch
from torch import Tensor

from onepolicy import errors
from onepolicy.errors import TrainingError
from onepolicy.tasks.pool_worker import die_with_parent
from onepolicy.types import Episode, Prompts, Score, Task

POLL_SECONDS = 0.05


class Listed(Prompts, Protocol):
    """tasks: all that it can give."""

    @property
    def tasks(self) -> Sequence[Task]: ...


@dataclass(frozen=True)
class Worker:
    """What a generating process holds.

    play(tasks, step): the episodes of a rollout. load(state, version): takes new weights. tasks: by id. close(): ends
    what it started.
    """

    play: Callable[[Sequence[Task], int], list[Episode]]
    load: Callable[[Mapping[str, Tensor], int], None]
    tasks: Mapping[str, Task]
    close: Callable[[], None]


@final
class Ahead:
    """Rollouts made ahead of training by another process; also the source of prompts, which it takes ahead of time.

    open_worker: makes the Worker, called in the process (a module-level function or a partial of one). prompts: whose
    order is kept. staleness: updates a rollout may be behind. timeout: seconds in which a rollout, or weights, must be
    done; what hangs is named. version: of the weights published last.
    """

    def __init__(
        self,
        open_worker: Callable[[], Worker],
        prompts: Listed,
        *,
        staleness: int,
        timeout: float,
        threads: int,
    ) -> None:
        self.prompts, self.staleness, self.timeout = prompts, staleness, timeout
        self.version = 0
        self.step = 0
        self._waiting: deque[tuple[int, list[Task], list[Episode] | None]] = deque()
        self._asked: dict[int, float] = {}
        context = torch.multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, open_worker, threads), daemon=True)
        self._process.start()
        theirs.close()

    def begin(self, state: Mapping[str, Tensor], version: int) -> None:
        """The first weights, and the step that training begins with."""
        self.step = version
        self.publish(state, version)

    def publish(self, state: Mapping[str, Tensor], version: int) -> None:
        """New weights for the rollouts that are asked for from now on."""
        self._send(("load", {name: value.detach().cpu().clone() for name, value in state.items()}, version))
        self.version = version

    def next(self) -> list[Task]:
        """The tasks of the next rollout to train on; those up to `staleness` further on are asked for as well."""
        newest = self._waiting[-1][0] if self._waiting else self.step - 1
        for step in range(newest + 1, self.step + self.staleness + 1):
            tasks = list(self.prompts.next())
            self._send(("play", step, [task.id for task in tasks]))
            self._asked[step] = time.monotonic()
            self._waiting.append((step, tasks, None))
        return self._waiting[0][1]

    def play(self, tasks: Sequence[Task], step: int) -> list[Episode]:
        """The episodes of the rollout whose tasks `next` gave."""
        episodes = self._received(0)
        self._waiting.popleft()
        self.step = step + 1
        return episodes

    def state_dict(self) -> dict[str, Any]:
        """The rollouts that wait for training, those still being made included: it waits for them."""
        queue = [
            {"step": step, "tasks": [task.id for task in tasks], "episodes": [asdict(e) for e in self._received(place)]}
            for place, (step, tasks, _) in enumerate(list(self._waiting))
        ]
        return {"queue": queue, "step": self.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of state_dict; tasks are found by their ids among those of the prompts."""
        self.step = int(state["step"])
        known = {task.id: task for task in self.prompts.tasks}
        self._waiting = deque(
            (int(one["step"]), [known[name] for name in one["tasks"]], [_episode(e) for e in one["episodes"]])
            for one in state["queue"]
        )

    def close(self) -> None:
        """End the process."""
        with suppress(OSError, ValueError):
            self._connection.send(("end",))
        self._process.join(timeout=2.0)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._connection.close()

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _received(self, place: int) -> list[Episode]:
        """The episodes of a waiting rollout, waited for if need be."""
        step, _, episodes = self._waiting[place]
        while episodes is None:
            came, made = self._receive(step)
            for other, (number, theirs, _) in enumerate(self._waiting):
                if number == came:
                    self._waiting[other] = (number, theirs, made)
            episodes = self._waiting[place][2]
        return episodes

    def _receive(self, step: int) -> tuple[int, list[Episode]]:
        began = time.monotonic()
        while not self._connection.poll(POLL_SECONDS):
            self._check_alive()
            if time.monotonic() - began > self.timeout:
                waited = time.monotonic() - self._asked.get(step, began)
                raise TrainingError(
                    f"the generating process (pid {self._process.pid}) hangs: rollout {step + 1} was asked for "
                    f"{waited:.0f} s ago and did not come, with weights of version {self.version} on their way. A "
                    "verifier or the generator is stuck; look at it with py-spy, or raise --asynchronous.timeout "
                    f"({self.timeout:g} s)."
                )
        try:
            kind, *rest = self._connection.recv()
        except EOFError:
            self._dead()
        if kind == "error":
            name, message, trace = rest
            known = getattr(errors, name, TrainingError)
            raise known(f"in the generating process: {message}") from TrainingError(trace)
        return rest[0], rest[1]

    def _send(self, message: tuple[Any, ...]) -> None:
        try:
            self._connection.send(message)
        except (BrokenPipeError, ConnectionResetError, OSError):
            if self._connection.poll(0):
                self._receive(self.step)
            self._dead()

    def _check_alive(self) -> None:
        if not self._process.is_alive() and not self._connection.poll(0):
            self._dead()

    def _dead(self) -> NoReturn:
        self._process.join(timeout=5.0)
        code = self._process.exitcode
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with code {code}"
        raise TrainingError(
            f"the generating process {how} while rollout {self.step + 1} was wanted. Was it out of memory? All up to "
            "the last checkpoint is there: resume the run."
        )


def _work(connection: Connection, open_worker: Callable[[], Worker], threads: int) -> None:
    """The generating process: does what it is told, in order, until told to end or its parent is gone."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    torch.set_num_threads(threads)
    worker: Worker | None = None
    try:
        worker = open_worker()
        while True:
            kind, *rest = connection.recv()
            if kind == "end":
                break
            if kind == "load":
                worker.load(*rest)
            else:
                step, names = rest
                connection.send(("episodes", step, worker.play([worker.tasks[name] for name in names], step)))
    except EOFError:
        pass
    except BaseException as error:  # noqa: BLE001 - whatever it is, the trainer is told and stops
        try:
            connection.send(("error", type(error).__name__, str(error), traceback.format_exc()))
        except OSError:
            os._exit(1)
    finally:
        if worker is not None:
            worker.close()


def _episode(state: Mapping[str, Any]) -> Episode:
    """An episode from JSON: lists where tuples were."""
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in state.items()}
    return Episode(**{**fields, "score": Score(**state["score"])})
