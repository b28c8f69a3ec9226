"""Bandits at scale: curves of the 10-armed testbed, regret beside the Lai-Robbins line, and what cannot change them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from onepolicy.errors import ConfigError, DataError
from onepolicy.tabular.bandits import (
    EXP3,
    KLUCB,
    UCB1,
    BernoulliArms,
    BernoulliThompson,
    DecayingEpsilonGreedy,
    EpsilonGreedy,
    GaussianArms,
    GaussianThompson,
    GradientBandit,
    LinUCB,
    gaussian_testbed,
    greedy,
    lai_robbins,
    optimistic,
    run,
)

RUNS = 2000
COMBINED = math.sqrt(1 + RUNS / 20_000)
"""Our standard error and that of the reference's 20,000 runs, over ours."""


def near(band, expected, rounding):
    """Within three combined standard errors, and the rounding of the printed number."""
    return abs(band.mean[0] - expected) <= 3 * COMBINED * band.error[0] + rounding


@pytest.mark.parametrize(
    ("agent", "reward", "optimal", "mean"),
    [
        (greedy(), 1.033, 35.9, 1.0249),
        (EpsilonGreedy(0.01), 1.318, 60.7, 1.1967),
        (EpsilonGreedy(0.1), 1.366, 79.9, 1.3040),
        (optimistic(), 1.499, 86.1, 1.2934),
        (EpsilonGreedy(0.1, step_size=0.1), 1.349, 75.8, None),
        (UCB1(2.0), 1.493, 85.7, 1.3917),
        (UCB1(1.0), 1.529, 92.4, 1.4809),
    ],
)
def test_ten_armed_testbed(agent, reward, optimal, mean):
    """Reward and % optimal of steps 951 to 1000, mean reward of all 1000: estimates from 20,000 runs elsewhere."""
    curves = run(gaussian_testbed(), agent, steps=1000, runs=RUNS, seed=1)
    assert near(curves.reward_between(951, 1000), reward, 5e-4)
    assert near(curves.optimal_between(951, 1000), optimal / 100, 5e-4)
    assert mean is None or near(curves.reward_between(1, 1000), mean, 5e-5)


@pytest.mark.parametrize(
    ("step_size", "baseline", "optimal"),
    [(0.1, "through", 85.2), (0.1, "none", 49.6), (0.4, "through", 73.7), (0.4, "none", 27.6)],
)
def test_gradient_bandit_needs_its_baseline(step_size, baseline, optimal):
    """Sutton and Barto's figure 2.5: means around +4, where without a baseline every reward looks good. The reference's
    baseline goes through the present reward."""
    curves = run(gaussian_testbed(mean=4.0), GradientBandit(step_size, baseline), steps=1000, runs=RUNS, seed=1)
    assert near(curves.optimal_between(951, 1000), optimal / 100, 5e-4)


def test_ucb_spikes_at_step_11():
    """Ten steps for ten arms, then the arm that looked best is taken by all: 43.4 % optimal, reward 1.096; and not for
    long, since its bonus is halved."""
    curves = run(gaussian_testbed(), UCB1(2.0), steps=12, runs=20_000, seed=2)
    optimal, reward = curves.optimal(), curves.reward()
    assert optimal.mean[:10] == pytest.approx(0.1, abs=4 * 0.3 / math.sqrt(20_000))
    assert abs(optimal.mean[10] - 0.434) <= 3 * math.sqrt(2) * optimal.error[10] + 5e-4
    assert abs(reward.mean[10] - 1.096) <= 3 * math.sqrt(2) * reward.error[10] + 5e-4
    assert optimal.high[11] < optimal.low[10] - 0.05


def test_the_best_of_ten_arms():
    """E[max of 10 standard normals] = 1.53875, by quadrature, and as reward plus regret of any agent."""
    exact = quad(lambda x: 10 * x * norm.pdf(x) * norm.cdf(x) ** 9, -10, 10)[0]
    assert exact == pytest.approx(1.53875, abs=5e-6)
    curves = run(gaussian_testbed(), UCB1(2.0), steps=20, runs=20_000, seed=5, every=20)
    assert curves.regret_sum is not None
    best = (curves.reward_sum[:, -1] + curves.regret_sum[:, -1]) / 20
    assert abs(best.mean() - exact) < 3 * best.std() / math.sqrt(20_000)


