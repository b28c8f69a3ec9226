"""Small models with known answers, and models solved over the rationals."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np

from onepolicy.tabular.build import from_arrays, from_grid
from onepolicy.tabular.mdp import MDP


def forest(size: int = 3, old: float = 4.0, cut: float = 2.0, fire: float = 0.1) -> MDP:
    """mdptoolbox's forest: wait (0) or cut (1); a fire or a cut takes the wood back to its first year."""
    move = np.zeros((2, size, size))
    move[0, np.arange(size), np.minimum(np.arange(size) + 1, size - 1)] = 1 - fire
    move[0, :, 0] += fire
    move[1, :, 0] = 1
    reward = np.zeros((size, 2))
    reward[1:, 1], reward[-1] = 1, (old, cut)
    return from_arrays(move, reward)


def small() -> MDP:
    """mdptoolbox's small example."""
    return from_arrays(np.array([[[0.5, 0.5], [0.8, 0.2]], [[0, 1], [0.1, 0.9]]]), np.array([[5.0, 10], [-1, 2]]))


def puterman() -> MDP:
    """Puterman 1994, section 3.1: two states, the second with one action."""
    return from_arrays(np.array([[[0.5, 0.5], [0, 1]], [[0, 1], [0, 1]]]), np.array([[5, 10], [-1, -np.inf]]))


def inventory() -> MDP:
    """Puterman 1994, section 3.2.2: up to 3 in stock, demand 0, 1, 2 (1/4, 1/2, 1/4); order 4 + 2u, hold u, sell 8."""
    entries = []
    for stock, order in product(range(4), range(4)):
        level = stock + order
        if level > 3:
            continue
        for demand, p in ((0, 0.25), (1, 0.5), (2, 0.25)):
            sold = min(level, demand)
            reward = 8 * sold - (4 + 2 * order if order else 0) - level
            entries.append((stock, order, level - sold, p, reward))
    return MDP.from_coo(*map(np.array, zip(*entries)), num_states=4)


def mushroom_grid() -> MDP:
    """MushroomRL's 2x2 grid of its tests: moves succeed with 0.9, else nothing happens; 1 for reaching the goal."""
    moves = [(-1, 0), (1, 0), (0, -1), (0, 1)]
    entries = []
    for s, a in product(range(3), range(4)):
        row, column = s // 2 + moves[a][0], s % 2 + moves[a][1]
        t = 2 * row + column if 0 <= row < 2 and 0 <= column < 2 else s
        entries += [(s, a, t, 0.9, float(t == 3)), (s, a, s, 0.1, 0.0)]
    return MDP.from_coo(*map(np.array, zip(*entries)), num_states=4, terminal=[3])


def four_by_four() -> MDP:
    """Sutton and Barto 2018, example 4.1: two opposite corners end, a move costs 1."""
    return from_grid("G...\n....\n....\n...G")


Rational = dict[tuple[int, int], dict[int, tuple[Fraction, Fraction]]]
"""(state, action) -> successor -> probability, reward."""


def random_rational(seed: int, states: int, actions: int, *, ending: bool) -> Rational:
    """A random model over small fractions with 1 to `actions` actions a state.

    ending: the last state is terminal, and every row leads there with some probability (all policies end).
    """
    rng = np.random.default_rng(seed)
    model: Rational = {}
    for s in range(states - ending):
        for a in range(int(rng.integers(1, actions + 1))):
            following = set(rng.integers(0, states, size=int(rng.integers(1, 4))).tolist())
            following |= {states - 1} if ending else set()
            weights = {t: int(rng.integers(1, 6)) for t in sorted(following)}
            total = sum(weights.values())
            model[s, a] = {t: (Fraction(w, total), Fraction(int(rng.integers(-9, 10)), 3)) for t, w in weights.items()}
    return model


def as_mdp(model: Rational, states: int, dtype: str = "float64") -> MDP:
    """The rational model in floating point."""
    entries = [(s, a, t, float(p), float(r)) for (s, a), row in model.items() for t, (p, r) in row.items()]
    return MDP.from_coo(*map(np.array, zip(*entries)), num_states=states, dtype=dtype)


def solve(matrix: list[list[Fraction]], right: list[Fraction]) -> list[Fraction]:
    """x of matrix x = right by Gauss-Jordan over the rationals."""
    n = len(right)
    rows = [list(row) + [b] for row, b in zip(matrix, right)]
    for i in range(n):
        pivot = next(k for k in range(i, n) if rows[k][i] != 0)
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [x / rows[i][i] for x in rows[i]]
        for k in range(n):
            if k != i and rows[k][i] != 0:
                rows[k] = [x - rows[k][i] * y for x, y in zip(rows[k], rows[i])]
    return [row[-1] for row in rows]


def actions_of(model: Rational, state: int) -> list[int]:
    """The actions of a state."""
    return [a for s, a in model if s == state]


def true_q(model: Rational, v: list[Fraction], discount: Fraction, s: int, a: int) -> Fraction:
    """r + discount P v of one row, exactly."""
    return sum((p * (r + discount * v[t]) for t, (p, r) in model[s, a].items()), Fraction(0))


def true_value(model: Rational, states: int, discount: Fraction, policy: dict[int, int]) -> list[Fraction]:
    """V^pi, exactly; states without actions have 0."""
    matrix, right = [], []
    for s in range(states):
        row = [Fraction(int(s == t)) for t in range(states)]
        if s in policy:
            for t, (p, _) in model[s, policy[s]].items():
                row[t] -= discount * p
        matrix.append(row)
        right.append(true_q(model, [Fraction(0)] * states, discount, s, policy[s]) if s in policy else Fraction(0))
    return solve(matrix, right)


def true_optimum(model: Rational, states: int, discount: Fraction) -> tuple[list[Fraction], dict[int, int]]:
    """V* and an optimal policy by policy iteration over the rationals; every policy has to end if discount is 1."""
    policy = {s: 0 for s, _ in model}
    while True:
        v = true_value(model, states, discount, policy)
        better = {}
        for s in policy:
            q = {a: true_q(model, v, discount, s, a) for a in actions_of(model, s)}
            best = max(q, key=lambda a: q[a])
            better[s] = best if q[best] > q[policy[s]] else policy[s]
        if better == policy:
            return v, policy
        policy = better


def true_gain(model: Rational, states: int, policy: dict[int, int]) -> Fraction:
    """The gain of a policy with one recurrent class: g and h of g + h = r + P h, h(0) = 0."""
    matrix, right = [], []
    for s in range(states):
        row = [Fraction(1)] + [Fraction(int(s == t)) for t in range(1, states)]
        for t, (p, _) in model[s, policy[s]].items():
            if t:
                row[t] -= p
        matrix.append(row)
        right.append(true_q(model, [Fraction(0)] * states, Fraction(1), s, policy[s]))
    return solve(matrix, right)[0]
