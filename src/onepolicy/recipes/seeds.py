"""Several seeds of a control run: each a run of its own below one directory, as many at once as there are cores for.

Every seed trains in a process of its own, so that its numbers are those of a run alone. The parent shows progress,
passes a signal on, gathers the seeds' metrics under `seed<n>/` and reports mean and interquartile mean.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from subprocess import Popen

from onepolicy.envs.vector import make
from onepolicy.errors import ConfigError, TrainingError
from onepolicy.recipes import control, lockstep
from onepolicy.recipes.callbacks import Callback
from onepolicy.recipes.control import last_metrics
from onepolicy.recipes.control_config import Config
from onepolicy.recipes.side_by_side import table_of
from onepolicy.run.config import EXIT_INTERRUPTED, from_json
from onepolicy.run.journal import read_lines
from onepolicy.run.process import read_status
from onepolicy.run.progress import Bar, progress
from onepolicy.run.report import Report
from onepolicy.run.run import Run

POLL = 0.25
"""Seconds between looks at the processes."""
TAIL = 2**16
"""Bytes at the end of a file that hold its last line."""


def seed_configs(config: Config, directory: Path) -> list[Config]:
    """The configuration of each seed."""
    numbers = range(config.seed, config.seed + config.seeds)
    return [replace(config, seed=seed, seeds=1, out=str(directory / f"seed-{seed}")) for seed in numbers]


def train_seeds(config: Config, resume: Path | None = None, callbacks: Sequence[Callback] = ()) -> Report:
    """Train all seeds, or those a resumed run has not finished.

    Raises: TrainingError with the last words of a seed that failed; SystemExit when interrupted, all seeds saved.
    """
    # a world that cannot be made is one error here, not one in every process
    env = make(config.env, 1, config.seed, replace(config.world, workers=0))
    if lockstep.in_lockstep(config, env) and not (resume and apart(resume)):
        return lockstep.main(config, resume, callbacks)
    if callbacks:
        raise ConfigError(
            f"callbacks with {config.seeds} seeds that train in processes of their own, where they cannot be called. "
            "Train one seed at a time, or PPO without target_kl or A2C, whose seeds train in this process."
        )
    run = control.open_run(config, resume)
    configs = seed_configs(config, run.directory)
    with run:
        with progress(config.steps * config.seeds, f"{config.algo} {config.env}, {config.seeds} seeds") as bar:
            _Workers(run, configs, bar).work(max(1, (os.cpu_count() or 1) // config.threads))
        text = "" if run.interrupted else report(run, config, configs)
    if run.interrupted:
        print(f"Interrupted and saved. Continue with: onepolicy resume {run.directory}")
        raise SystemExit(EXIT_INTERRUPTED)
    return replace(control.load(run), run_dir=run.directory, text=text)


class _Workers:
    """The seeds' processes, at most a few at once."""

    def __init__(self, run: Run, configs: Sequence[Config], bar: Bar) -> None:
        self.run, self.configs, self.bar = run, configs, bar
        self.shown = 0
        self.told: set[int] = set()

    def work(self, at_once: int) -> None:
        """Runs every seed that has not reached its last step."""
        waiting = [c for c in self.configs if not _finished(Path(c.out))]
        running: dict[int, Popen[bytes]] = {}
        try:
            while running or (waiting and not self.run.interrupted):
                while waiting and len(running) < at_once and not self.run.interrupted:
                    following = waiting.pop(0)
                    running[following.seed] = self._start(following)
                time.sleep(POLL)
                self._show()
                if self.run.interrupted:
                    self._stop(running)
                for seed in [seed for seed, process in running.items() if process.poll() is not None]:
                    self._check(seed, running.pop(seed).returncode)
        finally:
            self._stop(running)
            for process in running.values():
                process.wait()

    def _start(self, config: Config) -> Popen[bytes]:
        threads = str(config.threads)
        with self._log(config.seed).open("ab") as log:
            return Popen(
                [sys.executable, "-m", "onepolicy.recipes.seeds", str(self.run.directory), str(config.seed)],
                env={**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _stop(self, running: dict[int, Popen[bytes]]) -> None:
        """Asks the processes, once each, to save and exit."""
        for seed, process in running.items():
            if seed not in self.told and process.poll() is None:
                process.terminate()
                self.told.add(seed)

    def _check(self, seed: int, code: int) -> None:
        if code == 0 or (code == EXIT_INTERRUPTED and self.run.interrupted):
            return
        words = self._log(seed).read_text(encoding="utf-8", errors="replace").strip().splitlines()[-5:]
        raise TrainingError(
            f"seed {seed} ended with exit code {code}: {' '.join(words)} All of it is in {self._log(seed)}; the other "
            f"seeds were asked to save. Go on with: onepolicy resume {self.run.directory}"
        )

    def _show(self) -> None:
        newest = [_newest(Path(c.out)) for c in self.configs]
        done = sum(min(int(line.get("step", 0)), c.steps) for line, c in zip(newest, self.configs, strict=True))
        if done > self.shown:
            found = [line["rollout/return"] for line in newest if line.get("rollout/return") is not None]
            self.bar.advance(done - self.shown, **({"return": sum(found) / len(found)} if found else {}))
            self.shown = done

    def _log(self, seed: int) -> Path:
        return self.run.directory / f"seed-{seed}.log"


def report(run: Run, config: Config, configs: Sequence[Config]) -> str:
    """The seeds' metrics in the run's own files, and the table of their last evaluations."""
    run.resume()
    merged: dict[int, dict[str, float]] = {}
    for c in configs:
        for line in read_lines(Path(c.out) / "metrics.jsonl"):
            step = line.pop("step")
            named = {f"seed{c.seed}/{key}": value for key, value in line.items() if value is not None}
            merged.setdefault(step, {}).update(named)
    for step in sorted(merged):
        run.log(step, merged[step])
    scores = {c.seed: last_metrics(Path(c.out))["eval/return"] for c in configs}
    table = table_of(scores)
    summary = (
        f"{config.algo} on {config.env}, {config.seeds} seeds: mean return over {config.eval_episodes} greedy episodes "
        f"of each seed's last policy, after {config.steps:,} steps; intervals are 95 % bootstrap over seeds."
    )
    run.finish(summary, tables={"Return by seed": table})
    return f"{summary}\n{table}"


def apart(directory: Path) -> bool:
    """Whether a run's seeds trained in processes of their own."""
    return any(directory.glob("seed-*"))


def best_seed(config: Config, directory: Path) -> Path:
    """The directory of the seed whose last evaluation is best."""
    return max(
        (Path(c.out) for c in seed_configs(config, directory)), key=lambda path: last_metrics(path)["eval/return"]
    )


def work(directory: Path, seed: int) -> None:
    """Train one seed of the run in `directory`, from where it stopped."""
    config = from_json(Config, Run.open(directory).config)
    mine = next(c for c in seed_configs(config, directory) if c.seed == seed)
    place = Path(mine.out)
    control.main(mine, place if (place / "config.json").exists() else None)


def _finished(directory: Path) -> bool:
    status = read_status(directory)
    return status is not None and status.state == "finished"


def _newest(directory: Path) -> dict[str, float]:
    """The newest whole line of a run's metrics, read from the end of the file; nothing before the first."""
    path = directory / "metrics.jsonl"
    if not path.exists():
        return {}
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        lines = file.read().split(b"\n")
    found: dict[str, float] = json.loads(lines[-2]) if len(lines) > 1 else {}
    return found


if __name__ == "__main__":
    work(Path(sys.argv[1]), int(sys.argv[2]))