def test_regret_beside_the_lai_robbins_line():
    """Arms 0.9 and 0.8: between steps 1000 and 10,000 KL-UCB and Thompson sampling pay about C = 0.1 / kl(0.8, 0.9) for
    each factor e, UCB1 more than five times that; the line itself is C log t."""
    bandit = BernoulliArms([0.9, 0.8])
    constant = 0.1 / (0.8 * math.log(0.8 / 0.9) + 0.2 * math.log(0.2 / 0.1))
    assert lai_robbins(bandit) == pytest.approx(constant, rel=1e-12)
    slopes = {}
    for agent in (KLUCB(), BernoulliThompson(), UCB1()):
        curves = run(bandit, agent, steps=10_000, runs=120, seed=0, every=1000)
        regret = curves.regret()
        slopes[type(agent).__name__] = (regret.mean[-1] - regret.mean[0]) / math.log(10) / constant
        assert curves.regret_bound() == pytest.approx(constant * np.log(np.arange(1000, 10_001, 1000)))
        assert (curves.regret_quantiles(0.05)[0] <= regret.mean).all()
    assert 0.4 < slopes["BernoulliThompson"] < 1.6
    assert 0.6 < slopes["KLUCB"] < 2.0
    assert slopes["UCB1"] > 5.0


def test_gaussian_thompson_and_ucb_on_known_noise():
    """Gaps of 0.5 twice, noise 1: C = 2 * 2 / 0.5 = 8. Thompson pays less than UCB1 with c = 2, both sublinear."""
    bandit = GaussianArms([0.5, 0.0, 0.0])
    assert lai_robbins(bandit) == pytest.approx(8.0)
    curves = {agent: run(bandit, agent, 4000, 300, 0, every=1000).regret() for agent in (GaussianThompson(), UCB1(2.0))}
    thompson, ucb = curves.values()
    assert thompson.high[-1] < ucb.low[-1]
    for regret in curves.values():
        assert regret.mean[-1] - regret.mean[-2] < 0.5 * regret.mean[0]


def test_epsilon_that_decays_beats_epsilon_that_does_not():
    """Fixed: 0.1 * (mean gap) a step for ever, regret linear: 0.1 * (2/3) * 0.5 a step; with scale 5 A / d^2 over t
    (Auer's c = 5, d = 0.5) the rate falls as 1/t."""
    bandit = BernoulliArms([0.9, 0.4, 0.4])
    fixed = run(bandit, EpsilonGreedy(0.1), 4000, 300, 0, every=1000).regret()
    decaying = run(bandit, DecayingEpsilonGreedy(scale=5 * 3 / 0.25), 4000, 300, 0, every=1000).regret()
    assert (fixed.mean[-1] - fixed.mean[-2]) / 1000 == pytest.approx(0.1 * 2 / 3 * 0.5, rel=0.05)
    expected = 5 * 3 / 0.25 * math.log(4000 / 3000) * 2 / 3 * 0.5
    assert decaying.mean[-1] - decaying.mean[-2] == pytest.approx(expected, rel=0.1)


def test_constant_steps_follow_arms_that_walk():
    """Exercise 2.5: all means start at 0 and walk by 0.01; step size 0.1 keeps up, the mean of everything does not."""
    bandit = gaussian_testbed(spread=0.0, walk=0.01)
    last = {
        step_size: run(bandit, EpsilonGreedy(0.1, step_size=step_size), 6000, 100, 0, every=3000).optimal()
        for step_size in (0.1, None)
    }
    assert last[0.1].low[-1] > 0.65 > 0.6 > last[None].high[-1]


def test_exp3_regret_within_its_bound():
    """Auer et al. 2002, corollary 3.2: with gamma = sqrt(A log A / ((e-1) g)) the regret is below 2.63 sqrt(g A log A),
    g a bound on the best arm's total."""
    steps, arms = 2000, 3
    gamma = math.sqrt(arms * math.log(arms) / ((math.e - 1) * steps))
    curves = run(BernoulliArms([0.8, 0.5, 0.2]), EXP3(gamma), steps, 200, 0, every=steps)
    assert 0 < curves.regret().high[-1] < 2.63 * math.sqrt(steps * arms * math.log(arms))


@pytest.mark.parametrize("agent", [EpsilonGreedy(0.2), BernoulliThompson(), EXP3()])
def test_threads_and_other_runs_change_nothing(agent):
    """Run i depends on seed and i alone."""
    bandit = BernoulliArms([0.3, 0.6, 0.5], walk=0.05)
    one = run(bandit, agent, 50, 9, seed=7, threads=1)
    four = run(bandit, agent, 50, 9, seed=7, threads=4)
    fewer = run(bandit, agent, 50, 4, seed=7)
    assert (one.reward_sum == four.reward_sum).all()
    assert (one.regret_sum == four.regret_sum).all()
    assert (one.reward_sum[:4] == fewer.reward_sum).all()
    assert (one.reward_sum != run(bandit, agent, 50, 9, seed=8).reward_sum).any()


