"""Priorities: the chance of each transition by hand, by frequency and against a flat list."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.data.priorities import BRANCH, LEAST, Priorities
from onepolicy.errors import ConfigError


def rngs(*seeds):
    return [np.random.default_rng(seed) for seed in seeds]


def known(errors, alpha, capacity=None):
    """A tree with the errors [S, n] of its first rows."""
    errors = np.array(errors, dtype=np.float64)
    tree = Priorities(len(errors), capacity or errors.shape[1], alpha)
    tree.add(0, errors.shape[1])
    tree.set(np.broadcast_to(np.arange(errors.shape[1]), errors.shape), errors)
    return tree


def test_chances_by_hand():
    """Errors 1, 4, 9 with alpha 1/2 are priorities 1, 2, 3; another learner's are its own."""
    tree = known([[1.0, 4.0, 9.0], [16.0, 16.0, 0.0]], alpha=0.5)
    row, chance = tree.draw(rngs(0, 1), 600)
    assert np.bincount(row[0]).tolist() == [100, 200, 300]
    assert np.allclose(chance[0], (row[0] + 1) / 6, rtol=1e-6)
    assert np.allclose(chance[1][row[1] < 2], 0.5, rtol=1e-3)


def test_frequencies():
    """Single draws, one at a time: 20,000 of them come as often as their priority says, within 4 standard errors."""
    tree = known([[0.5, 1.0, 2.5, 0.0, 4.0]], alpha=1.0)
    generator = rngs(3)
    counts = np.bincount([tree.draw(generator, 1)[0][0, 0] for _ in range(20_000)], minlength=5)
    p = np.array([0.5, 1.0, 2.5, 0.0, 4.0]) / 8
    assert (np.abs(counts - 20_000 * p) <= 4 * np.sqrt(20_000 * p * (1 - p)) + 0.5).all()


def test_a_batch_is_spread_over_the_sum():
    """As many draws as there are equal priorities: each comes once."""
    tree = known(np.ones((1, 70)), alpha=0.6)
    assert tree.draw(rngs(5), 70)[0][0].tolist() == list(range(70))


@given(
    capacity=st.sampled_from([1, 2, BRANCH, BRANCH + 1, BRANCH**2 + 3]),
    alpha=st.sampled_from([0.3, 1.0]),
    moves=st.lists(st.integers(0, 10**6), min_size=1, max_size=12),
)
@settings(max_examples=40, deadline=None)
def test_against_a_flat_list(capacity, alpha, moves):
    """After any adds and changes, rows are those that a search in the flat cumulative sum finds."""
    tree, flat, most = Priorities(1, capacity, alpha), np.zeros(capacity), 1.0
    for added, move in enumerate(moves):
        rng = np.random.default_rng(move)
        flat[added % capacity] = most
        tree.add(added % capacity, 1)
        row = rng.integers(0, min(added + 1, capacity), 3)
        error = rng.exponential(2.0, 3)
        tree.set(row[None], error[None])
        for at, value in zip(row, (error + LEAST) ** alpha, strict=True):
            flat[at] = value
            most = max(most, value)
    assert tree.levels[0][0, :capacity].tolist() == flat.tolist()
    assert tree.most[0] == most
    found, chance = tree.draw(rngs(moves[0]), 50)
    place = (np.arange(50) + np.random.default_rng(moves[0]).random(50)) / 50 * flat.sum()
    assert found[0].tolist() == np.searchsorted(np.cumsum(flat), place, side="right").tolist()
    assert np.allclose(chance[0], flat[found[0]] / flat.sum())
    for level, above in zip(tree.levels, tree.levels[1:], strict=False):
        assert np.allclose(level.reshape(1, -1, BRANCH).sum(-1), above[:, : level.shape[1] // BRANCH])


def test_new_transitions_get_the_greatest_priority_so_far():
    """1 before any error is known; then the greatest of the learner's own, even when that row has become harmless."""
    tree = Priorities(2, 8, 0.5)
    tree.add(0, 2)
    assert tree.levels[0][:, :3].tolist() == [[1, 1, 0], [1, 1, 0]]
    tree.set(np.array([[0], [0]]), np.array([[9.0], [0.04]]))
    tree.set(np.array([[0], [0]]), np.array([[0.0], [0.0]]))
    tree.add(2, 1)
    assert np.allclose(tree.levels[0][:, 2], [3.0, 1.0], rtol=1e-6)


def test_places_without_a_transition_are_never_drawn():
    tree = known([[1e-9, 1e9, 1e-9]], alpha=1.0, capacity=5000)
    assert tree.draw(rngs(1), 5000)[0].max() <= 2


def test_the_end_of_the_sum_is_the_last_transition():
    """A generator that gives the greatest number below 1 each time."""

    class Greatest:
        def random(self, n):
            return np.full(n, np.nextafter(1.0, 0.0))

    tree = known([np.full(999, 0.1)], alpha=0.7, capacity=40_000)
    row, _ = tree.draw([Greatest()], 999)
    assert row[0].max() == 998
    assert row[0, -1] == 998


@pytest.mark.parametrize("alpha", [-0.1, 1.1])
def test_an_exponent_outside_its_range_is_refused(alpha):
    with pytest.raises(ConfigError, match=f"priority is {alpha}"):
        Priorities(1, 4, alpha)
