"""The trainer's handles on the verifier pool's processes: start the nursery, hire, feed and dismiss workers.

Only the pool's dispatcher thread calls these. What the processes do: pool_worker.py; who gets what when: pool.py.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from typing import Any, Literal, final

from onepolicy.errors import RewardError

SINGLE = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Set to 1 in the workers: many small processes, no threads of a matrix library."""


class NurseryLost(Exception):
    """The process that workers are forked from has died; a new one is needed."""


@final
class Nursery:
    """The process that workers are forked from.

    memory: bytes each worker may take above what the nursery has loaded. modules: imported before the first fork.
    """

    def __init__(self, memory: int, modules: Sequence[str]) -> None:
        self.memory = memory
        ours, theirs = socket.socketpair()
        path = [os.getcwd() if entry == "" else entry for entry in sys.path]
        environment = {**os.environ, **dict.fromkeys(SINGLE, "1"), "PYTHONHASHSEED": "0"}
        environment |= {"PYTHONPATH": os.pathsep.join(path), "ONEPOLICY_POOL_PARENT": str(os.getpid())}
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "onepolicy.tasks.pool_worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        self.control = Connection(ours.detach())
        self.taught = 0
        for module in modules:
            self._must(self._ask("import", module), f"the workers cannot import {module}")

    def learn(self, blob: bytes, name: str) -> None:
        """Teach every worker hired from now on its next verifier; they are numbered from 0.

        Raises: RewardError when it cannot be loaded there.
        """
        problem = self._ask("learn", self.taught, blob)
        self.taught += 1
        script = "__main__" in problem or "pool_worker" in problem  # the worker's own __main__
        hint = " Define it in a module, not in the script that is run." if script else ""
        self._must(problem, f"verifier {name} cannot be loaded in a worker process.{hint}")

    def hire(self) -> Worker:
        """A new worker, knowing every verifier learnt so far."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self.control.send(("fork", self.memory))
                send_handle(self.control, theirs.fileno(), self.process.pid)
                pid = self.control.recv()
            except (EOFError, OSError) as error:
                ours.close()
                raise NurseryLost from error
        return Worker(int(pid), Connection(ours.detach()), self.taught)

    def dismiss(self, worker: Worker) -> None:
        """Kill a worker and all it started, without waiting for its end: on a busy machine dying takes its time."""
        kill_group(worker.pid)
        worker.connection.close()
        try:
            self.control.send(("forget", worker.pid))
        except OSError as error:
            raise NurseryLost from error

    def bury(self, worker: Worker) -> str:
        """How a worker ended that has died, in words."""
        kill_group(worker.pid)
        worker.connection.close()
        status = self._ask("reap", worker.pid)
        if os.WIFSIGNALED(status):
            return f"signal {os.WTERMSIG(status)} ({signal.Signals(os.WTERMSIG(status)).name})"
        return f"exit code {os.WEXITSTATUS(status)}"

    def close(self) -> None:
        """End the nursery and with it every worker."""
        self.control.close()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _ask(self, *order: Any) -> Any:
        try:
            self.control.send(order)
            return self.control.recv()
        except (EOFError, OSError) as error:
            raise NurseryLost from error

    def _must(self, problem: str, words: str) -> None:
        if problem:
            raise RewardError(f"{words} ({problem})")


@final
@dataclass(eq=False)
class Worker:
    """One worker process.

    knows: verifiers it was taught. tickets: answers it was given and has not judged, in order. started: when it began
    the first of them, as far as known. noted: its processor time shortly after that, seconds; None before it was read.
    done: answers judged. parked: it has been at one answer for long, and another works in its place.
    """

    pid: int
    connection: Connection
    knows: int
    tickets: deque[int] = field(default_factory=deque)
    started: float = 0.0
    noted: float | None = None
    done: int = 0
    parked: bool = False

    def give(
        self, answers: Sequence[tuple[int, int, bytes, str]], verifiers: Sequence[tuple[bytes, str]], now: float
    ) -> None:
        """Send (ticket, verifier, task, text) answers, behind the verifiers that have come since it was hired.

        Raises: OSError when it is dead.
        """
        self.tickets.extend(ticket for ticket, *_ in answers)
        self.begin(now)
        for number in range(self.knows, max(number for _, number, _, _ in answers) + 1):
            self.connection.send(("learn", number, verifiers[number][0]))
            self.knows = number + 1
        self.connection.send(("judge", list(answers)))

    def begin(self, now: float) -> None:
        """Start the clock of its next answer."""
        self.started, self.noted = now, None

    def park(self) -> None:
        """Let it go on in the background, at the lowest priority."""
        self.parked = True
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self.pid, 19)

    def effort(self) -> tuple[float, Literal["running", "asleep", "waiting"]]:
        """(processor seconds on its answer since the first call, what it is at): running or ready to, asleep, or
        waiting for a process that it has started. Where the system does not say, it runs all the time.
        """
        try:
            with open(f"/proc/{self.pid}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
            with open(f"/proc/{self.pid}/task/{self.pid}/children") as file:
                children = file.read().split()
        except (OSError, IndexError):
            return time.monotonic() - self.started, "running"
        seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        if self.noted is None:
            self.noted = seconds
        doing: Literal["running", "asleep", "waiting"] = "waiting" if children else "asleep"
        return seconds - self.noted, "running" if fields[0] == "R" else doing

    def resident(self) -> int:
        """Its memory in bytes; 0 where the system does not say."""
        try:
            with open(f"/proc/{self.pid}/statm") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError, IndexError):
            return 0


def kill_group(pid: int) -> None:
    """Kill a worker and what it started; it counts as killed when it is gone already."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
