"""Examples of operations research: Jack's cars, access control, the forest, Puterman's two, pymdptoolbox' small."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.special import comb, gammaln, pdtrc

from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.storage import Floats, Ints
from onepolicy.tabular.worlds.tables import at_least, chance, from_outcomes, require_room

PRIORITIES = (1.0, 2.0, 4.0, 8.0)
"""Rewards of the customers of `access_control`."""


def jacks_car_rental(
    *,
    cars: int = 20,
    most_moved: int = 5,
    requests: tuple[float, float] = (3.0, 4.0),
    returns: tuple[float, float] = (3.0, 2.0),
    rent: float = 10.0,
    move_cost: float = 2.0,
) -> MDP:
    """Jack's car rental with full Poisson distributions: state first * (cars + 1) + second, the cars at close of day.

    At night up to most_moved cars go from one place to the other, move_cost each; next day cars are requested and
    rented, as far as there are any, and returned. A place keeps at most `cars`; more are lost. `row_labels` are the
    cars moved from the first place to the second, negative the other way; every state has its own number of actions.
    The reward of a transition is the expected one of its row. Start: uniform.
    Source: Sutton and Barto 2018, example 4.2 (discount 0.9).
    """
    side = at_least("cars", cars, 1) + 1
    require_room(side**2, side**4 * min(2 * at_least("most_moved", most_moved, 0) + 1, side))
    here, there = np.divmod(np.arange(side * side), side)
    least, most = -np.minimum(there, most_moved), np.minimum(here, most_moved)
    actions = most - least + 1
    state = np.repeat(np.arange(side * side), actions)
    action = np.arange(actions.sum()) - np.repeat(np.cumsum(actions) - actions, actions)
    moved = action + least[state]
    morning = np.minimum(here[state] - moved, cars), np.minimum(there[state] + moved, cars)
    (first, sold), (second, sold_too) = (_day(cars, *rates) for rates in zip(requests, returns, strict=True))
    probability = first[morning[0]][:, :, None] * second[morning[1]][:, None, :]
    reward = rent * (sold[morning[0]] + sold_too[morning[1]]) - move_cost * np.abs(moved)
    outcomes = side * side
    mdp = MDP.from_coo(
        np.repeat(state, outcomes),
        np.repeat(action, outcomes),
        np.tile(np.arange(outcomes), len(state)),
        probability.ravel(),
        np.repeat(reward, outcomes),
        num_states=outcomes,
        state_names=[f"({i}, {j})" for i, j in zip(here, there)],
    )
    return replace(mdp, row_labels=moved.astype(np.int32))


def _day(cars: int, requests: float, returns: float) -> tuple[Floats, Floats]:
    """A day at one place: probabilities morning -> evening [cars + 1, cars + 1], expected rentals [cars + 1]."""
    counts = np.arange(cars + 1)
    rented = counts[:, None] - counts
    left = _poisson(rented, requests)
    left[:, 0] = _beyond(counts - 1, requests)
    after = _poisson(-rented, returns)
    after[:, cars] = _beyond(cars - counts - 1, returns)
    return left @ after, (left * rented).sum(axis=1)


def _poisson(counts: Ints, rate: float) -> Floats:
    """Probability of each count; 0 for negative ones."""
    known = np.maximum(counts, 0)
    return np.where(counts >= 0, np.exp(known * np.log(rate) - rate - gammaln(known + 1)), 0.0)


def _beyond(counts: Ints, rate: float) -> Floats:
    """Probability of more than each count, which is -1 or more."""
    return np.where(counts < 0, 1.0, pdtrc(np.maximum(counts, 0), rate))


def access_control(*, servers: int = 10, freed: float = 0.06) -> MDP:
    """Access control: customers of PRIORITIES queue without end; state free servers * 4 + the first's priority index.

    Actions: reject, accept (only where a server is free; pays the priority). Then every busy server, the new one too,
    becomes free with probability `freed`, and the next customer is of each priority equally likely. It never ends:
    average reward. Start: all servers free. Source: Sutton and Barto 2018, example 10.2.
    """
    total = at_least("servers", servers, 1)
    require_room(4 * (total + 1), 32 * (total + 1) ** 2)
    counts, p = np.arange(total + 1), chance("freed", freed)
    busy, more = total - counts[:, None], counts - counts[:, None]
    frees = comb(busy, more) * p ** np.maximum(more, 0) * (1.0 - p) ** np.maximum(busy - more, 0)
    kinds = len(PRIORITIES)
    free, kind = np.divmod(np.arange((total + 1) * kinds), kinds)
    state = np.concatenate([np.arange(len(free)), np.flatnonzero(free > 0)])
    accept = np.arange(len(state)) // len(free)
    probability = np.repeat(frees[free[state] - accept] / kinds, kinds, axis=1)
    reward = accept * np.array(PRIORITIES)[kind[state]]
    outcomes = len(free)
    return MDP.from_coo(
        np.repeat(state, outcomes),
        np.repeat(accept, outcomes),
        np.tile(np.arange(outcomes), len(state)),
        probability.ravel(),
        np.repeat(reward, outcomes),
        num_states=outcomes,
        start=np.where(free == total, 1.0 / kinds, 0.0),
        state_names=[f"{f} free, priority {PRIORITIES[k]:g}" for f, k in zip(free, kind)],
        action_names=("reject", "accept"),
    )


def forest(*, states: int = 3, wait_reward: float = 4.0, cut_reward: float = 2.0, fire: float = 0.1) -> MDP:
    """The forest of pymdptoolbox: it ages by a year or burns to age 0 with probability `fire`; actions: wait, cut.

    Waiting pays wait_reward in the oldest age. Cutting leads to age 0 and pays cut_reward in the oldest, 0 in the
    youngest, 1 in every other age. Start: uniform.
    Source: pymdptoolbox `mdptoolbox.example.forest`.
    """
    last = at_least("states", states, 2) - 1
    require_room(states, 4 * states)
    age = np.arange(last + 1)
    to = np.zeros((last + 1, 2, 2), dtype=np.int64)
    to[:, 0, 0] = np.minimum(age + 1, last)
    burn = chance("fire", fire)
    split = np.array([[1.0 - burn, burn], [1.0, 0.0]])
    reward = np.zeros((last + 1, 2, 1))
    reward[1:, 1] = 1.0
    reward[last, :, 0] = wait_reward, cut_reward
    return from_outcomes(to, split, reward, action_names=("wait", "cut"))


def small() -> MDP:
    """Two states, two actions: pymdptoolbox' smallest example, `mdptoolbox.example.small`."""
    split = [[[0.5, 0.5], [0.0, 1.0]], [[0.8, 0.2], [0.1, 0.9]]]
    return from_outcomes(np.broadcast_to([0, 1], (2, 2, 2)), split, [[[5.0], [10.0]], [[-1.0], [2.0]]])


