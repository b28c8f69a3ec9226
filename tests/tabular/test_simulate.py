"""Streams, sampling and flat episodes: published words, frequencies, naive loops and reproducibility."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.errors import ConfigError
from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.simulate import (
    below,
    cumulative_sums,
    row_probabilities,
    sample_action,
    sample_episodes,
    sample_start,
    sample_successor,
    sampler,
    streams,
    uniform,
)


def corridor() -> MDP:
    """States 0..3, 3 terminal. Action 0 stays with 1/4 (reward 5) or goes on (reward -1); state 0 can also jump."""
    return MDP.from_coo(
        [0, 0, 1, 1, 2, 2, 0],
        [0, 0, 0, 0, 0, 0, 1],
        [0, 1, 1, 2, 2, 3, 3],
        [0.25, 0.75, 0.25, 0.75, 0.25, 0.75, 1.0],
        [5.0, -1.0, 5.0, -1.0, 5.0, -1.0, 9.0],
        num_states=4,
        start=[0.5, 0.5, 0.0, 0.0],
    )


def test_words_of_the_generator():
    """The first outputs of xoshiro256++ from the state (1, 2, 3, 4), as its authors' C code prints them."""
    stream = np.array([1, 2, 3, 4], dtype=np.uint64)
    words = [41943041, 58720359, 3588806011781223, 3591011842654386, 9228616714210784205, 9973669472204895162]
    assert [uniform(stream) for _ in words] == [(word >> 11) * 2.0**-53 for word in words]


def test_streams_are_a_prefix_and_uniform():
    assert np.array_equal(streams(3, 5), streams(3, 9)[:5])
    assert not np.array_equal(streams(3, 5), streams(4, 5))
    stream = streams(0, 1)[0]
    draws = np.array([uniform(stream) for _ in range(20_000)])
    assert abs(draws.mean() - 0.5) < 3 * np.sqrt(1 / 12 / 20_000)
    assert draws.min() >= 0.0
    assert draws.max() < 1.0
    counts = np.bincount([below(stream, 7) for _ in range(7000)], minlength=7)
    assert np.sum((counts - 1000) ** 2 / 1000) < 22.5  # chi-square, 6 degrees of freedom, 0.1 %


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60).filter(any), st.floats(0, 1, exclude_max=True))
def test_the_outcome_of_a_number_is_the_inverse_distribution(weights, u):
    """Short and long segments (scan and bisection) give the same outcome, never one of probability 0."""
    probabilities = np.array(weights) / sum(weights)
    cumulative = cumulative_sums(np.array([0, len(weights)]), probabilities)
    found = sample_start(cumulative, u)
    assert probabilities[found] > 0
    exact = np.cumsum(weights)
    assert exact[found] > u * sum(weights) - 1e-9
    assert exact[found] - weights[found] <= u * sum(weights) + 1e-9


def test_rounding_leaves_no_gap_at_the_top():
    """Ten times 0.1 adds up to less than 1 in floats; the largest u is the last possible outcome, not the 0 after."""
    probabilities = [0.1] * 10 + [0.0]
    assert np.cumsum(probabilities)[-1] < 1
    cumulative = cumulative_sums(np.array([0, 11]), probabilities)
    assert cumulative[-2:].tolist() == [1.0, 1.0]
    assert sample_start(cumulative, 1.0 - 2.0**-53) == 9


def test_segments_do_not_leak():
    cumulative = cumulative_sums(np.array([0, 2, 2, 4]), [0.3, 0.7, 0.0, 1.0])
    ptr = np.array([0, 2, 4])
    assert [sample_successor(ptr, cumulative, 0, u) for u in (0.0, 0.29, 0.3, 0.999999)] == [0, 0, 1, 1]
    assert [sample_action(ptr, cumulative, 1, u) for u in (0.0, 0.999999)] == [3, 3]


def test_episodes_follow_the_model():
    """From state 1 the expected number of steps is 2 / 0.75; every step's reward is its transition's."""
    model = sampler(corridor(), np.array([0, 0, 0, 0]))
    episodes = sample_episodes(model, 4000, seed=1)
    lengths, starts = np.diff(episodes.ptr), episodes.state[episodes.ptr[:-1]]
    for start, expected in ((0, 3 / 0.75), (1, 2 / 0.75)):
        some = lengths[starts == start]
        assert abs(some.mean() - expected) < 3 * some.std() / np.sqrt(len(some))
    assert abs(np.mean(starts == 0) - 0.5) < 3 * 0.5 / np.sqrt(4000)
    assert np.array_equal(episodes.reward, np.where(episodes.state == episodes.next_state, 5.0, -1.0))
    assert np.array_equal(episodes.terminated, episodes.next_state == 3)
    assert not episodes.truncated.any()
    ends = episodes.ptr[1:] - 1
    assert episodes.terminated[ends].all()
    inside = np.setdiff1d(np.arange(len(episodes.state)), ends)
    assert np.array_equal(episodes.next_state[inside], episodes.state[inside + 1])


def test_truncation_keeps_the_last_state():
    model = sampler(corridor(), np.array([0, 0, 0, 0]))
    full, cut = sample_episodes(model, 200, seed=2), sample_episodes(model, 200, seed=2, max_steps=3)
    assert np.array_equal(np.diff(cut.ptr), np.minimum(np.diff(full.ptr), 3))
    ends = cut.ptr[1:] - 1
    assert np.array_equal(cut.truncated[ends], np.diff(full.ptr) > 3)
    assert np.array_equal(cut.terminated[ends], np.diff(full.ptr) <= 3)
    assert cut.truncated.sum() + cut.terminated.sum() == 200


def test_numbers_do_not_depend_on_threads_or_on_other_episodes():
    model = sampler(corridor())
    one, three = (sample_episodes(model, 10, runs=3, seed=5, threads=n) for n in (1, 3))
    assert all(np.array_equal(a, b) for a, b in zip(one, three))
    fewer = sample_episodes(model, 7, seed=5)
    assert np.array_equal(fewer.row, one.row[: fewer.ptr[-1]])


def test_policies_per_row():
    csr = corridor().csr()
    assert row_probabilities(csr, None).tolist() == [0.5, 0.5, 1.0, 1.0]
    assert row_probabilities(csr, np.array([1, 0, 0, -1])).tolist() == [0.0, 1.0, 1.0, 1.0]
    assert row_probabilities(csr, [0.25, 0.75, 1.0, 1.0]).tolist() == [0.25, 0.75, 1.0, 1.0]


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ([0.5, 0.5], "probability per"),
        (np.array([0, 0]), "action per state"),
        (np.array([2, 0, 0, 0]), "action 2 in state 0, which has 0 .. 1"),
        ([0.5, 0.4, 1.0, 1.0], "sums to 0.9 in state 0"),
        ([1.5, -0.5, 1.0, 1.0], "-0.5 for action 1 of state 0"),
        ([np.nan, 0.4, 1.0, 1.0], "state 0"),
    ],
)
def test_wrong_policies_are_named(policy, words):
    with pytest.raises(ConfigError, match=words):
        row_probabilities(corridor().csr(), policy)


def test_nothing_to_sample_is_refused():
    with pytest.raises(ConfigError, match="max_steps is 0"):
        sample_episodes(sampler(corridor()), 3, max_steps=0)
