"""Each compiled learner against a plain loop over dictionaries, on the same random numbers, to rounding.

The world has everything that can go wrong: states with one to three actions, rows with one and several outcomes, rows
with noisy rewards, an end that is sometimes reached and a time limit that is sometimes hit.
"""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest

from onepolicy.tabular import control
from onepolicy.tabular.control.settings import Settings
from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.simulate import streams, uniform

# (state, action) -> [(probability, next state, reward)], and the reward's standard deviation; state 4 is the end
OUTCOMES = {
    (0, 0): [(0.5, 1, 1.0), (0.5, 2, -1.0)],
    (0, 1): [(1.0, 2, 0.5)],
    (1, 0): [(1.0, 0, 0.0)],
    (1, 1): [(0.25, 1, 2.0), (0.25, 3, -2.0), (0.5, 4, 1.0)],
    (1, 2): [(1.0, 3, -1.0)],
    (2, 0): [(0.75, 0, -0.5), (0.25, 3, 1.0)],
    (3, 0): [(1.0, 3, -0.25)],
    (3, 1): [(0.5, 2, 0.0), (0.5, 4, 3.0)],
}
STD = {(1, 0): 0.5, (3, 1): 1.0}
ACTIONS = {0: 2, 1: 3, 2: 1, 3: 2}
START = [0.5, 0.0, 0.25, 0.25, 0.0]
END = 4
GAMMA, ALPHA, EPISODES, LIMIT, SEED, RUNS = 0.9, 0.5, 40, 6, 7, 3
EPSILON = np.linspace(1.0, 0.05, EPISODES)


def model():
    rows = [(s, a, t, p, r) for (s, a), found in OUTCOMES.items() for p, t, r in found]
    return MDP.from_coo(*map(list, zip(*rows)), num_states=5, start=START)


def settings(**changes):
    std = [STD.get(pair, 0.0) for pair in sorted(OUTCOMES)]
    given = {
        "episodes": EPISODES, "alpha": ALPHA, "epsilon": EPSILON, "gamma": GAMMA, "runs": RUNS, "seed": SEED,
        "max_steps": LIMIT, "reward_std": std,
    }  # fmt: skip
    return Settings(**given | changes)


class Dice:
    """One run's random numbers, spent in the documented order."""

    def __init__(self, run):
        self.stream = streams(SEED, RUNS)[run]

    def number(self):
        return uniform(self.stream)

    def one_of(self, pairs):
        """The outcome of [(probability, outcome)] that the next number falls on."""
        u, reached = self.number(), 0.0
        for p, what in pairs:
            reached += p
            if u < reached:
                return what
        return pairs[-1][1]

    def begin(self):
        return self.one_of(list(zip(START, range(5))))

    def step(self, s, a):
        """(next state, reward)"""
        found = OUTCOMES[s, a]
        t, r = found[0][1:] if len(found) == 1 else self.one_of([(p, (t, r)) for p, t, r in found])
        if (s, a) in STD:
            u = self.number()
            r += STD[s, a] * math.sqrt(-2 * math.log(1 - u)) * math.cos(2 * math.pi * self.number())
        return t, r

    def greedy(self, q, s, u):
        top = max(q[s, a] for a in range(ACTIONS[s]))
        ties = [a for a in range(ACTIONS[s]) if q[s, a] == top]
        return ties[int(u * len(ties))]

    def act(self, q, s, epsilon):
        u = self.number()
        if u < epsilon:
            return int(u / epsilon * ACTIONS[s])
        return self.greedy(q, s, (u - epsilon) / (1 - epsilon))


def best(q, s):
    return max(q[s, a] for a in range(ACTIONS[s]))


def expectation(q, s, epsilon):
    values = [q[s, a] for a in range(ACTIONS[s])]
    return (1 - epsilon) * max(values) + epsilon * sum(values) / len(values)


def naive_one_step(dice, rule, power=0.0):
    q, n, returns = defaultdict(float), defaultdict(int), []
    for epsilon in EPSILON:
        s, total, length = dice.begin(), 0.0, 0
        a = dice.act(q, s, epsilon)
        while True:
            t, r = dice.step(s, a)
            total, length, target = total + r, length + 1, r
            if t != END:
                if rule == "sarsa":
                    b = dice.act(q, t, epsilon)
                    target += GAMMA * q[t, b]
                elif rule == "q":
                    target += GAMMA * best(q, t)
                else:
                    target += GAMMA * expectation(q, t, epsilon)
            n[s, a] += 1
            q[s, a] += ALPHA / n[s, a] ** power * (target - q[s, a])
            if t != END and rule != "sarsa":
                b = dice.act(q, t, epsilon)
            if t == END or length == LIMIT:
                break
            s, a = t, b
        returns.append((total, length, t != END))
    return q, n, returns


