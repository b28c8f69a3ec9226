"""The doctor: reads a run, alive or dead, and says in words what is wrong with it and what to do.

In: findings and their order, and how they are shown. The rules are in updates.py, symptoms.py and alignment.py (what
the metrics say) and vitals.py (process, checkpoints, disk, speed); what they read is in history.py. No torch here.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from onepolicy.run.alignment import ALIGNMENT
from onepolicy.run.history import Finding, read_history
from onepolicy.run.symptoms import SYMPTOMS
from onepolicy.run.updates import UPDATES
from onepolicy.run.vitals import VITALS

__all__ = ["Finding", "alarms", "diagnose", "format"]

RULES = (*UPDATES, *SYMPTOMS, *ALIGNMENT)
ORDER = ("problem", "warning", "info", "good")
MARKS = {"problem": "[bold red]problem[/]", "warning": "[yellow]warning[/]", "info": "note", "good": "[green]good[/]"}


def diagnose(run_dir: str | Path) -> list[Finding]:
    """What a run's files say about its health, the worst first. Nothing is written.

    Raises: CheckpointError when the directory is no run, or a file in it is damaged.
    """
    history = read_history(Path(run_dir))
    found = [finding for rule in VITALS for finding in rule(history)]
    by_seed = history.by_seed()
    told = [(seed, finding) for seed, own in by_seed.items() for rule in RULES for finding in rule(own)]
    for name in dict.fromkeys(finding.name for _, finding in told):
        same = [(seed, finding) for seed, finding in told if finding.name == name]
        found.append(_of_seeds(same, len(by_seed)))
    return sorted(found, key=lambda finding: ORDER.index(finding.severity))


def alarms(findings: Sequence[Finding], chosen: Sequence[str]) -> list[Finding]:
    """The findings at which a run is to stop: chosen by name, or all of a severity ("problem", "warning").

    >>> alarms([Finding("problem", "KL blow-up", ""), Finding("good", "learning", "")], ["problem"])[0].name
    'KL blow-up'
    """
    return [finding for finding in findings if finding.name in chosen or finding.severity in chosen]


def _of_seeds(same: Sequence[tuple[str, Finding]], seeds: int) -> Finding:
    """One finding for all the seeds that share it: the first one's words, and which they are."""
    seed, first = same[0]
    if not seed:
        return first
    named = ", ".join(seed.removeprefix("seed") for seed, _ in same)
    return replace(
        first, words=f"{len(same)} of {seeds} seeds ({named}). Seed {seed.removeprefix('seed')}: {first.words}"
    )


def format(findings: Sequence[Finding], *, width: int = 100, color: bool = False) -> str:
    """Findings as text for a terminal, one paragraph each: severity and name, what was measured, what to do."""
    from rich.console import Console
    from rich.markup import escape
    from rich.padding import Padding

    said = io.StringIO()
    console = Console(file=said, width=width, force_terminal=color, highlight=False, no_color=not color)
    for finding in findings:
        span = "" if finding.steps is None else f" (steps {finding.steps[0]}-{finding.steps[1]})"
        console.print(f"{MARKS[finding.severity]}  [bold]{escape(finding.name)}[/]{span}")
        console.print(Padding(escape(finding.words), (0, 0, 0, 4)))
        if finding.advice:
            console.print(Padding("-> " + escape(finding.advice), (0, 0, 0, 4)))
    worst = sum(finding.severity == "problem" for finding in findings)
    doubts = sum(finding.severity == "warning" for finding in findings)
    console.print(f"{worst} problem{'s' * (worst != 1)}, {doubts} warning{'s' * (doubts != 1)}.")
    return "\n".join(line.rstrip() for line in said.getvalue().splitlines())
