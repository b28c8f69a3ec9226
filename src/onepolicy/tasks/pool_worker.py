"""What runs in the verifier pool's processes: the nursery that workers are forked from, and the worker itself.

The nursery is a fresh interpreter (`python -m onepolicy.tasks.pool_worker FD`), not a fork of the trainer: no torch, no
threads, nobody's `__main__`. It unpickles each verifier once, which imports what it needs, and forks a worker in
milliseconds whenever one is asked for. It never calls a verifier, so it always answers; when its control connection
ends, because the trainer closed it or died, it kills its workers and leaves. The trainer's side: pool_staff.py.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import pickle
import resource
import signal
import sys
from importlib import import_module
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from typing import Any

from onepolicy.tasks.verdicts import invalid, verdict
from onepolicy.types import Score, Task, Verifier

PR_SET_PDEATHSIG = 1
Reply = tuple[int, Score]
"""A ticket and its score."""


def nursery(control: Connection) -> None:
    """Obey the pool until its connection ends: import, learn a verifier, fork a worker, say how one ended."""
    die_with_parent()
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    verifiers: dict[int, Verifier] = {}
    children: set[int] = set()
    doomed: set[int] = set()
    try:
        while True:
            order, *rest = control.recv()
            for pid in [pid for pid in doomed if os.waitpid(pid, os.WNOHANG)[0]]:
                doomed.discard(pid)
                children.discard(pid)
            if order == "import":
                control.send(_attempt(import_module, rest[0]))
            elif order == "learn":
                control.send(_attempt(_learn, verifiers, *rest))
            elif order == "fork":
                pid = _fork(control, verifiers, *rest)
                children.add(pid)
                control.send(pid)
            elif order == "reap":
                control.send(os.waitpid(rest[0], 0)[1])
                children.discard(rest[0])
            elif order == "forget":
                doomed.add(rest[0])
    except (EOFError, OSError):
        pass
    finally:
        for pid in children:
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)


def _attempt(action: Any, *arguments: Any) -> str:
    """The exception of the action in words, empty when there was none."""
    try:
        action(*arguments)
    except Exception as error:  # noqa: BLE001 - whatever importing raises is told to the pool
        return f"{type(error).__name__}: {error}"
    return ""


def _learn(verifiers: dict[int, Verifier], number: int, blob: bytes) -> None:
    verifiers[number] = pickle.loads(blob)  # noqa: S301 - written by our own parent process


def _fork(control: Connection, verifiers: dict[int, Verifier], memory: int) -> int:
    """The process id of a new worker, which serves the connection whose handle follows on `control`."""
    handle = recv_handle(control)
    gc.freeze()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setpgid(0, 0)
            die_with_parent()
            control.close()
            bound_memory(memory)
            work(Connection(handle), verifiers)
            code = 0
        finally:
            os._exit(code)
    with contextlib.suppress(OSError):
        os.setpgid(pid, pid)
    os.close(handle)
    return pid


def work(connection: Connection, verifiers: dict[int, Verifier]) -> None:
    """Judge what comes, in order, each answer's score sent back at once, until the connection ends."""
    last: tuple[bytes, Any] = (b"", None)
    while True:
        try:
            order, *rest = connection.recv()
        except (EOFError, OSError):
            return
        if order == "learn":
            _learn(verifiers, *rest)
            continue
        for ticket, number, blob, text in rest[0]:
            if blob != last[0]:
                last = blob, pickle.loads(blob)  # noqa: S301 - written by our own parent process
            connection.send((ticket, judged(last[1], verifiers[number], text)))


def judged(bare: Task, verifier: Verifier, text: str) -> Score:
    """The score of an answer, sent as plain data; invalid where not even `verdict` comes back."""
    try:
        score = verdict(Task(bare.id, bare.messages, bare.answer, verifier, bare.meta), text)
        pickle.dumps(score)
    except BaseException as error:  # noqa: BLE001 - a verifier that calls sys.exit must not end the worker unsaid
        return invalid("crash", f"the verifier raised {type(error).__name__}: {error}")
    return score


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent ends; where there is no such call, the connection's end
    serves. Leaves at once if the parent has already gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() == 1 and os.environ.get("ONEPOLICY_POOL_PARENT") != "1":
        os._exit(0)


def bound_memory(memory: int) -> None:
    """Limit this process's address space to `memory` bytes above what it has now; no core files.

    The limit is the soft one, so that a sandbox started from here can set its own.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform != "linux":
        return
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = pages * resource.getpagesize() + memory
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


if __name__ == "__main__":
    nursery(Connection(int(sys.argv[1])))
