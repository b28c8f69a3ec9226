"""A run watched from another terminal: its newest numbers and their curves as text, drawn anew while it runs."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from onepolicy.run.header import read_header
from onepolicy.run.metrics import describe
from onepolicy.run.plots import Curve, Floats, panels_of
from onepolicy.run.process import alive, read_status
from onepolicy.run.progress import console

EVERY = 2.0
"""Seconds between looks at the files."""
BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Floats, width: int = 40) -> str:
    """A curve [T] as `width` blocks from its lowest value to its highest, each the mean of its share; a gap for NaN.

    >>> sparkline(np.array([0.0, 1.0, 2.0, 7.0]))
    '▁▂▃█'
    >>> sparkline(np.array([5.0, 5.0, 1.0, 1.0]), 2)
    '█▁'
    """
    groups = [part[np.isfinite(part)] for part in np.array_split(values, min(width, len(values)))]
    means = [float(part.mean()) if len(part) else math.nan for part in groups]
    finite = [mean for mean in means if math.isfinite(mean)]
    if not finite:
        return ""
    low, span = min(finite), max(finite) - min(finite)
    top = len(BARS) - 1
    return "".join(" " if math.isnan(m) else BARS[round((m - low) / span * top) if span else 0] for m in means)


def picture(run_dirs: Sequence[str | Path], *, keys: Sequence[str] = ()) -> Group:
    """The runs' states and a table of their metrics: newest value, its interval, and the curve.

    Raises: CheckpointError for a directory that is no run or has no metrics; ConfigError for an unknown metric.
    """
    states = [Text(f"{directory}: {state_of(Path(directory))}") for directory in run_dirs]
    table = Table("metric", "unit", "run", "step", "now", "over the steps", box=None, pad_edge=False)
    for key, lines in panels_of(run_dirs, keys).items():
        metric = describe(key)
        for curve in lines:
            unit = metric.unit if metric else ""
            table.add_row(key, unit, curve.label, f"{curve.steps[-1]:,.0f}", _now(curve), sparkline(curve.values))
    return Group(*states, table)


def state_of(directory: Path) -> str:
    """What a run is doing, in a word or two; a process that is gone without a farewell is "dead"."""
    status = read_status(directory)
    if status is None:
        return "unknown"
    return "dead" if status.state == "running" and not alive(status) else status.state


def follow(run_dirs: Sequence[str | Path], *, keys: Sequence[str] = (), every: float = EVERY) -> None:
    """Shows `picture` on the terminal until no run is running; Ctrl-C ends the watching, never the run.

    Where the output is no terminal it is shown once. Raises: as `picture`.
    """
    for directory in run_dirs:
        read_header(Path(directory))
    if not console().is_terminal:
        console().print(picture(run_dirs, keys=keys))
        return
    with Live(picture(run_dirs, keys=keys), console=console(), auto_refresh=False) as live:
        while any(state_of(Path(directory)) == "running" for directory in run_dirs):
            time.sleep(every)
            live.update(picture(run_dirs, keys=keys), refresh=True)


def _now(curve: Curve) -> str:
    """The newest value, with its interval where it has one."""
    if curve.low is None or curve.high is None or not math.isfinite(curve.low[-1]):
        return f"{curve.values[-1]:.4g}"
    return f"{curve.values[-1]:.4g} [{curve.low[-1]:.4g}, {curve.high[-1]:.4g}]"
