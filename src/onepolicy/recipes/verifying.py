"""Who judges completions in a run: the user's function, verifiers in this process, or verifiers in worker processes."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, final

from onepolicy.errors import ConfigError, nearest
from onepolicy.recipes.options import Machine
from onepolicy.tasks.base import TaskSet, as_reward
from onepolicy.tasks.pool import PoolStats, VerifierPool
from onepolicy.tasks.text import METRICS, Metric, OverlapVerifier
from onepolicy.tasks.verdicts import Scorer, verify_each
from onepolicy.types import Metrics, Score, Task


@final
class Judge:
    """What scores a run's completions; a context that ends its worker processes.

    sets: the run's task sets. When one of them is isolated its verifiers judge in a pool as `machine` says, else in
    this process. reward: the user's own scorer for training, None for the tasks' verifiers.
    """

    def __init__(self, machine: Machine, *sets: TaskSet, reward: Scorer | None = None) -> None:
        modules = tuple(dict.fromkeys(module for tasks in sets if tasks.isolated for module in tasks.modules))
        self._pool: VerifierPool | None = None
        if any(tasks.isolated for tasks in sets):
            self._pool = VerifierPool(
                machine.verifier_workers or None,
                timeout=machine.verifier_timeout,
                memory=machine.verifier_memory,
                modules=modules,
            )
        self._reward = reward
        self._seconds = 0.0

    def verify(self, pairs: Sequence[tuple[Task, str]]) -> list[Score]:
        """The scores of the tasks' own verifiers, which exams count."""
        return verify_each(pairs) if self._pool is None else self._pool.score(pairs)

    def score(self, pairs: Sequence[tuple[Task, str]]) -> list[Score]:
        """The scores that training learns from; the time is counted."""
        began = time.perf_counter()
        try:
            return (self._reward or self.verify)(pairs)
        finally:
            self._seconds += time.perf_counter() - began

    def timing(self) -> Metrics:
        """`time/verify_seconds` of `score` since the last call."""
        seconds, self._seconds = self._seconds, 0.0
        return {"time/verify_seconds": seconds}

    def stats(self) -> PoolStats | None:
        """The pool's counts, None where there is none."""
        return None if self._pool is None else self._pool.stats()

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.close()


def scorer_of(path: str) -> Scorer:
    """The scorer of `module:function` or `path/to/file.py:function`, or each task's own verifier when empty.

    A metric's name (tasks/text.py: bleu, chrf, rougeL, …) is the overlap with the task's answer and references, in
    [0, 1]. Modules are looked for in the current directory too.
    Raises: ConfigError when it cannot be imported; RewardError when it cannot be called as a reward function.
    """
    if not path:
        return verify_each
    named: dict[str, Metric] = {metric: metric for metric in METRICS}
    if path in named:
        return overlap(named[path])
    place, _, name = path.rpartition(":")
    if not place and path.isidentifier():
        raise ConfigError(f"reward {path!r} cannot be imported: give module:function. {nearest(path, METRICS)}")
    try:
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
        module = _file_module(Path(place)) if place.endswith(".py") else importlib.import_module(place)
        function = getattr(module, name)
    except Exception as error:
        raise ConfigError(
            f"reward {path!r} cannot be imported ({type(error).__name__}: {error}); give it as module:function, with "
            "module.py in the current directory or on PYTHONPATH, or as path/to/file.py:function."
        ) from error
    reward = as_reward(function)

    def score(pairs: Sequence[tuple[Task, str]]) -> list[Any]:
        return reward.batch([task for task, _ in pairs], [text for _, text in pairs])

    return score


def overlap(metric: Metric) -> Scorer:
    """The scorer that compares every completion with its task's references, by a metric of tasks/text.py."""
    verifier = OverlapVerifier(metric)
    return lambda pairs: verify_each([(replace(task, verifier=verifier), text) for task, text in pairs])


def _file_module(file: Path) -> ModuleType:
    """The module in a file, which may import its neighbours."""
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    folder = str(file.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module
