"""Learning curves: small multiples of a run's key metrics, or of several runs, the seeds of each as one line and band.

matplotlib is drawn off screen and imported when the first curve is drawn.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onepolicy.errors import CheckpointError, ConfigError, nearest
from onepolicy.run.config import PLACE_FIELDS
from onepolicy.run.header import HEADER, read_header
from onepolicy.run.metrics import Series, describe, read_series
from onepolicy.run.spread import aligned, iqm_band

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KEY_METRICS = (
    "eval/accuracy", "eval/return", "rollout/score", "rollout/return", "sft/nll", "eval/nll", "policy/entropy",
    "policy/kl_ref", "policy/kl", "policy/kl_old", "policy/clip_fraction", "value/loss", "rollout/length",
    "rollout/truncated", "rollout/zero_variance", "learner/grad_norm",
)  # fmt: skip
"""What is plotted unless asked otherwise, in this order, as far as the runs have it."""
MAX_PANELS = 9
SMOOTH_FROM = 40
"""Points from which a training metric also gets its running mean, over a twentieth of them."""
SEED_FIELDS = ("seed", "threads", *PLACE_FIELDS)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """One line of a panel.

    label: what it is. steps, values [T]. low, high [T] or None: the band, `band` says of what. points: True for
    evaluations, drawn with markers. raw: the unsmoothed values [T], drawn faintly. members: each seed's values [S, T],
    drawn as thin lines.
    """

    label: str
    steps: Floats
    values: Floats
    low: Floats | None = None
    high: Floats | None = None
    band: str = ""
    points: bool = False
    raw: Floats | None = None
    members: Floats | None = None


def curves(
    run_dirs: Sequence[str | Path] | Mapping[str, Sequence[Path]],
    path: str | Path,
    *,
    keys: Sequence[str] = (),
    smooth: int = 0,
) -> list[str]:
    """Draws the curves of one or several runs into an image file; the panels drawn.

    run_dirs: runs, or directories that hold runs; or runs by the label of their line. Runs that differ in nothing but
    their seed become one line, their interquartile mean, with its 95 % bootstrap band and each seed as a thin line;
    each world has panels of its own. keys: the metrics to draw instead of KEY_METRICS. smooth: logged values in the
    running mean of every curve; 0 for a twentieth of those of a long, noisy one.
    Raises: CheckpointError for a directory that is no run or has no metrics; ConfigError for a metric no run has.
    """
    panels = panels_of(run_dirs, keys, smooth)
    groups = run_dirs.values() if isinstance(run_dirs, Mapping) else [runs_of(run_dirs)]
    figure = draw(panels, " ".join(sorted({read_header(run)["recipe"] for group in groups for run in group})))
    figure.savefig(path, dpi=120)
    return list(panels)


def runs_of(directories: Sequence[str | Path]) -> list[Path]:
    """The runs that directories are or hold: a directory without config.json stands for the runs right below it."""
    found: list[Path] = []
    for directory in map(Path, directories):
        below = sorted(path.parent for path in directory.glob(f"*/{HEADER}"))
        found += below if below and not (directory / HEADER).exists() else [directory]
    return found


def panels_of(
    run_dirs: Sequence[str | Path] | Mapping[str, Sequence[Path]], keys: Sequence[str] = (), smooth: int = 0
) -> dict[str, list[Curve]]:
    """The curves to draw by metric, and by world where there are several ("eval/return, Acrobot-v1"); see `curves`."""
    groups = run_dirs if isinstance(run_dirs, Mapping) else groups_of(runs_of(run_dirs), aside=("env",))
    worlds: dict[str, dict[str, list[Mapping[str, Series]]]] = {}
    for label, paths in groups.items():
        for path in paths:
            world = str(read_header(path)["config"].get("env", ""))
            worlds.setdefault(world, {}).setdefault(label, []).append(read_series(path / "metrics.jsonl"))
    known = sorted({plain(k) for sides in worlds.values() for runs in sides.values() for run in runs for k in run})
    for key in keys:
        if key not in known:
            raise ConfigError(f"No run has the metric {key!r}. {nearest(key, known)}")
    if not known:
        names = ", ".join(str(path) for paths in groups.values() for path in paths)
        raise CheckpointError(f"{names}: no metrics yet. Let the run reach its first step.")
    most = max(1, MAX_PANELS // len(worlds))
    chosen = list(keys) or [key for key in KEY_METRICS if key in known][:most] or known[:most]
    found = {}
    for key in chosen:
        for world, sides in worlds.items():
            lines = [c for label, runs in sides.items() if (c := _curve(label, key, runs, smooth))]
            if lines or len(worlds) == 1:
                found[f"{key}, {world}" if world and len(worlds) > 1 else key] = lines
    return found


def draw(panels: Mapping[str, Sequence[Curve]], title: str) -> Figure:
    """A figure with one panel for each metric, its unit on the axis, and one legend for all."""
    from matplotlib.figure import Figure

    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    names = len({curve.label for lines in panels.values() for curve in lines})
    below = 0.55 + 0.22 * math.ceil(names / 3)
    width, height = 4.4 * columns, 0.2 + below + 3.0 * rows
    figure = Figure(figsize=(width, height))
    axes = figure.subplots(
        rows,
        columns,
        squeeze=False,
        gridspec_kw={  # in inches; matplotlib's own layout takes longer than all the drawing
            "left": 0.75 / width,
            "right": 1.0 - 0.2 / width,
            "bottom": below / height,
            "top": 1.0 - 0.7 / height,
            "wspace": 0.25,
            "hspace": 0.36,
        },
    ).ravel()
    for axis, (key, lines) in zip(axes, panels.items()):
        for number, curve in enumerate(lines):
            _line(axis, curve, f"C{number % 10}")
        metric = describe(key.partition(",")[0])
        axis.set_title(key, fontsize=10)
        axis.set_ylabel(metric.unit if metric else "", fontsize=9)
        axis.set_xlabel("step", fontsize=9)
        if metric is not None and metric.unit == "share":
            axis.set_ylim(0, max(axis.get_ylim()[1], 0.05))
        axis.grid(alpha=0.3)
        axis.ticklabel_format(useOffset=False)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    handles = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels())}
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="lower center", ncols=min(3, len(handles)), fontsize=9)
    bands = sorted({curve.band for lines in panels.values() for curve in lines if curve.band})
    figure.suptitle(f"{title} (band: {', '.join(bands)})" if bands else title)
    return figure


def _line(axis: Axes, curve: Curve, color: str) -> None:
    """One curve, its band, its seeds and its raw values on a panel."""
    for member in () if curve.members is None else curve.members:
        axis.plot(curve.steps, member, color=color, alpha=0.3, linewidth=0.6)
    if curve.raw is not None:
        axis.plot(curve.steps, curve.raw, color=color, alpha=0.25, linewidth=0.8)
    axis.plot(
        curve.steps,
        curve.values,
        color=color,
        label=curve.label,
        linewidth=1.6,
        marker="o" if curve.points else None,
        markersize=3,
    )
    if curve.low is not None and curve.high is not None:
        axis.fill_between(curve.steps, curve.low, curve.high, color=color, alpha=0.18, linewidth=0)


def _curve(label: str, key: str, members: Sequence[Mapping[str, Series]], smooth: int) -> Curve | None:
    """The line of one group of runs (one run, or several seeds) on the panel of `key`; None when it has no values."""
    found = [series for member in members for series in seeds_in(member, key)]
    if not found:
        return None
    points = key.startswith("eval/")
    if len(found) > 1:
        return _seeds_curve(label, found, points, smooth)
    steps, values = np.array(found[0].steps, float), np.array(found[0].values, float)
    low, high = (_at(steps, next((m[key + end] for m in members if key + end in m), None)) for end in ("_low", "_high"))
    if low is not None and high is not None and smooth < 2:
        return Curve(label, steps, values, low, high, "95 % interval", points)
    width = smooth or (len(values) // 20 if not points and len(values) >= SMOOTH_FROM else 1)
    if width < 2:
        return Curve(label, steps, values, points=points)
    return Curve(label, steps, _running_mean(values, width), points=points, raw=values)


def _seeds_curve(label: str, found: Sequence[Series], points: bool, smooth: int) -> Curve | None:
    """The interquartile mean over seeds at steps they share, its 95 % bootstrap band, and the seeds behind it."""
    steps, values = aligned(found)
    if not len(steps):
        return None
    if smooth > 1:
        values = np.array([_running_mean(row, smooth) for row in values])
    middle, low, high = iqm_band(values)
    band = "95 % bootstrap interval of the interquartile mean over seeds"
    return Curve(f"{label} ({len(found)} seeds)", steps, middle, low, high, band, points, members=values)


def seeds_in(member: Mapping[str, Series], key: str) -> list[Series]:
    """A run's series of a metric: those of the seeds it trained at once, or else its own."""
    own = [series for name, series in member.items() if re.fullmatch(rf"seed\d+/{re.escape(key)}", name)]
    return own or ([member[key]] if key in member else [])


