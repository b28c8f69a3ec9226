"""Each agent's index and update rule against a plain loop; the compiled run against its steps played one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from onepolicy.errors import ConfigError, DataError
from onepolicy.tabular.bandits import (
    EXP3,
    KLUCB,
    UCB1,
    BernoulliArms,
    BernoulliThompson,
    DecayingEpsilonGreedy,
    EpsilonGreedy,
    GaussianThompson,
    GradientBandit,
    LinThompson,
    LinUCB,
    Player,
    gaussian_testbed,
    optimistic,
    run,
)
from onepolicy.tabular.bandits.arms import bernoulli_kl
from onepolicy.tabular.bandits.random import beta, gamma, gaussian
from onepolicy.tabular.bandits.steps import kl_index
from onepolicy.tabular.simulate import streams, uniform

STEPS, ARMS = 60, 4


def played(agent, low=0.0, high=1.0):
    """A player and its history, step by step: (player, arms so far, rewards so far) after each update."""
    rng = np.random.default_rng(0)
    player, arms, rewards = Player(agent, ARMS, seed=3), [], []
    for _ in range(STEPS):
        arm = int(player.choose()[0])
        reward = float(rng.uniform(low, high))
        player.update(arm, reward)
        arms.append(arm)
        rewards.append(reward)
        yield player, arms, rewards


def of_arm(a, arms, rewards):
    return [r for arm, r in zip(arms, rewards) if arm == a]


@pytest.mark.parametrize("agent", [EpsilonGreedy(0.3), UCB1(), GaussianThompson(), KLUCB()])
def test_estimates_are_means(agent):
    for player, arms, rewards in played(agent):
        for a in range(ARMS):
            own = of_arm(a, arms, rewards)
            assert player.count[0, a] == len(own)
            assert player.value[0, a] == pytest.approx(np.mean(own) if own else 0.0, abs=1e-12)


def test_a_constant_step_size_weighs_recent_rewards():
    """Q = (1 - s)^n Q_1 + sum_i s (1 - s)^(n-i) r_i, Sutton and Barto's equation 2.6."""
    for player, arms, rewards in played(optimistic(initial=5.0, step_size=0.1), -1.0, 1.0):
        for a in range(ARMS):
            own = of_arm(a, arms, rewards)
            n = len(own)
            expected = 0.9**n * 5.0 + sum(0.1 * 0.9 ** (n - 1 - i) * r for i, r in enumerate(own))
            assert player.value[0, a] == pytest.approx(expected, rel=1e-12)


def test_ucb1_by_hand():
    """After each arm once and arm 0 twice more: index Q + c sqrt(log t / N) with t = 7; an untried arm comes first."""
    player, c = Player(UCB1(c=1.5), ARMS), 1.5
    for arm, reward in [(0, 0.2), (1, 0.9), (2, 0.4)]:
        player.update(arm, reward)
    assert player.choose()[0] == 3
    for arm, reward in [(3, 0.0), (0, 0.4), (0, 0.6)]:
        player.update(arm, reward)
    chosen = player.choose()[0]
    log7 = math.log(7)
    expected = [0.4 + c * math.sqrt(log7 / 3), *(q + c * math.sqrt(log7) for q in (0.9, 0.4, 0.0))]
    assert player.score[0] == pytest.approx(expected, rel=1e-12)
    assert chosen == 1


def bisected(mean, level):
    low, high = mean, 1.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if bernoulli_kl(mean, middle) <= level else (low, middle)
    return low


@settings(max_examples=300, deadline=None)
@given(st.floats(0.0, 1.0), st.floats(0.0, 50.0))
def test_kl_index_equals_bisection(mean, level):
    assert kl_index(mean, level) == pytest.approx(bisected(mean, level), abs=3e-8)