def naive_double_q(dice):
    tables, n, returns = [defaultdict(float), defaultdict(float)], defaultdict(int), []
    for epsilon in EPSILON:
        s, total, length = dice.begin(), 0.0, 0
        while s != END and length < LIMIT:
            mean = {pair: 0.5 * (tables[0][pair] + tables[1][pair]) for pair in OUTCOMES}
            a = dice.act(mean, s, epsilon)
            t, r = dice.step(s, a)
            mine = 1 if dice.number() < 0.5 else 0
            target = r
            if t != END:
                target += GAMMA * tables[1 - mine][t, dice.greedy(tables[mine], t, dice.number())]
            tables[mine][s, a] += ALPHA * (target - tables[mine][s, a])
            n[s, a] += 1
            s, total, length = t, total + r, length + 1
        returns.append((total, length, s != END))
    return {pair: 0.5 * (tables[0][pair] + tables[1][pair]) for pair in OUTCOMES}, n, returns


def naive_monte_carlo(dice, first_visit):
    q, n, returns = defaultdict(float), defaultdict(int), []
    for epsilon in EPSILON:
        s, path = dice.begin(), []
        while s != END and len(path) < LIMIT:
            a = dice.act(q, s, epsilon)
            t, r = dice.step(s, a)
            path.append((s, a, r))
            s = t
        tail = 0.0 if s == END else expectation(q, s, epsilon)
        for i in range(len(path) - 1, -1, -1):
            pair = path[i][:2]
            if first_visit and pair in [step[:2] for step in path[:i]]:
                continue
            length = len(path) - i
            g = sum(GAMMA**k * path[i + k][2] for k in range(length)) + GAMMA**length * tail
            n[pair] += 1
            q[pair] += (g - q[pair]) / n[pair]
        returns.append((sum(step[2] for step in path), len(path), s != END))
    return q, n, returns


def naive_n_step(dice, steps):
    q, n, returns = defaultdict(float), defaultdict(int), []
    for epsilon in EPSILON:
        s = dice.begin()
        pairs, rewards, learnt, over = [(s, dice.act(q, s, epsilon))], [], 0, False
        while not over or learnt < len(rewards):
            if not over:
                t, r = dice.step(*pairs[-1])
                rewards.append(r)
                if t != END:
                    pairs.append((t, dice.act(q, t, epsilon)))
                over = t == END or len(rewards) == LIMIT
            if over or len(rewards) - learnt == steps:
                stop = min(learnt + steps, len(rewards))
                g = sum(GAMMA ** (i - learnt) * rewards[i] for i in range(learnt, stop))
                if stop < len(pairs):
                    g += GAMMA ** (stop - learnt) * q[pairs[stop]]
                n[pairs[learnt]] += 1
                q[pairs[learnt]] += ALPHA * (g - q[pairs[learnt]])
                learnt += 1
        returns.append((sum(rewards), len(rewards), t != END))
    return q, n, returns


def naive_dyna(dice, planning):
    q, n, returns, model, order = defaultdict(float), defaultdict(int), [], {}, []

    def learn(pair):
        t, r = model[pair]
        n[pair] += 1
        q[pair] += ALPHA * (r + (GAMMA * best(q, t) if t != END else 0.0) - q[pair])

    for epsilon in EPSILON:
        s, total, length = dice.begin(), 0.0, 0
        while s != END and length < LIMIT:
            a = dice.act(q, s, epsilon)
            t, r = dice.step(s, a)
            if (s, a) not in model:
                order.append((s, a))
            model[s, a] = (t, r)
            learn((s, a))
            for _ in range(planning):
                learn(order[int(dice.number() * len(order))])
            s, total, length = t, total + r, length + 1
        returns.append((total, length, s != END))
    return q, n, returns


