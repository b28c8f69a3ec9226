"""Worlds on a line: random walks, two corridors with aliased states, and the two states of the maximisation bias."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.worlds.tables import at, at_least, from_outcomes, require_room

ALIASED_OBSERVATIONS = (1, 2, 3, 2, 4, 0, 0)
"""What is seen in each state of `aliased_corridor`: the two s2 look alike; 0 is the end."""


def random_walk(*, states: int = 5, neighbours: int = 1, left: float = 0.0, right: float = 1.0) -> MDP:
    """A random walk from the middle of 1 .. states; its ends 0 and states + 1 alone are rewarded. One action.

    neighbours: a step goes 1 to `neighbours` states to the left or right, all equally likely; what would lead beyond
    an end leads to it. left, right: the rewards there. True values for one neighbour: left + i (right - left) /
    (states + 1) in state i. Source: Sutton and Barto 2018, example 6.2 (5 states), 7.1 (19 states, -1 and 1), 9.1
    (1000 states, 100 neighbours, -1 and 1; there the start is state 500, as here).
    """
    last = at_least("states", states, 1) + 1
    require_room(last + 1, 2 * at_least("neighbours", neighbours, 1) * (last + 1))
    reach = np.arange(1, neighbours + 1)
    to = np.clip(np.arange(last + 1)[:, None] + np.concatenate([-reach[::-1], reach]), 0, last)
    reward = np.zeros(last + 1)
    reward[[0, last]] = left, right
    return from_outcomes(
        to[:, None], 0.5 / neighbours, reward[to][:, None], terminal=at(last + 1, 0, last), start=(states + 1) // 2
    )


def short_corridor() -> MDP:
    """The short corridor with switched actions: states 0, 1, 2 and the end 3; -1 a step; actions: left, right.

    In state 1 left leads right and right leads left. All three states look alike, so that the best a policy can do is
    right with probability 2 - sqrt(2). Source: Sutton and Barto 2018, example 13.1.
    """
    to = np.array([[0, 1], [2, 0], [1, 3], [3, 3]])
    return from_outcomes(to[..., None], 1.0, -1.0, terminal=at(4, 3), start=0, action_names=("left", "right"))


def aliased_corridor(*, goal: float = 1.0, death: float = -1.0, move: float = 0.0) -> MDP:
    """The course's corridor s1 s2 s3 s2' s4 with the goal under s3 and death under s1 and s4.

    Actions: left, right, down; a move against a wall stays. State 5 is the goal, 6 death; the rewards are for the move
    into them, `move` for every other. Seen is only `ALIASED_OBSERVATIONS`: s2 and s2' look alike. Start: any of the
    five, equally likely.
    """
    cells = np.arange(5)
    to = np.full((7, 3), 6)
    to[:5, 0], to[:5, 1], to[:5, 2] = np.maximum(cells - 1, 0), np.minimum(cells + 1, 4), [6, 1, 5, 3, 6]
    reward = np.array([move] * 5 + [goal, death])
    return from_outcomes(
        to[..., None],
        1.0,
        reward[to][..., None],
        terminal=at(7, 5, 6),
        state_names=("s1", "s2", "s3", "s2'", "s4", "goal", "death"),
        action_names=("left", "right", "down"),
    )


def maximisation_bias(*, actions: int = 10, mean: float = -0.1, deviation: float = 1.0, atoms: int = 201) -> MDP:
    """Two states of which the wrong one looks good: from A right ends with 0, left leads to B; from B all ends.

    State 0 is A, 1 is B, 2 the end on the right, 3 + i the end that pays atom i. Each of the `actions` of B pays a
    normal of this mean and deviation, as `atoms` equally likely values: its quantiles, scaled to that deviation
    exactly. One atom pays the mean, for learners that add noise themselves. Left is worth `mean`; the maximum of B's
    noisy estimates is worth more. Start: A.
    Source: Sutton and Barto 2018, example 6.7 (which leaves the number of actions open).
    """
    at_least("actions", actions, 1)
    z = ndtri((np.arange(at_least("atoms", atoms, 1)) + 0.5) / atoms)
    pays = mean + deviation * z / max(z.std(), 1e-9)
    ends = np.arange(3, 3 + atoms)
    return MDP.from_coo(
        np.repeat([0, 0, 1], [1, 1, actions * atoms]),
        np.concatenate([[0, 1], np.repeat(np.arange(actions), atoms)]),
        np.concatenate([[1, 2], np.tile(ends, actions)]),
        np.concatenate([[1.0, 1.0], np.full(actions * atoms, 1.0 / atoms)]),
        np.concatenate([[0.0, 0.0], np.tile(pays, actions)]),
        num_states=3 + atoms,
        start=0,
        state_names=["A", "B", "right", *(f"{pay:.3g}" for pay in pays)],
    )