def test_klucb_indices_along_a_run():
    for c in (0.0, 3.0):
        player = Player(KLUCB(c), 2)
        player.update([0], 1.0)
        player.update([1], 0.0)
        for t in range(3, 20):
            chosen = int(player.choose()[0])
            level = math.log(t) + c * math.log(max(math.log(t), 1.0))
            expected = [bisected(player.value[0, a], level / player.count[0, a]) for a in range(2)]
            assert player.score[0] == pytest.approx(expected, abs=1e-8)
            assert chosen == int(np.argmax(expected))
            player.update(chosen, float(t % 2))


@pytest.mark.parametrize("baseline", ["before", "through", "none"])
def test_gradient_bandit_equals_a_plain_loop(baseline):
    """H(a) += s (r - b) (1[a = A] - pi(a)), b the mean of the rewards before (in the first step its own), or of all."""
    h = np.zeros(ARMS)
    for player, arms, rewards in played(GradientBandit(0.2, baseline), 2.0, 5.0):
        pi = np.exp(h) / np.exp(h).sum()
        b = {"before": np.mean(rewards[:-1] or rewards), "through": np.mean(rewards), "none": 0.0}[baseline]
        ahead = 0.2 * (rewards[-1] - b)
        h += ahead * ((np.arange(ARMS) == arms[-1]) - pi)
        assert player.value[0] == pytest.approx(h, abs=1e-12)
        assert player.score[0] == pytest.approx(np.exp(h) / np.exp(h).sum(), rel=1e-12)


def test_exp3_equals_a_plain_loop():
    w, gamma_ = np.ones(ARMS), 0.2
    for player, arms, rewards in played(EXP3(gamma_)):
        p = (1 - gamma_) * w / w.sum() + gamma_ / ARMS
        w[arms[-1]] *= math.exp(gamma_ * rewards[-1] / p[arms[-1]] / ARMS)
        assert player.score[0] == pytest.approx((1 - gamma_) * w / w.sum() + gamma_ / ARMS, rel=1e-10)


def test_thompson_draws_from_the_posterior():
    """Rewards 1, 1, 0 of arm 0 under a Beta(2, 3) prior give Beta(4, 4), the other arm has its prior; and N(1, 2^2)
    with noise 0.5 gives precision 1/4 + 3/0.25, mean (1/4 + 2/0.25) / precision. The larger draw is taken."""
    runs = 20_000
    for agent, first, second in (
        (BernoulliThompson(2.0, 3.0), stats.beta(4, 4), stats.beta(2, 3)),
        (GaussianThompson(1.0, 2.0, 0.5), stats.norm(8.25 / 12.25, 12.25**-0.5), stats.norm(1.0, 2.0)),
    ):
        player = Player(agent, 2, runs=runs, seed=1)
        for reward in (1.0, 1.0, 0.0):
            player.update(0, reward)
        chosen = player.choose()
        assert (chosen == player.score.argmax(axis=1)).all()
        assert stats.kstest(player.score[:, 0], first.cdf).pvalue > 1e-3
        assert stats.kstest(player.score[:, 1], second.cdf).pvalue > 1e-3


def test_epsilon_greedy_probabilities():
    """The best arm has 1 - eps + eps/A, each other one eps/A; equal arms share; with 1/t it is 1/t of the above."""
    runs = 40_000
    player = Player(EpsilonGreedy(0.2), ARMS, runs=runs, seed=2)
    assert np.bincount(player.choose(), minlength=ARMS) / runs == pytest.approx(0.25, abs=0.009)
    player.update(2, 1.0)
    share = np.bincount(player.choose(), minlength=ARMS) / runs
    assert share == pytest.approx([0.05, 0.05, 0.85, 0.05], abs=0.006)
    decaying = Player(DecayingEpsilonGreedy(), ARMS, runs=runs, seed=2)
    for _ in range(4):
        decaying.update(2, 1.0)
    share = np.bincount(decaying.choose(), minlength=ARMS) / runs
    assert share == pytest.approx([0.05, 0.05, 0.85, 0.05], abs=0.006)


