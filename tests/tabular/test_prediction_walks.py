"""Random walks: the reference's learning curves within three standard errors, limits, and what bad input is told."""

from __future__ import annotations

import numpy as np
import pytest

from onepolicy.errors import ConfigError
from onepolicy.tabular import prediction
from onepolicy.tabular.features import Features, fourier, from_matrix, one_hot, unit_cube
from onepolicy.tabular.prediction import Problem
from onepolicy.tabular.simulate import Episodes, sample_episodes, sampler
from onepolicy.tabular.worlds.gridworlds import course_grid
from onepolicy.tabular.worlds.walks import random_walk

RUNS, REFERENCE_RUNS = 600, 2000


@pytest.fixture(scope="module")
def nineteen() -> Problem:
    """The first 10 episodes of each run on the 19-state walk, values from 0."""
    mdp = random_walk(states=19, left=-1.0, right=1.0)
    truth = np.concatenate([[0.0], np.arange(-9, 10) / 10, [0.0]])
    episodes = sample_episodes(sampler(mdp), 10, runs=RUNS, seed=7)
    return Problem(episodes, one_hot(21), 1.0, truth=truth, weighting=~mdp.terminal)


CURVES = [
    (prediction.n_step_td, {"n": 1}, 0.8, 0.3459),
    (prediction.n_step_td, {"n": 2}, 0.6, 0.2785),
    (prediction.n_step_td, {"n": 4}, 0.4, 0.2658),
    (prediction.n_step_td, {"n": 8}, 0.25, 0.2787),
    (prediction.n_step_td, {"n": 16}, 0.15, 0.3137),
    (prediction.n_step_td, {"n": 32}, 0.1, 0.3658),
    (prediction.n_step_td, {"n": 64}, 0.05, 0.4171),
    (prediction.td_lambda, {"lam": 0.0}, 0.8, 0.3454),
    (prediction.td_lambda, {"lam": 0.4}, 0.7, 0.2733),
    (prediction.td_lambda, {"lam": 0.8}, 0.3, 0.2631),
    (prediction.td_lambda, {"lam": 0.9}, 0.2, 0.2910),
    (prediction.true_online_td, {"lam": 0.8}, 0.4, 0.2555),
    (prediction.true_online_td, {"lam": 0.9}, 0.25, 0.2776),
    (prediction.true_online_td, {"lam": 0.95}, 0.15, 0.3165),
    (prediction.lambda_return_td, {"lam": 0.0}, 0.8, 0.3670),
    (prediction.lambda_return_td, {"lam": 0.8}, 0.4, 0.2642),
    (prediction.lambda_return_td, {"lam": 0.9}, 0.25, 0.2853),
]


@pytest.mark.parametrize(("algorithm", "settings", "alpha", "expected"), CURVES)
def test_error_over_the_first_ten_episodes(nineteen, algorithm, settings, alpha, expected):
    """The mean over runs and episodes of the RMS error at the best step size, against 2,000 runs of the reference."""
    errors = algorithm(nineteen, step_size=alpha, **settings).errors.mean(axis=1)
    deviation = errors.std() * np.sqrt(1 / RUNS + 1 / REFERENCE_RUNS)
    assert errors.mean() == pytest.approx(expected, abs=3 * deviation)


def test_the_middle_is_best_and_the_step_size_is_the_best_of_its_grid(nineteen):
    """Neither TD(0) nor Monte Carlo: n = 4 and lambda = 0.8 win, at the step sizes of the reference."""
    by_n = {s["n"]: f(nineteen, step_size=a, **s).errors.mean() for f, s, a, _ in CURVES if "n" in s}
    assert min(by_n, key=by_n.get) == 4
    by_alpha = {a: prediction.n_step_td(nineteen, n=4, step_size=a).errors.mean() for a in (0.3, 0.4, 0.5)}
    assert min(by_alpha, key=by_alpha.get) == 0.4
    by_lam = {x: prediction.true_online_td(nineteen, lam=x, step_size=0.4).errors.mean() for x in (0.0, 0.8, 1.0)}
    assert min(by_lam, key=by_lam.get) == 0.8


def test_traces_of_many_kinds_cost_nothing_at_lambda_zero(nineteen):
    found = [
        f(nineteen, lam=0.0, step_size=0.5).weights
        for f in (prediction.td_lambda, prediction.td_lambda_replacing, prediction.true_online_td)
    ]
    assert found[0] == pytest.approx(found[1])
    assert found[0] == pytest.approx(found[2])
    assert found[0] == pytest.approx(prediction.td0(nineteen, step_size=0.5).weights)


def test_five_states_from_a_half():
    """The error starts at 0.2357; 1/n Monte Carlo over 4,000 episodes, TD with a falling step size: 1/6 .. 5/6."""
    mdp = random_walk()
    truth = np.concatenate([[0.0], np.arange(1, 6) / 6, [0.0]])
    episodes = sample_episodes(sampler(mdp), 4000, runs=4, seed=0)
    data = Problem(episodes, one_hot(7), 1.0, start=0.5, truth=truth, weighting=~mdp.terminal)
    none = prediction.td0(data, step_size=1e-12)
    assert none.errors[0, 0] == pytest.approx(0.2357, abs=5e-5)
    for algorithm in (prediction.first_visit_mc, prediction.every_visit_mc):
        values = algorithm(data, step_size=None).values
        deviation = values[:, 1:-1].std(axis=0, ddof=1).max()
        assert values.mean(axis=0)[1:-1] == pytest.approx(truth[1:-1], abs=3 * deviation)
        assert deviation < 0.03
    found = prediction.td0(data, step_size=0.1, decay=0.01)
    assert found.errors[:, -1].max() < 0.02 < found.errors[:, 0].min()
    assert found.values[:, [0, 6]].tolist() == [[0.0, 0.0]] * 4


