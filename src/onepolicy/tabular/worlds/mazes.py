"""Mazes written as text, and the three mazes of Sutton and Barto's chapter 8, the changing ones before and after.

A row of text is a row of cells: S the start, G the end, # a wall, a point or a space a free cell. Walls keep their
number, so that a value map has the shape of the text; they have no actions and are never entered.
"""

from __future__ import annotations

import numpy as np

from onepolicy.errors import ConfigError
from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.worlds.tables import COMPASS, from_outcomes, reach

DYNA = """
.......#G
..#....#.
S.#....#.
..#......
.....#...
.........
"""
BLOCKING = """
........G
.........
.........
########.
.........
...S.....
"""
BLOCKED = BLOCKING.replace("########.", ".########")
SHORTCUT = BLOCKED
SHORTCUT_OPEN = BLOCKED.replace(".########", ".#######.")


def maze(text: str = DYNA, *, step_reward: float = 0.0, goal_reward: float = 1.0) -> MDP:
    """The maze drawn in `text`: step_reward a move, goal_reward for the move into G. Actions: up, right, down, left.

    text: the 6 x 9 maze of Dyna-Q, 14 steps long, unless another is given; several S are equally likely starts.
    Raises: ConfigError for rows of different lengths, letters other than `S G # .` and space, or no S or no G.
    Source of the default: Sutton and Barto 2018, example 8.1 (discount 0.95).
    """
    cells, rows, cols = cells_of(text, "SG#. ")
    walls, ends = cells == "#", cells == "G"
    starts = (cells == "S").astype(np.float64)
    to = reach(rows, cols, list(COMPASS.values()), walls)[..., None]
    gain = np.where(ends[to], goal_reward, step_reward)
    start = starts / starts.sum()
    return from_outcomes(to, 1.0, gain, terminal=walls | ends, start=start, action_names=(*COMPASS,))


def blocking_maze(*, after: bool = False) -> MDP:
    """The wall with its gap on the right, 10 steps; after the change on the left, 16.

    Source: Sutton and Barto 2018, example 8.2 (the change is after 1,000 steps).
    """
    return maze(BLOCKED if after else BLOCKING)


def shortcut_maze(*, after: bool = False) -> MDP:
    """The wall with its gap on the left, 16 steps; after the change with one on the right as well, 10.

    Source: Sutton and Barto 2018, example 8.3 (the change is after 3,000 steps).
    """
    return maze(SHORTCUT_OPEN if after else SHORTCUT)


def cells_of(text: str, known: str) -> tuple[np.ndarray, int, int]:
    """The cells of a map, (str [rows * cols], rows, cols).

    Raises: ConfigError for rows of different lengths, unknown letters, or no S or no G.
    """
    lines = text.strip("\n").split("\n")
    widths = {len(line) for line in lines}
    if len(widths) != 1:
        raise ConfigError(f"the map's rows have lengths {sorted(widths)}; a map is a rectangle. Fill its rows up.")
    cells = np.array([list(line) for line in lines]).ravel()
    strange = sorted(set(cells.tolist()) - set(known))
    if strange:
        raise ConfigError(f"the map has the letters {strange}; it is written in {list(known)}. Replace them.")
    for letter, meaning in (("S", "start"), ("G", "goal")):
        if letter not in cells:
            raise ConfigError(f"the map has no {letter}; it needs a {meaning}. Put an {letter} into a cell.")
    return cells, len(lines), widths.pop()
