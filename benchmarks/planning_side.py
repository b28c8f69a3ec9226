"""What the sides of planning.py share: a problem from its file, a run under limits of time and memory, its measures.

A problem is a directory: model.npz as `onepolicy.tabular.layouts.save` writes it, discount.json, and reference.npy, the
value certified to REFERENCE. Numpy and the standard library only: it is imported in the peers' environment too.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from common import Record, write_json

TOLERANCE = 1e-3
"""The greatest error of a value that is asked for."""
REFERENCE = 1e-6
"""How near the reference is to V*."""
ENOUGH = 15.0
"""Seconds of repeated solving after which one measurement is long enough."""


def guarded(measure: Callable[[], Record], limit: float, out: str) -> None:
    """Writes what `measure` returns to `out`; or {"ended": why} for over the limit, out of memory, or an error.

    It runs in a child process, which dies after `limit` seconds of `measured`, even within compiled code, and may use
    80 % of the memory that is available.
    """
    child = os.fork()
    if child == 0:
        most = int(0.8 * available())
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        try:
            record = measure()
        except MemoryError:
            record = {"ended": "memory"}
        except Exception as error:  # noqa: BLE001 - a peer that fails is a result
            record = {"ended": "error", "error": f"{type(error).__name__}: {error}"[:300]}
        write_json(out, record | {"limit": limit})
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        how = "limit" if os.WTERMSIG(status) == signal.SIGALRM else f"signal {os.WTERMSIG(status)}"
        write_json(out, {"ended": how, "limit": limit})


def measured(
    problem: Path, setup: Callable[[], Any], solve: Callable[[Any], Record], repeats: int, limit: float
) -> Record:
    """Seconds of `setup` and of `solve` (median of up to `repeats`), peak memory, and the true error of the value.

    solve returns a record with the value [S]; the memory is the process's, its libraries included.
    """
    before = peak()
    signal.setitimer(signal.ITIMER_REAL, limit)
    started = time.perf_counter()
    ready = setup()
    prepared, seconds = time.perf_counter() - started, []
    while not seconds or (len(seconds) < repeats and sum(seconds) < ENOUGH):
        signal.setitimer(signal.ITIMER_REAL, limit)
        started = time.perf_counter()
        found = solve(ready)
        seconds.append(time.perf_counter() - started)
    signal.setitimer(signal.ITIMER_REAL, 0)
    value = np.asarray(found.pop("value"), dtype=np.float64)
    record = {"ended": "done", "setup": prepared, "seconds": median(seconds), "all_seconds": seconds}
    record |= {"peak_bytes": peak(), "libraries_bytes": before}
    return record | found | {"true_error": float(np.abs(value - np.load(problem / "reference.npy")).max())}


def peak() -> int:
    """The most memory that this process has had at once, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def available() -> int:
    """Bytes that can be had without swapping."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))


def discount_of(problem: Path) -> float:
    """The discount of a problem."""
    return float(json.loads((problem / "discount.json").read_text()))


def rows_of(problem: Path) -> tuple[np.ndarray, ...]:
    """For peers: the state and the action of each row, its reward, and ptr, successors, probabilities of a CSR matrix.

    Every state has the same number of actions: those of a terminal one stay there for nothing.
    """
    with np.load(problem / "model.npz") as file:
        model = dict(file)
    states, ends = len(model["terminal"]), np.flatnonzero(model["terminal"])
    if str(model["storage"]) == "Table":
        to, rewards = model["successors"], model["rewards"]
        to[ends], rewards[ends] = ends[:, None], 0.0
        actions = to.shape[1]
        ptr, successors, probabilities = np.arange(to.size + 1), to.ravel(), np.ones(to.size)
        rewards = rewards.ravel()
    else:
        counts = np.diff(model["row_ptr"])
        actions = int(counts.max())
        at = np.repeat(model["row_ptr"][ends], actions)
        loops = np.repeat(ends, actions)
        where = model["ptr"][at]
        successors = np.insert(model["successors"], where, loops)
        probabilities = np.insert(model["probabilities"].astype(np.float64), where, 1.0)
        rewards = np.insert(model["rewards"], at, 0.0)
        lengths = np.insert(np.diff(model["ptr"]), at, 1)
        ptr = np.concatenate([[0], np.cumsum(lengths)])
    state, action = np.repeat(np.arange(states), actions), np.tile(np.arange(actions), states)
    return state, action, rewards, ptr, successors, probabilities
