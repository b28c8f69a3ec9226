"""Solve a finite world whose model is known: `onepolicy plan frozenlake --method value-iteration`.

In: the choice of the criterion, the table, the map, the files. The planners are `tabular.planning` and its neighbours.
"""

from __future__ import annotations

import io
from ast import literal_eval
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from onepolicy.errors import ConfigError, nearest
from onepolicy.recipes.loop import run_directory
from onepolicy.run.files import replace_text
from onepolicy.run.report import Report
from onepolicy.tabular import layouts, worlds
from onepolicy.tabular.draw import TEXT_COLUMNS, best_actions, value_map, value_map_figure, value_map_table
from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.planning import METHODS, plan
from onepolicy.tabular.planning.average_reward import relative_value_iteration
from onepolicy.tabular.planning.horizon import backward_induction
from onepolicy.tabular.planning.soft import soft_value_iteration
from onepolicy.tabular.planning.solution import Solution

OTHER_METHODS = ("backward-induction", "relative-value-iteration", "soft-value-iteration")
"""Methods that bring a criterion of their own: a finite horizon, the average reward, reward with entropy."""
SHOWN = 12
"""States in a table of values."""


@dataclass(frozen=True)
class Config:
    """The best values and actions of a finite world, between certified bounds."""

    world: str = "frozenlake"
    """Name of a world, or an .npz file written by tabular.layouts.save."""
    options: str = ""
    """Arguments of the world, name=value with commas between, such as slippery=False."""
    method: str = "modified-policy-iteration"
    """How: value-iteration, policy-iteration, gauss-seidel, prioritised-sweeping, linear-program, ... ."""
    discount: float | None = None
    """In [0, 1]; empty for the one customary in this world, of which some have none: their average reward is solved."""
    horizon: int | None = None
    """Steps, for backward induction; empty for the world's own, if it has one."""
    temperature: float = 1.0
    """Of soft value iteration, reward units."""
    tolerance: float = 1e-6
    """Certified distance from the best value to stop at, reward units."""
    time_limit: float | None = None
    """Seconds to stop after, with the bounds found by then."""
    threads: int | None = None
    """Cores; empty for all."""
    out: str = ""
    """Directory; empty for the next free runs/plan-N."""

    def __post_init__(self) -> None:
        known = [*METHODS, *OTHER_METHODS]
        if self.method not in known:
            raise ConfigError(f"{self.method!r} is not a planning method. {nearest(self.method, known)}")


PRESETS: dict[str, Config] = {}


def main(config: Config) -> Report:
    """Solve the world; its report has the table, the map of a grid, and solution.npz beside it.

    solution.npz: value, lower, upper, policy, q as in `tabular.solution.Solution`. report.policy is the Solution.
    Raises: ConfigError for a world, an option, a method or a discount that do not fit.
    """
    mdp, shape, customary = world_of(config)
    solution = solve(config, mdp, customary)
    directory = run_directory(config.out, "plan")
    if directory.exists() and any(directory.iterdir()):
        raise ConfigError(f"{directory} exists and is not empty. Give --out a new directory.")
    directory.mkdir(parents=True, exist_ok=True)
    q = solution.q()
    arrays = {"value": solution.value, "lower": solution.lower, "upper": solution.upper, "policy": solution.policy}
    np.savez_compressed(directory / "solution.npz", allow_pickle=False, q=q, **arrays)
    first = solution.value if solution.value.ndim == 1 else solution.value[0]
    page = Console(file=io.StringIO(), width=120, record=True)
    page.print(_summary(config, mdp, solution, first))
    picture = ""
    if shape is not None:
        grid = value_map(mdp, first, shape, q)
        if shape[1] <= TEXT_COLUMNS:
            page.print(value_map_table(grid, f"{config.world}: values and best actions"))
        value_map_figure(grid, f"{config.world}, {solution.method}").savefig(directory / "values.png", dpi=120)
        picture = "\n\n![values](values.png)"
    else:
        page.print(_values(mdp, solution, first, q))
    text = page.export_text(clear=False, styles=False)
    replace_text(directory / "report.md", f"# plan: {config.world}{picture}\n\n```text\n{text}```\n")
    metrics = {"plan/gap": solution.gap, "plan/sweeps": solution.sweeps, "plan/seconds": solution.seconds}
    metrics |= {"plan/start_value": float(mdp.start @ first), "plan/converged": float(solution.converged)}
    shown = page.export_text(styles=Console().is_terminal)
    return Report(directory, metrics, solution, f"{shown}Files: {directory}")