def _at(steps: Floats, series: Series | None) -> Floats | None:
    """A series' values at `steps`, NaN where it has none; None for no series."""
    if series is None:
        return None
    table = dict(zip(series.steps, series.values))
    return np.array([table.get(int(step), math.nan) for step in steps])


def _running_mean(values: Floats, width: int) -> Floats:
    """The mean of the up to `width` finite values ending at each place; NaN where there is none."""
    windows = [values[max(0, end - width) : end] for end in range(1, len(values) + 1)]
    finite = [window[np.isfinite(window)] for window in windows]
    return np.array([window.mean() if len(window) else math.nan for window in finite])


def plain(key: str) -> str:
    """A metric's name without the seed before it."""
    return re.sub(r"^seed\d+/", "", key)


def groups_of(paths: Sequence[Path], *, aside: Sequence[str] = ()) -> dict[str, list[Path]]:
    """Runs that differ in nothing but their seed, under a label: the fields in which the groups differ.

    aside: further fields that make no difference. Raises: ConfigError for no run; CheckpointError for what is none.
    """
    if not paths:
        raise ConfigError("No run to plot was given; expected at least one run directory.")
    groups: dict[str, list[Path]] = {}
    configs: dict[str, dict[str, Any]] = {}
    for path in paths:
        header = read_header(path)
        config = {"recipe": header["recipe"], **header["config"]}
        kept = {name: value for name, value in config.items() if name not in (*SEED_FIELDS, *aside)}
        groups.setdefault(repr(kept), []).append(path)
        configs[repr(kept)] = kept
    names = dict.fromkeys(name for config in configs.values() for name in config)
    differing = [n for n in names if len({repr(config.get(n)) for config in configs.values()}) > 1]
    labelled: dict[str, list[Path]] = {}
    for key, members in groups.items():
        fields = ", ".join(f"{name}={configs[key].get(name)}" for name in differing[:3])
        label = fields or (members[0].name if len(members) == 1 else configs[key]["recipe"])
        labelled[f"{label} {members[0].name}" if label in labelled else label] = members
    return labelled
