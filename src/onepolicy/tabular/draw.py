"""Pictures from plain arrays: value maps with arrows, and curves with bands, in a terminal or as PNG.

For a terminal: tables of rich. For a file: matplotlib figures, `figure.savefig(path, dpi=120)`, drawn off screen;
matplotlib is imported when the first one is drawn. Not in: what to draw of a run, which is the caller's choice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rich import box
from rich.style import Style
from rich.table import Table
from rich.text import Text
from scipy.special import stdtrit

from onepolicy.errors import ConfigError, DataError
from onepolicy.tabular.storage import Bools, Floats

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from onepolicy.tabular.mdp import MDP

ARROWS = {
    "up": "↑", "right": "→", "down": "↓", "left": "←", "up-right": "↗", "down-right": "↘", "down-left": "↙",
    "up-left": "↖", "stay": "○", "north": "↑", "east": "→", "south": "↓", "west": "←",
}  # fmt: skip
"""How an action of this name is drawn; others are drawn as their number."""
WALL = "█"
UNMET = "·"
TEXT_COLUMNS = 30
"""Columns up to which a map is drawn as text."""
TEXT_CELLS = 400
"""Cells up to which a figure has numbers and arrows in them."""
RAMP = np.array([[68, 1, 84], [33, 145, 140], [253, 231, 37]])
"""Colours from the lowest to the highest value."""
SPARKS = "▁▂▃▄▅▆▇█"

Strings = NDArray[np.str_]


@dataclass(frozen=True)
class ValueMap:
    """A grid of values. values [rows, columns]. arrows [rows, columns]: the best actions of a cell, all that tie.

    labels [rows, columns]: what stands in a cell instead of a value, WALL for walls; empty for an ordinary cell.
    """

    values: Floats
    arrows: Strings
    labels: Strings

    @property
    def plain(self) -> Bools:
        """Cells that have a value, [rows, columns]."""
        return np.equal(self.labels, "")

    def shades(self) -> Floats:
        """Values from 0, the lowest, to 1, the highest, [rows, columns]; 0.5 where all are equal, 0 without a value."""
        shown = self.values[self.plain]
        low, high = (shown.min(), shown.max()) if shown.size else (0.0, 0.0)
        scaled = (self.values - low) / (high - low) if high > low else np.full(self.values.shape, 0.5)
        return np.where(self.plain, np.clip(scaled, 0.0, 1.0), 0.0)

    def numbers(self) -> list[list[str]]:
        """The labels, and the values to three digits of the largest."""
        largest = float(np.abs(self.values[self.plain]).max(initial=0.0))
        decimals = 0 if largest == 0 else min(max(3 - math.ceil(math.log10(largest)), 0), 6)
        rows = zip(self.labels.tolist(), self.values.tolist(), strict=True)
        return [[label or f"{value:.{decimals}f}" for label, value in zip(*row, strict=True)] for row in rows]


def value_map(
    mdp: MDP, values: ArrayLike, shape: tuple[int, int], q: ArrayLike | None = None, *, near: float = 1e-9
) -> ValueMap:
    """The map of a world whose states are the cells of a grid, row by row.

    values [S]. q [K], values of the (state, action) rows: draws the arrows of all actions within `near` of the best,
    relative to the largest. Terminal cells are labelled by their names, or "end"; those never entered are walls. A cell
    with actions that is neither entered nor a start is drawn as UNMET: what happens there never does.
    Raises: DataError for arrays or a shape that do not fit the world.
    """
    model, v = mdp.csr(), np.asarray(values, dtype=np.float64)
    if v.shape != (mdp.num_states,) or shape[0] * shape[1] != mdp.num_states:
        raise DataError(
            f"values have shape {v.shape} and the grid is {shape[0]} x {shape[1]}; the world has {mdp.num_states} "
            "states. Give a value for each, and a shape of as many cells."
        )
    entered = np.zeros(mdp.num_states, dtype=np.bool_)
    entered[model.successors] = True
    names = mdp.state_names or ("end",) * mdp.num_states
    unmet = [WALL if end else UNMET for end in model.terminal]
    labels = [names[s] if model.terminal[s] else "" for s in range(mdp.num_states)]
    labels = [label if met else other for label, met, other in zip(labels, entered | (model.start > 0), unmet)]
    arrows = best_actions(mdp, q, near=near) if q is not None else [""] * mdp.num_states
    return ValueMap(v.reshape(shape), np.array(arrows).reshape(shape), np.array(labels).reshape(shape))


def best_actions(mdp: MDP, q: ArrayLike, *, near: float = 1e-9) -> list[str]:
    """The actions of each state whose value q [K] is within `near` of its best, relative to the largest.

    Moves are drawn as arrows, other actions as their numbers (`row_labels` where the world has them), spaces between.
    Raises: DataError for another number of rows than the world has.
    """
    row_ptr, labels, values = mdp.row_ptr, mdp.row_labels, np.asarray(q, dtype=np.float64)
    if values.shape != (mdp.num_rows,):
        raise DataError(f"q has shape {values.shape}; the world has {mdp.num_rows} rows. Give one value for each.")
    margin = near * max(1.0, float(np.abs(values).max(initial=0.0)))
    names = mdp.action_names or ()
    signs = [ARROWS.get(names[a], str(a)) if a < len(names) else str(a) for a in range(int(np.diff(row_ptr).max()))]
    between = "" if set(signs) <= set(ARROWS.values()) else " "
    drawn = []
    for s in range(mdp.num_states):
        mine = values[row_ptr[s] : row_ptr[s + 1]]
        best = np.flatnonzero(mine >= mine.max(initial=-math.inf) - margin)
        chosen = [signs[a] for a in best] if labels is None else [str(labels[row_ptr[s] + a]) for a in best]
        drawn.append(between.join(chosen))
    return drawn


def value_map_table(grid: ValueMap, title: str = "") -> Table:
    """A value map for the terminal: shades from the lowest value to the highest, arrows under the numbers.

    Raises: ConfigError for more columns than a terminal has room for.
    """
    columns = grid.values.shape[1]
    if columns > TEXT_COLUMNS:
        raise ConfigError(f"The map has {columns} columns; as text {TEXT_COLUMNS} fit. Draw a figure of it instead.")
    table = Table(title=title or None, show_header=False, show_lines=True, box=box.SQUARE, padding=(0, 0))
    for _ in range(columns):
        table.add_column(justify="center")
    shades = grid.shades()
    for i, row in enumerate(grid.numbers()):
        table.add_row(*(_cell(text, grid, i, j, float(shades[i, j])) for j, text in enumerate(row)))
    return table


def _cell(text: str, grid: ValueMap, i: int, j: int, shade: float) -> Text:
    """One cell: two lines, on the colour of its value."""
    if text == WALL:
        return Text(f"{WALL * 4}\n{WALL * 4}")
    if not grid.plain[i, j]:
        return Text(text, style=Style(bold=True))
    red, green, blue = (round(float(np.interp(shade, [0, 0.5, 1], RAMP[:, k]))) for k in range(3))
    ink = "black" if shade > 0.6 else "white"
    return Text(f"{text}\n{grid.arrows[i, j]}".rstrip(), style=Style.parse(f"{ink} on #{red:02x}{green:02x}{blue:02x}"))


def value_map_figure(grid: ValueMap, title: str = "") -> Figure:
    """A value map as a figure: colours with their scale; numbers and arrows up to TEXT_CELLS cells."""
    from matplotlib.figure import Figure

    rows, columns = grid.values.shape
    size = min(max(0.75 * columns, 3.0), 14.0), min(max(0.75 * rows, 2.5), 14.0)
    figure = Figure(figsize=(size[0] + 1.4, size[1] + (0.5 if title else 0.0)), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("0.85")
    image = axes.imshow(np.ma.masked_array(grid.values, ~grid.plain), cmap="viridis", aspect="equal")
    for i, j in np.argwhere(grid.labels == WALL):
        axes.fill([j - 0.5, j + 0.5, j + 0.5, j - 0.5], [i - 0.5, i - 0.5, i + 0.5, i + 0.5], color="0.25")
    if rows * columns <= TEXT_CELLS:
        shades = grid.shades()
        for i, row in enumerate(grid.numbers()):
            for j, text in enumerate(row):
                arrows = f"\n{grid.arrows[i, j]}" if grid.plain[i, j] else ""
                ink = "white" if arrows and shades[i, j] < 0.6 else "black"
                if text != WALL:
                    axes.text(j, i, f"{text}{arrows}".rstrip(), ha="center", va="center", color=ink)
    axes.set_xticks([])
    axes.set_yticks([])
    figure.colorbar(image, ax=axes, shrink=0.8)
    if title:
        axes.set_title(title)
    return figure


@dataclass(frozen=True)
class Curve:
    """A line: x, y [T]; low, high [T] or None: its band; dashed: a bound or a reference, not a measurement."""

    label: str
    x: Floats
    y: Floats
    low: Floats | None = None
    high: Floats | None = None
    dashed: bool = False


def mean_curve(label: str, runs: ArrayLike, x: ArrayLike | None = None, *, level: float = 0.95) -> Curve:
    """The mean over runs [R, T] with Student's interval of the mean at each step; no band for one run.

    x [T]: default 1 .. T. level: of the interval, in (0, 1).
    Raises: ConfigError for a level outside (0, 1); DataError for runs that are no table.
    """
    if not 0.0 < level < 1.0:
        raise ConfigError(f"level is {level}; it is the probability of an interval. Give it in (0, 1), as 0.95.")
    table = np.asarray(runs, dtype=np.float64)
    if table.ndim != 2 or 0 in table.shape:
        raise DataError(f"runs have shape {table.shape}; give [runs, steps], at least one of each.")
    count, steps = table.shape
    where = np.arange(1, steps + 1, dtype=np.float64) if x is None else np.asarray(x, dtype=np.float64)
    mean = table.mean(axis=0)
    if count == 1:
        return Curve(label, where, mean)
    half = stdtrit(count - 1, 0.5 + level / 2) * table.std(axis=0, ddof=1) / math.sqrt(count)
    return Curve(label, where, mean, mean - half, mean + half)


def regret_curve(label: str, regrets: ArrayLike, *, level: float = 0.95) -> Curve:
    """The mean over runs of the regret so far, with its band; regrets [R, T], each step's own."""
    return mean_curve(label, np.cumsum(np.asarray(regrets, dtype=np.float64), axis=-1), level=level)


