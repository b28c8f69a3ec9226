"""Features, own arms and logs: LinUCB against ridge regression, replay against live play, and input that is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from onepolicy.errors import ConfigError, DataError
from onepolicy.tabular.bandits import (
    EXP3,
    KLUCB,
    UCB1,
    BernoulliArms,
    EpsilonGreedy,
    GaussianArms,
    LinearArms,
    LinThompson,
    LinUCB,
    LoggedArms,
    OwnArms,
    Player,
    lai_robbins,
    run,
)
from onepolicy.tabular.simulate import below, streams, uniform

DIM, ARMS = 3, 4


def ridge_of(history, ridge, model=None):
    """A and theta from scratch, of the pulls of one arm or of all."""
    a, b = ridge * np.eye(DIM), np.zeros(DIM)
    for x, arm, reward in history:
        if model is None or arm == model:
            a += np.outer(x[arm], x[arm])
            b += reward * x[arm]
    return a, np.linalg.solve(a, b)


@pytest.mark.parametrize("disjoint", [False, True])
def test_linucb_is_ridge_regression_with_a_bonus(disjoint):
    """theta . x + alpha sqrt(x^T A^-1 x), A and theta solved afresh in each step."""
    rng, history = np.random.default_rng(0), []
    player = Player(LinUCB(alpha=0.7, ridge=2.0, disjoint=disjoint), ARMS, features=DIM)
    for _ in range(40):
        x = rng.normal(size=(ARMS, DIM))
        arm = int(player.choose(x)[0])
        models = [ridge_of(history, 2.0, a if disjoint else None) for a in range(ARMS)]
        expected = [m[1] @ v + 0.7 * math.sqrt(v @ np.linalg.solve(m[0], v)) for m, v in zip(models, x)]
        assert player.score[0] == pytest.approx(expected, rel=1e-9)
        assert arm == int(np.argmax(expected))
        history.append((x, arm, float(rng.normal())))
        player.update(arm, history[-1][2])


def test_linear_thompson_draws_from_the_posterior():
    """The score x . theta is N(x . A^-1 b, scale^2 x^T A^-1 x); the same theta for all arms of one model."""
    rng, runs, scale = np.random.default_rng(1), 20_000, 0.5
    player, history = Player(LinThompson(scale, ridge=1.0), ARMS, runs=runs, seed=3, features=DIM), []
    for arm in (0, 2, 1, 2):
        x = rng.normal(size=(ARMS, DIM))
        player.choose(x)
        history.append((x, arm, float(rng.normal())))
        player.update(arm, history[-1][2])
    a, theta = ridge_of(history, 1.0)
    x = rng.normal(size=(ARMS, DIM))
    chosen = player.choose(x)
    assert (chosen == player.score.argmax(axis=1)).all()
    covariance = scale**2 * x @ np.linalg.solve(a, x.T)
    for i in range(ARMS):
        exact = stats.norm(x[i] @ theta, math.sqrt(covariance[i, i]))
        assert stats.kstest(player.score[:, i], exact.cdf).pvalue > 1e-3
    assert np.cov(player.score.T) == pytest.approx(covariance, abs=0.05 * covariance.max())


def test_features_pay_where_rewards_are_linear_in_them():
    """Ten arms drawn anew each step: LinUCB's regret flattens, that of an agent that cannot see them stays linear."""
    bandit = LinearArms([0.6, -0.4, 0.2], number=10, noise=0.5)
    seeing, blind = (
        run(bandit, agent, 1000, 100, 0, every=500).regret() for agent in (LinUCB(1.0), EpsilonGreedy(0.1))
    )
    assert seeing.mean[1] - seeing.mean[0] < 0.5 * seeing.mean[0]
    assert blind.mean[1] - blind.mean[0] == pytest.approx(blind.mean[0], rel=0.1)
    disjoint = LinearArms(np.eye(3), noise=0.5)
    own, shared = (run(disjoint, LinUCB(disjoint=d), 1000, 100, 0, every=500).regret() for d in (True, False))
    assert own.mean[1] - own.mean[0] < 0.5 * own.mean[0]
    assert shared.mean[1] - shared.mean[0] > 0.9 * shared.mean[0]


def test_fixed_features_are_the_arms():
    """One-hot features make the model a table: regret is that of the means theta, and theta is found."""
    bandit = LinearArms([0.2, 0.9], features=np.eye(2), noise=0.1)
    curves = run(bandit, LinUCB(), 200, 5, 0)
    pulls = np.round(curves.regret_sum[:, -1] / 0.7)
    assert curves.regret_sum[:, -1] == pytest.approx(0.7 * pulls)
    assert (200 - pulls == curves.optimal_sum[:, -1]).all()
    assert (pulls < 40).all()