@pytest.mark.parametrize("agent", [EpsilonGreedy(0.1), UCB1(), GradientBandit(), GaussianThompson()])
@pytest.mark.parametrize("walk", [0.0, 0.1])
def test_the_compiled_run_is_the_same_steps_one_by_one(agent, walk):
    """The testbed by hand: a player with the run's seed, arms and noise drawn from the run's first stream."""
    curves = run(gaussian_testbed(5, spread=2.0, noise=0.7, walk=walk), agent, steps=40, runs=3, seed=11)
    player, nature = Player(agent, 5, runs=3, seed=11), streams(11, 6).reshape(3, 2, 4)[:, 0]
    mean = np.array([[2.0 * gaussian(stream) for _ in range(5)] for stream in nature])
    reward_sum, regret, optimal = np.zeros(3), np.zeros(3), np.zeros(3)
    for t in range(40):
        if walk:
            mean += [[walk * gaussian(stream) for _ in range(5)] for stream in nature]
        arm = player.choose()
        own = mean[range(3), arm]
        reward = own + 0.7 * np.array([gaussian(stream) for stream in nature])
        player.update(arm, reward)
        reward_sum += reward
        regret += mean.max(axis=1) - own
        optimal += arm == mean.argmax(axis=1)
        assert curves.reward_sum[:, t] == pytest.approx(reward_sum, abs=1e-9)
        assert curves.regret_sum[:, t] == pytest.approx(regret, abs=1e-9)
        assert curves.optimal_sum[:, t].tolist() == optimal.tolist()


def test_bernoulli_walk_is_reflected():
    """A step over 1 by d comes back to 1 - d; means stay probabilities, rewards 0 or 1."""
    curves = run(BernoulliArms([0.9, 0.1], walk=0.5), EpsilonGreedy(1.0), steps=30, runs=2, seed=4)
    nature = streams(4, 4).reshape(2, 2, 4)[:, 0]
    player, mean, regret = Player(EpsilonGreedy(1.0), 2, runs=2, seed=4), np.array([[0.9, 0.1]] * 2), np.zeros(2)
    for t in range(30):
        mean += [[0.5 * gaussian(stream) for _ in range(2)] for stream in nature]
        mean = np.abs(mean) % 2.0
        mean = np.where(mean > 1.0, 2.0 - mean, mean)
        arm = player.choose()
        reward = [float(uniform(stream) < mean[i, arm[i]]) for i, stream in enumerate(nature)]
        player.update(arm, reward)
        regret += mean.max(axis=1) - mean[range(2), arm]
        assert curves.regret_sum[:, t] == pytest.approx(regret, abs=1e-9)


def test_random_numbers_have_their_distributions():
    stream = streams(5, 1)[0]
    normal = np.array([gaussian(stream) for _ in range(50_000)])
    assert stats.kstest(normal, "norm").pvalue > 1e-3
    assert (np.abs(normal) > 3.4426).mean() == pytest.approx(2 * stats.norm.sf(3.4426), abs=3.5e-4)
    for shape in (0.3, 1.0, 4.5):
        assert stats.kstest([gamma(stream, shape) for _ in range(5000)], stats.gamma(shape).cdf).pvalue > 1e-3
    assert stats.kstest([beta(stream, 0.5, 2.0) for _ in range(5000)], stats.beta(0.5, 2.0).cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: Player(UCB1(), 1), "2 arms or more"),
        (lambda: Player(UCB1(), 2, runs=0), "at least once"),
        (lambda: Player(LinUCB(), 2), "features is 0"),
        (lambda: Player(LinThompson(), 2, features=3).choose(), "features is None"),
        (lambda: Player(LinThompson(), 2, features=3).choose(np.ones((2, 4))), "must broadcast"),
        (lambda: Player(UCB1(), 2).update(2, 1.0), "arms 0 to 1"),
        (lambda: Player(UCB1(), 2).update(0, float("nan")), "finite"),
        (lambda: Player(EXP3(), 2).update(0, 1.5), r"in \[0, 1\]"),
    ],
)
def test_a_player_refuses_what_it_cannot_use(wrong, words):
    with pytest.raises((ConfigError, DataError), match=words):
        wrong()
