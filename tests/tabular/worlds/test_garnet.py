"""Random models: the distribution that is claimed, the locality that is claimed, and a million states in seconds."""

import time
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.errors import ConfigError
from onepolicy.tabular.worlds.garnet import garnet, local


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 60), st.integers(1, 4), st.integers(1, 6), st.integers(0, 99), st.booleans())
def test_rows_are_distributions_over_different_states(states, actions, branching, seed, near):
    branching = min(branching, states if not near else 3)
    build = local if near else garnet
    options = {"window": 1} if near else {}
    world = build(states, actions=actions, branching=branching, seed=seed, **options)
    model = world.csr()
    assert world.num_rows == states * actions
    assert np.diff(model.ptr).tolist() == [branching] * world.num_rows
    for row in range(world.num_rows):
        mine = slice(model.ptr[row], model.ptr[row + 1])
        assert len(set(model.successors[mine])) == branching
        assert model.probabilities[mine].sum() == pytest.approx(1.0)
        if near:
            ring = (model.successors[mine] - row // actions + 1) % states
            assert set(ring) <= {0, 1, 2}
    again = build(states, actions=actions, branching=branching, seed=seed, **options).csr()
    np.testing.assert_array_equal(model.successors, again.successors)
    np.testing.assert_array_equal(model.rewards, again.rewards)


@pytest.mark.parametrize(("states", "branching"), [(5, 2), (7, 6)])
def test_every_set_of_successors_is_equally_likely(states, branching):
    """Ten sets of 2 of 5, drawn sparsely, and seven of 6 of 7, drawn densely: each within 4 standard errors."""
    rows = 4_000 * states
    share = 1 / comb(states, branching)
    model = garnet(states, actions=rows // states, branching=branching, seed=3).csr()
    sets = (1 << model.successors.reshape(rows, branching)).sum(axis=1)
    kinds, counts = np.unique(sets, return_counts=True)
    assert len(kinds) == comb(states, branching)
    np.testing.assert_allclose(counts / rows, share, atol=4 * np.sqrt(share * (1 - share) / rows))


def test_probabilities_are_pieces_between_uniform_cuts():
    """The largest of three pieces of a stick has mean 11/18, the smallest 1/9; rewards are standard normals."""
    model = garnet(5_000, actions=4, branching=3, seed=1).csr()
    pieces = np.sort(model.probabilities.reshape(-1, 3), axis=1).mean(axis=0)
    np.testing.assert_allclose(pieces[[0, 2]], [1 / 9, 11 / 18], atol=4 * 0.14 / np.sqrt(20_000))
    assert model.rewards.mean() == pytest.approx(0.0, abs=4 / np.sqrt(20_000))
    assert model.rewards.std() == pytest.approx(1.0, abs=4 / np.sqrt(40_000))


def test_sizes_that_cannot_be():
    with pytest.raises(ConfigError, match="branching is 6; there are 5 states"):
        garnet(5, branching=6)
    with pytest.raises(ConfigError, match=r"window is 3: 7 states, of 5. Give window <= 2"):
        local(5, window=3)
    with pytest.raises(ConfigError, match="branching is 4; there are 3 states"):
        local(5, window=1, branching=4)
    with pytest.raises(ConfigError, match="actions is 0"):
        garnet(5, actions=0)


@pytest.mark.slow
@pytest.mark.parametrize("build", [garnet, local])
def test_a_million_states(build):
    began = time.perf_counter()
    assert build(1_000_000, actions=4, branching=5).num_rows == 4_000_000
    assert time.perf_counter() - began < 60.0