def test_an_estimate_can_be_gone_on_from(nineteen):
    """Five episodes and then five more are ten: the weights of each run are where the next part starts."""
    whole = prediction.td_lambda(nineteen, lam=0.5, step_size=0.2).weights
    ptr, start = nineteen.episodes.ptr, np.zeros((RUNS, 21))
    for half in (0, 5):
        chosen = np.concatenate([np.arange(10 * r + half, 10 * r + half + 5) for r in range(RUNS)])
        steps = np.concatenate([np.arange(ptr[i], ptr[i + 1]) for i in chosen])
        ends = np.concatenate([[0], np.cumsum(ptr[chosen + 1] - ptr[chosen])])
        part = Episodes(*(array[steps] for array in nineteen.episodes[:6]), ends, RUNS)
        start = prediction.td_lambda(Problem(part, one_hot(21), 1.0, start=start), lam=0.5, step_size=0.2).weights
    assert np.array_equal(start, whole)


def tiny(features: Features | None = None, **changes) -> Problem:
    """Two steps 0 -> 1 -> end."""
    flags = np.array([False, True])
    arrays = [np.array([0, 1], np.int32), np.array([0, 1], np.int32), np.ones(2), np.array([1, 2], np.int32)]
    episodes = Episodes(*arrays, flags, np.zeros(2, bool), np.array([0, 2]), 1)
    return Problem(episodes, features or one_hot(3), **{"discount": 0.5, **changes})


def test_two_steps_by_hand():
    """Rewards 1, 1 at 0.5: returns 1.5 and 1. TD(0) with alpha 1 sees v(1) = 0 first: 1, 1. Traces carry back
    alpha gamma lam delta = 0.5 0.5 1: 1.25."""
    data = tiny()
    assert prediction.every_visit_mc(data, step_size=1.0).values.tolist() == [[1.5, 1.0, 0.0]]
    assert prediction.td0(data, step_size=1.0).values.tolist() == [[1.0, 1.0, 0.0]]
    assert prediction.td_lambda(data, lam=0.5, step_size=1.0).values.tolist() == [[1.25, 1.0, 0.0]]


@pytest.mark.parametrize(("action", "delta", "updated"), [(0, -1.175, -0.775), (1, 9.6, 10.0)], ids=["up", "right"])
def test_the_courses_grid_by_hand(action, delta, updated):
    """v(s6) = 0.4 and v(s3) = 0.25, discount 0.9, step size 1. Up to s3: -1 + 0.9 0.25 - 0.4 = -1.175, so -0.775.
    Right, into Success: 10 + 0 - 0.4 = 9.6, so 10."""
    mdp = course_grid()
    s3, s6, csr = mdp.state_names.index("s3"), mdp.state_names.index("s6"), mdp.csr()
    row = csr.row_ptr[s6] + action
    k = csr.ptr[row]
    after, end = csr.successors[k : k + 1], csr.terminal[csr.successors[k : k + 1]]
    state, start = np.array([s6], np.int32), np.zeros(9)
    start[[s3, s6]] = 0.25, 0.4
    step = Episodes(state, state, csr.transition_rewards[k : k + 1], after, end, ~end, np.array([0, 1]), 1)
    data = Problem(step, one_hot(9), 0.9, start=start)
    assert prediction.td0(data, step_size=1.0).values[0, s6] == pytest.approx(updated)
    assert prediction.td0(data, step_size=0.5).values[0, s6] == pytest.approx(0.4 + 0.5 * delta)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: prediction.td_lambda(tiny(), lam=1.2, step_size=0.1), r"lam is 1.2; it must be in \[0, 1\]"),
        (lambda: prediction.td_lambda(tiny(), lam=np.nan, step_size=0.1), "lam is nan"),
        (lambda: prediction.true_online_td(tiny(), lam=-0.1, step_size=0.1), "lam is -0.1"),
        (lambda: prediction.n_step_td(tiny(), n=0, step_size=0.1), "n is 0"),
        (lambda: prediction.td0(tiny(), step_size=0.0), "step_size is 0"),
        (lambda: prediction.td0(tiny(), step_size=0.1, decay=-1.0), "decay -1"),
        (lambda: prediction.td0(tiny(from_matrix(np.ones((3, 2)))), step_size=None), "share features"),
        (lambda: tiny(discount=1.1), "discount is 1.1"),
        (lambda: tiny(one_hot(2)), "features has 2 states and the episodes visit state 2"),
        (lambda: tiny(truth=np.zeros(2)), "truth has shape"),
        (lambda: tiny(weighting=np.zeros(3)), "weighting sums to 0"),
        (lambda: tiny(start=np.zeros(4)), "start has shape"),
        (lambda: Problem(tiny().episodes._replace(runs=2), one_hot(3), 0.5), "runs is 2 for 1 episodes"),
        (lambda: tiny(ratio=np.ones(1)), "each .state, action. row"),
        (lambda: tiny(ratio=[1.0, np.inf]), "ratio is inf for row 1"),
        (lambda: prediction.every_visit_mc(tiny(ratio=[1.0, 1.0]), step_size=0.1), "uses no importance ratios"),
        (lambda: prediction.td_lambda_replacing(tiny(_waves()), lam=0.5, step_size=0.1), "features that are 0 or 1"),
    ],
)
def test_wrong_input_is_named(call, words):
    with pytest.raises(ConfigError, match=words):
        call()


def _waves() -> Features:
    return fourier(unit_cube([0.0, 1.0, 2.0]), 2)