def puterman_two_state() -> MDP:
    """Two states, the second with one action only. Source: Puterman 1994, Markov Decision Processes, section 3.1."""
    return MDP.from_coo(
        [0, 0, 0, 1], [0, 0, 1, 0], [0, 1, 1, 1], [0.5, 0.5, 1.0, 1.0], [5.0, 5.0, 10.0, -1.0], num_states=2
    )


def puterman_inventory() -> MDP:
    """A stock of 0 to 3: order a, 4 + 2a if a > 0; holding s + a; each unit sold 8; demand 0, 1, 2 with 1/4, 1/2, 1/4.

    Actions of stock s: order 0 .. 3 - s; orders arrive before the demand; what cannot be met is lost. The reward is
    the expected one. A finite-horizon example. Source: Puterman 1994, sections 3.2.2 and 4.6.1.
    """
    actions = np.array([4, 3, 2, 1])
    state = np.repeat(np.arange(4), actions)
    order = np.arange(10) - np.repeat(np.cumsum(actions) - actions, actions)
    stock = state + order
    demand, split = np.arange(3), np.array([0.25, 0.5, 0.25])
    sold = np.minimum(stock[:, None], demand)
    reward = 8.0 * sold @ split - (order > 0) * 4.0 - 2.0 * order - stock
    return MDP.from_coo(
        np.repeat(state, 3),
        np.repeat(order, 3),
        (stock[:, None] - sold).ravel(),
        np.tile(split, 10),
        np.repeat(reward, 3),
        num_states=4,
        action_names=tuple(f"order {n}" for n in range(4)),
    )
