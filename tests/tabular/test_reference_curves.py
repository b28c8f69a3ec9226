"""The reference's stochastic curves once more, where other tests leave something open: best step sizes, registered
worlds, the exact limits that the curves go to."""

from __future__ import annotations

import numpy as np
import pytest

from onepolicy.tabular import prediction
from onepolicy.tabular.control import Settings, double_q_learning, q_learning, sarsa
from onepolicy.tabular.features import one_hot
from onepolicy.tabular.prediction import Problem
from onepolicy.tabular.simulate import sample_episodes, sampler
from onepolicy.tabular.worlds import make

GRID = np.round(np.arange(0.05, 1.01, 0.05), 2)


@pytest.fixture(scope="module")
def nineteen():
    mdp = make("walk-19")
    episodes = sample_episodes(sampler(mdp), 10, runs=200, seed=11)
    truth = np.concatenate([[0.0], np.arange(-9, 10) / 10, [0.0]])
    return Problem(episodes, one_hot(21), 1.0, truth=truth, weighting=~mdp.terminal)


@pytest.mark.parametrize(
    ("algorithm", "settings", "best"),
    [
        (prediction.n_step_td, {"n": 1}, 0.8),
        (prediction.n_step_td, {"n": 2}, 0.6),
        (prediction.n_step_td, {"n": 4}, 0.4),
        (prediction.n_step_td, {"n": 8}, 0.25),
        (prediction.n_step_td, {"n": 16}, 0.15),
        (prediction.n_step_td, {"n": 32}, 0.1),
        (prediction.n_step_td, {"n": 64}, 0.05),
        (prediction.td_lambda, {"lam": 0.0}, 0.8),
        (prediction.td_lambda, {"lam": 0.4}, 0.7),
        (prediction.td_lambda, {"lam": 0.8}, 0.3),
        (prediction.td_lambda, {"lam": 0.9}, 0.2),
        (prediction.true_online_td, {"lam": 0.8}, 0.4),
        (prediction.true_online_td, {"lam": 0.9}, 0.25),
        (prediction.true_online_td, {"lam": 0.95}, 0.15),
        (prediction.lambda_return_td, {"lam": 0.0}, 0.8),
        (prediction.lambda_return_td, {"lam": 0.8}, 0.4),
        (prediction.lambda_return_td, {"lam": 0.9}, 0.25),
    ],
)
def test_the_best_step_size_of_the_whole_grid(nineteen, algorithm, settings, best):
    """On the same episodes no step size of the grid is better by three standard errors of the difference."""
    errors = {alpha: algorithm(nineteen, step_size=alpha, **settings).errors.mean(axis=1) for alpha in GRID}
    for alpha, error in errors.items():
        difference = error - errors[best]
        assert difference.mean() >= -3 * difference.std(ddof=1) / np.sqrt(len(difference)), alpha
    assert min(errors, key=lambda alpha: errors[alpha].mean()) == pytest.approx(best, abs=0.101)


def test_the_first_errors_of_the_walks():
    """0.547723 of values 0 on 19 states, 0.2357 of values 0.5 on 5."""
    for name, start, truth, expected in (
        ("walk-19", 0.0, np.arange(-9, 10) / 10, 0.547723),
        ("walk-5", 0.5, np.arange(1, 6) / 6, 0.2357),
    ):
        mdp = make(name)
        episodes = sample_episodes(sampler(mdp), 1, seed=0)
        truth = np.concatenate([[0.0], truth, [0.0]])
        data = Problem(episodes, one_hot(len(truth)), 1.0, start=start, truth=truth, weighting=~mdp.terminal)
        assert prediction.td0(data, step_size=1e-12).errors[0, 0] == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(
    ("learner", "shares"),
    [(q_learning, {18: 93.9, 100: 45.6, 300: 11.9}), (double_q_learning, {1: 50.0, 100: 9.2, 300: 6.8})],
)
def test_maximisation_bias_of_the_registered_world(learner, shares):
    """The normal reward as 201 outcomes instead of a Gaussian draw: the same shares of going left, in per cent."""
    runs = 4000
    found = learner(make("maximisation-bias"), Settings(episodes=300, alpha=0.1, epsilon=0.1, runs=runs, seed=5))
    left = 100.0 * (found.lengths == 2).mean(axis=0)
    for episode, share in shares.items():
        error = np.sqrt(share * (100 - share) * (1 / runs + 1 / 50_000))
        assert abs(left[episode - 1] - share) <= 3 * error + 0.05
    if learner is q_learning:
        assert abs(int(left.argmax()) + 1 - 18) <= 6
    assert left[299] > 5.0


def test_the_exact_limits_bound_the_cliffs_curves():
    """Q-learning ends between the edge acted at random a tenth of the time (-51.8132 or, going right first, -45.8033);
    Sarsa cannot be better than the best soft policy, -20.7077."""
    chosen = Settings(episodes=1000, alpha=0.5, epsilon=0.1, runs=300, seed=4)
    late = q_learning(make("cliff"), chosen).returns[:, 800:].mean(axis=1)
    error = 3 * late.std(ddof=1) / np.sqrt(300)
    assert -51.8132 - error <= late.mean() <= -45.8033 + error
    late = sarsa(make("cliff"), chosen).returns[:, 800:].mean(axis=1)
    assert late.mean() <= -20.7077 + 3 * late.std(ddof=1) / np.sqrt(300)


def test_windy_sarsa_cannot_be_better_than_the_shortest_way():
    found = sarsa(make("windy"), Settings(episodes=200, alpha=0.5, epsilon=0.0, runs=100, seed=6))
    assert found.lengths.min() == 15
