"""What every recipe does after a step: log, evaluate, save, stop when asked to."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onepolicy.errors import ConfigError, TrainingError
from onepolicy.run import doctor
from onepolicy.run.config import EXIT_INTERRUPTED, to_json
from onepolicy.run.run import Run
from onepolicy.types import Metrics


def run_directory(out: str, recipe: str) -> Path:
    """The directory a run goes to: `out`, or the first free runs/<recipe>-<n>."""
    if out:
        return Path(out)
    n = 1
    while (path := Path("runs") / f"{recipe}-{n}").exists():
        n += 1
    return path


def open_run(recipe: str, config: Any, resume: Path | None, data: Mapping[str, str]) -> Run:
    """The run to train in: a new one, or the one to go on with, tied to its data (name -> fingerprint).

    Raises: ConfigError for a directory in use; CheckpointError for none to resume; DataError when the data changed.
    """
    if resume is None:
        return Run.create(run_directory(config.out, recipe), recipe=recipe, config=to_json(config), data=data)
    run = Run.open(resume)
    run.use_data(data)
    return run


def require_positive(config: Any, *names: str) -> None:
    """Raises ConfigError for the first of the fields that is a number, not None, and not at least 1."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value < 1:
            raise ConfigError(f"{name} is {value}; it counts something and is at least 1. Set {name} >= 1.")


def require_count(config: Any, *names: str) -> None:
    """Raises ConfigError for the first of the fields that is below 0."""
    for name in names:
        value = getattr(config, name)
        if value < 0:
            raise ConfigError(f"{name} is {value}; it counts something or is 0 for none. Set {name} >= 0.")


@dataclass
class Loop:
    """The bookkeeping around a training loop; its `after_step` is what `fit()` calls.

    evaluate: measured at multiples of eval_every and after the last step; its metrics join the step's. last: what it
    said last. parts: what a checkpoint holds. shown: metric -> short name, on the progress bar. timing: what else the
    clock said of the step. stop_on: names or severities of the doctor's findings at which training stops, looked for
    with each evaluation and checkpoint. started: of the session.
    """

    run: Run
    bar: Any
    steps: int
    eval_every: int
    save_every: int
    evaluate: Callable[[int], Metrics]
    parts: Mapping[str, Any]
    shown: Mapping[str, str]
    timing: Callable[[], Metrics] = dict
    stop_on: tuple[str, ...] = ()
    alarm: str = ""
    last: Metrics | None = None
    started: float = field(default_factory=time.perf_counter)

    def after_step(self, step: int, metrics: Metrics) -> bool:
        """Record the finished 1-based step; True when training must stop here."""
        done = step >= self.steps
        seconds = time.perf_counter() - self.started
        if (self.eval_every and step % self.eval_every == 0) or done:
            self.last = self.evaluate(step)
            metrics |= self.last
        self.run.log(step, metrics, {"time/step_seconds": seconds, **self.timing()})
        self.bar.advance(1, **{short: metrics[name] for name, short in self.shown.items() if name in metrics})
        due = any(every and step % every == 0 for every in (self.eval_every, self.save_every))
        if self.stop_on and due and not done:
            self.alarm = self._heard()
        if done or self.alarm or self.run.interrupted or (self.save_every and step % self.save_every == 0):
            self.run.save(step, **self.parts)
        self.started = time.perf_counter()
        return (self.run.interrupted or bool(self.alarm)) and not done

    def _heard(self) -> str:
        """The first finding to stop at, in words; "" for none."""
        found = doctor.alarms(doctor.diagnose(self.run.directory), self.stop_on)
        return f"{found[0].name}. {found[0].words} {found[0].advice}".strip() if found else ""

    def at_the_end(self) -> Metrics:
        """What was measured after the last step; measured now where no step was left to take."""
        return self.evaluate(self.steps) if self.last is None else self.last

    def stop_if_interrupted(self) -> None:
        """Leave when a signal or an alarm ended training early; the checkpoint is already saved.

        A signal leaves with its distinct exit code. Raises: TrainingError for an alarm, with the finding.
        """
        if self.alarm:
            raise TrainingError(
                f"stopped by the doctor: {self.alarm} The run is saved; see onepolicy doctor "
                f"{self.run.directory}, and go on without stop_on if that is wanted."
            )
        if self.run.interrupted:
            print(f"Interrupted and saved. Continue with: onepolicy resume {self.run.directory}")
            raise SystemExit(EXIT_INTERRUPTED)


def alarms_of(words: str) -> tuple[str, ...]:
    """The findings that a comma-separated list names.

    >>> alarms_of("problem, reward hacking")
    ('problem', 'reward hacking')
    """
    return tuple(word.strip() for word in words.split(",") if word.strip())
