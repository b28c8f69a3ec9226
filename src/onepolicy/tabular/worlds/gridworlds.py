"""Worlds on a grid of cells, numbered row by row from the top left; each as an exact `MDP`.

In: the course's 3x3 grid, the 4x4 and 5x5 gridworlds, cliff and windy walking of Sutton and Barto, MushroomRL's 2x2
grid, and an open grid of any size with slips. Mazes are in mazes.py, FrozenLake and Taxi in toytext.py.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.worlds.tables import (
    COMPASS,
    DOWN,
    LEFT,
    RIGHT,
    UP,
    at,
    at_least,
    chance,
    from_outcomes,
    large,
    reach,
    require_room,
    sideways,
)  # fmt: skip

KING = {**COMPASS, "up-right": (-1, 1), "down-right": (1, 1), "down-left": (1, -1), "up-left": (-1, -1)}
WIND = (0, 0, 0, 1, 1, 1, 2, 2, 1, 0)
"""Cells upwards that the wind of each column of `windy` adds to a move."""


def course_grid() -> MDP:
    """The course's grid `s0 s1 Fail / s2 s3 s4 / s5 s6 Success`: -1 a move, +10 into Success, -10 into Fail.

    The reward of the last move is the end's alone. Cell i is named by `state_names`: Fail is cell 2, Success cell 8.
    Actions: up, right, down, left; a move off the grid stays. Start: s0.
    """
    ends = at(9, 2, 8)
    to = reach(3, 3, list(COMPASS.values()))
    reward = np.full(9, -1.0)
    reward[[2, 8]] = -10.0, 10.0
    names = ("s0", "s1", "Fail", "s2", "s3", "s4", "s5", "s6", "Success")
    return from_outcomes(
        to[..., None], 1.0, reward[to][..., None], terminal=ends, start=0, state_names=names, action_names=(*COMPASS,)
    )


def gridworld_4x4() -> MDP:
    """The 4x4 gridworld: -1 a move until one of the two corners, top left and bottom right, is reached.

    Actions: up, right, down, left. Source: Sutton and Barto 2018, example 4.1.
    """
    to = reach(4, 4, list(COMPASS.values()))
    return from_outcomes(to[..., None], 1.0, -1.0, terminal=at(16, 0, 15), action_names=(*COMPASS,))


def gridworld_5x5() -> MDP:
    """The 5x5 gridworld without an end: from A any move leads to A' with +10, from B to B' with +5; off the grid: -1.

    A is cell 1, A' cell 21, B cell 3, B' cell 13. Actions: up, right, down, left.
    Source: Sutton and Barto 2018, examples 3.5 and 3.8 (discount 0.9).
    """
    to = reach(5, 5, list(COMPASS.values()))
    reward = np.where(to == np.arange(25)[:, None], -1.0, 0.0)
    to[1], to[3], reward[1], reward[3] = 21, 13, 10.0, 5.0
    return from_outcomes(to[..., None], 1.0, reward[..., None], action_names=(*COMPASS,))


def cliff(*, slippery: bool = False) -> MDP:
    """Cliff walking, 4 x 12: -1 a move from bottom left to bottom right; the cells between cost -100 and lead back.

    slippery: a move goes ahead, or to either side, with probability 1/3 each. Actions: up, right, down, left. Cells of
    the cliff (37 to 46) are never entered; they have the moves gymnasium gives them.
    Source: Sutton and Barto 2018, example 6.6; gymnasium `CliffWalking-v1` and `CliffWalkingSlippery-v1`.
    """
    to = reach(4, 12, list(COMPASS.values()))
    to = sideways(to) if slippery else to[..., None]
    fall = (to > 36) & (to < 47)
    return from_outcomes(
        np.where(fall, 36, to),
        1.0 / to.shape[2],
        np.where(fall, -100.0, -1.0),
        terminal=at(48, 47),
        start=36,
        action_names=(*COMPASS,),
    )


def windy(*, king: bool = False, stay: bool = False, stochastic: bool = False) -> MDP:
    """Windy gridworld, 7 x 10: -1 a move from cell 30 to cell 37, shifted upwards by the wind of the column left.

    king: diagonal moves as well. stay: one more action, which moves by the wind alone. stochastic: where there is wind
    it is one less, as given or one more, with probability 1/3 each. Actions: up, right, down, left, then the others.
    Source: Sutton and Barto 2018, example 6.5, exercises 6.9 and 6.10.
    """
    named = {**(KING if king else COMPASS), **({"stay": (0, 0)} if stay else {})}
    wind = np.tile(WIND, 7)[:, None]
    gusts = wind + np.array([-1, 0, 1]) * (wind > 0) if stochastic else wind
    moves = np.array(list(named.values()))[None, :, None, :] - np.stack([gusts, 0 * gusts], axis=-1)[:, None]
    to = reach(7, 10, moves.reshape(70, -1, 2)).reshape(70, len(named), -1)
    return from_outcomes(to, 1.0 / to.shape[2], -1.0, terminal=at(70, 37), start=30, action_names=(*named,))


def open_grid(*, rows: int = 10, cols: int = 10, slip: float = 0.2, reward: float = -1.0, goal: float = 0.0) -> MDP:
    """An open grid of any size with one end, its last cell; a move slips to either side with probability slip / 2.

    reward: of each move, goal: added on entering the end. Start: cell 0. Actions: up, right, down, left.
    slip 0 stores one outcome an action, so that 10^7 cells fit. Source: the noise 0.8/0.1/0.1 of Russell and Norvig,
    Artificial Intelligence, section 17.1, on a grid without obstacles.
    """
    cells = at_least("rows", rows, 1) * at_least("cols", cols, 1)
    at_least("rows * cols", cells, 2)
    noisy = chance("slip", slip) > 0
    require_room(cells, 12 * cells if noisy else 4 * cells, 72 if noisy else 32)
    ahead = reach(rows, cols, list(COMPASS.values())).astype(np.int32)
    to = sideways(ahead) if noisy else ahead[..., None]
    split = np.array([1.0 - slip, slip / 2, slip / 2] if noisy else [1.0])
    expected = np.full(ahead.shape, float(reward))
    if goal != 0:
        expected += goal * ((to == cells - 1) * split).sum(axis=-1)
    ends = at(cells, cells - 1)
    mdp = large(to, split, expected, terminal=ends, start=0, action_names=(*COMPASS,))
    if goal == 0 or not noisy:
        return mdp
    return replace(mdp, transition_rewards=reward + goal * (mdp.csr().successors == cells - 1))


def mushroom_grid(*, success: float = 0.9) -> MDP:
    """MushroomRL's 2x2 grid: a move succeeds with probability `success`, else one stays; +1 into the last cell.

    Actions: up, down, left, right. Start: cell 0. Source: MushroomRL `environments/generators/grid_world.py`.
    """
    to = reach(2, 2, [UP, DOWN, LEFT, RIGHT])
    stay = np.broadcast_to(np.arange(4)[:, None], to.shape)
    split = np.array([chance("success", success), 1.0 - success])
    outcome = np.stack([to, stay], axis=2)
    return from_outcomes(
        outcome, split, outcome == 3, terminal=at(4, 3), start=0, action_names=("up", "down", "left", "right")
    )
