"""Products of stacked matrices, [G, m, k] by [G, k, n], by the faster of two libraries that torch brings along.

torch's float32 products are MKL's, which on AMD's processors keeps to AVX2; oneDNN uses AVX-512 there, for 1.5 to 2.2
times the speed from some millions of multiplications on (measured on Zen 5; docs/log.md). The choice depends on the
processor and the shape alone, never on a clock, so that a run repeats itself. In: the choice; the same with
gradients (`affine`). Not in: activations.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

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


def product(x: Tensor, y: Tensor, bias: Tensor | None = None, out: Tensor | None = None) -> Tensor:
    """x y + bias of each pair: x [G, m, k], y [G, k, n], bias [G, 1, n]; transposed views are as fast. No gradient.

    out: room for it, [G, m, n], which MKL's product is written to; oneDNN's is a new tensor.
    """
    if not onednn(x, y.shape[2]):
        if bias is None:
            return torch.bmm(x, y) if out is None else torch.bmm(x, y, out=out)
        return torch.baddbmm(bias, x, y) if out is None else torch.baddbmm(bias, x, y, out=out)
    if len(x) == 1:
        alone = _linear(x[0], y[0].t(), None if bias is None else bias[0, 0], "none", [], "")
        return cast(Tensor, alone).unsqueeze(0)
    return torch.stack(
        [_linear(x[g], y[g].t(), None if bias is None else bias[g, 0], "none", [], "") for g in range(len(x))]
    )


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


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x weight + bias for x [G, B, in], weight [G, in, out], bias [G, 1, out], with gradients."""
    if not onednn(x, weight.shape[2]):
        return torch.baddbmm(bias, x, weight)
    return cast(Tensor, _Product.apply(x, weight, bias))  # type: ignore[no-untyped-call]
