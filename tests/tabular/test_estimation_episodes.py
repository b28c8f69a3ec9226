"""Off-policy evaluation: by exact enumeration, against core's recurrence, on blackjack, with infinite variance."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.core.returns import discounted_returns, vtrace
from onepolicy.errors import ConfigError, DataError
from onepolicy.tabular.estimation import bootstrap, log_ratio
from onepolicy.tabular.estimation.episodes import (
    LoggedEpisodes,
    direct,
    doubly_robust,
    off_policy_evaluation,
    ordinary,
    per_decision,
    weighted,
    weighted_doubly_robust,
    weighted_per_decision,
)

GAMMA, HORIZON = 0.5, 3
BEHAVIOUR = np.array([[0.25, 0.75], [0.5, 0.5]])
TARGET = np.array([[0.75, 0.25], [0.125, 0.875]])
NEXT = np.array([[[0.75, 0.25], [0.5, 0.5]], [[0.25, 0.75], [1.0, 0.0]]])
REWARD = np.array([[1.0, -2.0], [3.0, 0.5]])
"""Two states, two actions, three steps from state 0; probabilities are multiples of 1/4, so that a log in which every
episode stands as often as it is likely has 16^3 rows."""


def exact_values():
    """q [T, S, A] and v [T, S] of the target with T, T-1, ... steps to go."""
    q, v = np.zeros((HORIZON, 2, 2)), np.zeros((HORIZON + 1, 2))
    for t in range(HORIZON - 1, -1, -1):
        q[t] = REWARD + GAMMA * NEXT @ v[t + 1]
        v[t] = (TARGET * q[t]).sum(axis=1)
    return q, v


def every_episode():
    """State, action [M, T] and probability [M] of every episode the behaviour can make."""
    found = []
    for steps in itertools.product(itertools.product(range(2), range(2)), repeat=HORIZON):
        states, actions = np.array(steps).T
        chance = float(states[0] == 0) * np.prod(BEHAVIOUR[states, actions])
        chance *= np.prod(NEXT[states[:-1], actions[:-1], states[1:]])
        if chance > 0:
            found.append((states, actions, chance))
    states, actions, chance = zip(*found)
    return np.array(states), np.array(actions), np.array(chance)


def a_perfect_log():
    """Every episode as often as it is likely, as (state, action, log)."""
    states, actions, chance = every_episode()
    counts = chance * 4096
    assert (counts == counts.round()).all()
    states, actions = (np.repeat(x, counts.astype(int), axis=0) for x in (states, actions))
    logs = log_ratio(TARGET[states, actions], BEHAVIOUR[states, actions])
    return states, actions, LoggedEpisodes(REWARD[states, actions], logs, discount=GAMMA)


def test_expectations_by_enumeration():
    """Over every episode at its probability, all unbiased estimators are the exact value, a wrong model or none."""
    states, actions, log = a_perfect_log()
    _, v = exact_values()
    wrong = np.random.default_rng(0).normal(size=(2, 2))
    q_wrong, v_wrong = wrong[states, actions], (TARGET * wrong).sum(axis=1)[states]
    assert len(states) == 4096
    for estimate in (ordinary(log), per_decision(log), doubly_robust(log, q_wrong, v_wrong)):
        assert estimate.value == pytest.approx(v[0, 0], rel=1e-12)
        assert estimate.n == 4096
    assert weighted(log).value == pytest.approx(v[0, 0], rel=1e-12)  # its weights sum to exactly n here
    assert weighted_per_decision(log).value == pytest.approx(v[0, 0], rel=1e-12)
    assert weighted_doubly_robust(log, q_wrong, v_wrong).value == pytest.approx(v[0, 0], rel=1e-12)
    assert direct(log, v_wrong).value != pytest.approx(v[0, 0], abs=0.01)


def test_variances_by_enumeration():
    """n error^2 is the exact variance: of the ordinary estimator by its second moment, of the doubly robust one by
    Jiang and Li's recursion, V_t = E[Var(rho Delta | s)] + E[gamma^2 rho^2 V_{t+1}] + Var(v), Delta = q_model - q."""
    states, actions, log = a_perfect_log()
    every_state, every_action, chance = every_episode()
    rho = np.prod(TARGET[every_state, every_action] / BEHAVIOUR[every_state, every_action], axis=1)
    g = REWARD[every_state, every_action] @ GAMMA ** np.arange(HORIZON)
    exact = chance @ (rho * g) ** 2 - (chance @ (rho * g)) ** 2
    assert 4095 * ordinary(log).error ** 2 == pytest.approx(exact, rel=1e-9)
    q, v = exact_values()
    model = q + np.random.default_rng(1).normal(size=q.shape)
    model_v = (TARGET * model).sum(axis=2)
    ratio, spread = TARGET / BEHAVIOUR, np.zeros(2)
    for t in range(HORIZON - 1, -1, -1):
        off = ratio * (model[t] - q[t])
        own = (BEHAVIOUR * off**2).sum(axis=1) - (BEHAVIOUR * off).sum(axis=1) ** 2
        after = NEXT @ (spread + v[t + 1] ** 2) - (NEXT @ v[t + 1]) ** 2
        spread = own + (BEHAVIOUR * ratio**2 * GAMMA**2 * after).sum(axis=1)
    steps = np.arange(HORIZON)
    robust = doubly_robust(log, model[steps, states, actions], model_v[steps, states])
    assert robust.value == pytest.approx(v[0, 0], rel=1e-12)
    assert 4095 * robust.error**2 == pytest.approx(spread[0], rel=1e-9)


