"""Products of stacked matrices, [G, m, k] by [G, k, n], by the faster of two libraries that torch brings along.

torch's float32 products are MKL's, which on AMD's processors keeps to AVX2; oneDNN uses AVX-512 there, for 1.5 to 2.2
times the speed from some millions of multiplications on (measured on Zen 5; docs/log.md). The choice depends on the
processor and the shape alone, never on a clock, so that a run repeats itself. In: the choice; the same with
gradients (`linear`); and bound to operands (`Product`). Not in: activations.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast, final

import torch
from torch import Tensor

LARGE = 1 << 21
"""Multiplications from which oneDNN is the faster; below, what a call of it costs is more than it gains."""


def _beyond_mkl() -> bool:
    """Whether oneDNN is the faster here: an AMD processor with AVX-512, and a torch that has oneDNN."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    place = Path("/proc/cpuinfo")
    return place.is_file() and "AuthenticAMD" in place.read_text() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


_ONEDNN = _beyond_mkl()
_linear: Any = torch.ops.mkldnn._linear_pointwise.default if _ONEDNN else None
"""(x [m, k], y [n, k], bias [n], activation and its arguments) -> x y^T + bias."""


def onednn(x: Tensor, columns: int) -> bool:
    """Whether the product of x [..., m, k] with k rows of `columns` numbers is oneDNN's."""
    return (
        _ONEDNN and x.dtype == torch.float32 and x.device.type == "cpu" and x.shape[-2] * x.shape[-1] * columns >= LARGE
    )


def product(x: Tensor, y: Tensor, bias: Tensor | None = None) -> Tensor:
    """x y + bias of each pair: x [G, m, k], y [G, k, n], bias [G, 1, n]; transposed views are as fast. No gradient."""
    if not onednn(x, y.shape[2]):
        return torch.bmm(x, y) if bias is None else torch.baddbmm(bias, x, y)
    found = [multiply() for multiply in _pairs(x, y, bias, "none")]
    return found[0].unsqueeze(0) if len(found) == 1 else torch.stack(found)


def _pairs(x: Tensor, y: Tensor, bias: Tensor | None, after: str) -> list[Callable[[], Tensor]]:
    """oneDNN's product of each pair, with what it does after, "none" or "relu"."""
    return [
        partial(_linear, x[g], y[g].t(), None if bias is None else bias[g, 0], after, [], "") for g in range(len(x))
    ]


@final
class Product:
    """x y + bias written to `out` [G, m, n] at each call, for operands that stay where they are in memory.

    What the operands are seen through is made once: for a network of 256 units that takes as long as the arithmetic of
    a small layer. relu: max(., 0) of it. x, y, bias: as in `product`. No gradient.
    """

    def __init__(self, x: Tensor, y: Tensor, out: Tensor, bias: Tensor | None = None, *, relu: bool = False) -> None:
        self._stages: list[Callable[[], Tensor]]
        if onednn(x, y.shape[2]):
            pairs = _pairs(x, y, bias, "relu" if relu else "none")
            self._stages = [partial(_fill, room, pair) for room, pair in zip(out.unbind(), pairs, strict=True)]
            return
        if len(out) == 1:  # a product of two matrices costs less than a batch of one
            whole = partial(torch.mm, x[0], y[0]) if bias is None else partial(torch.addmm, bias[0], x[0], y[0])
            self._stages = [partial(whole, out=out[0])]
        else:
            whole = partial(torch.bmm, x, y) if bias is None else partial(torch.baddbmm, bias, x, y)
            self._stages = [partial(whole, out=out)]
        if relu:
            self._stages.append(partial(torch.relu_, out))

    def __call__(self) -> None:
        for stage in self._stages:
            stage()


def _fill(room: Tensor, multiply: Callable[[], Tensor]) -> Tensor:
    return room.copy_(multiply())


class _Product(torch.autograd.Function):
    """`product` with gradients, which are products themselves: differentiable as often as asked."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.biased = bias is not None
        return product(x, y, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (rate,), (x, y) = gradients, ctx.saved_tensors
        left, right, below = ctx.needs_input_grad
        return (
            _with_gradient(rate, y.transpose(1, 2)) if left else None,
            _with_gradient(x.transpose(1, 2), rate) if right else None,
            rate.sum(1, keepdim=True) if ctx.biased and below else None,
        )


def _with_gradient(x: Tensor, y: Tensor) -> Tensor:
    return cast(Tensor, _Product.apply(x, y, None))  # type: ignore[no-untyped-call]


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x weight + bias for x [G, B, in], weight [G, in, out], bias [G, 1, out], with gradients."""
    if not onednn(x, weight.shape[2]):
        return torch.baddbmm(bias, x, weight)
    return cast(Tensor, _Product.apply(x, weight, bias))  # type: ignore[no-untyped-call]
