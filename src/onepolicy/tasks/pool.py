"""Verifiers in worker processes: a hard time-out and a memory limit for each answer, whatever its verifier does.

A verifier that hangs is killed with its process (`time-out`), one that takes too much memory (`memory`) or dies
(`crash`) likewise; the answer is invalid, the worker replaced, the others go on. An answer that takes long does not
hold up those behind it: its worker is parked at the lowest priority and another takes its place, up to `spare` of them.
Scores come in the order of the answers and do not depend on the number of workers. Calls may come from several threads
and from asynchronous code at once. The processes end with the pool, and with this process however it ends.

The dispatcher, one thread, owns the processes (pool_staff.py); callers meet it in a queue behind a gate (pool_mail.py)
that lets in `backlog` answers at a time.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from multiprocessing.connection import wait
from types import TracebackType
from typing import Any, final

from onepolicy.errors import ConfigError, RewardError
from onepolicy.tasks.pool_mail import Answer, Batch, Gate, Packer, PoolStats
from onepolicy.tasks.pool_staff import Nursery, NurseryLost, Worker
from onepolicy.tasks.verdicts import invalid
from onepolicy.types import Score, Task

__all__ = ["PoolStats", "VerifierPool"]

MIB = 2**20
CHUNK = 16
"""Answers given to a worker at a time at most."""
PATIENCE = 0.01
"""Share of the time-out after which an answer is looked at; if it sleeps, or works half as much again, it is long."""
PATIENCE_FOR_PROCESSES = 0.5
"""The same for one that waits for a process it has started, a sandbox say."""
GRACE = 4
"""Times the time-out that an answer may take when others' work keeps it from the processor."""


