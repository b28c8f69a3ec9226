"""The critic's loss and explained variance."""

import pytest
import torch

from onepolicy.core.value import clipped_squared_error, explained_variance, squared_error


def test_squared_error_by_hand():
    """(3 - 1)^2 / 2 = 2."""
    assert squared_error(torch.tensor(3.0), torch.tensor(1.0)).item() == 2.0


def test_clipped_error_by_hand():
    """Old value 0, clip 0.5, target 2. V = 1 moved past the clip: held at 0.5, the larger error (2 - 0.5)^2 / 2 = 1.125
    counts. V = -1: held at -0.5, but its own (2 + 1)^2 / 2 = 4.5 is larger."""
    value, zero, target = torch.tensor([1.0, -1.0]), torch.zeros(2), torch.full((2,), 2.0)
    assert clipped_squared_error(value, zero, target, clip=0.5).tolist() == [1.125, 4.5]


def test_a_wide_clip_is_no_clip():
    value, old, target = torch.randn(3, 50)
    torch.testing.assert_close(clipped_squared_error(value, old, target, clip=1e6), squared_error(value, target))


def test_the_clip_stops_the_pull_towards_the_target_and_not_the_way_back():
    value = torch.tensor([1.0, -1.0], dtype=torch.float64, requires_grad=True)
    loss = clipped_squared_error(value, torch.zeros(2).double(), torch.full((2,), 2.0).double(), clip=0.5)
    (gradient,) = torch.autograd.grad(loss.sum(), value)
    assert gradient.tolist() == [0.0, -3.0]


def test_gradients():
    value, old, target = torch.randn(3, 20, dtype=torch.float64)
    value.requires_grad_()
    assert torch.autograd.gradcheck(squared_error, (value, target))
    assert torch.autograd.gradcheck(lambda v: clipped_squared_error(v, old, target, clip=0.3), (value,))


def test_explained_variance_by_hand():
    """Targets 0, 2 (variance 1); V = 0, 1 leaves residuals 0, 1 (variance 1/4): 1 - 1/4 = 3/4."""
    mask = torch.tensor([True, True, False])
    value, target = torch.tensor([0.0, 1.0, 9.0]), torch.tensor([0.0, 2.0, float("nan")])
    assert explained_variance(value, target, mask).item() == pytest.approx(0.75)


def test_explained_variance_of_the_perfect_the_constant_and_the_opposite_critic():
    target = torch.randn(200)
    mask = torch.ones(200).bool()
    assert explained_variance(target, target, mask).item() == 1.0
    assert explained_variance(target + 5, target, mask).item() == pytest.approx(1.0)  # a bias is not variance
    assert explained_variance(torch.zeros(200), target, mask).item() == pytest.approx(0.0, abs=1e-6)
    assert explained_variance(-target, target, mask).item() == pytest.approx(-3.0, rel=1e-5)


def test_targets_that_do_not_vary_have_no_variance_to_explain():
    assert explained_variance(torch.randn(4), torch.full((4,), 0.1), torch.ones(4).bool()).isnan()
    assert explained_variance(torch.randn(4), torch.randn(4), torch.zeros(4).bool()).isnan()