def world_of(config: Config) -> tuple[MDP, tuple[int, int] | None, worlds.World | None]:
    """The model, the grid to draw it on, and what is customary for it. Raises: ConfigError as `main`."""
    given = options_of(config.options)
    if config.world.endswith(".npz"):
        if given:
            raise ConfigError(f"{config.world} is a file and takes no options; {config.options!r} were given.")
        if not Path(config.world).is_file():
            raise ConfigError(f"{config.world} is not a file; save a model with onepolicy.tabular.layouts.save.")
        return layouts.load(config.world), None, None
    return worlds.make(config.world, **given), worlds.grid_shape(config.world, **given), worlds.WORLDS[config.world]


def options_of(text: str) -> dict[str, Any]:
    """Options as `name=value,name=value`; values are Python literals, or else words.

    >>> options_of("slippery=False, map=8x8")
    {'slippery': False, 'map': '8x8'}
    """
    found: dict[str, Any] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, equals, value = part.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"{part!r} is no option; write name=value, with commas between.")
        try:
            found[name.strip()] = literal_eval(value.strip())
        except (ValueError, SyntaxError):
            found[name.strip()] = value.strip()
    return found


def solve(config: Config, mdp: MDP, customary: worlds.World | None) -> Solution:
    """The solution for the criterion that the settings, or else the world's customs, ask for."""
    limits: dict[str, Any] = {"time_limit": config.time_limit, "threads": config.threads}
    limits |= {"tolerance": config.tolerance}
    discount = config.discount if config.discount is not None else (customary.discount if customary else 0.99)
    horizon = config.horizon or (customary.horizon if customary else None)
    if config.method == "backward-induction" or (horizon and config.method == Config.method):
        if horizon is None:
            raise ConfigError("backward induction needs to know how many steps are left. Set horizon.")
        return backward_induction(mdp, horizon, discount=1.0 if discount is None else discount, threads=config.threads)
    if config.method == "relative-value-iteration" or (discount is None and config.method == Config.method):
        return relative_value_iteration(mdp, **limits)
    if discount is None:
        raise ConfigError(
            f"{config.world} is about the average reward, which {config.method} does not find. Use "
            "relative-value-iteration, or set discount."
        )
    solver: Callable[..., Solution] = plan
    arguments: tuple[Any, ...] = (config.method,)
    if config.method == "soft-value-iteration":
        solver, arguments = soft_value_iteration, (config.temperature,)
    return solver(mdp, discount, *arguments, **limits)


def _summary(config: Config, mdp: MDP, solution: Solution, first: np.ndarray[Any, np.dtype[np.float64]]) -> Table:
    """What was solved, how well, and in what time."""
    table = Table(title=f"{config.world}: {solution.method}", show_header=False)
    average = solution.gain is not None
    value = f"{solution.gain:.10g} a step" if average else f"{float(mdp.start @ first):.10g}"
    ended = "yes" if solution.converged else f"no: ended by {solution.reason}"
    for name, cell in (
        ("states, rows", f"{mdp.num_states:,}, {mdp.num_rows:,}"),
        ("criterion", "average reward" if average else f"discount {solution.discount:g}"),
        ("best reward" if average else "best value from the start", value),
        ("bounds apart", f"{solution.gap:.3g}"),
        (f"within {config.tolerance:g}", ended),
        ("sweeps", f"{solution.sweeps:,g}"),
        ("time", f"{solution.seconds:.3f} s"),
    ):
        table.add_row(name, cell)
    return table


def _values(mdp: MDP, solution: Solution, first: Any, q: Any) -> Table:
    """The first states with their bounds and best actions."""
    average = solution.gain is not None
    table = Table("state", "relative value" if average else "value", "best actions")
    actions = best_actions(mdp, q)
    for s in range(min(SHOWN, mdp.num_states)):
        table.add_row(mdp.state_name(s), f"{first[s]:.6g}", "end" if mdp.terminal[s] else actions[s])
    if mdp.num_states > SHOWN:
        table.caption = f"{mdp.num_states - SHOWN:,} more states in solution.npz"
    return table
