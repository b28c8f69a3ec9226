"""Exact fixpoints: the 1000-state walk to the reference's digits, sums written out, and identities."""

from __future__ import annotations

import numpy as np
import pytest

from onepolicy.errors import ConfigError, DataError
from onepolicy.tabular.features import aggregation, from_matrix, one_hot, state_values, to_sparse
from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.prediction.fixpoints import (
    bellman_error,
    bellman_fixpoint,
    chain_of,
    chain_values,
    emphasis,
    mc_fixpoint,
    projected_bellman_error,
    stationary_distribution,
    td_fixpoint,
    td_system,
    value_error,
    visit_distribution,
)
from onepolicy.tabular.worlds.walks import random_walk

GROUPS = aggregation(np.concatenate([[-1], np.repeat(np.arange(10), 100), [-1]]))


def garnet(seed: int = 0, states: int = 7) -> MDP:
    """Two actions, all successors possible, no end."""
    rng = np.random.default_rng(seed)
    s, a, t = (x.ravel() for x in np.meshgrid(np.arange(states), [0, 1], np.arange(states), indexing="ij"))
    p = rng.dirichlet(np.ones(states), size=2 * states).ravel()
    return MDP.from_coo(s, a, t, p, rng.normal(size=len(s)), num_states=states)


def test_small_walks():
    """Five states from 1/6 to 5/6, 0.2357 from a half; nineteen from -0.9 to 0.9, 0.547723 from 0."""
    five = chain_values(chain_of(random_walk()), 1.0)
    assert five[1:-1] == pytest.approx(np.arange(1, 6) / 6, abs=1e-14)
    assert value_error(five[1:-1], np.full(5, 0.5), np.ones(5)) == pytest.approx(0.2357, abs=5e-5)
    nineteen = chain_values(chain_of(random_walk(states=19, left=-1.0, right=1.0)), 1.0)
    assert nineteen[1:-1] == pytest.approx(np.arange(-9, 10) / 10, abs=1e-13)
    assert value_error(nineteen[1:-1], np.zeros(19), np.ones(19)) == pytest.approx(0.547723, abs=5e-7)


def test_thousand_states():
    chain = chain_of(random_walk(states=1000, neighbours=100, left=-1.0, right=1.0))
    v, mu = chain_values(chain, 1.0), visit_distribution(chain)
    assert v[[1, 100, 500, 1000]] == pytest.approx([-0.92196, -0.75418, -0.00094, 0.92196], abs=5e-6)
    assert 1 / (mu @ (1 - np.asarray(chain.transitions.sum(axis=1)).ravel())) == pytest.approx(83.1524, abs=5e-5)
    mc, td = mc_fixpoint(chain, GROUPS, mu, 1.0), td_fixpoint(chain, GROUPS, mu, 1.0)
    right = [0.09282, 0.2791, 0.46614, 0.65164, 0.83005]
    assert mc == pytest.approx([-0.83005, -0.65164, -0.46614, -0.27907, -0.08669, *right], abs=6e-6)
    right = [0.12238, 0.24972, 0.38806, 0.54369, 0.73053]
    assert td == pytest.approx([-0.69322, -0.48051, -0.30333, -0.14583, -0.00094, *right], abs=6e-6)
    assert value_error(state_values(GROUPS, mc), v, mu) == pytest.approx(0.054377, abs=5e-7)
    assert value_error(state_values(GROUPS, td), v, mu) == pytest.approx(0.116735, abs=5e-7)


@pytest.mark.parametrize("lam", [0.0, 0.6, 1.0])
def test_the_system_is_the_sum_over_time_written_out(lam):
    """A = E[sum_k (gamma lam)^k x_t (x_{t+k} - gamma x_{t+k+1})^T], b the same with rewards, by powers of P."""
    chain, gamma, rng = chain_of(garnet()), 0.8, np.random.default_rng(1)
    features, d = from_matrix(rng.normal(size=(7, 3))), rng.dirichlet(np.ones(7))
    x, p = to_sparse(features).toarray(), chain.transitions.toarray()
    matrix, vector, ahead = np.zeros((3, 3)), np.zeros(3), np.eye(7)
    for k in range(300):
        now = (gamma * lam) ** k * (x.T * d) @ ahead
        matrix += now @ (x - gamma * p @ x)
        vector += now @ chain.rewards
        ahead = ahead @ p
    found = td_system(chain, features, d, gamma, lam=lam)
    assert found[0] == pytest.approx(matrix, abs=1e-12)
    assert found[1] == pytest.approx(vector, abs=1e-12)