def test_an_exact_model_leaves_the_worlds_own_noise_only():
    """With q and v exact, doubly robust has less variance than per-decision, and that less than ordinary."""
    states, actions, log = a_perfect_log()
    q, v = exact_values()
    steps = np.arange(HORIZON)
    robust = doubly_robust(log, q[steps, states, actions], v[:HORIZON][steps, states])
    assert robust.error < 0.6 * per_decision(log).error < 0.6 * ordinary(log).error
    one = LoggedEpisodes([[1.0, 2.0]], [[0.3, -0.4]])
    assert doubly_robust(one, [[3.0, 2.0]], [[3.0, 2.0]]).value == pytest.approx(3.0)


def a_random_log(seed=0, rows=5, steps=7):
    rng = np.random.default_rng(seed)
    mask = np.arange(steps) < rng.integers(1, steps + 1, size=rows)[:, None]
    reward, logs = rng.normal(size=(rows, steps)), 0.4 * rng.normal(size=(rows, steps))
    q, v = rng.normal(size=(rows, steps)), rng.normal(size=(rows, steps))
    return mask, reward, logs, q, v


def test_every_estimator_equals_a_plain_loop():
    mask, reward, logs, q, v = a_random_log()
    log, rows = LoggedEpisodes(reward, logs, mask, GAMMA), range(len(mask))
    length, rho = mask.sum(axis=1), [np.exp(np.cumsum(np.where(m, x, 0.0))) for m, x in zip(mask, logs)]
    g = [sum(GAMMA**t * reward[i, t] for t in range(length[i])) for i in rows]
    assert log.returns() == pytest.approx(g)
    assert ordinary(log).value == pytest.approx(np.mean([rho[i][-1] * g[i] for i in rows]))
    assert weighted(log).value == pytest.approx(sum(rho[i][-1] * g[i] for i in rows) / sum(rho[i][-1] for i in rows))
    decisions = [sum(GAMMA**t * rho[i][t] * reward[i, t] for t in range(length[i])) for i in rows]
    assert per_decision(log).value == pytest.approx(np.mean(decisions))
    normalised = sum(
        GAMMA**t * sum(rho[i][t] * reward[i, t] for i in rows if mask[i, t]) / sum(rho[i][t] for i in rows)
        for t in range(mask.shape[1])
    )
    assert weighted_per_decision(log).value == pytest.approx(normalised)
    robust, weighted_robust = [], 0.0
    for i in rows:
        behind = 0.0
        for t in range(length[i] - 1, -1, -1):  # Jiang and Li's recursion, from the end
            behind = v[i, t] + math.exp(logs[i, t]) * (reward[i, t] + GAMMA * behind - q[i, t])
        robust.append(behind)
        for t in range(length[i]):
            w = rho[i][t] / sum(rho[j][t] for j in rows)
            before = rho[i][t - 1] / sum(rho[j][t - 1] for j in rows) if t else 1 / len(rows)
            weighted_robust += GAMMA**t * (w * (reward[i, t] - q[i, t]) + before * v[i, t])
    assert doubly_robust(log, q, v).value == pytest.approx(np.mean(robust))
    assert weighted_doubly_robust(log, q, v).value == pytest.approx(weighted_robust)
    assert direct(log, v).value == pytest.approx(v[:, 0].mean())
    answers = off_policy_evaluation(log, q, v)
    assert list(answers)[-1] == "weighted_doubly_robust"
    assert answers["doubly_robust"] == doubly_robust(log, q, v)
    assert len(off_policy_evaluation(log)) == 4


