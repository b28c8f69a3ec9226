"""The bookkeeping of seeds that train side by side in one process, on a clock of environment steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from onepolicy.evaluation.returns import over_seeds
from onepolicy.recipes.callbacks import Watch
from onepolicy.run.journal import read_lines
from onepolicy.run.progress import Bar
from onepolicy.run.run import Run
from onepolicy.types import Metrics

LOG_EVERY = 1000
"""Steps between lines of metrics.jsonl; evaluated and last steps are always logged."""


@dataclass
class Loop:
    """After each step of every seed. Metrics of one seed have their names; of several, the names are means, and each
    seed's own are `seed<n>/...`.

    evaluate: steps so far -> metrics of each seed. played: metrics of each seed's last episodes. parts: of a
    checkpoint. done: steps at the last call. over: whether training was ended before its last step.
    """

    run: Run
    steps: int
    eval_every: int
    save_every: int
    bar: Bar
    evaluate: Callable[[int], list[Metrics]]
    played: Callable[[], list[Metrics]]
    parts: Mapping[str, Any]
    seeds: Sequence[int]
    watch: Watch
    done: int = 0
    over: bool = False
    logged: int = field(init=False)
    started: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self.logged = self.done

    def begin(self) -> None:
        """The first line: what an untrained policy does."""
        self.run.log(0, self._named(self.evaluate(0)))

    def after_step(self, steps: int, learnt: Mapping[str, Tensor]) -> bool:
        """Log, evaluate and save where a multiple of their intervals was passed; True when training must stop."""
        finished = steps >= self.steps
        exam = finished or self._passed(self.eval_every, steps)
        if exam or self.run.interrupted or self._passed(LOG_EVERY, steps):
            found = self.played()
            for name, values in learnt.items():
                for metrics, value in zip(found, values.tolist(), strict=True):
                    metrics[name] = value
            if exam:
                self._measure(steps, found)
            self.over = self.watch.stops(steps, self._named(found)) and not finished
            if self.over and not exam:
                self._measure(steps, found)
            self._log(steps, found)
        if finished or self.over or self.run.interrupted or self._passed(self.save_every, steps):
            self.run.save(steps, **self.parts)
        self.watch.film(steps, self.done, finished=finished or self.over)
        self.done = steps
        return (self.run.interrupted or self.over) and not finished

    def _measure(self, steps: int, found: list[Metrics]) -> None:
        for metrics, measured in zip(found, self.evaluate(steps), strict=True):
            metrics |= measured

    def _log(self, steps: int, found: list[Metrics]) -> None:
        seconds = time.perf_counter() - self.started
        metrics = self._named(found)
        self.run.log(steps, metrics, {"rate/env_steps_per_second": (steps - self.logged) * len(self.seeds) / seconds})
        shown = {"rollout/return": "return", "eval/return": "evaluated"}
        self.bar.advance(steps - self.logged, **{name: metrics[k] for k, name in shown.items() if k in metrics})
        self.logged, self.started = steps, time.perf_counter()

    def _named(self, found: list[Metrics]) -> Metrics:
        if len(self.seeds) == 1:
            return dict(found[0])
        names = [name for name in found[0] if all(name in metrics for metrics in found)]
        means = {name: float(np.mean([metrics[name] for metrics in found])) for name in names}
        own = {
            f"seed{s}/{name}": value
            for s, metrics in zip(self.seeds, found, strict=True)
            for name, value in metrics.items()
        }
        return means | own

    def _passed(self, every: int, steps: int) -> bool:
        return every > 0 and steps // every > self.done // every


def reached(watch: Watch, directory: Path, seeds: Sequence[int]) -> bool:
    """Whether a run that goes on has nothing left to do: its last evaluation came up to stop_at_return."""
    scores = last_of(directory, seeds, "eval/return")
    return watch.reached({f"seed{seed}/eval/return": score for seed, score in scores.items()})


def last_of(directory: Path, seeds: Sequence[int], name: str) -> dict[int, float]:
    """The latest value of a metric of each seed of a run; -inf for one that has none."""
    prefixes = {seed: f"seed{seed}/{name}" if len(seeds) > 1 else name for seed in seeds}
    found = dict.fromkeys(seeds, float("-inf"))
    for line in read_lines(directory / "metrics.jsonl"):
        for seed, key in prefixes.items():
            if line.get(key) is not None:
                found[seed] = float(line[key])
    return found


def table_of(scores: Mapping[int, float]) -> str:
    """The seeds' scores as lines of text, then their mean and interquartile mean with 95 % bootstrap intervals."""
    rows = [f"seed {seed:>4}  {score:>10.1f}" for seed, score in scores.items()]
    found = over_seeds(list(scores.values()))
    rows += [f"{name:<9}  {i.value:>10.1f}  [{i.low:.1f}, {i.high:.1f}]" for name, i in found.items()]
    return "\n".join(rows)
