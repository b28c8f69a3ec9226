"""Linear learners against plain loops and against the exact fixpoints that they must end in."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from onepolicy.errors import ConfigError, DataError
from onepolicy.tabular.features import aggregation, fourier, from_matrix, one_hot, to_sparse, unit_cube
from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.prediction import Problem, every_visit_mc, importance_ratios, linear, td0, td_lambda
from onepolicy.tabular.prediction.fixpoints import (
    chain_of,
    chain_values,
    mc_fixpoint,
    stationary_distribution,
    td_fixpoint,
    visit_distribution,
)
from onepolicy.tabular.prediction.least_squares import least_squares_mc, lstd
from onepolicy.tabular.simulate import Episodes, sample_episodes, sampler
from onepolicy.tabular.worlds.walks import random_walk

GAMMA = 0.9


def ring(states: int = 5) -> MDP:
    """Two actions a state with random successors, no end; rewards normal."""
    rng = np.random.default_rng(0)
    s, a, t = (x.ravel() for x in np.meshgrid(np.arange(states), [0, 1], np.arange(states), indexing="ij"))
    p = rng.dirichlet(np.ones(states), size=2 * states).ravel()
    return MDP.from_coo(s, a, t, p, rng.normal(size=len(s)), num_states=states)


TARGET = np.tile([0.8, 0.2], 5)


def off_policy(runs: int = 2, steps: int = 40) -> Problem:
    mdp, x = ring(), np.random.default_rng(1).normal(size=(5, 3))
    episodes = sample_episodes(sampler(mdp), 2, runs=runs, seed=3, max_steps=steps)
    return Problem(episodes, from_matrix(x), GAMMA, start=0.5, ratio=importance_ratios(mdp, TARGET, None))


def steps_of(data: Problem, run: int):
    """(first step of its episode, x, reward, x', rho, state) of each step."""
    e, x = data.episodes, to_sparse(data.features).toarray()
    for i in range(run * data.per_run, (run + 1) * data.per_run):
        for t in range(e.ptr[i], e.ptr[i + 1]):
            after = x[e.next_state[t]] * (not e.terminated[t])
            yield t == e.ptr[i], x[e.state[t]], e.reward[t], after, data.ratio[e.row[t]], e.state[t]


@pytest.mark.parametrize("algorithm", [linear.gtd2, linear.tdc])
def test_gradient_td_against_its_equations(algorithm):
    data, alpha, beta = off_policy(), 0.05, 0.11
    found = algorithm(data, step_size=alpha, second_step_size=beta).weights
    for run in range(2):
        w, h = np.full(3, 0.5), np.zeros(3)
        for _, x, r, after, rho, _ in steps_of(data, run):
            delta, guess = r + GAMMA * after @ w - x @ w, x @ h
            if algorithm is linear.tdc:
                w = w + alpha * rho * (delta * x - GAMMA * after * guess)
            else:
                w = w + alpha * rho * (x - GAMMA * after) * guess
            h = h + beta * rho * (delta - guess) * x
        assert found[run] == pytest.approx(w, abs=1e-12)


@pytest.mark.parametrize("lam", [0.0, 0.6])
def test_emphatic_td_against_its_equations(lam):
    data, alpha, interest = off_policy(), 0.002, np.array([1.0, 0.0, 2.0, 0.5, 1.0])
    found = linear.emphatic_td(data, lam=lam, step_size=alpha, interest=interest).weights
    for run in range(2):
        w = np.full(3, 0.5)
        for first, x, r, after, rho, state in steps_of(data, run):
            if first:
                z, follow_on, before = np.zeros(3), 0.0, 0.0
            follow_on = GAMMA * before * follow_on + interest[state]
            z = rho * (GAMMA * lam * z + (lam * interest[state] + (1 - lam) * follow_on) * x)
            w = w + alpha * (r + GAMMA * after @ w - x @ w) * z
            before = rho
        assert found[run] == pytest.approx(w, abs=1e-12)


@pytest.mark.parametrize("lam", [0.0, 0.6])
def test_lstd_against_its_sums(lam):
    data = off_policy()
    found = lstd(data, lam=lam).weights
    for run in range(2):
        matrix, vector, z = np.zeros((3, 3)), np.zeros(3), np.zeros(3)
        for first, x, r, after, rho, _ in steps_of(data, run):
            z = rho * ((0 if first else GAMMA * lam) * z + x)
            matrix += np.outer(z, x - GAMMA * after)
            vector += r * z
        assert found[run] == pytest.approx(np.linalg.solve(matrix, vector), abs=1e-10)


def test_you_are_the_predictor():
    """Episodes A 0 B 0, six times B 1, once B 0. Both say v(B) = 6/8. Monte Carlo says v(A) = 0, the one return seen;
    TD's answer is 6/8, for A always went to B (Sutton and Barto 2018, example 6.4). TD(0), the episodes played again
    and again with a falling step size, goes there too."""
    state, reward = np.array([0, *[1] * 8], np.int32), np.array([0.0, 0.0, *[1.0] * 6, 0.0])
    after = np.array([1, *[2] * 8], np.int32)
    ptr = np.array([0, 2, *range(3, 10)])
    episodes = Episodes(state, state, reward, after, after == 2, np.zeros(9, bool), ptr, 1)
    data = Problem(episodes, aggregation([0, 1, -1]), 1.0)
    assert lstd(data).weights[0] == pytest.approx([0.75, 0.75], abs=1e-14)
    assert lstd(data, lam=1.0).weights[0] == pytest.approx([0.0, 0.75], abs=1e-14)
    assert least_squares_mc(data).weights[0] == pytest.approx([0.0, 0.75], abs=1e-14)
    again = Episodes(*(np.tile(a, 3000) for a in episodes[:6]), _repeated(ptr, 3000), 1)
    batch = td0(Problem(again, data.features, 1.0), step_size=0.5, decay=0.02)
    assert batch.weights[0] == pytest.approx([0.75, 0.75], abs=2e-3)


def test_off_policy_learners_end_in_the_fixpoint_of_the_behaviours_distribution():
    """TDC, GTD2 and LSTD with ratios go to the TD fixpoint of the target under the behaviour's states."""
    mdp, x = ring(), from_matrix(np.random.default_rng(1).normal(size=(5, 3)))
    exact = td_fixpoint(chain_of(mdp, TARGET), x, stationary_distribution(chain_of(mdp)), GAMMA)
    wrong = td_fixpoint(chain_of(mdp), x, stationary_distribution(chain_of(mdp)), GAMMA)
    episodes = sample_episodes(sampler(mdp), 1, runs=8, seed=5, max_steps=60_000)
    data = Problem(episodes, x, GAMMA, ratio=importance_ratios(mdp, TARGET, None))
    gap = np.abs(exact - wrong).max()
    for found, tolerance in (
        (lstd(data), 0.1),
        (linear.tdc(data, step_size=0.05, second_step_size=0.05, decay=1e-3), 0.15),
        (linear.gtd2(data, step_size=0.05, second_step_size=0.2, decay=1e-4), 0.25),
    ):
        mean, deviation = found.weights.mean(axis=0), found.weights.std(axis=0, ddof=1) / np.sqrt(8)
        assert np.abs(mean - exact).max() < 4 * deviation.max() + tolerance * gap


def all_transitions(mdp: MDP, weighting: np.ndarray) -> tuple[Episodes, np.ndarray]:
    """Every transition as a one-step episode, with its probability under the uniform policy as weight."""
    csr = mdp.csr()
    row = np.repeat(np.arange(mdp.num_rows), np.diff(csr.ptr))
    state = np.repeat(np.arange(mdp.num_states), np.diff(csr.row_ptr))[row]
    act = 1.0 / np.diff(csr.row_ptr)[state]
    ends = csr.terminal[csr.successors]
    steps = Episodes(
        state.astype(np.int32),
        row.astype(np.int32),
        csr.transition_rewards,
        csr.successors,
        ends,
        ~ends,
        np.arange(len(row) + 1),
        1,
    )
    return steps, weighting[state] * act * csr.probabilities


def test_lstd_on_the_exact_data_is_the_exact_fixpoint():
    mdp = ring()
    chain, x = chain_of(mdp), from_matrix(np.random.default_rng(1).normal(size=(5, 3)))
    mu = stationary_distribution(chain)
    episodes, weights = all_transitions(mdp, mu)
    found = lstd(Problem(episodes, x, GAMMA), weights=weights)
    assert found.weights[0] == pytest.approx(td_fixpoint(chain, x, mu, GAMMA), abs=1e-12)
    table = lstd(Problem(episodes, one_hot(5), GAMMA), weights=weights)
    assert table.values[0] == pytest.approx(chain_values(chain, GAMMA), abs=1e-11)


def layered() -> MDP:
    """Start 0, then 1 or 2, then 3 or 4, then the end 5; one action, random probabilities and rewards."""
    rng = np.random.default_rng(9)
    s, t = np.array([0, 0, 1, 1, 2, 2, 3, 4]), np.array([1, 2, 3, 4, 3, 4, 5, 5])
    p = np.concatenate([*rng.dirichlet([1, 1], size=3), [1.0, 1.0]])
    return MDP.from_coo(s, 0 * s, t, p, rng.normal(size=8), num_states=6, start=0)


@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_least_squares_on_every_episode_with_its_probability(lam):
    """All four episodes of a layered model, weighted by probability: LSTD(lambda) and Monte Carlo are exact."""
    mdp = layered()
    csr, chain = mdp.csr(), chain_of(mdp)
    jump = {(s, int(csr.successors[k])): k for s in range(5) for k in range(csr.ptr[s], csr.ptr[s + 1])}
    paths = [[0, a, b, 5] for a, b in itertools.product((1, 2), (3, 4))]
    ks = [[jump[pair] for pair in itertools.pairwise(path)] for path in paths]
    weights = np.repeat([np.prod(csr.probabilities[k]) for k in ks], 3)
    state = np.concatenate([path[:3] for path in paths]).astype(np.int32)
    after = np.concatenate([path[1:] for path in paths]).astype(np.int32)
    reward = csr.transition_rewards[np.concatenate(ks)]
    episodes = Episodes(state, state, reward, after, after == 5, np.zeros(12, bool), np.arange(5) * 3, 1)
    x = from_matrix(np.vstack([np.random.default_rng(2).normal(size=(5, 3)), np.zeros(3)]))
    data, mu = Problem(episodes, x, GAMMA), visit_distribution(chain)
    assert lstd(data, lam=lam, weights=weights).weights[0] == pytest.approx(
        td_fixpoint(chain, x, mu, GAMMA, lam=lam), abs=1e-12
    )
    mc = mc_fixpoint(chain, x, mu, GAMMA)
    assert least_squares_mc(data, weights=weights).weights[0] == pytest.approx(mc, abs=1e-12)
    if lam == 1.0:
        assert lstd(data, lam=lam, weights=weights).weights[0] == pytest.approx(mc, abs=1e-12)


@pytest.fixture(scope="module")
def thousand():
    """Chain, visits, groups of 100, and 12 runs of 500 episodes of the 1000-state walk."""
    mdp = random_walk(states=1000, neighbours=100, left=-1.0, right=1.0)
    chain, groups = chain_of(mdp), aggregation(np.concatenate([[-1], np.repeat(np.arange(10), 100), [-1]]))
    return chain, visit_distribution(chain), groups, sample_episodes(sampler(mdp), 500, runs=12, seed=2)


def test_sampled_learners_approach_the_fixpoints_of_the_thousand_states(thousand):
    """Means of 12 runs. LSTD and least-squares MC within 3.5 standard errors of their own fixpoint and far from the
    other's; TD(0) and gradient MC with a falling step size within 3.5 and a bias of 0.02: they began at 0.83."""
    chain, mu, groups, episodes = thousand
    data = Problem(episodes, groups, 1.0)
    td, mc = td_fixpoint(chain, groups, mu, 1.0), mc_fixpoint(chain, groups, mu, 1.0)
    for found, exact, other in ((lstd(data), td, mc), (least_squares_mc(data), mc, td)):
        mean, deviation = found.weights.mean(axis=0), found.weights.std(axis=0, ddof=1) / np.sqrt(12)
        assert np.all(np.abs(mean - exact) < 3.5 * deviation)
        assert np.abs(mean - other).max() > 5 * deviation.max()
    for found, exact in (
        (td0(data, step_size=0.1, decay=1e-3), td),
        (every_visit_mc(data, step_size=0.01, decay=2e-3), mc),
    ):
        mean, deviation = found.weights.mean(axis=0), found.weights.std(axis=0, ddof=1) / np.sqrt(12)
        assert np.all(np.abs(mean - exact) < 3.5 * deviation + 0.02)
        assert deviation.max() < 0.05


def test_one_over_n_monte_carlo_of_groups_is_least_squares(thousand):
    """With disjoint groups both are the mean return of a group, exactly."""
    data = Problem(thousand[3], thousand[2], 1.0)
    assert every_visit_mc(data, step_size=None).weights == pytest.approx(least_squares_mc(data).weights, abs=1e-10)


def test_td_lambda_goes_from_one_fixpoint_to_the_other():
    """Small steps over the same episodes again and again: TD(lambda) ends in LSTD(lambda), for a Fourier basis."""
    mdp = random_walk(states=9)
    x = fourier(unit_cube(np.arange(11.0)), 2)
    once = sample_episodes(sampler(mdp), 60, seed=4)
    again = Episodes(*(np.tile(a, 400) for a in once[:6]), _repeated(once.ptr, 400), 1)
    for lam in (0.0, 0.7):
        exact = lstd(Problem(once, x, 1.0), lam=lam).weights[0]
        found = td_lambda(Problem(again, x, 1.0), lam=lam, step_size=0.05, decay=1e-3).weights[0]
        assert found == pytest.approx(exact, abs=0.003)


def _repeated(ptr: np.ndarray, times: int) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.tile(np.diff(ptr), times))])


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda d: lstd(d, lam=2.0), ConfigError, "lam is 2.0"),
        (lambda d: lstd(d, ridge=-1.0), ConfigError, "ridge is -1"),
        (lambda d: lstd(d, weights=np.ones(3)), ConfigError, "weights has shape"),
        (lambda d: lstd(Problem(d.episodes, one_hot(6), GAMMA)), DataError, "LSTD of run 0.*rank 5 of 6.*ridge > 0"),
        (lambda d: least_squares_mc(d), ConfigError, "uses no importance ratios"),
        (lambda d: least_squares_mc(Problem(d.episodes, d.features, GAMMA)), DataError, "4 episodes are truncated"),
        (lambda d: linear.tdc(d, step_size=0.1, second_step_size=0.0), ConfigError, "second_step_size is 0"),
        (lambda d: linear.emphatic_td(d, lam=-1.0, step_size=0.1), ConfigError, "lam is -1"),
        (lambda d: linear.emphatic_td(d, lam=0.5, step_size=0.1, interest=[1.0]), ConfigError, "interest has shape"),
    ],
)
def test_wrong_input_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call(off_policy())


def test_ridge_answers_a_singular_matrix():
    """A state that never occurs keeps the value 0; the others are those of the unregularised solution."""
    data = off_policy()
    wide = lstd(Problem(data.episodes, one_hot(6), GAMMA), ridge=1e-12).weights
    narrow = lstd(Problem(data.episodes, one_hot(5), GAMMA)).weights
    assert wide[:, :5] == pytest.approx(narrow, abs=1e-6)
    assert np.all(wide[:, 5] == 0)
