"""Baird's counterexample: expected updates to the reference's digits, and what sampled runs make of it."""

from __future__ import annotations

import numpy as np
import pytest

from onepolicy.errors import ConfigError, DataError
from onepolicy.tabular.features import from_matrix, state_values
from onepolicy.tabular.prediction import Problem, expected, importance_ratios, td0, td_lambda
from onepolicy.tabular.prediction.fixpoints import chain_of, emphasis, projected_bellman_error, td_fixpoint, value_error
from onepolicy.tabular.prediction.least_squares import lstd
from onepolicy.tabular.prediction.linear import emphatic_td, gtd2, tdc
from onepolicy.tabular.simulate import sample_episodes, sampler
from onepolicy.tabular.worlds import baird

GAMMA = baird.DISCOUNT
UNIFORM = np.ones(7) / 7
FEATURES = from_matrix(baird.features())
START = baird.initial_weights()
CHAIN = chain_of(baird.baird(), baird.target())


def weights(first_six: float, seventh: float, eighth: float) -> np.ndarray:
    return np.array([first_six] * 6 + [seventh, eighth])


def test_first_step_by_hand():
    """Values 3 in the six states, 12 in the seventh, which all lead to: delta = 0.99 12 - 3 = 8.88 and -0.12.

    w_1 gains alpha 2 8.88 / 7, w_7 alpha (-0.12) / 7, w_8 alpha (6 8.88 - 2 0.12) / 7.
    """
    found = expected.semi_gradient(CHAIN, FEATURES, UNIFORM, GAMMA, start=START, step_size=0.01, steps=1)[1]
    by_hand = weights(1 + 0.01 * 17.76 / 7, 10 - 0.01 * 0.12 / 7, 1 + 0.01 * (6 * 8.88 - 0.24) / 7)
    assert found == pytest.approx(by_hand, abs=1e-14)
    assert found == pytest.approx(weights(1.02537, 9.99983, 1.07577), abs=5e-6)


def test_semi_gradient_diverges():
    path = expected.semi_gradient(CHAIN, FEATURES, UNIFORM, GAMMA, start=START, step_size=0.01, steps=2000)
    assert path[1000] == pytest.approx(weights(114.43372, 6.85003, 335.00121), abs=5e-6)
    norms = np.linalg.norm(path, axis=1)
    assert norms[2000] > 4 * norms[1000]


def test_it_is_the_distribution_that_makes_it_diverge():
    """Weighted by the target policy's own distribution (all of it in the seventh state) the same updates converge."""
    own = np.eye(7)[6]
    path = expected.semi_gradient(CHAIN, FEATURES, own, GAMMA, start=START, step_size=0.01, steps=20_000)
    assert abs(state_values(FEATURES, path[-1])[6]) < 1e-3


def test_tdc_stays_bounded():
    path = expected.tdc(
        CHAIN, FEATURES, UNIFORM, GAMMA, start=START, step_size=0.005, second_step_size=0.05, steps=1000
    )
    last = path[1000]
    assert last == pytest.approx(weights(2.13531, 6.62805, -2.33796), abs=5e-6)
    assert value_error(state_values(FEATURES, last), np.zeros(7), UNIFORM) == pytest.approx(1.93546, abs=5e-6)
    assert projected_bellman_error(CHAIN, FEATURES, last, UNIFORM, GAMMA) == pytest.approx(0.0073786, abs=5e-8)


def test_emphatic_td_converges():
    assert emphasis(CHAIN, UNIFORM, GAMMA) == pytest.approx([1 / 7] * 6 + [1 / 7 + GAMMA / (1 - GAMMA)], abs=1e-10)
    assert emphasis(CHAIN, UNIFORM, GAMMA)[6] == pytest.approx(99.14286, abs=5e-6)
    last = expected.emphatic(CHAIN, FEATURES, UNIFORM, GAMMA, start=START, step_size=0.03, steps=1000)[1000]
    assert last == pytest.approx(weights(1.69231, 6.76923, -3.38462), abs=5e-6)
    assert value_error(state_values(FEATURES, last), np.zeros(7), UNIFORM) < 1e-14


def test_gtd2_goes_down_the_projected_bellman_error():
    path = expected.gtd2(
        CHAIN, FEATURES, UNIFORM, GAMMA, start=START, step_size=0.005, second_step_size=0.05, steps=1000
    )
    first, last = (projected_bellman_error(CHAIN, FEATURES, path[t], UNIFORM, GAMMA) for t in (0, 1000))
    assert first > 3
    assert last < 0.01


def test_the_matrix_is_singular_and_said_to_be():
    with pytest.raises(DataError, match=r"rank 7 of 8.*ridge > 0"):
        td_fixpoint(CHAIN, FEATURES, UNIFORM, GAMMA)
    assert td_fixpoint(CHAIN, FEATURES, UNIFORM, GAMMA, ridge=1e-9) == pytest.approx(np.zeros(8), abs=1e-9)


def sampled(runs: int = 40) -> Problem:
    world = baird.baird()
    episodes = sample_episodes(sampler(world, baird.behaviour()), 1, runs=runs, max_steps=1000, seed=0)
    rho = importance_ratios(world, baird.target(), baird.behaviour())
    assert rho.tolist() == pytest.approx([0.0, 7.0] * 7)
    return Problem(episodes, FEATURES, GAMMA, start=START, ratio=rho, truth=np.zeros(7))


def test_sampled_runs():
    """1,000 steps a run. Semi-gradient TD leaves for infinity in every run; TDC and GTD2 stay at the expected 1.935;
    emphatic TD, at a step size that its ratios allow, stays below where it began."""
    data = sampled()
    start_error = value_error(state_values(FEATURES, START), np.zeros(7), UNIFORM)
    assert td0(data, step_size=0.01).errors.min() > 10 * start_error
    assert td_lambda(data, lam=0.5, step_size=0.01).errors.min() > 10 * start_error
    for algorithm in (tdc, gtd2):
        errors = algorithm(data, step_size=0.005, second_step_size=0.05).errors
        assert errors.mean() == pytest.approx(1.935, abs=0.02)
    quiet = emphatic_td(data, lam=0.0, step_size=1e-4).errors
    assert quiet.mean() < 2 * start_error


def test_lstd_finds_the_values_that_semi_gradient_td_cannot():
    found = lstd(sampled(runs=2), ridge=1e-6)
    assert np.abs(found.values).max() < 1e-9


def test_a_behaviour_that_never_acts_as_the_target_is_refused():
    with pytest.raises(ConfigError, match="infinite for action 1 of state 0: the target takes it with probability 1"):
        importance_ratios(baird.baird(), baird.target(), np.tile([1.0, 0.0], 7))
    with pytest.raises(ConfigError, match="ratio is inf for row 1"):
        Problem(sampled(1).episodes, FEATURES, GAMMA, ratio=np.tile([0.0, np.inf], 7))
