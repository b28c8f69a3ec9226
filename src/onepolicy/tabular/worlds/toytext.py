"""Gymnasium's FrozenLake and Taxi as exact models: its states, actions, probabilities and rewards, one by one.

Their time limits are part of the registered environments, not of the model: `TIME_LIMITS`. A success rate within 100
steps is a finite-horizon question.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import label

from onepolicy.errors import ConfigError, nearest
from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.worlds.mazes import cells_of
from onepolicy.tabular.worlds.tables import (
    DOWN,
    LEFT,
    RIGHT,
    UP,
    at_least,
    chance,
    from_outcomes,
    reach,
    sideways,
)  # fmt: skip

MAPS = {
    "4x4": ("SFFF", "FHFH", "FFFH", "HFFG"),
    "8x8": ("SFFFFFFF", "FFFFFFFF", "FFFHFFFF", "FFFFFHFF", "FFFHFFFF", "FHHFFFHF", "FHFFHFHF", "FFFHFFFG"),
}
TIME_LIMITS = {"FrozenLake-v1": 100, "FrozenLake8x8-v1": 200, "Taxi-v4": 200}
"""Steps after which gymnasium truncates an episode; `make("FrozenLake-v1", map_name="8x8")` keeps 100."""
STANDS = ((0, 0), (0, 4), (4, 0), (4, 3))
"""Cells of the taxi stands R, G, Y, B."""
TAXI_MAP = ("R: | : :G", " : | : : ", " : : : : ", " | : | : ", "Y| : |B: ")
"""Cells and what is between them: `|` a wall, `:` none."""


def frozen_lake(
    map: str | Sequence[str] = "4x4",
    *,
    slippery: bool = True,
    success_rate: float = 1.0 / 3.0,
    goal_reward: float = 1.0,
) -> MDP:
    """The frozen lake: goal_reward for reaching G, 0 for all else; a hole H ends the walk.

    map: "4x4", "8x8" or rows of the letters S F H G. slippery: a move goes as meant with probability success_rate, to
    each side with half of the rest. Actions: left, down, right, up.
    Raises: ConfigError for an unknown map, success_rate outside [0, 1], or rows that are no map.
    Source: gymnasium `FrozenLake-v1` and `FrozenLake8x8-v1`.
    """
    if isinstance(map, str) and map not in MAPS and "\n" not in map:
        raise ConfigError(f"map is {map!r}; it is a name or rows of the letters S F H G. {nearest(map, MAPS)}")
    rows_of_text = MAPS.get(map, map.split("\n")) if isinstance(map, str) else map
    cells, rows, cols = cells_of("\n".join(rows_of_text), "SFHG")
    to = reach(rows, cols, [LEFT, DOWN, RIGHT, UP])
    side = (1.0 - chance("success_rate", success_rate)) / 2
    outcome = sideways(to) if slippery else to[..., None]
    split = [success_rate, side, side] if slippery else [1.0]
    starts = (cells == "S").astype(np.float64)
    return from_outcomes(
        outcome,
        split,
        np.where(cells[outcome] == "G", goal_reward, 0.0),
        terminal=np.isin(cells, ["H", "G"]),
        start=starts / starts.sum(),
        action_names=("left", "down", "right", "up"),
    )


def random_map(size: int = 8, *, frozen: float = 0.8, seed: int = 0) -> tuple[str, ...]:
    """A lake of size x size cells, each frozen with probability `frozen`, drawn until a path leads from S to G.

    S is top left, G bottom right. Raises: ConfigError for size < 2 or frozen outside (0, 1].
    """
    at_least("size", size, 2)
    if chance("frozen", frozen) == 0.0:
        raise ConfigError("frozen is 0.0; no path can lead over a lake of holes. Give frozen in (0, 1].")
    rng = np.random.default_rng(seed)
    while True:
        ice = rng.random((size, size)) < frozen
        ice[0, 0] = ice[-1, -1] = True
        regions, _ = label(ice)
        if regions[0, 0] == regions[-1, -1]:
            cells = np.where(ice, "F", "H")
            cells[0, 0], cells[-1, -1] = "S", "G"
            return tuple("".join(row) for row in cells)


def taxi(*, rainy: bool = False, rainy_success: float = 0.8) -> MDP:
    """The taxi, 500 states: -1 a step, -10 for a pick-up or drop that cannot be, +20 for the drop at the destination.

    State ((row * 5 + col) * 5 + passenger) * 4 + destination; passenger 0 to 3 waits at R G Y B, 4 rides. Actions:
    south, north, east, west, pick up, drop. States with the passenger at the destination are the end (100 of them; 4
    are reached). Start: any of the other 300 with the passenger waiting, equally likely.
    rainy: a move that is not blocked goes as meant with probability rainy_success, else to either side.
    Source: Dietterich 2000; gymnasium `Taxi-v4` (without its fickle passenger, which is not a model of these states).
    """
    state = np.arange(500)
    cell, passenger, destination = state // 20, state // 4 % 5, state % 4
    stands = np.array([row * 5 + col for row, col in STANDS])
    here = (stands == cell[:, None]).argmax(axis=1)
    at_stand = np.isin(cell, stands)
    home = passenger == destination
    ahead = _roads()[cell] * 20 + (state % 20)[:, None]
    beside = ahead[:, [[2, 3], [3, 2], [1, 0], [0, 1]]]
    outcome = np.empty((500, 6, 3), dtype=np.int64)
    outcome[:, :4, 0] = ahead
    outcome[:, :4, 1:] = np.where((ahead == state[:, None])[..., None], state[:, None, None], beside)
    picks = at_stand & (passenger == here) & (passenger < 4)
    drops = at_stand & (passenger == 4)
    outcome[:, 4] = np.where(picks, cell * 20 + 16 + destination, state)[:, None]
    outcome[:, 5] = np.where(drops, cell * 20 + here * 4 + destination, state)[:, None]
    reward = np.full((500, 6), -1.0)
    reward[:, 4] = np.where(picks, -1.0, -10.0)
    reward[:, 5] = np.where(drops, np.where(here == destination, 20.0, -1.0), -10.0)
    lost = (1.0 - chance("rainy_success", rainy_success)) / 2 if rainy else 0.0
    waiting = (~home & (passenger < 4)).astype(np.float64)
    return from_outcomes(
        outcome,
        np.array([1.0 - 2 * lost, lost, lost]),
        reward[..., None],
        terminal=home,
        start=waiting / waiting.sum(),
        action_names=("south", "north", "east", "west", "pick up", "drop"),
    )


def _roads() -> np.ndarray:
    """The cell a move south, north, east, west leads to, [25, 4]."""
    to = reach(5, 5, [DOWN, UP, RIGHT, LEFT])
    wall = np.array([[mark == "|" for mark in row[1::2]] for row in TAXI_MAP])
    east = np.pad(wall, ((0, 0), (0, 1))).ravel()
    west = np.pad(wall, ((0, 0), (1, 0))).ravel()
    to[east, 2] = np.flatnonzero(east)
    to[west, 3] = np.flatnonzero(west)
    return to
