"""Runs side by side: where the seeds of each end, and how likely one of the first ends above one of another.

In: sides (runs, or directories of seeds), the scores their seeds end with in each world, the table. Not in: curves
(run/plots.py) and the statistics themselves (stats.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onepolicy.errors import ConfigError, nearest
from onepolicy.evaluation.stats import Interval, bootstrap_interval, iqm, probability_of_improvement
from onepolicy.run.header import read_header
from onepolicy.run.metrics import read_series
from onepolicy.run.plots import groups_of, plain, runs_of, seeds_in

OUTCOMES = ("eval/accuracy", "eval/return", "rollout/score", "rollout/return")
"""What runs are judged by, unless asked otherwise: the first that all have."""
Scores = dict[str, tuple[float, ...]]
"""By world, what each seed ends with."""


@dataclass(frozen=True)
class Comparison:
    """The sides in order, measured by one metric; its unit is theirs."""

    metric: str
    sides: Mapping[str, Scores]

    def interval(self, side: str, world: str) -> Interval:
        """The interquartile mean over the seeds of a side in a world, with its 95 % bootstrap interval."""
        return bootstrap_interval(self.sides[side][world], iqm)

    def shared(self, a: str, b: str) -> list[str]:
        """The worlds in which both sides have seeds."""
        return [world for world in self.sides[a] if world in self.sides[b]]

    def improvement(self, a: str, b: str) -> Interval:
        """P(a > b) over the worlds both have. Raises: DataError when they share none."""
        worlds = self.shared(a, b)
        return probability_of_improvement(
            [self.sides[a][world] for world in worlds], [self.sides[b][world] for world in worlds]
        )

    def text(self) -> str:
        """A line for each side and world, and P(first > other) for each other side, with how to read it."""
        worlds = list(dict.fromkeys(world for scores in self.sides.values() for world in scores))
        width = max(len(label) for label in self.sides)
        lines = [f"{self.metric} at the end: interquartile mean over seeds [95 % bootstrap interval]"]
        for world in worlds:
            lines += [world] if world else []
            for label, scores in self.sides.items():
                if world in scores:
                    found, n = self.interval(label, world), len(scores[world])
                    words = f"{found.value:.5g} [{found.low:.5g}, {found.high:.5g}]"
                    lines.append(f"  {label:<{width}}  {words}  ({n} seed{'s' * (n > 1)})")
        first, *others = self.sides
        for other in others:
            if self.shared(first, other):
                found = self.improvement(first, other)
                lines.append(
                    f"P({first} > {other}) = {found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"
                    + (f" over {n} worlds" if (n := len(self.shared(first, other))) > 1 else "")
                )
            else:
                lines.append(f"{first} and {other} have no world in common.")
        if any(len(scores) < 2 for side in self.sides.values() for scores in side.values()):
            lines.append("A single seed has no interval over seeds: train with --seeds 5 or more.")
        return "\n".join(lines)


def sides_of(directories: Sequence[str | Path]) -> dict[str, list[Path]]:
    """What is compared with what, by label: two directories with each other; of more, what differs in its settings.

    A directory is a run, or holds the runs of several seeds. Runs that differ in their seed or their world alone are
    one side. Raises: CheckpointError for a directory that is neither.
    """
    if len(directories) == 2:
        found = [runs_of([directory]) for directory in directories]
        labels = [_name(Path(directory)) for directory in directories]
        if labels[0] == labels[1]:
            labels = [str(directory) for directory in directories]
        if labels[0] != labels[1]:
            return dict(zip(labels, found, strict=True))
    return groups_of(runs_of(directories), aside=("env",))


def compare(directories: Sequence[str | Path], *, metric: str = "", last: int = 1) -> Comparison | None:
    """The sides that `directories` make (see `sides_of`), each seed by its mean of the metric's `last` finite values.

    metric: "" for the first of OUTCOMES that every side has; None is returned where there is none.
    Raises: CheckpointError for a directory that is no run; ConfigError for a metric that no run has.
    """
    sides = sides_of(directories)
    worlds = {path: str(read_header(path)["config"].get("env", "")) for paths in sides.values() for path in paths}
    runs = {label: [(path, read_series(path / "metrics.jsonl")) for path in paths] for label, paths in sides.items()}
    names = [{plain(key) for _, series in members for key in series} for members in runs.values()]
    known = set.union(*names)
    if metric and metric not in known:
        raise ConfigError(f"No run has the metric {metric!r}. {nearest(metric, sorted(known))}")
    chosen = metric or next((key for key in OUTCOMES if all(key in side for side in names)), "")
    if not chosen:
        return None
    found: dict[str, Scores] = {}
    for label, members in runs.items():
        scores: Scores = {}
        for path, series in members:
            world = worlds[path]
            ends = [_end(each.values, last) for each in seeds_in(series, chosen)]
            scores[world] = scores.get(world, ()) + tuple(end for end in ends if np.isfinite(end))
        found[label] = {world: values for world, values in scores.items() if values}
    return Comparison(chosen, {label: scores for label, scores in found.items() if scores})


def _end(values: Sequence[float], last: int) -> float:
    """The mean of the last finite values; NaN for none."""
    finite = [value for value in values if np.isfinite(value)][-last:]
    return float(np.mean(finite)) if finite else float("nan")


def _name(directory: Path) -> str:
    return directory.resolve().name
