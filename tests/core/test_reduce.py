"""Loss weights: four reductions by hand, and that no way of splitting a batch changes them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.core.reduce import REDUCTIONS, loss_count, loss_weights
from onepolicy.errors import ConfigError, DataError

MASK = torch.tensor([[0, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()


def length(mode):
    return 10.0 if mode == "fixed_length" else None


@pytest.mark.parametrize(
    ("mode", "long", "short"),
    [
        ("token_mean", 1 / 4, 1 / 4),
        ("sequence_mean", 1 / 6, 1 / 2),
        ("sequence_sum", 1 / 2, 1 / 2),
        ("fixed_length", 1 / 20, 1 / 20),
    ],
)
def test_by_hand(mode, long, short):
    """Rows of 3, 1 and 0 counted tokens. 4 tokens in all; 2 sequences, since the empty row (a truncated completion
    that was masked out) is not one: 1/(2*3) and 1/(2*1), 1/2 and 1/2, 1/(2*10) and 1/(2*10)."""
    weight = loss_weights(MASK, mode, length=length(mode))
    expected = torch.tensor([[0, long, long, long], [short, 0, 0, 0], [0, 0, 0, 0]])
    torch.testing.assert_close(weight, expected)


def test_the_modes_are_the_means_they_are_named_after():
    loss = torch.randn(3, 4)
    rows = [loss[0, 1:], loss[1, :1]]
    means = {
        "token_mean": torch.cat(rows).mean(),
        "sequence_mean": torch.stack([row.mean() for row in rows]).mean(),
        "sequence_sum": torch.stack([row.sum() for row in rows]).mean(),
        "fixed_length": torch.stack([row.sum() / 10 for row in rows]).mean(),
    }
    for mode, expected in means.items():
        torch.testing.assert_close((loss_weights(MASK, mode, length=length(mode)) * loss).sum(), expected)


@pytest.mark.parametrize("mode", ["token_mean", "sequence_mean"])
def test_means_have_weights_that_sum_to_one(mode):
    assert float(loss_weights(MASK, mode).sum()) == pytest.approx(1.0)


@settings(max_examples=40, deadline=None)
@given(
    mode=st.sampled_from(REDUCTIONS),
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 8),
    at=st.integers(0, 8),
    left=st.integers(0, 3),
    right=st.integers(0, 3),
)
def test_micro_batches_padding_and_order_change_no_weight(mode, seed, rows, at, left, right):
    """A part of the batch, given the whole step's count, gets the whole's weights, wherever padding is added."""
    rng = torch.Generator().manual_seed(seed)
    mask = torch.rand(rows, 5, generator=rng) < 0.6
    whole = loss_weights(mask, mode, length=length(mode))
    count = loss_count(mask, mode)
    at = min(at, rows)
    if int(count) > 0:
        parts = [loss_weights(part, mode, count, length(mode)) for part in (mask[:at], mask[at:])]
        torch.testing.assert_close(torch.cat(parts), whole)
        as_number = loss_weights(mask[at:], mode, int(count), length(mode))
        torch.testing.assert_close(as_number, parts[1])
    padded = torch.nn.functional.pad(mask, (left, right))
    torch.testing.assert_close(loss_weights(padded, mode, length=length(mode))[:, left : left + 5], whole)
    order = torch.randperm(rows, generator=rng)
    torch.testing.assert_close(loss_weights(mask[order], mode, length=length(mode)), whole[order])


@pytest.mark.parametrize("mode", REDUCTIONS)
def test_counts_add_up_over_parts_and_ranks(mode):
    assert int(loss_count(MASK, mode)) == (4 if mode == "token_mean" else 2)
    assert int(loss_count(MASK[:1], mode) + loss_count(MASK[1:], mode)) == int(loss_count(MASK, mode))


@pytest.mark.parametrize("mode", REDUCTIONS)
def test_a_dropped_row_does_not_dilute_the_others(mode):
    """A sequence whose tokens are all masked leaves the loss of the others as if it had never been there."""
    kept = loss_weights(MASK[:2], mode, length=length(mode))
    torch.testing.assert_close(loss_weights(MASK, mode, length=length(mode))[:2], kept)


def test_a_count_that_includes_dropped_rows_dilutes_if_asked_to():
    """Dividing by all 3 generated sequences, as a fixed batch size would: give it as the count."""
    weight = loss_weights(MASK, "sequence_sum", count=3)
    assert weight[MASK].tolist() == pytest.approx([1 / 3] * 4)


@pytest.mark.parametrize("mode", REDUCTIONS)
def test_nothing_counted_is_no_division_by_zero(mode):
    assert loss_weights(torch.zeros(2, 3).bool(), mode, length=length(mode)).eq(0.0).all()


def test_float64_weights_are_exact():
    assert loss_weights(MASK, "sequence_mean", dtype=torch.float64)[0, 1].item() == 1 / 6


def test_bad_requests():
    with pytest.raises(ConfigError, match="Did you mean 'token_mean'"):
        loss_weights(MASK, "token-mean")
    with pytest.raises(ConfigError, match="needs length"):
        loss_weights(MASK, "fixed_length")
    with pytest.raises(ConfigError, match="takes no length"):
        loss_weights(MASK, "token_mean", length=5)
    with pytest.raises(ConfigError, match="count is 0; it must be positive"):
        loss_weights(MASK, "token_mean", count=0)
    with pytest.raises(DataError, match=r"mask has dtype torch.float32"):
        loss_weights(MASK.float(), "token_mean")
