"""The doctor's rules about a run's body: its process, its checkpoints, the disk, its speed and memory."""

from __future__ import annotations

import shutil
import statistics
import time

from onepolicy.errors import CheckpointError
from onepolicy.run.files import tree_bytes
from onepolicy.run.history import Finding, History
from onepolicy.run.manifest import saved_steps, step_path, verify
from onepolicy.run.process import alive

SILENT_STEPS, SILENT_SECONDS = 10, 120
SLOWER = 2.0
GROWN, GROWN_MIB = 2.0, 1024
ROOM = 3
"""Checkpoints that should still fit on the disk."""


def state(run: History) -> list[Finding]:
    """Whether the run is alive, finished, interrupted, failed, or died without a word."""
    step, status = run.last_step, run.status
    again = f"Go on with: onepolicy resume {run.directory}"
    if status is None:
        return [Finding("warning", "state unknown", f"There is no status.json; last logged step {step}.", again)]
    if status.state == "finished":
        return [Finding("info", "finished", f"The run ended by itself at step {step}.")]
    if status.state == "interrupted":
        return [Finding("info", "interrupted", f"The run was asked to stop at step {step}.", again)]
    if status.state == "failed":
        return [Finding("problem", "failed", f"The run stopped at step {step} with {status.error}", again)]
    living = alive(status)
    if living is None:
        words = f"Process {status.pid} on {status.host} runs it, or did: that cannot be seen from this machine."
        return [Finding("info", "elsewhere", f"{words} Last logged step {step}.")]
    if living:
        return _silence(run, status.pid) or [Finding("info", "alive", f"Process {status.pid} is at step {step}.")]
    words = f"Process {status.pid} is gone and left no word: killed, out of memory, or a power cut. Last step {step}."
    return [Finding("problem", "died", words, again)]


def _silence(run: History, pid: int) -> list[Finding]:
    """A living process that has logged nothing for much longer than its steps take."""
    clock = run.timing.get("time/unix")
    if clock is None or len(clock.values) < 3:
        return []
    usual = statistics.median(b - a for a, b in zip(clock.values, clock.values[1:]))
    silent = time.time() - clock.values[-1]
    if silent < max(SILENT_SECONDS, SILENT_STEPS * usual):
        return []
    words = f"Process {pid} lives but has logged nothing for {silent:.0f} s; its steps took {usual:.1f} s."
    return [Finding("warning", "silent", words, "See whether it computes (top) or hangs; killing it with TERM saves.")]


def checkpoints(run: History) -> list[Finding]:
    """Which checkpoints verify, and what a resume would cost."""
    root = run.directory / "checkpoints"
    steps = saved_steps(root)
    broken, valid = [], []
    for step in steps:
        try:
            verify(step_path(root, step))
            valid.append(step)
        except CheckpointError as error:
            broken.append(str(error))
    found = []
    if broken:
        words = f"{len(broken)} of {len(steps)} checkpoints do not verify: {'; '.join(broken)}."
        advice = "Check the disk. A resume uses the newest that verifies." if valid else "Check the disk; start again."
        found.append(Finding("problem", "damaged checkpoint", words, advice))
    aside = sorted(path.name for path in root.glob("step-*.corrupt-*"))
    if aside:
        words = f"Moved aside as damaged: {', '.join(aside)}."
        found.append(Finding("warning", "checkpoint moved aside", words, "Check the disk; delete them when done."))
    if valid:
        lost = run.last_step - valid[0]
        words = f"The newest valid checkpoint is of step {valid[0]}; a resume repeats {max(lost, 0)} logged steps."
        found.append(Finding("info", "checkpoint", words))
    elif run.last_step > 0 and (run.status is None or run.status.state != "finished"):
        words = f"There is no valid checkpoint after {run.last_step} steps; a resume starts at 0."
        found.append(Finding("warning", "no checkpoint", words, "Lower save_every."))
    return found


def disk(run: History) -> list[Finding]:
    """Room for the next checkpoints."""
    root = run.directory / "checkpoints"
    steps = saved_steps(root)
    size = tree_bytes(step_path(root, steps[0])) if steps else 0
    free = shutil.disk_usage(run.directory).free
    if free >= max(ROOM * size, 2**28):
        return []
    words = f"{free / 2**20:.0f} MiB are free; a checkpoint takes {size / 2**20:.1f} MiB."
    return [Finding("warning", "disk nearly full", words, "Free some room: a save that does not fit is left out.")]


def speed(run: History) -> list[Finding]:
    """Steps that became slower, and memory that keeps growing."""
    found = []
    now, start = run.timing.get("time/step_seconds"), None
    if now is not None and len(now.values) >= 40:
        start, late = statistics.median(now.values[5:20]), statistics.median(now.values[-15:])
        if late > SLOWER * start:
            words = f"A step takes {late:.2g} s, at the start {start:.2g} s."
            advice = "Longer completions, a smaller batch of live sequences, or another program on the machine?"
            found.append(Finding("warning", "slowing down", words, advice))
    memory = run.timing.get("memory/resident")
    if memory is not None and len(memory.values) >= 40:
        early, last = max(memory.values[5:20]), memory.values[-1]
        if last > GROWN * early and last - early > GROWN_MIB:
            words = f"Memory grew from {early:.0f} to {last:.0f} MiB."
            found.append(
                Finding("warning", "memory grows", words, "Bound caches (cache_tokens); look for kept graphs.")
            )
    return found


VITALS = (state, checkpoints, disk, speed)
"""Every rule about the process and its files."""
