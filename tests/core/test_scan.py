"""y_t = a_t + b_t * y_{t+1}: one recurrence, four ways to compute it, the same numbers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.core import scan
from onepolicy.core.scan import COMPILED_FROM, SHORT, reverse_scan
from onepolicy.errors import DataError


def naive(a, b, init):
    """The definition, element by element in Python floats."""
    rows_a, rows_b = a.reshape(-1, a.shape[-1]), b.reshape(-1, a.shape[-1])
    start = torch.broadcast_to(torch.as_tensor(init, dtype=a.dtype), a.shape[:-1]).reshape(-1)
    out = torch.empty_like(rows_a)
    for row in range(rows_a.shape[0]):
        y = float(start[row])
        for t in reversed(range(a.shape[-1])):
            y = float(rows_a[row, t]) + float(rows_b[row, t]) * y
            out[row, t] = y
    return out.reshape(a.shape)


def problem(shape, seed=0, dtype=torch.float64):
    rng = torch.Generator().manual_seed(seed)
    a = torch.randn(shape, generator=rng, dtype=dtype)
    b = torch.rand(shape, generator=rng, dtype=dtype)
    return a, b, torch.randn(shape[:-1], generator=rng, dtype=dtype)


def test_by_hand():
    """y_3 = 3 + 0.5 * 8 = 7; y_2 = 2 + 0 * 7 = 2; y_1 = 1 + 2 * 2 = 5."""
    y = reverse_scan(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 0.0, 0.5]), 8.0)
    assert y.tolist() == [5.0, 2.0, 7.0]


@pytest.mark.parametrize("steps", [1, 2, SHORT, SHORT + 1, 33, COMPILED_FROM - 1, COMPILED_FROM, 300])
@pytest.mark.parametrize("leading", [(), (3,), (2, 3)])
def test_equals_a_naive_loop_with_and_without_gradient(steps, leading):
    a, b, init = problem((*leading, steps), seed=steps)
    expected = naive(a, b, init)
    torch.testing.assert_close(reverse_scan(a, b, init), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(reverse_scan(a.clone().requires_grad_(), b, init).detach(), expected)


@pytest.mark.parametrize("steps", [SHORT, 100, 300])
def test_every_way_gives_the_same_numbers_in_float32(steps):
    a, b, init = problem((4, steps), dtype=torch.float32)
    ways = [way(a, b, init) for way in (scan._loop_scan, scan._doubling_scan, scan._array_scan)]
    assert all(y.dtype == torch.float32 for y in ways)
    for y in ways[1:]:
        torch.testing.assert_close(y, ways[0], rtol=2e-5, atol=2e-5)


def test_numpy_and_compiled_loops_agree_to_the_bit(monkeypatch):
    a, b, init = problem((3, 50), dtype=torch.float32)
    in_numpy = reverse_scan(a, b, init)
    monkeypatch.setattr(scan, "COMPILED_FROM", 1)
    assert torch.equal(reverse_scan(a, b, init), in_numpy)


def test_a_cut_hides_what_follows():
    a, b, init = problem((5, 20))
    b[:, 10] = 0.0
    alone = reverse_scan(a[:, :11], b[:, :11], 0.0)
    torch.testing.assert_close(reverse_scan(a, b, init)[:, :11], alone)


@settings(max_examples=25, deadline=None)
@given(steps=st.integers(2, 200), cut=st.floats(0.0, 1.0), seed=st.integers(0, 1000))
def test_splitting_time_changes_nothing(steps, cut, seed):
    """The scan of the first part, started from the scan of the second, is the scan of the whole."""
    a, b, init = problem((2, steps), seed)
    at = min(steps - 1, max(1, int(cut * steps)))
    second = reverse_scan(a[:, at:], b[:, at:], init)
    first = reverse_scan(a[:, :at], b[:, :at], second[:, 0])
    torch.testing.assert_close(torch.cat([first, second], -1), reverse_scan(a, b, init))


@pytest.mark.parametrize("steps", [3, SHORT + 5])
def test_gradient(steps):
    a, b, init = (x.requires_grad_() for x in problem((2, steps)))
    assert torch.autograd.gradcheck(reverse_scan, (a, b, init))
    assert torch.autograd.gradgradcheck(reverse_scan, (a, b, init))


def test_inputs_are_left_unchanged_and_need_not_be_contiguous():
    a, b, init = problem((40, 6))
    copies = a.clone(), b.clone(), init.clone()
    turned = reverse_scan(a.T, b.T, torch.zeros(6, dtype=a.dtype))
    torch.testing.assert_close(turned, naive(a.T.contiguous(), b.T.contiguous(), 0.0))
    assert all(torch.equal(x, y) for x, y in zip((a, b, init), copies))


def test_a_factor_without_leading_dimensions_is_broadcast():
    a, _, init = problem((3, 9))
    discount = torch.full((9,), 0.9, dtype=a.dtype)
    torch.testing.assert_close(reverse_scan(a, discount, init), naive(a, discount.expand(3, 9), init))


def test_no_gradient_is_tracked_under_no_grad():
    a, b, init = problem((2, 200))
    with torch.no_grad():
        assert not reverse_scan(a.requires_grad_(), b, init).requires_grad


def test_an_empty_sequence_stays_empty():
    assert reverse_scan(torch.zeros(3, 0), torch.zeros(3, 0)).shape == (3, 0)


@pytest.mark.parametrize("bad", [torch.tensor(1.0), torch.ones(3, dtype=torch.int64)])
def test_tensors_it_cannot_scan_are_refused(bad):
    with pytest.raises(DataError, match="float dtype"):
        reverse_scan(bad, bad)