def curves_figure(
    curves: Sequence[Curve],
    *,
    title: str = "",
    x: str = "step",
    y: str = "",
    log_x: bool = False,
    log_y: bool = False,
    levels: Mapping[str, float] | None = None,
) -> Figure:
    """Curves with their bands in one figure: learning, regret, or the gap of a planner's bounds by sweep (log_y).

    x, y: what the axes are, with units. levels: horizontal lines by name, such as an optimum.
    Raises: ConfigError for no curve.
    """
    if not curves:
        raise ConfigError("There is no curve to draw; give at least one.")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    axes = figure.subplots()
    for number, curve in enumerate(curves):
        color = f"C{number % 10}"
        axes.plot(curve.x, curve.y, color=color, label=curve.label, linestyle="--" if curve.dashed else "-")
        if curve.low is not None and curve.high is not None:
            axes.fill_between(curve.x, curve.low, curve.high, color=color, alpha=0.2, linewidth=0)
    for name, height in (levels or {}).items():
        axes.axhline(height, color="0.4", linestyle=":", label=name)
    axes.set(xlabel=x, ylabel=y, title=title, xscale="log" if log_x else "linear", yscale="log" if log_y else "linear")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9)
    return figure


def curves_table(curves: Sequence[Curve], *, title: str = "", width: int = 40) -> Table:
    """Curves for the terminal: each a row of bars on one scale, its first value, and its last with half its band.

    width: bars of a curve, each the mean of its share of the steps.
    Raises: ConfigError for no curve, or a width below 1.
    """
    if not curves or width < 1:
        raise ConfigError(f"There are {len(curves)} curves, {width} wide; give at least one, at least 1 wide.")
    heights = [np.array([part.mean() for part in np.array_split(c.y, min(width, len(c.y)))]) for c in curves]
    finite = np.concatenate([h[np.isfinite(h)] for h in heights])
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    table = Table(title=title or None, box=box.SIMPLE)
    for name in ("", "first", "", "last"):
        table.add_column(name, justify="right" if name else "left")
    for curve, bars in zip(curves, heights, strict=True):
        last = f"{curve.y[-1]:.4g}"
        if curve.low is not None and curve.high is not None:
            last += f" ± {(curve.high[-1] - curve.low[-1]) / 2:.2g}"
        table.add_row(Text(curve.label), f"{curve.y[0]:.4g}", "".join(_spark(bar, low, high) for bar in bars), last)
    return table


def _spark(value: float, low: float, high: float) -> str:
    """The bar of one value between the lowest and the highest; a space for what is not finite."""
    if not math.isfinite(value):
        return " "
    share = (value - low) / (high - low) if high > low else 0.5
    return SPARKS[min(int(share * len(SPARKS)), len(SPARKS) - 1)]