def test_one_recurrence_with_core():
    """On-policy all weighing is core's discounted return; with q = v, doubly robust is V-trace without its bounds."""
    mask, reward, logs, _, v = a_random_log(seed=1)
    reward, v, logs = (np.where(mask, x, 0.0) for x in (reward, v, logs))
    tensors = {name: torch.from_numpy(x) for name, x in (("reward", reward), ("v", v), ("logs", logs))}
    ended = torch.from_numpy(np.arange(mask.shape[1]) == mask.sum(axis=1)[:, None] - 1)
    discount, carry = GAMMA * (~ended).double(), (~ended).double()
    zeros = torch.zeros_like(carry)
    expected = discounted_returns(tensors["reward"], discount, zeros, carry)[:, 0].numpy()
    on_policy = LoggedEpisodes(reward, np.zeros(reward.shape), mask, GAMMA)
    assert on_policy.returns() == pytest.approx(expected, rel=1e-12)
    for estimator in (ordinary, weighted, per_decision, weighted_per_decision):
        assert estimator(on_policy).value == pytest.approx(expected.mean(), rel=1e-12)
    following = torch.cat([tensors["v"][:, 1:], zeros[:, :1]], dim=1)
    world = (tensors["reward"], tensors["v"], following, discount, carry)
    target, _ = vtrace(tensors["logs"], zeros, *world, rho_bar=math.inf, c_bar=math.inf)
    off_policy = LoggedEpisodes(reward, logs, mask, GAMMA)
    assert doubly_robust(off_policy, v, v).value == pytest.approx(float(target[:, 0].mean()), rel=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 4))
def test_padding_and_order_change_nothing(seed, padding):
    """Columns that do not count may hold NaN; episodes may stand in any order."""
    mask, reward, logs, q, v = a_random_log(seed)
    plain = off_policy_evaluation(LoggedEpisodes(reward, logs, mask, GAMMA), q, v)
    order = np.random.default_rng(seed).permutation(len(mask))
    junk = np.full((len(mask), padding), np.nan)
    hidden = [np.concatenate([np.where(mask, x, np.nan), junk], axis=1)[order] for x in (reward, logs, q, v)]
    longer = np.concatenate([mask, np.zeros(junk.shape, dtype=bool)], axis=1)[order]
    again = off_policy_evaluation(LoggedEpisodes(hidden[0], hidden[1], longer, GAMMA), *hidden[2:])
    for name, estimate in plain.items():
        assert again[name].value == pytest.approx(estimate.value, rel=1e-9, abs=1e-12)
        assert again[name].error == pytest.approx(estimate.error, rel=1e-6, abs=1e-12)


def blackjack(episodes, seed):
    """Episodes from (13, usable ace, dealer shows 2), hit or stick by a coin: (reward, log_ratio, mask), target 'stick
    on 20 or more'. An infinite deck; the dealer stops at 17."""
    rng = np.random.default_rng(seed)
    reward, ratio = np.zeros((episodes, 12)), np.full((episodes, 12), np.nan)
    for i in range(episodes):
        total, usable, t = 13, True, 0
        while True:
            hit = rng.random() < 0.5
            ratio[i, t] = log_ratio(float(hit == (total < 20)), 0.5)
            if not hit:
                reward[i, t] = np.sign(total - dealers(rng)) if total <= 21 else -1.0
                break
            total += min(int(rng.integers(1, 14)), 10)
            if total > 21 and usable:
                total, usable = total - 10, False
            if total > 21:
                reward[i, t] = -1.0
                break
            t += 1
    return reward, ratio, ~np.isnan(ratio)


def dealers(rng):
    """The dealer's final total from a 2, 0 when over 21."""
    total, usable = 2, False
    while total < 17:
        card = min(int(rng.integers(1, 14)), 10)
        total += card
        if card == 1 and total + 10 <= 21:
            total, usable = total + 10, True
        if total > 21 and usable:
            total, usable = total - 10, False
    return total if total <= 21 else 0


def test_blackjack_state_of_figure_5_3():
    """Sutton and Barto's off-policy example: the value of the state under 'stick on 20+' is -0.27720419182503."""
    log = LoggedEpisodes(*blackjack(12_000, seed=0))
    answers = off_policy_evaluation(log)
    for estimate in answers.values():
        assert abs(estimate.value + 0.27720419182503) < 3 * estimate.error
        assert estimate.error < 0.04
    assert 0.05 < answers["ordinary"].effective / 12_000 < 0.2
    resampled = weighted(log, interval=bootstrap(resamples=300))
    assert resampled.low < -0.27720419182503 < resampled.high
    assert resampled.high - resampled.low == pytest.approx(2 * 1.96 * resampled.error, rel=0.15)