def test_identities():
    """A table has no error under any of them; lambda 1 is Monte Carlo; each fixpoint is the least of its own error."""
    chain, gamma = chain_of(garnet(2)), 0.9
    mu, v = stationary_distribution(chain), chain_values(chain, gamma)
    assert v == pytest.approx(chain.rewards + gamma * chain.transitions @ v)
    for found in (td_fixpoint(chain, one_hot(7), mu, gamma, lam=0.3), bellman_fixpoint(chain, one_hot(7), mu, gamma)):
        assert found == pytest.approx(v)
    features = from_matrix(np.random.default_rng(5).normal(size=(7, 3)))
    mc, td, be = (f(chain, features, mu, gamma) for f in (mc_fixpoint, td_fixpoint, bellman_fixpoint))
    assert td_fixpoint(chain, features, mu, gamma, lam=1.0) == pytest.approx(mc)
    errors = {
        "VE": lambda w: value_error(state_values(features, w), v, mu),
        "BE": lambda w: bellman_error(chain, state_values(features, w), mu, gamma),
        "PBE": lambda w: projected_bellman_error(chain, features, w, mu, gamma),
    }
    assert errors["PBE"](td) < 1e-12 < errors["PBE"](mc)
    for name, best in (("VE", mc), ("BE", be)):
        for direction in np.vstack([np.eye(3), -np.eye(3)]):
            assert errors[name](best) < errors[name](best + 1e-3 * direction)
    assert errors["VE"](mc) < errors["VE"](td) <= errors["VE"](mc) / np.sqrt(1 - gamma**2)


def test_distributions():
    """A cycle of three visits each alike; an episode through a corridor of three spends a third in each."""
    cycle = MDP.from_coo([0, 1, 2], [0, 0, 0], [1, 2, 0], np.ones(3), 0.0, num_states=3)
    assert stationary_distribution(chain_of(cycle)) == pytest.approx([1 / 3] * 3)
    with pytest.raises(DataError, match="From state 0 the chain never ends"):
        visit_distribution(chain_of(cycle))
    corridor = chain_of(MDP.from_coo([0, 1, 2], [0, 0, 0], [1, 2, 3], np.ones(3), -1.0, num_states=4, start=0))
    assert visit_distribution(corridor) == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])
    with pytest.raises(DataError, match="visit_distribution"):
        stationary_distribution(corridor)
    two = MDP.from_coo([0, 1, 2, 3], [0, 0, 0, 0], [1, 0, 3, 2], np.ones(4), 0.0, num_states=4)
    with pytest.raises(DataError, match="several"):
        stationary_distribution(chain_of(two))


def test_emphasis_on_policy():
    """Under the policy's own stationary distribution all states have it 1/(1 - gamma) fold; at lambda 1, once."""
    chain = chain_of(garnet(3))
    mu = stationary_distribution(chain)
    assert emphasis(chain, mu, 0.75) == pytest.approx(4 * mu)
    assert emphasis(chain, mu, 0.75, lam=1.0) == pytest.approx(mu)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda c: td_fixpoint(c, one_hot(6), np.ones(7), 0.9), ConfigError, "features has 6 states"),
        (lambda c: td_fixpoint(c, one_hot(7), np.ones(6), 0.9), ConfigError, "weighting"),
        (lambda c: td_fixpoint(c, one_hot(7), np.ones(7), 0.9, lam=1.5), ConfigError, r"lam is 1.5; .* \[0, 1\]"),
        (lambda c: td_fixpoint(c, one_hot(7), np.ones(7), 0.9, ridge=-1.0), ConfigError, "ridge is -1"),
        (lambda c: td_fixpoint(c, one_hot(7), np.eye(7)[0], 0.9), DataError, "rank 1 of 7"),
        (lambda c: chain_values(c, 1.0), DataError, "state 0 .* discount below 1"),
        (lambda c: chain_values(c, -0.1), ConfigError, "discount is -0.1"),
    ],
)
def test_wrong_input_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call(chain_of(garnet()))
