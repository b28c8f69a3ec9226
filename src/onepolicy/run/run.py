"""The run: one directory is one experiment, with its configuration, metrics, samples and checkpoints.

    with Run.create(config.out, recipe="grpo", config=to_json(config)) as run:
        step = run.resume(learner=learner, policy=policy)
        while step < config.steps and not run.interrupted:
            step += 1
            ...
            run.log(step, metrics, timing)
            if step % config.save_every == 0 or run.interrupted:
                run.save(step, learner=learner, policy=policy)

A step is logged before it is saved: on resume the files are cut back to the checkpoint's step, to the byte.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, final

from onepolicy.errors import CheckpointError, ConfigError, DataError
from onepolicy.run import manifest
from onepolicy.run.config import config_hash, differences
from onepolicy.run.files import out_of_space, replace_object
from onepolicy.run.header import HEADER, free_directory, new_header, read_header
from onepolicy.run.journal import Journal
from onepolicy.run.metrics import Sink, checked, open_sink, resources
from onepolicy.run.process import Signals, State, alive, git_revision, read_status, versions, write_status
from onepolicy.run.progress import console
from onepolicy.types import Metrics

if TYPE_CHECKING:
    from onepolicy.run.checkpoint import Part

_PART = re.compile(r"[a-z][a-z0-9_]*")


@final
class Run:
    """A run directory. Made by `create`, or by `open` for one that exists; enter it (`with run:`) to train.

    directory: where it is. recipe: the recipe's name. config: its configuration as JSON. interrupted: True once
    SIGTERM or SIGINT arrived: finish the step, save, return, exit with EXIT_INTERRUPTED.
    """

    def __init__(self, directory: Path, header: Mapping[str, Any]) -> None:
        self.directory = directory
        self.recipe: str = header["recipe"]
        self.config: dict[str, Any] = header["config"]
        self.interrupted = False
        self._header = dict(header)
        self._metrics = Journal(directory / "metrics.jsonl")
        self._timing = Journal(directory / "timing.jsonl")
        self._samples = Journal(directory / "samples.jsonl")
        self._journals = (self._metrics, self._timing, self._samples)
        self._sink: Sink | None = None
        self._signals = Signals(self._ask_to_stop)

    @staticmethod
    def create(
        directory: str | Path,
        *,
        recipe: str,
        config: Mapping[str, Any],
        data: Mapping[str, str] | None = None,
        tracker: str = "",
        keep_checkpoints: int = 2,
        fresh: bool = True,
    ) -> Run:
        """A new run directory; "" means the first free runs/<recipe>-<n>.

        recipe, config: what runs (config by `to_json`). data: data set name -> fingerprint, see `use_data`. tracker:
        "", or "tensorboard", "wandb", "trackio" to send metrics there too. keep_checkpoints: how many stay.
        fresh: False goes on with the directory when it is a run of this recipe and configuration.
        Raises: ConfigError when the directory is not empty, or the tracker is unknown or not installed.
        """
        path = Path(directory) if str(directory) else free_directory(recipe)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            if not fresh:
                return _same(Run.open(path), recipe, config)
            raise ConfigError(
                f"{path} exists and is not empty; a new run needs a new directory. Give --out another name, or go on "
                f"with the run in it: onepolicy resume {path}"
            )
        header = new_header(recipe, config, data or {}, tracker, keep_checkpoints)
        run = Run(path, header)
        run._sink = open_sink(tracker, path, recipe, config)
        try:
            path.mkdir(parents=True, exist_ok=True)
            replace_object(path / HEADER, header)
            write_status(path, "running")
        except OSError as error:
            raise ConfigError(
                f"{path} cannot be made: {error}. Give --out a directory with room to write in."
            ) from error
        return run

    @staticmethod
    def open(directory: str | Path) -> Run:
        """The run in a directory, nothing written; for resuming, plotting and the doctor.

        Raises: CheckpointError when there is no such directory, it is no run, or its config.json is damaged.
        """
        return Run(Path(directory), read_header(Path(directory)))

    def __enter__(self) -> Run:
        self._signals.__enter__()
        self._mark("running")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._signals.__exit__()
        status = read_status(self.directory)
        if isinstance(error, KeyboardInterrupt) or (isinstance(error, SystemExit) and self.interrupted):
            self._mark("interrupted")
        elif error is not None:
            self._mark("failed", f"{type(error).__name__}: {error}")
        elif status is not None and status.state == "running":
            self._mark("interrupted" if self.interrupted else "finished")
        self.close()

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are."""
        return self.directory / "checkpoints"

    def say(self, words: str) -> None:
        """Tells the user, on the console and in log.txt with the time."""
        console().print(words, markup=False)
        try:
            with (self.directory / "log.txt").open("a", encoding="utf-8") as file:
                file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {words}\n")
        except OSError as error:
            if not out_of_space(error):
                raise

    def use_data(self, fingerprints: Mapping[str, str]) -> None:
        """Ties the run to its data sets (name -> fingerprint): noted the first time, compared ever after.

        Raises: DataError when a data set is not the one the run began with.
        """
        known: dict[str, str] = self._header["data"]
        changed = [name for name in known if fingerprints.get(name, known[name]) != known[name]]
        if changed:
            raise DataError(
                f"The data of {', '.join(changed)} changed since {self.directory} began; resuming would mix two "
                "experiments. Restore the file, or start a new run."
            )
        if dict(fingerprints) | known != known:
            known.update(fingerprints)
            replace_object(self.directory / HEADER, self._header)

    def log(self, step: int, metrics: Metrics, timing: Metrics | None = None) -> None:
        """Writes a step's metrics to metrics.jsonl and its wall-clock numbers to timing.jsonl, and to the tracker.

        step: optimizer steps done; 0 is before training. metrics: `area/name` -> number, the same at every repetition
        with the same seed. timing: what depends on the machine (seconds, tokens/s); time, memory are added.
        """
        clean, clock = checked(metrics), checked(timing or {})
        if self._sink is None and self._header.get("tracker"):
            self._sink = open_sink(self._header["tracker"], self.directory, self.recipe, self.config)
        written = self._metrics.append({"step": step, **clean})
        written &= self._timing.append({"step": step, **clock, **resources()})
        if not written and len(self._metrics.waiting) == 1:
            self.say(
                f"The disk of {self.directory} is full; metrics wait in memory from step {step} on. Free some room."
            )
        if self._sink is not None:
            self._sink.log(step, {**clean, **clock})

    def sample(self, step: int, records: Sequence[Mapping[str, Any]]) -> None:
        """Writes a step's samples (prompt, completion, score, ...) to samples.jsonl."""
        for record in records:
            self._samples.append({"step": step, **record})

    def save(self, step: int, **parts: Part) -> Path | None:
        """An atomic checkpoint of step `step`; its directory, or None when the disk is full (said; training goes on).

        step: at least 1, already logged. parts: by name, see `checkpoint.Part`.
        Raises: CheckpointError when a part cannot be stored.
        """
        from onepolicy.run.checkpoint import write_checkpoint

        if step < 1 or not parts or not all(_PART.fullmatch(name) for name in parts):
            raise CheckpointError(
                f"save(step={step}, parts={', '.join(parts) or 'none'}); expected a step of at least 1 and parts named "
                "in lower case. Step 0 is the untrained start, which a new start makes again."
            )
        synced = [journal.flush(sync=True) for journal in self._journals]
        facts = {"step": step, "recipe": self.recipe, "config": self.config, "data": self._header["data"]}
        facts |= {"config_hash": self._header["config_hash"], "git": git_revision(), "versions": dict(versions())}
        path = write_checkpoint(self.checkpoints, step, parts, facts) if all(synced) else None
        if path is None:
            self.say(f"No checkpoint at step {step}: the disk of {self.directory} is full. The last one is intact.")
            return None
        manifest.prune(self.checkpoints, self._header.get("keep_checkpoints", 2))
        return path

    def resume(self, **parts: Part) -> int:
        """The step of the newest valid checkpoint, loaded into `parts`; 0 when there is none.

        The metrics, timing and sample files are cut back to that step. Damaged checkpoints are moved aside, said.
        Raises: CheckpointError when another process still runs the run, the configuration is not the checkpoint's,
        or the parts are not the saved ones.
        """
        from onepolicy.run.checkpoint import load_parts

        self._refuse_if_alive()
        manifest.sweep(self.checkpoints, self.say)
        found = manifest.newest(self.checkpoints, self.say)
        if found is not None:
            step, path, facts = found
            self._check(path, facts)
            load_parts(path, parts, every=True)
            self.say(f"Resumed {self.directory} at step {step}.")
        for journal in self._journals:
            journal.cut(step if found else -1)
        self._mark("running")
        return step if found else 0

    def load(self, **parts: Part) -> int:
        """As `resume`, for reading only: some of the saved parts, nothing cut, moved or marked.

        Raises: CheckpointError when there is no valid checkpoint or it lacks a part.
        """
        from onepolicy.run.checkpoint import load_parts

        step, path, _ = manifest.newest_readable(self.checkpoints)
        load_parts(path, parts, every=False)
        return step

    def finish(
        self,
        summary: str,
        *,
        tables: Mapping[str, str] | None = None,
        before: Sequence[Mapping[str, Any]] = (),
        after: Sequence[Mapping[str, Any]] = (),
    ) -> Path | None:
        """Ends the run: curves.png and report.md, status finished; the report's path, None when the disk is full.

        summary: what came out, in words. tables: title -> preformatted text, such as an evaluation's. before, after:
        transcripts, records with prompt, completion, score.
        """
        from onepolicy.run.report import write_report

        for journal in self._journals:
            journal.flush(sync=True)
        self._mark("finished")
        try:
            return write_report(self.directory, summary, tables=tables, before=before, after=after)
        except OSError as error:
            if not out_of_space(error):
                raise
            self.say(f"No report: the disk of {self.directory} is full.")
            return None
        finally:
            self.close()

    def close(self) -> None:
        """Closes the files and the tracker."""
        for journal in self._journals:
            journal.close()
        if self._sink is not None:
            self._sink.close()
            self._sink = None

    def _check(self, path: Path, facts: Mapping[str, Any]) -> None:
        """Raises CheckpointError when a checkpoint is of another configuration; says when versions differ."""
        if facts["config_hash"] != config_hash(self.config):
            changed = "; ".join(differences(facts["config"], self.config)) or "fields' order or types"
            raise CheckpointError(
                f"{path} was made with another configuration ({changed}). Restore {HEADER}, or start a new run."
            )
        now = versions()
        other = [f"{name} {old} -> {now.get(name)}" for name, old in facts["versions"].items() if now.get(name) != old]
        if other:
            self.say(
                f"Other versions than the checkpoint's ({', '.join(other)}): numbers may differ in the last digits."
            )

    def _refuse_if_alive(self) -> None:
        status = read_status(self.directory)
        if status and status.state == "running" and status.pid != os.getpid() and alive(status):
            raise CheckpointError(
                f"{self.directory} is still being run by process {status.pid}; two would overwrite each other. Stop it "
                f"first (kill {status.pid} saves and exits)."
            )

    def _mark(self, state: State, error: str = "") -> None:
        try:
            write_status(self.directory, state, error)
        except OSError as problem:
            if not out_of_space(problem):
                raise

    def _ask_to_stop(self, name: str) -> None:
        self.interrupted = True
        self.say(f"{name}: finishing this step, then saving. Ctrl-C again stops at once, without saving.")


def _same(run: Run, recipe: str, config: Mapping[str, Any]) -> Run:
    """`run`, if it is of this recipe and configuration. Raises ConfigError."""
    changed = differences(run.config, config)
    if run.recipe != recipe or changed:
        words = "; ".join(changed) or f"recipe: {run.recipe} -> {recipe}"
        raise ConfigError(f"{run.directory} is another experiment ({words}). Give --out another name.")
    return run