def loop_of_figure_5_4(episodes, seed, horizon=80):
    """One state; 'left' comes back with 0.9, else ends with +1; 'right' ends with 0. Behaviour a coin, target left."""
    rng = np.random.default_rng(seed)
    right, ends = rng.random((episodes, horizon)) < 0.5, rng.random((episodes, horizon)) < 0.1
    last = (right | ends).argmax(axis=1)[:, None]
    here = np.arange(horizon)
    return LoggedEpisodes((here == last) * ~right * 1.0, np.where(right, -np.inf, math.log(2.0)), here <= last)


def test_infinite_variance_of_section_5_5():
    """Target value 1. Up to H steps the ordinary estimator has mean 1 - 0.9^H and second moment 0.2 (1.8^H - 1) / 0.8,
    which grows without limit; the weighted one is exactly 1 from the first success on."""
    for horizon in (1, 5, 10):
        mean, square = 0.0, 0.0
        for steps in range(1, horizon + 1):
            reward = np.r_[np.zeros(steps - 1), 1.0][None]
            term = ordinary(LoggedEpisodes(reward, np.full((1, steps), math.log(2.0)))).value
            chance = 0.5**steps * 0.9 ** (steps - 1) * 0.1
            mean, square = mean + chance * term, square + chance * term**2
        assert mean == pytest.approx(1 - 0.9**horizon)
        assert square == pytest.approx(0.2 * (1.8**horizon - 1) / 0.8)
    log = loop_of_figure_5_4(20_000, seed=0)
    assert weighted(log).value == pytest.approx(1.0, rel=1e-12)
    values = [ordinary(loop_of_figure_5_4(2000, seed)).value for seed in range(20)]
    claimed = [ordinary(loop_of_figure_5_4(2000, seed)).error for seed in range(20)]
    assert np.median(values) < 0.95
    assert np.mean(np.abs(np.array(values) - 1.0) > 1.96 * np.array(claimed)) > 0.1


def test_weights_beyond_float64():
    """A thousand steps of ratio e: ordinary weights do not exist, weighted estimates do."""
    log = LoggedEpisodes(np.ones((3, 1000)), np.ones((3, 1000)), discount=0.5)
    assert weighted(log).value == pytest.approx(2.0)
    assert weighted_per_decision(log).value == pytest.approx(2.0)
    with pytest.raises(DataError, match="a log-ratio of 1000 has no ratio in float64"):
        ordinary(log)
    with pytest.raises(DataError, match="no ratio"):
        per_decision(log)


ONES = np.ones((2, 3))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: LoggedEpisodes(np.ones(3), np.ones(3)), r"give \[N, T\]"),
        (lambda: LoggedEpisodes(np.ones((0, 3)), np.ones((0, 3))), "at least one episode"),
        (lambda: LoggedEpisodes(ONES, np.ones((2, 2))), r"log_ratio has shape \(2, 2\)"),
        (lambda: LoggedEpisodes(ONES * np.nan, ONES), r"reward is nan at \(0, 0\)"),
        (lambda: LoggedEpisodes(ONES, ONES * np.nan), "log_ratio is nan"),
        (lambda: LoggedEpisodes(ONES, ONES * np.inf), "log_ratio is inf"),
        (lambda: LoggedEpisodes(ONES, ONES, ONES), "mask has shape"),
        (lambda: LoggedEpisodes(ONES, ONES, np.array([[True] * 3, [True, False, True]])), "episode 1 is not a run"),
        (lambda: LoggedEpisodes(ONES, ONES, np.array([[False] * 3, [True] * 3])), "episode 0 is not a run"),
        (lambda: LoggedEpisodes(ONES, ONES, discount=1.1), "discount is 1.1"),
        (lambda: doubly_robust(LoggedEpisodes(ONES, ONES), ONES, np.ones((2, 4))), r"v has shape \(2, 4\)"),
        (lambda: doubly_robust(LoggedEpisodes(ONES, ONES), ONES * np.nan, ONES), "q is nan"),
        (lambda: weighted(LoggedEpisodes(ONES, -np.inf * ONES)), "all weights are 0"),
        (lambda: ordinary(LoggedEpisodes(ONES, ONES), level=0.0), "level is 0.0"),
    ],
)
def test_logs_that_cannot_be_used(wrong, words):
    with pytest.raises((DataError, ConfigError), match=words):
        wrong()
