"""Products of stacked matrices are the same numbers by either library, and the choice is by shape, type and machine."""

from __future__ import annotations

import pytest
import torch

from onepolicy.nn import products

LIBRARIES = [False, True] if hasattr(torch.ops.mkldnn, "_linear_pointwise") else [False]


@pytest.fixture(params=LIBRARIES, ids=["mkl", "onednn"][: len(LIBRARIES)])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both sides, for all sizes, whatever this machine's processor is."""
    monkeypatch.setattr(products, "_ONEDNN", request.param)
    monkeypatch.setattr(products, "LARGE", 1)
    monkeypatch.setattr(products, "_linear", getattr(torch.ops.mkldnn, "_linear_pointwise", None))
    return bool(request.param)


@pytest.mark.parametrize("networks", [1, 3])
@pytest.mark.parametrize(("rows", "inner", "columns"), [(1, 1, 1), (7, 5, 3), (64, 33, 17)])
def test_product_is_the_sum_over_the_inner_axis(
    either: bool, networks: int, rows: int, inner: int, columns: int
) -> None:
    rng = torch.Generator().manual_seed(3)
    x = torch.randn(networks, rows, inner, generator=rng)
    y = torch.randn(networks, inner, columns, generator=rng)
    bias = torch.randn(networks, 1, columns, generator=rng)
    exact = torch.einsum("gmk,gkn->gmn", x.double(), y.double())
    assert products.onednn(x, columns) is either
    torch.testing.assert_close(products.product(x, y).double(), exact, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(products.product(x, y, bias).double(), exact + bias.double(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("networks", [1, 3])
def test_a_bound_product_follows_its_operands(either: bool, networks: int, biased: bool, relu: bool) -> None:
    rng = torch.Generator().manual_seed(7)
    x, y, bias = (torch.randn(networks, *shape, generator=rng) for shape in ((7, 5), (4, 5), (1, 4)))
    room = torch.full((networks, 9, 4), torch.nan)
    multiply = products.Product(x, y.transpose(1, 2), room[:, :7], bias if biased else None, relu=relu)
    for _ in range(2):
        for operand in (x, y, bias):
            operand.normal_(generator=rng)
        exact = torch.einsum("gmk,gnk->gmn", x.double(), y.double()) + (bias.double() if biased else 0.0)
        multiply()
        expected = exact.relu() if relu else exact
        torch.testing.assert_close(room[:, :7].double(), expected, atol=1e-5, rtol=1e-5)
    assert room[:, 7:].isnan().all()


def test_transposed_views_are_taken_as_they_are(either: bool) -> None:
    rng = torch.Generator().manual_seed(4)
    x, y = torch.randn(2, 9, 6, generator=rng), torch.randn(2, 9, 4, generator=rng)
    found = products.product(x.transpose(1, 2), y)
    torch.testing.assert_close(found, torch.einsum("gbi,gbo->gio", x, y), atol=1e-5, rtol=1e-5)
    back = products.product(y, torch.randn(2, 6, 4, generator=rng).transpose(1, 2))
    assert back.shape == (2, 9, 6)


def test_one_network_of_many_is_that_network_alone(either: bool) -> None:
    rng = torch.Generator().manual_seed(5)
    x, y = torch.randn(3, 16, 8, generator=rng), torch.randn(3, 8, 5, generator=rng)
    beside = products.product(x, y)
    for g in range(3):
        torch.testing.assert_close(products.product(x[g : g + 1], y[g : g + 1])[0], beside[g], atol=1e-6, rtol=1e-6)


def test_small_products_and_other_types_are_never_onednns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_ONEDNN", True)
    assert products.onednn(torch.zeros(1, 128, 128), 128)
    assert not products.onednn(torch.zeros(1, 128, 128), 127)
    assert not products.onednn(torch.zeros(1, 128, 128, dtype=torch.float64), 128)
    monkeypatch.setattr(products, "_ONEDNN", False)
    assert not products.onednn(torch.zeros(1, 1024, 1024), 1024)


def test_gradients_and_their_gradients_are_those_of_baddbmm(either: bool) -> None:
    rng = torch.Generator().manual_seed(6)
    shapes = {"x": (2, 9, 6), "weight": (2, 6, 4), "bias": (2, 1, 4)}
    parts = {name: torch.randn(shape, generator=rng, requires_grad=True) for name, shape in shapes.items()}
    along = {name: torch.randn(shape, generator=rng) for name, shape in shapes.items()}

    def first_and_second(y: torch.Tensor) -> list[torch.Tensor]:
        loss = torch.tanh(y).square().sum()
        first = torch.autograd.grad(loss, parts.values(), create_graph=True)
        slope = sum((f * along[name]).sum() for name, f in zip(parts, first, strict=True))
        assert isinstance(slope, torch.Tensor)
        return [*first, *torch.autograd.grad(slope, parts.values())]

    found = first_and_second(products.linear(**parts))
    wanted = first_and_second(torch.baddbmm(parts["bias"], parts["x"], parts["weight"]))
    for mine, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-4)


def test_only_what_needs_a_gradient_gets_one(either: bool) -> None:
    x, weight = torch.randn(1, 4, 3), torch.randn(1, 3, 2, requires_grad=True)
    products.linear(x, weight, torch.zeros(1, 1, 2)).sum().backward()
    assert x.grad is None
    torch.testing.assert_close(weight.grad, x.sum(1)[0].unsqueeze(1).expand(3, 2).unsqueeze(0))
