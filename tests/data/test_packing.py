"""Episodes to rectangular batches, and rows to micro-batches."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from onepolicy.data.packing import split_by_tokens, token_batch
from onepolicy.errors import ConfigError, DataError
from onepolicy.types import Episode, Score


def episode(tokens, acts, logp=None, truncated=False):
    logp = tuple(-0.5 if a else 0.0 for a in acts) if logp is None else logp
    return Episode("t", 0, tuple(tokens), tuple(acts), logp, Score(1.0), truncated=truncated)


SHORT = episode((5, 6, 7), (False, True, True), (0.0, -0.25, -1.5))
LONG = episode((5, 6, 9, 8, 1), (False, True, False, True, True))


def test_a_batch_by_hand():
    """One number per episode goes to its action tokens; what is not an action is 0, padding is pad_id."""
    batch = token_batch([SHORT, LONG], [2.0, -1.0], pad_id=3)
    assert batch.inputs.tokens.tolist() == [[5, 6, 7, 3, 3], [5, 6, 9, 8, 1]]
    assert batch.inputs.attention.tolist() == [[True] * 3 + [False] * 2, [True] * 5]
    assert batch.mask.tolist() == [[False, True, True, False, False], [False, True, False, True, True]]
    assert batch.advantage.tolist() == [[0, 2, 2, 0, 0], [0, -1, 0, -1, -1]]
    assert batch.logp_behaviour.tolist() == [[0, -0.25, -1.5, 0, 0], [0, -0.5, 0, -0.5, -0.5]]
    assert torch.equal(batch.action, batch.inputs.tokens)
    assert torch.equal(batch.mask, batch.inputs.is_action)
    assert batch.advantage.dtype == batch.logp_behaviour.dtype == torch.float32
    assert batch.action.dtype == torch.int64


def test_an_advantage_per_token_is_read_at_action_tokens_only():
    batch = token_batch([SHORT, LONG], [[9.0, 1.0, 2.0], [float("nan"), 1.0, 9.0, 3.0, 4.0]], pad_id=0)
    assert batch.advantage.tolist() == [[0, 1, 2, 0, 0], [0, 1, 0, 3, 4]]


def test_numpy_and_torch_advantages_are_taken_too():
    want = token_batch([SHORT, LONG], [2.0, -1.0], pad_id=0).advantage
    assert torch.equal(token_batch([SHORT, LONG], np.array([2.0, -1.0]), pad_id=0).advantage, want)
    assert torch.equal(token_batch([SHORT, LONG], torch.tensor([2.0, -1.0]), pad_id=0).advantage, want)


def test_truncated_episodes_can_be_masked():
    """A completion cut off for length says nothing about how it would have ended: no gradient, if so chosen."""
    cut = episode((5, 6, 7), (False, True, True), truncated=True)
    kept = token_batch([cut, LONG], [1.0, 1.0], pad_id=0)
    assert kept.mask[0].tolist() == [False, True, True, False, False]
    masked = token_batch([cut, LONG], [1.0, 1.0], pad_id=0, truncated="mask")
    assert not masked.mask[0].any()
    assert not masked.inputs.is_action[0].any()
    assert torch.equal(masked.mask[1], kept.mask[1])
    assert torch.equal(masked.inputs.tokens, kept.inputs.tokens)


@given(st.permutations(range(4)))
def test_rows_keep_their_episodes_in_any_order(order):
    episodes = [episode(range(2, 3 + n), [False] + [True] * n) for n in range(1, 5)]
    batch = token_batch(episodes, [1.0, 2.0, 3.0, 4.0], pad_id=0)
    shuffled = token_batch([episodes[i] for i in order], [float(i + 1) for i in order], pad_id=0)
    assert torch.equal(shuffled.advantage, batch.advantage[list(order)])
    assert torch.equal(shuffled.inputs.tokens, batch.inputs.tokens[list(order)])


def test_bad_batches_are_named():
    with pytest.raises(DataError, match="0 episodes"):
        token_batch([], [], pad_id=0)
    with pytest.raises(DataError, match="1 entries for 2 episodes"):
        token_batch([SHORT, LONG], [1.0], pad_id=0)
    with pytest.raises(DataError, match=r"episode 1 has shape \(4,\); expected one number or 5"):
        token_batch([SHORT, LONG], [[1.0] * 3, [1.0] * 4], pad_id=0)
    for bad in (float("nan"), float("inf")):
        with pytest.raises(DataError, match=r"advantage of episode 1 \(task 't'\) is not finite"):
            token_batch([SHORT, LONG], [1.0, bad], pad_id=0)


def test_split_by_hand():
    """Budget 20: lengths 10 and 9 fit as 2 x 10; 4 and 3 as 2 x 4."""
    assert split_by_tokens([3, 10, 4, 9], budget=20) == [[1, 3], [2, 0]]


LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=40)


@given(lengths=LENGTHS, budget=st.integers(40, 200))
def test_every_row_is_in_one_group_within_the_budget_and_the_same_each_time(lengths, budget):
    groups = split_by_tokens(lengths, budget)
    assert sorted(i for g in groups for i in g) == list(range(len(lengths)))
    assert all(len(g) * max(lengths[i] for i in g) <= budget for g in groups)
    order = [lengths[i] for g in groups for i in g]
    assert order == sorted(lengths, reverse=True)
    assert groups == split_by_tokens(lengths, budget)


@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=9), budget=st.integers(12, 40))
def test_no_cut_of_the_sorted_rows_has_fewer_groups(lengths, budget):
    """Against all 2^(n-1) ways to cut the rows, sorted by length, into runs within the budget."""
    ordered = sorted(lengths, reverse=True)
    best = math.inf
    for cuts in range(1 << (len(ordered) - 1)):
        runs, start = [], 0
        for i in range(1, len(ordered) + 1):
            if i == len(ordered) or cuts >> (i - 1) & 1:
                runs.append(ordered[start:i])
                start = i
        if all(len(run) * run[0] <= budget for run in runs):
            best = min(best, len(runs))
    assert len(split_by_tokens(lengths, budget)) == best


def test_sorting_wastes_less_than_a_batch_in_order():
    """Two rows of 100 among 46 of 8, pairs at a time: in order each long one has a short one padded to 100 beside it
    (2 x 200 + 22 x 16 = 752 tokens); sorted, the long ones share a pair (200 + 46 x 8 = 568)."""
    lengths = [8] * 20 + [100] + [8] * 20 + [100] + [8] * 6
    in_order = sum(2 * max(lengths[i : i + 2]) for i in range(0, 48, 2))
    ordered = sum(len(g) * max(lengths[i] for i in g) for g in split_by_tokens(lengths, budget=200))
    assert (in_order, ordered) == (752, 568)


def test_a_row_beyond_the_budget_is_an_error_with_the_fix():
    with pytest.raises(ConfigError, match=r"row 1 has 11 tokens.*micro_tokens to at least 11"):
        split_by_tokens([3, 11], budget=10)