def test_agents_with_one_seed_meet_the_same_arms():
    """Reward minus noise plus regret is the best mean's, whoever plays; and all that differ are the pulls."""
    first, second = (
        run(gaussian_testbed(noise=0.0), agent, 30, 20, seed=3, every=30) for agent in (greedy(), UCB1(2.0))
    )
    assert first.reward_sum + first.regret_sum == pytest.approx(second.reward_sum + second.regret_sum, rel=1e-12)
    assert (first.reward_sum != second.reward_sum).any()


def test_recording_less_often_adds_up():
    every_step = run(gaussian_testbed(), UCB1(), 60, 5, seed=0)
    every_20 = run(gaussian_testbed(), UCB1(), 60, 5, seed=0, every=20)
    assert every_20.step.tolist() == [20, 40, 60]
    assert (every_20.reward_sum == every_step.reward_sum[:, 19::20]).all()
    assert every_20.reward().mean[1] == pytest.approx(every_step.reward().mean[20:40].mean())
    assert every_20.optimal_between(21, 60).mean == pytest.approx(every_step.optimal().mean[20:].mean())
    band = every_step.reward_between(1, 60)
    by_hand = every_step.reward_sum[:, -1] / 60
    assert band.error[0] == pytest.approx(by_hand.std(ddof=1) / math.sqrt(5))
    assert band.high[0] - band.mean[0] == pytest.approx(1.959964 * band.error[0], rel=1e-6)
    with pytest.raises(ConfigError, match="recorded every 20"):
        every_20.reward_between(11, 60)
    for first, last in ((1, 61), (90, 100), (0, 10), (20, 10)):
        with pytest.raises(ConfigError, match=f"steps {first} to {last} of 60"):
            every_step.reward_between(first, last)


def test_one_run_has_no_finite_interval():
    band = run(gaussian_testbed(), UCB1(), 5, 1, seed=0).reward()
    assert np.isinf(band.error).all()
    assert np.isinf(band.high).all()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: EpsilonGreedy(1.5), r"epsilon is 1.5; it must lie in \[0, 1\]"),
        (lambda: EpsilonGreedy(float("nan")), "epsilon is nan"),
        (lambda: EpsilonGreedy(0.1, step_size=0.0), "step_size is 0.0"),
        (lambda: optimistic(initial=float("inf")), "initial is inf"),
        (lambda: DecayingEpsilonGreedy(scale=0.0), "scale is 0.0"),
        (lambda: UCB1(-1.0), "c is -1.0"),
        (lambda: KLUCB(-1.0), "c is -1.0"),
        (lambda: BernoulliThompson(a=0.0), "a is 0.0"),
        (lambda: GaussianThompson(noise=0.0), "noise is 0.0"),
        (lambda: GradientBandit(-0.1), "step_size is -0.1"),
        (lambda: GradientBandit(0.1, "befor"), "Did you mean 'before'"),
        (lambda: EXP3(0.0), "gamma is 0.0"),
        (lambda: LinUCB(ridge=0.0), "ridge is 0.0"),
        (lambda: gaussian_testbed(1), "at least 2"),
        (lambda: run(gaussian_testbed(), greedy(), 0, 1, 0), "steps is 0"),
        (lambda: run(gaussian_testbed(), greedy(), 1, 0, 0), "runs is 0"),
        (lambda: run(gaussian_testbed(), greedy(), 10, 1, 0, every=3), "divides"),
        (lambda: run(gaussian_testbed(), greedy(), 1, 1, -1), "seed is -1"),
        (lambda: run(gaussian_testbed(), greedy(), 10**6, 10**4, 0), "GiB"),
        (lambda: run(gaussian_testbed(), KLUCB(), 1, 1, 0), r"KLUCB needs rewards in \[0, 1\]"),
        (lambda: run(gaussian_testbed(), LinUCB(), 1, 1, 0), "learns from features"),
        (lambda: lai_robbins(gaussian_testbed()), "no Lai-Robbins line"),
        (lambda: run(gaussian_testbed(), greedy(), 1, 1, 0).regret_bound(), "no Lai-Robbins line"),
        (lambda: run(gaussian_testbed(), greedy(), 1, 2, 0).reward(level=1.0), "level is 1.0"),
    ],
)
def test_wrong_settings_are_refused_in_words(wrong, words):
    with pytest.raises((ConfigError, DataError), match=words):
        wrong()