def naive_r_max(dice, known, bound):
    top = bound / (1 - GAMMA)
    q, n, returns = dict.fromkeys(OUTCOMES, top), defaultdict(int), []
    data = defaultdict(list)

    def plan():
        for _ in range(2000):
            for pair, found in data.items():
                if len(found) == known:
                    q[pair] = sum(r + (GAMMA * best(q, t) if t != END else 0.0) for t, r in found) / known

    for _ in EPSILON:
        s, total, length = dice.begin(), 0.0, 0
        while s != END and length < LIMIT:
            a = dice.greedy(q, s, dice.number())
            t, r = dice.step(s, a)
            n[s, a] += 1
            if n[s, a] <= known:
                data[s, a].append((t, r))
                if n[s, a] == known:
                    plan()
            s, total, length = t, total + r, length + 1
        returns.append((total, length, s != END))
    return q, n, returns


HARMONIC = {"alpha": 1.0, "alpha_power": 1.0}
CASES = {
    "sarsa": (control.sarsa, {}, {}, lambda d: naive_one_step(d, "sarsa")),
    "sarsa, step 0.5/n^0.7": (
        control.sarsa, {"alpha_power": 0.7}, {}, lambda d: naive_one_step(d, "sarsa", 0.7)
    ),
    "q_learning": (control.q_learning, {}, {}, lambda d: naive_one_step(d, "q")),
    "q_learning, step 0.5/n": (control.q_learning, {"alpha_power": 1.0}, {}, lambda d: naive_one_step(d, "q", 1.0)),
    "expected_sarsa": (control.expected_sarsa, {}, {}, lambda d: naive_one_step(d, "expected")),
    "double_q_learning": (control.double_q_learning, {}, {}, naive_double_q),
    "mc_control": (control.mc_control, HARMONIC, {}, lambda d: naive_monte_carlo(d, True)),
    "mc_control, every visit": (
        control.mc_control, HARMONIC, {"first_visit": False}, lambda d: naive_monte_carlo(d, False)
    ),
    "n_step_sarsa, 1": (control.n_step_sarsa, {}, {"n": 1}, lambda d: naive_n_step(d, 1)),
    "n_step_sarsa, 3": (control.n_step_sarsa, {}, {"n": 3}, lambda d: naive_n_step(d, 3)),
    "n_step_sarsa, 99": (control.n_step_sarsa, {}, {"n": 99}, lambda d: naive_n_step(d, 99)),
    "dyna_q, 0": (control.dyna_q, {}, {"planning": 0}, lambda d: naive_dyna(d, 0)),
    "dyna_q, 4": (control.dyna_q, {}, {"planning": 4}, lambda d: naive_dyna(d, 4)),
    "r_max": (
        control.r_max, {}, {"known": 5, "reward_bound": 2.0}, lambda d: naive_r_max(d, 5, 2.0)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_compiled_loop_is_the_plain_loop(name):
    learner, changes, options, naive = CASES[name]
    found = learner(model(), settings(**changes), **options)
    for run in range(RUNS):
        q, n, episodes = naive(Dice(run))
        totals, lengths, cut = map(list, zip(*episodes))
        assert found.lengths[run].tolist() == lengths
        assert found.truncated[run].tolist() == cut
        assert 0 < sum(cut) < EPISODES  # both ways to end are in the comparison
        assert found.visits[run].tolist() == [n[pair] for pair in sorted(OUTCOMES)]
        np.testing.assert_allclose(found.returns[run], totals, rtol=1e-12, atol=1e-12)
        exact = 1e-7 if name == "r_max" else 1e-12  # two value iterations stop at different places
        np.testing.assert_allclose(found.q[run], [q[pair] for pair in sorted(OUTCOMES)], rtol=exact, atol=exact)


@pytest.mark.parametrize("name", ["q_learning", "mc_control", "n_step_sarsa, 3", "dyna_q, 4"])
def test_a_run_is_the_same_for_any_number_of_threads_and_runs(name):
    learner, changes, options, _ = CASES[name]
    one = learner(model(), settings(**changes, threads=1), **options)
    several = learner(model(), settings(**changes, threads=3, runs=7), **options)
    np.testing.assert_array_equal(one.q, several.q[:RUNS])
    np.testing.assert_array_equal(one.returns, several.returns[:RUNS])
    assert len({tuple(q) for q in several.q.tolist()}) == 7  # each run has numbers of its own


def test_one_step_of_n_step_sarsa_is_sarsa():
    one, other = control.n_step_sarsa(model(), settings(), n=1), control.sarsa(model(), settings())
    np.testing.assert_allclose(one.q, other.q, rtol=1e-12)
    np.testing.assert_array_equal(one.lengths, other.lengths)