def coin(arm, step, rng):
    """Arm a gives 1 with probability 0.2 or 0.7; from step 50 on the other way round."""
    return float(rng.random() < means_of(step)[arm])


def means_of(step):
    return [0.2, 0.7] if step < 50 else [0.7, 0.2]


def test_own_arms_by_a_python_function():
    """The same coins, drawn outside: rewards, regret, optimal pulls as a loop over a player's choices counts them."""
    bandit = OwnArms(coin, 2, means=means_of, low=0.0, high=1.0)
    curves = run(bandit, KLUCB(), steps=80, runs=3, seed=9, every=10)
    player, rngs = Player(KLUCB(), 2, runs=3, seed=9), [np.random.default_rng([9, i]) for i in range(3)]
    total = np.zeros((3, 3))
    for t in range(1, 81):
        arm = player.choose()
        reward = np.array([coin(a, t, rng) for a, rng in zip(arm, rngs)])
        player.update(arm, reward)
        mean = np.array(means_of(t))
        total += [reward, mean.max() - mean[arm], mean[arm] == mean.max()]
        if t % 10 == 0:
            recorded = curves.reward_sum[:, t // 10 - 1], curves.regret_sum[:, t // 10 - 1]
            assert [*recorded[0], *recorded[1]] == pytest.approx([*total[0], *total[1]])
            assert curves.optimal_sum[:, t // 10 - 1].tolist() == total[2].tolist()


def test_own_arms_without_means_have_no_regret():
    curves = run(OwnArms(lambda arm, step, rng: float(arm), 3), EpsilonGreedy(), 20, 2, 0)
    assert 0 < curves.reward_sum[0, -1] <= 40
    with pytest.raises(DataError, match="true means are not known"):
        curves.regret()
    with pytest.raises(DataError, match="true means are not known"):
        curves.optimal()


def a_log(rng, events, probability=(0.5, 0.25, 0.25), means=(0.2, 0.5, 0.8)):
    arm = rng.choice(3, size=events, p=probability)
    return arm, (rng.random(events) < np.array(means)[arm]).astype(float), np.array(probability)[arm]


def test_replay_equals_a_plain_loop():
    """Events in a random order; one counts when it is kept, with probability p_min / p, and the agent picks its arm."""
    arm, reward, probability = a_log(np.random.default_rng(0), 300)
    curves = run(LoggedArms(arm, reward, probability), UCB1(), steps=40, runs=2, seed=5)
    nature = streams(5, 4).reshape(2, 2, 4)[:, 0]
    for i in range(2):
        player, order, total, t = Player(UCB1(), 3, runs=2, seed=5), list(range(300)), 0.0, 0
        for place in range(300):
            other = place + below(nature[i], 300 - place)
            order[place], order[other] = order[other], order[place]
            event = order[place]
            if probability[event] > 0.25 and uniform(nature[i]) >= 0.25 / probability[event]:
                continue
            if t == 40 or player.choose()[i] != arm[event]:
                continue
            player.update(int(arm[event]), reward[event])
            total, t = total + reward[event], t + 1
            assert curves.reward_sum[i, t - 1] == pytest.approx(total)
        assert t == 40


def test_replay_is_distributed_as_live_play():
    """UCB1 on a long log, logged unevenly, against UCB1 on the arms with the log's own means; and thinning matters: a
    uniform agent earns the mean of the arms' means, 0.5, only with the probabilities given."""
    arm, reward, probability = a_log(np.random.default_rng(1), 6000)
    own = [reward[arm == a].mean() for a in range(3)]
    replayed = run(LoggedArms(arm, reward, probability), UCB1(), 300, 150, seed=2, every=300).reward()
    live = run(BernoulliArms(own), UCB1(), 300, 2000, seed=3, every=300).reward()
    assert abs(replayed.mean[0] - live.mean[0]) < 3.5 * math.hypot(replayed.error[0], live.error[0])
    uniform_agent = EpsilonGreedy(1.0)
    thinned = run(LoggedArms(arm, reward, probability), uniform_agent, 300, 150, seed=2, every=300).reward()
    plain = run(LoggedArms(arm, reward), uniform_agent, 300, 150, seed=2, every=300).reward()
    assert abs(thinned.mean[0] - np.mean(own)) < 3.5 * thinned.error[0]
    assert plain.mean[0] < np.mean(own) - 5 * plain.error[0]


def test_a_log_with_contexts_teaches_a_linear_agent():
    """Two arms, the right one told by the sign of the context: LinUCB learns it from random logging."""
    rng = np.random.default_rng(3)
    context, arm = rng.normal(size=(4000, 1)), rng.integers(2, size=4000)
    reward = ((context[:, 0] > 0) == (arm == 1)).astype(float)
    bandit = LoggedArms(arm, reward, context=context)
    assert run(bandit, LinUCB(disjoint=True), 800, 10, 0, every=400).reward().low[1] > 0.95
    assert run(bandit, EpsilonGreedy(), 800, 10, 0, every=400).reward().high[1] < 0.6
    assert run(bandit, EXP3(), 100, 2, 0).reward_sum.shape == (2, 100)


def test_a_log_that_is_too_short_says_how_far_it_goes():
    arm, reward, _ = a_log(np.random.default_rng(0), 60, probability=(1 / 3, 1 / 3, 1 / 3))
    with pytest.raises(DataError, match=r"used up all 60 events after \d+ of 50 steps") as caught:
        run(LoggedArms(arm, reward), EpsilonGreedy(), 50, 3, 0)
    enough = int(str(caught.value).split("Set steps <= ")[1].split(",")[0])
    assert run(LoggedArms(arm, reward), EpsilonGreedy(), enough, 3, 0).reward_sum.shape == (3, enough)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: GaussianArms([1.0]), "at least 2 arms"),
        (lambda: GaussianArms([1.0, math.nan]), "not finite"),
        (lambda: GaussianArms([1.0, 2.0], noise=-1.0), "noise is -1.0"),
        (lambda: GaussianArms([1.0, 2.0], noise=[1.0, 1.0, 1.0]), "for 2 arms"),
        (lambda: GaussianArms([1.0, 2.0], walk=-0.1), "walk is -0.1"),
        (lambda: BernoulliArms([0.5, 1.2]), "mean of arm 1 is 1.2"),
        (lambda: BernoulliArms([0.5]), "at least 2 arms"),
        (lambda: LinearArms([1.0, 2.0]), "number of arms"),
        (lambda: LinearArms([1.0, 2.0], features=np.ones((3, 3))), "features has shape"),
        (lambda: LinearArms(np.eye(2), features=np.ones((2, 2))), "draws its own contexts"),
        (lambda: LinearArms([math.inf], number=2), "finite"),
        (lambda: OwnArms(coin, 1), "at least 2 arms"),
        (lambda: run(OwnArms(lambda *_: 2.0, 2, low=0, high=1), UCB1(), 1, 1, 0), "gave 2.0 in step 1"),
        (lambda: run(OwnArms(lambda *_: 0.0, 2, means=lambda t: [0.0]), UCB1(), 1, 1, 0), r"means\(1\) has shape"),
        (lambda: run(OwnArms(coin, 2), KLUCB(), 1, 1, 0), "give OwnArms low=0 and high=1"),
        (lambda: LoggedArms([], []), "N >= 1"),
        (lambda: LoggedArms([0, 1], [1.0]), "reward shape"),
        (lambda: LoggedArms([0.0, 1.0], [1.0, 0.0]), "integers"),
        (lambda: LoggedArms([0, 1], [1.0, math.nan]), "not finite"),
        (lambda: LoggedArms([0, 2], [1.0, 0.0]), "arm 1 is never logged"),
        (lambda: LoggedArms([0, 1], [1.0, 0.0], number=1), "number them from 0"),
        (lambda: LoggedArms([0, 1], [1.0, 0.0], probability=[0.5, 0.0]), r"one in \(0, 1\]"),
        (lambda: LoggedArms([0, 1], [1.0, 0.0], context=np.ones((3, 2))), "context has shape"),
        (lambda: lai_robbins(OwnArms(coin, 2)), "OwnArms has no Lai-Robbins line"),
        (lambda: lai_robbins(GaussianArms([0.0, 1.0], noise=[1.0, 2.0])), "equal noise"),
        (lambda: lai_robbins(BernoulliArms([0.4, 0.5], walk=0.1)), "neither walk"),
    ],
)
def test_arms_that_cannot_be_are_refused_in_words(wrong, words):
    with pytest.raises((ConfigError, DataError), match=words):
        wrong()
