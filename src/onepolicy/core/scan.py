"""The one recurrence behind returns, GAE, V-trace and TD(lambda): y_t = a_t + b_t * y_{t+1}.

Two families of the same results. On a CPU without gradient: a loop over time, in numpy for short sequences and
compiled by numba for long ones. With gradient or on a GPU, where each operation is a node of the graph or a kernel
launch: a plain loop for the shortest, log-step doubling beyond. What to put into a and b is in returns.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

from onepolicy.errors import DataError

SHORT = 8
"""Steps up to which a plain loop over time beats log-step doubling (both run as torch operations)."""
COMPILED_FROM = 128
"""Steps from which the compiled loop is used: below, it saves less than a millisecond a call and is not worth the
second that loading the compiler takes, once per process."""


def reverse_scan(a: Tensor, b: Tensor, init: Tensor | float = 0.0) -> Tensor:
    """Solution of y_t = a_t + b_t * y_{t+1}, backwards from y_T = init.

    a, b [..., T]: offset and factor, time last, broadcast against each other. init [...] or a number: what follows
    the last step. Both a and b must be finite, also where b_t = 0 cuts the recurrence.
    Returns: y [..., T], differentiable in a, b and init.
    Raises: DataError for tensors without a time axis or of integer dtype.
    Source: Blelloch 1990, Prefix sums and their applications, section 1.4.

    >>> import torch
    >>> reverse_scan(torch.tensor([1.0, 1.0, 1.0]), torch.tensor([0.5, 0.0, 0.5]), 4.0)
    tensor([1.5000, 1.0000, 3.0000])
    """
    if a.dim() == 0 or not a.is_floating_point():
        raise DataError(f"a has shape {tuple(a.shape)} and dtype {a.dtype}; it needs a time axis and a float dtype.")
    if a.shape != b.shape:
        a, b = torch.broadcast_tensors(a, b)
    if a.numel() == 0:
        return a + b
    start = init if isinstance(init, Tensor) else a.new_full((), init)
    if start.shape != a.shape[:-1]:
        start = start.expand(a.shape[:-1])
    grad = torch.is_grad_enabled() and (a.requires_grad or b.requires_grad or start.requires_grad)
    if not grad and a.device.type == "cpu" and a.dtype in (torch.float32, torch.float64):
        return _array_scan(a, b.to(a.dtype), start.to(a.dtype))
    return _loop_scan(a, b, start) if a.shape[-1] <= SHORT else _doubling_scan(a, b, start)


def _loop_scan(a: Tensor, b: Tensor, init: Tensor) -> Tensor:
    """T torch operations in sequence: least work, most calls."""
    y, out = init, []
    for a_t, b_t in zip(reversed(a.unbind(-1)), reversed(b.unbind(-1))):
        y = a_t + b_t * y
        out.append(y)
    return torch.stack(out[::-1], dim=-1)


def _doubling_scan(a: Tensor, b: Tensor, init: Tensor) -> Tensor:
    """log2(T) rounds; after the round of width s, (a_t, b_t) stands for the composition of steps t .. t+2s-1."""
    last = a[..., -1] + b[..., -1] * init
    a = torch.cat([a[..., :-1], last.unsqueeze(-1)], dim=-1)
    width = 1
    while width < a.shape[-1]:
        head, tail = a[..., :-width], a[..., -width:]
        a = torch.cat([head + b[..., :-width] * a[..., width:], tail], dim=-1)
        b = torch.cat([b[..., :-width] * b[..., width:], b[..., -width:]], dim=-1)
        width *= 2
    return a


def _array_scan(a: Tensor, b: Tensor, init: Tensor) -> Tensor:
    """The loop over time on numpy views; inputs are detached, made contiguous and left unchanged."""
    steps = a.shape[-1]
    y = torch.empty(a.shape, dtype=a.dtype)
    rows = [x.detach().contiguous().view(-1, steps).numpy() for x in (a, b, y)]
    scan = _scan_columns if steps < COMPILED_FROM else _compiled_scan()
    scan(rows[0], rows[1], init.detach().contiguous().view(-1).numpy(), rows[2])
    return y


def _scan_columns(a: np.ndarray, b: np.ndarray, init: np.ndarray, y: np.ndarray) -> None:
    following = init
    for t in range(a.shape[1] - 1, -1, -1):
        following = a[:, t] + b[:, t] * following
        y[:, t] = following


def _scan_rows(a: np.ndarray, b: np.ndarray, init: np.ndarray, y: np.ndarray) -> None:
    for row in range(a.shape[0]):
        following = init[row]
        for t in range(a.shape[1] - 1, -1, -1):
            following = a[row, t] + b[row, t] * following
            y[row, t] = following


@cache
def _compiled_scan() -> Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]:
    """`_scan_rows` as machine code. numba is imported on first use; the code is kept on disk beside this file,
    or in the user's cache directory, or, where neither can be written, only in memory."""
    import numba

    try:
        return numba.njit(cache=True)(_scan_rows)
    except RuntimeError:
        return numba.njit(_scan_rows)