@final
class VerifierPool:
    """Worker processes that judge answers.

    workers: how many work at once; None for one a core. timeout: seconds an answer may take; on a machine so busy that
    it gets less than half of them, up to GRACE times as many. memory: MiB a worker may
    take above what its verifiers need when loaded. spare: processes for answers that take long, besides. backlog:
    answers in the pool at most; who brings more waits. modules: imported before the first answer comes.

    Raises: ConfigError for settings that cannot work.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        timeout: float = 5.0,
        memory: int = 1024,
        spare: int = 64,
        backlog: int = 8192,
        modules: Sequence[str] = (),
    ) -> None:
        self.workers = len(os.sched_getaffinity(0)) if workers is None else workers
        if self.workers < 1 or not timeout > 0 or memory < 1 or spare < 0 or backlog < 1:
            raise ConfigError(
                f"a pool of {self.workers} workers, time-out {timeout} s, {memory} MiB, {spare} spare, backlog "
                f"{backlog}; workers, memory and backlog are at least 1, the time-out above 0, spare at least 0."
            )
        self.timeout, self.memory, self.spare, self.modules = timeout, memory * MIB, spare, tuple(modules)
        self._gate = Gate(backlog)
        self._lock = threading.Lock()
        self._inbox: deque[Answer] = deque()
        self._queue: deque[Answer] = deque()
        self._out: dict[int, Answer] = {}
        self._staff: dict[Any, Worker] = {}
        self._packer = Packer()
        self._refused: dict[int, RewardError] = {}
        self._counts: Counter[str] = Counter()
        self._seconds = 0.0
        self._tickets = 0
        self._looked = 0.0
        self._closing = False
        self._thread: threading.Thread | None = None
        self._nursery: Nursery | None = None
        self._owner = os.getpid()

    def score(self, pairs: Sequence[tuple[Task, str]]) -> list[Score]:
        """The score of each (task, completion), in order; waits for all.

        Raises: RewardError for a verifier that cannot be sent to a worker, and when the pool is closed.
        """
        if not pairs:
            return []
        batch, answers = self._packer.batch(pairs)
        self._gate.enter(len(answers)).result()
        self._submit(batch, answers)
        return batch.future.result()

    async def ascore(self, pairs: Sequence[tuple[Task, str]]) -> list[Score]:
        """As `score`, without holding up the event loop. Cancelled, its answers not yet begun are dropped."""
        if not pairs:
            return []
        batch, answers = self._packer.batch(pairs)
        entered = self._gate.enter(len(answers))
        try:
            await asyncio.wrap_future(entered)
        except asyncio.CancelledError:
            if not entered.cancelled():
                self._gate.leave(len(answers))
            raise
        self._submit(batch, answers)
        return await asyncio.wrap_future(batch.future)

    __call__ = score

    def stats(self) -> PoolStats:
        """The counts so far."""
        c = self._counts
        kinds = {"timeouts": c["time-out"], "memory": c["memory"], "crashes": c["crash"]}
        now = {"workers": len(self._staff), "waiting": len(self._queue) + len(self._inbox)}
        return PoolStats(c["answers"], **kinds, hired=c["hired"], parked=c["parked"], seconds=self._seconds, **now)

    def close(self) -> None:
        """End the workers; whoever still waits gets a RewardError. A closed pool stays closed."""
        with self._lock:
            self._closing = True
            thread = self._thread
        if thread is not None and self._owner == os.getpid():
            self._ring()
            thread.join()
            os.close(self._bell)
            os.close(self._wake)
            self._thread = None
        atexit.unregister(self.close)

    def __enter__(self) -> VerifierPool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _submit(self, batch: Batch, answers: list[Answer]) -> None:
        with self._lock:
            if self._closing or self._owner != os.getpid():
                self._gate.leave(len(answers))
                raise RewardError("the verifier pool is closed, or belongs to the process this one was forked from.")
            self._inbox.extend(answers)
            if self._thread is None:
                self._wake, self._bell = os.pipe()
                os.set_blocking(self._bell, False)
                self._thread = threading.Thread(target=self._dispatch, name="verifier-pool", daemon=True)
                self._thread.start()
                atexit.register(self.close)
        self._ring()

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError):  # the pipe is full of calls already
            os.write(self._bell, b"!")

    # What the dispatcher's thread does.

    def _dispatch(self) -> None:
        try:
            while not self._closing:
                began = time.monotonic()
                try:
                    self._round()
                except NurseryLost:
                    self._start_over()
                if self._out or self._queue:
                    self._seconds += time.monotonic() - began
            self._fail(RewardError("the verifier pool was closed before this answer was judged."))
        except BaseException as error:  # noqa: BLE001 - it belongs to the callers, who wait
            self._closing = True
            self._fail(error)
        finally:
            if self._nursery is not None:
                self._nursery.close()
            for worker in self._staff.values():
                worker.connection.close()
            self._staff.clear()

    def _round(self) -> None:
        """One turn: take what came, feed the idle, wait, hear the busy, see to those that take too long."""
        with self._lock:
            self._queue.extend(self._inbox)
            self._inbox.clear()
        self._teach()
        self._feed()
        ready = wait([*self._staff, self._wake], self._until())
        for connection in ready:
            if connection == self._wake:
                os.read(self._wake, 4096)
            else:
                self._hear(self._staff[connection])
        self._watch(time.monotonic())

    def _until(self) -> float | None:
        """Seconds until somebody may have taken too long; None when nobody works."""
        now = time.monotonic()
        patience = self.timeout * PATIENCE
        limits = []
        for worker in self._staff.values():
            if worker.tickets:
                looking = not worker.parked and (worker.noted is None or self._pressing(worker))
                limit = worker.started + (patience if looking else self.timeout)
                limits.append(max(limit, self._looked + patience / 2))
        return max(0.0, min(limits) - now) + 0.001 if limits else None

    def _pressing(self, worker: Worker) -> bool:
        """Whether others wait for this worker's place and there is one to take instead."""
        return bool(self._queue or len(worker.tickets) > 1) and len(self._staff) < self.workers + self.spare

    def _teach(self) -> None:
        """Have the nursery learn the verifiers that are new to it."""
        if self._nursery is None:
            self._nursery = Nursery(self.memory, self.modules)
        for number in range(self._nursery.taught, len(self._packer.verifiers)):
            try:
                self._nursery.learn(*self._packer.verifiers[number])
            except RewardError as error:
                self._refused[number] = error

    def _feed(self) -> None:
        """Give waiting answers to workers without any, hired as needed."""
        while self._queue:
            answer = self._queue[0]
            if answer.verifier in self._refused:
                answer.batch.fail(self._refused[answer.verifier])
            if answer.batch.future.done():
                self._settle(self._queue.popleft(), Score(None))
                continue
            active = [worker for worker in self._staff.values() if not worker.parked]
            idle = [worker for worker in active if not worker.tickets]
            if not idle and len(active) >= self.workers:
                return
            worker = idle[0] if idle else self._hire()
            if answer.alone and worker.done:
                self._dismiss(worker)
                worker = self._hire()
            share = max(1, min(CHUNK, len(self._queue) // (2 * self.workers)))
            self._give(worker, [self._queue.popleft() for _ in range(1 if answer.alone else share)])

    def _give(self, worker: Worker, answers: list[Answer]) -> None:
        sent = []
        for answer in answers:
            self._tickets += 1
            self._out[self._tickets] = answer
            sent.append((self._tickets, answer.verifier, answer.task, answer.text))
        try:
            worker.give(sent, self._packer.verifiers, time.monotonic())
        except OSError:
            self._lost(worker)

    def _hire(self) -> Worker:
        assert self._nursery is not None
        worker = self._nursery.hire()
        self._staff[worker.connection] = worker
        self._counts["hired"] += 1
        return worker

    def _dismiss(self, worker: Worker) -> None:
        """End a worker."""
        self._leave(worker).dismiss(worker)

    def _leave(self, worker: Worker) -> Nursery:
        """Take a worker off the staff; its answers that it has not begun go back to the head of the queue."""
        del self._staff[worker.connection]
        self._queue.extendleft([self._out.pop(ticket) for ticket in reversed(worker.tickets)])
        assert self._nursery is not None
        return self._nursery

    def _hear(self, worker: Worker) -> None:
        """Take a worker's next score."""
        try:
            ticket, score = worker.connection.recv()
        except (EOFError, OSError):
            return self._lost(worker)
        if not worker.tickets or ticket != worker.tickets[0]:
            return None  # a parked one went on with what has been given to others
        worker.tickets.popleft()
        worker.begin(time.monotonic())
        answer = self._out.pop(ticket)
        broke = score.cause == "memory"
        if broke and worker.done and not answer.alone:
            answer.alone = True
            self._queue.appendleft(answer)
        else:
            self._settle(answer, score)
        worker.done += 1
        if broke or worker.parked:
            self._dismiss(worker)
        return None

    def _lost(self, worker: Worker) -> None:
        """A worker has died. Its first answer did it, if it does it again to a new worker."""
        first = self._out.pop(worker.tickets.popleft()) if worker.tickets else None
        if first is not None and not first.alone:
            first.alone = True
            self._queue.appendleft(first)
            first = None
        try:
            ended = self._leave(worker).bury(worker)
        except NurseryLost:
            if first is not None:
                self._queue.appendleft(first)
            raise
        if first is not None:
            self._settle(first, invalid("crash", f"the verifier's process ended by {ended}"))

    def _watch(self, now: float) -> None:
        """Kill who is over time; park who takes long while others wait; keep the parked's memory in bounds."""
        if now < self._looked + self.timeout * PATIENCE / 2:
            return
        self._looked = now
        for worker in list(self._staff.values()):
            took = now - worker.started
            if not worker.tickets or took < self.timeout * (1.0 if worker.parked else PATIENCE):
                continue
            worked, doing = worker.effort()
            if took >= self.timeout and self._spent(took, worked, doing):
                answer = self._out.pop(worker.tickets.popleft())
                self._settle(answer, invalid("time-out", f"no verdict within {self.timeout:g} s"))
                self._dismiss(worker)
            elif not worker.parked and self._pressing(worker) and self._long(took, worked, doing):
                while len(worker.tickets) > 1:
                    self._queue.appendleft(self._out.pop(worker.tickets.pop()))
                worker.park()
                self._counts["parked"] += 1
        self._shed()

    def _spent(self, took: float, worked: float, doing: str) -> bool:
        """Whether an answer has had its time: not if it would run, but others' work has kept it from the processor.

        Where many are parked it is they who keep one another from it, and none gets more.
        """
        crowded = sum(worker.parked for worker in self._staff.values()) > 2 * self.workers
        return doing != "running" or crowded or worked >= self.timeout / 2 or took >= GRACE * self.timeout

    def _long(self, took: float, worked: float, doing: str) -> bool:
        """Whether an answer takes long by itself, not because the machine is busy."""
        if doing == "waiting":
            return took >= self.timeout * PATIENCE_FOR_PROCESSES
        return doing == "asleep" or worked >= self.timeout * PATIENCE / 2

    def _shed(self) -> None:
        """While the parked workers together hold over half of the machine's memory, end the largest of them."""
        parked = [worker for worker in self._staff.values() if worker.parked]
        if not parked:
            return
        held = {worker: worker.resident() for worker in parked}
        while sum(held.values()) > _half_of_memory():
            worker = max(held, key=lambda one: held[one])
            size = held.pop(worker)
            answer = self._out.pop(worker.tickets.popleft())
            self._settle(answer, invalid("memory", f"{size // MIB} MiB while many answers took long at once"))
            self._dismiss(worker)

    def _settle(self, answer: Answer, score: Score) -> None:
        self._counts["answers"] += 1
        self._counts[score.cause or ""] += 1
        if answer.batch.settle(answer.place, score):
            self._gate.leave(len(answer.batch.scores))

    def _start_over(self) -> None:
        """A new nursery and new workers; what was being judged is judged again."""
        self._counts["nurseries"] += 1
        assert self._nursery is not None
        self._nursery.close()
        self._nursery = None
        for worker in self._staff.values():
            worker.connection.close()
        self._staff.clear()
        self._queue.extendleft([self._out.pop(ticket) for ticket in sorted(self._out, reverse=True)])
        if self._counts["nurseries"] > 3:
            raise RewardError("the process that verifier workers are forked from died four times; is memory short?")

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            waiting = {answer.batch for answer in [*self._out.values(), *self._queue, *self._inbox]}
        for batch in waiting:
            batch.fail(error)
            self._gate.leave(len(batch.scores))


def _half_of_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
